"""Tunnels through a forward proxy: CONNECT, as RFC 9110 9.3.6 has it.

Theory of operation
-------------------
A tunnel is an endpoint made of another one, the proxy's. Once that is connected, CONNECT goes out
and the answer is read, up to the blank line and not a byte further. If it is a 2xx, whatever
protocol was to be connected is told that it is, and has the connection for itself from then on; to
it there is no proxy. In any other case the connection is closed and the proxy blamed.

All of it may take as long as connecting may: a proxy that hangs is known for it before the time of
those who wait is over, and not taken for the host behind it.
"""

from __future__ import annotations

import re
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import connectProtocol
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from proxpi.upstream.blame import blamed, refused
from proxpi.upstream.errors import ProxyFailed
from proxpi.upstream.proxies import Proxy

#: Bytes of a proxy's answer before the tunnel begins, beyond which it is no answer.
HEAD_LIMIT = 64 * 1024
#: How such an answer begins, of whatever minor version (RFC 9112 4).
_BEGINNING = b"HTTP/1."
_STATUS = re.compile(rb"HTTP/1\.[0-9] +([0-9]{3})(?=[ \r\n])")
#: A blank line; a recipient may take a bare line feed for the end of a line (RFC 9112 2.2).
_END = re.compile(rb"\n\r?\n")


@implementer(IStreamClientEndpoint)
@attrs.frozen
class Tunnel:
    """The endpoint of a host's port as it is reached through a proxy.

    :ivar _endpoint: that of the proxy itself, with TLS if the proxy speaks it
    :ivar _timeout: seconds that it may take to open
    :ivar _host: a name, which the proxy looks up, or an address without brackets
    """

    _proxy: Proxy
    _endpoint: IStreamClientEndpoint
    _host: bytes
    _port: int
    _user_agent: bytes
    _timeout: float
    _clock: IReactorTime

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See `IStreamClientEndpoint`; what fails on the way to the host is a `ProxyFailed`."""
        connected = Deferred.fromCoroutine(self._connect(protocolFactory))
        return connected.addTimeout(self._timeout, self._clock, self._timed_out)

    def _timed_out(self, result: object, timeout: float) -> Any:
        raise ProxyFailed(self._proxy.name, "timed out", scope="connection")

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        try:
            opening = _Opening(self._proxy, self._request())
            await connectProtocol(self._endpoint, opening)
            await opening.opened
        except Exception as error:  # noqa: BLE001 (a cancelled one, too: the proxy was waited for)
            raise blamed(self._proxy, Failure(error)) from None
        return opening.hand_over(factory)

    def _request(self) -> bytes:
        host = b"[%b]" % self._host if b":" in self._host else self._host
        lines = [
            b"CONNECT %b:%d HTTP/1.1" % (host, self._port),
            b"Host: %b:%d" % (host, self._port),
            b"User-Agent: %b" % self._user_agent,
        ]
        if self._proxy.authorization is not None:
            lines.append(b"Proxy-Authorization: %b" % self._proxy.authorization)
        return b"\r\n".join([*lines, b"", b""])


class _Opening(Protocol):
    """Opens a tunnel, and from then on is a thin wall between its transport and its user.

    :ivar opened: fires when the tunnel begins; cancelling it closes the connection
    """

    transport: Any

    def __init__(self, proxy: Proxy, request: bytes) -> None:
        self._proxy = proxy
        self._request = request
        self._head = bytearray()
        self._start = 0
        self._user: IProtocol | None = None
        self.opened: Deferred[None] = Deferred(lambda _: self.transport.abortConnection())

    def hand_over(self, factory: IProtocolFactory) -> IProtocol:
        """Connect a protocol to what is at the other end of the tunnel."""
        user = factory.buildProtocol(self.transport.getPeer())
        assert user is not None  # neither TLS nor an HTTP client ever refuses
        self._user = user
        user.makeConnection(self.transport)
        return user

    def connectionMade(self) -> None:
        """Ask the proxy."""
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        """Read the proxy's answer, and pass on what is not its own."""
        if self._user is not None:
            self._user.dataReceived(data)
        elif not self.opened.called:
            self._head += data
            self._read()

    def _read(self) -> None:
        while end := _END.search(self._head, self._start):
            status = _STATUS.match(self._head, self._start)
            if status is None or end.end() > HEAD_LIMIT:
                break
            if status[1] >= b"200":
                self._answered(int(status[1]), bytes(self._head[end.end() :]))
                return
            self._start = end.end()  # an interim answer, which another one follows
        begins = self._head.startswith(_BEGINNING[: len(self._head) - self._start], self._start)
        if end or not begins or len(self._head) > HEAD_LIMIT:
            cause = "it does not answer as an HTTP proxy does"
            self._fail(ProxyFailed(self._proxy.name, cause, scope="connection"))

    def _answered(self, status: int, rest: bytes) -> None:
        if status >= 300:
            self._fail(refused(self._proxy, status))
            return
        self.opened.callback(None)
        if self._user is not None and rest:
            self._user.dataReceived(rest)

    def _fail(self, error: ProxyFailed) -> None:
        self.opened.errback(error)
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        """Say so to whoever has the connection, or waits for it."""
        if self._user is not None:
            self._user.connectionLost(reason)
        elif not self.opened.called:
            self.opened.errback(reason)
