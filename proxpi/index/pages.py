"""Project pages: fresh, stale, or asked for, once however many want one.

Theory of operation
-------------------
A :class:`_Record` holds what each index last said of one project (compressed), and the forms
of the merged page that clients asked for, ready to be sent. A page is fresh as long as every
index's part is. Otherwise one flight per project asks those indexes whose part is not, each
with the validators it gave; what they confirm is renewed, what they change replaces the old,
and the forms are made again on demand.

When an index fails, what it said last stands in for it, however old; so an outage never
changes a page. If there is nothing to stand in, there is no page: a merge without one of its
indexes could send a client to the wrong file of the right name.
"""

from __future__ import annotations

import gzip
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import attrs
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from proxpi.flights import Flights, Late
from proxpi.index import merge
from proxpi.index.source import Held, Source
from proxpi.simple.listing import Listed, NotListed
from proxpi.simple.negotiate import Serialization
from proxpi.simple.render import render_html, render_json
from proxpi.upstream.errors import UpstreamFailed, settled

#: Seconds that a client waits for a refresh before it gets the page as it was.
PATIENCE = 5.0
#: The same while the last refresh failed: just enough to notice that an upstream is back.
PATIENCE_IN_OUTAGE = 0.5
#: Seconds for which a page is too young to be asked again for a file that it does not list.
YOUNG = 5.0
#: Bytes of pages that are held in memory.
MEMORY = 64 * 1024 * 1024
#: Names for which it is remembered that a page does not list them.
MISSES = 1000
#: Bytes that a record is taken to cost beside its content.
OVERHEAD = 1024

Status = Literal["HIT", "MISS", "REVALIDATED", "STALE"]

_log = Logger(namespace="proxpi.index")


class NoSuchProject(NotListed):
    """No index has a project of this name."""


class NoSuchFile(NotListed):
    """No index lists a file of this name for the project."""


@attrs.frozen
class Body:
    """The bytes of one form of a page.

    :ivar etag: the entity tag, without quotes; it is of these very bytes
    """

    data: bytes
    etag: str

    @classmethod
    def of(cls, data: bytes) -> Body:
        """Tag the bytes."""
        return cls(data, hashlib.sha256(data).hexdigest()[:32])


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
class _Record:
    """What is held of one project.

    :ivar parts: what each index said last, in order of precedence
    :ivar failure: why the last refresh failed, if it did
    :ivar forms: the merged page by serialization and whether it is compressed
    :ivar files: what it says of those files that were asked for
    :ivar cost: bytes
    """

    name: str
    parts: list[Held | None]
    failure: UpstreamFailed | None = None
    forms: dict[tuple[Serialization, bool], Body] = attrs.field(factory=dict)
    files: dict[str, Listed | None] = attrs.field(factory=dict)
    cost: int = OVERHEAD

    @property
    def usable(self) -> bool:
        """Whether there is a page, and no index that has never said anything of it."""
        return all(part is not None for part in self.parts) and any(self.documents)

    @property
    def documents(self) -> tuple[bytes | None, ...]:
        """What the indexes said."""
        return tuple(part.document if part else None for part in self.parts)


@attrs.define(eq=False)
class Pages:
    """The project pages of all indexes together."""

    _sources: Sequence[Source]
    _clock: IReactorTime
    _records: OrderedDict[str, _Record] = attrs.field(init=False, factory=OrderedDict)
    _cost: int = attrs.field(init=False, default=0)
    _flights: Flights[tuple[_Record, bool], Status] = attrs.field(
        init=False, default=attrs.Factory(lambda self: Flights(self._clock), takes_self=True)
    )

    def ready(self, name: str, serialization: Serialization, compressed: bool) -> Page | None:
        """
        Give a page that is fresh, without waiting.

        :param name: the normalized name of the project
        :param compressed: whether the client takes gzip
        :raises NoSuchProject: if it is known that there is none
        """
        record = self._records.get(name)
        if record is None or self._remaining(record) <= 0:
            return None
        self._records.move_to_end(name)
        return self._page(record, serialization, compressed, "HIT")

    async def fetch(self, name: str, serialization: Serialization, compressed: bool) -> Page:
        """
        Give a page, asking the indexes if need be.

        :raises NoSuchProject: if no index has it
        :raises UpstreamFailed: if an index failed and there is nothing to stand in for it
        """
        record, status = await self._current(name)
        return self._page(record, serialization, compressed, status)

    def ready_file(self, name: str, filename: str) -> Listed | None:
        """Give what the page that is held says of a file; it may be past its time."""
        record = self._records.get(name)
        if record is None or any(part is not None and part.due for part in record.parts):
            return None
        return self._listed(record, filename)

    async def fetch_file(self, name: str, filename: str) -> Listed:
        """
        Give what the page says of a file; an unknown one is asked for once more.

        :raises NoSuchProject: if no index has the project
        :raises NoSuchFile: if no index lists the file
        :raises UpstreamFailed: as :meth:`fetch`
        """
        record, status = await self._current(name)
        listed = self._listed(record, filename)
        if listed is None and self._age(record) > YOUNG:
            # A release may be younger than the page: a client that knows its name is believed.
            record, status = await self._current(name, anyway=True)
            listed = self._listed(record, filename)
        if listed is not None:
            return listed
        if status == "STALE":
            raise self._failure(record)
        raise NoSuchFile(filename) if any(record.documents) else NoSuchProject(name)

    async def ask_again(self, name: str, filename: str) -> Listed | None:
        """
        Give what the page says of a file once the indexes have been asked anew.

        :raises UpstreamFailed: if they cannot be
        """
        record, status = await self._current(name, anyway=True)
        if status == "STALE":
            raise self._failure(record)
        return self._listed(record, filename)

    def forget(self, name: str) -> None:
        """Ask for a project again before its page is used again, except in an outage."""
        record = self._records.get(name)
        if record is not None:
            # A new record: a fetch that is under way fills in the old one. Without validators:
            # whoever forgets a page on purpose may mistrust them, too.
            parts = [part and Held(part.document, part.asked_at, due=True) for part in record.parts]
            self._records[name] = _Record(name, parts, record.failure, cost=record.cost)

    async def _current(self, name: str, anyway: bool = False) -> tuple[_Record, Status]:
        """
        Give a record that may be used now, and how it came to be.

        :param anyway: whether to ask the indexes even if it is fresh
        """
        while True:
            record = self._records.get(name)
            if record is None:
                record = self._records[name] = _Record(name, [None] * len(self._sources))
                self._cost += record.cost
                self._make_room()
            self._records.move_to_end(name)
            if not anyway and self._remaining(record) > 0:
                return record, "HIT"
            status = await self._refreshed(record, anyway)
            # Forgotten meanwhile: what was under way is older than the operator's wish.
            if self._records.get(name, record) is record:
                return record, status

    async def _refreshed(self, record: _Record, anyway: bool) -> Status:
        flight = self._flights.join((record, anyway), lambda: self._refresh(record, anyway))
        until = None
        if record.usable:
            until = flight.started + (PATIENCE_IN_OUTAGE if record.failure else PATIENCE)
        try:
            return await flight.wait(until)
        except Late:
            return "STALE"
        except CancelledError:
            raise
        except Exception as error:
            if not record.usable:
                raise
            if not isinstance(error, UpstreamFailed):
                _log.failure("page of {name}: an error of proxpi's own", name=record.name)
            return "STALE"

    async def _refresh(self, record: _Record, anyway: bool) -> Status:
        """Ask every index whose part of the record is not fresh, or all."""
        due = [
            (number, source, part)
            for number, (source, part) in enumerate(zip(self._sources, record.parts, strict=True))
            if anyway or source.remaining(part) <= 0
        ]
        answers = await gatherResults(
            [
                Deferred.fromCoroutine(settled(source.project(record.name, part)))
                for _, source, part in due
            ],
            consumeErrors=True,
        )
        before = record.documents
        failures: list[UpstreamFailed] = []
        changed = False
        for (number, _, _), answer in zip(due, answers, strict=True):
            if isinstance(answer, UpstreamFailed):
                failures.append(answer)
            else:
                record.parts[number] = answer
                changed = changed or answer.how == "200"
        if record.documents != before:
            record.forms.clear()
            record.files.clear()
            self._weigh(record)
        record.failure = failures[0].again() if failures else None
        for error in failures:
            _log.warn("page of {name}: {error}", name=record.name, error=error)
        if failures:
            raise failures[0]
        return "MISS" if changed else "REVALIDATED"

    def _page(
        self, record: _Record, serialization: Serialization, compressed: bool, status: Status
    ) -> Page:
        body = record.forms.get((serialization, compressed))
        if body is None:
            body = record.forms[serialization, compressed] = self._body(
                record, serialization, compressed
            )
            self._weigh(record)
        return Page(
            body,
            status,
            remaining=0.0 if status == "STALE" else self._remaining(record),
            age=self._age(record),
        )

    def _body(self, record: _Record, serialization: Serialization, compressed: bool) -> Body:
        held = [part.project() for part in record.parts if part is not None]
        projects = [project for project in held if project is not None]
        if not projects:
            raise NoSuchProject(record.name)
        project = merge.merge(projects)
        render = render_json if serialization is Serialization.JSON else render_html
        data = render(project)
        # Without a time in it, the same page compresses to the same bytes: one tag for them.
        return Body.of(gzip.compress(data, 6, mtime=0) if compressed else data)

    def _listed(self, record: _Record, filename: str) -> Listed | None:
        listed = record.files.get(filename)
        if filename not in record.files and record.usable:
            # The first index that has the name has the file, as on the merged page.
            for source, part in zip(self._sources, record.parts, strict=True):
                if part is not None and (entry := part.entry(filename)) is not None:
                    listed = Listed(entry, source.guards(entry["url"]))
                    break
            if listed is not None or len(record.files) < MISSES:
                record.files[filename] = listed
        return listed

    def _failure(self, record: _Record) -> UpstreamFailed:
        """Say why the page could not be asked for."""
        if record.failure is not None:
            return record.failure.again()
        return UpstreamFailed(self._sources[0].url, "timed out")

    def _remaining(self, record: _Record) -> float:
        parts = zip(self._sources, record.parts, strict=True)
        return min(source.remaining(part) for source, part in parts)

    def _age(self, record: _Record) -> float:
        now = self._clock.seconds()
        return max((now - part.asked_at for part in record.parts if part), default=0.0)

    def _weigh(self, record: _Record) -> None:
        """Count the bytes of a record anew."""
        if self._records.get(record.name) is not record:
            return
        self._cost -= record.cost
        record.cost = (
            OVERHEAD
            + sum(len(document) for document in record.documents if document)
            + sum(len(body.data) for body in record.forms.values())
        )
        self._cost += record.cost
        self._make_room()

    def _make_room(self) -> None:
        while self._cost > MEMORY and len(self._records) > 1:
            _, gone = self._records.popitem(last=False)
            self._cost -= gone.cost
