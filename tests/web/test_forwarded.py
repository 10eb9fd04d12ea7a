"""Trusted reverse proxies: whom they name as the client, and which URL it used."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.web.http_headers import Headers

from proxpi.values import peer
from proxpi.web.forwarded import Forwarded, TrustedProxies, peer_address
from tests.support.cases import ProxpiCase

PROXY = "10.0.0.1"
TRUSTED = ("10.0.0.0/8", "2001:db8::/32", "unix")


def read(*fields: tuple[str, str], by: str = PROXY, trusted: tuple[str, ...] = TRUSTED) -> Any:
    headers = Headers()
    for name, value in (("Host", "inner:5000"), *fields):
        headers.addRawHeader(name.encode(), value.encode("latin-1"))
    return TrustedProxies(map(peer, trusted)).read(by, headers)


CHAINS = {
    # From the right past trusted addresses.
    "192.0.2.1": "192.0.2.1",
    "203.0.113.9, 192.0.2.1": "192.0.2.1",
    "203.0.113.9,192.0.2.1 ,\t10.9.9.9": "192.0.2.1",
    "10.0.0.3, 10.0.0.2": "10.0.0.3",
    "192.0.2.1:4711, 10.0.0.2:80": "192.0.2.1",
    "2001:DB9::1": "2001:db9::1",
    "[2001:db9::1]:4711, 2001:db8::5": "2001:db9::1",
    "::ffff:192.0.2.1": "192.0.2.1",
    # A malformed address ends the walk.
    "": PROXY,
    "unknown": PROXY,
    "192.0.2.1, unknown": PROXY,
    "192.0.2.1, _hidden, 10.0.0.2": "10.0.0.2",
    "192.0.2.1,": PROXY,
    "fe80::1%eth0": PROXY,
    "192.0.2.300": PROXY,
    "192.0.2.1:x": PROXY,
    "[192.0.2.1": PROXY,
    "192.0.2.1 x": PROXY,
    "unix": PROXY,
}


@pytest.mark.parametrize("chain", CHAINS)
def test_client(chain: str) -> None:
    """The client is the first address from the right that is not trusted."""
    assert read(("X-Forwarded-For", chain)).client == CHAINS[chain]
    proxies = TrustedProxies(map(peer, TRUSTED))
    assert proxies.client(PROXY, {b"x-forwarded-for": chain}, b"") == CHAINS[chain]


def test_several_lines() -> None:
    """Several lines of a field are one list."""
    lines = [("X-Forwarded-For", "203.0.113.9, 192.0.2.1"), ("X-Forwarded-For", "10.0.0.2")]
    assert read(*lines).client == "192.0.2.1"


@pytest.mark.parametrize("by", ["192.0.2.9", "-", "2001:db9::1", "unix"])
def test_untrusted(by: str) -> None:
    """Statements of a peer that is not trusted are ignored, every one of them."""
    fields = {
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Port": "1",
        "X-Forwarded-Prefix": "/evil",
        "Forwarded": "for=203.0.113.9;host=evil.example;proto=https",
    }
    for trusted in ((), ("10.0.0.0/8",)):
        found = read(*fields.items(), by=by, trusted=trusted)
        assert found == Forwarded(by, authority="inner:5000")


@pytest.mark.parametrize("by", [PROXY, "::ffff:10.0.0.1", "2001:db8::7", "unix"])
def test_trusted(by: str) -> None:
    """A peer is trusted by its address, also a mapped one, by its network, or for its socket."""
    assert read(("X-Forwarded-For", "192.0.2.1"), by=by).client == "192.0.2.1"


URLS: dict[tuple[str, ...], tuple[str, str, str]] = {
    ("Proto: https", "Host: a.example"): ("https", "a.example", ""),
    ("Proto: HTTPS", "Prefix: /pypi/"): ("https", "inner:5000", "/pypi"),
    ("Proto: http, https", "Host: evil.example, a.example:8443"): ("https", "a.example:8443", ""),
    ("Host: a.example", "Port: 8443", "Prefix: /a/b.c"): ("", "a.example:8443", "/a/b.c"),
    ("Host: [2001:db8::1]", "Port: 8080"): ("", "[2001:db8::1]:8080", ""),
    # A port that is stated already, or that belongs to a scheme, is left as it is.
    ("Host: a.example:1", "Port: 2"): ("", "a.example:1", ""),
    ("Host: a.example", "Port: 80", "Proto: https"): ("https", "a.example", ""),
    ("Host: a.example", "Port: 443"): ("", "a.example", ""),
    # Malformed values are ignored.
    ("Proto: ftp", "Host: a b", "Prefix: pypi"): ("", "inner:5000", ""),
    ("Proto: javascript", "Host: a.example/x", "Prefix: //evil.example"): ("", "inner:5000", ""),
    ("Host: <b>", "Prefix: /<b>", "Port: 99999"): ("", "inner:5000", ""),
    ("Host: user@a.example", "Prefix: /a/../b", "Port: 0"): ("", "inner:5000", ""),
    ("Host: ", "Prefix: /", "Port: x"): ("", "inner:5000", ""),
    ("Host: a.example:70000", "Prefix: /a//b"): ("", "inner:5000", ""),
    ("Prefix: http://evil.example/",): ("", "inner:5000", ""),
    ("Prefix: /a\x1b[2J",): ("", "inner:5000", ""),
    ("Prefix: /a?b",): ("", "inner:5000", ""),
}


@pytest.mark.parametrize("fields", URLS)
def test_url(fields: tuple[str, ...]) -> None:
    """Scheme, host, port and prefix are what the nearest proxy states, if it is well-formed."""
    pairs = [field.split(": ", 1) for field in fields]
    found = read(*((f"X-Forwarded-{name}", value) for name, value in pairs))
    assert (found.scheme, found.authority, found.prefix) == URLS[fields]
    assert found.client == PROXY


ELEMENTS = {
    "for=192.0.2.1;proto=https;host=a.example": ("192.0.2.1", "https", "a.example"),
    'For="[2001:db9::1]:4711" ; by=x': (PROXY, "", "inner:5000"),
    'For="[2001:db9::1]:4711";PROTO=HTTP;by=_x': ("2001:db9::1", "http", "inner:5000"),
    'for=203.0.113.9;host=evil.example, for=192.0.2.1;host="a.example:8443"': (
        *("192.0.2.1", "", "a.example:8443"),
    ),
    "for=192.0.2.1;host=a.example,for=10.0.0.2;host=middle": ("192.0.2.1", "", "a.example"),
    "for=_hidden;host=a.example": (PROXY, "", "a.example"),
    r'for="192.0.2\.1"': ("192.0.2.1", "", "inner:5000"),
    # Malformed fields are ignored as a whole.
    **dict.fromkeys(
        (
            *("", "192.0.2.1", "for=192.0.2.1,", "for=192.0.2.1;", "for = 192.0.2.1"),
            *("for=192.0.2.1;for=192.0.2.2", 'for="192.0.2.1', "for=[2001:db9::1]"),
            *("for=192.0.2.1 proto=https", ";for=192.0.2.1", "=192.0.2.1", "for=192.0.2.1,,"),
        ),
        (PROXY, "", "inner:5000"),
    ),
}


@pytest.mark.parametrize("value", ELEMENTS)
def test_forwarded(value: str) -> None:
    """``Forwarded`` is read as RFC 7239 writes it."""
    found = read(("Forwarded", value))
    assert (found.client, found.scheme, found.authority) == ELEMENTS[value]
    assert (
        TrustedProxies(map(peer, TRUSTED)).client(PROXY, {b"forwarded": value}, b"") == found.client
    )


def test_forwarded_beside_others() -> None:
    """A proxy that writes ``X-Forwarded`` fields may pass a client's ``Forwarded`` on."""
    invented = ("Forwarded", "for=203.0.113.9;host=evil.example")
    for field in (("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Proto", "https")):
        assert read(field, invented) == read(field)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    *("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Prefix", "Forwarded"),
                    *("X-Forwarded-Port", "X-Forwarded-Proto"),
                ]
            ),
            st.text(st.characters(max_codepoint=255), max_size=40)
            | st.text('/.:;,=" []forhstpx%192', max_size=40),
        )
    )
)
def test_any_value(fields: list[tuple[str, str]]) -> None:
    """No value makes more than an address, a scheme, a host and a plain path."""
    clean = [(name, value.replace("\r", "").replace("\n", "")) for name, value in fields]
    found = read(*clean)
    assert peer_address(found.client) == found.client
    assert found.scheme in ("", "http", "https")
    for text in (found.client, found.authority, found.prefix):
        assert not set(text) & {*" \"'<>&%\\@?#\t\x1b"}
    assert found.prefix == "" or (found.prefix[0] == "/" and "//" not in found.prefix)
    assert "/" not in found.authority


def test_slow_values() -> None:
    """The time for a long value is linear."""
    for value in ('a="' + "\\" * 8000, "a=b," * 4000, "/a" * 8000 + "!", "10.0.0.2," * 2000):
        for name in ("Forwarded", "X-Forwarded-For", "X-Forwarded-Prefix"):
            read((name, value))


class Behind(ProxpiCase):
    """All of proxpi behind a trusted proxy."""

    HEADERS = (
        *("Host: inner:5000", "X-Forwarded-For: 203.0.113.9, 192.0.2.77"),
        *("X-Forwarded-Proto: https", "X-Forwarded-Host: build.example:8443"),
        "X-Forwarded-Prefix: /pypi",
    )

    def setUp(self) -> None:
        super().setUp()
        self.build(trusted_proxies="192.0.2.1, unix")

    def test_client_in_the_log(self) -> None:
        """The access log has the client's address; without a trusted proxy, its peer's."""
        for address, client in (
            (IPv4Address("TCP", "192.0.2.1", 1), "192.0.2.77"),
            (UNIXAddress("/run/proxpi.sock"), "192.0.2.77"),
            (IPv4Address("TCP", "192.0.2.2", 1), "192.0.2.2"),
        ):
            exchange = self.connect(peer=address)
            exchange.ask("GET", "/nothing", *self.HEADERS)
            assert exchange.response().status == 404
            assert self.access_log[-1].startswith(f"{client} GET /nothing ")

    def test_admin_page(self) -> None:
        """The admin page shows the URL under which the client has opened it."""
        assert ">https://build.example:8443/pypi/<" in self.get("/", *self.HEADERS).text
        self.build()
        assert ">http://inner:5000/<" in self.get("/", *self.HEADERS).text

    def test_rebound(self) -> None:
        """A page on the proxy's own machine whose name leads here states no other name."""
        origin = "Origin: http://evil.example:5000"
        for field in ("X-Forwarded-Host: localhost", "Forwarded: host=localhost"):
            for relation in (origin, "Sec-Fetch-Site: same-origin"):
                headers = ("Host: evil.example:5000", field, relation)
                assert self.ask("POST", "/admin/forget-list", *headers).status == 403
        headers = (
            "Host: localhost",
            "X-Forwarded-Host: evil.example",
            "Sec-Fetch-Site: same-origin",
        )
        assert self.ask("POST", "/admin/forget-list", *headers).status == 403

    def test_login(self) -> None:
        """The cookie of a login is for TLS alone if the client uses TLS."""
        self.build(trusted_proxies="192.0.2.1", token="t" * 32)
        for scheme in ("http", "https"):
            headers = ("X-Forwarded-For: 192.0.2.77", f"X-Forwarded-Proto: {scheme}")
            answer = self.ask("POST", "/admin/login", *headers, body="token=" + "t" * 32)
            assert answer.headers["set-cookie"].endswith("; Secure") is (scheme == "https")

    def test_slowed(self) -> None:
        """Wrong admin tokens slow the client that sends them, not the others of the proxy."""
        self.build(trusted_proxies="192.0.2.1", token="t" * 32)
        guessing, other = "X-Forwarded-For: 192.0.2.77", "X-Forwarded-For: 192.0.2.78"
        exchange = self.connect()
        exchange.ask("DELETE", "/cache/list", guessing, "Authorization: Bearer wrong")
        right = "Authorization: Bearer " + "t" * 32
        assert self.ask("DELETE", "/cache/list", guessing, right).status == 503
        assert self.ask("DELETE", "/cache/list", other, right).status == 200

    def test_cross_site(self) -> None:
        """``Origin`` has to be the scheme, host and port that the proxy states."""
        path = "/admin/forget-list"
        for origin, status in (
            ("https://build.example:8443", 403),  # not a known name
            ("https://proxpi.example", 303),
            ("http://proxpi.example", 403),
            ("https://inner:5000", 403),
            ("https://evil.example", 403),
        ):
            host = "build.example:8443" if "8443" in origin else "proxpi.example"
            headers = [*self.HEADERS[:3], f"X-Forwarded-Host: {host}", f"Origin: {origin}"]
            assert self.ask("POST", path, *headers).status == status, origin
        self.build()
        assert self.ask("POST", path, *headers[:4], "Origin: http://inner:5000").status == 303
        assert self.ask("POST", path, *headers[:4], "Origin: https://build.example").status == 403
