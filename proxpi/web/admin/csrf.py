"""The CSRF check: it keeps other sites' pages from changing anything through a browser.

A request without ``Origin`` and ``Sec-Fetch-Site`` is not from a browser: it is allowed. A
cross-site request is refused. DNS rebinding makes another site same-origin; so the ``Host`` of a
browser's request must be one that no other site can have pointed here: see :func:`is_rebound`.
Behind a trusted proxy its statements on scheme and host count: those are what the browser used.
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from twisted.web.server import Request

from proxpi.web.forwarded import Forwarded
from proxpi.web.responses import field

_PORTS = {"http": 80, "https": 443}
_HOSTS = Path("/etc/hosts")


def is_cross_site(request: Request) -> bool:
    """Return whether another site's page sent a request."""
    relation, origin = field(request, b"Sec-Fetch-Site"), field(request, b"Origin")
    seen: Forwarded = request.forwarded  # type: ignore[attr-defined]
    if relation is not None:
        return relation.strip().lower() not in ("same-origin", "none")
    if origin is None:
        return False
    try:
        theirs = urlsplit(origin.strip())
        ours = urlsplit(f"{seen.scheme or theirs.scheme}://{seen.authority}")
        return not theirs.hostname or _parts(theirs) != _parts(ours)
    except ValueError:
        return True


def is_rebound(request: Request, names: Collection[str]) -> bool:
    """Return whether another site can have pointed the name in a browser's ``Host`` here.

    It cannot for addresses, names without a dot, ``localhost`` and what lies below it, and for
    `names`, in lower case. Case, a dot at the end, and the port do not matter. The name that a
    trusted proxy states has to be such a name, too, and does not replace the other: a rebound page
    on the machine of the proxy is a peer that is trusted, and can send any field but ``Host``.
    """
    if field(request, b"Sec-Fetch-Site") is None and field(request, b"Origin") is None:
        return False
    seen: Forwarded = request.forwarded  # type: ignore[attr-defined]
    stated = {field(request, b"Host") or "", seen.authority}
    return not all(_is_own(authority, names) for authority in stated)


def _is_own(authority: str, names: Collection[str]) -> bool:
    host = ""
    try:
        host = (urlsplit(f"//{authority}").hostname or "").removesuffix(".")
        ip_address(host)
    except ValueError:
        local = "." not in host or host.endswith(".localhost") or host in names
        return host != "" and local
    return True


def machine_names() -> frozenset[str]:
    """Return the names of this machine: its host name, and those beside it in ``/etc/hosts``."""
    own = socket.gethostname().lower()
    names = {own}
    try:
        lines = _HOSTS.read_text("utf-8", "replace").lower().splitlines()
    except OSError:
        lines = []
    for line in lines:
        listed = line.partition("#")[0].split()[1:]
        if own in listed:
            names.update(listed)
    return frozenset(names)


def _parts(url: SplitResult) -> tuple[str, str | None, int | None]:
    """Return the parts of an origin (RFC 6454)."""
    return url.scheme, url.hostname, url.port or _PORTS.get(url.scheme)
