"""Content negotiation: the matrix of real clients, and rules that hold for any header."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxpi.simple.negotiate import (
    ACCEPTABLE,
    HTML_V1,
    JSON,
    TEXT_HTML,
    MediaType,
    Serialization,
    accepts_gzip,
    choose_media_type,
)
from tests.support.strategies import deterministic

V1_JSON = "application/vnd.pypi.simple.v1+json"
V1_HTML = "application/vnd.pypi.simple.v1+html"

MATRIX = [
    (None, TEXT_HTML),
    ("", TEXT_HTML),
    ("*/*", TEXT_HTML),
    ("text/html", TEXT_HTML),
    ("text/*", TEXT_HTML),
    ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", TEXT_HTML),
    (f"{V1_JSON}, {V1_HTML}; q=0.1, text/html; q=0.01", JSON),
    (f"{V1_JSON}, {V1_HTML};q=0.2, text/html;q=0.01", JSON),
    (f"{V1_JSON}, */*;q=0.1", JSON),
    (V1_JSON, JSON),
    (V1_HTML, HTML_V1),
    ("application/*", JSON),
    (f"{V1_JSON};q=0.1, text/html", TEXT_HTML),
    (f"{V1_JSON};q=0, */*", TEXT_HTML),
    (f"application/vnd.pypi.simple.v2+json, {V1_JSON};q=0.1", JSON),
    ("application/vnd.pypi.simple.v2+json", None),
    ("application/json", None),
    ("image/png", None),
    (V1_JSON.upper(), JSON),
    (f"\t{V1_JSON}  ;\tq=0.5 ,  text/html ; q=0.4", JSON),
    (f"{V1_JSON};q=1.0000", JSON),
    (f"{V1_JSON};q=abc, text/html;q=0.1", TEXT_HTML),
    (f"{V1_JSON};q=abc", TEXT_HTML),
    (f"{V1_JSON};q=2, text/html;q=0.1", TEXT_HTML),
    (f"{V1_JSON};foo=bar;q=0.5, text/html;q=0.4", JSON),
    ("text/html;charset=utf-8", TEXT_HTML),
    (f",,{V1_JSON},,", JSON),
    (",,", TEXT_HTML),
    # ``latest`` is a name for requests; the answer has the type that it stands for.
    ("application/vnd.pypi.simple.latest+json", JSON),
    ("application/vnd.pypi.simple.latest+html", HTML_V1),
    # Ties: JSON first, text/html last, and a range that names nothing after all of them.
    (f"text/html, {V1_HTML}, {V1_JSON}", JSON),
    (f"text/html, {V1_HTML}", HTML_V1),
    ("text/html, application/*", JSON),
    (f"{V1_HTML}, */*", HTML_V1),
    ("text/html, */*", TEXT_HTML),
    ("application/*, */*", JSON),
    ("application/*;q=0.5, */*", TEXT_HTML),
    ("text/html;q=0, */*", JSON),
    (f"text/html;q=0, {V1_JSON};q=0, */*", HTML_V1),
    # The more specific range decides for its type, whatever the wider one says.
    (f"application/*, {V1_JSON};q=0.1", HTML_V1),
    (f"{V1_JSON};q=0.1, {V1_HTML};q=0.1, text/html;q=0.2, */*", TEXT_HTML),
    (f"{V1_JSON};q=0, application/vnd.pypi.simple.latest+json", JSON),
    ("*/*;q=0", None),
    (f"{V1_JSON};q=0", None),
    ("image/png, text/html;q=0", None),
]


@pytest.mark.parametrize(("accept", "expected"), MATRIX)
def test_matrix(accept: str | None, expected: MediaType | None) -> None:
    """Each header of real clients, and each corner of the rules, gets its media type."""
    assert choose_media_type(accept) == expected


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        *((V1_JSON, JSON), ("application/vnd.pypi.simple.v1 json", JSON)),
        ("application/vnd.pypi.simple.v1 html", HTML_V1),
        *(("application/vnd.pypi.simple.latest+json", JSON), ("Text/HTML", TEXT_HTML)),
    ],
)
def test_format_precedes_accept(format: str, expected: MediaType) -> None:
    """``?format=`` decides, also with its plus read as a space."""
    assert choose_media_type("image/png", format) == expected


@pytest.mark.parametrize("format", ["", "json", "application/vnd.pypi.simple.v2+json", "*/*"])
def test_unknown_format(format: str) -> None:
    """An unknown type leaves the decision to ``Accept``."""
    assert choose_media_type(V1_HTML, format) == HTML_V1
    assert choose_media_type("image/png", format) is None


_ranges = st.sampled_from(
    [V1_JSON, V1_HTML, "text/html", "text/*", "application/*", "*/*", "image/png", V1_JSON.upper()]
)
_qualities = st.sampled_from(["", ";q=0", ";q=0.1", "; q=0.5", ";q=1", ";q=nan", ";Q=0.3"])
_elements = st.builds("{}{}".format, _ranges, _qualities)


@deterministic
@given(st.lists(_elements, max_size=5))
def test_any_elements(elements: list[str]) -> None:
    """A chosen type is covered by a range of the header; the order is meaningless."""
    chosen = choose_media_type(",".join(elements))
    assert choose_media_type(",".join(reversed(elements))) == chosen
    if chosen is not None and any(not element.endswith("nan") for element in elements):
        name = chosen.content_type
        covering = {name, name.partition("/")[0] + "/*", "*/*"}
        named = {e.partition(";")[0].lower() for e in elements if not e.endswith((";q=0", "nan"))}
        assert covering & named


@deterministic
@given(st.text(max_size=40), st.text(max_size=10))
@example('"', '"')
@example("a/b;q*=x''%", "")
def test_any_header_is_survived(accept: str, format: str) -> None:
    """Garbage in headers never raises."""
    assert choose_media_type(accept, format) in (JSON, HTML_V1, TEXT_HTML, None)
    assert accepts_gzip(accept) in (True, False)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        *((None, False), ("", False), ("gzip", True), ("GZip", True), ("x-gzip", True)),
        *(("gzip, deflate, zstd", True), ("zstd,gzip,deflate", True), ("*", True)),
        *(("identity", False), ("Identity", False), ("deflate", False), ("gzip;q=0", False)),
        *(("gzip;q=0, *", False), ("*;q=0", False), ("identity;q=0", False)),
        *(("identity;q=0, gzip", True), ("gzip, identity", True), ("gzip;q=0.5, identity", False)),
        *(("identity;q=0.5, gzip;q=0.8", True), ("gzip;q=abc", False), ("gzip;q=0.001", True)),
    ],
)
def test_gzip(header: str | None, expected: bool) -> None:
    """gzip is sent to those who ask for it, by name or by the star, and do not rule it out."""
    assert accepts_gzip(header) is expected


def test_media_types() -> None:
    """The names are those of the specification, and the line of a 406 has all three."""
    found = {each.content_type: each.serialization for each in (JSON, HTML_V1, TEXT_HTML)}
    html = Serialization.HTML
    assert found == {V1_JSON: Serialization.JSON, V1_HTML: html, "text/html": html}
    assert "\n" not in ACCEPTABLE
    assert all(name in ACCEPTABLE for name in found)
