"""The CSRF check: which requests may change something.

No states. A request without ``Origin`` and ``Sec-Fetch-Site`` comes from no browser and may. A
browser says in ``Sec-Fetch-Site`` where a request comes from; an older one sends at least
``Origin`` with whatever changes something. That tells another site's page. It does not tell a
page whose name was made to lead here (DNS rebinding): its origin *is* the host that is asked. So a
browser's request also needs a host that nobody else can have given out: see :func:`is_known_host`.
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from twisted.web.server import Request

from proxpi.web.responses import field

_PORTS = {"http": 80, "https": 443}
_NAMES = Path("/etc/hosts")


def is_of_browser(request: Request) -> bool:
    """Tell whether a browser made a request that may change something."""
    return field(request, b"Sec-Fetch-Site") is not None or field(request, b"Origin") is not None


def is_cross_site(request: Request) -> bool:
    """Tell whether a request was made by another site's page."""
    relation = field(request, b"Sec-Fetch-Site")
    if relation is not None:
        return relation.strip().lower() not in ("same-origin", "none")
    origin = field(request, b"Origin")
    if origin is None:
        return False
    try:
        theirs = urlsplit(origin.strip())
        ours = urlsplit(f"{theirs.scheme}://{field(request, b'Host') or ''}")
        return not theirs.hostname or _place(theirs) != _place(ours)
    except ValueError:
        return True


def is_known_host(request: Request, names: Collection[str]) -> bool:
    """
    Tell whether ``Host`` is a name under which nobody else can have led a browser here.

    These are addresses, names without a dot, ``localhost`` with what lies below it, and the names
    given. Case, a dot at the end, and the port do not matter.

    :param names: in lower case
    """
    host = ""
    try:
        host = urlsplit(f"//{field(request, b'Host') or ''}").hostname or ""
        host = host.removesuffix(".")
        ip_address(host)
    except ValueError:
        return bool(host) and ("." not in host or host.endswith(".localhost") or host in names)
    return True


def machine_names() -> frozenset[str]:
    """Give the names of this machine, as far as it knows them without asking anybody."""
    own = socket.gethostname().lower()
    names = {own}
    try:
        lines = _NAMES.read_text("utf-8", "replace").lower().splitlines()
    except OSError:
        lines = []
    for line in lines:
        listed = line.partition("#")[0].split()[1:]
        if own in listed:
            names.update(listed)
    return frozenset(names)


def _place(url: SplitResult) -> tuple[str | None, int | None]:
    return url.hostname, url.port or _PORTS.get(url.scheme)
