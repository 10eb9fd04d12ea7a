"""The root list over a restart, and whatever may lie in its folder then."""

from __future__ import annotations

import os
import time
from pathlib import Path

import attrs

from proxpi.index.list_store import DAY, ListStore
from proxpi.simple.negotiate import Serialization
from tests.index.test_project_list import ListCase, content, names
from tests.support.agent import Reply
from tests.support.indexes import EXTRA, ROOT, root_list

JSON, HTML = Serialization.JSON, Serialization.HTML


class KeptCase(ListCase):
    """Tests with a list that is kept."""

    def setUp(self) -> None:
        """Keep a list in two forms, and know what lies there."""
        super().setUp()
        self.indexes.says(ROOT, root_list(["b", "a"]).having(ETag='"x"'))
        self.list()
        self.first = self.list(HTML, True)
        self.asked = len(self.agents.asked)

    def files(self) -> list[Path]:
        """Give what lies in the list's folder."""
        return sorted(self.place.iterdir())

    @property
    def asks(self) -> int:
        """How often an index was asked since the list was kept."""
        return len(self.agents.asked) - self.asked


class RestartTests(KeptCase):
    """A new process on the folder of an old one."""

    def test_fresh(self) -> None:
        """While the list is fresh a restart costs no request, and the bytes are the same."""
        self.clock.advance(100)
        self.restart()
        found = self.list(HTML, True)
        assert (found.status, found.remaining, found.age) == ("HIT", 1700.0, 100.0)
        assert found.file.etag == self.first.file.etag
        assert content(found) == content(self.first)
        assert names(self.list()) == ["b", "a"]
        assert self.asks == 0

    def test_form_that_nobody_wanted_before(self) -> None:
        """A form that was not kept is made of what was."""
        self.restart()
        assert b'<a href="b/">b</a>' in content(self.list(HTML, False))
        assert self.asks == 0

    def test_old(self) -> None:
        """A list past its time is asked for again, and may be confirmed."""
        self.clock.advance(1801)
        self.restart()
        self.indexes.says(ROOT, Reply(304))
        found = self.list(HTML, True)
        assert (found.status, found.file.etag) == ("REVALIDATED", self.first.file.etag)
        assert self.agents.asked[-1].header("If-None-Match") == '"x"'

    def test_outage(self) -> None:
        """A list past its time is there all the same, with its age, when its index is not."""
        self.clock.advance(5000)
        self.restart()
        self.indexes.says(ROOT, Reply(500))
        found = self.list()
        assert (found.status, found.age, names(found)) == ("STALE", 5000.0, ["b", "a"])

    def test_offline(self) -> None:
        """Without a way out the list is what it was."""
        self.clock.advance(5000)
        self.indexes.upstream.offline = True
        self.restart()
        assert names(self.list()) == ["b", "a"]
        assert self.asks == 0

    def test_wall_clock_set_back(self) -> None:
        """A list that was asked for in the future is of no known age: it is asked for again."""
        self.skew -= 10_000
        self.restart()
        assert self.list().status == "MISS"
        assert self.asks == 1

    def test_forgotten(self) -> None:
        """A list that was forgotten is not brought back by a restart, except in an outage."""
        self.projects.invalidate()
        self.restart()
        self.indexes.says(ROOT, root_list(["c"]))
        assert names(self.list()) == ["c"]
        self.restart()
        self.projects.invalidate()  # before it was even read
        self.indexes.says(ROOT, Reply(500))
        found = self.list()
        assert (found.status, names(found)) == ("STALE", ["c"])

    def test_moved(self) -> None:
        """The folder may be mounted elsewhere."""
        elsewhere = self.folder / "else" / "where"
        elsewhere.parent.mkdir()
        os.rename(self.place, elsewhere)
        self.place = elsewhere
        self.restart()
        assert names(self.list()) == ["b", "a"]
        assert self.asks == 0

    def test_same_list_of_a_lost_permission(self) -> None:
        """That an index served its list before is known after a restart: 403 is a failure."""
        self.clock.advance(1801)
        self.restart()
        self.indexes.says(ROOT, Reply(403))
        assert self.list().status == "STALE"

    def test_another_index(self) -> None:
        """Of what other indexes said nothing is shown; what the same one said is used."""
        self.indexes = attrs.evolve(self.indexes, urls=(ROOT, EXTRA))
        self.indexes.says(EXTRA, root_list(["c"]))
        self.restart()
        assert names(self.list()) == ["a", "b", "c"]
        assert [asked.url for asked in self.agents.asked[self.asked :]] == [EXTRA]
        self.indexes = attrs.evolve(self.indexes, urls=(EXTRA,))
        self.restart()
        assert names(self.list()) == ["c"]


class FolderTests(KeptCase):
    """What lies in the folder."""

    def test_only_what_is_needed(self) -> None:
        """There is one file for an index, whose list is replaced; a foreign file stays."""
        foreign = self.place / "README"
        foreign.write_text("hello")
        (kept,) = set(self.files()) - {foreign}
        self.clock.advance(1801)
        self.indexes.says(ROOT, root_list(["c"]))
        old = self.list()
        assert self.files() == sorted([foreign, kept])
        assert not self.leftovers()
        self.clock.advance(1801)
        self.indexes.says(ROOT, root_list(["d"]))
        self.list()
        assert names(old) == ["c"]  # whoever sends it can go on

    def test_index_that_is_configured_no_more(self) -> None:
        """Its file is removed at a later start, but not on the day that it was written."""
        (old,) = self.files()
        self.build(EXTRA)
        self.indexes.says(EXTRA, root_list(["c"]))
        for age, left in ((DAY / 2, True), (DAY * 2, False)):
            old.write_bytes(b"old")
            os.utime(old, (time.time() - age, time.time() - age))
            self.restart()
            assert names(self.list()) == ["c"]
            assert old.exists() is left

    def test_nothing_has_a_name_while_it_comes(self) -> None:
        """A crash while a list comes leaves nothing behind: what is not whole has no name."""
        before = [path for path in self.folder.rglob("*") if path.is_file()]
        self.clock.advance(1801)
        whole = root_list(["c"]).chunks[0]
        self.indexes.says(ROOT, Reply(200, (whole,), whole=False))
        self.pending(self.ask())
        assert [path for path in self.folder.rglob("*") if path.is_file()] == before

    def test_nothing_stays_open(self) -> None:
        """What was replaced is closed once nobody sends it."""
        del self.first
        before = len(self.open_files())
        for number in range(3):
            self.clock.advance(1801)
            self.indexes.says(ROOT, root_list([f"p{number}"]))
            self.list()
            self.list(HTML, True)
        assert len(self.open_files()) == before

    def test_damaged(self) -> None:
        """Whichever file is missing, cut, changed or strange: the list is right all the same."""
        whole = {path: path.read_bytes() for path in self.files()}
        for path, data in whole.items():
            for damage in (None, b"", data[:-1], b"?" + data[1:], data + b"?", b"\xff" * 9, b"{}"):
                for each, bytes_ in whole.items():
                    each.write_bytes(bytes_)
                path.unlink()
                if damage is not None:
                    path.write_bytes(damage)
                self.restart()
                assert names(self.list()) == ["b", "a"]
                assert content(self.list(HTML, True)) == content(self.first)

    def test_another_version(self) -> None:
        """What another version of proxpi keeps is left aside."""
        (path,) = self.files()
        path.write_bytes(path.read_bytes().replace(b"list 5", b"list 9", 1))
        self.restart()
        assert self.list().status == "MISS"

    def test_a_crash_at_any_moment(self) -> None:
        """However far the keeping of a new list came, there is the one before or the one after."""
        self.clock.advance(1801)
        self.indexes.says(ROOT, root_list(["c"]))
        seen = set()
        for moment in range(12):
            left = iter(range(moment))

            def crash(*arguments: object, left: object = left, **keywords: object) -> None:
                if next(left, None) is None:  # type: ignore[call-overload]
                    raise KeyboardInterrupt

            self.crashing(crash)
            self.restart()
            self.indexes.upstream.offline = True
            seen.add(tuple(names(self.list())))
            self.indexes.upstream.offline = False
        assert seen == {("b", "a"), ("c",)}

    def crashing(self, crash: object) -> None:
        """Ask for the new list with a system that goes down at a rename or a removal."""
        replace, unlink = os.replace, Path.unlink

        def replacing(*arguments: object) -> None:
            crash()  # type: ignore[operator]
            replace(*arguments)  # type: ignore[arg-type]

        def unlinking(*arguments: object, **keywords: object) -> None:
            crash()  # type: ignore[operator]
            unlink(*arguments, **keywords)  # type: ignore[arg-type]

        patches = [
            self.patch(os, "replace", replacing),  # type: ignore[no-untyped-call]
            self.patch(Path, "unlink", unlinking),  # type: ignore[no-untyped-call]
        ]
        self.restart()
        try:
            self.ask().addErrback(lambda _: None)
        except KeyboardInterrupt:
            pass
        for each in patches:
            each.restore()
        self.unhandled()


class UnwritableTests(ListCase):
    """A folder that cannot be used."""

    def setUp(self) -> None:
        """Have an index with a list."""
        super().setUp()
        self.indexes.says(ROOT, root_list(["a"]))

    def test_none(self) -> None:
        """Without a folder the list is there, in files without names."""
        self.place = Path("/proc/nowhere/projects")
        self.restart()
        assert names(self.list()) == ["a"]
        assert self.list().status == "HIT"
        assert not list(self.folder.iterdir())

    def test_in_the_way(self) -> None:
        """The same if there is a file where the folder should be."""
        (self.folder / ".proxpi").write_text("mine")
        self.restart()
        assert names(self.list()) == ["a"]
        assert (self.folder / ".proxpi").read_text() == "mine"
        assert not self.unhandled()

    def test_full_while_keeping(self) -> None:
        """If it cannot be kept the list is shown all the same; the log says why."""

        def full(*arguments: object) -> None:
            raise OSError(28, "No space left on device")

        self.put(ListStore, "save", full)
        assert names(self.list()) == ["a"]
        assert self.list().status == "HIT"
