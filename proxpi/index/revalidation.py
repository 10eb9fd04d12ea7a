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

from collections.abc import Sequence

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from proxpi.index.client import IndexClient, Part, Said
from proxpi.index.page_entry import Ask, PageEntries, PageEntry, Status
from proxpi.index.representations import Lost
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
from proxpi.single_flight import Flight, Late
from proxpi.upstream.errors import Offline, UpstreamFailed, all_settled

_log = Logger(namespace="proxpi.index")


@attrs.define(eq=False)
class Revalidation:
    """Revalidates cache entries, as many at once as are asked for."""

    _sources: Sequence[IndexClient]
    _clock: IReactorTime
    _entries: PageEntries

    def remaining(self, entry: PageEntry) -> float:
        """Seconds for which a page stays fresh."""
        parts = zip(self._sources, entry.parts, strict=True)
        return min(source.remaining(part) for source, part in parts)

    def blocked(self, entry: PageEntry) -> UpstreamFailed | None:
        """Give why no index can be asked now whose part is stale, if there is a page without it."""
        if entry.forced or not entry.usable:
            return None
        errors = [
            source.breakers.error(entry.name)
            for source, part in zip(self._sources, entry.parts, strict=True)
            if source.remaining(part) <= 0
        ]
        return next(iter(errors), None) if all(errors) else None

    async def revalidate(self, entry: PageEntry, ask: Ask) -> Status:
        """
        Revalidate a entry, as far as that can be had in time.

        :return: how: ``STALE`` if it is as it was
        :raises UpstreamFailed: if there is nothing to fall back on
        :raises Lost: if an index confirmed a page that is not there any more
        """
        if ask == "due" and self.blocked(entry):
            return "STALE"
        patience = self._patience(entry, ask)
        if patience == TRIAL_PATIENCE and not entry.progress.moves:
            # The request that is under way hangs; if it is answered yet, that counts.
            entry.refreshes.forget(ask)
            for source in entry.asked:
                entry.asks.forget(source)
        flight = entry.refreshes.join(ask, lambda: self._refresh(entry, ask))
        try:
            return await outcome(flight, self._clock, entry.progress, patience)
        except (CancelledError, Lost):
            raise
        except Late:
            error = self._note_late(flight, entry, ask, patience)
            if not entry.usable:
                raise error from None
            return "STALE"
        except Exception as error:
            if not entry.usable:
                raise
            if not isinstance(error, UpstreamFailed):
                _log.failure("page of {name}: an error of proxpi's own", name=entry.name)
            return "STALE"

    def _patience(self, entry: PageEntry, ask: Ask) -> float | None:
        """Give the seconds that a client waits for a flight; see :func:`outcome`."""
        if not entry.usable:
            return None
        trial = ask == "due" and any(
            source.breakers.half_open(entry.name)
            for source, part in zip(self._sources, entry.parts, strict=True)
            if source.remaining(part) <= 0
        )
        return TRIAL_PATIENCE if trial and not entry.forced else PATIENCE

    def _note_late(
        self, flight: Flight[Status], entry: PageEntry, ask: Ask, patience: float | None
    ) -> UpstreamFailed:
        """Let a flight go on by itself; unless bytes come, later requests do not join it."""
        error = self._sources[0].late(entry.name, flight.started)
        if entry.progress.moves:
            return error
        trial = patience == TRIAL_PATIENCE
        if not trial:
            entry.refreshes.forget(ask, flight)
        for source in entry.asked:
            # Beside a trial, another index may be asked that has not been silent for long.
            if not trial or source.breakers.error(entry.name):
                entry.asks.forget(source)
                error = source.late(entry.name, flight.started)
                self._note_failure(entry, source, error, flight.started)
        return error

    def _note_failure(
        self, entry: PageEntry, source: IndexClient, error: UpstreamFailed, since: float
    ) -> None:
        part = entry.parts[self._sources.index(source)]
        if isinstance(error, Offline) or (part is not None and part.asked_at > since):
            return  # what was asked for later has been answered well
        entry.forced = False
        if not source.breakers.fails(entry.name):
            _log.warn("page of {name}: {error}", name=entry.name, error=error.again())
        source.breakers.failed(entry.name, error, since)

    async def _refresh(self, entry: PageEntry, ask: Ask) -> Status:
        """Ask those indexes that are to be asked, and make of it what is wanted."""
        entry.progress.begin()
        answers = await all_settled(
            self._answer(entry, source, part, ask)
            for source, part in zip(self._sources, entry.parts, strict=True)
            if ask == "all" or source.remaining(part) <= 0
        )
        failures = [answer for answer in answers if isinstance(answer, UpstreamFailed)]
        said = dict(answer for answer in answers if not isinstance(answer, UpstreamFailed))
        if said:
            await self._entries.take(entry, said)
        entry.failure = failures[0].again() if failures else None
        if failures:
            raise failures[0]
        return "MISS" if any(answer.page for answer in said.values()) else "REVALIDATED"

    async def _answer(
        self, entry: PageEntry, source: IndexClient, part: Part | None, ask: Ask
    ) -> tuple[IndexClient, Said]:
        """Give what an index says; refreshes that ask it at the same time share the answer."""
        return await entry.asks.join(source, lambda: self._ask(entry, source, part, ask)).wait()

    async def _ask(
        self, entry: PageEntry, source: IndexClient, part: Part | None, ask: Ask
    ) -> tuple[IndexClient, Said]:
        """Ask one index, unless its breaker is open and there is a stale page to fall back on."""
        tries = STALE_TRIES if entry.usable else COLD_TRIES
        if entry.usable and not entry.forced:
            # A stale page is no help to a client that wants a file that it does not list.
            page = entry.name if ask == "due" else None
            if source.breakers.admit(page):
                tries = TRIAL_TRIES

        known = part

        async def ask_once() -> Said:
            nonlocal known
            since = self._clock.seconds()
            try:
                return await source.project(entry.name, known, entry.progress.heard, entry.queue)
            except UpstreamFailed as error:
                self._note_failure(entry, source, error, since)
                # Some servers fail because of the validators: the next try is without them.
                known = known and attrs.evolve(known, due=True)
                raise

        asking = Deferred.fromCoroutine(persistently(ask_once, source.breakers, self._clock, tries))
        if tries == TRIAL_TRIES and source in entry.asked:
            # The older request may be slow. Of those that follow it, few may hold connections.
            self._clock.callLater(PATIENCE, _end_unless, entry.progress, asking)
        entry.asked.append(source)
        began = self._clock.seconds()
        try:
            said = await asking
        except CancelledError:
            raise source.late(entry.name, began) from None
        finally:
            entry.asked.remove(source)
        source.breakers.succeeded(entry.name)
        return source, said


def _end_unless(moving: Progress, asking: Deferred[Said]) -> None:
    if not moving.moves:
        asking.cancel()
