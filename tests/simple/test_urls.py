"""URLs: joined as browsers and installers join them, kept to the byte, without credentials."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import quote, urljoin

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxpi.simple import urls
from tests.support.strategies import deterministic

PAGE = "https://index.example/simple/foo/"
CASES: dict[str, tuple[Callable[[str], Any], dict[str, Any]]] = {
    "join": (
        partial(urls.join, PAGE),
        {
            "  http://files.example/\n f.whl\t": "http://files.example/%20f.whl",
            "f.whl?sig=a%2Fb+c&x=": "https://index.example/simple/foo/f.whl?sig=a%2Fb+c&x=",
            "http://files.example/a//b/../c.whl?": "http://files.example/a//b/../c.whl?",
            "mailto:someone@host.example": "mailto:someone@host.example",
        },
    ),
    "public": (
        urls.public,
        {
            "https://index.example/simple/": "https://index.example/simple/",
            "https://user:secret@index.example/simple/#x": "https://index.example/simple/",
            "https://secret@h.example:8443/a?b=c@d#secret": "https://h.example:8443/a?b=c@d",
            "https://user:se@cret@index.example/": "https://index.example/",
            "https://index.example/@scope/x": "https://index.example/@scope/x",
            "https://user:se/cret@index.example/": "index.example/",
            "https://user:se?cret@index.example/": "index.example/",
            "https://user:se#cret@index.example/#x": "index.example/",
            "user:secret@index.example/x": "index.example/x",
            "//user:secret@index.example/x": "index.example/x",
            "ftp://user:secret@index.example/x": "index.example/x",
            "ht\ntp://user:secret@index.example/x": "index.example/x",
            " https://user:secret@index.example/x": "index.example/x",
            "https://user:secret@[bad/x": "[bad/x",
            "https://user:secret@": "",
            "https://user:/secret@index.example/x": "index.example/x",
            "https://user:sec\\ret@index.example/": "index.example/",
            "nonsense": "nonsense",
            "": "",
        },
    ),
    "loggable": (
        urls.loggable,
        {"https://u:p@h/a/x.whl?X-Signature=secret#f": "https://h/a/x.whl"},
    ),
    "redacted": (
        urls.redacted,
        {
            "https://user:secret@index.example/": "https://***@index.example/",
            "https://u:s@a.example/,http://v:s@b.example/": "https://***@b.example/",
            "user:secret@index.example": "***@index.example",
            " https://us:se\ncret@@index.example/": " https://***@index.example/",
            "https://index.example/simple/?token=secret": "https://index.example/simple/?***",
            "https://u:s?t@a.example/x?token=secret": "https://***@a.example/x?***",
            "nothing to hide": "nothing to hide",
            "nothing to hide?": "nothing to hide?",
        },
    ),
    "origin": (
        urls.origin,
        {
            "HTTP://Index.Example/x": ("http", "index.example", 80),
            "https://user:p@index.example": ("https", "index.example", 443),
            "https://index.example:8443/x": ("https", "index.example", 8443),
            "http://[::1]:8080/": ("http", "::1", 8080),
            "http://index.example:/x": ("http", "index.example", 80),
        },
    ),
    "filename": (
        urls.filename,
        {
            "https://h.example/a%252Fb": "a%2Fb",
            **dict.fromkeys(["https://h.example/dir/", "https://h.example", "//h.example"], ""),
            **dict.fromkeys(["https://h.example?x=/y", "?C=N;O=D", ""], ""),
            "f.whl": "f.whl",
            "a/f+1.whl": "f+1.whl",
        },
    ),
    "with_suffix": (
        lambda url: urls.with_suffix(url, ".metadata"),
        {
            "https://h.example/f.whl": "https://h.example/f.whl.metadata",
            "https://h.example/f.whl?a=b#c": "https://h.example/f.whl.metadata?a=b#c",
            "https://h.example/f.whl#c?d": "https://h.example/f.whl.metadata#c?d",
        },
    ),
    "userinfo": (
        urls.userinfo,
        {
            **dict.fromkeys(["https://h.example/a@b", "nonsense@h.example"]),
            "https://token@h.example/": ("token", ""),
            "https://a:b:c@h.example/": ("a", "b:c"),
            "https://@h.example/": ("", ""),
        },
    ),
    "without_fragment": (
        urls.without_fragment,
        {"https://h.example/f?a=b#c#d": "https://h.example/f?a=b", "f%23.whl": "f%23.whl"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_cases(name: str) -> None:
    """Each function gives what its table says."""
    function, cases = CASES[name]
    assert {url: function(url) for url in cases} == cases


@deterministic
@given(st.text("abc/.?=%2B&+~!:@", max_size=15))
def test_join_agrees_with_the_standard_library(ref: str) -> None:
    """For plain links the result is that of ``urljoin``, which installers use."""
    assert urls.join(PAGE, ref) == urljoin(PAGE, ref)


@deterministic
@given(
    st.sampled_from(["https://", "http://", "HTTP://", "//", "", "ftp://", "http:\n//", "x"]),
    st.text("abc%/?#:@\\ \n[é", max_size=8),
    st.sampled_from(["@host.example/p", "@host.example:80/p?q", "@[::1]/", "@", "@host:bad/"]),
)
@example("https://", "/", "@host.example/p")
def test_password(scheme: str, noise: str, rest: str) -> None:
    """A password that stands before the last ``@`` of an authority is in no public form."""
    assert "SECRET" not in urls.public(f"{scheme}user:{noise}SECRET{rest}")


@pytest.mark.parametrize(
    "url",
    [
        *("", "index.example", "//index.example/", "ftp://index.example/", "http://", "http:///x"),
        *("https:index.example", "http://host:port/", "http://host:99999/", "http://[::1/"),
        *("file:///x", "http://a b/", "http://a\nb/", "http://good.example\\@bad.example/"),
        *("http://a<b>/", "http://:80/", "http://[bad/f.whl"),
    ],
)
def test_no_server(url: str) -> None:
    """Only the URL of an http or https server has an origin."""
    with pytest.raises(ValueError, match=r"server|port|Port|IPv6"):
        urls.origin(url)


@deterministic
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=10))
def test_filename(name: str) -> None:
    """The last segment is percent-decoded once, before any query and fragment."""
    assert urls.filename(f"https://h.example/a%2Fb/{quote(name, safe='')}?c=d/e#f/g") == name


@deterministic
@given(st.text("ab:@/%é", max_size=6), st.text("ab:@/%é", max_size=6))
def test_userinfo(user: str, password: str) -> None:
    """User and password are percent-decoded."""
    url = f"https://{quote(user, safe='')}:{quote(password, safe='')}@h.example/x"
    assert urls.userinfo(url) == (user, password)


def test_url_value() -> None:
    """A parsed URL has an origin and a path, and follows a redirect; `repr` hides a password."""
    url = urls.URL.parse("https://user:secret@index.example/simple/?a#b")
    assert (url.origin, url.path) == (("https", "index.example", 443), "/simple/")
    assert url.public == "https://index.example/simple/?a"
    assert "secret" not in repr(url)
    assert url.join("//h.example/f%2B.whl") == urls.URL.parse("https://h.example/f%2B.whl")
    for link in ("ftp://index.example/", "//[bad/f.whl"):
        with pytest.raises(ValueError, match=r"server|IPv6"):
            url.join(link)
