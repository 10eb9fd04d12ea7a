"""Text from outside: names of projects (PEP 503, PEP 508) and of files, and printable text.

A project name of a request reaches an upstream URL and the disk only through :func:`normalize`, a
file name only past :func:`is_filename`; text of an upstream or a client reaches a log or a response
only through :func:`printable`.
"""

from __future__ import annotations

import re

from packaging.utils import InvalidName, canonicalize_name

#: Characters that a project name may have; real ones stay far below.
MAX_LENGTH = 200
#: Characters of the longest file name. (A disk allows fewer: the client is redirected then.)
MAX_FILENAME = 2000
#: The ending of files that describe the variants of the wheels of a version (draft PEP 825).
VARIANTS = "-variants.json"
_UNSAFE = re.compile(r"[/\\\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def normalize(name: str) -> str | None:
    """Return the normalized form of a project name; ``None`` if the name is not valid."""
    # The validation of older releases of packaging lets a last newline through, and the few
    # letters that become ASCII when their case is ignored.
    if len(name) > MAX_LENGTH or not (name.isascii() and name.isprintable()):
        return None
    try:
        return canonicalize_name(name, validate=True)
    except InvalidName:
        return None


def is_filename(text: str) -> bool:
    """Return whether a file may have this name: one path segment without control characters."""
    if text in ("", ".", "..") or len(text) > MAX_FILENAME:
        return False
    if text.isprintable():  # nearly all are, and this test is quicker
        return "/" not in text and "\\" not in text
    return _UNSAFE.search(text) is None


def may_change(filename: str) -> bool:
    """Return whether a file may get other bytes under its name: one that describes variants may.

    Every wheel of another variant that is uploaded for the version changes it (draft PEP 825).
    """
    return filename.endswith(VARIANTS)


def printable(text: str) -> str:
    """Write text in one line of printable characters; the others are escaped.

    Control characters (C0, C1, DEL), line ends, marks that turn the direction of text, and
    surrogates could deceive a terminal or the reader of a log.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in text
    )
