"""Ages and dates of the rule ``exclude-newer``, and upload times (PEP 700); pure.

The rule takes what ``uv --exclude-newer`` and ``pip --uploaded-prior-to`` take, with their meaning,
as far as they agree. They agree that a file which was uploaded at the very date is excluded. Where
they do not agree, or where the place of proxpi matters:

======================  ============================================================================
Text                    Meaning
======================  ============================================================================
``2025-03-16``          uv's: files of that day still count, those of the next day do not. (For pip
                        the day itself is excluded.) Clients use their time zone; here it is UTC:
                        the clients of one proxpi are in many zones.
``2025-03-16T12:00``    refused: uv reads it as the whole day, and pip in a time zone of its own
``7``                   refused: without a unit it could be days or seconds
``1 month``             refused, as by uv: months and years differ in length
======================  ============================================================================

Times are compared by the microsecond, as in pip; uv compares milliseconds. A day has 24 hours. An
age is measured when a page is filtered: a file is excluded until its upload time and the age have
passed.
"""

from __future__ import annotations

import datetime
import math
import re
from decimal import Decimal

#: The texts that :func:`exclude_newer` accepts, for error messages.
ACCEPTED = (
    "an age such as 7 days, 24 hours, 1h30m or P7D, a date such as 2025-03-16, or a date with "
    "time and time zone such as 2025-03-16T12:00:00Z"
)
#: The longest age: older than any index.
MOST_DAYS = 36_500

#: Seconds of a unit of time, by its names.
UNITS = {
    name: Decimal(length)
    for length, names in {
        "0.001": "ms msec msecs millisecond milliseconds",
        "1": "s sec secs second seconds",
        "60": "m min mins minute minutes",
        "3600": "h hr hrs hour hours",
        "86400": "d day days",
        "604800": "w week weeks",
    }.items()
    for name in names.split()
}
_CALENDAR = {"mo", "mos", "month", "months", "y", "yr", "yrs", "year", "years"}

_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,15})?"
_PART = rf"({_NUMBER})\s*([a-z]+)"
_PARTS = re.compile(rf"{_PART}(?:\s*{_PART})*")
_ISO = re.compile(
    rf"p(?:({_NUMBER})w)?(?:({_NUMBER})d)?(?:t(?:({_NUMBER})h)?(?:({_NUMBER})m)?(?:({_NUMBER})s)?)?"
)
_ISO_UNITS = ("w", "d", "h", "m", "s")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(
    rf"({_DATE.pattern})[t ]([0-9]{{2}}:[0-9]{{2}}(?::[0-9]{{2}}(?:\.[0-9]+)?)?)"
    r"(?: ?(z|[+-][0-9]{2}:?[0-9]{2}))?"
)
_DAY = datetime.timedelta(days=1)
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def exclude_newer(text: str) -> datetime.timedelta | datetime.datetime:
    """
    Read an age or a date; raises :exc:`ValueError` with a reason.

    ==============================  ======================================================
    Text                            Result
    ==============================  ======================================================
    ``7 days``, ``1 week``, ``P7D``  an age of 7 days
    ``24 hours``, ``PT24H``         an age of 1 day
    ``1h30m``, ``PT1H30M``          an age of 90 minutes
    ``0 days``                      no age: only files with an upload time to come are excluded
    ``2025-03-16T12:00:00+02:00``   10 o'clock UTC
    ``2025-03-16``                  the end of that day, UTC
    ==============================  ======================================================

    :return: an age, not negative, or a date in UTC: files uploaded then or later are excluded
    """
    written = " ".join(text.split()).lower()
    if _DATE.match(written):
        return _date(written)
    if written.startswith("-"):
        raise ValueError("an age cannot be negative")
    seconds = _seconds(written)
    if seconds > MOST_DAYS * UNITS["d"]:
        raise ValueError(f"an age has at most {MOST_DAYS} days")
    return datetime.timedelta(microseconds=int(seconds * 1_000_000))


def _seconds(written: str) -> Decimal:
    if (iso := _ISO.fullmatch(written)) is not None and any(iso.groups()):
        parts = [(digits, unit) for digits, unit in zip(iso.groups(), _ISO_UNITS, strict=True)]
        return sum((Decimal(digits) * UNITS[unit] for digits, unit in parts if digits), Decimal())
    if re.fullmatch(_NUMBER, written):
        raise ValueError(f"it has no unit, such as {written} days")
    units = set(re.findall("[a-z]+", written))
    if units & _CALENDAR or re.match(rf"p(?:{_NUMBER}[ym])", written):
        raise ValueError("months and years differ in length; days do not")
    if _PARTS.fullmatch(written) is None or not units <= UNITS.keys():
        raise ValueError("not understood")
    parts = re.findall(_PART, written)
    return sum((Decimal(digits) * UNITS[unit] for digits, unit in parts), Decimal())


def _date(written: str) -> datetime.datetime:
    if _DATE.fullmatch(written):
        day = datetime.datetime.fromisoformat(written)
        # The end of the last day of the calendar cannot be written.
        end = day + _DAY if day < datetime.datetime.max - _DAY else datetime.datetime.max
        return end.replace(tzinfo=datetime.UTC)
    if (time := _TIME.fullmatch(written)) is None:
        raise ValueError("not understood")
    date, clock, zone = time.groups()
    if zone is None:
        raise ValueError("it has no time zone, such as Z for UTC")
    found = datetime.datetime.fromisoformat(f"{date}T{clock}{zone.replace('z', '+00:00')}")
    try:
        return found.astimezone(datetime.UTC)
    except OverflowError:
        raise ValueError("there is no such date") from None


def timestamp(upload_time: str) -> float | None:
    """Return an upload time in seconds of the epoch; ``None`` if the text is none."""
    try:
        time = datetime.datetime.fromisoformat(upload_time)
        return (time - _EPOCH).total_seconds()
    except (TypeError, ValueError):  # without a time zone it is a TypeError
        return None


def at(seconds: float) -> datetime.datetime | None:
    """Return a time of the epoch as a date in UTC; ``None`` if no calendar has it."""
    try:
        return _EPOCH + datetime.timedelta(seconds=seconds)
    except OverflowError:
        return None


def rfc3339(seconds: float) -> str | None:
    """Write a time of the epoch by RFC 3339, in UTC, with the next whole second."""
    date = at(float(math.ceil(seconds)))
    return None if date is None else date.replace(tzinfo=None).isoformat() + "Z"
