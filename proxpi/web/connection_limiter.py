"""The connections of one server: how many there may be, and how they come to an end.

With more connections than there are descriptors for, each further one is told to come back; on a
few of them at a time, so that ``/health`` is answered all the same. And when the process is to
end, it finishes what it has begun.
"""

from __future__ import annotations

import math

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from proxpi.web.channel import Channel

#: Connections on which a refusal is being sent at the same time.
REFUSALS = 32
#: Connections for which there is room if nobody says how many.
ROOM = 10_000
#: Seconds between two looks at who is still there when the process is to end.
POLL = 0.05
#: Seconds that a client has for its part in the end of a connection with nothing on it.
FAREWELL = 1.0

_log = Logger(namespace="proxpi.web")


class ConnectionLimiter:
    """Counts connections in and out.

    :ivar clock: tells the time
    :ivar busy: the connections with a request that is being answered
    :ivar draining: whether no request is begun any more
    """

    def __init__(self, clock: IReactorTime, room: int) -> None:
        """
        :param room: descriptors for clients: each connection takes one, and each request that is
            being answered may take one more, for a file
        """
        self.clock = clock
        self._room = room
        self.busy: set[Channel] = set()
        self.draining = False
        # In the order in which they came.
        self._admitted: dict[Channel, None] = {}
        self._refused: dict[Channel, None] = {}
        self._told = False
        self._drained: Deferred[None] | None = None
        self._drain_until = math.inf

    def enter(self, channel: Channel) -> bool:
        """Count a connection in; tell whether there is room for more on it than a refusal."""
        # Not all of them for connections alone: nothing could be opened for the last.
        taken = self._taken()
        if taken - len(self.busy) < self._room * 3 // 4 and taken < self._room:
            self._admitted[channel] = None
            return True
        if not self._told:
            self._told = True
            _log.warn("{count} connections: more are refused", count=len(self._admitted))
        self._refused[channel] = None
        if len(self._refused) > REFUSALS:
            oldest = next(iter(self._refused))
            del self._refused[oldest]
            oldest.transport.abortConnection()
        return False

    def leave(self, channel: Channel) -> None:
        """Count a connection out."""
        self.busy.discard(channel)
        self._admitted.pop(channel, None)
        self._refused.pop(channel, None)
        if self._taken() < self._room // 2:
            self._told = False

    def _taken(self) -> int:
        """Descriptors that clients may have taken."""
        return len(self._admitted) + len(self.busy)

    def drain(self, seconds: float) -> Deferred[None]:
        """
        Begin nothing more, finish what was begun, and close every connection.

        :param seconds: after which nothing is waited for
        """
        self.draining = True
        self._drain_until = min(self._drain_until, self.clock.seconds() + seconds)
        self._drained = Deferred()
        for channel in self.busy:
            for request in channel.requests:
                request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        drained = self._drained
        self._close_idle()
        return drained

    def hurry(self) -> None:
        """Wait for nothing any more."""
        self._drain_until = self.clock.seconds()

    def _close_idle(self) -> None:
        now = self.clock.seconds()
        late = now >= self._drain_until
        for channel in [*self._admitted, *self._refused]:
            if late or (channel.closed_at is not None and now >= channel.closed_at + FAREWELL):
                channel.transport.abortConnection()
            elif channel not in self.busy and not channel.uptake.pending():
                # What is in the kernel would be lost if the network ended with the process.
                channel.closed_at = channel.closed_at or now
                channel.loseConnection()  # type: ignore[no-untyped-call]
        if late or not (self._admitted or self._refused):
            assert self._drained is not None
            self._drained.callback(None)
        else:
            self.clock.callLater(POLL, self._close_idle)

    def crowded(self) -> bool:
        """Tell whether there are no descriptors left for one more request."""
        return self._taken() > self._room
