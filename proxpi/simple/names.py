"""Text from outside: project names in normalized form (PEP 503, PEP 508), and printable text.

A project name of a request reaches an upstream URL and the disk only through :func:`normalize`;
text of an upstream or a client reaches a log or a response only through :func:`printable`.
"""

from __future__ import annotations

from packaging.utils import InvalidName, canonicalize_name

#: Characters that a project name may have; real ones stay far below.
MAX_LENGTH = 200


def normalize(name: str) -> str | None:
    """Give the normalized form of a project name; ``None`` if the name is not valid."""
    # The validation of older releases of packaging lets a last newline through, and the few
    # letters that become ASCII when their case is ignored.
    if len(name) > MAX_LENGTH or not (name.isascii() and name.isprintable()):
        return None
    try:
        return canonicalize_name(name, validate=True)
    except InvalidName:
        return None


def printable(text: str) -> str:
    """
    Write text in one line of printable characters; the others are escaped.

    Control characters (C0, C1, DEL), line ends, marks that turn the direction of text, and
    surrogates could deceive a terminal or the reader of a log.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )
