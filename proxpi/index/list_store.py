"""Files of project lists: names and representations without a file name, and entries on disk.

A :class:`ListFile` is written once, has no file name, and is open as long as it is in use. The last
list of an index is stored in an entry (:mod:`proxpi.index.entry_store`) whose content is its names.
The lists of several indexes are merged by an external merge sort: blocks are sorted in memory, and
the runs, blocks in order, are read in parallel. So a list of any length takes little memory.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain, groupby, islice
from typing import IO

import attrs
import msgspec

from proxpi import atomic_files
from proxpi.index.compression import compress_pieces
from proxpi.index.entry_store import EntryStore, Superseded
from proxpi.index.index_response import StoredResponse
from proxpi.index.list_parser import BLOCK
from proxpi.simple import Serialization, render_list

#: Bytes of names in memory of all runs of a merge together, and at least of one.
MERGE_MEMORY, MIN_RUN_MEMORY = 256 * 1024, 1024
#: Names that a merge writes in one go.
MERGE_BATCH = 4096


@attrs.frozen(eq=False)
class ListFile:
    """A file without a file name, which is closed when nothing refers to it any more.

    :ivar descriptor: the open file; read it with ``os.pread``
    :ivar digest: SHA-256, hexadecimal
    """

    descriptor: int
    size: int
    digest: str

    def __attrs_post_init__(self) -> None:
        weakref.finalize(self, os.close, self.descriptor)

    @property
    def etag(self) -> str:
        """The entity tag of the content, without quotes."""
        return self.digest[:32]

    def lines(
        self, start: int = 0, end: int | None = None, size: int = BLOCK
    ) -> Iterator[list[bytes]]:
        """Return the lines from `start` to `end` with their ends, some `size` bytes at a time."""
        rest, end = b"", self.size if end is None else end
        while start < end:
            block = os.pread(self.descriptor, min(size, end - start), start)
            if not block:
                raise OSError(f"a file of the project list ends after {start} of {end} bytes")
            start += len(block)
            lines = (rest + block).splitlines(keepends=True)
            rest = b"" if lines[-1].endswith(b"\n") else lines.pop()
            if lines:
                yield lines


class _Header(msgspec.Struct):
    stored: StoredResponse
    names: str | None


@attrs.define(eq=False)
class ListStore(EntryStore[_Header]):
    """The folder of project lists, one entry for an index.

    All methods but `invalidate` and `clear` may take a while, so they run in a thread. A disk that
    refuses is an `OSError`.
    """

    FORMAT = b"proxpi list 5"
    SUFFIX = ".list"
    HEADER = _Header

    def temporary(self) -> IO[bytes]:
        """Begin a file without a file name, beside the folder."""
        return atomic_files.temporary(self.folder.parent)

    def write(self, pieces: Iterable[bytes]) -> ListFile:
        """Write a file without a file name."""
        digest, size = hashlib.sha256(), 0
        with self.temporary() as file:
            for piece in pieces:
                file.write(piece)
                digest.update(piece)
                size += len(piece)
            file.flush()
            return ListFile(os.dup(file.fileno()), size, digest.hexdigest())

    def load(self, identity: str) -> tuple[StoredResponse | None, ListFile | None]:
        """Read the last response of an index and its names, if they are whole."""
        with suppress(OSError, ValueError), open(self.path(identity), "rb") as file:
            header, valid = self.read_header(file)
            # Copied, so that later changes to the file have no effect.
            names = self.write(iter(partial(file.read, BLOCK), b""))
            if names.digest == (header.names or hashlib.sha256().hexdigest()):
                stored = self.with_reactor_time(header.stored)
                return stored if valid else stored.invalidate(), names if stored.present else None
        return None, None

    def save(
        self,
        identity: str,
        stored: StoredResponse,
        names: ListFile | None,
        current: Callable[[], bool],
    ) -> None:
        """Store the last response of an index and its names, unless the list is superseded."""
        head = self.head(_Header(self.with_wall_time(stored), names.digest if names else None))
        content = map(b"".join, names.lines()) if names else ()
        with suppress(Superseded):
            self.put(identity, chain([head], content), current)

    def invalidate(self) -> None:
        """Begin a new generation of all lists; the caller holds the lock."""
        with suppress(FileNotFoundError):
            for file in os.scandir(self.folder):
                if file.name.endswith(self.SUFFIX):
                    self.mark_invalid(file.name.removesuffix(self.SUFFIX))


def select(names: ListFile, keep: Callable[[str], bool], store: ListStore) -> ListFile:
    """Return the list of some of the names, in the same order."""
    batches = names.lines()
    return store.write(
        b"".join(line for line in lines if keep(line.decode("ascii").strip())) for lines in batches
    )


def merge(lists: Sequence[ListFile], store: ListStore) -> ListFile:
    """Merge lists into one: sorted, each name once."""
    starts: list[int] = []
    runs = store.write(_sorted_runs(lists, starts))
    size = max(MIN_RUN_MEMORY, MERGE_MEMORY // max(1, len(starts)))
    spans = zip(starts, [*starts[1:], runs.size], strict=False)
    merged = heapq.merge(*(chain.from_iterable(runs.lines(*span, size)) for span in spans))
    unique = (name for name, _ in groupby(merged))
    return store.write(iter(lambda: b"".join(islice(unique, MERGE_BATCH)), b""))


def _sorted_runs(lists: Sequence[ListFile], starts: list[int]) -> Iterator[bytes]:
    """Sort block by block, and add the offset of each run; a sorted list is one run."""
    offset, last = 0, b""
    for lines in chain.from_iterable(each.lines() for each in lists):
        lines.sort()
        if not starts or lines[0] < last:
            starts.append(offset)
        last = lines[-1]
        block = b"".join(lines)
        offset += len(block)
        yield block


def render(names: ListFile, serialization: Serialization, compressed: bool) -> Iterator[bytes]:
    """Render a list (PEP 503, PEP 691), in pieces."""
    batches = (b"".join(lines).decode("ascii").split() for lines in names.lines())
    pieces = render_list(batches, serialization)
    return compress_pieces(pieces) if compressed else pieces
