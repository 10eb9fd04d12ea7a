"""Project pages: fresh, stale, or asked for, once however many want one.

Theory of operation
-------------------
A :class:`proxpi.index.record.Record` holds when each index was last asked for one project and
what it said about it, and the forms of the merged page that are in demand, ready to be sent; the
pages of the indexes themselves, and the forms, too, lie in the
:class:`proxpi.index.store.Store`. A page is fresh as long as every index's part is; else it is
revalidated.

When an index fails, what it said last stands in for it, however old; so an outage never
changes a page. If there is nothing to stand in, there is no page: a merge without one of its
indexes could send a client to the wrong file of the right name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from proxpi.index.client import IndexClient, Work
from proxpi.index.merge import find
from proxpi.index.press import Form, Lost
from proxpi.index.record import Body, Record, Records, Status
from proxpi.index.revalidation import Revalidation
from proxpi.index.store import DOCUMENT, Store
from proxpi.simple.listing import Listed, NotListed
from proxpi.simple.negotiate import Serialization
from proxpi.upstream.errors import UpstreamFailed

#: Seconds for which a page is too young to be asked again for a file that it does not list.
YOUNG = 5.0
#: Names for which it is remembered that a page does not list them.
MISSES = 1000
#: Pages of indexes that are held as they were encoded: a client asks for many files of one.
DOCUMENTS = 4


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


@attrs.define(eq=False)
class Pages:
    """The project pages of all indexes together.

    :ivar changed: is told of a project when its page, or whether it may be given, may be another
        than before; of ``None`` when that is so for all
    """

    _sources: Sequence[IndexClient]
    _clock: IReactorTime
    _store: Store
    _work: Work
    changed: Callable[[str | None], None] = lambda _: None
    _records: Records = attrs.field(
        init=False,
        default=attrs.Factory(
            lambda self: Records(
                self._sources,
                self._clock,
                self._store,
                self._work,
                lambda name: self.changed(name),
            ),
            takes_self=True,
        ),
    )
    _documents: dict[str, bytes] = attrs.field(init=False, factory=dict)
    _revalidation: Revalidation = attrs.field(
        init=False,
        default=attrs.Factory(
            lambda self: Revalidation(self._sources, self._clock, self._records),
            takes_self=True,
        ),
    )

    def ready(self, name: str, serialization: Serialization, compressed: bool) -> Page | None:
        """
        Give a page without waiting: a fresh one, or an old one where waiting is of no use.

        :param name: the normalized name of the project
        :param compressed: whether the client takes gzip
        :raises NoSuchProject: if it is known that there is none
        """
        record = self._records.get(name)
        status: Status = "HIT"
        if self._revalidation.remaining(record) <= 0:
            if self._revalidation.blocked(record) is None:
                return None
            status = "STALE"
        if not record.present:
            raise NoSuchProject(name)
        body = self._records.body(record, Form(serialization, compressed))
        return self._page(record, body, status) if body is not None else None

    async def fetch(self, name: str, serialization: Serialization, compressed: bool) -> Page:
        """
        Give a page, asking the indexes if need be.

        :raises NoSuchProject: if no index has it
        :raises UpstreamFailed: if an index failed and there is nothing to stand in for it
        """
        form = Form(serialization, compressed)
        while True:
            record, status = await self._current(name, form=form)
            if not record.present:
                raise NoSuchProject(name)
            try:
                body = await self._body(record, form)
            except Lost:
                self._records.lose(record)
                continue
            return self._page(record, body, status)

    def ready_file(self, name: str, filename: str) -> Listed | None:
        """Give what the page that is held says of a file; it may be past its time."""
        record = self._records.get(name)
        if any(part is not None and part.due for part in record.parts):
            return None
        try:
            return self._listed(record, filename)
        except Lost:
            self._records.lose(record)
            return None

    async def fetch_file(self, name: str, filename: str) -> Listed:
        """
        Give what the page says of a file; an unknown one is asked for once more.

        :raises NoSuchProject: if no index has the project
        :raises NoSuchFile: if no index lists the file
        :raises UpstreamFailed: as :meth:`fetch`
        """
        record, status, listed = await self._look_up(name, filename)
        if listed is None and self._age(record) > YOUNG:
            # A release may be younger than the page: a client that knows its name is believed.
            record, status, listed = await self._look_up(name, filename, anyway=True)
        if listed is not None:
            return listed
        if status == "STALE":
            raise self._failure(record)
        raise NoSuchFile(filename) if record.present else NoSuchProject(name)

    async def ask_again(self, name: str, filename: str) -> Listed | None:
        """
        Give what the page says of a file once the indexes have been asked anew.

        :raises UpstreamFailed: if they cannot be
        """
        record, status, listed = await self._look_up(name, filename, anyway=True)
        if status == "STALE":
            raise self._failure(record)
        return listed

    async def withdraw(self, name: str, filename: str) -> None:
        """Advertise no core metadata of a file any more, until the page changes: it has none."""
        record = self._records.get(name)
        try:
            await self._records.withdraw(record, filename)
        except Lost:
            self._records.lose(record)

    def forget(self, name: str) -> None:
        """
        Ask for a project again before its page is used again, except in an outage.

        :raises OSError: if that would not outlive the process; then nothing has changed
        """
        self._records.invalidate(name)

    def clear(self) -> Deferred[None]:
        """
        Forget all projects for good, what is being fetched included.

        :return: a Deferred of the end of it; nothing of them is used from now on
        :raises OSError: if the folder does not let it; then nothing has changed
        """
        return self._records.clear()

    async def _current(
        self, name: str, anyway: bool = False, form: Form | None = None
    ) -> tuple[Record, Status]:
        """
        Give a record that may be used for this request, and how it came to be.

        It may be superseded by the end of the flight that the request joined.

        :param anyway: whether to ask the indexes even if it is fresh
        :param form: what is wanted of it, to be made in one go
        """
        while True:
            record = self._records.get(name)
            if not anyway and self._revalidation.remaining(record) > 0:
                return record, "HIT"
            if form is not None:
                record.wanted.add(form)
            try:
                return record, await self._revalidation.revalidate(
                    record, "all" if anyway else "due"
                )
            except Lost:
                # The new record has no validators for what is lost.
                self._records.lose(record)

    async def _body(self, record: Record, form: Form) -> Body:
        body = self._records.body(record, form)
        if body is not None:
            return body
        render = record.renders.join(form, lambda: self._records.render(record, form))
        return await render.wait()

    async def _look_up(
        self, name: str, filename: str, anyway: bool = False
    ) -> tuple[Record, Status, Listed | None]:
        while True:
            record, status = await self._current(name, anyway)
            try:
                return record, status, self._listed(record, filename)
            except Lost:
                self._records.lose(record)

    def _page(self, record: Record, body: Body, status: Status) -> Page:
        remaining = 0.0 if status == "STALE" else self._revalidation.remaining(record)
        return Page(body, status, remaining, self._age(record))

    def _listed(self, record: Record, filename: str) -> Listed | None:
        """
        Give what the page says of a file.

        :raises Lost: if the page is not there any more
        """
        listed = record.files.get(filename)
        if filename not in record.files and record.usable:
            # The first index that offers the name has the file, as on the merged page.
            for source, part in zip(self._sources, record.parts, strict=True):
                if part is None or not part.present:
                    continue
                entry = find(self._document(record, source), filename)
                if entry is not None:
                    listed = Listed(entry, source.guards(entry["url"]))
                    break
            if listed is not None or len(record.files) < MISSES:
                record.files[filename] = listed
                self._records.weigh(record)
        return listed

    def _document(self, record: Record, source: IndexClient) -> bytes:
        """
        Give an index's page as it was encoded; large ones take a while to read and to check.

        :raises Lost: if it is not there any more
        """
        section = DOCUMENT + source.identity
        if record.stored is None or section not in record.stored.sections:
            raise Lost(record.name)
        digest = record.stored.sections[section].digest
        document = self._documents.get(digest)
        if document is None:
            found = record.stored.read(section)
            if found is None:
                raise Lost(record.name)
            if len(self._documents) >= DOCUMENTS:
                del self._documents[next(iter(self._documents))]
            document = self._documents[digest] = found[section]
        return document

    def _failure(self, record: Record) -> UpstreamFailed:
        """Say why the page could not be asked for."""
        errors = (source.breakers.error(record.name) for source in self._sources)
        known = next((error for error in errors if error is not None), record.failure)
        return known.again() if known else UpstreamFailed(self._sources[0].url, "timed out")

    def _age(self, record: Record) -> float:
        now = self._clock.seconds()
        return max((now - part.asked_at for part in record.parts if part), default=0.0)
