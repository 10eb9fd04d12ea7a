"""The admin token: requests that need it, ways to send it, login cookie, and slowed tries."""

from __future__ import annotations

import hmac
import json
import re
import time
from base64 import b64encode
from typing import Any
from unittest import mock
from urllib.parse import urljoin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.web.test.requesthelper import DummyRequest

from proxpi.problems import Problems
from proxpi.web.admin import auth, refusals
from proxpi.web.admin.auth import (
    AdminToken,
    Authentication,
    FailedTries,
    TriesSlowed,
    Unauthorized,
    network,
)
from tests.support.cases import INDEX, ProxpiCase, entry, page, root_list
from tests.support.exchange import HOST, Exchange, Response
from tests.support.logs import logged

TOKEN = "correct-horse"
WRONG = "Authorization: Bearer wrong-token"
FORM = "Content-Type: application/x-www-form-urlencoded"
BROWSER = ("Accept: text/html,application/xhtml+xml", FORM, f"Origin: http://{HOST}")
CHANGES = (
    *(("DELETE", path) for path in ("/cache", "/cache/list", "/cache/demo", "/cache/demo/x.whl")),
    *(("POST", path) for path in ("/admin/forget-list", "/admin/forget-project")),
)
ELSEWHERE = IPv4Address("TCP", "198.51.100.7", 40000)


def bearer(token: str = TOKEN) -> str:
    return f"Authorization: Bearer {token}"


def basic(credentials: str) -> str:
    return f"Authorization: Basic {b64encode(credentials.encode()).decode()}"


class AuthCase(ProxpiCase):
    def setUp(self) -> None:
        super().setUp()
        self.wall = 1e9
        self.build(token=TOKEN, wall=lambda: self.wall)
        self.agent.at(INDEX, root_list(["demo"]))
        self.agent.at(f"{INDEX}demo/", page(entry("x.whl", b"x")))

    def change(self, *headers: str, path: str = "/cache/demo", within: float = 0.0) -> Response:
        return self.ask("DELETE", path, *headers, within=within)

    def begin(self, *headers: str, peer: IAddress = ELSEWHERE, path: str = "/cache/x") -> Exchange:
        exchange = self.connect(peer=peer)
        exchange.ask("DELETE", path, *headers)
        return exchange

    def log_in(self, *headers: str) -> Response:
        return self.ask("POST", "/admin/login", *BROWSER, *headers, body=f"token={TOKEN}")

    def cookie(self) -> str:
        return self.log_in().headers["set-cookie"].partition(";")[0]


class Needed(AuthCase):
    """The requests that need the token, and those that do not."""

    def test_changes(self) -> None:
        """Each changing request needs the token; without one nothing changes."""
        self.get("/index/demo/")
        for method, path in CHANGES:
            response = self.ask(method, path, FORM, body="project=demo")
            assert response.status == 401, path
            assert json.loads(response.body)["message"] == f"{auth.MISSING} {refusals.HOW}"
            challenges = response.headers["www-authenticate"]
            assert challenges == 'Bearer realm="proxpi", Basic realm="proxpi"'
        self.agent.asked.clear()
        self.get("/index/demo/")
        assert self.agent.asked == []
        for method, path in CHANGES:
            body = "project=demo" if method == "POST" else ""
            assert self.ask(method, path, FORM, bearer(), body=body).status in (200, 303), path

    def test_without(self) -> None:
        """Reading needs no token, nor does a lock: an install reads as much."""
        for path in ("/", "/stats", "/metrics", "/health", "/index/demo/"):
            assert self.get(path).status == 200, path
        response = self.ask("POST", "/prefetch?all=1", body="demo==1.0")
        assert response.status == 200

    def test_hosts(self) -> None:
        """With a token any name is a known host, except for a lock, which needs no token."""
        for headers in (("Sec-Fetch-Site: same-origin",), ("Origin: http://a.example",)):
            sent = (*headers, "Host: a.example")
            assert self.change(*sent, bearer()).status == 200
            assert self.change(*sent).status == 401
            assert self.ask("POST", "/prefetch?all=1", *sent, body="demo==1.0").status == 403

    def test_other_sites(self) -> None:
        """The token of a browser does not help another site, which cannot log it in either."""
        other = "Origin: http://evil.example"
        for header in (bearer(), basic(f"x:{TOKEN}"), f"Cookie: {self.cookie()}"):
            assert self.change(header, other).status == 403
        assert self.ask("POST", "/admin/login", other, body=f"token={TOKEN}").status == 403
        assert self.ask("POST", "/admin/logout", other).status == 403
        assert self.change(WRONG, other).status == 403, "it is no try"
        assert self.change(bearer()).status == 200

    def test_none_set(self) -> None:
        """Without a token set, none is needed, and a login is refused."""
        self.build()
        assert self.change().status == 200
        assert self.change(WRONG).status == 200
        for method in ("GET", "POST"):
            assert self.ask(method, "/admin/login", body="token=").status == 409


class Given(AuthCase):
    """How the token is given."""

    def test_right(self) -> None:
        """Schemes have any case; of Basic the password counts, with any user name."""
        for header in (
            *(bearer(), f"authorization: bearer {TOKEN}", f"Authorization:   BEARER   {TOKEN}  "),
            *(basic(f"admin:{TOKEN}"), basic(f":{TOKEN}"), basic(f"ü:{TOKEN}")),
            basic(f"admin:{TOKEN}").replace("Basic", "bAsIc"),
        ):
            assert self.change(header).status == 200, header

    def test_none(self) -> None:
        """A header without a token is no try: it is answered at once, and slows nothing."""
        for headers in (
            *(["Authorization: "], ["Authorization: Bearer"], ["Authorization: Bearer  "]),
            *(["Authorization: Digest x"], [f"Authorization: {TOKEN}"], ["Authorization: Basic"]),
            *(["Authorization: Basic !!"], [basic("no colon")], ["Authorization: Basic YQ"]),
            *([f"Authorization: Basic {TOKEN}"], [bearer(), bearer()], [bearer(), WRONG]),
            *([f"Cookie: x={TOKEN}"], ["Cookie: ;;=;"], [f"Proxy-Authorization: Bearer {TOKEN}"]),
        ):
            assert self.change(*headers).status == 401, headers
        assert self.change(bearer()).status == 200

    def test_wrong(self) -> None:
        """A wrong token is a 401, after a delay; none of it comes back, nor gets into the log."""
        lines: list[str] = []
        for number, header in enumerate(
            (
                *(bearer(TOKEN[:-1]), bearer(TOKEN + "x"), bearer(TOKEN.upper()), basic("x:y")),
                *(bearer("é" * 8), basic(f"{TOKEN}:"), basic(f"x:{TOKEN}:"), bearer("a b")),
            )
        ):
            peer = IPv4Address("TCP", f"192.0.2.{number + 100}", 1)
            with logged() as log:
                exchange = self.begin(header, peer=peer)
                assert exchange.answer() is None
                self.clock.advance(1)
            response = exchange.response()
            assert response.status == 401, header
            assert TOKEN not in response.text
            lines += log.lines
        assert not any(TOKEN in line or "wrong-token" in line for line in lines)

    def test_compared_in_constant_time(self) -> None:
        """Tokens are compared by their digests, and signatures whole, in constant time."""
        with mock.patch.object(hmac, "compare_digest", wraps=hmac.compare_digest) as compared:
            self.change(bearer())
            [call] = compared.call_args_list
            assert [len(each) for each in call.args] == [32, 32]
            self.change(f"Cookie: {self.cookie()}")
            assert [len(each) for each in compared.call_args.args] == [64, 64]


class Login(AuthCase):
    def test_cookie(self) -> None:
        """The form sets a cookie that scripts and other sites cannot use, and that admits."""
        response = self.log_in()
        assert (response.status, response.headers["location"][:9]) == (303, "../?done=")
        cookie, *attributes = response.headers["set-cookie"].split("; ")
        assert attributes == ["Max-Age=43200", "Path=/", "HttpOnly", "SameSite=Strict"]
        assert TOKEN not in cookie
        for header in (f"Cookie: {cookie}", f"Cookie: a=b; {cookie}; c=d"):
            assert self.change(header).status == 200

    def test_tls(self) -> None:
        """Over TLS the cookie is never sent without."""
        exchange = self.connect(tls=True)
        origin = f"Origin: https://{HOST}"
        exchange.ask("POST", "/admin/login", FORM, origin, body=f"token={TOKEN}")
        assert exchange.response().headers["set-cookie"].endswith("; SameSite=Strict; Secure")

    def test_prefix(self) -> None:
        """Below a prefix of a trusted proxy, the cookie is for that path alone."""
        self.build(token=TOKEN, wall=lambda: self.wall, trusted_proxies="192.0.2.0/24")
        set_cookie = self.log_in("X-Forwarded-Prefix: /python/").headers["set-cookie"]
        assert "; Path=/python/; " in set_cookie
        hostile = self.log_in("X-Forwarded-Prefix: /a;Domain=x").headers["set-cookie"]
        assert "; Path=/; " in hostile

    def test_expired(self) -> None:
        """A cookie admits for twelve hours; an expired one is a 401 at once, and no try."""
        cookie = f"Cookie: {self.cookie()}"
        self.wall += auth.SESSION - 1
        assert self.change(cookie).status == 200
        self.wall += 1
        response = self.change(cookie)
        assert (response.status, auth.EXPIRED in response.text) == (401, True)
        assert self.change(bearer()).status == 200
        assert self.change(cookie, bearer()).status == 200
        guess = self.begin(cookie, WRONG)
        assert guess.answer() is None, "an old cookie makes no token free to guess"

    def test_forged(self) -> None:
        """A cookie with another time, signature or form does not admit, at once."""
        name, _, value = self.cookie().partition("=")
        expiry, _, signature = value.partition(".")
        last = "0" if signature[-1] != "0" else "1"
        for forged in (
            *(f"{int(expiry) + 1}.{signature}", f"{expiry}.{signature[:-1]}{last}", f"{expiry}."),
            *(f"0{expiry}.{signature}", f"-{expiry}.{signature}", f"{expiry}.{signature.upper()}"),
            *(f"{value}.", f" {value}", f'"{value}"', f"{expiry}.{signature[:-1]}", expiry, "."),
            *(f"{expiry}é.{signature}", "9" * 5000, f"{'9' * 5000}.{signature}"),
        ):
            assert self.change(f"Cookie: {name}={forged}").status == 401, forged
        assert self.change(f"Cookie: {name}=", f"Cookie: {name}={value}").status == 401
        assert self.change(bearer()).status == 200, "none of them is a try"

    def test_after_a_restart(self) -> None:
        """A restart ends the logins: the key of the cookies is random, not made of the token."""
        cookie = f"Cookie: {self.cookie()}"
        self.build(token=TOKEN, wall=lambda: self.wall)
        response = self.change(cookie)
        assert (response.status, auth.EXPIRED in response.text) == (401, True)

    def test_logout(self) -> None:
        """The button to log out has the browser drop the cookie."""
        response = self.ask("POST", "/admin/logout", *BROWSER)
        assert response.status == 303
        assert response.headers["set-cookie"].startswith("proxpi-admin=; Max-Age=0; Path=/; ")

    def test_page(self) -> None:
        """A browser without a login gets the form, and no dialog of its own."""
        refused = self.ask("POST", "/admin/forget-list", *BROWSER)
        offered = self.get("/admin/login", *BROWSER)
        for response, status in ((refused, 401), (offered, 200)):
            assert response.status == status
            assert response.headers["content-type"] == "text/html; charset=utf-8"
            for part in ('login"', 'name="token"', 'type="password"', 'href="../"'):
                assert part in response.text
        assert refused.headers["www-authenticate"] == 'Bearer realm="proxpi"'
        wrong = self.ask("POST", "/admin/login", *BROWSER, body="token=wrong", within=1)
        assert (wrong.status, 'name="token"' in wrong.text) == (401, True)
        assert "set-cookie" not in wrong.headers
        home = self.get("/").text
        assert 'action="admin/login"' in home and 'action="admin/logout"' not in home
        home = self.get("/", f"Cookie: {self.cookie()}").text
        assert 'action="admin/login"' not in home and 'action="admin/logout"' in home
        json_error = self.ask("POST", "/admin/login", body="token=%FF%00", within=2)
        assert (json_error.status, auth.WRONG in json_error.text) == (401, True)

    def test_links(self) -> None:
        """Links and forms of an error lead to the root from any path."""
        for path in ("/admin/login", "/admin/login/", "//admin/login", "/admin/x/y", "/admin/"):
            text = self.get(path, *BROWSER).text
            links = re.findall(r'(?:href|action)="([^"]*)"', text)
            assert len(links) >= 3, path
            for link in links:
                found = urljoin(f"http://h{path}", link).removeprefix("http://h").lstrip("/")
                assert found in ("", "admin/login", "admin/style.css", "admin/icon.svg"), path


class Slowed(AuthCase):
    def test_delays(self) -> None:
        """Each further wrong token of an address is answered twice as late, up to a limit."""
        for delay in (1, 2, 4, 8, 16, 30, 30):
            exchange = self.begin(WRONG)
            self.clock.advance(delay - 0.5)
            assert exchange.answer() is None
            self.clock.advance(0.5)
            assert exchange.response().status == 401
        self.clock.advance(auth.MEMORY + 1)
        exchange = self.begin(WRONG)
        self.clock.advance(1)
        assert exchange.response().status == 401

    def test_parallel(self) -> None:
        """During a delay no further try of the address is evaluated, not even the right token."""
        cookie, first = f"Cookie: {self.cookie()}", self.begin(WRONG)
        self.clock.advance(0.25)
        for header in (WRONG, bearer()):
            response = self.begin(header).response()
            assert (response.status, response.headers["retry-after"]) == (503, "1"), header
        login = self.connect(peer=ELSEWHERE)
        login.ask("POST", "/admin/login", *BROWSER, body=f"token={TOKEN}")
        assert login.response().status == 503
        assert self.begin().response().status == 401, "without a token it is no try"
        assert self.begin(cookie).response().status == 200, "a login is not locked out"
        assert first.answer() is None
        self.clock.advance(0.75)
        assert first.response().status == 401
        assert self.begin(bearer()).response().status == 200

    def test_client_leaves(self) -> None:
        """A client that does not wait for the answer has to wait all the same."""
        self.begin(WRONG).hang_up()
        assert self.begin(bearer()).response().status == 503
        assert self.unhandled() == []
        self.clock.advance(1)
        assert self.begin(bearer()).response().status == 200

    def test_other_addresses(self) -> None:
        """Another address is not slowed; the addresses of one IPv6 host are one."""
        self.begin(WRONG)
        assert self.change(bearer()).status == 200
        self.begin(WRONG, peer=IPv6Address("TCP", "2001:db8::1", 1))
        near = IPv6Address("TCP", "2001:db8::ffff:1", 1)
        assert self.begin(bearer(), peer=near).response().status == 503
        far = IPv6Address("TCP", "2001:db8:0:1::1", 1)
        assert self.begin(bearer(), peer=far).response().status == 200

    def test_many(self) -> None:
        """Wrong tokens of many addresses hold few connections; a right one is still answered."""
        addresses = [IPv4Address("TCP", f"203.0.113.{number}", 1) for number in range(200)]
        waiting = [self.begin(WRONG, peer=address) for address in addresses]
        answers = [exchange.answer() for exchange in waiting]
        assert answers.count(None) == auth.MAX_DELAYED
        assert {each.status for each in answers if each is not None} == {503}
        assert self.change(bearer()).status == 200
        assert self.begin(bearer(), peer=addresses[-1]).response().status == 503
        self.clock.advance(1)
        assert self.begin(bearer(), peer=addresses[-1]).response().status == 200
        assert waiting[0].response().status == 401

    def test_log(self) -> None:
        """Wrong tokens are a problem with the last address: a line of the log once a minute."""
        with logged("proxpi.problems") as log:
            for number in range(6):
                self.begin(WRONG, peer=IPv4Address("TCP", f"203.0.113.{number}", 1))
                self.clock.advance(31)
        assert {*log.levels} == {"warn"}
        line = (
            "wrong admin token from 203.0.113.{}; tries of this address are slowed; "
            "if it is a reverse proxy, name it in PROXPI_TRUSTED_PROXIES{}"
        )
        more = " (1 more since this was last logged)"
        assert log.lines == [line.format(0, ""), line.format(2, more), line.format(4, more)]
        statistics = json.loads(self.get("/stats").body)
        assert statistics["state"]["level"] == "ok", "any client can send a wrong token"
        problems = statistics["problems"]
        assert [(each["text"], each["count"]) for each in problems] == [
            ("wrong admin token from 203.0.113.5", 6)
        ]


def test_memory() -> None:
    """The failures of a bounded number of addresses are remembered, those of the last ones."""
    clock = Clock()
    tries = FailedTries(clock, Problems(clock.seconds, time.time))
    with mock.patch.object(auth, "MAX_ADDRESSES", 3):
        waiting = [Deferred.fromCoroutine(tries.fail(name)) for name in "abcda"]
    for name, slowed in {"a": True, "b": False, "c": True, "d": True}.items():
        if slowed:
            with pytest.raises(TriesSlowed):
                tries.require_no_delay(name)
        else:
            tries.require_no_delay(name)
    clock.advance(1)
    assert all(each.called for each in waiting)


@given(st.binary(max_size=60), st.sampled_from([b"Basic ", b"Bearer ", b"basic\t", b""]))
def test_any_header(value: bytes, scheme: bytes) -> None:
    """Whatever a client sends as a token or a cookie is none, or a wrong one."""
    clock = Clock()
    tries = FailedTries(clock, Problems(clock.seconds, time.time))
    authentication = Authentication(AdminToken(TOKEN, time.time), tries)
    request: Any = DummyRequest([b""])
    request.client_address = "192.0.2.1"
    for name, prefix in ((b"Authorization", scheme), (b"Cookie", auth.COOKIE + b"=")):
        request.requestHeaders.addRawHeader(name, prefix + value)
    with pytest.raises(Unauthorized):
        done = Deferred.fromCoroutine(authentication.require(request))
        clock.advance(auth.FIRST_DELAY)
        failures: list[Any] = []
        done.addErrback(failures.append)
        failures[0].raiseException()


@pytest.mark.parametrize(
    ("client", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("-", "-"),
        ("", ""),
    ],
)
def test_network(client: str, key: str) -> None:
    """One address is what one host can have; a socket without addresses is one."""
    assert network(client) == key


def test_keys() -> None:
    """Each process signs with a key of its own, and shows neither that nor the token."""
    first, second = (AdminToken(TOKEN, lambda: 1e9) for _ in range(2))
    assert first.accepts_cookie(first.new_cookie())
    assert not first.accepts_cookie(second.new_cookie())
    assert TOKEN not in repr(first)
