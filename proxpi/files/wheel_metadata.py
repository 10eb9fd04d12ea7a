"""Core metadata out of a wheel (PEP 427, PEP 658), for when its index has none, or none any more.

A wheel is read *from the cache* if it is cached, else *by ranges*: most wheels have all that is
needed in their last 64 KiB, as PEP 427 recommends, and each further piece is one more range. The
number of ranges and their bytes are bounded. A wheel whose upstream serves no ranges is downloaded
*whole*, as any file. Only bytes with the digest that the page advertises are served.

While metadata is *extracted*, clients wait for it without a deadline: no client is redirected to
where it is gone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger, LogLevel

from proxpi.archives import (
    LIMIT,
    NoUsableMetadata,
    PieceMissing,
    SparseFile,
    core_metadata,
    read_pieces,
)
from proxpi.files.cache_dir import CacheDir, OpenFile
from proxpi.files.cached_files import CachedFiles
from proxpi.files.downloads import SMALL, Downloads
from proxpi.files.passthrough import RangeClient, RangeNotServed
from proxpi.files.quota import TooLarge
from proxpi.files.resolver import FileReference, Gone, file_reference
from proxpi.files.verify import Digests, Mismatch, compare
from proxpi.simple import urls
from proxpi.single_flight import Flight, Flights, InThread, WaitTimeout
from proxpi.upstream import Offline, UpstreamFailed

#: Bytes of the first range: the longest end of an archive, and more.
ARCHIVE_TAIL = 64 * 1024 + 22
#: The least bytes of a further range; the next piece often lies close by.
STEP = 16 * 1024
#: The most bytes of all ranges together.
MOST = 2 * LIMIT
#: The most ranges after the first one.
MAX_RANGES = 6
#: Kinds of failures after which metadata is as good as gone: another file lies there.
WRONG = frozenset({"hash", "length", "empty", "page", "encoded"})

_log = Logger(namespace="proxpi.files")


class WheelFailed(UpstreamFailed):
    """A wheel cannot be read now; no client finds its metadata elsewhere, for that is gone."""


@attrs.define(eq=False, kw_only=True)
class WheelMetadata:
    """Core metadata that is advertised: downloaded, or extracted from its wheel.

    It iterates over the references of metadata under way.
    """

    _downloads: Downloads
    _cached: CachedFiles
    _ranges: RangeClient
    _cache_dir: CacheDir
    _clock: IReactorTime
    _in_thread: InThread
    _flights: Flights[FileReference, OpenFile | None]
    _extracting: set[FileReference] = attrs.field(init=False, factory=set)

    def __iter__(self) -> Iterator[FileReference]:
        return iter(self._flights)

    async def whole(self, reference: FileReference, until: float | None) -> OpenFile:
        """
        Open metadata; raises `WaitTimeout` at `until`, the clock's seconds, unless it is extracted.

        :raises Gone: if it is gone or wrong, and not in its wheel either
        :raises WheelFailed: if it is gone, and the wheel cannot be read now
        :raises UpstreamFailed: or `OSError`, if the next request may get it
        """
        flight = self._flights.join(reference, lambda: self._bring(reference))
        try:
            return await self._downloads.open(reference, flight.wait(until))
        except WaitTimeout:
            if reference not in self._extracting:
                raise
            return await self._downloads.open(reference, flight.wait())

    def delete(self, reference: FileReference) -> None:
        """Detach the flight of metadata: the next request starts anew."""
        self._flights.detach(reference)

    def clear(self) -> None:
        for reference in self._flights:
            self._flights.detach(reference)

    def under_way(self, reference: FileReference) -> Flight[OpenFile | None] | None:
        return self._flights.get(reference)

    async def cached(
        self, filename: str, wheel: FileReference, companion: FileReference | None
    ) -> bytes | None:
        """Read advertised metadata that is cached, else that in a cached wheel; neither is used.

        That of a wheel in a folder that is an index is read there.
        """
        if wheel.in_folder:
            return await self._cached.folder_files.metadata(wheel, filename)
        sources: list[tuple[FileReference, Callable[[SparseFile], bytes]]] = [
            (wheel, partial(core_metadata, filename=filename))
        ]
        if companion is not None and companion.metadata_of is not None:
            sources.insert(0, (companion, SparseFile.read))
        for reference, read in sources:
            # The first attempt notices a copy of the verified file, as in a restored folder.
            file = self._cache_dir.open(reference, used=False)
            if file is None and await self._cached.verify(reference):
                file = self._cache_dir.open(reference, used=False)
            if file is None:
                continue
            with closing(file), suppress(NoUsableMetadata, OSError):
                work = partial(read, SparseFile(file.size, file.read))
                # A thread would take longer for a small companion.
                small = reference is companion and file.size <= SMALL
                return work() if small else await self._in_thread(work)
        return None

    async def _bring(self, reference: FileReference) -> OpenFile | None:
        assert reference.metadata_of is not None
        error: Gone | UpstreamFailed | OSError = Gone(reference, 404)
        if not reference.metadata_of.extracted:
            try:
                return await self._downloads.join(reference).wait()
            except TooLarge:
                raise  # the mirror redirects its client, or passes it through
            except (Gone, UpstreamFailed, OSError) as failed:
                error = failed
        self._extracting.add(reference)
        try:
            return await self._extract(reference, error)
        except UpstreamFailed as failed:
            if not isinstance(failed, Offline):
                _log.error("core metadata not served: {error}", error=failed)
            raise
        finally:
            self._extracting.discard(reference)

    async def _extract(
        self, reference: FileReference, error: Gone | UpstreamFailed | OSError
    ) -> OpenFile | None:
        """Extract metadata from its wheel; `error` tells why it cannot be downloaded."""
        assert reference.metadata_of is not None
        listed = reference.metadata_of
        try:
            data = await self._read_wheel(
                file_reference(listed, resolver=reference.resolver), listed.entry["filename"]
            )
            uncached = await self._keep(reference, data)
        except (NoUsableMetadata, Mismatch, Gone, TooLarge) as unfit:
            if not isinstance(error, Gone) and getattr(error, "kind", "") not in WRONG:
                raise error from unfit
            url = urls.loggable(reference.url)
            _log.warn("{url} cannot be had, nor out of the wheel: {unfit}", url=url, unfit=unfit)
            raise Gone(reference, 404) from unfit
        except (UpstreamFailed, OSError) as failure:
            if not isinstance(error, Gone):
                raise error from failure
            if isinstance(failure, Offline):
                raise
            if isinstance(failure, OSError):
                failure = UpstreamFailed(reference.url, f"gone, and the cache folder: {failure}")
            raise WheelFailed(
                failure.url,
                failure.cause,
                temporary=failure.temporary,
                retry_after=failure.retry_after,
            ) from failure
        # An index that states none is usual; one that lacks what it states is not.
        level = LogLevel.debug if listed.extracted else LogLevel.info
        _log.emit(level, "{url} was taken out of the wheel", url=urls.loggable(reference.url))
        return uncached

    async def _keep(self, reference: FileReference, data: bytes) -> OpenFile | None:
        digests = Digests(reference.digest)
        digests.add(data)
        compare(digests, reference)
        try:
            file = self._cache_dir.partial(reference)
            try:
                file.write(data)
                return await self._cache_dir.adopt(file, reference)
            finally:
                self._cache_dir.discard(file)
        except OSError as error:
            # No client finds it elsewhere: it lives as long as it is sent.
            self._cache_dir.log_refusal(error)
            unnamed = tempfile.TemporaryFile(buffering=0)
            unnamed.write(data)
            sha256, has_digest = digests.hex()["sha256"], reference.has_digest
            uncached = OpenFile(unnamed, digests.size, sha256, has_digest, fetched=True)
            self._clock.callLater(0, uncached.close)  # waiters take their share of it at once
            return uncached

    async def _read_wheel(self, wheel: FileReference, filename: str) -> bytes:
        if not filename.endswith(".whl"):
            raise NoUsableMetadata("it is no wheel")
        file = self._cache_dir.open(wheel)
        if file is None and not self._cache_dir.found(wheel):
            with suppress(RangeNotServed):
                return await self._read_ranges(wheel, filename)
        file = file or await self._cached.open(wheel)
        if file is None:
            if not self._cache_dir.quota.admits(wheel.size):
                raise NoUsableMetadata("the wheel cannot be had whole")
            file = await self._downloads.whole(wheel, None)
        try:
            return await self._read(file.size, file.read, filename)
        finally:
            file.close()

    async def _read_ranges(self, wheel: FileReference, filename: str) -> bytes:
        # Some servers know no suffixes, and most indexes state the size.
        size = wheel.size
        byte_range = f"bytes=-{ARCHIVE_TAIL}"
        if size:
            byte_range = f"bytes={max(0, size - ARCHIVE_TAIL)}-{size - 1}"
        piece = await self._ranges.read(wheel, byte_range, ARCHIVE_TAIL)
        size, pieces = piece.size, {piece.start: piece.data}
        for _ in range(MAX_RANGES):
            try:
                return await self._read(size, partial(read_pieces, pieces), filename)
            except PieceMissing as needed:
                start, stop = needed.start, min(max(needed.stop, needed.start + STEP), size)
            if sum(map(len, pieces.values())) + stop - start > MOST:
                break
            piece = await self._ranges.read(wheel, f"bytes={start}-{stop - 1}", stop - start)
            if (piece.start, piece.size) != (start, size):
                raise RangeNotServed()
            pieces[start] = piece.data
        raise NoUsableMetadata("too much of it would have to be read")

    def _read(self, size: int, at: Callable[[int, int], bytes], filename: str) -> Deferred[bytes]:
        return self._in_thread(lambda: core_metadata(SparseFile(size, at), filename))
