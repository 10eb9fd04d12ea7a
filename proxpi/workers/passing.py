"""Connections that go from one process to another, with all that is on them."""

from __future__ import annotations

import os
from typing import Any

import attrs
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocolFactory
from twisted.python.failure import Failure

from proxpi.web.channel import Channel
from proxpi.workers.packets import Connection, Unsent, encode
from proxpi.workers.wire import Wire

#: Bytes of what is unsent that go in one packet.
_PIECE = 64 * 1024


def hand_over(channel: Channel, received: bytes, wire: Wire) -> None:
    """
    Give a connection away; here it is at its end, though it is not closed.

    :param channel: one with no request under way
    :param received: what came on it, and was not looked at
    """
    transport = channel.transport
    transport.stopReading()
    transport.stopWriting()
    unsent = transport.dataBuffer[transport.offset :] + b"".join(transport._tempDataBuffer)
    transport.dataBuffer, transport.offset = b"", 0
    transport._tempDataBuffer, transport._tempDataLen = [], 0
    family = transport.socket.family
    # The number lives on, and the object has nothing left to shut down.
    descriptor = transport.socket.detach()
    transport.connected = 0  # whatever would still read, write or close does nothing now
    for begin in range(0, len(unsent), _PIECE):
        wire.send(encode(Unsent(unsent[begin : begin + _PIECE])))
    wire.send(encode(Connection(family, len(unsent), received)), descriptor)
    # Not now: Twisted may be about to write to it, having just read from it.
    channel.site.clock.callLater(0, transport.connectionLost, Failure(ConnectionDone()))


@attrs.define(eq=False)
class Intake:
    """Takes connections that another process, the giver, gives away."""

    _reactor: Any
    _factory: IProtocolFactory
    _giver: object
    _unsent: list[bytes] = attrs.field(init=False, factory=list)

    def unsent(self, packet: Unsent) -> None:
        """Take note of what is to be sent on the next one."""
        self._unsent.append(packet.data)

    def connection(self, packet: Connection, descriptor: int | None) -> None:
        """Go on with one, if there is room for it; else it has been closed."""
        unsent, self._unsent = b"".join(self._unsent), []
        if descriptor is None:
            return
        if len(unsent) != packet.unsent:  # it is not for this one: there is none for this one then
            os.close(descriptor)
            return
        try:
            server = self._reactor.adoptStreamConnection(descriptor, packet.family, self._factory)
        except OSError:
            return  # the client has gone meanwhile
        finally:
            os.close(descriptor)
        channel: Channel = server.protocol
        try:
            channel.go_on(unsent, packet.received, self._giver)
        except Exception:
            server.abortConnection()  # as Twisted does with one on which something goes wrong
            raise
