"""Texts from the operator and their values: sizes, times, paths, and the URLs of indexes.

Variables, options and the configuration file share these parsers, so that a text means the same
wherever it stands. A parser raises :exc:`ValueError`; :exc:`NotAccepted` carries a reason.

A size is a whole number of bytes or a number with a unit: ``kB`` to ``PB`` are powers of 1000,
``KiB`` to ``PiB`` and the bare letters ``K`` to ``P`` of 1024 (as for ``docker --memory``). A time
is a number of seconds, or one or more numbers with units (``500ms``, ``1h30m``). Case does not
matter.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from decimal import Decimal
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeAlias, TypeVar
from urllib.parse import quote, unquote_to_bytes

from proxpi.simple import ages, printable, urls

T = TypeVar("T")

#: The peers of a network, or those at unix sockets, which have no addresses.
Peer: TypeAlias = IPv4Network | IPv6Network | str
UNIX = "unix"

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


class SettingsError(Exception):
    """A setting that is not accepted; the message is one line that names the accepted texts."""


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
        if not all(unit in ages.UNITS for _, unit in parts):
            raise ValueError(text)
        total = float(sum(Decimal(digits) * ages.UNITS[unit] for digits, unit in parts))
    else:
        raise ValueError(text)
    if not math.isfinite(total):
        raise NotAccepted("too long")
    return total


def path(text: str) -> str | None:
    """Parse a path, in which ``~`` and ``~user`` are home folders; ``None`` if it is empty."""
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        home = printable(expanded.partition("/")[0])
        raise NotAccepted(f"the home folder {home} is not known (./{home} is a plain name)")
    return expanded or None


def peer(text: str) -> Peer:
    """Parse an address, a network such as ``10.0.0.0/8``, or ``unix``."""
    written = text.strip().lower()
    if written == UNIX:
        return UNIX
    if "%" in written:
        raise NotAccepted("an interface has no place in an address")
    if match := re.fullmatch(r"\[(.*)\]", written):
        return IPv6Network(match[1])
    return ip_network(written, strict=False)


def one_of(*choices: str) -> Callable[[str], str]:
    def choose(text: str) -> str:
        for choice in choices:
            if text.strip().lower() == choice.lower():
                return choice
        raise ValueError(text)

    return choose


def reasoned(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Return a parser whose :exc:`ValueError` is :exc:`NotAccepted`: its text is a reason."""

    def parse_with_reason(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise NotAccepted(str(error)) from None

    return parse_with_reason


#: What :func:`index_url` accepts, for error messages.
URL_OR_FOLDER = "an http or https URL with a host, or a folder's URL such as file:///srv/wheels,"
_HOST_OR_FOLDER = re.compile(r"[\w-][\w.-]*")
_FILE_URL = re.compile(r"file:(?://([^/]*))?(.*)", re.IGNORECASE)


def index_url(text: str) -> str:
    """Parse the URL of an index; the result ends in one slash.

    The URL of a folder (RFC 8089) is written anew, so that two spellings of a folder are equal:
    ``file://``, then the path, percent-encoded.
    """
    written = text.strip()
    unusable = re.search(r"[\s\x00-\x1f\x7f#?]", written) is not None
    if found := _FILE_URL.match(written):
        if unusable:
            raise NotAccepted("blanks, ? and # are written %20, %3F and %23 in it")
        return _folder_url(*found.groups(""))
    if unusable:
        raise ValueError("blanks, queries and fragments have no place in it")
    if re.match("~|/(?!/)", written) and "@" not in written:
        raise NotAccepted(f"the URL of this folder is {_file_url(os.path.expanduser(written))}")
    url = urls.with_ascii_host(written)
    urls.origin(url)
    return url.rstrip("/") + "/"


def _folder_url(host: str, path: str) -> str:
    if host.lower() not in ("", "localhost"):
        # The host may be a password.
        meant = _file_url(host + path) if _HOST_OR_FOLDER.fullmatch(host) else "file:///srv/wheels/"
        raise NotAccepted(f"a host has no place in the URL of a folder, such as {meant}")
    if not path.startswith("/"):
        raise NotAccepted("the path of the folder is not absolute")
    plain = unquote_to_bytes(path)
    if b"\0" in plain:
        raise NotAccepted("no path has a zero byte")
    return _file_url(plain)


def _file_url(path: str | bytes) -> str:
    segments = [part for part in quote(path).split("/") if part not in ("", ".")]
    return "/".join(["file://", *segments, ""])
