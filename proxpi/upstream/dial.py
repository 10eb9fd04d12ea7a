"""How a connection to an upstream begins: from a host's name to an open socket."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer


@attrs.frozen
class Dial:
    """Makes endpoints for hosts.

    :ivar connect_timeout: seconds that each attempt to connect may take
    """

    _reactor: Any
    connect_timeout: float

    def endpoint(self, host: bytes, port: int, *, trusted: bool = False) -> IStreamClientEndpoint:
        """
        Give the endpoint of a TCP port of a host.

        :param trusted: whether the host is one that the settings name
        """
        return HostnameEndpoint(self._reactor, host, port, timeout=self.connect_timeout)


@implementer(IAgentEndpointFactory)
@attrs.frozen
class Endpoints:
    """Gives an agent the endpoint for a URL: that of its host, with TLS if it is https."""

    _dial: Dial
    _tls: IPolicyForHTTPS

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See `IAgentEndpointFactory`."""
        endpoint = self._dial.endpoint(uri.host, uri.port)
        if uri.scheme == b"http":
            return endpoint
        return wrapClientTLS(self._tls.creatorForNetloc(uri.host, uri.port), endpoint)
