"""The deletion queue: files are renamed first, then unlinked; a thread removes no newer file."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from proxpi.files import cache_dir, layout
from proxpi.files.layout import RESERVED
from proxpi.files.resolver import FileReference
from tests.support.agent import Reply
from tests.support.cache import CacheCase, bare, ref, refused
from tests.support.cases import entry
from tests.support.logs import logged
from tests.support.mirrors import TIMEOUT, URL, MirrorCase


class Queued(CacheCase):
    """Files that were renamed and not unlinked yet."""

    def setUp(self) -> None:
        """Cache ten files; threads wait."""
        super().setUp()
        self.files = self.fill()
        self.held = True

    def evicted(self) -> FileReference:
        """Evict a file for a download that ends at once; give the reference of that file."""
        partial = self.cache_dir.partial(bare("new.whl", 10))
        partial.reservation.announce(10)
        self.cache_dir.discard(partial)
        [gone] = [file for file in self.files if not (self.folder / str(file.cache_path)).exists()]
        return gone

    def test_fetched_again(self) -> None:
        """A file that is fetched again while its old version is queued stays."""
        for early in (True, False):
            gone = self.evicted()
            assert self.cache_dir.open(gone) is None
            if early:
                self.run_threads()
            self.keep(gone, bytes(10))
            self.run_threads()
            assert self.content(gone) == bytes(10)
            assert self.used == self.on_disk() == 100

    def test_queued_twice(self) -> None:
        """A file that is queued, fetched again and queued again counts until both are unlinked."""
        self.cache_dir.quota.capacity = 110
        partial = self.cache_dir.partial(bare("new.whl", 20))
        partial.reservation.announce(20)
        job, done = self.jobs.pop()
        tried = job()
        self.cache_dir.discard(partial)
        self.keep("0.whl", bytes(10))
        cleared = self.clear()
        done.callback(tried)
        assert self.used == 100
        self.run_threads()
        self.result(cleared)
        assert (self.used, self.names()) == (0, [])

    def test_stuck(self) -> None:
        """A queued file that cannot be unlinked counts, is logged once, and is tried by a clear."""
        with refused(self.host, "unlink"), logged("proxpi.files") as log:
            for file in self.files[:3]:
                self.delete(file)
            self.run_threads()
        assert log.levels == ["error"]
        assert self.used == self.on_disk() == 100
        assert len(self.reserved()) == 3
        assert not self.cache_dir.found(self.files[0])
        partial = self.cache_dir.partial(ref("new.whl", bytes(10)))
        assert partial.write(bytes(10)) is not None, "another file is evicted"
        self.run_threads()
        assert partial.flush() is None
        self.cache_dir.discard(partial)
        cleared = self.clear()
        self.run_threads()
        self.result(cleared)
        assert self.used == self.on_disk() == 0

    def test_after_a_kill(self) -> None:
        """The next process unlinks queued files, or counts them; the last one need not."""
        for file in self.files[:3]:
            self.delete(file)
        assert len(self.reserved()) == 3
        first, self.held = self.cache_dir, False
        with refused(self.host, "unlink"), mock.patch.object(layout, "try_to_write"):
            self.start()
            assert (self.used, len(self.reserved())) == (100, 3)
            assert [self.cache_dir.found(file) for file in self.files[:4]] == [False] * 3 + [True]
        self.start()
        assert (self.used, len(self.names())) == (70, 7)
        self.run_threads()
        assert first.quota.used == 70

    def test_no_further_name(self) -> None:
        """Where a full disk takes no further name, the file is unlinked at once."""
        with refused(self.host, "rename", number=errno.ENOSPC):
            self.delete("0.whl")
            partial = self.cache_dir.partial(bare("new.whl", 30))
            partial.reservation.announce(30)
        assert (len(self.names()), self.reserved()) == (7, [])
        assert self.used == 100, "the reservation counts"
        self.cache_dir.discard(partial)


class Reserved(CacheCase):
    """Reserved names."""

    def test_foreign(self) -> None:
        """A name that only looks like one is foreign; a folder under one stops nothing."""
        for name in (f"{RESERVED}x", f"{RESERVED}{'0' * 17}", f"x{RESERVED}{'0' * 16}"):
            self.lay(name, b"foreign")
        (self.host / f"{RESERVED}{'0' * 16}/x").mkdir(parents=True)
        (self.folder / f"{RESERVED}{'1' * 16}/x").mkdir(parents=True)
        self.start()
        assert (self.used, len(self.names())) == (0, 4)

    def test_longest_names(self) -> None:
        """A file with the longest name, or the longest path, that can be cached can be deleted."""
        deepest = "/".join(["d" * 200] * 19)
        left = 4095 - len(str(self.folder)) - len(f"/h-example/{deepest}/")
        deep = f"{deepest}/{'e' * (left - 2)}/x"
        for name in ("x" * 251 + ".whl", f"{deepest}/{'x' * 51}.whl", deep):
            file = self.keep(name, bytes(10))
            assert self.content(file) == bytes(10)
            self.delete(file)
            assert self.used == self.on_disk() == 0
        with pytest.raises(OSError, match="too long"):
            self.cache_dir.partial(ref(deep.replace("/x", "e/x"), bytes(10)))


class Outside(CacheCase):
    """Another program changes a file between the look at it and its rename."""

    def setUp(self) -> None:
        """Fill the folder, but for ten bytes."""
        super().setUp()
        self.start(110)
        self.files = self.fill()
        self.path = self.host / "0.whl"

    def between(self, change: Callable[[Path], object], *, third: bool = False) -> Any:
        """Let it do so for the next rename into the queue; and lay a third file after it."""
        rename = os.rename
        left = [True]

        def renamed(old: Any, new: Any) -> None:
            if RESERVED in os.fspath(new) and left:
                left.clear()
                change(Path(old))
                rename(old, new)
                if third:
                    Path(old).write_bytes(b"third")
            else:
                rename(old, new)

        return mock.patch.object(os, "rename", renamed)

    def test_put_back(self) -> None:
        """Its file gets its cache path again, with or without hard links, and is unverified."""

        def replace(path: Path) -> None:
            other = path.with_name("other")
            other.write_bytes(b"other")
            other.rename(path)

        refusal = OSError(errno.EPERM, os.strerror(errno.EPERM))
        for change in (replace, lambda path: path.write_bytes(b"other")):
            for link in (os.link, refusal):
                self.keep("0.whl", bytes(10))
                with self.between(change), mock.patch.object(os, "link", side_effect=link):
                    self.delete("0.whl")
                assert self.path.read_bytes() == b"other"
                assert self.cache_dir.open(self.files[0]) is None
                assert self.cache_dir.found(self.files[0])
                assert self.reserved() == []
                self.delete("0.whl")
                assert not self.path.exists()

    def test_third_file(self) -> None:
        """A third file that came since is not overwritten by that."""
        with self.between(lambda path: path.write_bytes(b"other"), third=True):
            self.delete("0.whl")
        assert self.path.read_bytes() == b"third"
        assert self.reserved() == []


class Downloads(MirrorCase):
    """A download for which a file is evicted."""

    def setUp(self) -> None:
        """Cache a file of 90 bytes of 100, and begin to download another."""
        super().setUp()
        self.build(capacity=100, timeout=2 * TIMEOUT, writes=self.in_thread)
        old, self.new = b"o" * 90, b"n" * 80
        urls = {name: URL.replace("demo", name) for name in ("old", "new")}
        for name, data in (("old", old), ("new", self.new)):
            self.listings.lists(entry(name, data, url=urls[name]))
        self.slow = Reply(200, b"", whole=False, length=len(self.new))
        self.internet.at(urls["old"], Reply(200, old))
        self.internet.at(urls["new"], self.slow)
        first = self.fetch("old")
        self.run_threads()
        self.assert_bytes(self.result(first), old)
        self.asked = self.fetch("new")

    def test_backpressure(self) -> None:
        """It reads no more from upstream until the file is unlinked; then it is cached."""
        self.put(cache_dir, "BUFFER", 1)
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
