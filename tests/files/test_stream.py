"""Files on their way: who gets which bytes when, and what becomes of those that are wrong."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred

from proxpi.files.cache_dir import OpenFile, PartialFile
from proxpi.files.fetch import STALLED
from proxpi.files.mirror import Redirect
from proxpi.files.spool import TAIL, WINDOW, Reader, before_tail
from proxpi.upstream.connections import CONNECTIONS
from proxpi.upstream.errors import UpstreamFailed
from tests.files.mirrored import NAME, TIMEOUT, URL, MirrorCase
from tests.support.agent import Reply
from tests.support.cases import MIB, entry
from tests.support.reading import Reading

LARGE = os.urandom(3 * MIB)


class StreamCase(MirrorCase):
    """Tests of a large file where nobody is sent upstream."""

    def setUp(self) -> None:
        """List it."""
        super().setUp()
        self.build(stream=True)
        self.reply = self.slow()
        self.serve(self.reply)

    def slow(self, start: int = 0, **headers: Any) -> Reply:
        """Give an answer that has no byte yet, of the file from somewhere on."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        if not start:
            return Reply(200, b"", fields, whole=False, length=len(LARGE))
        fields["Content-Range"] = f"bytes {start}-{len(LARGE) - 1}/{len(LARGE)}"
        return Reply(206, b"", fields, whole=False, length=len(LARGE) - start)

    def serve(self, *replies: Reply, **keys: Any) -> None:
        """Let the upstream answer so."""
        self.locate.lists(entry(NAME, LARGE, **keys))
        self.internet.at(URL, *replies)

    def read(self, asked: Deferred[OpenFile | Reader | Redirect] | None = None) -> Reading:
        """Read as a client does that asks now."""
        body = self.result(asked or self.fetch())
        assert isinstance(body, Reader), body
        return Reading(body)

    def finish(self, reply: Reply, start: int = 0) -> None:
        """Let the rest come."""
        reply.bring(LARGE[start:])
        reply.end()

    def assert_clean(self) -> None:
        """Check that nothing is left open, or to be done."""
        self.clock.advance(0)
        assert self.leftovers() == []
        assert self.open_files() == []
        assert self.clock.getDelayedCalls() == []


class Coming(StreamCase):
    """Bytes leave as they come, all but the last ones."""

    def test_first_byte(self) -> None:
        """A client gets its first bytes with the first bytes, and not before."""
        asked = self.fetch()
        self.pending(asked)
        self.reply.bring(LARGE[:10])
        reading = self.read(asked)
        assert reading.data == LARGE[:10]

    def test_all(self) -> None:
        """It follows the download to its end, which it gets once all is right."""
        asked = self.fetch()
        self.reply.bring(LARGE[:-1])
        reading = self.read(asked)
        assert reading.data == LARGE[: len(LARGE) - TAIL]
        self.finish(self.reply, len(LARGE) - 1)
        assert (reading.data == LARGE, reading.whole) == (True, True)
        self.assert_served(data=LARGE)
        self.assert_clean()

    def test_late(self) -> None:
        """Whoever comes late gets what is there, then follows the same download."""
        first = self.fetch()
        self.reply.bring(LARGE[: 2 * MIB])
        readings = [self.read(first), *(self.read() for _ in range(5))]
        assert all(reading.data == LARGE[: 2 * MIB] for reading in readings)
        self.finish(self.reply, 2 * MIB)
        assert all(reading.whole and reading.data == LARGE for reading in readings)
        assert self.internet.urls() == [URL]
        self.assert_clean()

    def test_slow_reader(self) -> None:
        """A reader that pauses holds up neither the download nor the others, and misses nothing."""
        first = self.fetch()
        self.reply.bring(LARGE[:MIB])
        slow, fast = self.read(first), self.read()
        slow.paused = True
        self.finish(self.reply, MIB)
        assert fast.whole
        assert slow.data == LARGE[:MIB]
        slow.go_on()
        assert (slow.data == LARGE, slow.whole) == (True, True)
        self.assert_clean()

    def test_slow_reader_is_no_victim(self) -> None:
        """A file is not evicted, nor spoiled, while a late reader is still at it."""
        self.build(stream=True, capacity=4 * MIB)
        asked = self.fetch()
        self.reply.bring(LARGE[:MIB])
        slow = self.read(asked)
        slow.paused = True
        self.finish(self.reply, MIB)
        self.clock.advance(0)
        assert self.cache_dir.index.in_use.total() == 1
        slow.go_on()
        assert slow.whole
        assert self.cache_dir.index.in_use.total() == 0

    def test_leaving(self) -> None:
        """Readers that leave stop nothing."""
        asked = self.fetch()
        self.reply.bring(LARGE[:MIB])
        self.read(asked).hang_up()
        self.finish(self.reply, MIB)
        self.assert_served(data=LARGE)
        self.assert_clean()

    def test_unknown_length(self) -> None:
        """Without an announced length the end is told by itself; the last bytes are held back."""
        reply = Reply(200, b"", whole=False, length=None)
        self.serve(reply, size=None)
        asked = self.fetch()
        reply.bring(LARGE[:MIB])
        reading = self.read(asked)
        assert reading.data == LARGE[: MIB - TAIL]
        self.finish(reply, MIB)
        assert reading.whole
        self.assert_clean()

    def test_small_file(self) -> None:
        """A small file is whole before it is sent, unless that takes longer than a redirect."""
        data = LARGE[:1600]
        reply = Reply(200, b"", whole=False, length=len(data))
        self.locate.lists(entry("small.whl", data, url=URL))
        self.internet.at(URL, reply)
        first, second = self.fetch("small.whl"), self.fetch("small.whl")
        reply.bring(data[:1590])
        self.pending(first)
        self.clock.advance(TIMEOUT)
        reading = self.read(first)
        assert reading.data == data[:1500]
        late = self.result(second)
        assert isinstance(late, Reader)
        late.close()
        reply.bring(data[1590:])
        reply.end()
        assert reading.whole
        self.assert_clean()

    def test_before_tail(self) -> None:
        """Of every file that has a byte at least one is held back, and never more than the most."""
        assert [before_tail(size) for size in (0, 1, 16, 17, 1600)] == [0, 0, 15, 15, 1500]
        assert before_tail(10 * MIB) == 10 * MIB - TAIL


class Wrong(StreamCase):
    """Wrong bytes are never a whole answer."""

    def begin(self) -> Reading:
        """Let it come, all but the last byte."""
        asked = self.fetch()
        self.reply.bring(LARGE[:-1])
        return self.read(asked)

    def test_wrong(self) -> None:
        """Who follows wrong bytes is cut off before their end; then the right ones are brought."""
        again = self.slow()
        self.serve(self.reply, again)
        reading = self.begin()
        self.reply.bring(b"\0" if LARGE[-1] else b"\1")
        self.reply.end()
        assert reading.cut
        assert len(reading.data) < len(LARGE)
        self.finish(again)
        self.assert_served(data=LARGE)
        self.assert_clean()

    def test_wrong_twice(self) -> None:
        """Nothing is kept of what is wrong twice; who waits for the second try gets an error."""
        wrong = Reply(200, bytes(len(LARGE)))
        held = self.slow()
        self.serve(wrong, held)
        first = self.result(self.fetch())
        assert isinstance(first, Reader) and first.cut
        late = self.fetch()
        self.pending(late)
        held.bring(b"x" * len(LARGE))
        reading = self.read(late)
        held.end()
        assert reading.cut
        self.assert_nothing_kept()

    def test_small_and_wrong(self) -> None:
        """Of a small file that is wrong at first no client has to know."""
        self.listed(Reply(200, b"wrong"), Reply(200, b"the bytes of a wheel"))
        self.assert_bytes(self.result(self.fetch()))

    def test_does_not_look_right(self) -> None:
        """What does not look like the file is not begun to be sent, and fails with a reason."""
        page = Reply(200, bytes(len(LARGE)), {"Content-Type": "text/html"})
        short = Reply(200, LARGE[: 2 * MIB])
        packed = Reply(200, bytes(len(LARGE)), {"Content-Encoding": "gzip"})
        for reply in (page, short, packed):
            self.serve(reply)
            assert "wrong bytes" in self.error(self.fetch(), UpstreamFailed).cause
            self.assert_nothing_kept()

    def test_never_comes(self) -> None:
        """What fails before a byte was sent is a failure that can be told."""
        for reply, temporary in ((Reply(503), True), (Reply(401), False), (Reply(403), False)):
            self.serve(reply)
            assert self.error(self.fetch(), UpstreamFailed).temporary == temporary

    def test_breaks_off_for_good(self) -> None:
        """If the rest is not to be had, who has begun is cut off."""
        self.serve(self.reply, Reply(503))
        asked = self.fetch()
        self.reply.bring(LARGE[:1000])
        reading = self.read(asked)
        self.reply.cut()
        assert reading.cut
        self.assert_nothing_kept()


class Deleted(StreamCase):
    """A download that is deleted."""

    def begin(self) -> Reading:
        """Give a client that reads the first bytes of a new download."""
        self.serve(slow := self.slow())
        self.reply = slow
        asked = self.fetch()
        slow.bring(LARGE[:MIB])
        return self.read(asked)

    def test_without_clients(self) -> None:
        """It ends with its last client, or at once if no client is left."""
        for left in (False, True):
            first, second = self.begin(), self.read()
            first.hang_up()
            if left:
                second.hang_up()
            assert not self.reply.closed
            self.mirror.delete("demo", NAME)
            second.hang_up()
            assert self.reply.closed
            self.assert_clean()
            assert self.cache_dir.quota.used == 0

    def test_waited_for(self) -> None:
        """It goes on for a client that waits for the whole file."""
        reading = self.begin()
        whole = Deferred.fromCoroutine(self.mirror.whole("demo", NAME))
        self.mirror.delete("demo", NAME)
        reading.hang_up()
        self.finish(self.reply, MIB)
        self.assert_bytes(self.result(whole), LARGE)
        self.assert_clean()


class FullDisk(StreamCase):
    """A disk that fails while a file is being sent: the clients get the rest without it."""

    def test_anywhere(self) -> None:
        """The download goes on in memory from there, and each reader gets every byte."""
        for function in ("write", "flush"):
            first, rest = self.slow(ETag='"x"'), self.slow(MIB)
            self.serve(first, rest)
            asked = self.fetch()
            first.bring(LARGE[:MIB])
            readings = [self.read(asked), self.read()]
            readings[1].paused = True
            full = self.fill_disk(function)
            self.finish(first, MIB)
            readings[1].go_on()
            if function == "write":
                assert [asked.header("Range") for asked in self.internet.asked[-2:]] == [
                    None,
                    f"bytes={MIB}-",
                ]
                self.finish(rest, MIB)
            assert all(reading.whole for reading in readings)
            assert all(reading.data == LARGE for reading in readings)
            full.stop()
            self.assert_clean()
            assert self.mirror.ready("demo", NAME) is None

    def test_wrong_rest(self) -> None:
        """What comes then is compared, too, all of it with what came before."""
        rest = self.slow(MIB)
        self.serve(self.reply, rest)
        asked = self.fetch()
        self.reply.bring(LARGE[:MIB])
        reading = self.read(asked)
        self.fill_disk()
        self.reply.bring(b"more")
        rest.bring(bytes(2 * MIB))
        rest.end()
        assert reading.cut
        assert len(reading.data) < len(LARGE)
        self.assert_clean()

    def test_slowest_reader(self) -> None:
        """The slowest reader sets the pace then, and its leaving ends a wait for it."""
        rest = self.slow(MIB)
        self.serve(self.reply, rest)
        asked = self.fetch()
        self.reply.bring(LARGE[:MIB])
        slow, fast = self.read(asked), self.read()
        slow.paused = True
        full = self.fill_disk()
        self.reply.bring(b"more")
        full.stop()
        rest.bring(LARGE[MIB : MIB + WINDOW])
        assert not rest.paused
        rest.bring(LARGE[MIB + WINDOW : 2 * MIB])
        assert rest.paused
        assert len(fast.data) == 2 * MIB
        slow.hang_up()
        assert not rest.paused
        self.finish(rest, 2 * MIB)
        assert (fast.data == LARGE, fast.whole) == (True, True)
        self.assert_clean()

    def test_no_reader_left(self) -> None:
        """A download that goes on in memory ends with its last reader."""
        rest = self.slow(MIB)
        self.serve(self.reply, rest)
        asked = self.fetch()
        self.reply.bring(LARGE[:MIB])
        reading = self.read(asked)
        self.fill_disk()
        self.reply.bring(b"more")
        reading.hang_up()
        assert rest.closed
        self.assert_clean()

    def test_at_the_start(self) -> None:
        """A disk that takes no byte at all: the file passes through."""

        def refuse(*_: object) -> None:
            raise OSError("read-only file system")

        self.put(PartialFile, "__init__", refuse)
        asked = self.fetch()
        self.reply.bring(LARGE[:MIB])
        reading = self.read(asked)
        self.finish(self.reply, MIB)
        assert (reading.data == LARGE, reading.whole) == (True, True)
        self.assert_clean()


class Passing(StreamCase):
    """What may not be kept passes through, with no more of it in memory than a window."""

    def setUp(self) -> None:
        """Keep nothing."""
        super().setUp()
        self.build(stream=True, capacity=0)

    def test_pace(self) -> None:
        """The upstream is read from as fast as the client takes it."""
        asked = self.fetch()
        self.reply.bring(LARGE[:10])
        reading = self.read(asked)
        reading.paused = True
        self.reply.bring(LARGE[10 : WINDOW + 10])
        assert not self.reply.paused
        self.reply.bring(LARGE[WINDOW + 10 : WINDOW + 20])
        assert self.reply.paused
        reading.go_on()
        assert not self.reply.paused
        self.finish(self.reply, WINDOW + 20)
        assert (reading.data == LARGE, reading.whole) == (True, True)
        self.assert_clean()

    def begin_and_stall(self, reply: Reply, asked: Deferred[Any]) -> Reading:
        """Let a file begin to pass for a client that reads its first bytes, and no more."""
        reply.bring(LARGE[:10])
        reading = self.read(asked)
        reading.paused = True
        reply.bring(LARGE[10 : WINDOW + 10])
        assert not reply.paused
        reply.bring(LARGE[WINDOW + 10 : WINDOW + 20])
        assert reply.paused
        return reading

    def test_client_that_reads_nothing_for_long(self) -> None:
        """Its connection is closed after 5 seconds; the rest is asked for when it reads again."""
        first, rest = self.slow(Accept_Ranges="bytes", ETag='"x"'), self.slow(WINDOW + 20)
        self.serve(first, rest)
        reading = self.begin_and_stall(first, self.fetch())
        self.clock.advance(STALLED - 0.1)
        assert not first.closed
        self.clock.advance(0.2)
        assert first.closed
        self.clock.advance(50)
        assert len(self.internet.asked) == 1
        reading.go_on()
        asked = self.internet.asked[-1]
        assert (asked.header("Range"), asked.header("If-Range")) == (f"bytes={WINDOW + 20}-", '"x"')
        self.finish(rest, WINDOW + 20)
        assert (reading.data == LARGE, reading.whole) == (True, True)
        self.assert_clean()

    def test_client_that_pauses(self) -> None:
        """A client that reads again before that keeps its connection."""
        reply = self.slow(Accept_Ranges="bytes")
        self.serve(reply)
        reading = self.begin_and_stall(reply, self.fetch())
        for start in range(WINDOW + 20, 3 * WINDOW, 2 * WINDOW):
            self.clock.advance(STALLED - 0.1)
            reading.go_on()
            assert not reply.paused
            reading.paused = True
            reply.bring(LARGE[start : start + 2 * WINDOW])
            assert reply.paused
        self.clock.advance(STALLED - 0.1)
        reading.go_on()
        self.finish(reply, len(reading.data))
        assert (reading.data == LARGE, reading.whole) == (True, True)
        assert len(self.internet.asked) == 1
        self.assert_clean()

    def test_client_that_leaves_after_long(self) -> None:
        """Nothing is asked for a client that leaves instead."""
        reply = self.slow(Accept_Ranges="bytes")
        self.serve(reply)
        reading = self.begin_and_stall(reply, self.fetch())
        self.clock.advance(STALLED)
        reading.hang_up()
        assert len(self.internet.asked) == 1
        self.assert_clean()

    def test_upstream_without_parts(self) -> None:
        """Where the rest could not be asked for, the connection stays open."""
        cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
            ({}, {}),
            ({"Accept_Ranges": "none"}, {}),
            ({"Accept_Ranges": "bytes"}, {"hashes": {}}),
        ]
        for headers, keys in cases:
            reply = self.slow(**headers)
            self.serve(reply, **keys)
            reading = self.begin_and_stall(reply, self.fetch())
            self.clock.advance(50)
            assert not reply.closed
            reading.hang_up()

    def test_clients_that_read_nothing(self) -> None:
        """However many clients read nothing, the next one gets its file after 5 seconds."""
        replies = [self.slow(Accept_Ranges="bytes") for _ in range(CONNECTIONS)]
        self.serve(*replies)
        asked = [self.fetch() for _ in replies]
        readings = [
            self.begin_and_stall(reply, one)
            for reply, one in zip(replies, asked, strict=True)
            if reply.began
        ]
        assert len(readings) == CONNECTIONS * 3 // 4
        other = entry("other.whl", LARGE, url=URL + ".other")
        self.locate.lists(other)
        self.internet.at(other["url"], Reply(200, LARGE))
        wanted = self.fetch("other.whl")
        self.clock.advance(STALLED)
        assert self.read(wanted).whole
        assert not any(reading.cut for reading in readings)

    def test_redirected_clients_that_read_nothing(self) -> None:
        """Clients that read nothing hold no slot of the origin that redirected them."""
        there = "https://cdn.example/demo.whl"
        self.serve(Reply(302, b"", {"Location": there}))
        replies = [self.slow() for _ in range(CONNECTIONS)]
        self.internet.at(there, *replies)
        asked = [self.fetch() for _ in replies]
        for reply, one in zip(replies, asked, strict=True):
            if reply.began:
                reply.bring(LARGE[:10])
                self.read(one).paused = True
                reply.bring(LARGE[10 : WINDOW + 100])
                assert reply.paused
        other = entry("other.whl", LARGE, url=URL + ".other")
        self.locate.lists(other)
        self.internet.at(other["url"], Reply(200, LARGE))
        assert self.read(self.fetch("other.whl")).whole

    def test_does_not_look_right(self) -> None:
        """What does not look like the file is read at once, too, as nothing holds all of it."""
        cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
            ({"Content_Type": "text/html"}, {}),
            ({"Content_Encoding": "gzip"}, {}),
            ({}, {"size": 5}),
        ]
        for headers, keys in cases:
            reply = self.slow(**headers)
            self.serve(reply, **keys)
            asked = self.fetch()
            reply.bring(LARGE[: 2 * MIB])
            reading = self.read(asked)
            assert not reply.paused
            self.finish(reply, 2 * MIB)
            assert (reading.data == LARGE, reading.whole) == (True, True)

    def test_cut(self) -> None:
        """If it breaks off, it is gone on with, and compared as a whole."""
        rest = self.slow(MIB)
        self.serve(self.reply, rest)
        asked = self.fetch()
        self.reply.bring(LARGE[:MIB])
        reading = self.read(asked)
        self.reply.cut()
        self.finish(rest, MIB)
        assert (reading.data == LARGE, reading.whole) == (True, True)

    def test_wrong(self) -> None:
        """Wrong bytes are no whole answer here, either."""
        asked = self.fetch()
        self.reply.bring(LARGE[:-1])
        reading = self.read(asked)
        self.reply.bring(b"\0" if LARGE[-1] else b"\1")
        self.reply.end()
        assert reading.cut
        self.assert_clean()

    def test_client_gone(self) -> None:
        """Nothing more is asked for whom nobody reads."""
        asked = self.fetch()
        self.reply.bring(LARGE[:MIB])
        self.read(asked).hang_up()
        assert self.reply.closed
        self.assert_clean()

    def test_turns_out_too_large(self) -> None:
        """A file that turns out to be larger than the cache passes through from there on."""
        self.build(stream=True, capacity=2 * MIB)
        first = Reply(200, b"", whole=False, length=None)
        self.serve(first, self.slow(MIB), size=None)
        asked = self.fetch()
        first.bring(LARGE[:MIB])
        reading = self.read(asked)
        rest = Reply(200, LARGE, length=None)
        self.serve(rest, size=None)
        first.bring(LARGE[MIB:])
        assert (reading.data == LARGE, reading.whole) == (True, True)
        self.assert_clean()
