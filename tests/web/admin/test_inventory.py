"""The inventory: cached projects and their files, searched, sorted and paged, hostile names too."""

from __future__ import annotations

import gc
import json
import os
import weakref
from typing import Any
from unittest import mock
from urllib.parse import quote

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from proxpi.files import EvictionIndex
from proxpi.index import FoundPage
from proxpi.local_files import Identity
from proxpi.web.admin.inventory import (
    DEADLINE,
    IDLE,
    MAX_AGE,
    PAGE_SIZE,
    UNKNOWN,
    BeingCounted,
    IndexTtl,
    Inventory,
    PageCounts,
    Snapshot,
    find_projects,
    moment,
    paged,
    project_of,
    sort_of,
    take,
)
from tests.support.agent import Reply
from tests.support.cases import INDEX, Case, ProxpiCase, entry, page, run

HOSTILE = "<script>alert(1)</script>\n\x1b[31m\u202e"
INDEXES = [IndexTtl("aa", "root", 100.0), IndexTtl("bb", "own", 10.0)]
NOW = 1000.0


def cached(*files: tuple[str, int, int, float]) -> EvictionIndex:
    """Return the index of files with cache path, bytes, uses and time of the last use."""
    now = 0.0
    index = EvictionIndex(wall=lambda: now)
    for path, size, uses, now in files:
        index.add(path, size)
        index.use(path, uses)
    return index


def found(**confirmed: float) -> FoundPage:
    return FoundPage(Identity(1, 2, 3), confirmed)


def snapshot(index: EvictionIndex, **pages: FoundPage) -> Snapshot:
    return take(*index.snapshot(), pages, INDEXES, NOW, {})


@pytest.mark.parametrize(
    ("path", "project"),
    [
        ("h/a/Foo_Bar-1.0-py3-none-any.whl", "foo-bar"),
        ("h/a/Foo_Bar-1.0-py3-none-any.whl.metadata", "foo-bar"),
        ("h/foo-bar-1.0.tar.gz.asc", "foo-bar"),
        ("h/foo%2Dbar-1.0%2Bcu126.tar.gz", "foo-bar"),
        ("h/latest.zip", UNKNOWN),
        ("h/" + quote(f"{HOSTILE}-1.0.zip", ""), UNKNOWN),
        ("h/%ff%00.whl", UNKNOWN),
    ],
)
def test_project_of(path: str, project: str) -> None:
    """The name of a file says its project, also that of a companion, or does not."""
    assert project_of(path) == project


def test_projects_are_the_sum_of_their_files_and_pages() -> None:
    """A project has the bytes and uses of its files, and the state of its stalest page."""
    index = cached(
        ("h/foo-1.0.zip", 10, 2, 5.0), ("h/Foo-2.0.zip", 20, 1, 7.0), ("h/bar-1.0.zip", 5, 9, 6.0)
    )
    taken = snapshot(index, foo=found(aa=950.0, bb=900.0), new=found(aa=950.0, cc=1.0))
    rows = {row.project: row for row in find_projects(taken, "", "name", 1).projects}
    foo = rows["foo"]
    assert (foo.files, foo.bytes, foo.uses, foo.last_used) == (2, 30, 3, "1970-01-01T00:00:07Z")
    assert (foo.state, foo.indexes) == ("stale", ["root", "own"])
    assert (rows["bar"].state, rows["bar"].indexes) == (None, [])
    new = rows["new"]
    assert (new.files, new.bytes, new.last_used, new.state) == (0, 0, None, "fresh")
    assert taken.counts == {"root": PageCounts(2, 2, 0), "own": PageCounts(1, 0, 1)}


def test_freshness() -> None:
    """A page is fresh for its TTL; one that was forgotten, or is of the future, is stale."""
    for confirmed, fresh in ((NOW, 1), (NOW - 99, 1), (NOW - 100, 0), (0.0, 0), (NOW + 1, 0)):
        counts = snapshot(cached(), demo=found(aa=confirmed)).counts["root"]
        assert (counts.cached, counts.fresh, counts.stale) == (1, fresh, 1 - fresh)


def test_orders() -> None:
    """Projects are sorted by name, or the largest, latest or most used first; then by name."""
    index = cached(
        *(("h/a-1.zip", 5, 0, 3.0), ("h/b-1.zip", 9, 1, 1.0), ("h/c-1.zip", 5, 7, 2.0)),
        ("h/d-1.zip", 1, 7, 2.0),
    )
    taken = snapshot(index)
    for sort, names in (("name", "abcd"), ("size", "bacd"), ("used", "acdb"), ("uses", "cdba")):
        listed = find_projects(taken, "", sort_of(sort), 1)
        assert "".join(row.project for row in listed.projects) == names
    assert [row.project for row in taken.most_used] == ["c", "d", "b"]
    assert [row.project for row in taken.biggest] == ["b", "a", "c", "d"]
    assert [sort_of(text) for text in ("", "Name", HOSTILE)] == ["name"] * 3


def test_search() -> None:
    """A search finds names that contain a text in any spelling, and nothing else."""
    taken = snapshot(cached(), **{name: found(aa=1.0) for name in ("foo-bar", "foobar", "x")})
    for text, names in (
        ("foo", ["foo-bar", "foobar"]),
        (" Foo_Bar ", ["foo-bar"]),
        ("FOO.", ["foo-bar"]),
        ("-", ["foo-bar"]),
        ("nothing", []),
        (HOSTILE, []),
        ("%", []),
    ):
        listed = find_projects(taken, text, "name", 1)
        assert [row.project for row in listed.projects] == names
        assert (listed.total, listed.pages) == (len(names), 1)


def test_pages_of_lists() -> None:
    """A list has pages of a fixed size; a number beyond them is that of the nearest page."""
    rows = range(2 * PAGE_SIZE + 1)
    assert paged(rows, 3) == (3, 3, rows[2 * PAGE_SIZE :])
    assert paged(rows, 99) == paged(rows, 3)
    assert paged(rows, 0) == paged(rows, 1) == (1, 3, rows[:PAGE_SIZE])
    assert paged([], 7) == (1, 1, [])


def test_moments_that_no_calendar_has() -> None:
    """A time that is not known, or that a damaged disk gives, is none."""
    assert [moment(each) for each in (0, 1e300, 10**15)] == [None] * 3
    assert moment(1.9) == "1970-01-01T00:00:01Z"


def test_files_are_told_apart_once() -> None:
    """The projects of files that the snapshot before had are not made out again."""
    index = cached(("h/a-1.zip", 1, 1, 1.0), ("h/b-1.zip", 1, 1, 1.0))
    with mock.patch("proxpi.web.admin.inventory.project_of", return_value="other") as made_out:
        known = {"h/a-1.zip": "a", "h/gone-1.zip": "gone"}
        taken = take(*index.snapshot(), {}, INDEXES, NOW, known)
    made_out.assert_called_once_with("h/b-1.zip")
    assert taken.projects_of == {"h/a-1.zip": "a", "h/b-1.zip": "other"}


class Snapshots(Case):
    """When snapshots are taken; `jobs` are those that wait for a thread."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.index = cached(("h/a-1.zip", 1, 1, 1.0))
        self.jobs: list[tuple[Any, Deferred[Any]]] = []
        self.inventory = Inventory(
            cached_files=self.index.snapshot,
            stored_pages=lambda known: known,
            origins=mock.Mock(),
            indexes=INDEXES,
            clock=self.clock,
            wall=lambda: NOW,
            in_thread=self.in_thread,
        )

    def in_thread(self, job: Any) -> Deferred[Any]:
        self.jobs.append((job, Deferred()))
        return self.jobs[-1][1]

    def run_thread(self, seconds: float = 0.0) -> None:
        job, done = self.jobs.pop(0)
        self.clock.advance(seconds)
        done.callback(job())

    def names(self, asked: Deferred[Snapshot]) -> list[str]:
        return sorted(self.result(asked).projects)

    def test_shared(self) -> None:
        """All who ask meanwhile get the same snapshot."""
        asked = [run(self.inventory.snapshot()) for _ in range(3)]
        self.run_thread()
        assert self.jobs == []
        assert len({id(self.result(each)) for each in asked}) == 1

    def test_new_for_a_while(self) -> None:
        """A snapshot is new for twenty times as long as it took, and for half a minute at most."""
        for took, new_for in ((0.0, 0.0), (0.5, 10.0), (0.75, 15.0), (7.0, MAX_AGE)):
            run(self.inventory.snapshot())
            self.run_thread(took)
            self.clock.advance(max(0.0, new_for - 0.1))
            if new_for:
                self.result(run(self.inventory.snapshot()))
                self.clock.advance(0.1)
            assert self.jobs == []
        run(self.inventory.snapshot())
        assert len(self.jobs) == 1

    def test_dropped(self) -> None:
        """A snapshot is dropped some time after the last request for it."""
        run(self.inventory.snapshot())
        self.run_thread(0.5)
        for _ in range(3):
            self.clock.advance(IDLE - 1.0)
            run(self.inventory.snapshot())
            self.run_thread(0.5)
        taken = weakref.ref(self.result(run(self.inventory.snapshot())))
        self.clock.advance(IDLE - 0.1)
        gc.collect()
        assert taken() is not None
        self.clock.advance(0.1)
        gc.collect()
        assert taken() is None
        assert self.clock.getDelayedCalls() == []
        run(self.inventory.snapshot())
        assert len(self.jobs) == 1

    def test_slow_thread(self) -> None:
        """No request waits long: the first learns that projects are counted, others get the last.

        The result of a slow thread is used.
        """
        first = run(self.inventory.snapshot())
        self.clock.advance(DEADLINE)
        self.error(first, BeingCounted)
        self.run_thread()
        self.clock.advance(MAX_AGE)
        self.index.add("h/b-1.zip", 1)
        second = run(self.inventory.snapshot())
        self.clock.advance(DEADLINE)
        assert self.names(second) == ["a"]
        third = run(self.inventory.snapshot())
        self.clock.advance(0.0)
        assert self.names(third) == ["a"], "it has waited already"
        self.run_thread()
        assert self.names(run(self.inventory.snapshot())) == ["a", "b"]


class Lists(ProxpiCase):
    """The lists as ``/stats/projects`` sends them."""

    def stats(self, target: str) -> Any:
        response = self.get(f"/stats/projects{target}")
        assert response.headers["content-type"] == "application/json"
        return json.loads(response.body) if response.status == 200 else response.status

    def fetch(self, filename: str, data: bytes = b"x", project: str = "demo") -> None:
        self.serve(filename, data, project=project)
        assert self.get(f"/index/{project}/{quote(filename)}").status == 200

    def test_projects(self) -> None:
        """Projects are listed once they are cached, and not any more once they are deleted."""
        empty = {"version": 1, "search": "", "sort": "name", "page": 1, "pages": 1}
        assert self.stats("") == {**empty, "total": 0, "projects": []}
        self.fetch("demo-1.0.zip", b"12345")
        self.fetch("other-1.0.zip", project="other")
        listed = self.stats("")
        assert [each["project"] for each in listed["projects"]] == ["demo", "other"]
        demo = listed["projects"][0]
        assert demo.pop("last_used").endswith("Z")
        assert demo == {
            "project": "demo",
            "files": 1,
            "bytes": 5,
            "uses": 1,
            "state": "fresh",
            "indexes": ["root"],
        }
        assert self.stats("?search=OTH&sort=size&page=7")["total"] == 1
        assert self.ask("DELETE", "/cache/demo").status == 200
        assert self.stats("?search=demo")["projects"][0]["state"] == "stale"
        assert self.ask("DELETE", "/cache").status == 200
        assert self.stats("")["total"] == 0

    def test_files(self) -> None:
        """A project's files are listed with their index, and its pages with their state."""
        self.fetch("demo-1.0.zip")
        (self.folder / "old-example").mkdir()
        (self.folder / "old-example/demo-0.9.zip").write_bytes(b"123")
        self.cache_dir.prepare()
        listed = self.stats("/DEMO?sort=size")
        assert [(each["index"], each["state"]) for each in listed["cached_pages"]] == [
            ("root", "fresh")
        ]
        first, second = listed["files"]
        assert (first["file"], first["bytes"], first["index"]) == ("demo-0.9.zip", 3, None)
        assert (first["host"], first["verified"]) == ("old-example", False)
        assert (second["file"], second["index"]) == ("demo-1.0.zip", "root")
        assert (second["host"], second["verified"]) == ("files-example", True)
        assert listed["row"]["files"] == listed["total"] == 2

    def test_files_of_two_indexes(self) -> None:
        """A file is of the first index that lists it."""
        self.build(extra="https://extra.example/simple/")
        own, extra = entry("demo-1.0.zip", b"x"), entry("demo-2.0.zip", b"x")
        self.agent.at(f"{INDEX}demo/", page(own))
        self.agent.at("https://extra.example/simple/demo/", page(own, extra))
        for each in (own, extra):
            self.agent.at(each["url"], Reply(200, b"x"))
            assert self.get(f"/index/demo/{each['filename']}").status == 200
        files = self.stats("/demo")["files"]
        assert [each["index"] for each in files] == ["root", "extra-1"]

    def test_nothing_cached(self) -> None:
        """A project without page and files is a 404."""
        for target in ("/demo", "/-", "/-x", "/%3Cscript%3E", "/a%0Ab"):
            assert self.stats(target) == 404

    def test_hostile_queries(self) -> None:
        """A page that is no number is the first page, and a search repeats itself as JSON alone."""
        self.fetch("demo-1.0.zip")
        for query in ("?page=-1", "?page=1e9", "?page=%D9%A1", f"?page={'9' * 5000}", "?page="):
            assert self.stats(query)["page"] == 1
        assert self.stats(f"?search={quote(HOSTILE)}&sort=%00")["search"] == HOSTILE.strip()
        assert self.stats("?search=%ff")["total"] == 0

    def test_hostile_names(self) -> None:
        """Files with odd names are listed by these names, for no project."""
        odd = f"{HOSTILE}.zip"
        for name in (quote(odd, ""), "a%FF.zip", "ok-1.0.zip"):
            path = self.folder / "h-example" / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"x")
        (self.folder / "h-example").joinpath(os.fsdecode(b"\xff-1.0.zip")).write_bytes(b"x")
        self.cache_dir.prepare()
        assert [each["project"] for each in self.stats("")["projects"]] == [UNKNOWN, "ok"]
        files = [each["file"] for each in self.stats(f"/{UNKNOWN}")["files"]]
        assert files == [odd, "a\ufffd.zip"]
        assert self.stats("/%3Cscript%3E") == 404, "a name that no project can have"
        text = self.get(f"/?project={UNKNOWN}").text
        assert "<script>alert" not in text
        assert "\x1b" not in text

    def test_absent(self) -> None:
        """The page says that nothing of a project is cached, and does not list all others."""
        assert "No cached project has “absent” in its name." in self.get("/?project=absent").text

    def test_being_counted(self) -> None:
        """While the first snapshot is being taken, lists are a 503, and page and numbers come."""
        with mock.patch.object(Inventory, "snapshot", side_effect=BeingCounted):
            response = self.get("/stats/projects")
            assert (response.status, response.headers["retry-after"]) == (503, "1")
            assert json.loads(response.body)["status"] == "error"
            assert self.stats("/demo") == 503
            assert self.get("/").status == 200
            document = json.loads(self.get("/stats").body)
        assert document["indexes"][0]["pages"] is None
