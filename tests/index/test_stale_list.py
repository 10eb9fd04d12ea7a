"""The root list while an index fails, and after it was forgotten."""

from __future__ import annotations

from twisted.logger import LogLevel, capturedLogs

from proxpi.index.projects import ProjectList
from proxpi.simple.negotiate import Serialization
from proxpi.upstream.errors import UpstreamFailed
from tests.index.test_projects import ListCase, names
from tests.support.upstreams import EXTRA, ROOT, Reply, root_list

FAILURES = (
    Reply(500),
    Reply(401),
    Reply(403),
    Reply(200, (b"welcome",)),
    Reply(200, (b'{"projects": [{"name": "x"}',), end=ConnectionError),
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

    def test_logged(self) -> None:
        """The log says why."""
        self.clock.advance(2000)
        self.indexes.says(ROOT, Reply(500))
        with capturedLogs() as events:
            self.list()
        (event,) = [each for each in events if each["log_level"] == LogLevel.warn]
        assert event["error"].cause == "status 500"

    def test_recovery(self) -> None:
        """The first request after the outage gets the new list; the old one is closed."""
        self.clock.advance(2000)
        self.indexes.says(ROOT, Reply(500))
        self.list()
        self.indexes.says(ROOT, root_list(["b"]))
        found = self.list()
        assert (found.status, names(found)) == ("MISS", ["b"])
        assert self.held.file.file.closed
        assert self.open_files() == 4

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
        late = self.ask()
        self.assert_stale(self.result(late))
        self.agents.release(ROOT)
        assert names(self.list()) == ["b"]
        assert self.agents.count(ROOT) == 2

    def test_silence_that_lasts(self) -> None:
        """Once an upstream is known to be silent, nobody waits for it as long again."""
        self.clock.advance(2000)
        self.agents.silent.add(ROOT)
        self.ask()
        self.clock.advance(23.1)
        ask = self.ask()
        self.clock.advance(0.6)
        self.assert_stale(self.result(ask))

    def test_several(self) -> None:
        """If one of several fails, the old merge stays whole."""
        self.build(ROOT, EXTRA)
        self.indexes.says(ROOT, root_list(["a"]))
        self.indexes.says(EXTRA, root_list(["b"]))
        self.list()
        self.clock.advance(200)
        self.indexes.says(EXTRA, Reply(500))
        self.indexes.says(ROOT, root_list(["c"]))
        found = self.list()
        assert (found.status, names(found)) == ("STALE", ["a", "b"])


class ForgetTests(HeldCase):
    """A list that an operator wants to be asked for again."""

    def test_asked_again(self) -> None:
        """A list that is forgotten is asked for before it is used again."""
        self.projects.forget()
        assert self.projects.ready(Serialization.JSON, False) is None
        self.indexes.says(ROOT, root_list(["b"]))
        assert names(self.list()) == ["b"]
        assert self.list().status == "HIT"
        assert self.open_files() == 4

    def test_nothing_held(self) -> None:
        """To forget what is not there is no error."""
        self.build(ROOT)
        self.projects.forget()
        self.indexes.says(ROOT, root_list(["b"]))
        assert names(self.list()) == ["b"]

    def test_fallback(self) -> None:
        """If the upstream fails, the forgotten list is the fallback that it was."""
        self.projects.forget()
        self.indexes.says(ROOT, Reply(500))
        self.assert_stale(self.list())

    def test_forgotten_under_way(self) -> None:
        """What was asked before the list was forgotten is not used, by whoever waits for it."""
        self.clock.advance(2000)
        self.agents.silent.add(ROOT)
        early = self.ask()
        self.projects.forget()
        late = self.ask()
        assert self.agents.waiting == 2
        self.indexes.says(ROOT, root_list(["b"]))
        self.agents.release(ROOT)
        assert names(self.result(early)) == names(self.result(late)) == ["b"]
        assert self.open_files() == 4

    def test_old_answer_comes_last(self) -> None:
        """An answer that was under way does not replace the newer one, if it comes after it."""
        self.clock.advance(2000)
        self.agents.silent.add(ROOT)
        early = self.ask()
        self.projects.forget()
        self.agents.silent.clear()
        self.indexes.says(ROOT, root_list(["new"]))
        assert names(self.list()) == ["new"]
        self.indexes.says(ROOT, root_list(["old"]))
        self.agents.release(ROOT)
        assert names(self.list()) == ["new"]
        assert names(self.result(early)) == ["new"]
        assert self.open_files() == 4

    def test_forgotten_before_it_was_ever_held(self) -> None:
        """The same for a list that is asked for the first time; a failure then goes through."""
        self.build(ROOT)
        self.agents.silent.add(ROOT)
        ask = self.ask()
        self.projects.forget()
        self.indexes.says(ROOT, root_list(["a"]))
        self.agents.release(ROOT)
        assert names(self.result(ask)) == ["a"]
        assert self.agents.count(ROOT) == 2
        self.build(ROOT)
        self.indexes.says(ROOT, Reply(500))
        self.projects.forget()
        self.error(self.ask(), UpstreamFailed)
