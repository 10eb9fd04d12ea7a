"""The page store: one file per project on disk, with all that is known of its page.

Theory of operation
-------------------
A file is in one of two states, which its first bytes tell: *current*, or *invalid* once ``DELETE``
has begun a new generation. An invalid page is the fallback of the next request, and never a hit.
``DELETE`` overwrites these bytes in place, which needs no space on the disk and which ``kill -9``
cannot divide. A file gets its name, and its state changes, under one lock, and a page that has been
superseded by then gets no name. The generation of all pages is their folder: to remove all of them
is to rename it.

A file begins with a line that says what it is and how long its header is; the header, JSON, says
what each index said when, and which *sections* follow: the pages of the indexes (``document …``,
uncompressed: compression would take longer than all other work on them), the representations of the
merged page that were asked for (``json``, ``json.gz``, …), and the files whose core metadata is
suppressed, each with its length and its digest. A file is written whole, under another name first,
so that a reader sees the one before or the one after. Nothing is flushed to disk: the digests tell
what a power failure, another version or another program has left there, and that is no page then.

Times in a file are those of the wall clock; in memory they are the reactor's, which no jump of the
wall clock touches.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from io import BytesIO, FileIO
from pathlib import Path

import attrs
import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from proxpi import __version__, atomic_files
from proxpi.index.client import StoredResponse

#: What the names of the sections begin with that hold the page of an index; its identity follows.
DOCUMENT = "document "
#: The section that names the files whose core metadata is not to be had: a list, JSON.
SUPPRESSED = "suppressed"
#: What a file begins with, by its state; another version of the format gets another number.
CURRENT, INVALID = b"proxpi page 5 current", b"proxpi page 5 invalid"
#: Bytes that are read first; most headers are shorter.
BEGINNING = 4096
#: Bytes beyond which nothing is a header.
LONGEST_HEADER = 1 << 20
#: The age of what was asked for in the future: nobody can tell, so it is old.
UNKNOWN_AGE = 10 * 365 * 86_400.0
#: Bytes that the folder may hold; beyond them, what was not revalidated for longest is removed.
ROOM = 1024 * 1024 * 1024
#: Seconds between two lines of the log about a folder that cannot be written.
COMPLAINT = 60.0

_log = Logger(namespace="proxpi.index")


class Section(msgspec.Struct, frozen=True):
    """A piece of a file.

    :ivar start: where it begins, behind the header
    :ivar digest: the beginning of its SHA-256, hexadecimal
    """

    start: int
    size: int
    digest: str


class _Header(msgspec.Struct):
    version: str
    name: str
    responses: dict[str, StoredResponse]
    sections: dict[str, Section]


@attrs.frozen(eq=False)
class StoredPage:
    """What is kept of one project.

    :ivar responses: what the indexes said, by :attr:`proxpi.index.client.IndexClient.identity`
    :ivar start: where the sections begin
    :ivar image: the whole file, if it is in memory because it could not be written
    """

    path: Path
    responses: Mapping[str, StoredResponse]
    sections: Mapping[str, Section]
    start: int
    image: bytes | None = None

    @property
    def documents(self) -> dict[str, str]:
        """The digests of the indexes' pages."""
        sections = self.sections.items()
        return {name: found.digest for name, found in sections if name.startswith(DOCUMENT)}

    def invalidated(self) -> StoredPage:
        """Give the same as it is after a DELETE: due, and with nothing suppressed."""
        sections = self.sections
        if SUPPRESSED in sections:
            sections = {name: sections[name] for name in self.documents}
        responses = {
            key: attrs.evolve(response, invalidated=True)
            for key, response in self.responses.items()
        }
        return attrs.evolve(self, responses=responses, sections=sections)

    def read(self, *names: str) -> dict[str, bytes] | None:
        """Give sections, all of them if none is named; ``None`` if one is not there any more."""
        found = {}
        try:
            with BytesIO(self.image) if self.image else open(self.path, "rb", buffering=0) as file:
                for name in names or self.sections:
                    section = self.sections[name]
                    file.seek(self.start + section.start)
                    found[name] = file.read(section.size)
                    if digest(found[name]) != section.digest:
                        return None
        except (OSError, KeyError):
            return None
        return found


class Superseded(Exception):
    """A page that is no longer current was to be kept."""


def _always() -> bool:
    return True


def digest(data: bytes) -> str:
    """Give the digest by which a section is known."""
    return hashlib.sha256(data).hexdigest()[:32]


@attrs.define(eq=False)
class PageStore:
    """The folder of pages.

    :ivar folder: where they lie; it is made when it is needed
    :ivar wall: tells the seconds since the epoch
    :ivar lock: is held while a page gets its name, or another state
    """

    folder: Path
    _clock: IReactorTime
    wall: Callable[[], float] = time.time
    lock: threading.Lock = attrs.field(init=False, factory=threading.Lock)
    _elapsed: float = attrs.field(init=False)
    _complained_at: float = attrs.field(init=False, default=float("-inf"))
    _until_tidying: int = attrs.field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        # Taken once: a wall clock that is set while proxpi runs has no say.
        self._elapsed = self.wall() - self._clock.seconds()

    def load(self, name: str) -> StoredPage | None:
        """Give what is kept of a project; ``None`` if that is nothing, or nothing of use."""
        path = self._path(name)
        try:
            with open(path, "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                data = file.read(BEGINNING)
                magic, length, checksum = data.partition(b"\n")[0].rsplit(b" ", 2)
                start = data.index(b"\n") + 1
                end = start + int(length)
                if magic not in (CURRENT, INVALID) or end - start > LONGEST_HEADER:
                    return None
                if end > len(data):
                    data = os.pread(file.fileno(), end, 0)
            raw = data[start:end]
            if digest(raw).encode() != checksum:
                return None
            header = msgspec.json.decode(raw, type=_Header)
        except (OSError, ValueError):
            return None
        whole = end + sum(section.size for section in header.sections.values())
        if header.name != name or whole != size:
            return None
        # Forms of a page are as new as the program that made them.
        sections = {
            key: section
            for key, section in header.sections.items()
            if key.startswith(DOCUMENT) or header.version == __version__
        }
        responses = {key: self._remembered(response) for key, response in header.responses.items()}
        stored = StoredPage(path, responses, sections, end)
        return stored if magic == CURRENT else stored.invalidated()

    def save(
        self,
        name: str,
        responses: Mapping[str, StoredResponse],
        sections: Mapping[str, bytes],
        current: Callable[[], bool] = _always,
    ) -> StoredPage:
        """
        Write a file; if the disk does not let it, it is kept in memory, and the log says so.

        This may take a while: call it in a thread.

        :param current: tells whether the page still is; one that is not is given, and not kept
        """
        said = {
            key: attrs.evolve(response, asked_at=response.asked_at + self._elapsed)
            for key, response in responses.items()
        }
        places, end = {}, 0
        for key, data in sections.items():
            places[key] = Section(end, len(data), digest(data))
            end += len(data)
        raw = msgspec.json.encode(_Header(__version__, name, said, places))
        head = b"%b %d %b\n%b" % (CURRENT, len(raw), digest(raw).encode(), raw)
        image = b"".join([head, *sections.values()])
        unwritten = StoredPage(self._path(name), responses, places, len(head), image)
        try:
            self._write(unwritten.path, image, current)
        except Superseded:
            return unwritten
        except OSError as error:
            self._complain(error)
            return unwritten
        self._until_tidying -= len(image)
        if self._until_tidying < 0:
            self._until_tidying = ROOM // 16
            self._tidy()
        return attrs.evolve(unwritten, image=None)

    def remove(self, name: str, current: Callable[[], bool] = _always) -> None:
        """Forget a project for good, unless what is known of it is no longer current."""
        with self.lock, suppress(OSError):
            if current():
                self._path(name).unlink()

    def invalidate(self, name: str) -> None:
        """
        Let a page be asked for again before it is used again; the caller holds the lock.

        :raises OSError: if the disk does not let it; then nothing has changed
        """
        atomic_files.overwrite(self._path(name), INVALID)

    def clear(self) -> Path:
        """
        Forget all projects for good, by renaming their folder; the caller holds the lock.

        :return: the new name, to be removed
        :raises OSError: if the disk does not let it; then nothing has changed
        """
        return atomic_files.discard(self.folder)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.page"

    def _write(self, path: Path, image: bytes, current: Callable[[], bool]) -> None:
        def replace(partial: Path, path: Path) -> None:
            with ExitStack() as held:
                # The disk frees the bytes of the file before once that is closed: after the lock,
                # for which the reactor may wait.
                with suppress(OSError):
                    held.enter_context(FileIO(path))
                with self.lock:
                    if not current():
                        raise Superseded()
                    os.replace(partial, path)

        # Beside the folder of pages, where what a crash leaves behind is removed at the start.
        beside = self.folder.parent
        try:
            atomic_files.write_whole(path, image, beside, replace)
        except FileNotFoundError:
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic_files.write_whole(path, image, beside, replace)

    def _tidy(self) -> None:
        found = []
        for entry in os.scandir(self.folder):
            with suppress(OSError):  # gone meanwhile
                status = entry.stat(follow_symlinks=False)
                found.append((status.st_mtime, status.st_size, entry.path))
        excess = sum(size for _, size, _ in found) - ROOM
        for _, size, path in sorted(found):
            if excess <= 0:
                break
            with suppress(OSError):
                os.unlink(path)
                excess -= size

    def _complain(self, error: OSError) -> None:
        now = self._clock.seconds()
        if now >= self._complained_at + COMPLAINT:
            self._complained_at = now
            _log.error(
                "{folder}: pages cannot be written ({error}); they are kept in memory",
                folder=str(self.folder),
                error=error.strerror or error,
            )

    def _remembered(self, response: StoredResponse) -> StoredResponse:
        """Give what was read, with a time of the reactor's clock."""
        asked_at = response.asked_at - self._elapsed
        if asked_at > self._clock.seconds():
            asked_at = self._clock.seconds() - UNKNOWN_AGE
        return attrs.evolve(response, asked_at=asked_at)
