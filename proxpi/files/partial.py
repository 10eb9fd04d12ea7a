"""Partial files: a spool's bytes on disk, under a partial name and a lock, hashed as they arrive.

A partial file is *written* up to some byte; the bytes after that are *gathered* in memory. It ends
*adopted* (renamed into the cache) or *unlinked*.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from twisted.internet.defer import Deferred

from proxpi import atomic_files

#: Bytes that are gathered before they are written.
BUFFER = 1 << 20


class Digests:
    """Digests of bytes as they pass, `size` of them so far."""

    def __init__(self, algorithms: Iterable[str] = ()) -> None:
        names = {"sha256", *algorithms}
        self._hashes = {name: hashlib.new(name, usedforsecurity=False) for name in names}
        self.size = 0

    @classmethod
    def of(cls, digest: tuple[str, str] | None) -> Digests:
        """Give those that a file with this digest needs."""
        return cls({digest[0]} if digest else ())

    def add(self, data: bytes) -> None:
        """Take note of more bytes."""
        self.size += len(data)
        for digest in self._hashes.values():
            digest.update(data)

    def hex(self) -> dict[str, str]:
        """Give the hexadecimal digests by algorithm; there is always a ``sha256``."""
        return {name: digest.hexdigest() for name, digest in self._hashes.items()}

    def anew(self) -> Digests:
        """Give those of no bytes, by the same algorithms."""
        return Digests(self._hashes)


class PartialFile:
    """A file that is being written; nobody else sees it, and nobody else may remove it.

    What cannot be written stays at hand for those who read, so nothing is lost with a full disk.

    :ivar digests: the size and digests of the bytes that have arrived
    :ivar written: how many of them are in the file, and `gathered` those that are not
    :ivar announce: is told how large the file will be, and may raise an `OSError` against it
    :ivar room: is told how large the file is about to become; it may do so as well, or give a
        Deferred of when it is to be asked again
    """

    def __init__(self, folder: Path, digests: Digests) -> None:
        self.path, self._file = atomic_files.begin(folder)
        self.digests = digests
        self.written = 0
        self.gathered = bytearray()
        self._synced = 0
        self.announce: Callable[[int], None] = lambda size: None
        self.room: Callable[[int], Deferred[None] | None] = lambda size: None

    @property
    def size(self) -> int:
        """Bytes that have arrived."""
        return self.digests.size

    def fileno(self) -> int:
        """Give the descriptor of the file, for the system."""
        return self._file.fileno()

    def write(self, data: bytes) -> Deferred[None] | None:
        """
        Add bytes; those that the disk refuses, with an `OSError`, can be read all the same.

        :return: a Deferred of when there may be room for more, unless there is
        """
        self.digests.add(data)
        self.gathered += data
        return self.flush() if len(self.gathered) >= BUFFER else None

    def flush(self) -> Deferred[None] | None:
        """Write what was gathered; while room is made for it, give a Deferred of when to ask."""
        room = self.room(self.written + len(self.gathered)) if self.gathered else None
        if room is None:
            self._put()
        return room

    def _put(self) -> None:
        while self.gathered:
            count = os.pwrite(self.fileno(), self.gathered, self.written)
            del self.gathered[:count]
            self.written += count

    def read(self, start: int, count: int) -> bytes:
        """Read at most `count` bytes of those that arrived; fewer before the end now and then."""
        if start < self.written:
            return os.pread(self.fileno(), min(count, self.written - start), start)
        start -= self.written
        return bytes(self.gathered[start : start + count])

    def restart(self) -> None:
        """Throw away what was written."""
        self.gathered.clear()
        self.written = self._synced = 0
        self._file.truncate(0)
        self.digests = self.digests.anew()

    def finish(self) -> dict[str, str]:
        """Write all of it (also what :meth:`flush` would wait with), and give its digests."""
        self.flush()
        self._put()
        return self.digests.hex()

    def sync(self) -> None:
        """Flush what was written to disk, once; in a thread, as it may take long."""
        if self._synced != self.written:
            os.fsync(self.fileno())
            self._synced = self.written

    def reopen(self) -> BinaryIO:
        """Give the file to be read when this is closed, whatever became of its name."""
        return open(os.dup(self.fileno()), "rb", buffering=0)

    def close(self) -> None:
        """End the writing, and remove the file if it still has its partial name."""
        self.unlink()
        with suppress(OSError):  # a full disk may complain once more
            self._file.close()

    def unlink(self) -> None:
        """Remove the file if it still has its partial name."""
        with suppress(OSError):  # it has its own by now, or the folder is for reading only
            os.unlink(self.path)
