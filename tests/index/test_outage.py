"""Pages while an index fails: the old page or none, never a page without that index."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from twisted.internet.error import ConnectionRefusedError
from twisted.logger import LogLevel, capturedLogs

from proxpi.index.breaker import INDEX_PAUSES, PAGE_PAUSES
from proxpi.index.page_cache import NoSuchProject, Page
from proxpi.index.revalidation import TRIAL_DEADLINE
from proxpi.simple import parse
from proxpi.simple.negotiate import Serialization
from proxpi.upstream.errors import UpstreamFailed
from tests.index.paged import AT_EXTRA, AT_ROOT, PagesCase, files
from tests.support.agent import Reply
from tests.support.indexes import EXTRA, ROOT, project_page

FAILURES = (
    ConnectionRefusedError(),
    Reply(500),
    Reply(503),
    Reply(429),
    Reply(401),
    Reply(403),
    Reply(200, (b"welcome",)),
    Reply(200, (b'{"files"',), ends=ConnectionError),
    project_page("x.zip", version="2.0"),
    Reply(302, headers={"Location": "http://root.example/simple/demo/"}),
)


class StaleTests(PagesCase):
    """One index that served a page, and then fails."""

    def setUp(self) -> None:
        """Hold a page that is over its time."""
        super().setUp()
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        self.fresh = self.page()
        self.clock.advance(2000)

    def assert_stale(self, page: Page) -> None:
        """It is the old page, and says so."""
        assert (page.status, page.remaining, page.body) == ("STALE", 0.0, self.fresh.body)
        assert page.age >= 2000

    def test_failures(self) -> None:
        """However the index fails, the page stays as it was, as often as it is asked for."""
        for failure in FAILURES:
            self.setUp()
            self.indexes.says(AT_ROOT, failure)
            self.assert_stale(self.slow_page())
            for _ in range(3):
                self.assert_stale(self.page())
                ready = self.pages.ready("demo", Serialization.JSON, False)
                assert ready is not None
                self.assert_stale(ready)

    def test_own_error(self) -> None:
        """An error of proxpi's own costs nobody the page; it is in the log."""

        def breaks(*_: object) -> None:
            raise ZeroDivisionError

        self.put(parse, "parse_project", breaks)
        self.assert_stale(self.page())
        (error,) = self.unhandled()
        assert "ZeroDivisionError" in repr(error.value)

    def test_however_old(self) -> None:
        """There is no age beyond which a page is worse than none."""
        self.indexes.says(AT_ROOT, Reply(500))
        self.clock.advance(10_000_000)
        self.assert_stale(self.slow_page())

    def test_recovery(self) -> None:
        """A request a few seconds after the end of the outage gets the fresh page."""
        self.indexes.says(AT_ROOT, Reply(500))
        self.assert_stale(self.slow_page())
        self.clock.pump([0.5] * 40)
        self.assert_stale(self.page())
        self.indexes.says(AT_ROOT, project_page("b.zip"))
        self.clock.pump([0.5] * 12)
        page = self.page()
        assert (page.status, files(page)) == ("MISS", ["b.zip"])

    def test_logged(self) -> None:
        """The log says which project and why."""
        self.indexes.says(AT_ROOT, Reply(500))
        with capturedLogs() as events:
            self.slow_page()
        (event,) = [each for each in events if each["log_level"] == LogLevel.warn]
        assert (event["name"], event["error"].cause) == ("demo", "status 500")

    def test_slow(self) -> None:
        """A client waits 5 s for a refresh, no longer; the refresh goes on and is used."""
        self.indexes.says(AT_ROOT, project_page("b.zip"))
        self.agents.silent.add(AT_ROOT)
        ask = self.ask()
        self.clock.advance(4.9)
        self.pending(ask)
        self.clock.advance(0.2)
        self.assert_stale(self.result(ask))
        self.agents.release(AT_ROOT)
        page = self.page()
        assert (page.status, files(page)) == ("HIT", ["b.zip"])
        assert self.agents.count(AT_ROOT) == 2
        self.clock.advance(10)
        assert self.agents.count(AT_ROOT) == 2

    def test_slow_for_the_next(self) -> None:
        """Whoever asks during a slow refresh waits only for what is left of the 5 s."""
        self.agents.silent.add(AT_ROOT)
        first = self.ask()
        self.clock.advance(4)
        second = self.ask()
        self.clock.advance(1.1)
        self.assert_stale(self.result(first))
        self.assert_stale(self.result(second))
        self.assert_stale(self.page())
        assert self.agents.count(AT_ROOT) == 2

    def test_silence_that_lasts(self) -> None:
        """Once an upstream is known to be silent, nobody waits for it as long again."""
        other = f"{ROOT}other/"
        self.indexes.says(other, project_page("o.zip"))
        assert files(self.page("other")) == ["o.zip"]
        self.clock.advance(2000)
        self.agents.silent |= {AT_ROOT, other}
        self.ask()
        self.clock.advance(5.1)
        trials = []
        for _ in range(100):
            for ask in (self.ask(), self.ask("other")):
                if not ask.called:
                    trials.append(self.clock.seconds())
                    self.clock.advance(TRIAL_DEADLINE)  # the only one: a trial
                assert self.result(ask).status == "STALE"
            self.clock.advance(0.7)
        pauses = [after - before for before, after in pairwise(trials)]
        # Any trial opens the breaker of the index again; the pauses vary by a quarter.
        assert min(pauses[1:]) >= 0.75 * INDEX_PAUSES[1]
        assert max(pauses) <= PAGE_PAUSES[1] + TRIAL_DEADLINE + 0.7
        assert self.agents.count(AT_ROOT) + self.agents.count(other) == 4 - 1 + len(trials)

    def test_recovery_of_a_silent_upstream(self) -> None:
        """An answer that comes at last ends the outage."""
        self.agents.silent.add(AT_ROOT)
        self.ask()
        self.clock.pump([1.0] * 60)
        self.indexes.says(AT_ROOT, project_page("b.zip"))
        self.agents.silent.clear()
        self.clock.pump([1.0] * 12)
        assert files(self.page()) == ["b.zip"]
        self.clock.advance(2000)
        self.agents.silent.add(AT_ROOT)
        ask = self.ask()
        self.clock.advance(4.9)
        self.pending(ask)

    def test_304_in_between(self) -> None:
        """A page that the index confirms after an outage is fresh again."""
        self.build(ROOT)
        self.indexes.says(AT_ROOT, project_page("a.zip").having(ETag='"x"'))
        self.page()
        self.clock.advance(2000)
        self.indexes.says(AT_ROOT, Reply(500))
        assert self.slow_page().status == "STALE"
        self.indexes.says(AT_ROOT, Reply(304))
        self.clock.pump([0.5] * 12)
        page = self.page()
        assert (page.status, files(page)) == ("REVALIDATED", ["a.zip"])
        assert page.remaining > 1790.0

    def test_refused_validators(self) -> None:
        """Where the index fails at conditional requests, the page is fresh all the same."""
        for status in (400, 402, 405, 406, 409, 411, 412, 416, 417, 422, 428, 500, 501, 502, 503):
            self.build(ROOT)
            self.indexes.says(AT_ROOT, project_page("a.zip").having(ETag='"x"'))
            self.page()
            self.agents.conditional = Reply(status)
            for number in range(3):
                self.clock.advance(2000)
                self.indexes.says(AT_ROOT, project_page(f"{number}.zip").having(ETag='"x"'))
                ask = self.ask()
                self.clock.advance(0.4)
                page = self.result(ask)
                assert (page.status, files(page)) == ("MISS", [f"{number}.zip"]), status
            assert self.agents.count(AT_ROOT) == 7

    def test_empty_page_is_an_answer(self) -> None:
        """A good answer without files replaces the page: quarantine is no outage (PEP 792)."""
        status: dict[str, Any] = {"project-status": {"status": "quarantined"}}
        self.indexes.says(AT_ROOT, project_page(**status))
        page = self.page()
        assert (page.status, files(page)) == ("MISS", [])

    def test_forms_of_a_stale_page(self) -> None:
        """A form that nobody asked for while it was fresh is made all the same."""
        self.indexes.says(AT_ROOT, Reply(500))
        self.slow_page()
        page = self.result(self.ask(form=Serialization.HTML))
        assert page.status == "STALE"
        assert b"a.zip" in page.body.data


class NothingHeldTests(PagesCase):
    """An index that fails, and nothing to fall back on."""

    def test_failures(self) -> None:
        """The failure goes through, with all that it says."""
        for failure in FAILURES[:5]:
            self.setUp()
            self.indexes.says(AT_ROOT, failure)
            self.fails(self.ask())
        self.setUp()
        self.indexes.says(AT_ROOT, Reply(503, headers={"Retry-After": "17"}))
        assert self.error(self.ask(), UpstreamFailed).retry_after == 17.0

    def test_not_sticky(self) -> None:
        """The next request asks again."""
        self.indexes.says(AT_ROOT, Reply(500))
        self.fails(self.ask())
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        page = self.page()
        assert (page.status, files(page)) == ("MISS", ["a.zip"])

    def test_absence_is_no_page(self) -> None:
        """That there was no such project is nothing to fall back on."""
        self.error(self.ask(), NoSuchProject)
        self.clock.advance(61)
        self.indexes.says(AT_ROOT, Reply(500))
        self.fails(self.ask())
        assert self.pages.ready_file("demo", "a.zip") is None

    def test_gone_project_is_no_page(self) -> None:
        """Nor does a page come back that an index had withdrawn before the outage."""
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        self.page()
        self.clock.advance(1801)
        self.indexes.says(AT_ROOT, Reply(404))
        self.error(self.ask(), NoSuchProject)
        self.clock.advance(61)
        self.indexes.says(AT_ROOT, Reply(500))
        self.fails(self.ask())


class SeveralTests(PagesCase):
    """One of several indexes fails."""

    def setUp(self) -> None:
        """Begin with two indexes that have the project."""
        super().setUp()
        self.build(ROOT, EXTRA)
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        self.indexes.says(AT_EXTRA, project_page("b.zip"))

    def test_no_index_answers_alone(self) -> None:
        """While one never said anything, the other does not speak for it, first or second."""
        for failing in (AT_ROOT, AT_EXTRA):
            self.setUp()
            good = self.agents.script[failing]
            self.indexes.says(failing, Reply(500))
            for _ in range(2):
                assert self.fails(self.ask()).url == failing
            assert self.pages.ready("demo", Serialization.JSON, False) is None
            assert self.pages.ready_file("demo", "a.zip") is None
            assert self.pages.ready_file("demo", "b.zip") is None
            self.agents.at(failing, *good)
            assert files(self.page()) == ["a.zip", "b.zip"]

    def test_absence_does_not_help(self) -> None:
        """The same where the other index lacks the project: unknown is not absent."""
        for failing, absent in ((AT_ROOT, AT_EXTRA), (AT_EXTRA, AT_ROOT)):
            self.setUp()
            self.indexes.says(failing, Reply(500))
            self.indexes.says(absent, Reply(404))
            self.fails(self.ask())

    def test_the_good_one_is_not_asked_again(self) -> None:
        """What one index said well is kept while the other fails."""
        self.indexes.says(AT_ROOT, Reply(500))
        self.fails(self.ask())
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        assert files(self.page()) == ["a.zip", "b.zip"]
        assert self.agents.count(AT_EXTRA) == 1

    def test_old_word_stands_in(self) -> None:
        """What the failing index said last keeps its place in the merge."""
        for failing in (AT_ROOT, AT_EXTRA):
            self.setUp()
            self.page()
            self.clock.advance(2000)
            self.indexes.says(failing, Reply(500))
            page = self.slow_page()
            assert (page.status, files(page)) == ("STALE", ["a.zip", "b.zip"])
            assert page.age >= 2000

    def test_old_word_keeps_precedence(self) -> None:
        """A file name of the failing first index is not the second one's, in an outage either."""
        self.page()
        self.clock.advance(2000)
        self.indexes.says(AT_ROOT, Reply(500))
        self.indexes.says(AT_EXTRA, project_page("a.zip", host="other.example"))
        self.slow_page()
        listed = self.pages.ready_file("demo", "a.zip")
        assert listed is not None
        assert listed.entry["url"] == "https://files.example/a.zip"

    def test_old_absence_stands_in(self) -> None:
        """That the failing index lacked the project is its last word, too."""
        self.indexes.says(AT_ROOT, Reply(404))
        self.page()
        self.clock.advance(181)
        self.indexes.says(AT_ROOT, Reply(500))
        page = self.slow_page()
        assert (page.status, files(page)) == ("STALE", ["b.zip"])

    def test_recovery(self) -> None:
        """During the outage and after it only the index that failed is asked."""
        self.page()
        self.clock.advance(2000)
        self.indexes.says(AT_ROOT, Reply(500))
        self.slow_page()
        self.indexes.says(AT_ROOT, project_page("c.zip"))
        self.clock.pump([0.5] * 12)
        page = self.page()
        assert (page.status, files(page)) == ("MISS", ["c.zip", "b.zip"])
        assert self.agents.count(AT_EXTRA) == 2

    def test_the_good_one_is_renewed(self) -> None:
        """While one index is down, news of the other still come."""
        self.page()
        self.clock.advance(2000)
        self.indexes.says(AT_ROOT, Reply(500))
        self.slow_page()
        self.clock.advance(181)
        self.indexes.says(AT_EXTRA, project_page("new.zip"))
        page = self.page()
        assert (page.status, files(page)) == ("STALE", ["a.zip", "new.zip"])

    def test_each_failure_is_logged(self) -> None:
        """If both fail, the log tells of both; the answer tells of the first."""
        for url in (AT_ROOT, AT_EXTRA):
            self.indexes.says(url, Reply(500))
        with capturedLogs() as events:
            assert self.fails(self.ask()).url == AT_ROOT
        assert {event["error"].url for event in events} == {AT_ROOT, AT_EXTRA}
        assert len(events) == 2
