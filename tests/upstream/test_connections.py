"""The way out on connections: Twisted's real agent and pool, with a network in memory."""

from __future__ import annotations

import gzip

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError, TimeoutError

from proxpi.upstream.client import CONNECTIONS, PAGE_TIME
from proxpi.upstream.connections import KEEP_ALIVE
from proxpi.upstream.errors import UpstreamFailed
from proxpi.upstream.response import SizeLimit
from tests.support.cases import Case, run
from tests.support.indexes import CONNECT_TIMEOUT, READ_TIMEOUT, Line, Network

PAGE = "http://index.example/simple/demo/"


class ConnectionCase(Case):
    """Tests with a network of their own."""

    def setUp(self) -> None:
        """Prepare the network."""
        self.network = Network()
        self.upstream = self.network.upstream
        self.chunks: list[bytes] = []

    async def _body(self, limit: int) -> tuple[bytes, bool]:
        async with self.upstream.page(PAGE, {}) as answer:
            return await self.upstream.read(answer, SizeLimit(limit))

    async def _status(self) -> int:
        async with self.upstream.page(PAGE, {}) as answer:
            return answer.status

    async def _file(self) -> bool:
        async with self.upstream.file(PAGE, {}) as answer:
            return await self.upstream.stream(answer, self.chunks.append)

    def body(self, limit: int = 1 << 20) -> Deferred[tuple[bytes, bool]]:
        """Ask for a page and read it."""
        return run(self._body(limit))

    def status(self) -> Deferred[int]:
        """Ask for a page and leave its body."""
        return run(self._status())

    def file(self) -> Deferred[bool]:
        """Ask for a file."""
        return run(self._file())

    def asked(self) -> Line:
        """Accept the connection of the newest request, which must be there."""
        line = self.network.accept()
        assert line.take().startswith(b"GET /simple/demo/ HTTP/1.1\r\n")
        return line

    def assert_idle(self) -> None:
        """No timer is left but those of the pool's idle connections."""
        self.network.pool.closeCachedConnections()
        assert self.network.reactor.getDelayedCalls() == []


class PoolTests(ConnectionCase):
    """One persistent pool for all."""

    def test_reuse(self) -> None:
        """Pages and files to one host use one connection, one after the other."""
        first = self.body()
        line = self.asked()
        line.answer(200, b"page")
        assert self.result(first) == (b"page", True)
        second = self.file()
        assert line.take().startswith(b"GET /simple/demo/")
        line.answer(200, b"file")
        assert self.result(second) is True
        assert b"".join(self.chunks) == b"file"
        assert len(self.network.attempts) == 1
        assert line.open

    def test_as_many_are_kept_as_may_ask(self) -> None:
        """The pool keeps the connections that pages and files together may have."""
        assert self.network.pool.persistent
        assert self.network.pool.maxPersistentPerHost == 2 * CONNECTIONS

    def test_idle_connections_end(self) -> None:
        """A connection that is not used for a while is closed, before the server does so."""
        self.body()
        line = self.asked()
        line.answer(200)
        self.network.advance(KEEP_ALIVE - 1)
        assert line.open
        self.network.advance(2)
        assert not line.open

    def test_connection_that_the_server_closed(self) -> None:
        """A request on a connection that was just closed is made again on another."""
        self.body()
        line = self.asked()
        line.answer(200)
        second = self.body()
        line.close()
        self.asked().answer(200, b"page")
        assert self.result(second) == (b"page", True)

    def test_connect_timeout(self) -> None:
        """The time to connect is the one that was set; what exceeds it failed to connect."""
        ask = self.body()
        assert self.network.attempts[-1][3] == CONNECT_TIMEOUT
        self.network.refuse(TimeoutError())
        self.network.advance(1)  # for the other addresses that the host might have had
        assert self.error(ask, UpstreamFailed).cause == "timed out while connecting"

    def test_refused(self) -> None:
        """A refused connection is said to be one, and the next request tries again."""
        ask = self.body()
        self.network.refuse(ConnectionRefusedError())
        self.network.advance(1)
        assert self.error(ask, UpstreamFailed).cause == "connection refused"
        again = self.body()
        self.asked().answer(200, b"page")
        assert self.result(again) == (b"page", True)

    def test_silent_before_the_head(self) -> None:
        """A server that accepts and says nothing is left, with its connection closed."""
        ask = self.body()
        line = self.asked()
        self.network.advance(CONNECT_TIMEOUT + READ_TIMEOUT + 1)
        error = self.error(ask, UpstreamFailed)
        assert (error.cause, error.temporary) == ("timed out", True)
        assert not line.open
        self.assert_idle()

    def test_nonsense(self) -> None:
        """A server that does not speak HTTP is an upstream that failed."""
        ask = self.body()
        line = self.asked()
        line.send(b"SSH-2.0-OpenSSH_9\r\n\r\n")
        self.error(ask, UpstreamFailed)
        assert not line.open
        self.assert_idle()

    def test_reset_before_the_head(self) -> None:
        """A connection that is closed without an answer is an outage."""
        ask = self.body()
        self.asked().close()
        error = self.error(ask, UpstreamFailed)
        assert (error.cause, error.temporary) == ("the connection was closed", True)
        self.assert_idle()


class AbandonedTests(ConnectionCase):
    """An answer that nobody reads pins no connection."""

    def test_short(self) -> None:
        """A body at hand is taken, and the connection used again."""
        asked = self.status()
        line = self.asked()
        line.answer(404, b"nothing here")
        assert self.result(asked) == 404
        self.status()
        assert line.take().startswith(b"GET ")

    def test_later(self) -> None:
        """The same when the body comes after the head; nobody waits for it."""
        asked = self.status()
        line = self.asked()
        line.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\n")
        assert self.result(asked) == 404
        line.send(b"gone")
        self.status()
        assert line.take().startswith(b"GET ")

    def test_silent(self) -> None:
        """A body that does not come costs its connection, after the time for a chunk."""
        asked = self.status()
        line = self.asked()
        line.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\n")
        self.result(asked)
        assert line.open
        self.network.advance(READ_TIMEOUT + 1)
        assert not line.open
        self.assert_idle()

    def test_long(self) -> None:
        """A body that is not worth reading costs its connection at once."""
        asked = self.status()
        line = self.asked()
        line.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 70000)
        self.result(asked)
        assert not line.open
        self.assert_idle()

    def test_redirects(self) -> None:
        """The body of a redirect is one that nobody reads."""
        ask = self.body()
        line = self.asked()
        line.answer(302, b"this way", "Location: /simple/demo/")
        self.asked().answer(200, b"page")
        assert self.result(ask) == (b"page", True)
        again = self.body(), self.body()
        assert len(self.network.attempts) == 2
        line.answer(200, b"page")
        self.result(again[0])

    def test_undecodable(self) -> None:
        """A body that is not what it says to be is no trouble for who does not read it."""
        asked = self.status()
        line = self.asked()
        line.answer(404, b"no gzip at all", "Content-Encoding: gzip")
        assert self.result(asked) == 404
        self.network.advance(READ_TIMEOUT + 1)
        assert self.unhandled() == []
        self.assert_idle()

    def test_error_within(self) -> None:
        """An error of who uses the answer goes through, and the body is let go of."""

        async def breaks() -> None:
            async with self.upstream.page(PAGE, {}):
                raise KeyError

        asked = run(breaks())
        line = self.asked()
        line.answer(200, b"page")
        self.error(asked, KeyError)
        self.status()
        assert line.take().startswith(b"GET ")


class BodyTests(ConnectionCase):
    """Bodies over connections: coded, cut, endless, silent."""

    def test_file_is_not_decoded(self) -> None:
        """A file with a coding comes as its bytes are."""
        ask = self.file()
        data = gzip.compress(b"file")
        self.asked().answer(200, data, "Content-Encoding: gzip")
        assert self.result(ask) is True
        assert b"".join(self.chunks) == data

    def test_drip(self) -> None:
        """A page that comes steadily but without end is given up, too."""
        ask = self.body()
        line = self.asked()
        line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        for _ in range(int(PAGE_TIME) + 1):
            line.send(b"x")
            self.network.advance(1)
        assert self.error(ask, UpstreamFailed).cause == "timed out"
        assert not line.open
        self.assert_idle()

    def test_cap(self) -> None:
        """A page that goes on and on is left, with its connection closed."""
        ask = self.body(limit=10)
        line = self.asked()
        line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        line.send(b"8\r\n01234567\r\n")
        self.pending(ask)
        line.send(b"8\r\n01234567\r\n")
        assert self.error(ask, UpstreamFailed).cause == "the answer is too long"
        assert not line.open
        self.assert_idle()

    def test_silent_body(self) -> None:
        """A body that stops coming is left, with its connection closed."""
        ask = self.file()
        line = self.asked()
        line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234")
        self.network.advance(READ_TIMEOUT - 1)
        line.send(b"5")
        self.network.advance(READ_TIMEOUT - 1)
        self.pending(ask)
        self.network.advance(2)
        assert self.error(ask, UpstreamFailed).cause == "timed out"
        assert not line.open
        self.assert_idle()

    def test_cut(self) -> None:
        """A body shorter than announced is cut, by length and by chunks."""
        for head in (b"Content-Length: 10", b"Transfer-Encoding: chunked"):
            ask = self.file()
            line = self.asked()
            line.send(b"HTTP/1.1 200 OK\r\n%s\r\n\r\n4\r\n0123\r\n"[:-2] % head)
            line.close()
            error = self.error(ask, UpstreamFailed)
            assert (error.cause, error.temporary) == ("the answer was cut short", True)
            self.assert_idle()

    def test_end_by_closing(self) -> None:
        """A body that ends with its connection is given, but not as proven to be whole."""
        ask = self.body()
        line = self.asked()
        line.send(b"HTTP/1.1 200 OK\r\n\r\npage")
        line.close()
        assert self.result(ask) == (b"page", False)
        self.assert_idle()

    def test_write_fails(self) -> None:
        """What the taker raises goes through as it is, and the connection is closed."""

        def full(data: bytes) -> None:
            raise OSError("disk full")

        async def take() -> None:
            async with self.upstream.file(PAGE, {}) as answer:
                await self.upstream.stream(answer, full)

        ask = run(take())
        line = self.asked()
        line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234")
        self.error(ask, OSError)
        assert not line.open
        self.assert_idle()

    def test_cancel(self) -> None:
        """Whoever no longer wants the body closes the connection."""
        ask = self.file()
        line = self.asked()
        line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234")
        ask.cancel()
        self.error(ask, CancelledError)
        assert not line.open
        self.assert_idle()

    def test_cancel_before_the_head(self) -> None:
        """The same while nothing has come yet; Twisted's agent gives that another name."""
        ask = self.file()
        line = self.asked()
        ask.cancel()
        self.error(ask, Exception)
        assert not line.open
        self.assert_idle()
