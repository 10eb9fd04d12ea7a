"""Whose requests may change something."""

from __future__ import annotations

import pytest
from twisted.web.test.requesthelper import DummyRequest

from proxpi.web.origin import is_cross_site


def crossing(**headers: str) -> bool:
    """Tell whether a request with these fields comes from another site."""
    request = DummyRequest([b""])
    for name, value in headers.items():
        request.requestHeaders.addRawHeader(name.replace("_", "-"), value)
    return is_cross_site(request)  # type: ignore[arg-type]


def test_no_browser() -> None:
    """Who sends neither field is no browser."""
    assert not crossing()
    assert not crossing(Host="proxpi.example:5000")


@pytest.mark.parametrize("relation", ["same-origin", "none", "Same-Origin", " none "])
def test_own_page(relation: str) -> None:
    """The browser's own word is believed, whatever the origin looks like from here."""
    assert not crossing(Sec_Fetch_Site=relation)
    assert not crossing(Sec_Fetch_Site=relation, Origin="https://tls.example", Host="inside:80")


@pytest.mark.parametrize("relation", ["cross-site", "same-site", "", "junk"])
def test_other_page(relation: str) -> None:
    """Any other word is a refusal, even if the origin seems right."""
    assert crossing(Sec_Fetch_Site=relation, Origin="http://h.example", Host="h.example")


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://h.example:5000", "h.example:5000"),
        ("http://H.Example:5000", "h.eXample:5000"),
        ("http://h.example", "h.example"),
        ("http://h.example", "h.example:80"),
        ("http://h.example:80", "h.example"),
        ("https://h.example", "h.example"),
        ("https://h.example", "h.example:443"),
        ("http://[::1]:5000", "[::1]:5000"),
        (" http://127.0.0.1:5000 ", "127.0.0.1:5000"),
    ],
)
def test_same_origin(origin: str, host: str) -> None:
    """An older browser's origin with the host and port of this request is this site."""
    assert not crossing(Origin=origin, Host=host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://evil.example", "h.example"),
        ("http://h.example.evil.example", "h.example"),
        ("http://h.example:5001", "h.example:5000"),
        ("http://h.example", "h.example:5000"),
        ("http://h.example:5000", "h.example"),
        ("https://h.example", "h.example:80"),
        ("null", "h.example"),
        ("null", "null"),
        ("", "h.example"),
        ("http://", ""),
        ("http://h.example:port", "h.example"),
        ("http://h.example:99999", "h.example:99999"),
        ("http://[::1", "[::1"),
        ("file://", "h.example"),
        ("http://h.example", "h.example:5000@evil"),
    ],
)
def test_other_origin(origin: str, host: str) -> None:
    """Another host, another port, or what cannot be read, is another site."""
    assert crossing(Origin=origin, Host=host)


def test_origin_without_host() -> None:
    """An origin that cannot be compared is another site's."""
    assert crossing(Origin="http://h.example")
