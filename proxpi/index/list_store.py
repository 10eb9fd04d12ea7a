"""Files of project lists, and what of them outlives the process.

A :class:`ListFile` is written once, has no name on disk, and is open for reading as long as it is
in use. What an index sent is kept in an entry of its own (:mod:`proxpi.index.entry_store`), whose
content are the names.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import tempfile
import time
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain, groupby, islice
from typing import IO

import attrs
import msgspec

from proxpi import atomic_files
from proxpi.index.client import StoredResponse
from proxpi.index.entry_store import EntryStore, Superseded
from proxpi.index.list_parser import BLOCK
from proxpi.simple.negotiate import Serialization
from proxpi.simple.render import list_head, list_items, list_tail

#: Seconds after which a file of an index that is not configured is removed.
DAY = 86_400.0


class ListFile:
    """A file without a name, which is closed when nothing refers to it any more.

    :ivar descriptor: the open file; read it with ``os.pread``
    :ivar size: bytes
    :ivar digest: SHA-256, hexadecimal
    """

    def __init__(self, descriptor: int, size: int, digest: str) -> None:
        self.descriptor = descriptor
        self.size = size
        self.digest = digest
        weakref.finalize(self, os.close, descriptor)

    @property
    def etag(self) -> str:
        """The entity tag, without quotes; it is of these very bytes."""
        return self.digest[:32]

    def lines(
        self, start: int = 0, end: int | None = None, size: int = BLOCK
    ) -> Iterator[list[bytes]]:
        """Give the lines from `start` to `end` with their ends, some `size` bytes at a time."""
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
    """The folder of project lists; all but `invalidate` and `clear` may take a while."""

    FORMAT = b"proxpi list 5"
    SUFFIX = ".list"
    HEADER = _Header

    def temporary(self) -> IO[bytes]:
        """
        Begin a file without a name: beside the folder, or elsewhere if that cannot be written.

        :raises OSError: if neither can be written
        """
        beside = self.folder.parent
        with suppress(OSError):
            beside.mkdir(parents=True, exist_ok=True)
            return tempfile.TemporaryFile(prefix=atomic_files.PARTIAL, dir=beside)
        return tempfile.TemporaryFile()

    def write(self, pieces: Iterable[bytes]) -> ListFile:
        """
        Write a file.

        :raises OSError: if the disk does not let it
        """
        found, size = hashlib.sha256(), 0
        with self.temporary() as file:
            for piece in pieces:
                file.write(piece)
                found.update(piece)
                size += len(piece)
            file.flush()
            return ListFile(os.dup(file.fileno()), size, found.hexdigest())

    def load(self, identities: Iterable[str]) -> dict[str, tuple[StoredResponse, ListFile | None]]:
        """Give what is kept of indexes, and their names, as far as it is whole."""
        kept, known = {}, set(identities)
        for identity in known:
            with suppress(OSError, ValueError), open(self.path(identity), "rb") as file:
                kept[identity] = self._load(file)
        latest = time.time() - DAY
        for path in self.folder.glob("*" + self.SUFFIX):
            with suppress(OSError):
                if path.stem not in known and path.stat().st_mtime < latest:
                    path.unlink()
        return kept

    def _load(self, file: IO[bytes]) -> tuple[StoredResponse, ListFile | None]:
        header, valid = self.read_header(file)
        # Copied: what others do to a file with a name is of no concern afterwards.
        names = self.write(iter(partial(file.read, BLOCK), b""))
        if names.digest != (header.names or hashlib.sha256().hexdigest()):
            raise ValueError("it is damaged")
        stored = self.with_reactor_time(header.stored)
        return stored if valid else stored.invalidate(), names if stored.present else None

    def save(
        self,
        identity: str,
        stored: StoredResponse,
        names: ListFile | None,
        current: Callable[[], bool],
    ) -> None:
        """
        Keep what an index sent, in place of what it sent before.

        :param current: tells whether it still is; otherwise nothing is done
        :raises OSError: if the disk does not let it
        """
        digest = names.digest if names is not None else None
        head = self.head(_Header(self.with_wall_time(stored), digest))
        lines = names.lines() if names is not None else ()
        with suppress(Superseded):
            self.put(identity, chain([head], (b"".join(each) for each in lines)), current)

    def invalidate(self) -> None:
        """
        Begin a new generation of all lists; the caller holds the lock.

        :raises OSError: if the disk does not let it
        """
        for path in list(self.folder.glob("*" + self.SUFFIX)):
            self.mark_invalid(path.stem)


#: Bytes of names that are held of all sorted runs together, and at least of one.
MERGED, LEAST = 256 * 1024, 1024
#: Names that are written in one go.
MERGE_BATCH = 4096
_GZIP = 31  # zlib's word for "a gzip header, and the largest window"

#: How a list is written: as what, and whether with gzip.
Representation = tuple[Serialization, bool]


def merge(lists: Sequence[ListFile], store: ListStore) -> ListFile:
    """Make one list of several: sorted, each name there once."""
    starts: list[int] = []
    runs = store.write(_sorted_runs(lists, starts))
    size = max(LEAST, MERGED // max(1, len(starts)))
    ends = [*starts[1:], runs.size]
    merged = heapq.merge(
        *(
            chain.from_iterable(runs.lines(start, end, size))
            for start, end in zip(starts, ends, strict=False)
        )
    )
    unique = (name for name, _ in groupby(merged))
    return store.write(iter(lambda: b"".join(islice(unique, MERGE_BATCH)), b""))


def _sorted_runs(lists: Sequence[ListFile], starts: list[int]) -> Iterator[bytes]:
    """Sort block by block, and note where a run begins; a list that is sorted is one run."""
    place, last = 0, b""
    for lines in chain.from_iterable(each.lines() for each in lists):
        lines.sort()  # Of what is sorted already, that takes no time.
        if not starts or lines[0] < last:
            starts.append(place)
        last = lines[-1]
        block = b"".join(lines)
        place += len(block)
        yield block


def render(names: ListFile, representation: Representation) -> Iterator[bytes]:
    """Write the list as it is sent (PEP 503, PEP 691)."""
    serialization, compressed = representation
    pieces = _pieces(names, serialization)
    return _compressed(pieces) if compressed else pieces


def _pieces(names: ListFile, serialization: Serialization) -> Iterator[bytes]:
    yield list_head(serialization)
    first = True
    for lines in names.lines():
        yield list_items(serialization, b"".join(lines).decode("ascii").split(), first)
        first = False
    yield list_tail(serialization)


def _compressed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    # Level 1, since the list is long and the next one is never far.
    gzip = zlib.compressobj(1, wbits=_GZIP)
    yield from map(gzip.compress, pieces)
    yield gzip.flush()
