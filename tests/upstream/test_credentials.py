"""Credentials: taken from index URLs, and given to their own origin alone."""

from __future__ import annotations

import base64

import pytest

from proxpi.simple import urls
from proxpi.simple.urls import URL
from proxpi.upstream.credentials import Credentials, Netrc

INDEX = "https://user:pass%20word@index.example/simple/"
EXPECTED = b"Basic " + base64.b64encode(b"user:pass word")


@pytest.mark.parametrize(
    "url",
    [
        "https://index.example/simple/demo/",
        "https://index.example:443/files/demo.whl",
        "https://INDEX.example/",
        "https://other:pair@index.example/",
    ],
)
def test_own_origin(url: str) -> None:
    """Whatever lives on the origin of the index gets its credentials."""
    assert Credentials.gather([INDEX]).header_for(URL.parse(url)) == EXPECTED


@pytest.mark.parametrize(
    "url",
    [
        "http://index.example/simple/",
        "https://index.example:8443/simple/",
        "https://files.index.example/",
        "https://example/",
        "https://index.example.evil/",
        "https://index.example@evil.example/",
        "https://user:pass%20word@evil.example/",
    ],
)
def test_other_origins(url: str) -> None:
    """Another scheme, host or port gets none, not even those in its own URL."""
    assert Credentials.gather([INDEX]).header_for(URL.parse(url)) is None


def test_without_credentials() -> None:
    """An index without user and password is asked without."""
    credentials = Credentials.gather(["https://index.example/simple/"])
    assert credentials.header_for(URL.parse("https://index.example/simple/")) is None


def test_a_neighbor_without() -> None:
    """An index without credentials is not sent those of the other one on its origin."""
    credentials = Credentials.gather(["https://a:1@index.example/a/", "https://index.example/b/"])
    for path, given in (("a/demo/", True), ("files/x.whl", True), ("b/demo/", False)):
        assert (
            credentials.header_for(URL.parse(f"https://index.example/{path}")) is not None
        ) == given


def test_two_on_one_origin() -> None:
    """Each of two indexes on one origin has its own; for what is of neither the first's hold."""
    index_urls = ["https://a:1@index.example/one/", "https://b:2@index.example/one/two/"]
    credentials = Credentials.gather(index_urls)
    for path, pair in (
        ("one/demo/", b"a:1"),
        ("one/two/demo/", b"b:2"),
        ("one/two-and-more/", b"a:1"),
        ("files/x", b"a:1"),
    ):
        header = credentials.header_for(URL.parse(f"https://index.example/{path}"))
        assert header == b"Basic " + base64.b64encode(pair)


@pytest.mark.parametrize(
    ("userinfo", "pair"),
    [("token@", b"token:"), (":secret@", b":secret"), ("us%40er:p%3Aw@", b"us@er:p:w")],
)
def test_odd_pairs(userinfo: str, pair: bytes) -> None:
    """A user or a password alone is a pair as well, and both are percent-decoded."""
    url = f"https://{userinfo}index.example/"
    assert Credentials.gather([url]).header_for(URL.parse(url)) == b"Basic " + base64.b64encode(
        pair
    )


def test_beyond_ascii() -> None:
    """User and password go out in UTF-8."""
    url = "https://us%C3%A9r:p%C3%A4ss@index.example/"
    expected = b"Basic " + base64.b64encode("usér:päss".encode())
    assert Credentials.gather([url]).header_for(URL.parse(url)) == expected


def test_repr() -> None:
    """Nothing that is logged shows them."""
    shown = repr(Credentials.gather([INDEX]))
    assert "word" not in shown
    assert EXPECTED.decode() not in shown


def basic(pair: str) -> bytes:
    """Give the header for user and password."""
    return b"Basic " + base64.b64encode(pair.encode())


NETRC = Netrc(
    {"index.example": ("net", "rc"), "files.example": ("f", "g"), "::1": ("six", "s")},
    ("any", "body"),
)


def header(url: str, *index_urls: str) -> bytes | None:
    """Give what a URL is asked with, where netrc has logins."""
    return Credentials.gather(index_urls, NETRC).header_for(URL.parse(url))


def test_netrc_comes_second() -> None:
    """What the index's URL holds goes before what netrc has for its host."""
    assert header("https://index.example/simple/", INDEX) == EXPECTED
    bare = "https://index.example/simple/"
    assert header(bare, bare) == basic("net:rc")


def test_netrc_by_host() -> None:
    """A host that netrc names gets its login, at any port, whoever leads there."""
    for url, pair in [
        ("https://files.example/a.whl", "f:g"),
        ("https://FILES.example:8443/a.whl", "f:g"),
        ("https://index.example:8443/a.whl", "net:rc"),
        ("https://[::1]:8443/a.whl", "six:s"),
    ]:
        assert header(url, INDEX) == basic(pair)
    assert header("https://sub.files.example/a.whl", INDEX) is None


def test_netrc_default() -> None:
    """What netrc has for any host goes to indexes alone: anyone can be linked or redirected to."""
    other = "https://other.example/simple/"
    assert header(other, other) == basic("any:body")
    assert header("https://other.example:8443/simple/", other) is None
    assert header("https://elsewhere.example/a.whl", other) is None


def test_netrc_in_clear() -> None:
    """Netrc knows no schemes: its logins go over http only where an index is asked so anyway."""
    url = "http://files.example/a.whl"
    assert header(url, INDEX) is None
    assert header(url, INDEX, "http://plain.example/simple/") == basic("f:g")


@pytest.mark.parametrize(
    ("user", "pair"),
    [("net@", "net:rc"), ("net:@", "net:rc"), ("token@", "token:"), ("net:own@", "net:own")],
)
def test_password_from_netrc(user: str, pair: str) -> None:
    """A user without a password gets that which netrc has for this user; a token stays alone."""
    url = f"https://{user}index.example/simple/"
    assert header(url, url) == basic(pair)


def test_two_on_one_origin_with_netrc() -> None:
    """An index without credentials beside one that has some gets those of netrc."""
    index_urls = ["https://a:1@index.example/one/", "https://index.example/two/"]
    assert header("https://index.example/one/demo/", *index_urls) == basic("a:1")
    assert header("https://index.example/two/demo/", *index_urls) == basic("net:rc")


def test_client_certificate() -> None:
    """It is shown to indexes and to hosts that netrc names; what lies there is behind it."""
    index = "https://index.example/simple/"
    credentials = Credentials.gather(
        [index], Netrc({"files.example": ("f", "g")}), certificate=True
    )
    shown = {
        "https://index.example/simple/demo/": True,
        "https://index.example:8443/": False,
        "http://index.example/": False,
        "https://files.example/": True,
        "https://other.example/": False,
    }
    for url, expected in shown.items():
        assert credentials.certificate_for(urls.origin(url)) is expected
        assert credentials.protects(url) is expected


def test_guard() -> None:
    """Without a client certificate only what has credentials is behind any."""
    credentials = Credentials.gather([INDEX, "https://open.example/"], Netrc())
    assert credentials.protects("https://index.example/file")
    assert not credentials.protects("https://open.example/file")
    assert not credentials.certificate_for(urls.origin(INDEX))
