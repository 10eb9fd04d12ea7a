"""Partial files: what another process that starts does to them, at any moment."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from typing import Any
from unittest import mock

import pytest

from proxpi import atomic_files
from proxpi.files.cache_dir import PartialFile
from tests.support.cache import bare
from tests.support.cases import FolderCase
from tests.support.logs import logged


class AnotherStarts(FolderCase):
    def setUp(self) -> None:
        """Let another process remove leftovers whenever a file was made and is not locked yet."""
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

    def lock_fails(self, number: int, times: int) -> None:
        """Let the next locks fail."""
        left = [OSError(number, os.strerror(number))] * times
        self.put(fcntl, "flock", mock.Mock(side_effect=[*left, None] if times < 9 else left))

    def test_written(self) -> None:
        """Downloads and documents are written all the same."""
        partial = PartialFile(self.own, bare("x.whl"), mock.Mock(**{"grow.return_value": None}))
        partial.write(b"data")
        partial.flush()
        assert partial.path.read_bytes() == b"data"
        partial.close()
        self.starts = 3
        atomic_files.write_whole(self.own / "uses.json", b"data")
        assert (self.own / "uses.json").read_bytes() == b"data"

    def test_while_it_is_written(self) -> None:
        """A locked file is not removed."""
        replace = os.replace

        def then(*paths: Any) -> None:
            atomic_files.remove_leftovers(self.own)
            replace(*paths)

        self.put(os, "replace", then)
        atomic_files.write_whole(self.own / "uses.json", b"data")
        assert (self.own / "uses.json").read_bytes() == b"data"

    def test_refused(self) -> None:
        """A folder without locks, or in which files never last, refuses; nothing is left of it."""
        self.starts = 1000
        with pytest.raises(FileNotFoundError):
            atomic_files.begin(self.own)
        for number, left in ((errno.ENOLCK, 0), (errno.EWOULDBLOCK, atomic_files.TRIES - 1)):
            self.lock_fails(number, 10)
            with pytest.raises(OSError, match=os.strerror(number)):
                atomic_files.begin(self.own)
            assert len(self.leftovers()) == left, "what another process locks is its to remove"
        assert self.open_files() == []

    def test_locked_for_a_moment(self) -> None:
        """A process that holds the lock for a moment does not end the attempt."""
        self.lock_fails(errno.EWOULDBLOCK, 2)
        path, file = atomic_files.begin(self.own)
        assert path.exists()
        file.close()


class Leftovers(FolderCase):
    def test_removed(self) -> None:
        """Files without a lock, pipes and folders go; locked files, sockets and others stay."""
        for name in ("partial-dead", "partial-alive", "other"):
            (self.folder / name).write_bytes(b"x")
        os.mkfifo(self.folder / "partial-pipe")
        (self.folder / "partial-folder/pages").mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as odd:
            odd.bind(str(self.folder / "partial-x\n\x1b[0m"))
        with open(self.folder / "partial-alive") as alive, logged("proxpi") as log:
            fcntl.flock(alive, fcntl.LOCK_EX)
            atomic_files.remove_leftovers(self.folder)
        assert sorted(os.listdir(self.folder)) == ["other", "partial-alive", "partial-x\n\x1b[0m"]
        assert log.levels == ["warn"]
        assert "partial-x" in log.text and log.text.isprintable()

    def test_failed_write(self) -> None:
        """A write that fails leaves the file as it was, and no partial file."""
        path = self.folder / "x"
        path.write_bytes(b"old")

        def pieces() -> Any:
            yield b"new"
            raise OSError(errno.ENOSPC, "full")

        with pytest.raises(OSError, match="full"):
            atomic_files.write_whole(path, pieces())
        assert os.listdir(self.folder) == ["x"]
        assert path.read_bytes() == b"old"
