"""Credentials: taken from index URLs, and given to their own origin alone."""

from __future__ import annotations

import base64

import pytest

from proxpi.upstream.credentials import Credentials

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
    assert Credentials.gather([INDEX]).header_for(url) == EXPECTED


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
    assert Credentials.gather([INDEX]).header_for(url) is None


def test_without_credentials() -> None:
    """An index without user and password is asked without."""
    credentials = Credentials.gather(["https://index.example/simple/"])
    assert credentials.header_for("https://index.example/simple/") is None


def test_two_on_one_origin() -> None:
    """Each of two indexes on one origin has its own; for what is of neither the first's hold."""
    urls = ["https://a:1@index.example/one/", "https://b:2@index.example/one/two/"]
    credentials = Credentials.gather(urls)
    for path, pair in (
        ("one/demo/", b"a:1"),
        ("one/two/demo/", b"b:2"),
        ("one/two-and-more/", b"a:1"),
        ("files/x", b"a:1"),
    ):
        header = credentials.header_for(f"https://index.example/{path}")
        assert header == b"Basic " + base64.b64encode(pair)


@pytest.mark.parametrize(
    ("userinfo", "pair"),
    [("token@", b"token:"), (":secret@", b":secret"), ("us%40er:p%3Aw@", b"us@er:p:w")],
)
def test_odd_pairs(userinfo: str, pair: bytes) -> None:
    """A user or a password alone is a pair as well, and both are percent-decoded."""
    url = f"https://{userinfo}index.example/"
    assert Credentials.gather([url]).header_for(url) == b"Basic " + base64.b64encode(pair)


def test_beyond_ascii() -> None:
    """User and password go out in UTF-8."""
    url = "https://us%C3%A9r:p%C3%A4ss@index.example/"
    expected = b"Basic " + base64.b64encode("usér:päss".encode())
    assert Credentials.gather([url]).header_for(url) == expected


def test_repr() -> None:
    """Nothing that is logged shows them."""
    shown = repr(Credentials.gather([INDEX]))
    assert "word" not in shown
    assert EXPECTED.decode() not in shown
