"""Renewing what is known of a project: one flight for all who wait, and none for who need not.

Theory of operation
-------------------
A flight asks those indexes whose part of a page is over its time, each with the validators it
gave; what they confirm is renewed, what they change replaces the old, and the forms that are
waited for are made anew, all in one job in a thread.

A client that could have an old page waits for the flight a few seconds at most, and one that
could not waits a few more, or as long as bytes keep coming. The flight goes on without them.
What comes of it all is told to the :class:`proxpi.index.health.Health` of each index; while that
knows of trouble, nobody asks the index but its probe, unless there is nothing to fall back on.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from proxpi.flights import Flight, Late
from proxpi.index.patience import COLD_TRIES, STALE_TRIES, outcome, persistently
from proxpi.index.press import Lost
from proxpi.index.record import Ask, Record, Records, Status
from proxpi.index.source import Part, Said, Source
from proxpi.upstream.errors import Offline, UpstreamFailed, all_settled

_log = Logger(namespace="proxpi.index")


@attrs.define(eq=False)
class Renewals:
    """Renews records, as many at once as are asked for."""

    _sources: Sequence[Source]
    _clock: IReactorTime
    _records: Records

    def remaining(self, record: Record) -> float:
        """Seconds for which a page stays fresh."""
        parts = zip(self._sources, record.parts, strict=True)
        return min(source.remaining(part) for source, part in parts)

    def in_trouble(self, record: Record) -> bool:
        """Tell whether asking is of no use: every index that would be asked is in trouble."""
        return not record.wished and all(
            self.trouble(source, record.name) is not None
            for source, part in zip(self._sources, record.parts, strict=True)
            if source.remaining(part) <= 0
        )

    def trouble(self, source: Source, name: str) -> UpstreamFailed | None:
        """Say why there is no point in asking an index for a project now, if there is none."""
        return source.health.trouble(name, lambda: self._probe(name))

    async def renew(self, record: Record, ask: Ask) -> Status:
        """
        Bring a record up to date, as far as that can be had in time.

        :return: how: ``STALE`` if it is as it was
        :raises UpstreamFailed: if there is nothing to fall back on
        :raises Lost: if an index confirmed a page that is not there any more
        """
        if record.usable and ask == "due" and self.in_trouble(record):
            return "STALE"
        flight = record.refreshes.join(ask, lambda: self._refresh(record, ask))
        try:
            return await outcome(flight, self._clock, record.progress, fallback=record.usable)
        except (CancelledError, Lost):
            raise
        except Late:
            error = self._note_late(flight, record, ask)
            if not record.usable:
                raise error from None
            return "STALE"
        except Exception as error:
            if not record.usable:
                raise
            if not isinstance(error, UpstreamFailed):
                _log.failure("page of {name}: an error of proxpi's own", name=record.name)
            return "STALE"

    def _note_late(self, flight: Flight[Status], record: Record, ask: Ask) -> UpstreamFailed:
        """Let a flight go on by itself; if nothing comes of it, who asks next need not join it."""
        error = self._sources[0].late(flight.started)
        if record.progress.moves:
            return error
        record.refreshes.forget(ask, flight)
        for source in record.asked:
            record.asks.forget(source)
            error = source.late(flight.started)
            self._note_failure(record, source, error, flight.started)
        return error

    def _note_failure(
        self, record: Record, source: Source, error: UpstreamFailed, since: float
    ) -> None:
        part = record.parts[self._sources.index(source)]
        if part is not None and part.asked_at > since:
            return  # what was asked for later has been answered well
        name = record.name
        record.wished = False
        if not source.health.fails(name):
            _log.warn("page of {name}: {error}", name=name, error=error.again())
        source.health.failed(name, error, since, lambda: self._probe(name))

    async def _probe(self, name: str) -> None:
        """Find out whether the indexes that are in trouble have come out of it."""
        record = self._records.get(name)
        flight = record.refreshes.join("troubled", lambda: self._refresh(record, "troubled"))
        try:
            await outcome(flight, self._clock, record.progress, fallback=record.usable)
        except Late:
            self._note_late(flight, record, "troubled")
        except Lost:
            self._records.lose(record)

    async def _refresh(self, record: Record, ask: Ask) -> Status:
        """Ask those indexes that are to be asked, and make of it what is wanted."""
        record.progress.begin()
        answers = await all_settled(
            self._answer(record, source, part, ask)
            for source, part in zip(self._sources, record.parts, strict=True)
            if ask == "all"
            or (ask == "due" and source.remaining(part) <= 0)
            or (ask == "troubled" and source.health.fails(record.name))
        )
        failures = [answer for answer in answers if isinstance(answer, UpstreamFailed)]
        said = dict(answer for answer in answers if not isinstance(answer, UpstreamFailed))
        if said:
            await self._records.take(record, said)
        record.failure = failures[0].again() if failures else None
        if failures:
            raise failures[0]
        return "MISS" if any(answer.page for answer in said.values()) else "REVALIDATED"

    async def _answer(
        self, record: Record, source: Source, part: Part | None, ask: Ask
    ) -> tuple[Source, Said]:
        """Give what an index says; refreshes that ask it at the same time share the answer."""
        return await record.asks.join(source, lambda: self._ask(record, source, part, ask)).wait()

    async def _ask(
        self, record: Record, source: Source, part: Part | None, ask: Ask
    ) -> tuple[Source, Said]:
        """Ask one index, unless it is known to be of no use and something can stand in for it."""
        usable = record.usable
        if usable and ask != "troubled" and not record.wished:
            trouble = self.trouble(source, record.name)
            if trouble is not None:
                raise trouble
        tries = STALE_TRIES if usable else COLD_TRIES
        since = self._clock.seconds()
        record.asked.append(source)
        try:
            said = await persistently(
                lambda: source.project(record.name, part, record.progress.heard),
                source.health,
                self._clock,
                1 if ask == "troubled" else tries,
            )
        except UpstreamFailed as error:
            if not isinstance(error, Offline):
                self._note_failure(record, source, error, since)
            raise
        finally:
            record.asked.remove(source)
        source.health.succeeded()
        return source, said
