"""The cache folder: which of its files are served, and how files get into it and leave it.

A cached file is *unverified* (it was found, and was not compared with its page yet) or *verified*
(its identity, URL and digests are remembered, over a restart as well). Only verified files are
served; a file with another identity than the remembered one is unverified. A file without a digest
is verified by its size alone. A downloaded file is hashed while it arrives. It is served from its
rename on, and flushed to disk afterwards; until then the usage log has it as unverified, since a
power failure may leave other bytes. One that no digest would tell from those is flushed before its
rename. A file whose flush fails is removed. A found file is read once. While the folder is being
*cleared*, found files are neither verified nor served.

All renames into and out of cache paths happen on the reactor's thread. The outcome of a thread
concerns the file with the identity that the thread saw; it is dropped where another file lies by
then. Of the parts of the cache folder each knows those before it: layout, verification, eviction
index, deletion queue, quota, usage log, cache folder.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger, LogLevel

from proxpi import atomic_files
from proxpi.files import layout
from proxpi.files.eviction_index import EvictionIndex
from proxpi.files.quota import BATCH, DeletionQueue, Full, Quota, Reservation, ScanRunning, TooLarge
from proxpi.files.resolver import FileReference
from proxpi.files.usage_log import UsageLog
from proxpi.files.verify import Digests, VerifiedFile, check, compare, digest_of_url
from proxpi.local_files import Identity
from proxpi.problems import Problems, disk_remedy
from proxpi.single_flight import InThread

#: Bytes of a partial file that are gathered before they are written.
BUFFER = 1 << 20
#: What follows from the error of a file that cannot be read.
UNREADABLE = "the file is downloaded again"

_log = Logger(namespace="proxpi.files")


class PartialFile:
    """A file that is being written under a partial name and a lock, and hashed.

    It ends *adopted* (renamed to its cache path) or *unlinked*. Bytes that the disk refuses can be
    read all the same, so nothing is lost with a full disk.

    :ivar written: how many bytes are in the file; `gathered`: those that have arrived since
    :ivar cache_path: where it is to be cached; ``None`` if it may not be
    """

    def __init__(self, folder: Path, reference: FileReference, reservation: Reservation) -> None:
        self.path, self.file = atomic_files.begin(folder)
        self.cache_path = reference.cache_path
        self._stated = reference.digest
        self.digests = Digests(self._stated)
        self.reservation = reservation
        self.written = 0
        self.gathered = bytearray()

    def write(self, data: bytes) -> Deferred[None] | None:
        """Add bytes; returns as :meth:`flush`. Raises an `OSError` if disk or quota refuse them."""
        self.digests.add(data)
        self.gathered += data
        return self.flush() if len(self.gathered) >= BUFFER else None

    def flush(self) -> Deferred[None] | None:
        """Write the gathered bytes; without space, give a Deferred that fires when to repeat it."""
        space = self.reservation.grow(self.digests.size) if self.gathered else None
        while self.gathered and space is None:
            count = os.pwrite(self.file.fileno(), self.gathered, self.written)
            del self.gathered[:count]
            self.written += count
        return space

    def read(self, start: int, count: int) -> bytes:
        """Read at most `count` bytes of those that arrived; perhaps fewer."""
        if start < self.written:
            return os.pread(self.file.fileno(), min(count, self.written - start), start)
        start -= self.written
        return bytes(self.gathered[start : start + count])

    def restart(self) -> None:
        self.gathered.clear()
        self.written = 0
        self.file.truncate(0)
        self.digests = Digests(self._stated)

    def close(self) -> None:
        self.unlink()
        self.reservation.release()
        with suppress(OSError):  # a full disk may complain once more
            self.file.close()

    def unlink(self) -> None:
        """Remove the file if it still has its partial name."""
        with suppress(OSError):  # it was adopted, or the folder is for reading only
            os.unlink(self.path)


def flush_files(folder: Path, paths: Iterable[str]) -> dict[str, OSError]:
    """Flush files to disk, some milliseconds each; return the errors by path."""
    errors = {}
    for path in paths:
        try:
            with layout.open_file(folder / path) as file:
                os.fsync(file.fileno())
        except OSError as error:
            errors[path] = error
    return errors


def reopen(file: BinaryIO | FileIO) -> BinaryIO:
    return open(os.dup(file.fileno()), "rb", buffering=0)


@attrs.frozen
class Removed:
    """Removed files: their number, and their bytes."""

    files: int = 0
    size: int = 0

    def __add__(self, other: Removed) -> Removed:
        return Removed(self.files + other.files, self.size + other.size)


class Location(Protocol):
    """Where an open file lies, by its name.

    :ivar cache_path: tells it from other files, in the cache folder and elsewhere
    :ivar identity: that of the open file
    """

    @property
    def cache_path(self) -> str: ...

    @property
    def identity(self) -> Identity: ...

    def status(self) -> os.stat_result:
        """Return the status of what lies there now, or raise `OSError`."""

    @property
    def is_verified(self) -> bool:
        """Whether the file is the verified one."""

    def acquire(self) -> None:
        """Note that it is being sent, and `release` that it is not any more."""

    def release(self) -> None: ...

    def mark_unverified(self) -> None: ...


@attrs.frozen
class Cached:
    """The location of a cached file; `path`: its whole path."""

    eviction_index: EvictionIndex
    cache_path: str
    path: str
    identity: Identity

    def status(self) -> os.stat_result:
        return os.lstat(self.path)

    @property
    def is_verified(self) -> bool:
        verified = self.eviction_index.verified(self.cache_path)
        return verified is not None and verified.identity == self.identity

    def acquire(self) -> None:
        self.eviction_index.acquire(self.cache_path)

    def release(self) -> None:
        self.eviction_index.release(self.cache_path)

    def mark_unverified(self) -> None:
        self.eviction_index.mark_unverified(self.cache_path, self.identity)


@attrs.define(eq=False)
class OpenFile:
    """An open file. It can be read to its end, even once its name is gone.

    :ivar has_digest: whether it was verified by a digest, not by its size alone
    :ivar location: ``None`` for a file without a name
    :ivar fetched: whether it was fetched for the request that gets it
    :ivar is_kept: whether the response cache keeps it; else it is being sent, and not evicted
    :ivar in_folder: whether it comes from a folder that is an index
    """

    file: BinaryIO
    size: int
    sha256: str
    has_digest: bool = True
    location: Location | None = None
    fetched: bool = False
    is_kept: bool = False
    in_folder: bool = False

    def __attrs_post_init__(self) -> None:
        if self.location is not None and not self.is_kept:
            self.location.acquire()

    @property
    def cache_path(self) -> str:
        """Its cache path; empty for a file without a name."""
        return self.location.cache_path if self.location is not None else ""

    def read(self, start: int, count: int) -> bytes:
        return os.pread(self.file.fileno(), count, start)

    def share(self, *, is_kept: bool = False) -> OpenFile:
        return attrs.evolve(self, file=reopen(self.file), is_kept=is_kept)

    def keep(self) -> OpenFile | None:
        """Open the file to be kept; ``None`` if it is not the verified file any more."""
        if self.location is not None and self.location.is_verified:
            return self.share(is_kept=True)
        return None

    def unchanged(self) -> bool:
        """Return whether the same file still lies at its location, if it has one."""
        try:
            location = self.location
            return location is None or Identity.of(location.status()) == location.identity
        except OSError:
            return False

    def mark_unverified(self) -> None:
        """Have the cached file verified before it is served again: it cannot be read."""
        if self.location is not None:
            self.location.mark_unverified()

    def close(self) -> None:
        """Close the file; further calls do nothing."""
        if not self.file.closed:
            self.file.close()
            if self.location is not None and not self.is_kept:
                self.location.release()


@attrs.define(eq=False, kw_only=True)
class CacheDir:
    """The files in the cache folder.

    :ivar writable: whether it took the last file
    :ivar writes: the threads of slow writes; `reads`: others, as a disk that writes slowly may read
    """

    folder: Path
    eviction_index: EvictionIndex
    quota: Quota
    _queue: DeletionQueue
    _usage_log: UsageLog
    _problems: Problems
    writes: InThread
    reads: InThread
    writable: bool = attrs.field(init=False, default=True)
    _partial: set[PartialFile] = attrs.field(init=False, factory=set)
    _scanned: Deferred[None] = attrs.field(init=False, factory=lambda: succeed(None))
    # Cached files that wait for their flush, and whether a thread flushes others.
    _unflushed: dict[str, Identity] = attrs.field(init=False, factory=dict)
    _flushing: bool = attrs.field(init=False, default=False)
    # Calls of :meth:`clear` under way.
    _clearing: int = attrs.field(init=False, default=0)

    @property
    def own(self) -> Path:
        return self.folder / layout.OWN_FOLDER

    def prepare(self) -> None:
        """Try the folder, which may be for reading only, scan it, and remove what a crash left."""
        try:
            self.own.mkdir(parents=True, exist_ok=True)
            atomic_files.remove_leftovers(self.own)
            layout.try_to_write(self.own, self.folder)
        except OSError as error:
            self.writable = False
            self._problems.note(
                ("disk", "start"),
                f"cache folder {self.folder} cannot be written: {error}",
                "cached files are served, and clients of others redirected",
                disk_remedy(error),
                LogLevel.critical,
            )
        if self.quota.capacity:
            scan = self._usage_log.scan(self.folder, self._queue)
            self._scanned = Deferred.fromCoroutine(scan).addCallback(self.quota.shrink)

    def close(self) -> Deferred[None]:
        """Remove partial files and write the usage log, in a thread: the disk may hang."""
        partial = list(self._partial)

        def unlink() -> None:
            for each in partial:
                each.unlink()

        ended: Deferred[None] = self.writes(unlink)
        if self.quota.capacity and self.eviction_index.is_complete:
            self.count_uses()
            ended.addCallback(lambda _: self._usage_log.save())
        return ended

    def count_uses(self) -> None:
        """Count what the response cache has served; write the usage log if that is due."""
        self.eviction_index.collect_uses()
        self._usage_log.save_if_due()

    def verified(self, reference: FileReference) -> VerifiedFile | None:
        verified = self.eviction_index.verified(reference.cache_path or "")
        return verified if verified is not None and verified.matches(reference) else None

    def open(
        self, reference: FileReference, *, fetched: bool = False, used: bool = True
    ) -> OpenFile | None:
        """
        Open a verified file.

        :param fetched: whether it was downloaded for this request
        :param used: whether this counts as a use
        """
        path, verified = reference.cache_path, self.verified(reference)
        if path is None or verified is None:
            return None
        full_path = self.folder / path
        try:
            file = layout.open_file(full_path)
        except OSError as error:
            self._note_unreadable(path, error)
            return None
        identity = verified.identity
        if Identity.of(os.fstat(file.fileno())) != identity:
            file.close()
            self.eviction_index.mark_unverified(path)
            return None
        if used:
            self.eviction_index.use(path)
        cached = Cached(self.eviction_index, path, str(full_path), identity)
        sha256 = verified.digests["sha256"]
        return OpenFile(file, identity.size, sha256, reference.has_digest, cached, fetched)

    def set_revalidated_at(self, reference: FileReference, now: float) -> None:
        """Note when the upstream had, or is taken to have had, the cached version of a file."""
        if reference.cache_path is not None and self.verified(reference) is not None:
            self.eviction_index.set_revalidated_at(reference.cache_path, now)

    def found(self, reference: FileReference) -> bool:
        """Whether an unverified file lies at the cache path of a reference."""
        path = reference.cache_path
        if path is None or not self.quota.capacity or self._clearing:
            return False
        if self.eviction_index.verified(path) is not None:
            return False
        try:
            status = layout.stat_cache_path(self.folder, path)
        except OSError as error:
            self._problems.note_disk(error, self.folder, UNREADABLE)
            return False
        return status is not None and stat.S_ISREG(status.st_mode)

    async def check(self, reference: FileReference) -> bool:
        """Read a found file, verify it or remove it; return whether it lies there verified."""
        path = reference.cache_path
        assert path is not None
        try:
            verified = await self.reads(lambda: check(self.folder / path, reference))
            if verified is None or self._clearing:
                return False
            if Identity.of(os.lstat(self.folder / path)) != verified.identity:
                return False
        except OSError as error:
            self._note_unreadable(path, error)
            return False
        if verified.matches(reference):
            self.eviction_index.add(path, verified.identity.size, verified)
            return True
        with suppress(OSError):
            if self._queue.remove(path, verified.identity):
                _log.warn("{path} is not what the index names: removed", path=path)
            self._queue.start()
        return False

    def _note_unreadable(self, path: str, error: OSError) -> None:
        """Note that a file cannot be opened; it counts as long as it may be there."""
        if layout.is_missing(error):
            self.eviction_index.remove(path)
            return
        if error.errno not in (errno.EMFILE, errno.ENFILE):  # these say nothing of the file
            self.eviction_index.mark_unverified(path)
        self._problems.note_disk(error, self.folder, UNREADABLE)

    def partial(
        self,
        reference: FileReference,
        *,
        cacheable: bool = True,
        prefetched: Callable[[], bool] = lambda: False,
    ) -> PartialFile:
        """
        Begin a file; raises an `OSError` if the disk does not take it.

        :param prefetched: tells whether no client waits for it
        """
        path = reference.cache_path
        if path is not None:
            layout.stat_cache_path(self.folder, path)
        self.own.mkdir(parents=True, exist_ok=True)  # it may have been emptied meanwhile
        reservation = self.quota.reserve(reference.size, prefetched)
        try:
            partial = PartialFile(self.own, reference, reservation)
        except OSError:
            reservation.release()
            raise
        self._partial.add(partial)
        if path is None:
            partial.unlink()
        if not (cacheable and self.quota.capacity):
            partial.cache_path = None
        return partial

    async def adopt(
        self,
        partial: PartialFile,
        reference: FileReference,
        validators: tuple[str, str] = ("", ""),
        now: float = 0.0,
    ) -> OpenFile | None:
        """
        Rename a finished file to its cache path; raises `Mismatch` for wrong bytes.

        :param validators: its entity tag and date for a revalidation; see :class:`VerifiedFile`
        :return: ``None`` once it is cached; if it may not be, an open file without a name
        """
        while (space := partial.flush()) is not None:
            await space
        compare(partial.digests, reference)
        digests = partial.digests.hex()
        descriptor = partial.file.fileno()
        if partial.cache_path is not None and not reference.has_digest:
            await self.writes(lambda: os.fsync(descriptor))
        path = partial.cache_path
        if path is None:  # a DELETE may have come meanwhile
            file, size, sha256 = reopen(partial.file), partial.digests.size, digests["sha256"]
            return OpenFile(file, size, sha256, reference.has_digest, fetched=True)
        self._usage_log.mark(path)
        self._rename(partial, path)
        self.writable = True
        # Asked of the open file: another program may have replaced it under its name already.
        identity = Identity.of(os.fstat(descriptor))
        partial.reservation.release()
        # A file with a digest is never revalidated.
        known = () if reference.has_digest else (*validators, now)
        url = digest_of_url(reference.url)
        verified = VerifiedFile(identity, digests, url, reference.listing_key, *known)
        prefetched = partial.reservation.prefetched()
        self.eviction_index.add(path, identity.size, verified, prefetched=prefetched, flushed=False)
        self._flush(path, identity)
        return None

    def _flush(self, path: str, identity: Identity) -> None:
        """Flush a cached file to disk, with those that come while a thread flushes others."""
        self._unflushed[path] = identity
        if not self._flushing:
            Deferred.fromCoroutine(self._flush_all()).addErrback(
                lambda failure: _log.failure("while files are flushed", failure=failure)
            )

    async def _flush_all(self) -> None:
        self._flushing = True
        try:
            while self._unflushed:
                batch, self._unflushed = self._unflushed, {}
                errors = await self._flush_batch(batch)
                for path, identity in batch.items():
                    if path in errors:
                        self._note_unflushed(path, identity, errors[path])
                    else:
                        self.eviction_index.set_flushed(path, identity)
        finally:
            self._flushing = False

    def _flush_batch(self, paths: Iterable[str]) -> Deferred[dict[str, OSError]]:
        return self.writes(lambda: flush_files(self.folder, paths))

    def _note_unflushed(self, path: str, identity: Identity, error: OSError) -> None:
        verified = self.eviction_index.verified(path)
        if verified is None or verified.identity != identity:
            return  # it was evicted or replaced meanwhile
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return  # no descriptor: it stays unverified in the usage log
        self.log_refusal(error)
        # The system may show bytes that never reach the disk, so that no check would notice.
        self.eviction_index.mark_unverified(path)
        with suppress(OSError):  # the log says so
            self._queue.remove(path, identity)
        self._queue.start()

    def discard(self, partial: PartialFile) -> None:
        partial.close()
        self._partial.discard(partial)

    def log_refusal(self, error: OSError) -> None:
        """Log that a file cannot be cached, unless the startup scan or the download does so."""
        if not isinstance(error, ScanRunning | TooLarge):
            self.writable = self.writable and isinstance(error, Full)
            self._problems.note_disk(error, self.folder, "new files are not cached")

    def _rename(self, partial: PartialFile, path: str) -> None:
        """Rename a file to its cache path; a cached file that is in the way is removed."""
        full_path = self.folder / path
        layout.stat_cache_path(self.folder, path)  # no symbolic link has come into the way
        try:
            full_path.parent.mkdir(parents=True, exist_ok=True)
            os.rename(partial.path, full_path)
        except OSError:
            # A folder may be gone again, or a file be where a folder has to be, or the reverse.
            for other in self.eviction_index:
                if path.startswith(f"{other}/") or other.startswith(f"{path}/"):
                    self._queue.remove(other)
            self._queue.start()
            with suppress(OSError):
                full_path.rmdir()
            full_path.parent.mkdir(parents=True, exist_ok=True)
            os.rename(partial.path, full_path)

    def delete(self, path: str | None) -> Removed:
        """Remove a file; a download of it is not cached. Raises an `OSError` if it stays."""
        if path is None or not layout.is_cache_path(path):
            return Removed()
        for partial in self._partial:
            if partial.cache_path == path:
                partial.cache_path = None
        self.eviction_index.mark_unverified(path)  # if it stays
        removed = Removed(int(path in self.eviction_index), self.eviction_index.size(path))
        self._queue.remove(path)
        self._queue.start()
        return removed

    async def delete_named(self, filenames: Collection[str]) -> Removed:
        """Remove the files with these names, decoded, of any host, once the scan has ended."""
        scanned: Deferred[None] = Deferred()
        self._scanned.addCallback(scanned.callback)
        await scanned
        removed = Removed()
        for path in self.eviction_index:
            if unquote(path.rpartition("/")[2]) in filenames:
                removed += self.delete(path)
        return removed

    async def clear(self) -> Removed:
        """Remove every file that lies there now; raises an `OSError` if one stays."""
        for partial in self._partial:
            partial.cache_path = None
        owned = frozenset(self.eviction_index)
        for path in owned:
            self.eviction_index.mark_unverified(path)
        self._queue.retry()
        self._clearing += 1
        removed, failures = Removed(), list[OSError]()
        try:
            scan = await self.writes(lambda: layout.scan(self.folder, owned))
            files: dict[str, Identity | None] = dict.fromkeys(owned)
            files |= {path: identity for path, identity, _ in scan.files}
            rest = iter(files.items())
            while (batch := list(islice(rest, BATCH))) or self._queue:
                for path, expected in batch:
                    # A downloaded file that is verified came after the call.
                    verified = self.eviction_index.verified(path)
                    if verified is None or not verified.downloaded:
                        try:
                            if self._queue.remove(path, expected) and expected is not None:
                                removed += Removed(1, expected.size)
                        except OSError as error:
                            failures.append(error)
                await self._queue.start()
        finally:
            self._clearing -= 1
        if failures:
            raise failures[0]
        return removed
