"""How many may ask one server at a time: as many as there are slots; the others wait in a row.

The connections to upstreams: one pool of them, and no head of an answer without an end.

Twisted's client takes a head of any length; here there is a limit (RFC 9110 5.4 leaves it open).
It fails for a transfer coding but ``chunked``; here ``identity``, which old servers send, is none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import attrs
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from twisted.web._newclient import HTTP11ClientProtocol, Request
from twisted.web.client import HTTPConnectionPool
from twisted.web.iweb import IResponse

from proxpi.simple import urls
from proxpi.simple.urls import Origin
from proxpi.upstream.errors import HeadTooLong, UpstreamFailed

#: What waits for a slot; a request that is cancelled here has not been sent.
Queue = set[Deferred[Any]]


@attrs.define(eq=False)
class ConnectionLimit:
    """Slots of each origin.

    :ivar number: how many each of them has
    """

    number: int
    _taken: dict[Origin, DeferredSemaphore] = attrs.field(init=False, factory=dict)

    @asynccontextmanager
    async def slot(
        self, url: str, within: ConnectionLimit | None = None, queue: Queue | None = None
    ) -> AsyncIterator[ConnectionPermit]:
        """
        Wait for a slot of a URL's origin, first come first served, and hold it.

        :param within: a narrower limit, of which a slot is held as well
        :param queue: has what is waited for, while it is
        :raises UpstreamFailed: if it is not the URL of a server
        """
        slot = ConnectionPermit(
            (self,) if within is None else (within, self), set() if queue is None else queue
        )
        try:
            await slot.move(url)
            yield slot
        finally:
            slot.leave()

    def full(self, url: str) -> bool:
        """Tell whether one more would have to wait for a slot of a URL's origin."""
        taken = self._taken.get(urls.origin(url))
        return taken is not None and taken.tokens == 0

    async def take(self, origin: Origin, queue: Queue) -> None:
        """Wait for a slot; whoever is cancelled leaves the row."""
        acquired = self._taken.setdefault(origin, DeferredSemaphore(self.number)).acquire()
        queue.add(acquired)
        try:
            await acquired
        finally:
            queue.remove(acquired)

    def give_back(self, origin: Origin) -> None:
        """Let go of a slot, for whoever has waited longest."""
        taken = self._taken[origin]
        taken.release()
        # Whoever got it may be through with it already.
        if taken.tokens == taken.limit and self._taken.get(origin) is taken:
            del self._taken[origin]


@attrs.define(eq=False)
class ConnectionPermit:
    """A slot of each of some limits that is held, of one origin after the other."""

    _limits: tuple[ConnectionLimit, ...]
    _queue: Queue
    _origin: Origin | None = attrs.field(init=False, default=None)
    _held: list[tuple[ConnectionLimit, Origin]] = attrs.field(init=False, factory=list)

    async def move(self, url: str) -> None:
        """
        Change to a slot of a URL's origin, and hold none of another one meanwhile.

        :raises UpstreamFailed: if it is not the URL of a server
        """
        try:
            origin = urls.origin(url)
        except ValueError:
            cause = "only http and https are supported"
            raise UpstreamFailed(url, cause, temporary=False) from None
        if origin != self._origin:
            self.leave()
            for limit in self._limits:
                await limit.take(origin, self._queue)
                self._held.append((limit, origin))
            self._origin = origin

    def leave_after(self, ended: Deferred[object]) -> None:
        """Let go of it once something has come to its end; that is not waited for."""
        held, self._held, self._origin = self._held, [], None
        ended.addBoth(lambda _: _give_back(held))

    def leave(self) -> None:
        """Let go of it."""
        held, self._held, self._origin = self._held, [], None
        _give_back(held)


def _give_back(held: list[tuple[ConnectionLimit, Origin]]) -> None:
    for limit, origin in held:
        limit.give_back(origin)


#: Bytes of the head of an answer, and of all that may come before it (1xx).
HEAD_LIMIT = 64 * 1024
#: Seconds that an idle connection is kept. Below what servers keep theirs, mostly; where it is
#: not, the pool asks again once on a fresh connection.
KEEP_ALIVE = 55


def persistent_pool(reactor: Any, connections: int) -> HTTPConnectionPool:
    """
    Make the one pool of a process.

    :param connections: how many there are to one origin for files, and as many again for pages
    """
    pool = HTTPConnectionPool(reactor, persistent=True)
    pool.maxPersistentPerHost = 2 * connections
    pool.cachedConnectionTimeout = KEEP_ALIVE
    # So Twisted's own tests put another one in its place.
    pool._factory = cast(Any, _connections)
    return pool


def _connections(quiescent: Callable[[Any], object], metadata: str) -> Factory[_Connection]:
    """Give what the pool makes its connections with."""
    factory = Factory.forProtocol(partial(_Connection, quiescent))
    factory.noisy = False
    return factory


class _Connection(HTTP11ClientProtocol):
    """A connection that is closed when a head does not come to its end."""

    _asked: Deferred[IResponse] | None = None
    _left = HEAD_LIMIT

    def request(self, request: Request) -> Deferred[IResponse]:
        """Send a request; its Deferred may fail with :class:`HeadTooLong`, too."""
        self._left = HEAD_LIMIT
        self._asked = super().request(request)
        # Nothing public gives the parser of an answer, whose own method is public.
        parser = self._parser
        if parser is not None:
            received = parser.headerReceived
            parser.headerReceived = lambda name, value: _header(received, name, value)  # type: ignore[method-assign]
        return self._asked.addBoth(self._answered)

    def _answered(self, outcome: IResponse | Failure) -> IResponse | Failure:
        self._asked = None
        return Failure(HeadTooLong()) if self._left < 0 else outcome

    def dataReceived(self, bytes: bytes) -> None:
        """Take what comes; nobody knows yet how much of it is the head."""
        if self._asked is None:
            super().dataReceived(bytes)  # type: ignore[no-untyped-call]
            return
        head, rest = bytes[: self._left], bytes[self._left :]
        self._left -= len(head)
        super().dataReceived(head)  # type: ignore[no-untyped-call]
        if self._asked is None:
            if rest:
                super().dataReceived(rest)
        elif rest or self._gives_up:
            self._left = -1
            self._asked.cancel()

    @property
    def _gives_up(self) -> bool:
        """Whether a single line was too long for Twisted, which then waits for the other side."""
        return bool(getattr(self.transport, "disconnecting", False))


def _header(received: Callable[[bytes, bytes], object], name: bytes, value: bytes) -> None:
    """Leave ``identity`` out of ``Transfer-Encoding``: Twisted does not know that it is nothing."""
    if name.strip().lower() == b"transfer-encoding":
        codings = [coding.strip().lower() for coding in value.split(b",")]
        value = b", ".join(coding for coding in codings if coding not in (b"", b"identity"))
        if not value:
            return
    received(name, value)
