"""Everything is forgotten for good: pages and list, in memory and on disk, and what comes late."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from proxpi import atomic_files
from tests.index.paged import AT_ROOT, JSON, PagesCase, files
from tests.support.agent import Reply
from tests.support.indexes import ROOT, project_page


class Jobs:
    """A thread whose jobs end when a test wants it."""

    def __init__(self) -> None:
        self._jobs: list[tuple[Any, Deferred[Any]]] = []

    def __call__(self, job: Any) -> Deferred[Any]:
        """See `Work`."""
        self._jobs.append((job, Deferred()))
        return self._jobs[-1][1]

    def run(self) -> None:
        """Do what is to be done, and let none know yet."""
        self._jobs = [(_giving(job()), end) for job, end in self._jobs]

    def end(self) -> None:
        """Do what is to be done."""
        while self._jobs:
            job, end = self._jobs.pop(0)
            maybeDeferred(job).chainDeferred(end)


def _giving(result: Any) -> Callable[[], Any]:
    return lambda: result


class PagesTests(PagesCase):
    """Pages."""

    def setUp(self) -> None:
        """Hold two pages."""
        super().setUp()
        self.indexes.says(AT_ROOT, project_page("old.zip").having(ETag='"x"'))
        self.indexes.says(f"{ROOT}other/", project_page("other.zip"))
        self.page()
        self.page("other")
        self.agents.asked.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.result(self.pages.clear())

    def kept(self) -> list[str]:
        """Give what lies in the folder."""
        return [path.name for path in self.folder.rglob("*") if path.is_file()]

    def test_gone(self) -> None:
        """Nothing is left, in memory or on disk, and an index is asked without a condition."""
        self.clear()
        assert self.kept() == []
        assert self.pages.ready("demo", JSON, False) is None
        assert self.pages.ready_file("demo", "old.zip") is None
        assert files(self.page()) == ["old.zip"]
        assert self.agents.asked[-1].header("If-None-Match") is None
        assert self.kept() == ["demo.page"]

    def test_no_fallback(self) -> None:
        """In an outage nothing stands in for what was removed, after a restart neither."""
        self.clear()
        self.indexes.says(AT_ROOT, Reply(503))
        self.fails(self.ask())
        self.start()
        self.fails(self.ask())

    def test_nothing_there(self) -> None:
        """Where nothing is kept, nothing is wrong."""
        self.clear()
        self.clear()
        assert files(self.page()) == ["old.zip"]

    def test_others_in_the_folder(self) -> None:
        """What lies beside the pages stays."""
        beside = self.store.folder.parent / "partial-of-another"
        beside.write_bytes(b"x")
        self.clear()
        assert self.kept() == [beside.name]

    def test_while_asking(self) -> None:
        """An answer that was under way is for those who asked before; it is not kept."""
        self.clock.advance(1801)
        self.agents.silent.add(AT_ROOT)
        ask = self.ask()
        self.clear()
        self.agents.release(AT_ROOT)
        assert files(self.result(ask)) == ["old.zip"]
        assert self.kept() == []
        assert self.pages.ready("demo", JSON, False) is None
        self.page()
        assert [asked.header("If-None-Match") for asked in self.agents.asked] == ['"x"', None]

    def test_while_keeping(self) -> None:
        """A page that is being written as all is removed does not stay."""
        self.clear()
        for late in (False, True):
            jobs = Jobs()
            self.pages._in_thread = jobs
            ask = self.ask()
            if late:  # written, and nobody knows it yet
                jobs.run()
            cleared = self.pages.clear()
            jobs.end()
            self.result(cleared)
            assert self.kept() == []
            assert files(self.result(ask)) == ["old.zip"]
            assert self.pages.ready("demo", JSON, False) is None

    def test_while_it_gets_its_name(self) -> None:
        """Nor does one whose file is whole, and only lacks its name."""

        def clear(path: Path, data: bytes, folder: Path, replace: Callable[..., None]) -> None:
            self.clear()
            write_whole(path, data, folder, replace)

        self.clear()
        write_whole = atomic_files.write_whole
        self.put(atomic_files, "write_whole", clear)
        assert files(self.page()) == ["old.zip"]
        assert self.kept() == []
