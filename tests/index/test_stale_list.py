"""The root list while an index fails, and after it was forgotten."""

from __future__ import annotations

import attrs
from twisted.logger import LogLevel, capturedLogs

from proxpi.index.project_list import ProjectList
from proxpi.simple.negotiate import Serialization
from proxpi.upstream.errors import UpstreamFailed
from tests.index.test_project_list import PRIVATE, ListCase, names
from tests.support.agent import Reply
from tests.support.indexes import EXTRA, ROOT, root_list

FAILURES = (
    Reply(500),
    Reply(401),
    Reply(403),
    Reply(200, (b"welcome",)),
    Reply(200, (b'{"projects": [{"name": "x"}',), ends=ConnectionError),
    Reply(200, (b"<html><form><input type=password></form></html>",)),
)


class HeldCase(ListCase):
    """Tests with a list at hand."""

    def setUp(self) -> None:
        """Hold a list."""
        super().setUp()
        self.hold()

    def hold(self) -> None:
        """Hold a list of one index."""
        self.build(ROOT)
        self.indexes.says(ROOT, root_list(["a"]))
        self.held = self.list()

    def assert_stale(self, found: ProjectList) -> None:
        """It is the old list, and says so."""
        assert (found.status, found.remaining, names(found)) == ("STALE", 0.0, ["a"])
        assert found.file.etag == self.held.file.etag


class StaleTests(HeldCase):
    """An index that had a list, and then fails."""

    def test_failures(self) -> None:
        """However it fails, the list stays as it was, and can still be read."""
        for failure in FAILURES:
            self.hold()
            self.clock.advance(2000)
            self.indexes.says(ROOT, failure)
            for _ in range(2):
                found = self.list()
                self.assert_stale(found)
                assert found.age == 2000.0
            assert self.agents.count(ROOT) <= 3

    def test_logged(self) -> None:
        """The log says why."""
        self.clock.advance(2000)
        self.indexes.says(ROOT, Reply(500))
        with capturedLogs() as events:
            self.list()
        (event,) = (each for each in events if each["log_level"] == LogLevel.warn)
        assert event["error"].cause == "status 500"

    def test_recovery(self) -> None:
        """A request after the outage gets the new list; the old one is closed."""
        self.clock.advance(2000)
        self.indexes.says(ROOT, Reply(500))
        self.list()
        self.indexes.says(ROOT, root_list(["b"]))
        self.clock.advance(2)
        found = self.list()
        assert (found.status, names(found)) == ("MISS", ["b"])

    def test_slow(self) -> None:
        """A client waits 5 s for a refresh, no longer; the refresh goes on and is used."""
        self.clock.advance(2000)
        self.indexes.says(ROOT, root_list(["b"]))
        self.agents.silent.add(ROOT)
        ask = self.ask()
        self.clock.advance(4.9)
        self.pending(ask)
        self.clock.advance(0.2)
        self.assert_stale(self.result(ask))
        self.assert_stale(self.list())
        self.agents.release(ROOT)
        assert names(self.list()) == ["b"]
        assert self.agents.count(ROOT) == 2

    def test_slow_but_coming(self) -> None:
        """A list that keeps coming is no trouble: nobody asks for it a second time."""
        whole = root_list(f"p{number}" for number in range(1000)).chunks[0]
        self.clock.advance(2000)
        self.indexes.says(ROOT, Reply(200, (whole[:-2],), whole=False))
        for _ in range(3):
            ask = self.ask()
            self.clock.advance(5.1)
            self.assert_stale(self.result(ask))
        assert self.agents.count(ROOT) == 2
        assert self.indexes.sources[0].breakers.is_failing("") is False

    def test_silence_that_lasts(self) -> None:
        """Once an upstream is known to be silent, clients do not wait, but for a trial's."""
        self.clock.advance(2000)
        self.agents.silent.add(ROOT)
        ask = self.ask()
        self.clock.advance(5.1)
        self.assert_stale(self.result(ask))
        self.clock.advance(0.1)
        self.assert_stale(self.list())
        self.clock.advance(30)
        trial = self.ask()
        self.pending(trial)
        self.assert_stale(self.list())
        self.clock.advance(0.5)
        self.assert_stale(self.result(trial))
        ready = self.projects.ready(Serialization.JSON, False)
        assert ready is not None
        self.assert_stale(ready)

    def test_several(self) -> None:
        """If one of several fails, what it said last stands in for it."""
        self.build(ROOT, EXTRA)
        self.indexes.says(ROOT, root_list(["a"]))
        self.indexes.says(EXTRA, root_list(["b"]))
        self.list()
        self.clock.advance(2000)
        self.indexes.says(EXTRA, Reply(500))
        self.indexes.says(ROOT, root_list(["c"]))
        found = self.list()
        assert (found.status, names(found)) == ("STALE", ["b", "c"])
        assert found.remaining == 0.0

    def test_only_what_is_due(self) -> None:
        """Of several indexes only those are asked whose list is over its time."""
        self.build(ROOT, EXTRA)
        for url in (ROOT, EXTRA):
            self.indexes.says(url, root_list(["a"]))
        self.list()
        self.clock.advance(200)
        self.list()
        assert (self.agents.count(ROOT), self.agents.count(EXTRA)) == (1, 2)


class ConfirmedTests(ListCase):
    """An index that says that its list has not changed."""

    def test_validators(self) -> None:
        """A list is confirmed by what the index gave for it, and is fresh again."""
        fields = {"ETag": '"x"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        self.indexes.says(ROOT, attrs.evolve(root_list(["a"]), headers=fields))
        first = self.list()
        self.clock.advance(1801)
        self.indexes.says(ROOT, Reply(304))
        found = self.list()
        asked = self.agents.asked[-1]
        assert asked.header("If-None-Match") == '"x"'
        assert asked.header("If-Modified-Since") == fields["Last-Modified"]
        assert (found.status, found.remaining, found.age) == ("REVALIDATED", 1800.0, 0.0)
        assert found.file is first.file

    def test_refused_validators(self) -> None:
        """An index that does not take validators is asked once more without them."""
        for status in (400, 412):
            self.build(ROOT)
            self.indexes.says(ROOT, root_list(["a"]).having(ETag='"x"'))
            self.list()
            self.clock.advance(1801)
            self.agents.conditional = Reply(status)
            self.indexes.says(ROOT, root_list(["b"]))
            found = self.list()
            assert (found.status, names(found)) == ("MISS", ["b"])

    def test_hidden(self) -> None:
        """A list that was there does not go away with credentials: that is a failure."""
        self.build(PRIVATE)
        self.indexes.says(ROOT, root_list(["a"]))
        self.list()
        self.clock.advance(1801)
        self.indexes.says(ROOT, Reply(404))
        found = self.list()
        assert (found.status, names(found)) == ("STALE", ["a"])

    def test_without_validators(self) -> None:
        """Who was not asked whether anything changed cannot say that nothing did."""
        self.indexes.says(ROOT, Reply(304))
        assert self.error(self.ask(), UpstreamFailed).cause == "status 304"

    def test_one_of_several(self) -> None:
        """If one index has a new list, and the other none, that is a new list."""
        self.build(ROOT, EXTRA)
        self.indexes.says(ROOT, root_list(["a"]).having(ETag='"x"'))
        self.indexes.says(EXTRA, root_list(["b"]))
        self.list()
        self.clock.advance(1801)
        self.indexes.says(ROOT, Reply(304))
        self.indexes.says(EXTRA, root_list(["c"]))
        found = self.list()
        assert (found.status, names(found)) == ("MISS", ["a", "c"])

    def test_unchanged_merge(self) -> None:
        """If no index has anything new, the list that is there is used again."""
        self.build(ROOT, EXTRA)
        for url in (ROOT, EXTRA):
            self.indexes.says(url, root_list(["a"]).having(ETag='"x"'))
        first = self.list()
        self.clock.advance(1801)
        for url in (ROOT, EXTRA):
            self.indexes.says(url, Reply(304))
        found = self.list()
        assert found.status == "REVALIDATED"
        assert found.file is first.file


class ForgetTests(HeldCase):
    """A list that an operator wants to be asked for again."""

    def test_asked_again(self) -> None:
        """A list that is forgotten is asked for before it is used again."""
        self.projects.invalidate()
        assert self.projects.ready(Serialization.JSON, False) is None
        self.indexes.says(ROOT, root_list(["b"]))
        assert names(self.list()) == ["b"]
        assert self.list().status == "HIT"

    def test_nothing_held(self) -> None:
        """To forget what is not there is no error."""
        self.build(ROOT)
        self.projects.invalidate()
        self.indexes.says(ROOT, root_list(["b"]))
        assert names(self.list()) == ["b"]

    def test_fallback(self) -> None:
        """If the upstream fails, the forgotten list is the fallback that it was."""
        self.projects.invalidate()
        self.indexes.says(ROOT, Reply(500))
        self.assert_stale(self.list())

    def test_forgotten_under_way(self) -> None:
        """A request gets what its own flight brings; a later one joins none from before."""
        self.clock.advance(2000)
        self.agents.silent.add(ROOT)
        early = self.ask()
        self.projects.invalidate()
        late = self.ask()
        assert self.agents.waiting == 2
        self.indexes.says(ROOT, root_list(["b"]))
        self.agents.release(ROOT)
        assert names(self.result(early)) == names(self.result(late)) == ["b"]

    def test_old_answer_comes_last(self) -> None:
        """An answer that was under way does not replace the newer one, if it comes after it."""
        self.clock.advance(2000)
        self.agents.silent.add(ROOT)
        early = self.ask()
        self.projects.invalidate()
        self.agents.silent.clear()
        self.indexes.says(ROOT, root_list(["new"]))
        assert names(self.list()) == ["new"]
        self.indexes.says(ROOT, root_list(["old"]))
        self.agents.release(ROOT)
        assert names(self.result(early)) == ["old"]
        for _ in range(2):
            assert names(self.list()) == ["new"]
            self.restart()

    def test_forgotten_before_it_was_ever_held(self) -> None:
        """The same for a list that is asked for the first time; a failure then goes through."""
        self.build(ROOT)
        self.agents.silent.add(ROOT)
        ask = self.ask()
        self.projects.invalidate()
        self.indexes.says(ROOT, root_list(["a"]))
        self.agents.release(ROOT)
        assert names(self.result(ask)) == ["a"]
        assert self.agents.count(ROOT) == 1
        assert self.list().status == "MISS"
        assert self.agents.count(ROOT) == 2
        self.build(ROOT)
        self.indexes.says(ROOT, Reply(500))
        self.projects.invalidate()
        self.error(self.ask(), UpstreamFailed)
