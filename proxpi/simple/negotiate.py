"""Content negotiation for index pages (PEP 691) and for their compression (RFC 9110, 12.5).

Decisions are remembered by the raw header, since the clients of a proxy send a handful of them.
"""

from __future__ import annotations

import enum
from functools import lru_cache

import attrs
from werkzeug.http import parse_accept_header

#: Characters of header values up to which a decision is remembered.
LONGEST_REMEMBERED = 512


class Serialization(enum.Enum):
    """The two ways to write a page."""

    JSON = "json"
    HTML = "html"


@attrs.frozen
class Form:
    """A serialization together with the content type under which it is sent."""

    serialization: Serialization
    content_type: str


JSON = Form(Serialization.JSON, "application/vnd.pypi.simple.v1+json")
HTML_V1 = Form(Serialization.HTML, "application/vnd.pypi.simple.v1+html")
TEXT_HTML = Form(Serialization.HTML, "text/html")

ACCEPTABLE = f"Acceptable types: {JSON.content_type}, {HTML_V1.content_type}, text/html"
"""One line for the body of a 406."""

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


def choose_form(accept: str | None, format: str | None = None) -> Form | None:
    """Choose the form of a page, or None when the client accepts none of them (406).

    :param accept: The ``Accept`` header, several of them joined by commas. Elements whose ``q``
        is malformed are ignored, and so are parameters; a header with nothing in it is none.
    :param format: The value of ``?format=``, decoded, a ``+`` that became a space included. It
        precedes the header; a type that is not known leaves the decision to the header.
    """
    decide = _choose_form if _is_short(accept, format) else _choose_form.__wrapped__
    return decide(accept, format)


@lru_cache(maxsize=256)
def _choose_form(accept: str | None, format: str | None) -> Form | None:
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

    asked = {
        form: quality for form in _PREFERENCE if (quality := _asked(form, qualities)) is not None
    }
    best = max(asked.values(), default=0.0)
    # */* speaks for what the client did not name, and loses ties against what it did.
    unnamed = next((form for form in _PREFERENCE_OF_ANYTHING if form not in asked), None)
    if unnamed is not None and qualities.get("*/*", 0.0) > best:
        return unnamed
    return next((form for form in _PREFERENCE if best and asked.get(form) == best), None)


def _asked(form: Form, qualities: dict[str, float]) -> float | None:
    """Give the quality of a form by its own name, else by ``type/*``; None where neither stands."""
    named = [qualities[name] for name in _NAMES if _NAMES[name] == form and name in qualities]
    return max(named) if named else qualities.get(form.content_type.partition("/")[0] + "/*")


def accepts_gzip(accept_encoding: str | None) -> bool:
    """Say whether to send gzip: the client must ask for it, and not prefer ``identity`` to it."""
    decide = _accepts_gzip if _is_short(accept_encoding) else _accepts_gzip.__wrapped__
    return decide(accept_encoding)


@lru_cache(maxsize=256)
def _accepts_gzip(accept_encoding: str | None) -> bool:
    qualities: dict[str, float] = {}
    for coding, quality in parse_accept_header(accept_encoding):
        name = "gzip" if coding.lower() == "x-gzip" else coding.lower()
        qualities[name] = max(quality, qualities.get(name, 0.0))
    gzip = qualities.get("gzip", qualities.get("*", 0.0))
    return gzip > 0.0 and gzip >= qualities.get("identity", 0.0)


def _is_short(*values: str | None) -> bool:
    """Tell whether header values are short enough for what is decided by them to be remembered."""
    return sum(len(value or "") for value in values) <= LONGEST_REMEMBERED
