"""The line of the access log: what is said of a request and its answer."""

from __future__ import annotations

import re

#: Bytes of a path that the access log shows.
LONGEST = 2048

_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")


def described(method: bytes, path: bytes, status: int, size: int, cache: str) -> str:
    """Write what the access log says of a request and its answer, in one line.

    :param path: without its query, in which people put tokens
    :param size: bytes of the body that were sent
    """
    name = printable(path[:LONGEST]) + ("..." if len(path) > LONGEST else "")
    return f"{printable(method[:LONGEST])} {name} {status} {size} {cache}"


def printable(data: bytes) -> str:
    """Write bytes a client sent so that they cannot forge a line of a log."""
    return _UNPRINTABLE.sub(lambda match: f"\\x{ord(match[0]):02x}", data.decode("latin-1"))
