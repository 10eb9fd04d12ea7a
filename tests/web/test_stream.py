"""Files on their way to clients, while they come from upstream."""

from __future__ import annotations

import os
from typing import Any

from proxpi.web.transfer import CHUNK, STALL_TIMEOUT
from tests.support.exchange import BUFFER, Exchange
from tests.support.house import MIB, PRIVATE_INDEX, HouseCase, sha256
from tests.support.internet import Reply

NAME = "large-1.0.whl"
PATH = f"/index/demo/{NAME}"
DATA = os.urandom(2 * MIB)
SIZE = len(DATA)
WRONG = DATA[:-1] + bytes([DATA[-1] ^ 1])


class StreamCase(HouseCase):
    """Tests of a house that redirects nobody, with a large file that comes when it is told to."""

    def setUp(self) -> None:
        """List it."""
        super().setUp()
        self.build(stream=True)
        self.reply = Reply(200, b"", whole=False, length=SIZE)
        self.serve(NAME, DATA, self.reply)

    def begin(self, *headers: str, version: str = "1.1") -> Exchange:
        """Ask for it, and let the first 1000 bytes come."""
        exchange = self.connect()
        if version == "1.0":
            exchange.send(f"GET {PATH} HTTP/1.0\r\n\r\n".encode())
        else:
            exchange.ask("GET", PATH, *headers)
        self.reply.bring(DATA[:1000])
        return exchange

    def finish(self, data: bytes = DATA) -> None:
        """Let the rest come."""
        self.reply.bring(data[1000:])
        self.reply.end()

    def assert_whole(self, exchange: Exchange) -> None:
        """Check that all came, and that nothing is left open."""
        answer = exchange.answer()
        assert answer is not None
        assert (answer.status, answer.body == DATA, answer.whole) == (200, True, True)
        self.clock.advance(0)
        assert self.open_files() == []

    def assert_cut(self, exchange: Exchange) -> None:
        """Check that a client cannot take what it got for all."""
        answer = exchange.answer()
        self.clock.advance(0)
        assert exchange.aborted
        assert answer is None or not answer.whole
        assert self.open_files() == []


class Streaming(StreamCase):
    """The head and the first bytes leave with the first bytes."""

    def test_at_once(self) -> None:
        """The head of a whole file, and what has come; the rest follows."""
        exchange = self.begin()
        head, _, body = exchange.receive().partition(b"\r\n\r\n")
        assert body == DATA[:1000]
        for line in (
            "HTTP/1.1 200 OK",
            f"Content-Length: {SIZE}",
            f'ETag: "{sha256(DATA)}"',
            "X-Cache: MISS",
            "Accept-Ranges: bytes",
            "Cache-Control: public, max-age=31536000, immutable",
        ):
            assert line.encode() in head.splitlines(), line
        self.finish()
        self.assert_whole(exchange)
        assert self.get(PATH).headers["x-cache"] == "HIT"
        exchange.hang_up()
        assert self.clock.getDelayedCalls() == []

    def test_same_connection(self) -> None:
        """The connection serves on."""
        exchange = self.begin()
        self.finish()
        self.assert_whole(exchange)
        exchange.ask("GET", "/health")
        answer = exchange.answer()
        assert answer is not None
        assert answer.status == 200

    def test_behind_credentials(self) -> None:
        """The same whatever the mode, where nobody else could fetch it."""
        self.build(index=PRIVATE_INDEX)
        self.serve(NAME, DATA, self.reply)
        exchange = self.begin()
        self.clock.advance(10)
        assert exchange.receive().endswith(DATA[:1000])
        self.finish()
        self.assert_whole(exchange)

    def test_wrong(self) -> None:
        """A wrong file is never a whole answer, whether its length was announced or not."""
        for length, version in ((SIZE, "1.1"), (SIZE, "1.0"), (None, "1.1")):
            self.reply = Reply(200, b"", whole=False, length=length)
            self.serve(NAME, DATA, self.reply, Reply(503), size=length)
            self.pages.invalidate("demo")
            exchange = self.begin(version=version)
            self.clock.advance(0)
            self.finish(WRONG)
            self.assert_cut(exchange)
            assert self.leftovers() == []

    def test_length_unknown(self) -> None:
        """Where nobody tells the length, the end of the answer is told by its form."""
        self.reply = Reply(200, b"", whole=False, length=None)
        self.serve(NAME, DATA, self.reply, size=None)
        exchange = self.begin()
        assert b"transfer-encoding: chunked" in exchange.receive().lower()
        self.finish()
        self.assert_whole(exchange)

    def test_length_unknown_and_no_way_to_tell_the_end(self) -> None:
        """Of HTTP/1.0 the end is no more than that of the connection: only a whole file is sent."""
        self.reply = Reply(200, b"", whole=False, length=None)
        self.serve(NAME, DATA, self.reply, size=None)
        exchange = self.begin(version="1.0")
        assert exchange.receive() == b""
        self.finish()
        self.assert_whole(exchange)
        self.mirror.forget("demo", NAME)
        self.reply = Reply(200, b"", whole=False, length=None)
        self.serve(NAME, DATA, self.reply, Reply(503), size=None)
        self.pages.invalidate("demo")
        exchange = self.begin(version="1.0")
        self.finish(WRONG)
        answer = exchange.answer()
        assert answer is not None
        assert answer.status == 503

    def test_length_unknown_and_not_to_be_kept(self) -> None:
        """If nothing may be kept, there is no answer for such a client."""
        self.build(stream=True, capacity=0)
        self.serve(NAME, DATA, Reply(200, DATA, length=None), size=None)
        self.reply = Reply(200, b"", whole=False)
        exchange = self.connect()
        exchange.send(f"GET {PATH} HTTP/1.0\r\n\r\n".encode())
        answer = exchange.answer()
        assert answer is not None
        assert answer.status == 502

    def test_gone_over(self) -> None:
        """A reader whose disk fails under it gets the rest from upstream."""
        self.serve(NAME, DATA, self.reply, Reply(200, DATA))
        exchange = self.begin()

        def refuse(*_: object) -> None:
            raise OSError("input/output error")

        self.put(os, "pwrite", refuse)
        self.reply.bring(DATA[1000:-1])
        self.assert_whole(exchange)
        exchange.hang_up()
        assert self.clock.getDelayedCalls() == []

    def test_unreadable(self) -> None:
        """A disk that cannot be read cuts its readers off."""
        exchange = self.begin()
        self.reply.bring(DATA[1000:-1])

        def refuse(*_: object) -> bytes:
            raise OSError("input/output error")

        self.put(os, "pread", refuse)
        exchange.receive()
        self.reply.bring(DATA[-1:])
        self.reply.end()
        self.assert_cut(exchange)

    def test_not_to_be_had(self) -> None:
        """What fails before its first byte is a status."""
        for reply, status in ((Reply(503), 503), (Reply(403), 502), (Reply(404), 404)):
            self.serve(NAME, DATA, reply)
            answer = self.get(PATH)
            assert (answer.status, "location" in answer.headers) == (status, False)
            assert ("retry-after" in answer.headers) == (status == 503)

    def test_unchanged(self) -> None:
        """A client that has it already gets nothing of a download that is under way."""
        exchange = self.begin()
        answer = self.get(PATH, f'If-None-Match: "{sha256(DATA)}"')
        assert (answer.status, answer.body) == (304, b"")
        self.finish()
        self.assert_whole(exchange)

    def test_another_file(self) -> None:
        """A client that wants another file, or one that nobody can name yet, gets a 412."""
        answer = self.get(PATH, 'If-Match: "other"')
        assert (answer.status, self.internet.urls()[1:]) == (412, [])
        self.pages.invalidate("demo")
        self.serve(NAME, DATA, self.reply, hashes={})
        exchange = self.begin(f'If-Match: "{sha256(DATA)}"')
        answer_ = exchange.answer()
        assert answer_ is not None
        assert answer_.status == 412
        self.finish()
        assert self.get(PATH, f'If-Match: "{sha256(DATA)}"').status == 200
        assert self.open_files() == []


class Pace(StreamCase):
    """Each client goes at its own."""

    def test_bounded(self) -> None:
        """What a client has not taken is never more than a buffer and a piece."""
        exchange, fast = self.begin(), self.connect()
        fast.ask("GET", PATH)
        self.reply.bring(DATA[1000:-1])
        assert len(exchange.wire.unsent) <= BUFFER + CHUNK + 1000
        fast.receive()
        self.reply.bring(DATA[-1:])
        self.reply.end()
        assert len(exchange.wire.unsent) <= BUFFER + CHUNK + 1000
        answer = fast.answer()
        assert answer is not None
        assert (answer.body == DATA, answer.whole) == (True, True)
        self.assert_whole(exchange)

    def test_stalled(self) -> None:
        """A client that takes nothing is cut off in time, and stops nothing."""
        exchange = self.begin()
        self.finish()
        for _ in range(int(STALL_TIMEOUT) + 5):
            self.clock.advance(1)
        assert exchange.aborted
        assert self.open_files() == []
        assert self.clock.getDelayedCalls() == []

    def test_waiting_is_no_stall(self) -> None:
        """A client that waits for a slow upstream may do so for ever."""
        exchange = self.begin()
        sent = 1000
        for _ in range(20):
            exchange.receive()
            self.clock.pump([1.0] * 15)
            self.reply.bring(DATA[sent : sent + 10])
            sent += 10
        assert exchange.receive().endswith(DATA[sent - 10 : sent])
        assert not exchange.closed

    def test_hang_up(self) -> None:
        """A client that goes away takes nothing with it."""
        exchange = self.begin()
        exchange.hang_up()
        self.finish()
        self.clock.advance(0)
        assert self.get(PATH).body == DATA
        assert self.open_files() == []
        assert self.clock.getDelayedCalls() == []
        assert self.unhandled() == []


class ColdParts(StreamCase):
    """Parts of files that are not here, whatever the mode."""

    def setUp(self) -> None:
        """Have an upstream that knows ranges, and a house of the usual mode."""
        super().setUp()
        self.build()

    def serve_part(self, start: int, stop: int, **keys: Any) -> None:
        """Let the upstream have this part."""
        said = {"Content-Range": f"bytes {start}-{stop - 1}/{SIZE}"}
        self.pages.invalidate("demo")
        self.serve(NAME, DATA, Reply(206, DATA[start:stop], said), **keys)

    def test_passed_through(self) -> None:
        """Every way to ask for one range leads to one with both ends, which passes through."""
        for stream in (False, True):
            self.build(stream=stream)
            for asked, start, stop in (
                ("0-0", 0, 1),
                ("1000-1999", 1000, 2000),
                (f"{SIZE - 10}-", SIZE - 10, SIZE),
                (f"{SIZE - 10}-99999999", SIZE - 10, SIZE),
                ("-16384", SIZE - 16384, SIZE),
            ):
                self.serve_part(start, stop)
                answer = self.get(PATH, f"Range: bytes={asked}")
                assert (answer.status, answer.body == DATA[start:stop]) == (206, True), asked
                assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{SIZE}"
                assert answer.headers["content-length"] == str(stop - start)
                assert answer.headers["etag"] == f'"{sha256(DATA)}"'
                assert answer.headers["x-cache"] == "MISS"
                asked_upstream = self.internet.asked[-1].header("Range")
                assert asked_upstream == f"bytes={start}-{stop - 1}"
        assert self.open_files() == []
        assert self.clock.getDelayedCalls() == []

    def test_behind_the_end(self) -> None:
        """A range behind the end is a 416 that tells the length; nobody is asked for it."""
        self.internet.asked.clear()
        for asked in (f"{SIZE}-", f"{SIZE + 5}-{SIZE + 9}", "-0"):
            answer = self.get(PATH, f"Range: bytes={asked}")
            assert (answer.status, answer.headers["content-range"]) == (416, f"bytes */{SIZE}")
        assert self.internet.urls()[1:] == []

    def test_all_of_it(self) -> None:
        """Several ranges, another unit, or another file than the client has: all of it."""
        self.build(stream=True)
        for headers in (
            ["Range: bytes=0-1,5-6"],
            ["Range: lines=0-1"],
            ["Range: bytes=0-1", 'If-Range: "other"'],
        ):
            self.reply = Reply(200, b"", whole=False, length=SIZE)
            self.serve(NAME, DATA, self.reply)
            exchange = self.begin(*headers)
            self.finish()
            self.assert_whole(exchange)
            (self.folder / "files-example/packages" / NAME).unlink()

    def test_same_file(self) -> None:
        """The range of who names the very file."""
        self.serve_part(5, 10)
        answer = self.get(PATH, "Range: bytes=5-9", f'If-Range: "{sha256(DATA)}"')
        assert (answer.status, answer.body) == (206, DATA[5:10])

    def test_no_ranges_upstream(self) -> None:
        """An upstream without ranges: the part is taken from the whole, and never a wrong one."""
        exchange = self.begin("Range: bytes=-10")
        self.clock.advance(0.9)
        self.finish()
        answer = exchange.answer()
        assert answer is not None
        assert (answer.status, answer.body, answer.whole) == (206, DATA[-10:], True)
        assert answer.headers["content-range"] == f"bytes {SIZE - 10}-{SIZE - 1}/{SIZE}"
        assert self.open_files() == []

    def test_breaks_off(self) -> None:
        """A part that breaks off for good is cut off."""
        part = {"Content-Range": f"bytes 0-1999/{SIZE}"}
        self.reply = Reply(206, b"", part, whole=False, length=2000)
        self.serve(NAME, DATA, self.reply)
        exchange = self.begin("Range: bytes=0-1999")
        self.reply.cut()
        self.assert_cut(exchange)
