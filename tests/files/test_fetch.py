"""The resumable fetch: the use of each response, retries, and versions that are never mixed."""

from __future__ import annotations

import gzip
import zlib
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers

from proxpi.files import fetch
from proxpi.files.cache_dir import OpenFile
from proxpi.files.fetch import (
    ENCODED,
    GONE,
    MIN_PROGRESS,
    Disposition,
    Missing,
    check_head,
    disposition_of,
)
from proxpi.files.resolver import FileReference, Gone
from proxpi.upstream.errors import UpstreamFailed
from proxpi.upstream.response import Response
from tests.support.agent import Reply
from tests.support.cases import MIB, entry, sha256
from tests.support.counted import Counted
from tests.support.indexes import READ_TIMEOUT
from tests.support.logs import logged
from tests.support.mirrors import (
    DATA,
    LARGE,
    NAME,
    UNKNOWN,
    URL,
    MirrorCase,
    Reading,
    part,
    slow,
)

SIZE, ARRIVED = 100, 40
TAG, OTHER = '"one"', '"two"'
DATE, LATER = "Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 09:00:00 GMT"
HASHED = FileReference(URL, ("sha256", "0" * 64), SIZE, private=False)
BARE = FileReference(URL, None, None, private=False)
#: Where a download breaks off: with less progress than would be no failure.
AT = MIN_PROGRESS - 1


def head(
    status: int, content_range: str | None = None, length: int | None = None, **fields: Any
) -> Response:
    """Return the head of a response; `content_range` is stated without its unit."""
    headers = Headers({name.replace("_", "-"): [value] for name, value in fields.items()})
    if content_range is not None:
        headers.setRawHeaders("Content-Range", [f"bytes {content_range}"])
    original: Any = SimpleNamespace(code=status, headers=headers, length=length)
    return Response("GET", URL, original)


REST, STOPS = "40-99/100", ((100, Disposition.PART), (99, Disposition.NONE))
UNPROVEN, DATED = {"validator": None, "proof": True}, {"validator": DATE, "proof": True}


@pytest.mark.parametrize(
    ("use", "changes", "heads"),
    [
        (Disposition.GONE, {}, [head(status) for status in GONE]),
        (
            Disposition.WHOLE,
            {},
            [head(200), head(203), head(206, "0-99/100"), head(200, ETag=OTHER)],
        ),
        (
            Disposition.PART,
            {},
            [head(206, stated, ETag=TAG) for stated in (REST, "40-79/100", "40-99/*")]
            + [head(206, REST, 60, ETag=TAG)],
        ),
        (
            Disposition.NONE,
            {},
            [
                *(head(206, f"{at}/100", ETag=TAG) for at in ("39-99", "41-99", "forty-99")),
                head(206, "40-99/101", ETag=TAG),
                head(206, REST, 59, ETag=TAG),
                head(206, REST, ETag=TAG, Content_Encoding="gzip"),
                head(206, REST, ETag=OTHER),
                head(206, ETag=TAG),
                *map(head, (204, 416, 503)),
            ],
        ),
        # Without a digest the version has to be proven; a response to a date may leave it out.
        (Disposition.NONE, {"proof": True}, [head(206, REST), head(206, REST, ETag=f"W/{TAG}")]),
        (Disposition.PART, DATED, [head(206, REST), head(206, REST, Last_Modified=DATE)]),
        (
            Disposition.NONE,
            DATED,
            [head(206, REST, Last_Modified=LATER), head(206, REST, ETag="W/x")],
        ),
        (Disposition.NONE, UNPROVEN, [head(206, REST)]),
        (Disposition.NONE, {"proof": True, "size": None}, [head(206, "40-99/*", ETag=TAG)]),
        *(
            (Disposition.PART, {"validator": each, "proof": False}, [head(206, REST)])
            for each in (TAG, None)
        ),
        (Disposition.PART, {"proof": False, "size": None}, [head(206, "40-99/*")]),
        *((use, {"stop": stop}, [head(206, REST, ETag=TAG)]) for stop, use in STOPS),
    ],
)
def test_use(use: Disposition, changes: dict[str, Any], heads: list[Response]) -> None:
    """A response is the whole file, the rest of the same version, gone, or of no use."""
    for proof in (False, True):
        missing = attrs.evolve(Missing(ARRIVED, None, SIZE, TAG, proof), **changes)
        for each in heads:
            reference = BARE if missing.proof else HASHED
            assert disposition_of(reference, each, missing) is use, (each.headers, missing)


@pytest.mark.parametrize(
    "fields", [{}, {"Content_Encoding": "gzip"}, {"Content_Type": "text/html"}]
)
@pytest.mark.parametrize("length", [None, SIZE, SIZE + 1])
def test_check_head(fields: dict[str, Any], length: int | None) -> None:
    """A response is doubtful by its size, coding or type; without a digest it is refused."""
    whole = head(200, length=length, **fields)
    doubtful = bool(fields) or length == SIZE + 1
    assert check_head(HASHED, whole) is doubtful
    sized = FileReference(URL, None, SIZE, private=False)
    if length == SIZE + 1 or "Content_Encoding" in fields:
        with pytest.raises(UpstreamFailed):
            check_head(sized, whole)
    for reference in (HASHED, sized):
        for status in (*GONE, 204, 500):
            with pytest.raises(Gone if status in GONE else UpstreamFailed):
                check_head(reference, head(status))


class Responses(MirrorCase):
    """Whole responses: which of them are cached, retried, and reported."""

    def test_outcomes(self) -> None:
        """A file is cached if its digest, else its size and its end, are right; or tried twice."""
        html, gzipped = {"Content-Type": "Text/HTML; charset=utf-8"}, {"Content-Encoding": "gzip"}
        endless = Reply(200, DATA, length=None, ends=PotentialDataLoss)
        other, broken = Reply(200, b"something else"), Reply(200, DATA[:5], length=len(DATA))
        md5 = {"md5": "0" * 32}
        no_hash: dict[str, Any] = {"hashes": {}}
        kept, unverified = {"kept": 1.0}, {"kept_unverified": 1.0}

        def failed(kind: str, times: float = 2.0) -> dict[str, float]:
            return {kind: times, "failed": 1.0}

        cases: list[tuple[list[Reply | Exception], dict[str, Any], dict[str, float]]] = [
            ([Reply(200, DATA)], {}, kept),
            ([Reply(200, DATA)], {"size": 3}, kept),
            ([Reply(200, DATA, gzipped)], {}, kept),
            ([endless], {}, kept),
            ([other, Reply(200, DATA)], {}, {"hash": 1.0, **kept}),
            ([broken, Reply(200, DATA)], {}, {"resumed_total": 1.0, **kept}),
            ([other], {}, failed("hash")),
            ([Reply(200, b"T" + DATA[1:])], {}, failed("hash")),
            ([Reply(200, b"<html>", html)], {}, failed("hash")),
            ([Reply(200)], {}, failed("hash")),
            ([Reply(200, DATA)], {"hashes": md5}, failed("hash")),
            ([broken], no_hash, {"cut": 1.0, "resumed_total": 1.0, "failed": 1.0}),
            ([Reply(200, DATA)], no_hash, unverified),
            ([endless], no_hash, unverified),
            ([Reply(200, DATA)], UNKNOWN, unverified),
            ([Reply(200, DATA, {"Content-Encoding": " Identity"})], UNKNOWN, unverified),
            ([other], no_hash, failed("length")),
            ([Reply(200, b"else", length=None)], no_hash, failed("length")),
            ([endless], UNKNOWN, failed("cut")),
            ([Reply(200)], UNKNOWN, failed("empty")),
            ([Reply(200, b"<html>", html)], no_hash, failed("page")),
            ([Reply(200, DATA, gzipped)], UNKNOWN, failed("encoded", 2.0)),
            ([ConnectionResetError()], {}, failed("connection")),
            ([Reply(200)], {"data": b""}, kept),
            ([Reply(203, DATA)], UNKNOWN, unverified),
            # A 206 that was not requested is the file if it has all of it.
            ([part(DATA, 0)], UNKNOWN, unverified),
            ([part(DATA, 0, size="*")], no_hash, unverified),
            ([part(DATA, 0, size="*")], UNKNOWN, failed("status", 1.0)),
            ([part(DATA, 0, len(DATA) - 1)], no_hash, failed("status", 1.0)),
        ]
        for data in (b"<html>", b"Please log in", b"P", b"x" * 3000, b"<!-- PK\3\4 -->"):
            cases.append(([Reply(200, data, html)], UNKNOWN, failed("page")))
        for status, cause, times in (
            (408, "status", 2),
            (429, "rate_limited", 2),
            (500, "server_error", 2),
            (206, "status", 1),
            (204, "status", 1),
            (304, "status", 1),
            (401, "credentials", 1),
        ):
            cases.append(([Reply(status)], {}, failed(cause, times)))
        for replies, keys, expected in cases:
            self.listed(*replies, **keys)
            counted = Counted()
            found = self.result(self.fetch())
            self.clock.advance(0)
            assert counted.since() == expected, (replies, keys)
            assert self.agent.asked[0].header("Accept-Encoding") == "identity"
            if "failed" in expected:
                self.assert_nothing_cached()
            else:
                self.assert_bytes(found, data := keys.get("data", DATA))
                self.assert_cached(data=data)
            self.delete()

    def test_log(self) -> None:
        """The log tells what is wrong with a file, without the credentials of its URL."""
        secret = f"https://user:secret@files.example/{NAME}"
        for replies, keys, expected in (
            ([Reply(200, b"else")], {}, sha256(DATA)),
            ([], {"size": 3}, "the index says 3 bytes"),
            ([], {"hashes": {"md4": "0" * 32}}, f"{URL} is cached without a digest"),
            ([], {"url": secret}, "no such file: https://files.example/"),
        ):
            self.listed(*replies, **keys)
            with logged("proxpi.files") as log:
                self.fetch().addErrback(lambda _: None)
            assert expected in log.text and "secret" not in log.text
            self.delete()

    def test_far_beyond_its_size(self) -> None:
        """A body without a length ends far beyond the size on the page; one with a length may."""
        self.put(fetch, "MARGIN", MIB)
        self.listed(Reply(200, bytes(3 * MIB), length=None), size=10, private=True)
        assert self.error(self.fetch(), UpstreamFailed).cause == "the answer is too long"
        self.assert_nothing_cached()
        self.put(fetch, "MARGIN", 0)
        self.listed(size=1)
        self.assert_bytes(self.result(self.fetch()))

    def test_pause(self) -> None:
        """A fetch without a byte waits, also for a short `Retry-After`; a long one ends it."""
        self.put(fetch, "PAUSE", 1.0)
        for first, before, after in (
            (Reply(502), 0.4, 1.2),
            (Reply(429, headers={"Retry-After": "3"}), 2.9, 0.2),
        ):
            self.listed(first, Reply(200, DATA))
            self.fetch().addErrback(lambda _: None)
            self.clock.advance(before)
            assert len(self.agent.asked) == 1
            self.clock.advance(after)
            assert len(self.agent.asked) == 2
            self.assert_cached()
            self.delete()
        self.listed(Reply(503, headers={"Retry-After": "17"}), Reply(200, DATA), private=True)
        assert self.error(self.fetch(), UpstreamFailed).retry_after == 17
        self.clock.advance(20)
        assert len(self.agent.asked) == 1

    def test_html(self) -> None:
        """``text/html`` is not believed if a file of a package begins so, in however small bits."""
        html = {"Content-Type": "text/html"}
        tar = b"demo/".ljust(257, b"\0") + b"ustar\0" + b"0" * 250
        archives = (b"PK\3\4 and so on", b"PK\5\6" + bytes(18), b"\x1f\x8b\x08", b"BZh91AY", tar)
        others = (b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"MZ\x90", b"Metadata-Version: 2.1\n")
        for data in (*archives, *others, b"-----BEGIN PGP SIGNATURE-----\n"):
            reply = Reply(200, b"", html, whole=False, length=len(data))
            self.listed(reply, **UNKNOWN)
            asked = self.fetch()
            for byte in data:
                reply.bring(bytes([byte]))
            reply.end()
            self.assert_bytes(self.result(asked), data)
            self.delete()
        page = {"filename": "demo.html", "url": "https://files.example/demo.html", "hashes": {}}
        self.pages.lists(page)
        self.agent.at(page["url"], Reply(200, b"<html>", html))  # type: ignore[arg-type]
        self.assert_bytes(self.result(self.fetch("demo.html")), b"<html>")


class Encoded(MirrorCase):
    """Responses with a ``Content-Encoding``, although identity was requested."""

    def test_companions(self) -> None:
        """Companions are decoded, with and without a digest; some upstreams only say so."""
        data, raw = b"Metadata-Version: 2.1\nName: demo\n", zlib.compressobj(wbits=-15)
        squeezed = gzip.compress(data)
        for coding, body, right in (
            ("gzip", squeezed, True),
            ("x-gzip", squeezed, True),
            ("gzip, gzip", gzip.compress(squeezed), True),
            ("deflate", zlib.compress(data), True),
            ("deflate", raw.compress(data) + raw.flush(), True),
            ("gzip", data, True),
            ("br", data, True),
            ("br", b"no metadata", False),
            ("gzip", b"no metadata", False),
            ("gzip", squeezed[:-9], False),
            ("gzip", squeezed[:12] + b"garbled", False),
            ("gzip", gzip.compress(bytes(ENCODED.size + 1)), False),
            ("gzip", bytes(ENCODED.size + 1), False),
        ):
            for digest in ({"sha256": sha256(data)}, True, False):
                self.listed(metadata=digest)
                reply = Reply(200, body, {"Content-Encoding": coding, "ETag": '"1"'})
                self.agent.at(URL + ".metadata", reply)
                asked = self.fetch(NAME + ".metadata")
                self.run_threads()
                asked.addErrback(lambda _: None)
                if right:
                    self.assert_bytes(self.result(asked), data)
                    self.assert_cached(NAME + ".metadata", data)
                else:
                    assert not isinstance(asked.result, OpenFile)
                    assert self.mirror.ready("demo", NAME + ".metadata") is None
                self.delete()
        for body in (b"-----BEGIN PGP", gzip.compress(b"-----BEGIN PGP")):
            self.agent.at(URL + ".asc", Reply(200, body, {"Content-Encoding": "gzip"}))
            self.assert_bytes(self.result(self.fetch(NAME + ".asc")), b"-----BEGIN PGP")
            self.delete()


class Resumed(MirrorCase):
    """A download that breaks off is resumed where it ended, for the same client."""

    def setUp(self) -> None:
        super().setUp()
        self.build(stream=True)

    def break_off(
        self, *later: Reply, at: int = AT, headers: dict[str, str] | None = None
    ) -> Reading:
        """Let a download come so far and break off; the upstream then answers so."""
        first = slow(LARGE).having(**headers or {})
        self.listed(first, *later, data=LARGE)
        reading = self.begin(first, at)
        first.cut()
        return reading

    def resumed(self) -> list[tuple[str | None, str | None]]:
        return [(one.header("Range"), one.header("If-Range")) for one in self.agent.asked[1:]]

    def assert_resumed(self, reading: Reading | None, rest: Reply, start: int = 0) -> None:
        """Let the rest arrive; the client got the file as if nothing had happened."""
        self.finish(rest, start)
        if reading is not None:
            self.assert_read(reading)
        self.assert_cached(data=LARGE)
        self.assert_clean()
        self.delete()

    def test_validators(self) -> None:
        """A strong tag, else a date, names the version; with a digest, none is needed."""
        for headers, validator in (
            ({"ETag": TAG}, TAG),
            ({"ETag": TAG, "Last_Modified": DATE}, TAG),
            ({"ETag": f"W/{TAG}", "Last_Modified": DATE}, DATE),
            ({"Last_Modified": DATE}, DATE),
            ({}, None),
        ):
            counted, rest = Counted(), part(LARGE, AT, arrived=False)
            reading = self.break_off(rest, headers=headers)
            assert self.resumed() == [(f"bytes={AT}-", validator)]
            self.assert_resumed(reading, rest, AT)
            assert counted.since() == {"resumed_total": 1, "kept": 1}

    def test_silence(self) -> None:
        """A body that is silent for ``PROXPI_READ_TIMEOUT`` has broken off."""
        first, rest = slow(LARGE), part(LARGE, AT, arrived=False)
        self.listed(first, rest, data=LARGE)
        reading = self.begin(first, AT)
        self.clock.advance(READ_TIMEOUT - 0.1)
        assert (first.closed, self.resumed()) == (False, [])
        self.clock.advance(0.2)
        assert (first.closed, self.resumed()) == (True, [(f"bytes={AT}-", None)])
        self.assert_resumed(reading, rest, AT)

    def test_useless_parts(self) -> None:
        """If the part does not fit or is refused, the whole file is requested and compared."""
        for reply in (
            *map(Reply, (400, 401, 403, 404, 410, 416, 429, 500, 503, 204, 304)),
            part(LARGE, 5, 6),
            part(LARGE, AT, AT + 1, 9999999),
            Reply(206, b"xxx", {"Content-Range": f"bytes {AT}-{AT}/{len(LARGE)}"}),
            part(LARGE, AT, AT + 1, Content_Encoding="gzip"),
            part(LARGE, AT, ETag=OTHER),
            Reply(206, b"no word of what"),
        ):
            again = slow(LARGE)
            reading = self.break_off(reply, again, headers={"ETag": TAG})
            assert self.resumed() == [(f"bytes={AT}-", TAG), (None, None)]
            again.bring(LARGE[:1000])
            self.assert_resumed(reading, again, 1000)

    def test_progress(self) -> None:
        """A download may break off as often as it makes progress; without any it is given up."""
        second, third, last = (part(LARGE, way * MIB, arrived=False) for way in (1, 2, 2))
        reading = self.break_off(second, third, last, at=MIN_PROGRESS)
        second.bring(LARGE[MIN_PROGRESS : 2 * MIN_PROGRESS])
        second.cut()
        third.cut()
        self.assert_resumed(reading, last, 2 * MIN_PROGRESS)
        stuck = part(LARGE, AT, arrived=False)
        reading = self.break_off(stuck)
        stuck.cut()
        assert reading.cut and len(self.resumed()) == 1
        assert self.break_off(Reply(503)).cut
        self.assert_nothing_cached()

    def test_some_of_the_rest(self) -> None:
        """A part that is only some of the rest is followed by another one."""
        stop = len(LARGE) - 5
        rest = part(LARGE, stop, arrived=False)
        reading = self.break_off(part(LARGE, AT, stop, "*"), rest)
        self.assert_resumed(reading, rest, stop)

    def test_expired_url(self) -> None:
        """A URL that expires is replaced by that of a fresh page, if it names the same bytes."""
        fresh, other = f"{URL}?signature=fresh", {"sha256": "0" * 64}
        down = UpstreamFailed("https://index.example/", "connection refused")
        for keys, failure, capacity, resumed in (
            ({"url": fresh}, None, 100 * MIB, True),
            ({"url": fresh}, None, MIB, True),
            ({"url": fresh, "hashes": other}, None, 100 * MIB, False),
            ({"url": fresh, "hashes": {}}, None, 100 * MIB, False),
            ({"url": URL}, None, 100 * MIB, False),
            ({"url": fresh}, down, 100 * MIB, False),
        ):
            self.build(stream=True, capacity=capacity)
            self.pages.known.clear()
            self.pages.failure = failure
            self.pages.lists(entry(NAME, LARGE, **keys), cold=True)
            rest = part(LARGE, AT, arrived=False)
            self.agent.at(fresh, rest)
            reading = self.break_off(Reply(403))
            assert reading.cut is not resumed
            if resumed:
                assert self.agent.asked[-1].url == fresh
                self.finish(rest, AT)
                self.assert_read(reading)
                self.clock.advance(0)
                self.delete()
            self.assert_clean()

    def test_other_version(self) -> None:
        """Other bytes than before, in a part or the whole: readers are cut off; it begins anew."""
        for other in (slow(LARGE), part(LARGE, AT, arrived=False)):
            reading = self.break_off(other, right := slow(LARGE), headers={"ETag": TAG})
            other.bring(bytes(other.length or 0))
            if other.status == 206:
                other.end()
            assert reading.cut
            self.assert_resumed(None, right)


OLD = bytes(range(256)) * 200
NEW = bytes(reversed(OLD))
MIDDLE = 50_000


class Versions(MirrorCase):
    """A file of which the index tells nothing, whose first response breaks off."""

    def cached(
        self,
        *later: Reply,
        headers: dict[str, str] | None = None,
        length: bool = False,
        **keys: Any,
    ) -> bytes | None:
        """Let the old version break off, and the upstream answer so; return the cached bytes."""
        self.delete()
        self.build(stream=True)
        first = Reply(200, b"", headers or {}, whole=False, length=len(OLD) if length else None)
        self.listed(first, *later, data=OLD, **{**UNKNOWN, **keys})
        self.fetch().addErrback(lambda _: None)
        first.bring(OLD[:MIDDLE])
        first.cut()
        self.clock.advance(0)
        file = self.mirror.ready("demo", NAME)
        if file is None:
            assert self.leftovers() == []
            return None
        data = file.read(0, file.size + 1)
        file.close()
        return data

    def test_other_length(self) -> None:
        """A complete second response of another length or content is a version of its own."""
        shorter = (NEW[:300], NEW[: MIDDLE - 1], OLD[:300], OLD[: MIDDLE - 1], OLD[:MIDDLE])
        longer = (NEW + b"more", OLD[:MIDDLE] + b"x" * 5000, OLD + b"more")
        same = (NEW, OLD[: MIDDLE - 1] + NEW[MIDDLE - 1 :], OLD[:MIDDLE] + NEW[MIDDLE:])
        tag: dict[str, str] = {"ETag": TAG}
        for headers in ({}, tag, {"Last-Modified": DATE}):
            for announced in (False, True):
                for length in (False, True):
                    for other in (*shorter, *longer, *same):
                        second = Reply(200, other, length=len(other) if length else None)
                        kept = self.cached(second, second, headers=headers, length=announced)
                        assert kept == other, (headers, announced, length, len(other))
        for other in same:
            second = Reply(200, other, length=None)
            assert self.cached(second, second, length=True, size=len(OLD)) == other

    def test_second_response(self) -> None:
        """A version is requested at most twice; one that breaks off again proves nothing."""
        assert self.cached(Reply(200, OLD, length=None)) == OLD
        assert self.ranges() == [None, None]
        third = NEW[::-1][:-7]
        for broken, last in ((NEW[:MIDDLE], third), (OLD[:300], OLD), (NEW[:300], OLD)):
            replies = [Reply(200, last, length=None)] * 2
            assert self.cached(Reply(200, broken, length=len(OLD)), *replies) in (None, last)
        # A version whose end is that of the connection is not known to be whole.
        endless = [Reply(200, OLD[:300], length=None, ends=PotentialDataLoss)] * 2
        assert self.cached(*endless) is None
        assert self.ranges() == [None, None]

    def test_parts(self) -> None:
        """A part is appended only if a strong validator proves that it is of the same version."""
        tag, weak, dated = {"ETag": TAG}, {"ETag": f"W/{TAG}"}, {"Last-Modified": DATE}
        fresh = {**dated, "Date": DATE}
        no_ranges = {**tag, "Accept-Ranges": "none"}
        for mine, theirs in (
            *((tag, theirs) for theirs in ({"ETag": OTHER}, weak, {}, dated)),
            ({**tag, **dated}, dated),
            *((weak, theirs) for theirs in (weak, tag)),
            *((dated, theirs) for theirs in (weak, {"Last-Modified": LATER})),
            (fresh, fresh),
            (no_ranges, tag),
            *(({}, theirs) for theirs in ({}, tag)),
        ):
            for announced in (False, True):
                whole = [Reply(200, NEW, length=None)] * 2
                rest = part(NEW, MIDDLE).having(**theirs)
                kept = self.cached(rest, *whole, headers=mine, length=announced)
                assert kept in (NEW, None), (mine, theirs)
                ranged = [asked for asked in self.agent.asked if asked.header("Range")]
                assert not ranged or mine in (tag, dated, {**tag, **dated})
        for mine, theirs in ((tag, tag), (dated, dated), (dated, {})):
            assert self.cached(part(OLD, MIDDLE).having(**theirs), headers=mine, length=True) == OLD
            assert len(self.agent.asked) == 2

    def test_parts_of_other_sizes(self) -> None:
        """A part of another size, of unknown size, or longer than stated completes no file."""
        other, tag = NEW + b"more", {"ETag": TAG}
        for announced in (False, True):
            odd = part(other, MIDDLE, len(OLD)).having(**tag)
            replies = (odd, Reply(200, other), Reply(200, other, length=None))
            assert self.cached(*replies, headers=tag, length=announced) in (other, None)
        unknown = part(OLD, MIDDLE, len(OLD) - 100, "*").having(**tag)
        assert self.cached(unknown, Reply(200, OLD, length=None), headers=tag) == OLD
        longer = part(OLD, MIDDLE).having(**tag)
        longer.chunks, longer.length = (OLD[MIDDLE:] + b"more",), None
        assert self.cached(longer, Reply(200, OLD, tag), headers=tag, length=True) == OLD
        assert len(self.agent.asked) == 3

    def test_passing_through(self) -> None:
        """Where nothing is cached, a reader of the old version gets no byte of the new one."""
        for other in (NEW, NEW[:300], OLD[:300], OLD[:MIDDLE] + NEW[MIDDLE:] + b"more"):
            for first_length, length in ((None, None), (len(OLD), None), (len(OLD), len(other))):
                self.build(stream=True, capacity=0)
                first = Reply(200, b"", whole=False, length=first_length)
                second = Reply(200, other, length=length)
                self.listed(first, second, Reply(503), data=OLD, **UNKNOWN)
                reading = self.begin(first, MIDDLE, OLD)
                first.cut()
                data = bytes(reading.data)
                assert OLD.startswith(data) or (data, reading.whole) == (other, True)
                assert reading.cut or other.startswith(OLD[:MIDDLE])
                self.clock.advance(0)
