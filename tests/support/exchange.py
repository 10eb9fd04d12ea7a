"""Requests as bytes into a real ``Site``, responses as bytes out of it, without a reactor.

Twisted's own transport stands on a real socket: the kernel is there, time is not. The socket is one
of a pair of Unix sockets, so that only the test decides what is read when; for the server it is a
TCP connection.
"""

from __future__ import annotations

import select
import socket
from typing import Any

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, IProtocolFactory, ISSLTransport
from twisted.internet.task import Clock
from twisted.internet.tcp import Server
from twisted.python.failure import Failure
from zope.interface import alsoProvides

from proxpi.web.request_parser import Chunks

HOST = "proxpi.example:5000"
PEER = IPv4Address("TCP", "192.0.2.1", 54321)


@attrs.frozen
class Response:
    """One response.

    :ivar headers: lower-case names; several lines of a name are joined by commas
    :ivar whole: whether all came that was announced
    """

    status: int
    headers: dict[str, str]
    body: bytes = attrs.field(repr=lambda body: repr(body[:200]))
    whole: bool

    @property
    def text(self) -> str:
        return self.body.decode()


def settle(reactor: Any) -> None:
    """Read and write wherever the kernel allows it, until nothing is left to do."""
    while True:
        ready, writable, _ = select.select(list(reactor.readers), list(reactor.writers), [], 0)
        doing = [(one, "doRead") for one in ready] + [(one, "doWrite") for one in writable]
        for each, act in doing:
            if each.fileno() == -1 or each not in reactor.readers | reactor.writers:
                continue
            why = getattr(each, act)()
            if act == "doRead" and isinstance(why, ConnectionDone):
                reactor.readers.discard(each)
                each.readConnectionLost(Failure(why))
            elif why is not None:
                reactor.readers.discard(each)
                reactor.writers.discard(each)
                each.connectionLost(Failure(why))
        reactor.advance(0)
        if not (ready or writable):
            return


class Readiness(Clock):
    """A clock that holds the descriptors which are to be read or written."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()
        self.addReader, self.removeReader = self.readers.add, self.readers.discard
        self.addWriter, self.removeWriter = self.writers.add, self.writers.discard

    def pass_time(self, seconds: float) -> None:
        """Let time pass second by second, and do all that is due."""
        for _ in range(int(seconds)):
            self.advance(1)
            settle(self)


class Transport(Server):
    """The server's transport, which notes how it is closed.

    :ivar closing: whether the server has closed it, or its sending side
    :ivar aborted: whether the server closed it at once
    :ivar hangs: whether an orderly close takes for ever, as with a peer over TLS that is silent
    """

    peer: IAddress = PEER
    closing = aborted = hangs = False

    def setTcpNoDelay(self, enabled: bool) -> None:
        """See `ITCPTransport`; the pair has no packets."""

    def getPeer(self) -> IAddress:
        return self.peer

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.2", 5000)

    def loseConnection(self) -> None:
        self.closing = True
        if not self.hangs:
            super().loseConnection()  # type: ignore[no-untyped-call]

    def loseWriteConnection(self) -> None:
        self.closing = True
        super().loseWriteConnection()  # type: ignore[no-untyped-call]

    def abortConnection(self) -> None:
        self.closing = self.aborted = True
        super().abortConnection()  # type: ignore[no-untyped-call]


class Exchange:
    """The client's end of a connection.

    :param tls: whether the server is told that this is TLS
    :param capacity: bytes that the kernel keeps for a client that does not read, about
    :ivar transport: the server's end
    :ivar received: all bytes that were read
    """

    def __init__(
        self,
        site: IProtocolFactory,
        clock: Any,
        peer: IAddress = PEER,
        *,
        tls: bool = False,
        capacity: int | None = None,
    ) -> None:
        self._clock = clock
        self.socket, theirs = socket.socketpair()
        self.socket.setblocking(False)
        theirs.setblocking(False)
        if capacity is not None:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, capacity)
        protocol: Any = site.buildProtocol(peer)
        self.transport = Transport(theirs, protocol, ("", 0), None, 0, clock)  # type: ignore[arg-type]
        self.transport.peer = peer
        if tls:
            alsoProvides(self.transport, ISSLTransport)
        protocol.makeConnection(self.transport)
        self.received = b""
        self._to_send = b""
        self._parsed = 0
        self._methods: list[str] = []

    @property
    def channel(self) -> Any:
        return self.transport.protocol

    def send(self, raw: bytes) -> None:
        self._to_send += raw
        self._push()

    def _push(self) -> None:
        before = -1
        while len(self._to_send) != before:
            before = len(self._to_send)
            try:
                self._to_send = self._to_send[self.socket.send(self._to_send) :]
            except BlockingIOError:
                pass
            except OSError:
                self._to_send = b""  # the server is gone
            settle(self._clock)

    def ask(self, method: str, target: str | bytes, *headers: str | bytes, body: str = "") -> None:
        self._methods.append(method)
        self.send(request(method, target, *headers, body=body))

    def read(self, most: int = 1 << 20) -> bytes:
        try:
            data = self.socket.recv(most)
        except OSError:
            data = b""
        self.received += data
        return data

    def receive(self) -> bytes:
        """Read until nothing comes any more; return all that is not parsed yet."""
        self._push()
        while self.read():
            self._push()
        return self.received[self._parsed :]

    def answer(self) -> Response | None:
        """Read the next response; ``None`` if not even its head has come."""
        raw = self.receive()
        method = self._methods[0] if self._methods else "GET"
        response, rest = _parse(raw, method, self.closed)
        self._parsed = len(self.received) - len(rest)
        if response is not None and self._methods:
            del self._methods[0]
        return response

    def response(self) -> Response:
        answer = self.answer()
        assert answer is not None, "no response yet"
        return answer

    @property
    def closed(self) -> bool:
        return self.transport.closing or not self.transport.connected

    @property
    def aborted(self) -> bool:
        settle(self._clock)
        return self.transport.aborted and not self.transport.connected

    def end_input(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)
        settle(self._clock)

    def leave(self) -> None:
        self.socket.close()
        settle(self._clock)

    def hang_up(self) -> None:
        self.socket.close()
        if self.transport.connected:
            self.transport.connectionLost(Failure(ConnectionLost()))


def request(method: str, target: str | bytes, *headers: str | bytes, body: str = "") -> bytes:
    """Write a request of HTTP/1.1; a ``Host`` is added unless the headers bring their own."""
    target, *lines = (
        text.encode() if isinstance(text, str) else text for text in (target, *headers)
    )
    if not any(line.lower().startswith(b"host:") for line in lines):
        lines.insert(0, b"Host: " + HOST.encode())
    if body:
        lines.append(b"Content-Length: %d" % len(body.encode()))
    first = b"%b %b HTTP/1.1" % (method.encode(), target)
    return b"\r\n".join([first, *lines, b"", body.encode()])


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
        chunks, data = Chunks(), bytearray(rest)
        return Response(int(status), headers, chunks.feed(data), chunks.done), bytes(data)
    return Response(int(status), headers, rest, closed), b""
