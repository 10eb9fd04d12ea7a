"""What is known of each project's page: an LRU of entries in memory, over the store on disk.

A :class:`Record` is one *generation* of a project's page. It is *fresh*, *stale* (past its time to
live) or *due* (invalidated: asked for before it is used, without validators), which its parts tell.
The one that :class:`Records` names for the project is *current*. ``DELETE`` makes another one
current, whose parts are due, and marks the file on disk before that. The one before is then
*superseded*: its flights go on, and their results are for those who joined them; but nothing of
it is written to disk, used for a later request, or told to the response cache. Memory evicts the
least recently used record, except one with work under way, which is *pinned*.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from shutil import rmtree
from typing import Literal

import attrs
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime

from proxpi.flights import Flights
from proxpi.index.client import IndexClient, Part, Said, Work
from proxpi.index.press import Form, Lost, add, keep, withdraw
from proxpi.index.retry import Progress
from proxpi.index.store import DOCUMENT, Store, Stored, digest
from proxpi.simple.listing import Listed
from proxpi.upstream.errors import UpstreamFailed
from proxpi.upstream.slots import Queue

Status = Literal["HIT", "MISS", "REVALIDATED", "STALE"]
#: Whom to ask: those whose part is stale, or all.
Ask = Literal["due", "all"]

#: Bytes of pages that are held in memory.
MEMORY = 16 * 1024 * 1024
#: Bytes that a record is taken to cost beside its content, and each of its files.
OVERHEAD = 4096
FILE_OVERHEAD = 1024


@attrs.frozen
class Body:
    """The bytes of one form of a page.

    :ivar etag: the entity tag, without quotes; it is of these very bytes
    """

    data: bytes
    etag: str


@attrs.define(eq=False)
class Record:
    """One generation of a project's page.

    :ivar parts: what each index said last, in order of precedence
    :ivar refreshes: the flights that bring it up to date
    :ivar asks: the flights to each index, which refreshes share
    :ivar renders: the flights that make a form of it
    :ivar queue: the requests to indexes that wait for a slot; when all clients that wait have
        left, they are cancelled
    :ivar stored: what of it is kept
    :ivar forms: the merged page, ready to be sent
    :ivar files: what it says of those files that were asked for
    :ivar failure: why the last refresh failed, if it did
    :ivar wanted: the forms that are waited for
    :ivar asked: the indexes that have not answered yet
    :ivar progress: how much of the answers has come
    :ivar lock: is held while what is kept changes
    :ivar wished: whether an operator wants it asked for, and nobody has tried since
    :ivar cost: bytes
    """

    name: str
    parts: list[Part | None]
    refreshes: Flights[Ask, Status]
    asks: Flights[IndexClient, tuple[IndexClient, Said]]
    renders: Flights[Form, Body]
    queue: Queue
    stored: Stored | None = None
    forms: dict[Form, Body] = attrs.field(factory=dict)
    files: dict[str, Listed | None] = attrs.field(factory=dict)
    failure: UpstreamFailed | None = None
    wanted: set[Form] = attrs.field(factory=set)
    asked: list[IndexClient] = attrs.field(factory=list)
    progress: Progress = attrs.field(factory=Progress)
    lock: DeferredLock = attrs.field(factory=DeferredLock)
    wished: bool = False
    cost: int = 0

    @property
    def present(self) -> bool:
        """Whether any index has the project."""
        return any(part is not None and part.present for part in self.parts)

    @property
    def usable(self) -> bool:
        """Whether there is a page, and no index that has never said anything of it."""
        return self.present and None not in self.parts

    @property
    def pinned(self) -> bool:
        """Whether work on it is under way."""
        flights = (self.refreshes, self.asks, self.renders)
        return bool(self.lock.locked) or any(each.under_way for each in flights)


@attrs.define(eq=False)
class Records:
    """The current records, by name of the project.

    :ivar store: where they are kept
    :ivar changed: is told of a project when what its record says, or stands for, may be another
        than before; of ``None`` when that is so for all
    """

    _sources: Sequence[IndexClient]
    _clock: IReactorTime
    store: Store
    _work: Work
    changed: Callable[[str | None], None] = lambda _: None
    _records: OrderedDict[str, Record] = attrs.field(init=False, factory=OrderedDict)
    _cost: int = attrs.field(init=False, default=0)

    def get(self, name: str) -> Record:
        """Give the current record of a project; a new one if nothing is known of it."""
        record = self._records.get(name)
        if record is None:
            record = self._put(self._kept(name))
        self._records.move_to_end(name)
        return record

    def current(self, record: Record) -> bool:
        """Tell whether a record is current; any thread may ask."""
        return self._records.get(record.name) is record

    def _test(self, record: Record) -> Callable[[], bool]:
        return lambda: self.current(record)

    def invalidate(self, name: str) -> None:
        """
        Begin a new generation of a project's page, on disk and in memory.

        :raises OSError: if the disk does not let it; then nothing has changed
        """
        old = self.get(name)
        with self.store.lock:
            self.store.invalidate(name)
            # Validators are not used either: an operator who forgets a page may mistrust them.
            parts = [part and attrs.evolve(part, due=True) for part in old.parts]
            new = self._new(name, parts, old.stored and old.stored.invalidated())
            new.failure, new.wished = old.failure, True
            self._put(new)

    def clear(self) -> Deferred[None]:
        """
        Forget all projects for good.

        :return: a Deferred of the end of it on disk; nothing of them is used from now on
        :raises OSError: if the disk does not let it; then nothing has changed
        """
        with self.store.lock:
            gone = self.store.clear()
            self._records.clear()
            self._cost = 0
        self.changed(None)
        return self._work(lambda: rmtree(gone, ignore_errors=True))

    def lose(self, record: Record) -> None:
        """Put another record in the place of one whose file is gone or is not what it was."""
        if not self.current(record):
            return
        found = self._kept(record.name)
        if found.stored and record.stored and found.stored.sections == record.stored.sections:
            # Damaged, and maybe not to be removed; otherwise another process has put its own there.
            self.store.remove(record.name)
            found = self._new(record.name, [None] * len(self._sources))
        self._put(found)

    def body(self, record: Record, form: Form) -> Body | None:
        """Give a form of a page if it has been made."""
        body = record.forms.get(form)
        if body is None and record.stored is not None and form.name in record.stored.sections:
            found = record.stored.read(form.name)
            if found is not None:
                body = Body(found[form.name], record.stored.sections[form.name].digest)
                record.forms[form] = body
                self.weigh(record)
        return body

    async def take(self, record: Record, said: Mapping[IndexClient, Said]) -> None:
        """
        Take over what indexes said, and make the forms that are waited for.

        :raises Lost: if an index confirmed a page that is not there any more
        """
        await record.lock.acquire()
        try:
            parts, pages = [], {}
            for source, old in zip(self._sources, record.parts, strict=True):
                new = said.get(source)
                # Of two flights the older one may come home later, or confirm what is replaced.
                if new is None or (
                    old is not None and (old.asked_at > new.part.asked_at or not new.is_about(old))
                ):
                    parts.append(old)
                else:
                    parts.append(new.part)
                    if new.page is not None:
                        pages[source.identity] = new.page
            wanted, record.wanted = record.wanted, set()
            before, named = record.stored, self._named(parts)
            after, made = await self._work(
                lambda: keep(
                    self.store, record.name, before, named, pages, wanted, self._test(record)
                )
            )
            if before is None or after is None or before.documents != after.documents:
                record.forms.clear()
                record.files.clear()
            record.parts, record.stored = parts, after
            record.forms |= {form: _body(made[form.name]) for form in wanted if form.name in made}
            self._changed(record)
        finally:
            record.lock.release()

    async def render(self, record: Record, form: Form) -> Body:
        """
        Make a form of a page that nobody wanted before.

        :raises Lost: if what was kept of the page is not there any more
        """
        await record.lock.acquire()
        try:
            kept, named = record.stored, self._named(record.parts)
            if kept is None:
                raise Lost(record.name)
            record.stored, data = await self._work(
                lambda: add(self.store, record.name, kept, named, form, self._test(record))
            )
            body = record.forms[form] = _body(data)
            self.weigh(record)
            return body
        finally:
            record.lock.release()

    async def withdraw(self, record: Record, filename: str) -> None:
        """
        Advertise no core metadata of a file any more, until the page changes.

        :raises Lost: if what was kept of the page is not there any more
        """
        await record.lock.acquire()
        try:
            kept, named = record.stored, self._named(record.parts)
            if kept is None:
                return
            record.stored = await self._work(
                lambda: withdraw(self.store, record.name, kept, named, filename, self._test(record))
            )
            record.forms.clear()
            self._changed(record)
        finally:
            record.lock.release()

    def weigh(self, record: Record) -> None:
        """Count the bytes of a record anew, and evict others to make room for them."""
        if not self.current(record):
            return
        image = record.stored.image if record.stored is not None else None
        self._cost -= record.cost
        record.cost = (
            OVERHEAD
            + FILE_OVERHEAD * len(record.files)
            + sum(len(body.data) for body in record.forms.values())
            + len(image or b"")
        )
        self._cost += record.cost
        for _ in range(len(self._records) - 1):
            if self._cost <= MEMORY:
                break
            name, least = next(iter(self._records.items()))
            if least is record or least.pinned:
                self._records.move_to_end(name)
            else:
                del self._records[name]
                self._cost -= least.cost

    def _put(self, record: Record) -> Record:
        """Make a record current, in place of any other."""
        old = self._records.pop(record.name, None)
        self._records[record.name] = record
        if old is not None:
            self._cost -= old.cost
            self.changed(record.name)
        self.weigh(record)
        return record

    def _new(self, name: str, parts: list[Part | None], stored: Stored | None = None) -> Record:
        clock, queue = self._clock, Queue()

        def abandon() -> None:
            if queue:
                # What waits for a slot ends; what an index is asked for already goes on.
                for ask in refreshes:
                    refreshes.forget(ask)
                for waiting in list(queue):
                    waiting.cancel()

        refreshes: Flights[Ask, Status] = Flights(clock, abandon)
        return Record(name, parts, refreshes, Flights(clock), Flights(clock), queue, stored)

    def _changed(self, record: Record) -> None:
        """Note that a record says something else, or stands for something else, than before."""
        if self.current(record):
            self.weigh(record)
            self.changed(record.name)

    def _named(self, parts: Sequence[Part | None]) -> dict[str, Part]:
        """Give what the indexes said by their identities, as it is kept."""
        return {
            source.identity: part
            for source, part in zip(self._sources, parts, strict=True)
            if part is not None
        }

    def _kept(self, name: str) -> Record:
        """Read from disk what is known of a project."""
        stored = self.store.load(name)
        if stored is None:
            return self._new(name, [None] * len(self._sources))
        parts = [self._part(source, stored.parts, stored.documents) for source in self._sources]
        if list(stored.parts) != [source.identity for source in self._sources]:
            # It was made of other indexes, or in another order of them.
            documents = {key: stored.sections[key] for key in stored.documents}
            stored = attrs.evolve(stored, sections=documents)
        return self._new(name, parts, stored)

    @staticmethod
    def _part(
        source: IndexClient, parts: Mapping[str, Part], documents: Mapping[str, str]
    ) -> Part | None:
        part = parts.get(source.identity)
        if part is not None and part.present and DOCUMENT + source.identity not in documents:
            return None
        return part


def _body(data: bytes) -> Body:
    return Body(data, digest(data))
