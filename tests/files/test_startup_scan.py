"""The look at a large cache folder, and what happens until it has come to its end."""

from __future__ import annotations

import os
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from proxpi.files import layout, usage_log
from proxpi.files.quota import Full
from proxpi.tap import cache_folder
from tests.files.test_disk import DiskCase, reference_of
from tests.files.test_disk_odd import refused
from tests.support.logs import logged


class Behind(DiskCase):
    """A large folder is looked at while the process runs already."""

    def setUp(self) -> None:
        """Fill a folder, and begin anew with threads that this test lets run."""
        super().setUp()
        self.references = [reference_of(f"{number}.whl", bytes(30)) for number in range(3)]
        for reference in self.references:
            self.keep(reference, bytes(30))
        self.cache_dir.close()
        self.put(layout, "MANY", 2)
        self.jobs: list[tuple[Any, Deferred[Any]]] = []

    def begin(self, capacity: int) -> None:
        """Begin anew."""
        self.cache_dir = cache_folder(self.folder, capacity, writes=self.in_thread)
        self.cache_dir.prepare()

    def in_thread(self, job: Any) -> Deferred[Any]:
        """Keep it for later."""
        self.jobs.append((job, Deferred()))
        return self.jobs[-1][1]

    def run_thread(self) -> None:
        job, done = self.jobs.pop(0)
        done.callback(job())

    def run_threads(self) -> None:
        """Let all threads come to their ends."""
        while self.jobs:
            job, done = self.jobs.pop(0)
            done.callback(job())

    def test_counted_at_once(self) -> None:
        """What was written down counts from the start, and nothing is added before a look."""
        self.begin(100)
        assert self.cache_dir.quota.used == 90
        with pytest.raises(Full):
            self.keep(reference_of("new.whl", bytes(10)), bytes(10))
        self.run_threads()
        self.keep(reference_of("new.whl", bytes(40)), bytes(40))
        self.run_threads()
        assert (
            self.cache_dir.quota.used
            == self.held() - (self.cache_dir.own / usage_log.NAME).stat().st_size
            == 100
        )
        assert self.content(reference_of("new.whl", bytes(40))) is not None

    def test_served_at_once(self) -> None:
        """A file is checked and served before anyone has looked."""
        self.begin(100)
        assert self.check(self.references[1])
        assert self.content(self.references[1]) == bytes(30)
        self.run_threads()
        assert self.content(self.references[1]) == bytes(30)
        assert self.cache_dir.quota.used == 90

    def test_lowered_cap(self) -> None:
        """What is too much goes behind: it holds up nobody, and is not served meanwhile."""
        self.begin(30)
        job, looked = self.jobs.pop()
        looked.callback(job())
        assert self.cache_dir.quota.used == 90, "it counts until it is gone"
        assert [self.cache_dir.found(reference) for reference in self.references] == [
            False,
            False,
            False,
        ]
        assert [self.content(reference) is not None for reference in self.references] == [
            False,
            False,
            True,
        ]
        assert len(os.listdir(self.folder / "h-example")) == 3
        self.run_threads()
        assert os.listdir(self.folder / "h-example") == ["2.whl"]
        assert self.cache_dir.quota.used == 30

    def test_comes_anew_before_it_is_removed(self) -> None:
        """A file that is to go, and comes anew before it does, stays."""
        self.begin(30)
        job, looked = self.jobs.pop()
        looked.callback(job())
        self.keep(self.references[0], bytes(30))
        self.run_threads()
        assert self.content(self.references[0]) == bytes(30)
        assert self.cache_dir.quota.used == 30

    def test_folder_cannot_be_read(self) -> None:
        """A folder that cannot be looked at is complained of, and used all the same."""
        self.begin(100)
        job, looked = self.jobs.pop()
        with logged("proxpi.files") as log:
            looked.errback(PermissionError(13, "Permission denied"))
        assert "cannot be read" in log.text
        assert self.check(self.references[0])
        assert callable(job)

    def test_folder_cannot_be_read_at_all(self) -> None:
        """The same where not even its size can be told; once it can be read, it is used."""
        with refused(self.folder, "scandir"), logged("proxpi.files") as log:
            self.begin(100)
        assert "cannot be read" in log.text
        assert set(log.levels) == {"critical"}
        assert self.check(self.references[0])
        self.keep(reference_of("new.whl", bytes(10)), bytes(10))
        assert self.content(reference_of("new.whl", bytes(10))) is not None

    def test_many_unknown_files(self) -> None:
        """A large folder that nobody knows is served from at once; it grows once it is known."""
        (self.cache_dir.own / usage_log.NAME).unlink()
        self.begin(100)
        assert self.check(self.references[0])
        assert self.content(self.references[0]) == bytes(30)
        new = reference_of("new.whl", bytes(40))
        with pytest.raises(Full):
            self.keep(new, bytes(40))
        self.run_threads()
        self.keep(new, bytes(40))
        self.run_threads()
        assert self.cache_dir.quota.used == 100

    def test_more_came(self) -> None:
        """Nobody knows what came after the last word; the log does not alarm."""
        self.begin(100)
        self.run_threads()
        for number in range(3, 6):
            self.lay(f"{number}.whl", bytes(30))
        new = reference_of("new.whl", bytes(40))
        with logged("proxpi.files") as log:
            self.begin(200)
            for _ in range(3):
                partial = self.cache_dir.partial(new)
                with pytest.raises(Full) as refusal:
                    partial.reservation.announce(40)
                self.cache_dir.log_refusal(refusal.value)
                self.cache_dir.discard(partial)
        assert log.levels == ["info"]
        assert self.check(self.references[0]), "what lies there is served"
        self.run_threads()
        self.keep(new, bytes(40))
        self.run_threads()
        assert self.cache_dir.quota.used <= 200

    def test_cleared_before_it_is_known(self) -> None:
        """What is cleared while the folder is looked at does not count afterwards."""
        (self.cache_dir.own / usage_log.NAME).unlink()
        self.begin(100)
        cleared = Deferred.fromCoroutine(self.cache_dir.clear())
        self.run_threads()
        self.result(cleared)
        assert (self.cache_dir.quota.used, self.held()) == (0, 0)

    def test_ends_before_it_is_known(self) -> None:
        """A process that ends that early writes nothing down that is not so."""
        (self.cache_dir.own / usage_log.NAME).unlink()
        self.begin(100)
        assert self.check(self.references[0])
        self.cache_dir.close()
        assert not (self.cache_dir.own / usage_log.NAME).exists()
