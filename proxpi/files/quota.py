"""The quota: cached files, partial files and reserved files together never exceed the capacity.

A partial file has a reservation from its beginning to its end. It is *counted* (its bytes, or those
that are announced, count), *too large* (nothing of it counts, and it is not kept), *unwanted* (it
was deleted while it was downloaded: it counts, and is not kept), or *settled* (it is a cached file
now, and counts as one). A write that needs more bytes than are free evicts cached files first, and
waits until they are unlinked; if that cannot free enough, the write is refused before a byte of it
is written.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress

import attrs
from twisted.internet.defer import Deferred

from proxpi.files.deletion_queue import SOME, DeletionQueue
from proxpi.files.eviction_index import EvictionIndex
from proxpi.files.link import Link
from proxpi.files.partial import Partial

#: Files that could not be evicted, after which a write is refused.
IN_VAIN = 10


class Full(OSError):
    """The quota is exhausted: all that could be evicted is being sent, or is not enough."""

    def __str__(self) -> str:
        return "there is no room in the cache that could be made"


class Unknown(Full):
    """The startup scan has not ended, so nobody knows yet what is free."""


class TooLarge(Exception):
    """A file is larger than the capacity."""


@attrs.define
class Reservation:
    """The reservation of a partial file.

    :ivar place: its cache path, if it has one
    :ivar stated: its size by the index, if the index states one
    :ivar told: the same, or else its length by the first response of the upstream
    :ivar size: bytes that count; ``None`` if it is settled or too large
    :ivar wanted: whether it was not deleted meanwhile
    """

    place: str | None
    stated: int | None
    told: int | None
    size: int | None
    wanted: bool = True

    @property
    def kept(self) -> bool:
        """Whether the file is to be cached once it is whole."""
        return self.place is not None and self.size is not None and self.wanted


@attrs.define(eq=False)
class Quota:
    """The quota of one cache folder.

    An evicted file counts until it is unlinked, and the write that evicts it counts from the
    beginning; as long as both exceed the capacity, nothing is written.

    :ivar capacity: bytes that all files may have
    :ivar busy: cache paths of files that are being sent
    :ivar queue: the files that are to be unlinked
    :ivar evict: removes a cached file; it may raise an `OSError`
    :ivar count_uses: counts the uses of files in the response cache; called before an eviction
    :ivar known: whether the startup scan has ended; until then no file may grow
    """

    capacity: int
    stock: EvictionIndex
    busy: Collection[str]
    queue: DeletionQueue
    evict: Callable[[str], object]
    count_uses: Callable[[], object] = lambda: None
    known: bool = True
    _claims: dict[Partial, Reservation] = attrs.field(init=False, factory=dict)
    _unfinished: int = attrs.field(init=False, default=0)
    # What could not be evicted; it is tried again once nothing else is left.
    _aside: set[str] = attrs.field(init=False, factory=set)
    _waiting: list[Deferred[None]] = attrs.field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        self.queue.progress = self._look

    @property
    def used(self) -> int:
        """Bytes of all files: cached, partial and reserved ones."""
        return self.stock.used + self._unfinished + self.queue.used

    def fits(self, size: int | None) -> bool:
        """Whether a file of so many bytes may be kept."""
        return (size or 0) <= self.capacity and self.capacity > 0

    def enter(self, partial: Partial, link: Link) -> None:
        """Let a partial file begin, and count it from now on unless it is too large."""
        size = 0 if self.fits(link.size) else None
        self._claims[partial] = Reservation(link.place, link.size, link.size, size)
        partial.room = lambda size: self.grow(partial, size)

    def __getitem__(self, partial: Partial) -> Reservation:
        return self._claims[partial]

    def __iter__(self) -> Iterator[Partial]:
        return iter(list(self._claims))

    def leave(self, partial: Partial) -> None:
        """Count a partial file no longer."""
        claim = self._claims.pop(partial, None)
        self._unfinished -= (claim.size or 0) if claim is not None else 0
        self._look()

    def settle(self, partial: Partial) -> None:
        """Count a partial file among the finished ones from now on."""
        claim = self._claims[partial]
        self._unfinished -= claim.size or 0
        claim.size = None

    def unwanted(self, place: str | None = None) -> None:
        """Let what is on its way to a place, or to any, not be kept."""
        for claim in self._claims.values():
            if place in (None, claim.place):
                claim.wanted = False

    def reserve(self, partial: Partial, size: int) -> None:
        """
        Take note of the length that an upstream announces.

        If the index says the same, room for all of it is made before it comes. One of them alone
        may be wrong, and nothing is to go for bytes that never come.

        :raises Full: if there is none
        """
        claim = self._claims[partial]
        if claim.stated == size:
            self.grow(partial, size)
        elif claim.told is None:
            claim.told = size

    def grow(self, partial: Partial, size: int) -> Deferred[None] | None:
        """
        Make room for a partial file to become so large.

        :return: ``None`` if there is; else a Deferred of when it is time to ask once more
        :raises Full: if there is none, and none can be made
        """
        claim = self._claims.get(partial)
        if claim is None or claim.size is None:
            return None
        before = claim.size
        if size > before:
            if not self.known:
                raise Unknown
            more = size - before
            if self._excess + more > 0 and size > (claim.told or 0) and 2 * size > self.capacity:
                # It may be endless: it drives out half of the rest at most.
                raise Full
            self._claim(claim, size)
        try:
            return self.make()
        except Full:
            self._claim(claim, before)
            raise

    def make(self) -> Deferred[None] | None:
        """
        Make room until there is no more in the folder than there may be.

        :return: ``None`` if that is so; else a Deferred of when it is time to ask once more
        :raises Full: if it cannot be
        """
        while self.used > self.capacity:
            self._evict()
            if self.queue:
                self._waiting.append(Deferred())
                return self._waiting[-1]
        return None

    def shrink(self, _: object = None) -> None:
        """Have as much removed as is too much, without anyone's waiting for it."""
        with suppress(Full):  # all that is left is being sent, or cannot be removed
            room = self.make()
            if room is not None:
                room.addCallback(self.shrink)

    @property
    def _excess(self) -> int:
        """Bytes to evict, besides those that are about to be unlinked."""
        return self.used - self.queue.leaving - self.capacity

    def _claim(self, claim: Reservation, size: int) -> None:
        self._unfinished += size - (claim.size or 0)
        claim.size = size

    def _evict(self) -> None:
        """Evict what exceeds the capacity; some files at a time, as each is renamed here."""
        failures = 0
        try:
            while (excess := self._excess) > 0:
                staying = self._aside.union(self.busy)
                if excess > self.stock.used - sum(map(self.stock.size, staying)):
                    self._aside.clear()
                    raise Full  # and nothing is evicted in vain
                self.count_uses()
                for place in self.stock.choose(excess, staying, SOME):
                    try:
                        self.evict(place)
                    except OSError:
                        self._aside.add(place)
                        failures += 1
                        if failures == IN_VAIN:
                            raise Full
                if self.queue:
                    break
        finally:
            self.queue.start()

    def _look(self) -> None:
        """Let waiting writes ask once more: bytes are free, or waiting frees none."""
        if self.used <= self.capacity or not self.queue:
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                waiter.callback(None)
