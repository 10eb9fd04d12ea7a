"""Files on their way to a client while they come from upstream.

A push producer like those for what lies on disk, but one that also waits for its bytes. Each
client has one of its own, and goes at its own pace.
"""

from __future__ import annotations

import attrs
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import Logger
from twisted.web.server import Request
from zope.interface import implementer

from proxpi.files.stream import Body
from proxpi.web.send import LOOK, PIECE, Uptake, cut_off

_log = Logger(namespace="proxpi.web")


def follow(request: Request, body: Body, start: int, stop: int | None, clock: IReactorTime) -> None:
    """
    Send a file from `start` on while it comes, and finish; the head must be set already.

    A client whose file breaks off is cut off, so that it cannot take what it got for all.

    :param stop: where the answer ends; ``None``: where the file does
    """
    _Follower(request, body, start, stop, clock).begin()


@implementer(IPushProducer)
@attrs.define(eq=False)
class _Follower:
    """Gives a request its body, piece by piece, as far as it has come."""

    _request: Request
    _body: Body
    _next: int
    _stop: int | None
    _clock: IReactorTime
    _paused: bool = attrs.field(init=False, default=True)
    _sending: bool = attrs.field(init=False, default=False)
    _ended: bool = attrs.field(init=False, default=False)
    _looks: int = attrs.field(init=False, default=0)
    _uptake: Uptake = attrs.field(init=False)
    _looking: IDelayedCall = attrs.field(init=False)

    def begin(self) -> None:
        """Take the request over."""
        channel = self._request.channel
        self._uptake = Uptake(getattr(channel, "transport", None), self._clock)
        self._body.follow(self.send)
        self._look()
        self._request.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        """Send until the transport has enough; see `IPushProducer`."""
        self._paused = False
        self.send()

    def pauseProducing(self) -> None:
        """See `IPushProducer`."""
        self._paused = True

    def stopProducing(self) -> None:
        """The client is gone; see `IProducer`."""
        self._end()

    def send(self) -> None:
        """Send what has come; at its end, finish."""
        if self._sending:
            return  # what was sent made room for more to come
        self._sending = True
        try:
            while not self._ended and self._send_piece():
                pass
        finally:
            self._sending = False

    def _send_piece(self) -> bool:
        """Send a piece; tell whether there may be another one right now."""
        body = self._body
        if body.broken:
            self._cut_off()
            return False
        there = body.there if self._stop is None else min(body.there, self._stop)
        if self._next == self._stop or (body.whole and self._next == there):
            self._end()
            self._request.unregisterProducer()
            self._request.finish()
            return False
        if self._next == there:
            return self._go_over()
        if self._paused:
            return False
        try:
            piece = body.read(self._next, min(PIECE, there - self._next))
        except OSError as error:
            _log.error("a file that is being sent cannot be read: {error}", error=error)
            piece = b""
        if not piece:
            self._cut_off()
            return False
        self._next += len(piece)
        self._request.write(piece)
        return True

    def _go_over(self) -> bool:
        """Read from where the file goes on, if it does so elsewhere."""
        successor = self._body.successor()
        if successor is None:
            return False
        self._body.leave(self.send)
        self._body = successor
        successor.follow(self.send)
        return True

    def _look(self) -> None:
        # Whoever waits for the upstream, and is not waited for, has all the time in the world.
        self._looks += not self._paused
        left = self._uptake.patience(self._next + self._looks)
        if left > 0:
            self._looking = self._clock.callLater(min(LOOK, left), self._look)
        else:
            self._cut_off()

    def _cut_off(self) -> None:
        self._end()
        cut_off(self._request)

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            if self._looking.active():
                self._looking.cancel()
            self._body.leave(self.send)
