"""Freshness: how long an answer may still be used (RFC 9111). Times are seconds of one clock."""

from __future__ import annotations

LONGEST = 60
"""Seconds for which a client may use a page unasked: revalidating with a near proxy is cheap, and
so an invalidation reaches every client within a minute."""


def remaining(asked_at: float, ttl: float, now: float) -> float:
    """Give the seconds that are left of a page asked for at ``asked_at``: between 0 and ``ttl``.

    A clock that ran backwards never makes a page live longer than its time to live from now.
    """
    return max(0.0, min(ttl, asked_at + ttl - now))


def max_age(remaining: float) -> int:
    """Give the value of ``Cache-Control: max-age`` for a page with so many seconds left."""
    return int(max(0.0, min(float(LONGEST), remaining)))
