"""The server: the access log, odd requests, and proxpi's own errors."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from proxpi.index.page_cache import PageCache
from proxpi.web.response_cache import ResponseCache
from proxpi.web.server import Site, printable
from tests.support.agent import Reply
from tests.support.cases import FILES, ProxpiCase
from tests.support.logs import logged


class Bug(RuntimeError):
    """An error of proxpi's own, with something in it that is nobody's business."""


class Buggy(Resource):
    """Fails before, or in the middle of, an answer."""

    isLeaf = True
    waiting: Any = None

    def render(self, request: Any) -> int:
        """Answer as the path says."""
        if request.path == b"/middle":
            request.setHeader(b"Content-Length", b"100")
            request.write(b"the first bytes")
        elif request.path == b"/wait":
            self.waiting = request
            return NOT_DONE_YET
        raise Bug("secret")


def buggy() -> Buggy:
    """Make one; Twisted's resources are not typed."""
    return Buggy()  # type: ignore[no-untyped-call]


class _Admitted:
    """A connection, as far as the choice of a resource goes."""

    admitted = True


class _Path:
    """A request, as far as the choice of its resource goes."""

    channel = _Admitted()

    def __init__(self, path: bytes) -> None:
        self.path = path


class AccessLog(ProxpiCase):
    """One line for each answer."""

    def line(
        self, method: str, target: str | bytes, *headers: str, peer: IAddress | None = None
    ) -> str:
        """Ask, and give the line."""
        self.access_log.clear()
        with logged("proxpi.access") as log:
            exchange = self.connect(peer=peer)
            exchange.ask(method, target, *headers)
            exchange.answer()
        [line] = self.access_log + log.lines
        return line

    def test_line(self) -> None:
        """Who asked what, what came of it, how much, from where, and how long it took."""
        self.serve("demo.whl", b"data")
        peer = IPv4Address("TCP", "192.0.2.1", 5)
        path = "/index/demo/demo.whl"
        line = self.line("GET", path, peer=peer)
        assert line == f"192.0.2.1 GET {path} 200 4 MISS 0.000s"
        line = self.line("HEAD", path, peer=peer)
        assert line == f"192.0.2.1 HEAD {path} 200 0 HIT 0.000s"
        line = self.line("GET", "/health", peer=peer)
        assert re.search(r"^192\.0\.2\.1 GET /health 200 \d+ - 0\.000s$", line)

    def test_addresses(self) -> None:
        """An IPv6 address is one; a Unix socket has none."""
        for address, expected in [
            (IPv6Address("TCP", "2001:db8::1", 5), "2001:db8::1"),
            (UNIXAddress("/run/proxpi.sock"), "-"),
            (UNIXAddress(None), "-"),
        ]:
            line = self.line("GET", "/health", peer=address)
            assert line.split()[0] == expected

    def test_duration(self) -> None:
        """The time is that from the request to the end of its answer."""
        self.serve("demo.whl", b"data")
        exchange = self.connect()
        self.clock.advance(5)
        self.internet.at(FILES + "demo.whl", Reply(200, b"", whole=False))
        exchange.ask("GET", "/index/demo/demo.whl")
        self.clock.advance(0.9)
        assert " 302 0 MISS 0.900s" in self.access_log[-1]

    def test_no_query(self) -> None:
        """What stands behind a question mark, often a token, is not written down."""
        for target in ("/health?token=secret", "http://h.example/health?token=secret", "/x?secret"):
            line = self.line("GET", target)
            assert "secret" not in line

    def test_no_credentials(self) -> None:
        """Nor is what clients authenticate themselves with."""
        line = self.line(
            "GET", "http://user:secret@h.example/health", "Authorization: Basic secret"
        )
        assert "secret" not in line

    def test_not_to_be_forged(self) -> None:
        """Nothing in a request makes a second line of it, or moves a terminal's cursor."""
        for target in ("/%0d%0aforged", "/a%1b[2J", "/a%00b", "/a%20b"):
            line = self.line("GET", target)
            assert len(line.split(" ")) == 7, line
            assert line.isprintable()

    def test_braces(self) -> None:
        """A path that looks like a format is none."""
        assert "/{client}{0}" in self.line("GET", "/{client}{0}")

    def test_printable(self) -> None:
        """Bytes that are no plain characters are written as escapes."""
        assert printable(b"/a\r\n\x1b \xff\x7fz") == r"/a\x0d\x0a\x1b\x20\xff\x7fz"


class OwnErrors(ProxpiCase):
    """A bug ends one answer, is logged, and is nobody's business."""

    def setUp(self) -> None:
        """Put in a resource that fails."""
        super().setUp()
        self.put_in(buggy())

    def put_in(self, resource: Any) -> None:
        """Let a resource answer all that is no page."""
        self.site = Site(
            resource,
            lambda: resource,
            self.clock,
            access=self.access_log.append,
            response_cache=ResponseCache(),
        )

    def bugs(self) -> list[Any]:
        """Give the bugs that were logged; there is nothing else."""
        errors = self.unhandled()
        assert {error.type for error in errors} <= {Bug}
        return errors

    def test_before_the_answer(self) -> None:
        """It is a 500 in one plain line; the connection serves on."""
        exchange = self.connect()
        for _ in range(2):
            exchange.ask("GET", "/bug")
            answer = exchange.answer()
            assert answer is not None
            assert answer.status == 500
            assert answer.headers["content-type"] == "text/plain; charset=utf-8"
            assert answer.text.count("\n") == 1
            for word in ("secret", "Traceback", "Bug", ".py"):
                assert word not in answer.text
        assert len(self.bugs()) == 2

    def test_in_the_middle(self) -> None:
        """A body that breaks off ends its connection, so that nobody takes it for whole."""
        exchange = self.connect()
        exchange.ask("GET", "/middle")
        self.clock.advance(0)
        assert exchange.aborted
        assert len(self.bugs()) == 1

    def test_in_the_log(self) -> None:
        """The log has it, with the path and without the query."""
        with logged("proxpi.web") as log:
            self.connect().ask("GET", "/bug%0a?token")
        assert "/bug%0a" in log.text
        assert "token" not in log.text
        self.bugs()

    def test_in_a_coroutine(self) -> None:
        """A bug that comes up later is treated no differently."""

        async def buggy(*_: object) -> None:
            raise Bug("secret")

        self.put(PageCache, "fetch", buggy)
        for method in ("GET", "HEAD"):
            answer = self.ask(method, "/index/demo/")
            assert answer.status == 500
            assert "secret" not in answer.text
        assert len(self.bugs()) == 2

    def test_in_a_route(self) -> None:
        """A bug below Klein is treated no differently, and finishes its answer once."""
        self.build()

        def buggy(*_: object) -> None:
            raise Bug("secret")

        self.put(PageCache, "invalidate", buggy)
        answer = self.ask("DELETE", "/cache/demo")
        assert (answer.status, answer.text.count("\n")) == (500, 1)
        assert "secret" not in answer.text
        assert len(self.bugs()) == 1

    def test_client_goes_away(self) -> None:
        """A bug that comes up after the client went away is logged, and that is all."""
        failing = buggy()
        self.put_in(failing)
        for begun in (True, False):
            exchange = self.connect()
            exchange.ask("GET", "/wait")
            if begun:
                failing.waiting.write(b"the first bytes")
            exchange.hang_up()
            failing.waiting.processingFailed(Failure(Bug("secret")))
            assert [error.type for error in self.unhandled()] == [Bug]

    def test_in_a_coroutine_that_is_cancelled(self) -> None:
        """So is one that comes up because the client went away."""

        async def buggy(*_: object) -> None:
            try:
                await Deferred()
            finally:
                raise Bug("secret")

        self.put(PageCache, "fetch", buggy)
        exchange = self.connect()
        exchange.ask("GET", "/index/demo/")
        exchange.hang_up()
        assert [error.type for error in self.unhandled()] == [Bug]


class Leaf(ProxpiCase):
    """The tree of pages."""

    def test_no_children(self) -> None:
        """It is a leaf: Twisted looks for nothing below it."""
        tree: Any = self.site.getResourceFor(_Path(b"/index/demo/"))
        assert tree.isLeaf


class Connections(ProxpiCase):
    """Connections, and what comes on them."""

    def test_many_requests(self) -> None:
        """Requests on one connection are answered in their order."""
        exchange = self.connect()
        for path in ("/health", "/nothing", "/index", "/health"):
            exchange.ask("GET", path)
        statuses = [answer.status for _ in range(4) if (answer := exchange.answer())]
        assert statuses == [200, 404, 301, 200]

    def test_many_requests_that_wait(self) -> None:
        """A request that has to wait holds back those behind it, and is not lost."""
        self.serve("demo.whl", b"data", Reply(200, b"", whole=False))
        exchange = self.connect()
        exchange.ask("GET", "/index/demo/demo.whl")
        exchange.ask("GET", "/health")
        assert exchange.answer() is None
        self.clock.advance(0.9)
        statuses = [answer.status for _ in range(2) if (answer := exchange.answer())]
        assert statuses == [302, 200]

    def test_close(self) -> None:
        """A client that wants the connection closed has it closed."""
        exchange = self.connect()
        exchange.ask("GET", "/health", "Connection: close")
        answer = exchange.answer()
        assert answer is not None
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert exchange.closed

    def test_http_1_0(self) -> None:
        """HTTP/1.0 gets an answer that ends with the connection, never a chunked one."""
        for path in ("/health", "/", "/index/demo/", "/nothing", "/index/demo"):
            exchange = self.connect()
            exchange.send(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            answer = exchange.answer()
            assert answer is not None
            assert "transfer-encoding" not in answer.headers
            assert exchange.closed

    def test_never_chunked(self) -> None:
        """Every answer tells its length."""
        self.serve("demo.whl", b"data")
        for method, target in [
            ("GET", "/"),
            ("GET", "/health"),
            ("GET", "/nothing"),
            ("BREW", "/"),
            ("GET", "/index/demo/"),
            ("GET", "/index/demo"),
            ("GET", "/index/demo/demo.whl"),
            ("GET", "/index/demo/no.whl"),
            ("POST", "/index/"),
            ("POST", "/admin/forget-list"),
            ("DELETE", "/cache/demo"),
        ]:
            assert "content-length" in self.ask(method, target).headers, target

    def test_star_and_authority(self) -> None:
        """Request targets that are no paths get an answer."""
        assert self.ask("OPTIONS", "*").status == 204
        assert self.get("http://h.example").status == 200
        assert self.get("http://h.example?x").status == 200
        assert self.ask("CONNECT", "h.example:443").status in (400, 404, 405)
        assert self.unhandled() == []

    def test_not_http(self) -> None:
        """What is no request is refused, and the connection closed."""
        for raw in (
            b"\x16\x03\x01\x02\x00\r\n\r\n",
            b"GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: \x00\r\n\r\n",
            b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 600 + b"\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ):
            exchange = self.connect()
            exchange.send(raw)
            exchange.receive()
            assert exchange.closed, raw[:30]
        assert self.unhandled() == []

    def test_idle(self) -> None:
        """A connection on which nothing comes is closed in the end."""
        exchange = self.connect()
        exchange.send(b"GET /hea")
        for _ in range(10):
            self.clock.advance(10)
        assert exchange.closed
