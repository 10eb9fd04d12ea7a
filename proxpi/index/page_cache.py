"""The page cache of one view: pages of projects, merged from their sources, revalidated if stale.

The entries are shared by all views (:mod:`proxpi.index.page_entries`), and so are the requests to
the indexes. While an index fails, its last response counts, however old. Without one there is no
page: a merge that lacks an index could send a client to the wrong file of the right name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Literal, TypeVar

import attrs

from proxpi.index.client import SMALL
from proxpi.index.index_response import IndexPage, IndexResponse, StoredResponse
from proxpi.index.page_entries import PageEntries, PageEntry
from proxpi.index.page_store import DOCUMENT
from proxpi.index.representations import (
    Body,
    Representation,
    StoredPageLost,
    file_key,
    key_of_file,
    search,
)
from proxpi.index.revalidation import (
    REFRESH_PAUSE,
    Decision,
    Outcome,
    Revalidation,
    Status,
    Targets,
)
from proxpi.index.sources import Index, Sources, View
from proxpi.simple import FileExcluded, ListedFile, NotListed, Serialization
from proxpi.upstream import UpstreamFailed

#: Seconds for which a page is too young to be revalidated for a file that it does not list.
MIN_REFETCH_AGE = 5.0
#: How often one request revalidates an entry because the one before was lost.
MAX_RELOADS = 5

T = TypeVar("T")


class NoSuchProject(NotListed):
    """No index has a project of this name."""


class NotInView(NoSuchProject):
    """No index of the view may have a project of this name."""


class NoSuchFile(NotListed):
    """No index lists a file of this name for the project."""


def _absent(name: str, sources: Sources) -> NoSuchProject:
    return NoSuchProject(name) if sources.indexes else NotInView(name)


@attrs.frozen
class Page:
    """A page as it is sent: fresh for `remaining` seconds, confirmed `age` seconds ago.

    :ivar index: name of the first index that has the project
    """

    body: Body
    status: Status
    remaining: float
    age: float
    index: str = ""


@attrs.frozen
class Refetched:
    """The outcome of a refetch at one index.

    :ivar outcome: ``recent``: it was requested too short a time before to be requested again
    :ivar cause: of the failure
    :ivar usable: whether there is a page or an absence of the index, however old
    """

    outcome: Literal["changed", "unchanged", "absent", "recent", "failed"]
    cause: str = ""
    usable: bool = True


@attrs.define(eq=False)
class PageCache:
    """The project pages of one view."""

    _view: View
    _entries: PageEntries
    _revalidation: Revalidation[PageEntry] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        entries = self._entries
        self._revalidation = Revalidation(
            entries.clock, entries.problems, _request, entries.store_responses
        )

    def ready(
        self, name: str, serialization: Serialization, compressed: bool, *, refresh: bool = False
    ) -> Page | None:
        """Return the rendered page without waiting.

        It is a fresh one, or a stale one while all breakers of its stale indexes are open.

        :param name: the normalized name of the project
        :param refresh: whether the client wants it to be revalidated now
        :raises NoSuchProject: if it is known that there is none
        """
        entry, sources = self._entries.current(name), self._view.sources(name)
        if refresh and self._revalidation.may_refresh(entry, sources):
            return None
        remaining = self._revalidation.remaining(entry, sources)  # first: most pages are fresh
        if remaining <= 0 and self._revalidation.decide(entry, sources) is not Decision.STALE:
            return None
        if not entry.present(sources):
            raise _absent(name, sources)
        representation = Representation(serialization, compressed, sources)
        body = self._entries.read_body(entry, representation)
        status: Status = "HIT" if remaining > 0 else "STALE"
        return self._page(entry, sources, body, status, remaining) if body is not None else None

    async def fetch(
        self, name: str, serialization: Serialization, compressed: bool, *, refresh: bool = False
    ) -> Page:
        """Return a page, revalidated if need be.

        :param refresh: whether the client wants it to be revalidated now
        :raises NoSuchProject: if no index has it
        :raises UpstreamFailed: if an index failed, and there is no page to fall back on
        """
        sources = self._view.sources(name)
        representation = Representation(serialization, compressed, sources)

        async def body_of(entry: PageEntry) -> Body:
            if not entry.present(sources):
                raise _absent(name, sources)
            if (body := self._entries.read_body(entry, representation)) is not None:
                return body
            render = partial(self._entries.render, entry, representation)
            return await entry.renders.join(representation, render).wait()

        targets: Targets = "refresh" if refresh else "stale"
        entry, outcome, body = await self._with_entry(name, body_of, targets, representation)
        remaining = (
            0.0 if outcome.status == "STALE" else self._revalidation.remaining(entry, sources)
        )
        return self._page(entry, sources, body, outcome.status, remaining)

    def ready_file(self, name: str, filename: str) -> ListedFile | None:
        """Return a file as the page in the cache lists it; the page may be stale."""
        entry, sources = self._entries.current(name), self._view.sources(name)
        for index in sources.indexes:
            response = entry.responses.get(index)
            if response is not None and response.invalidated:
                return None
        try:
            return self._entries.find_file(entry, filename, sources)
        except FileExcluded:
            return None
        except StoredPageLost:
            self._entries.replace(entry)
            return None

    async def fetch_file(self, name: str, filename: str) -> ListedFile:
        """Return a file as the page lists it; for an unknown one, the page is revalidated.

        :raises NoSuchProject: if no index has the project
        :raises NoSuchFile: if no index lists the file
        :raises FileExcluded: if a rule excludes the file
        """
        sources = self._view.sources(name)
        entry, outcome, listed = await self._look_up(name, filename)
        if listed is None and entry.age(sources) > MIN_REFETCH_AGE:
            # A release may be younger than the page.
            entry, outcome, listed = await self._look_up(name, filename, "all")
        if listed is not None:
            return listed
        if outcome.error is not None:
            raise outcome.error
        raise NoSuchFile(filename) if entry.present(sources) else _absent(name, sources)

    async def refetch_file(self, name: str, filename: str) -> ListedFile | None:
        """Revalidate a page, fresh or not, and return a file as it lists it.

        :raises FileExcluded: if a rule excludes the file
        """
        _, outcome, listed = await self._look_up(name, filename, "all")
        if outcome.error is not None:
            raise outcome.error
        return listed

    async def refetch(self, name: str) -> dict[str, Refetched]:
        """Revalidate a page now, fresh or not; return the outcomes by the names of the indexes.

        :raises OSError: if the responses cannot be stored
        """
        sources, began = self._view.sources(name), self._entries.clock.seconds()
        before = self._entries.current(name)
        responses, documents = dict(before.responses), _documents(before)

        async def leave(entry: PageEntry) -> None:
            pass

        try:
            entry, outcome, _ = await self._with_entry(name, leave, "refresh")
            error = outcome.error
        except UpstreamFailed as failure:
            entry, error = self._entries.current(name), failure
        found, pause = {}, began - REFRESH_PAUSE
        for index in sources:
            last, now = responses.get(index), entry.responses.get(index)
            section = DOCUMENT + index.identity
            failed = index.breakers.failed_since(name, pause)
            if failed is None and (last is None or last.requested_at <= pause):
                failed = error  # such as that of being offline, which is no failure of the index
            if now is not None and (last is None or now.requested_at > last.requested_at):
                same = documents.get(section) == _documents(entry).get(section)
                found[index.name] = Refetched(
                    "absent" if not now.present else "unchanged" if same else "changed"
                )
            elif failed is not None:
                found[index.name] = Refetched("failed", failed.cause, now is not None)
            else:
                found[index.name] = Refetched("recent")
        return found

    def remaining(self, name: str) -> float:
        """Seconds for which a project's page, or its absence, needs no revalidation."""
        return self._revalidation.remaining(self._entries.peek(name), self._view.sources(name))

    def is_fresh(self, name: str) -> bool:
        """Whether a project's page, or its absence, needs no revalidation."""
        return self.remaining(name) > 0

    def digests(self, name: str) -> frozenset[str]:
        """Return the digests of the indexes' pages for a project, fresh or not; none: no page."""
        documents = _documents(self._entries.peek(name))
        sections = [DOCUMENT + index.identity for index in self._view.sources(name)]
        return frozenset(documents[each] for each in sections if each in documents)

    async def prefetch(
        self, name: str, serialization: Serialization, compressed: bool
    ) -> int | None:
        """Revalidate a page in the background, and render a representation of it.

        No request is sent for a fresh page, offline, or while a stale index fails. A client's
        request joins the flight and lifts it: it is then the same as any other.

        :return: bytes that this call's own flight has brought, once it has landed; ``None``: it
            sent no request
        """
        sources = self._view.sources(name)
        if not self._revalidation.may_prefetch(self._entries.peek(name), sources):
            return None
        entry = self._entries.current(name)
        entry.requested.add(Representation(serialization, compressed, sources))
        try:
            return await self._revalidation.prefetch(entry, sources)
        except StoredPageLost:
            self._entries.replace(entry)
            return 0

    async def search(self, name: str, find: Callable[[Sequence[bytes]], T]) -> T | None:
        """Return the result of a function of a project's pages, which may be stale.

        :param find: is called with the encoded pages (:func:`proxpi.simple.model.encode`) of the
            indexes that have the project, in order of precedence, without quarantined ones and
            without the files that the rules exclude; in a thread, unless the pages are small
        :return: ``None`` if there is no page
        """
        entries, sources = self._entries, self._view.sources(name)
        rules = entries.rules.of(name)
        for load in (entries.peek, entries.load):
            entry = load(name)
            if not entry.usable(sources) or entry.stored is None:
                break
            work = partial(search, entry.stored, sources, find, rules, entries.wall())
            identities = {DOCUMENT + index.identity for index in sources}
            sections = entry.stored.sections.items()
            small = sum(each.size for key, each in sections if key in identities) <= SMALL.size
            try:
                return work() if small else await entries.in_thread(work)
            except StoredPageLost:
                continue  # it may have been stored anew meanwhile: load what the file holds now
        return None

    async def suppress_metadata(self, name: str, filename: str) -> None:
        """Advertise no core metadata of a file of this view any more, until the page changes."""
        if (listed := self.ready_file(name, filename)) is not None:
            await self._entries.amend(self._entries.current(name), file_key(listed.entry))

    async def advertise_metadata(self, name: str, filename: str, wheel: str, metadata: str) -> None:
        """Advertise the core metadata of a wheel wherever its index states none.

        :param wheel: the sha256 of the wheel, and `metadata`: that of the core metadata in it
        """
        entry = self._entries.current(name)
        entry.extracted[key_of_file(filename, wheel)] = filename, metadata
        await self._entries.amend(entry)

    def _page(
        self, entry: PageEntry, sources: Sources, body: Body, status: Status, remaining: float
    ) -> Page:
        """Return a page as it is sent: fresh at most until the rules list other files."""
        if body.ruling is not None and body.ruling.until is not None:
            remaining = min(remaining, max(0.0, body.ruling.until - self._entries.wall()))
        first = entry.first(sources)
        index = first.name if first is not None else ""
        return Page(body, status, remaining, entry.age(sources), index)

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
        sources = self._view.sources(name)
        for _ in range(MAX_RELOADS):
            entry = self._entries.current(name)
            if requested is not None and self._revalidation.requests(entry, sources, targets):
                entry.requested.add(requested)
            try:
                outcome = await self._revalidation.revalidate(entry, sources, targets)
                return entry, outcome, await use(entry)
            except StoredPageLost:
                self._entries.replace(entry)
        raise UpstreamFailed(sources.indexes[0].url, "its page cannot be read from disk")

    async def _look_up(
        self, name: str, filename: str, targets: Targets = "stale"
    ) -> tuple[PageEntry, Outcome, ListedFile | None]:
        sources = self._view.sources(name)

        async def find(entry: PageEntry) -> ListedFile | None:
            return self._entries.find_file(entry, filename, sources)

        return await self._with_entry(name, find, targets)


def _documents(entry: PageEntry) -> Mapping[str, str]:
    return entry.stored.documents if entry.stored is not None else {}


async def _request(
    index: Index, entry: PageEntry, stored: StoredResponse | None
) -> IndexResponse[IndexPage]:
    return await index.project(entry.name, stored, entry.progress.add, entry.queue)
