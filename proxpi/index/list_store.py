"""Files of project lists, and what of them outlives the process.

A :class:`ListFile` is written once, has no name on disk, and is open for reading as long as it is
in use. What an index said is kept in a file of its own, which is in one of two states that its
first bytes tell: *current*, or *invalid* after a ``DELETE``, which changes these bytes in place.
Such a file is written whole under another name first; it gets its own, and its state changes,
under one lock. To remove all of it is to rename the folder. Nothing is flushed to disk: digests
are checked at the start, and what does not fit, or is of another version, is no list.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import tempfile
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain, groupby, islice
from pathlib import Path
from typing import IO

import attrs
import msgspec

from proxpi import atomic_files
from proxpi.index.client import StoredResponse
from proxpi.index.list_parser import BLOCK
from proxpi.index.page_store import LONGEST_HEADER, Superseded, digest
from proxpi.simple.negotiate import Serialization
from proxpi.simple.render import list_head, list_items, list_tail

#: What a file begins with, by its state; another version of the format gets another number.
CURRENT, INVALID = b"proxpi list 5 current", b"proxpi list 5 invalid"
#: Seconds after which a file of an index that is not configured is removed.
DAY = 86_400.0
SUFFIX = ".list"


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


@attrs.frozen(eq=False)
class ListStore:
    """The folder of project lists; all but `invalidate` and `clear` may take a while.

    :ivar folder: it is made when it is needed
    :ivar wall_offset: seconds from the reactor's clock to the wall clock, by which files go; it is
        taken once, so that a wall clock that is set while proxpi runs has no say
    :ivar lock: is held while a file gets its name, or another state
    """

    folder: Path
    wall_offset: float
    lock: threading.Lock = attrs.field(init=False, factory=threading.Lock)

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
            with suppress(OSError, ValueError), open(self._path(identity), "rb") as file:
                kept[identity] = self._load(file)
        latest = time.time() - DAY
        for path in self.folder.glob("*" + SUFFIX):
            with suppress(OSError):
                if path.stem not in known and path.stat().st_mtime < latest:
                    path.unlink()
        return kept

    def _load(self, file: IO[bytes]) -> tuple[StoredResponse, ListFile | None]:
        line = file.readline(LONGEST_HEADER)
        state, checksum, raw = line[: len(CURRENT)], *line[len(CURRENT) + 1 : -1].split(b" ", 1)
        if state not in (CURRENT, INVALID) or digest(raw).encode() != checksum:
            raise ValueError("it is of another version, or damaged")
        header = msgspec.json.decode(raw, type=_Header)
        # Copied: what others do to a file with a name is of no concern afterwards.
        names = self.write(iter(partial(file.read, BLOCK), b""))
        if names.digest != (header.names or hashlib.sha256().hexdigest()):
            raise ValueError("it is damaged")
        stored = header.stored
        asked_at, invalidated = (
            stored.asked_at - self.wall_offset,
            stored.invalidated or state == INVALID,
        )
        stored = attrs.evolve(stored, asked_at=asked_at, invalidated=invalidated)
        return stored, names if stored.present else None

    def save(
        self,
        identity: str,
        stored: StoredResponse,
        names: ListFile | None,
        current: Callable[[], bool],
    ) -> None:
        """
        Keep what an index said, in place of what it said before.

        :param current: tells whether it still is; otherwise nothing is done
        :raises OSError: if the disk does not let it
        """

        def replace(path: Path, place: Path) -> None:
            with self.lock:
                if not current():
                    raise Superseded()
                self.folder.mkdir(parents=True, exist_ok=True)
                os.replace(path, place)

        stored = attrs.evolve(stored, asked_at=stored.asked_at + self.wall_offset)
        raw = msgspec.json.encode(_Header(stored, names.digest if names is not None else None))
        head = b"%b %b %b\n" % (CURRENT, digest(raw).encode(), raw)
        lines = names.lines() if names is not None else ()
        pieces = chain([head], (b"".join(each) for each in lines))
        with suppress(Superseded):
            # Beside the folder, where what a crash leaves behind is removed at the start.
            atomic_files.write_whole(self._path(identity), pieces, self.folder.parent, replace)

    def invalidate(self) -> None:
        """
        Let all lists be asked for again before they are used again; the caller holds the lock.

        :raises OSError: if the disk does not let it
        """
        with suppress(FileNotFoundError):
            for path in list(os.scandir(self.folder)):
                if path.name.endswith(SUFFIX):
                    atomic_files.overwrite(Path(path.path), INVALID)

    def clear(self) -> Path:
        """
        Forget all lists for good, by renaming the folder; the caller holds the lock.

        :return: the new name, to be removed
        :raises OSError: if the disk does not let it; then nothing has changed
        """
        return atomic_files.discard(self.folder)

    def _path(self, identity: str) -> Path:
        return self.folder / (identity + SUFFIX)


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
