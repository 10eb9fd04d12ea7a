"""URLs: joining, hiding credentials, and the few parts that proxpi needs (RFC 3986).

A URL that an index gave is otherwise kept to the byte: a signed URL that has been quoted anew
is refused by its server. Hence URLs are cut here, not taken apart and put together.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from urllib.parse import quote, unquote, urljoin, urlsplit

import idna

#: What a host may be instead of a name, and what an operator may name instead of hosts.
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_PORTS = {"http": 80, "https": 443}
_AUTHORITY = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?//([^/?#]*)")
_ABSOLUTE = re.compile(r"https?://", re.IGNORECASE)
_NOT_OF_A_SERVER = re.compile(r"[\s\x00-\x20\x7f\\]")
_NOT_OF_A_HOST = re.compile(r"[\"<>^`{|}]")
_NAME = re.compile(r"(?:[A-Za-z0-9_-]+\.)*[A-Za-z0-9_-]*[A-Za-z_-][A-Za-z0-9_-]*\.?")
_LONGEST_HOST = 253
_DROPPED = str.maketrans("", "", "\t\r\n")
_BLANK = "".join(map(chr, range(0x21)))


def _authority(url: str) -> tuple[int, int]:
    """Say where the authority (``user:password@host:port``) begins and ends; (0, 0) for none."""
    found = _AUTHORITY.match(url)
    return found.span(1) if found else (0, 0)


def _path_end(url: str) -> int:
    """Say where the path ends: at the query, at the fragment or with the URL."""
    return len(re.split(r"[?#]", url, maxsplit=1)[0])


def join(base: str, ref: str) -> str:
    """Resolve a link against the absolute URL of its page.

    Blanks around the link and line breaks in it are dropped, and backslashes in its path are
    slashes, as the URL Standard has it; behind the host, what may not stand in a URL (spaces,
    controls, non-ASCII) is percent-encoded as UTF-8. A host that is not ASCII is written in IDNA.
    Nothing else is touched.

    :raises ValueError: When the two cannot be joined.
    """
    ref = ref.strip(_BLANK).translate(_DROPPED)
    if "\\" in ref:
        start, end = _authority(ref)[1], _path_end(ref)
        ref = ref[:start] + ref[start:end].replace("\\", "/") + ref[end:]
    url = with_ascii_host(ref if _ABSOLUTE.match(ref) else urljoin(base, ref))
    _, end = _authority(url)
    return url[:end] + re.sub(r"[^!-~]+", lambda found: quote(found[0]), url[end:])


def with_ascii_host(url: str) -> str:
    """Write the host of a URL as the DNS has it: in IDNA (UTS 46).

    :raises ValueError: When no host can have this name.
    """
    start, end = _authority(url)
    at = max(start, url.rfind("@", start, end) + 1)
    host, colon, port = url[at:end].partition(":")
    if host.isascii():
        return url
    if len(host) > _LONGEST_HOST:
        raise ValueError("a host whose name is too long")
    try:
        name = idna.encode(host, uts46=True).decode("ascii")
    except UnicodeError as error:
        raise ValueError(f"the host {host!r} cannot be written in ASCII: {error}") from None
    return url[:at] + name + colon + port + url[end:]


def without_fragment(url: str) -> str:
    """Drop ``#…``."""
    return url.partition("#")[0]


def public(url: str) -> str:
    """Give the only form in which a URL may be logged or sent to a client.

    User, password and fragment are taken off. Of a text that is no URL, or whose port is empty
    (a password that begins with a slash looks so), only what stands behind the last ``@`` is
    left, since nobody can tell where a password ends in it.
    """
    start, end = _authority(url)
    try:
        origin(url)
        doubtful = url[:end].endswith(":")
    except ValueError:
        doubtful = True
    if doubtful:
        return without_fragment(url.rpartition("@")[2])
    return url[:start] + url[start:end].rpartition("@")[2] + without_fragment(url[end:])


def shown(url: str) -> str:
    """Give the form for logs and messages: public, and without a query, in which tokens are."""
    return public(url).partition("?")[0]


def hidden(text: str) -> str:
    """Give the form for messages of a text that may have been meant as a URL, or as several.

    Nobody can tell where in it a password ends, so all before the last ``@`` is taken for one.
    """
    return re.sub(r"^(\s*(?:\w+\+)?\w+://)?.*@", r"\1***@", text, flags=re.DOTALL)


def origin(url: str) -> tuple[str, str, int]:
    """Give scheme, lower-case host and port (the scheme's own where the URL states none).

    :raises ValueError: When this is not the URL of an http or https server.
    """
    return _origin(url[: _authority(url)[1]])


@lru_cache(maxsize=256)
def _origin(server: str) -> tuple[str, str, int]:
    # The standard library overlooks line breaks, and browsers read a backslash as a slash.
    if _NOT_OF_A_SERVER.search(server):
        raise ValueError("characters that the address of a server cannot have")
    parts = urlsplit(server)
    host, port = parts.hostname, parts.port
    if parts.scheme not in _PORTS or not host or _NOT_OF_A_HOST.search(host):
        raise ValueError("not the URL of an http or https server")
    return parts.scheme, host, _PORTS[parts.scheme] if port is None else port


def host(text: str) -> str:
    """Read a host by itself: its name, its address, or the network that it is in.

    :raises ValueError: When it is none of these.
    """
    text = text.strip()
    try:
        return str(ip_network(text.removeprefix("[").removesuffix("]"), strict=False))
    except ValueError:
        if not _NAME.fullmatch(text):
            raise
    return text.lower().rstrip(".")


def filename(url: str) -> str:
    """Give the last segment of the path, percent-decoded once; empty where there is none."""
    _, start = _authority(url)
    return unquote(url[start : max(start, _path_end(url))].rpartition("/")[2])


def with_suffix(url: str, suffix: str) -> str:
    """Append ``suffix`` (such as ``.metadata``) to the path, before query and fragment."""
    end = _path_end(url)
    return url[:end] + suffix + url[end:]


def userinfo(url: str) -> tuple[str, str] | None:
    """Give user and password of a URL, percent-decoded, or None where it has neither."""
    start, end = _authority(url)
    credentials, found, _ = url[start:end].rpartition("@")
    user, _, password = credentials.partition(":")
    return (unquote(user), unquote(password)) if found else None
