"""Core metadata out of wheels: honest archives and others, and wheels whose companion is gone."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from functools import partial
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.web.iweb import IResponse

from proxpi.files import wheel_metadata
from proxpi.files.cache_dir import OpenFile
from proxpi.files.fetch import GONE
from proxpi.files.mirror import Head
from proxpi.files.resolver import NotUpstream
from proxpi.files.wheel_metadata import (
    LIMIT,
    STEP,
    TAIL,
    Needed,
    Unfit,
    View,
    WheelFailed,
    core_metadata,
    read_pieces,
)
from proxpi.upstream.errors import UpstreamFailed
from tests.support.agent import MemoryAgent, Reply, Silence
from tests.support.cases import FILES, at_once, entry, sha256
from tests.support.growth import assert_linear
from tests.support.mirrors import NAME, TIMEOUT, URL, MirrorCase, part

MEMBER = "demo-1.0.dist-info/METADATA"
METADATA = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
PADDING = ("demo/data", bytes(range(256)) * 4000)
SIDECAR = NAME + ".metadata"


def archive(
    *members: tuple[str, bytes], packing: int = zipfile.ZIP_STORED, comment: bytes = b""
) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", packing) as written:
        for name, data in members:
            written.writestr(zipfile.ZipInfo(name), data, packing)
        written.comment = comment
    return sink.getvalue()


WHEEL = archive(PADDING, (MEMBER, METADATA))
AT_THE_START = archive((MEMBER, METADATA), PADDING)


def read(data: bytes, filename: str = NAME) -> bytes:
    view = View(len(data), lambda start, count: data[start : start + count])
    return core_metadata(view, filename)


def read_in_pieces(data: bytes, tail: int = TAIL) -> tuple[bytes, int]:
    """Read the metadata of a wheel piece by piece; tell how many pieces that took."""
    pieces: dict[int, bytes] = {}
    at = partial(read_pieces, pieces)
    start = max(0, len(data) - tail)
    pieces[start] = data[start:]
    for count in range(1, 20):
        try:
            return core_metadata(View(len(data), at), NAME), count
        except Needed as needed:
            stop = max(needed.stop, needed.start + STEP)
            pieces[needed.start] = data[needed.start : stop]
    raise AssertionError("it never had enough")


def bomb(stated: int | None = None) -> bytes:
    """Make an archive with far too much metadata, whatever size its directory states."""
    data = bytearray(archive((MEMBER, bytes(3 * LIMIT)), packing=zipfile.ZIP_DEFLATED))
    if stated is not None:
        size = data.index(b"PK\x01\x02") + 24
        data[size : size + 4] = struct.pack("<I", stated)
    return bytes(data)


@pytest.mark.parametrize(
    ("filename", "folder"),
    [
        ("demo_app-1.0-py3-none-any.whl", "demo_app-1.0"),
        ("Demo.App-1.0-py3-none-any.whl", "demo_app-1.0"),
        ("demo_app-1.0-py3-none-any.whl", "Demo.App-1.0.0"),
        ("demo_app-1.0+cu118-1-py3-none-any.whl", "demo_app-1.0_cu118"),
    ],
)
def test_spellings(filename: str, folder: str) -> None:
    """The folder's name may be spelled in another way than the wheel's."""
    for packing in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        data = archive((f"{folder}.dist-info/METADATA", METADATA), packing=packing)
        assert read(data, filename) == METADATA


OTHERS = [
    ("other-1.0.dist-info/METADATA", b"other"),
    ("demo/_vendor/demo-1.0.dist-info/METADATA", b"vendored"),
    ("demo-1.0.dist-info/METADATA.json", b"{}"),
    ("demo-1.0.dist-info/licenses/METADATA", b"license"),
]
COMMENTED = archive(
    PADDING, (MEMBER, METADATA), packing=zipfile.ZIP_DEFLATED, comment=b"x" * 65_535
)
OLDER = ("demo-0.9.dist-info/METADATA", b"older")


@pytest.mark.parametrize(
    ("data", "pieces"),
    [
        (archive(*OTHERS, (MEMBER, METADATA)), 1),
        (archive(OLDER, (MEMBER, METADATA)), 1),
        (WHEEL, 1),
        (AT_THE_START, 2),
        (COMMENTED, 4),
        (archive(*((f"{'x' * 200}{n}", b"") for n in range(1000)), (MEMBER, METADATA)), 3),
        (b"#!/bin/sh\n" * 1000 + archive((MEMBER, METADATA)), 1),
    ],
    ids=["others", "older", "end", "start", "comment", "many files", "launcher"],
)
def test_pieces(data: bytes, pieces: int) -> None:
    """Metadata is read from the whole as from at most so many pieces."""
    data_read, count = read_in_pieces(data)
    assert (read(data), data_read, count <= pieces) == (METADATA, METADATA, True)


with pytest.warns(UserWarning, match="Duplicate name"):
    TWICE = archive((MEMBER, METADATA), (MEMBER, b"other"))


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (archive(*OTHERS), "one file"),
        (archive(OLDER, ("Demo-1.0.dist-info/METADATA", METADATA)), "one file"),
        (TWICE, "one file"),
        (archive((MEMBER, METADATA), packing=zipfile.ZIP_BZIP2), "unusual"),
        (archive((MEMBER, METADATA), packing=zipfile.ZIP_LZMA), "unusual"),
        (bomb(), "too long"),
        (bomb(100), "."),
        *((data, ".") for data in (b"", b"PK", b"\0" * 100, b"<html></html>" * 10_000)),
    ],
)
def test_unfit(data: bytes, cause: str) -> None:
    """A wheel without one readable, bounded file of metadata is unfit."""
    with pytest.raises(Unfit, match=cause):
        read(data)


def test_huge_directory() -> None:
    """A directory that is longer than any honest one is not read."""
    data = bytearray(archive((MEMBER, METADATA)))
    end = data.rindex(b"PK\x05\x06")
    data[end + 12 : end + 20] = struct.pack("<II", LIMIT + 1, end)
    counts: list[int] = []

    def at(start: int, count: int) -> bytes:
        counts.append(count)
        return (bytes(3 * LIMIT) + data)[start : start + count]

    with pytest.raises(Unfit):
        core_metadata(View(3 * LIMIT + len(data), at), NAME)
    assert max(counts) <= LIMIT


SMALL = archive(("demo/__init__.py", b"x" * 50), (MEMBER, METADATA), ("é" * 100, b""))


@given(
    st.integers(0, len(SMALL)),
    st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), max_size=8),
)
def test_damaged(stop: int, changes: list[tuple[int, int]]) -> None:
    """A wheel that is damaged or cut anywhere gives some metadata, or is unfit: no other error."""
    data = bytearray(SMALL)
    for offset, value in changes:
        data[offset] = value
    try:
        assert isinstance(read(bytes(data[:stop])), bytes)
    except Unfit as error:
        assert str(error)


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        (b"f%d", b""),
        (b"f%d", bytes(65_532)),
        (MEMBER.encode(), b""),
        (b".dist-info" * 6000, b""),
        (MEMBER.encode() + b"/" * 60_000, b""),
    ],
)
def test_a_hostile_directory_takes_linear_time(name: bytes, extra: bytes) -> None:
    """Reading the directory of an archive takes time in proportion to its length."""

    def made(count: int) -> bytes:
        names = [name.replace(b"%d", str(number).encode()) for number in range(count)]
        directory = b"".join(
            struct.pack("<4s24x3H12x", b"PK\x01\x02", len(each), len(extra), 0) + each + extra
            for each in names
        )
        return directory + struct.pack(
            "<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(directory), 0, 0
        )

    def work(data: bytes) -> None:
        with pytest.raises(Unfit):
            read(data)

    assert_linear(work, made, 1_000 if len(name + extra) < 1_000 else 8)


class RangeAgent(MemoryAgent):
    """An agent that serves ranges of some files, by their URLs.

    :ivar lie: changes of each response with a range
    :ivar whole: the status of a whole file
    :ivar later: the files once a range was served
    :ivar sent: bytes of all ranges
    """

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.lie: dict[str, Any] = {}
        self.whole = 200
        self.later: dict[str, bytes] = {}
        self.sent = 0

    def request(
        self, method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None
    ) -> Deferred[IResponse]:
        url = uri.decode()
        if (data := self.files.get(url)) is not None:
            self.at(url, Reply(self.whole, data))
            wanted = headers.getRawHeaders("Range", [""])[0]
            if found := re.fullmatch(r"bytes=(\d*)-(\d*)", wanted):
                first, last = found.groups()
                start = int(first) if first else max(0, len(data) - int(last))
                reply = part(data, start, int(last) + 1 if first and last else None)
                self.sent += reply.length or 0
                self.at(url, attrs.evolve(reply, **{"length": -1, **self.lie}))
                self.files |= self.later
        return super().request(method, uri, headers, bodyProducer)


class ExtractionCase(MirrorCase):
    """Tests of a wheel whose advertised metadata is gone."""

    agent: RangeAgent

    def setUp(self) -> None:
        super().setUp()
        self.agent = RangeAgent()
        self.build()
        self.advertise()

    def in_thread(self, work: Any) -> Deferred[Any]:
        return at_once(work)

    def advertise(
        self, data: bytes = WHEEL, metadata: object = None, *, private: bool = False, **keys: Any
    ) -> None:
        stated = {"sha256": sha256(METADATA)} if metadata is None else metadata
        self.listings.lists(entry(NAME, data, metadata=stated, **keys), private=private)
        self.agent.files[URL] = data
        self.agent.at(URL + ".metadata", Reply(404))
        self.agent.asked.clear()
        self.listings.suppressed.clear()

    def assert_extracted(self) -> None:
        self.assert_bytes(self.result(self.fetch(SIDECAR)), METADATA)
        self.assert_cached(SIDECAR, METADATA)
        assert self.listings.suppressed == []

    def assert_suppressed(self) -> None:
        self.error(self.fetch(SIDECAR), NotUpstream)
        assert self.listings.suppressed == [("demo", NAME)]
        assert self.mirror.ready("demo", SIDECAR) is None
        self.listings.suppressed.clear()

    def delete_metadata(self) -> None:
        self.result(self.mirror.delete("demo", SIDECAR))


class Extracted(ExtractionCase):
    """Metadata that is gone is served all the same."""

    def test_gone_or_wrong(self) -> None:
        """If it is gone or wrong, the end of the wheel is requested, and no other byte."""
        for reply in (*map(Reply, (403, 404, 410)), Reply(200, b"<html>")):
            self.delete()
            self.advertise()
            self.agent.at(URL + ".metadata", reply)
            self.assert_extracted()
            assert self.agent.urls()[-1] == URL and self.agent.urls().count(URL) == 1
            size = len(WHEEL)
            assert self.agent.asked[-1].header("Range") == f"bytes={size - TAIL}-{size - 1}"
        path = self.folder / "files-example/packages" / SIDECAR
        assert path.read_bytes() == METADATA

    def test_head(self) -> None:
        """``HEAD`` gives the length of the metadata, not that of an error page."""
        page = Reply(200, b"<html>not here</html>", {"Content-Type": "text/html"})
        for reply in (Reply(404), page):
            self.agent.at(URL + ".metadata", reply)
            found = self.result(self.head(SIDECAR))
            assert not isinstance(found, Head)
            self.assert_bytes(found, METADATA)
            self.delete_metadata()

    def test_what_the_page_states(self) -> None:
        """Without a digest any metadata is right; without a size, or a wrong one, it is found."""
        sizes = [{"size": size} for size in (len(WHEEL) - 1000, len(WHEEL) + 1000, None)]
        cases: list[dict[str, Any]] = [{"metadata": True}, *sizes]
        for keys in cases:
            self.delete()
            self.advertise(**keys)
            self.assert_extracted()
        assert self.agent.asked[-1].header("Range") == f"bytes=-{TAIL}"

    def test_cached_wheel(self) -> None:
        """A wheel that is cached is read from the cache, found or not, whatever the upstream."""
        self.assert_bytes(self.result(self.fetch()), WHEEL)
        for found in (False, True):
            if found:
                self.build()
            self.agent.asked.clear()
            self.agent.at(URL + ".metadata", Reply(503))
            self.assert_extracted()
            assert set(self.agent.urls()) == {URL + ".metadata"}
            self.delete_metadata()

    def test_no_ranges(self) -> None:
        """An upstream that serves no ranges of a wheel serves the wheel, which is cached then."""
        for reply in (
            Reply(200, WHEEL),
            Reply(206, b"0123456789"),
            Reply(206, b"0123456789", {"Content-Range": "bytes 0-9/*"}),
            Reply(206, b"0123456789", {"Content-Range": f"bytes 5-4/{len(WHEEL)}"}),
            *map(Reply, (400, 401, 403, 404, 405, 410, 416, 422, 500, 501, 502, 503)),
        ):
            self.delete()
            self.agent.files.clear()
            self.agent.asked.clear()
            self.agent.at(URL, reply, Reply(200, WHEEL))
            self.assert_extracted()
            self.assert_cached(NAME, WHEEL)
            assert self.agent.urls() == [URL + ".metadata", URL, URL]

    def test_once(self) -> None:
        """However many clients there are, it is extracted once."""
        self.agent.at(URL + ".metadata", silence := Silence())
        asked = [self.fetch(SIDECAR) for _ in range(10)]
        silence.answer(Reply(404))
        for one in asked:
            self.assert_bytes(self.result(one), METADATA)
        assert self.agent.urls() == [URL + ".metadata", URL]

    def test_deadline(self) -> None:
        """A client is redirected while its metadata may arrive, and never once it is extracted."""
        self.agent.at(URL + ".metadata", silence := Silence())
        late = self.fetch(SIDECAR)
        self.clock.advance(TIMEOUT)
        self.assert_redirected(late, URL + ".metadata")
        silence.answer(Reply(404))
        self.assert_cached(SIDECAR, METADATA)
        self.delete_metadata()
        self.agent.files.clear()
        self.agent.at(URL + ".metadata", Reply(404))
        self.agent.at(URL, silence := Silence())
        asked = self.fetch(SIDECAR)
        self.clock.advance(10 * TIMEOUT)
        self.pending(asked)
        start, size = len(WHEEL) - TAIL, len(WHEEL)
        stated = {"Content-Range": f"bytes {start}-{size - 1}/{size}"}
        silence.answer(Reply(206, WHEEL[start:], stated))
        self.assert_bytes(self.result(asked), METADATA)

    def test_uncached(self) -> None:
        """It is served where it cannot be cached, and says whether a digest verifies it."""
        self.build(capacity=0)
        self.assert_bytes(self.result(self.fetch(SIDECAR)), METADATA)
        for function in ("__init__", "flush"):
            for stream in (False, True):
                for metadata, has_digest in ((True, False), ({"sha256": sha256(METADATA)}, True)):
                    self.build(stream=stream)
                    self.advertise(metadata=metadata)
                    full = self.fill_disk(function)
                    found = self.result(self.fetch(SIDECAR))
                    full.stop()
                    assert isinstance(found, OpenFile) and found.has_digest is has_digest
                    self.assert_bytes(found, METADATA)
                    assert self.mirror.ready("demo", SIDECAR) is None
        self.assert_extracted()

    def test_deleted(self) -> None:
        """Metadata that is deleted while it is extracted is extracted anew for the next client."""
        self.agent.files.clear()
        self.agent.at(URL, Silence())
        first = self.fetch(SIDECAR)
        self.delete_metadata()
        self.result(self.mirror.clear())
        self.agent.files[URL] = WHEEL
        self.assert_extracted()
        self.pending(first)


class NotExtracted(ExtractionCase):
    """A wheel that does not hold the advertised metadata: the page stops advertising it."""

    def test_unfit(self) -> None:
        """It has other metadata, none, is no archive, or takes too much reading."""
        other = {"sha256": sha256(b"other")}
        for data, metadata in (
            (WHEEL, other),
            (archive(PADDING), None),
            (b"x" * 100_000, None),
            (archive(PADDING), True),
        ):
            self.advertise(data, metadata)
            page = Reply(200, b"<html>", {"Content-Type": "text/html"})
            for reply in (Reply(404), page if metadata is True else Reply(200, b"else")):
                self.agent.at(URL + ".metadata", reply)
                self.assert_suppressed()
        for name, value in (("TAIL", 22), ("STEP", 1), ("TURNS", 2)):
            self.put(wheel_metadata, name, value)
        self.advertise()
        self.assert_suppressed()
        self.agent.at(URL + ".metadata", Reply(200, METADATA))  # the next request tries again
        self.assert_extracted()

    def test_wheel_gone(self) -> None:
        """If the wheel is gone as well, in ranges or whole, so be it."""
        for status in GONE:
            self.agent.lie, self.agent.whole = {"status": status}, status
            self.assert_suppressed()
        self.agent.files.clear()
        self.agent.at(URL, Reply(200, b"x"), Reply(404))
        self.assert_suppressed()

    def test_no_ranges_no_cache(self) -> None:
        """A wheel that can neither be read by ranges nor cached is not downloaded."""
        self.build(capacity=0)
        self.agent.files.clear()
        self.agent.at(URL, Reply(200, WHEEL))
        self.assert_suppressed()

    def test_sdist(self) -> None:
        """A file that is no wheel holds no metadata; a failure of its companion is temporary."""
        name = "demo-1.0.tar.gz"
        url = FILES + name + ".metadata"
        self.listings.lists(entry(name, WHEEL, metadata={"sha256": sha256(METADATA)}))
        self.error(self.fetch(name + ".metadata"), NotUpstream)
        assert self.listings.suppressed == [("demo", name)]
        assert set(self.agent.urls()) == {url}
        self.listings.suppressed.clear()
        for reply in (Reply(503), Reply(429), ConnectionResetError(), Reply(200, b"", length=9)):
            self.agent.at(url, reply)
            asked = self.fetch(name + ".metadata")
            self.clock.pump([1] * 4)
            self.assert_redirected(asked, url)
        self.agent.at(url, Reply(200, METADATA))
        self.fill_disk()
        self.assert_redirected(self.fetch(name + ".metadata"), url)
        assert self.listings.suppressed == []


class Failing(ExtractionCase):
    """Wheels or companions that cannot be read now: the page goes on advertising metadata."""

    def failure(self) -> UpstreamFailed:
        asked = self.fetch(SIDECAR)
        self.clock.pump([1] * 60)
        assert self.listings.suppressed == []
        return self.error(asked, UpstreamFailed)

    def test_wheel_fails(self) -> None:
        """Gone beside a wheel that cannot be read now: no client is redirected to it."""
        for status in (500, 503, 401):
            self.agent.lie, self.agent.whole = {"status": status}, status
            error = self.failure()
            assert isinstance(error, WheelFailed)
            assert error.temporary == (status != 401)
        self.agent.whole = 503
        for length, cause in ((100, "status 503"), (None, "a part of another length")):
            self.agent.lie = {"chunks": WHEEL[-100:], "length": length}
            assert cause in self.failure().cause

    def test_other_wheel_meanwhile(self) -> None:
        """Far from the end it takes one more range; those of two wheels are not put together."""
        self.advertise(AT_THE_START)
        self.assert_extracted()
        assert self.agent.urls() == [URL + ".metadata", URL, URL]
        assert self.agent.sent <= TAIL + STEP
        self.delete_metadata()
        self.agent.later[URL] = archive((MEMBER, METADATA), PADDING, ("demo/more", b"x"))
        assert "wrong bytes" in self.failure().cause

    def test_companion_fails(self) -> None:
        """A companion that fails now, beside a wheel without metadata, may come next time."""
        cut = Reply(200, METADATA[:5], length=len(METADATA))
        self.advertise(archive(PADDING), private=True)
        for reply in (Reply(503), Reply(401), Reply(429), ConnectionResetError(), cut):
            self.agent.at(URL + ".metadata", reply)
            assert self.failure().temporary == (getattr(reply, "status", None) != 401)

    def test_both_fail(self) -> None:
        """In an outage a client is redirected for it as for any file, or told why it fails."""
        for private in (False, True):
            self.advertise(private=private)
            self.agent.at(URL + ".metadata", Reply(503))
            self.agent.lie, self.agent.whole = {"status": 500}, 500
            if private:
                assert self.failure().cause == "status 503"
            else:
                self.assert_redirected(self.fetch(SIDECAR), URL + ".metadata")
        assert self.listings.suppressed == []
