"""Whose requests may change something."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.web.test.requesthelper import DummyRequest

from proxpi.web.admin import csrf
from proxpi.web.admin.csrf import is_cross_site, is_from_browser, is_known_host, machine_names


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


def host_is_known(host: str | None) -> bool:
    """Tell whether a browser may change something under a name."""
    request = DummyRequest([b""])
    if host is not None:
        request.requestHeaders.addRawHeader("Host", host)
    return is_known_host(request, {"proxpi.example", "box.lan"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:5000", "192.0.2.7:80", "[::1]", "[::1]:5000", "[2001:db8::1]:1"]
    + ["localhost", "LOCALHOST:5000", "localhost.", "x.localhost:1", "proxpi", "proxpi:5000"]
    + ["Proxpi.Example", "proxpi.example.:5000", "box.lan"],
)
def test_known_host(host: str) -> None:
    """Addresses, names without a dot, ``localhost``, and the names that are given are known."""
    assert host_is_known(host)


@pytest.mark.parametrize(
    "host",
    [None, "", ":5000", "evil.example", "evil.example:5000", "127.0.0.1.evil.example", "127.1."]
    + ["x.proxpi.example", "proxpi.example.evil", "localhost.evil.example", "1.2.3.4.5", ".", "..x"]
    + ["notlocalhost.example", "proxpi.example..", "box.lan.evil.example", "[x"],
)
def test_strange_host(host: str | None) -> None:
    """Any other name may have been made to lead here."""
    assert not host_is_known(host)


def test_of_browser() -> None:
    """A browser tells where a change comes from, in one field or the other."""
    for fields, expected in (
        ({}, False),
        ({"Origin": "null"}, True),
        ({"Sec-Fetch-Site": "x"}, True),
    ):
        request = DummyRequest([b""])
        for name, value in fields.items():
            request.requestHeaders.addRawHeader(name, value)
        assert is_from_browser(request) is expected  # type: ignore[arg-type]


def test_machine_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine's names are its host name, and those beside it in the file of hosts."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n10.0.0.5 Box.Lan box other # x.y\n10.0.0.6 not.lan\n")
    monkeypatch.setattr(csrf, "_HOSTS", hosts)
    monkeypatch.setattr("socket.gethostname", lambda: "Box")
    assert machine_names() == {"box", "box.lan", "other"}
    monkeypatch.setattr(csrf, "_HOSTS", tmp_path / "none")
    assert machine_names() == {"box"}
