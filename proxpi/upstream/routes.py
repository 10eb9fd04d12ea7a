"""Which way a request takes: straight to its host, or through a forward proxy.

An http URL is asked for at the proxy, as a whole (RFC 9112 3.2.2); to an https one leads a tunnel.
Both kinds of connection are kept in the one pool, as those without a proxy are. Where there is a
proxy, the name of the host is not looked up here.
"""

from __future__ import annotations

from typing import Any, Never

import attrs
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
from proxpi.upstream.dial import Dial
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
        endpoints = _Endpoints(dial, tls, proxies, user_agent, reactor)
        self._direct: IAgent = Agent.usingEndpointFactory(reactor, endpoints, pool)
        self._plain: IAgent | None = None
        if proxies.http is not None:
            self._plain = ProxyAgent(endpoints.of_proxy(proxies.http), reactor, pool)

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

    _dial: Dial
    _tls: IPolicyForHTTPS
    _proxies: Proxies
    _user_agent: bytes
    _clock: IReactorTime

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See `IAgentEndpointFactory`."""
        host, port = uri.host, uri.port
        if uri.scheme == b"http":
            return self._dial.endpoint(host, port)
        proxy = self._proxies.to("https", host.decode("ascii"), port)
        if proxy is None:
            return self._secure(self._dial.endpoint(host, port), host, port)
        timeout, to_proxy = self._dial.connect_timeout, self.of_proxy(proxy)
        tunnel = Tunnel(proxy, to_proxy, host, port, self._user_agent, timeout, self._clock)
        return self._secure(tunnel, host, port)

    def of_proxy(self, proxy: Proxy) -> IStreamClientEndpoint:
        """Give the endpoint of a proxy itself."""
        host = proxy.host.encode("ascii")
        endpoint = self._dial.endpoint(host, proxy.port, trusted=True)
        return endpoint if proxy.scheme == "http" else self._secure(endpoint, host, proxy.port)

    def _secure(
        self, endpoint: IStreamClientEndpoint, host: bytes, port: int
    ) -> IStreamClientEndpoint:
        return wrapClientTLS(self._tls.creatorForNetloc(host, port), endpoint)


def _blame(failure: Failure, proxy: Proxy) -> Never:
    raise blamed(proxy, failure) from None
