"""The CSRF check: whose requests may change something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.web.test.requesthelper import DummyRequest

from proxpi.web.admin import csrf
from proxpi.web.forwarded import TrustedProxies


def request(**fields: str | None) -> Any:
    made: Any = DummyRequest([b""])
    for name, value in fields.items():
        if value is not None:
            made.requestHeaders.addRawHeader(name.replace("_", "-"), value)
    made.forwarded = TrustedProxies().read("192.0.2.1", made.requestHeaders)
    return made


OWN = (
    *(("http://h.example:5000", "h.example:5000"), ("http://H.Example:5000", "h.eXample:5000")),
    *(("http://h.example", "h.example:80"), ("http://h.example:80", "h.example")),
    *(("https://h.example", "h.example:443"), ("http://[::1]:5000", "[::1]:5000")),
    *((" http://127.0.0.1:5000 ", "127.0.0.1:5000"), (None, None), (None, "h.example:5000")),
)
OTHERS = (
    *(("http://evil.example", "h.example"), ("http://h.example.evil.example", "h.example")),
    *(("http://h.example:5001", "h.example:5000"), ("http://h.example", "h.example:5000")),
    *(("http://h.example:5000", "h.example"), ("https://h.example", "h.example:80")),
    *(("null", "null"), ("", "h.example"), ("http://", ""), ("http://h.example:port", "h.example")),
    *(("http://h.example:99999", "h.example:99999"), ("http://[::1", "[::1")),
    *(("file://", "h.example"), ("http://h.example", "h.example:5000@evil")),
    ("http://h.example", None),
)


@pytest.mark.parametrize(("origin", "host"), [*OWN, *OTHERS])
def test_cross_site(origin: str | None, host: str | None) -> None:
    """``Sec-Fetch-Site`` decides; without it ``Origin`` must have the host and port of ``Host``."""
    assert csrf.is_cross_site(request(Origin=origin, Host=host)) is ((origin, host) in OTHERS)
    for relation, refused in {
        **dict.fromkeys(["same-origin", "none", "Same-Origin", " none "], False),
        **dict.fromkeys(["cross-site", "same-site", "", "junk"], True),
    }.items():
        fields = {"Sec_Fetch_Site": relation, "Origin": origin, "Host": host}
        assert csrf.is_cross_site(request(**fields)) is refused, relation


KNOWN = (
    *("127.0.0.1", "127.0.0.1:5000", "192.0.2.7:80", "[::1]", "[::1]:5000", "[2001:db8::1]:1"),
    *("localhost", "LOCALHOST:5000", "localhost.", "x.localhost:1", "proxpi", "proxpi:5000"),
    *("Proxpi.Example", "proxpi.example.:5000", "box.lan"),
)
UNKNOWN = (
    *("", ":5000", "evil.example", "evil.example:5000", "127.0.0.1.evil.example", "127.1.", "[x"),
    *("x.proxpi.example", "proxpi.example.evil", "localhost.evil.example", "1.2.3.4.5", ".", "..x"),
    *("notlocalhost.example", "proxpi.example..", "box.lan.evil.example", None),
)


@pytest.mark.parametrize("host", [*KNOWN, *UNKNOWN])
def test_rebound(host: str | None) -> None:
    """No browser may use a name but addresses, those without a dot, ``localhost``, the set ones."""
    names = {"proxpi.example", "box.lan"}
    for field in ("Origin", "Sec_Fetch_Site"):
        assert csrf.is_rebound(request(Host=host, **{field: "x"}), names) is (host in UNKNOWN)
    assert not csrf.is_rebound(request(Host=host), names)


def test_machine_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine's names are its host name, and those beside it in the file of hosts."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n10.0.0.5 Box.Lan box other # x.y\n10.0.0.6 not.lan\n")
    monkeypatch.setattr(csrf, "_HOSTS", hosts)
    monkeypatch.setattr("socket.gethostname", lambda: "Box")
    assert csrf.machine_names() == {"box", "box.lan", "other"}
    monkeypatch.setattr(csrf, "_HOSTS", tmp_path / "none")
    assert csrf.machine_names() == {"box"}
