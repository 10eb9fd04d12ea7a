"""Single flight: one piece of work for all waiters for its result, each with a deadline.

A :class:`Flight` is *joinable* until it is detached or has *finished*; a detached flight continues
for the waiters that joined it before. A waiter gets the result, or its deadline passes
(:class:`WaitTimeout`), or it *leaves* (its Deferred is cancelled). No waiter ends the work. Once
all waiters have left, a flight is not *wanted*: work that only waits for its turn may then be
cancelled. A flight with a late waiter stays wanted: its result is for the next request. An
*observer* learns only that the work has ended, and is no waiter.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Iterator
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class InThread(Protocol):
    """Runs a slow function in a thread."""

    def __call__(self, job: Callable[[], T], /) -> Deferred[T]: ...


class WaitTimeout(Exception):
    """The deadline of a waiter has come before the result."""


@attrs.define(eq=False)
class Flight(Generic[T]):
    """Work under way, since `started` (the clock's seconds)."""

    _clock: IReactorTime
    started: float
    _left: Callable[[], object]
    _waiters: dict[Deferred[T], IDelayedCall | None] = attrs.field(init=False, factory=dict)
    _observers: list[Deferred[None]] = attrs.field(init=False, factory=list)
    _late: bool = attrs.field(init=False, default=False)
    # Makes a Deferred of the outcome, once it has finished.
    _outcome: Callable[[], Deferred[T]] | None = attrs.field(init=False, default=None)

    @property
    def wanted(self) -> bool:
        """Whether a waiter waits for the result, or was late."""
        return bool(self._waiters) or self._late

    @property
    def waiters(self) -> int:
        """How many wait for the result."""
        return len(self._waiters)

    def wait(
        self, until: float | None = None, extend: Callable[[], float | None] = lambda: None
    ) -> Deferred[T]:
        """Return a Deferred of the result that belongs to the caller alone.

        :param until: clock's seconds at which it fails with :class:`WaitTimeout`; ``None``: never
        :param extend: is called then, and gives a later deadline, or ``None``
        """
        if self._outcome is not None:
            return self._outcome()
        waiter: Deferred[T] = Deferred(self._leave)
        self._waiters[waiter] = None
        if until is not None:
            self._set_timer(waiter, until, extend)
        return waiter

    def landed(self) -> Deferred[None]:
        """Return a Deferred that fires once the work has ended, in whichever way."""
        if self._outcome is not None:
            return succeed(None)
        observer: Deferred[None] = Deferred(self._observers.remove)
        self._observers.append(observer)
        return observer

    def _set_timer(
        self, waiter: Deferred[T], until: float, extend: Callable[[], float | None]
    ) -> None:
        def expire() -> None:
            if (later := extend()) is not None:
                self._set_timer(waiter, later, extend)
                return
            self._late = True
            del self._waiters[waiter]
            waiter.errback(WaitTimeout())

        left = max(0.0, until - self._clock.seconds())
        self._waiters[waiter] = self._clock.callLater(left, expire)

    def _leave(self, waiter: Deferred[T]) -> None:
        self._remove(waiter)
        self._left()

    def _remove(self, waiter: Deferred[T]) -> None:
        if (timer := self._waiters.pop(waiter)) is not None:
            timer.cancel()

    def _finish(self, outcome: Any) -> None:
        # A Failure keeps the frames of the work alive; only its exception is needed.
        failed = isinstance(outcome, Failure)
        self._outcome = partial(fail, outcome.value) if failed else partial(succeed, outcome)
        while self._waiters:  # one by one: the callbacks of one may cancel the next
            waiter = next(iter(self._waiters))
            self._remove(waiter)
            self._outcome().chainDeferred(waiter)
        while self._observers:
            self._observers.pop(0).callback(None)


@attrs.define(eq=False)
class Flights(Generic[K, T]):
    """The flights of one kind by key; iterates over the keys of those that can be joined.

    :ivar abandoned: is called when a waiter leaves and no flight is wanted any more
    """

    _clock: IReactorTime
    abandoned: Callable[[], object] = lambda: None
    _joinable: dict[K, Flight[T]] = attrs.field(init=False, factory=dict)
    _under_way: set[Flight[T]] = attrs.field(init=False, factory=set)

    @property
    def under_way(self) -> bool:
        """Whether any flight has not finished yet, detached ones included."""
        return bool(self._under_way)

    def __iter__(self) -> Iterator[K]:
        return iter(list(self._joinable))

    def join(self, key: K, work: Callable[[], Coroutine[Deferred[Any], Any, T]]) -> Flight[T]:
        """Return the flight for `key`; if there is none, start `work` as one."""
        flight = self._joinable.get(key)
        if flight is None:
            flight = self._joinable[key] = Flight(self._clock, self._clock.seconds(), self._left)
            self._under_way.add(flight)
            Deferred.fromCoroutine(work()).addBoth(self._finished, key, flight)
        return flight

    def get(self, key: K) -> Flight[T] | None:
        """Return the flight for `key` that can be joined."""
        return self._joinable.get(key)

    def detach(self, key: K, flight: Flight[T] | None = None) -> None:
        """Make a flight (only `flight`, if given) not joinable: the next request starts one."""
        if flight is None or self._joinable.get(key) is flight:
            self._joinable.pop(key, None)

    def _left(self) -> None:
        if not any(flight.wanted for flight in self._under_way):
            self.abandoned()

    def _finished(self, outcome: Any, key: K, flight: Flight[T]) -> None:
        self._under_way.discard(flight)
        self.detach(key, flight)
        flight._finish(outcome)
