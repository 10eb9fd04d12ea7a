"""One worker, as the main process sees it: whichever process that is, and what it was told."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxpi.web.channel import Channel
from proxpi.web.known import Answer
from proxpi.workers import packets, wire
from proxpi.workers.board import Row
from proxpi.workers.packets import decode, encode
from proxpi.workers.passing import Intake, hand_over

if TYPE_CHECKING:
    from proxpi.workers.crew import Crew

#: Where a worker finds its end of the wire, and the board.
WIRE, BOARD = 3, 4
#: Seconds without a sign of life after which nothing is given to it, and after which it is ended.
DEAF, DEAD = 5.0, 30.0

_OWN = re.compile("PROXPI_|NETRC$|.*_PROXY$", re.IGNORECASE)
_log = Logger(namespace="proxpi.workers")


@attrs.define(eq=False)
class Worker(ProcessProtocol):
    """One worker.

    :ivar number: the first is 1
    :ivar ready: whether it accepts connections
    :ivar ended: whether there is no process at the moment
    """

    crew: Crew
    number: int
    row: Row
    ready: bool = attrs.field(init=False, default=False)
    ended: bool = attrs.field(init=False, default=True)
    _wire: wire.Wire | None = attrs.field(init=False, default=None)
    _intake: Intake = attrs.field(init=False)
    _told: set[int] = attrs.field(init=False, factory=set)
    _served: bool = attrs.field(init=False, default=False)

    def start(self) -> None:
        """Start a process for it, to listen where the main process does."""
        crew, reactor = self.crew, self.crew.reactor
        self._told.clear()
        self._served = False
        self._intake = Intake(reactor, crew.site, self)
        # -P: Python is not to look for modules where proxpi happens to have been started.
        module = "proxpi.workers.worker"
        command = [sys.executable, "-P", "-m", module, *crew.arguments(self.number)]
        # What is set for the main process, passwords above all, is nothing to a worker.
        environment = {name: os.environ[name] for name in os.environ if not _OWN.match(name)}
        try:
            mine, its = wire.pair()
            with its:
                self._wire = wire.Wire(mine, reactor, self._receive, self._lost)
                for port in crew.ports:
                    self.send(packets.Listen(port.addressFamily), os.dup(port.fileno()))
                self.send(packets.Serve())
                ends = {0: "w", 1: "r", 2: "r", WIRE: its.fileno(), BOARD: crew.board.descriptor}
                reactor.spawnProcess(self, sys.executable, command, environment, childFDs=ends)
            self.ended = False
            self.row.alive_at = reactor.seconds()
        except OSError as error:
            self.processEnded(Failure(error))

    def able(self) -> bool:
        """Whether it can be given anything."""
        return self.ready and self.silence() < DEAF

    def silence(self) -> float:
        """Give the seconds since its last sign of life; none for one that has not begun."""
        return 0.0 if self.ended else float(self.crew.reactor.seconds() - self.row.alive_at)

    def send(self, packet: packets.Packet, descriptor: int | None = None) -> None:
        """Send a packet, and a descriptor, which is closed then."""
        if self._wire is not None:
            self._wire.send(encode(packet), descriptor)
        elif descriptor is not None:
            os.close(descriptor)

    def knows(self, answer: Answer) -> bool:
        """Whether it was told of an answer."""
        return answer.number in self._told

    def learn(self, answer: Answer) -> None:
        """Tell of an answer."""
        packet, page = _learned(answer)
        self.send(packet, page)
        self._told.add(answer.number)

    def drop(self, answer: Answer) -> None:
        """Tell that an answer does not hold any more."""
        if self.knows(answer):
            self._told.remove(answer.number)
            self.send(packets.Drop(answer.slot, answer.number))

    def take(self, channel: Channel, data: bytes) -> None:
        """Give it a connection."""
        assert self._wire is not None
        hand_over(channel, data, self._wire)

    def kill(self) -> None:
        """End its process at once."""
        if not self.ended and self.transport is not None:
            with suppress(ProcessExitedAlready):
                self.transport.signalProcess("KILL")

    def _receive(self, packet: bytes, descriptor: int | None) -> None:
        match decode(packet):
            case packets.Ready():
                self.ready = self._served = True
                self.row.alive_at = self.crew.reactor.seconds()
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

    def _lost(self) -> None:
        """The process is about to end: it has closed its end, or all of them were closed for it."""
        self.ready = False
        self.crew.share()

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
        self.ended = True
        if self._wire is not None:
            self._wire.finish()
            self._wire = None
        self.ready = False
        self.row.clear()
        self.crew.replace(self, reason, served=self._served)


def _learned(answer: Answer) -> tuple[packets.Learn, int | None]:
    """Give an answer as a worker is told of it, with the descriptor of a file that has no name."""
    file = page = None
    if answer.held is not None:
        identity = answer.held.identity
        if identity is None:
            page = os.dup(answer.held.descriptor)
        else:
            path = answer.held.path
            file = packets.File(path, identity.inode, identity.size, identity.changed_ns)
    told = packets.Learn(
        answer.slot,
        answer.number,
        answer.before,
        answer.between,
        answer.after,
        answer.fresh_until,
        answer.body,
        file,
        answer.start,
        answer.stop,
        answer.line,
        answer.question,
    )
    return told, page
