"""Bodies to a transport: at the client's rate, whole or visibly broken, by ``sendfile`` or not."""

from __future__ import annotations

import errno
import os
from typing import Any
from unittest.mock import patch

from proxpi.files import cache_dir
from proxpi.web import transfer
from proxpi.web.transfer import BUFFER, CHUNK, POLL, SMALL, STALL_TIMEOUT
from tests.support.cases import MIB, ProxpiCase
from tests.support.exchange import Exchange, settle
from tests.support.logs import logged

DATA = os.urandom(MIB) * 2
NAME = "large-1.0.tar.gz"
PATH = f"/index/large/{NAME}"
BROKEN = OSError(errno.EIO, "Input/output error")


class TransferCase(ProxpiCase):
    """Tests of a large cached file, on plain sockets and on those that count as TLS.

    :ivar sent: bytes that went out by ``os.sendfile``
    :ivar failing: the error that ``os.sendfile`` raises
    """

    def setUp(self) -> None:
        super().setUp()
        self.serve(NAME, DATA, project="large")
        assert self.get(PATH).body == DATA
        self.path = self.folder / "files-example/packages" / NAME
        self.sent = 0
        self.failing: OSError | None = None
        sendfile = os.sendfile

        def counted(out: int, descriptor: int, start: int, count: int) -> int:
            if self.failing is not None:
                raise self.failing
            sent = sendfile(out, descriptor, start, count)
            self.sent += sent
            return sent

        self.put(os, "sendfile", counted)

    def begin(self, *headers: str, method: str = "GET", tls: bool = False) -> Exchange:
        """Ask for it on a connection of its own, and take nothing yet."""
        exchange = self.connect(capacity=4096, tls=tls)
        exchange.ask(method, PATH, *headers)
        return exchange

    def body(self, exchange: Exchange) -> bytes:
        answer = exchange.response()
        assert answer.whole
        return answer.body

    def assert_nothing_left(self) -> None:
        assert self.open_files() == []
        assert dict(self.cache_dir.eviction_index.in_use) == {}
        assert self.clock.getDelayedCalls() == []
        assert self.unhandled() == []


class Whole(TransferCase):
    def test_plain(self) -> None:
        """To a plain socket the kernel sends file or range; a small range follows its head."""
        assert self.body(self.begin()) == DATA
        assert self.sent == len(DATA)
        assert f" 200 {len(DATA)} 0ms HIT " in self.access_log[-1]
        self.sent = 0
        exchange = self.begin(f"Range: bytes={MIB - 5}-{MIB + 100_000}")
        assert self.body(exchange) == DATA[MIB - 5 : MIB + 100_001]
        assert self.sent == 100_006
        assert self.body(self.begin(f"Range: bytes=0-{SMALL - 1}")) == DATA[:SMALL]
        assert self.sent == 100_006

    def test_without_sendfile(self) -> None:
        """Over TLS, without ``sendfile``, or where it fails for a kind of file, it is read."""
        tls = self.begin(tls=True)
        assert tls.channel.output.unsent <= BUFFER + CHUNK
        assert self.body(tls) == DATA
        self.failing = OSError(errno.EINVAL, "Invalid argument")
        assert self.body(self.begin()) == DATA
        assert self.sent == 0
        self.failing = None
        exchange = self.begin()
        self.failing = OSError(errno.EINVAL, "Invalid argument")
        assert self.body(exchange) == DATA
        assert 0 < self.sent < len(DATA)
        del os.sendfile
        assert self.body(self.begin()) == DATA

    def test_memory(self) -> None:
        """Of a file that the client does not take, next to nothing is in this process."""
        for tls, most in ((False, 0), (True, BUFFER + CHUNK)):
            exchange = self.begin(tls=tls)
            while exchange.read(30_000):
                assert exchange.channel.output.unsent <= most
                settle(self.clock)
            assert exchange.received.endswith(DATA)

    def test_pipelined(self) -> None:
        """Requests sent in one go are answered in order; the connection serves on."""
        for tls in (False, True):
            exchange = self.connect(tls=tls)
            for start in (0, 10, MIB):
                exchange.ask("GET", PATH, f"Range: bytes={start}-{start + MIB // 2}")
                exchange.ask("GET", "/health")
            for start in (0, 10, MIB):
                assert self.body(exchange) == DATA[start : start + MIB // 2 + 1]
                assert b"success" in self.body(exchange)
            exchange.hang_up()
        self.assert_nothing_left()

    def test_last_of_a_connection(self) -> None:
        """A last response is sent whole before its connection closes; ``HEAD`` reads nothing."""
        exchange = self.begin("Connection: close")
        assert not exchange.closed
        assert self.body(exchange) == DATA
        assert not exchange.transport.connected and not exchange.transport.aborted
        self.sent = 0
        exchange = self.begin(method="HEAD")
        assert exchange.response().headers["content-length"] == str(len(DATA))
        assert self.sent == 0
        exchange.hang_up()
        self.assert_nothing_left()

    def test_replaced(self) -> None:
        """A file that is deleted or replaced meanwhile is sent as it was."""
        exchange = self.begin()
        self.path.unlink()
        self.path.write_bytes(b"something else")
        assert self.body(exchange) == DATA


class Slow(TransferCase):
    def test_steady(self) -> None:
        """A client that takes something each minute gets all of it, however long that takes."""
        for tls in (False, True):
            exchange = self.begin(tls=tls)
            # What TCP acknowledges; a Unix socket that was filled again shows no progress.
            self.put(transfer, "_acknowledged", lambda _, of=exchange: len(of.received))
            while exchange.read():
                settle(self.clock)
                self.clock.pass_time(STALL_TIMEOUT - POLL)
                assert not exchange.closed
            assert exchange.received.endswith(DATA)

    def test_stalled(self) -> None:
        """A client that takes nothing for a minute is cut off, and the file let go of."""
        for tls in (False, True):
            exchange = self.begin(tls=tls)
            exchange.read(1000)
            self.clock.pass_time(STALL_TIMEOUT - 1)
            assert not exchange.closed
            assert self.open_files() != []
            self.clock.pass_time(2 * POLL + 1)
            assert exchange.aborted
            self.assert_nothing_left()


class Broken(TransferCase):
    def cut(self, exchange: Exchange) -> str:
        """Take a response, which must not look whole; return the log."""
        with logged("proxpi.web") as log:
            answer = exchange.response()
        assert not answer.whole
        assert exchange.aborted
        self.assert_nothing_left()
        return log.text

    def test_client_gone(self) -> None:
        """A client that goes away mid-body is not worth a line in the log."""
        for tls in (False, True):
            exchange = self.begin(tls=tls)
            exchange.read(1000)
            assert self.open_files() != []
            exchange.hang_up()
            self.assert_nothing_left()
        exchange = self.begin()
        self.failing = BrokenPipeError(errno.EPIPE, "Broken pipe")
        assert self.cut(exchange) == ""

    def test_shrinking(self) -> None:
        """A file that shrinks while it is sent."""
        for tls in (False, True):
            exchange = self.begin(tls=tls)
            os.truncate(self.path, MIB)
            assert "shorter" in self.cut(exchange)
            self.get(PATH)

    def test_unreadable(self) -> None:
        """A disk that fails: the log says why; the file is verified before it is sent again."""

        def refuse(*_: object) -> Any:
            raise BROKEN

        exchange = self.begin(tls=True)
        with patch.object(os, "pread", refuse):
            assert "Input/output error" in self.cut(exchange)
        exchange = self.begin()
        self.failing = BROKEN
        assert "Input/output error" in self.cut(exchange)
        self.failing = None
        self.agent.asked.clear()
        assert self.get(PATH).body == DATA
        assert self.agent.asked == []
        exchange = self.begin()
        self.failing = BROKEN
        self.cut(exchange)
        self.failing = None
        self.put(cache_dir, "check", refuse)
        for expected in ("MISS", "HIT"):
            answer = self.get(PATH)
            assert (answer.body == DATA, answer.headers["x-cache"]) == (True, expected)
