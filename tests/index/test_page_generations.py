"""Generations of pages: ``DELETE``, removal, restarts and damaged files, in memory and on disk."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from proxpi import atomic_files
from proxpi.index.page_cache import NoSuchProject, Page
from proxpi.index.page_store import DOCUMENT, PageStore
from tests.support.agent import Reply
from tests.support.cases import run
from tests.support.indexes import EXTRA, ROOT, Indexes, project_page
from tests.support.pages import AT_EXTRA, AT_ROOT, HTML, JSON, Jobs, PagesCase, files


def refuse(*_: object) -> None:
    """Do as a disk does that has turned read-only."""
    raise OSError(30, "Read-only file system")


class GenerationCase(PagesCase):
    def setUp(self) -> None:
        super().setUp()
        self.indexes.says(AT_ROOT, project_page("a.zip").having(ETag='"x"'))
        self.indexes.says(f"{ROOT}other/", project_page("o.zip"))
        self.first = self.page()
        self.result(self.ask(form=HTML))
        self.page("other")
        self.path = self.store.folder / "demo.page"
        self.agent.asked.clear()

    def conditions(self) -> list[str | None]:
        return [asked.header("If-None-Match") for asked in self.agent.asked]

    def packed(self) -> Page:
        return self.result(run(self.pages.fetch("demo", JSON, True)))

    def during_write(self, action: Callable[[], object]) -> Callable[[], None]:
        """Call a function before each write of a file; return the function that ends that."""
        write_whole = atomic_files.write_whole

        def write(*arguments: Any) -> None:
            action()
            write_whole(*arguments)

        patch = self.patch(atomic_files, "write_whole", write)  # type: ignore[no-untyped-call]
        end: Callable[[], None] = patch.restore
        return end


class InvalidatedTests(GenerationCase):
    def assert_invalidated(self) -> None:
        """Check that this process, or a new one, sends an unconditional request for the page."""
        self.agent.asked.clear()
        for restarts in (True, False):
            if restarts:
                self.start()
            assert self.pages.ready("demo", JSON, False) is None
            assert self.url() is None
            if restarts:
                assert self.page().status == "MISS"
                assert self.conditions() == [None]
                assert self.page("other").status == "HIT"
                assert self.page().status == "HIT"
                self.start()
                assert self.page().status == "HIT"
                self.entries.invalidate("demo")

    def test_invalidated(self) -> None:
        """A page is invalidated at once, also without an entry in memory, and repeatedly."""
        self.entries.invalidate("demo")
        self.assert_invalidated()
        self.start()
        self.entries.invalidate("demo")
        self.assert_invalidated()
        self.page()
        self.entries.invalidate("demo")
        self.entries.invalidate("demo")
        pages: Any = self.entries
        pages._entries.clear()
        self.assert_invalidated()

    def test_fallback(self) -> None:
        """In an outage the invalidated page is served as stale, after a restart, too."""
        self.entries.invalidate("demo")
        for _ in range(2):
            self.indexes.says(AT_ROOT, Reply(500))
            page = self.slow_page()
            assert (page.status, files(page)) == ("STALE", ["a.zip"])
            assert self.page().status == "STALE"
            self.start()
        self.indexes.says(AT_ROOT, project_page("b.zip"))
        self.clock.pump([0.5] * 12)
        assert files(self.page()) == ["b.zip"]

    def test_one_index_fails(self) -> None:
        """A response that came since stays; that of the other index stays invalidated."""
        self.begin(project_page("a.zip"), project_page("b.zip"))
        self.page()
        self.entries.invalidate("demo")
        self.indexes.says(AT_EXTRA, Reply(500))
        assert self.slow_page().status == "STALE"
        self.indexes = attrs.evolve(self.indexes)  # as a new process, whose breakers are closed
        self.start()
        self.agent.asked.clear()
        self.indexes.says(AT_EXTRA, project_page("c.zip"))
        assert files(self.page()) == ["a.zip", "c.zip"]
        assert [asked.url for asked in self.agent.asked] == [AT_EXTRA]

    def test_during_a_write(self) -> None:
        """A page that lacks only its name at the DELETE never gets it, nor an unwritten one."""

        def invalidate() -> None:
            self.entries.invalidate("demo")

        for meanwhile in (invalidate, refuse):
            self.setUp()
            self.clock.advance(1801)
            self.page("other")
            end = self.during_write(meanwhile)
            self.indexes.says(AT_ROOT, project_page("b.zip"))
            assert files(self.page()) == ["b.zip"], "the flight that the request joined"
            end()
            if meanwhile is refuse:
                invalidate()
            self.assert_invalidated()
        self.setUp()
        end = self.during_write(invalidate)
        assert self.packed().status == "HIT"  # a representation is added
        end()
        self.assert_invalidated()

    def test_refused(self) -> None:
        """If the disk refuses, that is an error, and nothing has changed."""
        self.put(atomic_files, "overwrite", refuse)
        with pytest.raises(OSError, match="Read-only"):
            self.entries.invalidate("demo")
        self.put(atomic_files, "discard", refuse)
        with pytest.raises(OSError, match="Read-only"):
            self.entries.clear()
        assert self.page().status == "HIT"

    def test_nothing_stored(self) -> None:
        """Neither the DELETE nor the request of an absent page makes a file."""
        before = sorted(self.folder.rglob("*"))
        for number in range(10):
            self.entries.invalidate(f"unknown-{number}")
            self.error(self.ask(f"unknown-{number}"), NoSuchProject)
        assert sorted(self.folder.rglob("*")) == before


class FlightTests(PagesCase):
    """Flights of one generation and the next."""

    def setUp(self) -> None:
        super().setUp()
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        self.agent.silent.add(AT_ROOT)

    def test_any_order(self) -> None:
        """Whichever order they land in, only the latest generation is served and stored."""
        for order in ((0, 0, 0), (2, 1, 0), (1, 1, 0), (2, 0, 0)):
            self.build(ROOT)
            self.agent.silent.add(AT_ROOT)
            asks = []
            for number in range(3):
                if number:
                    self.entries.invalidate("demo")
                asks.append(self.ask())
            pages = [project_page(f"{number}.zip") for number in range(3)]
            for place in order:
                self.agent.answer(AT_ROOT, pages.pop(place), place)
            assert [files(self.result(ask)) for ask in asks] == [["0.zip"], ["1.zip"], ["2.zip"]]
            for _ in range(2):
                page = self.page()
                assert (page.status, files(page)) == ("HIT", ["2.zip"])
                self.start()

    def test_absent(self) -> None:
        """A late absence removes nothing that was stored after the DELETE."""
        early = self.ask()
        self.entries.invalidate("demo")
        self.agent.silent.clear()
        assert self.page().status == "MISS"
        self.agent.answer(AT_ROOT, Reply(404), 0)
        self.error(early, NoSuchProject)
        for _ in range(2):
            assert self.page().status == "HIT"
            self.start()

    def test_confirmed_and_replaced(self) -> None:
        """If a flight confirms a page that is replaced by then, its client gets the newer one."""
        self.agent.silent.clear()
        self.indexes.says(AT_ROOT, project_page("a.zip").having(ETag='"x"'))
        self.page()
        self.start()
        self.clock.advance(1801)
        self.agent.silent.add(AT_ROOT)
        early = self.ask(form=HTML)
        self.entries.invalidate("demo")
        self.ask()
        self.indexes.says(AT_ROOT, project_page("b.zip"))
        self.agent.answer(AT_ROOT, project_page("b.zip"), 1)
        self.agent.answer(AT_ROOT, Reply(304), 0)
        assert b"b.zip" in self.result(early).body.data


class ClearedTests(GenerationCase):
    def clear(self) -> None:
        self.result(self.entries.clear())

    def stored(self) -> list[str]:
        return [path.name for path in self.folder.rglob("*") if path.is_file()]

    def test_cleared(self) -> None:
        """Nothing is left in memory or on disk; an index gets an unconditional request."""
        beside = self.store.folder.parent / "partial-of-another"
        beside.write_bytes(b"x")
        self.clear()
        self.clear()
        assert self.stored() == [beside.name]
        assert self.pages.ready("demo", JSON, False) is None
        assert self.url() is None
        assert files(self.page()) == ["a.zip"]
        assert self.conditions() == [None]
        assert sorted(self.stored()) == ["demo.page", beside.name]
        self.clear()
        self.indexes.says(AT_ROOT, Reply(503))
        for _ in range(2):
            self.fails(self.ask())
            self.start()

    def test_meanwhile(self) -> None:
        """A response that arrives after a DELETE is for its clients; it is never stored."""
        self.clock.advance(1801)
        self.agent.silent.add(AT_ROOT)
        ask = self.ask()
        self.clear()
        self.agent.release(AT_ROOT)
        assert files(self.result(ask)) == ["a.zip"]
        for late in (False, True):
            assert self.stored() == []
            assert self.pages.ready("demo", JSON, False) is None
            in_thread, self.entries.in_thread = self.entries.in_thread, (jobs := Jobs())
            ask = self.ask()
            if late:  # written, but the reactor's thread does not know
                jobs.run()
            cleared = self.entries.clear()
            jobs.end()
            self.result(cleared)
            assert files(self.result(ask)) == ["a.zip"]
            self.entries.in_thread = in_thread
        self.during_write(self.clear)
        assert files(self.page()) == ["a.zip"]
        assert self.stored() == []
        assert self.conditions() == ['"x"', None, None, None]


class RestartTests(GenerationCase):
    def test_fresh(self) -> None:
        """A fresh page is a hit at once: the same bytes, the rest of its time, all its files."""
        self.clock.advance(300)
        self.start()
        assert self.pages.ready("demo", JSON, False) == Page(
            self.first.body, "HIT", 1500.0, 300.0, "root.example"
        )
        assert gzip.decompress(self.packed().body.data) == self.first.body.data
        assert self.url() == "https://files.example/a.zip"
        assert self.agent.asked == []

    def test_stale(self) -> None:
        """A stale page is revalidated by its validators; in an outage it is served, however old."""
        self.clock.advance(1_000_000)
        self.start()
        self.indexes.says(AT_ROOT, Reply(503))
        page = self.slow_page()
        assert (page.status, page.body, page.age >= 1_000_000) == ("STALE", self.first.body, True)
        self.indexes.says(AT_ROOT, Reply(304))
        self.clock.pump([0.5] * 12)
        page = self.page()
        assert (page.status, page.body) == ("REVALIDATED", self.first.body)
        assert set(self.conditions()) == {'"x"', None}  # without them after a failure
        self.start()
        assert self.page().status == "HIT"

    def test_wall_clock(self) -> None:
        """Only a restart looks at the wall clock: a page from the future is stale."""
        for jump in (-7200.0, 14_400.0, -14_400.0):
            self.epoch += jump
            assert self.page().remaining == 1800.0
        self.start()
        self.indexes.says(AT_ROOT, Reply(304))
        assert self.page().status == "REVALIDATED"

    def test_other_indexes(self) -> None:
        """Precedence is that of now; responses of removed indexes do not count, new ones come."""
        third = "https://third.example/simple/"
        for urls, host, listed, asked in (
            ((EXTRA, ROOT), "second", ["a.zip", "b.zip"], []),
            ((ROOT,), "first", ["a.zip"], []),
            ((ROOT, EXTRA, third), "first", ["a.zip", "b.zip", "c.zip"], [third]),
        ):
            self.build(ROOT, EXTRA)
            self.indexes.says(AT_ROOT, project_page("a.zip", host="first.example"))
            self.indexes.says(AT_EXTRA, project_page("a.zip", "b.zip", host="second.example"))
            self.indexes.says(f"{third}demo/", project_page("c.zip"))
            self.page()
            script = self.agent.script
            self.indexes = Indexes(urls, (180.0,) * 3, self.clock)
            self.agent = self.indexes.agent
            self.agent.script.update(script)
            self.start()
            assert not asked or self.pages.ready("demo", JSON, False) is None
            assert files(self.page()) == listed
            file = self.result(run(self.pages.fetch_file("demo", "a.zip")))
            assert file.entry["url"] == f"https://{host}.example/a.zip"
            assert [each.url for each in self.agent.asked] == [f"{url}demo/" for url in asked]


class LostTests(GenerationCase):
    def damage(self, section: str) -> None:
        stored = self.store.load("demo")
        assert stored is not None
        (section,) = (each for each in stored.sections if each.endswith(section))
        whole = bytearray(self.path.read_bytes())
        whole[stored.sections[section].start + stored.start] ^= 1
        self.path.write_bytes(whole)

    def test_at_a_restart(self) -> None:
        """A damaged page is requested like a new one."""
        for section in (DOCUMENT + self.indexes.clients[0].identity, "json"):
            self.damage(section)
            self.start()
            assert files(self.page()) == ["a.zip"]
            assert gzip.decompress(self.packed().body.data) == self.page().body.data
        self.path.unlink()
        self.start()
        assert self.page().status == "MISS"
        self.path.unlink()
        self.start()
        assert self.result(run(self.pages.fetch_file("demo", "a.zip")))

    def test_while_it_runs(self) -> None:
        """A representation in memory is served; what needs the file is requested anew."""
        self.path.unlink()
        assert self.page().status == "HIT"
        assert self.packed().status == "MISS"
        self.path.unlink()
        self.result(run(self.pages.suppress_metadata("demo", "a.zip")))
        assert self.page().status == "MISS"
        self.path.unlink()
        assert self.url() is None
        assert self.result(run(self.pages.fetch_file("demo", "a.zip")))

    def test_confirmed(self) -> None:
        """A 304 for a page that is gone is no page: the next request is unconditional."""
        self.path.unlink()
        self.clock.advance(1801)
        self.indexes.says(AT_ROOT, Reply(304))
        self.fails(self.ask())
        assert self.conditions()[:2] == ['"x"', None]
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        assert files(self.page()) == ["a.zip"]

    def test_read_only(self) -> None:
        """A damaged page that cannot be removed or replaced costs few requests."""
        self.damage(DOCUMENT + self.indexes.clients[0].identity)
        self.put(PageStore, "put", refuse)
        self.put(PageStore, "delete", lambda store, name: None)
        self.start()
        assert gzip.decompress(self.packed().body.data) == self.first.body.data
        assert len(self.agent.asked) == 1
        self.start()
        assert self.result(run(self.pages.fetch_file("demo", "a.zip")))
        self.clock.advance(2000)
        self.indexes.says(AT_ROOT, Reply(304))
        self.start()
        self.fails(self.ask())
        assert len(self.agent.asked) < 20

    def test_no_folder(self) -> None:
        """Without a folder that can be written, pages are served from memory."""
        self.build(ROOT)
        (self.folder / ".proxpi").write_text("no folder")
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        assert [self.page().status for _ in range(2)] == ["MISS", "HIT"]
        assert gzip.decompress(self.packed().body.data) == self.page().body.data
        assert self.url() is not None
