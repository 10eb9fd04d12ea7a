"""Requests as bytes into a real ``Site``, answers as bytes out of it, without a socket.

The transport in between behaves as a TCP one does: it asks for a pause when its buffer is
full, goes on when the client has taken all, and tells of its end.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IProtocolFactory,
    IPushProducer,
    ISSLTransport,
    ITransport,
)
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

HOST = "proxpi.example:5000"
#: Bytes that a transport of Twisted's buffers before it asks its producer for a pause.
BUFFER = 64 * 1024


@attrs.frozen
class Response:
    """One answer.

    :ivar headers: lower-case names; several lines of a name are joined by commas
    :ivar whole: whether all came that was announced
    """

    status: int
    headers: dict[str, str]
    body: bytes = attrs.field(repr=lambda body: repr(body[:200]))
    whole: bool

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


@implementer(ITransport, IConsumer, IPushProducer)
class Wire:
    """The server's transport of one connection, as far as buffering and its ends go.

    :ivar unsent: what the client has not taken yet
    :ivar reading: whether the server takes what comes
    :ivar disconnecting: whether the server wants an end once all is taken, as Twisted calls it
    :ivar aborted: whether the server wanted it at once
    """

    def __init__(self, clock: Clock, peer: IAddress | None) -> None:
        self._clock = clock
        self._peer = peer or IPv4Address("TCP", "192.0.2.1", 54321)
        self._producer: Any = None
        self._asked_to_pause = False
        self.protocol: Any = None
        self.negotiatedProtocol = None  # over TLS: HTTP/1.1
        self.unsent = b""
        self.reading = True
        self.disconnecting = False
        self.aborted = False
        self.ended = False

    def getPeer(self) -> IAddress:
        """See `ITransport`."""
        return self._peer

    def getHost(self) -> IAddress:
        """See `ITransport`."""
        return IPv4Address("TCP", "192.0.2.2", 5000)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """See `ITCPTransport`."""

    def write(self, data: bytes) -> None:
        """See `ITransport`."""
        if not (self.aborted or self.ended):
            self.unsent += data
        if self._producer is not None and len(self.unsent) > BUFFER:
            self._asked_to_pause = True
            self._producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """See `ITransport`."""
        self.write(b"".join(data))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """See `IConsumer`."""
        assert streaming and self._producer is None
        self._producer = producer

    def unregisterProducer(self) -> None:
        """See `IConsumer`."""
        self._producer = None

    def pauseProducing(self) -> None:
        """See `IPushProducer`."""
        self.reading = False

    def resumeProducing(self) -> None:
        """See `IPushProducer`."""
        self.reading = True

    def stopProducing(self) -> None:
        """See `IPushProducer`."""
        self.loseConnection()

    def loseWriteConnection(self) -> None:
        """See `ITCPTransport`."""
        self.loseConnection()

    def loseConnection(self) -> None:
        """See `ITransport`."""
        self.disconnecting = True

    def abortConnection(self) -> None:
        """See `ITCPTransport`: the end comes in the next turn of the reactor."""
        if not self.aborted:
            self.aborted = self.disconnecting = True
            self.unsent = b""
            self._clock.callLater(0, self.end, ConnectionAborted())

    def end(self, reason: Exception) -> None:
        """Tell everyone that the connection is no more."""
        if not self.ended:
            self.ended = True
            if self._producer is not None:
                self._producer.stopProducing()
                self._producer = None
            self.protocol.connectionLost(Failure(reason))

    def take(self) -> bytes:
        """Let the client take what is buffered."""
        taken, self.unsent = self.unsent, b""
        if self._asked_to_pause and self._producer is not None:
            self._asked_to_pause = False
            self._producer.resumeProducing()
        if self.disconnecting and not self.aborted and not self.unsent:
            self.end(ConnectionDone())
        return taken


class Exchange:
    """One connection of a client.

    :ivar wire: the server's end of it
    """

    def __init__(
        self, site: IProtocolFactory, clock: Clock, peer: IAddress | None = None, tls: bool = False
    ) -> None:
        self.wire = Wire(clock, peer)
        if tls:
            alsoProvides(self.wire, ISSLTransport)
        self.wire.protocol = site.buildProtocol(self.wire.getPeer())
        self.wire.protocol.makeConnection(self.wire)
        self._to_send = b""
        self._received = b""
        self._methods: list[str] = []

    def send(self, raw: bytes) -> None:
        """Send bytes just as they are, as soon as the server takes them."""
        self._to_send += raw
        self._push()

    def _push(self) -> bool:
        if not (self._to_send and self.wire.reading) or self.wire.ended:
            return False
        raw, self._to_send = self._to_send, b""
        self.wire.protocol.dataReceived(raw)
        return True

    def ask(self, method: str, target: str | bytes, *headers: str | bytes, body: str = "") -> None:
        """Send a request; answers are read with :meth:`answer`, in the same order."""
        self._methods.append(method)
        self.send(request(method, target, *headers, body=body))

    def receive(self) -> bytes:
        """Take whatever comes, as fast as it comes, and give all that is not parsed yet."""
        parts = [self._received]
        while (taken := self.wire.take()) or self._push():
            parts.append(taken)
        self._received = b"".join(parts)
        return self._received

    def answer(self) -> Response | None:
        """Take the next answer; ``None`` if not even its head has come."""
        raw = self.receive()
        method = self._methods[0] if self._methods else "GET"
        response, self._received = _parse(raw, method, self.closed)
        if response is not None and self._methods:
            del self._methods[0]
        return response

    def response(self) -> Response:
        """Take the next answer, whose head must have come."""
        answer = self.answer()
        assert answer is not None, "no response yet"
        return answer

    @property
    def closed(self) -> bool:
        """Whether the server has closed, or is about to once all is taken."""
        return self.wire.disconnecting

    @property
    def aborted(self) -> bool:
        """Whether the server ended the connection at once, in the middle of whatever it was."""
        return self.wire.aborted and self.wire.ended

    def hang_up(self) -> None:
        """Go away, without a word."""
        self.wire.end(ConnectionLost())


def request(method: str, target: str | bytes, *headers: str | bytes, body: str = "") -> bytes:
    """Write a request of HTTP/1.1; a ``Host`` is added unless the headers bring their own."""
    lines = [_bytes(line) for line in headers]
    if not any(line.lower().startswith(b"host:") for line in lines):
        lines.insert(0, b"Host: " + HOST.encode())
    if body:
        lines.append(b"Content-Length: %d" % len(body.encode()))
    first = method.encode() + b" " + _bytes(target) + b" HTTP/1.1"
    return b"\r\n".join([first, *lines, b"", body.encode()])


def _bytes(text: str | bytes) -> bytes:
    return text.encode("utf-8") if isinstance(text, str) else text


def _parse(raw: bytes, method: str, closed: bool) -> tuple[Response | None, bytes]:
    """Cut one answer off, by RFC 9112 section 6."""
    head, end, rest = raw.partition(b"\r\n\r\n")
    if not end:
        return None, raw
    first, *lines = head.decode("latin-1").split("\r\n")
    version, status, _ = first.split(" ", 2)
    assert version in ("HTTP/1.1", "HTTP/1.0")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(": ")
        assert colon, line
        name = name.lower()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if method == "HEAD" or status in ("204", "304") or status.startswith("1"):
        return Response(int(status), headers, b"", True), rest
    if "content-length" in headers:
        length = int(headers["content-length"])
        return Response(int(status), headers, rest[:length], len(rest) >= length), rest[length:]
    if headers.get("transfer-encoding") == "chunked":
        body, whole, rest = _unchunked(rest)
        return Response(int(status), headers, body, whole), rest
    return Response(int(status), headers, rest, closed), b""


def _unchunked(raw: bytes) -> tuple[bytes, bool, bytes]:
    body = b""
    while True:
        size, end, rest = raw.partition(b"\r\n")
        if not end:
            return body, False, b""
        length = int(size, 16)
        body += rest[:length]
        raw = rest[length + 2 :]
        if length == 0:
            return body, True, raw
