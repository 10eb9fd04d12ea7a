"""Problems: failures outside of proxpi, for its log and for the operator's page.

A *problem* has a key, such as an index and a kind of error. No part of a key is chosen by clients,
as the name of a project would be. The log has one line for a problem, with its consequence and its
remedy, at most once a minute; the last :data:`MOST` problems are kept, with their counts and times.
This module touches nothing but the log. Threads may note problems.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path

import attrs
from twisted.logger import Logger, LogLevel

from proxpi.simple import printable

#: Seconds between two lines of the log on the same problem.
LOG_INTERVAL = 60.0
#: Problems that are kept.
MOST = 50
#: Characters of a text of a problem at most: parts of it come from clients and upstreams.
LONGEST = 500

_DISK_REMEDIES = {
    errno.EROFS: "mount it for writing",
    errno.ENOSPC: "free space on its disk",
    errno.EDQUOT: "free space on its disk, or raise the quota",
    errno.EXDEV: "keep the whole folder on one disk",
    errno.EEXIST: ".proxpi in it has to be a folder",
    errno.EIO: "check the disk",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the system's limit of open files (fs.file-max)",
}
_BROKEN = "check the file at its URL; a proxy on the way may change it"
#: By the kinds of :class:`proxpi.upstream.UpstreamFailed`.
_REMEDIES = {
    "connection": "check that it runs, its URL and the network",
    "dns": "check the name of its host, and the name servers of this machine",
    "timeout": "check the network; PROXPI_CONNECT_TIMEOUT and PROXPI_READ_TIMEOUT allow more time",
    "tls": "check its certificate, PROXPI_CA_BUNDLE and PROXPI_CLIENT_CERT",
    "proxy": "check the forward proxy that HTTP_PROXY and HTTPS_PROXY name, or NO_PROXY",
    "blocked": "name its host in PROXPI_ALLOW_HOSTS if that is wanted",
    "credentials": "check user and password in its URL, or in netrc",
    "rate_limited": "let fewer clients use the address of this machine, or wait",
    "server_error": "wait, or tell the operator of that server",
    "status": "check its URL",
    "invalid": "check that its URL is the root of an index (PROXPI_INDEX_URL)",
    "folder": "check that the folder is there, and that proxpi may read it",
    "cut": "check the network, and proxies on the way",
    "page": "check for a page of a login or a proxy at the URL of the file",
    "encoded": "check for a proxy on the way that compresses files",
    **dict.fromkeys(("hash", "length", "changed", "empty"), _BROKEN),
}
_log = Logger(namespace="proxpi.problems")


def upstream_remedy(kind: str) -> str:
    """Return the remedy for an upstream that failed so; empty if none is known."""
    return _REMEDIES.get(kind, "")


def disk_remedy(error: OSError) -> str:
    """Return the remedy for a folder that cannot be read or written; empty if none is known."""
    if error.errno in (errno.EACCES, errno.EPERM):
        user = os.geteuid()
        return (
            f"let the user with the number {user} write there (chown -R {user}), or, in a "
            "container, start it without --user"
        )
    return _DISK_REMEDIES.get(error.errno or 0, "")


def _shortened(text: str) -> str:
    text = printable(text)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


@attrs.frozen
class Problem:
    """A problem as it was noted last; `first` and `last` are seconds since the epoch.

    :ivar degrades: whether it degrades the service; any client can cause one that does not
    """

    text: str
    consequence: str
    remedy: str
    count: int
    first: float
    last: float
    degrades: bool = True


@attrs.define(eq=False)
class Problems:
    """The last problems; it iterates over them, the one that was noted last first.

    :param seconds: gives the clock's seconds; `wall`: those since the epoch
    """

    _seconds: Callable[[], float]
    wall: Callable[[], float]
    # By key, in the order of their last note.
    _known: dict[Hashable, Problem] = attrs.field(init=False, factory=dict)
    # When each was last logged, and its count then.
    _logged: dict[Hashable, tuple[float, int]] = attrs.field(init=False, factory=dict)
    _lock: threading.Lock = attrs.field(init=False, factory=threading.Lock)

    def __iter__(self) -> Iterator[Problem]:
        with self._lock:
            return reversed(list(self._known.values()))

    def note(
        self,
        key: Hashable,
        text: str,
        consequence: str = "",
        remedy: str = "",
        level: LogLevel = LogLevel.warn,
        *,
        degrades: bool = True,
    ) -> bool:
        """Note a problem; return whether it was logged."""
        now, wall = self._seconds(), self.wall()
        text, consequence = _shortened(text), _shortened(consequence)
        with self._lock:
            old = self._known.pop(key, None)
            first, count = (old.first, old.count + 1) if old else (wall, 1)
            self._known[key] = Problem(text, consequence, remedy, count, first, wall, degrades)
            if len(self._known) > MOST:
                oldest = next(iter(self._known))
                del self._known[oldest]
                self._logged.pop(oldest, None)
            logged_at, logged_count = self._logged.get(key, (float("-inf"), count - 1))
            if now < logged_at + LOG_INTERVAL:
                return False
            self._logged[key] = now, count
        more = count - logged_count - 1
        _log.emit(
            level,
            "{problem}{more}",
            problem="; ".join(filter(None, (text, consequence, remedy))),
            more=f" ({more} more since this was last logged)" if more else "",
        )
        return True

    def note_disk(self, error: OSError, folder: Path, consequence: str) -> bool:
        """Note an error of the cache folder; those with the same consequence are one problem."""
        cause = str(error).removeprefix(f"[Errno {error.errno}] ")
        text, remedy = f"cache folder {folder}: {cause}", disk_remedy(error)
        return self.note(("disk", consequence), text, consequence, remedy, LogLevel.error)
