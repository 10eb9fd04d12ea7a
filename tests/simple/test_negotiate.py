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
    accepts_gzip,
    choose_media_type,
)
from tests.support.strategies import deterministic

V1_JSON = "application/vnd.pypi.simple.v1+json"
V1_HTML = "application/vnd.pypi.simple.v1+html"

V2_JSON = V1_JSON.replace("v1", "v2")
LATEST = "application/vnd.pypi.simple.latest"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

MATRIX: list[tuple[str | None, MediaType | None]] = [
    *((header, TEXT_HTML) for header in (None, "", "*/*", "text/html", "text/*", BROWSER, ",,")),
    *((f"{V1_JSON}, {V1_HTML}; q=0.1, text/html; q=0.01", JSON), (V1_JSON, JSON)),
    *((f"{V1_JSON}, {V1_HTML};q=0.2, text/html;q=0.01", JSON), (V1_HTML, HTML_V1)),
    *((f"{V1_JSON}, */*;q=0.1", JSON), ("application/*", JSON), (V1_JSON.upper(), JSON)),
    *((f"{V1_JSON};q=0.1, text/html", TEXT_HTML), (f"{V1_JSON};q=0, */*", TEXT_HTML)),
    *((header, None) for header in (V2_JSON, "application/json", "image/png")),
    (f"{V2_JSON}, {V1_JSON};q=0.1", JSON),
    # Blanks, parameters, empty elements; one whose ``q`` is malformed counts as none.
    *((f"\t{V1_JSON}  ;\tq=0.5 ,  text/html ; q=0.4", JSON), (f"{V1_JSON};q=1.0000", JSON)),
    *((f"{V1_JSON};q={q}, text/html;q=0.1", TEXT_HTML) for q in ("abc", "2")),
    *((f"{V1_JSON};q=abc", TEXT_HTML), (f"{V1_JSON};foo=bar;q=0.5, text/html;q=0.4", JSON)),
    *(("text/html;charset=utf-8", TEXT_HTML), (f",,{V1_JSON},,", JSON)),
    # ``latest`` is a name for requests; the answer has the type that it stands for.
    *((f"{LATEST}+json", JSON), (f"{LATEST}+html", HTML_V1)),
    # Ties: JSON first, text/html last, and a range that names nothing after all of them.
    *((f"text/html, {V1_HTML}, {V1_JSON}", JSON), (f"text/html, {V1_HTML}", HTML_V1)),
    *(("text/html, application/*", JSON), (f"{V1_HTML}, */*", HTML_V1)),
    *(("text/html, */*", TEXT_HTML), ("application/*, */*", JSON), ("text/html;q=0, */*", JSON)),
    ("application/*;q=0.5, */*", TEXT_HTML),
    (f"text/html;q=0, {V1_JSON};q=0, */*", HTML_V1),
    # The more specific range decides for its type, not the wider one.
    (f"application/*, {V1_JSON};q=0.1", HTML_V1),
    (f"{V1_JSON};q=0.1, {V1_HTML};q=0.1, text/html;q=0.2, */*", TEXT_HTML),
    (f"{V1_JSON};q=0, {LATEST}+json", JSON),
    *((header, None) for header in ("*/*;q=0", f"{V1_JSON};q=0", "image/png, text/html;q=0")),
]


@pytest.mark.parametrize(("accept", "expected"), MATRIX)
def test_matrix(accept: str | None, expected: MediaType | None) -> None:
    """Each header of real clients, and each corner of the rules, gets its media type."""
    assert choose_media_type(accept) == expected


def test_format() -> None:
    """A known ``?format=``, also with its plus read as a space, precedes ``Accept``."""
    for format, expected in {
        V1_JSON: JSON,
        V1_JSON.replace("+", " "): JSON,
        V1_HTML.replace("+", " "): HTML_V1,
        f"{LATEST}+json": JSON,
        "Text/HTML": TEXT_HTML,
    }.items():
        assert choose_media_type("image/png", format) == expected
    for format in ("", "json", V2_JSON, "*/*"):
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
    assert [each.content_type for each in (JSON, HTML_V1, TEXT_HTML)] == [
        *(V1_JSON, V1_HTML, "text/html")
    ]
    assert "\n" not in ACCEPTABLE
    assert all(name in ACCEPTABLE for name in (V1_JSON, V1_HTML, "text/html"))
