"""Open files: a cached file can be sent to its end, whatever happens to its cache path meanwhile.

An :class:`OpenFile` is being sent, so its cache path is not evicted. A :class:`KeptDescriptor` of
the response cache keeps nothing from eviction.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import BinaryIO

import attrs

from proxpi.files.layout import Identity


@attrs.define(eq=False)
class OpenFile:
    """An open file that may be sent, as it is now, whatever happens to its name.

    :ivar place: its cache path; empty for one that has no name
    :ivar has_digest: whether it was verified by a digest, not by its size alone
    :ivar fetched: whether it was fetched for whoever gets this copy
    :ivar identity: which cached file that is; ``None`` for one that has no name
    :ivar mark_unverified: is called if it cannot be read
    """

    file: BinaryIO
    size: int
    sha256: str
    _readers: Counter[str]
    place: str
    has_digest: bool = True
    fetched: bool = False
    identity: Identity | None = None
    mark_unverified: Callable[[], None] = lambda: None

    def __attrs_post_init__(self) -> None:
        self._readers[self.place] += 1

    def read(self, start: int, count: int) -> bytes:
        """Read at a place of its own, so that several may read one file."""
        return os.pread(self.file.fileno(), count, start)

    def share(self, descriptor: int | None = None) -> OpenFile:
        """Give another copy of the same file, by the same descriptor or another one."""
        descriptor = os.dup(self.file.fileno() if descriptor is None else descriptor)
        return attrs.evolve(self, file=open(descriptor, "rb", buffering=0))

    def close(self) -> None:
        """Let go of it; every copy has to be let go of once."""
        if not self.file.closed:
            self.file.close()
            self._readers[self.place] -= 1
            if not self._readers[self.place]:
                del self._readers[self.place]


@attrs.define(eq=False)
class KeptDescriptor:
    """A kept descriptor: a cached file that stays open between responses.

    :ivar path: its path; empty for a file without a name, which nobody can change
    """

    descriptor: int
    path: str
    _like: OpenFile

    @classmethod
    def of(cls, copy: OpenFile, path: str) -> KeptDescriptor:
        """Keep a descriptor of the file of a copy."""
        return cls(os.dup(copy.file.fileno()), path, copy)

    @classmethod
    def alone(cls, descriptor: int, size: int) -> KeptDescriptor:
        """Keep the descriptor of a file that has no name, and is nobody else's."""
        file = open(descriptor, "rb", buffering=0, closefd=False)
        return cls(descriptor, "", OpenFile(file, size, "", Counter(), ""))

    @property
    def identity(self) -> Identity | None:
        """The identity of a cached file; ``None`` for one without a name."""
        return self._like.identity

    def unchanged(self) -> bool:
        """Tell whether the same file, as it was, still has its name."""
        try:
            return not self.path or Identity.of(os.lstat(self.path)) == self.identity
        except OSError:
            return False

    def read(self, start: int, stop: int) -> bytes:
        """Give a part of it; less if it cannot be read."""
        try:
            return os.pread(self.descriptor, stop - start, start)
        except OSError:
            return b""

    def copy(self) -> OpenFile:
        """Give a copy to be sent."""
        return self._like.share(self.descriptor)

    def mark_unverified(self) -> None:
        self._like.mark_unverified()

    def close(self) -> None:
        os.close(self.descriptor)
