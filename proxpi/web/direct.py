"""Cached responses go straight to plain sockets, as far as the socket takes them.

A transport of Twisted's buffers what is written, and sends it in the next turn of the reactor; for
a cached response this costs more than all else. So it is handed to the kernel here and now, which
is right as long as nothing waits in the transport's buffer. The rest goes out as any other body
does (:mod:`proxpi.web.send`), with a :class:`Rest` in the place of a request.
"""

from __future__ import annotations

import os
import socket
from typing import Any

import attrs
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from proxpi.web.response_cache import CachedResponse
from proxpi.web.send import TURN, send_bytes, send_file

#: Says that more follows, so that a head and the beginning of a file share a packet (Linux).
_MORE = getattr(socket, "MSG_MORE", 0)


def send_cached(connection: socket.socket, head: bytes, answer: CachedResponse) -> int:
    """
    Send a response as far as it goes.

    :param head: the response's head, of now
    :return: the bytes that the socket took
    :raises OSError: if the client is gone
    """
    try:
        if answer.held is not None and answer.stop:
            sent = connection.send(head, _MORE)
            if sent == len(head):
                sent += _move(connection, answer.held.descriptor, answer.start, answer.stop)
            return sent
        apart = answer.apart
        return connection.sendmsg([head, apart]) if apart else connection.send(head)
    except BlockingIOError:
        return 0


def _move(connection: socket.socket, descriptor: int, start: int, stop: int) -> int:
    """Send from a file; an error here is left to the sender of the rest."""
    try:
        return os.sendfile(connection.fileno(), descriptor, start, min(stop - start, TURN))
    except OSError:
        return 0


@attrs.define(eq=False)
class Rest:
    """What a channel and a producer need of a request while the rest of a response goes out.

    :ivar started: when the request came, in seconds of the clock
    :ivar sentLength: bytes of the body that were sent
    """

    channel: Any
    answer: CachedResponse
    started: float
    sentLength: int = 0
    method: bytes = b"GET"
    startedWriting: bool = True
    responseHeaders: Headers = attrs.field(factory=Headers)

    def begin(self, head: bytes, sent: int, clock: IReactorTime) -> None:
        """
        Send what is left.

        :param head: the head of which, and of what follows, `sent` bytes went out already
        """
        answer = self.answer
        size = answer.size
        if sent < len(head):
            self.channel.write(head[sent:])
        begin = max(0, sent - len(head))
        self.sentLength = begin
        if begin == size:
            self.finish()
        elif answer.held is None:
            send_bytes(self, answer.apart, clock, begin)  # type: ignore[arg-type]
        else:
            copy, spoilt = answer.held.copy(), answer.held.mark_unverified
            start, stop = answer.start + begin, answer.stop
            send_file(self, copy.file.fileno(), start, stop, clock, copy.close, spoilt)  # type: ignore[arg-type]

    def write(self, data: bytes) -> None:
        """Send a piece."""
        self.sentLength += len(data)
        self.channel.write(data)

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """See `IConsumer`."""
        self.channel.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """See `IConsumer`."""
        self.channel.unregisterProducer()

    def finish(self) -> None:
        """Note that all was handed over."""
        site = self.channel.site
        site.log_cached(self.channel, self.answer, site.clock.seconds() - self.started)
        self.channel.requestDone(self)

    def connectionLost(self, reason: Failure) -> None:
        """The client is gone; the producer is told by the transport."""
