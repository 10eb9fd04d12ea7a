"""Conditional and range requests, compared with RFC 9110 and with a naive model."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxpi.simple.caching import Span, Unsatisfiable, none_match, requested_span
from tests.support.strategies import deterministic


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, False),
        ("", False),
        ('"tag"', True),
        ('W/"tag"', True),
        ('"other", "tag"', True),
        ('"other","tag"', True),
        ('"other" , W/"tag" , "more"', True),
        ("*", True),
        (" * ", True),
        ('"other"', False),
        ('"TAG"', False),
        ('W/"other"', False),
        ('"', False),
        (",,,", False),
        ('"tag-gzip"', False),
    ],
)
def test_if_none_match(header: str | None, expected: bool) -> None:
    """Lists, the star and weak tags are understood; what is not listed is no match."""
    assert none_match(header, "tag") is expected


@deterministic
@given(st.text(max_size=30))
@example('W/"')
@example('"a""b"')
def test_if_none_match_survives_anything(header: str) -> None:
    """No header raises, and none that lacks tag and star matches."""
    matched = none_match(header, "tag")
    assert not matched or "tag" in header or "*" in header


def _outcome(
    header: str | None, size: int, if_range: str | None = None, etag: str | None = "tag"
) -> Span | str | None:
    try:
        return requested_span(header, if_range, etag, size)
    except Unsatisfiable:
        return "416"


_numbers = st.integers(min_value=0, max_value=12)


@deterministic
@given(_numbers, _numbers, _numbers)
def test_first_and_last_byte(first: int, last: int, size: int) -> None:
    """``a-b`` selects the bytes that a filter over all of them selects."""
    chosen = [position for position in range(size) if first <= position <= last]
    if last < first:
        expected: Span | str | None = None
    else:
        expected = Span(chosen[0], chosen[-1] + 1) if chosen else "416"
    assert _outcome(f"bytes={first}-{last}", size) == expected


@deterministic
@given(_numbers, _numbers)
def test_from_a_byte_to_the_end(first: int, size: int) -> None:
    """``a-`` selects what slicing from ``a`` selects."""
    rest = range(size)[first:]
    expected = Span(rest[0], rest[-1] + 1) if rest else "416"
    assert _outcome(f"bytes={first}-", size) == expected


@deterministic
@given(_numbers, _numbers)
def test_last_bytes(count: int, size: int) -> None:
    """``-n`` selects the last n bytes, all of a shorter file, and none is not satisfiable."""
    rest = range(size)[-count:] if count else range(0)
    expected = Span(rest[0], rest[-1] + 1) if rest else "416"
    assert _outcome(f"bytes=-{count}", size) == expected


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-3",
        "bytes=1",
        "bytes=--1",
        "bytes=0-1-2",
        "bytes=+1-2",
        "bytes=0x1-2",
        "bytes=1_0-20",
        "bytes=\u0663-\u0664",
        "items=0-1",
        "bytes=0-1,3-4",
        "bytes=0-1,",
        "bytes=-5,0-1",
        "bytes=" + "9" * 5000 + "-",
    ],
)
def test_what_is_no_single_range_is_ignored(header: str | None) -> None:
    """Malformed headers, other units and several ranges give the whole file."""
    assert _outcome(header, 100) is None


@pytest.mark.parametrize("header", ["BYTES=0-1", " bytes = 0-1 ", "bytes=0 - 1", "bytes=00-01"])
def test_spelling_of_a_range(header: str) -> None:
    """The unit ignores case, and blanks around the parts do no harm."""
    assert _outcome(header, 100) == Span(0, 2)


@pytest.mark.parametrize(
    ("if_range", "etag", "expected"),
    [
        (None, "tag", Span(0, 2)),
        (None, None, Span(0, 2)),
        ('"tag"', "tag", Span(0, 2)),
        (' "tag" ', "tag", Span(0, 2)),
        ('W/"tag"', "tag", None),
        ('"other"', "tag", None),
        ("tag", "tag", None),
        ("", "tag", None),
        ('"None"', None, None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", "tag", None),
    ],
)
def test_if_range(if_range: str | None, etag: str | None, expected: Span | None) -> None:
    """Only the very tag keeps the range; weak ones, dates and files without a tag do not."""
    assert _outcome("bytes=0-1", 100, if_range, etag) == expected


def test_if_range_decides_before_the_range_is_looked_at() -> None:
    """A range that could not be satisfied is no error when ``If-Range`` does not hold."""
    assert _outcome("bytes=500-", 100, '"other"') is None
    assert _outcome("bytes=-0", 100, '"other"') is None


@deterministic
@given(st.text(max_size=20), st.integers(min_value=0, max_value=5))
def test_any_span_lies_in_the_file(text: str, size: int) -> None:
    """No header raises or selects bytes that the file does not have."""
    span = _outcome(f"bytes={text}", size)
    assert span in (None, "416") or (isinstance(span, Span) and 0 <= span.start < span.stop <= size)
