"""Revalidation of project pages: one flight for all clients that wait, none where none helps.

Theory of operation
-------------------
A flight asks those indexes whose part of a page is stale, each with the validators it
gave; what they confirm is fresh again, what they change replaces the old, and the forms that are
waited for are made anew, all in one job in a thread.

A client with a stale page to fall back on waits for the flight a few seconds at most, and one
without it waits a few more, or as long as bytes keep coming. The flight goes on without them. Its
outcome updates the circuit breakers of each index (:mod:`proxpi.index.breaker`): while one is open,
a client with a stale page gets that at once, and the index is not asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar

import attrs
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from proxpi.flights import Flight, Flights, Late
from proxpi.index.press import Form, Lost, add, keep, withdraw
from proxpi.index.record import Body, Record, Records
from proxpi.index.retry import (
    COLD_TRIES,
    PATIENCE,
    STALE_TRIES,
    TRIAL_PATIENCE,
    TRIAL_TRIES,
    outcome,
    persistently,
)
from proxpi.index.source import Part, Said, Source, Work
from proxpi.index.store import digest
from proxpi.upstream.errors import Offline, UpstreamFailed, all_settled

Status = Literal["HIT", "MISS", "REVALIDATED", "STALE"]
#: Whom to ask: those whose part is stale, or all.
Ask = Literal["due", "all"]

T = TypeVar("T")
_log = Logger(namespace="proxpi.index")


@attrs.define(eq=False)
class Renewals:
    """Renews records, as many at once as are asked for."""

    _sources: Sequence[Source]
    _clock: IReactorTime
    _records: Records
    _work: Work
    _flights: Flights[tuple[Record, Ask], Status] = attrs.field(
        init=False, default=attrs.Factory(lambda self: Flights(self._clock), takes_self=True)
    )
    _presses: Flights[tuple[Record, Form], Body] = attrs.field(
        init=False, default=attrs.Factory(lambda self: Flights(self._clock), takes_self=True)
    )

    def remaining(self, record: Record) -> float:
        """Seconds for which a page stays fresh."""
        parts = zip(self._sources, record.parts, strict=True)
        return min(source.remaining(part) for source, part in parts)

    def blocked(self, record: Record) -> UpstreamFailed | None:
        """Give why no index can be asked now whose part is stale, if there is a page without it."""
        if record.wished or not record.usable:
            return None
        errors = [
            source.breakers.error(record.name)
            for source, part in zip(self._sources, record.parts, strict=True)
            if source.remaining(part) <= 0
        ]
        return next(iter(errors), None) if all(errors) else None

    async def body(self, record: Record, form: Form) -> Body:
        """
        Give a form of a page, and make it if nobody wanted it before.

        :raises Lost: if what was kept of the page is not there any more
        """
        body = self._records.body(record, form)
        if body is not None:
            return body
        return await self._presses.join((record, form), lambda: self._press(record, form)).wait()

    async def renew(self, record: Record, ask: Ask) -> Status:
        """
        Bring a record up to date, as far as that can be had in time.

        :return: how: ``STALE`` if it is as it was
        :raises UpstreamFailed: if there is nothing to fall back on
        """
        if ask == "due" and self.blocked(record):
            return "STALE"
        patience = self._patience(record, ask)
        if patience == TRIAL_PATIENCE and not record.progress.moves:
            # The request that is under way hangs; if it is answered yet, that counts.
            self._flights.forget((record, ask))
        flight = self._flights.join((record, ask), lambda: self._refresh(record, ask))
        try:
            return await outcome(flight, self._clock, record.progress, patience)
        except CancelledError:
            raise
        except Late:
            error = self._note_late(flight, record, ask, patience)
            if not record.usable:
                raise error from None
            return "STALE"
        except Exception as error:
            if not record.usable:
                raise
            if not isinstance(error, UpstreamFailed):
                _log.failure("page of {name}: an error of proxpi's own", name=record.name)
            return "STALE"

    def _patience(self, record: Record, ask: Ask) -> float | None:
        """Give the seconds that a client waits for a flight; see :func:`outcome`."""
        if not record.usable:
            return None
        trial = ask == "due" and any(
            source.breakers.half_open(record.name)
            for source, part in zip(self._sources, record.parts, strict=True)
            if source.remaining(part) <= 0
        )
        return TRIAL_PATIENCE if trial and not record.wished else PATIENCE

    def _note_late(
        self, flight: Flight[Status], record: Record, ask: Ask, patience: float | None
    ) -> UpstreamFailed:
        """Let a flight go on by itself; unless bytes come, later requests do not join it."""
        error = self._sources[0].late(record.name, flight.started)
        if record.progress.moves or patience == TRIAL_PATIENCE:
            return error
        self._flights.forget((record, ask), flight)
        for source in record.asked:
            error = source.late(record.name, flight.started)
            self._note_failure(record, source, error, flight.started)
        return error

    def _note_failure(
        self, record: Record, source: Source, error: UpstreamFailed, since: float
    ) -> None:
        part = record.parts[self._sources.index(source)]
        if isinstance(error, Offline) or (part is not None and part.asked_at > since):
            return  # what was asked for later has been answered well
        record.wished = False
        if not source.breakers.fails(record.name):
            _log.warn("page of {name}: {error}", name=record.name, error=error.again())
        source.breakers.failed(record.name, error, since)

    async def _refresh(self, record: Record, ask: Ask) -> Status:
        """Ask those indexes that are to be asked, and make of it what is wanted."""
        record.progress.begin()
        answers = await all_settled(
            self._ask(record, source, part, ask)
            for source, part in zip(self._sources, record.parts, strict=True)
            if ask == "all" or source.remaining(part) <= 0
        )
        failures = [answer for answer in answers if isinstance(answer, UpstreamFailed)]
        said = dict(answer for answer in answers if not isinstance(answer, UpstreamFailed))
        try:
            if said:
                await self._take(record, said)
        except Lost:
            # What was confirmed is not there any more: whoever waits finds another record, and asks
            # for that without a condition.
            self._records.lose(record)
        record.failure = failures[0].again() if failures else None
        if failures:
            raise failures[0]
        return "MISS" if any(answer.page for answer in said.values()) else "REVALIDATED"

    async def _ask(
        self, record: Record, source: Source, part: Part | None, ask: Ask
    ) -> tuple[Source, Said]:
        """Ask one index, unless its breaker is open and there is a stale page to fall back on."""
        tries = STALE_TRIES if record.usable else COLD_TRIES
        if record.usable and not record.wished:
            # A stale page is no help to a client that wants a file that it does not list.
            page = record.name if ask == "due" else None
            if source.breakers.admit(page):
                tries = TRIAL_TRIES

        async def ask_once() -> Said:
            since = self._clock.seconds()
            try:
                return await source.project(record.name, part, record.progress.heard)
            except UpstreamFailed as error:
                self._note_failure(record, source, error, since)
                raise

        record.asked.append(source)
        try:
            said = await persistently(ask_once, source.breakers, self._clock, tries)
        finally:
            record.asked.remove(source)
        source.breakers.succeeded(record.name)
        return source, said

    async def _take(self, record: Record, said: Mapping[Source, Said]) -> None:
        """Take over what indexes said, in memory and on disk."""
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
            if not self._records.lives(record):
                return  # forgotten meanwhile, and so is this
            wanted, record.wanted = record.wanted, set()
            before = record.stored
            named = self._records.named(parts)
            after, made = await self._kept(
                record,
                lambda: keep(self._records.store, record.name, before, named, pages, wanted),
            )
            if before is None or after is None or before.documents != after.documents:
                record.forms.clear()
                record.files.clear()
            record.parts, record.stored = parts, after
            self._records.changed(record.name)
            record.forms |= {form: _body(made[form.name]) for form in wanted if form.name in made}
            self._records.weigh(record)
        finally:
            record.lock.release()

    async def _press(self, record: Record, form: Form) -> Body:
        await record.lock.acquire()
        try:
            kept, named = record.stored, self._records.named(record.parts)
            if kept is None:
                raise Lost(record.name)
            after, data = await self._kept(
                record, lambda: add(self._records.store, record.name, kept, named, form)
            )
            if record.stored is kept:
                record.stored = after
            body = record.forms[form] = _body(data)
            self._records.weigh(record)
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
            kept, named = record.stored, self._records.named(record.parts)
            if kept is None:
                return
            record.stored = await self._kept(
                record, lambda: withdraw(self._records.store, record.name, kept, named, filename)
            )
            record.forms.clear()
            self._records.changed(record.name)
            self._records.weigh(record)
        finally:
            record.lock.release()

    async def _kept(self, record: Record, job: Callable[[], T]) -> T:
        """Let a job keep something of a record."""
        done: T = await self._work(job)
        if not self._records.lives(record):
            # Everything was forgotten meanwhile, but for what the job has just put there.
            self._records.store.remove(record.name)
        return done


def _body(data: bytes) -> Body:
    return Body(data, digest(data))
