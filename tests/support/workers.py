"""Workers in this very thread: real wires and a real board, but no processes."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.python.failure import Failure

from proxpi.workers.board import Board
from proxpi.workers.member import BOARD, WIRE
from proxpi.workers.worker import Front
from tests.support.kernel import Readiness, adopted


class Process:
    """What takes the place of a worker's process: its end, when it comes, and its reactor.

    :ivar number: which worker it is, from 1
    :ivar front: the worker
    """

    def __init__(
        self, reactor: Workplace, protocol: Any, arguments: Sequence[str], fds: Any
    ) -> None:
        self._reactor = reactor
        self._protocol = protocol
        _, workers, number, room, files = arguments[-5:]
        self.number = int(number)
        board = Board(int(workers), os.dup(fds[BOARD]))
        end = socket.socket(fileno=os.dup(fds[WIRE]))
        self.front = Front(self, end, board, board.rows[int(number) - 1], int(room), int(files))
        self._board = board
        self.ended = False
        self.pid = len(reactor.processes) + 1
        protocol.makeConnection(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def closeStdin(self) -> None:
        """See `IProcessTransport`."""

    def signalProcess(self, signal: str) -> None:
        """See `IProcessTransport`; all signals kill it."""
        self.end(ProcessTerminated(signal=9))

    def stop(self) -> None:
        """See `IReactorCore`."""
        self.end(ProcessDone(0))

    def end(self, why: Exception) -> None:
        """End it, and all that it has."""
        if self.ended:
            return
        self.ended = True
        for each in [*self._reactor.readers]:
            if each is self.front.wire or getattr(each, "factory", None) is self.front:
                self._reactor.removeReader(each)
        for channel in [*self.front._admitted, *self.front._refused]:
            channel.transport.connectionLost(Failure(why))
        self.front.wire._lost = lambda: None
        self.front.wire.connectionLost(Failure(why))
        for answer in self.front.known:
            self.front.known.forget(answer)
        self._board.close()
        self._protocol.processEnded(Failure(why))


class Workplace(Readiness):
    """A reactor that starts workers.

    :ivar processes: all that were started
    """

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[Process] = []

    def spawnProcess(
        self,
        protocol: Any,
        executable: str,
        args: Sequence[str],
        env: Mapping[str, str],
        childFDs: Mapping[int, Any],
    ) -> Process:
        """See `IReactorProcess`."""
        process = Process(self, protocol, args, childFDs)
        self.processes.append(process)
        return process

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Any) -> Any:
        """See `IReactorSocket`."""
        return adopted(socket.socket(fileno=os.dup(descriptor)), factory, self)
