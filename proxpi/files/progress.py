"""What the operator is told about downloads: progress, rate, waiting clients, and failures."""

from __future__ import annotations

from collections import deque

import attrs
from twisted.logger import LogLevel

from proxpi.files.resolver import FileReference
from proxpi.problems import Problems, remedy
from proxpi.upstream import UpstreamFailed

#: Seconds between two samples of a download's progress, and between its lines in the log.
INTERVAL = 10.0


@attrs.frozen
class DownloadStatus:
    """A download under way.

    :ivar project: as its client requested it, empty for a URL without a page; `filename` likewise
    :ivar index: the name of the index whose page lists the file
    :ivar size: bytes of the file, if they are known; `arrived`: those that are here
    :ivar bytes_per_second: over the last 10 to 20 seconds
    :ivar waiting: clients that wait for it or read it
    :ivar started: seconds since the epoch
    :ivar background: whether no client has asked for it yet
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
    """The rate of a download, from samples of the clock's seconds and the bytes that are here."""

    _started: float
    _samples: deque[tuple[float, int]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._samples = deque([(self._started, 0)], maxlen=2)

    def sample(self, now: float, arrived: int) -> None:
        self._samples.append((now, arrived))

    def bytes_per_second(self, now: float, arrived: int) -> float:
        at, before = self._samples[0]
        # A restart discards bytes.
        return max(0, arrived - before) / (now - at) if now > at else 0.0


def note_failure(
    problems: Problems, reference: FileReference, error: UpstreamFailed, consequence: str
) -> None:
    """Note that a file cannot be fetched; an index and a kind of failure are one problem."""
    key, text = ("file", reference.index, error.kind), f"file not downloaded: {error}"
    problems.note(key, text, consequence, remedy(error.kind), LogLevel.error)
