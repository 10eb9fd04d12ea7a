"""Files on plain sockets: moved by the kernel, at the client's pace, whole or visibly broken."""

from __future__ import annotations

import errno
import os

from twisted.internet.interfaces import ISSLTransport
from zope.interface import alsoProvides

from proxpi.files import cache_dir
from proxpi.web.transfer import CHUNK, POLL, SMALL, STALL_TIMEOUT
from tests.support.cases import MIB, ProxpiCase
from tests.support.logs import logged
from tests.support.pipe import KERNEL, PipeExchange, play_kernel

DATA = os.urandom(MIB) * 2
NAME = "large-1.0.tar.gz"
PATH = f"/index/large/{NAME}"


class DirectCase(ProxpiCase):
    """Tests of a large file that is on disk, and a client on a plain socket."""

    def setUp(self) -> None:
        """Put it there, and connect."""
        super().setUp()
        self.serve(NAME, DATA, project="large")
        assert self.get(PATH).body == DATA
        self.client = PipeExchange(self.site, self.clock)
        self.addCleanup(self.client.wire.hang_up)
        play_kernel(self, self.client.wire)

    def begin(self, *headers: str, method: str = "GET") -> PipeExchange:
        """Ask for it, and take nothing yet."""
        self.client.ask(method, PATH, *headers)
        return self.client

    def body(self) -> bytes:
        """Take the whole answer, and give its body."""
        answer = self.client.answer()
        assert answer is not None and answer.whole
        return answer.body


class Moved(DirectCase):
    """What the kernel moves."""

    def test_whole(self) -> None:
        """All bytes of it are moved by the kernel, in order, behind the head."""
        self.begin()
        assert self.body() == DATA
        assert self.client.wire.moved == len(DATA)
        assert self.open_files() == []
        assert not self.client.closed

    def test_logged(self) -> None:
        """The log tells how many bytes were sent, though none of them came by here."""
        self.begin()
        assert self.body() == DATA
        assert f" 200 {len(DATA)} HIT " in self.access_log[-1]

    def test_range(self) -> None:
        """So is a part, and nothing else."""
        self.begin(f"Range: bytes={MIB - 5}-{MIB + 100_000}")
        assert self.body() == DATA[MIB - 5 : MIB + 100_001]
        assert self.client.wire.moved == 100_006

    def test_nothing_in_memory(self) -> None:
        """While a client takes nothing, nothing of the file waits in this process."""
        self.begin()
        self.client.wire.go_on()
        assert len(self.client.wire.kernel) == KERNEL
        assert self.client.wire.buffered == 0

    def test_keeps_the_connection(self) -> None:
        """After a file the connection serves on, files and other things in turn."""
        for _ in range(3):
            self.begin()
            assert self.body() == DATA
            self.client.ask("GET", "/health")
            answer = self.client.answer()
            assert answer is not None and answer.status == 200

    def test_pipelined(self) -> None:
        """Requests that come in one go are answered in their order."""
        for start in (0, 10, MIB):
            self.begin(f"Range: bytes={start}-{start + MIB // 2}")
        for start in (0, 10, MIB):
            assert self.body() == DATA[start : start + MIB // 2 + 1]
        assert self.open_files() == []

    def test_close(self) -> None:
        """A client that wants an end of the connection gets all of the file before."""
        self.begin("Connection: close")
        assert self.body() == DATA
        assert self.client.wire.ended and not self.client.wire.aborted

    def test_head(self) -> None:
        """``HEAD`` moves nothing."""
        self.begin(method="HEAD")
        self.client.receive()
        assert self.client.wire.moved == 0
        assert self.open_files() == []

    def test_small(self) -> None:
        """A small file goes out in one write with its head."""
        self.begin(f"Range: bytes=0-{SMALL - 1}")
        assert self.body() == DATA[:SMALL]
        assert self.client.wire.moved == 0

    def test_tls(self) -> None:
        """Over TLS there is no way past the encryption: the file is read and written."""
        alsoProvides(self.client.wire, ISSLTransport)
        self.begin()
        self.client.wire.go_on()
        assert self.client.wire.buffered <= 2 * CHUNK
        assert self.body() == DATA
        assert self.client.wire.moved == 0


class Not(DirectCase):
    """What the kernel cannot move."""

    def test_kind_of_file(self) -> None:
        """From a file system that does not know how, a file is read and written."""
        self.client.wire.failing = OSError(errno.EINVAL, "Invalid argument")
        self.begin()
        assert self.body() == DATA
        assert self.open_files() == []

    def test_in_the_middle(self) -> None:
        """Also if that turns out in the middle of it."""
        self.begin()
        self.client.wire.failing = OSError(errno.EINVAL, "Invalid argument")
        assert self.body() == DATA
        assert 0 < self.client.wire.moved < len(DATA)

    def test_missing(self) -> None:
        """A system without ``sendfile`` has its files read and written."""
        del os.sendfile
        self.begin()
        assert self.body() == DATA
        assert self.client.wire.moved == 0


class Broken(DirectCase):
    """What comes to no good end."""

    def end(self) -> str:
        """Take all that comes, and give what is logged of it."""
        with logged("proxpi.web") as log:
            self.client.receive()
            self.clock.advance(0)
        assert self.client.wire.aborted and self.client.wire.ended
        assert self.open_files() == []
        assert dict(self.cache_dir.index.in_use) == {}
        assert self.clock.getDelayedCalls() == []
        return log.text

    def test_client_gone(self) -> None:
        """A client that the kernel knows to be gone is nothing to write home about."""
        self.begin()
        self.client.wire.failing = BrokenPipeError(errno.EPIPE, "Broken pipe")
        assert self.end() == ""

    def test_client_gone_by_itself(self) -> None:
        """The same if Twisted hears of it first."""
        self.begin()
        self.client.wire.hang_up()
        assert self.open_files() == []
        assert self.clock.getDelayedCalls() == []

    def test_shrinking(self) -> None:
        """A file that is cut while it is sent must not be taken for whole."""
        self.begin()
        os.truncate(self.folder / "files-example/packages" / NAME, MIB)
        assert "shorter" in self.end()

    def test_unreadable(self) -> None:
        """A disk that fails ends the connection, and the log says why."""
        self.begin()
        self.client.wire.failing = OSError(errno.EIO, "Input/output error")
        assert "Input/output error" in self.end()

    def test_unreadable_but_once(self) -> None:
        """The file is checked before it is served again, and then it is."""
        self.begin()
        self.client.wire.failing = OSError(errno.EIO, "Input/output error")
        self.end()
        self.internet.asked.clear()
        assert self.get(PATH).body == DATA
        assert self.internet.asked == []

    def test_unreadable_for_good(self) -> None:
        """If it cannot be checked, it is fetched anew, and the new one is served from then on."""
        self.begin()
        self.client.wire.failing = OSError(errno.EIO, "Input/output error")
        self.end()

        def refuse(*_: object) -> None:
            raise OSError(errno.EIO, "Input/output error")

        self.put(cache_dir, "check", refuse)
        for expected in ("MISS", "HIT"):
            answer = self.get(PATH)
            assert (answer.body == DATA, answer.headers["x-cache"]) == (True, expected)


class Slow(DirectCase):
    """Clients that take their time, of which the producer hears next to nothing."""

    def test_slow_but_steady(self) -> None:
        """A client that takes a little each minute is not dropped, however much lies in between."""
        self.begin()
        received = len(self.client.wire.take(1000))
        while received < 600_000:
            self.clock.pump([POLL] * 11)
            received += len(self.client.wire.take(20_000))
            assert not self.client.closed

    def test_stalled(self) -> None:
        """One that takes nothing any more is dropped after a minute."""
        self.begin()
        self.client.wire.take(100_000)
        self.clock.pump([POLL] * int(STALL_TIMEOUT / POLL))
        assert not self.client.closed
        self.clock.pump([POLL] * 2)
        assert self.client.wire.aborted
        assert self.open_files() == []
        assert self.clock.getDelayedCalls() == []

    def test_large_body_in_memory(self) -> None:
        """The same holds for what is read and written."""
        alsoProvides(self.client.wire, ISSLTransport)
        self.begin()
        for _ in range(20):
            self.client.wire.take(1000)
            self.clock.pump([POLL] * 11)
            assert not self.client.closed
        self.clock.pump([POLL] * 14)
        assert self.client.wire.aborted
