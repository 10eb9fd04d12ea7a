"""The trouble of an index: what is remembered of it, and how it ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.task import Clock

from proxpi.index.health import ATTENTION, LONGEST_REST, MOST, Health
from proxpi.upstream.errors import CredentialsRejected, UpstreamFailed
from tests.support.upstreams import ROOT, Case

REFUSED = UpstreamFailed(ROOT, "connection refused")


class HealthCase(Case):
    """Tests of one index's health."""

    def setUp(self) -> None:
        """Begin in health."""
        self.clock = Clock()
        self.clock.advance(100)
        self.health = Health(self.clock)
        self.probes: list[float] = []

    def retry(self, outcome: Callable[[], object] = lambda: None) -> Callable[[], Awaitable[None]]:
        """Give a probe that notes when it was asked, and ends so."""

        async def probe() -> None:
            self.probes.append(self.clock.seconds())
            outcome()

        return probe

    def complain(
        self, key: str = "demo", error: UpstreamFailed = REFUSED, since: float = 100.0
    ) -> None:
        """Let asking for something fail, now and at each probe."""
        again = self.retry(lambda: self.complain(key, error, self.clock.seconds()))
        self.health.failed(key, error, since, again)

    def cause(self, key: str = "demo") -> str | None:
        """Give the known trouble."""
        trouble = self.health.trouble(key, self.retry())
        return None if trouble is None else trouble.cause


class TroubleTests(HealthCase):
    """Whom the trouble of an index concerns."""

    def test_none(self) -> None:
        """An index that nobody complained of is well."""
        assert self.cause() is None
        assert not self.health.fails("demo")

    def test_unreachable(self) -> None:
        """An index that did not begin to answer is in trouble for all pages."""
        self.complain()
        assert self.cause("demo") == self.cause("other") == "connection refused"

    def test_useless(self) -> None:
        """One that answered with an error is in trouble for this page alone."""
        self.health.answered()
        self.complain(error=UpstreamFailed(ROOT, "status 502"))
        assert (self.cause("demo"), self.cause("other")) == ("status 502", None)

    def test_any_answer(self) -> None:
        """Any answer shows that the index is there; the page that failed has to be seen yet."""
        self.complain()
        self.health.answered()
        assert (self.cause("demo"), self.cause("other")) == ("connection refused", None)

    def test_success(self) -> None:
        """An answer of use ends all trouble."""
        self.complain()
        self.complain("other")
        self.health.succeeded()
        assert (self.cause("demo"), self.cause("other")) == (None, None)

    def test_rest(self) -> None:
        """An index that asked to be left alone is, as long as it said, for all pages."""
        self.health.answered()
        error = UpstreamFailed(ROOT, "status 429", retry_after=7.0)
        self.health.failed("demo", error, 100.0, self.retry())
        self.clock.advance(3)
        trouble = self.health.trouble("other", self.retry())
        assert trouble is not None
        assert (trouble.cause, trouble.retry_after) == ("status 429", 4.0)
        self.clock.advance(4)
        assert self.health.resting is None

    def test_longest_rest(self) -> None:
        """It is not left alone for an hour."""
        self.complain(error=UpstreamFailed(ROOT, "status 503", retry_after=3600.0))
        resting = self.health.resting
        assert resting is not None
        assert resting.retry_after == LONGEST_REST

    def test_bound(self) -> None:
        """What is remembered does not grow with the number of pages that fail."""
        self.health.answered()
        for number in range(MOST + 10):
            self.complain(f"demo-{number}")
        assert not self.health.fails("demo-0")
        assert self.health.fails("demo-10")


class ProbeTests(HealthCase):
    """How the end of the trouble is noticed."""

    def pump(self, seconds: float) -> None:
        """Let time pass in small steps."""
        self.clock.pump([0.1] * int(seconds * 10))

    def test_while_it_lasts(self) -> None:
        """Every few seconds somebody tries again, one at a time."""
        self.complain()
        self.complain("other")
        self.pump(60)
        pauses = [
            later - earlier for earlier, later in zip(self.probes, self.probes[1:], strict=False)
        ]
        assert 9 <= len(self.probes) <= 60
        assert 0.5 <= min(pauses) <= max(pauses) <= 6.1

    def test_recovery(self) -> None:
        """A probe that is of use ends the trouble, and the probing."""
        self.health.failed("demo", REFUSED, 100.0, self.retry(self.health.succeeded))
        self.pump(2)
        assert self.cause() is None
        self.pump(60)
        assert len(self.probes) == 1
        assert self.clock.getDelayedCalls() == []

    def test_rest_is_kept(self) -> None:
        """No probe disturbs an index that asked to be left alone."""
        self.complain(error=UpstreamFailed(ROOT, "status 429", retry_after=20.0))
        self.pump(19.8)
        assert self.probes == []
        self.pump(1)
        assert len(self.probes) == 1

    def test_rejected_credentials(self) -> None:
        """Rejected credentials are not tried every few seconds."""
        self.complain(error=CredentialsRejected(ROOT, "credentials rejected", temporary=False))
        self.pump(95)
        assert len(self.probes) == 3

    def test_nobody_asks(self) -> None:
        """When nobody wants anything for long, the probes end, and so does the memory."""
        self.complain()
        self.pump(ATTENTION + 10)
        assert self.clock.getDelayedCalls() == []
        assert self.cause() is None

    def test_somebody_asks(self) -> None:
        """As long as somebody does, they go on."""
        self.complain()
        for _ in range(3):
            self.pump(ATTENTION / 2)
            assert self.cause() is not None

    def test_error_of_its_own(self) -> None:
        """A probe that breaks is logged, and does not end the probing."""

        def breaks() -> None:
            raise ZeroDivisionError

        self.health.failed("demo", REFUSED, 100.0, self.retry(breaks))
        self.pump(30)
        assert len(self.probes) > 3
        assert len(self.unhandled()) == len(self.probes)
