"""What a process finds when it starts: crashes, foreign files, folders it may not write."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from proxpi import atomic_files
from proxpi.files.layout import RESERVED
from proxpi.tap import cache_folder
from tests.files.test_disk import DiskCase, reference_of
from tests.support.logs import logged


class Start(DiskCase):
    """The folder as another process left it."""

    def test_folder_is_made(self) -> None:
        """A folder that is not there is made, with what is above it."""
        disk = cache_folder(self.folder / "a/b", 100)
        disk.prepare()
        assert (self.folder / "a/b/.proxpi").is_dir()

    def test_found_files_count(self) -> None:
        """What lies there counts, and the least recently used goes first."""
        self.lay("old.whl", bytes(40), age=30)
        self.lay("new.whl", bytes(40), age=10)
        self.cache_dir = self.prepared(100)
        self.keep(reference_of("x.whl", bytes(40)), bytes(40))
        assert sorted(path.name for path in (self.folder / "h-example").iterdir()) == [
            "new.whl",
            "x.whl",
        ]

    def test_read_counts_as_use(self) -> None:
        """A file that was read lately is not old, however long ago it was written."""
        old = self.lay("old.whl", bytes(60), age=30)
        os.utime(old, (old.stat().st_atime + 29, old.stat().st_mtime))
        self.lay("new.whl", bytes(60), age=10)
        self.prepared(100)
        assert old.exists()

    def test_lowered_cap(self) -> None:
        """A cap that was lowered holds from the start."""
        self.lay("old.whl", bytes(80), age=30)
        new = self.lay("new.whl", bytes(40), age=10)
        self.prepared(50)
        assert [*(self.folder / "h-example").iterdir()] == [new]

    def test_foreign_files_stay(self) -> None:
        """What lies outside the hosts' folders is not looked at and never removed."""
        foreign = ["README", "lost+found/x", ".git/x", "My Files/x", "UPPER/x"]
        for name in foreign:
            (self.folder / name).parent.mkdir(exist_ok=True)
            (self.folder / name).write_bytes(bytes(200))
        (self.folder / "link").symlink_to(self.folder / "lost+found")
        self.cache_dir = self.prepared(100)
        self.keep(reference_of("x.whl", bytes(100)), bytes(100))
        for name in foreign:
            assert (self.folder / name).exists(), name

    def test_leftovers(self) -> None:
        """What a crash left behind, here or in the original's way, is removed."""
        partial = self.folder / ".proxpi/partial-dead"
        partial.write_bytes(b"x")
        originals = self.lay("x.whl.proxpi-partial", b"x")
        self.prepared(100)
        assert not (partial.exists() or originals.exists())

    def test_leftovers_in_use(self) -> None:
        """What another process is writing stays, and so does what is no partial file."""
        partial = self.folder / ".proxpi/partial-alive"
        other = self.folder / ".proxpi/something"
        other.write_bytes(b"x")
        with open(partial, "wb") as writing:
            fcntl.flock(writing, fcntl.LOCK_EX)
            self.prepared(100)
            assert partial.exists() and other.exists()

    def test_another_process_starts(self) -> None:
        """A second process takes nothing away from a download of the first."""
        reference = reference_of("x.whl", b"data")
        partial = self.cache_dir.partial(reference)
        partial.write(b"data")
        self.prepared(100)
        self.adopt(partial, reference)
        self.cache_dir.discard(partial)
        assert self.content(reference) == b"data"

    def test_odd_leftover(self) -> None:
        """A folder that is left over is removed; what cannot be does not stop the start."""
        folder = self.folder / ".proxpi/partial-folder"
        folder.mkdir()
        (folder / "page").write_bytes(b"x")
        with socket.socket(socket.AF_UNIX) as odd:
            odd.bind(str(self.folder / ".proxpi/partial-socket"))
        with logged("proxpi") as log:
            self.prepared(100)
        assert not folder.exists()
        assert "partial-socket" in log.text

    def test_files_that_go_meanwhile(self) -> None:
        """A file that vanishes after the folder was looked at is a miss, and no room is lost."""
        path = self.lay("x.whl", bytes(80))
        self.cache_dir = self.prepared(100)
        assert self.cache_dir.quota.used == 80
        path.unlink()
        self.keep(reference_of("y.whl", bytes(100)), bytes(100))
        assert self.cache_dir.quota.used == 100


class Tried(DiskCase):
    """A folder is tried at the start, whatever its permission bits say."""

    def start(self, module: Any, name: str, number: int) -> str:
        """Start while a call of the system fails; give what the log says."""

        def refuse(*_: Any, **__: Any) -> Any:
            raise OSError(number, os.strerror(number))

        with mock.patch.object(module, name, refuse), logged("proxpi.files") as log:
            disk = self.prepared(100)
        assert log.levels == ["critical"]
        assert self.leftovers() == []
        assert not list(self.folder.glob(f"{RESERVED}*"))
        assert disk.quota.used == 4
        self.cache_dir = disk
        return log.text

    def test_each_step(self) -> None:
        """Whichever step of a download is refused, one line says why and what to do."""
        self.lay("x.whl", b"data")
        for module, name, number, advice in (
            (Path, "mkdir", errno.EACCES, f"the user with the number {os.geteuid()}"),
            (atomic_files, "FileIO", errno.EROFS, "mount it for writing"),
            (atomic_files, "FileIO", errno.EPERM, "the user with the number"),
            (os, "fsync", errno.ENOSPC, "free space"),
            (os, "fsync", errno.EDQUOT, "quota"),
            (os, "rename", errno.EXDEV, "on one disk"),
            (os, "rename", errno.EACCES, "the user with the number"),
        ):
            text = self.start(module, name, number)
            assert os.strerror(number) in text
            assert advice in text
            assert str(self.folder) in text
            assert self.check(reference_of("x.whl", b"data"))
            self.keep(reference_of("y.whl", b"data"), b"data")
            assert self.content(reference_of("y.whl", b"data")) == b"data", "it is tried again"
            self.delete(reference_of("y.whl", b"data"))

    def test_own_folder(self) -> None:
        """A file where proxpi's own folder belongs is named."""
        (self.folder / ".proxpi").rmdir()
        (self.folder / ".proxpi").write_bytes(b"x")
        with logged("proxpi.files") as log:
            self.prepared(100)
        assert log.levels == ["critical"]
        assert ".proxpi in it has to be a folder" in log.text

    def test_one_host(self) -> None:
        """A host's folder that cannot be written is noticed, and named."""
        for host in ("a-example", "b-example", "c-example"):
            (self.folder / host).mkdir()
        rename = os.rename

        def refuse(old: Any, new: Any) -> None:
            if "/b-example/" in os.fspath(new):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES), old, None, new)
            rename(old, new)

        with mock.patch.object(os, "rename", refuse), logged("proxpi.files") as log:
            self.prepared(100)
        assert log.levels == ["critical"]
        assert "/b-example/" in log.text
        assert not list(self.folder.rglob(f"{RESERVED}*"))

    def test_silent(self) -> None:
        """Nothing is said of one that can be written, and nothing stays there of that."""
        (self.folder / "h-example").mkdir()
        with logged("proxpi.files") as log:
            self.prepared(100)
        assert log.levels == []
        assert sorted(os.listdir(self.folder)) == [".proxpi", "h-example"]
        assert os.listdir(self.folder / "h-example") == []
        assert os.listdir(self.folder / ".proxpi") == []

    def test_killed_meanwhile(self) -> None:
        """What a process leaves that is killed at that moment is removed."""
        for number in range(2):
            (self.folder / f"{RESERVED}{number:016}").write_bytes(b"x")
        self.prepared(100)
        assert os.listdir(self.folder) == [".proxpi"]


class ReadOnly(DiskCase):
    """A folder that cannot be written is used for reading, and the log says so."""

    def setUp(self) -> None:
        """Lay a file, and refuse every change from then on, as a read-only volume does."""
        super().setUp()
        self.path = self.lay("x.whl", b"data")
        self.refuse(Path, "mkdir")
        self.refuse(atomic_files, "FileIO")
        self.refuse(os, "rename")
        self.refuse(os, "unlink")
        self.refuse(Path, "unlink")

    def refuse(self, place: Any, name: str) -> None:
        """Let a function of the system fail."""

        def refusing(*arguments: Any, **named: Any) -> Any:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        self.put(place, name, refusing)

    def test_reading(self) -> None:
        """What lies there is checked and served."""
        with logged("proxpi.files") as log:
            self.cache_dir = self.prepared(100)
        assert "cannot be written" in log.text
        assert log.levels == ["critical"]
        assert self.check(reference_of("x.whl", b"data"))
        assert self.content(reference_of("x.whl", b"data")) == b"data"

    def test_more_than_the_cap(self) -> None:
        """More files than there may be do not stop the start, though none can be removed."""
        self.cache_dir = self.prepared(2)
        assert self.path.exists()

    def test_wrong_file(self) -> None:
        """A wrong file that cannot be removed is not served either."""
        self.cache_dir = self.prepared(100)
        assert not self.check(reference_of("x.whl", b"else"))
        assert self.cache_dir.open(reference_of("x.whl", b"else")) is None

    def test_writing(self) -> None:
        """A download cannot begin."""
        with pytest.raises(OSError):
            self.cache_dir.partial(reference_of("y.whl", b"data"))
