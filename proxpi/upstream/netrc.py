"""Logins from a netrc file, as pip finds and reads it.

The syntax is Python's own (the `netrc` module). What an entry gives is kept out of every message:
the parser's errors quote what they do not understand, which may be a password.
"""

from __future__ import annotations

import netrc
from collections.abc import Mapping
from pathlib import Path

import attrs

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
