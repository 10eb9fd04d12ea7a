"""Who may change something: no page of another site, through a visitor's browser.

A browser says in ``Sec-Fetch-Site`` where a request comes from; an older one sends at least
``Origin`` with whatever changes something. Who sends neither is no browser and may.
"""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from twisted.web.server import Request

from proxpi.web.answers import field

_PORTS = {"http": 80, "https": 443}


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


def _place(url: SplitResult) -> tuple[str | None, int | None]:
    return url.hostname, url.port or _PORTS.get(url.scheme)
