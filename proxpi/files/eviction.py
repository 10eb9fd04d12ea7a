"""What goes first when the cache is full: pure functions."""

from __future__ import annotations

from collections.abc import Container, Iterable


def victims(sizes: Iterable[tuple[str, int]], excess: int, busy: Container[str]) -> list[str]:
    """
    Choose what to remove: the least recently used that nobody is being sent.

    :param sizes: names and bytes, the least recently used first
    :param excess: bytes to make room for
    :param busy: names that have to stay
    :return: the names to remove; fewer bytes than asked for if all else is busy
    """
    chosen = []
    for name, size in sizes:
        if excess <= 0:
            break
        if name not in busy:
            chosen.append(name)
            excess -= size
    return chosen
