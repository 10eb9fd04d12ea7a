"""Cache entries of project pages: an LRU in memory over the page store on disk.

A :class:`PageEntry` is one *generation* of a project's page. It is *fresh*, *stale* (past its time
to live) or *invalidated* (revalidated before it is used, without validators). The entry that
:class:`PageEntries` has for the project is *current*. ``DELETE`` marks the file on disk, and then
makes another entry current, whose responses are invalidated. The one before is *superseded*: its
flights go on, and their results are for the requests that joined them, but they are neither written
to disk nor used for later requests. Memory evicts the least recently used entry, unless that is
*pinned* by work under way.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from shutil import rmtree

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from proxpi.index.client import IndexClient, IndexPage, IndexResponse, InThread, StoredResponse
from proxpi.index.page_store import DOCUMENT, PageStore, StoredPage
from proxpi.index.representations import Body, Lost, Representation, update
from proxpi.index.revalidation import Entry, invalidated, refreshes
from proxpi.simple.model import Listed
from proxpi.single_flight import Flights

#: Bytes of pages that are held in memory.
MEMORY = 16 * 1024 * 1024
#: Bytes that an entry is taken to cost beside its content, and each of its files.
OVERHEAD = 4096
FILE_OVERHEAD = 1024


@attrs.define(eq=False)
class PageEntry(Entry):
    """One generation of a project's page.

    :ivar renders: the flights that make a form of it
    :ivar stored: what of it is kept
    :ivar forms: the merged page, ready to be sent
    :ivar files: what it says of those files that were asked for
    :ivar wanted: the forms that are waited for
    :ivar cost: bytes
    """

    renders: Flights[Representation, Body] = attrs.field(kw_only=True)
    stored: StoredPage | None = None
    forms: dict[Representation, Body] = attrs.field(factory=dict)
    files: dict[str, Listed | None] = attrs.field(factory=dict)
    wanted: set[Representation] = attrs.field(factory=set)
    cost: int = 0

    @property
    def pinned(self) -> bool:
        """Whether work on it is under way."""
        flights = (self.refreshes, self.asks, self.renders)
        return bool(self.lock.locked) or any(each.under_way for each in flights)


@attrs.define(eq=False)
class PageEntries:
    """The current entries, by name of the project.

    :ivar store: where they are kept
    :ivar changed: is told of a project when what its entry says, or stands for, may be another
        than before; of ``None`` when that is so for all
    """

    _sources: Sequence[IndexClient]
    _clock: IReactorTime
    store: PageStore
    _in_thread: InThread
    changed: Callable[[str | None], None] = lambda _: None
    _entries: OrderedDict[str, PageEntry] = attrs.field(init=False, factory=OrderedDict)
    _cost: int = attrs.field(init=False, default=0)

    def get(self, name: str) -> PageEntry:
        """Give the current entry of a project; a new one if nothing is known of it."""
        entry = self._entries.get(name)
        if entry is None:
            entry = self._put(self._kept(name))
        self._entries.move_to_end(name)
        return entry

    def current(self, entry: PageEntry) -> bool:
        """Tell whether an entry is current; any thread may ask."""
        return self._entries.get(entry.name) is entry

    def invalidate(self, name: str) -> None:
        """
        Begin a new generation of a project's page, on disk and in memory.

        :raises OSError: if the disk does not let it; then nothing has changed
        """
        old = self.get(name)
        with self.store.lock:
            self.store.mark_invalid(name)
            new = self._new(
                name, invalidated(old.responses), old.stored and old.stored.invalidated()
            )
            new.failure, new.forced = old.failure, True
            self._put(new)

    def clear(self) -> Deferred[None]:
        """
        Forget all projects for good.

        :return: a Deferred of the end of it on disk; nothing of them is used from now on
        :raises OSError: if the disk does not let it; then nothing has changed
        """
        with self.store.lock:
            gone = self.store.clear()
            self._entries.clear()
            self._cost = 0
        self.changed(None)
        return self._in_thread(lambda: rmtree(gone, ignore_errors=True))

    def lose(self, entry: PageEntry) -> None:
        """Put another entry in the place of one whose file is gone or is not what it was."""
        if not self.current(entry):
            return
        found = self._kept(entry.name)
        if found.stored and entry.stored and found.stored.sections == entry.stored.sections:
            # Damaged, and maybe not to be removed; otherwise another process has put its own there.
            self.store.delete(entry.name)
            found = self._new(entry.name, [None] * len(self._sources))
        self._put(found)

    def body(self, entry: PageEntry, form: Representation) -> Body | None:
        """Give a form of a page if it has been made."""
        body = entry.forms.get(form)
        if body is None and entry.stored is not None and form.name in entry.stored.sections:
            found = entry.stored.read(form.name)
            if found is not None:
                body = Body(found[form.name], entry.stored.sections[form.name].digest)
                entry.forms[form] = body
                self.weigh(entry)
        return body

    async def take(
        self, entry: PageEntry, said: Mapping[IndexClient, IndexResponse[IndexPage]]
    ) -> None:
        """
        Take over what indexes said, and make the forms that are waited for.

        :raises Lost: if an index confirmed a page that is not there any more
        """
        async with entry.lock:
            responses, pages = [], {}
            for source, old in zip(self._sources, entry.responses, strict=True):
                new = said.get(source)
                # Of two flights the older one may come home later, or confirm what is replaced.
                if new is None or not new.supersedes(old):
                    responses.append(old)
                else:
                    responses.append(new.stored)
                    if new.content is not None:
                        pages[source.identity] = new.content
            wanted, entry.wanted = entry.wanted, set()
            await self._update(entry, responses, pages, wanted)
            self._changed(entry)

    async def render(self, entry: PageEntry, form: Representation) -> Body:
        """
        Make a form of a page that nobody wanted before.

        :raises Lost: if what was kept of the page is not there any more
        """
        async with entry.lock:
            await self._update(entry, entry.responses, {}, {form})
            if form not in entry.forms:  # no index has the project any more
                raise Lost(entry.name)
            self.weigh(entry)
            return entry.forms[form]

    async def suppress_metadata(self, entry: PageEntry, filename: str) -> None:
        """
        Advertise no core metadata of a file any more, until the page changes.

        :raises Lost: if what was kept of the page is not there any more
        """
        async with entry.lock:
            if entry.stored is not None:
                await self._update(entry, entry.responses, {}, (), filename)
                entry.forms.clear()
                self._changed(entry)

    async def _update(
        self,
        entry: PageEntry,
        responses: list[StoredResponse | None],
        pages: Mapping[str, IndexPage],
        wanted: Collection[Representation],
        suppress: str | None = None,
    ) -> None:
        """Store an entry with what has changed; see :func:`proxpi.index.representations.update`."""
        name, before, named = entry.name, entry.stored, self._named(responses)
        current = partial(self.current, entry)
        after, made = await self._in_thread(
            lambda: update(self.store, name, before, named, pages, wanted, suppress, current)
        )
        if before is None or after is None or before.documents != after.documents:
            entry.forms.clear()
            entry.files.clear()
        entry.responses, entry.stored = responses, after
        entry.forms = made | entry.forms

    def weigh(self, entry: PageEntry) -> None:
        """Count the bytes of an entry anew, and evict others to make room for them."""
        if not self.current(entry):
            return
        image = entry.stored.image if entry.stored is not None else None
        self._cost -= entry.cost
        entry.cost = (
            OVERHEAD
            + FILE_OVERHEAD * len(entry.files)
            + sum(len(body.data) for body in entry.forms.values())
            + len(image or b"")
        )
        self._cost += entry.cost
        for _ in range(len(self._entries) - 1):
            if self._cost <= MEMORY:
                break
            name, least = next(iter(self._entries.items()))
            if least is entry or least.pinned:
                self._entries.move_to_end(name)
            else:
                del self._entries[name]
                self._cost -= least.cost

    def _put(self, entry: PageEntry) -> PageEntry:
        """Make an entry current, in place of any other."""
        old = self._entries.pop(entry.name, None)
        self._entries[entry.name] = entry
        if old is not None:
            self._cost -= old.cost
            self.changed(entry.name)
        self.weigh(entry)
        return entry

    def _new(
        self, name: str, responses: list[StoredResponse | None], stored: StoredPage | None = None
    ) -> PageEntry:
        clock = self._clock
        flights, queue = refreshes(clock)
        return PageEntry(
            name, responses, flights, Flights(clock), queue, renders=Flights(clock), stored=stored
        )

    def _changed(self, entry: PageEntry) -> None:
        """Note that an entry says something else, or stands for something else, than before."""
        if self.current(entry):
            self.weigh(entry)
            self.changed(entry.name)

    def _named(self, responses: Sequence[StoredResponse | None]) -> dict[str, StoredResponse]:
        """Give what the indexes said by their identities, as it is kept."""
        return {
            source.identity: response
            for source, response in zip(self._sources, responses, strict=True)
            if response is not None
        }

    def _kept(self, name: str) -> PageEntry:
        """Read from disk what is known of a project."""
        stored = self.store.load(name)
        if stored is None:
            return self._new(name, [None] * len(self._sources))
        responses = [
            self._part(source, stored.responses, stored.documents) for source in self._sources
        ]
        if list(stored.responses) != [source.identity for source in self._sources]:
            # It was made of other indexes, or in another order of them.
            documents = {key: stored.sections[key] for key in stored.documents}
            stored = attrs.evolve(stored, sections=documents)
        return self._new(name, responses, stored)

    @staticmethod
    def _part(
        source: IndexClient, responses: Mapping[str, StoredResponse], documents: Mapping[str, str]
    ) -> StoredResponse | None:
        response = responses.get(source.identity)
        if (
            response is not None
            and response.present
            and DOCUMENT + source.identity not in documents
        ):
            return None
        return response
