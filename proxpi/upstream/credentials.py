"""Credentials for upstreams: from index URLs and netrc, each bound to its origin or host.

Credentials in the URL of an index are sent to the origin of that index only, those of netrc to
their host only, wherever a link or a redirect leads. The netrc file is found and read as by pip,
with Python's own syntax (the `netrc` module). Messages never quote it: the parser's errors quote
what they do not understand, which may be a password.
"""

from __future__ import annotations

import base64
import netrc
from collections.abc import Iterable, Mapping, Sequence
from os.path import commonprefix, exists
from pathlib import Path

import attrs

from proxpi.simple import URL, Origin, urls

Login = tuple[str, str]


@attrs.frozen(repr=False)
class Netrc:
    """Logins by lower-case host, and of the ``default`` entry, or why the file is not used."""

    hosts: Mapping[str, Login] = attrs.field(factory=dict)
    default: Login | None = None
    error: str | None = None

    def login(self, host: str) -> Login | None:
        return self.hosts.get(host, self.default)


def read_netrc(environment: Mapping[str, str]) -> Netrc:
    """Read the file that ``NETRC`` names, else the user's; a broken one has no login, as in pip."""
    named = environment.get("NETRC")
    home = environment.get("HOME") or "~"
    paths = [named] if named else [f"{home}/{name}" for name in (".netrc", "_netrc")]
    try:
        found = [path.expanduser() for path in map(Path, paths)]
    except RuntimeError:  # this user has no home folder
        why = f"NETRC={named}: the home folder is not known; no login is used"
        return Netrc(error=why if named else None)
    path = next((path for path in found if named or exists(path)), None)
    if path is None:
        return Netrc()
    try:
        entries = netrc.netrc(str(path))
    except netrc.NetrcParseError as error:
        return Netrc(error=f"{path}: not understood (line {error.lineno}); no login is used")
    except OSError as error:
        return Netrc(error=f"{path}: cannot be read ({error.strerror}); no login is used")
    except ValueError:
        return Netrc(error=f"{path}: not text; no login is used")
    logins = {
        host.lower(): (user or account or "", password or "")
        for host, (user, account, password) in entries.hosts.items()
    }
    return Netrc(logins, logins.pop("default", None))


@attrs.frozen(repr=False)
class Credentials:
    """Chooses the ``Authorization`` header of each request.

    :ivar _indexes: by origin: path and header of each index; without credentials ``None``
    :ivar _hosts: headers by the hosts of netrc
    :ivar _in_clear: whether those are sent over plain http, too: some index is plain http
    """

    _indexes: Mapping[Origin, Sequence[tuple[str, bytes | None]]]
    _hosts: Mapping[str, bytes]
    _in_clear: bool
    _certificate: bool

    @classmethod
    def gather(
        cls, index_urls: Iterable[str], netrc: Netrc | None = None, *, certificate: bool = False
    ) -> Credentials:
        """Take user and password from index URLs (percent-decoded, RFC 3986 3.2.1), else netrc.

        The URL of an index that has only a user gets the password of that user in netrc. The
        ``default`` login of netrc is sent to indexes only, as links and redirects lead anywhere.
        """
        netrc = netrc or Netrc()
        indexes: dict[Origin, list[tuple[str, bytes | None]]] = {}
        for url in map(URL.parse, index_urls):
            login, other = urls.userinfo(url.text), netrc.login(url.origin.host)
            if other is not None and (login is None or login == (other[0], "")):
                login = other
            header = basic(*login) if login is not None else None
            indexes.setdefault(url.origin, []).append((url.path, header))
        hosts = {host: basic(*login) for host, login in netrc.hosts.items()}
        in_clear = any(origin.scheme == "http" for origin in indexes)
        return cls(indexes, hosts, in_clear, certificate)

    def header_for(self, url: URL) -> bytes | None:
        """Return the value of ``Authorization`` for a request, if there is one.

        Of several indexes on one origin, the index counts whose path has most leading segments in
        common with that of the URL. An index without credentials gets none.
        """
        origin, path = url.origin, url.path
        indexes = [
            (start, header)
            for start, header in self._indexes.get(origin, ())
            if header is not None or path.startswith(start)
        ]
        if indexes:
            segments = path.split("/")
            # A list of strings: this compares whole segments.
            return max(indexes, key=lambda one: len(commonprefix([one[0].split("/"), segments])))[1]
        in_clear = origin.scheme == "https" or self._in_clear
        return self._hosts.get(origin.host) if in_clear else None

    def certificate_for(self, origin: Origin) -> bool:
        """Return whether the client certificate is shown to an origin: an index or a netrc host."""
        known = origin in self._indexes or origin.host in self._hosts
        return self._certificate and origin.scheme == "https" and known

    def protects(self, url: str) -> bool:
        parsed = URL.parse(url)
        return self.header_for(parsed) is not None or self.certificate_for(parsed.origin)


def basic(user: str, password: str) -> bytes:
    """Write user and password as Basic credentials (RFC 7617), in UTF-8."""
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode())
