"""What outlasts a restart: how recently and how often files were used, and what that decides."""

from __future__ import annotations

import os
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from proxpi.files import disk as disk_module
from proxpi.files import folder as folder_module
from proxpi.files.disk import USES, Disk, Full
from tests.files.test_disk import DiskCase, link_of
from tests.support.logs import logged


class Uses(DiskCase):
    """Three files for which there is just room, one of them used often and long ago."""

    def setUp(self) -> None:
        """Use a file, then lay two others."""
        super().setUp()
        self.links = {name: link_of(f"{name}.whl", bytes(30)) for name in "abc"}
        self.keep(self.links["a"], bytes(30))
        for _ in range(3):
            self.content(self.links["a"])
        for name in "bc":
            self.keep(self.links[name], bytes(30))
            self.content(self.links[name])
        for age, name in enumerate("cba"):
            path = self.folder / f"h-example/{name}.whl"
            os.utime(path, (1e9 - age, 1e9 - age))
        self.uses = self.disk.own / USES

    def first_to_go(self, disk: Disk) -> set[str]:
        """What goes when one more file comes."""
        before = set(os.listdir(self.folder / "h-example"))
        self.disk = disk
        self.keep(link_of("new.whl", bytes(30)), bytes(30))
        return before - set(os.listdir(self.folder / "h-example"))

    def test_restart(self) -> None:
        """What was used often stays, though it was used long ago."""
        self.disk.close()
        assert self.first_to_go(self.prepared(100)) == {"b.whl"}

    def test_nothing_written(self) -> None:
        """Without a word of uses the times on disk decide."""
        assert self.first_to_go(self.prepared(100)) == {"a.whl"}

    def test_damaged(self) -> None:
        """A document that is damaged is said to be, and the times on disk decide."""
        self.disk.close()
        self.uses.write_bytes(self.uses.read_bytes()[:-1])
        with logged("proxpi.files") as log:
            disk = self.prepared(100)
        assert "uses.json is damaged" in log.text
        assert self.first_to_go(disk) == {"a.whl"}

    def test_leads_elsewhere(self) -> None:
        """A document that names what is not the cache's does it no harm."""
        self.disk.close()
        outside = self.folder / "README"
        outside.write_bytes(b"x")
        document = self.uses.read_bytes().replace(b"h-example/a.whl", b"h-example/../README")
        self.uses.write_bytes(document)
        disk = self.prepared(10)
        assert disk.used == 0
        assert outside.exists()
        assert os.listdir(self.folder / "h-example") == []

    def test_written_now_and_then(self) -> None:
        """It is written while the process runs, for when it is killed."""
        self.put(disk_module, "CHANGES", 5)
        assert not self.uses.exists()
        for _ in range(5):
            self.keep(self.links["a"], bytes(30))
        assert self.uses.exists()
        assert self.leftovers() == []

    def test_not_written(self) -> None:
        """Where it cannot be written, it is not, and nothing is left of it."""
        self.uses.mkdir()
        self.disk.close()
        assert self.leftovers() == []
        assert self.first_to_go(self.prepared(100)) == {"a.whl"}

    def test_any_kind(self) -> None:
        """A file of a kind that nobody knows is still the cache's own after a restart."""
        self.keep(link_of("unknown.kind", bytes(10)), bytes(10))
        self.disk.close()
        assert self.prepared(100).used == 100

    def test_changed_meanwhile(self) -> None:
        """What went, came or grew while no process ran is as the disk has it."""
        self.disk.close()
        (self.folder / "h-example/a.whl").unlink()
        self.lay("b.whl", bytes(20))
        self.lay("d.whl", bytes(15))
        assert self.prepared(100).used == 20 + 30 + 15


class Behind(DiskCase):
    """With a word of what lies there, the folder is looked at while the process runs already."""

    def setUp(self) -> None:
        """Fill a folder, and begin anew with threads that this test lets run."""
        super().setUp()
        self.links = [link_of(f"{number}.whl", bytes(30)) for number in range(3)]
        for link in self.links:
            self.keep(link, bytes(30))
        self.disk.close()
        self.jobs: list[tuple[Any, Deferred[Any]]] = []

    def begin(self, capacity: int) -> None:
        """Begin anew."""
        self.disk = Disk(self.folder, capacity, self.in_thread)
        self.disk.prepare()

    def in_thread(self, job: Any) -> Deferred[Any]:
        """Keep it for later."""
        self.jobs.append((job, Deferred()))
        return self.jobs[-1][1]

    def run_threads(self) -> None:
        """Let all threads come to their ends."""
        while self.jobs:
            job, done = self.jobs.pop(0)
            done.callback(job())

    def test_counted_at_once(self) -> None:
        """What lies there counts from the start, and room is made before anyone has looked."""
        self.begin(100)
        assert self.disk.used == 90
        self.keep(link_of("new.whl", bytes(40)), bytes(40))
        assert self.disk.used == self.held() - (self.disk.own / USES).stat().st_size == 100
        self.run_threads()
        assert self.disk.used == 100
        assert self.content(link_of("new.whl", bytes(40))) is not None

    def test_served_at_once(self) -> None:
        """A file is checked and served before anyone has looked."""
        self.begin(100)
        assert self.check(self.links[1])
        assert self.content(self.links[1]) == bytes(30)
        self.run_threads()
        assert self.content(self.links[1]) == bytes(30)
        assert self.disk.used == 90

    def test_lowered_cap(self) -> None:
        """What is too much goes behind: it holds up nobody, and is not served meanwhile."""
        self.begin(30)
        job, looked = self.jobs.pop()
        looked.callback(job())
        assert self.disk.used == 30
        there = [self.disk.found(link) for link in self.links]
        assert there == [False, False, True]
        assert len(os.listdir(self.folder / "h-example")) == 3
        self.run_threads()
        assert os.listdir(self.folder / "h-example") == ["2.whl"]

    def test_comes_anew_before_it_is_removed(self) -> None:
        """A file that is to go, and comes anew before it does, stays."""
        self.begin(30)
        job, looked = self.jobs.pop()
        looked.callback(job())
        self.keep(self.links[0], bytes(30))
        self.run_threads()
        assert self.content(self.links[0]) == bytes(30)
        assert self.disk.used == 30

    def test_folder_cannot_be_read(self) -> None:
        """A folder that cannot be looked at is complained of, and used all the same."""
        self.begin(100)
        job, looked = self.jobs.pop()
        with logged("proxpi.files") as log:
            looked.errback(PermissionError(13, "Permission denied"))
        assert "cannot be read" in log.text
        assert self.check(self.links[0])
        assert callable(job)

    def test_many_unknown_files(self) -> None:
        """A large folder that nobody knows is served from at once; it grows once it is known."""
        (self.disk.own / USES).unlink()
        self.put(folder_module, "MANY", 2)
        self.begin(100)
        assert self.check(self.links[0])
        assert self.content(self.links[0]) == bytes(30)
        new = link_of("new.whl", bytes(40))
        with pytest.raises(Full):
            self.keep(new, bytes(40))
        self.run_threads()
        self.keep(new, bytes(40))
        assert self.disk.used == 100

    def test_cleared_before_it_is_known(self) -> None:
        """What is cleared while the folder is looked at does not count afterwards."""
        (self.disk.own / USES).unlink()
        self.put(folder_module, "MANY", 2)
        self.begin(100)
        cleared = self.disk.clear()
        self.run_threads()
        self.result(cleared)
        assert (self.disk.used, self.held()) == (0, 0)

    def test_ends_before_it_is_known(self) -> None:
        """A process that ends that early writes nothing down that is not so."""
        (self.disk.own / USES).unlink()
        self.put(folder_module, "MANY", 2)
        self.begin(100)
        assert self.check(self.links[0])
        self.disk.close()
        assert not (self.disk.own / USES).exists()
