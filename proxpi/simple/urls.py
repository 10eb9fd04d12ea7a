"""URLs of web servers: parsing, joining, and hiding of credentials (RFC 3986).

The URL of an index is kept to the byte otherwise: a server refuses a signed URL that has been
quoted anew. Hence these functions cut URLs; they do not take them apart and put them together.
A :class:`URL` is parsed once and travels with a request, from one redirect to the next.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit

import attrs
import idna

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_PORTS = {"http": 80, "https": 443}
_AUTHORITY = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?//([^/?#]*)")
_ABSOLUTE = re.compile(r"https?://", re.IGNORECASE)
_NOT_IN_SERVER = re.compile(r"[\s\x00-\x20\x7f\\]")
_NOT_IN_HOST = re.compile(r"[\"<>^`{|}]")
_HOST_NAME = re.compile(r"(?:[A-Za-z0-9_-]+\.)*[A-Za-z0-9_-]*[A-Za-z_-][A-Za-z0-9_-]*\.?")
_MAX_HOST_LENGTH = 253
_LINE_BREAKS = str.maketrans("", "", "\t\r\n")
_BLANKS = "".join(map(chr, range(0x21)))


class Origin(NamedTuple):
    """Scheme, lower-case host and port of a server (RFC 6454)."""

    scheme: str
    host: str
    port: int


@attrs.frozen
class URL:
    """The URL of an http or https server, kept to the byte, with its origin.

    >>> URL.parse("https://user:secret@index.example/simple/").public
    'https://index.example/simple/'
    """

    text: str = attrs.field(repr=lambda text: repr(public(text)))
    origin: Origin

    @classmethod
    def parse(cls, text: str) -> URL:
        """:raises ValueError: if this is not the URL of an http or https server"""
        return cls(text, origin(text))

    def join(self, ref: str) -> URL:
        """Resolve a link or a redirect; `ValueError` as from :func:`join` and :meth:`parse`."""
        return self.parse(join(self.text, ref))

    @property
    def public(self) -> str:
        """The URL without credentials and fragment."""
        return public(self.text)

    @property
    def path(self) -> str:
        """The path, percent-encoded as it stands."""
        return self.text[_authority(self.text)[1] : _path_end(self.text)]


def _authority(url: str) -> tuple[int, int]:
    """Return start and end of ``user:password@host:port``; (0, 0) for none."""
    found = _AUTHORITY.match(url)
    return found.span(1) if found else (0, 0)


def _path_end(url: str) -> int:
    """Return the end of the path: query, fragment, or end of the URL."""
    return len(re.split(r"[?#]", url, maxsplit=1)[0])


def join(base: str, ref: str) -> str:
    """Resolve a link against the absolute URL of its page.

    As in the URL Standard: blanks around the link and line breaks within it are dropped, and
    backslashes in its path are slashes; behind the host, characters that may not stand in a URL
    (spaces, controls, non-ASCII) are percent-encoded as UTF-8. A host that is not ASCII is
    written in IDNA. Nothing else changes.

    :raises ValueError: if the two cannot be joined
    """
    ref = ref.strip(_BLANKS).translate(_LINE_BREAKS)
    if "\\" in ref:
        start, end = _authority(ref)[1], _path_end(ref)
        ref = ref[:start] + ref[start:end].replace("\\", "/") + ref[end:]
    url = with_ascii_host(ref if _ABSOLUTE.match(ref) else urljoin(base, ref))
    _, end = _authority(url)
    return url[:end] + re.sub(r"[^!-~]+", lambda found: quote(found[0]), url[end:])


def with_ascii_host(url: str) -> str:
    """Write the host of a URL in IDNA (UTS 46); `ValueError` if no host can have this name."""
    start, end = _authority(url)
    at = max(start, url.rfind("@", start, end) + 1)
    host, colon, port = url[at:end].partition(":")
    if host.isascii():
        return url
    if len(host) > _MAX_HOST_LENGTH:
        raise ValueError("a host whose name is too long")
    try:
        name = idna.encode(host, uts46=True).decode("ascii")
    except UnicodeError as error:
        raise ValueError(f"the host {host!r} cannot be written in ASCII: {error}") from None
    return url[:at] + name + colon + port + url[end:]


def without_fragment(url: str) -> str:
    return url.partition("#")[0]


def public(url: str) -> str:
    """Return the only form in which a URL may be logged or sent to a client.

    User, password and fragment are taken off. Where the end of a password is unclear (no URL, or
    an empty port, as of a password that begins with a slash), only the text behind the last ``@``
    is left.
    """
    if url.startswith("file:///"):  # it has no server, so no user, and an "@" in it is a name's
        return without_fragment(url)
    start, end = _authority(url)
    try:
        origin(url)
        unclear = url[:end].endswith(":")
    except ValueError:
        unclear = True
    if unclear:
        return without_fragment(url.rpartition("@")[2])
    return url[:start] + url[start:end].rpartition("@")[2] + without_fragment(url[end:])


def loggable(url: str) -> str:
    """Return the public form without the query, which may hold a token: for logs and messages."""
    return public(url).partition("?")[0]


def redacted(text: str) -> str:
    """Hide all before the last ``@`` of a text that may be meant as a URL, or as several.

    The query of a URL, which may hold a token, is hidden as well.
    """
    text = re.sub(r"^(\s*(?:\w+\+)?\w+://)?.*@", r"\1***@", text, flags=re.DOTALL)
    scheme, mark, rest = text.partition("://")
    path, query, _ = rest.partition("?")
    return f"{scheme}{mark}{path}?***" if query else text


def origin(url: str) -> Origin:
    """Return the origin of a URL; `ValueError` if it is not that of an http or https server."""
    return _origin(url[: _authority(url)[1]])


@lru_cache(maxsize=256)
def _origin(server: str) -> Origin:
    # The standard library overlooks line breaks, and browsers read a backslash as a slash.
    if _NOT_IN_SERVER.search(server):
        raise ValueError("characters that the address of a server cannot have")
    parts = urlsplit(server)
    host, port = parts.hostname, parts.port
    if parts.scheme not in _PORTS or not host or _NOT_IN_HOST.search(host):
        raise ValueError("not the URL of an http or https server")
    return Origin(parts.scheme, host, _PORTS[parts.scheme] if port is None else port)


def host(text: str) -> str:
    """Normalize the name of a host, an address, or a network; `ValueError` if it is none."""
    text = text.strip()
    try:
        return str(ip_network(text.removeprefix("[").removesuffix("]"), strict=False))
    except ValueError:
        if not _HOST_NAME.fullmatch(text):
            raise
    return text.lower().rstrip(".")


def filename(url: str) -> str:
    """Return the last segment of the path, percent-decoded once; empty where there is none."""
    _, start = _authority(url)
    return unquote(url[start : max(start, _path_end(url))].rpartition("/")[2])


def with_suffix(url: str, suffix: str) -> str:
    """Append a suffix, such as ``.metadata``, to the path, before query and fragment."""
    end = _path_end(url)
    return url[:end] + suffix + url[end:]


def userinfo(url: str) -> tuple[str, str] | None:
    """Return user and password of a URL, percent-decoded; ``None`` without either."""
    start, end = _authority(url)
    credentials, found, _ = url[start:end].rpartition("@")
    user, _, password = credentials.partition(":")
    return (unquote(user), unquote(password)) if found else None
