"""The cache folder as it is found: what in it is a cached file, and how to get at it.

These functions read and remove; they know nothing of what a process remembers. What they do not
take for the cache's own they neither count nor touch. No symbolic link below the cache folder is
followed, as it may lead out of it; the folder itself may be one.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Container, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO

#: The folder of proxpi's own below the cache folder. No host's folder begins with a dot.
OWN_FOLDER = ".proxpi"
#: What the original calls a file that it has not finished.
ORIGINAL_PARTIAL = ".proxpi-partial"

#: Bytes that a name may have, and a path, with the byte that ends them; as most systems have it.
LONGEST_NAME, LONGEST_PATH = 256, 4096
#: Files that are looked at in no time.
MANY = 2000

_OWN_NAME = re.compile(
    r"\.(whl|zip|egg|exe|msi|rpm|deb|dmg|tgz|tbz|tar(\.\w+)?|metadata|asc|proxpi-partial)$"
)
#: What the system says where there is no file, or none that is the cache's.
_NO_FILE = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ELOOP,
        errno.ENXIO,
        errno.ESTALE,
        errno.ENAMETOOLONG,
    }
)
_HOST_FOLDER = re.compile(r"[a-z0-9-]+")
_PLACE = re.compile(r"[a-z0-9-]+(?:/(?!\.\.?(?:/|\Z))[^/]+)+")


def is_place(text: str) -> bool:
    """Tell whether a file of the cache can lie there, below the cache folder."""
    return _PLACE.fullmatch(text) is not None


def is_called_own(place: str) -> bool:
    """Tell whether a file below a host's folder is the cache's, by what it is called."""
    return _OWN_NAME.search(place) is not None


def says_no_file(error: OSError) -> bool:
    """Tell whether an error says that there is no file, rather than that it cannot be had."""
    return error.errno in _NO_FILE


def look(folder: Path, place: str) -> os.stat_result | None:
    """
    Tell what lies at a place; ``None`` if nothing does.

    :raises OSError: if it cannot be told, if a file of that name cannot lie there, or if a link is
        on the way
    """
    path = str(folder)
    *above, name = place.split("/")
    lengths = [len(os.fsencode(segment)) + 1 for segment in (path, *above, name)]
    if max(lengths[1:]) > LONGEST_NAME or sum(lengths) > LONGEST_PATH:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), f"{path}/{place}")
    try:
        for segment in above:
            path = f"{path}/{segment}"
            if stat.S_ISLNK(os.lstat(path).st_mode):
                raise OSError(errno.ELOOP, "A symbolic link, which is not followed", path)
        return os.lstat(f"{path}/{name}")
    except (FileNotFoundError, NotADirectoryError):
        return None


def open_file(path: Path) -> BinaryIO:
    """
    Open a file for reading; whatever it was replaced by, that takes no time.

    :raises OSError: if it is not to be had, or is a link, a pipe, a device or a folder
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.ENXIO, "Not a regular file", str(path))
    return open(descriptor, "rb", buffering=0)


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
            if not (is_called_own(place) or place in known):
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


def remove(folder: Path, place: str) -> None:
    """
    Remove a file, if it is there, and the folders that held nothing else.

    :raises OSError: if it stays
    """
    path = folder / place
    try:
        if look(folder, place) is not None:
            os.unlink(path)
    except OSError as error:
        if not says_no_file(error):
            raise
    above = path.parent
    with suppress(OSError):  # the first one that holds something stays, and all above it
        while above.parent != folder:
            above.rmdir()
            above = above.parent
