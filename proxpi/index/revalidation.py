"""Revalidation of pages and of the project list: one single flight for all clients that wait.

An :class:`Entry` has the last response of each index; its state is that of the responses of some
*sources* (:mod:`proxpi.index.sources`). It is *present* or *absent* (404), and independently
*fresh*, *stale* (older than the time to live of an index) or *invalidated* (by ``DELETE``; stale
as well, and revalidated without validators). :func:`decide` tells what the next request gets: the
entry as it is, or the result of a flight of the entry, which it starts or joins. A flight sends one
request to each stale source; the responses update the entry and the circuit breakers
(:mod:`proxpi.index.breaker`).

A flight continues without its clients. While no bytes arrive, it *hangs*: once a client has given
up waiting, the next request starts a flight beside it; the older response is still used.

A *refresh* is a revalidation that a client wants, be the page fresh or not. It joins the requests
under way, and sends one to each other source that was not requested within :data:`REFRESH_PAUSE`
seconds. Its clients wait until it has succeeded or failed, without a deadline. The breaker of the
page does not refuse it; that of the index does, which also heeds the ``Retry-After`` of a 429. If
no source is to be requested, a refresh is like any other request.

A *background* flight (:meth:`Revalidation.prefetch`) starts only while no stale index of the entry
fails, and does not retry. It is *lifted* once a client's request joins it: from then on its
connections, retries and deadlines are those of a flight that a client has started.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from itertools import count
from typing import Any, Generic, Literal, TypeVar

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger, LogLevel

from proxpi import quantities
from proxpi.index.breaker import Breakers, State
from proxpi.index.index_response import IndexResponse, StoredResponse
from proxpi.index.representations import StoredPageLost
from proxpi.index.sources import Index, Sources
from proxpi.problems import Problems, disk_remedy, upstream_remedy
from proxpi.single_flight import Flight, Flights, WaitTimeout
from proxpi.upstream import MIN_RATE, Offline, Queue, UpstreamFailed, all_settled

#: Seconds after the start of a flight at which its clients get the stale page; the same for the
#: trial of a breaker, by which most upstreams that are back have responded.
STALE_DEADLINE, TRIAL_DEADLINE = 5.0, 0.5
#: Seconds for which a refresh sends no request to an index that has responded or failed.
REFRESH_PAUSE = 5.0
#: Seconds that a client without a stale page waits at least.
COLD_DEADLINE = 10.0
#: Seconds in which a response that counts as arriving brings so many bytes; a head counts as all.
PROGRESS_WINDOW = 5.0
MIN_PROGRESS = int(MIN_RATE * PROGRESS_WINDOW)
#: Seconds of pause before each retry, before they are varied by half.
PAUSES = (0.25, 0.75, 2.0)
#: Requests to one index without a stale page, with one, and for the trial of a breaker.
COLD_TRIES, STALE_TRIES, TRIAL_TRIES = 4, 2, 1

Status = Literal["HIT", "MISS", "REVALIDATED", "STALE"]
#: The indexes that a flight sends requests to: those whose response is stale, all, or for a refresh
#: the stale ones and those that it may request.
Targets = Literal["stale", "all", "refresh"]
Decision = Enum("Decision", ["FRESH", "STALE", "TRIAL", "WAIT", "WAIT_COLD"])

T = TypeVar("T")
_log = Logger(namespace="proxpi.index")


def decide(breakers: Sequence[State], *, usable: bool, forced: bool = False) -> Decision:
    """
    Decide what a request for an entry gets.

    =========================  ======  ======  ===================================================
    breakers of stale indexes  usable  forced  decision
    =========================  ======  ======  ===================================================
    (no stale index)                           `FRESH`: the entry, at once
    any                        no              `WAIT_COLD`: the result, from COLD_DEADLINE on only
                                               while bytes arrive; else the failure
    any                        yes     yes     `WAIT`: the result, at STALE_DEADLINE the stale entry
    all open                   yes     no      `STALE`: the stale entry, at once
    one half-open              yes     no      `TRIAL`: as `WAIT`, but at TRIAL_DEADLINE
    all others                 yes     no      `WAIT`
    =========================  ======  ======  ===================================================

    `usable`: there is a page, made of a response of each index. `forced`: breakers are ignored.
    """
    if not breakers:
        return Decision.FRESH
    if not usable:
        return Decision.WAIT_COLD
    if forced:
        return Decision.WAIT
    if all(state is State.OPEN for state in breakers):
        return Decision.STALE
    return Decision.TRIAL if State.HALF_OPEN in breakers else Decision.WAIT


@attrs.frozen
class Outcome:
    """The end of a wait; `error` tells why the status is ``STALE``."""

    status: Status
    error: UpstreamFailed | None = None


@attrs.define(eq=False)
class Progress:
    """Bytes that the responses to the flights of an entry have brought: `bodies`, without heads."""

    bodies: int = 0
    _received: int = 0
    _begun: int = 0

    def begin(self) -> None:
        self._begun = self._received

    def add(self, size: int) -> None:
        """Count bytes, or a response head: 0."""
        self.bodies += size
        self._received += size or MIN_PROGRESS

    @property
    def hangs(self) -> bool:
        """Whether no bytes have arrived since the flight began."""
        return self._received - self._begun < MIN_PROGRESS

    def extend(self, clock: IReactorTime) -> Callable[[], float | None]:
        """Return a function of the next deadline of a client without a stale page."""
        begun, waited, before = clock.seconds(), 0.0, self._received

        def extended() -> float | None:
            nonlocal waited, before
            waited += PROGRESS_WINDOW
            arrived, before = self._received - before, self._received
            late = waited >= COLD_DEADLINE and arrived < MIN_PROGRESS
            return None if late else begun + waited + PROGRESS_WINDOW

        return extended


@attrs.define(eq=False)
class Entry:
    """One generation of a page, or of the project list: what the indexes have responded.

    :ivar name: the project; ``""`` is the list
    :ivar responses: the last one of each index that has responded
    :ivar forced: breakers are ignored until one request after a ``DELETE`` has succeeded or failed
    :ivar requests: the flights of requests to one index, which revalidations share
    :ivar queue: its requests; those that wait for a connection are cancelled once all clients leave
    :ivar since: the clock's seconds when a background flight began, then when a client joined it
    :ivar pending: the indexes that have not responded yet
    :ivar lock: is held while the entry is stored
    """

    name: str
    clock: IReactorTime
    responses: dict[Index, StoredResponse]
    forced: bool = False
    revalidations: Flights[tuple[Sources, Targets], Status] = attrs.field(init=False)
    requests: Flights[Index, tuple[Index, IndexResponse[Any]]] = attrs.field(init=False)
    queue: Queue = attrs.field(init=False, factory=Queue)
    since: float = attrs.field(init=False, default=float("-inf"))
    pending: list[Index] = attrs.field(init=False, factory=list)
    progress: Progress = attrs.field(init=False, factory=Progress)
    lock: DeferredLock = attrs.field(init=False, factory=DeferredLock)

    def __attrs_post_init__(self) -> None:
        self.revalidations = Flights(self.clock, self._abandon)
        self.requests = Flights(self.clock)

    @property
    def title(self) -> str:
        return f"page of {self.name}" if self.name else "project list"

    def first(self, sources: Sources) -> Index | None:
        """Return the first of the sources that has the project, or a list."""
        for index in sources.indexes:
            response = self.responses.get(index)
            if response is not None and response.present:
                return index
        return None

    def present(self, sources: Sources) -> bool:
        """Whether any of the sources has the project, or a list."""
        return self.first(sources) is not None

    def usable(self, sources: Sources) -> bool:
        """Whether there is a page, made of a response of each source."""
        return self.present(sources) and all(index in self.responses for index in sources)

    def age(self, sources: Sources) -> float:
        """Seconds since the oldest response of the sources."""
        now, oldest = self.clock.seconds(), 0.0
        for index in sources.indexes:
            if (response := self.responses.get(index)) is not None:
                oldest = max(oldest, now - response.requested_at)
        return oldest

    def invalidated_responses(self) -> dict[Index, StoredResponse]:
        return {index: response.invalidate() for index, response in self.responses.items()}

    def _abandon(self) -> None:
        """Cancel the requests that wait for a connection; those that were sent continue."""
        if self.queue:
            for key in self.revalidations:
                self.revalidations.detach(key)
            self.queue.cancel()


E = TypeVar("E", bound=Entry)


@attrs.define(eq=False)
class Revalidation(Generic[E]):
    """Revalidates entries of one kind.

    :param request: requests an entry from one index, given its last response
    :param store: takes the last responses and the new pages into an entry, which is locked
    """

    _clock: IReactorTime
    _problems: Problems
    _request: Callable[[Index, E, StoredResponse | None], Awaitable[IndexResponse[Any]]]
    _store: Callable[[E, dict[Index, StoredResponse], Mapping[Index, Any]], Awaitable[None]]

    def remaining(self, entry: E, sources: Sources) -> float:
        """Seconds for which an entry stays fresh; for ever without any source."""
        remaining = math.inf
        for index in sources.indexes:
            remaining = min(remaining, index.remaining(entry.responses.get(index)))
        return remaining

    def may_refresh(self, entry: E, sources: Sources) -> bool:
        """Whether a refresh joins a request, or sends one."""
        return any(self._may_refresh(entry, index) for index in sources)

    def requests(self, entry: E, sources: Sources, targets: Targets) -> bool:
        """Whether a revalidation would request an index, if its breaker admits that."""
        return bool(self._targets(entry, sources, targets))

    def decide(self, entry: E, sources: Sources, targets: Targets = "stale") -> Decision:
        requested = self._targets(entry, sources, targets)
        breakers = [index.breakers.state(entry.name) for index in requested]
        forced = entry.forced or targets != "stale"
        return decide(breakers, usable=entry.usable(sources), forced=forced)

    async def revalidate(self, entry: E, sources: Sources, targets: Targets = "stale") -> Outcome:
        """Revalidate an entry, as far as its decision tells.

        :raises UpstreamFailed: if there is no page to fall back on
        :raises StoredPageLost: if an index confirmed a page that is gone from the store
        """
        if targets == "refresh" and not self.may_refresh(entry, sources):
            targets = "stale"
        decision = self.decide(entry, sources, targets)
        if decision is Decision.FRESH:
            return Outcome("HIT")
        if decision is Decision.STALE:
            refusals = (index.breakers.refusal(entry.name) for index in sources)
            return Outcome("STALE", next(filter(None, refusals), None))
        if entry.queue.background:
            self._lift(entry, sources)
        trial = decision is Decision.TRIAL
        if trial and entry.progress.hangs:
            entry.revalidations.detach((sources, targets))
            _detach_requests(entry, sources)
        work = partial(self._revalidate, entry, sources, targets)
        flight = entry.revalidations.join((sources, targets), work)
        if decision is Decision.WAIT_COLD:
            extend = entry.progress.extend(self._clock)
            waiter = flight.wait(self._clock.seconds() + PROGRESS_WINDOW, extend)
        elif targets == "refresh":
            waiter = flight.wait()
        else:
            deadline = TRIAL_DEADLINE if trial else STALE_DEADLINE
            waiter = flight.wait(max(flight.started, entry.since) + deadline)
        try:
            return Outcome(await waiter)
        except WaitTimeout:
            error = self._give_up(flight, entry, sources, targets, trial)
        except UpstreamFailed as failure:
            error = failure
        except Exception as failure:
            if isinstance(failure, CancelledError | StoredPageLost) or not entry.usable(sources):
                raise
            if isinstance(failure, OSError):
                self._problems.note(
                    ("disk", "response"),
                    f"the {entry.title} cannot be written: {failure}",
                    self._stale(entry, sources),
                    disk_remedy(failure),
                    LogLevel.error,
                )
            else:
                _log.failure("{what}: an error of proxpi's own", what=entry.title)
            error = UpstreamFailed(sources.indexes[0].url, "its response cannot be stored")
        if not entry.usable(sources):
            raise error
        return Outcome("STALE", error.copy())

    def may_prefetch(self, entry: E, sources: Sources) -> bool:
        """Whether an entry is stale, and of its stale indexes each breaker is closed."""
        stale = self._targets(entry, sources, "stale")
        return bool(stale) and all(
            not index.offline and index.breakers.state(entry.name) is State.CLOSED
            for index in stale
        )

    async def prefetch(self, entry: E, sources: Sources) -> int | None:
        """Revalidate an entry, which :meth:`may_prefetch` allows, in the background.

        Flights that are under way are observed until they land; no other one is started.

        :return: bytes that this call's own flight has brought, once it has landed; ``None``: it
            sent no request
        :raises StoredPageLost: as :meth:`revalidate`
        """
        if entry.revalidations.under_way:
            for flight in [entry.revalidations.get(key) for key in entry.revalidations]:
                if flight is not None:
                    await flight.landed()
            return None
        admits = partial(self.may_prefetch, entry, sources)
        queue = entry.queue = Queue(background=True, admits=admits)
        entry.since, before = self._clock.seconds(), entry.progress.bodies
        work = partial(self._revalidate, entry, sources, "stale")
        with suppress(UpstreamFailed):
            await entry.revalidations.join((sources, "stale"), work).wait()
        return entry.progress.bodies - before if queue.sent else None

    def _targets(self, entry: E, sources: Sources, targets: Targets) -> list[Index]:
        """Return the indexes that get a request."""
        return [
            index
            for index in sources
            if targets == "all"
            or index.remaining(entry.responses.get(index)) <= 0
            or (targets == "refresh" and self._may_refresh(entry, index))
        ]

    def _may_refresh(self, entry: E, index: Index) -> bool:
        """Whether a refresh joins a request to an index, or sends one."""
        return entry.requests.get(index) is not None or self._may_request(entry, index)

    def _may_request(self, entry: E, index: Index) -> bool:
        """Whether an index has neither responded nor failed within `REFRESH_PAUSE`."""
        response, since = entry.responses.get(index), self._clock.seconds() - REFRESH_PAUSE
        responded = response is not None and response.requested_at > since
        return not responded and index.breakers.failed_since(entry.name, since) is None

    def _lift(self, entry: E, sources: Sources) -> None:
        """Lift the background flight of an entry, for a client that joins it.

        The client gets another flight if an index has failed in this one, where it was not retried,
        or if this one hangs for so long that a client would have given up waiting.
        """
        began, entry.since = entry.since, self._clock.seconds()
        hangs = entry.progress.hangs and entry.queue.sent
        overdue = hangs and entry.since >= began + STALE_DEADLINE
        if overdue or any(each.breakers.failed_since(entry.name, began) for each in sources):
            entry.revalidations.detach((sources, "stale"))
        if overdue:
            _detach_requests(entry, sources)
            entry.queue = Queue()
        else:
            entry.queue.lift()

    def _give_up(
        self, flight: Flight[Status], entry: E, sources: Sources, targets: Targets, trial: bool
    ) -> UpstreamFailed:
        error = sources.indexes[0].timeout_error(entry.name, flight.started)
        if not entry.progress.hangs:
            return error
        if not trial:
            entry.revalidations.detach((sources, targets), flight)
        for index in [each for each in entry.pending if each in sources]:
            # Beside a trial, another index may be asked that has not been silent for long.
            if not trial or index.breakers.refusal(entry.name):
                entry.requests.detach(index)
                error = index.timeout_error(entry.name, flight.started)
                if self._note_failure(entry, index, error, flight.started):
                    self._note_problem(entry, index, sources, error)
        return error

    def _note_failure(self, entry: E, index: Index, error: UpstreamFailed, since: float) -> bool:
        """Note a failure, unless a later request has succeeded; return whether it counts."""
        response = entry.responses.get(index)
        if isinstance(error, Offline) or (response is not None and response.requested_at > since):
            return False
        entry.forced = False
        index.breakers.failed(entry.name, error, since)
        return True

    def _note_problem(
        self, entry: E, index: Index, sources: Sources, error: UpstreamFailed
    ) -> None:
        """Note that the last try has failed, and what clients get."""
        consequence = f"clients get {503 if error.temporary else 502}"
        if entry.usable(sources):
            consequence = self._stale(entry, sources)
        elif entry.queue.background:
            consequence = "no client waits for it"
        # The project list has limits of its own, and its failures another remedy.
        key = ("index", index.name, error.kind, "page" if entry.name else "list")
        text = f"index {index.name}: {error}"
        if self._problems.note(key, text, consequence, upstream_remedy(error.kind)):
            index.breakers.note_logged()

    def _stale(self, entry: E, sources: Sources) -> str:
        then = datetime.fromtimestamp(self._problems.wall() - entry.age(sources), UTC)
        return f"the stale {entry.title}, of {then:%Y-%m-%d %H:%M} UTC, is served"

    async def _revalidate(self, entry: E, sources: Sources, targets: Targets) -> Status:
        entry.progress.begin()
        settled = await all_settled(
            # Flights that send requests to one index at the same time share its response.
            entry.requests.join(
                index, partial(self._request_entry, entry, index, sources, targets)
            ).wait()
            for index in self._targets(entry, sources, targets)
        )
        failures = [each for each in settled if isinstance(each, UpstreamFailed)]
        responses = dict(each for each in settled if not isinstance(each, UpstreamFailed))
        entry.forced = False
        if responses:
            async with entry.lock:
                last, contents = dict(entry.responses), {}
                for index, new in responses.items():
                    # Of two flights the older one may land later, or confirm a replaced page.
                    if new.supersedes(last.get(index)):
                        last[index] = new.stored
                        if new.content is not None:
                            contents[index] = new.content
                await self._store(entry, last, contents)
        if failures:
            raise failures[0]
        return "MISS" if any(each.content for each in responses.values()) else "REVALIDATED"

    async def _request_entry(
        self, entry: E, index: Index, sources: Sources, targets: Targets
    ) -> tuple[Index, IndexResponse[Any]]:
        """Request an entry from one index, unless a breaker refuses it for the stale page."""
        trial, last, usable = False, entry.responses.get(index), entry.usable(sources)
        counts = False
        if usable and not entry.forced:
            # A client that wants a file that the stale page does not list is not helped by it.
            refresh = targets == "refresh" and self._may_request(entry, index)
            trial = index.breakers.admit(entry.name, ignore_page=refresh or targets == "all")
        tries = TRIAL_TRIES if trial else STALE_TRIES if usable else COLD_TRIES

        async def request() -> IndexResponse[Any]:
            nonlocal last, counts
            since = self._clock.seconds()
            try:
                return await self._request(index, entry, last)
            except UpstreamFailed as error:
                counts = self._note_failure(entry, index, error, since)
                # Some servers fail because of the validators: a retry is without them.
                last = last and last.without_validators()
                raise

        began, queue = self._clock.seconds(), entry.queue

        def latest() -> float:
            if queue.background:
                return float("-inf")
            return max(began, entry.since) + COLD_DEADLINE

        requesting = Deferred.fromCoroutine(
            with_retries(request, index.breakers, self._clock, tries, latest)
        )
        if trial and index in entry.pending:
            # The older request may only be slow. A newer one ends after some silent seconds, so
            # that hanging requests do not pile up.
            self._clock.callLater(
                PROGRESS_WINDOW, lambda: requesting.cancel() if entry.progress.hangs else None
            )
        entry.pending.append(index)
        try:
            response = await requesting
        except CancelledError:
            raise index.timeout_error(entry.name, began) from None
        except UpstreamFailed as error:
            if counts:
                self._note_problem(entry, index, sources, error)
            raise
        finally:
            entry.pending.remove(index)
        ended = index.breakers.succeeded(entry.name)
        if ended is not None and ended.logged:
            lasted = quantities.duration(self._clock.seconds() - ended.since)
            _log.info("index {name} responds again after {time}", name=index.name, time=lasted)
        return index, response


def _detach_requests(entry: Entry, sources: Sources) -> None:
    for index in entry.pending:
        if index in sources:
            entry.requests.detach(index)


async def with_retries(
    request: Callable[[], Awaitable[T]],
    breakers: Breakers,
    clock: IReactorTime,
    tries: int,
    latest: Callable[[], float],
) -> T:
    """Send a request at most `tries` times.

    A pause is at least the ``Retry-After`` of the index. The last request's error is raised.

    :param latest: returns the clock's seconds after which no request is sent again
    """
    pause = 0.0
    for tried in count(1):
        if (limited := breakers.rate_limit) is not None:
            pause = max(pause, limited.retry_after or 0.0)
            if clock.seconds() + pause > latest():
                raise limited
        if pause:
            await deferLater(clock, pause)
        try:
            return await request()
        except UpstreamFailed as error:
            if tried == tries or not error.temporary or isinstance(error, Offline):
                raise
            # Varied, so that many proxies do not retry at the same time.
            pause = max(PAUSES[tried - 1] * random.uniform(0.5, 1.5), error.retry_after or 0.0)
            if clock.seconds() + pause > latest():
                raise
    raise AssertionError("the last try returns or raises")
