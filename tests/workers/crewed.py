"""A house with two workers, all in one thread."""

from __future__ import annotations

from itertools import cycle
from typing import Any

from proxpi.workers.crew import Crew
from tests.support.workers import Process, Workplace
from tests.web.knowing import KnownCase


class CrewCase(KnownCase):
    """Tests of what two workers and a main process do together."""

    readiness = Workplace
    clock: Any
    workers = 2

    def setUp(self) -> None:
        """Start the workers."""
        self.crew: Crew | None = None
        super().setUp()
        self.lines: list[str] = []
        self.start()

    def start(self) -> None:
        """Start a crew for the site."""
        self.crew = Crew(self.clock, self.site, self.lines.append, self.workers, 1000)
        self.ending: Crew | None = self.crew
        self.crew.start([])
        self.turns = cycle(range(self.workers))
        self.settle()
        self.addCleanup(self.end)

    def end(self) -> None:
        """End the workers."""
        crew, self.ending = self.ending, None
        if crew is not None:
            if crew._drained is None:
                crew.drain(0)
            self.settle()
            crew.board.close()

    def settle(self) -> None:
        """Let everything happen that can."""
        while self.clock.turn():
            pass

    def front(self) -> Any:
        """Let the workers accept connections in turn; before there are any, the main process."""
        return self.site if self.crew is None else self.worker(next(self.turns)).front

    def worker(self, number: int) -> Process:
        """Give the process that is this worker now, from 0."""
        processes: list[Process] = self.clock.processes
        return [each for each in processes if each.number == number + 1][-1]

    @property
    def where(self) -> tuple[int, ...]:
        """How many connections the main process has, and each worker."""
        fronts = [self.site, *(self.worker(number).front for number in range(self.workers))]
        return tuple(len(front._admitted) for front in fronts)
