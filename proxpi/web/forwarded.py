"""Trusted reverse proxies: the client's address, and its URL, from their header fields.

``X-Forwarded-For``, ``-Proto``, ``-Host``, ``-Port`` and ``-Prefix``, or else ``Forwarded`` (RFC
7239), of a request are read if the peer is trusted, and ignored from any other. A value that is
malformed is ignored. A proxy that states the one kind often passes the other on as the client sent
it: so ``Forwarded`` is ignored beside any ``X-Forwarded`` field.

The client is found from the right: each trusted proxy appends the address of its own peer. The
first address that is not trusted is the client, which may have invented the addresses left of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

import attrs
from twisted.web.http_headers import Headers

from proxpi.values import UNIX, Peer
from proxpi.web.request_parser import BadRequest, check_authority

#: Decisions on peers, and clients of requests from the response cache, that are kept.
KEPT = 1024

_X_FORWARDED = (
    *(b"X-Forwarded-For", b"X-Forwarded-Proto", b"X-Forwarded-Host"),
    *(b"X-Forwarded-Port", b"X-Forwarded-Prefix"),
)
# Most processes trust no proxy: these are not compiled at their start.
_NODE = r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}|([0-9A-Fa-f:.]+)"
_SCHEMES = ("http", "https")
_PORT = r"[1-9][0-9]{0,4}"
#: Ports of ``http`` and ``https``, which a URL of the one or the other does not state.
_DEFAULT_PORTS = ("80", "443")
_PREFIX = r"((?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)+)/?"
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR = rf'({_TOKEN})=(?:({_TOKEN})|"((?:[^"\\]|\\.)*+)")'
_SEPARATOR = r"(;)|[ \t]*,[ \t]*"


@attrs.frozen
class Forwarded:
    """The origin of a request.

    :ivar client: the address of the client; ``unix`` for a peer at a socket without addresses
    :ivar scheme: ``http`` or ``https`` if a proxy states it, else empty
    :ivar authority: host and port that the client used; empty if it stated none
    :ivar prefix: the path below which the proxy serves proxpi, without a slash at its end
    """

    client: str
    scheme: str = ""
    authority: str = ""
    prefix: str = ""


class TrustedProxies:
    """The peers whose statements are read."""

    def __init__(self, peers: Iterable[Peer] = ()) -> None:
        self._unix = UNIX in (stated := list(peers))
        self._networks = [each for each in stated if not isinstance(each, str)]
        self.trusts = lru_cache(KEPT)(self._trusts)
        self._client = lru_cache(KEPT)(self._find_client)

    def _trusts(self, peer: str) -> bool:
        """Return whether an address, or ``unix``, is that of a trusted proxy."""
        if not self._networks or (address := _address(peer)) is None:
            return self._unix and peer == UNIX
        return any(address in network for network in self._networks)

    def client(self, peer: str, fields: Mapping[bytes, str], head: bytes) -> str:
        """
        Return the address of the client alone.

        :param fields: those of the request's origin; see `request_parser.without_origin`
        :param head: the rest of its head
        """
        if not (fields and self.trusts(peer)):
            return peer
        if b"x-forwarded-for" in fields:
            return self._client(peer, fields[b"x-forwarded-for"], "")
        if b"forwarded" in fields and b"\r\nx-forwarded-" not in head.lower():
            return self._client(peer, "", fields[b"forwarded"])
        return peer

    def _find_client(self, peer: str, forwarded_for: str, forwarded: str) -> str:
        chain = [each.get("for", "") for each in _elements(forwarded)] if forwarded else []
        return self._walk(peer, chain or forwarded_for.split(","))[0]

    def read(self, peer: str, headers: Headers) -> Forwarded:
        """Read the header fields of a request."""
        host = _value(headers, b"Host")
        if not self.trusts(peer):
            return Forwarded(peer, authority=host)
        if not any(headers.hasHeader(name) for name in _X_FORWARDED):
            elements = _elements(_value(headers, b"Forwarded"))
            client, place = self._walk(peer, [each.get("for", "") for each in elements])
            # The trusted proxy that is nearest to the client wrote this one.
            first = elements[-max(1, place)] if elements else {}
            scheme, authority = first.get("proto", ""), first.get("host", "")
            return Forwarded(client, _scheme(scheme), _authority(authority) or host)
        client, _ = self._walk(peer, _value(headers, b"X-Forwarded-For").split(","))
        scheme, authority, port, prefix = (_last(headers, name) for name in _X_FORWARDED[1:])
        authority = _authority(authority) or host
        if re.fullmatch(_PORT, port) and port not in _DEFAULT_PORTS:
            authority = _authority(f"{authority}:{port}") or authority
        path = re.fullmatch(_PREFIX, prefix)
        return Forwarded(client, _scheme(scheme), authority, path[1] if path else "")

    def _walk(self, peer: str, chain: Sequence[str]) -> tuple[str, int]:
        """Return the first address from the right that is not trusted, and its place there."""
        client, place = peer, 0
        for stated in reversed(chain):
            if not self.trusts(client) or (address := _node(stated)) is None:
                break
            client, place = address, place + 1
        return client, place


def peer_address(text: str) -> str:
    """Write the address of a peer in its shortest form; ``-`` if it is none."""
    return str(_address(text) or "-")


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Read an address. One of IPv4 that is mapped to IPv6 is one of IPv4."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _node(text: str) -> str | None:
    """Read the address of a client, with or without its port."""
    match = re.fullmatch(_NODE, text.strip(" \t"))
    address = _address(match[1] or match[2] or match[3]) if match else None
    return None if address is None else str(address)


def _value(headers: Headers, name: bytes) -> str:
    """Return a field; several lines of it are one list (RFC 9110 5.3)."""
    return b", ".join(headers.getRawHeaders(name, [])).decode("latin-1")


def _last(headers: Headers, name: bytes) -> str:
    """Return the last member of a field: the nearest proxy wrote it."""
    return _value(headers, name).rpartition(",")[2].strip(" \t")


def _scheme(text: str) -> str:
    return text.lower() if text.lower() in _SCHEMES else ""


def _authority(text: str) -> str:
    try:
        check_authority(text.encode("latin-1"), "")
    except BadRequest:
        return ""
    return text


def _elements(text: str) -> list[dict[str, str]]:
    """Parse ``Forwarded``; a malformed one has no elements."""
    pair_at, separator_at = re.compile(_PAIR).match, re.compile(_SEPARATOR).match
    elements: list[dict[str, str]] = [{}]
    position = 0
    while (pair := pair_at(text, position)) is not None:
        name, value, quoted = pair.groups()
        if name.lower() in elements[-1]:
            break
        elements[-1][name.lower()] = value or re.sub(r"\\(.)", r"\1", quoted)
        if (position := pair.end()) == len(text):
            return elements
        if (separator := separator_at(text, position)) is None:
            break
        position = separator.end()
        if separator[1] is None:
            elements.append({})
    return []
