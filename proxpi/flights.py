"""Single flight: one piece of work for all who want its result, each with an own deadline.

A flight is never ended by those who wait for it: a client that goes away, or whose time is
up, takes only itself off the list, and the work goes on for the others and for the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Iterator
from typing import Any, Generic, TypeVar

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
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
    _waiters: list[Deferred[T]] = attrs.field(init=False, factory=list)
    _outcome: Callable[[], Deferred[T]] | None = attrs.field(init=False, default=None)

    def wait(self, until: float | None = None) -> Deferred[T]:
        """
        Give a Deferred of the result that belongs to the caller alone.

        :param until: the clock's seconds at which it fails with :class:`Late`; ``None``: never
        """
        if self._outcome is not None:
            return self._outcome()
        waiter: Deferred[T] = Deferred(self._waiters.remove)
        self._waiters.append(waiter)
        if until is not None:
            left = max(0.0, until - self._clock.seconds())
            waiter.addTimeout(left, self._clock, onTimeoutCancel=_late)
        return waiter

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
    """The flights under way, by what they are for, of which it gives an iterator."""

    _clock: IReactorTime
    _flights: dict[K, Flight[T]] = attrs.field(init=False, factory=dict)

    def join(self, key: K, work: Callable[[], Coroutine[Deferred[Any], Any, T]]) -> Flight[T]:
        """Give the flight for `key`; if there is none, start `work` as one."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = Flight(self._clock, self._clock.seconds())
            result = Deferred.fromCoroutine(work())
            result.addBoth(self._landed, key, flight)
            result.addCallbacks(flight._succeeded, flight._failed)
        return flight

    def __iter__(self) -> Iterator[K]:
        return iter(list(self._flights))

    def forget(self, key: K, flight: Flight[T] | None = None) -> None:
        """
        Let the next who asks start anew; those who wait already get what they wait for.

        :param flight: the one that is meant, if not whichever is under way
        """
        if flight is None or self._flights.get(key) is flight:
            self._flights.pop(key, None)

    def _landed(self, result: Any, key: K, flight: Flight[T]) -> Any:
        if self._flights.get(key) is flight:
            del self._flights[key]
        return result


def _late(result: object, timeout: float) -> Any:
    raise Late()
