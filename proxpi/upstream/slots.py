"""How many may ask one server at a time: as many as there are slots; the others wait in a row."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredSemaphore

from proxpi.simple import urls
from proxpi.upstream.errors import UpstreamFailed

Origin = tuple[str, str, int]
#: What waits for a slot; a request that is cancelled here has not been sent.
Queue = set[Deferred[Any]]


@attrs.define(eq=False)
class Slots:
    """Slots of each origin.

    :ivar number: how many each of them has
    """

    number: int
    _taken: dict[Origin, DeferredSemaphore] = attrs.field(init=False, factory=dict)

    @asynccontextmanager
    async def slot(
        self, url: str, within: Slots | None = None, queue: Queue | None = None
    ) -> AsyncIterator[Slot]:
        """
        Wait for a slot of a URL's origin, first come first served, and hold it.

        :param within: a narrower limit, of which a slot is held as well
        :param queue: has what is waited for, while it is
        :raises UpstreamFailed: if it is not the URL of a server
        """
        slot = Slot(
            (self,) if within is None else (within, self), set() if queue is None else queue
        )
        try:
            await slot.move(url)
            yield slot
        finally:
            slot.leave()

    def full(self, url: str) -> bool:
        """Tell whether one more would have to wait for a slot of a URL's origin."""
        taken = self._taken.get(urls.origin(url))
        return taken is not None and taken.tokens == 0

    async def take(self, origin: Origin, queue: Queue) -> None:
        """Wait for a slot; whoever is cancelled leaves the row."""
        acquired = self._taken.setdefault(origin, DeferredSemaphore(self.number)).acquire()
        queue.add(acquired)
        try:
            await acquired
        finally:
            queue.remove(acquired)

    def give_back(self, origin: Origin) -> None:
        """Let go of a slot, for whoever has waited longest."""
        taken = self._taken[origin]
        taken.release()
        # Whoever got it may be through with it already.
        if taken.tokens == taken.limit and self._taken.get(origin) is taken:
            del self._taken[origin]


@attrs.define(eq=False)
class Slot:
    """A slot of each of some limits that is held, of one origin after the other."""

    _limits: tuple[Slots, ...]
    _queue: Queue
    _origin: Origin | None = attrs.field(init=False, default=None)
    _held: list[tuple[Slots, Origin]] = attrs.field(init=False, factory=list)

    async def move(self, url: str) -> None:
        """
        Change to a slot of a URL's origin, and hold none of another one meanwhile.

        :raises UpstreamFailed: if it is not the URL of a server
        """
        try:
            origin = urls.origin(url)
        except ValueError:
            cause = "only http and https are supported"
            raise UpstreamFailed(url, cause, temporary=False) from None
        if origin != self._origin:
            self.leave()
            for limit in self._limits:
                await limit.take(origin, self._queue)
                self._held.append((limit, origin))
            self._origin = origin

    def leave_after(self, ended: Deferred[object]) -> None:
        """Let go of it once something has come to its end; that is not waited for."""
        held, self._held, self._origin = self._held, [], None
        ended.addBoth(lambda _: _give_back(held))

    def leave(self) -> None:
        """Let go of it."""
        held, self._held, self._origin = self._held, [], None
        _give_back(held)


def _give_back(held: list[tuple[Slots, Origin]]) -> None:
    for limit, origin in held:
        limit.give_back(origin)
