"""The cache folder: which of its files may be served, how a file gets there, and how it leaves.

A cached file is *unverified* (it was found, and was not compared with its page yet) or *verified*
(its identity, URL and digests are remembered, over a restart as well). Only verified files are
served; a file with another identity than the remembered one is unverified. A file without a digest
is verified by its size alone; its response says ``X-Verified: no``. A downloaded file is hashed
while it arrives, and flushed to disk before it gets its cache path; a found file is read once. A
file is removed by :meth:`CacheDir._remove` alone (see :mod:`proxpi.files.deletion_queue`). While
the folder is being *cleared*, found files are neither checked nor served.

All renames into and out of cache paths happen on the reactor's thread. The outcome of a thread
concerns the file with the identity that the thread saw; it is dropped where another file lies by
then. Partial files, the usage log and the lists lie in a folder of their own, ``.proxpi``.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import attrs
from msgspec.structs import replace
from twisted.internet.defer import Deferred, execute
from twisted.logger import Logger

from proxpi import atomic_files, metrics
from proxpi.files import layout
from proxpi.files.deletion_queue import BATCH, DeletionQueue
from proxpi.files.layout import Identity
from proxpi.files.open_file import KeptDescriptor, OpenFile
from proxpi.files.partial import Digests, PartialFile
from proxpi.files.quota import EvictionIndex, Full, Quota, ScanRunning, TooLarge
from proxpi.files.resolver import FileReference
from proxpi.files.startup_scan import StartupScan
from proxpi.files.throttled_log import STAYS, UNREAD, ThrottledLog
from proxpi.files.usage_log import UsageLog
from proxpi.files.verify import Checked, Mismatch, check, compare, digest_of_url

__all__ = ["CacheDir", "Checked", "Full", "Identity", "Mismatch", "OpenFile"]

_log = Logger(namespace="proxpi.files")


@attrs.define(eq=False)
class CacheDir:
    """The files in the cache folder.

    :ivar capacity: bytes that all files may have; 0 keeps none
    :ivar in_thread: runs a slow function in a thread; by default on the caller's
    :ivar seconds: a monotonic clock
    :ivar changed: is called with each cache path whose file has changed, or may have
    :ivar response_uses: gives the uses of files in the response cache since its last call, by
        cache path
    """

    folder: Path
    capacity: int
    in_thread: Callable[[Callable[[], Any]], Deferred[Any]] = execute
    seconds: Callable[[], float] = time.monotonic
    changed: Callable[[str], None] = lambda _: None
    response_uses: Callable[[], Iterable[tuple[str, int]]] = list
    _index: EvictionIndex = attrs.field(init=False, factory=EvictionIndex)
    _readers: Counter[str] = attrs.field(init=False, factory=Counter)
    _quota: Quota = attrs.field(init=False)
    _throttled: ThrottledLog = attrs.field(init=False)
    _queue: DeletionQueue = attrs.field(init=False)
    _usage_log: UsageLog = attrs.field(init=False)
    _scan: StartupScan = attrs.field(init=False)
    # Calls of :meth:`clear` under way.
    _clearing: int = attrs.field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self._throttled = ThrottledLog(self.folder, self.seconds)
        self._queue = DeletionQueue(self.folder, self.in_thread, self._throttled)
        self._quota = Quota(
            self.capacity, self._index, self._queue, self._readers, self._evict, self.count_uses
        )
        self._usage_log = UsageLog(self.own, self._index, self.in_thread, self.seconds)
        self._scan = StartupScan(
            self.folder,
            self._index,
            self._quota,
            self._queue,
            self._usage_log,
            self.in_thread,
            self._lost,
        )

    @property
    def own(self) -> Path:
        """The folder for what is proxpi's own."""
        return self.folder / layout.OWN_FOLDER

    @property
    def used(self) -> int:
        return self._quota.used

    def prepare(self) -> None:
        """Try the folder, which may be for reading only, scan it, and remove what a crash left."""
        try:
            self.own.mkdir(parents=True, exist_ok=True)
            atomic_files.remove_leftovers(self.own)
            layout.try_to_write(self.own, self.folder)
        except OSError as error:
            _log.critical(
                "{folder} cannot be written ({error}): {advice}; until then cached files are "
                "served, and new ones pass through",
                folder=self.folder,
                error=error,
                advice=layout.advice(error),
            )
        if self.capacity:
            self._scan.begin()

    def fits(self, size: int | None) -> bool:
        """Whether a file of this size may be kept."""
        return self._quota.fits(size)

    def open(self, reference: FileReference, *, fetched: bool = False) -> OpenFile | None:
        """Open a verified file; `fetched` is whether it was downloaded for this client."""
        place, checked = reference.cache_path, self.checked(reference)
        if place is None or checked is None:
            return None
        try:
            file = layout.open_file(self.folder / place)
        except OSError as error:
            self._missed(place, error)
            return None
        if Identity.of(os.fstat(file.fileno())) != checked.identity:
            file.close()
            self._mark_unverified(place)
            return None
        self.count(place)
        identity, sha256 = checked.identity, checked.digests["sha256"]
        copy = OpenFile(
            file, identity.size, sha256, self._readers, place, reference.has_digest, fetched
        )
        copy.identity = identity
        copy.mark_unverified = lambda: self._mark_unverified(place, identity)
        return copy

    def hold(self, copy: OpenFile) -> KeptDescriptor | None:
        """Keep the file of a copy open for more of them; ``None`` if it is not here any more."""
        checked = self._index.verified(copy.place)
        if checked is None or checked.identity != copy.identity:
            return None
        return KeptDescriptor.of(copy, str(self.folder / copy.place))

    def count(self, place: str, uses: int = 1) -> None:
        """Count uses of a file that is here."""
        self._index.use(place, uses)
        self._scan.changed(place)
        self._usage_log.changed()

    def count_uses(self) -> None:
        """Count the uses of files in the response cache; before each eviction, too."""
        for place, uses in self.response_uses():
            metrics.FILE_HITS.inc(uses)
            self.count(place, uses)

    def found(self, reference: FileReference) -> bool:
        """Whether a file lies here that has not been checked yet."""
        place = reference.cache_path
        if place is None or not self.capacity or self._clearing or self._index.verified(place):
            return False
        try:
            status = layout.look(self.folder, place)
        except OSError as error:
            self._throttled.say(error, UNREAD)
            return False
        return status is not None and stat.S_ISREG(status.st_mode)

    def check(self, reference: FileReference) -> Checked | OSError | None:
        """Give the digests of a found file, in a thread; ``None`` if it changed meanwhile."""
        assert reference.cache_path is not None
        try:
            return check(self.folder / reference.cache_path, reference)
        except OSError as error:
            return error

    def trust(self, reference: FileReference, checked: Checked | OSError | None) -> bool:
        """
        Take in the outcome of :meth:`check`: verify the file, or remove one with other bytes.

        :return: whether it is verified; not if another file lies there by now
        """
        place = reference.cache_path
        assert place is not None
        if isinstance(checked, OSError):
            self._missed(place, checked)
        if not isinstance(checked, Checked) or self._clearing:
            return False
        try:
            status = os.lstat(self.folder / place)
        except OSError as error:
            self._missed(place, error)
            return False
        if Identity.of(status) != checked.identity:
            return False
        if checked.suits(reference):
            self._keep(place, checked)
            return True
        with suppress(OSError):
            if self._remove(place, checked.identity):
                _log.warn("{place} is not what the index names: removed", place=place)
        return False

    def checked(self, reference: FileReference) -> Checked | None:
        """Give what is known of the cached file of a reference."""
        checked = self._index.verified(reference.cache_path)
        return checked if checked is not None and checked.suits(reference) else None

    def confirm(self, reference: FileReference, now: float) -> None:
        """Note when the upstream had, or is taken to have had, the cached version of a file."""
        if reference.cache_path is not None and (checked := self.checked(reference)) is not None:
            self._index.verify(reference.cache_path, replace(checked, confirmed_at=now))
            self._usage_log.changed()

    def partial(self, reference: FileReference, *, cacheable: bool = True) -> PartialFile:
        """Begin a file, which may be cached or not; raises an `OSError` if the disk does."""
        if reference.cache_path is not None:
            layout.look(self.folder, reference.cache_path)
        self.own.mkdir(parents=True, exist_ok=True)  # it may have been emptied meanwhile
        partial = PartialFile(self.own, Digests.of(reference.digest))
        self._quota.reserve(partial, reference, cacheable)
        if reference.cache_path is None:
            partial.unlink()
        return partial

    def complain(self, error: OSError) -> None:
        """Write to the log that a file cannot be kept: one line a minute."""
        if not isinstance(
            error, ScanRunning | TooLarge
        ):  # the startup scan, or the download, said so
            self._throttled.say(error)

    def end(self, partial: PartialFile) -> None:
        """Let go of a partial file, and of its bytes if it was not adopted."""
        partial.close()
        self._quota.release(partial)

    def close(self) -> Deferred[None]:
        """
        Remove partial files, and write down what is known, as the process ends.

        A disk that hangs holds up the Deferred alone.
        """
        unfinished = list(self._quota)

        def unlink() -> None:
            for partial in unfinished:
                partial.unlink()

        ended: Deferred[None] = self.in_thread(unlink)
        if self.capacity and self._quota.scanned:
            self.count_uses()
            ended.addCallback(lambda _: self._usage_log.finish())
        return ended

    def adopt(
        self,
        partial: PartialFile,
        reference: FileReference,
        etag: str = "",
        modified: str = "",
        now: float = 0.0,
    ) -> OpenFile | None:
        """
        Give a finished file its cache path, flushed to disk, if its bytes are right.

        :param etag: its validators, for a revalidation; see :class:`Checked`
        :return: ``None`` once it is cached; if it may not be, an open copy that has no name
        :raises Mismatch: if the bytes are wrong
        """
        digests = partial.finish()
        compare(partial.size, digests, reference)
        place, sha256 = reference.cache_path, digests["sha256"]
        if place is None or not self._quota[partial].cacheable:
            return OpenFile(
                partial.reopen(),
                partial.size,
                sha256,
                self._readers,
                "",
                reference.has_digest,
                True,
            )
        partial.sync()
        self._usage_log.mark(place)
        self._name(partial, place)
        # Asked of the open file: another program may have replaced it under its name already.
        identity = Identity.of(os.fstat(partial.fileno()))
        self._quota.release(partial)
        checked = Checked(identity, digests, digest_of_url(reference.url), reference.version)
        if reference.digest is None:
            checked = replace(checked, etag=etag, modified=modified, confirmed_at=now)
        self._keep(place, checked)
        return None

    async def forget_named(self, filenames: Collection[str]) -> None:
        """Remove the files with these names, decoded, from any host, once the scan has ended."""
        await self._scan.ended()
        for place in self._index:
            if unquote(place.rpartition("/")[2]) in filenames:
                self.forget(place)

    def forget(self, what: FileReference | str) -> None:
        """Remove a file; a download of it is sent, and not kept. Raises `OSError` if it stays."""
        place = what.cache_path if isinstance(what, FileReference) else what
        if place is None or not layout.is_cache_path(place):
            return
        self._quota.forbid_caching(place)
        self._mark_unverified(place)  # if it stays
        self._remove(place)
        self._queue.start()

    def clear(self) -> Deferred[None]:
        """Remove every file; give a Deferred of when all are gone, or of an `OSError`."""
        return Deferred.fromCoroutine(self._clear())

    async def _clear(self) -> None:
        self._quota.forbid_caching()
        owned = frozenset(self._index)
        for place in owned:
            self._mark_unverified(place)
        self._queue.retry()
        self._clearing += 1
        failures: list[OSError] = []
        try:
            scan = await self.in_thread(lambda: layout.survey(self.folder, owned))
            files: dict[str, Identity | None] = dict.fromkeys(owned)
            rest = iter((files | dict(scan.files)).items())
            while (batch := list(islice(rest, BATCH))) or self._queue:
                for place, expected in batch:
                    # A downloaded file that is verified came after the call.
                    if (checked := self._index.verified(place)) is None or not checked.downloaded:
                        try:
                            self._remove(place, expected)
                        except OSError as error:
                            failures.append(error)
                await self._queue.start()
        finally:
            self._clearing -= 1
        if failures:
            raise failures[0]

    def _mark_unverified(self, place: str, expected: Identity | None = None) -> None:
        """Have a file checked before it is served again, if it is the expected one."""
        checked = self._index.verified(place)
        if expected is None or (checked is not None and checked.identity == expected):
            self._index.verify(place, None)
            self.changed(place)

    def _keep(self, place: str, checked: Checked) -> None:
        if self._index.size(place) != checked.identity.size or place not in self._index:
            self._index.add(place, checked.identity.size)
        self._index.verify(place, checked)
        self._note(place)

    def _lost(self, place: str) -> None:
        self._index.drop(place)
        self._note(place)

    def _missed(self, place: str, error: OSError) -> None:
        """Take note that a file cannot be opened; it counts for as long as it may be there."""
        if layout.says_no_file(error):
            self._lost(place)
            return
        if error.errno not in (errno.EMFILE, errno.ENFILE):  # these say nothing of the file
            self._mark_unverified(place)
        self._throttled.say(error, UNREAD)

    def _note(self, place: str) -> None:
        self.changed(place)
        self._scan.changed(place)
        self._usage_log.changed()

    def _name(self, partial: PartialFile, place: str) -> None:
        """Give a file its name; what is in its way goes, if it is the cache's own."""
        path = self.folder / place
        layout.look(self.folder, place)  # no reference has come into the way
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.rename(partial.path, path)
        except OSError:
            # A folder may be gone again, or a file be where a folder has to be, or the reverse.
            for other in self._index:
                if place.startswith(f"{other}/") or other.startswith(f"{place}/"):
                    self._remove(other)
            self._queue.start()
            with suppress(OSError):
                path.rmdir()
            path.parent.mkdir(parents=True, exist_ok=True)
            os.rename(partial.path, path)

    def _evict(self, place: str) -> None:
        """Remove a file to make room."""
        self._index.age(place)
        metrics.EVICTED.inc(self._remove(place))

    def _remove(self, place: str, expected: Identity | None = None) -> bool:
        """
        Rename a cached file into the deletion queue, which has to be started.

        :param expected: the identity that the file must have; ``None``: any
        :return: true if the cache path is free now, false if it holds another file
        """
        try:
            gone = self._queue.take(place, expected)
        except OSError as error:
            self._throttled.say(error, STAYS)
            raise
        if gone:
            self._lost(place)
        else:
            self._mark_unverified(place)
        return gone
