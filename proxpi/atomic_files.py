"""Files that a crash leaves whole or absent: until one is whole, it has a partial name and a lock.

A partial file is *locked* (its writer lives) or *left over* (a crash ended its writer). The next
start of any process on the folder removes the files that are left over.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from io import FileIO
from pathlib import Path
from shutil import rmtree
from typing import IO

from twisted.logger import Logger

#: What the name of a file of proxpi's own begins with until it is whole.
PARTIAL = "partial-"
#: How often a file is begun, if others who start remove it before it is locked.
TRIES = 10

_log = Logger(namespace="proxpi")


def partial_name() -> str:
    return f"{PARTIAL}{secrets.token_hex(8)}"


def begin(folder: Path) -> tuple[Path, FileIO]:
    """Make a partial file; its lock lasts as long as it is open."""
    for tries_left in reversed(range(TRIES)):
        path = folder / partial_name()
        # Not tempfile's: its files are closed to other users, who may share the folder.
        file = FileIO(path, "x+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_nlink:
                return path, file
        except OSError as error:
            if error.errno != errno.EWOULDBLOCK or not tries_left:
                file.close()
                with suppress(OSError):
                    os.unlink(path)
                raise
        # Another process looked for leftovers between the two: to it, this was one.
        file.close()
    raise FileNotFoundError(errno.ENOENT, "it is removed as soon as it is made", str(path))


def write_whole(
    path: Path,
    data: bytes | Iterable[bytes],
    folder: Path | None = None,
    replace: Callable[[Path, Path], None] = os.replace,
) -> None:
    """
    Write a file, all of its data or in pieces: whole, or as it was before.

    :param folder: where it lies until it is whole, if not beside
    :param replace: gives it its name; the file is removed again if that raises
    """
    partial, file = begin(folder or path.parent)
    try:
        with file:
            for piece in [data] if isinstance(data, bytes) else data:
                rest = memoryview(piece)
                while rest:
                    rest = rest[file.write(rest) :]
            replace(partial, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(partial)
        raise


def temporary(folder: Path) -> IO[bytes]:
    """Begin a file without a file name: in a folder, or elsewhere if that refuses."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(prefix=PARTIAL, dir=folder)
    return tempfile.TemporaryFile()


def overwrite(path: Path, beginning: bytes) -> None:
    """Change the first bytes of a file in place, if there is one: all, or none at a kill."""
    with suppress(FileNotFoundError), FileIO(path, "r+") as file:
        os.pwrite(file.fileno(), beginning, 0)


def discard(folder: Path) -> Path:
    """Rename a folder, if there is one, to what the next start removes; return its new name."""
    gone = folder.parent / partial_name()
    with suppress(FileNotFoundError):
        os.rename(folder, gone)
    return gone


def remove_leftovers(folder: Path) -> None:
    """Remove partial files that no process holds a lock on."""
    for entry in os.scandir(folder):
        if not entry.name.startswith(PARTIAL):
            continue
        if entry.is_dir(follow_symlinks=False):  # pages that were to be removed
            rmtree(entry.path, ignore_errors=True)
            continue
        try:
            descriptor = os.open(entry.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with FileIO(descriptor) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(entry.path)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.ENOENT):
                _log.warn("{path!a}: {error}", path=entry.path, error=error)
