"""Decisions of RFC 9111 freshness and of RFC 9110 conditional and range requests (13, 14).

Times are seconds of one clock. Entity tags of proxpi are strong, and are given here without their
quotes. No response carries ``Last-Modified``, so a date never matches.
"""

from __future__ import annotations

import re

import attrs
from packaging.version import Version
from werkzeug.http import parse_etags, parse_range_header

from proxpi.simple.versions import version

#: Seconds for which a client may use a page unasked: revalidating with a near proxy is cheap, and
#: so an invalidation reaches every client within a minute.
MAX_AGE = 60
#: The first pip that sends ``max-age=0`` only for the packages of ``--refresh-package``.
_PIP_REFRESHES = Version("26.2")
# Of limited length, since versions that were read are remembered.
_PIP = re.compile(r"pip/(\S{1,50})(?!\S)")


def remaining(requested_at: float, ttl: float, now: float) -> float:
    """Return the seconds for which a response stays fresh: at most `ttl`, for any clock."""
    return max(0.0, min(ttl, requested_at + ttl - now))


def max_age(remaining: float) -> int:
    """Return ``max-age`` of a response that stays fresh for so many seconds."""
    return int(max(0.0, min(float(MAX_AGE), remaining)))


def is_refresh(cache_control: str, user_agent: str | None) -> bool:
    """Return whether a request for a page is a refresh: it wants the page to be revalidated now.

    =============================  ===================  ===========================================
    ``Cache-Control``              ``User-Agent``       refresh
    =============================  ===================  ===========================================
    ``no-cache`` among others      any                  yes: ``uv --refresh``, a forced reload
    ``max-age=0`` among others     ``pip/26.2``, newer  yes: ``pip --refresh-package``
    ``max-age=0`` among others     any other            no: older pips send it for each page, and
                                                        browsers with each reload
    any other                      any                  no
    =============================  ===================  ===========================================

    ``Pragma`` does not count: it is deprecated (RFC 9111, 5.4).
    """
    directives = {each.strip(" \t") for each in cache_control.lower().split(",")}
    if "no-cache" in directives:
        return True
    pip = _PIP.match(user_agent or "") if "max-age=0" in directives else None
    found = version(pip[1]) if pip is not None else None
    return found is not None and found >= _PIP_REFRESHES


@attrs.define(eq=False)
class Unsatisfiable(Exception):
    """A range begins behind the last byte of a file with so many bytes: the answer is a 416."""

    size: int


@attrs.frozen
class Span:
    """Bytes of a file, half open: ``start`` is the first one, ``stop`` the one after the last."""

    start: int
    stop: int


def precondition(if_match: str | None, if_none_match: str | None, etag: str | None) -> int | None:
    """Return 412 or 304 if a condition of a request is false (RFC 9110, 13.2.2).

    ``If-Match`` compares strongly: ``W/"x"`` matches nothing; ``If-None-Match`` weakly.

    :param etag: of the file or page; ``None`` if it is not known
    """
    if if_match is not None and not parse_etags(if_match.strip()).contains(etag or ""):
        return 412
    if etag is not None and if_none_match is not None:
        return 304 if parse_etags(if_none_match.strip()).contains_weak(etag) else None
    return None


def requested_span(
    range_header: str | None, if_range: str | None, etag: str | None, size: int
) -> Span | None:
    """Return the requested bytes of a file with `size` bytes; ``None`` is all of it.

    A header that is malformed, in another unit than bytes or lists several ranges is ignored, and
    so is any if ``If-Range`` does not name this very tag (RFC 9110, 13.1.5: strong comparison).

    :raises Unsatisfiable: if no byte of the file lies in the range
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
