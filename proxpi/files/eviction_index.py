"""The eviction index: the cached files with their bytes, their uses, and which is evicted first.

A cached file is *unverified* (nothing is known of its bytes) or *verified* (see
:class:`~proxpi.files.verify.Checked`). The index touches no file. It is written as one JSON
document, so that recency, frequency and verifications outlast the process.

The policy is GreedyDual-Size-Frequency (GDSF): the file with the lowest *rank* is evicted first,
and rank = level + min(uses, 4) * cost / size. The *level* is the rank of the last evicted file; so
it rises, and unused files age. The cost is that of a miss: the bytes of the file and one request.
``benchmarks/eviction.py`` compares this with other policies.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Container, Iterable, Iterator
from itertools import count

import attrs
import msgspec

from proxpi.files.verify import Checked

#: The version of the document.
VERSION = 3
#: Bytes that cost as much as the request for them: a tenth of a second at 30 MB/s.
REQUEST = 3_000_000
#: Uses beyond which a file is worth no more.
MOST_USES = 4
#: Bytes that a file takes at least, as file systems have it.
LEAST = 1024

_Row = tuple[str, int, int, float, Checked | None]


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    """The index as it is written; of the files, the least recently used first."""

    version: int
    level: float
    files: list[_Row]


def worth(uses: int, size: int) -> float:
    """Give the worth of a file of so many bytes, for each of its bytes."""
    return min(max(uses, 1), MOST_USES) * (1 / max(size, LEAST) + 1 / REQUEST)


@attrs.define(eq=False)
class Kept:
    """A cached file: its bytes, its uses since it came, and when it was last used (`turn`)."""

    size: int
    uses: int
    rank: float
    turn: int
    verified: Checked | None = None


@attrs.define(eq=False)
class EvictionIndex:
    """The cached files, by cache path, and the bytes of all of them."""

    used: int = attrs.field(init=False, default=0)
    _kept: dict[str, Kept] = attrs.field(init=False, factory=dict)
    _level: float = attrs.field(init=False, default=0.0)
    _turns: Iterator[int] = attrs.field(init=False, factory=count)
    # Entries whose file has another turn by now, or is gone, are passed over.
    _ranked: list[tuple[float, int, str]] = attrs.field(init=False, factory=list)

    def __contains__(self, place: str) -> bool:
        return place in self._kept

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._kept))

    def __len__(self) -> int:
        return len(self._kept)

    def size(self, place: str) -> int:
        kept = self._kept.get(place)
        return kept.size if kept is not None else 0

    def verified(self, place: str | None) -> Checked | None:
        """Give what is known of a file's bytes, now or from an earlier process."""
        kept = self._kept.get(place or "")
        return kept.verified if kept is not None else None

    def verify(self, place: str, verified: Checked | None) -> None:
        """Note what is known of a file's bytes; ``None``: nothing any more."""
        kept = self._kept.get(place)
        if kept is not None:
            kept.verified = verified

    def add(self, place: str, size: int) -> None:
        """Take in a file that has not been used yet; it replaces one of the same place."""
        self.drop(place)
        self._put(place, Kept(size, 0, self._level + worth(0, size), next(self._turns)))

    def use(self, place: str, count: int = 1) -> None:
        """Count uses of a file, if it is kept."""
        kept = self._kept.get(place)
        if kept is None:
            return
        kept.uses += count
        kept.rank = self._level + worth(kept.uses, kept.size)
        kept.turn = next(self._turns)
        self._rank(place, kept)

    def drop(self, place: str) -> None:
        """Forget a file, if it is kept."""
        kept = self._kept.pop(place, None)
        if kept is not None:
            self.used -= kept.size

    def age(self, place: str) -> None:
        """Raise the level to the rank of an evicted file."""
        self._level = max(self._level, self._kept[place].rank)

    def choose(self, excess: int, busy: Container[str], most: int | None = None) -> list[str]:
        """
        Choose what to evict to free `excess` bytes, the lowest ranks first.

        :param busy: cache paths that have to stay
        :param most: how many are chosen at most
        """
        chosen: list[str] = []
        passed = []
        while excess > 0 and self._ranked and len(chosen) != most:
            entry = heapq.heappop(self._ranked)
            _, turn, place = entry
            kept = self._kept.get(place)
            if kept is None or kept.turn != turn:
                continue
            passed.append(entry)
            if place not in busy:
                chosen.append(place)
                excess -= kept.size
        for entry in passed:
            heapq.heappush(self._ranked, entry)
        return chosen

    def fill(self, found: Iterable[tuple[str, int]]) -> None:
        """Take in files of which only the order of their last use is known, the last one last."""
        files = list(found)
        # The level rises from one to the next, by what is the worth of one over all of them.
        values = [worth(0, size) for _, size in files]
        step = sum(values) / max(len(files), 1) ** 2
        ranks = (self._level + value + number * step for number, value in enumerate(values))
        self._put_all(
            (place, Kept(size, 0, rank, turn))
            for (place, size), rank, turn in zip(files, ranks, self._turns, strict=False)
        )

    def dump(self) -> bytes:
        """Write down what is known."""
        rows = sorted(self._kept.items(), key=lambda item: item[1].turn)
        files = [(place, kept.size, kept.uses, kept.rank, kept.verified) for place, kept in rows]
        return msgspec.json.encode(_Document(VERSION, self._level, files))

    def load(self, document: bytes) -> None:
        """Take in what was written down, or nothing of it: `ValueError` if it is damaged."""
        read = msgspec.json.decode(document, type=_Document)
        if read.version != VERSION or not math.isfinite(read.level):
            raise ValueError("another version, or no numbers")
        for _, size, uses, rank, verified in read.files:
            if size < 0 or uses < 0 or not math.isfinite(rank):
                raise ValueError("a number that cannot be")
            if verified is not None and "sha256" not in verified.digests:
                raise ValueError("a digest is missing")
        self._level = read.level
        self._put_all(
            (place, Kept(size, uses, rank, turn, verified))
            for (place, size, uses, rank, verified), turn in zip(
                read.files, self._turns, strict=False
            )
        )

    def _put(self, place: str, kept: Kept) -> None:
        self._kept[place] = kept
        self.used += kept.size
        self._rank(place, kept)

    def _put_all(self, files: Iterable[tuple[str, Kept]]) -> None:
        """Take in files in one go: at a start there may be tens of thousands."""
        kept = dict(files)
        for place in self._kept.keys() & kept.keys():
            self.drop(place)
        self._kept |= kept
        self.used += sum(file.size for file in kept.values())
        self._rank_all()

    def _rank(self, place: str, kept: Kept) -> None:
        if len(self._ranked) > 2 * len(self._kept) + 1000:
            self._rank_all()
        else:
            heapq.heappush(self._ranked, (kept.rank, kept.turn, place))

    def _rank_all(self) -> None:
        self._ranked = [(kept.rank, kept.turn, place) for place, kept in self._kept.items()]
        heapq.heapify(self._ranked)
