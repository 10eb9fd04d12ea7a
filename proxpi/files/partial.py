"""Files that are not finished: written under a name of their own, locked, hashed as they grow."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from twisted.internet.defer import Deferred

from proxpi import partials

#: Bytes that are gathered before they are written.
BUFFER = 1 << 20


class Sums:
    """What is known of bytes that have passed.

    :ivar size: how many they are
    """

    def __init__(self, algorithms: Iterable[str]) -> None:
        names = {"sha256", *algorithms}
        self._hashes = {name: hashlib.new(name, usedforsecurity=False) for name in names}
        self.size = 0

    def add(self, data: bytes) -> None:
        """Take note of more bytes."""
        self.size += len(data)
        for digest in self._hashes.values():
            digest.update(data)

    def digests(self) -> dict[str, str]:
        """Give the hexadecimal digests by algorithm; there is always a ``sha256``."""
        return {name: digest.hexdigest() for name, digest in self._hashes.items()}

    def anew(self) -> Sums:
        """Give those of no bytes, by the same algorithms."""
        return Sums(self._hashes)

    def branch(self) -> Sums:
        """Give those of the same bytes, to be gone on with by themselves."""
        other = copy.copy(self)
        other._hashes = {name: digest.copy() for name, digest in self._hashes.items()}
        return other


class Partial:
    """A file that is being written; nobody else sees it, and nobody else may remove it.

    What cannot be written stays at hand for those who read, so nothing is lost with a full disk.

    :ivar sums: the size and digests of what has come
    """

    def __init__(self, folder: Path, algorithms: set[str]) -> None:
        self.path, self._file = partials.begin(folder)
        self.sums = Sums(algorithms)
        self._written = 0
        self._synced = 0
        self._gathered = bytearray()
        #: Told how large the file is about to become; it may raise an `OSError` against it, or give
        #: a Deferred of when it is to be asked again.
        self.room: Callable[[int], Deferred[None] | None] = lambda size: None

    @property
    def size(self) -> int:
        """Bytes that have come, whether they are on disk already or not."""
        return self.sums.size

    def fileno(self) -> int:
        """Give the descriptor of the file, for the system."""
        return self._file.fileno()

    def write(self, data: bytes) -> Deferred[None] | None:
        """
        Add bytes, hashing them as they pass.

        :return: a Deferred of when there may be room for more, unless there is
        :raises OSError: if the disk does not take them; they can be read all the same
        """
        self.sums.add(data)
        self._gathered += data
        return self.flush() if len(self._gathered) >= BUFFER else None

    def flush(self) -> Deferred[None] | None:
        """Write what was gathered; while room is made for it, give a Deferred of when to ask."""
        room = self.room(self._written + len(self._gathered)) if self._gathered else None
        if room is None:
            self._put()
        return room

    def _put(self) -> None:
        while self._gathered:
            count = os.pwrite(self.fileno(), self._gathered, self._written)
            del self._gathered[:count]
            self._written += count

    def read(self, start: int, count: int) -> bytes:
        """Read what has come; at most `count` bytes, and fewer before the end now and then."""
        if start < self._written:
            return os.pread(self.fileno(), min(count, self._written - start), start)
        start -= self._written
        return bytes(self._gathered[start : start + count])

    def restart(self) -> None:
        """Throw away what was written."""
        self._gathered.clear()
        self._written = self._synced = 0
        self._file.truncate(0)
        self.sums = self.sums.anew()

    def finish(self) -> dict[str, str]:
        """
        Write all of it, and give its digests.

        What :meth:`flush` would wait with is written as well: that is not much.
        """
        self.flush()
        self._put()
        return self.sums.digests()

    def sync(self) -> None:
        """
        Have what was written flushed to disk.

        It may take long: call it in a thread, after :meth:`finish`. A second call does nothing.

        :raises OSError: if the disk does not take it
        """
        if self._synced != self._written:
            os.fsync(self.fileno())
            self._synced = self._written

    def reopen(self) -> BinaryIO:
        """Open what was written for reading."""
        return open(self.path, "rb", buffering=0)

    def remains(self) -> Remains:
        """Give what has come so far, to be read when this is closed."""
        return Remains(os.dup(self.fileno()), self._written, bytes(self._gathered))

    def close(self) -> None:
        """End the writing, and remove the file if it still has its partial name."""
        self.unlink()
        with suppress(OSError):  # a full disk may complain once more
            self._file.close()

    def unlink(self) -> None:
        """Remove the file if it still has its partial name."""
        with suppress(OSError):  # it has its own by now, or the folder is for reading only
            os.unlink(self.path)


class Remains:
    """The bytes of a partial file that goes no further."""

    def __init__(self, descriptor: int, written: int, rest: bytes) -> None:
        self._file = open(descriptor, "rb", buffering=0)
        self._written = written
        self._rest = rest

    def read(self, start: int, count: int) -> bytes:
        """Read as :meth:`Partial.read` does."""
        if start < self._written:
            return os.pread(self._file.fileno(), min(count, self._written - start), start)
        start -= self._written
        return self._rest[start : start + count]

    def close(self) -> None:
        """Let go of them."""
        self._file.close()
