"""404 for everything: a wrong URL, or credentials that do not hold any more."""

from __future__ import annotations

import attrs
from twisted.internet.error import ConnectionRefusedError
from twisted.logger import LogLevel, capturedLogs

from proxpi.index.page_cache import NoSuchProject
from proxpi.upstream.errors import UpstreamFailed
from tests.index.paged import AT_ROOT, PagesCase, files
from tests.support.agent import Reply
from tests.support.indexes import EXTRA, ROOT, project_page, root_list

PRIVATE = ROOT.replace("//", "//user:secret@")
OTHER = f"{ROOT}other/"
LIST = root_list(["demo"])
#: What the root of an index may answer once its credentials have expired.
ROOT_FAILURES: tuple[Reply | Exception, ...] = (
    *(Reply(status) for status in (400, 401, 403, 404, 410, 429, 500, 503)),
    ConnectionRefusedError(),
)


class ExpiredTests(PagesCase):
    """An index with credentials that had a page, and then says 404."""

    def hold(self, root: Reply | Exception = LIST, url: str = PRIVATE) -> None:
        """Hold two pages that are stale; the index has its root, and now says 404 for both."""
        self.build(url)
        self.indexes.says(ROOT, root)
        for address in (AT_ROOT, OTHER):
            self.indexes.says(address, project_page("a.zip").having(ETag='"1"'))
        self.page()
        self.page("other")
        self.clock.advance(2000)
        for address in (AT_ROOT, OTHER):
            self.indexes.says(address, Reply(404))

    def test_root_fails(self) -> None:
        """If its root fails as well, that is a failure: the page stays."""
        for failure in ROOT_FAILURES:
            for status in (404, 410):
                self.hold()
                self.indexes.says(ROOT, failure)
                self.indexes.says(AT_ROOT, Reply(status))
                page = self.page()
                assert (page.status, files(page)) == ("STALE", ["a.zip"])

    def test_root_answers(self) -> None:
        """If its root answers, the project is gone, and the root is not asked for it again."""
        self.hold()
        self.error(self.ask(), NoSuchProject)
        asked = self.agents.count(ROOT)
        for _ in range(3):
            self.clock.advance(61)
            self.error(self.ask(), NoSuchProject)
        assert self.agents.count(ROOT) == asked

    def test_root_that_never_answered(self) -> None:
        """Some indexes have no root: what they say of a project is believed."""
        for failure in ROOT_FAILURES:
            self.hold(failure)
            self.error(self.ask(), NoSuchProject)

    def test_without_credentials(self) -> None:
        """An index without credentials is believed, and its root is not asked."""
        self.hold(url=ROOT)
        self.indexes.says(ROOT, Reply(404))
        self.error(self.ask(), NoSuchProject)
        assert self.agents.count(ROOT) == 0

    def test_unknown_project(self) -> None:
        """A project that the index never had is absent; the root is not asked."""
        self.hold()
        asked = self.agents.count(ROOT)
        self.error(self.ask("unknown"), NoSuchProject)
        assert self.agents.count(ROOT) == asked

    def test_restart(self) -> None:
        """That the root answered is known after a restart."""
        self.hold()
        self.indexes = attrs.evolve(self.indexes)
        self.agents, self.clock = self.indexes.agents, self.indexes.clock
        self.start()
        for address in (ROOT, AT_ROOT, OTHER):
            self.indexes.says(address, Reply(404))
        assert self.page("other").status == "STALE"
        assert self.page().status == "STALE"

    def test_how_often(self) -> None:
        """However many pages are wanted, the root is asked once at a time, and not all the time."""
        self.hold()
        self.agents.silent.add(ROOT)
        asked = self.agents.count(ROOT)
        asks = [self.ask(), self.ask("other")]
        assert self.agents.count(ROOT) == asked + 1
        self.indexes.says(ROOT, Reply(404))
        self.agents.release(ROOT)
        assert [self.result(ask).status for ask in asks] == ["STALE", "STALE"]
        for _ in range(10):
            self.clock.advance(2)
            assert self.page().status == self.page("other").status == "STALE"
        assert self.agents.count(ROOT) == asked + 1

    def test_recovery(self) -> None:
        """Once the credentials hold again the page is fresh, within half a minute."""
        self.hold()
        self.indexes.says(ROOT, Reply(404))
        self.page()
        self.indexes.says(AT_ROOT, project_page("b.zip"))
        self.clock.advance(1)
        assert files(self.page()) == ["b.zip"]

    def test_cause(self) -> None:
        """The log says what to look at."""
        self.hold()
        self.indexes.says(ROOT, Reply(404))
        with capturedLogs() as events:
            self.page()
        (event,) = [each for each in events if each["log_level"] == LogLevel.warn]
        error = event["error"]
        assert isinstance(error, UpstreamFailed)
        assert "credentials" in error.cause
        assert "secret" not in str(error)


class WrongUrlTests(PagesCase):
    """An index that has nothing."""

    def warnings(self, *names: str) -> list[str]:
        """Ask for projects; give what was logged of it."""
        with capturedLogs() as events:
            for name in names:
                self.error(self.ask(name), NoSuchProject)
        return [
            event["log_format"].format(**event)
            for event in events
            if event["log_level"] == LogLevel.warn
        ]

    def test_everything_is_404(self) -> None:
        """If its root and first pages are 404, there is one warning, without credentials."""
        for url in (ROOT, PRIVATE):
            for status in (404, 410):
                self.build(url)
                self.indexes.says(ROOT, Reply(status))
                (warning,) = self.warnings(*(f"p{number}" for number in range(20)))
                assert f"root.example/simple/ answers {status}" in warning
                assert "PROXPI_INDEX_URL" in warning
                assert "secret" not in warning
                assert self.agents.count(ROOT) == 1

    def test_each_index(self) -> None:
        """Each index is judged by itself."""
        self.build(ROOT, EXTRA)
        self.indexes.says(EXTRA, root_list([]))
        (warning,) = self.warnings("one", "two", "three")
        assert "root.example" in warning

    def test_root_answers(self) -> None:
        """An index that merely lacks the first projects is none, nor one that fails."""
        for root in (root_list([]), Reply(403), Reply(500), ConnectionRefusedError()):
            self.build(ROOT)
            self.indexes.says(ROOT, root)
            assert self.warnings("one", "two", "three", "four") == []
            assert self.agents.count(ROOT) == 1

    def test_one_page(self) -> None:
        """Nor one that has any page, or lacks one, however often that is wanted."""
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        self.page()
        assert self.warnings("one", "two", "three") == []
        self.build(ROOT)
        for _ in range(3):
            assert self.warnings("one") == []
            self.clock.advance(61)
        assert self.agents.count(ROOT) == 0
