"""Numbers that the main process and its workers see at the same time, in shared memory.

Each number is written by one process alone: the main one crosses out answers, and a worker counts
in a row of its own, in which the main one writes only what no worker counts any more. A number is
eight bytes at a multiple of eight, which a processor writes in one go; so nobody sees half of one,
and nothing has to be locked.
"""

from __future__ import annotations

import mmap
import os
from typing import Any

#: Answers that may stand on the board. Twice as many as are kept: one that was crossed out is not
#: written over for a while, since a worker may be about to count.
SLOTS = 16_384
_BYTES = 8
_TOTALS = 3


class Row:
    """The numbers of one worker.

    :ivar hits: how often it gave an answer, by slot
    :ivar used_at: when it did so last; the reactor's seconds, which are those of the machine
    :ivar sending: how many clients it is sending an answer's file to
    """

    def __init__(self, memory: memoryview, start: int) -> None:
        def numbers(place: int, kind: str, count: int) -> Any:
            begin = start + place * SLOTS * _BYTES
            return memory[begin : begin + count * _BYTES].cast(kind)  # type: ignore[call-overload]

        self.hits = numbers(0, "Q", SLOTS)
        self.used_at = numbers(1, "d", SLOTS)
        self.sending = numbers(2, "Q", SLOTS)
        self._totals = numbers(3, "Q", _TOTALS)
        self._times = numbers(3, "d", _TOTALS)

    @property
    def connections(self) -> int:
        """How many connections it has."""
        return int(self._totals[0])

    @connections.setter
    def connections(self, count: int) -> None:
        self._totals[0] = count

    @property
    def alive_at(self) -> float:
        """When it last did something, as it does at least each second."""
        return float(self._times[2])

    @alive_at.setter
    def alive_at(self, now: float) -> None:
        self._times[2] = now

    @property
    def senders(self) -> int:
        """Of how many answers it is sending the file."""
        return int(self._totals[1])

    @senders.setter
    def senders(self, count: int) -> None:
        self._totals[1] = count

    def hit(self, slot: int, now: float) -> None:
        """Count an answer that was given."""
        self.hits[slot] += 1
        self.used_at[slot] = now

    def clear(self) -> None:
        """Count no connections, and nothing that is being sent: the worker is gone."""
        self.connections = self.senders = 0
        self.sending[:] = memoryview(bytes(SLOTS * _BYTES)).cast("Q")


class Board:
    """All of the numbers.

    :ivar descriptor: of the memory, to be given to a worker
    :ivar holds: by slot, the number of the answer that holds; 0 if none does
    :ivar rows: those of the workers
    :ivar connections: how many the main process has
    """

    def __init__(self, workers: int, descriptor: int | None = None) -> None:
        """
        :param descriptor: that of a board that another process has made; a new one is made without
        """
        row = (3 * SLOTS + _TOTALS) * _BYTES
        size = SLOTS * _BYTES + _BYTES + workers * row
        if descriptor is None:
            descriptor = os.memfd_create("proxpi-board")
            os.ftruncate(descriptor, size)
        self.descriptor = descriptor
        memory = memoryview(mmap.mmap(descriptor, size))
        self.holds: Any = memory[: SLOTS * _BYTES].cast("Q")
        self._main: Any = memory[SLOTS * _BYTES : SLOTS * _BYTES + _BYTES].cast("Q")
        begin = SLOTS * _BYTES + _BYTES
        self.rows = [Row(memory, begin + number * row) for number in range(workers)]

    def close(self) -> None:
        """Let go of the descriptor; the memory goes with the process."""
        os.close(self.descriptor)

    @property
    def connections(self) -> int:
        """How many connections the main process has."""
        return int(self._main[0])

    @connections.setter
    def connections(self, count: int) -> None:
        self._main[0] = count
