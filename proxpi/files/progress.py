"""The status of downloads, for log and admin page: progress, rate, waiting clients, failures."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, LogLevel

from proxpi import quantities
from proxpi.files.resolver import FileReference
from proxpi.files.spool import Spool
from proxpi.problems import Problems, upstream_remedy
from proxpi.simple import urls
from proxpi.upstream import UpstreamFailed

#: Seconds between two samples of a download's progress, and between its lines in the log.
INTERVAL = 10.0

_log = Logger(namespace="proxpi.files")


@attrs.frozen
class DownloadStatus:
    """A download under way: of a file, or of a range of one, that passes through.

    :ivar project: as its client requested it, empty for a URL without a page; `filename` likewise
    :ivar index: the name of the index whose page lists the file
    :ivar size: its bytes, if they are known; `arrived`: those that are here
    :ivar bytes_per_second: over the last 10 to 20 seconds
    :ivar waiting: clients that wait for it or read it
    :ivar started: seconds since the epoch
    :ivar background: whether no client has requested it yet
    """

    project: str
    filename: str
    index: str
    size: int | None
    arrived: int
    bytes_per_second: float
    waiting: int
    started: float
    background: bool


@attrs.define(eq=False)
class Rate:
    """
    The rate of a download, from samples of the clock's seconds and the bytes that are here.

    :param arrived: bytes that are here at its start: a full disk has a download go on in memory
    """

    _started: float
    _arrived: int = 0
    _samples: deque[tuple[float, int]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._samples = deque([(self._started, self._arrived)], maxlen=2)

    def sample(self, now: float, arrived: int) -> None:
        self._samples.append((now, arrived))

    def bytes_per_second(self, now: float, arrived: int) -> float:
        at, before = self._samples[0]
        # A restart discards bytes.
        return max(0, arrived - before) / (now - at) if now > at else 0.0


@attrs.define(eq=False)
class _Download:
    """A download under way; `waiters`: gives the clients that wait for all of it."""

    reference: FileReference
    spool: Spool
    started: float
    rate: Rate
    waiters: Callable[[], int]

    def status(self, now: float, wall: float) -> DownloadStatus:
        project, filename = self.reference.requested_as or ("", urls.filename(self.reference.url))
        start, end = self.spool.start, self.spool.end
        arrived = self.spool.arrived - start
        return DownloadStatus(
            project=project,
            filename=filename,
            index=self.reference.index,
            size=self.reference.size if end is None else end - start,
            arrived=arrived,
            bytes_per_second=self.rate.bytes_per_second(now, arrived),
            waiting=self.waiters() + self.spool.followers,
            started=wall + self.started - now,
            background=self.spool.queue.background,
        )


@attrs.define(eq=False)
class Progress:
    """The downloads under way, into the cache or passing through.

    :ivar wall: gives the seconds since the epoch
    """

    _clock: IReactorTime
    _wall: Callable[[], float]
    _under_way: list[_Download] = attrs.field(init=False, factory=list)

    @contextmanager
    def watch(
        self, reference: FileReference, spool: Spool, waiters: Callable[[], int] = lambda: 0
    ) -> Iterator[None]:
        """Watch a download, which is under way in the context."""
        started = self._clock.seconds()
        rate = Rate(started, spool.arrived - spool.start)
        download = _Download(reference, spool, started, rate, waiters)
        lines = LoopingCall(self._log, download)
        lines.clock = self._clock
        lines.start(INTERVAL, now=False)
        self._under_way.append(download)
        try:
            yield
        finally:
            lines.stop()
            self._under_way.remove(download)

    def status(self) -> list[DownloadStatus]:
        """Return the downloads under way, the oldest first."""
        now, wall = self._clock.seconds(), self._wall()
        return [each.status(now, wall) for each in self._under_way]

    def _log(self, download: _Download) -> None:
        now = self._clock.seconds()
        status, total = download.status(now, self._wall()), ""
        if status.size:
            part = quantities.percent(status.arrived / status.size)
            total = f" of {quantities.size(status.size)} ({part})"
        _log.emit(
            LogLevel.debug if status.background else LogLevel.info,
            "{file}: {arrived}{total}, {rate}/s; clients: {clients}",
            file=urls.loggable(download.reference.url),
            arrived=quantities.size(status.arrived),
            total=total,
            rate=quantities.size(status.bytes_per_second),
            clients=status.waiting,
        )
        download.rate.sample(now, status.arrived)


def note_failure(
    problems: Problems, reference: FileReference, error: UpstreamFailed, consequence: str
) -> None:
    """Note that a file cannot be fetched; an index and a kind of failure are one problem."""
    key, text = ("file", reference.index, error.kind), f"file not downloaded: {error}"
    problems.note(key, text, consequence, upstream_remedy(error.kind), LogLevel.error)
