"""The inventory: which projects are cached, with their files and pages, for the admin page.

A snapshot is taken in a thread: of the eviction index, whose entries it reads while the reactor
changes them, and of the heads of the stored pages. It is searched and paged on the reactor's
thread, so it has the projects in each order already. The name of a file states its project; a file
whose name states none counts for the project :data:`UNKNOWN`.

A request gets a new snapshot if that is taken within :data:`DEADLINE` seconds, and otherwise the
one before, while the new one is being taken. Taking snapshots occupies a thread for a twentieth of
the time at most, except that none is older than :data:`MAX_AGE`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar, get_args
from urllib.parse import unquote

import attrs
import msgspec
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from proxpi.files import METADATA, SIGNATURE, IndexedFile
from proxpi.index import FoundPage
from proxpi.simple import ages, filenames, names
from proxpi.single_flight import Flights, InThread, WaitTimeout

#: The version of the documents.
VERSION = 1
#: Projects, or files, of one page of a list.
PAGE_SIZE = 50
#: Projects that are the most used, or the biggest.
TOP = 10
#: The project of files whose names say none. No project can have this name.
UNKNOWN = "-"
#: Seconds for which requests wait for a new snapshot, from its beginning, and after which one is
#: too old in any case.
DEADLINE, MAX_AGE = 1.0, 30.0
#: A snapshot is new for so many times the duration of taking it.
NEW_TIMES = 20.0
#: Seconds after the last request at which a snapshot is dropped: a large one takes 15 MB.
IDLE = 600.0

Sort = Literal["name", "size", "used", "uses"]
SORTS: tuple[Sort, ...] = get_args(Sort)
PageState = Literal["fresh", "stale"]
#: A cached file with its cache path.
File: TypeAlias = tuple[str, IndexedFile]
T = TypeVar("T")

_SEPARATORS = re.compile("[-_.]+")


class BeingCounted(Exception):
    """The first snapshot is being taken: the contents of the cache are not known yet."""


# The documents


class ProjectRow(msgspec.Struct, frozen=True):
    """A cached project.

    :ivar files: how many files are cached; `bytes`: of these files; `uses`: of these files
    :ivar last_used: when one of them was used last; ``None``: unknown, or there are none
    :ivar state: of its pages: ``stale`` if one is; ``None``: there is none
    :ivar indexes: whose pages of it are cached
    """

    project: str
    files: int
    bytes: int
    uses: int
    last_used: str | None
    state: PageState | None
    indexes: list[str]


class ProjectListing(msgspec.Struct, frozen=True):
    """One page of the list of cached projects; `pages`: of the list; `total`: its projects."""

    version: int
    search: str
    sort: Sort
    page: int
    pages: int
    total: int
    projects: list[ProjectRow]


class CachedPage(msgspec.Struct, frozen=True):
    """The page of one index; `confirmed`: when the index sent or confirmed it."""

    index: str
    state: PageState
    confirmed: str | None


class FileRow(msgspec.Struct, frozen=True):
    """A cached file.

    :ivar host: of its URL, as the folder in the cache folder is called
    :ivar index: whose page lists it; ``None`` if no cached page does
    :ivar verified: whether its bytes were compared with the digest of its page
    """

    file: str
    bytes: int
    uses: int
    last_used: str | None
    verified: bool
    index: str | None
    host: str


class FileListing(msgspec.Struct, frozen=True):
    """One page of the list of a project's cached files; `row`: the project in sum."""

    version: int
    project: str
    sort: Sort
    page: int
    pages: int
    total: int
    row: ProjectRow
    cached_pages: list[CachedPage]
    files: list[FileRow]


class PageCounts(msgspec.Struct):
    """The cached pages of one index."""

    cached: int
    fresh: int
    stale: int

    def add(self, state: PageState) -> None:
        self.cached += 1
        self.fresh += state == "fresh"
        self.stale += state == "stale"


# The snapshot


@attrs.frozen
class IndexTtl:
    """An index, by its identity in the stores, with the seconds for which its pages are fresh."""

    identity: str
    name: str
    ttl: float

    def state(self, confirmed: float, now: float) -> PageState:
        """Return the state of a page that was confirmed at a time."""
        return "fresh" if confirmed <= now < confirmed + self.ttl else "stale"


class CachedProject(msgspec.Struct, eq=False, gc=False):
    """A cached project; `paths`: the cache paths of its files."""

    name: str
    paths: list[str]
    size: int = 0
    uses: int = 0
    used_at: int = 0


@attrs.frozen(eq=False)
class Snapshot:
    """All cached projects, by name and in each order.

    :ivar pages: the pages of the page store, by project; `files`: by cache path
    :ivar projects_of: the projects by cache path
    :ivar now: when it was taken, in seconds since the epoch
    """

    projects: Mapping[str, CachedProject]
    orders: Mapping[Sort, Sequence[CachedProject]]
    counts: Mapping[str, PageCounts]
    pages: Mapping[str, FoundPage]
    files: Mapping[str, IndexedFile]
    projects_of: Mapping[str, str]
    indexes: Sequence[IndexTtl]
    now: float

    @property
    def most_used(self) -> list[ProjectRow]:
        return [self.row(each) for each in self.orders["uses"][:TOP] if each.uses]

    @property
    def biggest(self) -> list[ProjectRow]:
        return [self.row(each) for each in self.orders["size"][:TOP] if each.size]

    def cached_pages(self, name: str) -> list[CachedPage]:
        """Return the pages of a project that are cached."""
        found = self.pages.get(name)
        confirmed = found.pages if found is not None else {}
        return [
            CachedPage(each.name, each.state(at, self.now), moment(at))
            for each in self.indexes
            if (at := confirmed.get(each.identity)) is not None
        ]

    def row(self, project: CachedProject) -> ProjectRow:
        pages = self.cached_pages(project.name)
        states = [each.state for each in pages]
        return ProjectRow(
            project=project.name,
            files=len(project.paths),
            bytes=project.size,
            uses=project.uses,
            last_used=moment(project.used_at),
            state=None if not states else "stale" if "stale" in states else "fresh",
            indexes=[each.index for each in pages],
        )


def project_of(path: str) -> str:
    """Return the normalized name of the project of a cached file, by its cache path."""
    return filenames.project_of(_listed_name(path)) or UNKNOWN


def _listed_name(path: str) -> str:
    """Return the name of a file, or of the file whose companion it is, by its cache path."""
    return file_name(path).removesuffix(METADATA).removesuffix(SIGNATURE)


def file_name(path: str) -> str:
    """Return the name of a file as its page has it, by its cache path."""
    return unquote(path.rpartition("/")[2])


def moment(seconds: float) -> str | None:
    """Write seconds since the epoch (RFC 3339); ``None`` for 0, and for what no calendar has."""
    return ages.rfc3339(int(seconds)) if seconds else None


def take(
    paths: Sequence[str],
    files: Sequence[IndexedFile],
    pages: Mapping[str, FoundPage],
    indexes: Sequence[IndexTtl],
    now: float,
    known: Mapping[str, str],
) -> Snapshot:
    """
    Take a snapshot, in a thread.

    :param paths: the cache paths of the files
    :param pages: of projects, by name
    :param now: seconds since the epoch
    :param known: projects by cache path, of the snapshot before
    """
    projects: dict[str, CachedProject] = {}
    projects_of: dict[str, str] = {}
    by_path: dict[str, IndexedFile] = {}
    for path, file in zip(paths, files, strict=True):
        name = projects_of[path] = known.get(path) or project_of(path)
        if (project := projects.get(name)) is None:
            project = projects[name] = CachedProject(name, [])
        project.paths.append(path)
        by_path[path] = file
        project.size += file.size
        project.uses += file.uses
        project.used_at = max(project.used_at, file.used_at)
    counts = {index.name: PageCounts(0, 0, 0) for index in indexes}
    for name, found in pages.items():
        for index in indexes:
            if (confirmed := found.pages.get(index.identity)) is not None:
                counts[index.name].add(index.state(confirmed, now))
                if name not in projects:
                    projects[name] = CachedProject(name, [])
    by_name = sorted(projects.values(), key=lambda each: each.name)
    orders: dict[Sort, Sequence[CachedProject]] = {
        "name": by_name,
        "size": sorted(by_name, key=lambda each: -each.size),
        "used": sorted(by_name, key=lambda each: -each.used_at),
        "uses": sorted(by_name, key=lambda each: -each.uses),
    }
    return Snapshot(projects, orders, counts, pages, by_path, projects_of, indexes, now)


def sort_of(text: str) -> Sort:
    """Return the order that a query names, or the default."""
    return text if text in SORTS else "name"


def paged(rows: Sequence[T], page: int) -> tuple[int, int, Sequence[T]]:
    """Return a page of a list, as its number, how many there are, and its rows.

    A number that is too small or too large is that of the first page, or of the last.
    """
    pages = max(1, math.ceil(len(rows) / PAGE_SIZE))
    page = max(1, min(page, pages))
    return page, pages, rows[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]


def find_projects(snapshot: Snapshot, search: str, sort: Sort, page: int) -> ProjectListing:
    """Return a page of the projects whose names contain a text, in any spelling of names."""
    text = search.strip()
    part = _SEPARATORS.sub("-", text).lower()
    found = snapshot.orders[sort]
    if part:
        found = [each for each in found if part in each.name]
    page, pages, rows = paged(found, page)
    listed = [snapshot.row(each) for each in rows]
    return ProjectListing(VERSION, text, sort, page, pages, len(found), listed)


_FILE_ORDERS: Mapping[Sort, Callable[[File], Any]] = {
    "name": lambda each: file_name(each[0]),
    "size": lambda each: -each[1].size,
    "used": lambda each: -each[1].used_at,
    "uses": lambda each: -each[1].uses,
}


def list_files(
    snapshot: Snapshot, project: CachedProject, sort: Sort, page: int
) -> tuple[int, int, Sequence[File]]:
    """Return a page of the files of a project, as :func:`paged` does; in a thread."""
    files = [(path, snapshot.files[path]) for path in project.paths]
    files.sort(key=_FILE_ORDERS["name"])
    return paged(sorted(files, key=_FILE_ORDERS[sort]), page)


@attrs.define(eq=False, kw_only=True)
class Inventory:
    """Takes the snapshots, and reads the lists from them.

    :ivar cached_files: gives them quickly; `stored_pages`: finds them in a thread, given those that
        were found before
    :ivar origins: gives the indexes whose pages of a project list some files, by file name
    :ivar wall: gives the seconds since the epoch
    """

    _cached_files: Callable[[], tuple[list[str], list[IndexedFile]]]
    _stored_pages: Callable[[Mapping[str, FoundPage]], Mapping[str, FoundPage]]
    _origins: Callable[[str, Collection[str]], Deferred[dict[str, str]]]
    _indexes: Sequence[IndexTtl]
    _clock: IReactorTime
    _wall: Callable[[], float]
    _in_thread: InThread
    _flights: Flights[None, Snapshot] = attrs.field(init=False)
    _latest: Snapshot | None = attrs.field(init=False, default=None)
    _drop: IDelayedCall | None = attrs.field(init=False, default=None)
    # The clock's seconds until which the latest one is new.
    _new_until: float = attrs.field(init=False, default=-math.inf)

    def __attrs_post_init__(self) -> None:
        self._flights = Flights(self._clock)

    async def snapshot(self) -> Snapshot:
        """Return a new snapshot, or the latest; raises :exc:`BeingCounted` if there is none."""
        now = self._clock.seconds()
        if self._drop is not None:
            self._drop.reset(IDLE)
        if self._latest is not None and now < self._new_until:
            return self._latest
        try:
            flight = self._flights.join(None, self._take)
            return await flight.wait(flight.started + DEADLINE)
        except WaitTimeout:
            if self._latest is None:
                raise BeingCounted from None
            return self._latest

    async def projects(self, search: str, sort: Sort, page: int) -> ProjectListing:
        """Return a page of the cached projects."""
        return find_projects(await self.snapshot(), search, sort, page)

    async def files(self, name: str, sort: Sort, page: int) -> FileListing | None:
        """
        Return a page of the files of a project; ``None`` if nothing of it is cached.

        :param name: as a person writes it, or :data:`UNKNOWN`
        """
        snapshot = await self.snapshot()
        name = name if name == UNKNOWN else names.normalize(name) or ""
        if (project := snapshot.projects.get(name)) is None:
            return None
        page, pages, shown = await self._in_thread(
            partial(list_files, snapshot, project, sort, page)
        )
        origins: dict[str, str] = {}
        with suppress(TimeoutError):  # a disk that hangs
            listed = {_listed_name(path) for path, _ in shown}
            origins = await self._origins(name, listed).addTimeout(DEADLINE, self._clock)
        rows = [
            FileRow(
                file=file_name(path),
                bytes=file.size,
                uses=file.uses,
                last_used=moment(file.used_at),
                verified=file.verified is not None,
                index=origins.get(_listed_name(path)),
                host=path.partition("/")[0],
            )
            for path, file in shown
        ]
        return FileListing(
            version=VERSION,
            project=name,
            sort=sort,
            page=page,
            pages=pages,
            total=len(project.paths),
            row=snapshot.row(project),
            cached_pages=snapshot.cached_pages(name),
            files=rows,
        )

    async def _take(self) -> Snapshot:
        began, now, latest = self._clock.seconds(), self._wall(), self._latest
        paths, files = self._cached_files()
        found = latest.pages if latest is not None else {}
        known = latest.projects_of if latest is not None else {}

        def work() -> Snapshot:
            return take(paths, files, self._stored_pages(found), self._indexes, now, known)

        self._latest = await self._in_thread(work)
        if self._drop is None:
            self._drop = self._clock.callLater(IDLE, self._forget)
        ended = self._clock.seconds()
        self._new_until = ended + min(MAX_AGE, NEW_TIMES * (ended - began))
        return self._latest

    def _forget(self) -> None:
        self._latest = self._drop = None
