"""Heads of answers: as long as they come to an end, and the connection closed if they do not."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from proxpi.upstream.connections import HEAD_LIMIT
from proxpi.upstream.errors import UpstreamFailed
from tests.support.cases import Case, run
from tests.support.indexes import Line, Network

PAGE = "http://index.example/simple/demo/"
LINE = b"X-Filler: " + b"x" * 1000 + b"\r\n"


class HeadTests(Case):
    """An upstream that says more than it should before it begins."""

    def setUp(self) -> None:
        """Prepare the network."""
        self.network = Network()

    def ask(self) -> Deferred[bytes]:
        """Ask for a page."""

        async def body() -> bytes:
            async with self.network.upstream.page(PAGE, {}) as answer:
                return (await self.network.upstream.read(answer))[0]

        return run(body())

    def asked(self) -> tuple[Deferred[bytes], Line]:
        """Ask for a page, and give the server's end of the connection."""
        ask = self.ask()
        return ask, self.network.accept()

    def assert_too_long(self, ask: Deferred[bytes], line: Line) -> None:
        """Check that the head was found too long, and asked for no second time."""
        error = self.error(ask, UpstreamFailed)
        assert (error.cause, error.temporary) == ("the head of the answer is too long", False)
        assert not line.open
        assert len(self.network.attempts) == 1

    def test_long(self) -> None:
        """A head of reasonable length is taken, in however many pieces it comes."""
        ask, line = self.asked()
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n" + LINE * (HEAD_LIMIT // len(LINE) - 1)
        for place in range(0, len(head), 999):
            line.send(head[place : place + 999])
        line.send(b"\r\npage")
        assert self.result(ask) == b"page"
        assert line.open

    def test_endless(self) -> None:
        """One without an end is left as soon as the limit is reached."""
        ask, line = self.asked()
        line.send(b"HTTP/1.1 200 OK\r\n")
        sent = 0
        while not ask.called:
            line.send(LINE)
            sent += len(LINE)
        assert sent < HEAD_LIMIT + len(LINE)
        self.assert_too_long(ask, line)

    def test_all_at_once(self) -> None:
        """The same if it comes in one piece, whatever it ends with."""
        ask, line = self.asked()
        line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + LINE * 100 + b"\r\n")
        self.assert_too_long(ask, line)

    def test_empty_fields(self) -> None:
        """Many short lines are no way around it."""
        ask, line = self.asked()
        line.send(b"HTTP/1.1 200 OK\r\n" + b"a:\n" * HEAD_LIMIT)
        self.assert_too_long(ask, line)

    def test_informational(self) -> None:
        """Nor are many heads that are no answer yet (1xx)."""
        ask, line = self.asked()
        line.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" * (HEAD_LIMIT // 20))
        self.assert_too_long(ask, line)

    def test_body_in_the_same_piece(self) -> None:
        """A body does not count, also if it comes together with the head."""
        ask, line = self.asked()
        body = b"x" * (4 * HEAD_LIMIT)
        line.answer(200, body)
        assert self.result(ask) == body
        assert line.open

    def test_next_answer(self) -> None:
        """Each answer of a connection has its own head."""
        ask, line = self.asked()
        for _ in range(8):
            line.answer(200, b"page", "X-Filler: " + "x" * (HEAD_LIMIT // 5))
            assert self.result(ask) == b"page"
            ask = self.ask()
        assert len(self.network.attempts) == 1

    def test_on_a_kept_connection(self) -> None:
        """A head without an end is no reason to ask again on another connection."""
        ask, line = self.asked()
        line.answer(200, b"page")
        self.result(ask)
        ask = self.ask()
        line.send(b"HTTP/1.1 200 OK\r\n" + LINE * 100)
        self.assert_too_long(ask, line)

    def test_identity(self) -> None:
        """The transfer coding ``identity``, in any case and list, is none (RFC 2616 3.6.2)."""
        for coding in (b"identity", b" Identity ", b"identity, identity", b""):
            ask, line = self.asked()
            fields = b"Transfer-Encoding: %s\r\nContent-Length: 4\r\n" % coding
            line.send(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\npage")
            assert self.result(ask) == b"page"
            assert line.open
            line.close()
        ask, line = self.asked()
        line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\npage")
        self.pending(ask)
        line.close()
        assert self.result(ask) == b"page"

    def test_chunked(self) -> None:
        """``chunked`` stays what it is, in any case and beside ``identity``."""
        for coding in (b"Chunked", b"identity, chunked", b"chunked\r\nTransfer-Encoding: identity"):
            ask, line = self.asked()
            head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: %s\r\n\r\n" % coding
            line.send(head + b"4\r\npage\r\n0\r\n\r\n")
            assert self.result(ask) == b"page"
            line.close()
        ask, line = self.asked()
        line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n")
        self.error(ask, UpstreamFailed)
        assert self.unhandled() == []
