"""How a connection to an upstream begins: from a host's name to an open socket.

The DNS resolver (:mod:`proxpi.upstream.dns`) finds the addresses of a host, the address policy
(:mod:`proxpi.upstream.address_policy`) leaves out those that are blocked, and the others are tried,
the next one soon after the one before, until one is connected (RFC 8305, as Twisted has it). All of
that together takes no longer than the connect timeout.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Any

import attrs
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
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


@attrs.frozen
class Connector:
    """Makes endpoints for hosts.

    :ivar connect_timeout: seconds that it may take to connect, from the name on
    :ivar address_policy: the addresses that links and redirects may lead to
    """

    _reactor: Any
    connect_timeout: float
    _look_up: LookUp
    address_policy: AddressPolicy

    def endpoint(self, host: bytes, port: int, *, trusted: bool = False) -> IStreamClientEndpoint:
        """
        Give the endpoint of a TCP port of a host.

        :param trusted: whether it is the operator who leads there, to whichever address
        """
        return _Endpoint(self, host.decode("latin-1").lower(), port, trusted)

    async def connect(
        self, factory: IProtocolFactory, host: str, port: int, trusted: bool
    ) -> IProtocol:
        """
        Connect to a host.

        :raises Barred: if nothing may lead there
        """
        began = self._reactor.seconds()
        address = literal(host)
        looked_up = self._look_up(host) if address is None else succeed([address])
        addresses: Sequence[str] = await looked_up
        if not trusted:
            addresses = await self.address_policy.passable(host, port, addresses)
        left = max(0.0, self.connect_timeout - (self._reactor.seconds() - began))
        chosen = _Chosen(self._reactor, [_address(each, port) for each in _mixed(addresses)])
        # Nobody asks for the name any more; it may be one that Twisted takes for none (``a_b``).
        connected = HostnameEndpoint(chosen, "chosen", port, timeout=left).connect(factory)
        return await connected.addTimeout(left, self._reactor, _timed_out)


def _timed_out(result: object, timeout: float) -> Any:
    raise TimeoutError()


def _address(address: str, port: int) -> IPv4Address | IPv6Address:
    return (IPv6Address if ":" in address else IPv4Address)("TCP", address, port)


def _mixed(addresses: Sequence[str]) -> list[str]:
    """Take turns between both versions of IP, for one of them may lead nowhere (RFC 8305 4)."""
    first = [address for address in addresses if (":" in address) == (":" in addresses[0])]
    other = [address for address in addresses if address not in first]
    return [each for each in chain(*zip_longest(first, other)) if each is not None]


@implementer(IStreamClientEndpoint)
@attrs.frozen(repr=False)  # the pool asks for it, each time
class _Endpoint:
    """A port of a host."""

    _dial: Connector
    _host: str
    _port: int
    _trusted: bool

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See `IStreamClientEndpoint`."""
        return Deferred.fromCoroutine(
            self._dial.connect(protocolFactory, self._host, self._port, self._trusted)
        )


@implementer(IReactorPluggableNameResolver, IHostnameResolver, IHostResolution)
class _Chosen:
    """A reactor for which every host has the addresses that were chosen."""

    name = "chosen"

    def __init__(self, reactor: Any, addresses: Sequence[IPv4Address | IPv6Address]) -> None:
        self._reactor = reactor
        self._addresses = addresses
        self.nameResolver = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def resolveHostName(
        self, resolutionReceiver: IResolutionReceiver, *what: object, **named: object
    ) -> IHostResolution:
        """See `IHostnameResolver`."""
        resolutionReceiver.resolutionBegan(self)
        for address in self._addresses:
            resolutionReceiver.addressResolved(address)
        resolutionReceiver.resolutionComplete()
        return self
