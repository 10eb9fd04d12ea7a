"""Cache entries on disk, one file each: a reader sees one whole version of an entry, or none.

An entry is *valid*, or *invalid* once ``DELETE`` has begun a new generation: it is then the
fallback of the next request, and never a hit. ``DELETE`` overwrites the state at the beginning of
the file in place, which needs no space on the disk and which ``kill -9`` cannot divide. A file gets
its name, and its state changes, under one lock; an entry that is *superseded* by then gets no name.
``DELETE /cache`` renames the folder: all entries in it become invalid.

A file is a line of its state and of the length and digest of its header; the header, JSON; and the
content. Nothing is flushed to disk: by the digests, what a power failure, another version or
another program has left is no entry. Times in a file are those of the wall clock; in memory they
are the reactor's, which no jump of the wall clock touches.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from io import FileIO
from pathlib import Path
from typing import IO, Any, ClassVar, Generic, TypeVar

import attrs
import msgspec
from twisted.internet.interfaces import IReactorTime

from proxpi import atomic_files
from proxpi.index.index_response import StoredResponse

#: The states, as they are written: of equal length.
VALID, INVALID = b"valid  ", b"invalid"
#: Bytes of the longest first line and the longest header.
LONGEST_LINE, LONGEST_HEADER = 128, 1 << 20
#: The age of a response from the future: it is not known, so the response is stale.
UNKNOWN_AGE = 10 * 365 * 86_400.0

H = TypeVar("H", bound=msgspec.Struct)


class Superseded(Exception):
    """The entry that was to be written is no longer current."""


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


@attrs.define(eq=False)
class EntryStore(Generic[H]):
    """A folder of cache entries of one kind, which a subclass states; it is made when needed.

    `FORMAT` begins its files: the kind, and the version of the format. `wall` gives the seconds
    since the epoch.
    """

    FORMAT: ClassVar[bytes]
    SUFFIX: ClassVar[str]
    HEADER: ClassVar[type[Any]]

    folder: Path
    _clock: IReactorTime
    wall: Callable[[], float] = time.time
    lock: threading.Lock = attrs.field(init=False, factory=threading.Lock)
    _wall_offset: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        # Taken once: a wall clock that is set while proxpi runs has no say.
        self._wall_offset = self.wall() - self._clock.seconds()

    def path(self, name: str) -> Path:
        return self.folder / (name + self.SUFFIX)

    def read_header(self, file: IO[bytes]) -> tuple[H, bool]:
        """Read the header of an entry, and whether that is valid; the content is next.

        :raises ValueError: if the file is damaged, or of another version
        """
        line = file.readline(LONGEST_LINE)
        states = self._mark(VALID), self._mark(INVALID)
        mark = line[: len(states[0])]
        length, checksum = line[len(mark) :].split()
        if mark not in states or not 0 < int(length) <= LONGEST_HEADER:
            raise ValueError("another version, or damaged")
        raw = file.read(int(length))
        if digest(raw).encode() != checksum:
            raise ValueError("damaged")
        return msgspec.json.decode(raw, type=self.HEADER), mark == states[0]

    def head(self, header: H) -> bytes:
        """Return the bytes before the content of a valid entry."""
        raw = msgspec.json.encode(header)
        return b"%b %d %b\n%b" % (self._mark(VALID), len(raw), digest(raw).encode(), raw)

    def put(self, name: str, pieces: Iterable[bytes], current: Callable[[], bool]) -> None:
        """Write an entry in place of the one before; this may take a while: call it in a thread.

        :param pieces: its :meth:`head`, and the content
        :param current: tells whether the entry is current; it is called under the lock
        :raises Superseded: if it is not; nothing has changed then, nor after an `OSError`
        """

        def replace(partial: Path, path: Path) -> None:
            with ExitStack() as held:
                # The disk frees the bytes of the file before once that is closed: after the lock,
                # for which the reactor may wait.
                with suppress(OSError):
                    held.enter_context(FileIO(path))
                with self.lock:
                    if not current():
                        raise Superseded()
                    self.folder.mkdir(exist_ok=True)
                    os.replace(partial, path)

        # Beside the folder, where the next start removes what a crash leaves behind.
        beside = self.folder.parent
        beside.mkdir(parents=True, exist_ok=True)
        atomic_files.write_whole(self.path(name), pieces, beside, replace)

    def mark_invalid(self, name: str) -> None:
        """Begin a new generation of an entry, or raise `OSError`; the caller holds the lock."""
        atomic_files.overwrite(self.path(name), self._mark(INVALID))

    def clear(self) -> Path:
        """Rename the folder to what may be removed, or raise `OSError`; the caller has the lock."""
        return atomic_files.discard(self.folder)

    def with_wall_time(self, response: StoredResponse) -> StoredResponse:
        """Return a response as it is written: with a time of the wall clock."""
        return attrs.evolve(response, requested_at=response.requested_at + self._wall_offset)

    def with_reactor_time(self, response: StoredResponse) -> StoredResponse:
        """Return a response that was read, with a time of the reactor's clock."""
        requested_at, now = response.requested_at - self._wall_offset, self._clock.seconds()
        if requested_at > now:
            requested_at = now - UNKNOWN_AGE
        return attrs.evolve(response, requested_at=requested_at)

    def _mark(self, state: bytes) -> bytes:
        return b"%b %b" % (self.FORMAT, state)
