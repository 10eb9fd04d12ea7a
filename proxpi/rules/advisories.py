"""The advisories in use: looked up by project, and refreshed from a feed.

A list of malicious packages changes many times a day, and must hold in an outage as well. So the
entries are kept in memory and on disk, where the start reads them before a client is served, and a
loop refreshes them. They are in one of three states:

* *unknown*: no feed was ever read. Files are served without advisories, as builds must not stop for
  a feed, and one warning is logged;
* *current*: the last refresh succeeded;
* *outdated*: the last refresh failed. The entries still count, one warning with their age is
  logged, and the feed is read again after pauses that double.

The first refresh reads the archive of all entries. Later ones read the list of entries, if that has
changed (RFC 9110 13.1), and the entries that were modified since; the archive again if too many
were. A feed without a list is read by its archive alone. A refresh that fails for single entries
uses the others.

Servers between may keep responses for an hour. So the list may be an older one than that of the
last refresh: it is ignored. And it may name a newer version of an entry than the feed sends: the
entry *lags*, and is requested again by each refresh of that hour.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from proxpi import atomic_files, metrics, quantities
from proxpi.problems import Problems, disk_remedy, upstream_remedy
from proxpi.rules import osv
from proxpi.rules.advisory_feed import ARCHIVE, LISTING, DocumentMissing, Feed, Validators
from proxpi.rules.advisory_store import AdvisoryStore, AllValidators, Copy
from proxpi.rules.osv import Advisory, FeedDamaged, Listing, Record
from proxpi.single_flight import InThread
from proxpi.upstream import UpstreamFailed, all_settled

#: Entries that are requested one by one; for more, the archive is.
MOST_SINGLE = 500
#: Requests for entries at once, and how many may fail before the others wait for the next refresh.
AT_ONCE, MOST_FAILED = 4, 10
#: Seconds of the first pause after a failure; the longest is the interval of the feed.
FIRST_PAUSE = 5.0
#: Seconds between two times that a refresh without changes is noted on disk.
TIME_INTERVAL = 300.0
#: Seconds for which an entry may lag, or an older list is ignored; and for which ``Retry-After`` is
#: heeded at most.
LAG, LONGEST_PAUSE = 3600.0, 3600.0

_FAILURES = (FeedDamaged, UpstreamFailed, OSError)
_log = Logger(namespace="proxpi.rules")


@attrs.define(eq=False, kw_only=True)
class Advisories:
    """The advisories on malicious packages.

    :ivar _excepted: the identifiers, in upper case, of entries that do not count
    :ivar wall: gives the seconds since the epoch
    :ivar changed: callbacks; each is called with the normalized names of the projects whose
        advisories have changed
    """

    _feed: Feed
    _store: AdvisoryStore
    _clock: IReactorTime
    _in_thread: InThread
    _problems: Problems
    _excepted: frozenset[str] = frozenset()
    wall: Callable[[], float] = time.time
    changed: list[Callable[[Collection[str]], object]] = attrs.field(init=False, factory=list)
    _copy: Copy | None = attrs.field(init=False, default=None)
    _error: str | None = attrs.field(init=False, default=None)
    #: Whether the entries are those on disk, and whether the disk took the last ones.
    _stored: bool = attrs.field(init=False, default=True)
    _writable: bool = attrs.field(init=False, default=True)
    #: The time on disk, as far as it was written by this process.
    _time_stored: float = attrs.field(init=False, default=float("-inf"))
    #: The time of the last list, in seconds since the epoch, as the feed stated it.
    _listed_at: float = attrs.field(init=False, default=0.0)
    #: Since when each entry lags that does, in the clock's seconds.
    _lagging: dict[str, float] = attrs.field(init=False, factory=dict)
    _running: Deferred[None] | None = attrs.field(init=False, default=None)

    @property
    def copy(self) -> Copy:
        """The entries; the first use reads those on disk."""
        # Not in a thread: it takes some 50 ms, and until then affected files would be served.
        if self._copy is None:
            self._copy = self._store.load(self._excepted)
        return self._copy

    def of(self, name: str) -> tuple[Advisory, ...]:
        """Return the advisories of a project, by its normalized name."""
        return self.copy.advisories(name)

    @property
    def age(self) -> float | None:
        """Seconds since the feed was last read whole; ``None``: never."""
        checked_at = self.copy.checked_at
        return None if checked_at is None else max(0.0, self.wall() - checked_at)

    def status(self) -> dict[str, Any]:
        """Return what ``/stats`` says of advisories, JSON.

        The age, in seconds, is null if the feed was never read; the error is null if the last
        refresh succeeded.
        """
        return {
            "source": self._feed.url,
            "entries": len(self.copy.records),
            "projects": len(self.copy.by_name),
            "age": self.age,
            "error": self._error,
        }

    def gauges(self) -> dict[metrics.Gauge, float]:
        """Return the gauges for :func:`proxpi.metrics.exposition`."""
        gauges: dict[metrics.Gauge, float] = {metrics.ADVISORIES: len(self.copy.records)}
        if (age := self.age) is not None:
            gauges[metrics.ADVISORIES_AGE] = age
        return gauges

    def start(self) -> None:
        """Read the entries on disk, and refresh them from now on, unless proxpi is offline."""
        if self.copy.checked_at is None:
            _log.warn(
                "no advisories are known yet: files are served without them until {url} is read"
                + (", which is never while proxpi is offline" if self._feed.offline else ""),
                url=self._feed.url,
            )
        else:
            _log.info(
                "advisories: {entries} entries, {age} old",
                entries=len(self.copy.records),
                age=quantities.duration(self.age or 0.0),
            )
        if not self._feed.offline:
            self._running = Deferred.fromCoroutine(self._run())

    def stop(self) -> Deferred[None] | None:
        """End the refreshes; return a Deferred of their end."""
        running, self._running = self._running, None
        if running is not None:
            running.addErrback(lambda failure: failure.trap(CancelledError) and None)
            running.cancel()
        return running

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                await self._refresh()
            except CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 (the loop must outlive any failure)
                failures += 1
                pause = self._failed(error, failures)
            else:
                failures, pause = 0, self._feed.interval
                if self._error is not None:
                    _log.info("advisories are refreshed again from {url}", url=self._feed.url)
                self._error = None
            # Varied, so that many proxies do not ask at the same time.
            await deferLater(self._clock, pause * random.uniform(1.0, 1.1))

    def _failed(self, error: Exception, failures: int) -> float:
        """Note a failure; return the seconds of the pause."""
        if not isinstance(error, _FAILURES):
            _log.failure("advisories cannot be refreshed")
        else:
            used = "files are served without them"
            if (age := self.age) is not None:
                used = f"those of {quantities.duration(age)} ago are used"
            self._problems.note(
                ("advisories", "feed"),
                f"advisories cannot be refreshed: {error}",
                used,
                upstream_remedy(error.kind) if isinstance(error, UpstreamFailed) else "",
            )
        self._error = str(error) or repr(error)
        retry_after = error.retry_after if isinstance(error, UpstreamFailed) else None
        pause = min(FIRST_PAUSE * 2.0 ** min(failures - 1, 20), self._feed.interval)
        return max(pause, min(retry_after or 0.0, LONGEST_PAUSE))

    async def _refresh(self) -> None:
        """Read what has changed in the feed; raise one of `_FAILURES`."""
        has_archive = False
        if self.copy.checked_at is None:
            with suppress(DocumentMissing):
                await self._read_archive(alone=False)
                has_archive = True
        pieces: list[bytes] = []
        known = self.copy.validators.get(LISTING, {})
        try:
            fetched = await self._feed.fetch(LISTING, pieces.append, known)
        except DocumentMissing:
            if not has_archive:
                await self._read_archive(alone=True)
            return
        if fetched is None:
            await self._confirm(self.copy.validators)
            return
        if (modified := fetched.modified or 0.0) < self._listed_at and (self.age or 0.0) < LAG:
            return
        data, ended = b"".join(pieces), fetched.ended
        listing = await self._in_thread(lambda: osv.read_listing(data, ended=ended))
        osv.vanished(self.copy.modified, listing)
        self._listed_at = modified
        if not has_archive and len(osv.changed(self.copy.modified, listing)) > MOST_SINGLE:
            with suppress(DocumentMissing):
                await self._read_archive(alone=False)
        await self._follow(listing, fetched.validators)

    async def _read_archive(self, *, alone: bool) -> None:
        """
        Read all entries of the archive.

        :param alone: whether the feed has no list: the archive tells which entries there are
        """
        copy = self.copy
        with atomic_files.temporary(self._store.path.parent) as file:
            known = copy.validators.get(ARCHIVE, {}) if alone else {}
            fetched = await self._feed.fetch(ARCHIVE, file.write, known)
            if fetched is None:
                await self._confirm(copy.validators)
                return
            read = await self._in_thread(lambda: {each.id: each for each in osv.read_archive(file)})
        records: Mapping[str, Record] = read
        if alone:
            # One that lacks too many known entries is refused, as a list is.
            osv.vanished(copy.modified, Listing({each.id: each.modified for each in read.values()}))
        else:
            records = _newest(copy.records, read.values())
        await self._replace(records, {ARCHIVE: fetched.validators})

    async def _follow(self, listing: Listing, validators: Validators) -> None:
        """Read the entries that changed, and drop those that are listed no more."""
        known = self.copy.modified
        gone = osv.vanished(known, listing)
        found, errors = await self._read_entries(osv.changed(known, listing))
        newest = _newest(self.copy.records, found)
        records = {key: record for key, record in newest.items() if key not in gone}
        for identifier in {record.id for record in found}:
            records[identifier] = self._as_listed(records[identifier], listing)
        self._lagging = {key: since for key, since in self._lagging.items() if key in records}
        # If there is more to read, the same list must be no reason to stop.
        complete = not errors and not self._lagging
        await self._replace(records, {LISTING: validators if complete else {}}, whole=not errors)
        if errors:
            raise errors[0]

    def _as_listed(self, record: Record, listing: Listing) -> Record:
        """Return an entry, with its listed time once it has lagged for too long."""
        listed, now = listing.modified[record.id], self._clock.seconds()
        if record.modified < listed:
            if now < self._lagging.setdefault(record.id, now) + LAG:
                return record
            record = Record(record.id, listed, record.affected)
        self._lagging.pop(record.id, None)
        return record

    async def _read_entries(
        self, identifiers: Sequence[str]
    ) -> tuple[list[Record], list[Exception]]:
        """Read entries, some at once; return them, and the errors of the others."""
        found: list[Record] = []
        errors: list[Exception] = []

        async def read(identifier: str) -> None:
            if len(errors) >= MOST_FAILED:
                return
            pieces: list[bytes] = []
            try:
                await self._feed.fetch(f"{identifier}.json", pieces.append, {})
                found.append(osv.read_record(b"".join(pieces), identifier))
            except _FAILURES as error:
                errors.append(error)

        turns = DeferredSemaphore(AT_ONCE)
        await all_settled(
            turns.run(lambda name: Deferred.fromCoroutine(read(name)), name) for name in identifiers
        )
        return found, errors

    async def _confirm(self, validators: AllValidators) -> None:
        """Note that the entries are those of the feed."""
        await self._replace(self.copy.records, validators)

    async def _replace(
        self, records: Mapping[str, Record], validators: AllValidators, *, whole: bool = True
    ) -> None:
        """
        Use and store these entries, and call the callbacks for the projects that they change.

        :param whole: whether the feed was read whole
        """
        old = self.copy
        checked_at = self.wall() if whole else old.checked_at
        if records == old.records and old.checked_at is not None:
            self._copy = attrs.evolve(old, checked_at=checked_at, validators=validators)
            await self._write(self._copy)
            return

        def prepare() -> tuple[Copy, list[str]]:
            copy = Copy.of(records.values(), checked_at, validators, self._excepted)
            return copy, old.differing(copy)

        copy, names = await self._in_thread(prepare)
        self._copy, self._stored = copy, False
        _log.info(
            "advisories: {entries} entries; projects whose entries have changed: {count}",
            entries=len(copy.records),
            count=len(names),
        )
        if names:
            for callback in self.changed:
                callback(names)
        await self._write(copy)

    async def _write(self, copy: Copy) -> None:
        """Write to disk: now and then the time alone, if the entries are there.

        A disk that refuses is logged once.
        """
        stored, checked_at = self._stored, copy.checked_at or 0.0
        if stored and abs(checked_at - self._time_stored) < TIME_INTERVAL:
            return

        def write() -> None:
            if stored and self._store.path.exists():  # it may have been removed since
                self._store.save_time(checked_at)
            else:
                self._store.save(copy)

        try:
            await self._in_thread(write)
            self._stored, self._time_stored, self._writable = True, checked_at, True
        except OSError as error:
            if self._writable:
                self._problems.note(
                    ("advisories", "disk"),
                    f"advisories cannot be stored: {error}",
                    "they are read again after a restart",
                    disk_remedy(error),
                )
            self._writable = False


def _newest(records: Mapping[str, Record], found: Iterable[Record]) -> dict[str, Record]:
    """Return entries, each in its newest version; of two of one time the one that was found."""
    newest = dict(records)
    for record in found:
        if record.id not in newest or newest[record.id].modified <= record.modified:
            newest[record.id] = record
    return newest
