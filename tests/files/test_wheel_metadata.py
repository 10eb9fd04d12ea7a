"""Core metadata out of wheels: honest archives and others, and wheels whose companion is gone."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from functools import partial
from itertools import product
from typing import Any
from unittest import mock

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.web.iweb import IResponse

from proxpi.files import wheel_metadata
from proxpi.files.cache_dir import OpenFile
from proxpi.files.fetch import GONE
from proxpi.files.resolver import MissingUpstream
from proxpi.files.wheel_metadata import (
    ARCHIVE_TAIL,
    LIMIT,
    STEP,
    NoUsableMetadata,
    PieceMissing,
    SparseFile,
    WheelFailed,
    core_metadata,
    read_pieces,
)
from proxpi.upstream.errors import UpstreamFailed
from tests.support.agent import MemoryAgent, Reply, Silence
from tests.support.cases import FILES, at_once, entry, sha256
from tests.support.growth import assert_linear
from tests.support.logs import logged
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
    view = SparseFile(len(data), lambda start, count: data[start : start + count])
    return core_metadata(view, filename)


def read_in_pieces(data: bytes, tail: int = ARCHIVE_TAIL) -> tuple[bytes, int]:
    """Read the metadata of a wheel piece by piece; return how many pieces that took."""
    pieces: dict[int, bytes] = {}
    at = partial(read_pieces, pieces)
    start = max(0, len(data) - tail)
    pieces[start] = data[start:]
    for count in range(1, 20):
        try:
            return core_metadata(SparseFile(len(data), at), NAME), count
        except PieceMissing as needed:
            stop = max(needed.stop, needed.start + STEP)
            pieces[needed.start] = data[needed.start : stop]
    raise AssertionError("it never had enough")


def encrypted() -> bytes:
    """Make an archive that says that its metadata is encrypted."""
    data = bytearray(archive((MEMBER, METADATA)))
    data[6] |= 1  # the flags of the entry, and of the directory
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def zip64() -> bytes:
    """Make an archive with the marks of a huge one."""
    with mock.patch.multiple(zipfile, ZIP64_LIMIT=10, ZIP_FILECOUNT_LIMIT=0):
        data = archive((MEMBER, METADATA))
    assert b"PK\x06\x06" in data  # the end of a huge archive's directory
    return data


def bomb(stated: int | None = None) -> bytes:
    """Make an archive with far too much metadata; its directory states any size."""
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
        (zip64(), 1),
    ],
    ids=["others", "older", "end", "start", "comment", "many files", "launcher", "zip64"],
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
        (encrypted(), "encrypted"),
        (archive((MEMBER, METADATA), packing=zipfile.ZIP_BZIP2), "unusual"),
        (archive((MEMBER, METADATA), packing=zipfile.ZIP_LZMA), "unusual"),
        (bomb(), "too long"),
        (bomb(100), "."),
        *((data, ".") for data in (b"", b"PK", b"\0" * 100, b"<html></html>" * 10_000)),
    ],
)
def test_unfit(data: bytes, cause: str) -> None:
    """A wheel without one readable, bounded file of metadata is unfit."""
    with pytest.raises(NoUsableMetadata, match=cause):
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

    with pytest.raises(NoUsableMetadata):
        core_metadata(SparseFile(3 * LIMIT + len(data), at), NAME)
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
    except NoUsableMetadata as error:
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
        with pytest.raises(NoUsableMetadata):
            read(data)

    assert_linear(work, made, 1_000 if len(name + extra) < 1_000 else 8)


class RangeAgent(MemoryAgent):
    """An agent that serves ranges of some files, by their URLs.

    :ivar lie: changes of each response with a range
    :ivar whole: the status of a whole file
    :ivar later: the files once a range was served
    """

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.lie: dict[str, Any] = {}
        self.whole = 200
        self.later: dict[str, bytes] = {}

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
                self.at(url, attrs.evolve(reply, **{"length": -1, **self.lie}))
                self.files |= self.later
        return super().request(method, uri, headers, bodyProducer)


GONE_REPLY, PAGE = Reply(404), Reply(200, b"<html>", {"Content-Type": "text/html"})


class Advertised(MirrorCase):
    """Metadata that is advertised and cannot be downloaded is extracted, or suppressed."""

    agent: RangeAgent

    def setUp(self) -> None:
        super().setUp()
        self.agent = RangeAgent()
        self.build()

    def in_thread(self, work: Any) -> Deferred[Any]:
        return at_once(work)

    def ask(
        self,
        companion: Reply | Silence | Exception = GONE_REPLY,
        *wheel: Reply | Silence,
        data: bytes = WHEEL,
        metadata: object = None,
        private: bool = False,
        lie: dict[str, Any] | None = None,
        whole: int = 200,
        **keys: Any,
    ) -> Deferred[Any]:
        """Advertise metadata, by default with its digest, and request it.

        :param wheel: what its URL responds, in place of the ranges of `data`
        """
        self.delete()
        stated = {"sha256": sha256(METADATA)} if metadata is None else metadata
        self.pages.lists(entry(NAME, data, metadata=stated, **keys), private=private)
        self.pages.suppressed.clear()
        self.agent.files = {} if wheel else {URL: data}
        self.agent.lie, self.agent.whole = lie or {}, whole
        self.agent.at(URL, *wheel)
        self.agent.at(URL + ".metadata", companion)
        self.agent.asked.clear()
        return self.fetch(SIDECAR)

    def assert_extracted(self, asked: Deferred[Any]) -> None:
        self.assert_bytes(self.result(asked), METADATA)
        self.assert_cached(SIDECAR, METADATA)
        assert self.pages.suppressed == []

    def assert_suppressed(self, asked: Deferred[Any]) -> None:
        self.error(asked, MissingUpstream)
        assert self.pages.suppressed == [("demo", NAME)]
        assert self.mirror.ready("demo", SIDECAR) is None

    def failure(self, asked: Deferred[Any]) -> UpstreamFailed:
        """Return the failure of the client; the page goes on advertising metadata."""
        self.clock.pump([1] * 60)
        assert self.pages.suppressed == []
        return self.error(asked, UpstreamFailed)

    def test_extracted(self) -> None:
        """If it is gone or wrong, the end of the wheel is requested, and no other byte."""
        last = f"bytes={len(WHEEL) - ARCHIVE_TAIL}-{len(WHEEL) - 1}"
        for companion in (*map(Reply, (403, 404, 410)), Reply(200, b"<html>")):
            self.assert_extracted(self.ask(companion))
            assert self.agent.urls()[-1] == URL and self.agent.urls().count(URL) == 1
            assert self.agent.asked[-1].header("Range") == last
        # Without a digest any metadata is right; a size may be wrong, or missing.
        self.assert_extracted(self.ask(metadata=True))
        for size in (len(WHEEL) - 1000, len(WHEEL) + 1000, None):
            self.assert_extracted(self.ask(size=size))
        assert self.agent.asked[-1].header("Range") == f"bytes=-{ARCHIVE_TAIL}"
        # Far from the end it takes one more range.
        self.assert_extracted(self.ask(data=AT_THE_START))
        assert self.agent.urls() == [URL + ".metadata", URL, URL]

    def test_head(self) -> None:
        """``HEAD`` gives the length of the metadata, not that of an error page; so does a range."""
        for companion in (GONE_REPLY, PAGE):
            self.ask(companion)
            for ranged in (False, True):
                self.result(self.mirror.delete("demo", SIDECAR))
                again = self.range("0-4", SIDECAR) if ranged else self.head(SIDECAR)
                self.assert_bytes(self.result(again), METADATA)

    def test_cached_wheel(self) -> None:
        """A cached wheel, found or not, is read from the cache, even if the upstream fails."""
        for found in (False, True):
            self.ask()
            self.assert_bytes(self.result(self.fetch()), WHEEL)
            self.result(self.mirror.delete("demo", SIDECAR))
            if found:
                self.build()
            self.agent.asked.clear()
            self.agent.at(URL + ".metadata", Reply(503))
            self.assert_extracted(self.fetch(SIDECAR))
            assert set(self.agent.urls()) == {URL + ".metadata"}

    def test_no_ranges(self) -> None:
        """An upstream that serves no ranges of a wheel serves the wheel, which is cached then."""
        for reply in (
            Reply(200, WHEEL),
            Reply(206, b"0123456789"),
            Reply(206, b"0123456789", {"Content-Range": "bytes 0-9/*"}),
            Reply(206, b"0123456789", {"Content-Range": f"bytes 5-4/{len(WHEEL)}"}),
            *map(Reply, (400, 401, 403, 404, 405, 410, 416, 422, 500, 501, 502, 503)),
        ):
            self.assert_extracted(self.ask(GONE_REPLY, reply, Reply(200, WHEEL)))
            self.assert_cached(NAME, WHEEL)
            assert self.agent.urls() == [URL + ".metadata", URL, URL]

    def test_deadline(self) -> None:
        """A client is redirected while its metadata may arrive, and never once it is extracted."""
        late = self.ask(silence := Silence())
        self.clock.advance(TIMEOUT)
        self.assert_redirected(late, URL + ".metadata")
        others = [self.fetch(SIDECAR) for _ in range(10)]
        silence.answer(Reply(404))
        for other in others:  # for all of them it is extracted once
            self.assert_extracted(other)
        assert self.agent.urls() == [URL + ".metadata", URL]
        asked = self.ask(GONE_REPLY, silence := Silence())
        self.clock.advance(10 * TIMEOUT)
        self.pending(asked)
        silence.answer(part(WHEEL, len(WHEEL) - ARCHIVE_TAIL))
        self.assert_extracted(asked)

    def test_uncached(self) -> None:
        """Metadata that cannot be cached is served, and says whether a digest verifies it.

        So it is if it is larger than the cache. It counts as fetched. What lies upstream is not
        extracted for want of space.
        """
        for stream, capacity in product((False, True), (0, len(METADATA) - 1)):
            self.build(capacity=capacity, stream=stream)
            found = self.result(self.ask())
            self.assert_bytes(found, METADATA)
            assert isinstance(found, OpenFile) and found.fetched
            asked = self.ask(Reply(200, METADATA))
            if stream:
                self.assert_bytes(self.result(asked), METADATA)
            else:
                self.assert_redirected(asked, URL + ".metadata")
            assert set(self.agent.urls()) == {URL + ".metadata"}
        for function in ("__init__", "flush"):
            for stream in (False, True):
                for metadata, has_digest in ((True, False), ({"sha256": sha256(METADATA)}, True)):
                    self.build(stream=stream)
                    full = self.fill_disk(function)
                    found = self.result(self.ask(metadata=metadata))
                    full.stop()
                    assert isinstance(found, OpenFile) and found.has_digest is has_digest
                    self.assert_bytes(found, METADATA)
                    assert self.mirror.ready("demo", SIDECAR) is None
        self.assert_extracted(self.fetch(SIDECAR))

    def test_deleted(self) -> None:
        """Metadata that is deleted while it is extracted is extracted anew for the next client."""
        first = self.ask(GONE_REPLY, Silence())
        self.result(self.mirror.clear())
        self.assert_extracted(self.ask())
        self.pending(first)

    def test_suppressed(self) -> None:
        """The wheel has other metadata, none, is no archive, takes too much reading, or is gone."""
        for data, metadata in (
            (WHEEL, {"sha256": sha256(b"other")}),
            (archive(PADDING), None),
            (b"x" * 100_000, None),
            (archive(PADDING), True),
        ):
            for companion in (GONE_REPLY, PAGE if metadata is True else Reply(200, b"else")):
                self.assert_suppressed(self.ask(companion, data=data, metadata=metadata))
        for status in GONE:
            self.assert_suppressed(self.ask(lie={"status": status}, whole=status))
        self.assert_suppressed(self.ask(GONE_REPLY, Reply(200, b"x"), Reply(404)))
        self.agent.at(URL + ".metadata", Reply(200, METADATA))  # the next request tries again
        self.assert_bytes(self.result(self.fetch(SIDECAR)), METADATA)
        for name, value in (("ARCHIVE_TAIL", 22), ("STEP", 1), ("MAX_RANGES", 2)):
            self.put(wheel_metadata, name, value)
        self.assert_suppressed(self.ask())
        self.build(capacity=0)  # neither read by ranges nor cached, it is not downloaded
        self.assert_suppressed(self.ask(GONE_REPLY, Reply(200, WHEEL)))

    def test_sdist(self) -> None:
        """A file that is no wheel holds no metadata; a failure of its companion is temporary."""
        name = "demo-1.0.tar.gz"
        url = FILES + name + ".metadata"
        self.pages.lists(entry(name, WHEEL, metadata={"sha256": sha256(METADATA)}))
        self.error(self.fetch(name + ".metadata"), MissingUpstream)
        assert self.pages.suppressed == [("demo", name)]
        assert set(self.agent.urls()) == {url}
        self.pages.suppressed.clear()
        for reply in (Reply(503), Reply(429), ConnectionResetError(), Reply(200, b"", length=9)):
            self.agent.at(url, reply)
            asked = self.fetch(name + ".metadata")
            self.clock.pump([1] * 4)
            self.assert_redirected(asked, url)
        self.agent.at(url, Reply(200, METADATA))
        self.fill_disk()
        self.assert_redirected(self.fetch(name + ".metadata"), url)
        assert self.pages.suppressed == []

    def test_wheel_fails(self) -> None:
        """Gone beside a wheel that cannot be read now: logged, and no client is redirected."""
        for status in (500, 503, 401):
            with logged("proxpi.files") as log:
                error = self.failure(self.ask(lie={"status": status}, whole=status))
            assert f"core metadata not served: {error}" in log.lines
            assert isinstance(error, WheelFailed)
            assert error.temporary == (status != 401)
        for length, cause in ((100, "status 503"), (None, "a part of another length")):
            lie = {"chunks": WHEEL[-100:], "length": length}
            assert cause in self.failure(self.ask(lie=lie, whole=503)).cause
        # Ranges of two wheels are not put together.
        self.agent.later[URL] = archive((MEMBER, METADATA), PADDING, ("demo/more", b"x"))
        assert "wrong bytes" in self.failure(self.ask(data=AT_THE_START)).cause

    def test_companion_fails(self) -> None:
        """A companion that fails now, beside a wheel without metadata, may come next time."""
        cut, padding = Reply(200, METADATA[:5], length=len(METADATA)), archive(PADDING)
        for reply in (Reply(503), Reply(401), Reply(429), ConnectionResetError(), cut):
            with logged("proxpi.files") as log:
                error = self.failure(self.ask(reply, data=padding, private=True))
            assert log.levels[-1] == "error", "after any lines about the companion"
            assert error.temporary == (getattr(reply, "status", None) != 401)
        # In an outage a client is redirected for it as for any file, or told why it fails.
        outage: dict[str, Any] = {"lie": {"status": 500}, "whole": 500}
        assert self.failure(self.ask(Reply(503), private=True, **outage)).cause == "status 503"
        self.assert_redirected(self.ask(Reply(503), **outage), URL + ".metadata")
        assert self.pages.suppressed == []
