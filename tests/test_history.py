"""The history of the traffic: slots, windows and series, over restarts and jumps of the clock."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from proxpi import history
from proxpi.history import History, Series, Slots
from proxpi.metrics import Totals
from proxpi.single_flight import InThread
from tests.support.cases import FolderCase, at_once
from tests.support.logs import logged

DAY = 86_400.0
#: The beginning of an hour, in seconds since the epoch.
NOON = 1_800_000_000.0 // 3600 * 3600


def numbers(series: Series) -> dict[int, float]:
    """Return the requests of the slots that have some, by their distance from the present one."""
    last = len(series.rows) - 1
    return {n - last: row.requests for n, row in enumerate(series.rows) if row.requests}


class Held:
    """Threads that do not run until they are let."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def __call__(self, job: Callable[[], Any], /) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.jobs.append((job, done))
        return done

    def run(self) -> None:
        job, done = self.jobs.pop(0)
        try:
            done.callback(job())
        except Exception:  # noqa: BLE001 (as threads do)
            done.errback(Failure())


class Process:
    """A process that counts requests, and keeps their history."""

    def __init__(self, path: Path | None, wall: float, in_thread: InThread = at_once) -> None:
        self.clock = Clock()
        self.offset = wall
        self.counted = Totals()
        self.history = History(
            path=path,
            totals=lambda: self.counted,
            clock=self.clock,
            in_thread=in_thread,
            wall=lambda: self.offset + self.clock.seconds(),
        )
        self.history.start()

    def count(self, requests: int, **more: float) -> None:
        values = attrs.asdict(self.counted)
        for name, value in ({"requests": requests} | more).items():
            values[name] += value
        self.counted = Totals(**values)

    def window(self, seconds: float) -> Totals:
        self.history.sample()
        return self.history.window(seconds)

    def series(self, span: Literal["day", "month"]) -> Series:
        self.history.sample()
        return self.history.series(span)

    def run(self, minutes: int) -> None:
        self.clock.pump([60.0] * minutes)


class SlotTests(FolderCase):
    """The slots of one resolution."""

    def test_same_slot(self) -> None:
        """A slot adds up all that was counted in its time."""
        slots = Slots(60, 10)
        slots.add(7, Totals(requests=1, saved_seconds=0.5))
        slots.add(7, Totals(requests=2, saved_seconds=0.25))
        assert slots.series(7 * 60.0, 1).rows == (Totals(requests=3, saved_seconds=0.75),)

    def test_bound(self) -> None:
        """One slot too many replaces the oldest one."""
        slots = Slots(60, 3)
        for number in range(1, 6):
            slots.add(number, Totals(requests=number))
        assert [row[0] for row in slots.dump()] == [3, 4, 5]

    def test_series(self) -> None:
        """A series begins with the first slot of its span; slots without traffic are zeros."""
        slots = Slots(60, 10)
        slots.add(100, Totals(requests=5))
        series = slots.series(102 * 60.0 + 59.9, 4)
        assert (series.step, series.start) == (60, 99 * 60)
        assert [row.requests for row in series.rows] == [0, 5, 0, 0]


class HistoryTests(FolderCase):
    """The samples."""

    def setUp(self) -> None:
        super().setUp()
        self.path = self.folder / ".proxpi" / "history"

    def test_differences(self) -> None:
        """Each minute a sample counts what has come since the one before."""
        process = Process(None, NOON)
        process.count(3)
        process.run(10)
        assert process.history.window(DAY).requests == 3
        process.count(4)
        assert numbers(process.series("day")) == {-2: 3, 0: 4}
        assert numbers(process.series("month")) == {0: 7}

    def test_earlier_counts(self) -> None:
        """The history leaves out the counts before its start."""
        made = History(
            path=None,
            totals=lambda: Totals(requests=9),
            clock=Clock(),
            in_thread=at_once,
            wall=lambda: NOON,
        )
        made.sample()
        assert made.window(DAY) == Totals()

    def test_windows(self) -> None:
        """A window has the last minutes, hours or days, and all values."""
        process = Process(None, NOON)
        process.count(1, saved_bytes=100, saved_seconds=1.5)
        process.run(90)
        process.count(2)
        process.run(20)
        process.count(4)
        totals = {seconds: process.window(seconds).requests for seconds in (300, 3600, DAY)}
        assert totals == {300: 4, 3600: 6, DAY: 7}
        expected = Totals(requests=7, saved_bytes=100, saved_seconds=1.5)
        assert process.window(30 * DAY) == expected
        assert process.window(1000 * DAY) == expected

    def test_old_slots(self) -> None:
        """Traffic leaves the day after 24 hours, and the month after 30 days."""
        process = Process(None, NOON)
        process.count(1)
        process.run(24 * 60)
        assert process.window(DAY).requests == 0
        assert process.window(30 * DAY).requests == 1
        process.clock.advance(29 * DAY)
        assert process.window(30 * DAY).requests == 0

    def test_restart(self) -> None:
        """The next process continues the history of one that has stopped."""
        first = Process(self.path, NOON)
        first.count(5, saved_seconds=0.5)
        self.result(first.history.stop() or Deferred())
        second = Process(self.path, NOON + 600)
        second.count(2)
        assert numbers(second.series("day")) == {-2: 5, 0: 2}
        assert second.window(DAY) == Totals(requests=7, saved_seconds=0.5)
        assert self.leftovers() == []

    def test_kill(self) -> None:
        """A process that is killed loses 5 minutes at most."""
        first = Process(self.path, NOON)
        first.count(5)
        first.run(5)
        first.count(1)
        first.run(4)
        second = Process(self.path, NOON + 540)
        assert second.window(DAY).requests == 5

    def test_slots_before_the_file_is_read(self) -> None:
        """The reactor does not wait for the file; the slots in it are added to those since."""
        Process(self.path, NOON).history.stop()
        first = Process(self.path, NOON)
        first.count(5)
        first.history.stop()
        held = Held()
        second = Process(self.path, NOON + 60, held)
        second.count(2)
        second.run(10)
        assert second.window(DAY).requests == 2
        assert len(held.jobs) == 1, "nothing is written before the file is read"
        held.run()
        assert second.window(DAY).requests == 7

    def test_a_disk_that_hangs(self) -> None:
        """Not more than one write waits for a disk, and the last one is that of the stop."""
        held = Held()
        process = Process(self.path, NOON, held)
        held.run()
        for _ in range(4):
            process.count(1)
            process.run(5)
        assert len(held.jobs) == 1
        stopped = process.history.stop()
        assert stopped is not None
        self.pending(stopped)
        held.run()
        held.run()
        self.result(stopped)
        assert Process(self.path, NOON + 1200).window(DAY).requests == 4

    def test_a_clock_that_was_wrong(self) -> None:
        """A wall clock that jumps forth and back ousts no more slots than it was wrong for."""
        process = Process(self.path, NOON)
        for _ in range(288):
            process.count(1)
            process.run(5)
        for wrong in (-50 * 365 * DAY, 10 * 365 * DAY):
            process.offset += wrong
            process.count(1)
            process.run(5)
            process.offset -= wrong
        process.run(1)
        assert process.window(DAY).requests >= 283
        assert process.window(DAY).requests <= 288
        process.history.stop()
        size = self.path.stat().st_size
        for _ in range(100):
            process.offset += 100 * DAY
            process.count(1)
            process.run(1)
        process.history.stop()
        assert self.path.stat().st_size < 2 * size

    def test_slots_of_the_future(self) -> None:
        """A file that was written while the clock was ahead leaves space for the present."""
        ahead = Process(self.path, NOON + 1000 * DAY)
        for _ in range(300):
            ahead.count(1)
            ahead.run(5)
        ahead.history.stop()
        process = Process(self.path, NOON)
        for _ in range(10):
            process.count(1)
            process.run(5)
        assert sum(numbers(process.series("day")).values()) == 10

    def damaged(self, data: bytes) -> list[str]:
        """Write a file, and return what a process says that finds it."""
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_bytes(data)
        with logged("proxpi") as log:
            process = Process(self.path, NOON)
        assert process.window(30 * DAY) == Totals()
        process.count(1)
        process.history.stop()
        assert Process(self.path, NOON).window(DAY).requests == 1
        return log.lines

    def test_damaged(self) -> None:
        """A damaged or foreign file is ignored with one line, and written anew."""
        first = Process(self.path, NOON)
        first.count(5)
        first.history.stop()
        whole = self.path.read_bytes()
        rest = b'{"fields":["requests"],"slots":{"60":[[]]}}'
        odd = b"%b %b\n%b" % (history.FORMAT, history._digest(rest), rest)
        for data in (b"", b"something else\n", whole[:-5], whole.replace(b"5", b"6"), odd):
            assert len(self.damaged(data)) == 1, data[:80]

    def test_other_values(self) -> None:
        """A file of a release with other values is read: values that it lacks are 0."""
        number = int(NOON) // 60
        rest = b'{"fields":["requests","later"],"slots":{"60":[[%d,3,8]],"7":[[1,2,3]]}}' % number
        self.path.parent.mkdir()
        self.path.write_bytes(b"%b %b\n%b" % (history.FORMAT, history._digest(rest), rest))
        assert Process(self.path, NOON).window(60) == Totals(requests=3)

    def test_a_folder_that_cannot_be_written(self) -> None:
        """Without a folder for the file the history is in memory; that is logged once."""
        self.path.parent.write_bytes(b"")
        process = Process(self.path, NOON)
        process.count(1)
        with logged("proxpi") as log:
            process.run(20)
            process.history.stop()
        assert process.window(DAY).requests == 1
        assert len(log.lines) == 1, log.text

    def test_size(self) -> None:
        """With all slots in use the file is small."""
        process = Process(self.path, NOON)
        for _ in range(720):
            process.count(1234, sent_bytes=10**11, saved_bytes=10**11, saved_seconds=12.345)
            process.clock.advance(3600.0)
        process.history.stop()
        assert os.stat(self.path).st_size < history.LONGEST / 10
