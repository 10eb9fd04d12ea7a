"""URLs: joined as browsers and installers join them, kept to the byte, without credentials."""

from __future__ import annotations

from urllib.parse import quote, unquote, urljoin

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxpi.simple import urls
from tests.support.strategies import deterministic

PAGE = "https://index.example/simple/foo/"


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("foo-1.0.whl", "https://index.example/simple/foo/foo-1.0.whl"),
        ("../../packages/f.whl", "https://index.example/packages/f.whl"),
        ("/packages/f.whl", "https://index.example/packages/f.whl"),
        ("//files.example/f.whl", "https://files.example/f.whl"),
        ("http://files.example/f.whl", "http://files.example/f.whl"),
        ("  http://files.example/\n f.whl\t", "http://files.example/%20f.whl"),
        ("f.whl?sig=a%2Fb+c&x=", "https://index.example/simple/foo/f.whl?sig=a%2Fb+c&x="),
        ("http://files.example/a//b/../c.whl?", "http://files.example/a//b/../c.whl?"),
        ("é 1.whl", "https://index.example/simple/foo/%C3%A9%201.whl"),
        ("mailto:someone@host.example", "mailto:someone@host.example"),
    ],
)
def test_join(ref: str, expected: str) -> None:
    """Every kind of link is resolved against the page, and quoted only where it must be."""
    assert urls.join(PAGE, ref) == expected


@deterministic
@given(st.text("abc/.?=%2B&+~!:@", max_size=15))
def test_join_agrees_with_the_standard_library(ref: str) -> None:
    """For plain links the result is that of ``urljoin``, which installers use."""
    assert urls.join(PAGE, ref) == urljoin(PAGE, ref)


def test_join_refuses_what_cannot_be_joined() -> None:
    """A broken address is a ValueError, the only error of the function."""
    with pytest.raises(ValueError, match="IPv6"):
        urls.join(PAGE, "//[bad/f.whl")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://index.example/simple/", "https://index.example/simple/"),
        ("https://user:secret@index.example/simple/#x", "https://index.example/simple/"),
        ("https://secret@index.example:8443/a?b=c@d#secret", "https://index.example:8443/a?b=c@d"),
        ("https://user:se@cret@index.example/", "https://index.example/"),
        ("https://index.example/@scope/x", "https://index.example/@scope/x"),
        ("https://user:se/cret@index.example/", "index.example/"),
        ("https://user:se?cret@index.example/", "index.example/"),
        ("https://user:se#cret@index.example/#x", "index.example/"),
        ("user:secret@index.example/x", "index.example/x"),
        ("//user:secret@index.example/x", "index.example/x"),
        ("ftp://user:secret@index.example/x", "index.example/x"),
        ("ht\ntp://user:secret@index.example/x", "index.example/x"),
        (" https://user:secret@index.example/x", "index.example/x"),
        *(("https://user:secret@[bad/x", "[bad/x"), ("https://user:secret@", "")),
        ("https://user:/secret@index.example/x", "index.example/x"),
        *(("https://user:sec\\ret@index.example/", "index.example/"), ("nonsense", "nonsense")),
        ("", ""),
    ],
)
def test_public(url: str, expected: str) -> None:
    """Credentials and fragments go, whatever the shape of the URL; the rest stays."""
    assert urls.public(url) == expected


@deterministic
@given(
    st.sampled_from(["https://", "http://", "HTTP://", "//", "", "ftp://", "http:\n//", "x"]),
    st.text("abc%/?#:@\\ \n[é", max_size=8),
    st.sampled_from(["@host.example/p", "@host.example:80/p?q", "@[::1]/", "@", "@host:bad/"]),
)
@example("https://", "/", "@host.example/p")
def test_a_password_is_never_public(scheme: str, noise: str, rest: str) -> None:
    """A password that stands before the last ``@`` of an authority is in no public form."""
    assert "SECRET" not in urls.public(f"{scheme}user:{noise}SECRET{rest}")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("HTTP://Index.Example/x", ("http", "index.example", 80)),
        ("https://user:p@index.example", ("https", "index.example", 443)),
        ("https://index.example:8443/x", ("https", "index.example", 8443)),
        ("http://[::1]:8080/", ("http", "::1", 8080)),
        ("http://index.example:/x", ("http", "index.example", 80)),
    ],
)
def test_origin(url: str, expected: tuple[str, str, int]) -> None:
    """Scheme and host are in lower case, and the port is the scheme's own by default."""
    assert urls.origin(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        *("", "index.example", "//index.example/", "ftp://index.example/", "http://", "http:///x"),
        *(
            *("https:index.example", "http://host:port/", "http://host:99999/", "http://[::1/"),
            "file:///x",
        ),
        *(
            *("http://a b/", "http://a\nb/", "http://good.example\\@bad.example/"),
            *("http://a<b>/", "http://:80/"),
        ),
    ],
)
def test_what_has_no_origin(url: str) -> None:
    """What is not the URL of a web server is a ValueError."""
    with pytest.raises(ValueError, match=r"server|port|Port|IPv6"):
        urls.origin(url)


@deterministic
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=10))
def test_filename_is_unquoted_once(name: str) -> None:
    """A quoted last segment comes back, whatever query and fragment follow."""
    assert urls.filename(f"https://h.example/a%2Fb/{quote(name, safe='')}?c=d/e#f/g") == name


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        *(("https://h.example/a%252Fb", "a%2Fb"), ("https://h.example/dir/", "")),
        *(("https://h.example", ""), ("https://h.example?x=/y", ""), ("//h.example", "")),
        *(("f.whl", "f.whl"), ("a/f+1.whl", "f+1.whl"), ("?C=N;O=D", ""), ("", "")),
    ],
)
def test_filename(url: str, expected: str) -> None:
    """The host is no file, a plus stays a plus, and one level of quoting is taken off."""
    assert urls.filename(url) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://h.example/f.whl", "https://h.example/f.whl.metadata"),
        ("https://h.example/f.whl?a=b#c", "https://h.example/f.whl.metadata?a=b#c"),
        ("https://h.example/f.whl#c?d", "https://h.example/f.whl.metadata#c?d"),
    ],
)
def test_with_suffix(url: str, expected: str) -> None:
    """The suffix belongs to the path, not to the query."""
    assert urls.with_suffix(url, ".metadata") == expected


@deterministic
@given(st.text("ab:@/%é", max_size=6), st.text("ab:@/%é", max_size=6))
def test_userinfo_is_decoded(user: str, password: str) -> None:
    """User and password come back as they were before they were quoted into the URL."""
    url = f"https://{quote(user, safe='')}:{quote(password, safe='')}@h.example/x"
    assert urls.userinfo(url) == (user, password)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        *(("https://h.example/a@b", None), ("nonsense@h.example", None)),
        ("https://token@h.example/", ("token", "")),
        *(("https://a:b:c@h.example/", ("a", "b:c")), ("https://@h.example/", ("", ""))),
    ],
)
def test_userinfo(url: str, expected: tuple[str, str] | None) -> None:
    """Only the authority of a URL has credentials; a missing password is empty."""
    assert urls.userinfo(url) == expected


def test_without_fragment() -> None:
    """What follows the first ``#`` goes, the query stays."""
    assert urls.without_fragment("https://h.example/f?a=b#c#d") == "https://h.example/f?a=b"
    assert unquote(urls.without_fragment("f%23.whl")) == "f#.whl"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://user:secret@index.example/", "https://***@index.example/"),
        ("https://u:secret@a.example/,http://v:secret@b.example/", "https://***@b.example/"),
        ("user:secret@index.example", "***@index.example"),
        (" https://us:se\ncret@@index.example/", " https://***@index.example/"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_redacted(text: str, expected: str) -> None:
    """Of what is no URL yet, all that may be a password is hidden."""
    assert urls.redacted(text) == expected


def test_loggable() -> None:
    """Logs and messages have neither credentials nor the query, in which tokens are."""
    assert urls.loggable("https://u:p@h/a/x.whl?X-Signature=secret#f") == "https://h/a/x.whl"


def test_url_value() -> None:
    """A parsed URL has an origin and a path, and follows a redirect; `repr` hides a password."""
    url = urls.URL.parse("https://user:secret@index.example/simple/?a#b")
    assert (url.origin, url.path) == (("https", "index.example", 443), "/simple/")
    assert url.public == "https://index.example/simple/?a"
    assert "secret" not in repr(url)
    assert url.join("//h.example/f%2B.whl") == urls.URL.parse("https://h.example/f%2B.whl")
    with pytest.raises(ValueError, match="server"):
        url.join("ftp://index.example/")
