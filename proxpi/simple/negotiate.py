"""Content negotiation of index pages (PEP 691) and of their compression (RFC 9110, 12.5).

Decisions are remembered by the raw header, since the clients of a proxy send a handful of them.
"""

from __future__ import annotations

import enum
from functools import lru_cache

import attrs
from werkzeug.http import parse_accept_header


class Serialization(enum.Enum):
    """The two formats of a page."""

    JSON = "json"
    HTML = "html"


@attrs.frozen
class MediaType:
    """A content type, and the serialization that is sent under it."""

    serialization: Serialization
    content_type: str


JSON = MediaType(Serialization.JSON, "application/vnd.pypi.simple.v1+json")
HTML_V1 = MediaType(Serialization.HTML, "application/vnd.pypi.simple.v1+html")
TEXT_HTML = MediaType(Serialization.HTML, "text/html")

#: One line for the body of a 406.
ACCEPTABLE = f"Acceptable types: {JSON.content_type}, {HTML_V1.content_type}, text/html"

_NAMES = {
    JSON.content_type: JSON,
    "application/vnd.pypi.simple.latest+json": JSON,
    HTML_V1.content_type: HTML_V1,
    "application/vnd.pypi.simple.latest+html": HTML_V1,
    TEXT_HTML.content_type: TEXT_HTML,
}
_PREFERENCE = (JSON, HTML_V1, TEXT_HTML)
# A client that takes anything is an old one or a browser: the public index gives it HTML too.
_PREFERENCE_OF_ANYTHING = (TEXT_HTML, JSON, HTML_V1)


@lru_cache(maxsize=256)
def choose_media_type(accept: str | None, format: str | None = None) -> MediaType | None:
    """Choose the media type of a page, or ``None`` if the client accepts none of them (406).

    :param accept: the ``Accept`` header, several of them joined by commas. Elements whose ``q``
        is malformed are ignored, and so are parameters; an empty header counts as none.
    :param format: the value of ``?format=``, decoded (also a ``+`` that became a space). It
        precedes the header; an unknown type leaves the decision to the header.
    """
    if format is not None:
        named = _NAMES.get(format.strip().replace(" ", "+").lower())
        if named is not None:
            return named
    qualities: dict[str, float] = {}
    for item, q in parse_accept_header(accept):
        media_range = item.partition(";")[0].strip().lower()
        qualities[media_range] = max(q, qualities.get(media_range, 0.0))
    if not qualities:
        return TEXT_HTML
    stated = {
        media_type: quality
        for media_type in _PREFERENCE
        if (quality := _quality(media_type, qualities)) is not None
    }
    best = max(stated.values(), default=0.0)
    # */* speaks for what the client did not name, and loses ties against what it did.
    unnamed = next((each for each in _PREFERENCE_OF_ANYTHING if each not in stated), None)
    if unnamed is not None and qualities.get("*/*", 0.0) > best:
        return unnamed
    return next((each for each in _PREFERENCE if best and stated.get(each) == best), None)


def _quality(media_type: MediaType, qualities: dict[str, float]) -> float | None:
    """Return the quality of a type by its names, else by ``type/*``, else ``None``."""
    named = [qualities[name] for name in _NAMES if _NAMES[name] == media_type and name in qualities]
    return max(named) if named else qualities.get(media_type.content_type.partition("/")[0] + "/*")


@lru_cache(maxsize=256)
def accepts_gzip(accept_encoding: str | None) -> bool:
    """Return whether to send gzip: the client accepts it, and does not prefer ``identity``."""
    qualities: dict[str, float] = {}
    for coding, quality in parse_accept_header(accept_encoding):
        name = "gzip" if coding.lower() == "x-gzip" else coding.lower()
        qualities[name] = max(quality, qualities.get(name, 0.0))
    gzip = qualities.get("gzip", qualities.get("*", 0.0))
    return gzip > 0.0 and gzip >= qualities.get("identity", 0.0)
