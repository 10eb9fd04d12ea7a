"""Circuit breakers: their states, and which failures concern a page or the whole index."""

from __future__ import annotations

import random

import pytest
from twisted.internet.task import Clock

from proxpi.index.breaker import (
    LONGEST,
    MOST,
    PAGE_PAUSES,
    Breaker,
    Breakers,
    State,
)
from proxpi.upstream.errors import CredentialsRejected, ProxyFailed, UpstreamFailed
from tests.support.cases import Case
from tests.support.indexes import ROOT

REFUSED = UpstreamFailed(f"{ROOT}demo/", "connection refused", scope="connection")
BROKEN = UpstreamFailed(f"{ROOT}demo/", "status 500")
REJECTED = CredentialsRejected(f"{ROOT}demo/", "credentials rejected", temporary=False)
LIMITED = UpstreamFailed(f"{ROOT}demo/", "status 429", retry_after=7.0, scope="rate limit")
PROXY = ProxyFailed("proxy http://p.example", "timed out", scope="connection")


class StateTests(Case):
    def setUp(self) -> None:
        self.put(random, "uniform", lambda least, most: most)
        self.breaker = Breaker(*PAGE_PAUSES)

    def pauses(self, error: UpstreamFailed, number: int) -> list[float]:
        """Return the pauses before so many trials that all fail so."""
        now, pauses = 0.0, []
        for trial in range(number):
            if trial:
                self.breaker.back_off(now)
            self.breaker.fail(error, now)
            pauses.append(self.breaker.retry_at - now)
            now = self.breaker.retry_at
        return pauses

    def test_states(self) -> None:
        """A failure opens it until `retry_at`, a trial again; a late failure does not extend it."""
        assert self.breaker.state(0.0) is State.CLOSED
        self.breaker.fail(BROKEN, 0.0)
        self.breaker.fail(REFUSED, 0.9)
        assert self.breaker.state(0.9) is State.OPEN
        assert self.breaker.state(1.0) is State.HALF_OPEN
        self.breaker.back_off(1.0)
        assert self.breaker.state(2.9) is State.OPEN
        self.breaker.close()
        assert self.breaker.state(2.9) is State.CLOSED
        assert self.pauses(BROKEN, 1) == [1.0]

    def test_backoff(self) -> None:
        """Pauses double up to 4 s; after rejected credentials up to 30 s, until another error."""
        assert self.pauses(BROKEN, 5) == [1.0, 2.0, 4.0, 4.0, 4.0]
        self.breaker.close()
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

    def test_varied(self) -> None:
        """Pauses vary, so that many proxies do not retry at the same time."""
        self.put(random, "uniform", random.Random(1).uniform)
        varied = set()
        for _ in range(20):
            self.breaker.close()
            varied |= set(self.pauses(BROKEN, 1))
        assert len(varied) == 20
        assert 0.75 <= min(varied) <= max(varied) <= 1.0


class BreakersTests(Case):
    def setUp(self) -> None:
        self.put(random, "uniform", lambda least, most: most)
        self.clock = Clock()
        self.clock.advance(100)
        self.breakers = Breakers(ROOT, self.clock)

    def note(self, error: UpstreamFailed = REFUSED, page: str = "demo") -> None:
        self.breakers.failed(page, error, self.clock.seconds())

    def cause(self, page: str = "demo") -> str | None:
        """Return the cause for which a request for a page is refused now."""
        error = self.breakers.refusal(page)
        return None if error is None else error.cause

    def test_scope(self) -> None:
        """A response and a lost connection concern the page; no connection and 429 the index."""
        for error, index_fails, url in (
            (BROKEN, False, ""),
            (REJECTED, False, ""),
            (UpstreamFailed(ROOT, "status 503", retry_after=30.0), False, ""),
            (UpstreamFailed(ROOT, "the answer was cut short"), False, ""),
            (UpstreamFailed(ROOT, "the connection was closed"), False, ""),
            (REFUSED, True, ROOT),
            (LIMITED, True, ROOT),
            (PROXY, True, "proxy http://p.example"),
        ):
            self.setUp()
            assert self.cause() is None
            assert self.breakers.state("demo") is State.CLOSED
            assert not self.breakers.admit("demo")
            for page in ("one", "two", "three"):
                self.note(error, page)
            assert self.cause("one") == error.cause
            other = self.breakers.refusal("other")
            if index_fails:
                # It does not name the page whose request failed.
                assert other is not None
                assert (other.url, other.scope, type(other) is ProxyFailed) == (
                    url,
                    error.scope,
                    error is PROXY,
                )
            else:
                assert other is None
                assert not self.breakers.admit("other")
                assert self.breakers.rate_limit is None

    def test_silence_beside_answers(self) -> None:
        """Silence is the page's own if any response head came since the request began."""
        since = self.clock.seconds()
        self.clock.advance(1)
        self.breakers.head_received(200, since)
        self.clock.advance(4)
        self.breakers.failed("demo", REFUSED, since)
        assert (self.cause("demo"), self.cause("other")) == ("connection refused", None)

    def test_rate_limit(self) -> None:
        """A ``Retry-After`` outlasts responses to older requests; then there is one trial."""
        self.breakers.head_received(200, 99.0)
        self.note(LIMITED)
        self.clock.advance(3)
        self.breakers.head_received(200, 99.0)
        limit = self.breakers.rate_limit
        assert limit is not None
        assert (limit.url, limit.cause, limit.retry_after) == (ROOT, "status 429", 4.0)
        assert self.cause("other") == "status 429"
        self.clock.advance(4)
        assert self.cause("other") is None
        assert self.breakers.admit("other")
        assert self.breakers.rate_limit is None
        assert self.cause("third") == "status 429"
        self.breakers.head_received(200, 101.0)
        assert self.cause("third") is None

    def test_head(self) -> None:
        """Any response head but a 429 closes the breaker of the index, and not that of the page."""
        for status, closes in ((200, 1), (304, 1), (404, 1), (500, 1), (503, 1), (429, 0)):
            self.setUp()
            self.note()
            self.breakers.head_received(status, 99.0)
            assert self.cause("demo") == "connection refused"
            assert self.cause("other") == (None if closes else "connection refused")
            self.breakers.succeeded("demo")
            assert self.cause("demo") == (None if closes else "connection refused")

    def test_bound(self) -> None:
        """The number of breakers does not grow with the number of pages that fail."""
        for number in range(MOST + 10):
            self.note(BROKEN, f"demo-{number}")
        assert not self.breakers.is_failing("demo-9")
        assert self.breakers.is_failing("demo-10")

    def test_one_trial(self) -> None:
        """Half-open, one request is admitted until the next pause is over, for page and index."""
        for error, page, pauses in ((BROKEN, "demo", (1, 2)), (REFUSED, "other", (0.5, 1))):
            self.setUp()
            self.note(error)
            for pause in pauses:  # a trial without an end is followed by another one
                assert self.breakers.state(page) is State.OPEN
                self.clock.advance(pause)
                assert self.breakers.state(page) is State.HALF_OPEN
                assert self.breakers.admit(page)
                for _ in range(100):
                    with pytest.raises(UpstreamFailed, match=error.cause):
                        self.breakers.admit(page)

    def test_ignored_page(self) -> None:
        """A request that the stale page does not help heeds the index's breaker alone."""
        self.note(BROKEN)
        assert self.breakers.refusal("demo", ignore_page=True) is None
        assert not self.breakers.admit("demo", ignore_page=True)
        self.note(REFUSED, "other")
        assert self.breakers.refusal("demo", ignore_page=True) is not None


class OutageTests(Case):
    def setUp(self) -> None:
        self.put(random, "uniform", lambda least, most: most)
        self.clock = Clock()
        self.clock.advance(100)
        self.breakers = Breakers(ROOT, self.clock, lambda: 1000.0 + self.clock.seconds())

    def fails(self, error: UpstreamFailed, page: str = "demo") -> None:
        self.breakers.failed(page, error, self.clock.seconds())

    def since(self) -> float | None:
        outage = self.breakers.outage
        return None if outage is None else outage.since

    def test_concerns_the_index(self) -> None:
        """No connection, 429 and rejected credentials are an outage; a bad page alone is none."""
        for error, begins in ((REFUSED, 1), (LIMITED, 1), (REJECTED, 1), (BROKEN, 0)):
            self.setUp()
            self.breakers.succeeded("demo")
            self.fails(error)
            self.fails(error)
            assert (self.since() is not None) == begins

    def test_two_pages(self) -> None:
        """Two bad pages are an outage since the first one, unless there is a success between."""
        self.breakers.succeeded("demo")
        self.fails(BROKEN)
        self.breakers.succeeded("other")
        self.fails(BROKEN, "third")
        assert self.since() is None
        self.clock.advance(5)
        self.fails(BROKEN)
        assert self.since() == 100

    def test_first_request(self) -> None:
        """An index that has never responded fails with its first request."""
        self.fails(BROKEN)
        assert self.since() == 100

    def test_end(self) -> None:
        """An outage lasts until the next success, which returns it with its last error."""
        assert self.breakers.succeeded("demo") is None
        self.fails(REFUSED)
        self.breakers.note_logged()
        self.clock.advance(10)
        self.breakers.head_received(500, self.clock.seconds())
        self.fails(BROKEN)
        assert self.since() == 100
        ended = self.breakers.succeeded("other")
        assert ended is not None
        assert (ended.since, ended.error.cause, ended.logged) == (100, BROKEN.cause, True)
        assert (self.since(), self.breakers.succeeded("demo")) == (None, None)

    def test_next_try(self) -> None:
        """The next try is that of the index, else that of the first page; none once it is due."""
        assert self.breakers.retry_at is None
        self.fails(BROKEN)
        self.clock.advance(0.5)
        self.fails(BROKEN, "other")
        assert self.breakers.retry_at == 101
        self.fails(REFUSED, "third")
        assert self.breakers.retry_at == 101
        self.clock.advance(0.25)
        self.breakers.head_received(200, self.clock.seconds())
        self.clock.advance(0.5)
        assert self.breakers.retry_at == 101.5
        self.clock.advance(1)
        assert self.breakers.retry_at is None
