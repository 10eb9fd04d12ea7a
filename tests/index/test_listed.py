"""What the pages say of one file, for the mirror."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from proxpi.index.page_cache import LOSSES, YOUNG, NoSuchFile, NoSuchProject
from proxpi.index.page_store import StoredPage
from proxpi.simple.model import ListedFile
from proxpi.upstream.errors import UpstreamFailed
from tests.index.paged import AT_EXTRA, AT_ROOT, PagesCase
from tests.support.agent import Reply
from tests.support.cases import run
from tests.support.indexes import EXTRA, ROOT, project_page


class ListedTests(PagesCase):
    """Files of one index."""

    def setUp(self) -> None:
        """Let the index have one file."""
        super().setUp()
        self.indexes.says(AT_ROOT, project_page("a.zip"))

    def file(self, name: str = "a.zip") -> Deferred[ListedFile]:
        """Ask for what the page says of a file."""
        return run(self.pages.fetch_file("demo", name))

    def again(self, name: str = "a.zip") -> Deferred[ListedFile | None]:
        """Ask for it once the indexes were asked anew."""
        return run(self.pages.ask_again("demo", name))

    def test_cold(self) -> None:
        """A file is found with no page asked for before, and at once thereafter."""
        assert self.pages.ready_file("demo", "a.zip") is None
        listed = self.result(self.file())
        assert listed.entry["url"] == "https://files.example/a.zip"
        assert self.pages.ready_file("demo", "a.zip") is listed
        assert self.result(self.file()) is listed
        assert self.agents.count(AT_ROOT) == 1

    def test_old_page_is_good_enough(self) -> None:
        """What a page said of a file holds beyond the page's time, without asking."""
        listed = self.result(self.file())
        self.clock.advance(100_000)
        assert self.pages.ready_file("demo", "a.zip") is listed
        assert self.agents.count(AT_ROOT) == 1

    def test_new_page_new_word(self) -> None:
        """When the page changes, so does what it says of its files."""
        self.result(self.file())
        self.clock.advance(2000)
        self.indexes.says(AT_ROOT, project_page("a.zip", host="elsewhere.example"))
        self.page()
        listed = self.pages.ready_file("demo", "a.zip")
        assert listed is not None
        assert listed.entry["url"] == "https://elsewhere.example/a.zip"

    def test_younger_than_the_page(self) -> None:
        """A file that the page does not list yet is asked for once more, and found."""
        self.page()
        self.clock.advance(YOUNG + 1)
        self.indexes.says(AT_ROOT, project_page("a.zip", "b.zip"))
        assert self.result(self.file("b.zip")).entry["filename"] == "b.zip"
        assert self.agents.count(AT_ROOT) == 2

    def test_a_disk_that_cannot_be_read(self) -> None:
        """A page that is lost whenever it is read is a failure, after a few tries."""
        self.put(StoredPage, "read", lambda *_: None)
        assert self.error(self.file(), UpstreamFailed).temporary
        assert self.agents.count(AT_ROOT) <= LOSSES
        assert "a.zip" in self.page().body.data.decode()

    def test_unknown_file(self) -> None:
        """A file that no page lists costs one question more, not two."""
        self.page()
        self.clock.advance(YOUNG + 1)
        self.error(self.file("b.zip"), NoSuchFile)
        assert self.agents.count(AT_ROOT) == 2

    def test_unknown_file_on_a_young_page(self) -> None:
        """A page that was asked for just now is not asked for again, however often one tries."""
        for _ in range(5):
            self.error(self.file("b.zip"), NoSuchFile)
        assert self.agents.count(AT_ROOT) == 1

    def test_validators(self) -> None:
        """The second look costs the index as little as a revalidation."""
        self.indexes.says(AT_ROOT, project_page("a.zip").having(ETag='"x"'))
        self.page()
        self.clock.advance(YOUNG + 1)
        self.indexes.says(AT_ROOT, Reply(304))
        self.error(self.file("b.zip"), NoSuchFile)
        assert self.agents.asked[-1].header("If-None-Match") == '"x"'

    def test_unknown_project(self) -> None:
        """A file of a project that no index has is one thing, of one that is there another."""
        self.indexes.says(AT_ROOT, Reply(404))
        self.error(self.file(), NoSuchProject)

    def test_outage(self) -> None:
        """In an outage a known file is known; an unknown one may exist, and is no 404."""
        self.page()
        self.clock.advance(2000)
        self.indexes.says(AT_ROOT, Reply(500))
        asks = self.file(), self.file("b.zip")
        assert self.fails(asks[1]).cause == "status 500"
        assert self.result(asks[0]).entry["filename"] == "a.zip"

    def test_outage_while_the_page_is_fresh(self) -> None:
        """The same if it is only the second look that fails; the page stays as fresh as it was."""
        self.page()
        self.clock.advance(YOUNG + 1)
        self.indexes.says(AT_ROOT, Reply(500))
        assert self.fails(self.file("b.zip")).temporary
        assert self.page().status == "HIT"

    def test_silence(self) -> None:
        """Whoever looks for an unknown file in a silent index is told so, in good time."""
        self.page()
        self.clock.advance(YOUNG + 1)
        self.agents.silent.add(AT_ROOT)
        ask = self.file("b.zip")
        self.clock.advance(5.1)
        error = self.error(ask, UpstreamFailed)
        assert (error.cause, error.temporary) == ("timed out", True)

    def test_nothing_held(self) -> None:
        """Without a page the failure of the index is the answer."""
        self.indexes.says(AT_ROOT, Reply(500))
        assert self.fails(self.file()).cause == "status 500"

    def test_forgotten(self) -> None:
        """A page that was forgotten tells nothing of its files until it was asked for anew."""
        self.page()
        assert self.pages.ready_file("demo", "a.zip") is not None
        self.pages.invalidate("demo")
        assert self.pages.ready_file("demo", "a.zip") is None
        self.indexes.says(AT_ROOT, Reply(500))
        ask = self.file()
        self.clock.pump([0.5] * 4)
        assert self.result(ask).entry["filename"] == "a.zip"

    def test_ask_again(self) -> None:
        """A signed URL that expired: the page is asked for again, however young it is."""
        self.page()
        self.indexes.says(AT_ROOT, project_page("a.zip", host="signed.example"))
        listed = self.result(self.again())
        assert listed is not None
        assert listed.entry["url"] == "https://signed.example/a.zip"
        assert self.result(self.again("b.zip")) is None

    def test_ask_again_what_was_never_asked(self) -> None:
        """There need not be a page before."""
        assert self.result(self.again()) is not None
        assert self.agents.count(AT_ROOT) == 1

    def test_ask_again_in_an_outage(self) -> None:
        """An old page proves nothing about what is there now."""
        self.page()
        self.indexes.says(AT_ROOT, Reply(500))
        assert self.fails(self.again()).cause == "status 500"

    def test_ask_again_in_silence(self) -> None:
        """Neither does a page that could not be asked for in time."""
        self.page()
        self.agents.silent.add(AT_ROOT)
        ask = self.again()
        self.clock.advance(5.1)
        assert self.error(ask, UpstreamFailed).cause == "timed out"

    def test_which_index_wins(self) -> None:
        """Each index is asked, and a file is the first one's that lists it."""
        self.build(ROOT, EXTRA)
        self.indexes.says(AT_ROOT, project_page("a.zip", host="first.example"))
        self.indexes.says(AT_EXTRA, project_page("a.zip", "b.zip", host="second.example"))
        assert self.result(self.file("a.zip")).entry["url"] == "https://first.example/a.zip"
        assert self.result(self.file("b.zip")).entry["url"] == "https://second.example/b.zip"
