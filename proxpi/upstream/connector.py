"""The connector: from the name of a host to an open socket (happy eyeballs, RFC 8305).

The DNS resolver finds the addresses of a host, the address policy drops the blocked ones, and
Twisted's `HostnameEndpoint` tries the others, each one soon after the one before, until one is
connected. All of that together takes no longer than the connect timeout.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Any

import attrs
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import (
    IHostnameResolver,
    IHostResolution,
    IProtocol,
    IProtocolFactory,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from zope.interface import implementer

from proxpi.upstream.address_policy import AddressPolicy, literal
from proxpi.upstream.dns import LookUp
from proxpi.upstream.errors import on_timeout


@attrs.frozen
class Connector:
    """Makes endpoints, which connect within the seconds of `connect_timeout`."""

    reactor: Any
    connect_timeout: float
    _look_up: LookUp
    _address_policy: AddressPolicy

    def endpoint(self, host: bytes, port: int, *, trusted: bool = False) -> IStreamClientEndpoint:
        """Return the endpoint of a TCP port of a host.

        :param trusted: exempts the host from the address policy: the operator's own proxy
        """
        return _Endpoint(self, host.decode("latin-1").lower(), port, trusted)

    async def connect(
        self, factory: IProtocolFactory, host: str, port: int, trusted: bool
    ) -> IProtocol:
        """:raises AddressBlocked: if the address policy allows none of the host's addresses"""
        address = literal(host)
        addresses: Sequence[str] = [address] if address else await self._look_up(host)
        if not trusted:
            addresses = await self._address_policy.allowed(host, port, addresses)
        found: list[IPv4Address | IPv6Address] = [
            (IPv6Address if ":" in each else IPv4Address)("TCP", each, port)
            for each in _mixed(addresses)
        ]
        resolved = _Resolved(self.reactor, found)
        # The endpoint needs no name; this one may be one that Twisted refuses (``a_b``).
        endpoint = HostnameEndpoint(resolved, "resolved", port, timeout=self.connect_timeout)
        return await endpoint.connect(factory)


def _mixed(addresses: Sequence[str]) -> list[str]:
    """Alternate between the two versions of IP, as one of them may lead nowhere (RFC 8305 4)."""
    first = [address for address in addresses if (":" in address) == (":" in addresses[0])]
    other = [address for address in addresses if address not in first]
    return [each for each in chain(*zip_longest(first, other)) if each is not None]


@implementer(IStreamClientEndpoint)
@attrs.frozen(repr=False)  # the pool asks for it, for each connection
class _Endpoint:
    _connector: Connector
    _host: str
    _port: int
    _trusted: bool

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        connecting = self._connector.connect(protocolFactory, self._host, self._port, self._trusted)
        return Deferred.fromCoroutine(connecting).addTimeout(
            self._connector.connect_timeout, self._connector.reactor, on_timeout(TimeoutError)
        )


@implementer(IReactorPluggableNameResolver, IHostnameResolver, IHostResolution)
class _Resolved:
    """A reactor that resolves every host to the given addresses."""

    name = "resolved"

    def __init__(self, reactor: Any, addresses: Sequence[IPv4Address | IPv6Address]) -> None:
        self._reactor = reactor
        self._addresses = addresses
        self.nameResolver = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def resolveHostName(
        self, resolutionReceiver: IResolutionReceiver, *args: object, **keywords: object
    ) -> IHostResolution:
        resolutionReceiver.resolutionBegan(self)
        for address in self._addresses:
            resolutionReceiver.addressResolved(address)
        resolutionReceiver.resolutionComplete()
        return self
