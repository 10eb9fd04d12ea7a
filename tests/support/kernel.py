"""Twisted's own transport on a real socket, without a reactor: the kernel is there, time is not.

A pair of Unix sockets, so that nothing but the test decides what is read when; for the server it
is a TCP connection like any other.
"""

from __future__ import annotations

import select
import socket
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import Clock
from twisted.internet.tcp import Server
from twisted.python.failure import Failure


class Readiness(Clock):
    """Knows who wants to read and to write, and lets them when they can."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()
        self.addReader = self.readers.add
        self.addWriter = self.writers.add
        self.removeReader = self.readers.discard
        self.removeWriter = self.writers.discard

    def turn(self) -> bool:
        """Let everybody do what can be done now; tell whether there was anything."""
        ready, writable, _ = select.select(list(self.readers), list(self.writers), [], 0)
        for each, act in [(one, "doRead") for one in ready] + [
            (one, "doWrite") for one in writable
        ]:
            if each.fileno() == -1 or each not in self.readers | self.writers:
                continue
            why = getattr(each, act)()
            if act == "doRead" and isinstance(why, ConnectionDone):
                self.readers.discard(each)
                each.readConnectionLost(Failure(why))
            elif why is not None:
                self.readers.discard(each)
                self.writers.discard(each)
                each.connectionLost(Failure(why))
        self.advance(0)
        return bool(ready or writable)


class _Transport(Server):
    """One that does not mind that its socket has no packets."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """See `ITCPTransport`."""

    def getHost(self) -> IPv4Address:
        """See `ITransport`."""
        return IPv4Address("TCP", "192.0.2.2", 5000)


def adopted(end: socket.socket, factory: IProtocolFactory, readiness: Readiness) -> Any:
    """Let a server have one end of a connection; give its transport."""
    end.setblocking(False)
    protocol: Any = factory.buildProtocol(None)  # type: ignore[arg-type]
    address = ("192.0.2.1", 54321)
    transport = _Transport(end, protocol, address, None, 0, readiness)  # type: ignore[arg-type]
    protocol.makeConnection(transport)
    return transport


class Client:
    """The client's end of a connection to a server that runs in this very thread.

    :ivar received: all that came
    """

    def __init__(
        self, factory: IProtocolFactory, readiness: Readiness, room: int | None = None
    ) -> None:
        """
        :param room: bytes that the kernel keeps for a client that does not read; about
        """
        self._readiness = readiness
        mine, theirs = socket.socketpair()
        mine.setblocking(False)
        if room is not None:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
        self._socket = mine
        self.received = b""
        self.closed = False
        self.transport = adopted(theirs, factory, readiness)

    def send(self, data: bytes) -> None:
        """Send, and let the server do something about it."""
        if not self.closed:
            try:
                self._socket.send(data)
            except OSError:
                self.closed = True
        while self._readiness.turn():
            pass

    def read(self, most: int = 1 << 20) -> bytes:
        """Take what is there, up to so many bytes."""
        try:
            data = self._socket.recv(most)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        self.closed = self.closed or not data
        self.received += data
        return data

    def settle(self) -> bytes:
        """Read until nothing comes any more; give all that ever came."""
        while self._readiness.turn() or self.read():
            pass
        return self.received

    def hang_up(self) -> None:
        """Be gone."""
        self._socket.close()
        self.closed = True
        while self._readiness.turn():
            self._readiness.advance(0)
