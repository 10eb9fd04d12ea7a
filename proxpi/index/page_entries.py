"""The entries of the page cache: in memory, over the page store; all views share them.

A :class:`PageEntry` is one *generation* of what the indexes have responded for a project, with the
pages that are merged and rendered of that. The one in the cache is *current*. ``DELETE`` first
marks the file on disk as invalid, and then makes a new entry current, which is invalidated and
forced. The old entry is *superseded*: its flights serve the requests that joined them, and nothing
of it is stored. An entry is *pinned* while a flight or a write is under way; memory evicts the
least recently used entry that is not. An entry whose file is gone or damaged is *lost*: the next
one is what the file holds by then, or begins without a response.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from functools import partial
from shutil import rmtree

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from proxpi.index.index_response import IndexPage, StoredResponse
from proxpi.index.page_store import DOCUMENT, EXTRACTED, RULINGS, Extracted, PageStore, StoredPage
from proxpi.index.representations import (
    Body,
    Representation,
    StoredPageLost,
    advertise,
    find,
    follows,
    origins,
    read_extracted,
    read_rulings,
    update,
)
from proxpi.index.revalidation import Entry
from proxpi.index.sources import Index, Sources
from proxpi.problems import Problems
from proxpi.rules import Exclusions, Rules, states_times
from proxpi.simple import FileEntry, FileExcluded, ListedFile, model
from proxpi.single_flight import Flights, InThread

#: Bytes of pages that are held in memory.
MEMORY = 16 * 1024 * 1024
#: Bytes that an entry is taken to cost beside its content, each of its files, and each file that a
#: ruling excludes.
OVERHEAD, FILE_OVERHEAD, EXCLUSION_OVERHEAD = 4096, 1024, 384
#: Pages of indexes that are held as they were encoded: a client requests many files of one.
DOCUMENTS = 4
#: Names for which an entry remembers that the page does not list them.
MISSES = 1000


@attrs.define(eq=False)
class PageEntry(Entry):
    """One generation of a project's page, which takes `cost` bytes of memory.

    :ivar files: the files that clients requested, as the sources list them
    :ivar requested: the representations that clients wait for
    :ivar extracted: digests of extracted core metadata that are stored together, under the lock
    """

    stored: StoredPage | None = None
    renders: Flights[Representation, Body] = attrs.field(init=False)
    bodies: dict[Representation, Body] = attrs.field(init=False, factory=dict)
    files: dict[tuple[Sources, str], ListedFile | None] = attrs.field(init=False, factory=dict)
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
class PageEntries:
    """The entries of all projects, of the responses of `indexes`.

    `changed` is called with the project whose page or state may have changed; ``None``: all.
    `wall` gives the seconds since the epoch, for the rules.
    """

    indexes: Collection[Index]
    clock: IReactorTime
    wall: Callable[[], float]
    _store: PageStore
    in_thread: InThread
    problems: Problems
    rules: Rules
    _exclusions: Exclusions
    changed: Callable[[str | None], object] = lambda _: None
    _entries: OrderedDict[str, PageEntry] = attrs.field(init=False, factory=OrderedDict)
    _cost: int = attrs.field(init=False, default=0)
    _documents: dict[str, bytes] = attrs.field(init=False, factory=dict)

    def current(self, name: str) -> PageEntry:
        """Return the current entry of a project, from memory or from disk."""
        entry = self._entries.get(name) or self._put(self.load(name))
        self._entries.move_to_end(name)
        return entry

    def peek(self, name: str) -> PageEntry:
        """Return the same, and leave the memory as it is."""
        return self._entries.get(name) or self.load(name)

    def load(self, name: str) -> PageEntry:
        """Return an entry as it is on disk."""
        responses: dict[Index, StoredResponse] = {}
        if (stored := self._store.load(name)) is None:
            return PageEntry(name, self.clock, responses)
        for index in self.indexes:
            response = stored.responses.get(index.identity)
            lacks_page = DOCUMENT + index.identity not in stored.documents
            if response is not None and not (response.present and lacks_page):
                responses[index] = response
        return PageEntry(name, self.clock, responses, stored=stored)

    def origins(self, name: str, filenames: Collection[str]) -> Deferred[dict[str, str]]:
        """Return by file name the name of the first index whose stored page of a project has it."""
        if (stored := self.peek(name).stored) is None:
            return succeed({})
        return self.in_thread(partial(origins, stored, [*self.indexes], filenames))

    def replace(self, entry: PageEntry) -> None:
        """Replace an entry that is lost."""
        if not self._is_current(entry):
            return
        found = self.load(entry.name)
        if found.stored and entry.stored and found.stored.sections == entry.stored.sections:
            # Damaged, and maybe not to be removed; otherwise another process has written it.
            self._store.delete(entry.name)
            found = PageEntry(entry.name, self.clock, {})
        self._put(found)

    def invalidate(self, name: str) -> None:
        """Begin a new generation of a page; if the disk refuses (`OSError`), nothing changes."""
        old = self.current(name)
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
        return self.in_thread(lambda: rmtree(removed, ignore_errors=True))

    def rules_changed(self, names: Collection[str] | None) -> None:
        """Have the verdicts on the files of some projects, or of all, made anew."""
        for name in list(self._entries) if names is None else names:
            if (entry := self._entries.get(name)) is not None:
                entry.files.clear()
                self._account(entry)
            if names is not None:
                self.changed(name)
        if names is None:
            self.changed(None)

    def find_file(self, entry: PageEntry, filename: str, sources: Sources) -> ListedFile | None:
        """Return a file as a page of some sources lists it.

        :raises FileExcluded: if a rule excludes it
        :raises StoredPageLost: if the page is gone
        """
        key = sources, filename
        listed = entry.files.get(key)
        if key not in entry.files and entry.usable(sources):
            # The first index that offers the name has the file, as on the merged page.
            for index in sources:
                if not entry.responses[index].present:
                    continue
                document = self._document(entry, index)
                if (file := find(document, filename)) is not None:
                    self._require_allowed(entry.name, file, document, sources)
                    stated = advertise(file, self._extracted(entry))
                    private, extracted = index.guards(file["url"]), stated is not file
                    listed = ListedFile(stated, private, entry.name, extracted, index.name)
                    break
            if listed is not None or len(entry.files) < MISSES:
                entry.files[key] = listed
                self._account(entry)
        return listed

    def _require_allowed(
        self, name: str, file: FileEntry, document: bytes, sources: Sources
    ) -> None:
        if (rules := self.rules.of(name)) is None:
            return
        times = b'"upload-time":' in document
        if times and "upload-time" not in file:  # the key may be one within an unknown value
            times = states_times(model.decode(document))
        exclusion = rules.judge(file, self.wall(), times=times)
        if exclusion is not None:
            self._exclusions.add(name, file["filename"], exclusion, sources.key)
            raise FileExcluded(file["filename"], exclusion.rule, exclusion.available)

    def read_body(self, entry: PageEntry, representation: Representation) -> Body | None:
        """Return a representation that was rendered by the rules of now, if there is one."""
        rules = self.rules.of(entry.name)
        body = entry.bodies.get(representation) or self._load_body(entry, representation)
        if body is None or (rules is None and body.ruling is None):
            return body
        return body if follows(body.ruling, rules, self.wall()) else None

    def _load_body(self, entry: PageEntry, representation: Representation) -> Body | None:
        stored, name = entry.stored, representation.name
        if stored is None or name not in stored.sections:
            return None
        rulings = [RULINGS] if RULINGS in stored.sections else []
        if (found := stored.read(name, *rulings)) is None:
            return None
        ruling = read_rulings(found).get(representation.sources.key)
        if ruling is not None:
            self._exclusions.note(entry.name, ruling.excluded, representation.sources.key)
        body = Body(found[name], stored.sections[name].digest, ruling)
        entry.bodies[representation] = body
        self._account(entry)
        return body

    async def render(self, entry: PageEntry, representation: Representation) -> Body:
        """Render a representation that was not requested before, or raise `StoredPageLost`."""
        async with entry.lock:
            await self.update(entry, entry.responses, {}, {representation})
            if representation not in entry.bodies:  # no source has the project any more
                raise StoredPageLost(entry.name)
            self._account(entry)
            return entry.bodies[representation]

    async def store_responses(
        self,
        entry: PageEntry,
        responses: dict[Index, StoredResponse],
        pages: Mapping[Index, IndexPage],
    ) -> None:
        """Store the responses of indexes, and render what clients have requested."""
        requested, entry.requested = entry.requested, set()
        await self.update(entry, responses, pages, requested)
        self._changed(entry)

    async def amend(self, entry: PageEntry, suppress: str | None = None) -> None:
        """Let a page advertise other core metadata than its indexes state."""
        try:
            async with entry.lock:
                extract, entry.extracted = entry.extracted, {}
                if entry.stored is not None and (suppress is not None or extract):
                    await self.update(entry, entry.responses, {}, (), suppress, extract)
                    self._changed(entry)
        except StoredPageLost:
            self.replace(entry)

    async def update(
        self,
        entry: PageEntry,
        responses: dict[Index, StoredResponse],
        pages: Mapping[Index, IndexPage],
        requested: Collection[Representation],
        suppress: str | None = None,
        extract: Extracted | None = None,
    ) -> None:
        """Store and render an entry, which is locked; see `representations.update`."""
        before = entry.stored
        work = partial(
            update,
            self._store,
            entry.name,
            before=before,
            responses={index.identity: each for index, each in responses.items()},
            pages={index.identity: page for index, page in pages.items()},
            requested=requested,
            suppress=suppress,
            extract=extract or {},
            rules=self.rules.of(entry.name),
            now=self.wall(),
            current=partial(self._is_current, entry),
        )
        after, rendered = await self.in_thread(work)
        if before is None or after is None or before.sources != after.sources:
            entry.bodies.clear()
            entry.files.clear()
        entry.responses, entry.stored = responses, after
        for representation, body in rendered.items():
            old = entry.bodies.get(representation)
            if old is None or (old.etag, old.ruling) != (body.etag, body.ruling):
                entry.bodies[representation] = body
            excluded = body.ruling.excluded if body.ruling is not None else {}
            self._exclusions.note(entry.name, excluded, representation.sources.key)

    def _extracted(self, entry: PageEntry) -> Extracted:
        """Return the core metadata that was extracted, or raise `StoredPageLost`."""
        stored = entry.stored
        if stored is None or EXTRACTED not in stored.sections:
            return {}
        if (found := stored.read(EXTRACTED)) is None:
            raise StoredPageLost(entry.name)
        return read_extracted(found)

    def _document(self, entry: PageEntry, index: Index) -> bytes:
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

    def _is_current(self, entry: PageEntry) -> bool:
        return self._entries.get(entry.name) is entry

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
        rulings = {id(body.ruling): body.ruling for body in entry.bodies.values() if body.ruling}
        excluded = sum(len(ruling.excluded) for ruling in rulings.values())
        self._cost -= entry.cost
        entry.cost = OVERHEAD + FILE_OVERHEAD * len(entry.files) + content
        entry.cost += EXCLUSION_OVERHEAD * excluded
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
