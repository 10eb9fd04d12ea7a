"""Files on their way out: gone for those who ask, and counted until the disk has let go of them.

They are removed in a thread, some at a time: a cache may have to let go of very many for one.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, succeed

from proxpi.files import folder as folders
from proxpi.files.stock import Kept

#: Files that are chosen, and removed, in one go.
SOME = 500


@attrs.define(eq=False)
class Leaving:
    """The files that leave one cache folder, by place.

    :ivar in_thread: runs a function that takes a while
    :ivar stays: is told of a file that could not be removed, and why
    :ivar went: is told that some were tried, and how many of them are gone
    :ivar used: bytes of all of them
    """

    folder: Path
    in_thread: Callable[[Callable[[], Any]], Deferred[Any]]
    stays: Callable[[str, Kept, OSError], None]
    went: Callable[[int], None]
    used: int = attrs.field(init=False, default=0)
    _files: dict[str, Kept] = attrs.field(init=False, factory=dict)
    _under_way: bool = attrs.field(init=False, default=False)
    _ended: list[Deferred[None]] = attrs.field(init=False, factory=list)

    def __contains__(self, place: str) -> bool:
        return place in self._files

    def __len__(self) -> int:
        return len(self._files)

    def add(self, place: str, kept: Kept) -> None:
        """Let a file go; :meth:`start` has to be called."""
        self.stop(place)
        self._files[place] = kept
        self.used += kept.size

    def stop(self, place: str) -> None:
        """Let go of it no more, if that was to be: there is another one in its place."""
        kept = self._files.pop(place, None)
        if kept is not None:
            self.used -= kept.size

    def start(self) -> None:
        """Have those removed that are to go."""
        if self._under_way:
            return
        some = list(islice(self._files.items(), SOME))
        if not some:
            ended, self._ended = self._ended, []
            for waiter in ended:
                waiter.callback(None)
            return
        self._under_way = True
        self.in_thread(lambda: self._remove(some)).addCallback(self._tried, some)

    def end(self) -> Deferred[None]:
        """Give a Deferred of when none is left."""
        if not self._files:
            return succeed(None)
        self._ended.append(Deferred())
        return self._ended[-1]

    def _remove(self, some: list[tuple[str, Kept]]) -> dict[str, OSError]:
        """Remove files, in a thread; give those that stay."""
        stay = {}
        for place, kept in some:
            if self._files.get(place) is kept:  # it may have come anew
                try:
                    folders.remove(self.folder, place)
                except OSError as error:
                    stay[place] = error
        return stay

    def _tried(self, stay: dict[str, OSError], some: list[tuple[str, Kept]]) -> None:
        self._under_way = False
        for place, kept in some:
            if self._files.get(place) is kept:
                self.stop(place)
                if place in stay:
                    self.stays(place, kept, stay[place])
        self.went(len(some) - len(stay))
        self.start()
