"""Handles of files in the cache folder: a partial file is written, an open file is read.

A :class:`PartialFile` is *written* up to some byte; the bytes after that are *gathered* in memory.
It ends *adopted* (renamed to its cache path) or *unlinked*. An :class:`OpenFile` can be read to its
end, whatever happens to its cache path. It is *being sent*, which keeps its file from eviction, or
*kept* (the response cache keeps the descriptor), which does not.
"""

from __future__ import annotations

import os
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import BinaryIO

import attrs
from twisted.internet.defer import Deferred

from proxpi import atomic_files
from proxpi.files.eviction_index import EvictionIndex
from proxpi.files.layout import Identity
from proxpi.files.quota import Reservation
from proxpi.files.verify import Digests

#: Bytes that are gathered before they are written.
BUFFER = 1 << 20


class PartialFile:
    """A file that is being written under a partial name and a lock, and hashed.

    Bytes that the disk refuses can be read all the same, so nothing is lost with a full disk.

    :ivar digests: the size and digests of the bytes that have arrived
    :ivar written: how many of them are in the file, and `gathered` those that are not
    """

    def __init__(self, folder: Path, digests: Digests, reservation: Reservation) -> None:
        self.path, self.file = atomic_files.begin(folder)
        self.digests = digests
        self.reservation = reservation
        self.written = 0
        self.gathered = bytearray()

    def write(self, data: bytes) -> Deferred[None] | None:
        """
        Add bytes.

        :return: ``None``, or a Deferred that fires when the quota may have space for more
        :raises OSError: if the disk or the quota refuses them
        """
        self.digests.add(data)
        self.gathered += data
        return self.flush() if len(self.gathered) >= BUFFER else None

    def flush(self) -> Deferred[None] | None:
        """Write the gathered bytes, or give a Deferred that fires when to repeat the call."""
        space = self.reservation.grow(self.digests.size) if self.gathered else None
        while self.gathered and space is None:
            count = os.pwrite(self.file.fileno(), self.gathered, self.written)
            del self.gathered[:count]
            self.written += count
        return space

    def read(self, start: int, count: int) -> bytes:
        """Read at most `count` bytes of those that arrived; fewer before the end now and then."""
        if start < self.written:
            return os.pread(self.file.fileno(), min(count, self.written - start), start)
        start -= self.written
        return bytes(self.gathered[start : start + count])

    def restart(self) -> None:
        """Discard the bytes."""
        self.gathered.clear()
        self.written = 0
        self.file.truncate(0)
        self.digests = self.digests.anew()

    def close(self) -> None:
        """End the writing, and remove the file if it still has its partial name."""
        self.unlink()
        self.reservation.release()
        with suppress(OSError):  # a full disk may complain once more
            self.file.close()

    def unlink(self) -> None:
        """Remove the file if it still has its partial name."""
        with suppress(OSError):  # it was adopted, or the folder is for reading only
            os.unlink(self.path)


def reopen(file: BinaryIO | FileIO) -> BinaryIO:
    """Open a file once more, whatever became of its name."""
    return open(os.dup(file.fileno()), "rb", buffering=0)


@attrs.frozen
class Cached:
    """Which cached file an open file is; `path` is its whole path."""

    index: EvictionIndex
    cache_path: str
    path: str
    identity: Identity


@attrs.define(eq=False)
class OpenFile:
    """An open file, as it was when it was opened.

    :ivar has_digest: whether it was verified by a digest, not by its size alone
    :ivar cached: ``None`` for a file without a name
    :ivar is_kept: whether it is kept, not being sent
    :ivar fetched: whether it was fetched for the request that gets it
    """

    file: BinaryIO
    size: int
    sha256: str
    has_digest: bool = True
    cached: Cached | None = None
    is_kept: bool = False
    fetched: bool = False

    def __attrs_post_init__(self) -> None:
        if self.cached is not None and not self.is_kept:
            self.cached.index.acquire(self.cached.cache_path)

    @property
    def cache_path(self) -> str:
        """Its cache path; empty for a file without a name."""
        return self.cached.cache_path if self.cached is not None else ""

    def read(self, start: int, count: int) -> bytes:
        """Read at an offset, so that several may read one file."""
        return os.pread(self.file.fileno(), count, start)

    def share(self, *, is_kept: bool = False) -> OpenFile:
        """Open the same file once more."""
        return attrs.evolve(self, file=reopen(self.file), is_kept=is_kept)

    def keep(self) -> OpenFile | None:
        """Open the file to be kept; ``None`` if it is not the verified file any more."""
        if self.cached is not None:
            checked = self.cached.index.verified(self.cached.cache_path)
            if checked is not None and checked.identity == self.cached.identity:
                return self.share(is_kept=True)
        return None

    def unchanged(self) -> bool:
        """Tell whether the same file still lies at its cache path, if it has one."""
        try:
            cached = self.cached
            return cached is None or Identity.of(os.lstat(cached.path)) == cached.identity
        except OSError:
            return False

    def mark_unverified(self) -> None:
        """Have the cached file checked before it is served again, as it cannot be read."""
        if self.cached is not None:
            self.cached.index.mark_unverified(self.cached.cache_path, self.cached.identity)

    def close(self) -> None:
        """Close the file; further calls do nothing."""
        if not self.file.closed:
            self.file.close()
            if self.cached is not None and not self.is_kept:
                self.cached.index.release(self.cached.cache_path)
