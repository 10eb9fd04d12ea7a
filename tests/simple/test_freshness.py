"""Freshness: what is left of a page's time to live."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.simple.caching import LONGEST, max_age, remaining
from tests.support.strategies import deterministic

_times = st.floats(min_value=-1e9, max_value=1e9, allow_nan=False)
_ttls = st.floats(min_value=0, max_value=1e9, allow_nan=False)


@deterministic
@given(_times, _ttls, _times)
def test_what_is_left_lies_between_nothing_and_all(asked_at: float, ttl: float, now: float) -> None:
    """Whatever the clock does, what is left is never negative and never above the time to live."""
    assert 0.0 <= remaining(asked_at, ttl, now) <= ttl


@deterministic
@given(_times, _ttls, _times)
def test_the_header_promises_no_more_than_is_left(asked_at: float, ttl: float, now: float) -> None:
    """Whatever the clock does, a client never keeps a page beyond its time to live."""
    left = remaining(asked_at, ttl, now)
    assert 0 <= max_age(left) <= min(left, LONGEST)


@pytest.mark.parametrize(
    ("now", "expected"), [(100.0, 30.0), (110.0, 20.0), (130.0, 0.0), (500.0, 0.0), (40.0, 30.0)]
)
def test_what_is_left_shrinks_with_time(now: float, expected: float) -> None:
    """A page asked for at 100 with 30 s to live; a clock that ran backwards renews, not extends."""
    assert remaining(100.0, 30.0, now) == expected


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (0.0, 0),
        (0.9, 0),
        (1.0, 1),
        (59.9, 59),
        (60.0, 60),
        (1800.0, LONGEST),
        (-5.0, 0),
        (float("inf"), 60),
    ],
)
def test_max_age_is_whole_seconds_and_capped(left: float, expected: int) -> None:
    """The header never promises more than is left, nor more than a minute."""
    assert max_age(left) == expected
