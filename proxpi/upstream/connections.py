"""The connections to upstreams: one pool of them, and no head of an answer without an end.

Twisted's client takes a head of any length; here there is a limit (RFC 9110 5.4 leaves it open).
It fails for a transfer coding but ``chunked``; here ``identity``, which old servers send, is none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from twisted.web._newclient import HTTP11ClientProtocol, Request
from twisted.web.client import HTTPConnectionPool
from twisted.web.iweb import IResponse

from proxpi.upstream.errors import HeadTooLong

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
