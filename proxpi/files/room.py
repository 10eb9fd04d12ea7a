"""Room in the cache: what finished and unfinished files take of it together, and who may grow."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import attrs

from proxpi.files.link import Link
from proxpi.files.partial import Partial
from proxpi.files.stock import Stock


class Full(OSError):
    """
    There is no room: all that could make it is in use, or the file is too large for it.

    It is also raised as long as a large folder has not been looked at.
    """

    def __str__(self) -> str:
        return "there is no room in the cache that could be made"


class TooLarge(Exception):
    """A file is larger than all that may be kept."""


@attrs.define
class Claim:
    """What a partial file takes of the room.

    :ivar place: where it is to lie, if it can
    :ivar told: bytes that it will have, if that is known
    :ivar size: bytes that are counted for it; ``None`` if it is not to be kept
    :ivar wanted: whether it may be kept, as far as anyone said meanwhile
    """

    place: str | None
    told: int | None
    size: int | None
    wanted: bool = True


@attrs.define(eq=False)
class Room:
    """The room of one cache folder.

    :ivar capacity: bytes of files that there may be
    :ivar busy: places of files that must not be removed now
    :ivar evict: removes a file, and drops it from the stock
    :ivar known: whether it is known how much there is; as long as it is not, nothing may grow
    """

    capacity: int
    stock: Stock
    busy: Collection[str]
    evict: Callable[[str], None]
    known: bool = True
    _claims: dict[Partial, Claim] = attrs.field(init=False, factory=dict)
    _unfinished: int = attrs.field(init=False, default=0)

    @property
    def used(self) -> int:
        """Bytes of all files, finished or not."""
        return self.stock.used + self._unfinished

    def fits(self, size: int | None) -> bool:
        """Whether a file of so many bytes may be kept."""
        return (size or 0) <= self.capacity and self.capacity > 0

    def enter(self, partial: Partial, link: Link) -> None:
        """Let a partial file begin, and count it from now on if it can be kept."""
        kept = link.place is not None and self.fits(link.size)
        self._claims[partial] = Claim(link.place, link.size, 0 if kept else None)
        partial.room = lambda size: self.grow(partial, size)

    def __getitem__(self, partial: Partial) -> Claim:
        return self._claims[partial]

    def __iter__(self) -> Iterator[Partial]:
        return iter(list(self._claims))

    def leave(self, partial: Partial) -> None:
        """Count a partial file no longer."""
        claim = self._claims.pop(partial, None)
        self._unfinished -= (claim.size or 0) if claim is not None else 0

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
        Make room for all of a file whose length is known.

        :raises Full: if there is none
        """
        self._claims[partial].told = size
        self.grow(partial, size)

    def grow(self, partial: Partial, size: int) -> None:
        """
        Make room for a partial file to become so large.

        :raises Full: if there is none
        :raises OSError: if what should go cannot be removed
        """
        claim = self._claims.get(partial)
        if claim is None or claim.size is None or size <= claim.size:
            return
        if not self.known:
            raise Full
        more = size - claim.size
        excess = self.used + more - self.capacity
        if excess > 0:
            # What nobody told the length of may be endless: it drives out half of the rest at most.
            if claim.told is None and 2 * size > self.capacity:
                raise Full
            self._make_room(excess)
        claim.size = size
        self._unfinished += more

    def _make_room(self, excess: int) -> None:
        if excess > self.stock.used - sum(map(self.stock.size, self.busy)):
            raise Full  # and nothing goes in vain
        for place in self.stock.choose(excess, self.busy):
            self.evict(place)
