"""The statistics: the document that ``/stats`` sends as JSON, and that the admin page renders.

``docs/stats.rst`` describes the document. Times are texts (RFC 3339, UTC), durations seconds, sizes
bytes. The parts of proxpi give their own values; here they get the names of the document. The state
of proxpi is a pure function of these values.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import attrs
import msgspec

from proxpi import __version__, metrics, quantities
from proxpi.config import InForce, ViewSettings
from proxpi.files import CacheDir, DownloadStatus
from proxpi.history import History, Series
from proxpi.index import Index, IndexStatus
from proxpi.metrics import Totals
from proxpi.problems import Problem
from proxpi.rules import Exclusion, Exclusions
from proxpi.single_flight import InThread
from proxpi.web.admin.inventory import (
    BeingCounted,
    Inventory,
    PageCounts,
    ProjectRow,
    Snapshot,
    file_name,
    moment,
)

#: The version of the document: of another one, names differ or mean something else.
VERSION = 1
#: Seconds of the periods of the traffic.
NOW, DAY, MONTH = 300.0, 86_400.0, 30 * 86_400.0
#: Seconds for which a problem is part of the state.
RECENT = 600.0

Level = Literal["ok", "degraded", "failing"]


# The document


class Process(msgspec.Struct, frozen=True):
    """The process; `memory_bytes`: in use (RSS), ``None`` where the system does not tell."""

    version: str
    started: str | None
    uptime_seconds: float
    memory_bytes: int | None


class ServiceState(msgspec.Struct, frozen=True):
    """Whether proxpi serves, as a level and in words."""

    level: Level
    sentence: str


class Traffic(msgspec.Struct, frozen=True):
    """The traffic of a period; `hit_ratio`: ``None`` without requests with content."""

    requests: int
    from_cache: int
    errors: int
    hit_ratio: float | None
    sent_bytes: int
    saved_bytes: int
    saved_seconds: float
    received_bytes: int
    upstream_requests: int


class Periods(msgspec.Struct, frozen=True):
    """The traffic of the last 5 minutes, 24 hours and 30 days."""

    now: Traffic
    day: Traffic
    month: Traffic


class ChartSeries(msgspec.Struct, frozen=True):
    """The traffic of consecutive steps; the last one is not over."""

    step_seconds: int
    start: str | None
    requests: list[int]
    from_cache: list[int]
    saved_bytes: list[int]
    saved_seconds: list[float]
    errors: list[int]


class Charts(msgspec.Struct, frozen=True):
    """The last 24 hours in steps of 5 minutes, and the last 30 days in steps of an hour."""

    day: ChartSeries
    month: ChartSeries


class IndexRow(msgspec.Struct, frozen=True):
    """An index; `pages`: ``None`` while the cached pages are being counted."""

    name: str
    url: str
    kind: str
    state: str
    failing_since: str | None
    error: str | None
    next_try: str | None
    latency_seconds: float | None
    ttl_seconds: float
    pages: PageCounts | None


class ViewRow(msgspec.Struct, frozen=True):
    """A view with the names of its indexes in order of precedence."""

    name: str
    indexes: Sequence[str]


class DownloadRow(msgspec.Struct, frozen=True):
    """A download under way; `size`: ``None`` if it is unknown; `waiting`: clients."""

    project: str
    file: str
    index: str
    size: int | None
    arrived: int
    bytes_per_second: float
    waiting: int
    started: str | None
    background: bool


class Prefetching(msgspec.Struct, frozen=True):
    """Requests ahead of those of clients; `under_way`: for which projects."""

    under_way: list[str]
    sent: int
    used: int
    wasted: int


class ProblemRow(msgspec.Struct, frozen=True):
    """A problem: what happened, what follows from it, and what to do."""

    text: str
    consequence: str
    remedy: str
    count: int
    first: str | None
    last: str | None


class EvictedRow(msgspec.Struct, frozen=True):
    """A file that was evicted."""

    file: str
    bytes: int
    at: str | None


class CacheUsage(msgspec.Struct, frozen=True):
    """The cache folder; `evicted`: files since the start."""

    folder: str
    used_bytes: int
    capacity_bytes: int
    files: int
    evicted: int
    last_evicted: list[EvictedRow]
    most_used: list[ProjectRow]
    biggest: list[ProjectRow]


class ExcludedRow(msgspec.Struct, frozen=True):
    """A file that a rule excludes, perhaps until it is available."""

    project: str
    file: str
    rule: str
    available: str | None


class SettingRow(msgspec.Struct, frozen=True):
    """A setting in force, without secrets."""

    variable: str
    value: str
    source: str


class Document(msgspec.Struct, frozen=True):
    """All statistics; `excluded`: all of the excluded files, or those that were noted last."""

    version: int
    proxpi: Process
    state: ServiceState
    traffic: Periods
    history: Charts
    indexes: list[IndexRow]
    views: list[ViewRow]
    waiting: int
    downloads: list[DownloadRow]
    prefetching: Prefetching
    problems: list[ProblemRow]
    cache: CacheUsage
    excluded_files: int
    excluded: list[ExcludedRow]
    advisories: dict[str, Any] | None
    settings: list[SettingRow]


@attrs.frozen(eq=False, kw_only=True)
class Statistics:
    """Makes the document.

    :ivar waiting: gives the number of requests that wait for an upstream
    :ivar downloads: gives those under way; `prefetching`: the projects of requests under way
    :ivar advisories: gives the status of the advisories, if they count
    :ivar folder_reason: a sentence that says why the cache folder cannot be read, if so
    :ivar started: when the process was started: the clock's seconds
    :ivar seconds: gives the clock's seconds; `wall`: those since the epoch
    """

    indexes: Sequence[Index]
    views: Sequence[ViewSettings]
    settings: Sequence[InForce]
    history: History
    inventory: Inventory
    cache_dir: CacheDir
    problems: Iterable[Problem]
    waiting: Callable[[], int]
    downloads: Callable[[], Iterable[DownloadStatus]]
    prefetching: Callable[[], Iterable[str]]
    exclusions: Exclusions
    in_thread: InThread
    advisories: Callable[[], dict[str, Any]] | None
    folder_reason: Callable[[], Awaitable[str | None]]
    started: float
    seconds: Callable[[], float]
    wall: Callable[[], float]

    async def document(self, most_excluded: int | None = None) -> Document:
        """
        Make the document as of now; the inventory may be older.

        :param most_excluded: of the excluded files, how many are in it at most; ``None``: all
        """
        snapshot = None
        with suppress(BeingCounted):
            snapshot = await self.inventory.snapshot()
        unreadable = await self.folder_reason()
        wall, uptime = self.wall(), self.seconds() - self.started
        self.history.sample()
        windows = [self.history.window(span) for span in (NOW, DAY, MONTH)]
        statuses = [index.status() for index in self.indexes]
        problems, excluded = list(self.problems), list(self.exclusions)
        shown = excluded[-(most_excluded or len(excluded)) :]
        return Document(
            version=VERSION,
            proxpi=Process(__version__, moment(wall - uptime), round(uptime, 3), memory()),
            state=state(
                statuses,
                unreadable=unreadable,
                writable=self.cache_dir.writable,
                problems=sum(each.degrades and wall - each.last < RECENT for each in problems),
                day=windows[1],
            ),
            traffic=Periods(*map(_traffic, windows)),
            history=Charts(
                _series(self.history.series("day")), _series(self.history.series("month"))
            ),
            indexes=[_index(each, snapshot) for each in statuses],
            views=[ViewRow(each.name, each.indexes) for each in self.views],
            waiting=self.waiting(),
            downloads=[_download(each) for each in self.downloads()],
            prefetching=_prefetching(self.prefetching()),
            problems=[_problem(each) for each in problems],
            cache=_cache(self.cache_dir, snapshot),
            excluded_files=len(excluded),
            # There may be 10,000, whose days take 0.1 s to write.
            excluded=await self.in_thread(lambda: [_excluded(*each) for each in shown]),
            advisories=self.advisories() if self.advisories is not None else None,
            settings=[SettingRow(each.variable, each.value, each.source) for each in self.settings],
        )


def memory() -> int | None:
    """Return the bytes of memory that the process uses; ``None`` where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def state(
    indexes: Sequence[IndexStatus],
    *,
    unreadable: str | None = None,
    writable: bool,
    problems: int,
    day: Totals,
) -> ServiceState:
    """
    Say whether proxpi serves.

    ====================================  ========  ==============================================
    Situation                             Level     The sentence begins
    ====================================  ========  ==============================================
    all indexes respond                   ok        Serving; 2 of 2 indexes reachable
    none was asked yet                    ok        Serving; no index was asked yet
    ``PROXPI_OFFLINE``                    ok        Serving what is cached; offline
    an index of several fails             degraded  Serving; 1 of 2 indexes reachable (own fails)
    the cache folder cannot be read       degraded  … ; the cache folder cannot be read: …
    the cache folder refuses files        degraded  … ; the cache folder cannot be written
    another problem in the last minutes   degraded  … ; 1 problem in the last 10 minutes
    all indexes fail                      failing   Serving only what is cached; no index is
                                                    reachable
    ====================================  ========  ==============================================

    :param unreadable: a sentence that says why the cache folder cannot be read, if so
    :param writable: whether the cache folder took the last file
    :param problems: how many degraded the service in the last minutes
    """
    failing = [each.name for each in indexes if each.state == "failing"]
    level: Level = "ok"
    if failing or problems or unreadable or not writable:
        level = "failing" if failing and len(failing) == len(indexes) else "degraded"
    parts = list(_reachable(indexes, failing))
    if unreadable:
        parts.append(f"{unreadable[:1].lower()}{unreadable[1:].rstrip('.')}")
    elif not writable:
        parts.append("the cache folder cannot be written")
    elif problems and not failing:
        parts.append(f"{quantities.counted(problems, 'problem')} in the last 10 minutes")
    if (ratio := day.hit_ratio) is not None:
        parts.append(f"{quantities.percent(ratio)} of requests from the cache in the last 24 hours")
    if day.saved_bytes:
        parts.append(f"{quantities.size(day.saved_bytes)} not downloaded")
    return ServiceState(level, "; ".join(parts))


def _reachable(indexes: Sequence[IndexStatus], failing: Sequence[str]) -> Iterator[str]:
    states = [each.state for each in indexes]
    number, unknown = len(states), states.count("unknown")
    fails = f"{', '.join(failing)} fail{'s' * (len(failing) == 1)}"
    if failing and len(failing) == number:
        yield "Serving only what is cached"
        yield "no index is reachable" if number > 1 else "the index is not reachable"
    elif "offline" in states:
        yield "Serving what is cached"
        yield "offline"
        if failing:
            yield fails
    else:
        yield "Serving"
        if unknown == number:
            yield "no index was asked yet" if number > 1 else "the index was not asked yet"
        elif number == 1:
            yield "the index is reachable"
        else:
            also = f" ({fails})" if failing else ""
            asked = f", {unknown} not asked yet" if unknown else ""
            yield f"{number - unknown - len(failing)} of {number} indexes reachable{also}{asked}"


def _traffic(totals: Totals) -> Traffic:
    return Traffic(
        requests=int(totals.requests),
        from_cache=int(totals.from_cache),
        errors=int(totals.errors),
        hit_ratio=None if totals.hit_ratio is None else round(totals.hit_ratio, 4),
        sent_bytes=int(totals.sent_bytes),
        saved_bytes=int(totals.saved_bytes),
        saved_seconds=round(totals.saved_seconds, 3),
        received_bytes=int(totals.received_bytes),
        upstream_requests=int(totals.upstream_requests),
    )


def _series(series: Series) -> ChartSeries:
    return ChartSeries(
        step_seconds=series.step,
        start=moment(series.start),
        requests=[int(each.requests) for each in series.rows],
        from_cache=[int(each.from_cache) for each in series.rows],
        saved_bytes=[int(each.saved_bytes) for each in series.rows],
        saved_seconds=[round(each.saved_seconds, 3) for each in series.rows],
        errors=[int(each.errors) for each in series.rows],
    )


def _index(status: IndexStatus, snapshot: Snapshot | None) -> IndexRow:
    return IndexRow(
        name=status.name,
        url=status.url,
        kind=status.kind,
        state=status.state,
        failing_since=moment(status.failing_since or 0),
        error=status.error,
        next_try=moment(status.next_try or 0),
        latency_seconds=status.latency,
        ttl_seconds=status.ttl,
        pages=snapshot.counts.get(status.name) if snapshot is not None else None,
    )


def _download(status: DownloadStatus) -> DownloadRow:
    return DownloadRow(
        project=status.project,
        file=status.filename,
        index=status.index,
        size=status.size,
        arrived=status.arrived,
        bytes_per_second=round(status.bytes_per_second, 1),
        waiting=status.waiting,
        started=moment(status.started),
        background=status.background,
    )


def _prefetching(under_way: Iterable[str]) -> Prefetching:
    sent, used, wasted = (
        int(metrics.PREFETCH_REQUESTS.labels(outcome).value)
        for outcome in ("sent", "used", "wasted")
    )
    return Prefetching(sorted(set(under_way)), sent, used, wasted)


def _problem(problem: Problem) -> ProblemRow:
    return ProblemRow(
        text=problem.text,
        consequence=problem.consequence,
        remedy=problem.remedy,
        count=problem.count,
        first=moment(problem.first),
        last=moment(problem.last),
    )


def _excluded(project: str, file: str, exclusion: Exclusion) -> ExcludedRow:
    return ExcludedRow(project, file, exclusion.rule, exclusion.available)


def _cache(cache_dir: CacheDir, snapshot: Snapshot | None) -> CacheUsage:
    quota = cache_dir.quota
    return CacheUsage(
        folder=os.fsencode(cache_dir.folder).decode("utf-8", "backslashreplace"),
        used_bytes=quota.used,
        capacity_bytes=quota.capacity,
        files=len(quota.eviction_index),
        evicted=int(metrics.EVICTED.value),
        last_evicted=[
            EvictedRow(file_name(each.path), each.size, moment(each.at))
            for each in quota.last_evicted
        ],
        most_used=snapshot.most_used if snapshot is not None else [],
        biggest=snapshot.biggest if snapshot is not None else [],
    )
