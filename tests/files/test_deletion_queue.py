"""The deletion queue: files are renamed first, then unlinked, and nothing else is."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from twisted.internet.defer import Deferred

from proxpi.files import cache_dir as disk_module
from proxpi.files import cache_dir as partial_module
from proxpi.files import deletion_queue as queue_module
from proxpi.files import layout, usage_log
from proxpi.files import quota as quota_module
from proxpi.files.layout import RESERVED
from proxpi.files.quota import Full
from proxpi.files.resolver import FileReference
from proxpi.tap import cache_folder
from tests.files.test_disk import DiskCase, bare, reference_of
from tests.support.agent import Reply
from tests.support.cases import entry, sha256
from tests.support.logs import logged
from tests.support.mirrors import TIMEOUT, URL, MirrorCase


class Threaded(DiskCase):
    """Ten files that fill the folder; threads run when the test lets them."""

    def setUp(self) -> None:
        """Fill the folder, and let each byte be written as it comes."""
        super().setUp()
        self.put(partial_module, "BUFFER", 1)
        self.jobs: list[tuple[Any, Deferred[Any]]] = []
        self.cache_dir = cache_folder(self.folder, 100, writes=self.in_thread)
        self.cache_dir.prepare()
        self.references = [reference_of(f"{number}.whl", bytes(10)) for number in range(10)]
        for reference in self.references:
            self.keep(reference, bytes(10))

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

    def reserved(self) -> list[str]:
        """Which of them are to be unlinked."""
        return [name for name in os.listdir(self.folder / "h-example") if name.startswith(RESERVED)]

    @contextmanager
    def refused(self, call: str) -> Iterator[None]:
        """Let a call of the system fail below the hosts' folders."""
        real = getattr(os, call)

        def refuse(path: Any, *arguments: Any, **named: Any) -> Any:
            if "/h-example/" in os.fspath(path):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
            return real(path, *arguments, **named)

        with mock.patch.object(os, call, refuse):
            yield


class Leave(Threaded):
    """Room is made for a file that needs half of it."""

    def test_waits(self) -> None:
        """Nothing is removed by who asks, and nothing written before there is room for it."""
        self.put(queue_module, "BATCH", 2)
        partial = self.cache_dir.partial(bare("new.whl", 50))
        partial.reservation.announce(50)
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
        assert self.cache_dir.quota.used == self.held() == 100
        self.cache_dir.discard(partial)

    def test_nothing_comes_of_it(self) -> None:
        """Who waits for room that somebody else has taken meanwhile is told so."""
        one, two = (
            self.cache_dir.partial(bare("1.whl", 50)),
            self.cache_dir.partial(bare("2.whl", 50)),
        )
        waiting = [partial.write(bytes(50)) for partial in (one, two)]
        assert self.cache_dir.open(self.references[0]) is None, "all of them are to go"
        with self.refused("unlink"):
            self.run_threads()
        assert [self.successResultOf(room) for room in waiting if room] == [None, None]
        with pytest.raises(Full):
            one.flush()
        self.cache_dir.discard(one)
        with pytest.raises(Full):
            two.flush()
        self.cache_dir.discard(two)
        assert self.cache_dir.quota.used == self.held() == 100

    def test_given_up(self) -> None:
        """Once a download has ended, no more goes for it than is on its way already."""
        self.put(queue_module, "BATCH", 2)
        self.put(quota_module, "BATCH", 2)
        partial = self.cache_dir.partial(bare("new.whl", 50))
        partial.reservation.announce(50)
        self.cache_dir.discard(partial)
        self.run_threads()
        assert self.names() == 8

    def test_lives_on(self) -> None:
        """What was about to go, and comes anew, stays."""
        partial = self.cache_dir.partial(bare("new.whl", 50))
        partial.reservation.announce(50)
        assert self.cache_dir.open(self.references[0]) is None
        self.cache_dir.discard(partial)
        self.keep(self.references[0], bytes(10))
        self.run_threads()
        assert self.content(self.references[0]) == bytes(10)
        assert self.cache_dir.quota.used == self.held() == 60

    def test_goes_twice(self) -> None:
        """What comes anew while it goes, and has to go again, counts until that is done."""
        self.cache_dir.quota.capacity = 110
        partial = self.cache_dir.partial(bare("new.whl", 20))
        partial.reservation.announce(20)
        job, done = self.jobs.pop()
        tried = job()
        [gone] = [
            reference
            for reference in self.references
            if not (self.folder / str(reference.cache_path)).exists()
        ]
        self.cache_dir.discard(partial)
        self.keep(gone, bytes(10))
        cleared = Deferred.fromCoroutine(self.cache_dir.clear())
        done.callback(tried)
        assert self.cache_dir.quota.used == 100
        self.run_threads()
        self.successResultOf(cleared)
        assert self.cache_dir.quota.used == self.names() == 0


class Cleared(Threaded):
    """Everything goes, while other things happen."""

    def test_counts_until_it_is_gone(self) -> None:
        """A file that comes meanwhile finds no room that is not there yet."""
        Deferred.fromCoroutine(self.cache_dir.clear())
        assert self.cache_dir.quota.used == 100
        partial = self.cache_dir.partial(bare("new.whl", 50))
        room = partial.write(bytes(50))
        assert room is not None
        self.run_threads()
        assert self.successResultOf(room) is None
        assert self.cache_dir.quota.used == 50
        self.cache_dir.discard(partial)

    def test_being_checked(self) -> None:
        """A check that ends at any time after that brings nothing back."""
        reference = reference_of("found.whl", bytes(10))
        for jobs in range(4):
            self.lay("found.whl", bytes(10))
            checked = self.begin_check(reference)
            cleared = Deferred.fromCoroutine(self.cache_dir.clear())
            for _ in range(jobs):
                if self.jobs:
                    self.run_thread()
            checked()
            self.run_threads()
            self.successResultOf(cleared)
            assert (
                self.cache_dir.quota.used,
                self.cache_dir.open(reference),
                self.cache_dir.found(reference),
            ) == (
                0,
                None,
                False,
            )
            assert self.names() == 0

    def test_came_while_it_was_cleared(self) -> None:
        """A file that comes at any time after that stays, and the one before it goes."""
        new = b"n" * 10
        for jobs in range(4):
            for reference in self.references[:3]:
                self.keep(reference, bytes(10))
            cleared = Deferred.fromCoroutine(self.cache_dir.clear())
            for _ in range(jobs):
                if self.jobs:
                    self.run_thread()
            reference = reference_of("0.whl", new)
            self.keep(reference, new)
            self.run_threads()
            self.successResultOf(cleared)
            assert self.content(reference) == new
            assert self.cache_dir.quota.used == self.held() == 10

    def test_unlinked_by_the_way(self) -> None:
        """A large cache is renamed some files at a time."""
        self.put(queue_module, "BATCH", 3)
        self.put(disk_module, "BATCH", 3)
        cleared = Deferred.fromCoroutine(self.cache_dir.clear())
        self.run_thread()
        assert len(self.reserved()) == 3
        assert self.names() == 10
        self.run_threads()
        self.successResultOf(cleared)
        assert self.names() == 0


class Windows(Threaded):
    """A thread's outcome is about the file that the thread saw, whatever lies there by then."""

    def setUp(self) -> None:
        """Lay a file."""
        super().setUp()
        self.reference = reference_of("found.whl", bytes(10))
        self.path = self.lay("found.whl", b"w" * 10)

    def again(self) -> None:
        """Remove it, and fetch it anew."""
        self.delete(self.reference)
        self.keep(self.reference, bytes(10))

    def test_wrong_file_fetched_anew(self) -> None:
        """The check of a wrong file, which ends after a right one came, removes nothing."""
        checked = self.begin_check(self.reference)
        self.again()
        assert not checked()
        self.run_threads()
        assert self.content(self.reference) == bytes(10)

    def test_right_file_fetched_anew(self) -> None:
        """The check of a right file says nothing of one that came since."""
        self.path.write_bytes(bytes(10))
        checked = self.begin_check(self.reference)
        self.again()
        self.path.write_bytes(b"x" * 10)
        assert not checked()
        assert self.cache_dir.open(self.reference) is None

    def test_file_removed_while_it_is_read(self) -> None:
        """The check of a file that is removed and fetched anew meanwhile gives no outcome."""
        read: list[bool] = []

        def sync(_: object) -> None:
            if not read:
                read.append(True)
                self.again()

        with mock.patch.object(os, "fsync", sync):
            assert not self.check(self.reference)
        self.run_threads()
        assert self.content(self.reference) == bytes(10)

    def test_wrong_file_replaced_from_outside(self) -> None:
        """A wrong file that another program replaced meanwhile is checked anew."""
        checked = self.begin_check(self.reference)
        other = self.path.with_name("other")
        other.write_bytes(bytes(10))
        other.rename(self.path)
        assert not checked()
        self.run_threads()
        assert self.check(self.reference)

    def test_file_gone_when_its_check_ends(self) -> None:
        """Whatever a check says of a file that is not there any more, it is a miss."""
        for _ in range(2):
            checked = self.begin_check(self.reference)
            self.delete(self.reference)
            assert not checked()
            assert not self.cache_dir.found(self.reference)

    def test_evicted_and_fetched_anew(self) -> None:
        """An eviction that ends late removes nothing that came since, whenever its thread runs."""
        for early in (True, False):
            partial = self.cache_dir.partial(bare("new.whl", 10))
            partial.reservation.announce(10)
            [gone] = [
                reference
                for reference in self.references
                if not (self.folder / str(reference.cache_path)).exists()
            ]
            self.cache_dir.discard(partial)
            if early:
                self.run_threads()
            self.keep(gone, bytes(10))
            self.run_threads()
            assert self.content(gone) == bytes(10)
            assert self.cache_dir.quota.used == self.held() - 10, (
                "the file that was laid is not known yet"
            )

    def test_copy_of_the_one_before(self) -> None:
        """A copy of a file that was fetched anew is not kept open for others, nor doubted."""
        self.keep(self.reference, bytes(10))
        before = self.cache_dir.open(self.reference)
        assert before is not None
        self.again()
        assert before.keep() is None
        before.mark_unverified()
        before.close()
        after = self.cache_dir.open(self.reference)
        assert after is not None, "it is not to be checked"
        held = after.keep()
        assert held is not None
        held.close()
        after.mark_unverified()
        assert self.cache_dir.open(self.reference) is None
        after.close()

    def test_replaced_right_after_its_name(self) -> None:
        """A file that another program puts in the place of a new one is not taken for that."""
        rename = os.rename
        self.delete(self.references[0])
        self.run_threads()

        def renamed(old: Any, new: Any) -> None:
            rename(old, new)
            other = self.folder / "other"
            other.write_bytes(b"x" * 10)
            rename(other, new)

        with mock.patch.object(os, "rename", renamed):
            self.keep(self.reference, bytes(10))
        assert self.cache_dir.open(self.reference) is None
        assert not self.check(self.reference)

    def test_older_usage_log(self) -> None:
        """What was to be written first is written first, and the end waits for the last."""
        self.put(usage_log, "CHANGES", 1)
        for _ in range(12):
            self.content(self.references[0])
        self.delete(self.references[0])
        ended = self.cache_dir.close()
        assert len(self.jobs) == 3, "what is written, what is unlinked, and what is not finished"
        self.run_threads()
        self.successResultOf(ended)
        assert b"/0.whl" not in (self.cache_dir.own / usage_log.NAME).read_bytes()

    def test_hung_disk(self) -> None:
        """The end of a process does not wait for threads, other than by the Deferred."""
        partial = self.cache_dir.partial(self.reference)
        partial.write(bytes(5))
        ended = self.cache_dir.close()
        assert self.leftovers() != []
        self.pending(ended)
        self.cache_dir.discard(partial)
        self.run_threads()
        self.successResultOf(ended)


class Outside(Threaded):
    """Another program changes a file between the look at it and its rename."""

    def setUp(self) -> None:
        """Let there be room for more."""
        super().setUp()
        self.cache_dir = cache_folder(self.folder, 110, writes=self.in_thread)
        self.cache_dir.prepare()

    def between(self, change: Callable[[Path], object], after: bool = False) -> Any:
        """Let it do so for the next rename into the queue."""
        rename = os.rename
        left = [True]

        def renamed(old: Any, new: Any) -> None:
            if RESERVED in os.fspath(new) and left:
                left.clear()
                change(Path(old))
                rename(old, new)
                if after:
                    Path(old).write_bytes(b"third")
            else:
                rename(old, new)

        return mock.patch.object(os, "rename", renamed)

    def test_put_back(self) -> None:
        """A file that is not the one that was meant is put back, with or without hard links."""

        def replace(path: Path) -> None:
            other = path.with_name("other")
            other.write_bytes(b"other")
            other.rename(path)

        path = self.folder / "h-example/0.whl"
        refusal = OSError(errno.EPERM, os.strerror(errno.EPERM))
        for changes in (replace, lambda path: path.write_bytes(b"other")):
            for no_links in (False, True):
                self.keep(self.references[0], bytes(10))
                no_link = mock.patch.object(
                    os, "link", side_effect=refusal if no_links else os.link
                )
                with self.between(changes), no_link:
                    self.delete(self.references[0])
                assert path.read_bytes() == b"other"
                assert self.cache_dir.open(self.references[0]) is None
                assert self.cache_dir.found(self.references[0])
                assert self.reserved() == []
                self.delete(self.references[0])
                self.run_threads()
                assert not path.exists()

    def test_third_file(self) -> None:
        """One that came since is not overwritten by that."""
        path = self.folder / "h-example/0.whl"
        with self.between(lambda path: path.write_bytes(b"other"), after=True):
            self.delete(self.references[0])
        assert path.read_bytes() == b"third"
        assert self.reserved() == []

    def test_evicted(self) -> None:
        """An eviction takes it for the file that it is by then."""
        with self.between(lambda path: path.write_bytes(b"other")):
            self.keep_waiting(reference_of("a.whl", bytes(20)), bytes(20))
        assert self.content(reference_of("a.whl", bytes(20))) is not None
        assert self.cache_dir.quota.used == self.held() == 110
        assert self.names() == 10

    def keep_waiting(self, reference: FileReference, data: bytes) -> None:
        """Keep a file for which something has to go."""
        partial = self.cache_dir.partial(reference)
        partial.reservation.announce(len(data))
        room = partial.write(data)
        while room is not None:
            self.run_threads()
            room = partial.flush()
        self.adopt(partial, reference)
        self.cache_dir.discard(partial)


class Stuck(Threaded):
    """A file that was renamed, and cannot be unlinked."""

    def test_counts(self) -> None:
        """It counts until it is gone, is said once, and goes with the next `clear`."""
        with self.refused("unlink"), logged("proxpi.files") as log:
            for reference in self.references[:3]:
                self.delete(reference)
            self.run_threads()
        assert log.levels == ["error"]
        assert self.cache_dir.quota.used == self.held() == 100
        assert len(self.reserved()) == 3
        new = reference_of("new.whl", bytes(10))
        assert not self.cache_dir.found(self.references[0])
        partial = self.cache_dir.partial(new)
        assert partial.write(bytes(10)) is not None, "another one has to go"
        self.run_threads()
        assert partial.flush() is None
        self.cache_dir.discard(partial)
        cleared = Deferred.fromCoroutine(self.cache_dir.clear())
        self.run_threads()
        self.successResultOf(cleared)
        assert self.cache_dir.quota.used == self.held() == self.names() == 0

    def test_after_a_crash(self) -> None:
        """The next process unlinks it, or counts it if it cannot."""
        for reference in self.references[:3]:
            self.delete(reference)
        assert len(self.reserved()) == 3
        with self.refused("unlink"), mock.patch.object(layout, "try_to_write"):
            disk = cache_folder(self.folder, 100)
            disk.prepare()
            assert (disk.quota.used, len(self.reserved())) == (100, 3)
            assert [disk.found(reference) for reference in self.references[:4]] == [
                False,
                False,
                False,
                True,
            ]
        disk = cache_folder(self.folder, 100)
        disk.prepare()
        assert (disk.quota.used, self.reserved(), self.names()) == (70, [], 7)

    def test_unlinked_by_another_process(self) -> None:
        """A process that starts meanwhile may unlink it as well."""
        self.delete(self.references[0])
        cache_folder(self.folder, 100).prepare()
        assert self.reserved() == []
        self.run_threads()
        assert self.cache_dir.quota.used == 90


class Names(Threaded):
    """Reserved names."""

    def test_no_room_for_one(self) -> None:
        """Where a full disk takes no further name, the file is unlinked at once."""
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with mock.patch.object(os, "rename", side_effect=full):
            self.delete(self.references[0])
            partial = self.cache_dir.partial(bare("new.whl", 30))
            partial.reservation.announce(30)
        assert self.names() == 7
        assert self.reserved() == []
        assert self.cache_dir.quota.used == 100, "what comes counts"
        self.cache_dir.discard(partial)

    def test_no_cache_path(self) -> None:
        """No URL leads to one, and nothing is kept under one."""
        self.delete(self.references[0])
        [name] = self.reserved()
        for url in (f"https://h.example/{name}", f"https://h.example/{name}/x.whl"):
            reference = FileReference(url, ("sha256", sha256(bytes(10))), 10, private=False)
            assert reference.cache_path is None
            assert not self.cache_dir.found(reference)
            assert self.cache_dir.open(reference) is None
        self.delete(f"h-example/{name}")
        assert self.reserved() == [name]

    def test_only_these(self) -> None:
        """A name that only looks like one is foreign."""
        for name in (f"{RESERVED}x", f"{RESERVED}{'0' * 17}", f"x{RESERVED}{'0' * 16}"):
            self.lay(name, b"foreign")
        cache_folder(self.folder, 100).prepare()
        assert self.names() == 13

    def test_of_another_program(self) -> None:
        """A folder under such a name stops nothing."""
        (self.folder / f"h-example/{RESERVED}{'0' * 16}/x").mkdir(parents=True)
        (self.folder / f"{RESERVED}{'1' * 16}/x").mkdir(parents=True)
        disk = cache_folder(self.folder, 100)
        disk.prepare()
        assert disk.quota.used == 100

    def test_longest(self) -> None:
        """A file with the longest name, in the deepest folder, that can be kept can be removed."""
        deepest = "/".join(["d" * 200] * 19)
        room = 4095 - len(str(self.folder)) - len(f"/h-example/{deepest}/")
        deep = f"{deepest}/{'e' * (room - 2)}/x"
        for name in ("x" * 251 + ".whl", f"{deepest}/{'x' * 51}.whl", deep):
            for reference in self.references:
                self.delete(reference)
            reference = reference_of(name, bytes(10))
            self.keep(reference, bytes(10))
            assert self.content(reference) == bytes(10)
            self.delete(reference)
            self.run_threads()
            assert self.cache_dir.quota.used == 0
            assert not any(path.is_file() for path in (self.folder / "h-example").rglob("*"))
        with pytest.raises(OSError, match="too long"):
            self.cache_dir.partial(reference_of(deep.replace("/x", "e/x"), bytes(10)))


class Download(MirrorCase):
    """A download for which something has to go."""

    def setUp(self) -> None:
        """Fill the folder with a file, and let another begin to come."""
        super().setUp()
        self.build(capacity=100, timeout=2 * TIMEOUT, writes=self.in_thread)
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
        self.assert_cached("new", self.new)
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
