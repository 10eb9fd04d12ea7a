"""A folder of distributions as an index: its pages are made of the files that lie there.

The folder is flat, or has one folder a project, or both. The name of a file says its project
(:func:`proxpi.simple.filenames.project_of`), in whichever folder it lies, since a folder may hold
a project with all that it requires; the folder's name counts where that of the file says nothing.

A page request has three steps, each in a thread. The *scan* reads the names in all folders; all
requests within some seconds share it. The *inspection* reads inode, size and times of the project's
files. The *reading* computes the digests of the files that are new, and reads their core metadata,
for half a second at a time, so that clients see progress. What was read is remembered by inode,
size and ctime, also over a restart.

A file is *unsettled* while its last change is so young that another one might leave its ctime as it
is: what was read of it is not remembered for long, and its page is fresh for two seconds. A folder
that cannot be read is a failure, never the absence of its projects.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import BinaryIO, TypeGuard

import attrs
import msgspec
from packaging.utils import canonicalize_name
from twisted.internet.defer import DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from proxpi import atomic_files, local_files
from proxpi.archives import (
    NoUsableMetadata,
    SparseFile,
    core_metadata,
    requires_python,
    source_metadata,
)
from proxpi.index.breaker import Breakers
from proxpi.index.client import ABSENT_TTL
from proxpi.index.index_response import IndexPage, IndexResponse, StoredResponse
from proxpi.index.index_status import IndexStatus, status_of
from proxpi.index.list_store import ListFile, ListStore
from proxpi.local_files import Identity
from proxpi.problems import Problems
from proxpi.simple import FileEntry, Project, caching, filenames, model, names, versions
from proxpi.single_flight import Flights, InThread
from proxpi.upstream import Queue, UpstreamFailed

#: Seconds for which requests share a scan, if the time to live is not shorter, and times as long as
#: the scan took: so that scans of a large folder do not keep the processor busy.
SHARED, SHARED_TIMES = 1.0, 20.0
#: Seconds after its last change at which a file is settled: some disks count whole seconds.
SETTLED = 2.0
#: Seconds after which a job that reads files ends, for the next one to begin.
TURN = 0.5
#: Bytes that are read at once.
CHUNK = 1024 * 1024
#: The format of what is remembered; another one is not read.
FORMAT = 1

#: Errors of a path at which no regular file or folder lies, and of one that proxpi may not read.
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)
_FORBIDDEN = (errno.EACCES, errno.EPERM)
_SIGNATURE = ".asc"
#: What the entity tag of a page with unsettled files begins with.
_UNSETTLED = "unsettled-"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_log = Logger(namespace="proxpi.index")


class Details(msgspec.Struct, frozen=True, array_like=True):
    """Digests and metadata of a version of a file; `sha256` is empty if proxpi may not read it.

    :ivar metadata: the sha256 of the core metadata in a wheel
    """

    identity: Identity
    sha256: str
    requires_python: str | None = None
    metadata: str | None = None
    settled: bool = True


class _Remembered(msgspec.Struct):
    format: int
    files: dict[str, Details]


@attrs.frozen
class Listed:
    """A file of a project: its path relative to the folder, and whether a signature lies beside."""

    path: str
    signed: bool


@attrs.frozen
class Scan:
    """The names in a folder.

    :ivar started: the clock's seconds; `took`: the seconds that it took
    :ivar projects: by normalized name, the files by file name
    :ivar unreadable: what lies in the folder and cannot be read, by its name
    """

    started: float
    took: float
    projects: Mapping[str, Mapping[str, Listed]]
    unreadable: Mapping[str, OSError]

    def hidden(self, project: str, known: Collection[str]) -> OSError | None:
        """
        Return why files of a project may be hidden.

        :param known: relative paths of its files, as far as they are known from before
        """
        for name, error in self.unreadable.items():
            lay_there = (path.partition("/")[0] == name for path in known)
            if canonicalize_name(name) == project or any(lay_there):
                return error
        return None


@attrs.frozen
class Found:
    """A version of a file of a project; `path` is relative to the folder."""

    filename: str
    path: str
    signed: bool
    identity: Identity
    modified_ns: int


def scan(folder: str, started: float) -> Scan:
    """Read the names in a folder and in those within; an `OSError` if the folder cannot be read.

    Of two files with one name, that in the folder itself counts, then that in the first folder in
    alphabetical order. Names with a dot before them are left out, as are broken links.
    """
    began = time.monotonic()
    projects: dict[str, dict[str, Listed]] = {}
    unreadable: dict[str, OSError] = {}
    for within in ["", *_add_files(projects, folder, "", None)]:
        if within:
            project = names.normalize(within)
            try:
                _add_files(projects, os.path.join(folder, within), f"{within}/", project)
            except OSError as error:
                if error.errno not in _GONE:
                    unreadable[within] = error
    return Scan(started, time.monotonic() - began, projects, unreadable)


def _add_files(
    projects: dict[str, dict[str, Listed]], path: str, prefix: str, project: str | None
) -> list[str]:
    """Add the files of one folder to those of their projects; return the folders in it."""
    folders: list[str] = []
    files: set[str] = set()
    with os.scandir(path) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and names.is_filename(entry.name):
                try:
                    if entry.is_dir():
                        folders.append(entry.name)
                    elif entry.is_file():
                        files.add(entry.name)
                except OSError:  # of the target of a link: tried as a folder, it fails again
                    folders.append(entry.name)
    for filename in files:
        if (name := filenames.project_of(filename, project)) is not None:
            listed = Listed(prefix + filename, filename + _SIGNATURE in files)
            projects.setdefault(name, {}).setdefault(filename, listed)
    return sorted(folders)


def inspect(folder: str, files: Mapping[str, Listed]) -> list[Found]:
    """Read the identities of files, by name; what is no file, or none any more, is left out.

    :raises OSError: if the disk fails, or if proxpi may look at none of them
    """
    found, forbidden = [], None
    for filename, listed in sorted(files.items()):
        try:
            status = os.stat(os.path.join(folder, listed.path))
        except OSError as error:
            if error.errno in _FORBIDDEN:
                forbidden = error
            elif error.errno not in _GONE:
                raise
            continue
        if stat.S_ISREG(status.st_mode):
            identity = Identity.of(status)
            found.append(Found(filename, listed.path, listed.signed, identity, status.st_mtime_ns))
    if forbidden is not None and not found:
        raise forbidden
    return found


def read_files(
    folder: str, files: Sequence[Found], wall: Callable[[], float]
) -> Iterator[tuple[int, tuple[str, Details] | None]]:
    """Read files: digests and core metadata.

    :return: the bytes of each chunk, and with the last one of a file its path and details; a file
        that changes meanwhile has none
    :raises OSError: if one cannot be read, though it may be
    """
    for each in files:
        settled = is_settled(each.identity, wall())
        try:
            with local_files.open_regular(os.path.join(folder, each.path)) as file:
                digest = hashlib.sha256()
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
                    yield len(chunk), None
                metadata = _metadata(file, each)
                if Identity.of(os.fstat(file.fileno())) != each.identity:
                    continue
        except OSError as error:
            if error.errno in _FORBIDDEN:
                yield 0, (each.path, Details(each.identity, "", settled=settled))
            elif error.errno not in _GONE:
                raise
            continue
        is_wheel = each.filename.endswith(".whl")
        details = Details(
            each.identity,
            digest.hexdigest(),
            requires_python(metadata),
            hashlib.sha256(metadata).hexdigest() if is_wheel and metadata else None,
            settled,
        )
        yield 0, (each.path, details)


def _metadata(file: BinaryIO, found: Found) -> bytes:
    """Read the core metadata in a file; empty if there is none that can be used."""
    size = found.identity.size
    with suppress(NoUsableMetadata):
        if found.filename.endswith(".whl"):
            return core_metadata(SparseFile.of(file, size), found.filename)
        file.seek(0)
        return source_metadata(file, size, found.filename)
    return b""


def is_settled(identity: Identity, now: float) -> bool:
    """Whether a change of a file that is read now (seconds since the epoch) changes its ctime."""
    # A ctime far in the future is that of a clock that was set back.
    return abs(now - identity.changed_ns / 1e9) >= SETTLED


def is_known(found: Found, known: Mapping[str, Details], now: float) -> bool:
    """Whether this version of a file was read, and need not be read again by now."""
    details = known.get(found.path)
    if details is None or details.identity != found.identity:
        return False
    return details.settled or not is_settled(found.identity, now)


@attrs.frozen
class Made:
    """The page of a project, or `None` without a file, and its entity tag.

    :ivar gone: paths of which something is known, and which are no files of the project any more
    """

    page: IndexPage | None
    etag: str
    gone: Collection[str]


def make(folder: str, name: str, files: Sequence[Found], known: Mapping[str, Details]) -> Made:
    """Make the page of a project from its files and what is known of them.

    :raises OSError: if proxpi may read none of them: the project is not absent
    """
    listing: dict[str, tuple[Found, Details]] = {}
    settled = True
    for found in files:
        details = known.get(found.path)
        if details is None or details.identity != found.identity:
            settled = False  # it is being written
        elif details.sha256:
            listing[found.filename] = found, details
            settled = settled and details.settled
    gone = known.keys() - {found.path for found in files}
    if files and settled and not listing:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder + files[0].path)
    if not files:
        return Made(None, "", gone)
    page = page_of(folder, name, listing)
    etag = ("" if settled else _UNSETTLED) + hashlib.sha256(page.document).hexdigest()
    return Made(page, etag, gone)


def page_of(folder: str, name: str, files: Mapping[str, tuple[Found, Details]]) -> IndexPage:
    """Return the page of a project: its files in order of their names (PEP 691, PEP 700)."""
    entries = [_entry(folder, found, details) for found, details in files.values()]
    stated = [versions.version_of(filename, name) for filename in files]
    keys = {"versions": [str(each) for each in sorted({each for each in stated if each})]}
    project = Project(name, entries, keys)
    return IndexPage(project, model.encode(project))


def _entry(folder: str, found: Found, details: Details) -> FileEntry:
    entry: FileEntry = {
        "filename": found.filename,
        "url": local_files.url_of(os.path.join(folder, found.path), found.identity),
        "hashes": {"sha256": details.sha256},
        "size": found.identity.size,
    }
    if details.requires_python is not None:
        entry["requires-python"] = details.requires_python
    if details.metadata is not None:
        entry["core-metadata"] = {"sha256": details.metadata}
    if found.signed:
        entry["gpg-sig"] = True
    with suppress(OverflowError):  # a time that no calendar has
        modified = _EPOCH + timedelta(microseconds=found.modified_ns // 1000)
        entry["upload-time"] = f"{modified.replace(tzinfo=None).isoformat()}Z"
    return entry


@attrs.define(eq=False, kw_only=True)
class FolderIndex:
    """The index of one folder.

    :ivar name: that of the configuration
    :ivar url: ``file:``, with a slash at its end
    :ivar ttl: seconds until a change in the folder is seen
    :ivar store: the folder of what is remembered; its errors are noted
    """

    name: str
    url: str
    ttl: float
    breakers: Breakers
    _clock: IReactorTime
    _wall: Callable[[], float] = time.time
    _in_thread: InThread
    _store: Path
    _problems: Problems
    # It needs neither credentials nor a connection.
    private: bool = attrs.field(init=False, default=False)
    offline: bool = attrs.field(init=False, default=False)
    _lock: DeferredLock = attrs.field(init=False, factory=DeferredLock)
    _scan: Scan | None = attrs.field(init=False, default=None)
    # By project, what was read of its files, by path.
    _known: dict[str, dict[str, Details]] = attrs.field(init=False, factory=dict)
    _readings: Flights[str, None] = attrs.field(init=False)
    # Files and folders that cannot be read, of which the log has a line.
    _logged: set[str] = attrs.field(init=False, factory=set)
    # By project, the `on_bytes` of the requests that wait for a reading.
    _listeners: dict[str, list[Callable[[int], object]]] = attrs.field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self._readings = Flights(self._clock)

    @cached_property
    def folder(self) -> str:
        """The path of the folder, with a slash at its end."""
        return local_files.path_of(self.url)

    @cached_property
    def identity(self) -> str:
        """The name of the index in the stores: hexadecimal."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:16]

    def status(self) -> IndexStatus:
        return status_of(self, "folder")

    def guards(self, url: str) -> bool:
        """No client could fetch a file of it by itself."""
        return True

    def timeout_error(self, page: str, since: float) -> UpstreamFailed:
        """Return the error for a page that is not there in time."""
        return self.breakers.failed_since(page, since) or UpstreamFailed(
            self.url, "it was not read in time", kind="folder"
        )

    def remaining(self, stored: StoredResponse | None) -> float:
        """Seconds for which a response stays fresh."""
        if stored is None or stored.invalidated:
            return 0.0
        ttl = self.ttl if stored.present else min(self.ttl, ABSENT_TTL)
        if stored.etag is not None and stored.etag.startswith(_UNSETTLED):
            ttl = min(ttl, SETTLED)
        return caching.remaining(stored.requested_at, ttl, self._clock.seconds())

    async def project(
        self,
        name: str,
        stored: StoredResponse | None,
        on_bytes: Callable[[int], object],
        queue: Queue | None = None,
    ) -> IndexResponse[IndexPage]:
        """Make the page of a project; see :class:`proxpi.index.sources.Index`."""
        try:
            return await self._project(name, stored, on_bytes)
        except OSError as error:
            raise self._failed(error) from error

    async def project_list(
        self,
        stored: StoredResponse | None,
        lists: ListStore,
        on_bytes: Callable[[int], object],
        queue: Queue | None = None,
    ) -> IndexResponse[ListFile]:
        """Write the names of all projects into a file."""
        try:
            found = await self._scanned(stored)
        except OSError as error:
            raise self._failed(error) from error

        def write() -> tuple[str, ListFile | None]:
            data = "".join(f"{name}\n" for name in sorted(found.projects)).encode()
            etag = hashlib.sha256(data).hexdigest()
            return etag, None if _confirms(stored, etag) else lists.write([data])

        etag, file = await self._in_thread(write)
        if file is None and stored is not None:
            return IndexResponse(attrs.evolve(stored, requested_at=found.started))
        return IndexResponse(StoredResponse(True, found.started, etag, served=True), file)

    async def _project(
        self, name: str, stored: StoredResponse | None, on_bytes: Callable[[int], object]
    ) -> IndexResponse[IndexPage]:
        found = await self._scanned(stored)
        if found.unreadable:
            paths: Collection[str] = self._known.get(name, ())
            if not paths:
                paths = await self._in_thread(partial(self._load, name))
            if (hidden := found.hidden(name, paths)) is not None:
                raise hidden
        served = stored is not None and stored.served
        if (listed := found.projects.get(name)) is None:
            self._known.pop(name, None)
            return IndexResponse(StoredResponse(False, found.started, served=served))
        on_bytes(0)
        known, now = self._known.get(name), self._wall()

        def prepare() -> tuple[list[Found], dict[str, Details], list[Found]]:
            files = inspect(self.folder, listed)
            read = self._load(name) if known is None else known
            missing = [each for each in files if not is_known(each, read, now)]
            return files, read, missing

        files, read, missing = await self._in_thread(prepare)
        self._known.setdefault(name, read)
        await self._read(name, missing, on_bytes)
        known = self._known.get(name, {})
        made = await self._in_thread(partial(make, self.folder, name, files, dict(known)))
        for path in made.gone:
            known.pop(path, None)
        if made.page is None:
            return IndexResponse(StoredResponse(False, found.started, served=served))
        if _confirms(stored, made.etag):
            return IndexResponse(attrs.evolve(stored, requested_at=found.started))
        return IndexResponse(StoredResponse(True, found.started, made.etag, served=True), made.page)

    async def _scanned(self, stored: StoredResponse | None) -> Scan:
        """Return a scan that is new enough for a request.

        A request after a ``DELETE``, or for a page that is fresh, wants what is new: it has a scan
        of its own.
        """
        wants_new = stored is not None and (stored.invalidated or self.remaining(stored) > 0)
        now = self._clock.seconds()
        # Requests that come while one scan runs share it, if it is new enough, else the next one.
        async with self._lock:
            found = self._scan
            shared = 0.0 if found is None else max(SHARED, SHARED_TIMES * found.took)
            age = 0.0 if wants_new else min(self.ttl, ABSENT_TTL, shared)
            if found is None or found.started < now - age:
                self._scan = None
                work = partial(scan, self.folder, self._clock.seconds())
                found = self._scan = await self._in_thread(work)
                for error in found.unreadable.values():
                    self._log_once(str(error.filename), error.strerror)
            return found

    async def _read(
        self, name: str, missing: Sequence[Found], on_bytes: Callable[[int], object]
    ) -> None:
        """Read files that are not known yet, together with other requests for the project."""
        listeners = self._listeners.setdefault(name, [])
        listeners.append(on_bytes)
        try:
            # The second time for files that others, who began earlier, have not seen.
            for _ in range(2):
                if missing:
                    work = partial(self._read_all, name, missing)
                    await self._readings.join(name, work).wait()
                    known, now = self._known.get(name, {}), self._wall()
                    missing = [each for each in missing if not is_known(each, known, now)]
        finally:
            listeners.remove(on_bytes)
            if not listeners:
                self._listeners.pop(name, None)

    async def _read_all(self, name: str, files: Sequence[Found]) -> None:
        reading = read_files(self.folder, files, self._wall)

        def read_piece() -> tuple[int, list[tuple[str, Details]], bool]:
            size, found, until = 0, [], time.monotonic() + TURN
            for count, details in reading:
                size += count
                if details is not None:
                    found.append(details)
                if time.monotonic() >= until:
                    return size, found, False
            return size, found, True

        ended = False
        while not ended:
            size, found, ended = await self._in_thread(read_piece)
            known = self._known.setdefault(name, {})
            for path, details in found:
                known[path] = details
                if not details.sha256:
                    self._log_once(path, "proxpi may not read it")
            for tell in self._listeners.get(name, []):
                tell(size)
            if found:
                await self._in_thread(partial(self._save, name, dict(known)))

    def _load(self, name: str) -> dict[str, Details]:
        """Read what an earlier process has remembered of a project's files."""
        with suppress(OSError, ValueError):
            found = msgspec.json.decode(self._path(name).read_bytes(), type=_Remembered)
            if found.format == FORMAT:
                return found.files
        return {}

    def _save(self, name: str, known: dict[str, Details]) -> None:
        """Remember what was read, apart from what may change."""
        files = {path: each for path, each in known.items() if each.settled and each.sha256}
        path = self._path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            data = msgspec.json.encode(_Remembered(FORMAT, files))
            atomic_files.write_whole(path, data, self._store.parent)
        except OSError as error:
            consequence = "files of folders are read again after a restart"
            self._problems.note_disk(error, self._store, consequence)

    def _path(self, name: str) -> Path:
        return self._store / self.identity / f"{name}.json"

    def _log_once(self, path: str, cause: object) -> None:
        if path not in self._logged:
            self._logged.add(path)
            path = os.path.join(self.folder, path)
            _log.warn("{path!a} is not listed: {cause}", path=path, cause=cause)

    def _failed(self, error: OSError) -> UpstreamFailed:
        # What the operator has to mend does not get better within the seconds of a retry.
        temporary = error.errno not in (*_GONE, *_FORBIDDEN)
        cause = f"the folder cannot be read: {error.strerror or error}"
        return UpstreamFailed(self.url, cause, temporary=temporary, kind="folder")


def _confirms(stored: StoredResponse | None, etag: str) -> TypeGuard[StoredResponse]:
    return stored is not None and stored.present and not stored.invalidated and stored.etag == etag
