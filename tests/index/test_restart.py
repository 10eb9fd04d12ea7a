"""Pages over a restart: what is fresh is not asked for, the rest is confirmed or stands in."""

from __future__ import annotations

import gzip
import json

from proxpi.index import page_cache as pages_module
from proxpi.index.page_store import DOCUMENT
from tests.index.paged import AT_EXTRA, AT_ROOT, HTML, JSON, PagesCase, files
from tests.support.agent import Reply
from tests.support.cases import run
from tests.support.indexes import EXTRA, ROOT, Indexes, project_page


class RestartTests(PagesCase):
    """A page that was held when the process ended."""

    def setUp(self) -> None:
        """Hold a page with a validator."""
        super().setUp()
        self.indexes.says(AT_ROOT, project_page("a.zip").having(ETag='"x"'))
        self.first = self.page()
        self.agents.asked.clear()

    def test_fresh(self) -> None:
        """A page that is still fresh is there at once: the same bytes, the rest of its time."""
        self.clock.advance(300)
        self.start()
        page = self.pages.ready("demo", JSON, False)
        assert page is not None
        assert (page.status, page.body, page.remaining, page.age) == (
            "HIT",
            self.first.body,
            1500.0,
            300.0,
        )
        assert self.agents.asked == []

    def test_other_form(self) -> None:
        """A form that was not made before is made of what is kept."""
        self.start()
        assert b"a.zip" in self.result(self.ask(form=HTML)).body.data
        assert self.agents.asked == []

    def test_revalidated(self) -> None:
        """One that is over its time is confirmed, which costs the index little."""
        self.clock.advance(1801)
        self.start()
        self.indexes.says(AT_ROOT, Reply(304))
        page = self.page()
        assert (page.status, page.body) == ("REVALIDATED", self.first.body)
        assert self.agents.asked[-1].header("If-None-Match") == '"x"'
        self.start()
        assert self.page().status == "HIT"

    def test_outage(self) -> None:
        """If the index fails after the restart, the page stands in, however old."""
        self.clock.advance(1_000_000)
        self.start()
        self.indexes.says(AT_ROOT, Reply(503))
        page = self.slow_page()
        assert (page.status, page.body, page.age >= 1_000_000) == ("STALE", self.first.body, True)

    def test_clock_set_back(self) -> None:
        """A page from the future is not fresh for ever: it is confirmed first."""
        self.epoch -= 7200
        self.start()
        self.indexes.says(AT_ROOT, Reply(304))
        assert self.page().status == "REVALIDATED"

    def test_clock_jumps_within_a_run(self) -> None:
        """A jump of the wall clock makes a page neither older nor younger while proxpi runs."""
        for jump in (-7200.0, 14_400.0):
            self.epoch += jump
            assert self.page().remaining == 1800.0

    def test_files(self) -> None:
        """What a page says of its files is known without asking."""
        self.start()
        listed = self.pages.ready_file("demo", "a.zip")
        assert listed is not None
        assert listed.entry["url"] == "https://files.example/a.zip"

    def test_forgotten(self) -> None:
        """What an operator forgot before the restart is asked for plainly after it."""
        self.pages.invalidate("demo")
        self.start()
        assert self.pages.ready("demo", JSON, False) is None
        assert self.pages.ready_file("demo", "a.zip") is None
        self.page()
        assert self.agents.asked[-1].header("If-None-Match") is None

    def test_withdrawn(self) -> None:
        """A project that the index withdrew does not come back with a restart."""
        self.clock.advance(1801)
        self.indexes.says(AT_ROOT, Reply(404))
        self.error(self.ask(), pages_module.NoSuchProject)
        self.start()
        self.indexes.says(AT_ROOT, Reply(503))
        self.fails(self.ask())

    def test_nothing_is_written_for_nothing(self) -> None:
        """Names that no index has leave no trace on disk."""
        before = sorted(self.folder.rglob("*"))
        self.error(self.ask("nowhere"), pages_module.NoSuchProject)
        assert sorted(self.folder.rglob("*")) == before


class DamageTests(PagesCase):
    """What became of the files is found out, and put right."""

    def setUp(self) -> None:
        """Hold a page with a validator."""
        super().setUp()
        self.indexes.says(AT_ROOT, project_page("a.zip").having(ETag='"x"'))
        self.page()
        self.path = self.store.folder / "demo.page"

    def test_gone_at_a_restart(self) -> None:
        """A page whose file is gone is asked for like a new one."""
        self.path.unlink()
        self.start()
        assert self.page().status == "MISS"

    def test_damaged_at_a_restart(self) -> None:
        """So is one whose file is no longer right."""
        stored = self.store.load("demo")
        assert stored is not None
        sections = stored.sections
        for name in (DOCUMENT + self.indexes.sources[0].identity, "json"):
            whole = bytearray(self.path.read_bytes())
            whole[sections[name].start] ^= 1
            self.path.write_bytes(whole)
            self.start()
            assert files(self.page()) == ["a.zip"]
            assert gzip.decompress(self.packed()) == self.page().body.data

    def packed(self) -> bytes:
        """Give the page compressed."""
        return self.result(run(self.pages.fetch("demo", JSON, True))).body.data

    def test_gone_while_it_runs(self) -> None:
        """A form that is in memory is served; one that would have to be made is asked for."""
        self.path.unlink()
        assert self.page().status == "HIT"
        page = self.result(self.ask(form=HTML))
        assert (page.status, b"a.zip" in page.body.data) == ("MISS", True)

    def test_confirmed_but_gone(self) -> None:
        """A 304 for what is not held any more is no page: it is asked for plainly."""
        self.path.unlink()
        self.clock.advance(1801)
        self.agents.asked.clear()
        self.agents.at(AT_ROOT, Reply(304))
        ask = self.ask()
        self.fails(ask)
        asked = [each.header("If-None-Match") for each in self.agents.asked]
        assert asked[:2] == ['"x"', None]
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        assert files(self.page()) == ["a.zip"]

    def test_files_of_a_page_that_is_gone(self) -> None:
        """Nor is a file unknown because the page is gone."""
        self.path.unlink()
        assert self.pages.ready_file("demo", "a.zip") is None
        self.start()
        listed = self.result(run(self.pages.fetch_file("demo", "a.zip")))
        assert listed.entry["filename"] == "a.zip"

    def test_file_looked_for_on_a_page_that_is_gone(self) -> None:
        """The same while the page is in memory, as far as it is."""
        self.path.unlink()
        listed = self.result(run(self.pages.fetch_file("demo", "a.zip")))
        assert listed.entry["filename"] == "a.zip"

    def test_no_folder(self) -> None:
        """Without a folder that can be written, pages are served from memory."""
        self.build(ROOT)
        (self.folder / ".proxpi").write_text("no folder")
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        assert self.page().status == "MISS"
        assert self.page().status == "HIT"
        assert gzip.decompress(self.packed()) == self.page().body.data
        assert self.pages.ready_file("demo", "a.zip") is not None


class OtherIndexesTests(PagesCase):
    """A restart with other indexes on the same folder."""

    def restart(self, *urls: str) -> None:
        """Begin anew, with these indexes."""
        replies = self.agents.script
        clock = self.clock
        self.indexes = Indexes(urls, (180.0,) * 3, clock)
        self.agents = self.indexes.agents
        self.agents.script.update(replies)
        self.start()

    def setUp(self) -> None:
        """Hold a page of two indexes that both have the same file."""
        super().setUp()
        self.build(ROOT, EXTRA)
        self.indexes.says(AT_ROOT, project_page("a.zip", host="first.example"))
        self.indexes.says(AT_EXTRA, project_page("a.zip", "b.zip", host="second.example"))
        self.page()

    def host(self) -> str:
        """Give where the file that both have comes from."""
        listed = self.result(run(self.pages.fetch_file("demo", "a.zip")))
        url: str = listed.entry["url"]
        return url.split("/")[2]

    def test_order(self) -> None:
        """Precedence is that of now; nobody has to be asked for it."""
        self.restart(EXTRA, ROOT)
        assert files(self.page()) == ["a.zip", "b.zip"]
        assert self.host() == "second.example"
        assert self.agents.asked == []

    def test_one_less(self) -> None:
        """What an index said that is no longer asked does not count."""
        self.restart(ROOT)
        assert files(self.page()) == ["a.zip"]
        assert self.agents.asked == []

    def test_one_more(self) -> None:
        """A new index is asked before the page is used, the others are not."""
        third = "https://third.example/simple/"
        self.indexes.says(f"{third}demo/", project_page("c.zip"))
        self.restart(ROOT, EXTRA, third)
        assert self.pages.ready("demo", JSON, False) is None
        page = json.loads(self.page().body.data)
        assert [file["filename"] for file in page["files"]] == ["a.zip", "b.zip", "c.zip"]
        assert [asked.url for asked in self.agents.asked] == [f"{third}demo/"]
