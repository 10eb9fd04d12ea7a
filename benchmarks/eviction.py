"""What the cache's eviction is worth: traces of requests, replayed against policies.

``python benchmarks/eviction.py`` prints, for each trace and two sizes of the cache, the share of
requests that were hits, and the share of bytes in them. ``proxpi`` is the code that runs;
``future`` knows what is asked for next: once it keeps what is wanted soonest (the most of bytes),
once what is wanted soonest and is small (the most of requests). With files of different sizes
that is no proven bound, but nothing known comes nearer. The traces are made up, from fixed seeds.

``--counts FILE`` adds one whose popularity is real: a JSON object of names and downloads, such as
that of the npm package ``download-counts`` (``npm pack download-counts``); of it only the numbers
are used.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
from bisect import bisect
from collections import OrderedDict
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

from proxpi.files.eviction_index import EvictionIndex

Trace = list[tuple[int, int]]
Shares = tuple[float, float]

KB, MB, GB = 10**3, 10**6, 10**9
FILES = 12_000
REQUESTS = 120_000
#: Sizes of the cache, as shares of all that is ever asked for.
ROOMS = (0.05, 0.2)
NEVER = 1 << 40


def _size(chance: random.Random) -> int:
    """Bytes of a file: metadata, small wheels, larger ones, and a few that are huge."""
    kind = chance.random()
    if kind < 0.35:
        return int(chance.uniform(2 * KB, 20 * KB))
    if kind < 0.85:
        return int(min(2 * MB, chance.lognormvariate(11.8, 1.2)))
    if kind < 0.98:
        return int(chance.uniform(1 * MB, 30 * MB))
    return int(chance.uniform(40 * MB, 300 * MB))


class Catalog:
    """Files of which the first are the most wanted (Zipf); new releases take their places."""

    def __init__(self, seed: int, counts: list[float] | None = None) -> None:
        """:param counts: how much each is wanted, the most wanted first, if it is not Zipf's law"""
        self.chance = random.Random(seed)
        self.sizes = [_size(self.chance) for _ in range(FILES)]
        self.order = list(range(FILES))
        zipf = (1 / (rank + 1) ** 0.9 for rank in range(FILES))
        self._weights = list(accumulate(zipf if counts is None else counts))

    def draw(self) -> int:
        """Give a file as somebody wants it."""
        at = bisect(self._weights, self.chance.random() * self._weights[-1])
        return self.order[min(at, FILES - 1)]

    def release(self, count: int) -> None:
        """Replace files by new ones, the most wanted more often than others."""
        for _ in range(count):
            self.order[int(FILES * self.chance.random() ** 3)] = len(self.sizes)
            self.sizes.append(_size(self.chance))

    def trace(self, files: list[int]) -> Trace:
        """Give requests with sizes."""
        return [(file, self.sizes[file]) for file in files]


def drift(counts: list[float] | None = None) -> Trace:
    """Popularity by Zipf, or as counted, drifting as new releases come."""
    catalog = Catalog(1, counts)
    files: list[int] = []
    for number in range(REQUESTS):
        if number % 1000 == 0:
            catalog.release(30)
        files.append(catalog.draw())
    return catalog.trace(files)


def nightly() -> Trace:
    """The same by day; each night a rebuild of everything asks for 5,000 files, each once."""
    catalog = Catalog(2)
    files: list[int] = []
    for _ in range(REQUESTS // 13_000):
        files += [catalog.draw() for _ in range(8000)]
        catalog.release(200)
        files += catalog.chance.sample(catalog.order, 5000)
    return catalog.trace(files)


def bursts() -> Trace:
    """Pipelines: up to eight jobs, one after the other, install one of 300 lock files."""
    catalog = Catalog(3)
    files: list[int] = []
    chance = catalog.chance
    locks = [[catalog.draw() for _ in range(chance.randint(10, 120))] for _ in range(300)]
    weights = list(accumulate(1 / (rank + 1) ** 0.8 for rank in range(300)))
    while len(files) < REQUESTS:
        if chance.random() < 0.05:
            catalog.release(20)
        lock = locks[bisect(weights, chance.random() * weights[-1])]
        for position in range(len(lock)):
            if chance.random() < 0.03:
                lock[position] = catalog.draw()
        files += list(dict.fromkeys(lock)) * chance.randint(1, 8)
    return catalog.trace(files)


def huge() -> Trace:
    """Many small files, and each hundredth request for one of 40 wheels of 0.5 to 2.5 GB."""
    catalog = Catalog(4)
    files: list[int] = []
    chance = catalog.chance
    catalog.sizes = [min(size, 3 * MB) for size in catalog.sizes]
    first = len(catalog.sizes)
    catalog.sizes += [int(chance.uniform(0.5 * GB, 2.5 * GB)) for _ in range(40)]
    weights = list(accumulate(1 / (rank + 1) ** 0.9 for rank in range(40)))
    for number in range(REQUESTS):
        if number % 1000 == 0:
            catalog.release(20)
        if chance.random() < 0.01:
            files.append(first + bisect(weights, chance.random() * weights[-1]))
        else:
            files.append(catalog.draw())
    return catalog.trace(files)


class Policy:
    """First in, first out; and what the others share."""

    def __init__(self, room: int) -> None:
        self.room, self.used = room, 0
        self.files: OrderedDict[int, int] = OrderedDict()
        self.prepare()

    def prepare(self) -> None:
        """Make what a policy needs."""

    def ask(self, file: int, size: int) -> bool:
        """Ask for a file; whether it is a hit."""
        if file in self.files:
            self.hit(file)
            return True
        if size <= self.room:
            while self.used + size > self.room:
                self.used -= self.files.pop(self.victim())
            self.files[file] = size
            self.used += size
            self.add(file)
        return False

    def hit(self, file: int) -> None:
        """Take note of a use."""

    def add(self, file: int) -> None:
        """Take note of a file that came."""

    def victim(self) -> int:
        """Give the file that goes."""
        return next(iter(self.files))


class Recent(Policy):
    """Least recently used."""

    def hit(self, file: int) -> None:
        self.files.move_to_end(file)


class Ranked(Policy):
    """The lowest rank goes: here least frequently used, with the last use to tell equals apart."""

    def prepare(self) -> None:
        self.uses: dict[int, int] = {}
        self.ranks: dict[int, tuple[float, int]] = {}
        self.heap: list[tuple[float, int, int]] = []
        self.turn, self.level = 0, 0.0

    def rank(self, file: int) -> float:
        """How late a file goes."""
        return self.uses[file]

    def hit(self, file: int) -> None:
        self.uses[file] = self.uses.get(file, 0) + 1
        self.turn += 1
        self.ranks[file] = (self.rank(file), self.turn)
        heapq.heappush(self.heap, (*self.ranks[file], file))

    add = hit

    def victim(self) -> int:
        while True:
            rank, turn, file = heapq.heappop(self.heap)
            if self.ranks.get(file) == (rank, turn):
                del self.uses[file], self.ranks[file]
                self.level = rank
                return file


class Aged(Ranked):
    """Least frequently used, with aging (LFU-DA)."""

    def rank(self, file: int) -> float:
        return self.level + self.uses[file]


class PerByte(Ranked):
    """UsageLog for each byte, with aging (GDSF)."""

    def rank(self, file: int) -> float:
        return self.level + self.uses[file] / self.files[file]


class Segmented(Policy):
    """Least recently used, first of those used once; those used again have four fifths (SLRU)."""

    def prepare(self) -> None:
        self.once: OrderedDict[int, None] = OrderedDict()
        self.again: OrderedDict[int, None] = OrderedDict()
        self.held = 0

    def add(self, file: int) -> None:
        self.once[file] = None

    def hit(self, file: int) -> None:
        if file in self.again:
            self.again.move_to_end(file)
            return
        del self.once[file]
        self.again[file] = None
        self.held += self.files[file]
        while self.held > 0.8 * self.room:
            other, _ = self.again.popitem(last=False)
            self.held -= self.files[other]
            self.once[other] = None

    def victim(self) -> int:
        if self.once:
            return self.once.popitem(last=False)[0]
        file, _ = self.again.popitem(last=False)
        self.held -= self.files[file]
        return file


class Queues(Policy):
    """A small queue, a main one, and a memory of what left the first (S3-FIFO)."""

    def prepare(self) -> None:
        self.small: OrderedDict[int, None] = OrderedDict()
        self.main: OrderedDict[int, None] = OrderedDict()
        self.ghosts: OrderedDict[int, int] = OrderedDict()
        self.uses: dict[int, int] = {}
        self.in_small = self.in_ghosts = 0

    def hit(self, file: int) -> None:
        self.uses[file] = min(3, self.uses[file] + 1)

    def add(self, file: int) -> None:
        self.uses[file] = 0
        if file in self.ghosts:
            self.in_ghosts -= self.ghosts.pop(file)
            self.main[file] = None
        else:
            self.small[file] = None
            self.in_small += self.files[file]

    def victim(self) -> int:
        while True:
            if self.small and (self.in_small > 0.1 * self.room or not self.main):
                file, _ = self.small.popitem(last=False)
                self.in_small -= self.files[file]
                if not self.uses[file]:
                    self.ghosts[file] = self.files[file]
                    self.in_ghosts += self.files[file]
                    while self.in_ghosts > 0.9 * self.room:
                        self.in_ghosts -= self.ghosts.popitem(last=False)[1]
                    return file
                self.uses[file] = 0
            else:
                file, _ = self.main.popitem(last=False)
                if not self.uses[file]:
                    return file
                self.uses[file] -= 1
            self.main[file] = None


class Proxpi(Policy):
    """What proxpi does, by its own code."""

    def prepare(self) -> None:
        self.stock = EvictionIndex()

    def add(self, file: int) -> None:
        self.stock.add(str(file), self.files[file])
        self.stock.use(str(file))

    def hit(self, file: int) -> None:
        self.stock.use(str(file))

    def victim(self) -> int:
        [place] = self.stock.victims(1) or []
        self.stock.raise_inflation(place)
        self.stock.drop(place)
        return int(place)


def future(trace: Trace, room: int, *, small_first: bool) -> list[bool]:
    """Say which requests are hits for who knows what is asked for next."""
    following, last = [NEVER] * len(trace), dict[int, int]()
    for at in reversed(range(len(trace))):
        following[at] = last.get(trace[at][0], NEVER)
        last[trace[at][0]] = at
    kept: dict[int, int] = {}
    heap: list[tuple[int, int, int, int]] = []
    used, hits = 0, []
    for at, (file, size) in enumerate(trace):
        hits.append(file in kept)
        if file not in kept:
            if size > room or following[at] == NEVER:
                continue
            used += size
        kept[file] = following[at]
        distance = (following[at] - at) * size if small_first else following[at]
        heapq.heappush(heap, (-distance, following[at], file, size))
        while used > room:
            _, then, other, freed = heapq.heappop(heap)
            if kept.get(other) == then:
                del kept[other]
                used -= freed
    return hits


def shares(trace: Trace, hits: list[bool]) -> Shares:
    """Give the share of requests that were hits, and of bytes."""
    there = sum(size for (_, size), hit in zip(trace, hits, strict=True) if hit)
    return sum(hits) / len(trace), there / sum(size for _, size in trace)


TRACES: dict[str, Callable[[], Trace]] = {
    "drift": drift,
    "nightly": nightly,
    "bursts": bursts,
    "huge": huge,
}
POLICIES: dict[str, type[Policy]] = {
    "FIFO": Policy,
    "LRU": Recent,
    "LFU": Ranked,
    "LFU-DA": Aged,
    "GDSF": PerByte,
    "SLRU": Segmented,
    "S3-FIFO": Queues,
    "proxpi": Proxpi,
}


def read_counts(path: Path) -> list[float]:
    """Read how often the files of a trace are wanted, the most wanted first."""
    counted = json.loads(path.read_bytes())
    return sorted(map(float, counted.values()), reverse=True)[:FILES]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--counts", type=Path, metavar="FILE", help="real numbers of downloads")
    options = parser.parse_args()
    traces = dict(TRACES)
    if options.counts is not None:
        counts = read_counts(options.counts)
        traces["counted"] = lambda: drift(counts)
    columns = [*POLICIES, "future"]
    print("% of requests / % of bytes".ljust(28), *(f"{name:>8}" for name in columns))
    for name_of_trace, make in traces.items():
        trace = make()
        whole = sum(dict(trace).values())
        for room in (int(whole * share) for share in ROOMS):
            rows = {}
            for name, policy in POLICIES.items():
                cache = policy(room)
                rows[name] = shares(trace, [cache.ask(file, size) for file, size in trace])
            by_bytes = shares(trace, future(trace, room, small_first=False))[1]
            by_requests = shares(trace, future(trace, room, small_first=True))[0]
            rows["future"] = (by_requests, by_bytes)
            print(
                f"{name_of_trace}, {room / GB:.1f} of {whole / GB:.0f} GB".ljust(28),
                *(f"{100 * rows[name][0]:4.0f}/{100 * rows[name][1]:<3.0f}" for name in columns),
            )


if __name__ == "__main__":
    main()
