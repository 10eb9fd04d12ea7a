"""Parts of files that are not here: asked for upstream by themselves, never believed blindly."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from proxpi.files.cache_dir import OpenFile
from proxpi.files.fetch import MIN_PROGRESS, STALLED
from proxpi.files.mirror import Head, Redirect
from proxpi.files.passthrough import RangeResponse
from proxpi.files.resolver import NotUpstream
from proxpi.files.spool import WINDOW, Reader
from proxpi.simple.caching import Span, Unsatisfiable, requested_span
from proxpi.upstream.connections import CONNECTIONS
from proxpi.upstream.errors import UpstreamFailed
from tests.files.mirrored import DATA, NAME, TIMEOUT, URL, MirrorCase
from tests.files.test_taken import Ranges
from tests.support.agent import Reply
from tests.support.cases import FILES, MIB, entry
from tests.support.logs import logged
from tests.support.reading import Reading

SIZE = len(DATA)


def part(start: int, stop: int, size: int | str = SIZE, **keys: object) -> Reply:
    """Give the answer of an upstream that knows ranges."""
    said = {"Content-Range": f"bytes {start}-{stop - 1}/{size}", **keys}
    return Reply(206, DATA[start:stop], said)  # type: ignore[arg-type]


class PartCase(MirrorCase):
    """Tests of someone who wants the last five bytes of a file."""

    def ask(self, count: int = 5) -> Deferred[OpenFile | Reader | RangeResponse | Redirect]:
        """Ask for the last bytes, as resolvers do."""
        return Deferred.fromCoroutine(
            self.mirror.range("demo", NAME, lambda size, _: Span(size - count, size))
        )

    def ask_from(self, start: int) -> Deferred[OpenFile | Reader | RangeResponse | Redirect]:
        """Ask for all from a place on."""
        return Deferred.fromCoroutine(
            self.mirror.range(
                "demo", NAME, lambda size, _: requested_span(f"bytes={start}-", None, None, size)
            )
        )

    def ranges(self) -> list[str | None]:
        """Give the ranges that were asked for."""
        return [asked.header("Range") for asked in self.internet.asked if asked.method == "GET"]

    def assert_part(self, asked: Deferred[OpenFile | Reader | RangeResponse | Redirect]) -> None:
        """Check that these very bytes would be sent."""
        found = self.result(asked)
        assert isinstance(found, RangeResponse), found
        reading = Reading(found.reader)
        assert (reading.data, reading.whole) == (DATA[-5:], True)
        assert (found.span, found.size) == (Span(SIZE - 5, SIZE), SIZE)
        assert self.open_files() == []
        assert self.clock.getDelayedCalls() == []


class Explicit(PartCase):
    """A range is asked upstream with both its ends."""

    def test_size_of_the_page(self) -> None:
        """The page's size is all that it takes; nothing is kept."""
        self.listed(part(SIZE - 5, SIZE))
        self.assert_part(self.ask())
        assert self.ranges() == [f"bytes={SIZE - 5}-{SIZE - 1}"]
        assert len(self.internet.asked) == 1
        self.assert_nothing_kept()

    def test_size_asked_for(self) -> None:
        """Without it, the upstream is asked for the length first."""
        self.listed(Reply(200, b"", length=SIZE), part(SIZE - 5, SIZE), size=None)
        self.assert_part(self.ask())
        assert [asked.method for asked in self.internet.asked] == ["HEAD", "GET"]

    def test_nothing_may_be_kept(self) -> None:
        """Nobody is redirected for a part, not even where nothing is kept, or in no time."""
        self.build(capacity=0, timeout=0)
        reply = part(SIZE - 5, SIZE)
        self.listed(reply)
        self.assert_part(self.ask())

    def test_wrong_size_on_the_page(self) -> None:
        """An upstream that knows another size is asked for the part that this makes it."""
        for wrong in (SIZE + 3, SIZE - 3):
            self.internet.asked.clear()
            self.listed(part(wrong - 5, min(wrong, SIZE)), part(SIZE - 5, SIZE), size=wrong)
            self.assert_part(self.ask())
            first, second = self.ranges()
            assert first == f"bytes={wrong - 5}-{wrong - 1}"
            assert second == f"bytes={SIZE - 5}-{SIZE - 1}"

    def test_beyond_what_the_page_says(self) -> None:
        """Before a part is refused as one behind the end, the upstream is asked where that is."""
        self.listed(Reply(200, b"", length=SIZE), part(SIZE - 5, SIZE), size=SIZE - 10)
        self.assert_part(self.ask_from(SIZE - 5))
        assert self.ranges() == [f"bytes={SIZE - 5}-{SIZE - 1}"]
        self.listed(Reply(200, b"", length=SIZE), size=SIZE - 10)
        error = self.error(self.ask_from(SIZE), Unsatisfiable)
        assert error.size == SIZE

    def test_beyond_what_anybody_says(self) -> None:
        """If that is not told, all of the file tells."""
        silent = ConnectionResetError()
        for answer in (Reply(405), Reply(500), Reply(404), Reply(200, b"", length=0), silent):
            self.listed(answer, Reply(200, DATA), size=SIZE - 10)
            self.assert_bytes(self.result(self.ask_from(SIZE - 5)))
            self.assert_served()
            self.mirror.delete("demo", NAME)

    def test_another_size_each_time(self) -> None:
        """An upstream that knows another size each time is asked for parts twice, not for ever."""
        sizes = [SIZE + number for number in (10, 20, 30, 40)]
        self.listed(*(part(0, 5, size) for size in sizes), Reply(200, DATA))
        self.result(self.ask())
        assert len([asked for asked in self.ranges() if asked is not None]) == 2

    def test_size_not_told_upstream(self) -> None:
        """``*`` for the whole length is an answer, if the part is the one."""
        self.listed(part(SIZE - 5, SIZE, "*"))
        self.assert_part(self.ask())

    def test_here(self) -> None:
        """A file that is here is given itself."""
        self.listed()
        self.assert_bytes(self.result(self.fetch()))
        self.internet.asked.clear()
        self.assert_bytes(self.result(self.ask()))
        assert self.internet.asked == []

    def test_all_as_a_range(self) -> None:
        """A range of all bytes is no reason not to keep them."""
        self.listed()
        self.assert_bytes(self.result(self.ask(SIZE)))
        assert self.ranges() == [None]
        self.assert_served()

    def test_all_is_asked_for(self) -> None:
        """Who turns out to want all of it is served like anybody else."""
        self.listed()
        asked = Deferred.fromCoroutine(self.mirror.range("demo", NAME, lambda *_: None))
        self.assert_bytes(self.result(asked))
        assert self.ranges() == [None]


class NoRanges(PartCase):
    """Upstreams that give something else than was asked for: all of the file then."""

    def test_whole_instead(self) -> None:
        """What does not fit is not used; the whole file is had, and the part taken from it."""
        others = (
            Reply(200, DATA),
            *map(Reply, (400, 405, 416, 501)),
            part(0, 5),
            part(SIZE - 5, SIZE - 1),
            part(SIZE - 5, SIZE, **{"Content-Encoding": "gzip"}),
            Reply(206, DATA[-5:]),
            Reply(206, DATA[-5:], {"Content-Range": "bytes 5-1/2"}),
            Reply(206, DATA[-4:], {"Content-Range": f"bytes {SIZE - 5}-{SIZE - 1}/{SIZE}"}),
        )
        for other in others:
            self.listed(other, Reply(200, DATA))
            self.assert_bytes(self.result(self.ask()))
            self.assert_served()
            self.build()
            (self.folder / "files-example/packages" / NAME).unlink()

    def test_refused(self) -> None:
        """An upstream that refuses the part, in whatever way, is asked for the whole file."""
        statuses = (204, 300, 304, 400, 401, 403, 404, 405, 406, 409, 410, 412, 416, 418, 422, 429)
        for status in (*statuses, 451, 500, 501, 502, 503, 504, 599):
            self.internet = Ranges()
            self.internet.lie = {"status": status}
            self.internet.parts[URL] = DATA
            for size in (SIZE, None):
                self.build()
                self.locate.lists(entry(NAME, DATA, size=size))
                self.assert_bytes(self.result(self.ask()))
                assert self.ranges()[-1] is None
                self.assert_served()
                self.mirror.delete("demo", NAME)

    def test_refused_for_long(self) -> None:
        """The same if the refusal names a time that is too long to wait."""
        busy = Reply(503, headers={"Retry-After": "60"})
        self.listed(busy, Reply(200, DATA))
        self.assert_bytes(self.result(self.ask()))

    def test_refused_for_a_while(self) -> None:
        """Nor is a short one waited for: the whole file is asked for at once."""
        for status in (429, 503):
            for stream in (False, True):
                self.build(stream=stream)
                self.listed(Reply(status, headers={"Retry-After": "9"}), Reply(200, DATA))
                self.internet.asked.clear()
                self.assert_bytes(self.result(self.ask()))
                assert self.ranges() == [f"bytes={SIZE - 5}-{SIZE - 1}", None]
                self.mirror.delete("demo", NAME)

    def test_upstream_down(self) -> None:
        """An upstream that cannot be reached is not asked for the whole file on top of that."""
        self.listed(ConnectionResetError(), private=True)
        self.error(self.ask(), UpstreamFailed)
        assert self.ranges() == [f"bytes={SIZE - 5}-{SIZE - 1}"] * 2

    def test_slow(self) -> None:
        """If that takes long, the client gets its part of it as that comes, and no redirect."""
        data = bytes(range(256)) * (MIB // 256)
        slow = Reply(200, b"", whole=False, length=len(data))
        self.locate.lists(entry(NAME, data))
        self.internet.at(URL, Reply(200, b"", length=MIB), slow)
        asked = self.ask(count=MIB - 100)
        slow.bring(data[:1000])
        self.pending(asked)
        self.clock.advance(TIMEOUT)
        found = self.result(asked)
        assert isinstance(found, RangeResponse)
        assert (found.span, found.size) == (Span(100, MIB), MIB)
        reading = Reading(found.reader)
        assert reading.data == data[100:1000]
        slow.bring(data[1000:])
        slow.end()
        assert (reading.data, reading.whole) == (data[100:], True)

    def test_nothing_may_be_kept(self) -> None:
        """The same with nothing that may be kept: the part passes through, the rest is dropped."""
        self.build(capacity=0)
        for length in (SIZE, None):
            self.listed(Reply(200, DATA, length=length))
            self.assert_part(self.ask())
            self.assert_nothing_kept()

    def test_far_into_a_file_that_may_not_be_kept(self) -> None:
        """The bytes before the part fill no memory, and wait for no reader."""
        data = bytes(range(256)) * (4 * WINDOW // 256)
        size, start = len(data), 3 * WINDOW
        self.build(capacity=0)
        self.locate.lists(entry(NAME, data))
        slow = Reply(200, b"", whole=False, length=size)
        self.internet.at(URL, Reply(200, b"", length=size), slow)
        asked = self.ask(count=size - start)
        for at in range(0, size, WINDOW // 2):
            assert not slow.paused
            slow.bring(data[at : at + WINDOW // 2])
            if at == 0:
                found = self.result(asked)
                assert isinstance(found, RangeResponse)
                reading = Reading(found.reader)
        slow.end()
        assert (reading.data, reading.whole) == (data[start:], True)

    def test_beyond_the_whole(self) -> None:
        """A part beyond the file that comes instead is refused, and its download given up."""
        self.build(capacity=0)
        self.locate.lists(entry(NAME, bytes(2 * SIZE), hashes={}, size=None))
        self.internet.at(URL, Reply(405), Reply(200, DATA))
        asked = Deferred.fromCoroutine(
            self.mirror.range(
                "demo", NAME, lambda size, _: requested_span("bytes=99-", None, None, size)
            )
        )
        self.error(asked, Unsatisfiable)
        assert self.open_files() == []

    def test_no_length(self) -> None:
        """An upstream that tells no length cannot be asked for a part."""
        self.listed(Reply(405), Reply(200, DATA), size=None)
        self.assert_bytes(self.result(self.ask()))


class Failing(PartCase):
    """Upstreams that fail."""

    def test_once(self) -> None:
        """What fails for now is asked for once more."""
        self.listed(Reply(503), part(SIZE - 5, SIZE))
        self.assert_part(self.ask())

    def test_for_good(self) -> None:
        """If it fails again, the client is sent upstream, or told where that is not to be."""
        self.listed(Reply(503))
        assert self.result(self.ask()) == Redirect(URL)
        assert self.ranges() == [f"bytes={SIZE - 5}-{SIZE - 1}"] * 2 + [None] * 2
        self.listed(Reply(503), private=True)
        assert self.error(self.ask(), UpstreamFailed).temporary

    def test_gone(self) -> None:
        """A file that is gone is looked for on a fresh page, as ever."""
        self.listed(Reply(404))
        self.error(self.ask(), NotUpstream)
        new = FILES + "anew/" + NAME
        self.locate.lists(entry(NAME, DATA, url=new), cold=True)
        self.internet.at(new, part(SIZE - 5, SIZE))
        self.assert_part(self.ask())

    def test_breaks_off(self) -> None:
        """A part that breaks off is gone on with, if it is the same file by its tag."""
        first = part(SIZE - 5, SIZE, ETag='"x"')
        first.chunks, first.whole = (), False
        rest = part(SIZE - 2, SIZE, ETag='"x"')
        self.listed(first, rest)
        asked = self.ask()
        first.bring(DATA[-5:-2])
        found = self.result(asked)
        assert isinstance(found, RangeResponse)
        reading = Reading(found.reader)
        assert reading.data == DATA[-5:-2]
        first.cut()
        assert (reading.data, reading.whole) == (DATA[-5:], True)
        assert self.internet.asked[1].header("If-Range") == '"x"'

    def test_breaks_off_again_and_again(self) -> None:
        """A part of which a good piece arrives each time is resumed as often; the log tells."""
        data = bytes(range(256)) * (3 * MIB // 256)
        replies = []
        for at in (1, 1 + MIN_PROGRESS, 1 + 2 * MIN_PROGRESS):
            told = f"bytes {at}-{len(data) - 1}/{len(data)}"
            fields = {"Content-Range": told, "ETag": '"x"'}
            replies.append(Reply(206, b"", fields, whole=False, length=len(data) - at))
        self.locate.lists(entry(NAME, data))
        self.internet.at(URL, *replies)
        span = Span(1, len(data))
        asked = Deferred.fromCoroutine(self.mirror.range("demo", NAME, lambda *_: span))
        replies[0].bring(data[1:2])
        found = self.result(asked)
        assert isinstance(found, RangeResponse)
        reading = Reading(found.reader)
        replies[0].bring(data[2 : 1 + MIN_PROGRESS])
        with logged("proxpi.files") as log:
            replies[0].cut()
            replies[1].bring(data[1 + MIN_PROGRESS : 1 + 2 * MIN_PROGRESS])
            replies[1].cut()
        assert log.levels == ["warn", "warn"]
        replies[2].bring(data[1 + 2 * MIN_PROGRESS :])
        replies[2].end()
        assert (reading.data == data[1:], reading.whole) == (True, True)

    def test_goes_on_with_another_file(self) -> None:
        """A rest with another tag, or with none, is not that of the same file, whatever it says."""
        for headers in ({"ETag": '"y"'}, {}, {"Last-Modified": "Sun, 06 Nov 1994 08:49:37 GMT"}):
            first = part(SIZE - 5, SIZE, ETag='"x"')
            first.chunks, first.whole = (), False
            self.listed(first, part(SIZE - 2, SIZE, **headers))
            asked = self.ask()
            first.bring(DATA[-5:-2])
            found = self.result(asked)
            assert isinstance(found, RangeResponse)
            reading = Reading(found.reader)
            first.cut()
            assert (reading.data, reading.cut) == (DATA[-5:-2], True)

    def test_url_expires(self) -> None:
        """A signed URL that expires within a part is replaced by that of a fresh page."""
        data, told = bytes(range(256)) * (2 * MIN_PROGRESS // 256), {"ETag": '"1"'}
        size, again = len(data), URL + "?again"
        said = {"Content-Range": f"bytes 1-{size - 1}/{size}", **told}
        first = Reply(206, b"", said, whole=False, length=size - 1)
        self.locate.lists(entry(NAME, data))
        self.internet.at(URL, first, Reply(403))
        rest = {"Content-Range": f"bytes {MIN_PROGRESS}-{size - 1}/{size}", **told}
        self.internet.at(again, Reply(206, data[MIN_PROGRESS:], rest))
        asked = self.ask_from(1)
        first.bring(data[1:MIN_PROGRESS])
        found = self.result(asked)
        assert isinstance(found, RangeResponse)
        reading = Reading(found.reader)
        self.locate.lists(entry(NAME, data, url=again))
        first.cut()
        self.clock.pump([1] * 4)
        assert (reading.data, reading.whole) == (data[1:], True)

    def test_breaks_off_without_a_tag(self) -> None:
        """Without one, whoever has begun is cut off."""
        first = part(SIZE - 5, SIZE)
        first.chunks, first.whole = (), False
        self.listed(first, part(SIZE - 2, SIZE))
        asked = self.ask()
        first.bring(DATA[-5:-2])
        found = self.result(asked)
        assert isinstance(found, RangeResponse)
        reading = Reading(found.reader)
        first.cut()
        assert reading.cut
        assert len(self.internet.asked) == 1

    def test_client_that_reads_nothing(self) -> None:
        """A client that reads nothing holds no connection for long, and may read on later."""
        data = bytes(range(256)) * 4096
        span, at = Span(1, len(data)), WINDOW + 2
        told = {"Content-Range": f"bytes 1-{len(data) - 1}/{len(data)}", "ETag": '"x"'}
        first = Reply(206, b"", told, whole=False, length=len(data) - 1)
        told = {"Content-Range": f"bytes {at + 1}-{len(data) - 1}/{len(data)}", "ETag": '"x"'}
        rest = Reply(206, data[at + 1 :], told)
        self.locate.lists(entry(NAME, data))
        self.internet.at(URL, first, rest)
        asked = Deferred.fromCoroutine(self.mirror.range("demo", NAME, lambda *_: span))
        first.bring(data[1:2])
        found = self.result(asked)
        assert isinstance(found, RangeResponse)
        reading = Reading(found.reader)
        reading.paused = True
        first.bring(data[2 : at + 1])
        assert first.paused
        self.clock.advance(STALLED)
        assert (first.closed, len(self.internet.asked)) == (True, 1)
        reading.go_on()
        assert (reading.data == data[1:], reading.whole) == (True, True)
        assert self.ranges()[-1] == f"bytes={at + 1}-{len(data) - 1}"
        assert self.clock.getDelayedCalls() == []

    def test_client_leaves_what_has_arrived(self) -> None:
        """A large part that has arrived whole comes to its end when its client leaves."""
        data = bytes(MIB)
        told = {"Content-Range": f"bytes 1-{MIB - 1}/{MIB}"}
        reply = Reply(206, b"", told, whole=False, length=None)
        self.locate.lists(entry(NAME, data))
        self.internet.at(URL, reply)
        asked = Deferred.fromCoroutine(self.mirror.range("demo", NAME, lambda *_: Span(1, MIB)))
        reply.bring(data[1:10])
        found = self.result(asked)
        assert isinstance(found, RangeResponse)
        reading = Reading(found.reader)
        reading.paused = True
        reply.bring(data[10:])
        assert reply.paused
        reading.hang_up()
        assert (reply.paused, reply.closed) == (False, False)
        reply.end()
        assert self.clock.getDelayedCalls() == []

    def test_connection_serves_on(self) -> None:
        """A client that has its part leaves a connection that can be used again."""
        reply = part(SIZE - 5, SIZE)
        reply.whole = False
        self.listed(reply)
        found = self.result(self.ask())
        assert isinstance(found, RangeResponse)
        reading = Reading(found.reader)
        reading.hang_up()
        assert (reading.data, reply.closed) == (DATA[-5:], False)
        reply.end()
        assert self.clock.getDelayedCalls() == []

    def test_client_gone(self) -> None:
        """Nothing is asked for any more when the client is gone, before the first byte or after."""
        first = part(SIZE - 5, SIZE)
        first.chunks, first.whole = (), False
        self.listed(first)
        asked = self.ask()
        asked.cancel()
        self.error(asked, Exception)
        assert first.closed
        second = part(SIZE - 5, SIZE)
        second.chunks, second.whole = (), False
        self.listed(second)
        asked = self.ask()
        second.bring(b"x")
        found = self.result(asked)
        assert isinstance(found, RangeResponse)
        Reading(found.reader).hang_up()
        assert second.closed
        assert self.clock.getDelayedCalls() == []


class Joining(PartCase):
    """A part of what is being downloaded anyway."""

    def test_there_already(self) -> None:
        """What has come is read from there; nobody is asked for it."""
        data = bytes(range(256)) * 4096
        slow = Reply(200, b"", whole=False, length=len(data))
        self.locate.lists(entry(NAME, data))
        self.internet.at(URL, slow)
        self.fetch()
        slow.bring(data[:1000])
        asked = Deferred.fromCoroutine(self.mirror.range("demo", NAME, lambda *_: Span(500, 600)))
        found = self.result(asked)
        assert isinstance(found, RangeResponse)
        assert found.reader.read(100) == data[500:600]
        assert self.internet.urls() == [URL]
        open_ended = Deferred.fromCoroutine(
            self.mirror.range("demo", NAME, lambda size, _: Span(700, size))
        )
        follows = self.result(open_ended)
        assert isinstance(follows, RangeResponse)
        reading = Reading(follows.reader)
        slow.bring(data[1000:])
        slow.end()
        assert (reading.data == data[700:], reading.whole) == (True, True)
        assert self.internet.urls() == [URL]
        found.reader.close()
        self.clock.advance(TIMEOUT)
        assert self.open_files() == []

    def test_size_of_the_download(self) -> None:
        """The length of a file that its page does not state is that of its download, if known."""
        data = bytes(range(256)) * 4096
        slow = Reply(200, b"", whole=False, length=len(data))
        self.build(stream=True)
        self.locate.lists(entry(NAME, data, size=None))
        self.internet.at(URL, slow)
        asked = self.fetch()
        slow.bring(data[:1000])
        Reading(self.result(asked))  # type: ignore[arg-type]
        head = self.result(Deferred.fromCoroutine(self.mirror.head("demo", NAME)))
        assert isinstance(head, Head) and head.size == len(data)
        found = self.result(self.ask(count=len(data) - 10))
        assert isinstance(found, RangeResponse)
        assert Reading(found.reader).data == data[10:1000]
        assert len(self.internet.asked) == 1


class Crowded(MirrorCase):
    """Clients that ask for large parts, and do not take them."""

    LARGE = bytes(2 * MIB)
    SPAN = Span(1, MIB)

    def setUp(self) -> None:
        """Let as many as may have begun to ask."""
        super().setUp()
        self.build(stream=True)
        self.locate.lists(entry(NAME, self.LARGE))
        for _ in range(CONNECTIONS * 3 // 4):
            self.internet.at(URL, self.answer(self.SPAN, whole=False))
            assert isinstance(self.result(self.ask(self.SPAN)), RangeResponse)
        self.internet.asked.clear()

    def answer(self, span: Span, *, whole: bool = True) -> Reply:
        """Answer with a part, all of it or its first byte."""
        told = {"Content-Range": f"bytes {span.start}-{span.stop - 1}/{len(self.LARGE)}"}
        size = span.stop - span.start
        return Reply(206, bytes(size if whole else 1), told, whole=whole, length=size)

    def ask(self, span: Span) -> Deferred[OpenFile | Reader | RangeResponse | Redirect]:
        """Ask for a part."""
        return Deferred.fromCoroutine(self.mirror.range("demo", NAME, lambda *_: span))

    def test_small_part(self) -> None:
        """Who asks for little is not kept waiting by them."""
        span = Span(MIB, MIB + WINDOW)
        self.internet.at(URL, self.answer(span))
        found = self.result(self.ask(span))
        assert isinstance(found, RangeResponse)
        assert len(Reading(found.reader).data) == WINDOW

    def test_large_part(self) -> None:
        """Nor is the next one: it is given the file, which is fetched for everybody."""
        self.internet.at(URL, Reply(200, self.LARGE))
        self.assert_bytes(self.result(self.ask(self.SPAN)), self.LARGE)
        assert [asked.header("Range") for asked in self.internet.asked] == [None]

    def test_other_files(self) -> None:
        """Nor are downloads."""
        self.locate.lists(entry("other.whl", DATA, url=FILES + "other.whl"))
        self.internet.at(FILES + "other.whl", Reply(200, DATA))
        self.assert_bytes(self.result(self.fetch("other.whl")))
