"""Single flight: one piece of work, any number of waiters, each of whom may leave."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from proxpi.single_flight import Flight, Flights, WaitTimeout
from tests.support.cases import Case


class WorkFailed(Exception):
    """The failure of the work in these tests."""


class FlightsTests(Case):
    def setUp(self) -> None:
        self.clock = Clock()
        self.flights = Flights[str, str](self.clock)
        self.works: list[Deferred[str]] = []

    async def work(self) -> str:
        ends: Deferred[str] = Deferred()
        self.works.append(ends)
        return await ends

    def join(self, key: str = "key") -> Flight[str]:
        return self.flights.join(key, self.work)

    def leave(self, *waiters: Deferred[Any]) -> None:
        for waiter in waiters:
            waiter.cancel()
            self.error(waiter, CancelledError)

    def test_result(self) -> None:
        """All waiters of a key get one result or error; the next request starts a new flight."""
        for number, error in enumerate((None, WorkFailed(), None)):
            waiters, other = [self.join().wait() for _ in range(50)], self.join("other").wait()
            assert len(self.works) == number + 2
            work = self.works[0] if number == 0 else self.works[-1]
            if error is None:
                work.callback("result")
                assert [self.result(waiter) for waiter in waiters] == ["result"] * 50
            else:
                work.errback(error)
                assert [self.error(waiter, WorkFailed) for waiter in waiters] == [error] * 50
            self.pending(other)

    def test_observers(self) -> None:
        """An observer learns of the end, good or bad, and does not make a flight wanted."""
        for number, error in enumerate((None, WorkFailed())):
            assert self.flights.get("key") is None
            flight = self.join()
            assert self.flights.get("key") is flight
            observer, leaving = flight.landed(), flight.landed()
            self.leave(leaving)
            assert not flight.wanted
            self.pending(observer)
            work = self.works[number]
            work.callback("result") if error is None else work.errback(error)
            assert self.result(observer) is None
            assert self.result(flight.landed()) is None

    def test_landed(self) -> None:
        """A landed flight still gives its result, after any deadline; it knows its start."""

        async def broken() -> str:
            raise WorkFailed

        self.error(self.flights.join("broken", broken).wait(), WorkFailed)
        self.clock.advance(7)
        flight = self.join()
        self.clock.advance(5)
        assert self.join() is flight
        self.works[0].callback("result")
        assert self.result(flight.wait()) == self.result(flight.wait(until=0.0)) == "result"
        assert flight.started == 7.0

    def test_leaving(self) -> None:
        """A waiter that leaves ends neither the work, nor the wait of others; no error stays."""
        leaves, stays = self.join().wait(), self.join().wait()
        self.leave(leaves)
        self.works[0].callback("result")
        assert self.result(stays) == "result"
        self.leave(self.join().wait())
        joins = self.join().wait()
        assert len(self.works) == 2
        self.works[1].callback("result")
        assert self.result(joins) == "result"
        self.leave(self.join().wait())
        self.works.pop().errback(WorkFailed())
        assert self.unhandled() == []

    def test_deadline(self) -> None:
        """A waiter fails at its deadline, at once after it; others wait on, and no timer stays."""
        patient, hasty, left = (self.join().wait(until=until) for until in (None, 5.0, 9.0))
        self.leave(left)
        self.clock.advance(4.9)
        self.pending(hasty)
        self.clock.advance(0.2)
        self.error(hasty, WaitTimeout)
        passed, ends = self.join().wait(until=5.0), self.join().wait(until=9.0)
        self.clock.advance(0)
        self.error(passed, WaitTimeout)
        self.works[0].callback("result")
        assert self.result(patient) == self.result(ends) == "result"
        assert self.clock.getDelayedCalls() == []

    def test_extended(self) -> None:
        """A deadline is extended until `extend` gives no later one."""
        later = iter([6.0, 7.0, None])
        waiter = self.join().wait(5.0, lambda: next(later))
        self.clock.pump([1.0] * 6)
        self.pending(waiter)
        self.clock.advance(1)
        self.error(waiter, WaitTimeout)

    def test_detached(self) -> None:
        """A detached flight serves its waiters; the next request starts and joins a new one."""
        self.flights.detach("key")
        old = self.join().wait()
        for key in self.flights:
            self.flights.detach(key)
        assert list(self.flights) == []
        new = self.join().wait()
        self.works[0].callback("old")
        assert self.result(old) == "old"
        self.pending(new)
        joined = self.join().wait()
        self.works[1].callback("new")
        assert self.result(new) == self.result(joined) == "new"

    def test_callbacks(self) -> None:
        """A callback may cancel the next waiter, and may start the next flight."""
        for error in (None, WorkFailed()):
            first, second, third = (self.join().wait() for _ in range(3))
            first.addBoth(lambda _: second.cancel())  # noqa: B023
            third.addBoth(lambda _: self.join().wait())
            self.works[-1].callback("old") if error is None else self.works[-1].errback(error)
            self.error(second, CancelledError)
            self.works[-1].callback("new")
            assert self.result(third) == "new"

    def test_abandoned(self) -> None:
        """The last waiter that leaves abandons the flights, unless one was late."""
        calls: list[str] = []
        self.flights.abandoned = lambda: calls.append("abandoned")
        waiters = [self.join(key).wait() for key in ("a", "a", "b")]
        for waiter in waiters:
            assert calls == []
            self.leave(waiter)
        assert calls == ["abandoned"]
        late, leaves = self.join("a").wait(1.0), self.join("a").wait()
        self.clock.advance(1)
        self.error(late, WaitTimeout)
        self.leave(leaves)
        assert calls == ["abandoned"]
        assert self.flights.under_way
