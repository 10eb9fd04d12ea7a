"""Freshness: how long an answer may still be used (RFC 9111). Times are seconds of one clock.

Conditional and range requests (RFC 9110, sections 13 and 14) as decisions over header values.

Entity tags of proxpi are strong; they are given here without their quotes. No answer carries
``Last-Modified``, so a date never matches.
"""

from __future__ import annotations

import re

import attrs
from werkzeug.http import parse_etags, parse_range_header

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


class Unsatisfiable(Exception):
    """The range begins behind the last byte of so many: the answer is a 416.

    :ivar size: of the file, in bytes
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


@attrs.frozen
class Span:
    """Bytes of a file, half open: ``start`` is the first one, ``stop`` the one after the last."""

    start: int
    stop: int


def decision(if_match: str | None, if_none_match: str | None, etag: str | None) -> int | None:
    """Say whether a request's conditions make its answer a 412 or a 304 (RFC 9110, 13.2.2).

    The comparison of ``If-Match`` is the strong one: ``W/"x"`` matches nothing.

    :param etag: of what is there; ``None`` is one that is not known
    """
    if if_match is not None and not parse_etags(if_match.strip()).contains(etag or ""):
        return 412
    return 304 if etag is not None and none_match(if_none_match, etag) else None


def none_match(if_none_match: str | None, etag: str) -> bool:
    """Say whether ``If-None-Match`` lists this tag (or is ``*``), so that the answer is a 304.

    The comparison is the weak one, as RFC 9110 (13.1.2) asks: ``W/"x"`` matches ``"x"``.
    """
    return if_none_match is not None and parse_etags(if_none_match.strip()).contains_weak(etag)


def requested_span(
    range_header: str | None, if_range: str | None, etag: str | None, size: int
) -> Span | None:
    """Give the bytes that ``Range`` asks for of a file with ``size`` bytes; None is all of it.

    A header that is malformed, in another unit than bytes or lists several ranges is ignored, and
    so is any when ``If-Range`` does not name this very tag (RFC 9110, 13.1.5: strong comparison).

    :raises Unsatisfiable: When no byte of the file lies in the range.
    """
    if range_header is None:
        return None
    if if_range is not None and (etag is None or if_range.strip() != f'"{etag}"'):
        return None
    if re.fullmatch(r"\s*bytes\s*=\s*-0+\s*", range_header, re.IGNORECASE):
        # For werkzeug a suffix of no bytes is malformed; RFC 9110, 14.1.2, calls it unsatisfiable.
        raise Unsatisfiable(size)
    parsed = parse_range_header(range_header)
    if parsed is None or parsed.units != "bytes" or len(parsed.ranges) != 1:
        return None
    start, stop = parsed.ranges[0]
    if start < 0:
        start = max(0, size + start)
    if start >= size:
        raise Unsatisfiable(size)
    return Span(start, size if stop is None else min(stop, size))
