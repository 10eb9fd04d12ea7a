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
    Form,
    Serialization,
    accepts_gzip,
    choose_form,
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
def test_matrix(accept: str | None, expected: Form | None) -> None:
    """Each header that real clients send, and each corner of the rules, gets its form."""
    assert choose_form(accept) == expected


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        (V1_JSON, JSON),
        ("application/vnd.pypi.simple.v1 json", JSON),
        ("application/vnd.pypi.simple.v1 html", HTML_V1),
        ("application/vnd.pypi.simple.latest+json", JSON),
        ("Text/HTML", TEXT_HTML),
    ],
)
def test_format_precedes_accept(format: str, expected: Form) -> None:
    """``?format=`` decides, also with its plus read as a space."""
    assert choose_form("image/png", format) == expected


@pytest.mark.parametrize("format", ["", "json", "application/vnd.pypi.simple.v2+json", "*/*"])
def test_unknown_format_leaves_it_to_accept(format: str) -> None:
    """A value that is no known type is as if it were not there."""
    assert choose_form(V1_HTML, format) == HTML_V1
    assert choose_form("image/png", format) is None


_ranges = st.sampled_from(
    [V1_JSON, V1_HTML, "text/html", "text/*", "application/*", "*/*", "image/png", V1_JSON.upper()]
)
_qualities = st.sampled_from(["", ";q=0", ";q=0.1", "; q=0.5", ";q=1", ";q=nan", ";Q=0.3"])
_elements = st.builds("{}{}".format, _ranges, _qualities)


@deterministic
@given(st.lists(_elements, max_size=5))
def test_order_is_meaningless(elements: list[str]) -> None:
    """Turning the header around changes nothing."""
    assert choose_form(",".join(elements)) == choose_form(",".join(reversed(elements)))


@deterministic
@given(st.lists(_elements, max_size=5))
def test_what_is_chosen_was_accepted(elements: list[str]) -> None:
    """A form is only chosen if a range that covers it stands in the header."""
    form = choose_form(",".join(elements))
    if form is not None and any(not element.endswith("nan") for element in elements):
        media_type = form.content_type
        covering = {media_type, media_type.partition("/")[0] + "/*", "*/*"}
        named = {e.partition(";")[0].lower() for e in elements if not e.endswith((";q=0", "nan"))}
        assert covering & named


@deterministic
@given(st.text(max_size=40), st.text(max_size=10))
@example('"', '"')
@example("a/b;q*=x''%", "")
def test_any_header_is_survived(accept: str, format: str) -> None:
    """Garbage in headers never raises."""
    assert choose_form(accept, format) in (JSON, HTML_V1, TEXT_HTML, None)
    assert accepts_gzip(accept) in (True, False)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, False),
        ("", False),
        ("gzip", True),
        ("GZip", True),
        ("x-gzip", True),
        ("gzip, deflate, zstd", True),
        ("zstd,gzip,deflate", True),
        ("*", True),
        ("identity", False),
        ("Identity", False),
        ("deflate", False),
        ("gzip;q=0", False),
        ("gzip;q=0, *", False),
        ("*;q=0", False),
        ("identity;q=0", False),
        ("identity;q=0, gzip", True),
        ("gzip, identity", True),
        ("gzip;q=0.5, identity", False),
        ("identity;q=0.5, gzip;q=0.8", True),
        ("gzip;q=abc", False),
        ("gzip;q=0.001", True),
    ],
)
def test_gzip(header: str | None, expected: bool) -> None:
    """gzip is sent to those who ask for it, by name or by the star, and do not rule it out."""
    assert accepts_gzip(header) is expected


def test_forms_and_the_text_of_a_406() -> None:
    """The names of the types are those of the specification, and a 406 can tell all three."""
    assert (JSON.content_type, HTML_V1.content_type, TEXT_HTML.content_type) == (
        V1_JSON,
        V1_HTML,
        "text/html",
    )
    assert JSON.serialization is Serialization.JSON
    assert HTML_V1.serialization is TEXT_HTML.serialization is Serialization.HTML
    assert "\n" not in ACCEPTABLE
    assert all(form.content_type in ACCEPTABLE for form in (JSON, HTML_V1, TEXT_HTML))
