"""The status of an index, for the admin page: whether it responds, or since when it fails."""

from __future__ import annotations

from typing import Literal, Protocol

import attrs

from proxpi.index.breaker import Breakers
from proxpi.simple import urls

IndexKind = Literal["http", "folder"]
IndexState = Literal["reachable", "failing", "unknown", "offline"]


@attrs.frozen
class IndexStatus:
    """The status of an index; times are seconds since the epoch.

    :ivar url: without credentials
    :ivar state: ``unknown`` until its first request has ended
    :ivar failing_since: when the first failure of the present outage came; `error`: the last one
    :ivar next_try: when a request is sent next for a stale page; ``None``: as soon as one is due
    :ivar latency: mean seconds until the head of its last responses; ``None`` for a folder, and
        until it has responded
    :ivar ttl: seconds for which its pages stay fresh
    """

    name: str
    url: str
    kind: IndexKind
    state: IndexState
    failing_since: float | None
    error: str | None
    next_try: float | None
    latency: float | None
    ttl: float


class _Index(Protocol):
    name: str
    url: str
    ttl: float
    breakers: Breakers

    @property
    def offline(self) -> bool: ...


def status_of(index: _Index, kind: IndexKind, latency: float | None = None) -> IndexStatus:
    breakers = index.breakers
    outage = None if index.offline else breakers.outage
    state: IndexState = "reachable" if breakers.has_succeeded else "unknown"
    if index.offline:
        state = "offline"
    elif outage is not None:
        state = "failing"
    retry_at = breakers.retry_at if outage is not None else None
    return IndexStatus(
        name=index.name,
        url=urls.public(index.url),
        kind=kind,
        state=state,
        failing_since=None if outage is None else breakers.wall_time(outage.since),
        error=None if outage is None else str(outage.error),
        next_try=None if retry_at is None else breakers.wall_time(retry_at),
        latency=latency,
        ttl=index.ttl,
    )
