"""Bodies on their way to a client, never faster than it takes them.

A small body is written at once. A larger one, from a file or from memory, goes out in pieces
through a push producer: the transport pauses it while the client does not read. A client that
takes nothing for too long is cut off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

import attrs
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import Logger
from twisted.web.server import Request
from zope.interface import implementer

#: Bytes up to which a body is written at once.
AT_ONCE = 256 * 1024
#: Bytes of one piece.
PIECE = 128 * 1024
#: Seconds in which a client has to take something.
STALL = 60.0

#: Gives the bytes at a place: ``read(start, count)``; fewer than asked for is an error.
Read = Callable[[int, int], bytes]

_log = Logger(namespace="proxpi.web")


def send_bytes(request: Request, data: bytes, clock: IReactorTime) -> None:
    """Send a body that is in memory, and finish."""
    if len(data) <= AT_ONCE or request.method == b"HEAD":
        request.write(data)
        request.finish()
    else:
        send(request, lambda start, count: data[start : start + count], 0, len(data), clock)


def send(
    request: Request,
    read: Read,
    start: int,
    stop: int,
    clock: IReactorTime,
    done: Callable[[], object] = lambda: None,
) -> None:
    """
    Send the bytes from `start` to `stop`, and finish; the head must be set already.

    :param done: called once nothing is read any more, whatever happened
    """
    if request.method == b"HEAD" or start == stop:
        done()
        request.write(b"")
        request.finish()
        return
    _Sender(request, read, start, stop, clock, done).begin()


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
    _paused: bool = attrs.field(init=False, default=True)
    _ended: bool = attrs.field(init=False, default=False)
    _stalled: IDelayedCall = attrs.field(init=False)

    def begin(self) -> None:
        """Take the request over."""
        self._stalled = self._clock.callLater(STALL, self._cut_off)
        self._request.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        """Send until the transport has enough; see `IPushProducer`."""
        if self._ended:
            return
        self._paused = False
        self._stalled.reset(STALL)
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
            _log.error("a file that is being sent cannot be read: {error}", error=error)
            piece = b""
        if len(piece) < count:
            # What was promised cannot be sent: the client must not take this for the end.
            self._cut_off()
            return
        self._next += count
        self._request.write(piece)
        if self._next == self._stop and not self._ended:
            self._end()
            self._request.unregisterProducer()
            self._request.finish()

    def _cut_off(self) -> None:
        self._end()
        cut_off(self._request)

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            if self._stalled.active():
                self._stalled.cancel()
            self._done()


class Abortable(Protocol):
    """A transport, plain or TLS, as far as its sudden end goes."""

    def abortConnection(self) -> None:
        """Close without sending what is still to be sent."""


def cut_off(request: Request) -> None:
    """Close the connection at once, so that what was sent cannot be taken for the whole."""
    channel = request.channel
    if channel is not None and channel.transport is not None:
        cast(Abortable, channel.transport).abortConnection()
