"""Deadlines of clients that wait for an index, and retries with backoff.

Theory of operation
-------------------
A request upstream goes on whether or not a client waits for it. A client with a stale page to fall
back on waits :data:`PATIENCE` seconds, or :data:`TRIAL_PATIENCE` for the trial of a circuit breaker
(:mod:`proxpi.index.breaker`): the outage is known then. A client without one waits longer, and as
long as bytes keep coming; meanwhile an index that failed is asked again.

Revalidation of pages and of the project list: one flight for all clients that wait.

Theory of operation
-------------------
An :class:`Entry` is one generation of a page or of the list. A flight asks those indexes whose
stored of it is stale, each with the validators it gave; what they confirm is fresh again, and what
they change replaces the old.

A client with a stale page to fall back on waits for the flight a few seconds at most, and one
without it waits a few more, or as long as bytes keep coming. The flight goes on without them. Its
outcome updates the circuit breakers of each index (:mod:`proxpi.index.breaker`): while one is open,
a client with a stale page gets that at once, and the index is not asked.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import count
from typing import Any, Generic, Literal, TypeVar

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from proxpi.index.breaker import Breakers
from proxpi.index.client import IndexClient, IndexResponse, StoredResponse
from proxpi.index.representations import Lost
from proxpi.single_flight import Flight, Flights, Late
from proxpi.upstream.connections import Queue
from proxpi.upstream.errors import Offline, UpstreamFailed, all_settled
from proxpi.upstream.response import MIN_RATE

#: Seconds that a client waits for a revalidation before it gets the stale page.
PATIENCE = 5.0
#: The same for the trial of a circuit breaker, by which most upstreams that are back have answered.
TRIAL_PATIENCE = 0.5
#: The same without a stale page, while no bytes come.
COLD_PATIENCE = 10.0
#: Bytes in so many seconds by which an answer counts as coming; its head is worth as much.
STEP = int(MIN_RATE * PATIENCE)
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


Status = Literal["HIT", "MISS", "REVALIDATED", "STALE"]
#: Whom to ask: those whose response is stale, or all.
Ask = Literal["stale", "all"]

_log = Logger(namespace="proxpi.index")


@attrs.define(eq=False)
class Entry:
    """One generation of a page, or of the project list.

    :ivar name: the project; ``""`` is the list
    :ivar responses: what each index said last, in order of precedence
    :ivar refreshes: the flights that bring it up to date
    :ivar asks: the flights to each index, which refreshes share
    :ivar queue: the requests to indexes that wait for a slot; when all clients that wait have
        left, they are cancelled
    :ivar failure: why the last refresh failed, if it did
    :ivar asked: the indexes that have not answered yet
    :ivar progress: how much of the answers has come
    :ivar lock: is held while what is kept changes
    :ivar forced: whether a forced refresh (``DELETE``) is outstanding: breakers are ignored until
        one request has ended
    """

    name: str
    responses: list[StoredResponse | None]
    refreshes: Flights[Ask, Status]
    asks: Flights[IndexClient, tuple[IndexClient, IndexResponse[Any]]]
    queue: Queue
    failure: UpstreamFailed | None = None
    asked: list[IndexClient] = attrs.field(factory=list)
    progress: Progress = attrs.field(factory=Progress)
    lock: DeferredLock = attrs.field(factory=DeferredLock)
    forced: bool = False

    @property
    def what(self) -> str:
        """What it is, for the log."""
        return f"page of {self.name}" if self.name else "project list"

    @property
    def present(self) -> bool:
        """Whether any index has the project, or a list."""
        return any(stored is not None and stored.present for stored in self.responses)

    @property
    def usable(self) -> bool:
        """Whether there is a page, and no index that has never said anything of it."""
        return self.present and None not in self.responses


def refreshes(clock: IReactorTime) -> tuple[Flights[Ask, Status], Queue]:
    """Give the flights of an entry, and the queue of its requests, which ends with them."""
    queue = Queue()

    def abandon() -> None:
        if queue:
            # What waits for a slot ends; what an index is asked for already goes on.
            for ask in flights:
                flights.forget(ask)
            for waiting in list(queue):
                waiting.cancel()

    flights: Flights[Ask, Status] = Flights(clock, abandon)
    return flights, queue


def invalidated(responses: Sequence[StoredResponse | None]) -> list[StoredResponse | None]:
    """Give what indexes said as it is after a DELETE, whose sender may mistrust validators too."""
    return [stored and stored.invalidate() for stored in responses]


E = TypeVar("E", bound=Entry)


@attrs.define(eq=False)
class Revalidation(Generic[E]):
    """Revalidates cache entries, as many at once as are asked for.

    :param ask_index: asks an index for its page, given its last response
    :param take: takes over what indexes said
    """

    _sources: Sequence[IndexClient]
    _clock: IReactorTime
    _ask_index: Callable[[IndexClient, E, StoredResponse | None], Awaitable[IndexResponse[Any]]]
    _take: Callable[[E, Mapping[IndexClient, IndexResponse[Any]]], Awaitable[None]]

    def remaining(self, entry: E) -> float:
        """Seconds for which a page stays fresh."""
        responses = zip(self._sources, entry.responses, strict=True)
        return min(source.remaining(stored) for source, stored in responses)

    def blocked(self, entry: E) -> UpstreamFailed | None:
        """Give the breaker error for which the stale entry is served at once, if it is usable."""
        if entry.forced or not entry.usable:
            return None
        errors = [source.breakers.refusal(entry.name) for source, _ in self._stale(entry)]
        return next(iter(errors), None) if all(errors) else None

    async def revalidate(self, entry: E, ask: Ask) -> Status:
        """
        Revalidate an entry, as far as that can be had in time.

        :return: how: ``STALE`` if it is as it was
        :raises UpstreamFailed: if there is nothing to fall back on
        :raises Lost: if an index confirmed a page that is not there any more
        """
        if ask == "stale" and self.blocked(entry):
            return "STALE"
        patience = self._patience(entry, ask)
        if patience == TRIAL_PATIENCE and not entry.progress.moves:
            # The request that is under way hangs; if it is answered yet, that counts.
            entry.refreshes.forget(ask)
            for source in entry.asked:
                entry.asks.forget(source)
        flight = entry.refreshes.join(ask, lambda: self._refresh(entry, ask))
        try:
            return await outcome(flight, self._clock, entry.progress, patience)
        except (CancelledError, Lost):
            raise
        except Late:
            error = self._note_late(flight, entry, ask, patience)
            if not entry.usable:
                raise error from None
            return "STALE"
        except Exception as error:
            if not entry.usable:
                raise
            if isinstance(error, OSError):
                _log.error("{what} cannot be written: {error}", what=entry.what, error=error)
            elif not isinstance(error, UpstreamFailed):
                _log.failure("{what}: an error of proxpi's own", what=entry.what)
            return "STALE"

    def _patience(self, entry: E, ask: Ask) -> float | None:
        """Give the seconds that a client waits for a flight; see :func:`outcome`."""
        if not entry.usable:
            return None
        stale = self._stale(entry) if ask == "stale" and not entry.forced else ()
        trial = any(source.breakers.half_open(entry.name) for source, _ in stale)
        return TRIAL_PATIENCE if trial else PATIENCE

    def _stale(self, entry: E) -> list[tuple[IndexClient, StoredResponse | None]]:
        """Give the indexes whose response is stale, with that response."""
        responses = zip(self._sources, entry.responses, strict=True)
        return [(source, stored) for source, stored in responses if source.remaining(stored) <= 0]

    def _note_late(
        self, flight: Flight[Status], entry: E, ask: Ask, patience: float | None
    ) -> UpstreamFailed:
        """Let a flight go on by itself; unless bytes come, later requests do not join it."""
        error = self._sources[0].timeout_error(entry.name, flight.started)
        if entry.progress.moves:
            return error
        trial = patience == TRIAL_PATIENCE
        if not trial:
            entry.refreshes.forget(ask, flight)
        for source in entry.asked:
            # Beside a trial, another index may be asked that has not been silent for long.
            if not trial or source.breakers.refusal(entry.name):
                entry.asks.forget(source)
                error = source.timeout_error(entry.name, flight.started)
                self._note_failure(entry, source, error, flight.started)
        return error

    def _note_failure(
        self, entry: E, source: IndexClient, error: UpstreamFailed, since: float
    ) -> None:
        stored = entry.responses[self._sources.index(source)]
        if isinstance(error, Offline) or (stored is not None and stored.requested_at > since):
            return  # what was asked for later has been answered well
        entry.forced = False
        if not source.breakers.is_failing(entry.name):
            _log.warn("{what}: {error}", what=entry.what, name=entry.name, error=error.copy())
        source.breakers.failed(entry.name, error, since)

    async def _refresh(self, entry: E, ask: Ask) -> Status:
        """Ask those indexes that are to be asked, and make of it what is wanted."""
        entry.progress.begin()
        every = zip(self._sources, entry.responses, strict=True)
        answers = await all_settled(
            self._answer(entry, source, stored, ask)
            for source, stored in (every if ask == "all" else self._stale(entry))
        )
        failures = [answer for answer in answers if isinstance(answer, UpstreamFailed)]
        said = dict(answer for answer in answers if not isinstance(answer, UpstreamFailed))
        entry.forced = False
        if said:
            await self._take(entry, said)
        entry.failure = failures[0].copy() if failures else None
        if failures:
            raise failures[0]
        return "MISS" if any(answer.content for answer in said.values()) else "REVALIDATED"

    async def _answer(
        self, entry: E, source: IndexClient, stored: StoredResponse | None, ask: Ask
    ) -> tuple[IndexClient, IndexResponse[Any]]:
        """Give what an index says; refreshes that ask it at the same time share the answer."""
        return await entry.asks.join(source, lambda: self._ask(entry, source, stored, ask)).wait()

    async def _ask(
        self, entry: E, source: IndexClient, stored: StoredResponse | None, ask: Ask
    ) -> tuple[IndexClient, IndexResponse[Any]]:
        """Ask one index, unless its breaker is open and there is a stale page to fall back on."""
        tries = STALE_TRIES if entry.usable else COLD_TRIES
        if entry.usable and not entry.forced:
            # A stale page is no help to a client that wants a file that it does not list.
            page = entry.name if ask == "stale" else None
            if source.breakers.admit(page):
                tries = TRIAL_TRIES

        known = stored

        async def ask_once() -> IndexResponse[Any]:
            nonlocal known
            since = self._clock.seconds()
            try:
                return await self._ask_index(source, entry, known)
            except UpstreamFailed as error:
                self._note_failure(entry, source, error, since)
                # Some servers fail because of the validators: the next try is without them.
                known = known and attrs.evolve(known, invalidated=True)
                raise

        asking = Deferred.fromCoroutine(persistently(ask_once, source.breakers, self._clock, tries))
        if tries == TRIAL_TRIES and source in entry.asked:
            # The older request may be slow. Of those that follow it, few may hold connections.
            self._clock.callLater(PATIENCE, _end_unless, entry.progress, asking)
        entry.asked.append(source)
        began = self._clock.seconds()
        try:
            said = await asking
        except CancelledError:
            raise source.timeout_error(entry.name, began) from None
        finally:
            entry.asked.remove(source)
        source.breakers.succeeded(entry.name)
        return source, said


def _end_unless(moving: Progress, asking: Deferred[IndexResponse[Any]]) -> None:
    if not moving.moves:
        asking.cancel()
