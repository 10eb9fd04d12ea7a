"""The server: access log, errors of proxpi's own, the limit on connections, and the drain."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.address import IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from proxpi.index.page_cache import PageCache
from proxpi.index.page_entries import PageEntries
from proxpi.web.server import CLOSE_TIMEOUT, DRAIN_POLL, MAX_REFUSED
from tests.support.agent import Reply
from tests.support.cases import MIB, ProxpiCase
from tests.support.exchange import PEER, Exchange, settle
from tests.support.logs import logged

PATH = "/index/demo/demo.whl"


class Bug(RuntimeError):
    """An error of proxpi's own, with something secret in it."""


class Buggy(Resource):
    """Fails before, or in the middle of, a response."""

    isLeaf = True
    waiting: Any = None

    def render(self, request: Any) -> int:
        if request.path == b"/middle":
            request.setHeader(b"Content-Length", b"100")
            request.write(b"the first bytes")
        elif request.path == b"/wait":
            self.waiting = request
            return NOT_DONE_YET
        raise Bug("secret")


async def fail(*_: object, **__: object) -> None:
    raise Bug("secret")


class AccessLog(ProxpiCase):
    def line(self, method: str, target: str, *headers: str | bytes, peer: IAddress = PEER) -> str:
        exchange = self.connect(peer=peer)
        exchange.ask(method, target, *headers)
        exchange.answer()
        return (self.access_log + self.health_log)[-1]

    def test_line(self) -> None:
        """Client, method, path, status, bytes, time, outcome, the wait for an upstream, and ID."""
        self.serve("demo.whl", b"data")
        own = "X-Request-ID: an-id"
        assert self.line("GET", PATH, own) == f"192.0.2.1 GET {PATH} 200 4 0ms MISS id=an-id"
        assert self.line("HEAD", PATH, own) == f"192.0.2.1 HEAD {PATH} 200 0 0ms HIT id=an-id"
        self.serve("late.whl", b"data", Reply(200, b"", whole=False), project="late")
        exchange = self.connect()
        self.clock.advance(5)
        exchange.ask("GET", "/index/late/late.whl")
        self.clock.advance(0.9)
        assert " 302 0 900ms REDIRECT upstream=900ms id=" in self.access_log[-1]

    def test_request_ids(self) -> None:
        """The ID is that of the client if it is usable; one is made in place of any other."""
        usable = ("a", "5f3a2c-1", "a/b+c==", "%s%d{}", "x" * 128, "[1]", "a'b".replace("'", "`"))
        for text in usable:
            assert self.line("GET", "/nothing", f"X-Request-ID: {text}").endswith(f" id={text}")
        made = set()
        unusable = ("", "a b", 'a"b', "a'b", "a\\b", "\xe9", "x" * 129, "a\tb")
        for text in unusable:
            line = self.line("GET", "/nothing", f"X-Request-ID: {text}".encode("latin-1"))
            made.add(line.partition(" id=")[2])
        twice = ("X-Request-ID: a", "X-Request-ID: b")
        made.add(self.line("GET", "/nothing", *twice).partition(" id=")[2])
        assert len(made) == len(unusable) + 1
        assert all(re.fullmatch("[0-9a-f]{6}-[0-9]+", each) for each in made)

    def test_addresses(self) -> None:
        """An IPv6 address is one, an IPv4 one may be mapped to it; a unix socket has none."""
        for address, expected in [
            (IPv6Address("TCP", "2001:db8::1", 5), "2001:db8::1"),
            (IPv6Address("TCP", "::ffff:192.0.2.7", 5), "192.0.2.7"),
            (UNIXAddress("/run/proxpi.sock"), "unix"),
            (UNIXAddress(None), "unix"),
        ]:
            assert self.line("GET", "/health", peer=address).split()[0] == expected

    def test_no_secrets(self) -> None:
        """Neither a query, often a token, nor credentials are written down."""
        for target in ("/health?token=secret", "http://h.example/health?token=secret", "/x?secret"):
            assert "secret" not in self.line("GET", target)
        target = "http://user:secret@h.example/health"
        assert "secret" not in self.line("GET", target, "Authorization: Basic secret")

    def test_forged(self) -> None:
        """Nothing in a request makes a second line of it, or moves a terminal's cursor."""
        for target in ("/%0d%0aforged", "/a%1b[2J", "/a%00b", "/a%20b", "/{client}{0}"):
            line = self.line("GET", target)
            assert len(line.split(" ")) == 8 and line.isprintable() and target in line
        for first in (
            *(b"GET /\x1b[31m HTTP/1.1", b"GET /\xff\xfe HTTP/1.1", b"G\x1bT / HTTP/1.1"),
            *(b"GET /a\nforged HTTP/1.1", b"GET /" + b"a" * 10_000 + b" HTTP/1.1"),
            *(b'BREW /"id="x HTTP/1.1', b"X" * 5000 + b" / HTTP/1.1"),
        ):
            for field in (b"X-Request-ID", b"X-Forwarded-For", b"User-Agent", b"X-Cache"):
                for value in (b"a\x1b[2J", b"a\nforged", b"\xff" * 900, b'" 200 5 1ms HIT id=x'):
                    before = len(self.access_log)
                    exchange = self.connect()
                    exchange.send(b"%b\r\nHost: h\r\n%b: %b\r\n\r\n" % (first, field, value))
                    exchange.hang_up()
                    [logged_line] = self.access_log[before:]
                    assert logged_line.isascii() and logged_line.isprintable()
                    assert len(logged_line.split(" ")) == 8

    def test_health_checks(self) -> None:
        """Successful health checks, and refreshes of the admin page, are logged at DEBUG alone."""
        live = "/stats?format=html"
        for path in ("/health", "/health/", "//health", "/ready", "http://h.example/health", live):
            for method in ("GET", "HEAD"):
                assert self.ask(method, path).status == 200
        assert (self.access_log, len(self.health_log)) == ([], 12)
        assert re.fullmatch("192.0.2.1 GET /health 200 [0-9]+ 0ms - id=.*", self.health_log[0])
        for line in (
            "POST /health",
            "OPTIONS /health",
            "GET /healthy",
            "GET /index/health/",
            "GET /stats",
        ):
            method, path = line.split()
            self.ask(method, path)
            assert f"{method} {path} " in self.access_log[-1]


class OwnErrors(ProxpiCase):
    def setUp(self) -> None:
        super().setUp()
        self.buggy: Any = Buggy()  # type: ignore[no-untyped-call]
        self.site._rest = lambda: self.buggy

    def bugs(self) -> int:
        errors = self.unhandled()
        assert {error.type for error in errors} <= {Bug}
        return len(errors)

    def test_before_the_response(self) -> None:
        """A bug is a 500 in one plain line; the connection serves on; the log has the path."""
        exchange = self.connect()
        with logged("proxpi.web") as log:
            for _ in range(2):
                exchange.ask("GET", "/bug%0a?token")
                answer = exchange.response()
                assert answer.status == 500
                assert answer.headers["content-type"] == "text/plain; charset=utf-8"
                assert answer.text.count("\n") == 1
                for word in ("secret", "Traceback", "Bug", ".py"):
                    assert word not in answer.text
        assert "/bug%0a" in log.text and "token" not in log.text
        assert self.bugs() == 2

    def test_in_the_middle(self) -> None:
        """A body that breaks off ends its connection, so that it cannot be taken for whole."""
        exchange = self.connect()
        exchange.ask("GET", "/middle")
        assert exchange.aborted
        assert self.bugs() == 1

    def test_later(self) -> None:
        """A bug in a coroutine, or below Klein, is treated no differently."""
        self.build()
        self.put(PageCache, "fetch", fail)
        self.put(PageEntries, "invalidate", lambda *_: (_ for _ in ()).throw(Bug("secret")))
        for method, path in (
            ("GET", "/index/demo/"),
            ("HEAD", "/index/demo/"),
            ("DELETE", "/cache/demo"),
        ):
            answer = self.ask(method, path)
            assert answer.status == 500
            assert "secret" not in answer.text
            assert answer.text.count("\n") == (method != "HEAD")
        assert self.bugs() == 3

    def test_client_gone(self) -> None:
        """A bug that comes up once the client is gone, or because it is, is logged; that is all."""
        for begun in (True, False):
            exchange = self.connect()
            exchange.ask("GET", "/wait")
            if begun:
                self.buggy.waiting.write(b"the first bytes")
            exchange.hang_up()
            self.buggy.waiting.processingFailed(Failure(Bug("secret")))
            assert self.bugs() == 1

        async def buggy(*_: object, **__: object) -> None:
            try:
                await Deferred()
            finally:
                raise Bug("secret")

        self.put(PageCache, "fetch", buggy)
        exchange = self.connect()
        exchange.ask("GET", "/index/demo/")
        exchange.hang_up()
        assert self.bugs() == 1


class Requests(ProxpiCase):
    def statuses(self, exchange: Exchange, count: int) -> list[int]:
        return [answer.status for _ in range(count) if (answer := exchange.answer())]

    def test_in_order(self) -> None:
        """Requests are answered in their order; one that waits holds back those behind it."""
        exchange = self.connect()
        for path in ("/health", "/nothing", "/index", "/health"):
            exchange.ask("GET", path)
        assert self.statuses(exchange, 4) == [200, 404, 301, 200]
        self.serve("demo.whl", b"data", Reply(200, b"", whole=False))
        exchange.ask("GET", PATH)
        exchange.ask("GET", "/health")
        assert exchange.answer() is None
        self.clock.advance(0.9)
        assert self.statuses(exchange, 2) == [302, 200]

    def test_last_of_a_connection(self) -> None:
        """``Connection: close`` and HTTP/1.0 close, and a response of HTTP/1.0 is not chunked."""
        exchange = self.connect()
        exchange.ask("GET", "/health", "Connection: close")
        answer = exchange.response()
        assert exchange.closed
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        for path in ("/health", "/", "/index/demo/", "/nothing", "/index/demo"):
            exchange = self.connect()
            exchange.send(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            answer = exchange.response()
            assert "transfer-encoding" not in answer.headers
            assert exchange.closed

    def test_lengths(self) -> None:
        """Every response states its length; ``*`` and absolute URLs get one, too."""
        self.serve("demo.whl", b"data")
        for method, target, status in (
            *(("GET", "/", 200), ("GET", "/health", 200), ("GET", "/nothing", 404)),
            *(("BREW", "/", 405), ("GET", "/index/demo/", 200), ("GET", "/index/demo", 301)),
            *(("POST", "/index/", 405), ("GET", PATH, 200), ("GET", "/index/demo/no.whl", 404)),
            *(("POST", "/admin/forget-list", 303), ("DELETE", "/cache/demo", 200)),
            *(("GET", "http://h.example", 200), ("GET", "http://h.example?x", 200)),
            *(("OPTIONS", "*", 204), ("CONNECT", "h.example:443", 405)),
        ):
            answer = self.ask(method, target)
            assert answer.status == status, target
            assert "content-length" in answer.headers or status == 204, target
        assert self.unhandled() == []

    def test_no_http_2(self) -> None:
        """HTTP/2 is not offered: no limit of a connection would hold there."""
        assert self.site.acceptableProtocols() == [b"http/1.1"]


class Limited(ProxpiCase):
    """A server with descriptors for a few connections."""

    def setUp(self) -> None:
        super().setUp()
        self.build(client_descriptors=8)

    def status(self, client: Exchange, path: str = "/nothing") -> int:
        client.ask("GET", path)
        answer = client.response()
        if answer.status == 503:
            assert 0 < int(answer.headers["retry-after"]) <= 30
        return answer.status

    def test_connections(self) -> None:
        """Connections that are too many get a 503 and close; ``/health`` is answered to all."""
        first = [self.connect() for _ in range(6)]
        for path, status in (("/nothing", 503), ("/health", 200)):
            late = self.connect()
            assert self.status(late, path) == status
            assert late.closed
            late.hang_up()
        assert [self.status(client) for client in first] == [404] * 6
        first[3].hang_up()
        assert self.status(self.connect()) == 404

    def test_flood(self) -> None:
        """Of refused connections only a few are kept: the oldest is dropped for the newest."""
        flood = [self.connect() for _ in range(6 + 3 * MAX_REFUSED)]
        assert sum(not client.closed for client in flood) == 6 + MAX_REFUSED
        assert self.status(self.connect(), "/health") == 200

    def test_logged_once(self) -> None:
        """The log has one line for all of them, and one more when it happens again."""
        with logged("proxpi.web") as log:
            for _ in range(2):
                for client in [self.connect() for _ in range(20)]:
                    client.hang_up()
        assert log.levels == ["warn", "warn"]

    def test_requests(self) -> None:
        """A request that finds no descriptor left is refused; its connection stays."""
        self.serve("demo.whl", b"data", Reply(200, b"da", whole=False))
        clients = [self.connect() for _ in range(6)]
        for client in clients[:2]:
            client.ask("GET", PATH)
            assert client.answer() is None
        assert self.status(clients[2]) == 503
        assert not clients[2].closed
        assert self.status(clients[2], "/health") == 200
        clients[0].hang_up()
        assert self.status(clients[2]) == 404
        for client in clients[2:4]:
            client.ask("GET", PATH)
        clients[5].hang_up()
        assert self.status(self.connect()) == 503  # requests leave less for connections


class Drain(ProxpiCase):
    def large(self) -> Exchange:
        self.serve("demo.whl", b"x" * MIB)
        assert self.get(PATH).status == 200
        client = self.connect(capacity=4096)
        client.ask("GET", PATH)
        return client

    def poll(self, count: int = 1) -> None:
        for _ in range(count):
            self.clock.advance(DRAIN_POLL)
            settle(self.clock)

    def test_without_requests(self) -> None:
        """Connections without a whole request are closed at once, and nothing is begun."""
        served, silent, half = (self.connect() for _ in range(3))
        served.ask("GET", "/health")
        served.answer()
        half.send(b"GET /health")
        drained = self.limiter.drain(8)
        for client in (served, silent, half):
            client.ask("GET", "/health")
            assert client.answer() is None and client.closed
        self.poll(2)
        self.result(drained)
        assert self.clock.getDelayedCalls() == []

    def test_file(self) -> None:
        """A response that is under way is finished, at the rate of the client, to its last byte."""
        client = self.large()
        drained = self.limiter.drain(8)
        while len(client.received) < MIB:
            self.poll()
            self.pending(drained)
            assert client.read(50_000)
        self.poll(2)
        assert not client.transport.connected and not client.aborted
        assert client.received.endswith(b"x" * MIB)
        self.result(drained)

    def test_in_the_kernel(self) -> None:
        """A response counts as sent once the client has it, also where it wants the end itself."""
        for fields in ([], ["Connection: close"]):
            self.build()
            self.serve("demo.whl", b"data", Reply(200, b"da", whole=False))
            client = self.connect()
            client.ask("GET", PATH, *fields)
            client.ask("GET", "/health")
            drained = self.limiter.drain(8)
            self.clock.advance(0.9)
            self.poll(10)
            self.pending(drained)
            answer = client.response()
            assert (answer.status, answer.headers["connection"]) == (302, "close")
            self.poll(2)
            assert client.answer() is None
            self.result(drained)
            self.pages.invalidate("demo")

    def test_deadline(self) -> None:
        """One is cut off at the deadline, without time left, or when the drain is aborted."""
        for seconds, aborted in ((8, False), (0, False), (8, True)):
            self.build()
            client = self.large()
            drained = self.limiter.drain(seconds)
            if seconds and not aborted:
                self.poll(int(7.9 / DRAIN_POLL))
                self.pending(drained)
                self.poll(4)
            elif aborted:
                self.pending(drained)
                self.limiter.abort_drain()
                self.poll(2)
            self.result(drained)
            assert client.aborted
            assert self.open_files() == []

    def test_close_timeout(self) -> None:
        """A client that takes no part in the end of its idle connection is not waited for."""
        client = self.connect(tls=True)
        client.transport.hangs = True
        drained = self.limiter.drain(8)
        self.poll(int(CLOSE_TIMEOUT / DRAIN_POLL) + 4)
        assert client.aborted
        self.result(drained)
