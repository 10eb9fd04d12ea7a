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

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss

from proxpi.upstream.errors import BodyCut, BodyStalled, BodyTimeout, BodyTooLong

#: Bytes of an answer nobody needs that are read to keep its connection; a longer one is closed.
DRAIN_LIMIT = 64 * 1024
#: Seconds that this may take.
DRAIN_TIME = 1.0
#: Bytes that are read from a plain connection at once. (Each time that the reactor comes back from
#: the system it may have to wait for a thread: with Twisted's own 64 KiB that is most of the time.)
READ = 512 * 1024
#: Bytes per second of which a body has to bring more, where it has to come at a pace.
SLOWEST = 1000
#: Seconds over which the pace is measured.
STRETCH = 10.0


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
        stall_timeout: float | None,
    ) -> None:
        self._write = write
        self._clock = clock
        self._idle_timeout = idle_timeout
        self._left = limit
        self._stall_timeout = stall_timeout
        self._timer: IDelayedCall | None = None
        self._open = True
        self._paused = False
        self.ended: Deferred[bool] = Deferred(lambda _: self._stop(None))

    def connectionMade(self) -> None:
        connection: Any = getattr(self.transport, "_producer", self.transport)
        if hasattr(connection, "bufferSize"):
            connection.bufferSize = READ
        self._start_timer()

    def _start_timer(self) -> None:
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
            room = self._write(data)
        except Exception:  # noqa: BLE001 (whoever writes may fail in any way)
            self._stop(Failure())
            return
        # What is written may end the body: its last reader leaves.
        if self._open and isinstance(room, Deferred) and not room.called and not self._paused:
            self._pause(room)

    def _pause(self, room: Deferred[None]) -> None:
        """Read nothing more until there is room for it; that silence is nobody's fault."""
        self._paused = True
        assert self._timer is not None  # it runs whenever the body is open and not paused
        self._timer.cancel()
        self._timer = None
        if self._stall_timeout is not None:
            self._timer = self._clock.callLater(
                self._stall_timeout, lambda: self._stop(Failure(BodyStalled(room)))
            )
        self.transport.pauseProducing()  # type: ignore[union-attr]
        room.addCallback(self._resume)

    def _resume(self, _: object) -> None:
        self._paused = False
        if self._open:
            if self._timer is not None:
                self._timer.cancel()
            self._start_timer()
            self.transport.resumeProducing()  # type: ignore[union-attr]

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

    def fail(self, failure: Failure) -> None:
        """End the body from this side with an error."""
        self._stop(failure)

    def _stop(self, failure: Failure | None) -> None:
        """End the body from this side: close the connection and report `failure`, if any."""
        if not self._open:
            return
        self._close()
        # Twisted's proxy of the transport can only lose the connection, and over TLS that waits
        # for the peer: one that is silent would keep it for ever.
        connection = getattr(self.transport, "_producer", self.transport)
        if connection is not None:
            getattr(connection, "abortConnection", connection.loseConnection)()
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
    stall_timeout: float | None = None,
) -> Deferred[bool]:
    """
    Give each chunk of a body to `write`.

    :param write: may give a Deferred; until it has its result nothing more is read
    :param idle_timeout: seconds between two chunks
    :param limit: the most bytes that may come
    :param stall_timeout: seconds for which `write` may have nothing more read, ``None``: any time
    :return: a Deferred of whether the end was announced (by length or chunks); ``False`` means
        that the connection just closed, which may be the end or not. It fails with
        :class:`BodyTimeout`, :class:`BodyTooLong`, :class:`BodyCut`, :class:`BodyStalled`, or with
        what `write` raised. Cancelling it closes the connection.
    """
    receiver = _Receiver(write, clock, idle_timeout, limit, stall_timeout)
    try:
        response.deliverBody(receiver)
    except Exception:  # noqa: BLE001 (what is between may refuse what came with the head)
        receiver.fail(Failure())
    return receiver.ended


@attrs.frozen
class Limit:
    """The most bytes that a body may bring.

    :ivar setting: the variable that says so, if one does
    """

    size: int
    setting: str | None = None

    def check(self, size: int) -> None:
        """:raises BodyTooLong: if a body of so many bytes is too long."""
        if size > self.size:
            raise BodyTooLong(f"{self.setting} allows {self.size} bytes" if self.setting else "")


class Sink:
    """Takes a body: checks its size and its pace, and tells its own errors from others.

    :param clock: measures the pace, if the body has to come at one
    """

    def __init__(
        self, write: Callable[[bytes], object], limit: Limit | None, clock: IReactorTime | None
    ) -> None:
        self._write = write
        self._limit = limit
        self._clock = clock
        self._since = clock.seconds() if clock is not None else 0.0
        self._size = self._stretch = 0
        self.error: Exception | None = None

    def write(self, data: bytes) -> object:
        """
        Hand bytes on.

        :raises BodyTooLong: if they are too many
        :raises BodyTimeout: if they come too slowly
        """
        self._size += len(data)
        self._stretch += len(data)
        if self._clock is not None and (seconds := self._clock.seconds() - self._since) >= STRETCH:
            if self._stretch < SLOWEST * seconds:
                raise BodyTimeout()
            self._since += seconds
            self._stretch = 0
        if self._limit is not None:
            self._limit.check(self._size)
        try:
            return self._write(data)
        except Exception as error:
            self.error = error
            raise


def discard(response: Delivers, *, clock: IReactorTime, idle_timeout: float) -> Deferred[object]:
    """Let go of a body nobody needs; give a Deferred of when its connection is free or closed."""
    ended = receive(
        response, lambda data: None, clock=clock, idle_timeout=idle_timeout, limit=DRAIN_LIMIT
    )
    ended.addTimeout(DRAIN_TIME, clock)
    return ended.addErrback(lambda _: None)  # it is of no interest how an unwanted body ends
