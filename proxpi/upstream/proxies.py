"""Forward proxies: ``HTTP_PROXY`` and the like, and which proxy an origin is reached through.

Pure: no name is looked up, so addresses in ``NO_PROXY`` apply to URLs with an address. No standard
defines these variables. They mean what ``curl``, ``requests`` (with ``pip`` on it) and Go have in
common; where these differ, a comment says whom proxpi follows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address, ip_network

import attrs

from proxpi.settings import Given
from proxpi.simple import Origin, urls
from proxpi.upstream.credentials import basic
from proxpi.values import SettingsError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_WITH_PORT = re.compile(r"(\[[^]]*]|[^:]*):([0-9]+)")


@attrs.frozen
class Proxy:
    """A forward proxy.

    :ivar scheme: of the connection to the proxy itself: ``http``, or ``https`` for TLS
    :ivar host: a name, or an address without brackets
    """

    scheme: str
    host: str
    port: int
    authorization: bytes | None = attrs.field(default=None, repr=False)

    @classmethod
    def from_url(cls, text: str) -> Proxy:
        """Parse the URL of a proxy, else raise `ValueError`; the default scheme is http.

        The default port is that of the scheme, as in requests and Go; curl has 1080 for http.
        """
        url = text if _SCHEME.match(text) else f"http://{text.removeprefix('//')}"
        scheme, host, port = urls.origin(url)
        # Text behind the host is ignored, unless it may be a password with a slash in it.
        server, *rest = re.split("[/?#]", url.partition("://")[2], maxsplit=1)
        if server.endswith(":") or "@" in "".join(rest):
            raise ValueError("a host, or a port, without an end")
        pair = urls.userinfo(url)
        authorization = basic(*pair) if pair and any(pair) else None
        return cls(scheme, host.encode("idna").decode("ascii"), port, authorization)

    @property
    def name(self) -> str:
        """The proxy without its credentials: ``proxy http://proxy.example:3128``."""
        return f"proxy {self.url}"

    @property
    def url(self) -> str:
        """The URL without path and credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@attrs.frozen
class Exclusion:
    """One item of ``NO_PROXY``: hosts, perhaps on one port only, that are reached directly.

    :ivar hosts: a network (an address is a small one), a name with its subdomains, ``*``, or none
    """

    hosts: urls.Network | str
    port: int | None = None

    @classmethod
    def from_text(cls, text: str) -> Exclusion:
        """Parse an item; one that makes no sense covers nothing, as everywhere."""
        found = None if _network(text) else _WITH_PORT.fullmatch(text)
        hosts, port = (found[1], int(found[2])) if found else (text, None)
        network = _network(hosts.removeprefix("[").removesuffix("]"))
        if network is not None or hosts == "*":
            return cls(network or hosts, port)
        # In Go, ".example.com" is not "example.com" itself, in curl and requests it is.
        name = hosts.removeprefix("*").strip(".").lower()
        return cls("" if "*" in name else name, port)

    def covers(self, host: str, port: int) -> bool:
        if self.port not in (None, port):
            return False
        if isinstance(self.hosts, str):
            name = host.rstrip(".").lower()
            return self.hosts in ("*", name) or (
                bool(self.hosts) and _address(host) is None and name.endswith(f".{self.hosts}")
            )
        address = _address(host)
        return address is not None and address in self.hosts


@attrs.frozen
class Proxies:
    http: Proxy | None = None
    https: Proxy | None = None
    excluded: tuple[Exclusion, ...] = ()

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Proxies:
        """Read ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``.

        Lower case wins over upper case, and an empty variable is an unset one. A variable that is
        not used is not parsed.

        :raises SettingsError: for a proxy that is not understood, or has another scheme
        """
        variables = dict(environment)
        if variables.get("REQUEST_METHOD"):
            # Under CGI this variable is the header field "Proxy" of a client.
            variables.pop("HTTP_PROXY", None)
        excluded = _given(variables, "no_proxy")
        items = re.split(r"[\s,]+", excluded.text) if excluded else ()
        return cls(
            _proxy(variables, "http_proxy"),
            _proxy(variables, "https_proxy"),
            tuple(Exclusion.from_text(item) for item in items if item),
        )

    def to(self, origin: Origin) -> Proxy | None:
        if any(exclusion.covers(origin.host, origin.port) for exclusion in self.excluded):
            return None
        return self.https if origin.scheme == "https" else self.http


NO_PROXIES = Proxies()


def _given(variables: Mapping[str, str], name: str) -> Given | None:
    for variable in (name, name.upper()):
        if text := variables.get(variable, "").strip():
            return Given(variable, text)
    return None


def _proxy(variables: Mapping[str, str], name: str) -> Proxy | None:
    given = _given(variables, name) or _given(variables, "all_proxy")
    if given is None:
        return None
    scheme = _SCHEME.match(given.text)
    if scheme and scheme[1].lower() not in ("http", "https"):
        why = f"{scheme[1]} proxies are not supported"
    else:
        try:
            return Proxy.from_url(given.text)
        except ValueError:
            why = "not understood"
    # In the words of a setting (it is none: it has no prefix and no option).
    text = urls.redacted(given.text)
    raise SettingsError(
        f"{given.variable}={text!r}: {why}; an http or https URL with a host is accepted"
    )


def _network(text: str) -> urls.Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def _address(host: str) -> urls.Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
