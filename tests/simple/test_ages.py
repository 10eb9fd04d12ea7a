"""Ages and dates of the rule ``exclude-newer``, and upload times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.simple import ages
from proxpi.simple.ages import exclude_newer
from tests.support.parsing import only_file
from tests.support.strategies import deterministic


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7 days", timedelta(7)),
        ("1 week", timedelta(7)),
        ("1 week 12 hours", timedelta(7, hours=12)),
        ("24 hours", timedelta(1)),
        ("1h30m", timedelta(minutes=90)),
        (" 30M ", timedelta(minutes=30)),
        ("1.5 days", timedelta(1.5)),
        ("500ms", timedelta(milliseconds=500)),
        ("P7D", timedelta(7)),
        ("p1w", timedelta(7)),
        ("PT24H", timedelta(1)),
        ("P1DT1H30M5S", timedelta(1, hours=1, minutes=30, seconds=5)),
        ("PT1M", timedelta(minutes=1)),
        ("0 days", timedelta()),
        ("36500 days", timedelta(36500)),
    ],
)
def test_ages(text: str, expected: timedelta) -> None:
    """An age is a number with a unit, several of them, or a duration of ISO 8601."""
    assert exclude_newer(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-03-16T12:00:00Z", datetime(2025, 3, 16, 12, tzinfo=UTC)),
        ("2025-03-16t12:00:00z", datetime(2025, 3, 16, 12, tzinfo=UTC)),
        ("2025-03-16 12:00:00 Z", datetime(2025, 3, 16, 12, tzinfo=UTC)),
        ("2025-03-16T12:00Z", datetime(2025, 3, 16, 12, tzinfo=UTC)),
        ("2025-03-16T12:00:00.25+02:00", datetime(2025, 3, 16, 10, 0, 0, 250_000, tzinfo=UTC)),
        ("2025-03-16T23:00:00-0230", datetime(2025, 3, 17, 1, 30, tzinfo=UTC)),
        ("2025-03-16", datetime(2025, 3, 17, tzinfo=UTC)),
        ("2024-02-29", datetime(2024, 3, 1, tzinfo=UTC)),
        ("9999-12-31", datetime.max.replace(tzinfo=UTC)),
    ],
)
def test_dates(text: str, expected: datetime) -> None:
    """A date with a time is that moment; a date alone is the end of its day in UTC, as in uv."""
    found = exclude_newer(text)
    assert isinstance(found, datetime)
    assert (found, found.tzinfo) == (expected, UTC)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not understood"),
        ("soon", "not understood"),
        ("2 fortnights", "not understood"),
        ("P", "not understood"),
        ("PT", "not understood"),
        ("2025-03-16x", "not understood"),
        ("7", "it has no unit, such as 7 days"),
        ("-7 days", "an age cannot be negative"),
        ("-P7D", "an age cannot be negative"),
        ("1 month", "months and years differ in length"),
        ("1y", "months and years differ in length"),
        ("P1M", "months and years differ in length"),
        ("P1Y2D", "months and years differ in length"),
        ("36501 days", "an age has at most 36500 days"),
        ("2025-03-16T12:00:00", "it has no time zone, such as Z for UTC"),
        ("2025-02-30", "day"),
        ("2025-03-16T25:00:00Z", "hour must be in 0..23"),
        ("2025-03-16T12:00:60Z", "second must be in 0..59"),
        ("0001-01-01T00:00:00+10:00", "there is no such date"),
    ],
)
def test_refused(text: str, reason: str) -> None:
    """A text that clients read in several ways, or not at all, is refused with a reason."""
    with pytest.raises(ValueError, match=reason):
        exclude_newer(text)


upload_times = st.builds(
    lambda second, digits: f"2025-03-16T12:00:0{second}{'.' if digits else ''}{digits}Z",
    st.integers(0, 1),
    st.text("059", max_size=6),
)


@deterministic
@given(upload_times, upload_times)
def test_upload_times_compare(upload_time: str, cutoff: str) -> None:
    """An upload time compares with a date by the microsecond, in any precision."""
    stated = only_file(**{"upload-time": upload_time})["upload-time"]
    found = ages.timestamp(stated)
    date = datetime.fromisoformat(cutoff)
    assert found is not None
    assert (found < date.timestamp()) is (datetime.fromisoformat(upload_time) < date)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0.0),
        ("2025-03-16T12:00:00.5Z", 1742126400.5),
        ("1969-12-31T23:59:59Z", -1.0),
        ("2025-03-16T12:00:00", None),
        ("yesterday", None),
    ],
)
def test_timestamps(text: str, expected: float | None) -> None:
    """An upload time is a number of seconds of the epoch, if it is a time."""
    assert ages.timestamp(text) == expected


def test_at() -> None:
    """A number of seconds is a date, unless no calendar has it."""
    assert ages.at(1742126400.5) == datetime(2025, 3, 16, 12, 0, 0, 500_000, tzinfo=UTC)
    assert ages.at(1e15) is None


def test_rfc3339() -> None:
    """A time is written in whole seconds, and never before it has come."""
    assert ages.rfc3339(1742126400) == "2025-03-16T12:00:00Z"
    assert ages.rfc3339(1742126400.001) == "2025-03-16T12:00:01Z"
    assert ages.rfc3339(1e15) is None
