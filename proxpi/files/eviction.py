"""What goes first when the cache is full: pure functions.

Theory of operation
-------------------
Each file has a *rank*: the level at the time of its last use, and what it was worth by then. The
level is the rank of the last file that had to go, so it rises for as long as files go, and what
nobody uses any more sinks below it (the aging of GreedyDual). What goes is the lowest rank.

A file is worth what its absence costs for each byte that its removal gains. A miss costs the
bytes themselves and a request, which weighs as much as some megabytes: so of small files one
goes for many uses, while large ones, among themselves, are judged by their uses alone. Uses
beyond the fourth tell nothing: four jobs of one pipeline are soon done, and a file that is wanted
for good is used again before it sinks.

It was chosen by ``benchmarks/eviction.py``, with room for a twentieth and for a fifth of all that
is asked for. Of the hits that somebody has who knows the future it has 82 to 99 %, and of the bytes
in hits 57 to 97 %; the least recently used has 35 to 94 % and 55 to 97 %. S3-FIFO and SLRU have up
to five points more of the bytes, but of the requests only 45 to 95 %; GDSF has a few points more of
the requests, and much less of the bytes.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

#: Bytes that cost as much as the request for them: a tenth of a second at 30 MB/s.
REQUEST = 3_000_000
#: UsageLog beyond which a file is worth no more.
MOST_USES = 4
#: Bytes that a file takes at least, as file systems have it.
LEAST = 1024


def worth(uses: int, size: int) -> float:
    """
    Tell what it is worth to keep a file, for each of its bytes.

    :param uses: how often it was used since it came
    :param size: in bytes
    """
    return min(max(uses, 1), MOST_USES) * (1 / max(size, LEAST) + 1 / REQUEST)


def victims(
    sizes: Iterable[tuple[str, int]], excess: int, busy: Container[str], most: int | None = None
) -> list[str]:
    """
    Choose what to remove: the lowest ranks that nobody is being sent.

    :param sizes: names and bytes, the lowest rank first
    :param excess: bytes to make room for
    :param busy: names that have to stay
    :param most: how many are chosen at most
    :return: the names to remove; fewer bytes than asked for if all else is busy
    """
    chosen: list[str] = []
    if excess <= 0:
        return chosen
    for name, size in sizes:
        if name not in busy:
            chosen.append(name)
            excess -= size
            if excess <= 0 or len(chosen) == most:
                break
    return chosen
