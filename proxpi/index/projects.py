"""The root list: every project of every index, without an object per project.

Theory of operation
-------------------
The public list has several hundred thousand names and tens of megabytes, so nothing here holds
it. What an index says goes from its connection into a file of names (``list_intake``); several
such files are merged into one (``list_names``); a form that a client wants is made of that once,
and then sent from its own file. All of that is held (``list_contents``), and kept over a restart
(``list_folder``).

An index is asked again when what it said is over its time, and may confirm it. If it fails, what
it said last stands in for it; if it never said anything, there is no list: one without the names
of an index would be a lie.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from proxpi.index import list_intake
from proxpi.index.client import IndexClient, Part, Work
from proxpi.index.list_contents import Contents
from proxpi.index.list_folder import Form, ListFile, ListFolder, Share
from proxpi.index.page_entry import Status
from proxpi.index.retry import (
    COLD_TRIES,
    PATIENCE,
    STALE_TRIES,
    TRIAL_PATIENCE,
    TRIAL_TRIES,
    Progress,
    outcome,
    persistently,
)
from proxpi.simple.listing import NotListed
from proxpi.simple.negotiate import Serialization
from proxpi.single_flight import Flight, Flights, Late
from proxpi.upstream.errors import Offline, UpstreamFailed, all_settled
from proxpi.upstream.pool import Upstream

#: Seconds for which nobody asks for a list that could not be written.
FULL = 60.0

#: The list, as the circuit breakers of an index name it.
ROOT = ""
#: The names of all indexes, after where they come from.
Refreshed = tuple[Status, ListFile | None]

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
class Projects:
    """The root list of all indexes together.

    :ivar folder: tells where it is kept; ``None``: nowhere, in files without names
    :ivar wall: tells the seconds since the epoch
    """

    _sources: Sequence[IndexClient]
    _upstream: Upstream
    _clock: IReactorTime
    _folder: ListFolder = attrs.field(converter=ListFolder)
    _work: Work
    _wall: Callable[[], float] = time.time
    _held: Contents = attrs.field(
        init=False,
        default=attrs.Factory(
            lambda self: Contents(self._sources, self._clock, self._folder, self._work, self._wall),
            takes_self=True,
        ),
    )
    _wanted: set[Form] = attrs.field(init=False, factory=set)
    # Whether an operator wants it asked for, and nobody has tried since.
    _forced: bool = attrs.field(init=False, default=False)
    # Why it could not be written, and until when nobody tries again.
    _full: tuple[tuple[int | None, str | None], float] | None = attrs.field(
        init=False, default=None
    )
    _asked: list[IndexClient] = attrs.field(init=False, factory=list)
    _progress: Progress = attrs.field(init=False, factory=Progress)
    _flights: Flights[None, Refreshed] = attrs.field(
        init=False, default=attrs.Factory(lambda self: Flights(self._clock), takes_self=True)
    )

    def ready(self, serialization: Serialization, compressed: bool) -> ProjectList | None:
        """Give the list without waiting: a fresh one, or an old one where waiting is of no use."""
        file = self._held.forms.get((serialization, compressed))
        if file is None:
            return None
        if self._held.remaining > 0:
            return self._list(file, "HIT")
        return self._list(file, "STALE") if self._blocked() else None

    async def fetch(self, serialization: Serialization, compressed: bool) -> ProjectList:
        """
        Give the list, asking the indexes for it if need be.

        :raises NoSuchList: if none of them has one
        :raises UpstreamFailed: if one of them failed and there is nothing to stand in for it
        """
        form = serialization, compressed
        await self._held.load()
        status: Status = "HIT"
        names = self._held.names
        if self._held.remaining <= 0:
            self._wanted.add(form)
            status, names = await self._revalidated()
        if names is None:
            raise NoSuchList()
        found = self._list(names, status)
        return attrs.evolve(found, file=await self._held.form(names, form))

    def forget(self) -> None:
        """
        Ask for the list again before it is used again, except in an outage.

        :raises OSError: as :meth:`proxpi.index.list_contents.Contents.forget`
        """
        self._held.forget()
        self._forced = True
        self._full = None
        self._flights.forget(None)

    def clear(self) -> Deferred[None]:
        """Forget the list for good; see :meth:`proxpi.index.list_contents.Contents.clear`."""
        cleared = self._held.clear()
        self._flights.forget(None)
        return cleared

    @property
    def _stale(self) -> list[IndexClient]:
        """The indexes whose part of the list is stale."""
        return [each for each in self._sources if each.remaining(self._held.part(each)) <= 0]

    def _blocked(self) -> bool:
        """Tell whether no index can be asked now whose part is stale."""
        return not self._forced and all(source.breakers.error(ROOT) for source in self._stale)

    def _list(self, file: ListFile, status: Status) -> ProjectList:
        remaining = 0.0 if status == "STALE" else self._held.remaining
        return ProjectList(file, status, remaining, max(0.0, self._held.age))

    async def _revalidated(self) -> Refreshed:
        """Ask those indexes whose part is stale, as far as that can be had in time."""
        # Also if the list is removed before the flight lands.
        fallback = self._held.names
        usable = fallback is not None
        if usable and self._blocked():
            return "STALE", fallback
        if self._full is not None and self._clock.seconds() < self._full[1]:
            if usable:
                return "STALE", fallback
            raise OSError(*self._full[0])
        patience = None
        if usable:
            trial = any(source.breakers.half_open(ROOT) for source in self._stale)
            patience = TRIAL_PATIENCE if trial and not self._forced else PATIENCE
        if patience == TRIAL_PATIENCE and not self._progress.moves:
            # The request that is under way hangs; if it is answered yet, that counts.
            self._flights.forget(None)
        flight = self._flights.join(None, self._refresh)
        try:
            return await outcome(flight, self._clock, self._progress, patience)
        except CancelledError:
            raise
        except Late:
            error = self._note_late(flight, patience)
            if not usable:
                raise error from None
        except Exception as error:
            if isinstance(error, OSError):
                self._note_full(error)
            if not usable or isinstance(error, NotListed):
                raise
            if not isinstance(error, (UpstreamFailed, OSError)):
                _log.failure("project list: an error of proxpi's own")
        return "STALE", self._held.names or fallback

    def _note_late(self, flight: Flight[Refreshed], patience: float | None) -> UpstreamFailed:
        """Let a flight go on by itself; unless bytes come, later requests do not join it."""
        error = self._sources[0].late(ROOT, flight.started)
        if self._progress.moves:
            return error
        trial = patience == TRIAL_PATIENCE
        if not trial:
            self._flights.forget(None, flight)
        for source in self._asked:
            # Beside a trial, another index may be asked that has not been silent for long.
            if not trial or source.breakers.error(ROOT):
                error = source.late(ROOT, flight.started)
                self._note_failure(source, error, flight.started)
        return error

    def _note_full(self, error: OSError) -> None:
        """See to it that nobody fetches a list, over and over, that cannot be written."""
        now = self._clock.seconds()
        if self._full is None or now >= self._full[1]:
            _log.error("project list: it cannot be written: {error}", error=str(error))
            self._full = (error.errno, error.strerror), now + FULL

    def _note_failure(self, source: IndexClient, error: UpstreamFailed, since: float) -> None:
        if isinstance(error, Offline):
            return
        self._forced = False
        if not source.breakers.fails(ROOT):
            _log.warn("project list: {error}", error=error.again())
        source.breakers.failed(ROOT, error, since)

    async def _refresh(self) -> Refreshed:
        """Ask the indexes whose part is stale, and make one list of all."""
        self._progress.begin()
        generation, before = self._held.generation, self._held.shares
        asked = self._stale
        answers = await all_settled(self._ask(source) for source in asked)
        said = {
            source: answer
            for source, answer in zip(asked, answers, strict=True)
            if not isinstance(answer, UpstreamFailed)
        }
        names = None
        if said:
            self._progress.heard(0)
            names = await self._held.take(said, generation, before)
        for answer in answers:
            if isinstance(answer, UpstreamFailed):
                raise answer
        new = any(
            share.names is not None
            and (source not in before or share.names is not before[source].names)
            for source, share in said.items()
        )
        return "MISS" if new else "REVALIDATED", names

    async def _ask(self, source: IndexClient) -> Share:
        """Ask one index, unless its breaker is open and there is a stale part to fall back on."""
        share = self._held.shares.get(source)
        tries = STALE_TRIES if share is not None else COLD_TRIES
        if share is not None and not self._forced and source.breakers.admit(ROOT):
            tries = TRIAL_TRIES

        async def ask_once() -> Share:
            since = self._clock.seconds()
            try:
                return await self._ask_once(source, share, since)
            except UpstreamFailed as error:
                self._note_failure(source, error, since)
                raise

        self._asked.append(source)
        try:
            said = await persistently(ask_once, source.breakers, self._clock, tries)
        finally:
            self._asked.remove(source)
        source.breakers.succeeded(ROOT)
        return said

    async def _ask_once(self, source: IndexClient, share: Share | None, asked_at: float) -> Share:
        part = share.part if share is not None else None
        served = part is not None and part.served
        async with source.answer(source.url, part, asked_at) as answer:
            self._progress.heard(0)
            source.root.note(answer.status)
            if answer.status == 304 and share is not None and share.part.validators():
                return attrs.evolve(share, part=attrs.evolve(share.part, asked_at=asked_at))
            # A list that was there does not go away; some hosts hide it from old credentials.
            if source.lacks(answer.status, served) and not (served and source.private):
                return Share(Part(False, asked_at, served=served), None)
            source.check(answer)
            # With only one index its names are those of the list.
            wanted = list(self._wanted) if len(self._sources) == 1 else []
            self._wanted.clear()
            names, forms = await list_intake.take(
                answer,
                self._upstream,
                source.work,
                self._folder.draft,
                self._progress.heard,
                wanted,
            )
            etag, last_modified = answer.header("ETag"), answer.header("Last-Modified")
            return Share(Part(True, asked_at, etag, last_modified, served=True), names, forms)
