"""The workers, as the main process sees them: started, given connections, watched, and replaced."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import cycle
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.tcp import Port
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxpi.web.channel import Channel
from proxpi.web.known import Answer, Known
from proxpi.workers import packets
from proxpi.workers.board import SLOTS, Board
from proxpi.workers.member import DEAD, Worker

#: Seconds from the end of a process to the start of the one that takes its place: at least, and at
#: most, if process after process ends before it serves.
PAUSE, LONGEST_PAUSE = 1.0, 60.0
#: Seconds from one look at all of them to the next.
LOOK = 1.0

_log = Logger(namespace="proxpi.workers")


@attrs.define(eq=False)
class Crew:
    """All workers of one proxpi.

    :ivar reactor: Twisted's
    :ivar site: answers what they hand over
    :ivar access: writes a line of the access log
    :ivar room: for how many connections there are descriptors
    """

    reactor: Any
    site: Any
    access: Callable[[str], object]
    count: int
    room: int
    board: Board = attrs.field(init=False)
    ports: Sequence[Port] = attrs.field(init=False, default=())
    _workers: list[Worker] = attrs.field(init=False)
    _turns: Iterator[Worker] = attrs.field(init=False)
    _free: deque[int] = attrs.field(init=False, factory=lambda: deque(range(SLOTS)))
    _numbers: int = attrs.field(init=False, default=0)
    # By slot, until it is written over: whatever is being sent of it.
    _places: dict[int, str] = attrs.field(init=False, factory=dict)
    _answers: dict[int, Answer] = attrs.field(init=False, factory=dict)
    _pauses: dict[Worker, float] = attrs.field(init=False, factory=dict)
    _watching: LoopingCall = attrs.field(init=False)
    _looked_at: float = attrs.field(init=False, default=0.0)
    _drained: Deferred[None] | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self.board = Board(self.count)
        self._workers = [Worker(self, number, row) for number, row in enumerate(self.board.rows, 1)]
        self._turns = cycle(self._workers)

    def start(self, ports: Iterable[object]) -> None:
        """Start all of them, to accept connections where the main process listens."""
        known: Known = self.site.known
        known.others = self.site.others = self
        # Not those over TLS, which is above a port, nor any that its endpoint has wrapped; nor Unix
        # sockets, whose names each process would look after.
        self.ports = [
            port
            for port in ports
            if isinstance(port, Port)
            and port.factory is self.site
            and port.addressFamily in (socket.AF_INET, socket.AF_INET6)
        ]
        for worker in self._workers:
            worker.start()
        self._watching = LoopingCall(self._watch)
        self._watching.clock = self.reactor
        self._looked_at = self.reactor.seconds()
        self._watching.start(LOOK, now=False)

    def _watch(self) -> None:
        """End those that give no sign of life; until then, others do their work."""
        now = self.reactor.seconds()
        late, self._looked_at = now > self._looked_at + 2 * LOOK, now
        for worker in self._workers:
            # Unless this process did not run either: all of them were paused.
            if not late and worker.silence() > DEAD:
                _log.error("worker {number} hangs, and is ended", number=worker.number)
                worker.kill()
        self.share()

    def arguments(self, number: int) -> list[str]:
        """Give what a worker is told on its command line."""
        told = (self.count, number, self.room, self.site.known.files)
        return [type(self.reactor).__module__, *map(str, told)]

    def share(self) -> None:
        """Let the workers accept connections, if any is ready; else the main process does."""
        for port in self.ports:
            if any(worker.able() for worker in self._workers):
                port.stopReading()
            elif port.connected and self._drained is None:
                port.startReading()

    def pass_on(self, channel: Channel, head: bytes, answer: Answer) -> bool:
        """See :class:`proxpi.web.crowd.Processes`."""
        worker = channel.giver if isinstance(channel.giver, Worker) else self._next()
        if worker is None or not worker.able() or self._drained is not None:
            return False
        self._number(answer)
        if not worker.knows(answer):
            try:
                worker.learn(answer)
            except (OSError, ValueError):  # no descriptor left; or a path that is no text
                return False
        elif channel.giver is worker:
            worker.drop(answer)  # it does not have it any more, or could not open the file
            return False
        worker.take(channel, head)
        return True

    def _next(self) -> Worker | None:
        """Give each of those that are able in its turn."""
        turns = (next(self._turns) for _ in self._workers)
        return next((worker for worker in turns if worker.able()), None)

    def _number(self, answer: Answer) -> None:
        """Give an answer its place on the board, if it has none yet."""
        if answer.slot >= 0:
            return
        slot = answer.slot = self._free.popleft()
        self._numbers += 1
        self.board.holds[slot] = answer.number = self._numbers
        self._answers[slot] = answer
        for row in self.board.rows:
            row.hits[slot] = 0
        self._places.pop(slot, None)
        if answer.of_disk:
            self._places[slot] = answer.about[-1]

    def connections(self) -> int:
        """See :class:`proxpi.web.crowd.Processes`."""
        return sum(row.connections for row in self.board.rows)

    def tell(self, count: int) -> None:
        """See :class:`proxpi.web.crowd.Processes`."""
        self.board.connections = count

    def sending(self) -> Iterator[str]:
        """Give the places of the files that they are sending."""
        rows = [row for row in self.board.rows if row.senders]
        for slot, place in self._places.items() if rows else ():
            if any(row.sending[slot] for row in rows):
                yield place

    def dropped(self, answer: Answer) -> None:
        """See :class:`proxpi.web.known.Givers`."""
        slot = answer.slot
        if slot >= 0:
            self.board.holds[slot] = 0
            del self._answers[slot]
            for worker in self._workers:
                worker.drop(answer)
            self._free.append(slot)

    def hits(self, answer: Answer) -> tuple[int, float]:
        """See :class:`proxpi.web.known.Givers`."""
        slot, rows = answer.slot, self.board.rows
        if slot < 0:
            return 0, 0.0
        return sum(row.hits[slot] for row in rows), max(row.used_at[slot] for row in rows)

    def doubt(self, slot: int, number: int) -> None:
        """Take note that the file of an answer could not be read."""
        answer = self._answers.get(slot)
        if answer is not None and answer.held is not None and answer.number == number:
            answer.held.doubt()

    def drain(self, seconds: float) -> Deferred[None]:
        """Let all of them end once they have sent what they are sending, or after that time."""
        self._drained = Deferred()
        self._watching.stop()
        for worker in self._workers:
            worker.send(packets.Drain(seconds))
        late = self.reactor.callLater(seconds + PAUSE, self.hurry)
        self._look()
        return self._drained.addCallback(lambda _: late.cancel() if late.active() else None)

    def hurry(self) -> None:
        """End all of them."""
        for worker in self._workers:
            worker.kill()

    def replace(self, worker: Worker, reason: Failure, *, served: bool) -> None:
        """Start another process for one that has ended; later each time, if it never served."""
        if self._drained is not None:
            self._look()
            return
        self.share()
        pause = PAUSE if served else min(2 * self._pauses.get(worker, PAUSE / 2), LONGEST_PAUSE)
        self._pauses[worker] = pause
        _log.warn(
            "worker {number} has ended ({reason}); another takes its place in {pause:g} s",
            number=worker.number,
            reason=reason.getErrorMessage(),
            pause=pause,
        )
        self.reactor.callLater(pause, self._restart, worker)

    def _restart(self, worker: Worker) -> None:
        if self._drained is None:
            worker.start()

    def _look(self) -> None:
        assert self._drained is not None
        if not self._drained.called and all(worker.ended for worker in self._workers):
            self._drained.callback(None)
