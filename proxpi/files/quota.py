"""The quota: cached, partial and queued files together never exceed the capacity.

A file is *admitted* if it is no larger than the capacity. Each partial file has a
:class:`Reservation` until it is cached or discarded: its bytes so far, or its whole size once index
and upstream state the same one. A reservation that needs more bytes than are free first evicts
cached files and waits until they are unlinked. If the files that may be evicted free too little, it
is refused before a byte is written and before anything is evicted.

*Prefetched* files, cached and partial ones together, have at most a tenth of the capacity. Their
reservations evict no other than prefetched files. So that a full cache leaves space for them, an
eviction for clients frees this tenth as well, while no file is prefetched.

An unlink may take long, so a thread does it; by then another file may lie at the cache path. Hence
a file is *cached* (under its cache path), then *queued* (renamed, on the reactor's thread, to a
reserved name in the same folder), then *unlinked*. One that cannot be unlinked is *stuck* until it
is tried again. Where the folder takes no further name, the reactor's thread unlinks the file.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path

import attrs
from twisted.internet.defer import Deferred, DeferredLock

from proxpi import metrics
from proxpi.files import layout
from proxpi.files.eviction_index import EvictionIndex
from proxpi.files.layout import RESERVED
from proxpi.local_files import Identity
from proxpi.problems import Problems
from proxpi.single_flight import InThread

#: Files that are renamed, and unlinked, at once.
BATCH = 100
#: Failed evictions after which a reservation is refused.
MAX_FAILED_EVICTIONS = 10
#: The part of the capacity that prefetched files have at most, as a divisor.
PREFETCHED_PART = 10
#: Bytes that a prefetched file may have whose size the index does not state: it was not considered.
UNSTATED = 16 * 1024**2
#: Evictions that are remembered.
REMEMBERED = 10
#: The consequence of a file that cannot be removed.
STAYS = "the file stays, and counts"
#: What the system says where a folder takes no further name, or no longer one.
_NO_NEW_NAME = (errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG)


class Full(OSError):
    def __str__(self) -> str:
        return "the quota is exhausted, and the files that may be evicted free too little"


class ScanRunning(Full):
    """The startup scan has not ended, so the free quota is unknown."""


class TooLarge(Full):
    def __str__(self) -> str:
        return "it is larger than the cache"


@attrs.define(eq=False)
class DeletionQueue:
    """The queued and the stuck files of one cache folder."""

    folder: Path
    _eviction_index: EvictionIndex
    _problems: Problems
    _in_thread: InThread
    # Bytes by reserved name.
    _queued: dict[str, int] = attrs.field(init=False, factory=dict)
    _stuck: dict[str, int] = attrs.field(init=False, factory=dict)
    _lock: DeferredLock = attrs.field(init=False, factory=DeferredLock)

    def __bool__(self) -> bool:
        return bool(self._queued)

    @property
    def pending(self) -> int:
        """Bytes of the queued files."""
        return sum(self._queued.values())

    @property
    def used(self) -> int:
        """Bytes of the queued and the stuck files."""
        return self.pending + sum(self._stuck.values())

    def remove(self, path: str, expected: Identity | None = None) -> bool:
        """
        Rename a cached file; the next :meth:`start` unlinks it.

        :param expected: the identity that the file must have; ``None``: any
        :return: true if the cache path is free now, false if it holds another file
        :raises OSError: if the file stays; the log says so
        """
        name = os.path.join(self.folder, path)
        reserved = os.path.join(os.path.dirname(name), RESERVED + secrets.token_hex(8))
        try:
            status = layout.stat_cache_path(self.folder, path)
            if status is not None and not stat.S_ISDIR(status.st_mode):
                if expected not in (None, Identity.of(status)):
                    self._eviction_index.mark_unverified(path)
                    return False
                try:
                    os.rename(name, reserved)
                    self.add(reserved, status.st_size)
                except OSError as error:
                    if error.errno not in _NO_NEW_NAME:
                        raise
                    os.unlink(name)  # on this thread no other file can come in between
        except OSError as error:
            if not layout.is_missing(error):
                self._problems.note_disk(error, self.folder, STAYS)
                raise
        self._eviction_index.remove(path)
        return True

    def add(self, reserved: str, size: int) -> None:
        self._queued[reserved] = size

    def start(self) -> Deferred[None]:
        """Unlink the queued files in a thread; fires after the next batch of :data:`BATCH`.

        Cancelling that Deferred stops no unlink.
        """
        progress: Deferred[None] = Deferred()
        self._lock.run(self._unlink_batch).chainDeferred(progress)
        return progress

    async def _unlink_batch(self) -> None:
        if batch := list(islice(self._queued, BATCH)):
            errors = await self._in_thread(lambda: self._unlink(batch))
            for reserved in batch:
                size = self._queued.pop(reserved)
                if reserved in errors:
                    self._stuck[reserved] = size
                    self._problems.note_disk(errors[reserved], self.folder, STAYS)
            if self._queued and not self._lock.waiting:
                self.start()

    def retry(self) -> None:
        """Queue the stuck files again."""
        self._queued |= self._stuck
        self._stuck.clear()

    def _unlink(self, batch: list[str]) -> dict[str, OSError]:
        """Unlink files and the folders that held nothing else; return the errors by file."""
        errors = {}
        for reserved in batch:
            try:
                with suppress(FileNotFoundError):
                    os.unlink(reserved)
            except OSError as error:
                errors[reserved] = error
                continue
            folder = Path(reserved).parent
            with suppress(OSError):  # the first one that holds another file stays
                while folder != self.folder and folder.parent != self.folder:
                    folder.rmdir()
                    folder = folder.parent
        return errors


@attrs.frozen
class Evicted:
    """An eviction: the cache path, the bytes, and when, in seconds since the epoch."""

    path: str
    size: int
    at: float


@attrs.define(eq=False)
class Quota:
    """The quota of one cache folder.

    :ivar capacity: bytes that all files may have
    :ivar prefetches: whether files are prefetched
    :ivar last_evicted: the last evictions, the latest first
    """

    capacity: int
    eviction_index: EvictionIndex
    _queue: DeletionQueue
    _prefetches: bool = False
    reservations: set[Reservation] = attrs.field(init=False, factory=set)
    last_evicted: deque[Evicted] = attrs.field(init=False, factory=lambda: deque((), REMEMBERED))

    @property
    def used(self) -> int:
        """Bytes of all files: cached, partial, queued and stuck ones."""
        partial_files = sum(each.size for each in self.reservations)
        return self.eviction_index.used + partial_files + self._queue.used

    @property
    def excess(self) -> int:
        """Bytes to evict, besides those that are about to be unlinked; negative: free bytes."""
        return self.used - self._queue.pending - self.capacity

    def admits(self, size: int | None) -> bool:
        """Whether a file may be cached; `size`: ``None`` if it is unknown."""
        return self.capacity > 0 and (size or 0) <= self.capacity

    @property
    def prefetch_capacity(self) -> int:
        """Bytes that the prefetched files may have."""
        return self.capacity // PREFETCHED_PART

    @property
    def prefetched(self) -> int:
        """Bytes of the prefetched files: cached and partial ones."""
        partial_files = sum(each.size for each in self.reservations if each.prefetched())
        return self.eviction_index.prefetched + partial_files

    def admits_prefetched(self, size: int) -> bool:
        """
        Whether files may be prefetched: they may replace the prefetched files, and no other.

        :param size: bytes of all that are prefetched at a time, as far as they are known
        """
        free_or_prefetched = self.prefetched - self.excess
        most = min(self.prefetch_capacity, free_or_prefetched)
        return self.eviction_index.is_complete and self.capacity > 0 and size <= most

    def reserve(
        self, stated: int | None, prefetched: Callable[[], bool] = lambda: False
    ) -> Reservation:
        """Begin the reservation of a partial file; `stated`: its size by the index."""
        reservation = Reservation(self, stated, stated, prefetched)
        self.reservations.add(reservation)
        return reservation

    def make_space(self, *, prefetched: bool = False) -> Deferred[None] | None:
        """
        Evict what exceeds the capacity; raises :class:`Full` if that frees too little.

        :param prefetched: evict prefetched files alone, down to their part of the capacity
        :return: ``None`` if nothing does; else a Deferred that fires when to repeat the call
        """
        while self.used > self.capacity or self._excess_for(prefetched) > 0:
            try:
                self._evict(prefetched)
            finally:
                progress = self._queue.start()
            if self._queue:
                return progress
        return None

    def shrink(self, _: object = None) -> None:
        """Evict what exceeds the capacity, while nothing waits for it."""
        with suppress(Full):  # what is left is in use, or cannot be removed
            progress = self.make_space() or self.make_space(prefetched=True)
            if progress is not None:
                progress.addCallback(self.shrink)

    def _excess_for(self, prefetched: bool) -> int:
        """Bytes to evict for a file, depending on whether it is prefetched."""
        if not prefetched:
            return self.excess
        return max(self.excess, self.prefetched - self.prefetch_capacity)

    @property
    def _spare(self) -> int:
        """Bytes to evict besides the excess, so that files may be prefetched later."""
        return self.prefetch_capacity if self._prefetches and not self.prefetched else 0

    def _evict(self, prefetched: bool) -> None:
        failed: set[str] = set()
        while (excess := self._excess_for(prefetched)) > 0:
            self.eviction_index.collect_uses()
            choose = partial(
                self.eviction_index.victims, staying=failed, limit=BATCH, prefetched=prefetched
            )
            # A file is not refused for lack of the spare bytes.
            victims = choose(excess + self._spare) or choose(excess)
            if victims is None or len(failed) >= MAX_FAILED_EVICTIONS:
                raise Full
            for path in victims:
                try:
                    self.eviction_index.raise_inflation(path)
                    size = self.eviction_index.size(path)
                    if self._queue.remove(path):
                        metrics.EVICTED.inc()
                        self.last_evicted.appendleft(
                            Evicted(path, size, self.eviction_index.wall())
                        )
                except OSError:
                    failed.add(path)
                    self.eviction_index.use(path, 0)  # the next eviction tries others first
                    if len(failed) == MAX_FAILED_EVICTIONS:
                        break
            if self._queue:
                return


@attrs.define(eq=False)
class Reservation:
    """The bytes of the capacity that a partial file has.

    :ivar stated: its size by the index
    :ivar expected: the same, or else its size by the first response of the upstream
    :ivar prefetched: tells whether no client waits for the file
    """

    _quota: Quota
    stated: int | None
    expected: int | None
    prefetched: Callable[[], bool]
    size: int = 0

    def announce(self, size: int) -> None:
        """Note the size by the upstream; raises :class:`Full` if the file may not become so large.

        If the index states the same, all of it is reserved. One of them alone may be wrong, and
        evicts nothing in advance; a prefetched file is then at most :data:`UNSTATED` bytes long.
        """
        if not self._quota.admits(size):
            raise TooLarge
        if self.stated is None and size > UNSTATED and self.prefetched():
            raise Full
        if self.stated == size:
            self.grow(size)
        elif self.expected is None:
            self.expected = size

    def grow(self, size: int) -> Deferred[None] | None:
        """Reserve the bytes of a file of this size; returns and raises as `make_space`.

        A file beyond its expected size evicts others up to half of the capacity.
        """
        quota, before = self._quota, self.size
        if size > before:
            if size > quota.capacity:
                raise TooLarge
            if not quota.eviction_index.is_complete:
                raise ScanRunning
            oversized = size > (self.expected or 0) and 2 * size > quota.capacity
            if oversized and quota.excess + size - before > 0:
                raise Full
            self.size = size
        try:
            return quota.make_space(prefetched=self.prefetched())
        except Full:
            self.size = before
            raise

    def release(self) -> None:
        self._quota.reservations.discard(self)
