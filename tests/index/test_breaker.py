"""Circuit breakers: their states, and which failures concern a page or the whole index."""

from __future__ import annotations

import random

from twisted.internet.task import Clock

from proxpi.index.breaker import INDEX_PAUSES, LONGEST, MOST, PAGE_PAUSES, Breaker, Breakers, State
from proxpi.upstream.errors import CredentialsRejected, ProxyFailed, UpstreamFailed
from tests.support.cases import Case
from tests.support.indexes import ROOT

REFUSED = UpstreamFailed(f"{ROOT}demo/", "connection refused", scope="connection")
BROKEN = UpstreamFailed(f"{ROOT}demo/", "status 500")
REJECTED = CredentialsRejected(f"{ROOT}demo/", "credentials rejected", temporary=False)
LIMITED = UpstreamFailed(f"{ROOT}demo/", "status 429", retry_after=7.0, scope="rate limit")


class BreakersCase(Case):
    """Tests of the breakers of one index, without the variation of pauses."""

    def setUp(self) -> None:
        """Begin with closed breakers."""
        self.put(random, "uniform", lambda least, most: most)
        self.clock = Clock()
        self.clock.advance(100)
        self.breakers = Breakers(ROOT, self.clock)

    def note(self, error: UpstreamFailed = REFUSED, page: str = "demo") -> None:
        """Let a request fail at once."""
        self.breakers.failed(page, error, self.clock.seconds())

    def cause(self, page: str = "demo") -> str | None:
        """Give why no request for a page may be sent now."""
        error = self.breakers.refusal(page)
        return None if error is None else error.cause


class StateTests(Case):
    """One breaker."""

    def setUp(self) -> None:
        """Begin with a closed breaker, without the variation of pauses."""
        self.put(random, "uniform", lambda least, most: most)
        self.breaker = Breaker(*PAGE_PAUSES)

    def pauses(self, error: UpstreamFailed, number: int) -> list[float]:
        """Give the pauses before so many trials that all fail so."""
        now, pauses = 0.0, []
        for trial in range(number):
            if trial:
                self.breaker.back_off(now)
            self.breaker.fail(error, now)
            pauses.append(self.breaker.retry_at - now)
            now = self.breaker.retry_at
        return pauses

    def test_states(self) -> None:
        """It is closed without an error, open until `retry_at`, then half-open; success closes."""
        assert self.breaker.state(0.0) is State.CLOSED
        self.breaker.fail(BROKEN, 0.0)
        assert self.breaker.state(0.9) is State.OPEN
        assert self.breaker.state(1.0) is State.HALF_OPEN
        self.breaker.back_off(1.0)
        assert self.breaker.state(2.9) is State.OPEN
        self.breaker.close()
        assert self.breaker.state(2.9) is State.CLOSED
        assert self.pauses(BROKEN, 1) == [1.0]

    def test_backoff(self) -> None:
        """Pauses double, up to 4 s."""
        assert self.pauses(BROKEN, 5) == [1.0, 2.0, 4.0, 4.0, 4.0]

    def test_rejected(self) -> None:
        """After rejected credentials they grow up to 30 s; another error ends that."""
        assert self.pauses(REJECTED, 7) == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
        self.breaker.fail(BROKEN, 0.0)
        self.breaker.back_off(0.0)
        assert self.breaker.retry_at == 4.0

    def test_retry_after(self) -> None:
        """``Retry-After`` is heeded for 30 s at most; a shorter one than the pause is not."""
        for stated, pause in ((7.0, 7.0), (3600.0, LONGEST), (0.5, 1.0), (0.0, 1.0)):
            self.breaker.close()
            error = UpstreamFailed(ROOT, "status 503", retry_after=stated)
            assert self.pauses(error, 1) == [pause]

    def test_a_failure_while_open(self) -> None:
        """An older request that fails late does not put the next trial off."""
        self.breaker.fail(BROKEN, 0.0)
        self.breaker.fail(REFUSED, 0.9)
        assert self.breaker.state(1.0) is State.HALF_OPEN
        assert self.breaker.error is not None
        assert self.breaker.error.cause == "connection refused"

    def test_varied(self) -> None:
        """Pauses vary, so that many proxies do not ask in step."""
        self.put(random, "uniform", random.Random(1).uniform)
        varied = set()
        for _ in range(20):
            self.breaker.close()
            varied |= set(self.pauses(BROKEN, 1))
        assert len(varied) == 20
        assert 0.75 <= min(varied) <= max(varied) <= 1.0


class ScopeTests(BreakersCase):
    """Which requests a failure holds back."""

    def test_closed(self) -> None:
        """Without a failure every request is sent, and is no trial."""
        assert self.cause() is None
        assert not self.breakers.is_failing("demo")
        assert not self.breakers.admit("demo")

    def test_responses(self) -> None:
        """Any response concerns its page alone, as does a connection that is lost."""
        for error in (
            BROKEN,
            REJECTED,
            UpstreamFailed(ROOT, "status 503", retry_after=30.0),
            UpstreamFailed(ROOT, "the answer was cut short"),
            UpstreamFailed(ROOT, "the connection was closed"),
        ):
            self.setUp()
            for page in ("one", "two", "three"):
                self.note(error, page)
            assert self.cause("one") == error.cause
            assert self.cause("other") is None
            assert not self.breakers.admit("other")
            assert self.breakers.rate_limit is None

    def test_no_connection(self) -> None:
        """Without a connection the whole index fails; its error does not name another page."""
        self.note()
        assert self.cause("demo") == self.cause("other") == "connection refused"
        error = self.breakers.refusal("other")
        assert error is not None
        assert error.url == ROOT
        assert error.scope == "connection"

    def test_proxy(self) -> None:
        """A forward proxy that fails is named as it is."""
        self.note(ProxyFailed("proxy http://p.example", "timed out", scope="connection"))
        error = self.breakers.refusal("other")
        assert isinstance(error, ProxyFailed)
        assert error.url == "proxy http://p.example"

    def test_silence_beside_answers(self) -> None:
        """Silence is the page's own if any response head came since the request began."""
        since = self.clock.seconds()
        self.clock.advance(1)
        self.breakers.answered(200, since)
        self.clock.advance(4)
        self.breakers.failed("demo", REFUSED, since)
        assert (self.cause("demo"), self.cause("other")) == ("connection refused", None)

    def test_rate_limit(self) -> None:
        """429 concerns the index, beside answers, too, for as long as it says."""
        self.breakers.answered(200, 99.0)
        self.note(LIMITED)
        self.clock.advance(3)
        limit = self.breakers.rate_limit
        assert limit is not None
        assert (limit.url, limit.cause, limit.retry_after) == (ROOT, "status 429", 4.0)
        assert self.cause("other") == "status 429"
        self.clock.advance(4)
        assert self.breakers.rate_limit is None
        assert self.cause("other") is None

    def test_trial_after_a_rate_limit(self) -> None:
        """The trial that follows is not asked to wait once more."""
        self.note(LIMITED)
        self.clock.advance(7)
        assert self.breakers.admit("other")
        assert self.breakers.rate_limit is None

    def test_head(self) -> None:
        """Any response head closes the breaker of the index, and not that of the page."""
        for status in (200, 304, 404, 500, 503):
            self.setUp()
            self.note()
            self.breakers.answered(status, 99.0)
            assert (self.cause("demo"), self.cause("other")) == ("connection refused", None)
            self.breakers.succeeded("demo")
            assert self.cause("demo") is None

    def test_429_is_no_answer(self) -> None:
        """The head of a 429 does not."""
        self.note()
        self.breakers.answered(429, self.clock.seconds())
        assert self.cause("other") == "connection refused"

    def test_older_answer(self) -> None:
        """Nor does an answer to an older request end a ``Retry-After``."""
        self.note(LIMITED)
        self.clock.advance(1)
        self.breakers.answered(200, 99.0)
        assert self.cause("other") == "status 429"
        self.breakers.answered(200, 100.5)
        assert self.cause("other") is None

    def test_last_failure(self) -> None:
        """A client that gave up is told why the last try for its own page failed, if one did."""
        self.note(BROKEN)
        known = self.breakers.failed_since("demo", 100.0)
        assert known is not None
        assert known.cause == "status 500"
        assert self.breakers.failed_since("demo", 101.0) is None
        assert self.breakers.failed_since("other", 100.0) is None

    def test_bound(self) -> None:
        """The number of breakers does not grow with the number of pages that fail."""
        for number in range(MOST + 10):
            self.note(BROKEN, f"demo-{number}")
        assert not self.breakers.is_failing("demo-9")
        assert self.breakers.is_failing("demo-10")


class TrialTests(BreakersCase):
    """Half-open: one request is sent."""

    def test_one_trial(self) -> None:
        """Of many requests one is the trial; the others are held back for the next pause."""
        for error in (BROKEN, REFUSED):
            self.setUp()
            self.note(error)
            assert self.breakers.state("demo") is not State.HALF_OPEN
            self.clock.advance(1)
            assert self.breakers.state("demo") is State.HALF_OPEN
            assert self.breakers.admit("demo")
            for _ in range(100):
                assert self.breakers.state("demo") is not State.HALF_OPEN
                assert self.error_of_admission("demo").cause == error.cause

    def error_of_admission(self, page: str) -> UpstreamFailed:
        """Give why a request is not admitted."""
        try:
            self.breakers.admit(page)
        except UpstreamFailed as error:
            return error
        raise AssertionError("it is admitted")

    def test_one_trial_of_an_index(self) -> None:
        """While an index fails, one page at a time tries it."""
        self.note()
        self.clock.advance(0.5)
        assert self.breakers.admit("other")
        assert self.cause("third") == "connection refused"

    def test_lost_trial(self) -> None:
        """A trial of which nothing is heard is followed by another one."""
        self.note(BROKEN)
        self.clock.advance(1)
        assert self.breakers.admit("demo")
        self.clock.advance(2)
        assert self.breakers.admit("demo")

    def test_without_its_page(self) -> None:
        """A request that the stale page does not help heeds the index's breaker alone."""
        self.note(BROKEN)
        assert self.breakers.refusal("demo", ignore_page=True) is None
        assert not self.breakers.admit("demo", ignore_page=True)
        self.note(REFUSED, "other")
        assert self.breakers.refusal("demo", ignore_page=True) is not None

    def test_trials_in_a_long_outage(self) -> None:
        """An index that is gone is tried every two seconds, however many pages are wanted."""
        self.note()
        trials = 0
        for _ in range(600):
            for number in range(20):
                if self.cause(f"demo-{number}") is None:
                    self.breakers.admit(f"demo-{number}")
                    self.note(page=f"demo-{number}")
                    trials += 1
            self.clock.advance(0.1)
        assert 25 <= trials <= 32

    def test_a_page_that_hangs(self) -> None:
        """However often it is wanted, a good page gets its turn, and is well from then on."""
        assert INDEX_PAUSES[1] < PAGE_PAUSES[1] * 0.75
        self.note()
        served = []
        for tenth in range(1, 600):
            self.clock.advance(0.1)
            since = self.clock.seconds()
            if self.cause("demo") is None:
                self.breakers.admit("demo")  # and hangs
            if tenth % 130 == 0 and (good := self.cause("good") is None):
                self.breakers.admit("good")
                self.breakers.answered(200, since)
                self.breakers.succeeded("good")
                served.append(good)
            if tenth % 100 == 0:
                self.breakers.failed("demo", REFUSED, since)
        assert len(served) >= 3
        assert self.cause("good") is None
