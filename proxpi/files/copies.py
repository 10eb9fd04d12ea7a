"""Open files: what is sent of the cache, whatever becomes of their names meanwhile."""

from __future__ import annotations

import os
from collections import Counter
from typing import BinaryIO

import attrs


@attrs.define(eq=False)
class Copy:
    """An open file that may be sent, as it is now, whatever happens to its name.

    :ivar sha256: hexadecimal
    :ivar size: bytes
    :ivar place: where it lies in the cache; empty for one that has no name
    :ivar verified: whether a hash vouches for it, and not its length alone
    :ivar fetched: whether it was fetched for whoever gets this copy
    """

    file: BinaryIO
    size: int
    sha256: str
    _readers: Counter[str]
    place: str
    verified: bool = True
    fetched: bool = False

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
