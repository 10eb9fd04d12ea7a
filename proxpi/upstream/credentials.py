"""Logins from a netrc file, as pip finds and reads it.

The syntax is Python's own (the `netrc` module). What an entry gives is kept out of every message:
the parser's errors quote what they do not understand, which may be a password.

Credentials for upstreams, each bound to where it was given for.

An origin is scheme, host and port (RFC 6454). What stands in an index's URL goes to the origin of
that index, and what netrc has for a host to that host; none is ever sent to another, whether a
link, a redirect or a mistake leads there.
"""

from __future__ import annotations

import base64
import netrc
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from urllib.parse import urlsplit

import attrs

from proxpi.simple import urls
from proxpi.simple.urls import Origin

#: Where it may be, if ``NETRC`` does not say so.
NAMES = (".netrc", "_netrc")

Login = tuple[str, str]


@attrs.frozen(repr=False)
class Netrc:
    """User and password by lower-case host, and those of the ``default`` entry.

    :ivar trouble: why nothing could be taken from the file, in one line, if that is so
    """

    hosts: Mapping[str, Login] = attrs.field(factory=dict)
    default: Login | None = None
    trouble: str | None = None

    def login(self, host: str) -> Login | None:
        """Give the login for a host, if need be that which is for any."""
        return self.hosts.get(host, self.default)


def read(environment: Mapping[str, str]) -> Netrc:
    """
    Read the file that ``NETRC`` names, else that of the user; it is no error if there is none.

    A file that is broken gives no login at all, as with pip.
    """
    named = environment.get("NETRC")
    home = environment.get("HOME") or "~"
    paths = [named] if named else [f"{home}/{name}" for name in NAMES]
    try:
        found = [path.expanduser() for path in map(Path, paths)]
    except RuntimeError:  # nobody knows where this user is at home
        why = f"NETRC={named}: the home folder is not known; no login is used"
        return Netrc(trouble=why if named else None)
    path = next((path for path in found if named or path.exists()), None)
    if path is None:
        return Netrc()
    try:
        entries = netrc.netrc(str(path))
    except netrc.NetrcParseError as error:
        return Netrc(trouble=f"{path}: not understood (line {error.lineno}); no login is used")
    except OSError as error:
        return Netrc(trouble=f"{path}: cannot be read ({error.strerror}); no login is used")
    except ValueError:
        return Netrc(trouble=f"{path}: not text; no login is used")
    logins = {
        host.lower(): (user or account or "", password or "")
        for host, (user, account, password) in entries.hosts.items()
    }
    return Netrc(logins, logins.pop("default", None))


@attrs.frozen(repr=False)
class Credentials:
    """Which ``Authorization`` header goes to which origin, and to which path there.

    :ivar _headers: those of indexes, by their origins; an index without any has ``None``
    :ivar _hosts: those of hosts that netrc names
    :ivar _in_clear: whether those go over plain http: where an index is asked so
    :ivar _certificate: whether there is a client certificate
    """

    _headers: Mapping[Origin, Sequence[tuple[str, bytes | None]]]
    _hosts: Mapping[str, bytes]
    _in_clear: bool
    _certificate: bool

    @classmethod
    def gather(
        cls, index_urls: Iterable[str], netrc: Netrc | None = None, *, certificate: bool = False
    ) -> Credentials:
        """
        Take user and password out of index URLs (percent-decoded, RFC 3986 3.2.1), else of netrc.

        An index's URL that has but a user gets the password that netrc has for that user there.
        What netrc has for any host (``default``) is for indexes alone: links and redirects lead
        anywhere.
        """
        netrc = netrc or Netrc()
        headers: dict[Origin, list[tuple[str, bytes | None]]] = {}
        for url in index_urls:
            origin = urls.origin(url)
            given = headers.setdefault(origin, [])
            pair, other = urls.userinfo(url), netrc.login(origin[1])
            if other is not None and (pair is None or pair == (other[0], "")):
                pair = other
            given.append((urlsplit(url).path, basic(*pair) if pair is not None else None))
        hosts = {host: basic(*pair) for host, pair in netrc.hosts.items()}
        in_clear = any(scheme == "http" for scheme, _, _ in headers)
        return cls(headers, hosts, in_clear, certificate)

    def header_for(self, url: str) -> bytes | None:
        """
        Give the value of ``Authorization`` for a request to `url`, if there is one.

        Of several indexes on one origin it is that of the index whose path `url` shares most
        with: their files mostly lie near them. An index without credentials is asked without any.
        """
        scheme, host, _ = origin = urls.origin(url)
        path = urlsplit(url).path
        given = [
            (start, header)
            for start, header in self._headers.get(origin, ())
            if header is not None or path.startswith(start)
        ]
        best = max(given, key=lambda pair: _shared(pair[0], path), default=None)
        if best is not None:
            return best[1]
        return self._hosts.get(host) if scheme == "https" or self._in_clear else None

    def certificate_for(self, origin: Origin) -> bool:
        """Tell whether an origin is shown the client certificate: an index, or named by netrc."""
        scheme, host, _ = origin
        known = origin in self._headers or host in self._hosts
        return self._certificate and scheme == "https" and known

    def protects(self, url: str) -> bool:
        """Tell whether an upstream may give proxpi what it would give nobody else."""
        return self.header_for(url) is not None or self.certificate_for(urls.origin(url))


def _shared(one: str, other: str) -> int:
    """Count the segments with which both paths begin."""
    pairs = zip(one.split("/"), other.split("/"), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def basic(user: str, password: str) -> bytes:
    """Write user and password as RFC 7617 has it, in UTF-8."""
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode())
