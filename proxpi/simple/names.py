"""Project names: which ones are valid and what their normal form is (PEP 503, PEP 508).

A name taken from a request reaches an upstream URL and the disk only through ``canonical``.

Foreign text, made fit to be shown: in a log, in a response, on a page.
"""

from __future__ import annotations

from packaging.utils import InvalidName, canonicalize_name

LONGEST = 200
"""Characters that a project name may have; real ones stay far below."""


def normalize(name: str) -> str:
    """Give the normal form of a name (PEP 503) without asking whether the name is valid."""
    return canonicalize_name(name)


def canonical(name: str) -> str | None:
    """Give the normal form of ``name``, or None where it cannot be the name of a project."""
    # The validation of older releases of packaging lets a last newline and the few letters
    # through that become ASCII when their case is ignored.
    if len(name) > LONGEST or not (name.isascii() and name.isprintable()):
        return None
    try:
        return canonicalize_name(name, validate=True)
    except InvalidName:
        return None


def shown(text: str) -> str:
    """
    Write text in one line of printable characters; what is not printable is escaped.

    That goes for control characters (C0, C1, DEL), line ends, marks that turn the direction of
    text, and surrogates: what a terminal, or the reader of a log, could be deceived with.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )
