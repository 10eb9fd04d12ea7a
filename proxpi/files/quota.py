"""The quota: cached, partial and queued files together never exceed the capacity.

A file is *admitted* if it is no larger than the capacity. Each partial file has a
:class:`Reservation` until it is cached or discarded: its bytes so far, or its whole size once index
and upstream state the same one. A reservation that needs more bytes than are free first evicts
cached files and waits until they are unlinked: they count until then, the reservation counts from
its beginning. If the files that may be evicted free too little, it is refused before a byte is
written and before anything is evicted.
"""

from __future__ import annotations

from contextlib import suppress

import attrs
from twisted.internet.defer import Deferred

from proxpi import metrics
from proxpi.files.deletion_queue import BATCH, DeletionQueue
from proxpi.files.eviction_index import EvictionIndex

#: Failed evictions after which a reservation is refused.
MAX_FAILED_EVICTIONS = 10


class Full(OSError):
    """The quota is exhausted: the files that may be evicted free too little."""

    def __str__(self) -> str:
        return "the quota is exhausted, and the files that may be evicted free too little"


class ScanRunning(Full):
    """The startup scan has not ended, so the free quota is unknown."""


class TooLarge(Full):
    """A file is larger than the capacity."""

    def __str__(self) -> str:
        return "it is larger than the cache"


@attrs.define(eq=False)
class Quota:
    """The quota of one cache folder.

    :ivar capacity: bytes that all files may have
    """

    capacity: int
    index: EvictionIndex
    _queue: DeletionQueue
    reservations: set[Reservation] = attrs.field(init=False, factory=set)

    @property
    def used(self) -> int:
        """Bytes of all files: cached, partial, queued and stuck ones."""
        partial = sum(each.size for each in self.reservations)
        return self.index.used + partial + self._queue.used

    @property
    def excess(self) -> int:
        """Bytes to evict, besides those that are about to be unlinked; negative: free bytes."""
        return self.used - self._queue.pending - self.capacity

    def admits(self, size: int | None) -> bool:
        """Whether a file of so many bytes may be cached; ``None``: an unknown number."""
        return self.capacity > 0 and (size or 0) <= self.capacity

    def reserve(self, stated: int | None) -> Reservation:
        """Begin the reservation of a partial file; `stated`: its size by the index."""
        reservation = Reservation(self, stated, stated)
        self.reservations.add(reservation)
        return reservation

    def make_space(self) -> Deferred[None] | None:
        """
        Evict what exceeds the capacity.

        :return: ``None`` if nothing does; else a Deferred that fires when to repeat the call
        :raises Full: if the files that may be evicted free too little
        """
        while self.used > self.capacity:
            try:
                self._evict()
            finally:
                progress = self._queue.start()
            if self._queue:
                return progress
        return None

    def shrink(self, _: object = None) -> None:
        """Evict what exceeds the capacity, while nothing waits for it."""
        with suppress(Full):  # what is left is in use, or cannot be removed
            progress = self.make_space()
            if progress is not None:
                progress.addCallback(self.shrink)

    def _evict(self) -> None:
        """Queue some of the files that exceed the capacity."""
        failed: set[str] = set()
        while (excess := self.excess) > 0:
            self.index.collect_uses()
            victims = self.index.victims(excess, failed, BATCH)
            if victims is None or len(failed) >= MAX_FAILED_EVICTIONS:
                raise Full
            for path in victims:
                try:
                    self.index.raise_inflation(path)
                    metrics.EVICTED.inc(self._queue.remove(path))
                except OSError:
                    failed.add(path)
                    self.index.use(path, 0)  # the next eviction tries others first
                    if len(failed) == MAX_FAILED_EVICTIONS:
                        break
            if self._queue:
                return


@attrs.define(eq=False)
class Reservation:
    """The bytes of the capacity that a partial file has.

    :ivar stated: its size by the index
    :ivar expected: the same, or else its size by the first response of the upstream
    """

    _quota: Quota
    stated: int | None
    expected: int | None
    size: int = 0

    def announce(self, size: int) -> None:
        """
        Note the size of the file by the upstream.

        If the index states the same, all of it is reserved. One of them alone may be wrong, and
        evicts nothing in advance.

        :raises Full: if the file may not become so large
        """
        if not self._quota.admits(size):
            raise TooLarge
        if self.stated == size:
            self.grow(size)
        elif self.expected is None:
            self.expected = size

    def grow(self, size: int) -> Deferred[None] | None:
        """
        Reserve the bytes of a file of this size.

        A file that exceeds its expected size, or has none, evicts others up to half of the
        capacity; beyond that it gets free bytes only.

        :return: ``None`` once they are free; else a Deferred that fires when to repeat the call
        :raises Full: if the file may not become so large
        """
        quota, before = self._quota, self.size
        if size > before:
            if size > quota.capacity:
                raise TooLarge
            if not quota.index.is_complete:
                raise ScanRunning
            oversized = size > (self.expected or 0) and 2 * size > quota.capacity
            if oversized and quota.excess + size - before > 0:
                raise Full
            self.size = size
        try:
            return quota.make_space()
        except Full:
            self.size = before
            raise

    def release(self) -> None:
        """End the reservation: its file is cached or discarded."""
        self._quota.reservations.discard(self)
