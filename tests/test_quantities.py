"""Sizes and times as people write them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.quantities import MOST_BYTES, NotAccepted, count, seconds, size


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("0", 0),
        (" 5368709120 ", 5368709120),
        ("5B", 5),
        ("7 bytes", 7),
        ("5kB", 5000),
        ("5KB", 5000),
        ("5MB", 5 * 10**6),
        ("5GB", 5 * 10**9),
        ("5 gb", 5 * 10**9),
        ("5TB", 5 * 10**12),
        ("5PB", 5 * 10**15),
        ("5KiB", 5 * 2**10),
        ("5MiB", 5 * 2**20),
        ("5GiB", 5 * 2**30),
        ("5gib", 5 * 2**30),
        ("5TiB", 5 * 2**40),
        ("5PiB", 5 * 2**50),
        ("5K", 5 * 2**10),
        ("5m", 5 * 2**20),
        ("5G", 5 * 2**30),
        ("5t", 5 * 2**40),
        ("1.5GiB", 3 * 2**29),
        (".5 MB", 500_000),
        ("0.1kB", 100),
        ("0.3333KiB", 341),
        ("0GB", 0),
        (str(MOST_BYTES), MOST_BYTES),
    ],
)
def test_sizes(text: str, meant: int) -> None:
    """Units are decimal or binary, in any case, with or without a blank; bare letters: binary."""
    assert size(text) == meant


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "GB",
        "-1",
        "-1GB",
        "+1",
        "1.5",
        "1.5B",
        "1e9",
        "1_000",
        "1,5GB",
        "5XB",
        "5Gb/s",
        "5 G B",
        "0x10",
        "nan",
        "inf",
        "\u0665GB",
        "\uff15",
    ],
)
def test_no_sizes(text: str) -> None:
    """Signs, exponents, separators, other digits and unknown units are no part of a size."""
    with pytest.raises(ValueError) as refused:
        size(text)
    assert not isinstance(refused.value, NotAccepted)


@pytest.mark.parametrize("text", [str(MOST_BYTES + 1), "8EB", "8192PiB", "9" * 90 + "GB"])
def test_too_large(text: str) -> None:
    """What no disk holds is refused, with that reason if the unit is known."""
    with pytest.raises(ValueError):
        size(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("0", 0.0),
        (" 0.9 ", 0.9),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("500ms", 0.5),
        ("90 s", 90.0),
        ("90sec", 90.0),
        ("30m", 1800.0),
        ("30M", 1800.0),
        ("5 minutes", 300.0),
        ("1h", 3600.0),
        ("1.5 hours", 5400.0),
        ("2 days", 172800.0),
        ("1 Week", 604800.0),
        ("1h30m", 5400.0),
        ("1 h 30 min", 5400.0),
        ("1m0.5s", 60.5),
        ("0.1s", 0.1),
    ],
)
def test_times(text: str, meant: float) -> None:
    """Units, in any case, with or without a blank, alone or several of them."""
    assert seconds(text) == meant


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "s",
        "-1",
        "-1s",
        "+1",
        "1h30",
        "30 1h",
        "1 s s",
        "1,5",
        "1_0",
        "5 parsecs",
        "1:30",
        "nan",
        "inf",
        "infinity",
        "\u0663",
        "\u0663s",
        "1e",
        "e3",
    ],
)
def test_no_times(text: str) -> None:
    """Signs, separators, other digits, unknown units and numbers without theirs are refused."""
    with pytest.raises(ValueError) as refused:
        seconds(text)
    assert not isinstance(refused.value, NotAccepted)


@pytest.mark.parametrize("text", ["1e999", "9" * 400])
def test_too_long(text: str) -> None:
    """What no clock counts is refused, with that reason."""
    with pytest.raises(NotAccepted):
        seconds(text)


@pytest.mark.parametrize("parse", [count, size, seconds])
@given(text=st.text())
def test_any_text(parse: Callable[[str], float], text: str) -> None:
    """Any text is understood, as 0 or more, or refused as a value."""
    try:
        assert parse(text) >= 0
    except ValueError:
        pass
