"""Packets between two processes, each with at most one descriptor: whole, in order, or not at all.

Twisted's Unix sockets give descriptors away as well, but they do not tell when one has gone, and so
can be closed here; and a stream would have to be cut into packets again.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.logger import Logger
from twisted.python.failure import Failure

#: Bytes of a packet that the system is sure to take, and to give in one piece.
LARGEST = 128 * 1024

#: What says that the system has no room, or too many descriptors under way, now; and seconds until
#: it is asked again. (A socket that could be written to would say so all the time.)
_SHORT = (errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS)
_PAUSE = 0.02
#: What says that there is nobody any more, which is seen when reading.
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)

_log = Logger(namespace="proxpi.workers")

#: Is told of a packet, and of the descriptor that came with it, which is then its own to close.
#: (None came, although one was sent, if this process has as many as it may have.)
Receive = Callable[[bytes, int | None], None]


def pair() -> tuple[socket.socket, socket.socket]:
    """Give the two ends of a wire."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
        for side in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, side, 4 * LARGEST)
    return ends


class Wire(FileDescriptor):
    """One end of a wire.

    :param receive: is told of each packet
    :param lost: is told, once, that the other end is gone
    """

    def __init__(
        self, end: socket.socket, reactor: Any, receive: Receive, lost: Callable[[], None]
    ) -> None:
        super().__init__(reactor)
        self._clock = reactor
        self._end = end
        self._receive = receive
        self._lost = lost
        self._empty = False
        self._packets: deque[tuple[bytes, int | None]] = deque()
        self.connected = 1
        self.startReading()  # type: ignore[no-untyped-call]

    def fileno(self) -> int:
        """See `IFileDescriptor`."""
        return self._end.fileno()

    def send(self, packet: bytes, descriptor: int | None = None) -> None:
        """
        Send a packet.

        :param packet: at most :data:`LARGEST` bytes, and at least one
        :param descriptor: one to go with it; it is closed here once it has gone
        """
        if not self.connected:
            _close(descriptor)
            return
        self._packets.append((packet, descriptor))
        if len(self._packets) == 1:
            self.doWrite()

    def doWrite(self) -> Exception | None:
        """Send what waits; see `IWriteDescriptor`."""
        while self._packets:
            packet, descriptor = self._packets[0]
            try:
                if descriptor is None:
                    self._end.send(packet)
                else:
                    socket.send_fds(self._end, [packet], [descriptor])
            except BlockingIOError:
                self.startWriting()  # type: ignore[no-untyped-call]
                return None
            except OSError as error:
                if error.errno in _SHORT:
                    self.stopWriting()  # type: ignore[no-untyped-call]
                    self._clock.callLater(_PAUSE, self.doWrite)
                    return None
                if error.errno not in _GONE:
                    _log.error("a packet cannot be sent: {error}", error=error)
            self._packets.popleft()
            _close(descriptor)
        self.stopWriting()  # type: ignore[no-untyped-call]
        return None

    def doRead(self) -> Exception | None:
        """Take packets; see `IReadDescriptor`."""
        for _ in range(64):  # others want their turn as well
            try:
                packet, descriptors, _, _ = socket.recv_fds(self._end, LARGEST, 1)
            except BlockingIOError:
                self._empty = True
                return None
            except ConnectionResetError:
                continue  # it went without reading all; what it had sent before comes now
            except OSError:
                return ConnectionLost()
            if not packet:
                return ConnectionDone()
            try:
                self._receive(packet, descriptors[0] if descriptors else None)
            except Exception:  # noqa: BLE001 (what is wrong with one must not take all others along)
                _log.failure("in a packet from another process")
            if not self.connected:
                return None
        return None

    @property
    def waiting(self) -> int:
        """How many packets have not gone yet."""
        return len(self._packets)

    def finish(self) -> None:
        """Take what is left once the other end is gone, and let go."""
        self._empty = False
        while self.connected and not self._empty and self.doRead() is None:
            pass
        self.connectionLost(Failure(ConnectionDone()))

    def connectionLost(self, reason: Failure) -> None:
        """Let go of it; see `IReadDescriptor`."""
        if self.connected:
            super().connectionLost(reason)  # type: ignore[no-untyped-call]
            for _, descriptor in self._packets:
                _close(descriptor)
            self._packets.clear()
            self._end.close()
            self._lost()


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        with suppress(OSError):
            os.close(descriptor)
