"""The agent that sends each request directly or through a forward proxy, and the errors of proxies.

A proxy receives the whole URL of an http request (RFC 9112 3.2.2); to an https host it opens a
tunnel by CONNECT (RFC 9110 9.3.6). All connections are kept in the one pool. A host that is reached
through a proxy is not looked up here.

A tunnel is an endpoint on top of the proxy's. It is *opening* up to the blank line of the proxy's
response; a 2xx makes it *open*, for the wrapped protocol, any other response closes it. Opening
takes the connect timeout at most, so a proxy that hangs is not taken for the host behind it. All
that fails on the connection to a proxy is an error of the proxy, named without its credentials.
"""

from __future__ import annotations

import re
from functools import partial
from http import HTTPStatus
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
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

from proxpi.simple import Origin, urls
from proxpi.upstream.connections import HTTPEndpoint
from proxpi.upstream.connector import Connector
from proxpi.upstream.errors import (
    ProxyCredentialsRejected,
    ProxyFailed,
    on_timeout,
    upstream_failed,
)
from proxpi.upstream.proxies import Proxies, Proxy
from proxpi.upstream.response import Response, discard_body

#: Bytes of the response head of a proxy to CONNECT.
HEAD_LIMIT = 64 * 1024
#: How such a head begins, of any minor version (RFC 9112 4).
_BEGINNING = b"HTTP/1."
_STATUS = re.compile(rb"HTTP/1\.[0-9] +([0-9]{3})(?=[ \r\n])")
#: A blank line; a recipient may take a bare line feed for the end of a line (RFC 9112 2.2).
_END = re.compile(rb"\n\r?\n")


@implementer(IAgent, IAgentEndpointFactory)
class ProxyAgent:
    """Sends requests by Twisted's agents, for which it makes the endpoints."""

    def __init__(
        self,
        *,
        clock: IReactorTime,
        pool: HTTPConnectionPool,
        tls: IPolicyForHTTPS,
        connector: Connector,
        proxies: Proxies,
        user_agent: bytes,
    ) -> None:
        self._clock = clock
        self._tls = tls
        self._connector = connector
        self._proxies = proxies
        self._user_agent = user_agent
        self._direct: IAgent = Agent.usingEndpointFactory(clock, self, pool)
        self._plain: IAgent | None = None
        if proxies.http is not None:
            endpoint = HTTPEndpoint(self._proxy_endpoint(proxies.http))
            self._plain = PlainProxyAgent(endpoint, clock, pool)

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        origin = urls.origin(uri.decode("ascii"))
        proxy = self._proxies.to(origin)
        if proxy is None or origin.scheme == "https":
            return self._direct.request(method, uri, headers, bodyProducer)
        fields = headers.copy() if headers else Headers()
        if proxy.authorization is not None:
            fields.setRawHeaders(b"Proxy-Authorization", [proxy.authorization])
        assert self._plain is not None  # it is there if there is a proxy for http
        sent = self._plain.request(method, uri, fields, bodyProducer)
        return Deferred.fromCoroutine(self._checked(sent, proxy))

    async def _checked(self, sent: Deferred[IResponse], proxy: Proxy) -> IResponse:
        try:
            response = await sent
        except Exception as error:  # noqa: BLE001 (also CancelledError)
            raise proxy_failed(proxy, error) from None
        if is_from_proxy(response.code, response.headers):
            discard_body(Response("GET", proxy.name, response), self._clock)
            raise status_error(proxy, response.code)
        return response

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        host, port = uri.host, uri.port
        if uri.scheme == b"http":
            return HTTPEndpoint(self._connector.endpoint(host, port))
        proxy = self._proxies.to(Origin("https", host.decode("ascii"), port))
        if proxy is None:
            return HTTPEndpoint(self._secure(self._connector.endpoint(host, port), host, port))
        tunnel = Tunnel(
            proxy=proxy,
            endpoint=self._proxy_endpoint(proxy),
            host=host,
            port=port,
            user_agent=self._user_agent,
            timeout=self._connector.connect_timeout,
            clock=self._clock,
        )
        return HTTPEndpoint(self._secure(tunnel, host, port))

    def _proxy_endpoint(self, proxy: Proxy) -> IStreamClientEndpoint:
        host = proxy.host.encode("ascii")
        endpoint = self._connector.endpoint(host, proxy.port, trusted=True)
        return endpoint if proxy.scheme == "http" else self._secure(endpoint, host, proxy.port)

    def _secure(
        self, endpoint: IStreamClientEndpoint, host: bytes, port: int
    ) -> IStreamClientEndpoint:
        return wrapClientTLS(self._tls.creatorForNetloc(host, port), endpoint)


@implementer(IStreamClientEndpoint)
@attrs.frozen(kw_only=True)
class Tunnel:
    """The endpoint of a port of a host, reached through a proxy.

    :ivar endpoint: that of the proxy itself, with TLS if the proxy speaks it
    :ivar host: a name, which the proxy looks up, or an address without brackets
    :ivar timeout: seconds for the opening
    """

    proxy: Proxy
    endpoint: IStreamClientEndpoint
    host: bytes
    port: int
    user_agent: bytes
    timeout: float
    clock: IReactorTime

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See `IStreamClientEndpoint`; any failure is a `ProxyFailed`."""
        timed_out = partial(ProxyFailed, self.proxy.name, "timed out", scope="connection")
        connected = Deferred.fromCoroutine(self._connect(protocolFactory))
        return connected.addTimeout(self.timeout, self.clock, on_timeout(timed_out))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        host = b"[%b]" % self.host if b":" in self.host else self.host
        lines = [
            b"CONNECT %b:%d HTTP/1.1" % (host, self.port),
            b"Host: %b:%d" % (host, self.port),
            b"User-Agent: %b" % self.user_agent,
        ]
        if self.proxy.authorization is not None:
            lines.append(b"Proxy-Authorization: %b" % self.proxy.authorization)
        tunnel = _TunnelProtocol(self.proxy, b"\r\n".join([*lines, b"", b""]))
        try:
            connecting = Factory.forProtocol(lambda: tunnel)
            connecting.noisy = False  # no line of the log for each tunnel
            await self.endpoint.connect(connecting)
            await tunnel.opened
        except Exception as error:  # noqa: BLE001 (also CancelledError: the proxy was too slow)
            raise proxy_failed(self.proxy, error) from None
        return tunnel.hand_over(factory)


class _TunnelProtocol(Protocol):
    """Opens a tunnel, then relays between its transport and the wrapped protocol.

    :ivar opened: fires when the tunnel is open; cancelling it closes the connection
    """

    transport: Any

    def __init__(self, proxy: Proxy, request: bytes) -> None:
        self._proxy = proxy
        self._request = request
        self._head = bytearray()
        self._start = 0
        self._wrapped: IProtocol | None = None
        self.opened: Deferred[None] = Deferred(lambda _: self.transport.abortConnection())

    def hand_over(self, factory: IProtocolFactory) -> IProtocol:
        wrapped = factory.buildProtocol(self.transport.getPeer())
        assert wrapped is not None  # neither TLS nor an HTTP client ever refuses
        self._wrapped = wrapped
        wrapped.makeConnection(self.transport)
        return wrapped

    def connectionMade(self) -> None:
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        if self._wrapped is not None:
            self._wrapped.dataReceived(data)
        elif not self.opened.called:
            self._head += data
            self._read()

    def _read(self) -> None:
        while end := _END.search(self._head, self._start):
            status = _STATUS.match(self._head, self._start)
            if status is None or end.end() > HEAD_LIMIT:
                break
            if status[1] >= b"300":
                self._fail(status_error(self._proxy, int(status[1])))
                return
            if status[1] >= b"200":
                rest = bytes(self._head[end.end() :])
                self.opened.callback(None)
                if self._wrapped is not None and rest:
                    self._wrapped.dataReceived(rest)
                return
            self._start = end.end()  # an interim response (1xx), which another one follows
        begins = self._head.startswith(_BEGINNING[: len(self._head) - self._start], self._start)
        if end or not begins or len(self._head) > HEAD_LIMIT:
            cause = "it does not answer as an HTTP proxy does"
            self._fail(ProxyFailed(self._proxy.name, cause, scope="connection"))

    def _fail(self, error: ProxyFailed) -> None:
        self.opened.errback(error)
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        if self._wrapped is not None:
            self._wrapped.connectionLost(reason)
        elif not self.opened.called:
            self.opened.errback(reason)


def proxy_failed(proxy: Proxy, reason: BaseException) -> ProxyFailed:
    """Return the error of a proxy, or of the connection to it, for a failure."""
    error = upstream_failed(proxy.name, reason)
    if isinstance(error, ProxyFailed):
        return error
    return ProxyFailed(proxy.name, error.cause, temporary=error.temporary, scope=error.scope)


def status_error(proxy: Proxy, status: int) -> ProxyFailed:
    # tinyproxy answers wrong credentials with 401.
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED):
        wanted = "other credentials" if proxy.authorization else "credentials"
        cause = f"it wants {wanted} (status {status})"
        return ProxyCredentialsRejected(proxy.name, cause, temporary=False, scope="connection")
    if status in (408, 425, 429) or status >= 500:
        cause = f"it could not connect (status {status})"
        return ProxyFailed(proxy.name, cause, scope="connection")
    return ProxyFailed(proxy.name, f"it refuses to connect (status {status})", temporary=False)


def is_from_proxy(status: int, headers: Headers) -> bool:
    """Return whether a response to an http request is the proxy's own, not one that it passes on.

    No standard tells. But the 403 of an index may mean that it lacks a project, and then another
    index is believed; so any 403 counts as the proxy's. (Some proxies put the fields of their own
    responses into all that they pass on.)
    """
    if status in (HTTPStatus.PROXY_AUTHENTICATION_REQUIRED, HTTPStatus.FORBIDDEN):
        return True
    servers = headers.getRawHeaders("Server", [])
    tinyproxy = any(server.startswith("tinyproxy/") for server in servers)
    return status >= 400 and (tinyproxy or headers.hasHeader("X-Squid-Error"))
