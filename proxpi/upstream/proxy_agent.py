"""What is said of a forward proxy that fails: it is named, without its credentials.

Whether the proxy or what is behind it fails is often for nobody to see. Here the proxy is blamed
for what happens on the connection to it, and for refusing to make another one.

Tunnels through a forward proxy: CONNECT, as RFC 9110 9.3.6 has it.

Theory of operation
-------------------
A tunnel is an endpoint made of another one, the proxy's. Once that is connected, CONNECT goes out
and the answer is read, up to the blank line and not a byte further. If it is a 2xx, whatever
protocol was to be connected is told that it is, and has the connection for itself from then on; to
it there is no proxy. In any other case the connection is closed and the proxy blamed.

All of it may take as long as connecting may: a proxy that hangs is known for it before the time of
those who wait is over, and not taken for the host behind it.

Which way a request takes: straight to its host, or through a forward proxy.

An http URL is asked for at the proxy, as a whole (RFC 9112 3.2.2); to an https one leads a tunnel.
Both kinds of connection are kept in the one pool, as those without a proxy are. Where there is a
proxy, the name of the host is not looked up here.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any, Never

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import connectProtocol, wrapClientTLS
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool
from twisted.web.client import ProxyAgent as PlainProxyAgent
from twisted.web.http_headers import Headers
from twisted.web.iweb import (
    IAgent,
    IAgentEndpointFactory,
    IBodyProducer,
    IPolicyForHTTPS,
    IResponse,
)
from zope.interface import implementer

from proxpi.simple import urls
from proxpi.upstream.connector import Connector
from proxpi.upstream.errors import ProxyCredentialsRejected, ProxyFailed, upstream_failed
from proxpi.upstream.proxies import Proxies, Proxy
from proxpi.upstream.response import DRAIN_TIME, discard


def blamed(proxy: Proxy, failure: Failure) -> ProxyFailed:
    """Give the exception that says why a proxy, or the connection to it, failed."""
    error = upstream_failed(proxy.name, failure)
    if isinstance(error, ProxyFailed):
        return error
    return ProxyFailed(proxy.name, error.cause, temporary=error.temporary, scope=error.scope)


def refused(proxy: Proxy, status: int) -> ProxyFailed:
    """Give the exception that says what a proxy means by a status that is no success."""
    # tinyproxy says 401 of credentials that are wrong.
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED):
        wanted = "other credentials" if proxy.authorization else "credentials"
        cause = f"it wants {wanted} (status {status})"
        return ProxyCredentialsRejected(proxy.name, cause, temporary=False, scope="connection")
    if status in (408, 425, 429) or status >= 500:
        cause = f"it could not connect (status {status})"
        return ProxyFailed(proxy.name, cause, scope="connection")
    return ProxyFailed(proxy.name, f"it refuses to connect (status {status})", temporary=False)


def own(status: int, headers: Headers) -> bool:
    """
    Tell whether the answer to an http request is the proxy's own, and not one that it passed on.

    There is no rule for that. But one is needed: of an index 403 may mean that it lacks a project,
    so that another index is believed. Some proxies put into their own answers all that is in those
    that they pass on; so any 403 is taken for theirs.
    """
    if status in (HTTPStatus.PROXY_AUTHENTICATION_REQUIRED, HTTPStatus.FORBIDDEN):
        return True
    servers = headers.getRawHeaders("Server", [])
    tinyproxy = any(server.startswith("tinyproxy/") for server in servers)
    return status >= 400 and (tinyproxy or headers.hasHeader("X-Squid-Error"))


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


@implementer(IAgent)
class ProxyAgent:
    """Asks each URL over the way that the proxies say."""

    def __init__(
        self,
        *,
        reactor: Any,
        pool: HTTPConnectionPool,
        tls: IPolicyForHTTPS,
        connector: Connector,
        proxies: Proxies,
        user_agent: bytes,
    ) -> None:
        self._clock = reactor
        self._proxies = proxies
        endpoints = _Endpoints(connector, tls, proxies, user_agent, reactor)
        self._direct: IAgent = Agent.usingEndpointFactory(reactor, endpoints, pool)
        self._plain: IAgent | None = None
        if proxies.http is not None:
            self._plain = PlainProxyAgent(endpoints.of_proxy(proxies.http), reactor, pool)

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """See `IAgent`; what fails on the way to a host is a `ProxyFailed`."""
        scheme, host, port = urls.origin(uri.decode("ascii"))
        proxy = self._proxies.to(scheme, host, port)
        if proxy is None or scheme == "https":
            return self._direct.request(method, uri, headers, bodyProducer)
        fields = headers.copy() if headers else Headers()
        if proxy.authorization is not None:
            fields.setRawHeaders(b"Proxy-Authorization", [proxy.authorization])
        assert self._plain is not None  # it is there if there is a proxy for http
        asked = self._plain.request(method, uri, fields, bodyProducer)
        return asked.addCallbacks(self._checked, _blame, (proxy,), errbackArgs=(proxy,))

    def _checked(self, response: IResponse, proxy: Proxy) -> IResponse:
        """Tell an answer of the upstream from one of the proxy's own."""
        if own(response.code, response.headers):
            discard(response, clock=self._clock, idle_timeout=DRAIN_TIME)
            raise refused(proxy, response.code)
        return response


@implementer(IAgentEndpointFactory)
@attrs.frozen
class _Endpoints:
    """Gives an agent the way to the host of a URL: a direct one, or a tunnel through a proxy."""

    _connector: Connector
    _tls: IPolicyForHTTPS
    _proxies: Proxies
    _user_agent: bytes
    _clock: IReactorTime

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See `IAgentEndpointFactory`."""
        host, port = uri.host, uri.port
        if uri.scheme == b"http":
            return self._connector.endpoint(host, port)
        proxy = self._proxies.to("https", host.decode("ascii"), port)
        if proxy is None:
            return self._secure(self._connector.endpoint(host, port), host, port)
        timeout, to_proxy = self._connector.connect_timeout, self.of_proxy(proxy)
        tunnel = Tunnel(proxy, to_proxy, host, port, self._user_agent, timeout, self._clock)
        return self._secure(tunnel, host, port)

    def of_proxy(self, proxy: Proxy) -> IStreamClientEndpoint:
        """Give the endpoint of a proxy itself."""
        host = proxy.host.encode("ascii")
        endpoint = self._connector.endpoint(host, proxy.port, trusted=True)
        return endpoint if proxy.scheme == "http" else self._secure(endpoint, host, proxy.port)

    def _secure(
        self, endpoint: IStreamClientEndpoint, host: bytes, port: int
    ) -> IStreamClientEndpoint:
        return wrapClientTLS(self._tls.creatorForNetloc(host, port), endpoint)


def _blame(failure: Failure, proxy: Proxy) -> Never:
    raise blamed(proxy, failure) from None
