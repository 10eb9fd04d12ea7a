"""Revalidation: its decisions, deadlines and retries, and pages while an index fails."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest
from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.web.client import ResponseNeverReceived
from werkzeug.http import http_date

from proxpi.index import revalidation
from proxpi.index.breaker import Breakers, State
from proxpi.index.page_cache import NoSuchProject, Page
from proxpi.index.page_store import PageStore
from proxpi.index.revalidation import (
    COLD_DEADLINE,
    MIN_PROGRESS,
    PROGRESS_WINDOW,
    Decision,
    Progress,
    decide,
    with_retries,
)
from proxpi.simple import parse
from proxpi.single_flight import Flights, WaitTimeout
from proxpi.upstream.errors import Offline, TLSFailed, UpstreamFailed
from tests.support.agent import Reply
from tests.support.cases import Case, run
from tests.support.indexes import EXTRA, ROOT, project_page
from tests.support.pages import AT_EXTRA, AT_ROOT, HTML, JSON, PagesCase, files

REFUSED = UpstreamFailed(f"{ROOT}demo/", "connection refused", scope="connection")
CLOSED, OPEN, HALF_OPEN = State.CLOSED, State.OPEN, State.HALF_OPEN
PRIVATE = ROOT.replace("//", "//user:secret@")
OTHER, COLD = f"{ROOT}other/", f"{ROOT}cold/"
ELSEWHERE = "https://mirror.example/demo/"
IN_TEN_MINUTES = http_date(datetime.now(UTC) + timedelta(seconds=600))
LOOP = Reply(302, headers={"Location": AT_ROOT})
#: Failures of one page. A response of any status is one, with or without ``Retry-After``.
PAGE_FAILURES: list[Reply | Exception] = [
    *(
        Reply(status, (b"no",), {"Content-Type": "text/plain"})
        for status in (204, 400, 401, 402, 403, 405, 408, 412, 418, 425, 451)
    ),
    *(Reply(status) for status in (500, 501, 502, 503, 504, 507, 520, 599)),
    *(
        Reply(status, headers={"Retry-After": value})
        for status in (500, 502, 503)
        for value in ("0", "2", "30", IN_TEN_MINUTES)
    ),
    Reply(200, (b"welcome",)),
    Reply(200, (b"\x89PNG\r\n",), {"Content-Type": "image/png"}),
    Reply(200, (b"garbage",), {"Content-Encoding": "gzip"}),
    Reply(200, (b'{"files"',), ends=ConnectionError),
    LOOP,
    Reply(302, headers={"Location": ELSEWHERE}),
    project_page(version="2.0"),
    error.ConnectionLost(),
    ResponseNeverReceived([Failure(error.ConnectionDone())]),
]
#: Failures of the index: no connection, or too many requests.
INDEX_FAILURES: list[Reply | Exception] = [
    error.ConnectionRefusedError(),
    error.DNSLookupError("root.example"),
    error.NoRouteError(),
    error.TimeoutError(),
    error.TCPTimedOutError(),
    TLSFailed("TLS failed: the certificate of root.example has expired", temporary=False),
    Reply(429),
    Reply(429, headers={"Retry-After": "2"}),
    Reply(429, headers={"Retry-After": IN_TEN_MINUTES}),
]


def retry_after(failure: Reply | Exception) -> bool:
    return isinstance(failure, Reply) and "Retry-After" in failure.headers


@pytest.mark.parametrize(
    ("breakers", "usable", "forced", "decision"),
    [
        ([], False, False, Decision.FRESH),
        ([OPEN], False, False, Decision.WAIT_COLD),
        ([OPEN], False, True, Decision.WAIT_COLD),
        ([OPEN], True, True, Decision.WAIT),
        ([OPEN, OPEN], True, False, Decision.STALE),
        ([OPEN, HALF_OPEN], True, False, Decision.TRIAL),
        ([CLOSED, HALF_OPEN], True, False, Decision.TRIAL),
        ([CLOSED, OPEN], True, False, Decision.WAIT),
        ([CLOSED], True, False, Decision.WAIT),
    ],
)
def test_decide(breakers: Sequence[State], usable: bool, forced: bool, decision: Decision) -> None:
    """The decision follows the table."""
    assert decide(breakers, usable=usable, forced=forced) is decision


class ProgressTests(Case):
    def test_progress(self) -> None:
        """A response that arrives steadily is slow and not failed; single bytes do not count."""
        clock, progress = Clock(), Progress()

        async def hang() -> None:
            await Deferred()

        flight = Flights[str, None](clock).join("demo", hang)
        wait = flight.wait(clock.seconds() + PROGRESS_WINDOW, progress.extend(clock))
        for _ in range(60):
            progress.add(MIN_PROGRESS // 5)
            clock.advance(1)
        self.pending(wait)
        assert not progress.hangs
        for _ in range(11):
            progress.add(1)
            clock.advance(1)
        self.error(wait, WaitTimeout)
        progress.begin()
        assert progress.hangs
        progress.add(0)  # a response head
        assert not progress.hangs


class RetryTests(Case):
    def setUp(self) -> None:
        self.clock = Clock()
        self.breakers = Breakers(ROOT, self.clock)

    def ask(self, *outcomes: UpstreamFailed | str) -> Deferred[str]:
        """Send a request with these outcomes, one try after another; the last one stays."""
        left = list(outcomes)
        self.began, self.asked = self.clock.seconds(), list[float]()

        async def ask() -> str:
            self.asked.append(self.clock.seconds() - self.began)
            outcome = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(outcome, UpstreamFailed):
                raise outcome
            return outcome

        latest = self.began + COLD_DEADLINE
        return run(with_retries(ask, self.breakers, self.clock, 4, lambda: latest))

    def test_outage(self) -> None:
        """A short outage is bridged; after 4 tries inside 10 s the last failure is raised."""
        assert self.result(self.ask("page")) == "page"
        ask = self.ask(REFUSED, REFUSED, "page")
        self.clock.pump([0.1] * 20)
        assert (self.result(ask), len(self.asked)) == ("page", 3)
        ask = self.ask(REFUSED)
        self.clock.pump([0.1] * 100)
        assert self.error(ask, UpstreamFailed).cause == "connection refused"
        assert len(self.asked) == 4
        assert self.asked[-1] < 10

    def test_no_retry(self) -> None:
        """There is no retry where waiting does not help, or no time is left."""
        for failure in (
            UpstreamFailed(ROOT, "status 400", temporary=False),
            Offline(ROOT, "it is not cached"),
            UpstreamFailed(ROOT, "status 503", retry_after=16.0),
        ):
            self.error(self.ask(failure), UpstreamFailed)
            assert len(self.asked) == 1
        silence: Deferred[str] = Deferred()

        async def ask() -> str:
            return await silence

        latest = self.clock.seconds() + COLD_DEADLINE
        asking = run(with_retries(ask, self.breakers, self.clock, 4, lambda: latest))
        self.clock.advance(20)
        silence.errback(REFUSED)
        self.error(asking, UpstreamFailed)

    def test_retry_after(self) -> None:
        """A pause is at least ``Retry-After``, that of a 429 for another page included."""
        ask = self.ask(UpstreamFailed(ROOT, "status 503", retry_after=6.0), "page")
        self.clock.pump([0.5] * 13)
        assert (self.result(ask), self.asked) == ("page", [0.0, 6.0])
        limited = UpstreamFailed(ROOT, "status 429", retry_after=6.0, scope="rate limit")
        self.breakers.failed("other", limited, self.clock.seconds())
        ask = self.ask("page")
        self.clock.pump([0.5] * 13)
        assert (self.result(ask), self.asked) == ("page", [6.0])
        limited.retry_after = 25.0
        self.breakers.failed("other", limited, self.clock.seconds())
        failure = self.error(self.ask("page"), UpstreamFailed)
        assert (failure.cause, failure.retry_after, self.asked) == ("status 429", 25.0, [])


class StaleTests(PagesCase):
    """One index that served a page, and then fails."""

    def setUp(self) -> None:
        super().setUp()
        self.indexes.says(AT_ROOT, project_page("a.zip").having(ETag='"x"'))
        self.fresh = self.page()
        self.clock.advance(2000)

    def assert_stale(self, page: Page | None) -> None:
        assert page is not None
        assert (page.status, page.remaining, page.body) == ("STALE", 0.0, self.fresh.body)
        assert page.age >= 2000

    def test_failures(self) -> None:
        """However the index fails, the page stays, however old, in all representations."""
        for failure in (INDEX_FAILURES[0], Reply(500)):
            self.setUp()
            self.indexes.says(AT_ROOT, failure)
            self.clock.advance(10_000_000)
            self.assert_stale(self.slow_page())
            self.assert_stale(self.page())
            self.assert_stale(self.pages.ready("demo", JSON, False))
            html = self.result(self.ask(form=HTML))
            assert (html.status, b"a.zip" in html.body.data) == ("STALE", True)

    def test_own_error(self) -> None:
        """An error of proxpi's own is logged, and leaves the page, if there is one."""

        def breaks(*_: object) -> None:
            raise ZeroDivisionError

        self.put(parse, "parse_project", breaks)
        self.assert_stale(self.page())
        self.error(self.ask("cold"), NoSuchProject)
        self.indexes.says(COLD, project_page("c.zip"))
        self.clock.advance(61)
        self.error(self.ask("cold"), ZeroDivisionError)  # without a page to fall back on
        (failure,) = self.unhandled()
        assert "ZeroDivisionError" in repr(failure.value)

    def test_recovery(self) -> None:
        """A few seconds after the outage the page is fresh: changed, or confirmed."""
        for reply, status in ((project_page("b.zip"), "MISS"), (Reply(304), "REVALIDATED")):
            self.setUp()
            self.indexes.says(AT_ROOT, Reply(500))
            with capturedLogs() as events:
                self.assert_stale(self.slow_page())
            (event,) = [each for each in events if each["log_level"] == LogLevel.warn]
            assert formatEvent(event) == (
                f"index root.example: {AT_ROOT}: status 500; the stale page of demo, of "
                f"{datetime.fromtimestamp(self.epoch, UTC):%Y-%m-%d %H:%M} UTC, is served; "
                "wait, or tell the operator of that server"
            )
            self.clock.pump([0.5] * 40)
            self.assert_stale(self.page())
            self.indexes.says(AT_ROOT, reply)
            self.clock.pump([0.5] * 12)
            page = self.page()
            assert page.status == status
            assert page.remaining > 1790.0

    def test_slow(self) -> None:
        """Clients wait until 5 s after the request; it continues, and its response is used."""
        self.agent.silent.add(AT_ROOT)
        first = self.ask()
        self.clock.advance(4.9)
        second = self.ask()
        self.pending(first)
        self.clock.advance(0.2)
        self.assert_stale(self.result(first))
        self.assert_stale(self.result(second))
        self.assert_stale(self.page())
        self.indexes.says(AT_ROOT, project_page("b.zip"))
        self.agent.release(AT_ROOT)
        self.clock.advance(10)
        page = self.page()
        assert (page.status, files(page), self.agent.count(AT_ROOT)) == ("HIT", ["b.zip"], 2)

    def test_refused_validators(self) -> None:
        """Where the index fails at conditional requests, the page is fresh all the same."""
        for status in (400, 402, 405, 406, 409, 411, 412, 416, 417, 422, 428, 500, 501, 502, 503):
            self.build(ROOT)
            self.indexes.says(AT_ROOT, project_page("a.zip").having(ETag='"x"'))
            self.page()
            self.agent.conditional = Reply(status)
            for number in range(3):
                self.clock.advance(2000)
                self.indexes.says(AT_ROOT, project_page(f"{number}.zip").having(ETag='"x"'))
                ask = self.ask()
                self.clock.advance(0.4)
                page = self.result(ask)
                assert (page.status, files(page)) == ("MISS", [f"{number}.zip"]), status
            assert self.agent.count(AT_ROOT) == 7

    def test_old_copy(self) -> None:
        """A page with a lower serial is a failure, until an index reaches the known one again."""
        known, old = (
            project_page(file).having(ETag=f'"{file}"', X_PyPI_Last_Serial=serial)
            for file, serial in (("new.zip", "10"), ("old.zip", "9"))
        )
        self.indexes.says(AT_ROOT, known)
        self.fresh = self.page()
        self.clock.advance(2000)
        self.indexes.says(AT_ROOT, old)
        with capturedLogs() as events:
            ask = self.ask()
            self.clock.advance(0.4)
            self.assert_stale(self.result(ask))
        (event,) = [each for each in events if each["log_level"] == LogLevel.warn]
        assert "its serial 9 is lower than 10" in formatEvent(event)
        asked = self.agent.count(AT_ROOT)
        self.assert_stale(self.page())
        assert self.agent.count(AT_ROOT) == asked  # the breaker is open
        self.clock.advance(5)
        self.assert_stale(self.page())
        assert self.agent.count(AT_ROOT) == asked + 1
        self.start()
        self.assert_stale(self.slow_page())
        self.indexes.says(AT_ROOT, project_page("b.zip").having(X_PyPI_Last_Serial="10"))
        self.clock.advance(5)
        page = self.page()
        assert (page.status, files(page)) == ("MISS", ["b.zip"])

    def test_old_copy_after_a_delete(self) -> None:
        """DELETE forgets the serial, also over a restart: any page is fresh then."""
        for restarts in (False, True):
            self.indexes.says(AT_ROOT, project_page("new.zip").having(X_PyPI_Last_Serial="10"))
            self.entries.invalidate("demo")
            assert files(self.page()) == ["new.zip"]
            self.indexes.says(AT_ROOT, project_page("old.zip").having(X_PyPI_Last_Serial="9"))
            self.entries.invalidate("demo")
            if restarts:
                self.start()
            page = self.page()
            assert (page.status, files(page)) == ("MISS", ["old.zip"])

    def test_forced(self) -> None:
        """After a DELETE the first client waits for a silent index, the next ones do not."""
        self.entries.invalidate("demo")
        self.agent.silent.add(AT_ROOT)
        ask = self.ask()
        self.clock.advance(4.9)
        self.pending(ask)
        for _ in range(10):
            self.clock.advance(0.5)
            assert self.result(ask).status == "STALE"
            ask = self.ask()


class RefreshTests(PagesCase):
    """Clients that want a page to be revalidated now, be it fresh or not."""

    def setUp(self) -> None:
        super().setUp()
        self.indexes.says(AT_ROOT, project_page("a.zip").having(ETag='"x"'))
        self.page()
        self.clock.advance(100)

    def status(self, ask: Deferred[Page]) -> str:
        return self.result(ask).status

    def may_be_ready(self) -> bool:
        return self.pages.ready("demo", JSON, False, refresh=True) is not None

    def test_conditional(self) -> None:
        """The request is conditional; a 304 renews the page, and another page replaces it."""
        self.agent.conditional = Reply(304)
        page = self.result(self.refresh())
        assert (page.status, page.remaining, page.age) == ("REVALIDATED", 1800.0, 0.0)
        assert self.agent.asked[-1].header("If-None-Match") == '"x"'
        self.clock.advance(5)
        self.agent.conditional = None
        self.indexes.says(AT_ROOT, project_page("b.zip"))
        saving = mock.patch.object(PageStore, "save", autospec=True, side_effect=PageStore.save)
        with saving as save:
            page = self.result(self.refresh())
        assert (page.status, files(page), page.remaining) == ("MISS", ["b.zip"], 1800.0)
        assert save.call_count == 1, "it is rendered together with the new page"
        assert self.page().status == "HIT"

    def test_once_in_five_seconds(self) -> None:
        """For five seconds after a request to the index a refresh is like any other request."""
        for outcome in ("MISS", "STALE"):
            assert not self.may_be_ready()
            assert self.status(self.refresh()) == outcome
            asked = self.agent.count(AT_ROOT)
            for _ in range(2):
                assert self.may_be_ready()
                assert self.status(self.refresh()) == "HIT"
                self.clock.advance(2.4)
            assert self.agent.count(AT_ROOT) == asked
            self.clock.advance(0.2)
            self.indexes.says(AT_ROOT, Reply(501))
            self.put(revalidation, "STALE_TRIES", 1)

    def test_joined(self) -> None:
        """A refresh joins the request of another client, and that of another refresh."""
        self.agent.silent.add(AT_ROOT)
        asked = self.agent.count(AT_ROOT)
        first = self.refresh()
        self.clock.advance(1)
        assert self.page().status == "HIT", "others have the fresh page"
        second = self.refresh()
        self.clock.advance(1)
        self.agent.release(AT_ROOT)
        assert self.status(first) == self.status(second) == "MISS"
        assert self.agent.count(AT_ROOT) == asked + 1
        for begin in (self.ask, self.prefetch):
            self.clock.advance(2000)
            self.agent.silent.add(AT_ROOT)
            begin()
            self.clock.advance(1)
            third = self.refresh()
            self.agent.release(AT_ROOT)
            assert self.status(third) == "MISS"
        assert self.agent.count(AT_ROOT) == asked + 3

    def test_joined_trial(self) -> None:
        """A refresh of a page that has just failed waits for a request under way, as long as it."""
        self.clock.advance(2000)
        self.indexes.says(AT_ROOT, Reply(501))
        self.slow_page()
        self.clock.advance(1)
        self.agent.silent.add(AT_ROOT)
        trial, refresh = self.ask(), self.refresh()
        self.clock.advance(1)
        assert self.status(trial) == "STALE"
        self.pending(refresh)
        self.indexes.says(AT_ROOT, project_page("b.zip"))
        asked = self.agent.count(AT_ROOT)
        self.agent.release(AT_ROOT)
        assert self.status(refresh) == "MISS"
        assert self.agent.count(AT_ROOT) == asked

    def test_waits(self) -> None:
        """A refresh waits for a slow index, for which others do not wait, until it responds."""
        self.clock.advance(2000)
        self.agent.silent.add(AT_ROOT)
        refresh, other = self.refresh(), self.ask()
        self.clock.advance(5.1)
        assert self.status(other) == "STALE"
        self.clock.advance(13)
        self.pending(refresh)
        self.indexes.says(AT_ROOT, project_page("b.zip"))
        self.agent.release(AT_ROOT)
        assert self.status(refresh) == "MISS"

    def test_silence(self) -> None:
        """The wait for an index that never responds ends with its time-out."""
        self.agent.silent.add(AT_ROOT)
        refresh = self.refresh()
        self.clock.pump([0.5] * 60)
        assert self.status(refresh) == "STALE"

    def test_failures(self) -> None:
        """If the index fails, the client gets the stale page; it stays fresh for others."""
        for failure in (*PAGE_FAILURES, *INDEX_FAILURES):
            self.setUp()
            self.indexes.says(ELSEWHERE, Reply(500))
            self.indexes.says(AT_ROOT, failure)
            refresh = self.refresh()
            self.clock.pump([0.5] * 20)
            page = self.result(refresh)
            assert (page.status, page.remaining, files(page)) == ("STALE", 0.0, ["a.zip"])
            assert page.age >= 100
            assert self.page().status == "HIT"

    def test_index_fails(self) -> None:
        """What another page has shown of the index refuses a refresh at once; a 429 is heeded."""
        for failure in INDEX_FAILURES:
            self.setUp()
            self.put(revalidation, "PAUSES", (0.0, 0.0, 0.0))
            self.indexes.says(OTHER, failure)
            ask = self.ask("other")
            while not ask.called:
                self.clock.advance(0.1)
            self.error(ask, UpstreamFailed)
            asked = self.agent.count(AT_ROOT)
            for _ in range(3):
                assert self.status(self.refresh()) == "STALE"
            assert self.agent.count(AT_ROOT) == asked
            self.clock.advance(31)
            assert self.status(self.refresh()) == "MISS"

    def test_page_fails(self) -> None:
        """The breaker of the page, for which others do not wait, refuses no refresh."""
        self.clock.advance(2000)
        self.indexes.says(AT_ROOT, Reply(503, headers={"Retry-After": "30"}))
        self.page()
        asked = self.agent.count(AT_ROOT)
        self.clock.advance(4)
        assert self.status(self.refresh()) == "STALE", "it has just failed"
        self.clock.advance(2)
        assert self.page().status == "STALE"
        assert self.agent.count(AT_ROOT) == asked
        self.indexes.says(AT_ROOT, project_page("b.zip"))
        assert self.status(self.refresh()) == "MISS"

    def test_several_indexes(self) -> None:
        """All indexes are requested, except those that have responded or failed just now."""
        page = project_page("a.zip")
        self.begin(page, page)
        self.page()
        self.clock.advance(10)
        assert self.status(self.refresh()) == "MISS"
        assert self.agent.urls() == [AT_ROOT, AT_EXTRA] * 2
        self.clock.advance(181)  # the second is stale
        assert self.status(self.ask()) == "MISS"
        self.clock.advance(1)
        assert self.status(self.refresh()) == "MISS"
        assert self.agent.urls()[4:] == [AT_EXTRA, AT_ROOT]
        self.indexes.says(AT_EXTRA, Reply(501))
        self.clock.advance(10)
        refresh = self.refresh()
        self.clock.advance(1)
        assert self.status(refresh) == "STALE"
        self.clock.advance(3)
        assert self.may_be_ready()

    def test_absent(self) -> None:
        """A project that was absent is requested as well, and so is one without a page."""
        self.error(self.ask("other"), NoSuchProject)
        self.clock.advance(10)
        self.error(self.ask("other"), NoSuchProject)
        asked = self.agent.count(OTHER)
        self.error(self.refresh("other"), NoSuchProject)
        assert self.agent.count(OTHER) == asked + 1
        self.indexes.says(OTHER, project_page("o.zip"))
        self.error(self.refresh("other"), NoSuchProject)
        self.clock.advance(5)
        assert self.status(self.refresh("other")) == "MISS"
        self.indexes.says(COLD, project_page("c.zip"))
        assert self.status(self.refresh("cold")) == "MISS"

    def test_offline(self) -> None:
        """Offline, no request is sent, and the page is stale."""
        self.indexes.upstream.offline = True
        assert self.status(self.refresh()) == "STALE"

    def test_after_a_delete(self) -> None:
        """After a DELETE a refresh sends the request without validators, as any other."""
        self.entries.invalidate("demo")
        assert self.status(self.refresh()) == "MISS"
        assert self.agent.asked[-1].header("If-None-Match") is None


class BackgroundTests(PagesCase):
    """Prefetches of pages from an index that fails or hangs."""

    def setUp(self) -> None:
        super().setUp()
        self.indexes.says(AT_ROOT, project_page("a.zip"))

    def test_no_retry(self) -> None:
        """A failed request is not sent again, opens the breakers, and is no error of the caller."""
        for failure in (Reply(500), error.ConnectionRefusedError()):
            self.setUp()
            self.indexes.says(AT_ROOT, failure)
            assert self.result(self.prefetch())
            assert self.clock.getDelayedCalls() == []
            for seconds in (0, 100):
                self.clock.advance(seconds)
                assert not self.result(self.prefetch()), "the breaker is open, then half-open"
            assert self.agent.count(AT_ROOT) == 1
            self.indexes.says(AT_ROOT, project_page("a.zip"))
            assert self.page().status == "MISS"

    def test_rate_limit(self) -> None:
        """While a ``Retry-After`` runs, nothing is sent to the index."""
        self.indexes.says(OTHER, Reply(429, headers={"Retry-After": "20"}))
        assert self.result(self.prefetch("other"))
        assert not self.result(self.prefetch())
        self.clock.advance(10)
        assert not self.result(self.prefetch())
        assert len(self.agent.asked) == 1

    def test_joined_before_a_failure(self) -> None:
        """A client that joined gets as many tries as if it had begun, cold or with a stale page."""
        for stale, tries in ((False, 4), (True, 2)):
            for joins in (False, True):
                self.setUp()
                if stale:
                    self.page()
                    self.clock.advance(2000)
                asked = self.agent.count(AT_ROOT)
                self.agent.silent.add(AT_ROOT)
                if joins:
                    self.prefetch()
                    self.clock.advance(15)
                ask = self.ask()
                sent = self.agent.count(AT_ROOT)
                assert sent - asked == 1 + joins, "a flight that hangs for 15 s is not joined"
                self.indexes.says(AT_ROOT, Reply(500))
                self.agent.release(AT_ROOT)
                self.clock.pump([0.5] * 20)
                if stale:
                    assert self.result(ask).status == "STALE"
                else:
                    assert self.error(ask, UpstreamFailed).cause == "status 500"
                assert self.agent.count(AT_ROOT) - sent == tries - 1
                assert sent - asked == 1 + joins, "a flight that hangs for 15 s is not joined"

    def test_joined_in_time(self) -> None:
        """A client joins a flight that hangs only for a while, and has the deadlines of its own."""
        for stale in (False, True):
            self.setUp()
            if stale:
                self.page()
                self.clock.advance(2000)
            self.agent.silent.add(AT_ROOT)
            asked = self.agent.count(AT_ROOT)
            flight = self.prefetch()
            self.clock.advance(4)
            ask = self.ask()
            self.clock.pump([0.1] * 49)
            self.pending(ask)
            self.clock.pump([0.1] * 2 if stale else [0.1] * 60)
            if stale:
                assert self.result(ask).status == "STALE"
            else:
                assert self.error(ask, UpstreamFailed).cause == "timed out"
            assert self.agent.count(AT_ROOT) == asked + 1
            self.agent.release(AT_ROOT)
            assert self.result(flight)
            assert self.page().status == "HIT"

    def test_retried_for_a_client(self) -> None:
        """A request that a client joined is sent again after it failed, and then succeeds."""
        self.agent.silent.add(AT_ROOT)
        flight, ask = self.prefetch(), self.ask()
        self.agent.answer(AT_ROOT, Reply(503))
        self.pending(ask)
        self.agent.silent.clear()
        self.clock.advance(1)
        assert (self.result(ask).status, self.result(flight)) == ("MISS", True)
        assert self.agent.count(AT_ROOT) == 2

    def test_hangs(self) -> None:
        """A client starts a flight beside one that hangs for longer than a client would wait."""
        self.agent.silent.add(AT_ROOT)
        flight = self.prefetch()
        self.clock.advance(5)
        self.agent.silent.clear()
        assert self.page().status == "MISS"
        self.pending(flight)
        self.agent.answer(AT_ROOT, Reply(500))
        assert self.result(flight)
        self.clock.advance(2000)
        assert self.page().status == "MISS"

    def test_failed_in_part(self) -> None:
        """A client that comes while one of two indexes has failed gets its own tries of that."""
        self.begin(project_page("a.zip"), project_page("b.zip"))
        self.agent.silent |= {AT_ROOT, AT_EXTRA}
        self.prefetch()
        self.agent.answer(AT_ROOT, Reply(503))
        self.agent.silent.discard(AT_ROOT)
        ask = self.ask()
        self.agent.release(AT_EXTRA)
        assert files(self.result(ask)) == ["a.zip", "b.zip"]
        assert (self.agent.count(AT_ROOT), self.agent.count(AT_EXTRA)) == (2, 1)


class ColdTests(PagesCase):
    def test_retry_after(self) -> None:
        """The failure is raised with its ``Retry-After``."""
        self.indexes.says(AT_ROOT, Reply(503, headers={"Retry-After": "17"}))
        assert self.error(self.ask(), UpstreamFailed).retry_after == 17.0

    def test_timeout(self) -> None:
        """A client waits 10 s, and is told the last failure; the flight continues."""
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        self.agent.silent.add(AT_ROOT)
        ask = self.ask()
        self.clock.advance(4)
        later = self.ask()
        self.clock.pump([0.1] * 59)
        self.pending(ask)
        self.clock.advance(0.2)
        assert self.error(ask, UpstreamFailed).cause == "timed out"
        self.pending(later)  # each client has 10 s of its own
        later.addErrback(lambda _: None)
        self.agent.release(AT_ROOT)
        assert self.page().status == "HIT"
        self.build(ROOT)
        self.indexes.says(AT_ROOT, error.ConnectError())
        ask = self.ask()
        self.agent.silent.add(AT_ROOT)
        self.clock.pump([0.5] * 21)
        assert self.error(ask, UpstreamFailed).cause == "could not connect"

    def test_absence(self) -> None:
        """An absence is nothing to fall back on, also of a project that was there before."""
        for before in (Reply(404), project_page("a.zip")):
            self.begin(before)
            self.ask().addErrback(lambda _: None)
            self.clock.advance(1801)
            self.indexes.says(AT_ROOT, Reply(404))
            self.error(self.ask(), NoSuchProject)
            self.clock.advance(61)
            self.indexes.says(AT_ROOT, Reply(500))
            self.fails(self.ask())
            self.start()
            self.fails(self.ask())
            assert self.url("a.zip") is None


class SeveralTests(PagesCase):
    def test_cold(self) -> None:
        """No index is served alone while another never responded, not even if it lacks it."""
        for failing in (0, 1):
            pages = [project_page("a.zip"), project_page("b.zip")]
            for other in (pages[1 - failing], Reply(404)):
                self.begin(*((Reply(500), other) if failing == 0 else (other, Reply(500))))
                for _ in range(2):
                    assert self.fails(self.ask()).url == (AT_ROOT, AT_EXTRA)[failing]
                assert self.pages.ready("demo", JSON, False) is None
                assert self.url("a.zip") is None
                assert self.url("b.zip") is None
                assert self.agent.count((AT_EXTRA, AT_ROOT)[failing]) == 1
            for address, page in zip((AT_ROOT, AT_EXTRA), pages, strict=True):
                self.indexes.says(address, page)
            self.clock.advance(61)
            assert files(self.page()) == ["a.zip", "b.zip"]

    def test_stale(self) -> None:
        """The last response of the failing index keeps its place, a page or an absence."""
        a, b, new = (project_page(name) for name in ("a.zip", "b.zip", "new.zip"))
        for before, after, listed in (
            ((a, b), (Reply(500), new), ["a.zip", "new.zip"]),
            ((a, b), (new, Reply(500)), ["new.zip", "b.zip"]),
            ((Reply(404), b), (Reply(500), new), ["new.zip"]),
        ):
            self.begin(*before)
            self.page()
            self.clock.advance(2000)
            for address, reply in zip((AT_ROOT, AT_EXTRA), after, strict=True):
                self.indexes.says(address, reply)
            page = self.slow_page()
            assert (page.status, files(page), page.age >= 2000) == ("STALE", listed, True)


class ScopeCase(PagesCase):
    def hold(self, url: str = ROOT) -> None:
        """Hold two stale pages with validators; each has got a new file since."""
        self.build(url)
        self.indexes.says(ELSEWHERE, error.ConnectionRefusedError())
        for name in ("demo", "other"):
            self.indexes.says(f"{ROOT}{name}/", project_page("a.zip").having(ETag='"1"'))
            self.page(name)
        self.clock.advance(2000)
        for address in (AT_ROOT, OTHER, COLD):
            self.indexes.says(address, project_page("b.zip"))

    def stale(self, name: str = "demo") -> None:
        """Request a page; its first client gets the stale one within 5 s."""
        ask = self.ask(name)
        self.clock.pump([0.1] * 51)
        assert self.result(ask).status == "STALE"

    def at_once(self, name: str = "demo") -> str:
        """Return the status of a page, for which a client waits half a second at most."""
        ask = self.ask(name)
        if not ask.called:
            self.clock.advance(0.5)
        return self.result(ask).status

    def hammer(self, seconds: int) -> int:
        before = self.agent.count(AT_ROOT)
        for _ in range(seconds * 4):
            assert self.at_once() == "STALE"
            self.clock.advance(0.25)
        return self.agent.count(AT_ROOT) - before

    def assert_fresh_within(self, name: str, most: float) -> None:
        """After so many seconds a client gets the fresh page that there is now."""
        began = self.clock.seconds()
        while self.at_once(name) == "STALE":
            self.clock.advance(0.1)
            assert self.clock.seconds() - began <= most
        assert files(self.page(name)) == ["b.zip"]


class PageScopeTests(ScopeCase):
    def test_other_pages(self) -> None:
        """Other pages and cold ones are fresh, however often bad ones are requested."""
        for url in (ROOT, PRIVATE):
            for failure in PAGE_FAILURES:
                self.hold(url)
                self.indexes.says(AT_ROOT, failure)
                self.indexes.says(f"{ROOT}bad/", Reply(500))
                run(self.pages.fetch("bad", JSON, False)).addErrback(lambda _: None)
                self.stale()
                self.hammer(3)
                page = self.page("other")
                assert (page.status, files(page)) == ("MISS", ["b.zip"]), failure
                assert self.page("cold").status == "MISS"
                # A signed link of another page is renewed; one of the bad page has its own error.
                assert self.result(run(self.pages.refetch_file("other", "b.zip"))) is not None
                ask = run(self.pages.refetch_file("demo", "b.zip"))
                self.clock.pump([0.1] * 51)
                assert self.error(ask, UpstreamFailed).url in (AT_ROOT, ELSEWHERE)

    def test_upstream_requests(self) -> None:
        """A bad page is requested every few seconds at most, and then in 30."""
        for failure in PAGE_FAILURES:
            self.hold()
            self.indexes.says(AT_ROOT, failure)
            self.stale()
            # A 4xx may be due to the validators: each request is repeated without them.
            hops = 11 if failure == LOOP else 2
            assert 1 <= self.hammer(30) <= 12 * hops, failure
            rejected = isinstance(failure, Reply) and failure.status in (401, 403)
            self.indexes.says(AT_ROOT, project_page("b.zip"))
            self.assert_fresh_within("demo", 30.0 if rejected or retry_after(failure) else 4.0)

    def test_cold(self) -> None:
        """A client without a stale page has a request sent, in any state of the breaker."""
        for failure in PAGE_FAILURES + INDEX_FAILURES[:1]:
            self.build(PRIVATE)
            self.indexes.says(ELSEWHERE, error.ConnectionRefusedError())
            self.indexes.says(AT_ROOT, failure)
            ask = self.ask()
            self.clock.pump([0.5] * 24)
            asked = self.agent.count(AT_ROOT)
            self.error(ask, UpstreamFailed)
            self.indexes.says(AT_ROOT, project_page("b.zip"))
            assert files(self.page()) == ["b.zip"]
            assert self.agent.count(AT_ROOT) == asked + 1

    def test_connections(self) -> None:
        """However long a page hangs, few requests for it are under way; a slow one may end."""
        self.hold()
        self.agent.silent.add(AT_ROOT)
        self.stale()
        for _ in range(60):
            self.hammer(1)
            assert self.agent.waiting <= 4
        self.agent.release(AT_ROOT)
        assert files(self.page()) == ["b.zip"]

    def test_silence_that_lasts(self) -> None:
        """A page that hangs, requested all the time, holds others up for seconds at most."""
        self.hold()
        self.agent.silent.add(AT_ROOT)
        self.stale()
        for _ in range(20):
            self.hammer(10)
            if self.at_once("other") != "STALE":
                break
        else:
            raise AssertionError("the other page was never fresh")
        for _ in range(5):
            self.clock.advance(2000)  # all is stale again
            self.at_once()
            self.hammer(40)
            assert self.at_once("other") != "STALE"


class IndexScopeTests(ScopeCase):
    def break_(self, failure: Reply | Exception) -> None:
        for address in (AT_ROOT, OTHER, COLD):
            self.indexes.says(address, failure)

    def test_other_pages(self) -> None:
        """No client waits for what another page has shown, after a forced refresh neither."""
        self.put(revalidation, "PAUSES", (0.0, 0.0, 0.0))
        for failure in INDEX_FAILURES:
            self.hold()
            self.entries.invalidate("demo")
            assert self.page("demo").status == "MISS"
            self.clock.advance(2000)
            self.break_(failure)
            ask = self.ask("other")
            while not ask.called:
                self.clock.advance(0.1)
            asked = len(self.agent.asked)
            ready = self.pages.ready("demo", JSON, False)
            assert ready is not None
            assert ready.status == "STALE"
            again = self.error(run(self.pages.refetch_file("demo", "a.zip")), UpstreamFailed)
            assert again.url == ROOT  # not the other page's
            assert len(self.agent.asked) == asked

    def test_upstream_requests(self) -> None:
        """The index gets a request in two seconds, however many pages are requested."""
        for failure in INDEX_FAILURES:
            self.hold()
            self.break_(failure)
            self.stale()
            asked = len(self.agent.asked)
            for _ in range(100):
                assert self.at_once() == self.at_once("other") == "STALE"
                self.clock.advance(0.3)
            assert len(self.agent.asked) - asked <= 22
            self.break_(project_page("b.zip"))
            for name in ("other", "demo"):
                self.assert_fresh_within(name, 30.0 if retry_after(failure) else 4.0)

    def test_silence(self) -> None:
        """A silent index gets a request in a few seconds; its return shows within four."""
        self.hold()
        self.agent.silent |= {AT_ROOT, OTHER}
        self.stale()
        asked, began = len(self.agent.asked), self.clock.seconds()
        for _ in range(100):
            assert self.at_once() == self.at_once("other") == "STALE"
            self.clock.advance(0.3)
        assert len(self.agent.asked) - asked <= (self.clock.seconds() - began) / 1.5 + 3
        self.agent.silent.clear()
        self.assert_fresh_within("other", 4.0)
        self.assert_fresh_within("demo", 4.0)

    def test_a_hundred_clients(self) -> None:
        """Half-open, one request is sent for a hundred clients; 99 do not wait."""
        for failure in INDEX_FAILURES[:2] + PAGE_FAILURES[:2]:
            self.hold()
            self.break_(failure)
            self.stale()
            self.clock.advance(31)
            self.agent.silent.add(AT_ROOT)
            asked = len(self.agent.asked)
            asks = [self.ask() for _ in range(100)]
            assert len(self.agent.asked) == asked + 1
            assert [ask.called for ask in asks] == [False] + [True] * 99
            assert {self.result(ask).status for ask in asks[1:]} == {"STALE"}
            self.indexes.says(AT_ROOT, project_page("b.zip"))
            self.agent.release(AT_ROOT)
            assert self.result(asks[0]).status == "MISS"

    def test_other_index(self) -> None:
        """Another index is revalidated as ever, and its news are in the stale page."""
        for failure in INDEX_FAILURES + PAGE_FAILURES:
            self.build(ROOT, EXTRA)
            self.indexes.says(ELSEWHERE, ConnectionRefusedError())
            self.indexes.says(AT_ROOT, project_page("a.zip"))
            self.indexes.says(AT_EXTRA, project_page("x.zip"))
            self.page()
            self.clock.advance(2000)
            self.break_(failure)
            self.indexes.says(AT_EXTRA, project_page("y.zip"))
            self.stale()
            assert files(self.page()) == ["a.zip", "y.zip"], failure
