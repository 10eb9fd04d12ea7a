"""Single flight: one piece of work for all who wait for its result, each with a deadline.

A :class:`Flight` is *joinable* until it is forgotten or has *landed*; a forgotten flight goes on
for those who joined it before. A waiter ends in one of three ways: it gets the result, its
deadline comes (:class:`Late`), or it *leaves* (its Deferred is cancelled). No waiter ends the work.
But a flight that all waiters have left is not *wanted*: work that only waits for its turn may then
be given up. A waiter that was late still wants it: it was given something older meanwhile, and the
result is for the next request.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Iterator
from typing import Any, Generic, TypeVar

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Late(Exception):
    """The deadline of a waiter has come before the result."""


@attrs.define(eq=False)
class Flight(Generic[T]):
    """Work under way.

    :ivar started: the clock's seconds when it began
    """

    _clock: IReactorTime
    started: float
    _left: Callable[[], object]
    _waiters: list[Deferred[T]] = attrs.field(init=False, factory=list)
    _outcome: Callable[[], Deferred[T]] | None = attrs.field(init=False, default=None)
    _late: bool = attrs.field(init=False, default=False)

    @property
    def wanted(self) -> bool:
        """Whether anyone waits for the result, or was late."""
        return bool(self._waiters) or self._late

    def wait(self, until: float | None = None, *, final: bool = True) -> Deferred[T]:
        """
        Give a Deferred of the result that belongs to the caller alone.

        :param until: the clock's seconds at which it fails with :class:`Late`; ``None``: never
        :param final: whether the caller is late then, and does not just look how far it is
        """
        if self._outcome is not None:
            return self._outcome()
        waiter: Deferred[T] = Deferred(self._leave)
        self._waiters.append(waiter)
        if until is not None:
            left = max(0.0, until - self._clock.seconds())
            timer = self._clock.callLater(left, self._end_wait, waiter, final)
            waiter.addBoth(_stop, timer)
        return waiter

    def _leave(self, waiter: Deferred[T]) -> None:
        self._waiters.remove(waiter)
        self._left()

    def be_late(self) -> None:
        """Note that a waiter is late: the flight stays wanted."""
        self._late = True

    def _end_wait(self, waiter: Deferred[T], final: bool) -> None:
        self._late |= final
        self._waiters.remove(waiter)
        waiter.errback(Late())

    def _succeeded(self, result: T) -> None:
        self._outcome = lambda: succeed(result)
        for waiter in self._remaining():
            waiter.callback(result)

    def _failed(self, failure: Failure) -> None:
        # A Failure keeps the frames of the work alive; the exception is all that is wanted.
        error = failure.value
        self._outcome = lambda: fail(error)
        for waiter in self._remaining():
            waiter.errback(error)

    def _remaining(self) -> Iterator[Deferred[T]]:
        """Give the waiters one by one: what one does with the result may cancel the next."""
        while self._waiters:
            yield self._waiters.pop(0)


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
        """Whether any flight has not landed yet, forgotten ones included."""
        return bool(self._under_way)

    @property
    def wanted(self) -> bool:
        """Whether any flight that has not landed is wanted."""
        return any(flight.wanted for flight in self._under_way)

    def __iter__(self) -> Iterator[K]:
        return iter(list(self._joinable))

    def join(self, key: K, work: Callable[[], Coroutine[Deferred[Any], Any, T]]) -> Flight[T]:
        """Give the flight for `key`; if there is none, start `work` as one."""
        flight = self._joinable.get(key)
        if flight is None:
            flight = self._joinable[key] = Flight(self._clock, self._clock.seconds(), self._left)
            self._under_way.add(flight)
            result = Deferred.fromCoroutine(work())
            result.addBoth(self._landed, key, flight)
            result.addCallbacks(flight._succeeded, flight._failed)
        return flight

    def forget(self, key: K, flight: Flight[T] | None = None) -> None:
        """
        Let the next request start anew; those who wait already get what they wait for.

        :param flight: the one that is meant, if not whichever is joinable
        """
        if flight is None or self._joinable.get(key) is flight:
            self._joinable.pop(key, None)

    def _left(self) -> None:
        if not self.wanted:
            self.abandoned()

    def _landed(self, result: Any, key: K, flight: Flight[T]) -> Any:
        self._under_way.discard(flight)
        self.forget(key, flight)
        return result


def _stop(result: T, timer: IDelayedCall) -> T:
    if timer.active():
        timer.cancel()
    return result
