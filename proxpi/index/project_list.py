"""The project list: names of all indexes of a view, revalidated as a page is, in files.

The public list has several hundred thousand names and tens of megabytes, so it is never held in
memory. A response goes into a file; a thread parses that into a file of names, and merges the names
of several indexes; a representation is rendered when the first client requests it. All views share
the names of each index.

The lists are *unloaded* until the first request has read the entries on disk; a ``DELETE``
meanwhile is remembered. A :class:`ListEntry` is one *generation*, as that of a page, and is served
stale by the same rules. After a failed write the list is *unwritable* for :data:`UNWRITABLE_TIME`
seconds: nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from shutil import rmtree

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from proxpi.index import list_store
from proxpi.index.index_response import IndexResponse, StoredResponse
from proxpi.index.list_store import ListFile, ListStore
from proxpi.index.representations import Representation
from proxpi.index.revalidation import Decision, Entry, Revalidation, Status, Targets
from proxpi.index.sources import Index, View
from proxpi.problems import Problems
from proxpi.simple import NotListed, Serialization
from proxpi.single_flight import Flights, InThread

#: The list, as entries and circuit breakers name it.
ROOT = ""
#: Seconds for which no list is fetched after one could not be written.
UNWRITABLE_TIME = 60.0


class NoSuchList(NotListed):
    """No index has a list of its projects."""


@attrs.frozen
class ProjectList:
    """The list as it is sent: fresh for `remaining` seconds, confirmed `age` seconds ago.

    :ivar index: name of the first index that has one
    """

    file: ListFile
    status: Status
    remaining: float
    age: float
    index: str = ""


@attrs.define(eq=False)
class ListEntry(Entry):
    """One generation of the lists.

    :ivar lists: the names of each index that has a list
    :ivar names: those of all indexes of a view, merged
    :ivar rendered: representations, each with the names that it was rendered from
    """

    lists: Mapping[Index, ListFile] = attrs.field(factory=dict)
    names: dict[View, ListFile] = attrs.field(factory=dict)
    rendered: dict[Representation, tuple[str, ListFile]] = attrs.field(factory=dict)

    def representation(self, view: View, wanted: Representation) -> ListFile | None:
        """Return a representation of the names of a view, if it was rendered."""
        names, (digest, file) = self.names.get(view), self.rendered.get(wanted, ("", None))
        return file if names is not None and names.digest == digest else None


@attrs.define(eq=False, kw_only=True)
class ListEntries:
    """The names of all projects of all indexes, which all views share."""

    indexes: Collection[Index]
    clock: IReactorTime
    _store: ListStore
    _in_thread: InThread
    problems: Problems
    current: ListEntry | None = attrs.field(init=False, default=None)
    _loads: Flights[None, None] = attrs.field(init=False)
    # Whether a DELETE came while the list was unloaded.
    _invalidated: bool = attrs.field(init=False, default=False)
    _unwritable_until: float = attrs.field(init=False, default=float("-inf"))
    _write_error: tuple[object, ...] = attrs.field(init=False, default=())

    def __attrs_post_init__(self) -> None:
        self._loads = Flights(self.clock)

    @property
    def write_error(self) -> OSError | None:
        """The error of the last write, while the list is unwritable."""
        unwritable = self.clock.seconds() < self._unwritable_until
        return OSError(*self._write_error) if unwritable else None

    async def load(self) -> ListEntry:
        """Return the current entry; the first call reads it from disk."""
        if self.current is None:
            await self._loads.join(None, self._load).wait()
        assert self.current is not None  # loaded, or replaced meanwhile
        return self.current

    def invalidate(self) -> None:
        """Begin a new generation of the lists; if the disk refuses (`OSError`), nothing changes."""
        with self._store.lock:
            self._store.invalidate()
            old, self._unwritable_until = self.current, float("-inf")
            self._invalidated = old is None
            if old is not None:
                responses = old.invalidated_responses()
                names, rendered = {**old.names}, {**old.rendered}
                self.current = attrs.evolve(
                    old, responses=responses, names=names, rendered=rendered, forced=True
                )

    def clear(self) -> Deferred[None]:
        """Remove the lists for good; see :meth:`proxpi.index.page_entries.PageEntries.clear`."""
        with self._store.lock:
            removed = self._store.clear()
            self.current = ListEntry(ROOT, self.clock, {})
        return self._in_thread(lambda: rmtree(removed, ignore_errors=True))

    async def _load(self) -> None:
        load, indexes = self._store.load, self.indexes
        loaded = await self._in_thread(lambda: [(each, *load(each.identity)) for each in indexes])
        responses = {index: stored for index, stored, _ in loaded if stored is not None}
        lists = {index: names for index, _, names in loaded if names is not None}
        entry = ListEntry(ROOT, self.clock, responses, lists=lists)
        if self._invalidated:
            entry.responses, entry.forced = entry.invalidated_responses(), True
        if self.current is None:  # otherwise the list was cleared meanwhile
            self.current = entry

    async def request(
        self, index: Index, entry: ListEntry, stored: StoredResponse | None
    ) -> IndexResponse[ListFile]:
        with self._writing():
            return await index.project_list(stored, self._store, entry.progress.add, entry.queue)

    async def store_responses(
        self,
        entry: ListEntry,
        responses: dict[Index, StoredResponse],
        new: Mapping[Index, ListFile],
    ) -> None:
        """Update an entry, and store it if it is current."""
        lists, changed = {}, []
        for index, response in responses.items():
            names = new.get(index, entry.lists.get(index))
            if response.present and names is not None:
                lists[index] = names
            if response is not entry.responses.get(index):
                changed.append((index.identity, response, lists.get(index)))
        if lists != entry.lists:
            # Before anything changes: a disk that refuses leaves the entry as it was.
            merged = {view: await self._merge(view, lists) for view in entry.names}
            entry.lists = lists
            entry.names = {view: file for view, file in merged.items() if file is not None}
        entry.responses = responses

        def save() -> None:
            try:
                for each in changed:
                    self._store.save(*each, current=lambda: self.current is entry)
            except OSError as error:
                consequence = "the project list is requested again after a restart"
                self.problems.note_disk(error, self._store.folder, consequence)

        await self._in_thread(save)

    async def render(self, entry: ListEntry, view: View, wanted: Representation) -> ListFile:
        """Merge and render the list of a view, unless another request did meanwhile.

        :raises NoSuchList: if none of its indexes has one
        :raises OSError: if a file cannot be written
        """
        async with entry.lock:
            if (file := entry.representation(view, wanted)) is not None:
                return file
            names = entry.names.get(view) or await self._merge(view, entry.lists)
            if names is None:
                raise NoSuchList()
            entry.names[view] = names
            if (file := entry.representation(view, wanted)) is None:
                pieces = list_store.render(names, wanted.serialization, wanted.compressed)
                with self._writing():
                    file = await self._in_thread(partial(self._store.write, pieces))
                entry.rendered[wanted] = names.digest, file
            return file

    async def _merge(self, view: View, lists: Mapping[Index, ListFile]) -> ListFile | None:
        """Merge the names of the indexes of a view, if one of them has a list."""
        found = {index: lists[index] for index in view.indexes if index in lists}
        if not found:
            return None
        with self._writing():
            return await self._in_thread(partial(_merge, view, found, self._store))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Note if the list is unwritable: it is not fetched over and over for that."""
        try:
            yield
        except OSError as error:
            self._unwritable_until = self.clock.seconds() + UNWRITABLE_TIME
            self._write_error = error.args
            raise


def _merge(view: View, lists: Mapping[Index, ListFile], store: ListStore) -> ListFile:
    """Merge the names that each index may have in a view."""
    if view.restricts:
        selected = {
            index: list_store.select(names, partial(view.may_have, index), store)
            for index, names in lists.items()
        }
        lists = selected
    if len(view.indexes) == 1:
        return next(iter(lists.values()))
    return list_store.merge(list(lists.values()), store)


@attrs.define(eq=False)
class ProjectListCache:
    """The project list of one view."""

    _view: View
    _entries: ListEntries
    _revalidation: Revalidation[ListEntry] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        entries = self._entries
        self._revalidation = Revalidation(
            entries.clock, entries.problems, entries.request, entries.store_responses
        )

    def ready(
        self, serialization: Serialization, compressed: bool, *, refresh: bool = False
    ) -> ProjectList | None:
        """Return the list without waiting, if it is rendered, and fresh or behind open breakers.

        :param refresh: whether the client wants it to be revalidated now
        """
        entry = self._entries.current
        wanted = Representation(serialization, compressed, self._view.all)
        if entry is None or (file := entry.representation(self._view, wanted)) is None:
            return None
        if refresh and self._revalidation.may_refresh(entry, self._view.all):
            return None
        decision = self._revalidation.decide(entry, self._view.all)
        if decision not in (Decision.FRESH, Decision.STALE):
            return None
        return self._list(entry, file, "HIT" if decision is Decision.FRESH else "STALE")

    async def fetch(
        self, serialization: Serialization, compressed: bool, *, refresh: bool = False
    ) -> ProjectList:
        """Return the list, revalidated if need be.

        :param refresh: whether the client wants it to be revalidated now
        :raises NoSuchList: if no index has one
        :raises UpstreamFailed: if an index failed, and there is no list to fall back on
        :raises OSError: the same, if the list cannot be written
        """
        entry, sources = await self._entries.load(), self._view.all
        if (error := self._entries.write_error) is None:
            targets: Targets = "refresh" if refresh else "stale"
            status = (await self._revalidation.revalidate(entry, sources, targets)).status
        elif self._revalidation.remaining(entry, sources) > 0:
            status = "HIT"
        elif entry.usable(sources):
            status = "STALE"
        else:
            raise error
        wanted = Representation(serialization, compressed, sources)
        file = entry.representation(self._view, wanted)
        if file is None:
            file = await self._entries.render(entry, self._view, wanted)
        return self._list(entry, file, status)

    def _list(self, entry: ListEntry, file: ListFile, status: Status) -> ProjectList:
        sources = self._view.all
        remaining = 0.0 if status == "STALE" else self._revalidation.remaining(entry, sources)
        first = entry.first(sources)
        index = first.name if first is not None else ""
        return ProjectList(file, status, remaining, entry.age(sources), index)
