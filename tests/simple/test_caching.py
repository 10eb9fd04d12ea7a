"""Freshness, conditional and range requests, compared with RFC 9110 and with a naive model."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxpi.simple import versions
from proxpi.simple.caching import (
    MAX_AGE,
    Span,
    Unsatisfiable,
    is_refresh,
    max_age,
    precondition,
    remaining,
    requested_span,
)
from tests.support.strategies import deterministic

times = st.floats(min_value=-1e9, max_value=1e9, allow_nan=False)


@deterministic
@given(times, st.floats(min_value=0, max_value=1e9, allow_nan=False), times)
def test_freshness(requested_at: float, ttl: float, now: float) -> None:
    """No jump of the clock keeps a response fresh for longer than its time to live."""
    left = remaining(requested_at, ttl, now)
    assert 0.0 <= left <= ttl
    assert 0 <= max_age(left) <= min(left, MAX_AGE)


#: ``Cache-Control`` of requests for pages, and ``User-Agent`` up to its details, as clients sent
#: them, and whether they were told to refresh.
SENT = (
    (None, "uv/0.13.9", False),  # uv pip compile
    ("no-cache", "uv/0.13.9", True),  # uv pip compile --refresh, --refresh-package
    ("max-age=0", "pip/26.1", False),  # pip download
    (None, "pip/26.2", False),
    ("max-age=0", "pip/26.2", True),  # pip download --refresh-package
    (None, "pip/26.3", False),
    ("max-age=0", "pip/26.3", True),
)


def test_refresh_of_clients() -> None:
    """What real clients send for a page is a refresh exactly if they were told to refresh."""
    for cache_control, client, told in SENT:
        user_agent = client + ' {"ci":null,"cpu":"x86_64","python":"3.11.7"}'
        assert (cache_control is not None and is_refresh(cache_control, user_agent)) is told


def test_refresh() -> None:
    """``no-cache`` counts in each spelling, ``max-age=0`` for newer pips alone."""
    for value in ("no-cache", "No-Cache", " no-cache ", "no-store, no-cache", "max-age=0,no-cache"):
        assert is_refresh(value, None)
    for value in ("", "no-store", "x-no-cache", "no-cache-x", "max-age=1", "max-age=00", "max-age"):
        assert not is_refresh(value, "pip/27.0")
    for agent in ("pip/26.2", "pip/26.2.1", "pip/26.10", "pip/27.0.dev0 {}", "pip/100"):
        assert is_refresh("max-age=0", agent)
        assert is_refresh("no-transform, Max-Age=0", agent)
    for other in (
        *(
            None,
            "",
            "pip",
            "pip/",
            "pip/x",
            "pip/26.1.2 {}",
            "pip/26.2.dev0",
            "pip/9.0",
            "xpip/27.0",
        ),
        *("uv/27.0", "Mozilla/5.0 (pip/27.0)", "pip /27.0", "pip/" + "9" * 5000),
    ):
        assert not is_refresh("max-age=0", other)


def test_long_client() -> None:
    """A client whose version is longer than any is not remembered."""
    versions.version.cache_clear()
    for agent in ("pip/" + "1." * 4000 + "0", "pip/" + "x" * 51):
        assert not is_refresh("max-age=0", agent)
    assert versions.version.cache_info().currsize == 0


def test_seconds() -> None:
    """``max-age`` is whole seconds, at most a minute and what is left; no clock makes it longer."""
    # Requested at 100 with 30 s to live; the last clock ran backwards.
    for now, left in {100.0: 30.0, 110.0: 20.0, 130.0: 0.0, 500.0: 0.0, 40.0: 30.0}.items():
        assert remaining(100.0, 30.0, now) == left
    cases = {0.0: 0, 0.9: 0, 1.0: 1, 59.9: 59, 60.0: 60, 1800.0: 60, -5.0: 0, float("inf"): 60}
    assert {left: max_age(left) for left in cases} == cases


@pytest.mark.parametrize(
    ("header", "matches"),
    [
        *((None, False), ("", False), ('"tag"', True), ('W/"tag"', True), ("*", True)),
        *(('"other", "tag"', True), ('"other","tag"', True), ('"other" , W/"tag" , "more"', True)),
        *((" * ", True), ('"other"', False), ('"TAG"', False), ('W/"other"', False)),
        *(('"', False), (",,,", False), ('"tag-gzip"', False)),
    ],
)
def test_if_none_match(header: str | None, matches: bool) -> None:
    """Lists, the star and weak tags are understood; an unknown tag is never matched."""
    assert precondition(None, header, "tag") == (304 if matches else None)
    assert precondition(None, header, None) is None


@pytest.mark.parametrize(
    ("header", "etag", "status"),
    [
        *(('"tag"', "tag", None), ('"a", "tag"', "tag", None), ("*", "tag", None)),
        *(('W/"tag"', "tag", 412), ('"other"', "tag", 412), ("", "tag", 412), ('"x"', None, 412)),
    ],
)
def test_if_match(header: str, etag: str | None, status: int | None) -> None:
    """``If-Match`` compares strongly, and precedes ``If-None-Match``."""
    assert precondition(header, None, etag) == status
    assert precondition(header, '"tag"', "tag") == (status or 304 if etag else 412)


@deterministic
@given(st.text(max_size=30))
@example('W/"')
@example('"a""b"')
def test_any_condition(header: str) -> None:
    """No header raises, and none that lacks tag and star matches."""
    matched = precondition(None, header, "tag")
    assert not matched or "tag" in header or "*" in header


def outcome(
    header: str | None, size: int, if_range: str | None = None, etag: str | None = "tag"
) -> Span | str | None:
    """Return the requested bytes, or the status of the refusal."""
    try:
        return requested_span(header, if_range, etag, size)
    except Unsatisfiable:
        return "416"


numbers = st.integers(min_value=0, max_value=12)


@deterministic
@given(numbers, numbers, numbers)
def test_ranges(first: int, last: int, size: int) -> None:
    """``a-b``, ``a-`` and ``-n`` select the bytes that a filter over all of them selects."""
    for header, chosen in (
        (f"bytes={first}-{last}", [at for at in range(size) if first <= at <= last]),
        (f"bytes={first}-", list(range(size)[first:])),
        (f"bytes=-{first}", list(range(size)[-first:] if first else ())),
    ):
        expected: Span | str | None = Span(chosen[0], chosen[-1] + 1) if chosen else "416"
        if last < first and header.endswith(f"{first}-{last}"):
            expected = None
        assert outcome(header, size) == expected


IGNORED = (
    *(None, "", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-3", "bytes=1", "bytes=--1"),
    *("bytes=0-1-2", "bytes=+1-2", "bytes=0x1-2", "bytes=1_0-20", "bytes=\u0663-\u0664"),
    *("items=0-1", "bytes=0-1,3-4", "bytes=0-1,", "bytes=-5,0-1", "bytes=" + "9" * 5000 + "-"),
)
SPELLINGS = ("BYTES=0-1", " bytes = 0-1 ", "bytes=0 - 1", "bytes=00-01")


def test_spelling_of_a_range() -> None:
    """Malformed headers, other units and several ranges give the whole file; blanks do no harm."""
    assert {header: outcome(header, 100) for header in IGNORED} == dict.fromkeys(IGNORED)
    for header in SPELLINGS:
        assert outcome(header, 100) == Span(0, 2)


@pytest.mark.parametrize(
    ("if_range", "etag", "holds"),
    [
        *(
            (None, "tag", True),
            (None, None, True),
            ('"tag"', "tag", True),
            (' "tag" ', "tag", True),
        ),
        *(('W/"tag"', "tag", False), ('"other"', "tag", False), ("tag", "tag", False)),
        *(("", "tag", False), ('"None"', None, False)),
        ("Wed, 21 Oct 2015 07:28:00 GMT", "tag", False),
    ],
)
def test_if_range(if_range: str | None, etag: str | None, holds: bool) -> None:
    """Only the very tag keeps the range, even one that could not be satisfied."""
    assert outcome("bytes=0-1", 100, if_range, etag) == (Span(0, 2) if holds else None)
    assert outcome("bytes=500-", 100, if_range, etag) == ("416" if holds else None)
    assert outcome("bytes=-0", 100, if_range, etag) == ("416" if holds else None)


@deterministic
@given(st.text(max_size=20), st.integers(min_value=0, max_value=5))
def test_any_range(text: str, size: int) -> None:
    """No header raises or selects bytes that the file does not have."""
    span = outcome(f"bytes={text}", size)
    assert span in (None, "416") or (isinstance(span, Span) and 0 <= span.start < span.stop <= size)
