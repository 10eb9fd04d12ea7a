"""The project list of all indexes: one entry, revalidated as a page is, with its names in files.

The public list has several hundred thousand names and tens of megabytes, so it is never held in
memory. A response goes into a file; a thread parses that into a file of names, and merges the names
of several indexes; a representation is rendered when the first client requests it.

The list is *unloaded* until the first request has read the entries on disk; a ``DELETE`` meanwhile
is remembered. A :class:`ListEntry` is one *generation*, as that of a page, and is served stale by
the same rules. After a failed write the list is *unwritable* for :data:`UNWRITABLE_TIME` seconds:
nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from shutil import rmtree
from typing import IO

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from proxpi.index import list_store
from proxpi.index.client import IndexClient, IndexResponse, StoredResponse, log_skipped_links
from proxpi.index.list_parser import BLOCK, project_names
from proxpi.index.list_store import ListFile, ListStore
from proxpi.index.representations import Representation
from proxpi.index.revalidation import Decision, Entry, Revalidation, Status
from proxpi.simple import (
    NotAnIndexPage,
    NotListed,
    Serialization,
    SkippedLinks,
    require_known_version,
)
from proxpi.single_flight import Flights, InThread
from proxpi.upstream import (
    BodyTruncated,
    BodyUnusable,
    Decoder,
    Response,
    UpstreamClient,
    UpstreamFailed,
    upstream_failed,
)

#: The list, as entries and circuit breakers name it.
ROOT = ""
#: Seconds that a list may take to arrive, however steadily it does.
LIST_TIME = 300.0
#: Seconds for which no list is fetched after one could not be written.
UNWRITABLE_TIME = 60.0

_log = Logger(namespace="proxpi.index")


class NoSuchList(NotListed):
    """No index has a list of its projects."""


@attrs.frozen
class ProjectList:
    """The list as it is sent: fresh for `remaining` seconds, confirmed `age` seconds ago."""

    file: ListFile
    status: Status
    remaining: float
    age: float


@attrs.define(eq=False)
class ListEntry(Entry):
    """One generation of the list.

    :ivar lists: the names of each index that has a list
    :ivar names: of all indexes, if each has responded and one of them has a list
    """

    lists: Mapping[IndexClient, ListFile] = attrs.field(factory=dict)
    names: ListFile | None = None
    representations: dict[Representation, ListFile] = attrs.field(factory=dict)


@attrs.define(eq=False, kw_only=True)
class ProjectListCache:
    """The project list of all indexes together."""

    _indexes: Sequence[IndexClient]
    _upstream: UpstreamClient
    _clock: IReactorTime
    _store: ListStore
    _in_thread: InThread
    _revalidation: Revalidation[ListEntry] = attrs.field(init=False)
    _entry: ListEntry | None = attrs.field(init=False, default=None)
    _loads: Flights[None, None] = attrs.field(init=False)
    # Whether a DELETE came while the list was unloaded.
    _invalidated: bool = attrs.field(init=False, default=False)
    _unwritable_until: float = attrs.field(init=False, default=float("-inf"))
    _write_error: tuple[object, ...] = attrs.field(init=False, default=())

    def __attrs_post_init__(self) -> None:
        self._revalidation = Revalidation(
            self._indexes, self._clock, self._request, self._store_responses
        )
        self._loads = Flights(self._clock)

    def ready(self, serialization: Serialization, compressed: bool) -> ProjectList | None:
        """Return the list without waiting, if it is rendered, and fresh or behind open breakers."""
        entry, wanted = self._entry, Representation(serialization, compressed)
        if entry is None or wanted not in entry.representations:
            return None
        decision = self._revalidation.decide(entry)
        if decision not in (Decision.FRESH, Decision.STALE):
            return None
        status: Status = "HIT" if decision is Decision.FRESH else "STALE"
        return self._list(entry, entry.representations[wanted], status)

    async def fetch(self, serialization: Serialization, compressed: bool) -> ProjectList:
        """Return the list, revalidated if need be.

        :raises NoSuchList: if no index has one
        :raises UpstreamFailed: if an index failed, and there is no list to fall back on
        :raises OSError: the same, if the list cannot be written
        """
        if self._entry is None:
            await self._loads.join(None, self._load).wait()
        entry = self._entry
        assert entry is not None  # loaded, or replaced meanwhile
        if self._clock.seconds() >= self._unwritable_until:
            status = (await self._revalidation.revalidate(entry)).status
        elif self._revalidation.remaining(entry) > 0:
            status = "HIT"
        elif entry.usable:
            status = "STALE"
        else:
            raise OSError(*self._write_error)
        wanted = Representation(serialization, compressed)
        file = entry.representations.get(wanted)
        if file is None:
            async with entry.lock:
                file = await self._render(entry, wanted)
        return self._list(entry, file, status)

    def invalidate(self) -> None:
        """Begin a new generation of the list; if the disk refuses (`OSError`), nothing changes."""
        with self._store.lock:
            self._store.invalidate()
            old, self._unwritable_until = self._entry, float("-inf")
            self._invalidated = old is None
            if old is not None:
                responses, rendered = old.invalidated_responses(), {**old.representations}
                new = attrs.evolve(old, responses=responses, representations=rendered, forced=True)
                self._entry = new

    def clear(self) -> Deferred[None]:
        """Remove the list for good; see :meth:`proxpi.index.page_cache.PageCache.clear`."""
        with self._store.lock:
            removed = self._store.clear()
            self._entry = ListEntry(ROOT, self._clock, [None] * len(self._indexes))
        return self._in_thread(lambda: rmtree(removed, ignore_errors=True))

    def _list(self, entry: ListEntry, file: ListFile, status: Status) -> ProjectList:
        remaining = 0.0 if status == "STALE" else self._revalidation.remaining(entry)
        return ProjectList(file, status, remaining, entry.age)

    async def _load(self) -> None:
        load, indexes = self._store.load, self._indexes
        loaded = await self._in_thread(lambda: [load(index.identity) for index in indexes])
        pairs = zip(indexes, loaded, strict=True)
        lists = {index: names for index, (_, names) in pairs if names is not None}
        entry = ListEntry(ROOT, self._clock, [stored for stored, _ in loaded], lists=lists)
        entry.names = await self._merged(entry.responses, lists)
        if self._invalidated:
            entry.responses, entry.forced = entry.invalidated_responses(), True
        if self._entry is None:  # otherwise the list was cleared meanwhile
            self._entry = entry

    async def _request(
        self, index: IndexClient, entry: ListEntry, stored: StoredResponse | None
    ) -> IndexResponse[ListFile]:
        return await index.fetch(
            index.url,
            stored,
            partial(self._read, entry),
            on_bytes=entry.progress.add,
            queue=entry.queue,
            # A list that was there does not go away; some hosts hide it from old credentials.
            may_be_absent=not (index.private and stored is not None and stored.served),
        )

    async def _read(self, entry: ListEntry, response: Response) -> ListFile:
        """Read the names in a response, or raise `UpstreamFailed`."""
        end_known, skipped = True, SkippedLinks()

        def write(chunk: bytes) -> None:
            entry.progress.add(len(chunk))
            body.write(chunk)

        try:
            require_known_version(response.header("Content-Type"))
            with self._writing(), self._store.temporary() as body:
                limit = self._upstream.list_limit
                end_known = await self._upstream.stream(response, write, limit, LIST_TIME)
                parse = partial(self._parse, body, response.codings, end_known, skipped)
                names = await self._in_thread(parse)
        except NotAnIndexPage as error:
            # An end that was not announced may have been none.
            raise UpstreamFailed(response.url, error.reason, temporary=not end_known) from error
        except BodyUnusable as error:
            raise upstream_failed(response.url, error) from error
        log_skipped_links(response.url, skipped, "project")
        return names

    def _parse(
        self, body: IO[bytes], codings: Sequence[str], end_known: bool, skipped: SkippedLinks
    ) -> ListFile:
        """Decode and parse a body, in a thread."""
        if not codings:
            return self._store.write(project_names(_blocks(body), end_known, skipped))
        with self._store.temporary() as decoded:
            decoder = Decoder(codings, decoded.write, self._upstream.list_limit)
            for block in _blocks(body):
                decoder.write(block)
            if not decoder.ended:
                raise BodyTruncated()
            return self._store.write(project_names(_blocks(decoded), True, skipped))

    async def _store_responses(
        self,
        entry: ListEntry,
        responses: list[StoredResponse | None],
        new: Mapping[IndexClient, ListFile],
    ) -> None:
        """Update an entry, and store it if it is current."""
        lists, changed = {}, []
        for index, old, response in zip(self._indexes, entry.responses, responses, strict=True):
            names = new.get(index, entry.lists.get(index))
            if response is not None and response.present and names is not None:
                lists[index] = names
            if response is not None and response is not old:
                changed.append((index.identity, response, lists.get(index)))
        if lists != entry.lists or None in entry.responses:
            names = await self._merged(responses, lists)
            if names is None or entry.names is None or names.digest != entry.names.digest:
                entry.representations = {}
            entry.lists, entry.names = lists, names
        entry.responses = responses

        def save() -> None:
            try:
                for each in changed:
                    self._store.save(*each, current=lambda: self._entry is entry)
            except OSError as error:
                _log.error("the project list cannot be stored: {error}", error=error)

        await self._in_thread(save)

    async def _merged(
        self, responses: Sequence[StoredResponse | None], lists: Mapping[IndexClient, ListFile]
    ) -> ListFile | None:
        """Return the names of all indexes, if each has responded and one of them has a list."""
        ordered = [lists[index] for index in self._indexes if index in lists]
        if not ordered or None in responses:
            return None
        if len(responses) == 1:
            return ordered[0]
        with self._writing():
            return await self._in_thread(partial(list_store.merge, ordered, self._store))

    async def _render(self, entry: ListEntry, representation: Representation) -> ListFile:
        """Render the list, unless another request did meanwhile; the entry is locked."""
        if entry.names is None:
            raise NoSuchList()
        if representation not in entry.representations:
            pieces = list_store.render(entry.names, representation)
            with self._writing():
                file = await self._in_thread(partial(self._store.write, pieces))
            entry.representations[representation] = file
        return entry.representations[representation]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Note if the list is unwritable: it is not fetched over and over for that."""
        try:
            yield
        except OSError as error:
            self._unwritable_until = self._clock.seconds() + UNWRITABLE_TIME
            self._write_error = error.args
            raise


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    return iter(partial(file.read, BLOCK), b"")
