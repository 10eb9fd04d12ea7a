"""Several views: they share what an index has responded, and merge it each by its own order."""

from __future__ import annotations

import json

import pytest
from twisted.internet.defer import Deferred

from proxpi.index.list_store import ListStore
from proxpi.index.page_cache import NoSuchFile, NoSuchProject, NotInView, Page, PageCache
from proxpi.index.project_list import ListEntries, ProjectListCache
from proxpi.index.sources import Member, Members, View
from proxpi.simple.selectors import name_pattern
from proxpi.upstream.errors import UpstreamFailed
from tests.support.agent import Reply
from tests.support.cases import at_once, entry, root_list, run
from tests.support.indexes import project_page
from tests.support.pages import JSON, PagesCase, files
from tests.support.projects import names

OWNER, CUDA, PUBLIC = (f"https://{name}.example/simple/" for name in ("owner", "cuda", "public"))


class ViewsCase(PagesCase):
    """A public index, one for CUDA, and one that owns ``acme-*``; views with and without CUDA."""

    def setUp(self) -> None:
        super().setUp()
        self.build(OWNER, CUDA, PUBLIC, ttls=(1800.0,) * 3)
        for url in (OWNER, CUDA, PUBLIC):
            self.indexes.says(f"{url}demo/", Reply(404))

    def start(self) -> None:
        super().start()
        if len(self.indexes.clients) < 3:
            return
        owner, cuda, public = self.indexes.clients
        members = Members(
            [
                Member(owner, owns=(name_pattern("acme-*"),)),
                Member(cuda, projects=(name_pattern("torch*"), name_pattern("demo"))),
                Member(public),
            ]
        )
        self.views = {
            "default": View("default", (owner, public), members),
            "cu126": View("cu126", (cuda, public), members),
            "public": View("public", (public,), members),
        }
        self.of = {name: PageCache(view, self.entries) for name, view in self.views.items()}

    def in_view(self, view: str, name: str = "demo") -> Deferred[Page]:
        return run(self.of[view].fetch(name, JSON, False))

    def listed(self, view: str, name: str = "demo") -> list[str]:
        return files(self.result(self.in_view(view, name)))


class SharedTests(ViewsCase):
    def test_one_request(self) -> None:
        """The page of an index is requested once for all views, also by clients at a time."""
        self.indexes.says(f"{PUBLIC}demo/", project_page("p.zip"))
        self.indexes.says(f"{CUDA}demo/", project_page("c.zip"))
        self.agent.silent.add(f"{PUBLIC}demo/")
        asks = [self.in_view(view) for view in ("default", "cu126", "public")]
        assert self.agent.count(f"{PUBLIC}demo/") == 1
        self.agent.release(f"{PUBLIC}demo/")
        assert [files(self.result(ask)) for ask in asks] == [
            ["p.zip"],
            ["c.zip", "p.zip"],
            ["p.zip"],
        ]
        assert self.listed("public") == ["p.zip"]
        assert self.agent.count(f"{PUBLIC}demo/") == 1

    def test_restart(self) -> None:
        """After a restart each view has its page, without a request."""
        self.indexes.says(f"{PUBLIC}demo/", project_page("p.zip"))
        self.indexes.says(f"{CUDA}demo/", project_page("c.zip"))
        found = {view: self.listed(view) for view in self.of}
        asked = len(self.agent.asked)
        self.start()
        assert {view: self.listed(view) for view in self.of} == found
        assert len(self.agent.asked) == asked

    def test_precedence(self) -> None:
        """The same file name is another file in a view with another order."""
        self.indexes.says(f"{PUBLIC}demo/", project_page("a.zip", host="public.example"))
        self.indexes.says(f"{CUDA}demo/", project_page("a.zip", host="cuda.example"))
        for view, host in (("cu126", "cuda"), ("public", "public"), ("cu126", "cuda")):
            self.result(self.in_view(view))
            for found in (
                self.of[view].ready_file("demo", "a.zip"),
                self.result(run(self.of[view].fetch_file("demo", "a.zip"))),
            ):
                assert found is not None
                assert found.entry["url"] == f"https://{host}.example/a.zip"

    def test_core_metadata(self) -> None:
        """The core metadata of a wheel concerns no other wheel of its name in another view."""
        wheels = {"public": entry("a.whl", b"1"), "cu126": entry("a.whl", b"2")}
        stated = {"core-metadata": True}
        for extra in ({}, stated):
            self.indexes.says(f"{PUBLIC}demo/", project_page(wheels["public"] | extra))
            self.indexes.says(f"{CUDA}demo/", project_page(wheels["cu126"] | extra))
            self.clock.advance(2000)
            advertised = {view: self.advertised(view) for view in wheels}
            assert advertised == dict.fromkeys(wheels, extra.get("core-metadata"))
            for view, wheel in wheels.items() if not extra else ():
                digests = wheel["hashes"]["sha256"], wheel["hashes"]["sha256"]
                self.result(run(self.of[view].advertise_metadata("demo", "a.whl", *digests)))
            for view, wheel in wheels.items():
                assert self.advertised(view) == (extra.get("core-metadata") or wheel["hashes"])
        self.result(run(self.of["public"].suppress_metadata("demo", "a.whl")))
        assert {view: self.advertised(view) for view in wheels} == {"public": None, "cu126": True}

    def advertised(self, view: str) -> object:
        """Return the core metadata of a wheel that the page of a view advertises."""
        page = json.loads(self.result(self.in_view(view)).body.data)
        return page["files"][0].get("core-metadata")

    def test_file_of_another_view(self) -> None:
        """A file that only another view lists is not there."""
        self.indexes.says(f"{PUBLIC}demo/", project_page("p.zip"))
        self.indexes.says(f"{CUDA}demo/", project_page("c.zip"))
        assert self.listed("cu126") == ["c.zip", "p.zip"]
        self.error(run(self.of["public"].fetch_file("demo", "c.zip")), NoSuchFile)
        assert self.of["public"].ready_file("demo", "c.zip") is None

    def test_outage(self) -> None:
        """An index that fails concerns the views that have it, and no other."""
        self.indexes.says(f"{PUBLIC}demo/", project_page("p.zip"))
        self.indexes.says(f"{CUDA}demo/", Reply(500))
        ask = self.in_view("cu126")
        assert self.listed("public") == ["p.zip"]
        self.fails(ask)

    def test_invalidated(self) -> None:
        """``DELETE`` begins a new generation in all views."""
        self.indexes.says(f"{PUBLIC}demo/", project_page("p.zip"))
        for view in self.of:
            self.listed(view)
        self.indexes.says(f"{PUBLIC}demo/", project_page("new.zip"))
        self.entries.invalidate("demo")
        assert {tuple(self.listed(view)) for view in self.of} == {("new.zip",)}
        assert self.agent.count(f"{PUBLIC}demo/") == 2

    def test_search(self) -> None:
        """A search of prefetching is among the pages of its view."""
        self.indexes.says(f"{PUBLIC}demo/", project_page("p.zip"))
        self.indexes.says(f"{CUDA}demo/", project_page("c.zip"))
        self.result(self.in_view("cu126"))
        for view, count in (("cu126", 2), ("public", 1), ("default", None)):
            assert self.result(run(self.of[view].search("demo", len))) == count
            assert len(self.of[view].digests("demo")) == (count or 1)


class OwnershipTests(ViewsCase):
    """The public index offers a newer version of a project that another index owns."""

    def setUp(self) -> None:
        super().setUp()
        self.indexes.says(f"{PUBLIC}acme-tool/", project_page("acme_tool-99.0.zip"))
        self.indexes.says(f"{OWNER}acme-tool/", project_page("acme_tool-1.0.zip"))

    def test_owner(self) -> None:
        """Only the owner is asked for the project that it owns."""
        assert self.listed("default", "acme-tool") == ["acme_tool-1.0.zip"]
        assert self.agent.count(f"{PUBLIC}acme-tool/") == 0

    def test_failures(self) -> None:
        """While the owner fails, there is its stale page or an error, never the public project."""
        failures = [Reply(500), Reply(401), Reply(403), Reply(429), Reply(200, (b"welcome",))]
        for failure in failures:
            for cached in (False, True):
                self.setUp()
                if cached:
                    self.result(self.in_view("default", "acme-tool"))
                    self.clock.advance(2000)
                self.indexes.says(f"{OWNER}acme-tool/", failure)
                ask = self.in_view("default", "acme-tool")
                self.clock.pump([0.5] * 20)
                if cached:
                    assert files(self.result(ask)) == ["acme_tool-1.0.zip"]
                elif failure.status == 403:  # an object store: it has no such project
                    self.error(ask, NoSuchProject)
                else:
                    self.error(ask, UpstreamFailed)
                assert self.agent.count(f"{PUBLIC}acme-tool/") == 0

    def test_absent(self) -> None:
        """A project that its owner lacks does not exist."""
        self.indexes.says(f"{OWNER}acme-tool/", Reply(404))
        self.error(self.in_view("default", "acme-tool"), NoSuchProject)
        with pytest.raises(NoSuchProject):
            self.of["default"].ready("acme-tool", JSON, False)
        assert self.agent.count(f"{PUBLIC}acme-tool/") == 0

    def test_view_without_the_owner(self) -> None:
        """In a view without the owner the project does not exist, and the error says why."""
        for view in ("cu126", "public"):
            self.error(self.in_view(view, "acme-tool"), NotInView)
            work = self.of[view].fetch_file("acme-tool", "acme_tool-99.0.zip")
            self.error(run(work), NotInView)
            assert self.of[view].ready_file("acme-tool", "acme_tool-99.0.zip") is None
            assert self.result(run(self.of[view].search("acme-tool", len))) is None
            assert self.result(run(self.of[view].prefetch("acme-tool", JSON, False))) is None
        assert self.agent.asked == []

    def test_before_the_owner(self) -> None:
        """Pages from before an index owned the project are not used."""
        everything = View("all", tuple(self.indexes.clients), Members([]))
        before = PageCache(everything, self.entries)
        page = self.result(run(before.fetch("acme-tool", JSON, False)))
        assert files(page) == ["acme_tool-1.0.zip", "acme_tool-99.0.zip"]
        assert self.listed("default", "acme-tool") == ["acme_tool-1.0.zip"]


class ListTests(ViewsCase):
    def setUp(self) -> None:
        super().setUp()
        self.lists = ListEntries(
            indexes=self.indexes.clients,
            clock=self.clock,
            store=ListStore(self.folder / ".proxpi/projects", self.clock),
            in_thread=at_once,
            problems=self.indexes.problems,
        )
        self.list_of = {
            name: ProjectListCache(view, self.lists) for name, view in self.views.items()
        }

    def names(self, view: str) -> list[str]:
        return names(self.result(run(self.list_of[view].fetch(JSON, False))))

    def test_lists(self) -> None:
        """A list has the names of the indexes of its view that may have them."""
        self.indexes.says(OWNER, root_list(["acme-tool", "torch", "own"]))
        self.indexes.says(CUDA, root_list(["torch", "numpy"]))
        self.indexes.says(PUBLIC, root_list(["acme-tool", "acme-fake", "requests"]))
        assert self.names("default") == ["acme-tool", "own", "requests", "torch"]
        assert self.names("cu126") == ["requests", "torch"]
        assert self.names("public") == ["requests"]
        assert [self.agent.count(url) for url in (OWNER, CUDA, PUBLIC)] == [1, 1, 1]
        ready = self.list_of["cu126"].ready(JSON, False)
        assert ready is not None and names(ready) == ["requests", "torch"]

    def test_changed(self) -> None:
        """A list that has changed is another one in each view that has its index."""
        for url in (OWNER, CUDA, PUBLIC):
            self.indexes.says(url, root_list(["torch"]))
        assert [self.names(view) for view in self.views] == [["torch"]] * 3
        self.indexes.says(PUBLIC, root_list(["torch", "new"]))
        self.lists.invalidate()
        assert [self.names(view) for view in self.views] == [["new", "torch"]] * 2 + [
            ["torch", "new"]
        ]
