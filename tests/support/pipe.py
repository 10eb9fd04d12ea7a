"""A plain socket without a socket: Twisted's own descriptor above a kernel that a test plays.

Unlike the wire of :mod:`tests.support.exchange` it has the buffers of a real one: Twisted's, and
behind it the kernel's, into which ``os.sendfile`` reaches as well.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from proxpi.web import transfer
from tests.support.cases import Case
from tests.support.exchange import Exchange

#: Bytes that the kernel takes before the client does.
KERNEL = 512 * 1024


class _Reactor:
    """Knows who wants to read and to write."""

    def __init__(self) -> None:
        self.readers: set[object] = set()
        self.writers: set[object] = set()
        self.addReader = self.readers.add
        self.addWriter = self.writers.add
        self.removeReader = self.readers.discard
        self.removeWriter = self.writers.discard


class Pipe(FileDescriptor):
    """The server's end of a connection.

    :ivar kernel: what the client has not taken out of the kernel yet
    :ivar capacity: bytes that fit in there
    :ivar acknowledged: bytes that the client has taken
    :ivar moved: bytes that went there by ``os.sendfile``
    :ivar failing: what ``os.sendfile`` is to fail with
    """

    def __init__(self, clock: Clock, capacity: int) -> None:
        self._wanted = _Reactor()
        super().__init__(self._wanted)  # type: ignore[arg-type]
        self._clock = clock
        self.protocol: Any = None
        self.connected = 1
        self.kernel = bytearray()
        self.capacity = capacity
        self.acknowledged = 0
        self.moved = 0
        self.failing: OSError | None = None
        self.aborted = False
        self.ended = False
        self.startReading()  # type: ignore[no-untyped-call]

    def fileno(self) -> int:
        """See `IFileDescriptor`; none that exists."""
        return -1

    def getHandle(self) -> Pipe:
        """Give what is asked about the kernel."""
        return self

    def getPeer(self) -> IAddress:
        """See `ITransport`."""
        return IPv4Address("TCP", "192.0.2.1", 54321)

    def getHost(self) -> IAddress:
        """See `ITransport`."""
        return IPv4Address("TCP", "192.0.2.2", 5000)

    @property
    def reading(self) -> bool:
        """Whether the server takes what comes."""
        return self in self._wanted.readers

    @property
    def buffered(self) -> int:
        """Bytes that wait in this process."""
        return len(self.dataBuffer) - self.offset + self._tempDataLen

    def writeSomeData(self, data: bytes) -> int:
        """See `FileDescriptor`."""
        count = min(len(data), self.capacity - len(self.kernel))
        self.kernel += data[:count]
        return count

    def sendfile(self, descriptor: int, start: int, count: int) -> int:
        """Move a part of a file, as the kernel does."""
        if self.failing is not None:
            raise self.failing
        count = min(count, self.capacity - len(self.kernel))
        if not count:
            raise BlockingIOError
        data = os.pread(descriptor, count, start)
        self.kernel += data
        self.moved += len(data)
        return len(data)

    def go_on(self) -> None:
        """Let the server write, as long as it wants to and a third of the kernel's room is free."""
        while self in self._wanted.writers and len(self.kernel) * 3 <= self.capacity * 2:
            result = self.doWrite()  # type: ignore[no-untyped-call]
            if result is not None:
                self.end(result)

    def take(self, count: int | None = None) -> bytes:
        """Let the client take something, or all."""
        self.go_on()
        taken = bytes(self.kernel[:count])
        del self.kernel[:count]
        self.acknowledged += len(taken)
        self.go_on()
        return taken

    def abortConnection(self) -> None:
        """See `ITCPTransport`."""
        if not self.aborted:
            self.aborted = True
            self.stopReading()  # type: ignore[no-untyped-call]
            self.stopWriting()  # type: ignore[no-untyped-call]
            self._clock.callLater(0, self.end, ConnectionAborted())

    def end(self, reason: Exception) -> None:
        """Tell everyone that the connection is no more."""
        if not self.ended:
            self.ended = True
            self.connectionLost(Failure(reason))  # type: ignore[no-untyped-call]
            self.protocol.connectionLost(Failure(reason))

    def hang_up(self) -> None:
        """Be gone."""
        self.end(ConnectionDone())


class PipeExchange(Exchange):
    """A client on such a connection."""

    wire: Any

    def __init__(self, site: IProtocolFactory, clock: Clock, capacity: int = KERNEL) -> None:
        self.wire = Pipe(clock, capacity)
        self.wire.protocol = site.buildProtocol(self.wire.getPeer())
        self.wire.protocol.makeConnection(self.wire)
        self._to_send = b""
        self._received = b""
        self._methods = []

    @property
    def closed(self) -> bool:
        """Whether the server has closed, or is about to."""
        return bool(self.wire.disconnecting or self.wire.aborted or self.wire.ended)


def play_kernel(case: Case, *pipes: Pipe) -> None:
    """Let proxpi see the kernels of pipes where it would ask the real one, for one test."""
    own = list(pipes)

    def sendfile(out: int, descriptor: int, start: int, count: int) -> int:
        [pipe] = [pipe for pipe in own if not pipe.ended]
        return pipe.sendfile(descriptor, start, count)

    case.put(os, "sendfile", sendfile)
    case.put(transfer, "_in_kernel", lambda pipe: len(pipe.kernel))
    case.put(transfer, "_acknowledged", lambda pipe: pipe.acknowledged)
