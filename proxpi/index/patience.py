"""How long a client waits for what an index has to say, and how often that is asked.

Theory of operation
-------------------
Work goes on whether or not anybody waits for it; here is decided what those do who wait. Who has
something to fall back on waits a little, and takes that. Who has not waits longer, and as long as
bytes keep coming; meanwhile an index that failed is asked again.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from itertools import count
from typing import TypeVar

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from proxpi.flights import Flight, Late
from proxpi.index.health import Health
from proxpi.upstream.body import SLOWEST
from proxpi.upstream.errors import Offline, UpstreamFailed

#: Seconds that a client waits for a refresh before it gets what was there.
PATIENCE = 5.0
#: The same while nothing was there, and nothing comes.
COLD_PATIENCE = 10.0
#: Bytes in so many seconds by which an answer counts as coming; its head is worth as much.
STEP = int(SLOWEST * PATIENCE)
#: Seconds of pause between tries, before they are varied by half.
PAUSES = (0.25, 0.75, 2.0)
#: Tries for something that is missing altogether, and for something that is merely out of date.
COLD_TRIES = 4
STALE_TRIES = 2

T = TypeVar("T")


@attrs.define(eq=False)
class Progress:
    """How much has come of what is asked for.

    :ivar received: bytes, ever
    """

    received: int = 0
    _begun: int = 0

    def begin(self) -> None:
        """Note that asking begins anew."""
        self._begun = self.received

    def heard(self, size: int) -> None:
        """Note that bytes came, or the head of an answer, which has none."""
        self.received += size or STEP

    @property
    def moves(self) -> bool:
        """Whether anything came since asking began."""
        return self.received - self._begun >= STEP


async def outcome(
    flight: Flight[T], clock: IReactorTime, progress: Progress, *, fallback: bool
) -> T:
    """
    Wait for a flight.

    :param fallback: whether there is something to fall back on
    :raises Late: if it takes too long
    """
    if fallback:
        return await flight.wait(flight.started + PATIENCE)
    begun = clock.seconds()
    for window in count(1):
        before = progress.received
        try:
            return await flight.wait(begun + window * PATIENCE)
        except Late:
            waited = window * PATIENCE
            if waited >= COLD_PATIENCE and progress.received - before < STEP:
                raise
    raise AssertionError("there is always another window")


async def persistently(
    ask: Callable[[], Awaitable[T]], health: Health, clock: IReactorTime, tries: int
) -> T:
    """
    Ask, and ask again after a pause while waiting may help, as long as a client would wait.

    An index that asked to be left alone is, if that fits into the time.

    :param tries: how often to ask at most
    :raises UpstreamFailed: as the last try did
    """
    latest = clock.seconds() + COLD_PATIENCE
    pause = 0.0
    for tried in range(1, tries + 1):
        if (resting := health.resting) is not None:
            pause = max(pause, resting.retry_after or 0.0)
            if clock.seconds() + pause > latest:
                raise resting
        if pause:
            await deferLater(clock, pause)
        try:
            return await ask()
        except UpstreamFailed as error:
            if tried == tries or not error.temporary or isinstance(error, Offline):
                raise
            health.heed(error)
            # Varied, to keep many proxies from knocking in step.
            pause = PAUSES[tried - 1] * random.uniform(0.5, 1.5)
            if clock.seconds() + pause > latest:
                raise
    raise AssertionError("some try was the last")
