"""The project list of all indexes, as a resource: fresh, stale, or due, and single flights for it.

The public list has several hundred thousand names and tens of megabytes, so none of it is held in
memory. What an index sends goes into a file, from which a thread takes the names into another
(:mod:`proxpi.index.list_parser`); those of several indexes are merged, and a representation is
rendered of them the first time that a client asks for it (:mod:`proxpi.index.list_store`).

A :class:`ListEntry` is one *generation* of the list. It is *fresh*, *stale* (past its time to
live) or *due* (invalidated), as its responses tell, and is revalidated as a page is
(:mod:`proxpi.index.revalidation`). The *current* one is read from disk for the first request; what
indexes say is kept there (:mod:`proxpi.index.list_store`). ``DELETE`` makes another one current, on
disk first. The one before is then *superseded*: its flights serve those who joined them, and
nothing of it is kept. An index that failed keeps its last response; a list without that of an index
that never said anything would be a lie, so there is none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from shutil import rmtree
from typing import IO, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxpi.index import list_store
from proxpi.index.client import (
    IndexClient,
    IndexResponse,
    InThread,
    StoredResponse,
    log_skipped_links,
)
from proxpi.index.list_parser import BLOCK, project_names
from proxpi.index.list_store import ListFile, ListStore, Representation
from proxpi.index.revalidation import Decision, Entry, Revalidation, Status
from proxpi.simple.model import NotListed, SkippedLinks
from proxpi.simple.negotiate import Serialization
from proxpi.simple.parse import NotAnIndexPage
from proxpi.single_flight import Flights
from proxpi.upstream.client import UpstreamClient
from proxpi.upstream.errors import (
    BodyTooLong,
    BodyTruncated,
    BodyUndecodable,
    UpstreamFailed,
    upstream_failed,
)
from proxpi.upstream.response import Decoder, Response

#: The list, as entries and circuit breakers name it.
ROOT = ""
#: Seconds that a list may take to come, however steadily it comes.
LIST_TIME = 300.0
#: Seconds for which no list is fetched after one could not be written.
FULL = 60.0

T = TypeVar("T")
_log = Logger(namespace="proxpi.index")


class NoSuchList(NotListed):
    """No index has a list of its projects."""


@attrs.frozen
class ProjectList:
    """The list as it is to be sent; see :class:`proxpi.index.page_cache.Page`."""

    file: ListFile
    status: Status
    remaining: float
    age: float


@attrs.define(eq=False)
class ListEntry(Entry):
    """One generation of the list.

    :ivar renders: the flights that render it, by the digest of its names
    :ivar lists: the names of each index that has a list
    :ivar names: those of all indexes, if all have said something and one of them has a list
    :ivar representations: the list as it was sent
    """

    renders: Flights[tuple[str, Representation], ListFile] = attrs.field(init=False)
    lists: dict[IndexClient, ListFile] = attrs.field(factory=dict)
    names: ListFile | None = None
    representations: dict[Representation, ListFile] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.renders = Flights(self.clock)


@attrs.define(eq=False)
class Projects:
    """The project list of all indexes together."""

    _sources: Sequence[IndexClient]
    _upstream: UpstreamClient
    _clock: IReactorTime
    _store: ListStore
    _in_thread: InThread
    _revalidation: Revalidation[ListEntry] = attrs.field(init=False)
    _entry: ListEntry | None = attrs.field(init=False, default=None)
    _loads: Flights[None, None] = attrs.field(init=False)
    # Whether the list is to be asked for again although it was not read from disk yet.
    _invalidated: bool = attrs.field(init=False, default=False)
    # Why a list could not be written, and until when none is fetched.
    _full: tuple[tuple[int | None, str | None], float] | None = attrs.field(
        init=False, default=None
    )

    def __attrs_post_init__(self) -> None:
        self._revalidation = Revalidation(self._sources, self._clock, self._ask, self._take)
        self._loads = Flights(self._clock)

    def ready(self, serialization: Serialization, compressed: bool) -> ProjectList | None:
        """Give the list without waiting: a fresh one, or a stale one where waiting is of no use."""
        entry = self._entry
        if entry is None:
            return None
        file = entry.representations.get((serialization, compressed))
        if file is None:
            return None
        decision = self._revalidation.decide(entry)
        if decision is Decision.FRESH:
            return self._list(entry, file, "HIT")
        return self._list(entry, file, "STALE") if decision is Decision.STALE else None

    async def fetch(self, serialization: Serialization, compressed: bool) -> ProjectList:
        """
        Give the list, asking the indexes for it if need be.

        :raises NoSuchList: if none of them has one
        :raises UpstreamFailed: if one of them failed and there is nothing to fall back on
        :raises OSError: the same, if it cannot be written
        """
        if self._entry is None:
            await self._loads.join(None, self._load).wait()
        entry = self._entry
        assert entry is not None  # it was read, or replaced meanwhile
        status: Status = "HIT"
        if self._revalidation.remaining(entry) <= 0:
            status = await self._revalidate(entry)
        names, representation = entry.names, (serialization, compressed)
        if names is None:
            raise NoSuchList()
        file = entry.representations.get(representation)
        if file is None:
            render = partial(self._render, entry, names, representation)
            file = await entry.renders.join((names.digest, representation), render).wait()
        return self._list(entry, file, status)

    def invalidate(self) -> None:
        """
        Ask for the list again before it is used again, except in an outage.

        :raises OSError: if that would not outlive the process; then nothing has changed
        """
        with self._store.lock:
            self._store.invalidate()
            old, self._full = self._entry, None
            self._invalidated = True
            if old is not None:
                self._entry = entry = self._new(old.invalidated_responses())
                entry.lists, entry.names = old.lists, old.names
                entry.representations = dict(old.representations)
                entry.forced = True

    def clear(self) -> Deferred[None]:
        """
        Forget the list for good.

        :return: a Deferred of its end on disk; nothing of it is used from now on
        :raises OSError: if the disk does not let it; then nothing has changed
        """
        with self._store.lock:
            gone = self._store.clear()
            self._entry = self._new([None] * len(self._sources))
        return self._in_thread(lambda: rmtree(gone, ignore_errors=True))

    def _new(self, responses: list[StoredResponse | None]) -> ListEntry:
        return ListEntry(ROOT, self._clock, responses)

    def _list(self, entry: ListEntry, file: ListFile, status: Status) -> ProjectList:
        remaining = 0.0 if status == "STALE" else self._revalidation.remaining(entry)
        return ProjectList(file, status, remaining, entry.age)

    async def _load(self) -> None:
        """Read what an earlier process kept."""
        identities = [source.identity for source in self._sources]
        kept = await self._in_thread(lambda: self._store.load(identities))
        entry = self._new([])
        for source in self._sources:
            stored, names = kept.get(source.identity, (None, None))
            entry.responses.append(stored)
            if names is not None:
                entry.lists[source] = names
        entry.names = await self._merged(entry.responses, entry.lists)
        if self._invalidated:
            entry.responses, entry.forced = entry.invalidated_responses(), True
        if self._entry is None:  # otherwise all was removed meanwhile
            self._entry = entry

    async def _revalidate(self, entry: ListEntry) -> Status:
        if self._full is not None and self._clock.seconds() < self._full[1]:
            if entry.usable:
                return "STALE"
            raise OSError(*self._full[0])
        return (await self._revalidation.revalidate(entry)).status

    async def _writing(self, work: Deferred[T]) -> T:
        """Note it if something cannot be written: a list is not fetched over and over for that."""
        try:
            return await work
        except OSError as error:
            self._full = (error.errno, error.strerror), self._clock.seconds() + FULL
            raise

    async def _ask(
        self, source: IndexClient, entry: ListEntry, stored: StoredResponse | None
    ) -> IndexResponse[ListFile]:
        def read(response: Response) -> Awaitable[ListFile]:
            receiving = self._receive(source, response, entry.progress.add)
            return self._writing(Deferred.fromCoroutine(receiving))

        return await source.fetch(
            source.url,
            stored,
            read,
            on_bytes=entry.progress.add,
            queue=entry.queue,
            # A list that was there does not go away; some hosts hide it from old credentials.
            may_be_absent=not (source.private and stored is not None and stored.served),
        )

    async def _receive(
        self, source: IndexClient, answer: Response, heard: Callable[[int], object]
    ) -> ListFile:
        """
        Give the names in an answer.

        :raises UpstreamFailed: if it is no list, or does not come whole
        """
        if "v2+" in (answer.header("Content-Type") or "").lower():
            cause = "it is written in version 2 of the API, which is not known here"
            raise UpstreamFailed(answer.url, cause, temporary=False)
        announced, skipped = True, SkippedLinks()
        with self._store.temporary() as body:

            def write(chunk: bytes) -> None:
                heard(len(chunk))
                body.write(chunk)

            announced = await self._upstream.stream(
                answer, write, self._upstream.list_limit, LIST_TIME
            )
            try:
                names = await source.in_thread(
                    lambda: self._names(body, answer, announced, skipped)
                )
            except NotAnIndexPage as error:
                # An end that nobody announced may have been none.
                raise UpstreamFailed(answer.url, error.reason, temporary=not announced) from error
            except (BodyTruncated, BodyUndecodable, BodyTooLong) as error:
                raise upstream_failed(answer.url, Failure(error)) from error
        log_skipped_links(answer.url, skipped, "project")
        return names

    def _names(
        self, body: IO[bytes], answer: Response, announced: bool, skipped: SkippedLinks
    ) -> ListFile:
        """Decode and parse a body, in a thread."""
        if not answer.codings:
            return self._store.write(project_names(_blocks(body), announced, skipped))
        with self._store.temporary() as decoded:
            decoder = Decoder(answer.codings, decoded.write, self._upstream.list_limit)
            for block in _blocks(body):
                decoder.write(block)
            if not decoder.ended:
                raise BodyTruncated()
            return self._store.write(project_names(_blocks(decoded), True, skipped))

    async def _take(
        self,
        entry: ListEntry,
        responses: list[StoredResponse | None],
        new: Mapping[IndexClient, ListFile],
    ) -> None:
        """Take over what indexes sent, and keep it if the entry is current."""
        lists, kept = {}, []
        for source, old, response in zip(self._sources, entry.responses, responses, strict=True):
            names = new.get(source, entry.lists.get(source))
            if response is not None and response.present and names is not None:
                lists[source] = names
            if response is not None and response is not old:
                kept.append((source.identity, response, lists.get(source)))
        names = await self._merged(responses, lists, entry)
        if names is None or entry.names is None or names.digest != entry.names.digest:
            entry.representations = {}
        entry.responses, entry.lists, entry.names = responses, lists, names
        await self._in_thread(lambda: self._keep(entry, kept))

    def _keep(
        self, entry: ListEntry, kept: Sequence[tuple[str, StoredResponse, ListFile | None]]
    ) -> None:
        try:
            for identity, stored, names in kept:
                self._store.save(identity, stored, names, lambda: self._entry is entry)
        except OSError as error:
            _log.error("the project list cannot be kept: {error}", error=error)

    async def _merged(
        self,
        responses: Sequence[StoredResponse | None],
        lists: Mapping[IndexClient, ListFile],
        before: ListEntry | None = None,
    ) -> ListFile | None:
        """Give the names of all indexes, if all have said something and one of them has a list."""
        known = [lists[source] for source in self._sources if source in lists]
        if not known or None in responses:
            return None
        if len(responses) == 1:
            return known[0]
        if before is not None and before.names is not None and before.lists == lists:
            return before.names
        return await self._writing(self._in_thread(lambda: list_store.merge(known, self._store)))

    async def _render(
        self, entry: ListEntry, names: ListFile, representation: Representation
    ) -> ListFile:
        pieces = list_store.render(names, representation)
        file = await self._writing(self._in_thread(lambda: self._store.write(pieces)))
        if entry.names is not None and entry.names.digest == names.digest:
            entry.representations[representation] = file
        return file


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    return iter(partial(file.read, BLOCK), b"")
