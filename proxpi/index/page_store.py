"""Pages on disk: of each project, what each index sent, and the representations of the merged page.

The *sections* of a file (:mod:`proxpi.index.entry_store`) are the pages of the indexes
(``document …``, uncompressed: compression would take longer than all other work on them), the names
of the files whose core metadata is suppressed, the digests of core metadata that was extracted from
wheels, the representations that clients requested (``json``, ``json.gz``, …, of some sources), and
the verdicts of the rules by which those were rendered. Each has a digest
of its own, so that a section can be read alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

import attrs
import msgspec

from proxpi import __version__
from proxpi.index.entry_store import EntryStore, Superseded, digest
from proxpi.index.index_response import StoredResponse
from proxpi.local_files import Identity
from proxpi.problems import Problems

#: What the names of the sections begin with that hold the page of an index; its identity follows.
DOCUMENT = "document "
#: The section with the identities of files whose core metadata is suppressed: a list, JSON.
SUPPRESSED = "suppressed"
#: The section with the digests of core metadata that was extracted from wheels: `Extracted`, JSON.
EXTRACTED = "extracted"
#: The section with the verdicts of the rules on the representations: `Rulings`, JSON.
RULINGS = "rulings"
#: Bytes that are read first; most headers are shorter.
BEGINNING = 4096
#: Bytes that the folder may hold; beyond them, the pages that were not revalidated for longest go.
CAPACITY = 1024 * 1024 * 1024


#: By the identities of wheels: the file name, and the sha256 of the core metadata.
Extracted: TypeAlias = dict[str, tuple[str, str]]


def is_source(section: str) -> bool:
    """Return whether representations are rendered from a section; others are representations."""
    return section.startswith(DOCUMENT) or section in (SUPPRESSED, EXTRACTED)


class Section(msgspec.Struct, frozen=True):
    """A piece of a file; `start` is its offset behind the header."""

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
    """One project's file.

    :ivar responses: by :attr:`proxpi.index.client.IndexClient.identity`
    :ivar start: the offset of the sections
    :ivar image: the whole file, if it is in memory because it could not be written
    """

    path: Path
    responses: Mapping[str, StoredResponse]
    sections: Mapping[str, Section]
    start: int
    image: bytes | None = None

    @property
    def documents(self) -> dict[str, str]:
        """The digests of the indexes' pages, by section."""
        sections = self.sections.items()
        return {name: found.digest for name, found in sections if name.startswith(DOCUMENT)}

    @property
    def sources(self) -> dict[str, str]:
        """The digests of the sections from which representations are rendered."""
        sections = self.sections.items()
        return {name: found.digest for name, found in sections if is_source(name)}

    def without_representations(self) -> StoredPage:
        """Return the page with its sources alone, no core metadata suppressed."""
        kept = {name: self.sections[name] for name in self.sources if name != SUPPRESSED}
        return attrs.evolve(self, sections=kept)

    def invalidated(self) -> StoredPage:
        """Return the page as it is after a ``DELETE``, with no core metadata suppressed."""
        stored = self.without_representations() if SUPPRESSED in self.sections else self
        responses = {key: each.invalidate() for key, each in self.responses.items()}
        return attrs.evolve(stored, responses=responses)

    def read(self, *names: str) -> dict[str, bytes] | None:
        """Read sections, or all; ``None`` if one is gone or damaged."""
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


class FoundPage(msgspec.Struct, frozen=True, gc=False):
    """A project's file, as a scan finds it; the garbage collector ignores it: it is in no cycle.

    :ivar identity: of the file
    :ivar pages: the indexes, by identity, whose page it has, with the seconds since the epoch when
        each was confirmed last; 0 after a ``DELETE``
    """

    identity: Identity
    pages: Mapping[str, float]


@attrs.define(eq=False)
class PageStore(EntryStore[_Header]):
    """The folder of pages."""

    FORMAT = b"proxpi page 5"
    SUFFIX = ".page"
    HEADER = _Header

    _problems: Problems = attrs.field(kw_only=True)
    _until_tidying: int = attrs.field(init=False, default=0)

    def load(self, name: str) -> StoredPage | None:
        """Read what is stored of a project; ``None`` if that is nothing, or nothing of use."""
        path = self.path(name)
        try:
            with open(path, "rb", buffering=BEGINNING) as file:
                header, valid = self.read_header(file)
                start, size = file.tell(), os.fstat(file.fileno()).st_size
        except (OSError, ValueError):
            return None
        whole = start + sum(section.size for section in header.sections.values())
        if header.name != name or whole != size:
            return None
        responses = {key: self.with_reactor_time(each) for key, each in header.responses.items()}
        stored = StoredPage(path, responses, header.sections, start)
        if header.version != __version__:  # representations are as old as their program
            stored = stored.without_representations()
        return stored if valid else stored.invalidated()

    def scan(self, known: Mapping[str, FoundPage]) -> dict[str, FoundPage]:
        """
        Find which projects have a file, in a thread: this reads the head of each.

        :param known: the result of an earlier scan; files that are the same are not read again
        """
        found: dict[str, FoundPage] = {}
        try:
            entries = os.scandir(self.folder)
        except OSError:
            return found
        with entries:
            for entry in entries:
                name = entry.name.removesuffix(self.SUFFIX)
                with suppress(OSError, ValueError):  # gone meanwhile, or damaged
                    identity = Identity.of(entry.stat(follow_symlinks=False))
                    page = known.get(name)
                    if page is None or page.identity != identity:
                        page = FoundPage(identity, self._pages(name))
                    found[name] = page
        return found

    def _pages(self, name: str) -> dict[str, float]:
        with open(self.path(name), "rb", buffering=BEGINNING) as file:
            header, valid = self.read_header(file)
        return {
            index: response.requested_at if valid and not response.invalidated else 0.0
            for index, response in header.responses.items()
            if response.present and DOCUMENT + index in header.sections
        }

    def save(
        self,
        name: str,
        responses: Mapping[str, StoredResponse],
        sections: Mapping[str, bytes],
        current: Callable[[], bool] = lambda: True,
    ) -> StoredPage:
        """Write a page; return it, in memory if it is superseded, or if the disk refuses it."""
        table, end = {}, 0
        for key, data in sections.items():
            table[key] = Section(end, len(data), digest(data))
            end += len(data)
        timed = {key: self.with_wall_time(each) for key, each in responses.items()}
        head = self.head(_Header(__version__, name, timed, table))
        stored = StoredPage(self.path(name), responses, table, len(head))
        try:
            self.put(name, [head, *sections.values()], current)
        except (Superseded, OSError) as error:
            if isinstance(error, OSError):
                consequence = "pages cannot be written, and are kept in memory"
                self._problems.note_disk(error, self.folder, consequence)
            return attrs.evolve(stored, image=b"".join([head, *sections.values()]))
        self._until_tidying -= len(head) + end
        if self._until_tidying < 0:
            self._until_tidying = CAPACITY // 16
            self._tidy()
        return stored

    def delete(self, name: str, current: Callable[[], bool] = lambda: True) -> None:
        """Delete a page for good, unless its entry is no longer current."""
        with self.lock, suppress(OSError):
            if current():
                self.path(name).unlink()

    def _tidy(self) -> None:
        found = []
        for entry in os.scandir(self.folder):
            with suppress(OSError):  # gone meanwhile
                status = entry.stat(follow_symlinks=False)
                found.append((status.st_mtime, status.st_size, entry.path))
        excess = sum(size for _, size, _ in found) - CAPACITY
        for _, size, path in sorted(found):
            if excess <= 0:
                break
            with suppress(OSError):
                os.unlink(path)
                excess -= size
