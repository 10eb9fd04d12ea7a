"""Bodies on their way to a client, never faster than it takes them.

A small body is written at once. A larger one goes out through a push producer: the transport
pauses it while the client does not read. What lies in a file goes from there to a plain socket
without a detour through this process (``os.sendfile``), and else in pieces.

A client that takes nothing for :data:`STALL` seconds is cut off. Whether it does, only the kernel
knows: megabytes may wait there after the last piece was handed over, and a slow client empties
them without anything being asked of the producer. So :class:`Uptake` looks at what the client
has acknowledged.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, cast

import attrs
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime, ISSLTransport
from twisted.logger import Logger
from twisted.web.server import Request
from zope.interface import implementer

#: Bytes up to which a body is written at once.
AT_ONCE = 256 * 1024
#: Bytes of one piece.
PIECE = 128 * 1024
#: Bytes of a file up to which head and body are better off in one write than apart.
SMALL = 16 * 1024
#: Bytes that one connection may be given directly from a file before others have their turn.
TURN = 1024 * 1024
#: Seconds in which a client has to take something.
STALL = 60.0
#: Seconds after which it is looked again whether it did.
LOOK = 5.0

#: Gives the bytes at a place: ``read(start, count)``; fewer than asked for is an error.
Read = Callable[[int, int], bytes]

#: What says that this kind of file, or of socket, cannot be sent from directly.
_NOT_DIRECTLY = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSOCK)
#: Where Linux counts, in its ``tcp_info``, the bytes that a peer has acknowledged.
_ACKNOWLEDGED = slice(120, 128)

_log = Logger(namespace="proxpi.web")


def send_bytes(request: Request, data: bytes, clock: IReactorTime) -> None:
    """Send a body that is in memory, and finish."""
    if len(data) <= AT_ONCE or request.method == b"HEAD":
        request.write(data)
        request.finish()
    else:
        send(request, lambda start, count: data[start : start + count], 0, len(data), clock)


def send_file(
    request: Request,
    descriptor: int,
    start: int,
    stop: int,
    clock: IReactorTime,
    done: Callable[[], object],
    spoilt: Callable[[], object] = lambda: None,
) -> None:
    """
    Send a part of an open file, and finish; the head must be set already.

    :param descriptor: must stay open until `done` is called
    :param done: called once nothing is read any more, whatever happened
    :param spoilt: called before that if the file cannot be read
    """

    def read(place: int, count: int) -> bytes:
        return os.pread(descriptor, count, place)

    transport = _transport(request)
    direct = isinstance(transport, FileDescriptor) and not ISSLTransport.providedBy(transport)
    if (
        not direct
        or request.method == b"HEAD"
        or stop - start <= SMALL
        or not hasattr(os, "sendfile")
    ):
        send(request, read, start, stop, clock, done, spoilt)
    else:
        _Direct(request, read, start, stop, clock, done, spoilt, transport, descriptor).begin()


def send(
    request: Request,
    read: Read,
    start: int,
    stop: int,
    clock: IReactorTime,
    done: Callable[[], object] = lambda: None,
    spoilt: Callable[[], object] = lambda: None,
) -> None:
    """
    Send the bytes from `start` to `stop`, and finish; the head must be set already.

    :param done: called once nothing is read any more, whatever happened
    :param spoilt: called before that if they cannot be read
    """
    if request.method == b"HEAD" or start == stop:
        try:
            request.write(b"")
            request.finish()
        finally:
            done()
        return
    _Sender(request, read, start, stop, clock, done, spoilt).begin()


@implementer(IPushProducer)
@attrs.define(eq=False)
class _Sender:
    """Gives a request its body, piece by piece."""

    _request: Request
    _read: Read
    _next: int
    _stop: int
    _clock: IReactorTime
    _done: Callable[[], object]
    _spoilt: Callable[[], object]
    _paused: bool = attrs.field(init=False, default=True)
    _ended: bool = attrs.field(init=False, default=False)
    _uptake: Uptake = attrs.field(init=False)
    _looking: IDelayedCall | None = attrs.field(init=False, default=None)

    def begin(self) -> None:
        """Take the request over."""
        self._uptake = Uptake(_transport(self._request), self._clock)
        self._request.registerProducer(self, True)
        self._start()
        if not self._ended:
            self._look()

    def _start(self) -> None:
        self.resumeProducing()

    def resumeProducing(self) -> None:
        """Send until the transport has enough; see `IPushProducer`."""
        if self._ended:
            return
        self._paused = False
        while not (self._paused or self._ended):
            self._send_piece()

    def pauseProducing(self) -> None:
        """See `IPushProducer`."""
        self._paused = True

    def stopProducing(self) -> None:
        """The client is gone; see `IProducer`."""
        self._end()

    def _send_piece(self) -> None:
        count = min(PIECE, self._stop - self._next)
        try:
            piece = self._read(self._next, count)
        except OSError as error:
            self._unreadable(error)
            return
        if len(piece) < count:
            self._unreadable("it has become shorter")
            return
        self._next += count
        self._request.write(piece)
        self._finish_if_done()

    def _finish_if_done(self) -> None:
        if self._next == self._stop and not self._ended:
            self._end()
            self._request.unregisterProducer()
            self._request.finish()

    def _unreadable(self, why: object) -> None:
        """Give up: what was promised cannot be sent, and must not be taken for the whole."""
        _log.error("a file that is being sent cannot be read: {error}", error=why)
        self._spoilt()
        self._cut_off()

    def _look(self) -> None:
        left = self._uptake.patience(self._next)
        if left > 0:
            self._looking = self._clock.callLater(min(LOOK, left), self._look)
        else:
            self._cut_off()

    def _cut_off(self) -> None:
        self._end()
        cut_off(self._request)

    def _end(self) -> None:
        if not self._ended:
            self._leave()
            self._done()

    def _leave(self) -> None:
        self._ended = True
        if self._looking is not None and self._looking.active():
            self._looking.cancel()


@attrs.define(eq=False)
class _Direct(_Sender):
    """Has the kernel move a file to a plain socket, a part each time that there is room.

    While it does, the buffer of the transport stays empty; the transport is made to believe that
    it has paused a producer, so that it calls as soon as the socket takes more.
    """

    _transport: Any
    _descriptor: int

    def _start(self) -> None:
        """Send the head, through the transport, and what the socket takes of the file."""
        self._request.write(b"")
        self._call_again()
        # At once: most clients take a head, and many a whole file, without a turn of the reactor.
        if isinstance(self._transport.doWrite(), Exception):
            self._cut_off()

    def resumeProducing(self) -> None:
        """Move a part; see `IPushProducer`."""
        if self._ended:
            return
        count = min(TURN, self._stop - self._next)
        try:
            moved = os.sendfile(self._transport.fileno(), self._descriptor, self._next, count)
        except BlockingIOError:
            self._call_again()
        except ConnectionError:
            self._cut_off()
        except OSError as error:
            if error.errno in _NOT_DIRECTLY:
                self._go_indirectly()
            else:
                self._unreadable(error)
        else:
            if not moved:
                self._unreadable("it has become shorter")
                return
            self._next += moved
            self._request.sentLength += moved  # for the log: no byte of these was written to it
            self._finish_if_done()
            if not self._ended:
                self._call_again()

    def _call_again(self) -> None:
        self._transport.producerPaused = True
        self._transport.startWriting()

    def _go_indirectly(self) -> None:
        """Leave the rest to one that reads and writes."""
        self._leave()
        self._request.unregisterProducer()
        send(
            self._request,
            self._read,
            self._next,
            self._stop,
            self._clock,
            self._done,
            self._spoilt,
        )


@attrs.define(eq=False)
class Uptake:
    """Whether a client takes what is sent to it.

    :ivar transport: that of its connection, TLS or not
    """

    transport: object
    _clock: IReactorTime
    _seen: tuple[int, int] | None = attrs.field(init=False, default=None)
    _since: float = attrs.field(init=False, default=0.0)

    def pending(self) -> bool:
        """Tell whether something is on its way that the client has not taken yet."""
        below = _descriptor(self.transport)
        if below is None:
            return False
        return bool(below.dataBuffer or below._tempDataBuffer or _in_kernel(below.getHandle()))

    def gone(self) -> bool:
        """Tell whether the client has answered something with the end of its connection."""
        below = _descriptor(self.transport)
        if below is None:
            return False
        poll = select.poll()
        poll.register(below.fileno(), 0)
        return bool(poll.poll(0))

    def patience(self, progress: int = 0) -> float:
        """
        Give the seconds after which it is to be dropped if it takes nothing more.

        :param progress: grows with what is sent, for what the kernel does not tell
        """
        now, below = self._clock.seconds(), _descriptor(self.transport)
        seen = (progress, _acknowledged(below.getHandle()) if below is not None else 0)
        if seen != self._seen or (below is not None and not self.pending()):
            self._seen, self._since = seen, now
        return self._since + STALL - now


def _transport(request: Request) -> Any:
    """Give the transport of a request's connection, unless it has gone away."""
    return getattr(getattr(request, "channel", None), "transport", None)


def _descriptor(transport: Any) -> Any:
    """Give the transport that has the socket, below TLS and whatever else wraps it."""
    while transport is not None and not isinstance(transport, FileDescriptor):
        transport = getattr(transport, "transport", None)
    return transport if transport is not None and transport.connected else None


def _in_kernel(connection: socket.socket) -> int:
    """Give how many bytes wait in the kernel for a client to take them; 0 if nobody knows."""
    with suppress(OSError):
        answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
        return int.from_bytes(answer, sys.byteorder)
    return 0


def _acknowledged(connection: socket.socket) -> int:
    """Give a number that changes when a client takes something."""
    if connection.family == socket.AF_UNIX:
        return _in_kernel(connection)
    with suppress(OSError, AttributeError):
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKNOWLEDGED.stop)
        return int.from_bytes(info[_ACKNOWLEDGED], sys.byteorder)
    return 0


class Abortable(Protocol):
    """A transport, plain or TLS, as far as its sudden end goes."""

    def abortConnection(self) -> None:
        """Close without sending what is still to be sent."""


def cut_off(request: Request) -> None:
    """Close the connection at once, so that what was sent cannot be taken for the whole."""
    channel = request.channel
    if channel is not None and channel.transport is not None:
        cast(Abortable, channel.transport).abortConnection()
