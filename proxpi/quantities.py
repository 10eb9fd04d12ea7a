"""Counts, sizes and times, parsed from the text of a setting. Pure functions, without state.

A size is a whole number of bytes (``5368709120``) or a number with a unit (``5GB``, ``1.5 GiB``). A
time is a number of seconds (``0.9``), a number with a unit (``500ms``, ``2 days``), or several of
these (``1h30m``). Case does not matter. ``kB``, ``MB``, ``GB``, ``TB`` and ``PB`` are powers of
1000. ``KiB`` to ``PiB`` are powers of 1024, and so are the bare letters ``K`` to ``P``, as for
``docker --memory`` and in systemd's units.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal

#: Bytes that a size can mean at most: no file system holds a larger file.
MOST_BYTES = 2**63 - 1

_WHOLE = re.compile(r"[0-9]+")
_SECONDS = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?")
# A few digits say more than any disk or calendar holds, and keep arithmetic short.
_PART = r"([0-9]{1,30}\.?[0-9]{0,30}|\.[0-9]{1,30})\s*([a-z]+)"
_SIZE = re.compile(_PART)
_PARTS = re.compile(rf"{_PART}(?:\s*{_PART})*")

_BYTES = {"b": 1, "byte": 1, "bytes": 1}
for _power, _letter in enumerate("kmgtp", 1):
    _BYTES[f"{_letter}b"] = 1000**_power
    _BYTES[f"{_letter}ib"] = _BYTES[_letter] = 1024**_power

_UNITS_OF_TIME = {
    "0.001": "ms msec msecs millisecond milliseconds",
    "1": "s sec secs second seconds",
    "60": "m min mins minute minutes",
    "3600": "h hr hrs hour hours",
    "86400": "d day days",
    "604800": "w week weeks",
}
_LENGTHS = {
    name: Decimal(length) for length, names in _UNITS_OF_TIME.items() for name in names.split()
}


class NotAccepted(ValueError):
    """A text that is refused for a reason that the user needs to know: the exception's text."""


def count(text: str) -> int:
    """Read a whole number, 0 or more; raises :exc:`ValueError`."""
    digits = text.strip()
    if not _WHOLE.fullmatch(digits):
        raise ValueError(text)
    return int(digits)


def size(text: str) -> int:
    """Read a size, in bytes; raises :exc:`ValueError`. A fraction of a byte is dropped."""
    if (found := _SIZE.fullmatch(text.strip().lower())) is None:
        number = count(text)
    else:
        digits, unit = found.groups()
        if unit not in _BYTES or (_BYTES[unit] == 1 and not _WHOLE.fullmatch(digits)):
            raise ValueError(text)
        number = int(Decimal(digits) * _BYTES[unit])
    if number > MOST_BYTES:
        raise NotAccepted("too large")
    return number


def seconds(text: str) -> float:
    """Read a time, in seconds; raises :exc:`ValueError`."""
    written = text.strip().lower()
    if _SECONDS.fullmatch(written):
        total = float(written)
    elif _PARTS.fullmatch(written):
        parts = re.findall(_PART, written)
        if not all(unit in _LENGTHS for _, unit in parts):
            raise ValueError(text)
        total = float(sum(Decimal(digits) * _LENGTHS[unit] for digits, unit in parts))
    else:
        raise ValueError(text)
    if not math.isfinite(total):
        raise NotAccepted("too long")
    return total
