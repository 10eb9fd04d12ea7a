"""Files of the operator's own, in folders that are indexes: their URLs, identity, and opening them.

A folder's page lists a file by the URL of one version of it: its path, and as the query its
*identity*. A file that has been replaced or written since has another identity, so its old URL is
gone, and the page says the new one, as with signed URLs. Symbolic links are followed: the folder is
the operator's own.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from typing import BinaryIO
from urllib.parse import quote, unquote_to_bytes

import msgspec

#: What the URL of a file or of a folder begins with (RFC 8089).
SCHEME = "file:"
_URL = re.compile(r"file://(/[^?#]*)(?:\?(\d{1,20})-(\d{1,20})-(-?\d{1,20}))?")


class Identity(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Inode, size and ctime: equal if the file has not been replaced or written."""

    inode: int
    size: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        return cls(status.st_ino, status.st_size, status.st_ctime_ns)


def is_local(url: str) -> bool:
    """Return whether a URL leads to a file or folder of this machine."""
    return url.startswith(SCHEME)


def url_of(path: str, identity: Identity) -> str:
    """Return the URL of a version of a file."""
    query = f"{identity.inode}-{identity.size}-{identity.changed_ns}"
    return f"file://{quote(os.fsencode(path))}?{query}"


def path_of(url: str) -> str:
    """Return the path of a file or folder.

    :raises ValueError: if this is not a URL of one
    """
    return _read(url)[0]


def path_and_identity(url: str) -> tuple[str, Identity]:
    """Return path and identity of a version of a file.

    :raises ValueError: if this is not a URL of one
    """
    path, identity = _read(url)
    if identity is None:
        raise ValueError(f"{url!r} names no version of a file")
    return path, identity


def _read(url: str) -> tuple[str, Identity | None]:
    found = _URL.fullmatch(url)
    path = os.fsdecode(unquote_to_bytes(found[1])) if found else ""
    if found is None or "\0" in path:
        raise ValueError(f"{url!r} is no URL of a local file")
    identity = Identity(*map(int, found.groups()[1:])) if found[2] else None
    return path, identity


def open_regular(path: str) -> BinaryIO:
    """Open a regular file for reading, without waiting; raises an `OSError` for anything else."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.ENXIO, "Not a regular file", path)
    return open(descriptor, "rb", buffering=0)
