"""Files of the project list: stored over a restart, merged, rendered, and never held in memory."""

from __future__ import annotations

import contextlib
import os
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from proxpi.index import list_store
from proxpi.index.list_parser import BLOCK, project_names
from proxpi.index.list_store import ListFile, ListStore
from proxpi.simple.model import SkippedLinks
from tests.support.agent import Reply
from tests.support.cases import root_list
from tests.support.indexes import EXTRA, ROOT
from tests.support.projects import HTML, JSON, ListCase, StoredListCase, content, names
from tests.support.strategies import deterministic, normalized_names


class RestartTests(StoredListCase):
    def test_fresh(self) -> None:
        """A fresh list takes no request after a restart, and has the same bytes."""
        html = content(self.list(HTML, True))
        self.clock.advance(100)
        self.restart()
        found = self.list()
        assert (found.status, found.remaining, found.age) == ("HIT", 1700.0, 100.0)
        assert (found.file.etag, content(found)) == (self.first.file.etag, content(self.first))
        assert content(self.list(HTML, True)) == html
        assert self.asks == 0

    def test_stale(self) -> None:
        """A stale list is confirmed by its validators, or served stale with its age."""
        self.clock.advance(1801)
        self.restart()
        self.indexes.says(ROOT, Reply(304))
        found = self.list()
        assert (found.status, found.file.etag) == ("REVALIDATED", self.first.file.etag)
        assert self.agent.asked[-1].header("If-None-Match") == '"x"'
        self.clock.advance(5000)
        for status in (500, 403):  # 403: it served the list before, which is remembered
            self.restart()
            self.indexes.says(ROOT, Reply(status))
            found = self.list()
            assert (found.status, found.age, names(found)) == ("STALE", 5000.0, ["b", "a"])
        self.indexes.upstream.offline = True
        self.restart()
        assert names(self.list()) == ["b", "a"]

    def test_wall_clock_set_back(self) -> None:
        """A list from the future has no known age, and is stale."""
        self.skew -= 10_000
        self.restart()
        assert self.list().status == "MISS"
        assert self.asks == 1

    def test_other_indexes(self) -> None:
        """The stored list of an index is used without the others, and only while it is one."""
        self.indexes = attrs.evolve(self.indexes, urls=(ROOT, EXTRA))
        self.indexes.says(EXTRA, root_list(["c"]))
        self.restart()
        assert names(self.list()) == ["a", "b", "c"]
        assert [asked.url for asked in self.agent.asked[self.asked :]] == [EXTRA]
        self.indexes = attrs.evolve(self.indexes, urls=(EXTRA,))
        self.restart()
        assert names(self.list()) == ["c"]

    def test_two_processes(self) -> None:
        """Of two processes the last one to store a list wins; the other keeps what it has."""
        one = self.projects
        self.clock.advance(1801)
        self.indexes.says(ROOT, root_list(["c"]))
        self.restart()
        assert names(self.list()) == ["c"]
        self.indexes.upstream.offline = True
        other, self.projects = self.projects, one
        assert (names(self.list()), content(self.list())) == (["b", "a"], content(self.first))
        self.projects = other
        assert names(self.list()) == ["c"]
        self.restart()
        assert names(self.list()) == ["c"]


class FolderTests(StoredListCase):
    def files(self) -> list[Path]:
        return sorted(self.place.iterdir())

    def test_one_file(self) -> None:
        """An index has one file, which a new list replaces; a foreign file stays."""
        foreign = self.place / "README"
        foreign.write_text("hello")
        stored = self.files()
        del self.first
        before = len(self.open_files())
        for number in range(3):
            self.clock.advance(1801)
            self.indexes.says(ROOT, root_list([f"p{number}"]))
            old, new = self.list(), self.list(HTML, True)
            assert self.files() == stored
            assert not self.leftovers()
        assert names(old) == ["p2"]
        del old, new
        assert len(self.open_files()) <= before + 1  # that in HTML

    def test_damaged(self) -> None:
        """A file that is missing, cut, changed or of another version is no list."""
        (path,) = self.files()
        data = path.read_bytes()
        other = data.replace(b"list 5", b"list 9", 1)
        for damage in (None, b"", data[:-1], b"?" + data[1:], data + b"?", b"\xff" * 9, other):
            path.unlink()
            if damage is not None:
                path.write_bytes(damage)
            self.restart()
            found = self.list()
            assert (found.status, content(found)) == ("MISS", content(self.first))

    def test_crash(self) -> None:
        """A crash before a list gets its name leaves the one before; after it, the new one."""

        def crash(*_: object) -> None:
            raise KeyboardInterrupt

        self.clock.advance(1801)
        self.indexes.says(ROOT, root_list(["c"]))
        patch = self.patch(os, "replace", crash)  # type: ignore[no-untyped-call]
        for expected in (["b", "a"], ["c"]):
            with contextlib.suppress(KeyboardInterrupt):
                self.ask().addErrback(lambda _: None)
            patch.restore()
            self.unhandled()
            self.indexes.upstream.offline = True
            self.restart()
            assert names(self.list()) == expected
            self.indexes.upstream.offline = False


class UnwritableTests(ListCase):
    def test_served(self) -> None:
        """Without a folder, with a file in its place, or on a full disk, the list is served."""

        def full(*arguments: object, **keywords: object) -> None:
            raise OSError(28, "No space left on device")

        self.indexes.says(ROOT, root_list(["a"]))
        in_the_way = self.folder / "file"
        in_the_way.write_text("mine")
        for place in (Path("/proc/nowhere/projects"), in_the_way / "projects", self.place):
            if place is self.place:
                self.put(ListStore, "save", full)
            self.place = place
            self.restart()
            assert [self.list().status, self.list().status] == ["MISS", "HIT"]
            assert names(self.list()) == ["a"]
        assert in_the_way.read_text() == "mine"
        assert not self.unhandled()


REPRESENTATIONS = [(form, each) for form in (JSON, HTML) for each in (False, True)]
#: Its files are elsewhere, since it cannot be written.
STORE = ListStore(Path("/proc/nowhere/projects"), Clock())


def file(found: Iterable[str]) -> ListFile:
    return STORE.write(f"{name}\n".encode() for name in found)


def in_blocks(patch: pytest.MonkeyPatch, size: int) -> None:
    lines = ListFile.lines

    def few(
        file: ListFile, start: int = 0, end: int | None = None, _: int = 0
    ) -> Iterator[list[bytes]]:
        return lines(file, start, end, size)

    patch.setattr(ListFile, "lines", few)


@settings(deterministic, max_examples=100)
@given(st.lists(st.lists(normalized_names, max_size=30), max_size=4), st.integers(1, 200))
def test_merge(lists: list[list[str]], block: int) -> None:
    """Merged lists are sorted and have each name once, however small the blocks."""
    with pytest.MonkeyPatch.context() as patch:
        in_blocks(patch, block)
        merged = list_store.merge([file(each) for each in lists], STORE)
    found = b"".join(line for lines in merged.lines() for line in lines).decode().splitlines()
    assert found == sorted(set[str]().union(*lists))


def peak(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_of_a_merge() -> None:
    """The memory of a merge does not grow with the lists, sorted or not."""

    def merging(count: int) -> int:
        many = [f"project-{number:07}" for number in range(count)]
        lists = [file(many), file(many[::-1])]
        return peak(lambda: list_store.merge(lists, STORE))

    assert merging(150_000) < 1.5 * merging(75_000)


def json_list(count: int) -> bytes:
    items = ",".join(f'{{"name": "Project.{number:07}"}}' for number in range(count))
    return f'{{"projects": [{items}]}}'.encode()


def html_list(count: int) -> bytes:
    anchors = (
        f'<a href="p-{number}/">P-{number}</a><A HREF="q-{number}/"><b>q-{number}</b></A>'
        for number in range(count // 2)
    )
    return f"<!DOCTYPE html><html>{''.join(anchors)}</html>".encode()


@pytest.mark.parametrize("made", [json_list, html_list])
def test_memory(made: Callable[[int], bytes]) -> None:
    """The memory to parse and render a list does not grow with the list."""

    def handle(body: bytes) -> None:
        blocks = (body[at : at + BLOCK] for at in range(0, len(body), BLOCK))
        found = STORE.write(project_names(blocks, True, SkippedLinks()))
        for packed in (False, True):
            STORE.write(list_store.render(found, HTML, packed))

    short, long = (made(count) for count in (20_000, 40_000))
    assert peak(lambda: handle(long)) < 1.5 * peak(lambda: handle(short))
