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

from proxpi.files.spool import Reader
from proxpi.web.send import LOOK, PIECE, Uptake, cut_off

_log = Logger(namespace="proxpi.web")


def follow(request: Request, reader: Reader, stop: int | None, clock: IReactorTime) -> None:
    """
    Send what a reader reads of a spool, and finish; the head must be set already.

    A client whose file breaks off is cut off, so that it cannot take what it got for all.

    :param stop: where the answer ends; ``None``: where the file does
    """
    _Follower(request, reader, stop, clock).begin()


@implementer(IPushProducer)
@attrs.define(eq=False)
class _Follower:
    """Gives a request its body, piece by piece, as far as it has come."""

    _request: Request
    _reader: Reader
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
        self._reader.changed = self.send
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
        reader = self._reader
        if reader.cut:
            self._cut_off()
            return False
        left = reader.available
        if self._stop is not None:
            left = min(left, self._stop - reader.offset)
        if reader.offset == self._stop or (reader.complete and not left):
            self._end()
            self._request.unregisterProducer()
            self._request.finish()
            return False
        if self._paused or not left:
            return False
        try:
            piece = reader.read(min(PIECE, left))
        except OSError as error:
            _log.error("a file that is being sent cannot be read: {error}", error=error)
            piece = b""
        if not piece:
            self._cut_off()
            return False
        self._request.write(piece)
        return True

    def _look(self) -> None:
        # Whoever waits for the upstream, and is not waited for, has all the time in the world.
        self._looks += not self._paused
        left = self._uptake.patience(self._reader.offset + self._looks)
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
            self._reader.close()
