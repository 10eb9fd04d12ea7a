"""Files that have to go: they are removed in a thread, and count until they are gone."""

from __future__ import annotations

import os
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from proxpi.files import leaving as leaving_module
from proxpi.files import partial as partial_module
from proxpi.files import room as room_module
from proxpi.files.disk import Disk, Full
from proxpi.files.mirror import Mirror
from proxpi.upstream.credentials import Credentials
from proxpi.upstream.pool import Upstream
from tests.files.mirrored import TIMEOUT, URL, MirrorCase
from tests.files.test_disk import DiskCase, bare, link_of
from tests.support.house import entry
from tests.support.internet import Reply


class Threaded(DiskCase):
    """Ten files that fill the folder; threads run when the test lets them."""

    def setUp(self) -> None:
        """Fill the folder, and let each byte be written as it comes."""
        super().setUp()
        self.put(partial_module, "BUFFER", 1)
        self.jobs: list[tuple[Any, Deferred[Any]]] = []
        self.disk = Disk(self.folder, 100, self.in_thread)
        self.disk.prepare()
        self.links = [link_of(f"{number}.whl", bytes(10)) for number in range(10)]
        for link in self.links:
            self.keep(link, bytes(10))

    def in_thread(self, job: Any) -> Deferred[Any]:
        """Keep it for later."""
        self.jobs.append((job, Deferred()))
        return self.jobs[-1][1]

    def run_thread(self) -> None:
        """Let one thread come to its end."""
        job, done = self.jobs.pop(0)
        done.callback(job())

    def run_threads(self) -> None:
        """Let all of them come to their ends."""
        while self.jobs:
            self.run_thread()

    def names(self) -> int:
        """How many files there are."""
        return len(os.listdir(self.folder / "h-example"))


class Leave(Threaded):
    """Room is made for a file that needs half of it."""

    def test_waits(self) -> None:
        """Nothing is removed by who asks, and nothing written before there is room for it."""
        self.put(leaving_module, "SOME", 2)
        partial = self.disk.partial(bare("new.whl", 50))
        self.disk.reserve(partial, 50)
        room = partial.write(bytes(50))
        assert room is not None
        assert self.names() == 10
        while self.jobs:
            assert partial.path.stat().st_size == 0
            assert partial.read(0, 100) == bytes(50), "who follows it does not wait"
            assert self.held() <= 100
            self.run_thread()
        assert self.successResultOf(room) is None
        assert partial.flush() is None
        assert partial.path.stat().st_size == 50
        assert self.disk.used == self.held() == 100
        self.disk.end(partial)

    def test_nothing_comes_of_it(self) -> None:
        """Who waits for room that somebody else has taken meanwhile is told so."""
        one, two = self.disk.partial(bare("1.whl", 50)), self.disk.partial(bare("2.whl", 50))
        waiting = [partial.write(bytes(50)) for partial in (one, two)]
        kept = self.disk.open(self.links[0])
        assert kept is None, "all of them are to go"
        path = self.folder / "h-example/0.whl"
        path.unlink()
        path.mkdir()
        (path / "inside").write_bytes(b"x")
        self.run_threads()
        assert [self.successResultOf(room) for room in waiting if room] == [None, None]
        with pytest.raises(Full):
            one.flush()
        self.disk.end(one)
        assert two.flush() is None
        self.disk.end(two)

    def test_given_up(self) -> None:
        """Once a download has ended, no more goes for it than is on its way already."""
        self.put(leaving_module, "SOME", 2)
        self.put(room_module, "SOME", 2)
        partial = self.disk.partial(bare("new.whl", 50))
        self.disk.reserve(partial, 50)
        self.disk.end(partial)
        self.run_threads()
        assert self.names() == 8

    def test_lives_on(self) -> None:
        """What was about to go, and comes anew, stays."""
        partial = self.disk.partial(bare("new.whl", 50))
        self.disk.reserve(partial, 50)
        assert self.disk.open(self.links[0]) is None
        self.disk.end(partial)
        self.keep(self.links[0], bytes(10))
        self.run_threads()
        assert self.content(self.links[0]) == bytes(10)
        assert self.disk.used == self.held() == 60

    def test_goes_twice(self) -> None:
        """What comes anew while it goes, and has to go again, counts until that is done."""
        partial = self.disk.partial(bare("new.whl", 10))
        self.disk.reserve(partial, 10)
        job, done = self.jobs.pop()
        tried = job()
        [gone] = [link for link in self.links if not (self.folder / str(link.place)).exists()]
        self.disk.end(partial)
        self.keep(gone, bytes(10))
        cleared = self.disk.clear()
        done.callback(tried)
        assert self.disk.used == 100
        self.run_threads()
        self.successResultOf(cleared)
        assert self.disk.used == self.names() == 0


class Cleared(Threaded):
    """Everything goes, while other things happen."""

    def test_counts_until_it_is_gone(self) -> None:
        """A file that comes meanwhile finds no room that is not there yet."""
        self.disk.clear()
        assert self.disk.used == 100
        partial = self.disk.partial(bare("new.whl", 50))
        room = partial.write(bytes(50))
        assert room is not None
        self.run_threads()
        assert self.successResultOf(room) is None
        assert self.disk.used == 50
        self.disk.end(partial)

    def test_being_checked(self) -> None:
        """A check that ends at any time after that brings nothing back."""
        link = link_of("found.whl", bytes(10))
        for jobs in range(4):
            self.lay("found.whl", bytes(10))
            checked = self.disk.check(link)
            cleared = self.disk.clear()
            for _ in range(jobs):
                if self.jobs:
                    self.run_thread()
            self.disk.trust(link, checked)
            self.run_threads()
            self.successResultOf(cleared)
            assert (self.disk.used, self.disk.open(link), self.disk.found(link)) == (0, None, False)
            assert self.names() == 0

    def test_came_while_it_was_checked(self) -> None:
        """The outcome of a check says nothing of a file that has come since."""
        link = link_of("found.whl", bytes(10))
        self.lay("found.whl", bytes(10))
        checked = self.disk.check(link)
        self.disk.forget(link)
        self.keep(link, bytes(10))
        for outcome in (checked, None):
            self.disk.trust(link, outcome)
            assert self.content(link) == bytes(10)


class Download(MirrorCase):
    """A download for which something has to go."""

    def setUp(self) -> None:
        """Fill the folder with a file, and let another begin to come."""
        super().setUp()
        self.disk = Disk(self.folder, 100, self.in_thread)
        self.disk.prepare()
        upstream = Upstream(self.internet, self.clock, Credentials.gather([]), 3, 20)
        self.mirror = Mirror(
            self.locate, upstream, self.disk, self.clock, 2 * TIMEOUT, self.in_thread
        )
        old, self.new = b"o" * 90, b"n" * 80
        files = {
            name: (data, URL.replace("demo", name))
            for name, data in (("old", old), ("new", self.new))
        }
        for name, (data, url) in files.items():
            self.locate.lists(entry(name, data, url=url))
        self.slow = Reply(200, b"", whole=False, length=len(self.new))
        self.internet.at(files["old"][1], Reply(200, old))
        self.internet.at(files["new"][1], self.slow)
        first = self.fetch("old")
        self.run_threads()
        self.assert_bytes(self.result(first), old)
        self.asked = self.fetch("new")

    def held(self) -> int:
        """Bytes of files that lie there."""
        return sum(p.stat().st_size for p in self.folder.rglob("*") if p.is_file())

    def test_waits_without_reading(self) -> None:
        """It reads no more from upstream until there is room, and is kept then."""
        self.put(partial_module, "BUFFER", 1)
        self.slow.bring(self.new[:40])
        assert self.slow.paused
        self.run_threads()
        assert not self.slow.paused
        self.slow.bring(self.new[40:])
        self.slow.end()
        self.run_threads()
        self.assert_bytes(self.result(self.asked), self.new)
        self.assert_served("new", self.new)
        assert self.mirror.ready("demo", "old") is None

    def test_waits_at_its_end(self) -> None:
        """One that comes at once waits before any of it is written."""
        self.slow.bring(self.new)
        self.slow.end()
        assert self.held() == 90
        self.run_threads()
        self.run_threads()
        self.assert_bytes(self.result(self.asked), self.new)
        assert self.held() == 80
