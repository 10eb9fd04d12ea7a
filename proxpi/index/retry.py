"""Deadlines of clients that wait for an index, and retries with backoff.

Theory of operation
-------------------
A request upstream goes on whether or not a client waits for it. A client with a stale page to fall
back on waits :data:`PATIENCE` seconds, or :data:`TRIAL_PATIENCE` for the trial of a circuit breaker
(:mod:`proxpi.index.breaker`): the outage is known then. A client without one waits longer, and as
long as bytes keep coming; meanwhile an index that failed is asked again.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from itertools import count
from typing import TypeVar

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from proxpi.index.breaker import Breakers
from proxpi.single_flight import Flight, Late
from proxpi.upstream.body import SLOWEST
from proxpi.upstream.errors import Offline, UpstreamFailed

#: Seconds that a client waits for a revalidation before it gets the stale page.
PATIENCE = 5.0
#: The same for the trial of a circuit breaker, by which most upstreams that are back have answered.
TRIAL_PATIENCE = 0.5
#: The same without a stale page, while no bytes come.
COLD_PATIENCE = 10.0
#: Bytes in so many seconds by which an answer counts as coming; its head is worth as much.
STEP = int(SLOWEST * PATIENCE)
#: Seconds of pause between tries, before they are varied by half.
PAUSES = (0.25, 0.75, 2.0)
#: Tries without a stale page, with one, and for the trial of a circuit breaker.
COLD_TRIES = 4
STALE_TRIES = 2
TRIAL_TRIES = 1

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
    flight: Flight[T], clock: IReactorTime, progress: Progress, patience: float | None
) -> T:
    """
    Wait for a flight.

    :param patience: seconds after its start; ``None`` if there is nothing to fall back on
    :raises Late: if it takes too long
    """
    if patience is not None:
        return await flight.wait(flight.started + patience)
    begun = clock.seconds()
    for window in count(1):
        before = progress.received
        try:
            return await flight.wait(begun + window * PATIENCE, final=False)
        except Late:
            waited = window * PATIENCE
            if waited >= COLD_PATIENCE and progress.received - before < STEP:
                flight.be_late()
                raise
    raise AssertionError("there is always another window")


async def persistently(
    ask: Callable[[], Awaitable[T]], breakers: Breakers, clock: IReactorTime, tries: int
) -> T:
    """
    Ask, and ask again after a pause while waiting may help, as long as a client would wait.

    The ``Retry-After`` of an index is waited for if it fits into that time.

    :param tries: how often to ask at most
    :raises UpstreamFailed: as the last try did
    """
    latest = clock.seconds() + COLD_PATIENCE
    pause = 0.0
    for tried in range(1, tries + 1):
        if (limited := breakers.rate_limit) is not None:
            pause = max(pause, limited.retry_after or 0.0)
            if clock.seconds() + pause > latest:
                raise limited
        if pause:
            await deferLater(clock, pause)
        try:
            return await ask()
        except UpstreamFailed as error:
            if tried == tries or not error.temporary or isinstance(error, Offline):
                raise
            # Varied, to keep many proxies from knocking in step.
            pause = max(PAUSES[tried - 1] * random.uniform(0.5, 1.5), error.retry_after or 0.0)
            if clock.seconds() + pause > latest:
                raise
    raise AssertionError("some try was the last")
