"""Files that are not whole: what another process that starts does to them, at any moment."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Any
from unittest import mock

import pytest
from twisted.internet.task import Clock

from proxpi import atomic_files
from proxpi.files.cache_dir import PartialFile
from proxpi.files.verify import Digests
from proxpi.index.client import StoredResponse
from proxpi.index.list_store import ListStore
from proxpi.index.page_store import PageStore
from tests.support.cases import FolderCase


class AnotherStarts(FolderCase):
    """Another process looks for leftovers whenever a file was made, and is not locked yet."""

    def setUp(self) -> None:
        """Let it do so a few times."""
        super().setUp()
        self.own = self.folder / ".proxpi"
        self.own.mkdir()
        self.starts = 3
        flock = fcntl.flock

        def lock(file: Any, how: int) -> None:
            if self.starts:
                self.starts -= 1
                with mock.patch.object(fcntl, "flock", flock):
                    atomic_files.remove_leftovers(self.own)
            flock(file, how)

        self.put(fcntl, "flock", lock)

    def test_partial(self) -> None:
        """A download has a file with a name."""
        partial = PartialFile(self.own, Digests(), mock.Mock(**{"grow.return_value": None}))
        assert partial.path.exists()
        partial.write(b"data")
        partial.flush()
        assert partial.path.read_bytes() == b"data"
        partial.close()

    def test_whole(self) -> None:
        """What is written whole is written."""
        atomic_files.write_whole(self.own / "uses.json", b"data")
        assert (self.own / "uses.json").read_bytes() == b"data"

    def test_pages_and_lists(self) -> None:
        """So are the pages and lists of the indexes."""
        store = PageStore(self.own / "pages", Clock())
        stored = store.save("demo", {}, {"json": b"data"})
        assert stored.image is None
        self.starts = 3
        lists = ListStore(self.own / "projects", Clock())
        lists.save("index", StoredResponse(False, 0.0), None, lambda: True)
        assert lists.load("index") == (StoredResponse(False, 0.0), None)

    def test_while_it_is_written(self) -> None:
        """Nobody removes what is being written."""
        replace = os.replace

        def then(*paths: Any) -> None:
            atomic_files.remove_leftovers(self.own)
            replace(*paths)

        self.put(os, "replace", then)
        atomic_files.write_whole(self.own / "uses.json", b"data")
        assert (self.own / "uses.json").read_bytes() == b"data"

    def test_again_and_again(self) -> None:
        """Somebody who never stops to remove it is a disk that refuses."""
        self.starts = 1000
        with pytest.raises(FileNotFoundError):
            atomic_files.begin(self.own)
        assert self.leftovers() == self.open_files() == []

    def test_locked_by_the_other(self) -> None:
        """So is one that holds the lock itself for a moment; but not for that moment alone."""
        refusals = 2

        def lock(file: Any, how: int) -> None:
            nonlocal refusals
            refusals -= 1
            if refusals >= 0:
                raise OSError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))

        self.put(fcntl, "flock", lock)
        path, file = atomic_files.begin(self.own)
        assert path.exists()
        file.close()
        refusals = 1000
        with pytest.raises(BlockingIOError):
            atomic_files.begin(self.own)
        assert self.open_files() == []

    def test_no_locks(self) -> None:
        """A disk without locks is one that refuses, and nothing is left of it."""

        def lock(file: Any, how: int) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        self.put(fcntl, "flock", lock)
        with pytest.raises(OSError, match="No locks"):
            atomic_files.begin(self.own)
        assert self.leftovers() == self.open_files() == []

    def test_pipe(self) -> None:
        """A pipe that somebody left there stops no start."""
        os.mkfifo(self.own / "partial-pipe")
        atomic_files.remove_leftovers(self.own)
        assert self.leftovers() == []
