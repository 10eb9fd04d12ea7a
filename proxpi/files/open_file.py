"""Open files: a cached file can be sent to its end, whatever happens to its cache path meanwhile.

A :class:`Copy` is an open file that is being sent, so its cache path is not evicted. A
:class:`Held` is a kept descriptor of the response cache, which keeps nothing from eviction.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import BinaryIO

import attrs

from proxpi.files.layout import Identity


@attrs.define(eq=False)
class Copy:
    """An open file that may be sent, as it is now, whatever happens to its name.

    :ivar sha256: hexadecimal
    :ivar size: bytes
    :ivar place: where it lies in the cache; empty for one that has no name
    :ivar verified: whether a hash vouches for it, and not its length alone
    :ivar fetched: whether it was fetched for whoever gets this copy
    :ivar identity: which file of the cache that is; ``None`` for one that has no name
    """

    file: BinaryIO
    size: int
    sha256: str
    _readers: Counter[str]
    place: str
    verified: bool = True
    fetched: bool = False
    identity: Identity | None = None

    def __attrs_post_init__(self) -> None:
        self._readers[self.place] += 1

    def read(self, start: int, count: int) -> bytes:
        """Read at a place of its own, so that several may read one file."""
        return os.pread(self.file.fileno(), count, start)

    def share(self) -> Copy:
        """Give another copy of the same open file, to be let go of by itself."""
        file = open(os.dup(self.file.fileno()), "rb", buffering=0)
        return attrs.evolve(self, file=file)

    def close(self) -> None:
        """Let go of it; every copy has to be let go of once."""
        if not self.file.closed:
            self.file.close()
            self._readers[self.place] -= 1
            if not self._readers[self.place]:
                del self._readers[self.place]


@attrs.define(eq=False)
class Held:
    """A kept descriptor: a cached file that stays open between responses.

    :ivar descriptor: reads it, at any place
    :ivar path: its cache path
    :ivar identity: of the file; ``None`` for one without a name, which nobody can change
    :ivar mark_unverified: is called if it cannot be read
    """

    descriptor: int
    path: str
    identity: Identity | None
    mark_unverified: Callable[[], None]
    _copy: Callable[[BinaryIO], Copy]

    @classmethod
    def of(
        cls, copy: Copy, path: str, identity: Identity, mark_unverified: Callable[[], None]
    ) -> Held:
        """Hold the file of a copy that lies there."""
        readers, place = copy._readers, copy.place
        size, sha256, verified = copy.size, copy.sha256, copy.verified

        def again(file: BinaryIO) -> Copy:
            return Copy(file, size, sha256, readers, place, verified, identity=identity)

        descriptor = os.dup(copy.file.fileno())
        return cls(descriptor, path, identity, mark_unverified, again)

    @classmethod
    def alone(cls, descriptor: int, size: int) -> Held:
        """Hold a file that has no name, and is nobody else's."""
        readers: Counter[str] = Counter()

        def again(file: BinaryIO) -> Copy:
            return Copy(file, size, "", readers, "")

        return cls(descriptor, "", None, lambda: None, again)

    def unchanged(self) -> bool:
        """Tell whether this is still what lies there, as it was."""
        known = self.identity
        if known is None:
            return True
        try:
            status = os.lstat(self.path)
        except OSError:
            return False
        return (
            status.st_ino == known.inode
            and status.st_size == known.size
            and status.st_ctime_ns == known.changed_ns
        )

    def read(self, start: int, stop: int) -> bytes:
        """Give a part of it; less if it cannot be read."""
        try:
            return os.pread(self.descriptor, stop - start, start)
        except OSError:
            return b""

    def copy(self) -> Copy:
        """Give a copy to be sent."""
        return self._copy(open(os.dup(self.descriptor), "rb", buffering=0))

    def close(self) -> None:
        """Let go of it."""
        os.close(self.descriptor)
