"""Which way a request takes: straight to its host, or through a forward proxy.

An http URL is asked for at the proxy, as a whole (RFC 9112 3.2.2); to an https one leads a tunnel.
Both kinds of connection are kept in the one pool, as those without a proxy are. Where there is a
proxy, the name of the host is not looked up here.
"""

from __future__ import annotations

from typing import Any, Never

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool, ProxyAgent
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
from proxpi.upstream.blame import blamed, own, refused
from proxpi.upstream.body import DRAIN_TIME, discard
from proxpi.upstream.dial import Dial, Endpoints
from proxpi.upstream.proxies import Proxies, Proxy
from proxpi.upstream.tunnel import Tunnel


@implementer(IAgent)
class Routes:
    """Asks each URL over the way that the proxies say."""

    def __init__(
        self,
        reactor: Any,
        pool: HTTPConnectionPool,
        tls: IPolicyForHTTPS,
        dial: Dial,
        proxies: Proxies,
        user_agent: bytes,
    ) -> None:
        self._clock = reactor
        self._proxies = proxies
        tunnels = _Tunnels(dial, tls, proxies, user_agent, reactor)
        self._direct: IAgent = Agent.usingEndpointFactory(reactor, tunnels, pool)
        self._plain: IAgent | None = None
        if proxies.http is not None:
            self._plain = ProxyAgent(_endpoint(proxies.http, dial, tls), reactor, pool)

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
class _Tunnels:
    """Gives an agent a tunnel to the host of a URL, or a direct way if no proxy leads there."""

    def __init__(
        self,
        dial: Dial,
        tls: IPolicyForHTTPS,
        proxies: Proxies,
        user_agent: bytes,
        clock: IReactorTime,
    ) -> None:
        self._direct = Endpoints(dial, tls)
        self._tls = tls
        self._proxies = proxies
        self._user_agent = user_agent
        self._timeout, self._clock = dial.connect_timeout, clock
        self._to_proxy: IStreamClientEndpoint | None = None
        if proxies.https is not None:
            self._to_proxy = _endpoint(proxies.https, dial, tls)

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See `IAgentEndpointFactory`."""
        proxy = self._proxies.to("https", uri.host.decode("ascii"), uri.port)
        if proxy is None or self._to_proxy is None or uri.scheme == b"http":
            return self._direct.endpointForURI(uri)
        tunnel = Tunnel(
            proxy,
            self._to_proxy,
            uri.host,
            uri.port,
            self._user_agent,
            self._timeout,
            self._clock,
        )
        return wrapClientTLS(self._tls.creatorForNetloc(uri.host, uri.port), tunnel)


def _endpoint(proxy: Proxy, dial: Dial, tls: IPolicyForHTTPS) -> IStreamClientEndpoint:
    """Give the endpoint of a proxy itself."""
    host = proxy.host.encode("ascii")
    endpoint = dial.endpoint(host, proxy.port, trusted=True)
    if proxy.scheme == "http":
        return endpoint
    return wrapClientTLS(tls.creatorForNetloc(host, proxy.port), endpoint)


def _blame(failure: Failure, proxy: Proxy) -> Never:
    raise blamed(proxy, failure) from None
