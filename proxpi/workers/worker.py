"""One worker: a process that gives ready answers, and hands over whatever else comes.

The main process starts it (:mod:`proxpi.workers.member`) and tells it all that it knows. It knows
nothing of indexes, nor of what goes out, and asks nobody anything. This is the only place
besides :mod:`proxpi.tap` where parts meet: those of a worker.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

from proxpi.files.checks import Identity
from proxpi.files.copies import Copy, Held
from proxpi.files.folder import open_file
from proxpi.web.channel import Channel
from proxpi.web.crowd import Crowd
from proxpi.web.heads import Question
from proxpi.web.known import Answer, Known
from proxpi.workers import packets
from proxpi.workers.board import Board, Row
from proxpi.workers.member import BOARD, WIRE
from proxpi.workers.packets import decode, encode
from proxpi.workers.passing import Intake, hand_over
from proxpi.workers.wire import LARGEST, Wire

#: Seconds after which lines of the access log are told at the latest.
DELAY = 0.1
#: Seconds between two signs of life.
LIVING = 1.0
#: Seconds after which it is looked again whether all has been told.
FLUSH = 0.01


class Porch(Channel):
    """A connection on which ready answers are given, and nothing else."""

    def _parse(self, data: bytes, asked: Question | None = None) -> None:
        if self._handlingRequest:
            super()._parse(data)  # keeps it until the answer that is being sent has gone
        elif data and not self.site.draining:
            self.site.tell_lines()  # of what was answered before that
            hand_over(self, data, self.site.wire)


class Learned(Known):
    """The answers that this worker was told of."""

    def __init__(self, board: Board, files: int) -> None:
        super().__init__(files)
        self._board = board
        self._slots: dict[int, Answer] = {}

    def holds(self, answer: Answer, now: float) -> bool:
        """Tell whether an answer may be given now: whether it stands on the board, above all."""
        return self._board.holds[answer.slot] == answer.number and super().holds(answer, now)

    def keep(self, answer: Answer) -> None:
        """Keep an answer."""
        self._slots[answer.slot] = answer
        super().keep(answer)

    def forget(self, answer: Answer) -> None:
        """Give an answer no more."""
        super().forget(answer)
        if self._slots.get(answer.slot) is answer:
            del self._slots[answer.slot]

    def drop_slot(self, slot: int, number: int) -> None:
        """Let go of an answer."""
        answer = self._slots.get(slot)
        if answer is not None and answer.number == number:
            self.forget(answer)


class Front(Crowd, ServerFactory):
    """The server of one worker."""

    protocol = Porch
    noisy = False

    def __init__(
        self, reactor: Any, end: socket.socket, board: Board, row: Row, room: int, files: int
    ) -> None:
        """
        :param end: of the wire to the main process
        :param row: this worker's
        :param room: for how many connections there are descriptors
        :param files: for how many files that are kept open
        """
        super().__init__(reactor, room)
        self._reactor = reactor
        self._board = board
        self._row = row
        self._lines: list[str] = []
        self._ports: list[Any] = []
        self._intake = Intake(reactor, self, None)
        self._senders = _Senders(row)
        self.known = Learned(board, files)
        self.wire = Wire(end, reactor, self._receive, _end)
        self._live()

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """See `IProtocolFactory`."""
        channel: Any = Porch()  # type: ignore[no-untyped-call]
        channel.site = channel.factory = self
        channel.callLater = self._reactor.callLater
        return cast(Protocol, channel)

    def given(self, channel: Channel, answer: Answer, seconds: float = 0.0) -> None:
        """Count, and log, a ready answer that was given."""
        answer.hits += 1
        self._row.hit(answer.slot, self.clock.seconds())
        self._lines.append(f"{channel.client} {answer.line} {seconds:.3f}s")
        if len(self._lines) == 1:
            self._reactor.callLater(DELAY, self.tell_lines)

    def tell_lines(self) -> None:
        """Tell the main process what it is to log."""
        lines, self._lines = self._lines, []
        for some in batched(lines, LARGEST // 2):
            self.wire.send(encode(packets.Lines(some)))

    def tell(self, count: int) -> None:
        """See `Crowd`."""
        self._row.connections = count

    def elsewhere(self) -> int:
        """See `Crowd`."""
        others = sum(row.connections for row in self._board.rows if row is not self._row)
        return others + self._board.connections

    def _receive(self, packet: bytes, descriptor: int | None) -> None:
        match decode(packet):
            case packets.Listen(family) if descriptor is not None:
                port = self._reactor.adoptStreamPort(descriptor, family, self)
                os.close(descriptor)
                self._ports.append(port)
            case packets.Serve():
                self.wire.send(encode(packets.Ready()))
            case packets.Unsent() as unsent:
                self._intake.unsent(unsent)
            case packets.Connection() as connection:
                self._intake.connection(connection, descriptor)
            case packets.Learn() as told:
                self._learn(told, descriptor)
            case packets.Drop(slot, number):
                self.known.drop_slot(slot, number)
            case packets.Drain(seconds):
                self._drain(seconds)

    def _learn(self, told: packets.Learn, descriptor: int | None) -> None:
        held = None
        if told.file is not None:
            held = self._open(told)
        elif descriptor is not None:
            held = self._hold(told, descriptor, "", None)
        if held is None and (told.file is not None or told.stop):
            return  # it is another one by now, or there is no descriptor left for it
        answer = Answer(
            told.before,
            told.between,
            told.after,
            (),
            told.fresh_until,
            told.body,
            held,
            told.start,
            told.stop,
            told.line,
            told.question,
        )
        answer.slot, answer.number = told.slot, told.number
        self.known.keep(answer)

    def _open(self, told: packets.Learn) -> Held | None:
        """Open the file of an answer; ``None`` if it is another one by now."""
        assert told.file is not None
        identity = Identity(told.file.inode, told.file.size, told.file.changed_ns)
        try:
            with open_file(Path(told.file.path)) as file:
                if Identity.of(os.fstat(file.fileno())) != identity:
                    return None
                return self._hold(told, os.dup(file.fileno()), told.file.path, identity)
        except OSError:
            return None

    def _hold(
        self, told: packets.Learn, descriptor: int, path: str, identity: Identity | None
    ) -> Held:
        slot, number, size, readers = told.slot, told.number, told.stop, self._senders

        def copy(file: BinaryIO) -> Copy:
            return Copy(file, size, "", readers, str(slot))

        def doubt() -> None:
            self.wire.send(encode(packets.Doubt(slot, number)))

        return Held(descriptor, path, identity, doubt, copy)

    def _drain(self, seconds: float) -> None:
        for port in self._ports:
            port.stopListening()
        self.drain(seconds).addCallback(self._stop)

    def _stop(self, _: None) -> None:
        self.tell_lines()
        if self.wire.waiting:
            self._reactor.callLater(FLUSH, self._stop, None)
        else:
            self._reactor.stop()

    def _live(self) -> None:
        self._row.alive_at = self.clock.seconds()
        self._reactor.callLater(LIVING, self._live)


def batched(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    """Give lines in lists of about so many characters, which are as many bytes, at most."""
    some: list[str] = []
    room = size
    for line in lines:
        if some and len(line) > room:
            yield some
            some, room = [], size
        some.append(line)
        room -= len(line) + 5  # for its own head in a packet
    if some:
        yield some


class _Senders(Counter[str]):
    """Counts the clients that are being sent a file, by its slot, and writes it on the board."""

    def __init__(self, row: Row) -> None:
        super().__init__()
        self._row = row

    def __setitem__(self, slot: str, count: int) -> None:
        super().__setitem__(slot, count)
        self._row.sending[int(slot)] = count
        self._row.senders = len(self)

    def __delitem__(self, slot: object) -> None:
        super().__delitem__(slot)
        self._row.senders = len(self)


def _end() -> None:
    """End: the main process is gone. At once, so that another can listen where this one does."""
    os._exit(0)


def main(reactor_module: str, workers: str, number: str, room: str, files: str) -> None:
    """
    Be a worker.

    :param reactor_module: of Twisted's reactors, the one that the main process runs on
    :param workers: how many there are, `number` which this is, from 1
    :param room: for how many connections there are descriptors
    :param files: for how many files that are kept open
    """
    cast(Any, importlib.import_module(reactor_module)).install()
    from twisted.internet import reactor

    # The main process tells when to end: a signal to all of them is first of all one to it.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(each, signal.SIG_IGN)
    observer = FilteringLogObserver(
        textFileLogObserver(sys.stderr), [LogLevelFilterPredicate(LogLevel.warn)]
    )
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    reactor.seconds = time.monotonic  # type: ignore[method-assign]
    board = Board(int(workers), BOARD)
    end = socket.socket(fileno=WIRE)
    Front(reactor, end, board, board.rows[int(number) - 1], int(room), int(files))
    gc.collect()
    gc.freeze()
    cast(Any, reactor).run(installSignalHandlers=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
