"""The page cache: project pages by name, fresh or stale, with one revalidation for all requests.

Theory of operation
-------------------
A page is *absent*, *fresh*, *stale* (the time to live of an index's stored is over) or *due*
(invalidated by ``DELETE``), as its current :class:`proxpi.index.page_entry.PageEntry` tells. A
fresh page is given at once, without a Deferred. For any other one the request joins the
revalidation that the current entry has under way, or starts one, and gets the result of that,
whichever ``DELETE`` comes meanwhile: it does not ask again. While an index fails, its last stored
stands in for it (stale-if-error), however old. Without one there is no page: a merge that lacks an
index could send a client to the wrong file of the right name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from proxpi.index.client import IndexClient, IndexPage, IndexResponse, InThread, StoredResponse
from proxpi.index.merge import find
from proxpi.index.page_entry import PageEntries, PageEntry
from proxpi.index.page_store import DOCUMENT, PageStore
from proxpi.index.representations import Body, Lost, Representation
from proxpi.index.revalidation import Ask, Revalidation, Status
from proxpi.simple.model import Listed, NotListed
from proxpi.simple.negotiate import Serialization
from proxpi.upstream.errors import UpstreamFailed

#: Seconds for which a page is too young to be asked again for a file that it does not list.
YOUNG = 5.0
#: Names for which it is remembered that a page does not list them.
MISSES = 1000
#: Pages of indexes that are held as they were encoded: a client asks for many files of one.
DOCUMENTS = 4
#: How often a page is asked for anew, for one request, because what is stored of it is gone.
LOSSES = 5

T = TypeVar("T")


class NoSuchProject(NotListed):
    """No index has a project of this name."""


class NoSuchFile(NotListed):
    """No index lists a file of this name for the project."""


@attrs.frozen
class Page:
    """A page as it is to be sent.

    :ivar remaining: seconds for which it stays fresh; 0 for a stale one
    :ivar age: seconds since an index confirmed it
    """

    body: Body
    status: Status
    remaining: float
    age: float


async def _ask(
    source: IndexClient, entry: PageEntry, stored: StoredResponse | None
) -> IndexResponse[IndexPage]:
    return await source.project(entry.name, stored, entry.progress.heard, entry.queue)


@attrs.define(eq=False)
class PageCache:
    """The project pages of all indexes together.

    :ivar changed: is told of a project when its page, or whether it may be given, may be another
        than before; of ``None`` when that is so for all
    """

    _sources: Sequence[IndexClient]
    _clock: IReactorTime
    _store: PageStore
    _in_thread: InThread
    changed: Callable[[str | None], None] = lambda _: None
    _documents: dict[str, bytes] = attrs.field(init=False, factory=dict)
    _entries: PageEntries = attrs.field(init=False)
    _revalidation: Revalidation[PageEntry] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._entries = PageEntries(
            self._sources,
            self._clock,
            self._store,
            self._in_thread,
            lambda name: self.changed(name),
        )
        self._revalidation = Revalidation(self._sources, self._clock, _ask, self._entries.take)

    def ready(self, name: str, serialization: Serialization, compressed: bool) -> Page | None:
        """
        Give a page without waiting: a fresh one, or an old one where waiting is of no use.

        :param name: the normalized name of the project
        :param compressed: whether the client takes gzip
        :raises NoSuchProject: if it is known that there is none
        """
        entry = self._entries.get(name)
        status: Status = "HIT"
        if self._revalidation.remaining(entry) <= 0:
            if self._revalidation.blocked(entry) is None:
                return None
            status = "STALE"
        if not entry.present:
            raise NoSuchProject(name)
        body = self._entries.body(entry, Representation(serialization, compressed))
        return self._page(entry, body, status) if body is not None else None

    async def fetch(self, name: str, serialization: Serialization, compressed: bool) -> Page:
        """
        Give a page, asking the indexes if need be.

        :raises NoSuchProject: if no index has it
        :raises UpstreamFailed: if an index failed and there is nothing to stand in for it
        """
        form = Representation(serialization, compressed)

        async def body_of(entry: PageEntry) -> Body:
            if not entry.present:
                raise NoSuchProject(name)
            return await self._body(entry, form)

        entry, status, body = await self._use(name, body_of, form=form)
        return self._page(entry, body, status)

    def ready_file(self, name: str, filename: str) -> Listed | None:
        """Give what the page that is held says of a file; it may be past its time."""
        entry = self._entries.get(name)
        if any(stored is not None and stored.invalidated for stored in entry.responses):
            return None
        try:
            return self._listed(entry, filename)
        except Lost:
            self._entries.lose(entry)
            return None

    async def fetch_file(self, name: str, filename: str) -> Listed:
        """
        Give what the page says of a file; an unknown one is asked for once more.

        :raises NoSuchProject: if no index has the project
        :raises NoSuchFile: if no index lists the file
        :raises UpstreamFailed: as :meth:`fetch`
        """
        entry, status, listed = await self._look_up(name, filename)
        if listed is None and self._age(entry) > YOUNG:
            # A release may be younger than the page: a client that knows its name is believed.
            entry, status, listed = await self._look_up(name, filename, anyway=True)
        if listed is not None:
            return listed
        if status == "STALE":
            raise self._failure(entry)
        raise NoSuchFile(filename) if entry.present else NoSuchProject(name)

    async def ask_again(self, name: str, filename: str) -> Listed | None:
        """
        Give what the page says of a file once the indexes have been asked anew.

        :raises UpstreamFailed: if they cannot be
        """
        entry, status, listed = await self._look_up(name, filename, anyway=True)
        if status == "STALE":
            raise self._failure(entry)
        return listed

    async def suppress_metadata(self, name: str, filename: str) -> None:
        """Advertise no core metadata of a file any more, until the page changes: it has none."""
        entry = self._entries.get(name)
        try:
            await self._entries.suppress_metadata(entry, filename)
        except Lost:
            self._entries.lose(entry)

    def invalidate(self, name: str) -> None:
        """See :meth:`proxpi.index.page_entry.PageEntries.invalidate`."""
        self._entries.invalidate(name)

    def clear(self) -> Deferred[None]:
        """See :meth:`proxpi.index.page_entry.PageEntries.clear`."""
        return self._entries.clear()

    async def _use(
        self,
        name: str,
        use: Callable[[PageEntry], Awaitable[T]],
        anyway: bool = False,
        form: Representation | None = None,
    ) -> tuple[PageEntry, Status, T]:
        """
        Give an entry that may be used for this request, how it came to be, and what `use` gives.

        It may be superseded by the end of the flight that the request joined.

        :param anyway: whether to ask the indexes even if it is fresh
        :param form: what is wanted of it, to be made in one go
        :raises UpstreamFailed: also if what is stored of it is lost over and over
        """
        for _ in range(LOSSES):
            entry = self._entries.get(name)
            status: Status = "HIT"
            try:
                if anyway or self._revalidation.remaining(entry) <= 0:
                    if form is not None:
                        entry.wanted.add(form)
                    ask: Ask = "all" if anyway else "stale"
                    status = await self._revalidation.revalidate(entry, ask)
                return entry, status, await use(entry)
            except Lost:
                # The new entry has no validators for what is lost.
                self._entries.lose(entry)
        raise UpstreamFailed(self._sources[0].url, "its page cannot be read from disk")

    async def _body(self, entry: PageEntry, form: Representation) -> Body:
        body = self._entries.body(entry, form)
        if body is not None:
            return body
        render = entry.renders.join(form, lambda: self._entries.render(entry, form))
        return await render.wait()

    async def _look_up(
        self, name: str, filename: str, anyway: bool = False
    ) -> tuple[PageEntry, Status, Listed | None]:
        async def listed(entry: PageEntry) -> Listed | None:
            return self._listed(entry, filename)

        return await self._use(name, listed, anyway)

    def _page(self, entry: PageEntry, body: Body, status: Status) -> Page:
        remaining = 0.0 if status == "STALE" else self._revalidation.remaining(entry)
        return Page(body, status, remaining, self._age(entry))

    def _listed(self, entry: PageEntry, filename: str) -> Listed | None:
        """
        Give what the page says of a file.

        :raises Lost: if the page is not there any more
        """
        listed = entry.files.get(filename)
        if filename not in entry.files and entry.usable:
            # The first index that offers the name has the file, as on the merged page.
            for source, stored in zip(self._sources, entry.responses, strict=True):
                if stored is None or not stored.present:
                    continue
                file = find(self._document(entry, source), filename)
                if file is not None:
                    listed = Listed(file, source.guards(file["url"]))
                    break
            if listed is not None or len(entry.files) < MISSES:
                entry.files[filename] = listed
                self._entries.weigh(entry)
        return listed

    def _document(self, entry: PageEntry, source: IndexClient) -> bytes:
        """
        Give an index's page as it was encoded; large ones take a while to read and to check.

        :raises Lost: if it is not there any more
        """
        section = DOCUMENT + source.identity
        if entry.stored is None or section not in entry.stored.sections:
            raise Lost(entry.name)
        digest = entry.stored.sections[section].digest
        document = self._documents.get(digest)
        if document is None:
            found = entry.stored.read(section)
            if found is None:
                raise Lost(entry.name)
            if len(self._documents) >= DOCUMENTS:
                del self._documents[next(iter(self._documents))]
            document = self._documents[digest] = found[section]
        return document

    def _failure(self, entry: PageEntry) -> UpstreamFailed:
        """Say why the page could not be asked for."""
        errors = (source.breakers.refusal(entry.name) for source in self._sources)
        known = next((error for error in errors if error is not None), entry.failure)
        return known.copy() if known else UpstreamFailed(self._sources[0].url, "timed out")

    def _age(self, entry: PageEntry) -> float:
        now = self._clock.seconds()
        return max((now - stored.requested_at for stored in entry.responses if stored), default=0.0)
