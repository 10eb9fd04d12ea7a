"""Where links and redirects may lead: not into the network that proxpi itself stands in.

Theory of operation
-------------------
What an index links to, and where an upstream redirects to, is chosen by others, but it is proxpi
that goes there, from inside. So an address that only such an insider reaches is left alone, unless
one of the indexes lives on such an address itself, or the operator has named the host
(``PROXPI_ALLOW_HOSTS``). Addresses at which a machine finds itself or its cloud provider's secrets
(link-local ones, and their like) are left alone unless they are named, in any case.

A name says nothing: it may stand for any address, and for another one a moment later. What is
judged is each address that is about to be connected to (:mod:`proxpi.upstream.connector`). Behind a
forward proxy there is none to be seen; so a host that is an address is judged in each URL, too.

An index's own host and port may always be connected to, that is what the operator wants.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network
from typing import Literal
from urllib.parse import unquote

import attrs
from twisted.internet.defer import Deferred, DeferredList, fail, succeed
from twisted.internet.error import DNSLookupError

from proxpi.simple import urls
from proxpi.upstream.dns import LookUp
from proxpi.upstream.errors import AddressBlocked

#: *public*: anybody reaches it. *private*: only those inside do. *special*: nobody has a reason to.
Kind = Literal["public", "private", "special"]

#: IPv6 addresses that end in an IPv4 address, which is what is reached by them (RFC 4291 2.5.5,
#: RFC 6052 2.1, RFC 2765 2.1).
_ENDING_IN_IPV4 = tuple(
    IPv6Network(network)
    for network in ("::/96", "::ffff:0:0/96", "64:ff9b::/96", "::ffff:0:0:0/96")
)
#: Private, whatever `ipaddress` of this Python says: local translation (RFC 8215), site-local.
_PRIVATE = (IPv6Network("64:ff9b:1::/48"), IPv6Network("fec0::/10"))
#: Where cloud providers tell a machine its secrets, beyond the link-local 169.254.169.254.
_METADATA = frozenset(
    map(
        ip_address,
        ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "192.0.0.192", "168.63.129.16"),
    )
)
_THIS_NETWORK = IPv4Network("0.0.0.0/8")  # Linux takes 0.0.0.0 for itself


def _nobody(host: str) -> Deferred[list[str]]:
    return fail(DNSLookupError(host))


def kind(address: str) -> Kind:
    """Say what kind of address this is."""
    at = _reached(ip_address(address))
    if at.is_loopback or any(at in network for network in _PRIVATE):
        return "private"
    special = at.is_link_local or at.is_multicast or at.is_unspecified or at.is_reserved
    if special or at in _METADATA or at in _THIS_NETWORK:
        return "special"
    return "public" if at.is_global else "private"


def _reached(address: urls.Address) -> urls.Address:
    """Give the IPv4 address that is in an IPv6 address, else the address itself."""
    if isinstance(address, IPv4Address) or address.is_loopback or address.is_unspecified:
        return address
    if address.sixtofour is not None:
        return address.sixtofour
    if any(address in network for network in _ENDING_IN_IPV4):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


@lru_cache(maxsize=1024)
def literal(host: str) -> str | None:
    """Give the address that a host is, in any spelling that resolvers and proxies take for one.

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


def _nameable(host: str, address: str) -> str:
    """Give what ``PROXPI_ALLOW_HOSTS`` takes for a host: its address if it is spelled oddly."""
    try:
        urls.host(host)
    except ValueError:
        return address
    return _bare(host)


@attrs.frozen
class Allowed:
    """The hosts that an operator has named: names, addresses, networks (of private addresses)."""

    names: frozenset[str]
    networks: tuple[urls.Network, ...]

    @classmethod
    def of(cls, hosts: Iterable[str]) -> Allowed:
        """Read what ``PROXPI_ALLOW_HOSTS`` has, one by one."""
        networks, names = [], set()
        for host in hosts:
            try:
                networks.append(ip_network(host, strict=False))
            except ValueError:
                names.add(_bare(host))
        return cls(frozenset(names), tuple(networks))

    def has(self, address: str, *, within: bool) -> bool:
        """Tell whether an address was named; with `within` also whether a network of it was."""
        found = ip_address(address)
        return any(
            at in network
            for network in self.networks
            if within or network.num_addresses == 1
            for at in {found, _reached(found)}
        )


@attrs.define(eq=False)
class AddressPolicy:
    """What may be connected to.

    :ivar index_urls: the indexes
    :ivar allow_hosts: what the operator has named
    :ivar looks_up: whether the host of an index is looked up here, and not by a forward proxy
    """

    index_urls: Sequence[str] = attrs.field(default=(), repr=False)
    allow_hosts: Iterable[str] = ()
    _look_up: LookUp = _nobody
    looks_up: Callable[[str], bool] = lambda url: True
    # By the hosts of the indexes: whether they live on private addresses, once that is known.
    _lives: dict[str, bool] = attrs.field(init=False, factory=dict)
    _allowed: Allowed = attrs.field(init=False)
    _doors: frozenset[tuple[str, int]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._allowed = Allowed.of(self.allow_hosts)
        self._doors = frozenset(_door(*urls.origin(url)[1:]) for url in self.index_urls)

    async def check_literal(self, url: str) -> None:
        """
        Check the host of a URL if it is an address; names are judged when they are connected to.

        :raises Barred: if nothing may lead there
        """
        _, host, port = urls.origin(url)
        bare = _bare(unquote(host))
        # RFC 6761 6.3: a resolver may ask for other names, but has an answer to these.
        address = "127.0.0.1" if f".{bare}".endswith(".localhost") else literal(host)
        if address is not None:
            await self.passable(host, port, [address])

    async def passable(self, host: str, port: int, addresses: Sequence[str]) -> Sequence[str]:
        """
        Give those addresses of a host that may be connected to.

        :raises Barred: if there are none
        """
        door = _door(host, port)
        if any(door[0] == index for index, _ in self._doors):
            self._note(door[0], addresses)
        if door in self._doors or door[0] in self._allowed.names:
            return addresses
        kinds = {address: kind(address) for address in addresses}
        inside = await self._live_inside() if "private" in kinds.values() else False
        passable = [
            address
            for address, its in kinds.items()
            if its == "public"
            or (inside and its == "private")
            or self._allowed.has(address, within=its == "private")
        ]
        if not passable:
            address = addresses[0]
            what = "private" if kinds[address] == "private" else "link-local or special"
            raise AddressBlocked(
                _nameable(host, address), address, what, certain=inside is not None
            )
        return passable

    async def _live_inside(self) -> bool | None:
        """Tell whether an index lives on a private address; `None` if that cannot be found out."""
        unknown = {
            host
            for url in self.index_urls
            if (host := _bare(urls.origin(url)[1])) not in self._lives
            if literal(host) or self.looks_up(url)
        }
        found = []
        if unknown and not any(self._lives.values()):
            finds = [self._find(host) for host in unknown]
            found = [known for known, _ in await DeferredList(finds, consumeErrors=True)]
        return any(self._lives.values()) or (None if False in found else False)

    def _find(self, host: str) -> Deferred[None]:
        address = literal(host)
        found = self._look_up(host) if address is None else succeed([address])
        return found.addCallback(lambda addresses: self._note(host, addresses))

    def _note(self, host: str, addresses: Iterable[str]) -> None:
        """Note where an index lives; one that was seen outside does not come in any more.

        Whoever names its addresses could open every door by moving it in for a moment.
        """
        inside = all(kind(address) == "private" for address in addresses)
        self._lives[host] = self._lives.get(host, True) and inside


def _door(host: str, port: int) -> tuple[str, int]:
    return _bare(host), port
