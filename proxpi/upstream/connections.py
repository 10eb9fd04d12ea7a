"""Connections to upstreams: how many are open to an origin, and when each of them ends.

Twisted's pool does not limit open connections, so a :class:`ConnectionLimit` counts them. Twisted's
client takes a response head of any length, fails for the transfer coding ``identity`` (which old
servers send; it means none), and lets the reader of a body close a connection only gracefully,
which over TLS waits for the peer. Hence an :class:`HTTPEndpoint` puts a protocol between client and
transport. A connection is *idle*; a request puts it into the *head* of a response, up to the blank
line; then comes the *body*. A connection that is closed before the end of a response is aborted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import attrs
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    ISSLTransport,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import HTTPConnectionPool
from zope.interface import implementer

from proxpi.simple import Origin
from proxpi.upstream.errors import HeadTooLong

#: Connections to one origin for files, and as many again for pages.
CONNECTIONS = 32
#: Seconds that an idle connection is kept: less than most servers keep theirs. Where a server
#: closed it meanwhile, the pool sends the request once more on a new connection.
KEEP_ALIVE = 55
#: Bytes of the head of a response, interim responses (1xx) included (RFC 9110 5.4 sets no limit).
HEAD_LIMIT = 64 * 1024
#: Bytes that one read takes from a plain connection. (After each system call the reactor may have
#: to wait for a thread: with Twisted's own 64 KiB that is most of the time.)
READ_SIZE = 512 * 1024

#: Requests that wait for a connection; one that is cancelled there has not been sent.
Queue = set[Deferred[Any]]


@attrs.define(eq=False)
class ConnectionLimit:
    """A limit on connections to each origin; excess requests queue first in, first out.

    :ivar within: a wider limit that counts these connections as well
    """

    number: int
    within: ConnectionLimit | None = None
    _origins: dict[Origin, DeferredSemaphore] = attrs.field(init=False, factory=dict)

    async def acquire(self, origin: Origin, queue: Queue | None = None) -> Callable[[], None]:
        """Wait for a connection to an origin, in a queue; return its release, to call once."""
        semaphore = self._origins.setdefault(origin, DeferredSemaphore(self.number))
        waiting = semaphore.acquire()
        queue = set() if queue is None else queue
        queue.add(waiting)
        try:
            await waiting
        finally:
            queue.remove(waiting)

        def release(wider: Callable[[], None] | None = None) -> None:
            if wider is not None:
                wider()
            semaphore.release()
            # The next in the queue may have released it already.
            if semaphore.tokens == semaphore.limit and self._origins.get(origin) is semaphore:
                del self._origins[origin]

        if self.within is None:
            return release
        try:
            return partial(release, await self.within.acquire(origin, queue))
        except BaseException:
            release()
            raise

    def is_reached(self, origin: Origin) -> bool:
        semaphore = self._origins.get(origin)
        return semaphore is not None and semaphore.tokens == 0


@attrs.frozen(eq=False)
class ConnectionLimits:
    """The limits of one process: slow files never starve pages, slow clients never downloads."""

    pages: ConnectionLimit
    files: ConnectionLimit
    backpressure: ConnectionLimit  # for files that arrive no faster than a client takes them

    @classmethod
    def of(cls, number: int) -> ConnectionLimits:
        pages, files = ConnectionLimit(number), ConnectionLimit(number)
        return cls(pages, files, ConnectionLimit(max(1, number * 3 // 4), within=files))


def connection_pool(clock: IReactorTime, connections: int) -> HTTPConnectionPool:
    """Make the pool of a process; `connections` to one origin for files, as many for pages."""
    pool = HTTPConnectionPool(clock)
    pool.maxPersistentPerHost = 2 * connections
    pool.cachedConnectionTimeout = KEEP_ALIVE
    return pool


@implementer(IStreamClientEndpoint)
@attrs.frozen(repr=False)  # the pool asks for it, for each connection
class HTTPEndpoint:
    _endpoint: IStreamClientEndpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        factory = WrappingFactory[_Connection](protocolFactory)  # type: ignore[no-untyped-call]
        factory.protocol = _Connection
        factory.noisy = False

        def connected(connection: Any) -> IProtocol:
            transport: Any = connection.transport
            if ITCPTransport.providedBy(transport) and not ISSLTransport.providedBy(transport):
                transport.bufferSize = READ_SIZE  # type: ignore[attr-defined]
            return cast(IProtocol, connection.wrappedProtocol)

        return self._endpoint.connect(factory).addCallback(connected)


#: A blank line; a recipient may take a bare line feed for the end of a line (RFC 9112 2.2).
_HEAD_END = re.compile(rb"(?:\A|\n)\r?\n")
_INTERIM = re.compile(rb"\S+ 1\d\d\b")
_TRANSFER_ENCODING = re.compile(
    rb"^transfer-encoding[ \t]*:(.*\n)(?![ \t])", re.IGNORECASE | re.MULTILINE
)


class _Connection(ProtocolWrapper):
    wrappedProtocol: Any
    transport: Any
    _request: object = None
    _in_head = False
    _interim: bool | None = None  # whether this head is one; None before its status line
    _left = HEAD_LIMIT
    _partial_line = b""
    _delivers_head = False
    _failed = False

    def writeSequence(self, data: Any) -> None:
        """Write a request; the head of its response comes next."""
        self._request, self._in_head, self._interim = object(), True, None
        self._left, self._partial_line = HEAD_LIMIT, b""
        self.transport.writeSequence(data)

    def loseConnection(self) -> None:
        """Close the connection: gracefully between two exchanges, else at once."""
        self.disconnecting = 1
        if not self._delivers_head:
            self._close(None)

    def _close(self, error: Exception | None) -> None:
        """Close the connection; an error fails the request, if it has not ended."""
        if self.wrappedProtocol is None or self.wrappedProtocol.state == "QUIESCENT":
            self.transport.loseConnection()
            return
        if error is not None:
            self._failed = True
            self.wrappedProtocol.connectionLost(Failure(error))
        self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """Hand over the whole lines of response heads, and bodies as they come."""
        request = self._request
        data, self._partial_line = self._partial_line + data, b""
        while self._in_head and data and request is self._request and not self._failed:
            data = self._head_received(data)
        if self._failed or not data or self.wrappedProtocol is None:
            return
        if request is self._request:
            self.wrappedProtocol.dataReceived(data)
        else:  # the end of the response has begun the next request, to which this is no response
            self.transport.abortConnection()

    def _head_received(self, data: bytes) -> bytes:
        """Hand over a head as far as it has come, and return the bytes behind it."""
        end = _HEAD_END.search(data, 0, self._left)
        size = end.end() if end else data.rfind(b"\n", 0, self._left) + 1
        too_long = end is None and len(data) >= self._left
        head, data = (data[: self._left], b"") if too_long else (data[:size], data[size:])
        self._left -= len(head)
        if head and self._interim is None:
            self._interim = _INTERIM.match(head) is not None
        if end:
            self._in_head, self._interim = bool(self._interim), None
        else:
            self._partial_line, data = data, b""
        self._delivers_head = True
        self.wrappedProtocol.dataReceived(_TRANSFER_ENCODING.sub(_without_identity, head))
        self._delivers_head = False
        if too_long or self.disconnecting:
            # The client closes after a line that is too long, too, but the request does not fail.
            self._close(HeadTooLong())
        return data

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        if not self._failed:
            super().connectionLost(reason)  # type: ignore[no-untyped-call]


def _without_identity(field: re.Match[bytes]) -> bytes:
    """Leave ``identity`` out of a ``Transfer-Encoding``, and the field if it has no other."""
    codings = [coding.strip().lower() for coding in field[1].split(b",")]
    left = b", ".join(coding for coding in codings if coding not in (b"", b"identity"))
    return b"Transfer-Encoding: %b\r\n" % left if left else b""
