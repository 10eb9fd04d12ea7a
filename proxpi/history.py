"""The history of the traffic, for charts: the counts of each minute, 5 minutes and hour.

The metrics of a process begin at zero with each start, and most proxies run without Prometheus. So
:class:`History` samples :func:`proxpi.metrics.totals` each minute and adds the difference to the
*slot* of the present minute, of the present 5 minutes and of the present hour. A slot is a number
of steps since the epoch, in UTC. Each of these *resolutions* has a fixed number of slots: a further
one replaces the one that is farthest from it in time. So a wall clock that jumps does not let the
history grow, and replaces one slot for each slot in which it was wrong.

A small file keeps the slots: written whole, every 5 minutes and at the stop, in a thread. Its first
line has the format and a digest of the rest, which is the slots as JSON. A damaged file, or that of
another program, is ignored. A folder that cannot be written leaves the history in memory. Where two
processes share a cache folder, the file has the history of the one that wrote it last.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter, sub
from pathlib import Path
from typing import Literal

import attrs
import msgspec
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from proxpi import atomic_files
from proxpi.metrics import Totals
from proxpi.single_flight import InThread

#: The beginning of the file; the number is the version of the rest.
FORMAT = b"proxpi history 1"
#: Bytes of the longest file that is read; one with all slots has some 100 KiB.
LONGEST = 4 << 20
#: Seconds between two samples, and samples between two writes of the file.
SAMPLE_INTERVAL, SAMPLES_PER_WRITE = 60.0, 5

FIELDS = tuple(field.name for field in attrs.fields(Totals))
_values = attrgetter(*FIELDS)
_log = Logger(namespace="proxpi")


def add(totals: Iterable[Totals]) -> Totals:
    return Totals(*map(sum, zip(*map(_values, totals), strict=True)))


def difference(later: Totals, earlier: Totals) -> Totals:
    return Totals(*map(sub, _values(later), _values(earlier)))


@attrs.frozen
class Series:
    """Consecutive slots; the last one is the present one, which still grows.

    :ivar step: seconds of a slot
    :ivar start: when the first slot began, in seconds since the epoch
    """

    step: int
    start: int
    rows: tuple[Totals, ...]


@attrs.define(eq=False)
class Slots:
    """The slots of one resolution, by number: those in which something was counted.

    :ivar step: seconds of a slot
    :ivar most: how many are kept
    """

    step: int
    most: int
    _slots: dict[int, Totals] = attrs.field(init=False, factory=dict)

    def add(self, number: int, more: Totals) -> None:
        self._slots[number] = add([self._slots.get(number, Totals()), more])
        if len(self._slots) > self.most:
            del self._slots[max(self._slots, key=lambda each: abs(each - number))]

    def series(self, now: float, count: int) -> Series:
        """Return the last slots of a time, in seconds since the epoch."""
        first = int(now // self.step) - count + 1
        rows = tuple(self._slots.get(number, Totals()) for number in range(first, first + count))
        return Series(self.step, first * self.step, rows)

    def dump(self) -> list[list[int | float]]:
        return [[number, *_values(self._slots[number])] for number in sorted(self._slots)]


class _Content(msgspec.Struct):
    """The file: the names of the values of a slot, and the slots by step: number, then values."""

    fields: list[str]
    slots: dict[int, list[list[int | float]]]


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest()[:32].encode()


def _encode(resolutions: Iterable[Slots]) -> bytes:
    content = _Content([*FIELDS], {each.step: each.dump() for each in resolutions})
    rest = msgspec.json.encode(content)
    return b"%b %b\n%b" % (FORMAT, _digest(rest), rest)


def _decode(data: bytes) -> Mapping[int, list[tuple[int, Totals]]]:
    """Return the slots of a file, by step; raises :exc:`ValueError`."""
    head, _, rest = data.partition(b"\n")
    if head != b"%b %b" % (FORMAT, _digest(rest)):
        raise ValueError("it is damaged, or not one of this version")
    content = msgspec.json.decode(rest, type=_Content)

    def totals(values: list[int | float]) -> Totals:
        # Another release may know fewer values, or more.
        known = dict(zip(content.fields, values, strict=True))
        return Totals(**{name: known.get(name, 0) for name in FIELDS})

    return {
        step: [(int(number), totals(values)) for number, *values in rows]
        for step, rows in content.slots.items()
    }


@attrs.define(eq=False, kw_only=True)
class History:
    """Samples the totals, from `start` to `stop`.

    :ivar path: the file; ``None`` keeps the history in memory alone
    :ivar totals: gives the totals since the process was started
    :ivar wall: gives the seconds since the epoch
    """

    _path: Path | None
    _totals: Callable[[], Totals]
    _clock: IReactorTime
    _in_thread: InThread
    _wall: Callable[[], float] = time.time
    _counted: Totals = attrs.field(init=False)
    _hour: Slots = attrs.field(init=False, factory=lambda: Slots(60, 60))
    _day: Slots = attrs.field(init=False, factory=lambda: Slots(300, 288))
    _month: Slots = attrs.field(init=False, factory=lambda: Slots(3600, 720))
    _sampling: LoopingCall = attrs.field(init=False)
    _samples: int = attrs.field(init=False, default=0)
    # Held while the file is read or written.
    _lock: DeferredLock = attrs.field(init=False, factory=DeferredLock)
    _writable: bool = attrs.field(init=False, default=True)

    def __attrs_post_init__(self) -> None:
        self._counted = self._totals()
        self._sampling = LoopingCall(self._sample_and_write)
        self._sampling.clock = self._clock

    @property
    def _resolutions(self) -> tuple[Slots, ...]:
        return self._hour, self._day, self._month

    def start(self) -> None:
        if self._path is not None:
            self._lock.run(self._read, self._path)
        self._sampling.start(SAMPLE_INTERVAL, now=False)

    def stop(self) -> Deferred[None] | None:
        if self._sampling.running:
            self._sampling.stop()
        self.sample()
        return self._write()

    def window(self, seconds: float) -> Totals:
        """Return the counts of the last seconds, to the step of their slots."""
        enough = [each for each in self._resolutions if each.step * each.most >= seconds]
        slots = enough[0] if enough else self._month
        count = min(-int(-seconds // slots.step), slots.most)
        return add(slots.series(self._wall(), count).rows)

    def series(self, span: Literal["day", "month"]) -> Series:
        """Return the samples of the last 24 hours, or 30 days."""
        slots = {"day": self._day, "month": self._month}[span]
        return slots.series(self._wall(), slots.most)

    def sample(self) -> None:
        """Add the counts since the last sample."""
        totals = self._totals()
        more, self._counted = difference(totals, self._counted), totals
        if any(_values(more)):
            now = self._wall()
            for slots in self._resolutions:
                slots.add(int(now // slots.step), more)

    def _sample_and_write(self) -> None:
        self.sample()
        self._samples += 1
        # A disk that hangs gets no further writes.
        if self._samples % SAMPLES_PER_WRITE == 0 and not self._lock.locked:
            self._write()

    def _write(self) -> Deferred[None] | None:
        return None if self._path is None else self._lock.run(self._write_to, self._path)

    def _write_to(self, path: Path) -> Deferred[None]:
        data = _encode(self._resolutions)

        def write() -> OSError | None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                atomic_files.write_whole(path, data)
            except OSError as error:
                return error
            return None

        return self._in_thread(write).addCallback(self._written)

    def _written(self, error: OSError | None) -> None:
        if error is not None and self._writable:
            _log.warn(
                "{path} cannot be written: {error}; the history of the traffic is in memory alone",
                path=self._path,
                error=error,
            )
        self._writable = error is None

    def _read(self, path: Path) -> Deferred[None]:
        def read() -> Mapping[int, list[tuple[int, Totals]]] | OSError | ValueError:
            try:
                with open(path, "rb") as file:
                    return _decode(file.read(LONGEST))
            except FileNotFoundError:
                return {}
            except (OSError, ValueError) as error:  # msgspec's errors are ValueErrors
                return error

        return self._in_thread(read).addCallback(self._loaded)

    def _loaded(self, found: Mapping[int, list[tuple[int, Totals]]] | Exception) -> None:
        """Add the slots of the file to those of this process, which may have begun already."""
        if isinstance(found, Exception):
            _log.warn("{path} is ignored: {error}", path=self._path, error=found)
            return
        for slots in self._resolutions:
            for number, totals in found.get(slots.step, ()):
                slots.add(number, totals)
