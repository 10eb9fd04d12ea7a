"""Ranges and files that are not cached: requested by themselves, at the client's rate."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from proxpi.files.cache_dir import OpenFile
from proxpi.files.fetch import MIN_PROGRESS, PARK_AFTER
from proxpi.files.mirror import Redirect
from proxpi.files.passthrough import RangeResponse
from proxpi.files.spool import MEMORY_WINDOW
from proxpi.simple.caching import Span, Unsatisfiable
from proxpi.upstream.connections import CONNECTIONS
from proxpi.upstream.errors import UpstreamFailed
from tests.support.agent import Reply
from tests.support.cases import FILES, MIB, entry
from tests.support.logs import logged
from tests.support.mirrors import (
    DATA,
    LARGE,
    NAME,
    TIMEOUT,
    URL,
    MirrorCase,
    Reading,
    part,
    slow,
)

SIZE = len(DATA)
#: The range that most of the tests request, and its bytes.
LAST, FIVE = f"bytes={SIZE - 5}-{SIZE - 1}", DATA[-5:]


class Ranges(MirrorCase):
    """A range is requested upstream with both its ends."""

    def assert_range(self, found: object) -> None:
        assert isinstance(found, RangeResponse), found
        self.assert_read(Reading(found.reader), FIVE)
        assert (found.span, found.size) == (Span(SIZE - 5, SIZE), SIZE)

    def test_outcomes(self) -> None:
        """After these requests a range passes through, comes from the whole file, or is refused."""
        whole, last, told = Reply(200, DATA), part(DATA, SIZE - 5), Reply(200, b"", length=SIZE)
        small = SIZE - 10
        cases: list[tuple[str, list[Any], int | None, list[str], type[object]]] = [
            ("-5", [last], SIZE, [LAST], RangeResponse),
            ("-5", [part(DATA, SIZE - 5, size="*")], SIZE, [LAST], RangeResponse),
            # Without a size on the page, the upstream is asked for it; else the file tells.
            ("-5", [told, last], None, ["HEAD", LAST], RangeResponse),
            ("-5", [Reply(405), whole], None, ["HEAD", "GET"], OpenFile),
            # The upstream has to confirm a size by which a range is unsatisfiable.
            (f"{SIZE - 5}-", [told, last], small, ["HEAD", LAST], RangeResponse),
            (f"{SIZE}-", [told], small, ["HEAD"], Unsatisfiable),
            # All bytes, or several ranges, are the file.
            *((each, [whole], SIZE, ["GET"], OpenFile) for each in (f"0-{SIZE - 1}", "0-1,3-4")),
            # What fails is retried.
            ("-5", [Reply(503), last], SIZE, [LAST, LAST], RangeResponse),
            ("-5", [Reply(503)], SIZE, [LAST, LAST, "GET", "GET"], Redirect),
        ]
        no_size = [ConnectionResetError(), Reply(200, b"", length=0), *map(Reply, (405, 500, 404))]
        for unclear in no_size:
            cases.append((f"{SIZE - 5}-", [unclear, whole], small, ["HEAD", "GET"], OpenFile))
        # If the upstream states another size, the range of that is requested, once.
        for wrong in (SIZE + 3, SIZE - 3):
            refusal = part(DATA + bytes(3), wrong - 5, min(wrong, SIZE), SIZE)
            first = f"bytes={wrong - 5}-{wrong - 1}"
            cases.append(("-5", [refusal, last], wrong, [first, LAST], RangeResponse))
        others = [part(DATA, 0, 5, SIZE + more) for more in (10, 20)]
        second = f"bytes={SIZE + 5}-{SIZE + 9}"
        cases.append(("-5", [*others, whole], SIZE, [LAST, second, "GET"], OpenFile))
        for other in (
            whole,
            part(DATA, 0, 5),
            part(DATA, SIZE - 5, SIZE - 1),
            part(DATA, SIZE - 5, Content_Encoding="gzip"),
            Reply(206, FIVE),
            Reply(206, FIVE, {"Content-Range": "bytes 5-1/2"}),
            Reply(206, DATA[-4:], {"Content-Range": f"bytes {SIZE - 5}-{SIZE - 1}/{SIZE}"}),
            *(Reply(503, headers={"Retry-After": after}) for after in ("9", "60")),
        ):
            cases.append(("-5", [other, whole], SIZE, [LAST, "GET"], OpenFile))
        refused = (204, 300, 304, 400, 401, 403, 404, 405, 406, 409, 410, 412, 416, 418, 422, 451)
        for status in (*refused, 408, 429, 500, 501, 502, 503, 504, 599):
            tries = 1 if status in refused else 2
            replies = [Reply(status)] * tries
            cases.append(("-5", [*replies, whole], SIZE, [LAST] * tries + ["GET"], OpenFile))
        for wanted, replies, size, requests, kind in cases:
            for stream in (False, True)[: 1 + (kind is not Redirect)]:
                self.build(stream=stream)
                self.listed(*replies, size=size)
                asked = self.range(wanted)
                if kind is Unsatisfiable:
                    assert self.error(asked, Unsatisfiable).size == SIZE
                else:
                    found = self.result(asked)
                    assert isinstance(found, kind), (wanted, replies, found)
                    if kind is RangeResponse:
                        self.assert_range(found)
                        self.assert_nothing_cached()
                    elif kind is OpenFile:
                        self.assert_bytes(found)
                        self.assert_bytes(self.result(self.range("-5")))  # from the cache
                asked_for = [each.header("Range") or each.method for each in self.agent.asked]
                assert asked_for == requests, (wanted, replies)
                self.assert_clean()
                self.delete()

    def test_without_a_cache(self) -> None:
        """Without a cache and behind credentials, a range is not redirected, nor its failure."""
        self.build(capacity=0, timeout=0)
        self.listed(part(DATA, SIZE - 5))
        self.assert_range(self.result(self.range("-5")))
        self.listed(Reply(405), Reply(200, DATA), hashes={}, size=None)
        self.error(self.range("99-"), Unsatisfiable)
        self.listed(Reply(503), private=True)
        assert self.error(self.range("-5"), UpstreamFailed).temporary
        # An upstream that cannot be reached is not asked for the whole file on top of that.
        self.listed(ConnectionResetError(), private=True)
        self.error(self.range("-5"), UpstreamFailed)
        assert self.ranges() == [LAST] * 2
        assert self.open_files() == []

    def test_slow_whole(self) -> None:
        """If the whole file is slow, the client gets its range as that arrives, and no redirect."""
        reply, start = slow(LARGE), 3 * MEMORY_WINDOW
        self.listed(Reply(200, b"", length=len(LARGE)), reply, data=LARGE)
        asked = self.range(f"{start}-")
        reply.bring(LARGE[: start + 1000])
        self.pending(asked)
        self.clock.advance(TIMEOUT)
        found = self.result(asked)
        assert isinstance(found, RangeResponse)
        assert (found.span, found.size) == (Span(start, len(LARGE)), len(LARGE))
        reading = Reading(found.reader)
        assert reading.data == LARGE[start : start + 1000]
        self.finish(reply, start + 1000)
        self.assert_read(reading, LARGE[start:])

    def test_whole_without_a_cache(self) -> None:
        """A whole file that may not be cached passes; the bytes before the range fill no memory."""
        self.build(capacity=0)
        for length in (SIZE, None):
            self.listed(Reply(200, DATA, length=length))
            self.assert_range(self.result(self.range("-5")))
            self.assert_nothing_cached()
        reply, start = slow(LARGE), 3 * MEMORY_WINDOW
        self.listed(Reply(200, b"", length=len(LARGE)), reply, data=LARGE)
        asked = self.range(f"{start}-")
        reply.bring(LARGE[:10])
        reading = self.read(asked)
        for at in range(10, len(LARGE), MEMORY_WINDOW // 2):
            assert not reply.paused
            reply.bring(LARGE[at : at + MEMORY_WINDOW // 2])
        reply.end()
        self.assert_read(reading, LARGE[start:])

    def test_download_under_way(self) -> None:
        """A range that a download has already, and its size, are taken from there."""
        for size in (len(LARGE), None):
            self.build(stream=True)
            reply = slow(LARGE)
            self.listed(reply, data=LARGE, size=size)
            first = self.fetch()
            reply.bring(LARGE[:1000])
            self.read(first).hang_up()
            head = self.result(self.head())
            assert head.size == len(LARGE)
            some = self.result(self.range("500-599"))
            assert isinstance(some, RangeResponse)
            assert some.reader.read(100) == LARGE[500:600]
            reading = self.read(self.range("700-"))
            self.finish(reply, 1000)
            self.assert_read(reading, LARGE[700:])
            some.reader.close()
            assert len(self.agent.asked) == 1
            self.assert_clean()
            self.delete()


class Broken(MirrorCase):
    """A range that breaks off is resumed, if its version is proven."""

    SPAN = Span(1, len(LARGE))

    def begin_range(self, at: int, *later: Reply, **headers: str) -> tuple[Reply, Reading]:
        first = part(LARGE, 1, arrived=False).having(**headers)
        self.listed(first, *later, data=LARGE)
        asked = self.range(self.SPAN)
        first.bring(LARGE[1:at])
        return first, self.read(asked)

    def test_resumed(self) -> None:
        """A range is resumed as often as it makes progress; the log tells."""
        stops = (MIN_PROGRESS + 1, 2 * MIN_PROGRESS + 1)
        later = [part(LARGE, at, arrived=False, ETag='"x"') for at in stops]
        first, reading = self.begin_range(stops[0], *later, ETag='"x"')
        with logged("proxpi.files") as log:
            first.cut()
            later[0].bring(LARGE[stops[0] : stops[1]])
            later[0].cut()
        assert log.levels == ["info", "info"]
        assert self.agent.asked[1].header("If-Range") == '"x"'
        later[1].bring(LARGE[stops[1] :])
        later[1].end()
        self.assert_read(reading, LARGE[1:])
        self.assert_clean()

    def test_unproven(self) -> None:
        """A rest with another tag, or none, or after a response without one, is never sent."""
        tag, date = {"ETag": '"x"'}, {"Last-Modified": "Sun, 06 Nov 1994 08:49:37 GMT"}
        for mine, theirs, requests in (
            (tag, {"ETag": '"y"'}, 2),
            (tag, {}, 2),
            (tag, date, 2),
            ({}, {}, 1),
        ):
            first, reading = self.begin_range(9, part(LARGE, 9).having(**theirs), **mine)
            first.cut()
            assert (reading.data, reading.cut) == (LARGE[1:9], True)
            assert len(self.agent.asked) == requests

    def test_endless(self) -> None:
        """A range that brings more than it states ends there, for its client, too."""
        first, reading = self.begin_range(9)
        first.bring(LARGE[9:] + b"more")
        assert (reading.cut, first.closed) == (True, True)
        self.assert_clean()

    def test_expired_url(self) -> None:
        """A URL that expires is replaced by that of a fresh page."""
        first, reading = self.begin_range(MIN_PROGRESS, Reply(403), ETag='"x"')
        fresh = f"{URL}?again"
        self.pages.lists(entry(NAME, LARGE, url=fresh))
        self.agent.at(fresh, part(LARGE, MIN_PROGRESS, ETag='"x"'))
        first.cut()
        self.clock.pump([1] * 4)
        self.assert_read(reading, LARGE[1:])

    def test_client_that_leaves(self) -> None:
        """Its connection is closed, before the first byte and after, unless all has arrived."""
        first = part(LARGE, 1, arrived=False)
        self.listed(first, data=LARGE)
        asked = self.range(self.SPAN)
        asked.cancel()
        self.error(asked, Exception)
        assert first.closed
        first, reading = self.begin_range(9)
        reading.hang_up()
        assert first.closed
        first, reading = self.begin_range(9)
        reading.paused = True
        first.bring(LARGE[9:])
        assert first.paused
        reading.hang_up()
        assert (first.paused, first.closed) == (False, False)
        first.end()
        self.assert_clean()

    def test_client_that_reads_nothing(self) -> None:
        """A client that reads nothing loses the connection after a while, and may read on later."""
        at = MEMORY_WINDOW + 3
        first, reading = self.begin_range(2, part(LARGE, at, ETag='"x"'), ETag='"x"')
        reading.paused = True
        first.bring(LARGE[2:at])
        assert first.paused
        self.clock.advance(PARK_AFTER)
        assert (first.closed, len(self.agent.asked)) == (True, 1)
        reading.go_on()
        self.assert_read(reading, LARGE[1:])
        assert self.ranges()[-1] == f"bytes={at}-{len(LARGE) - 1}"
        self.assert_clean()


class Crowded(MirrorCase):
    """Many clients request large ranges, and do not read them."""

    SPAN = Span(1, MIB)

    def setUp(self) -> None:
        super().setUp()
        self.build(stream=True)
        self.listed(data=LARGE)
        for _ in range(CONNECTIONS * 3 // 4):
            reply = part(LARGE, 1, MIB, arrived=False)
            self.agent.at(URL, reply)
            asked = self.range(self.SPAN)
            reply.bring(b"x")
            self.read(asked, paused=True)
        self.agent.asked.clear()

    def test_next_client(self) -> None:
        """The next client does not wait for them: for a small range, a large one, or a file."""
        self.agent.at(URL, part(LARGE, MIB, MIB + MEMORY_WINDOW))
        assert len(self.read(self.range(Span(MIB, MIB + MEMORY_WINDOW))).data) == MEMORY_WINDOW
        self.agent.at(URL, Reply(200, LARGE))
        self.assert_bytes(self.result(self.range(self.SPAN)), LARGE)
        assert self.ranges()[-1] is None
        self.pages.lists(entry("other.whl", DATA, url=FILES + "other.whl"))
        self.agent.at(FILES + "other.whl", Reply(200, DATA))
        self.assert_bytes(self.result(self.fetch("other.whl")))


class Files(MirrorCase):
    """A file that may not be cached passes through, with a window of it in memory."""

    def setUp(self) -> None:
        super().setUp()
        self.build(stream=True, capacity=0)

    def stall(self, reply: Reply, asked: Deferred[Any]) -> Reading:
        """Let a file begin to pass for a client that reads its first bytes, and no more."""
        reply.bring(LARGE[:10])
        reading = self.read(asked)
        reading.paused = True
        reply.bring(LARGE[10 : MEMORY_WINDOW + 10])
        assert not reply.paused
        reply.bring(LARGE[MEMORY_WINDOW + 10 : MEMORY_WINDOW + 20])
        assert reply.paused
        return reading

    def complete(self, reply: Reply, reading: Reading, start: int = MEMORY_WINDOW + 20) -> None:
        self.finish(reply, start)
        self.assert_read(reading)
        self.assert_clean()

    def test_parked(self) -> None:
        """After 5 stalled seconds the connection is closed; the client may read on later."""
        first = slow(LARGE, Accept_Ranges="bytes", ETag='"x"')
        rest = part(LARGE, MEMORY_WINDOW + 20, arrived=False)
        self.listed(first, rest, data=LARGE)
        reading = self.stall(first, self.fetch())
        self.clock.advance(PARK_AFTER - 0.1)
        assert not first.closed
        self.clock.advance(0.2)
        assert first.closed
        self.clock.advance(50)
        assert len(self.agent.asked) == 1
        reading.go_on()
        asked = self.agent.asked[-1]
        assert (asked.header("Range"), asked.header("If-Range")) == (
            f"bytes={MEMORY_WINDOW + 20}-",
            '"x"',
        )
        self.complete(rest, reading)
        self.listed(first := slow(LARGE, Accept_Ranges="bytes"), data=LARGE)
        reading = self.stall(first, self.fetch())
        self.clock.advance(PARK_AFTER)
        reading.hang_up()
        assert len(self.agent.asked) == 1
        self.assert_clean()

    def test_not_parked(self) -> None:
        """A client that reads in time, or whose rest could not be requested, keeps it."""
        cases: list[tuple[dict[str, str], dict[str, Any]]] = [
            ({}, {}),
            ({"Accept_Ranges": "none"}, {}),
            ({"Accept_Ranges": "bytes"}, {"hashes": {}}),
        ]
        for headers, keys in cases:
            self.listed(reply := slow(LARGE, **headers), data=LARGE, **keys)
            reading = self.stall(reply, self.fetch())
            self.clock.advance(50)
            assert not reply.closed
            reading.hang_up()
        self.listed(reply := slow(LARGE, Accept_Ranges="bytes"), data=LARGE)
        reading = self.stall(reply, self.fetch())
        for start in range(MEMORY_WINDOW + 20, 3 * MEMORY_WINDOW, 2 * MEMORY_WINDOW):
            self.clock.advance(PARK_AFTER - 0.1)
            reading.go_on()
            reading.paused = True
            reply.bring(LARGE[start : start + 2 * MEMORY_WINDOW])
            assert reply.paused
        self.clock.advance(PARK_AFTER - 0.1)
        reading.go_on()
        self.complete(reply, reading, len(reading.data))
        assert len(self.agent.asked) == 1

    def test_clients_that_read_nothing(self) -> None:
        """Behind clients that read nothing, the next client gets its file after 5 seconds."""
        replies = [slow(LARGE, Accept_Ranges="bytes") for _ in range(CONNECTIONS)]
        self.listed(*replies, data=LARGE)
        asked = [self.fetch() for _ in replies]
        begun = [pair for pair in zip(replies, asked, strict=True) if pair[0].began]
        readings = [self.stall(*pair) for pair in begun]
        assert len(readings) == CONNECTIONS * 3 // 4
        other = entry("other.whl", LARGE, url=URL + ".other")
        self.pages.lists(other)
        self.agent.at(other["url"], Reply(200, LARGE))
        wanted = self.fetch("other.whl")
        self.clock.advance(PARK_AFTER)
        assert self.read(wanted).whole
        assert not any(reading.cut for reading in readings)

    def test_doubtful(self) -> None:
        """A doubtful response is read at once, too, as no partial file holds all of it."""
        for headers, keys in (
            ({"Content_Type": "text/html"}, {}),
            ({"Content_Encoding": "gzip"}, {}),
            ({}, {"size": 5}),
        ):
            self.listed(reply := slow(LARGE, **headers), data=LARGE, **keys)
            reading = self.begin(reply, 2 * MIB)
            assert not reply.paused
            self.complete(reply, reading, 2 * MIB)

    def test_wrong(self) -> None:
        """The client of wrong bytes is cut off before their end."""
        self.listed(first := slow(LARGE), data=LARGE)
        reading = self.begin(first, -1)
        first.bring(b"\0" if LARGE[-1] else b"\1")
        first.end()
        assert reading.cut
        self.assert_clean()
