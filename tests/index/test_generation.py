"""Generations: ``DELETE`` outlives the process, and each request gets its own flight's result."""

from __future__ import annotations

import hashlib
from typing import Any

import attrs
import pytest
from twisted.internet.defer import CancelledError, Deferred

from proxpi import atomic_files
from proxpi.index import page_cache
from proxpi.index.page_cache import NoSuchProject, Page
from proxpi.upstream.connections import CONNECTIONS
from tests.index.paged import AT_EXTRA, AT_ROOT, HTML, JSON, PagesCase, files
from tests.support.agent import Reply
from tests.support.cases import run
from tests.support.indexes import EXTRA, ROOT, project_page


def refuse(*_: object) -> None:
    """Do as a disk does that has turned read-only."""
    raise OSError(30, "Read-only file system")


class ForgetTests(PagesCase):
    """Pages that an operator wants to be asked for again."""

    def setUp(self) -> None:
        """Hold a page that is fresh."""
        super().setUp()
        self.indexes.says(AT_ROOT, project_page("a.zip").having(ETag='"x"'))
        self.page()

    def test_asked_again(self) -> None:
        """A page that is forgotten is asked for before it is used again, and plainly."""
        self.pages.invalidate("demo")
        assert self.pages.ready("demo", JSON, False) is None
        self.indexes.says(AT_ROOT, project_page("b.zip"))
        assert files(self.page()) == ["b.zip"]
        assert self.agents.asked[-1].header("If-None-Match") is None
        assert self.page().status == "HIT"

    def test_others_stay(self) -> None:
        """Another project's page is not touched, nor is it an error if there is none."""
        self.pages.invalidate("other")
        assert self.page().status == "HIT"

    def test_fallback(self) -> None:
        """If the upstream fails, the forgotten page is the fallback that it was."""
        self.pages.invalidate("demo")
        self.indexes.says(AT_ROOT, Reply(500))
        page = self.slow_page()
        assert (page.status, files(page)) == ("STALE", ["a.zip"])
        assert self.page().status == "STALE"
        self.indexes.says(AT_ROOT, project_page("b.zip"))
        self.clock.pump([0.5] * 12)
        assert files(self.page()) == ["b.zip"]

    def test_forgotten_under_way(self) -> None:
        """A request gets what its own flight brings; a later one joins none from before."""
        self.clock.advance(1801)
        self.agents.silent.add(AT_ROOT)
        early = self.ask()
        self.pages.invalidate("demo")
        late = self.ask()
        assert self.agents.waiting == 2
        self.agents.answer(AT_ROOT, project_page("b.zip"))
        assert files(self.result(early)) == ["b.zip"]
        self.pending(late)
        self.agents.answer(AT_ROOT, project_page("c.zip"))
        assert files(self.result(late)) == ["c.zip"]
        assert files(self.page()) == ["c.zip"]
        assert len(self.agents.asked) == 3

    def test_old_answer_comes_last(self) -> None:
        """An answer that was under way does not replace the newer one, if it comes after it."""
        self.clock.advance(1801)
        self.agents.silent.add(AT_ROOT)
        early = self.ask()
        self.pages.invalidate("demo")
        self.agents.silent.clear()
        self.indexes.says(AT_ROOT, project_page("new.zip"))
        assert files(self.page()) == ["new.zip"]
        self.indexes.says(AT_ROOT, project_page("old.zip"))
        self.agents.release(AT_ROOT)
        assert files(self.result(early)) == ["old.zip"]
        for _ in range(2):
            assert files(self.page()) == ["new.zip"]
            self.start()

    def test_forgotten_before_it_was_ever_held(self) -> None:
        """The same for a project that is asked for the first time."""
        other = f"{ROOT}other/"
        self.agents.silent.add(other)
        ask: Deferred[Page] = run(self.pages.fetch("other", JSON, False))
        self.indexes.says(other, project_page("old.zip"))
        self.pages.invalidate("other")
        self.agents.release(other)
        assert files(self.result(ask)) == ["old.zip"]
        assert self.agents.count(other) == 1
        assert self.page("other").status == "MISS"
        assert self.agents.count(other) == 2


class DeleteTests(PagesCase):
    """What ``DELETE`` leaves on disk, as a new process finds it."""

    def setUp(self) -> None:
        """Hold a fresh page in two forms, and another project's."""
        super().setUp()
        self.indexes.says(AT_ROOT, project_page("a.zip").having(ETag='"x"'))
        self.indexes.says(f"{ROOT}other/", project_page("o.zip"))
        self.page()
        self.result(self.ask(form=HTML))
        self.page("other")
        self.agents.asked.clear()

    def assert_due(self) -> None:
        """Check that a new process asks, without a condition, before it uses the page."""
        self.start()
        assert self.pages.ready("demo", JSON, False) is None
        assert self.pages.ready_file("demo", "a.zip") is None
        assert self.page().status == "MISS"
        assert [asked.header("If-None-Match") for asked in self.agents.asked] == [None]
        assert self.page("other").status == "HIT"

    def test_forgotten(self) -> None:
        """At once after DELETE the page on disk is no hit; other pages are."""
        self.pages.invalidate("demo")
        self.assert_due()

    def test_not_in_memory(self) -> None:
        """The same if no request wanted it since the start."""
        self.start()
        self.pages.invalidate("demo")
        self.assert_due()

    def test_evicted(self) -> None:
        """Nor does a want of memory bring it back."""
        self.pages.invalidate("demo")
        entries: Any = self.pages
        entries._entries.clear()
        assert self.page().status == "MISS"

    def test_twice(self) -> None:
        """Each DELETE counts, whatever was fetched in between."""
        self.pages.invalidate("demo")
        self.page()
        self.agents.asked.clear()
        self.pages.invalidate("demo")
        self.pages.invalidate("demo")
        self.assert_due()

    def test_fetched_again(self) -> None:
        """What is fetched after DELETE is a hit, for the next process as well."""
        self.pages.invalidate("demo")
        self.page()
        self.start()
        assert self.page().status == "HIT"

    def test_fallback(self) -> None:
        """The page on disk is the fallback that it was."""
        self.pages.invalidate("demo")
        self.start()
        self.indexes.says(AT_ROOT, Reply(500))
        page = self.slow_page()
        assert (page.status, files(page)) == ("STALE", ["a.zip"])

    def test_one_index_fails(self) -> None:
        """A page of which one index was asked since is still due for the other one."""
        self.build(ROOT, EXTRA)
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        self.indexes.says(AT_EXTRA, project_page("b.zip"))
        self.page()
        self.pages.invalidate("demo")
        self.indexes.says(AT_EXTRA, Reply(500))
        assert self.slow_page().status == "STALE"
        self.indexes = attrs.evolve(self.indexes)  # as a new process, which knows of no trouble
        self.start()
        self.agents.asked.clear()
        self.indexes.says(AT_EXTRA, project_page("c.zip"))
        assert files(self.page()) == ["a.zip", "c.zip"]
        assert [asked.url for asked in self.agents.asked] == [AT_EXTRA]

    def test_being_written(self) -> None:
        """A page that lacks only its name as DELETE comes never gets it."""

        def forget(*arguments: Any) -> None:
            self.pages.invalidate("demo")
            write_whole(*arguments)

        write_whole = atomic_files.write_whole
        self.clock.advance(1801)
        patch = self.patch(atomic_files, "write_whole", forget)  # type: ignore[no-untyped-call]
        self.indexes.says(AT_ROOT, project_page("b.zip"))
        assert files(self.page()) == ["b.zip"], "the flight that the request joined"
        patch.restore()
        assert self.pages.ready("demo", JSON, False) is None
        self.agents.asked.clear()
        self.page("other")
        self.agents.asked.clear()
        self.assert_due()

    def test_form_being_written(self) -> None:
        """Nor does a page to which a form is added meanwhile."""
        write_whole = atomic_files.write_whole

        def forget(*arguments: Any) -> None:
            self.pages.invalidate("demo")
            write_whole(*arguments)

        patch = self.patch(atomic_files, "write_whole", forget)  # type: ignore[no-untyped-call]
        assert self.result(run(self.pages.fetch("demo", HTML, True))).status == "HIT"
        patch.restore()
        self.assert_due()

    def test_absent_meanwhile(self) -> None:
        """An index that lacks the project takes nothing away that came after DELETE."""
        self.clock.advance(1801)
        self.agents.silent.add(AT_ROOT)
        early = self.ask()
        self.pages.invalidate("demo")
        self.agents.silent.clear()
        assert self.page().status == "MISS"
        self.indexes.says(AT_ROOT, Reply(404))
        self.agents.release(AT_ROOT)
        self.error(early, NoSuchProject)
        for _ in range(2):
            assert self.page().status == "HIT"
            self.start()

    def test_nothing_kept(self) -> None:
        """Where there is no page there is nothing to mark, and no file is made."""
        before = sorted(self.folder.rglob("*"))
        for number in range(10):
            self.pages.invalidate(f"unknown-{number}")
        assert sorted(self.folder.rglob("*")) == before

    def test_refused(self) -> None:
        """If the disk refuses, that is an error, and the page stays as it was."""
        self.put(atomic_files, "overwrite", refuse)
        with pytest.raises(OSError, match="Read-only"):
            self.pages.invalidate("demo")
        assert self.page().status == "HIT"
        self.put(atomic_files, "discard", refuse)
        with pytest.raises(OSError, match="Read-only"):
            self.pages.clear()
        assert self.page().status == "HIT"

    def test_page_that_could_not_be_written(self) -> None:
        """A newer page that is in memory alone takes nothing back either."""

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        self.clock.advance(1801)
        patch = self.patch(atomic_files, "write_whole", full)  # type: ignore[no-untyped-call]
        self.indexes.says(AT_ROOT, project_page("b.zip"))
        assert files(self.page()) == ["b.zip"]
        patch.restore()
        self.pages.invalidate("demo")
        self.page("other")
        self.agents.asked.clear()
        self.assert_due()


class FlightTests(PagesCase):
    """Flights of one generation and the next."""

    def setUp(self) -> None:
        """Have an index that takes its time."""
        super().setUp()
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        self.agents.silent.add(AT_ROOT)

    def answer(self, place: int, reply: Reply) -> None:
        """Answer one of the requests that wait, by its place among them."""
        self.indexes.says(AT_ROOT, reply)
        self.agents.answer(AT_ROOT, reply, place)

    def test_many_deletes(self) -> None:
        """Five clients and hundreds of DELETEs: each client gets what it joined, asked once."""
        asks = []
        for _ in range(5):
            asks.append(self.ask())
            for _ in range(100):
                self.pages.invalidate("demo")
        assert self.agents.waiting == 5
        for number in range(5):
            self.answer(0, project_page(f"{number}.zip"))
            for _ in range(100):
                self.pages.invalidate("demo")
            assert files(self.result(asks[number])) == [f"{number}.zip"]
        assert len(self.agents.asked) == 5

    def test_one_flight_a_generation(self) -> None:
        """Clients that come between two DELETEs share one request to the index."""
        asks = []
        for _ in range(3):
            asks += [self.ask(form=form) for form in (JSON, HTML, JSON)]
            self.pages.invalidate("demo")
        assert self.agents.waiting == 3
        self.agents.release(AT_ROOT)
        assert {self.result(ask).status for ask in asks} == {"MISS"}

    def test_any_order(self) -> None:
        """Whichever order they land in, only the latest generation is held and kept."""
        for order in ((0, 0, 0), (2, 1, 0), (1, 1, 0), (2, 0, 0)):
            self.build(ROOT)
            self.agents.silent.add(AT_ROOT)
            asks = []
            for number in range(3):
                if number:
                    self.pages.invalidate("demo")
                asks.append(self.ask())
            pages = [project_page(f"{number}.zip") for number in range(3)]
            for place in order:
                self.answer(place, pages.pop(place))
            assert [files(self.result(ask)) for ask in asks] == [["0.zip"], ["1.zip"], ["2.zip"]]
            for _ in range(2):
                held = self.page()
                assert (held.status, files(held)) == ("HIT", ["2.zip"])
                self.start()

    def test_confirmed_and_replaced(self) -> None:
        """If a flight confirms a page that is gone by then, its client gets the newer one."""
        self.agents.silent.clear()
        self.indexes.says(AT_ROOT, project_page("a.zip").having(ETag='"x"'))
        self.page()
        self.start()
        self.clock.advance(1801)
        self.agents.silent.add(AT_ROOT)
        early = self.ask(form=HTML)
        self.pages.invalidate("demo")
        self.ask()
        self.answer(1, project_page("b.zip"))
        self.answer(0, Reply(304))
        assert b"b.zip" in self.result(early).body.data

    def test_one_request_an_index(self) -> None:
        """Two kinds of refresh at a time share the request to each index."""
        self.build(ROOT, EXTRA)
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        self.indexes.says(AT_EXTRA, project_page("b.zip"))
        self.page()
        self.clock.advance(200)
        self.agents.silent |= {AT_ROOT, AT_EXTRA}
        one = self.ask()
        other = run(self.pages.ask_again("demo", "a.zip"))
        assert (self.agents.count(AT_ROOT), self.agents.count(AT_EXTRA)) == (2, 2)
        self.agents.release(AT_ROOT)
        self.agents.release(AT_EXTRA)
        assert files(self.result(one)) == ["a.zip", "b.zip"]
        assert self.result(other) is not None

    def test_pinned(self) -> None:
        """However large the pages that come meanwhile, a slow page is asked for once."""
        self.put(page_cache, "MEMORY", 4 * page_cache.OVERHEAD)
        asks = [self.ask()]
        for number in range(4):
            large = [hashlib.sha256(b"%d" % each).hexdigest() for each in range(400)]
            self.indexes.says(f"{ROOT}large-{number}/", project_page(*large))
            self.page(f"large-{number}")
            asks.append(self.ask())
        assert self.agents.waiting == 1
        self.agents.release(AT_ROOT)
        assert [files(self.result(ask)) for ask in asks] == [["a.zip"]] * 5
        assert self.page().status == "HIT"

    def test_pinned_no_longer(self) -> None:
        """What has landed is evicted like any other."""
        self.put(page_cache, "MEMORY", 4 * page_cache.OVERHEAD)
        self.ask()
        self.agents.release(AT_ROOT)
        for number in range(6):
            self.indexes.says(f"{ROOT}p-{number}/", project_page("p.zip"))
            self.page(f"p-{number}")
        entries: Any = self.pages
        assert "demo" not in entries._entries


class AbandonedTests(PagesCase):
    """Requests that wait for a slot, as all slots of the index are taken."""

    def setUp(self) -> None:
        """Take them, by pages that are slow."""
        super().setUp()
        self.names = [f"p-{number}" for number in range(2 * CONNECTIONS)]
        for name in self.names:
            self.agents.silent.add(f"{ROOT}{name}/")
            self.indexes.says(f"{ROOT}{name}/", project_page("p.zip"))
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        self.asks = [self.ask(name) for name in self.names]
        assert len(self.agents.asked) == CONNECTIONS

    def leave(self) -> None:
        """Let all clients leave."""
        for ask in self.asks:
            ask.cancel()
            self.error(ask, CancelledError)

    def test_all_leave(self) -> None:
        """What waits ends with its last client; what is being answered goes on."""
        ask = self.ask()
        self.leave()
        self.agents.release(f"{ROOT}{self.names[0]}/")
        assert files(self.result(ask)) == ["a.zip"]
        for name in self.names[1:CONNECTIONS]:
            self.agents.release(f"{ROOT}{name}/")
        assert len(self.agents.asked) == CONNECTIONS + 1
        assert self.page(self.names[0]).status == "HIT"
        assert not self.unhandled()

    def test_after_a_while(self) -> None:
        """The same when they have waited for some seconds."""
        self.clock.advance(7)
        self.leave()
        for name in self.names[:CONNECTIONS]:
            self.agents.release(f"{ROOT}{name}/")
        assert len(self.agents.asked) == CONNECTIONS

    def test_one_stays(self) -> None:
        """As long as one of several clients waits, so does the request."""
        stays = self.ask(self.names[-1])
        self.leave()
        self.agents.silent.clear()
        self.agents.release(f"{ROOT}{self.names[0]}/")
        assert files(self.result(stays)) == ["p.zip"]

    def test_next_client(self) -> None:
        """The next client is not told of it: it gets the page."""
        self.leave()
        ask = self.ask(self.names[-1])
        self.agents.silent.clear()
        self.agents.release(f"{ROOT}{self.names[0]}/")
        assert files(self.result(ask)) == ["p.zip"]

    def test_late(self) -> None:
        """A revalidation goes on behind a client that got the stale page meanwhile."""
        for name in self.names:
            self.agents.release(f"{ROOT}{name}/")
        self.page()
        self.clock.advance(2000)
        self.agents.silent |= {f"{ROOT}{name}/" for name in self.names}
        self.asks = [self.ask(name) for name in self.names[:CONNECTIONS]]
        stale = self.ask()
        self.clock.advance(5.1)
        assert self.result(stale).status == "STALE"
        self.indexes.says(AT_ROOT, project_page("b.zip"))
        for name in self.names:
            self.agents.release(f"{ROOT}{name}/")
        held = self.pages.ready("demo", JSON, False)
        assert held is not None
        assert (held.status, files(held)) == ("HIT", ["b.zip"])
