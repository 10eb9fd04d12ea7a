"""Single flight: one piece of work, any number of waiters, each of whom may leave."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from proxpi.single_flight import Flight, Flights, Late
from tests.support.cases import Case


class Trouble(Exception):
    """What goes wrong in these tests."""


class FlightsTests(Case):
    """Flights by key."""

    def setUp(self) -> None:
        """Prepare work that ends when it is told to."""
        self.clock = Clock()
        self.flights = Flights[str, str](self.clock)
        self.works: list[Deferred[str]] = []

    async def work(self) -> str:
        """Wait for the test's word."""
        ends: Deferred[str] = Deferred()
        self.works.append(ends)
        return await ends

    def join(self, key: str = "key") -> Flight[str]:
        """Join or start a flight."""
        return self.flights.join(key, self.work)

    def test_one_work_for_all(self) -> None:
        """Whoever asks while the work is under way gets its one result."""
        waiters = [self.join().wait() for _ in range(50)]
        assert len(self.works) == 1
        self.works[0].callback("result")
        assert [self.result(waiter) for waiter in waiters] == ["result"] * 50

    def test_keys_are_apart(self) -> None:
        """Work for another key is other work."""
        first, second = self.join("a").wait(), self.join("b").wait()
        self.works[1].callback("b's")
        self.pending(first)
        assert self.result(second) == "b's"

    def test_landed_is_over(self) -> None:
        """Who asks after the result starts anew: a flight is no cache."""
        self.join()
        self.works[0].callback("old")
        waiter = self.join().wait()
        self.works[1].callback("new")
        assert self.result(waiter) == "new"

    def test_failure_goes_to_all(self) -> None:
        """Each waiter gets the error of the work."""
        waiters = [self.join().wait() for _ in range(3)]
        self.works[0].errback(Trouble())
        for waiter in waiters:
            self.error(waiter, Trouble)

    def test_failure_is_not_sticky(self) -> None:
        """After a failure the next who asks starts anew."""
        lost = self.join().wait()
        self.works[0].errback(Trouble())
        self.error(lost, Trouble)
        waiter = self.join().wait()
        self.works[1].callback("well")
        assert self.result(waiter) == "well"

    def test_work_that_ends_at_once(self) -> None:
        """A flight that landed while it was started gives its result all the same."""

        async def ready() -> str:
            return "ready"

        async def broken() -> str:
            raise Trouble

        assert self.result(self.flights.join("a", ready).wait()) == "ready"
        self.error(self.flights.join("b", broken).wait(), Trouble)

    def test_result_after_landing(self) -> None:
        """A flight at hand gives its result as often as it is asked, whatever the deadline."""
        flight = self.join()
        self.works[0].callback("result")
        assert self.result(flight.wait()) == "result"
        assert self.result(flight.wait(until=0.0)) == "result"

    def test_started(self) -> None:
        """A flight knows when it began, for those who join later."""
        self.clock.advance(7)
        flight = self.join()
        self.clock.advance(5)
        assert self.join().started == 7.0
        assert self.join() is flight

    def test_leaving_stops_nothing(self) -> None:
        """A waiter that is cancelled takes only itself off the list."""
        leaves, stays = self.join().wait(), self.join().wait()
        leaves.cancel()
        self.error(leaves, CancelledError)
        self.works[0].callback("result")
        assert self.result(stays) == "result"

    def test_work_goes_on_without_waiters(self) -> None:
        """The work outlives all who waited for it, and a newcomer joins it."""
        leaves = self.join().wait()
        leaves.cancel()
        self.error(leaves, CancelledError)
        waiter = self.join().wait()
        assert len(self.works) == 1
        self.works[0].callback("result")
        assert self.result(waiter) == "result"

    def test_failure_without_waiters(self) -> None:
        """A failure that nobody waits for is no unhandled error."""
        leaves = self.join().wait()
        leaves.cancel()
        self.error(leaves, CancelledError)
        self.works[0].errback(Trouble())
        self.works.clear()
        assert self.unhandled() == []

    def test_deadline(self) -> None:
        """A waiter whose time is up fails at that time, and the others wait on."""
        patient, hasty = self.join().wait(), self.join().wait(until=5.0)
        self.clock.advance(4.9)
        self.pending(hasty)
        self.clock.advance(0.2)
        self.error(hasty, Late)
        self.works[0].callback("result")
        assert self.result(patient) == "result"

    def test_deadline_that_has_passed(self) -> None:
        """A deadline in the past ends the wait in the next turn of the reactor."""
        self.clock.advance(10)
        waiter = self.join().wait(until=5.0)
        self.clock.advance(0)
        self.error(waiter, Late)

    def test_no_timer_is_left(self) -> None:
        """A waiter's timer ends with its wait: by the result, by leaving, by the time."""
        ended, left, late = (self.join().wait(until=until) for until in (9.0, 9.0, 1.0))
        left.cancel()
        self.error(left, CancelledError)
        self.clock.advance(2)
        self.error(late, Late)
        self.works[0].callback("result")
        self.result(ended)
        assert self.clock.getDelayedCalls() == []

    def test_forget(self) -> None:
        """After forget() the next who asks starts anew; the old waiters get the old result."""
        old = self.join().wait()
        self.flights.detach("key")
        new = self.join().wait()
        assert len(self.works) == 2
        self.works[0].callback("old")
        assert self.result(old) == "old"
        self.pending(new)
        joined = self.join().wait()
        self.works[1].callback("new")
        assert self.result(new) == "new"
        assert self.result(joined) == "new"

    def test_forget_what_is_not_there(self) -> None:
        """To forget a key that has no flight is no error."""
        self.flights.detach("key")
        assert self.works == []

    def test_a_result_that_cancels_a_waiter(self) -> None:
        """A waiter that is cancelled by what another does with the result harms no third."""
        first, second, third = (self.join().wait() for _ in range(3))
        first.addCallback(lambda _: second.cancel())
        self.works[0].callback("result")
        self.error(second, CancelledError)
        assert self.result(third) == "result"

    def test_an_error_that_cancels_a_waiter(self) -> None:
        """The same for a failure."""
        first, second, third = (self.join().wait() for _ in range(3))
        first.addErrback(lambda _: second.cancel())
        self.works[0].errback(Trouble())
        self.error(second, CancelledError)
        self.error(third, Trouble)

    def test_a_result_that_starts_the_next_flight(self) -> None:
        """Who asks again while the result is handed out starts anew."""
        waiter = self.join().wait().addCallback(lambda _: self.join().wait())
        self.works[0].callback("old")
        self.works[1].callback("new")
        assert self.result(waiter) == "new"

    def test_under_way(self) -> None:
        """What the flights are for can be told, and they may be forgotten meanwhile."""
        self.join()
        for key in self.flights:
            self.flights.detach(key)
        assert list(self.flights) == []

    def test_abandoned(self) -> None:
        """When the last waiter of all leaves, that is told; not if one was late, or has it."""
        told: list[str] = []
        self.flights.abandoned = lambda: told.append("abandoned")
        waiters = [self.join(key).wait() for key in ("a", "a", "b")]
        for waiter in waiters:
            assert told == []
            waiter.cancel()
            self.error(waiter, CancelledError)
        assert told == ["abandoned"]
        late, leaves = self.join("a").wait(1.0), self.join("a").wait()
        self.clock.advance(1)
        self.error(late, Late)
        leaves.cancel()
        self.error(leaves, CancelledError)
        assert told == ["abandoned"]
        assert self.flights.wanted
