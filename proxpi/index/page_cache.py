"""The page cache: entries of project pages in memory, over the page store, kept by revalidation.

A :class:`PageEntry` is one *generation* of a project's page. The one in the cache is *current*.
``DELETE`` first marks the file on disk as invalid, and then makes a new entry current, which is
invalidated and forced. The old entry is *superseded*: its flights serve the requests that joined
them, and nothing of it is stored. An entry is *pinned* while a flight or a write is under way;
memory evicts the least recently used entry that is not. An entry whose file is gone or damaged is
*lost*: the next one is what the file holds by then, or begins without a response.

While an index fails, its last response counts, however old. Without one there is no page: a merge
that lacks an index could send a client to the wrong file of the right name.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from shutil import rmtree
from typing import TypeVar

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from proxpi.index.client import SMALL, IndexClient, IndexPage, IndexResponse, StoredResponse
from proxpi.index.page_store import DOCUMENT, EXTRACTED, Extracted, PageStore, StoredPage
from proxpi.index.representations import (
    Body,
    Representation,
    StoredPageLost,
    advertise,
    find,
    read_extracted,
    search,
    update,
)
from proxpi.index.revalidation import Decision, Entry, Outcome, Revalidation, Status, Targets
from proxpi.simple import ListedFile, NotListed, Serialization
from proxpi.single_flight import Flights, InThread
from proxpi.upstream import UpstreamFailed

#: Bytes of pages that are held in memory.
MEMORY = 16 * 1024 * 1024
#: Bytes that an entry is taken to cost beside its content, and each of its files.
OVERHEAD, FILE_OVERHEAD = 4096, 1024
#: Pages of indexes that are held as they were encoded: a client requests many files of one.
DOCUMENTS = 4
#: Seconds for which a page is too young to be revalidated for a file that it does not list.
MIN_REFETCH_AGE = 5.0
#: Names for which an entry remembers that the page does not list them.
MISSES = 1000
#: How often one request revalidates an entry because the one before was lost.
MAX_RELOADS = 5

T = TypeVar("T")


class NoSuchProject(NotListed):
    """No index has a project of this name."""


class NoSuchFile(NotListed):
    """No index lists a file of this name for the project."""


@attrs.frozen
class Page:
    """A page as it is sent: fresh for `remaining` seconds, confirmed `age` seconds ago."""

    body: Body
    status: Status
    remaining: float
    age: float


@attrs.define(eq=False)
class PageEntry(Entry):
    """One generation of a project's page, which takes `cost` bytes of memory.

    :ivar files: the files that clients requested, as it lists them
    :ivar requested: the representations that clients wait for
    :ivar extracted: digests of extracted core metadata that are stored together, under the lock
    """

    stored: StoredPage | None = None
    renders: Flights[Representation, Body] = attrs.field(init=False)
    bodies: dict[Representation, Body] = attrs.field(init=False, factory=dict)
    files: dict[str, ListedFile | None] = attrs.field(init=False, factory=dict)
    requested: set[Representation] = attrs.field(init=False, factory=set)
    extracted: Extracted = attrs.field(init=False, factory=dict)
    cost: int = attrs.field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.renders = Flights(self.clock)

    @property
    def pinned(self) -> bool:
        """Whether a flight or a write is under way."""
        flights = (self.revalidations, self.requests, self.renders)
        return bool(self.lock.locked) or any(each.under_way for each in flights)


@attrs.define(eq=False, kw_only=True)
class PageCache:
    """The project pages of all indexes together.

    `changed` is called with the project whose page or state may have changed; ``None``: all.
    """

    _indexes: Sequence[IndexClient]
    _clock: IReactorTime
    _store: PageStore
    _in_thread: InThread
    changed: Callable[[str | None], object] = lambda _: None
    _entries: OrderedDict[str, PageEntry] = attrs.field(init=False, factory=OrderedDict)
    _cost: int = attrs.field(init=False, default=0)
    _documents: dict[str, bytes] = attrs.field(init=False, factory=dict)
    _revalidation: Revalidation[PageEntry] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._revalidation = Revalidation(
            self._indexes, self._clock, _request, self._store_responses
        )

    def ready(self, name: str, serialization: Serialization, compressed: bool) -> Page | None:
        """Return the rendered page without waiting.

        It is a fresh one, or a stale one while all breakers of its stale indexes are open.

        :param name: the normalized name of the project
        :raises NoSuchProject: if it is known that there is none
        """
        entry = self._current(name)
        remaining = self._revalidation.remaining(entry)  # first: most pages are fresh
        if remaining <= 0 and self._revalidation.decide(entry) is not Decision.STALE:
            return None
        if not entry.present:
            raise NoSuchProject(name)
        body = self._read_body(entry, Representation(serialization, compressed))
        status: Status = "HIT" if remaining > 0 else "STALE"
        return Page(body, status, remaining, entry.age) if body is not None else None

    async def fetch(self, name: str, serialization: Serialization, compressed: bool) -> Page:
        """Return a page, revalidated if need be.

        :raises NoSuchProject: if no index has it
        :raises UpstreamFailed: if an index failed, and there is no page to fall back on
        """
        representation = Representation(serialization, compressed)

        async def body_of(entry: PageEntry) -> Body:
            if not entry.present:
                raise NoSuchProject(name)
            if (body := self._read_body(entry, representation)) is not None:
                return body
            render = partial(self._render, entry, representation)
            return await entry.renders.join(representation, render).wait()

        entry, outcome, body = await self._with_entry(name, body_of, requested=representation)
        remaining = 0.0 if outcome.status == "STALE" else self._revalidation.remaining(entry)
        return Page(body, outcome.status, remaining, entry.age)

    def ready_file(self, name: str, filename: str) -> ListedFile | None:
        """Return a file as the page in the cache lists it; the page may be stale."""
        entry = self._current(name)
        if any(response is not None and response.invalidated for response in entry.responses):
            return None
        try:
            return self._listed(entry, filename)
        except StoredPageLost:
            self._reload(entry)
            return None

    async def fetch_file(self, name: str, filename: str) -> ListedFile:
        """Return a file as the page lists it; for an unknown one, the page is revalidated.

        :raises NoSuchProject: if no index has the project
        :raises NoSuchFile: if no index lists the file
        """
        entry, outcome, listed = await self._look_up(name, filename)
        if listed is None and entry.age > MIN_REFETCH_AGE:
            # A release may be younger than the page.
            entry, outcome, listed = await self._look_up(name, filename, "all")
        if listed is not None:
            return listed
        if outcome.error is not None:
            raise outcome.error
        raise NoSuchFile(filename) if entry.present else NoSuchProject(name)

    async def refetch_file(self, name: str, filename: str) -> ListedFile | None:
        """Revalidate a page, fresh or not, and return a file as it lists it."""
        _, outcome, listed = await self._look_up(name, filename, "all")
        if outcome.error is not None:
            raise outcome.error
        return listed

    def is_fresh(self, name: str) -> bool:
        """Whether a project's page, or its absence, needs no revalidation."""
        return self._revalidation.remaining(self._peek(name)) > 0

    def digests(self, name: str) -> frozenset[str]:
        """Return the digests of the indexes' pages for a project, fresh or not; none: no page."""
        stored = self._peek(name).stored
        return frozenset(stored.documents.values()) if stored is not None else frozenset()

    async def prefetch(
        self, name: str, serialization: Serialization, compressed: bool
    ) -> int | None:
        """Revalidate a page in the background, and render a representation of it.

        No request is sent for a fresh page, offline, or while a stale index fails. A client's
        request joins the flight and lifts it: it is then the same as any other.

        :return: bytes that this call's own flight has brought, once it has landed; ``None``: it
            sent no request
        """
        if not self._revalidation.may_prefetch(self._peek(name)):
            return None
        entry = self._current(name)
        entry.requested.add(Representation(serialization, compressed))
        try:
            return await self._revalidation.prefetch(entry)
        except StoredPageLost:
            self._reload(entry)
            return 0

    async def search(self, name: str, find: Callable[[Sequence[bytes]], T]) -> T | None:
        """Return the result of a function of a project's pages, which may be stale.

        :param find: is called with the encoded pages (:func:`proxpi.simple.model.encode`) of the
            indexes that have the project, in order of precedence, without quarantined ones; in a
            thread, unless the pages are small
        :return: ``None`` if there is no page
        """
        for load in (self._peek, self._load):
            entry = load(name)
            if not entry.usable or entry.stored is None:
                break
            pairs = zip(self._indexes, entry.responses, strict=True)
            present = [index for index, each in pairs if each is not None and each.present]
            sections = [DOCUMENT + index.identity for index in present]
            work = partial(search, entry.stored, sections, find)
            small = sum(entry.stored.sections[each].size for each in sections) <= SMALL.size
            try:
                return work() if small else await self._in_thread(work)
            except StoredPageLost:
                continue  # it may have been stored anew meanwhile: load what the file holds now
        return None

    async def suppress_metadata(self, name: str, filename: str) -> None:
        """Advertise no core metadata of a file any more, until the page changes."""
        await self._amend(self._current(name), filename)

    async def advertise_metadata(self, name: str, filename: str, wheel: str, metadata: str) -> None:
        """Advertise the core metadata of a wheel wherever its index states none.

        :param wheel: the sha256 of the wheel, and `metadata`: that of the core metadata in it
        """
        entry = self._current(name)
        entry.extracted[filename] = wheel, metadata
        await self._amend(entry)

    async def _amend(self, entry: PageEntry, suppress: str | None = None) -> None:
        """Let a page advertise other core metadata than its indexes state."""
        try:
            async with entry.lock:
                extract, entry.extracted = entry.extracted, {}
                if entry.stored is not None and (suppress is not None or extract):
                    await self._update(entry, entry.responses, {}, (), suppress, extract)
                    self._changed(entry)
        except StoredPageLost:
            self._reload(entry)

    def invalidate(self, name: str) -> None:
        """Begin a new generation of a page; if the disk refuses (`OSError`), nothing changes."""
        old = self._current(name)
        with self._store.lock:
            self._store.mark_invalid(name)
            stored, responses = old.stored and old.stored.invalidated(), old.invalidated_responses()
            self._put(attrs.evolve(old, responses=responses, forced=True, stored=stored))

    def clear(self) -> Deferred[None]:
        """Remove all pages for good; if the disk refuses (`OSError`), nothing changes.

        The Deferred fires when their files are removed; they are not used from now on.
        """
        with self._store.lock:
            removed = self._store.clear()
            self._entries.clear()
            self._cost = 0
        self.changed(None)
        return self._in_thread(lambda: rmtree(removed, ignore_errors=True))

    async def _with_entry(
        self,
        name: str,
        use: Callable[[PageEntry], Awaitable[T]],
        targets: Targets = "stale",
        requested: Representation | None = None,
    ) -> tuple[PageEntry, Outcome, T]:
        """Revalidate an entry, and use it; it may be superseded by then.

        :param requested: a representation to render together with a new page
        :raises UpstreamFailed: also if entry after entry is lost
        """
        for _ in range(MAX_RELOADS):
            entry = self._current(name)
            if requested is not None and self._revalidation.remaining(entry) <= 0:
                entry.requested.add(requested)
            try:
                outcome = await self._revalidation.revalidate(entry, targets)
                return entry, outcome, await use(entry)
            except StoredPageLost:
                self._reload(entry)
        raise UpstreamFailed(self._indexes[0].url, "its page cannot be read from disk")

    async def _look_up(
        self, name: str, filename: str, targets: Targets = "stale"
    ) -> tuple[PageEntry, Outcome, ListedFile | None]:
        return await self._with_entry(
            name, lambda entry: succeed(self._listed(entry, filename)), targets
        )

    def _listed(self, entry: PageEntry, filename: str) -> ListedFile | None:
        """Return a file as a page lists it, or raise `StoredPageLost`."""
        listed = entry.files.get(filename)
        if filename not in entry.files and entry.usable:
            # The first index that offers the name has the file, as on the merged page.
            for index, response in zip(self._indexes, entry.responses, strict=True):
                present = response is not None and response.present
                if present and (file := find(self._document(entry, index), filename)) is not None:
                    stated = advertise(file, self._extracted(entry))
                    private, extracted = index.guards(file["url"]), stated is not file
                    listed = ListedFile(stated, private, entry.name, extracted)
                    break
            if listed is not None or len(entry.files) < MISSES:
                entry.files[filename] = listed
                self._account(entry)
        return listed

    def _extracted(self, entry: PageEntry) -> Extracted:
        """Return the core metadata that was extracted, or raise `StoredPageLost`."""
        stored = entry.stored
        if stored is None or EXTRACTED not in stored.sections:
            return {}
        if (found := stored.read(EXTRACTED)) is None:
            raise StoredPageLost(entry.name)
        return read_extracted(found)

    def _document(self, entry: PageEntry, index: IndexClient) -> bytes:
        """Return the encoded page of an index, slowly if it is large, or raise `StoredPageLost`."""
        section, stored = DOCUMENT + index.identity, entry.stored
        if stored is None or section not in stored.sections:
            raise StoredPageLost(entry.name)
        digest = stored.sections[section].digest
        if digest not in self._documents:
            if (found := stored.read(section)) is None:
                raise StoredPageLost(entry.name)
            if len(self._documents) >= DOCUMENTS:
                del self._documents[next(iter(self._documents))]
            self._documents[digest] = found[section]
        return self._documents[digest]

    def _read_body(self, entry: PageEntry, representation: Representation) -> Body | None:
        """Return a representation that was rendered, from memory or from disk."""
        if (body := entry.bodies.get(representation)) is not None:
            return body
        stored, name = entry.stored, representation.name
        if stored is None or name not in stored.sections or (found := stored.read(name)) is None:
            return None
        body = entry.bodies[representation] = Body(found[name], stored.sections[name].digest)
        self._account(entry)
        return body

    async def _render(self, entry: PageEntry, representation: Representation) -> Body:
        """Render a representation that was not requested before, or raise `StoredPageLost`."""
        async with entry.lock:
            await self._update(entry, entry.responses, {}, {representation})
            if representation not in entry.bodies:  # no index has the project any more
                raise StoredPageLost(entry.name)
            self._account(entry)
            return entry.bodies[representation]

    async def _store_responses(
        self,
        entry: PageEntry,
        responses: list[StoredResponse | None],
        pages: Mapping[IndexClient, IndexPage],
    ) -> None:
        requested, entry.requested = entry.requested, set()
        await self._update(entry, responses, pages, requested)
        self._changed(entry)

    async def _update(
        self,
        entry: PageEntry,
        responses: list[StoredResponse | None],
        pages: Mapping[IndexClient, IndexPage],
        requested: Collection[Representation],
        suppress: str | None = None,
        extract: Extracted | None = None,
    ) -> None:
        before = entry.stored
        pairs = zip(self._indexes, responses, strict=True)
        work = partial(
            update,
            self._store,
            entry.name,
            before=before,
            responses={index.identity: each for index, each in pairs if each is not None},
            pages={index.identity: page for index, page in pages.items()},
            requested=requested,
            suppress=suppress,
            extract=extract or {},
            current=partial(self._is_current, entry),
        )
        after, rendered = await self._in_thread(work)
        if before is None or after is None or before.sources != after.sources:
            entry.bodies.clear()
            entry.files.clear()
        entry.responses, entry.stored = responses, after
        entry.bodies = rendered | entry.bodies

    def _is_current(self, entry: PageEntry) -> bool:
        return self._entries.get(entry.name) is entry

    def _current(self, name: str) -> PageEntry:
        """Return the current entry of a project, from memory or from disk."""
        entry = self._entries.get(name) or self._put(self._load(name))
        self._entries.move_to_end(name)
        return entry

    def _peek(self, name: str) -> PageEntry:
        """Return the same, and leave the memory as it is."""
        return self._entries.get(name) or self._load(name)

    def _load(self, name: str) -> PageEntry:
        stored = self._store.load(name)
        if stored is None:
            return PageEntry(name, self._clock, [None] * len(self._indexes))
        responses = []
        for index in self._indexes:
            response = stored.responses.get(index.identity)
            lacks_page = DOCUMENT + index.identity not in stored.documents
            responses.append(None if response and response.present and lacks_page else response)
        if list(stored.responses) != [index.identity for index in self._indexes]:
            # It was rendered for other indexes, or for another order of them.
            stored = stored.without_representations()
        return PageEntry(name, self._clock, responses, stored=stored)

    def _reload(self, entry: PageEntry) -> None:
        """Replace an entry that is lost."""
        if not self._is_current(entry):
            return
        found = self._load(entry.name)
        if found.stored and entry.stored and found.stored.sections == entry.stored.sections:
            # Damaged, and maybe not to be removed; otherwise another process has written it.
            self._store.delete(entry.name)
            found = PageEntry(entry.name, self._clock, [None] * len(self._indexes))
        self._put(found)

    def _put(self, entry: PageEntry) -> PageEntry:
        """Make an entry current."""
        old = self._entries.pop(entry.name, None)
        self._entries[entry.name] = entry
        if old is not None:
            self._cost -= old.cost
            self.changed(entry.name)
        self._account(entry)
        return entry

    def _changed(self, entry: PageEntry) -> None:
        if self._is_current(entry):
            self._account(entry)
            self.changed(entry.name)

    def _account(self, entry: PageEntry) -> None:
        """Count the bytes of an entry anew, and evict others."""
        if not self._is_current(entry):
            return
        image = entry.stored.image if entry.stored is not None else None
        content = sum(len(body.data) for body in entry.bodies.values()) + len(image or b"")
        self._cost -= entry.cost
        entry.cost = OVERHEAD + FILE_OVERHEAD * len(entry.files) + content
        self._cost += entry.cost
        for _ in range(len(self._entries) - 1):
            if self._cost <= MEMORY:
                return
            name, least = next(iter(self._entries.items()))
            if least is entry or least.pinned:
                self._entries.move_to_end(name)
            else:
                del self._entries[name]
                self._cost -= least.cost


async def _request(
    index: IndexClient, entry: PageEntry, stored: StoredResponse | None
) -> IndexResponse[IndexPage]:
    return await index.project(entry.name, stored, entry.progress.add, entry.queue)
