"""The quota: cached, partial and queued files together never exceed the capacity.

Each partial file has a *reservation* until it is cached or given up: its bytes so far, or its whole
size once index and upstream state the same one. It is *cacheable*, or *not cacheable* (it was
deleted during its download). A write that needs more bytes than are free evicts cached files first,
and waits until they are unlinked; if that cannot free enough, the write is refused before a byte of
it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress

import attrs
from twisted.internet.defer import Deferred

from proxpi.files.deletion_queue import BATCH, DeletionQueue
from proxpi.files.eviction_index import EvictionIndex
from proxpi.files.link import Link
from proxpi.files.partial import Partial

#: Failed evictions after which a write is refused.
MAX_FAILED_EVICTIONS = 10


class Full(OSError):
    """The quota is exhausted: the files that may be evicted free too little."""

    def __str__(self) -> str:
        return "there is no room in the cache that could be made"


class ScanRunning(Full):
    """The startup scan has not ended, so the free quota is unknown."""


class TooLarge(Full):
    """A file is larger than the capacity."""

    def __str__(self) -> str:
        return "it is larger than the cache"


@attrs.define
class Reservation:
    """The reservation of a partial file.

    :ivar size: bytes that count
    :ivar expected: its size by the index, or else by the first response of the upstream
    :ivar cacheable: false once the file was deleted during its download
    """

    link: Link
    expected: int | None
    size: int = 0
    cacheable: bool = True


@attrs.define(eq=False)
class Quota:
    """The quota of one cache folder.

    An evicted file counts until it is unlinked, and the write that evicts it counts from the
    beginning; as long as both exceed the capacity, nothing is written.

    :ivar capacity: bytes that all files may have
    :ivar busy: cache paths of files that are being sent
    :ivar evict: renames a cached file into the queue; it may raise an `OSError`
    :ivar count_uses: counts the uses of files in the response cache; called before an eviction
    :ivar scanned: whether the startup scan has ended; until then no file may grow
    """

    capacity: int
    _index: EvictionIndex
    _queue: DeletionQueue
    busy: Collection[str]
    evict: Callable[[str], object]
    count_uses: Callable[[], object] = lambda: None
    scanned: bool = True
    _reservations: dict[Partial, Reservation] = attrs.field(init=False, factory=dict)

    @property
    def used(self) -> int:
        """Bytes of all files: cached, partial, queued and stuck ones."""
        partial = sum(each.size for each in self._reservations.values())
        return self._index.used + partial + self._queue.used

    def fits(self, size: int | None) -> bool:
        """Whether a file of so many bytes may be kept."""
        return (size or 0) <= self.capacity and self.capacity > 0

    def reserve(self, partial: Partial, link: Link, cacheable: bool = True) -> None:
        """Begin the reservation of a partial file."""
        cacheable = cacheable and self.capacity > 0
        self._reservations[partial] = Reservation(link, link.size, cacheable=cacheable)
        partial.announce = lambda size: self._announce(partial, size)
        partial.room = lambda size: self._grow(partial, size)

    def __getitem__(self, partial: Partial) -> Reservation:
        return self._reservations[partial]

    def __iter__(self) -> Iterator[Partial]:
        return iter(list(self._reservations))

    def release(self, partial: Partial) -> None:
        """End the reservation of a partial file."""
        self._reservations.pop(partial, None)

    def forbid_caching(self, place: str | None = None) -> None:
        """Do not cache the partial file of a cache path; ``None``: of any."""
        for each in self._reservations.values():
            if place in (None, each.link.place):
                each.cacheable = False

    def _announce(self, partial: Partial, size: int) -> None:
        """
        Take note of the length that an upstream announces.

        If the index states the same, room for all of it is made before it arrives. One of them
        alone may be wrong, and evicts nothing in advance.
        """
        reservation = self._reservations[partial]
        if not self.fits(size):
            raise TooLarge
        if reservation.link.size == size:
            self._grow(partial, size)
        elif reservation.expected is None:
            reservation.expected = size

    def _grow(self, partial: Partial, size: int) -> Deferred[None] | None:
        """
        Make room for a partial file to become so large.

        :return: ``None`` if there is room; else a Deferred of when the caller has to ask again
        :raises Full: if there is none, and none can be made
        """
        reservation = self._reservations.get(partial)
        if reservation is None:
            return None
        before = reservation.size
        if size > before:
            if size > self.capacity:
                raise TooLarge
            if not self.scanned:
                raise ScanRunning
            oversized = size > (reservation.expected or 0) and 2 * size > self.capacity
            # A file that exceeds its expected size, or has none, evicts others up to half of the
            # capacity; beyond that it gets free space only.
            if oversized and self._excess + size - before > 0:
                raise Full
            reservation.size = size
        try:
            return self.make_room()
        except Full:
            reservation.size = before
            raise

    def make_room(self) -> Deferred[None] | None:
        """
        Evict what exceeds the capacity.

        :return: ``None`` if nothing does; else a Deferred of when the caller has to ask again
        :raises Full: if not enough can be evicted
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
        with suppress(Full):  # all that is left is being sent, or cannot be removed
            room = self.make_room()
            if room is not None:
                room.addCallback(self.shrink)

    @property
    def _excess(self) -> int:
        """Bytes to evict, besides those that are about to be unlinked."""
        return self.used - self._queue.pending - self.capacity

    def _evict(self) -> None:
        """Evict some files of those that exceed the capacity; the queue has to be started."""
        failed: set[str] = set()
        while (excess := self._excess) > 0:
            staying = failed.union(self.busy)
            evictable = self._index.used - sum(map(self._index.size, staying))
            if excess > evictable or len(failed) == MAX_FAILED_EVICTIONS:
                raise Full  # before anything is evicted for nothing
            self.count_uses()
            for place in self._index.choose(excess, staying, BATCH):
                try:
                    self.evict(place)
                except OSError:
                    failed.add(place)
                    self._index.use(place, 0)  # the next eviction tries others first
                    if len(failed) == MAX_FAILED_EVICTIONS:
                        break
            if self._queue:
                return
