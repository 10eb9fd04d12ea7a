"""Quantities as people read them: sizes, times and counts, for the admin page, checks and the log.

A quantity is rounded to three digits or so, and its unit is the one in which it is 1 or more. Units
of sizes are decimal, as in settings.
"""

from __future__ import annotations

import math

#: Each unit with its name; the last one has no end.
_SIZES = ((1, "B"), (1e3, "kB"), (1e6, "MB"), (1e9, "GB"), (1e12, "TB"), (1e15, "PB"), (1e18, "EB"))
_COUNTS = ((1, ""), (1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T"), (1e15, "P"), (1e18, "E"))
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
#: Counts below are written in full.
_FULL = 10_000


def size(bytes_: float) -> str:
    """Write a number of bytes, such as ``12.4 GB``."""
    return _scaled(bytes_, _SIZES)


def count(number: float) -> str:
    """Write a number, such as ``9,876`` or ``12.3 k``."""
    return f"{number:,.0f}" if abs(number) < _FULL - 0.5 else _scaled(number, _COUNTS)


def counted(number: int, one: str, many: str = "") -> str:
    """Write a number of things, such as ``1 file`` or ``12.3 k files``; `many` is irregular."""
    return f"{count(number)} {one if number == 1 else many or f'{one}s'}"


def percent(part: float) -> str:
    """Write a part of 1, such as ``94 %``; 100 % is all, and 0 % none."""
    if 0.0 < part < 0.01:
        return "<1 %"
    # Not rounded up: 99.6 % are not all.
    return f"{math.floor(part * 100 + 1e-9)} %"


def duration(seconds: float) -> str:
    """Write a time, such as ``3 h 20 min``: the first two units of it, with days from two on."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms" if seconds else "0 s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for least, unit, name, below, below_name in (
        (2 * _DAY, _DAY, "d", _HOUR, "h"),
        (_HOUR, _HOUR, "h", _MINUTE, "min"),
        (_MINUTE, _MINUTE, "min", 1, "s"),
    ):
        if whole >= least:
            rest = whole % unit // below
            return f"{whole // unit:,} {name}" + (f" {rest} {below_name}" if rest else "")
    return f"{whole} s"


def _scaled(number: float, units: tuple[tuple[float, str], ...]) -> str:
    for unit, name in units:
        scaled = number / unit
        digits = 1 if unit > 1 and abs(scaled) < 99.95 else 0
        # A number that rounds to 1,000 gets the next unit.
        if abs(round(scaled, digits)) < 1000:
            break
    return f"{scaled:,.{digits}f} {name}".rstrip()
