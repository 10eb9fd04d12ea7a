"""Bodies of responses, each of which comes to an end.

Twisted leaves the end of a body to its receiver: nothing times out, nothing is capped,
and a response whose body nobody takes holds its connection for ever. Here every body ends
in one of four ways: complete, failed, timed out, or cancelled by whoever waits for it; in
the last three the connection is closed.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss

from proxpi.upstream.errors import BodyCut, BodyTimeout, BodyTooLong

#: Bytes of an answer nobody needs that are read to keep its connection; a longer one is closed.
DRAIN_LIMIT = 64 * 1024


class Delivers(typing.Protocol):
    """A response, as far as its body goes."""

    def deliverBody(self, protocol: Any) -> None:
        """See `twisted.web.iweb.IResponse`."""


class _Receiver(Protocol):
    """Hands the chunks of one body on, and its end to a Deferred, exactly once."""

    def __init__(
        self,
        write: Callable[[bytes], object],
        clock: IReactorTime,
        idle_timeout: float,
        limit: int | None,
    ) -> None:
        self._write = write
        self._clock = clock
        self._idle_timeout = idle_timeout
        self._left = limit
        self._timer: IDelayedCall | None = None
        self._open = True
        self.ended: Deferred[bool] = Deferred(lambda _: self._stop(None))

    def connectionMade(self) -> None:
        self._timer = self._clock.callLater(
            self._idle_timeout, lambda: self._stop(Failure(BodyTimeout()))
        )

    def dataReceived(self, data: bytes) -> None:
        if not self._open:
            return
        if self._timer is not None:
            self._timer.reset(self._idle_timeout)
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                self._stop(Failure(BodyTooLong()))
                return
        try:
            self._write(data)
        except Exception:  # noqa: BLE001 (whoever writes may fail in any way)
            self._stop(Failure())

    def connectionLost(self, reason: Failure = Failure(ResponseDone())) -> None:  # noqa: B008
        if not self._open:
            return
        self._close()
        if reason.check(ResponseDone):
            self.ended.callback(True)
        elif reason.check(PotentialDataLoss):
            self.ended.callback(False)
        else:
            self.ended.errback(Failure(BodyCut()))

    def _stop(self, failure: Failure | None) -> None:
        """End the body from this side: close the connection and report `failure`, if any."""
        if not self._open:
            return
        self._close()
        # Not stopProducing: Twisted's proxy of the transport closes only on loseConnection.
        transport = self.transport
        if transport is not None:
            transport.loseConnection()
        if failure is not None:
            self.ended.errback(failure)

    def _close(self) -> None:
        self._open = False
        if self._timer is not None:
            try:
                self._timer.cancel()
            except (AlreadyCalled, AlreadyCancelled):
                pass  # the timer itself is what ends the body


def receive(
    response: Delivers,
    write: Callable[[bytes], object],
    *,
    clock: IReactorTime,
    idle_timeout: float,
    limit: int | None = None,
) -> Deferred[bool]:
    """
    Give each chunk of a body to `write`.

    :param idle_timeout: seconds between two chunks
    :param limit: the most bytes that may come
    :return: a Deferred of whether the end was announced (by length or chunks); ``False`` means
        that the connection just closed, which may be the end or not. It fails with
        :class:`BodyTimeout`, :class:`BodyTooLong`, :class:`BodyCut`, or with what `write` raised.
        Cancelling it closes the connection.
    """
    receiver = _Receiver(write, clock, idle_timeout, limit)
    response.deliverBody(receiver)
    return receiver.ended


def discard(response: Delivers, *, clock: IReactorTime, idle_timeout: float) -> None:
    """Let go of a body nobody needs, so that its connection is reused or closed."""
    ended = receive(
        response, lambda data: None, clock=clock, idle_timeout=idle_timeout, limit=DRAIN_LIMIT
    )
    ended.addErrback(lambda _: None)  # it is of no interest how an unwanted body ends
