"""The layout of the cache folder: cache paths, reserved names, and how to get at a file.

A name below a host's folder is one of three: a *cache path*, under which a cached file lies; a
*reserved name*, under which a queued file waits to be unlinked, and which no URL leads to; or
foreign, neither counted nor touched. No symbolic link below the cache folder is followed, as it may
lead out of it; the folder itself may be one.
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

import attrs

from proxpi import atomic_files
from proxpi.local_files import Identity
from proxpi.simple import names

#: The folder of proxpi's own below the cache folder. No host's folder begins with a dot.
OWN_FOLDER = ".proxpi"
#: What the original calls a file that it has not finished.
ORIGINAL_PARTIAL = ".proxpi-partial"
#: Bytes of the longest name and path, with the byte that ends them, as most systems have it.
LONGEST_NAME, LONGEST_PATH = 256, 4096
#: Entries of a cache folder that are scanned on the reactor's thread.
MANY = 2000
#: Bytes that a disk takes unless it is full.
BLOCK = 4096
#: What the reserved names begin with, before 16 hexadecimal digits.
RESERVED = ".proxpi-removed-"

_OWN_NAME = re.compile(
    r"\.(whlx?|zip|egg|exe|msi|rpm|deb|dmg|tgz|tbz|tar(\.\w+)?|metadata|asc)$"
    rf"|{re.escape(names.VARIANTS)}$"
)
#: What the system says where there is no file, or none that is the cache's.
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ESTALE, errno.ENAMETOOLONG)
_HOST_FOLDER = re.compile(r"[a-z0-9-]+")
_RESERVED_NAME = re.compile(re.escape(RESERVED) + "[0-9a-f]{16}")
_CACHE_PATH = re.compile(
    rf"[a-z0-9-]+(?:/(?!\.\.?(?:/|\Z)|{re.escape(RESERVED)})[^/]+)+(?<!{re.escape(ORIGINAL_PARTIAL)})"
)


@attrs.frozen
class Scan:
    """The result of a scan of the cache folder."""

    #: By cache path, with the last use as far as the disk tells, in seconds since the epoch; the
    #: least recently used first.
    files: list[tuple[str, Identity, int]] = attrs.field(factory=list)
    #: What was left out, in words for the log.
    ignored: list[str] = attrs.field(factory=list)
    #: Paths and bytes of reserved names that could not be unlinked.
    leftovers: list[tuple[str, int]] = attrs.field(factory=list)


def is_cache_path(text: str) -> bool:
    # A name that cannot be printed might be no UTF-8, or look like two lines of a log.
    return _CACHE_PATH.fullmatch(text) is not None and text.isprintable()


def has_distribution_name(path: str) -> bool:
    """Return whether the name of a file below a host's folder says that the cache owns it."""
    return _OWN_NAME.search(path) is not None


def is_missing(error: OSError) -> bool:
    """Return whether an error says that there is no file, rather than that it cannot be had."""
    return error.errno in _NO_FILE


def stat_cache_path(folder: Path, cache_path: str) -> os.stat_result | None:
    """Return the status of what lies at a cache path; ``None`` if nothing does.

    :raises OSError: if no file can lie there, or a symbolic link is on the way
    """
    path = str(folder)
    *above, name = cache_path.split("/")
    longest = max(len(os.fsencode(segment)) for segment in (*above, name))
    full = f"{path}/{cache_path}"
    if longest >= LONGEST_NAME or len(os.fsencode(full)) >= LONGEST_PATH:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), full)
    try:
        for segment in above:
            path = f"{path}/{segment}"
            if stat.S_ISLNK(os.lstat(path).st_mode):
                raise OSError(errno.ELOOP, "A symbolic link, which is not followed", path)
        return os.lstat(full)
    except (FileNotFoundError, NotADirectoryError):
        return None


def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading, without waiting; raises an `OSError` for anything else."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.ENXIO, "Not a regular file", str(path))
    return open(descriptor, "rb", buffering=0)


def is_large(folder: Path) -> bool:
    return next(islice(_walk(folder, []), MANY, None), None) is not None


def scan(folder: Path, owned: Container[str]) -> Scan:
    """Find the cached files, those `owned` under any name; unlink what a process left."""
    start = len(os.path.join(folder, ""))
    found: list[tuple[float, str, Identity]] = []
    scan = Scan()
    for entry in _walk(folder, scan.ignored):
        path = entry.path[start:]
        is_leftover = _RESERVED_NAME.fullmatch(entry.name) or entry.name.endswith(ORIGINAL_PARTIAL)
        if is_leftover:
            with suppress(OSError):
                os.unlink(entry.path)
        elif not is_cache_path(path):
            scan.ignored.append(f"{path!a} (no name that a cached file can have)")
            continue
        elif not has_distribution_name(path) and path not in owned:
            continue
        with suppress(OSError):  # gone by now
            status = os.lstat(entry.path)
            if stat.S_ISREG(status.st_mode) and is_leftover:
                scan.leftovers.append((entry.path, status.st_size))
            elif stat.S_ISREG(status.st_mode):
                used = max(status.st_atime, status.st_mtime)
                found.append((used, path, Identity.of(status)))
    found.sort(key=lambda file: file[:2])
    scan.files.extend((path, identity, max(0, int(used))) for used, path, identity in found)
    return scan


def measure(folder: Path) -> tuple[int, int]:
    """Return how many files lie in the hosts' folders, and their bytes; nothing is changed."""
    files = size = 0
    for entry in _walk(folder, []):
        with suppress(OSError):  # gone by now
            status = entry.stat(follow_symlinks=False)
            files, size = files + 1, size + status.st_size
    return files, size


def _hosts(folder: Path) -> tuple[list[str], list[os.DirEntry[str]]]:
    """Return the folders of hosts, and what has a reserved name beside them."""
    with os.scandir(folder) as scanned:
        entries = list(scanned)
    hosts = [each for each in entries if _HOST_FOLDER.fullmatch(each.name)]
    folders = [each.path for each in hosts if each.is_dir(follow_symlinks=False)]
    return folders, [each for each in entries if _RESERVED_NAME.fullmatch(each.name)]


def _walk(folder: Path, unreadable: list[str]) -> Iterator[os.DirEntry[str]]:
    """Return the non-folders below the hosts' folders. (``os.walk`` takes twice as long.)"""
    folders, reserved = _hosts(folder)
    yield from reserved
    while folders:
        path = folders.pop()
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        yield entry
        except OSError as error:
            if not is_missing(error) or error.errno == errno.ENAMETOOLONG:
                unreadable.append(f"{path!a} ({error.strerror})")


def try_to_write(own: Path, folder: Path) -> None:
    """Write a small file, and rename it into the cache folder and each host's."""
    # Permission bits do not tell: root ignores them, and a disk may be read-only or full.
    partial, file = atomic_files.begin(own)
    path: Path | str = partial
    try:
        with file:
            file.write(bytes(BLOCK))
            os.fsync(file.fileno())
        for target in (str(folder), *_hosts(folder)[0]):
            reserved = os.path.join(target, partial.name.replace(atomic_files.PARTIAL, RESERVED))
            os.rename(path, reserved)
            path = reserved
    finally:
        os.unlink(path)
