"""Bodies on their way: as fast as the client takes them, whole or visibly broken."""

from __future__ import annotations

import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest

from proxpi.web.transfer import AT_ONCE, CHUNK, STALL_TIMEOUT, Stored, send
from tests.support.cases import MIB, ProxpiCase
from tests.support.exchange import BUFFER, Exchange
from tests.support.logs import logged

DATA = os.urandom(MIB) * 2
NAME = "large-1.0.tar.gz"
PATH = f"/index/large/{NAME}"


class SendCase(ProxpiCase):
    """Tests of a large file that is on disk."""

    def setUp(self) -> None:
        """Put it there."""
        super().setUp()
        self.serve(NAME, DATA, project="large")
        assert self.get(PATH).body == DATA

    def begin(self, method: str = "GET", *headers: str) -> Exchange:
        """Ask for it, and take nothing yet."""
        exchange = self.connect()
        exchange.ask(method, PATH, *headers)
        return exchange


class Pace(SendCase):
    """The client sets it."""

    def test_bounded(self) -> None:
        """What a client has not taken is never more than a buffer and a piece."""
        exchange = self.begin()
        received = b""
        while exchange.wire.unsent:
            assert len(exchange.wire.unsent) <= BUFFER + CHUNK + 1000
            received += exchange.wire.take()
        assert received.endswith(DATA)
        assert self.open_files() == []

    def test_several(self) -> None:
        """Several clients read one file, each at its own pace."""
        one, two = self.begin(), self.begin("GET", f"Range: bytes={MIB}-")
        one.wire.take()
        answer = two.answer()
        assert answer is not None
        assert answer.body == DATA[MIB:]
        one.hang_up()
        assert self.open_files() == []

    def test_head(self) -> None:
        """``HEAD`` reads nothing of it, and lets it go."""
        answer = self.begin("HEAD").answer()
        assert answer is not None
        assert answer.headers["content-length"] == str(len(DATA))
        assert self.open_files() == []

    def test_pipelined(self) -> None:
        """Requests sent in one go are answered in their order, one after the other."""
        exchange = self.connect()
        for start in (0, 10, 20):
            exchange.ask("GET", PATH, f"Range: bytes={start}-{start + MIB}")
        assert len(exchange.wire.unsent) <= BUFFER + CHUNK + 1000
        for start in (0, 10, 20):
            answer = exchange.answer()
            assert answer is not None
            assert answer.body == DATA[start : start + MIB + 1]
        assert self.open_files() == []

    def test_keeps_the_connection(self) -> None:
        """After a large body the connection serves on."""
        exchange = self.begin()
        exchange.answer()
        exchange.ask("GET", "/health")
        answer = exchange.answer()
        assert answer is not None
        assert answer.status == 200

    def test_http_1_0(self) -> None:
        """For HTTP/1.0 the connection closes once all is sent."""
        exchange = self.connect()
        exchange.send(f"GET {PATH} HTTP/1.0\r\n\r\n".encode())
        assert not exchange.closed
        answer = exchange.answer()
        assert answer is not None
        assert (answer.body, answer.whole) == (DATA, True)
        assert exchange.closed
        assert not (exchange.aborted and self.open_files())


class Slow(SendCase):
    """Clients that take their time."""

    def test_stalled(self) -> None:
        """A client that takes nothing for a minute is cut off, and the file let go of."""
        exchange = self.begin()
        self.clock.advance(STALL_TIMEOUT - 1)
        assert not exchange.closed
        assert self.open_files() != []
        self.clock.advance(1)
        self.clock.advance(0)
        assert exchange.aborted
        assert self.open_files() == []
        assert self.clock.getDelayedCalls() == []

    def test_slow_but_steady(self) -> None:
        """A client that takes something now and then gets all of it, however long that takes."""
        exchange = self.begin()
        received = b""
        while exchange.wire.unsent:
            self.clock.advance(STALL_TIMEOUT - 1)
            received += exchange.wire.take()
        assert received.endswith(DATA)
        assert not exchange.closed

    def test_small_body(self) -> None:
        """A client that does not take a small body is cut off by the server's own timer."""
        self.serve("small.whl", b"x" * AT_ONCE, project="small")
        exchange = self.connect()
        exchange.ask("GET", "/index/small/small.whl")
        for _ in range(20):
            self.clock.advance(10)
        assert exchange.closed
        assert self.open_files() == []


class WithoutTransport(SynchronousTestCase):
    """A body for whoever asks for it in a loop, as some tests of resources do."""

    def test_asked_after_the_end(self) -> None:
        """To be asked for more after the end is no harm."""
        request = DummyRequest([b""])
        ends: list[str] = []
        data = Stored(
            lambda start, count: b"data"[start : start + count], 1, 4, lambda: ends.append("end")
        )
        send(request, data, Clock())  # type: ignore[arg-type]
        assert (request.written, request.finished, ends) == ([b"ata"], 1, ["end"])


class Broken(SendCase):
    """Bodies that cannot be finished."""

    def test_client_gone(self) -> None:
        """A client that goes away mid-body: the file is let go of, and its timer ended."""
        exchange = self.begin()
        exchange.wire.take()
        assert self.open_files() != []
        exchange.hang_up()
        assert self.open_files() == []
        assert self.clock.getDelayedCalls() == []
        assert self.unhandled() == []

    def test_gone_client_does_not_hold_the_file(self) -> None:
        """What nobody is being sent any more may be evicted."""
        self.begin().hang_up()
        assert dict(self.cache_dir.index.in_use) == {}

    def test_shrinking(self) -> None:
        """A file that shrinks while it is sent: the client must not take it for whole."""
        exchange = self.begin()
        path = self.folder / "files-example/packages" / NAME
        os.truncate(path, MIB)
        with logged():
            answer = exchange.answer()
        self.clock.advance(0)
        assert answer is not None
        assert not answer.whole
        assert exchange.aborted
        assert self.open_files() == []
        assert self.clock.getDelayedCalls() == []

    def test_unreadable(self) -> None:
        """A disk that fails while a file is sent: the same, and the log says why."""
        exchange = self.begin()

        def failing(*_: object) -> bytes:
            raise OSError("input/output error")

        self.put(os, "pread", failing)
        with logged("proxpi.web") as log:
            exchange.receive()
        assert "input/output error" in log.text
        self.clock.advance(0)
        assert exchange.aborted
        assert self.open_files() == []

    def test_evicted_or_replaced(self) -> None:
        """A file whose name goes, or goes to another one, is sent as it was."""
        exchange = self.begin()
        path = self.folder / "files-example/packages" / NAME
        path.unlink()
        path.write_bytes(b"something else")
        answer = exchange.answer()
        assert answer is not None
        assert (answer.body, answer.whole) == (DATA, True)
