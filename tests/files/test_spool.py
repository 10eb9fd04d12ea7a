"""The spool: bytes reach every reader as they arrive, all but the verification tail."""

from __future__ import annotations

from typing import Any
from unittest import mock

from proxpi.files.spool import MEMORY_WINDOW, VERIFICATION_TAIL, Reader, before_tail
from proxpi.upstream.errors import UpstreamFailed
from tests.support.agent import Reply
from tests.support.cases import MIB, entry
from tests.support.mirrors import LARGE, NAME, URL, MirrorCase, Reading, part, slow


def test_before_tail() -> None:
    """Of every file that has a byte, at least one is withheld, and at most a tail."""
    assert [before_tail(size) for size in (0, 1, 16, 17, 1600)] == [0, 0, 15, 15, 1500]
    assert before_tail(10 * MIB) == 10 * MIB - VERIFICATION_TAIL


class SpoolCase(MirrorCase):
    """Tests of a large file whose clients follow its download."""

    def setUp(self) -> None:
        super().setUp()
        self.build(stream=True)
        self.serve(slow(LARGE))

    def serve(self, reply: Reply, *later: Reply, **keys: Any) -> None:
        self.reply = reply
        self.listed(reply, *later, data=LARGE, **keys)

    def begin_and_fill_disk(self, *later: Reply) -> tuple[list[Reading], Any]:
        """Return two clients, of which the first pauses, as the disk fails."""
        self.serve(slow(LARGE, ETag='"x"'), *later)
        asked = self.fetch()
        self.reply.bring(LARGE[:MIB])
        readings = [self.read(asked, paused=True), self.read()]
        return readings, self.fill_disk()


class Growing(SpoolCase):
    """Bytes are readable as they arrive."""

    def test_tail(self) -> None:
        """The first bytes come with the first bytes; the last ones once all is verified."""
        for length in (len(LARGE), None):
            self.serve(Reply(200, b"", whole=False, length=length), size=length)
            asked = self.fetch()
            self.pending(asked)
            self.reply.bring(LARGE[:10])
            reading = self.read(asked)
            assert reading.data == LARGE[: 9 if length is None else 10]
            self.reply.bring(LARGE[10:-1])
            assert reading.data == LARGE[: len(LARGE) - VERIFICATION_TAIL - (length is None)]
            self.finish(self.reply, len(LARGE) - 1)
            self.assert_read(reading)
            self.assert_cached(data=LARGE)
            self.assert_clean()
            self.delete()

    def test_readers(self) -> None:
        """Each reader has its own rate, from the first byte on; its errors concern no other."""
        paused = self.begin(self.reply, MIB)
        paused.paused = True
        readings = [self.read() for _ in range(3)]
        leaving = self.read()
        leaving.hang_up()
        broken = self.read().reader
        broken.subscribe(mock.Mock(side_effect=OSError))
        self.finish(self.reply, MIB)
        for reading in readings:
            self.assert_read(reading)
        assert self.unhandled() and not broken.cut
        broken.close()
        assert paused.data == LARGE[:MIB]
        paused.go_on()
        self.assert_read(paused)
        assert self.agent.urls() == [URL]
        self.assert_clean()

    def test_late_reader(self) -> None:
        """A file is not evicted while a late reader is still at it."""
        self.build(stream=True, capacity=4 * MIB)
        reading = self.begin(self.reply, MIB)
        reading.paused = True
        self.finish(self.reply, MIB)
        self.pages.lists(entry("other.whl", LARGE, url=URL + ".other"))
        self.agent.at(URL + ".other", Reply(200, LARGE))
        other = self.result(self.fetch("other.whl"))
        assert isinstance(other, Reader)
        other.close()
        self.clock.advance(0)
        reading.go_on()
        self.assert_read(reading)
        self.assert_cached(data=LARGE)


class Wrong(SpoolCase):
    """Wrong bytes are never a whole response."""

    def test_once(self) -> None:
        """A reader of wrong bytes is cut off before their end; then the right ones are fetched."""
        again = slow(LARGE)
        self.serve(slow(LARGE), again)
        reading = self.begin(self.reply, len(LARGE) - 1)
        self.reply.bring(b"\0" if LARGE[-1] else b"\1")
        self.reply.end()
        assert reading.cut and len(reading.data) < len(LARGE)
        self.finish(again, 0)
        self.assert_cached(data=LARGE)
        self.assert_clean()

    def test_twice(self) -> None:
        """Nothing is cached of what is wrong twice; readers of the second try are cut off, too."""
        held = slow(LARGE)
        self.serve(Reply(200, bytes(len(LARGE))), held)
        first = self.result(self.fetch())
        assert isinstance(first, Reader) and first.cut
        late = self.fetch()
        self.pending(late)
        held.bring(b"x" * len(LARGE))
        reading = self.read(late)
        held.end()
        assert reading.cut
        self.assert_nothing_cached()

    def test_withheld(self) -> None:
        """A doubtful response is withheld until it is verified."""
        for reply in (
            Reply(200, bytes(len(LARGE)), {"Content-Type": "text/html"}),
            Reply(200, LARGE[: 2 * MIB]),
            Reply(200, bytes(len(LARGE)), {"Content-Encoding": "gzip"}),
        ):
            self.serve(reply)
            assert "wrong bytes" in self.error(self.fetch(), UpstreamFailed).cause
            self.assert_nothing_cached()


class FailingDisk(SpoolCase):
    """A disk that fails while a file is being sent: the readers get the rest without it."""

    def test_in_memory(self) -> None:
        """The download goes on in memory from there, at the rate of the slowest reader."""
        rest = part(LARGE, MIB, arrived=False)
        (paused, fast), full = self.begin_and_fill_disk(rest)
        self.reply.bring(b"more")
        full.stop()
        assert self.ranges() == [None, f"bytes={MIB}-"]
        rest.bring(LARGE[MIB : MIB + MEMORY_WINDOW])
        assert not rest.paused
        rest.bring(LARGE[MIB + MEMORY_WINDOW : 2 * MIB])
        assert rest.paused and len(fast.data) == 2 * MIB
        paused.go_on()
        assert not rest.paused
        self.finish(rest, 2 * MIB)
        for reading in (paused, fast):
            self.assert_read(reading)
        assert self.mirror.ready("demo", NAME) is None
        self.assert_clean()

    def test_readers_leave(self) -> None:
        """The slowest reader that leaves ends the wait for it, and the last one the download."""
        rest = part(LARGE, MIB, arrived=False)
        (paused, fast), _ = self.begin_and_fill_disk(rest)
        self.reply.bring(b"more")
        rest.bring(LARGE[MIB : 2 * MIB])
        assert rest.paused
        paused.hang_up()
        assert not rest.paused
        fast.hang_up()
        assert rest.closed
        self.assert_clean()

    def test_wrong_rest(self) -> None:
        """The rest is verified together with the bytes before it."""
        rest = part(LARGE, MIB, arrived=False)
        (paused, fast), _ = self.begin_and_fill_disk(rest)
        paused.hang_up()
        self.reply.bring(b"more")
        rest.bring(bytes(2 * MIB))
        rest.end()
        assert fast.cut and len(fast.data) < len(LARGE)
        self.assert_clean()

    def test_at_the_end(self) -> None:
        """A disk that fails at the end: all bytes have arrived, and are sent."""
        reading = self.begin(self.reply, MIB)
        full = self.fill_disk("flush")
        self.finish(self.reply, MIB)
        full.stop()
        self.assert_read(reading)
        self.assert_clean()
        assert self.mirror.ready("demo", NAME) is None

    def test_turns_out_too_large(self) -> None:
        """A file that turns out larger than the cache passes through from there on."""
        self.build(stream=True, capacity=2 * MIB)
        self.serve(Reply(200, b"", whole=False, length=None), size=None)
        reading = self.begin(self.reply, MIB)
        self.agent.at(URL, Reply(200, LARGE, length=None))
        self.reply.bring(LARGE[MIB:])
        self.assert_read(reading)
        self.assert_clean()
