"""Counts, sizes and times as people write them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.quantities import MOST_BYTES, NotAccepted, count, seconds, size

#: Texts, separated by bars, by what they mean.
SIZES = {
    0: "0|0GB",
    5: "5B",
    7: "7 bytes",
    100: "0.1kB",
    341: "0.3333KiB",
    5_000: "5kB|5KB",
    500_000: ".5 MB",
    5 * 10**6: "5MB",
    5 * 10**9: "5GB|5 gb",
    5 * 10**12: "5TB",
    5 * 10**15: "5PB",
    5 * 2**10: "5KiB|5K",
    5 * 2**20: "5MiB|5m",
    3 * 2**29: "1.5GiB",
    5 * 2**30: "5GiB|5gib|5G",
    5 * 2**40: "5TiB|5t",
    5 * 2**50: "5PiB",
    5368709120: " 5368709120 ",
    MOST_BYTES: str(MOST_BYTES),
}
TIMES = {
    0.0: "0",
    0.1: "0.1s",
    0.5: ".5|500ms",
    0.9: " 0.9 ",
    60.5: "1m0.5s",
    90.0: "90 s|90sec",
    300.0: "5 minutes",
    1000.0: "1e3",
    1800.0: "30m|30M",
    3600.0: "1h",
    5400.0: "1.5 hours|1h30m|1 h 30 min",
    172800.0: "2 days",
    604800.0: "1 Week",
}
#: Signs, exponents, separators, other digits, unknown units.
NO_SIZES = "| |GB|-1|-1GB|+1|1.5|1.5B|1e9|1_000|1,5GB|5XB|5Gb/s|5 G B|0x10|nan|inf|\u0665GB|\uff15"
NO_TIMES = (
    "| |s|-1|-1s|+1|1h30|30 1h|1 s s|1,5|1_0|5 parsecs|1:30|nan|inf|infinity|\u0663|\u0663s|1e|e3"
)


@pytest.mark.parametrize(("parse", "table"), [(size, SIZES), (seconds, TIMES)])
def test_accepted(parse: Callable[[str], float], table: dict[float, str]) -> None:
    """Units are decimal or binary, in any case, with or without a blank; times may have several."""
    for meant, texts in table.items():
        for text in texts.split("|"):
            assert parse(text) == meant, text


@pytest.mark.parametrize(("parse", "texts"), [(size, NO_SIZES), (seconds, NO_TIMES)])
def test_refused(parse: Callable[[str], float], texts: str) -> None:
    """Anything else is refused, without a reason of its own."""
    for text in texts.split("|"):
        with pytest.raises(ValueError) as refused:
            parse(text)
        assert not isinstance(refused.value, NotAccepted), text


def test_too_large() -> None:
    """A size beyond any disk and a time beyond any clock are refused."""
    for text in (str(MOST_BYTES + 1), "8EB", "8192PiB", "9" * 90 + "GB"):
        with pytest.raises(ValueError):
            size(text)
    for text in ("1e999", "9" * 400):
        with pytest.raises(NotAccepted):
            seconds(text)


@pytest.mark.parametrize("parse", [count, size, seconds])
@given(text=st.text())
def test_any_text(parse: Callable[[str], float], text: str) -> None:
    """Any text is 0 or more, or refused as a value."""
    try:
        assert parse(text) >= 0
    except ValueError:
        pass
