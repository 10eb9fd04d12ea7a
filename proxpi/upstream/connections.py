"""Connections to upstreams: how many are open to an origin, and when each of them ends.

Twisted's pool does not limit open connections, so a :class:`ConnectionLimit` counts them, and the
:class:`Scheduler` grants them. A *background* request, for which no client waits, comes after those
of clients; it is *lifted*, and from then on a client's, once a client waits for it.

Twisted's client takes a response head of any length, fails for the transfer coding ``identity``
(which old servers send; it means none), and lets the reader of a body close a connection only
gracefully, which over TLS waits for the peer. Hence an :class:`HTTPEndpoint` puts a protocol
between client and transport. A connection is *idle*; a request puts it into the *head* of a
response, up to the blank line; then comes the *body*. A connection that is closed before the end of
a response is aborted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

import attrs
from twisted.internet.defer import CancelledError, Deferred
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

#: Connections that background requests have at most, to all origins together.
BACKGROUND_CONNECTIONS = 8


@attrs.define(eq=False)
class Queue:
    """The requests of one flight: those that wait for a connection, and those that have one.

    :ivar background: whether no client has waited for the flight yet
    :ivar admits: is called when a background request that had to wait may get its connection; if
        it returns ``False``, the request is cancelled
    :ivar sent: whether any of its requests has got a connection
    """

    background: bool = False
    admits: Callable[[], bool] = lambda: True
    sent: bool = attrs.field(init=False, default=False)
    _requests: list[_Request] = attrs.field(init=False, factory=list)

    def __bool__(self) -> bool:
        """Whether a request waits for a connection."""
        return any(not request.granted.called for request in self._requests)

    def lift(self) -> None:
        """Lift its requests, those to come included."""
        if self.background:
            self.background = False
            for scheduler in {request.limit.scheduler for request in self._requests}:
                scheduler.lift(self._requests)

    def cancel(self) -> None:
        """Cancel the requests that wait for a connection: they have not been sent."""
        for request in list(self._requests):
            if not request.granted.called:
                request.granted.cancel()


@attrs.define(eq=False)
class _Request:
    """A request that waits for a connection to an origin, or holds one once it is `granted`."""

    limit: ConnectionLimit
    origin: Origin
    queue: Queue
    granted: Deferred[None] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.granted = Deferred(lambda _: self.limit.scheduler.remove(self))
        self.queue._requests.append(self)


@attrs.define(eq=False)
class Scheduler:
    """Grants the connections of a process, each kind of request first in, first out.

    A background request gets a connection only while no client's request waits for one to that
    origin, and only up to the part of a limit that leaves some to clients. No request waits that
    may have its connection.
    """

    # Requests of clients that wait for a connection; background requests that do.
    _clients: dict[Origin, list[_Request]] = attrs.field(init=False, factory=dict)
    _background: list[_Request] = attrs.field(init=False, factory=list)
    # Background requests that have a connection.
    _granted_background: set[_Request] = attrs.field(init=False, factory=set)

    def add(self, request: _Request) -> None:
        if self._may_grant(request):
            self._grant(request)
        elif request.queue.background:
            self._background.append(request)
        else:
            self._clients.setdefault(request.origin, []).append(request)

    def lift(self, requests: Iterable[_Request]) -> None:
        """Move the requests of a queue to those of clients, wherever they stand."""
        requests = list(requests)
        self._granted_background.difference_update(requests)
        for request in requests:
            if request in self._background:
                self._background.remove(request)
                self._clients.setdefault(request.origin, []).append(request)
        for request in requests:
            self._grant_next(request.origin)

    def remove(self, request: _Request) -> None:
        """Remove a request that ends, with or without a connection."""
        request.queue._requests.remove(request)
        self._granted_background.discard(request)
        if request.granted.called:
            request.limit.count(request.origin, -1)
        elif request.queue.background:
            self._background.remove(request)
        else:
            self._clients[request.origin].remove(request)
        self._grant_next(request.origin)

    def _may_grant(self, request: _Request) -> bool:
        background = request.queue.background
        if background and (
            len(self._granted_background) >= BACKGROUND_CONNECTIONS
            or self._clients.get(request.origin)
        ):
            return False
        return request.limit.has_room(request.origin, background)

    def _grant(self, request: _Request) -> None:
        request.limit.count(request.origin, 1)
        request.queue.sent = True
        if request.queue.background:
            self._granted_background.add(request)
        request.granted.callback(None)

    def _grant_next(self, origin: Origin) -> None:
        """Grant connections after a change at an origin: at most one to a client's request."""
        clients = self._clients.get(origin, [])
        first = next(filter(self._may_grant, clients), None)
        if first is not None:
            clients.remove(first)
        if not clients:
            self._clients.pop(origin, None)
        if first is not None:  # only now: its grant may end it at once, and add other requests
            self._grant(first)
        while (request := next(filter(self._may_grant, self._background), None)) is not None:
            self._background.remove(request)
            if request.queue.admits():
                self._grant(request)
            else:
                request.queue._requests.remove(request)
                request.granted.errback(CancelledError())


@attrs.define(eq=False)
class ConnectionLimit:
    """A limit on connections to each origin; excess requests wait for the scheduler.

    :ivar scheduler: is the same for all limits of a process
    :ivar within: a wider limit that counts these connections as well
    """

    number: int
    scheduler: Scheduler
    within: ConnectionLimit | None = None
    _open: Counter[Origin] = attrs.field(init=False, factory=Counter)

    async def acquire(self, origin: Origin, queue: Queue | None = None) -> Callable[[], None]:
        """Wait for a connection to an origin, in a queue; return its release, to call once."""
        request = _Request(self, origin, Queue() if queue is None else queue)
        self.scheduler.add(request)
        await request.granted
        return partial(self.scheduler.remove, request)

    def has_room(self, origin: Origin, background: bool = False) -> bool:
        """Whether another connection may be opened; for a background request, some stay free."""
        number = _most_of(self.number) if background else self.number
        wider = self.within is None or self.within.has_room(origin, background)
        return self._open[origin] < number and wider

    def count(self, origin: Origin, change: int) -> None:
        """Count a connection that opens (1) or ends (-1)."""
        self._open[origin] += change
        if not self._open[origin]:
            del self._open[origin]
        if self.within is not None:
            self.within.count(origin, change)

    def is_reached(self, origin: Origin) -> bool:
        return self._open[origin] >= self.number


def _most_of(number: int) -> int:
    """Return three quarters of a limit, which leave some connections to other requests."""
    return max(1, number * 3 // 4)


@attrs.frozen(eq=False)
class ConnectionLimits:
    """The limits of one process: slow files never starve pages, slow clients never downloads."""

    pages: ConnectionLimit
    files: ConnectionLimit
    backpressure: ConnectionLimit  # for files that arrive no faster than a client takes them

    @classmethod
    def of(cls, number: int) -> ConnectionLimits:
        limit = partial(ConnectionLimit, scheduler=Scheduler())
        files = limit(number)
        return cls(limit(number), files, limit(_most_of(number), within=files))


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
