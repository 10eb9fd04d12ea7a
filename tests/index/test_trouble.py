"""Trouble that ends by itself, and what was forgotten stays so: the harder cases."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from proxpi.index import page_cache
from proxpi.index.page_store import DOCUMENT, PageStore
from tests.index.paged import AT_ROOT, HTML, JSON, PagesCase, files
from tests.support.agent import Reply
from tests.support.cases import run
from tests.support.indexes import ROOT, project_page


class SomePagesTests(PagesCase):
    """One page of an index fails, or one after the other; the others are well."""

    def setUp(self) -> None:
        """Hold two pages that are past their time."""
        super().setUp()
        for name in "ab":
            self.indexes.says(f"{ROOT}{name}/", project_page(f"{name}1.zip"))
            self.page(name)
        self.clock.advance(2000)

    def stale(self, name: str) -> None:
        """Ask for a page, which is stale in the end."""
        ask = self.ask(name)
        self.clock.pump([0.1] * 60)
        assert self.result(ask).status == "STALE"

    def test_trouble_holds_no_pages(self) -> None:
        """What is remembered of trouble keeps no page in memory."""
        entries: Any = self.pages
        held = []
        for number in range(20):
            name = f"many-{number}"
            self.indexes.says(f"{ROOT}{name}/", project_page(f"{name}.zip"))
            self.page(name)
            self.clock.advance(2000)
            self.indexes.says(f"{ROOT}{name}/", Reply(401))
            self.stale(name)
            held.append(weakref.ref(entries._entries[name]))
            del entries._entries[name]
        gc.collect()
        # The newest error may still be known to somebody, with all that led to it.
        assert sum(entry() is not None for entry in held) <= 2


class Later:
    """Work that is done when the test says so."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], Any], Deferred[Any]]] = []
        self.waits = False

    def __call__(self, job: Callable[[], Any], /) -> Deferred[Any]:
        """Do it, or note it."""
        if not self.waits:
            return maybeDeferred(job)
        done: Deferred[Any] = Deferred()
        self.jobs.append((job, done))
        return done

    def go_on(self) -> None:
        """Do what was noted, and all that comes."""
        self.waits = False
        jobs, self.jobs = self.jobs, []
        for job, done in jobs:
            maybeDeferred(job).chainDeferred(done)


class ForgottenTests(PagesCase):
    """A page that an operator forgets at an awkward moment."""

    def setUp(self) -> None:
        """Hold a page that is past its time."""
        super().setUp()
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        self.page()
        self.clock.advance(2000)

    def test_while_it_is_written(self) -> None:
        """What a thread was writing meanwhile does not count after a restart."""
        self.indexes.says(AT_ROOT, project_page("b.zip"))
        work = Later()
        entries: Any = self.pages
        entries._in_thread = work
        work.waits = True
        self.ask()
        assert len(work.jobs) == 1
        self.agents.silent.add(AT_ROOT)
        self.pages.invalidate("demo")
        work.go_on()
        self.start()
        assert self.pages.ready("demo", JSON, False) is None

    def test_out_of_memory(self) -> None:
        """Nor does what comes when the page has left memory meanwhile."""
        self.agents.silent.add(AT_ROOT)
        self.ask()
        self.pages.invalidate("demo")
        entries: Any = self.pages
        entries._entries.clear()
        asked = self.agents.count(AT_ROOT)
        self.indexes.says(AT_ROOT, project_page("b.zip"))
        self.agents.release(AT_ROOT)
        assert files(self.page()) == ["b.zip"]
        assert self.agents.count(AT_ROOT) == asked + 1


class DamagedTests(PagesCase):
    """A page that is damaged on disk, and cannot be removed."""

    def setUp(self) -> None:
        """Damage the document of a page, and let nothing be written or removed any more."""
        super().setUp()
        self.indexes.says(AT_ROOT, project_page("a.zip").having(ETag='"x"'))
        self.page()
        path = self.store.folder / "demo.page"
        stored = self.store.load("demo")
        assert stored is not None
        section = stored.sections[DOCUMENT + self.indexes.sources[0].identity]
        whole = bytearray(path.read_bytes())
        whole[section.start] ^= 1
        path.write_bytes(whole)

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        self.put(PageStore, "put", refuse)
        self.put(PageStore, "delete", lambda store, name: None)
        self.start()

    def test_page(self) -> None:
        """A form that would have to be made of it is asked for, once."""
        asked = self.agents.count(AT_ROOT)
        page = self.result(self.ask(form=HTML))
        assert b"a.zip" in page.body.data
        assert self.agents.count(AT_ROOT) == asked + 1

    def test_file(self) -> None:
        """So is a page of which a file is wanted."""
        listed = self.result(run(self.pages.fetch_file("demo", "a.zip")))
        assert listed.entry["filename"] == "a.zip"

    def test_confirmed(self) -> None:
        """And one that the index confirms."""
        self.clock.advance(2000)
        self.indexes.says(AT_ROOT, Reply(304))
        self.fails(self.ask())
        assert self.agents.count(AT_ROOT) < 20


class MemoryTests(PagesCase):
    """Pages that come from disk count as those that were fetched."""

    def test_after_a_restart(self) -> None:
        """The bound holds whatever way a page came into memory."""
        self.put(page_cache, "MEMORY", 20_000)
        names = [f"page-{number}" for number in range(30)]
        for name in names:
            self.indexes.says(f"{ROOT}{name}/", project_page(f"{name}-{'x' * 5000}.zip"))
            self.page(name)
        self.start()
        for name in names:
            assert self.pages.ready(name, JSON, False) is not None
        entries: Any = self.pages
        held = [body for entry in entries._entries.values() for body in entry.bodies.values()]
        assert sum(len(body.data) for body in held) <= 20_000
