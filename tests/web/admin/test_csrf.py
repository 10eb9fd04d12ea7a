"""The CSRF check: whose requests may change something."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.web.test.requesthelper import DummyRequest

from proxpi.web.admin import csrf


def request(fields: dict[str, str]) -> DummyRequest:
    """Make a request with these header fields."""
    made = DummyRequest([b""])
    for name, value in fields.items():
        made.requestHeaders.addRawHeader(name, value)
    return made


TLS_ENDS_BEFORE = {"Origin": "https://tls.example", "Host": "inside:80"}
SAME_HOST = {"Origin": "http://h.example", "Host": "h.example"}


@pytest.mark.parametrize(
    ("fields", "cross_site"),
    [
        ({}, False),
        ({"Host": "proxpi.example:5000"}, False),
        *(
            ({"Sec-Fetch-Site": relation, **TLS_ENDS_BEFORE}, False)
            for relation in ("same-origin", "none", "Same-Origin", " none ")
        ),
        *(
            ({"Sec-Fetch-Site": relation, **SAME_HOST}, True)
            for relation in ("cross-site", "same-site", "", "junk")
        ),
        *(
            ({"Origin": origin, "Host": host}, False)
            for origin, host in (
                ("http://h.example:5000", "h.example:5000"),
                ("http://H.Example:5000", "h.eXample:5000"),
                ("http://h.example", "h.example:80"),
                ("http://h.example:80", "h.example"),
                ("https://h.example", "h.example:443"),
                ("http://[::1]:5000", "[::1]:5000"),
                (" http://127.0.0.1:5000 ", "127.0.0.1:5000"),
            )
        ),
        *(
            ({"Origin": origin, "Host": host}, True)
            for origin, host in (
                ("http://evil.example", "h.example"),
                ("http://h.example.evil.example", "h.example"),
                ("http://h.example:5001", "h.example:5000"),
                ("http://h.example", "h.example:5000"),
                ("http://h.example:5000", "h.example"),
                ("https://h.example", "h.example:80"),
                ("null", "null"),
                ("", "h.example"),
                ("http://", ""),
                ("http://h.example:port", "h.example"),
                ("http://h.example:99999", "h.example:99999"),
                ("http://[::1", "[::1"),
                ("file://", "h.example"),
                ("http://h.example", "h.example:5000@evil"),
            )
        ),
        ({"Origin": "http://h.example"}, True),
    ],
)
def test_cross_site(fields: dict[str, str], cross_site: bool) -> None:
    """``Sec-Fetch-Site`` decides; without it ``Origin`` must have the host and port of ``Host``."""
    assert csrf.is_cross_site(request(fields)) is cross_site  # type: ignore[arg-type]
    from_browser = "Origin" in fields or "Sec-Fetch-Site" in fields
    assert csrf.is_from_browser(request(fields)) is from_browser  # type: ignore[arg-type]


KNOWN = (
    *("127.0.0.1", "127.0.0.1:5000", "192.0.2.7:80", "[::1]", "[::1]:5000", "[2001:db8::1]:1"),
    *("localhost", "LOCALHOST:5000", "localhost.", "x.localhost:1", "proxpi", "proxpi:5000"),
    *("Proxpi.Example", "proxpi.example.:5000", "box.lan"),
)
UNKNOWN = (
    *("", ":5000", "evil.example", "evil.example:5000", "127.0.0.1.evil.example", "127.1.", "[x"),
    *("x.proxpi.example", "proxpi.example.evil", "localhost.evil.example", "1.2.3.4.5", ".", "..x"),
    *("notlocalhost.example", "proxpi.example..", "box.lan.evil.example"),
)


@pytest.mark.parametrize("host", [*KNOWN, *UNKNOWN, None])
def test_known_host(host: str | None) -> None:
    """Addresses, names without a dot, ``localhost`` and the set names are known, others are not."""
    fields = {} if host is None else {"Host": host}
    names = {"proxpi.example", "box.lan"}
    assert csrf.is_known_host(request(fields), names) is (host in KNOWN)  # type: ignore[arg-type]


def test_machine_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine's names are its host name, and those beside it in the file of hosts."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n10.0.0.5 Box.Lan box other # x.y\n10.0.0.6 not.lan\n")
    monkeypatch.setattr(csrf, "_HOSTS", hosts)
    monkeypatch.setattr("socket.gethostname", lambda: "Box")
    assert csrf.machine_names() == {"box", "box.lan", "other"}
    monkeypatch.setattr(csrf, "_HOSTS", tmp_path / "none")
    assert csrf.machine_names() == {"box"}
