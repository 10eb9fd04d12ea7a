"""Quantities as people read them."""

from __future__ import annotations

import pytest

from proxpi.quantities import count, counted, duration, percent, size


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_949, "99.9 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (12_400_000_000, "12.4 GB"),
        (5 << 30, "5.4 GB"),
        (2**63, "9.2 EB"),
        (1e24, "1,000,000 EB"),
        (-1500, "-1.5 kB"),
    ],
)
def test_sizes(number: float, text: str) -> None:
    """A size has the unit in which it is 1 or more, also once it is rounded."""
    assert size(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (7, "7"),
        (9_999, "9,999"),
        (9_999.6, "10.0 k"),
        (12_345, "12.3 k"),
        (999_500, "1.0 M"),
        (1e21, "1,000 E"),
    ],
)
def test_counts(number: float, text: str) -> None:
    """A count is whole up to four digits."""
    assert count(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0123, "12 ms"),
        (0.9996, "1.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3599.6, "1 h"),
        (12_000, "3 h 20 min"),
        (86_400, "24 h"),
        (86_400 * 2, "2 d"),
        (86_400 * 12 + 3 * 3600 + 59, "12 d 3 h"),
        (1e9, "11,574 d 1 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    """A time has at most two units."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (0, "0 %"),
        (0.0001, "<1 %"),
        (0.29, "29 %"),
        (0.945, "94 %"),
        (0.9999, "99 %"),
        (1, "100 %"),
    ],
)
def test_percentages(part: float, text: str) -> None:
    """Nearly all is not all, and little is not nothing."""
    assert percent(part) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 files"), (1, "1 file"), (10_000, "10.0 k files")]
)
def test_counted(number: int, text: str) -> None:
    """One thing has the singular."""
    assert counted(number, "file") == text
    assert counted(1, "entry", "entries") == "1 entry"
    assert counted(2, "entry", "entries") == "2 entries"
