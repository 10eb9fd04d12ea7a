"""Addresses that links and redirects may lead to, against server-side request forgery (SSRF).

Indexes choose links, and upstreams redirects, but proxpi connects, from inside a network. An
address is *public*, *private* (only that network reaches it) or *special* (link-local
and the like, where a machine finds itself or the secrets of its cloud provider). A private address
is allowed if a configured index has one itself, or the operator names host, address or network
(``PROXPI_ALLOW_HOSTS``); a special one only by name or address in that setting. Host and port of a
configured index are always allowed.

A name may resolve to any address, and to another one a moment later, so the connector checks the
resolved addresses (:mod:`proxpi.upstream.connector`). A forward proxy resolves names itself; hence
a host that is an address is checked in each URL as well.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network
from typing import Literal
from urllib.parse import unquote

from twisted.internet.defer import Deferred, DeferredList

from proxpi.simple import Origin, urls
from proxpi.upstream.dns import LookUp
from proxpi.upstream.errors import AddressBlocked

Kind = Literal["public", "private", "special"]

#: IPv6 networks whose addresses lead to the IPv4 address in their last 32 bits (RFC 4291 2.5.5,
#: RFC 6052 2.1, RFC 2765 2.1).
_ENDING_IN_IPV4 = [
    IPv6Network(network)
    for network in ("::/96", "::ffff:0:0/96", "64:ff9b::/96", "::ffff:0:0:0/96")
]
#: Private, even if `ipaddress` of this Python disagrees: RFC 8215 translation, site-local.
_PRIVATE = (IPv6Network("64:ff9b:1::/48"), IPv6Network("fec0::/10"))
#: Metadata services of cloud providers, besides the link-local 169.254.169.254.
_METADATA = {
    *map(ip_address, ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200")),
    *map(ip_address, ("192.0.0.192", "168.63.129.16")),
}
_THIS_NETWORK = IPv4Network("0.0.0.0/8")  # Linux takes 0.0.0.0 for itself


def kind_of(address: str) -> Kind:
    at = _reached(ip_address(address))
    if at.is_loopback or any(at in network for network in _PRIVATE):
        return "private"
    special = at.is_link_local or at.is_multicast or at.is_unspecified or at.is_reserved
    if special or at in _METADATA or at in _THIS_NETWORK:
        return "special"
    return "public" if at.is_global else "private"


def _reached(address: urls.Address) -> urls.Address:
    """Return the IPv4 address within an IPv6 address, else the address itself."""
    if isinstance(address, IPv4Address) or address.is_loopback or address.is_unspecified:
        return address
    if address.sixtofour is not None:
        return address.sixtofour
    if any(address in network for network in _ENDING_IN_IPV4):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


@lru_cache(maxsize=1024)
def literal(host: str) -> str | None:
    """Return the address that a host stands for, in any spelling that resolvers and proxies accept.

    They take ``2130706433``, ``0x7f.1`` and ``127.0.0.1.`` for 127.0.0.1.
    """
    host = unquote(host).rstrip(".")
    try:
        return str(ip_address(host))
    except ValueError:
        pass
    try:
        return str(IPv4Address(socket.inet_aton(host)))
    except (OSError, ValueError):
        return None


def _bare(host: str) -> str:
    return host.lower().rstrip(".")


class AddressPolicy:
    """Decides which addresses of a host may be connected to.

    :param resolved_here: tells whether the host of an origin is looked up here, and not by a
        forward proxy
    """

    def __init__(
        self,
        index_urls: Iterable[str],
        allow_hosts: Iterable[str],
        look_up: LookUp,
        resolved_here: Callable[[Origin], bool] = lambda origin: True,
    ) -> None:
        self._indexes = [urls.origin(url) for url in index_urls]
        self._allowed_names: set[str] = set()
        self._allowed_networks: list[urls.Network] = []
        for host in allow_hosts:
            try:
                self._allowed_networks.append(ip_network(host, strict=False))
            except ValueError:
                self._allowed_names.add(_bare(host))
        self._look_up = look_up
        self._resolved_here = resolved_here
        # By the hosts of the indexes: whether their addresses are private, once that is known.
        self._private_indexes: dict[str, bool] = {}
        self._index_ports = {(_bare(host), port) for _, host, port in self._indexes}

    async def check_host(self, origin: Origin) -> None:
        """Check a host that is an address (names are checked on connecting), as `allowed` does."""
        _, host, port = origin
        bare = _bare(unquote(host))
        # RFC 6761 6.3: a resolver may ask for other names, but has an answer to these.
        address = "127.0.0.1" if f".{bare}".endswith(".localhost") else literal(host)
        if address is not None:
            await self.allowed(host, port, [address])

    async def allowed(self, host: str, port: int, addresses: Sequence[str]) -> Sequence[str]:
        """Return the addresses of a host that may be connected to.

        :raises AddressBlocked: if there are none
        """
        host = _bare(host)
        if any(host == index for index, _ in self._index_ports):
            self._note(host, addresses)
        if (host, port) in self._index_ports or host in self._allowed_names:
            return addresses
        kinds = {address: kind_of(address) for address in addresses}
        private = await self._has_private_index() if "private" in kinds.values() else False
        allowed = [
            address
            for address, kind in kinds.items()
            if kind == "public"
            or (kind == "private" and private)
            or self._names(address, its_network=kind == "private")
        ]
        if not allowed:
            address = addresses[0]
            what = "private" if kinds[address] == "private" else "link-local or special"
            try:
                urls.host(host)
            except ValueError:  # an odd spelling, which ``PROXPI_ALLOW_HOSTS`` does not take
                host = address
            raise AddressBlocked(host, address, what, temporary=private is None)
        return allowed

    def _names(self, address: str, *, its_network: bool) -> bool:
        """Return whether the operator names an address, or a network of it if that is enough."""
        found = ip_address(address)
        return any(
            at in network
            for network in self._allowed_networks
            if its_network or network.num_addresses == 1
            for at in {found, _reached(found)}
        )

    async def _has_private_index(self) -> bool | None:
        """Return whether an index has a private address; `None` if a lookup fails."""
        unknown = {
            host
            for origin in self._indexes
            if (host := _bare(origin.host)) not in self._private_indexes
            if literal(host) or self._resolved_here(origin)
        }
        found = []
        if unknown and not any(self._private_indexes.values()):
            lookups = [Deferred.fromCoroutine(self._find(host)) for host in unknown]
            found = [known for known, _ in await DeferredList(lookups, consumeErrors=True)]
        return any(self._private_indexes.values()) or (None if False in found else False)

    async def _find(self, host: str) -> None:
        address = literal(host)
        self._note(host, [address] if address else await self._look_up(host))

    def _note(self, host: str, addresses: Iterable[str]) -> None:
        """Note whether an index is private; one that was public once never counts as private.

        Otherwise its DNS server could allow all private addresses by naming one for a moment.
        """
        private = all(kind_of(address) == "private" for address in addresses)
        self._private_indexes[host] = self._private_indexes.get(host, True) and private
