"""Foreign text, made fit to be shown: in a log, in a response, on a page."""

from __future__ import annotations


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
