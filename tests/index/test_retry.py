"""How long one waits for an index, and how often it is asked."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from proxpi.index.revalidation import (
    MIN_PROGRESS,
    STALE_DEADLINE,
    TRIAL_DEADLINE,
    WINDOW,
    Progress,
    with_retries,
)
from proxpi.single_flight import Flights, Late
from proxpi.upstream.errors import Offline, UpstreamFailed
from tests.index.test_breaker import REFUSED, BreakersCase
from tests.support.cases import run
from tests.support.indexes import ROOT


class OutcomeTests(BreakersCase):
    """Waiting for work that goes on by itself."""

    def setUp(self) -> None:
        """Begin some work."""
        super().setUp()
        self.progress = Progress()
        self.in_thread: Deferred[str] = Deferred()

        async def fetch() -> str:
            self.progress.begin()
            return await self.in_thread

        self.flight = Flights[str, str](self.clock).join("demo", fetch)

    def wait(self, patience: float | None) -> Deferred[str]:
        """Wait for it."""
        if patience is not None:
            return self.flight.wait(self.flight.started + patience)
        until = self.clock.seconds() + WINDOW
        return self.flight.wait(until, self.progress.extend(self.clock))

    def test_in_time(self) -> None:
        """Whoever waits gets what comes."""
        waits = [self.wait(STALE_DEADLINE), self.wait(None)]
        self.clock.advance(4.9)
        self.in_thread.callback("page")
        assert [self.result(wait) for wait in waits] == ["page", "page"]

    def test_fallback(self) -> None:
        """With something to fall back on the work has 5 s, whoever joins it when."""
        first = self.wait(STALE_DEADLINE)
        self.clock.advance(4)
        second = self.wait(STALE_DEADLINE)
        self.clock.advance(1)
        self.error(first, Late)
        self.error(second, Late)
        third = self.wait(STALE_DEADLINE)
        self.clock.advance(0)
        self.error(third, Late)

    def test_trial(self) -> None:
        """The client of a trial waits for half a second."""
        assert TRIAL_DEADLINE == 0.5
        trial = self.wait(TRIAL_DEADLINE)
        self.clock.advance(0.5)
        self.error(trial, Late)

    def test_silence(self) -> None:
        """Without anything each waits 10 s of its own while nothing comes."""
        first = self.wait(None)
        self.clock.advance(4)
        second = self.wait(None)
        self.clock.pump([0.5] * 12)
        self.error(first, Late)
        self.pending(second)
        self.clock.pump([0.5] * 8)
        self.error(second, Late)

    def test_progress(self) -> None:
        """As long as bytes keep coming, a slow answer is slow and not failed."""
        wait = self.wait(None)
        for _ in range(60):
            self.progress.add(MIN_PROGRESS // 5)
            self.clock.advance(1)
        self.pending(wait)
        assert self.progress.progressed
        self.clock.pump([1.0] * 11)
        self.error(wait, Late)

    def test_dripping(self) -> None:
        """A byte now and then is no progress."""
        self.progress.add(0)
        assert self.progress.progressed
        wait = self.wait(None)
        for _ in range(10):
            self.progress.add(1)
            self.clock.advance(1)
        self.error(wait, Late)

    def test_begun_anew(self) -> None:
        """What came before does not count for what is asked for now."""
        self.progress.add(10 * MIN_PROGRESS)
        self.progress.begin()
        assert not self.progress.progressed


class PersistenceTests(BreakersCase):
    """Asking again while waiting may help."""

    def ask(self, *outcomes: UpstreamFailed | str, tries: int = 4) -> Deferred[str]:
        """Ask for something that comes out so, one time after another."""
        self.left = list(outcomes)
        self.asked: list[float] = []

        async def ask() -> str:
            self.asked.append(self.clock.seconds() - 100)
            outcome = self.left.pop(0) if len(self.left) > 1 else self.left[0]
            if isinstance(outcome, UpstreamFailed):
                raise outcome
            return outcome

        return run(with_retries(ask, self.breakers, self.clock, tries))

    def test_success(self) -> None:
        """What succeeds is asked for once, and at once."""
        assert self.result(self.ask("page")) == "page"
        assert self.asked == [0.0]

    def test_hiccup(self) -> None:
        """A short outage is bridged."""
        ask = self.ask(REFUSED, REFUSED, "page")
        self.clock.pump([0.1] * 20)
        assert self.result(ask) == "page"
        assert len(self.asked) == 3

    def test_outage(self) -> None:
        """After some tries with growing pauses the last failure is the answer, inside 10 s."""
        ask = self.ask(REFUSED)
        self.clock.pump([0.1] * 100)
        assert self.error(ask, UpstreamFailed).cause == "connection refused"
        assert len(self.asked) == 4
        assert self.asked[-1] < 10

    def test_no_use(self) -> None:
        """What waiting does not mend is not asked for again."""
        for error in (
            UpstreamFailed(ROOT, "status 400", temporary=False),
            Offline(ROOT, "it is not cached"),
        ):
            self.error(self.ask(error), UpstreamFailed)
            assert len(self.asked) == 1

    def test_slow_failure(self) -> None:
        """A try that took all the time there is was the last."""
        silence: Deferred[str] = Deferred()

        async def ask() -> str:
            return await silence

        asking = run(with_retries(ask, self.breakers, self.clock, 4))
        self.clock.advance(20)
        silence.errback(REFUSED)
        self.error(asking, UpstreamFailed)

    def test_retry_after(self) -> None:
        """The upstream says how long the pause is, if it fits into the time."""
        ask = self.ask(UpstreamFailed(ROOT, "status 503", retry_after=6.0), "page")
        self.clock.pump([0.5] * 13)
        assert self.result(ask) == "page"
        assert self.asked == [0.0, 6.0]
        self.error(self.ask(UpstreamFailed(ROOT, "status 503", retry_after=16.0)), UpstreamFailed)

    def limit(self, seconds: float) -> None:
        """Let the index send a 429 for another page."""
        error = UpstreamFailed(ROOT, "status 429", retry_after=seconds, scope="rate limit")
        self.note(error, "other")

    def test_rate_limit(self) -> None:
        """The ``Retry-After`` of a 429 is waited for, or the index is not asked at all."""
        self.limit(6.0)
        ask = self.ask("page")
        self.clock.pump([0.5] * 13)
        assert self.result(ask) == "page"
        assert self.asked == [6.0]
        self.limit(25.0)
        error = self.error(self.ask("page"), UpstreamFailed)
        assert (error.cause, error.retry_after) == ("status 429", 25.0)
        assert self.asked == []
