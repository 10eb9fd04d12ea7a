"""The cache folder as it is found: what in it is a cached file, and what a crash left behind.

These functions read and remove; they know nothing of what a process remembers. What they do not
take for the cache's own they neither count nor touch.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
from collections.abc import Container, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from shutil import rmtree

from twisted.logger import Logger

#: The folder of proxpi's own below the cache folder. No host's folder begins with a dot.
OWN_FOLDER = ".proxpi"
#: What the name of a file of proxpi's own begins with until it is whole.
PARTIAL = "partial-"
#: What the original calls a file that it has not finished.
ORIGINAL_PARTIAL = ".proxpi-partial"

#: Files that are looked at in no time.
MANY = 2000

_OWN_NAME = re.compile(
    r"\.(whl|zip|egg|exe|msi|rpm|deb|dmg|tgz|tbz|tar(\.\w+)?|metadata|asc|proxpi-partial)$"
)
_HOST_FOLDER = re.compile(r"[a-z0-9-]+")
_log = Logger(namespace="proxpi.files")


def is_place(text: str) -> bool:
    """Tell whether a file of the cache can lie there, below the cache folder."""
    host, *path = text.split("/")
    return bool(_HOST_FOLDER.fullmatch(host) and path) and not {"", ".", ".."} & set(path)


def holds_many(folder: Path) -> bool:
    """
    Tell whether it takes a while to look at all of it.

    :raises OSError: if the folder cannot be read
    """
    files = (file for host in _hosts(folder) for file in _files(host))
    return next(islice(files, MANY, None), None) is not None


def survey(folder: Path, known: Container[str]) -> list[tuple[str, int]]:
    """
    Find the files of the cache, and remove what the original has not finished.

    :param known: places of files that are the cache's own whatever they are called
    :return: places and bytes, the least recently used first, as far as the disk tells
    :raises OSError: if the folder cannot be read
    """
    start = len(os.path.join(folder, ""))
    found = []
    for host in _hosts(folder):
        for entry in _files(host):
            place = entry.path[start:]
            if not (_OWN_NAME.search(entry.name) or place in known):
                continue  # some other program's, as far as anyone can tell
            with suppress(OSError):
                if entry.name.endswith(ORIGINAL_PARTIAL):
                    os.unlink(entry.path)
                    continue
                status = entry.stat(follow_symlinks=False)
                found.append((max(status.st_atime, status.st_mtime), place, status.st_size))
    return [(place, size) for _, place, size in sorted(found)]


def _hosts(folder: Path) -> Iterator[str]:
    """Give the folders of hosts."""
    for host in os.scandir(folder):
        if _HOST_FOLDER.fullmatch(host.name) and host.is_dir(follow_symlinks=False):
            yield host.path


def _files(top: str) -> Iterator[os.DirEntry[str]]:
    """Give all that is no folder below a folder. (``os.walk`` takes twice as long.)"""
    folders = [top]
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    yield entry


def remove_leftovers(own: Path) -> None:
    """
    Remove partial files that no process holds a lock on.

    :raises OSError: if the folder cannot be read
    """
    for entry in os.scandir(own):
        if not entry.name.startswith(PARTIAL):
            continue
        if entry.is_dir(follow_symlinks=False):  # pages that were to be removed
            rmtree(entry.path, ignore_errors=True)
            continue
        try:
            with open(entry.path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(entry.path)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.ENOENT):
                _log.warn("{path}: {error}", path=entry.path, error=error)


def remove(folder: Path, place: str) -> None:
    """
    Remove a file, if it is there, and the folders that held nothing else.

    :raises OSError: if it stays
    """
    path = folder / place
    with suppress(FileNotFoundError, NotADirectoryError):
        os.unlink(path)
    above = path.parent
    with suppress(OSError):  # the first one that holds something stays, and all above it
        while above.parent != folder:
            above.rmdir()
            above = above.parent


def write_whole(own: Path, name: str, data: bytes) -> None:
    """
    Write a file of proxpi's own: whole, or as it was before.

    :raises OSError: if the disk does not let it
    """
    partial = own / f"{PARTIAL}{secrets.token_hex(8)}"
    try:
        partial.write_bytes(data)
        os.replace(partial, own / name)
    except OSError:
        with suppress(OSError):
            partial.unlink()
        raise
