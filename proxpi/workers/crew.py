"""The workers, as the main process sees them: started, told, given connections, and replaced."""

from __future__ import annotations

import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import cycle
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.tcp import Port
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxpi.web.channel import Channel
from proxpi.web.known import Answer, Known
from proxpi.workers import packets, wire
from proxpi.workers.board import SLOTS, Board, Row
from proxpi.workers.packets import decode, encode
from proxpi.workers.passing import Intake, hand_over

#: Bytes of a body up to which it goes in the packet.
SMALL = 64 * 1024
#: Seconds between two starts of one worker.
PAUSE = 1.0
#: Where a worker finds its end of the wire, and the board.
WIRE, BOARD = 3, 4

_OWN = re.compile("PROXPI_|NETRC$|.*_PROXY$", re.IGNORECASE)
_log = Logger(namespace="proxpi.workers")


@attrs.define(eq=False)
class Worker(ProcessProtocol):
    """One worker, of whichever process.

    :ivar number: the first is 1
    :ivar ready: whether it accepts connections
    """

    crew: Crew
    number: int
    row: Row
    ready: bool = attrs.field(init=False, default=False)
    _wire: wire.Wire | None = attrs.field(init=False, default=None)
    _intake: Intake = attrs.field(init=False)
    _told: dict[int, set[bytes]] = attrs.field(init=False, factory=dict)
    _started_at: float = attrs.field(init=False, default=0.0)
    _ended: bool = attrs.field(init=False, default=True)

    def start(self) -> None:
        """Start its process, and tell it everything."""
        crew, reactor = self.crew, self.crew.reactor
        self._started_at = reactor.seconds()
        self._told.clear()
        self._intake = Intake(reactor, crew.site, self)
        mine, its = wire.pair()
        self._wire = wire.Wire(mine, reactor, self._receive, lambda: None)
        command = [sys.executable, "-m", "proxpi.workers.worker", *crew.arguments(self.number)]
        descriptors = {0: "w", 1: "r", 2: "r", WIRE: its.fileno(), BOARD: crew.board.descriptor}
        # What is set for the main process, passwords above all, is nothing to a worker.
        environment = {name: os.environ[name] for name in os.environ if not _OWN.match(name)}
        try:
            reactor.spawnProcess(self, sys.executable, command, environment, childFDs=descriptors)
        except OSError as error:
            self.processEnded(Failure(error))
            return
        finally:
            its.close()
        self._ended = False
        for port in crew.ports:
            self.send(packets.Listen(port.addressFamily), os.dup(port.fileno()))

    def send(self, packet: packets.Packet, descriptor: int | None = None) -> None:
        """Send a packet, and a descriptor, which is closed then."""
        if self._wire is not None:
            self._wire.send(encode(packet), descriptor)

    def knows(self, answer: Answer, head: bytes) -> bool:
        """Whether it was told of a head."""
        return head in self._told.get(answer.slot, ())

    def learn(self, answer: Answer, head: bytes) -> None:
        """Tell of a head, and of the answer to it unless it knows that."""
        slot, number = answer.slot, self.crew.board.holds[answer.slot]
        if slot not in self._told:
            self._told[slot] = set()
            self.send(*_learned(answer, slot, number))
        self._told[slot].add(head)
        self.send(packets.Head(slot, number, head))

    def drop(self, slot: int, number: int) -> None:
        """Tell that an answer does not hold any more."""
        if self._told.pop(slot, None) is not None:
            self.send(packets.Drop(slot, number))

    def take(self, channel: Channel, data: bytes) -> None:
        """Give it a connection."""
        assert self._wire is not None
        hand_over(channel, data, self._wire)

    def kill(self) -> None:
        """End its process at once."""
        if not self._ended and self.transport is not None:
            self.transport.signalProcess("KILL")

    def _receive(self, packet: bytes, descriptor: int | None) -> None:
        match decode(packet):
            case packets.Ready():
                self.ready = True
                assert self.transport is not None
                pid = self.transport.pid
                _log.info("worker {number}: process {pid} serves", number=self.number, pid=pid)
                self.crew.share()
            case packets.Lines(lines):
                for line in lines:
                    self.crew.access(line)
            case packets.Unsent() as unsent:
                self._intake.unsent(unsent)
            case packets.Connection() as connection:
                self._intake.connection(connection, descriptor)
            case packets.Doubt(slot, number):
                self.crew.doubt(slot, number)

    def connectionMade(self) -> None:
        """See `IProcessProtocol`: there is nothing for it to read."""
        assert self.transport is not None
        self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        """Log what it says: nothing, if all is well."""
        for line in data.decode("utf-8", "replace").splitlines():
            _log.warn("worker {number}: {line}", number=self.number, line=line)

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        """Let another process do its work."""
        self._ended = True
        self.ready = False
        if self._wire is not None:
            self._wire.finish()
            self._wire = None
        self.row.clear()
        self.crew.ended(self, reason, self._started_at)


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
    _drained: Deferred[None] | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self.board = Board(self.count)
        self._workers = [Worker(self, number, row) for number, row in enumerate(self.board.rows, 1)]
        self._turns = cycle(self._workers)

    def start(self, ports: Iterable[object]) -> None:
        """Start all of them, to accept connections where the main process listens."""
        known: Known = self.site.known
        known.others = self.site.others = self
        # Not those over TLS, which is above a port, nor any that its endpoint has wrapped.
        self.ports = [
            port for port in ports if isinstance(port, Port) and port.factory is self.site
        ]
        for worker in self._workers:
            worker.start()

    def arguments(self, number: int) -> list[str]:
        """Give what a worker is told on its command line."""
        return [type(self.reactor).__module__, str(self.count), str(number), str(self.room)]

    def share(self) -> None:
        """Let the workers accept connections, if any is ready; else the main process does."""
        for port in self.ports:
            if any(worker.ready for worker in self._workers):
                port.stopReading()
            elif port.connected and self._drained is None:
                port.startReading()

    def pass_on(self, channel: Channel, head: bytes, answer: Answer) -> bool:
        """See :class:`proxpi.web.crowd.Others`."""
        worker = channel.giver if isinstance(channel.giver, Worker) else self._next()
        if worker is None or not worker.ready or self._drained is not None:
            return False
        self._number(answer)
        if not worker.knows(answer, head):
            worker.learn(answer, head)
        elif channel.giver is worker:
            return False  # it cannot open the file, say
        worker.take(channel, head)
        return True

    def _next(self) -> Worker | None:
        """Give each of those that are ready in its turn."""
        turns = (next(self._turns) for _ in self._workers)
        return next((worker for worker in turns if worker.ready), None)

    def _number(self, answer: Answer) -> None:
        """Give an answer its place on the board, if it has none yet."""
        if answer.slot >= 0:
            return
        slot = answer.slot = self._free.popleft()
        self._numbers += 1
        self.board.holds[slot] = self._numbers
        self._answers[slot] = answer
        for row in self.board.rows:
            row.hits[slot] = 0
        self._places.pop(slot, None)
        if answer.held is not None:
            self._places[slot] = answer.about[-1]

    def connections(self) -> int:
        """See :class:`proxpi.web.crowd.Others`."""
        return sum(row.connections for row in self.board.rows)

    def tell(self, count: int) -> None:
        """See :class:`proxpi.web.crowd.Others`."""
        self.board.connections = count

    def sending(self) -> Iterator[str]:
        """Give the places of the files that they are sending."""
        rows = [row for row in self.board.rows if row.senders]
        for slot, place in self._places.items() if rows else ():
            if any(row.sending[slot] for row in rows):
                yield place

    def dropped(self, answer: Answer) -> None:
        """See :class:`proxpi.web.known.Others`."""
        slot = answer.slot
        if slot >= 0:
            number, self.board.holds[slot] = self.board.holds[slot], 0
            del self._answers[slot]
            for worker in self._workers:
                worker.drop(slot, number)
            self._free.append(slot)

    def hits(self, answer: Answer) -> tuple[int, float]:
        """See :class:`proxpi.web.known.Others`."""
        slot, rows = answer.slot, self.board.rows
        if slot < 0:
            return 0, 0.0
        return sum(row.hits[slot] for row in rows), max(row.used_at[slot] for row in rows)

    def doubt(self, slot: int, number: int) -> None:
        """Take note that the file of an answer could not be read."""
        answer = self._answers.get(slot)
        if answer is not None and answer.held is not None and self.board.holds[slot] == number:
            answer.held.doubt()

    def drain(self, seconds: float) -> Deferred[None]:
        """Let all of them end once they have sent what they are sending, or after that time."""
        self._drained = Deferred()
        for worker in self._workers:
            worker.send(packets.Drain(seconds))
        late = self.reactor.callLater(seconds + PAUSE, self.hurry)
        self._look()
        return self._drained.addCallback(lambda _: late.cancel() if late.active() else None)

    def hurry(self) -> None:
        """End all of them."""
        for worker in self._workers:
            worker.kill()

    def ended(self, worker: Worker, reason: Failure, started_at: float) -> None:
        """Start another process for one that has ended."""
        if self._drained is not None:
            self._look()
            return
        self.share()
        _log.warn(
            "worker {number} has ended ({reason}); another takes its place",
            number=worker.number,
            reason=reason.getErrorMessage(),
        )
        pause = max(0.0, started_at + PAUSE - self.reactor.seconds())
        self.reactor.callLater(pause, self._restart, worker)

    def _restart(self, worker: Worker) -> None:
        if self._drained is None:
            worker.start()

    def _look(self) -> None:
        assert self._drained is not None
        if not self._drained.called and all(worker._ended for worker in self._workers):
            self._drained.callback(None)


def _learned(answer: Answer, slot: int, number: int) -> tuple[packets.Learn, int | None]:
    """Give an answer as a worker is told of it, and a file with its body if that is large."""
    file, descriptor, body = None, None, answer.body
    start, stop = answer.start, answer.stop
    if answer.held is not None and answer.held.identity is not None:
        identity = answer.held.identity
        path = answer.held.path
        file = packets.File(path, identity.inode, identity.size, identity.changed_ns)
    elif len(body) > SMALL:
        descriptor = os.memfd_create("proxpi-page")
        with open(os.dup(descriptor), "wb") as memory:
            memory.write(body)
        start, stop, body = 0, len(body), b""
    told = packets.Learn(
        slot,
        number,
        answer.before,
        answer.between,
        answer.after,
        answer.fresh_until,
        body,
        file,
        start,
        stop,
        answer.line,
    )
    return told, descriptor
