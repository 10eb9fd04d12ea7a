"""Wheels as archives: core metadata is read from a file, or from the pieces that are at hand.

A wheel is a zip archive (PEP 427), and ``zipfile`` reads it from a :class:`View`. A piece that is
not at hand is :class:`Needed`: once it is there, the archive is read anew. What is read is bounded,
whatever an archive says of itself.

Core metadata out of a wheel (PEP 427, PEP 658), for when what should lie beside it is gone.

A wheel is read *on disk* if it is cached, else *by ranges*: most wheels tell all in their last
64 KiB, as PEP 427 recommends, and each further piece that is needed is one more range. The number
of ranges and their bytes are bounded. An upstream that gives no ranges makes the wheel be fetched
*whole*, as any file. Nothing is believed that does not have the digest that the index advertises.
"""

from __future__ import annotations

import io
import re
import tempfile
import zipfile
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Protocol, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from proxpi.files.cache_dir import CacheDir, OpenFile
from proxpi.files.partial import Digests
from proxpi.files.quota import TooLarge
from proxpi.files.resolver import FileReference, Gone, file_reference
from proxpi.files.verify import Mismatch, compare
from proxpi.upstream.client import UpstreamClient
from proxpi.upstream.errors import UpstreamFailed
from proxpi.upstream.response import ContentRange, SizeLimit

#: Bytes beyond which neither the list of an archive nor metadata is believed to be one.
LIMIT = 4 * 1024 * 1024
#: Bytes of an archive's entry before its content, as most have it.
ENTRY = 1024

_METADATA = re.compile(r"([^/]+)\.dist-info/METADATA")


class Unfit(Exception):
    """A wheel does not give the metadata that its index advertises; its text says why."""


class Needed(Exception):
    """A piece of a file is not at hand: from byte `start`, up to `stop`."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__(f"bytes {start} to {stop}")
        self.start = start
        self.stop = stop


class View(io.RawIOBase):
    """A file to read from; `at` gives the bytes from an offset on, so many."""

    def __init__(self, size: int, at: Callable[[int, int], bytes]) -> None:
        self._size = size
        self._at = at
        self._position = 0

    def seekable(self) -> bool:
        """See `io.IOBase`."""
        return True

    def tell(self) -> int:
        """See `io.IOBase`."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """See `io.IOBase`."""
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position}.get(whence, self._size)
        if position < 0:
            raise OSError("before the first byte")
        self._position = position
        return position

    def read(self, size: int | None = -1, /) -> bytes:
        """See `io.RawIOBase`; raises `Unfit` at more than anything in a wheel may need."""
        left = max(0, self._size - self._position)
        count = left if size is None or size < 0 else min(size, left)
        if count > LIMIT:
            raise Unfit(f"{count} bytes of it would have to be read at once")
        data = self._at(self._position, count) if count else b""
        self._position += len(data)
        return data


def read_pieces(pieces: Mapping[int, bytes], start: int, count: int) -> bytes:
    """Read from one of the pieces at hand, by their offsets; `Needed` if none holds it all."""
    for first, data in pieces.items():
        if first <= start and start + count <= first + len(data):
            return data[start - first : start - first + count]
    raise Needed(start, start + count)


def core_metadata(wheel: View, filename: str) -> bytes:
    """
    Read the core metadata in a wheel of this name.

    :raises Unfit: if there is none to be had
    :raises Needed: if the view does not show enough
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = _member(archive, filename)
            # In one go, rather than header, name and content one after the other.
            wheel.seek(member.header_offset)
            wheel.read(ENTRY + member.compress_size)
            with archive.open(member) as content:
                return content.read(LIMIT)
    except (Needed, Unfit):
        raise
    except Exception as error:  # noqa: BLE001 (zipfile does not tell what odd archives may raise)
        raise Unfit(
            f"it is no archive that can be read ({error or type(error).__name__})"
        ) from None


def _member(archive: zipfile.ZipFile, filename: str) -> zipfile.ZipInfo:
    """Find the one file of metadata that is this wheel's."""
    # Others may have their own in there, put in by accident.
    stated = filename.split("-")[:2]
    named = [
        (found[1], member)
        for member in archive.infolist()
        if (found := _METADATA.fullmatch(member.filename)) is not None
        and _folded(found[1].partition("-")[0]) == _folded(stated[0])
    ]
    if len(named) > 1:
        named = [(stem, member) for stem, member in named if stem == "-".join(stated)]
    if len(named) != 1:
        raise Unfit("it has not one file of metadata")
    _, member = named[0]
    # Whatever else zipfile can unpack, it does not bound.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Unfit("its metadata is packed in an unusual way")
    if member.file_size > LIMIT:
        raise Unfit("its metadata is too long")
    return member


def _folded(name: str) -> str:
    """Write a name of a project as all spellings of it have it, odd ones, too."""
    return re.sub(r"[-_.]+", "-", name).lower()


#: Bytes of the end that are asked for first: the longest end of an archive, and more.
TAIL = 64 * 1024 + 22
#: Bytes that a range has at least; what is needed next often lies close by.
STEP = 16 * 1024
#: Bytes beyond which a wheel takes too much reading.
MOST = 2 * LIMIT
#: Ranges that are asked for at most, after that of the end.
TURNS = 6
#: Kinds of failures after which metadata is as good as gone: something else lies there.
WRONG = frozenset({"hash", "length", "empty", "page", "encoded"})

_log = Logger(namespace="proxpi.files")

T = TypeVar("T")


class WheelFailed(UpstreamFailed):
    """A wheel cannot be read now; no client finds its metadata elsewhere, for that is gone."""


class Work(Protocol):
    """Runs a function that takes a while, off the reactor's thread."""

    def __call__(self, job: Callable[[], T], /) -> Deferred[T]:
        """Give what `job` will have returned."""


class _NoRanges(Exception):
    """An upstream gives no part of this file."""


@attrs.define(eq=False)
class Wheels:
    """Takes core metadata out of wheels, and keeps it as if it had come by itself.

    :ivar work: reads archives in a thread
    :ivar whole: gives a wheel as the mirror gives any file; ``None`` if it is not to be had whole
    """

    _upstream: UpstreamClient
    _cache_dir: CacheDir
    _work: Work
    _whole: Callable[[FileReference], Awaitable[OpenFile | None]]

    async def instead(
        self, reference: FileReference, error: Gone | UpstreamFailed | OSError
    ) -> OpenFile | None:
        """
        Give metadata out of its wheel, since it does not come by itself, by reason of `error`.

        :return: ``None`` once it is cached; an open file without a name if it may not be kept
        :raises Gone: if the metadata is gone or wrong, and not in this wheel either
        :raises WheelFailed: if the metadata is gone, and the wheel cannot be read now
        :raises UpstreamFailed: or `error` itself, if the next request may get the metadata
        """
        assert reference.metadata_of is not None
        try:
            data = await self._out_of(
                file_reference(reference.metadata_of), reference.metadata_of.entry["filename"]
            )
            kept = self._keep(reference, data)
        except (Unfit, Mismatch, Gone, TooLarge) as unfit:
            if not isinstance(error, Gone) and getattr(error, "kind", "") not in WRONG:
                raise error from unfit
            _log.warn("{error}, and the wheel does not give it: {unfit}", error=error, unfit=unfit)
            raise Gone(reference, 404) from unfit
        except (UpstreamFailed, OSError) as failure:
            if not isinstance(error, Gone):
                raise error from failure
            if isinstance(failure, OSError):
                failure = UpstreamFailed(reference.url, f"gone, and the cache folder: {failure}")
            raise WheelFailed(
                failure.url,
                failure.cause,
                temporary=failure.temporary,
                retry_after=failure.retry_after,
            ) from failure
        _log.info("{error}; it was taken out of the wheel", error=error)
        return kept

    def _keep(self, reference: FileReference, data: bytes) -> OpenFile | None:
        digests = Digests.of(reference.digest)
        digests.add(data)
        compare(digests.size, digests.hex(), reference)
        try:
            file = self._cache_dir.partial(reference)
            try:
                file.write(data)
                return self._cache_dir.adopt(file, reference)
            finally:
                self._cache_dir.end(file)
        except OSError as error:
            # Nobody could get it elsewhere: it lives as long as it is sent.
            self._cache_dir.complain(error)
            unnamed = tempfile.TemporaryFile(buffering=0)
            unnamed.write(data)
            return OpenFile(
                unnamed, digests.size, digests.hex()["sha256"], Counter(), "", reference.has_digest
            )

    async def _out_of(self, wheel: FileReference, filename: str) -> bytes:
        if not filename.endswith(".whl"):
            raise Unfit("it is no wheel")
        copy = self._cache_dir.open(wheel)
        if copy is None and not self._cache_dir.found(wheel):
            try:
                return await self._by_ranges(wheel, filename)
            except _NoRanges:
                pass
        copy = copy or await self._whole(wheel)
        if copy is None:
            raise Unfit("the wheel cannot be had whole")
        try:
            return await self._read(copy.size, copy.read, filename)
        finally:
            copy.close()

    async def _by_ranges(self, wheel: FileReference, filename: str) -> bytes:
        # Some servers know no suffixes, and most indexes tell the size.
        size = wheel.size
        byte_range = f"bytes={max(0, size - TAIL)}-{size - 1}" if size else f"bytes=-{TAIL}"
        start, data, size = await self._range(wheel, byte_range, TAIL)
        pieces = {start: data}
        for _ in range(TURNS):
            try:
                return await self._read(size, partial(read_pieces, pieces), filename)
            except Needed as needed:
                start, stop = needed.start, min(max(needed.stop, needed.start + STEP), size)
            if sum(map(len, pieces.values())) + stop - start > MOST:
                break
            part = await self._range(wheel, f"bytes={start}-{stop - 1}", stop - start)
            if (part[0], part[2]) != (start, size):
                raise _NoRanges
            pieces[start] = part[1]
        raise Unfit("too much of it would have to be read")

    def _read(self, size: int, at: Callable[[int, int], bytes], filename: str) -> Deferred[bytes]:
        return self._work(lambda: core_metadata(View(size, at), filename))

    async def _range(
        self, wheel: FileReference, byte_range: str, most: int
    ) -> tuple[int, bytes, int]:
        """Ask for a part of a wheel; give its offset, its bytes, and the size of the whole."""
        headers = {"Accept": "*/*", "Range": byte_range}
        async with self._upstream.file(wheel.url, headers) as answer:
            part = ContentRange.of(answer)
            if part is None or part.size is None:
                raise _NoRanges
            if not part.start < part.stop <= min(part.size, part.start + most):
                raise _NoRanges
            chunks: list[bytes] = []
            await self._upstream.stream(answer, chunks.append, SizeLimit(most))
        data = b"".join(chunks)
        if len(data) != part.stop - part.start:
            raise UpstreamFailed(answer.url, "a part of another length than announced")
        return part.start, data, part.size
