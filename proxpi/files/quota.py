"""The eviction index: the cached files with their bytes, their uses, and which is evicted first.

A cached file is *unverified* (nothing is known of its bytes) or *verified* (see
:class:`~proxpi.files.verify.Checked`). The index touches no file. It is written as one JSON
document, so that recency, frequency and verifications outlast the process.

The policy is GreedyDual-Size-Frequency (GDSF): the file with the lowest *rank* is evicted first,
and rank = level + min(uses, 4) * cost / size. The *level* is the rank of the last evicted file; so
it rises, and unused files age. The cost is that of a miss: the bytes of the file and one request.
``benchmarks/eviction.py`` compares this with other policies.

The quota: cached, partial and queued files together never exceed the capacity.

Each partial file has a *reservation* until it is cached or given up: its bytes so far, or its whole
size once index and upstream state the same one. It is *cacheable*, or *not cacheable* (it was
deleted during its download). A write that needs more bytes than are free evicts cached files first,
and waits until they are unlinked; if that cannot free enough, the write is refused before a byte of
it is written.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from contextlib import suppress
from itertools import count

import attrs
import msgspec
from twisted.internet.defer import Deferred

from proxpi.files.deletion_queue import BATCH, DeletionQueue
from proxpi.files.partial import PartialFile
from proxpi.files.resolver import FileReference
from proxpi.files.verify import Checked

#: The version of the document.
VERSION = 3
#: Bytes that cost as much as the request for them: a tenth of a second at 30 MB/s.
REQUEST = 3_000_000
#: Uses beyond which a file is worth no more.
MOST_USES = 4
#: Bytes that a file takes at least, as file systems have it.
LEAST = 1024

_Row = tuple[str, int, int, float, Checked | None]


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    """The index as it is written; of the files, the least recently used first."""

    version: int
    level: float
    files: list[_Row]


def worth(uses: int, size: int) -> float:
    """Give the worth of a file of so many bytes, for each of its bytes."""
    return min(max(uses, 1), MOST_USES) * (1 / max(size, LEAST) + 1 / REQUEST)


@attrs.define(eq=False)
class Kept:
    """A cached file: its bytes, its uses since it came, and when it was last used (`turn`)."""

    size: int
    uses: int
    rank: float
    turn: int
    verified: Checked | None = None


@attrs.define(eq=False)
class EvictionIndex:
    """The cached files, by cache path, and the bytes of all of them."""

    used: int = attrs.field(init=False, default=0)
    _kept: dict[str, Kept] = attrs.field(init=False, factory=dict)
    _level: float = attrs.field(init=False, default=0.0)
    _turns: Iterator[int] = attrs.field(init=False, factory=count)
    # Entries whose file has another turn by now, or is gone, are passed over.
    _ranked: list[tuple[float, int, str]] = attrs.field(init=False, factory=list)

    def __contains__(self, place: str) -> bool:
        return place in self._kept

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._kept))

    def __len__(self) -> int:
        return len(self._kept)

    def size(self, place: str) -> int:
        kept = self._kept.get(place)
        return kept.size if kept is not None else 0

    def verified(self, place: str | None) -> Checked | None:
        """Give what is known of a file's bytes, now or from an earlier process."""
        kept = self._kept.get(place or "")
        return kept.verified if kept is not None else None

    def verify(self, place: str, verified: Checked | None) -> None:
        """Note what is known of a file's bytes; ``None``: nothing any more."""
        kept = self._kept.get(place)
        if kept is not None:
            kept.verified = verified

    def add(self, place: str, size: int) -> None:
        """Take in a file that has not been used yet; it replaces one of the same place."""
        self.drop(place)
        self._put(place, Kept(size, 0, self._level + worth(0, size), next(self._turns)))

    def use(self, place: str, count: int = 1) -> None:
        """Count uses of a file, if it is kept."""
        kept = self._kept.get(place)
        if kept is None:
            return
        kept.uses += count
        kept.rank = self._level + worth(kept.uses, kept.size)
        kept.turn = next(self._turns)
        self._rank(place, kept)

    def drop(self, place: str) -> None:
        """Forget a file, if it is kept."""
        kept = self._kept.pop(place, None)
        if kept is not None:
            self.used -= kept.size

    def age(self, place: str) -> None:
        """Raise the level to the rank of an evicted file."""
        self._level = max(self._level, self._kept[place].rank)

    def choose(self, excess: int, busy: Container[str], most: int | None = None) -> list[str]:
        """
        Choose what to evict to free `excess` bytes, the lowest ranks first.

        :param busy: cache paths that have to stay
        :param most: how many are chosen at most
        """
        chosen: list[str] = []
        passed = []
        while excess > 0 and self._ranked and len(chosen) != most:
            entry = heapq.heappop(self._ranked)
            _, turn, place = entry
            kept = self._kept.get(place)
            if kept is None or kept.turn != turn:
                continue
            passed.append(entry)
            if place not in busy:
                chosen.append(place)
                excess -= kept.size
        for entry in passed:
            heapq.heappush(self._ranked, entry)
        return chosen

    def fill(self, found: Iterable[tuple[str, int]]) -> None:
        """Take in files of which only the order of their last use is known, the last one last."""
        files = list(found)
        # The level rises from one to the next, by what is the worth of one over all of them.
        values = [worth(0, size) for _, size in files]
        step = sum(values) / max(len(files), 1) ** 2
        ranks = (self._level + value + number * step for number, value in enumerate(values))
        self._put_all(
            (place, Kept(size, 0, rank, turn))
            for (place, size), rank, turn in zip(files, ranks, self._turns, strict=False)
        )

    def dump(self) -> bytes:
        """Write down what is known."""
        rows = sorted(self._kept.items(), key=lambda item: item[1].turn)
        files = [(place, kept.size, kept.uses, kept.rank, kept.verified) for place, kept in rows]
        return msgspec.json.encode(_Document(VERSION, self._level, files))

    def load(self, document: bytes) -> None:
        """Take in what was written down, or nothing of it: `ValueError` if it is damaged."""
        read = msgspec.json.decode(document, type=_Document)
        if read.version != VERSION or not math.isfinite(read.level):
            raise ValueError("another version, or no numbers")
        for _, size, uses, rank, verified in read.files:
            if size < 0 or uses < 0 or not math.isfinite(rank):
                raise ValueError("a number that cannot be")
            if verified is not None and "sha256" not in verified.digests:
                raise ValueError("a digest is missing")
        self._level = read.level
        self._put_all(
            (place, Kept(size, uses, rank, turn, verified))
            for (place, size, uses, rank, verified), turn in zip(
                read.files, self._turns, strict=False
            )
        )

    def _put(self, place: str, kept: Kept) -> None:
        self._kept[place] = kept
        self.used += kept.size
        self._rank(place, kept)

    def _put_all(self, files: Iterable[tuple[str, Kept]]) -> None:
        """Take in files in one go: at a start there may be tens of thousands."""
        kept = dict(files)
        for place in self._kept.keys() & kept.keys():
            self.drop(place)
        self._kept |= kept
        self.used += sum(file.size for file in kept.values())
        self._rank_all()

    def _rank(self, place: str, kept: Kept) -> None:
        if len(self._ranked) > 2 * len(self._kept) + 1000:
            self._rank_all()
        else:
            heapq.heappush(self._ranked, (kept.rank, kept.turn, place))

    def _rank_all(self) -> None:
        self._ranked = [(kept.rank, kept.turn, place) for place, kept in self._kept.items()]
        heapq.heapify(self._ranked)


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

    reference: FileReference
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
    _reservations: dict[PartialFile, Reservation] = attrs.field(init=False, factory=dict)

    @property
    def used(self) -> int:
        """Bytes of all files: cached, partial, queued and stuck ones."""
        partial = sum(each.size for each in self._reservations.values())
        return self._index.used + partial + self._queue.used

    def fits(self, size: int | None) -> bool:
        """Whether a file of so many bytes may be kept."""
        return (size or 0) <= self.capacity and self.capacity > 0

    def reserve(
        self, partial: PartialFile, reference: FileReference, cacheable: bool = True
    ) -> None:
        """Begin the reservation of a partial file."""
        cacheable = cacheable and self.capacity > 0
        self._reservations[partial] = Reservation(reference, reference.size, cacheable=cacheable)
        partial.announce = lambda size: self._announce(partial, size)
        partial.room = lambda size: self._grow(partial, size)

    def __getitem__(self, partial: PartialFile) -> Reservation:
        return self._reservations[partial]

    def __iter__(self) -> Iterator[PartialFile]:
        return iter(list(self._reservations))

    def release(self, partial: PartialFile) -> None:
        """End the reservation of a partial file."""
        self._reservations.pop(partial, None)

    def forbid_caching(self, place: str | None = None) -> None:
        """Do not cache the partial file of a cache path; ``None``: of any."""
        for each in self._reservations.values():
            if place in (None, each.reference.cache_path):
                each.cacheable = False

    def _announce(self, partial: PartialFile, size: int) -> None:
        """
        Take note of the length that an upstream announces.

        If the index states the same, room for all of it is made before it arrives. One of them
        alone may be wrong, and evicts nothing in advance.
        """
        reservation = self._reservations[partial]
        if not self.fits(size):
            raise TooLarge
        if reservation.reference.size == size:
            self._grow(partial, size)
        elif reservation.expected is None:
            reservation.expected = size

    def _grow(self, partial: PartialFile, size: int) -> Deferred[None] | None:
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
