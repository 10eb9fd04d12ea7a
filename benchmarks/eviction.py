"""Compares eviction policies by synthetic traces: hit ratio and byte hit ratio.

``proxpi`` is proxpi's own :class:`EvictionIndex`. ``future`` knows all later requests (Belady): it
evicts the file that is requested last (for the byte hit ratio), or last weighted by size (for the
hit ratio). With files of different sizes this is no proven bound, only the best one known. The
traces have fixed seeds.

``--counts FILE`` adds a trace with real popularity. The file is a JSON object of names and
downloads, such as that of the npm package ``download-counts`` (``npm pack download-counts``).
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
#: Cache capacities, as shares of the bytes of all files in the trace.
CAPACITIES = (0.05, 0.2)
NEVER = 1 << 40


def _size(rng: random.Random) -> int:
    """Draw the size of a file in bytes: metadata, small, large or huge wheels."""
    kind = rng.random()
    if kind < 0.35:
        return int(rng.uniform(2 * KB, 20 * KB))
    if kind < 0.85:
        return int(min(2 * MB, rng.lognormvariate(11.8, 1.2)))
    if kind < 0.98:
        return int(rng.uniform(1 * MB, 30 * MB))
    return int(rng.uniform(40 * MB, 300 * MB))


class Catalog:
    """Files by popularity (Zipf); releases replace files."""

    def __init__(self, seed: int, counts: list[float] | None = None) -> None:
        """:param counts: popularity in descending order; by default Zipf's law"""
        self.rng = random.Random(seed)
        self.sizes = [_size(self.rng) for _ in range(FILES)]
        self.order = list(range(FILES))
        zipf = (1 / (rank + 1) ** 0.9 for rank in range(FILES))
        self._weights = list(accumulate(zipf if counts is None else counts))

    def draw(self) -> int:
        """Draw a file by popularity."""
        rank = bisect(self._weights, self.rng.random() * self._weights[-1])
        return self.order[min(rank, FILES - 1)]

    def release(self, count: int) -> None:
        """Replace files by new ones, popular files more often."""
        for _ in range(count):
            self.order[int(FILES * self.rng.random() ** 3)] = len(self.sizes)
            self.sizes.append(_size(self.rng))

    def trace(self, files: list[int]) -> Trace:
        return [(file, self.sizes[file]) for file in files]


def drift(counts: list[float] | None = None) -> Trace:
    """Popularity by Zipf's law, or as counted; releases make it drift."""
    catalog = Catalog(1, counts)
    files: list[int] = []
    for number in range(REQUESTS):
        if number % 1000 == 0:
            catalog.release(30)
        files.append(catalog.draw())
    return catalog.trace(files)


def nightly() -> Trace:
    """Drift by day; each night a rebuild requests 5,000 files once."""
    catalog = Catalog(2)
    files: list[int] = []
    for _ in range(REQUESTS // 13_000):
        files += [catalog.draw() for _ in range(8000)]
        catalog.release(200)
        files += catalog.rng.sample(catalog.order, 5000)
    return catalog.trace(files)


def bursts() -> Trace:
    """Pipelines: up to eight jobs in turn install one of 300 lock files."""
    catalog = Catalog(3)
    files: list[int] = []
    rng = catalog.rng
    locks = [[catalog.draw() for _ in range(rng.randint(10, 120))] for _ in range(300)]
    weights = list(accumulate(1 / (rank + 1) ** 0.8 for rank in range(300)))
    while len(files) < REQUESTS:
        if rng.random() < 0.05:
            catalog.release(20)
        lock = locks[bisect(weights, rng.random() * weights[-1])]
        for position in range(len(lock)):
            if rng.random() < 0.03:
                lock[position] = catalog.draw()
        files += list(dict.fromkeys(lock)) * rng.randint(1, 8)
    return catalog.trace(files)


def huge() -> Trace:
    """Small files; 1 % of the requests are for 40 wheels of 0.5 to 2.5 GB."""
    catalog = Catalog(4)
    files: list[int] = []
    rng = catalog.rng
    catalog.sizes = [min(size, 3 * MB) for size in catalog.sizes]
    first = len(catalog.sizes)
    catalog.sizes += [int(rng.uniform(0.5 * GB, 2.5 * GB)) for _ in range(40)]
    weights = list(accumulate(1 / (rank + 1) ** 0.9 for rank in range(40)))
    for number in range(REQUESTS):
        if number % 1000 == 0:
            catalog.release(20)
        if rng.random() < 0.01:
            files.append(first + bisect(weights, rng.random() * weights[-1]))
        else:
            files.append(catalog.draw())
    return catalog.trace(files)


class Policy:
    """First in, first out (FIFO); base of the other policies."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.used = capacity, 0
        self.files: OrderedDict[int, int] = OrderedDict()
        self.prepare()

    def prepare(self) -> None:
        """Create the state of a policy."""

    def request(self, file: int, size: int) -> bool:
        """Request a file, and give whether it is a hit."""
        if file in self.files:
            self.hit(file)
            return True
        if size <= self.capacity:
            while self.used + size > self.capacity:
                self.used -= self.files.pop(self.victim())
            self.files[file] = size
            self.used += size
            self.add(file)
        return False

    def hit(self, file: int) -> None:
        """Update the state for a hit."""

    def add(self, file: int) -> None:
        """Update the state for a new file."""

    def victim(self) -> int:
        """Return the file to evict."""
        return next(iter(self.files))


class LRU(Policy):
    """Least recently used."""

    def hit(self, file: int) -> None:
        self.files.move_to_end(file)


class LFU(Policy):
    """Least frequently used, then least recently used; base of the policies with priorities."""

    def prepare(self) -> None:
        self.uses: dict[int, int] = {}
        self.priorities: dict[int, tuple[float, int]] = {}
        self.heap: list[tuple[float, int, int]] = []
        self.turn, self.inflation = 0, 0.0

    def priority(self, file: int) -> float:
        """Return the priority of a file; the lowest one is evicted."""
        return self.uses[file]

    def hit(self, file: int) -> None:
        self.uses[file] = self.uses.get(file, 0) + 1
        self.turn += 1
        self.priorities[file] = (self.priority(file), self.turn)
        heapq.heappush(self.heap, (*self.priorities[file], file))

    add = hit

    def victim(self) -> int:
        while True:
            priority, turn, file = heapq.heappop(self.heap)
            if self.priorities.get(file) == (priority, turn):
                del self.uses[file], self.priorities[file]
                self.inflation = priority
                return file


class LFUDA(LFU):
    """Least frequently used with dynamic aging (LFU-DA)."""

    def priority(self, file: int) -> float:
        return self.inflation + self.uses[file]


class GDSF(LFU):
    """GreedyDual-Size-Frequency: uses per byte, with aging."""

    def priority(self, file: int) -> float:
        return self.inflation + self.uses[file] / self.files[file]


class SLRU(Policy):
    """Segmented LRU: four fifths are protected for files with a second use."""

    def prepare(self) -> None:
        self.probation: OrderedDict[int, None] = OrderedDict()
        self.protected: OrderedDict[int, None] = OrderedDict()
        self.protected_bytes = 0

    def add(self, file: int) -> None:
        self.probation[file] = None

    def hit(self, file: int) -> None:
        if file in self.protected:
            self.protected.move_to_end(file)
            return
        del self.probation[file]
        self.protected[file] = None
        self.protected_bytes += self.files[file]
        while self.protected_bytes > 0.8 * self.capacity:
            other, _ = self.protected.popitem(last=False)
            self.protected_bytes -= self.files[other]
            self.probation[other] = None

    def victim(self) -> int:
        if self.probation:
            return self.probation.popitem(last=False)[0]
        file, _ = self.protected.popitem(last=False)
        self.protected_bytes -= self.files[file]
        return file


class S3FIFO(Policy):
    """A small queue, a main queue, and a ghost queue of files evicted from the small one."""

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
            if self.small and (self.in_small > 0.1 * self.capacity or not self.main):
                file, _ = self.small.popitem(last=False)
                self.in_small -= self.files[file]
                if not self.uses[file]:
                    self.ghosts[file] = self.files[file]
                    self.in_ghosts += self.files[file]
                    while self.in_ghosts > 0.9 * self.capacity:
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
    """The policy of proxpi, by its own code."""

    def prepare(self) -> None:
        self.eviction_index = EvictionIndex()

    def add(self, file: int) -> None:
        self.eviction_index.add(str(file), self.files[file])
        self.eviction_index.use(str(file))

    def hit(self, file: int) -> None:
        self.eviction_index.use(str(file))

    def victim(self) -> int:
        [path] = self.eviction_index.victims(1) or []
        self.eviction_index.raise_inflation(path)
        self.eviction_index.remove(path)
        return int(path)


def future(trace: Trace, capacity: int, *, by_size: bool) -> list[bool]:
    """Return which requests are hits of a policy that knows all later requests.

    :param by_size: weight the distance of the next request by the file's size
    """
    next_request, last = [NEVER] * len(trace), dict[int, int]()
    for at in reversed(range(len(trace))):
        next_request[at] = last.get(trace[at][0], NEVER)
        last[trace[at][0]] = at
    cached: dict[int, int] = {}
    heap: list[tuple[int, int, int, int]] = []
    used, hits = 0, []
    for at, (file, size) in enumerate(trace):
        hits.append(file in cached)
        if file not in cached:
            if size > capacity or next_request[at] == NEVER:
                continue
            used += size
        cached[file] = next_request[at]
        distance = (next_request[at] - at) * size if by_size else next_request[at]
        heapq.heappush(heap, (-distance, next_request[at], file, size))
        while used > capacity:
            _, due, other, freed = heapq.heappop(heap)
            if cached.get(other) == due:
                del cached[other]
                used -= freed
    return hits


def shares(trace: Trace, hits: list[bool]) -> Shares:
    """Return the hit ratio and the byte hit ratio."""
    hit_bytes = sum(size for (_, size), hit in zip(trace, hits, strict=True) if hit)
    return sum(hits) / len(trace), hit_bytes / sum(size for _, size in trace)


TRACES: dict[str, Callable[[], Trace]] = {
    "drift": drift,
    "nightly": nightly,
    "bursts": bursts,
    "huge": huge,
}
POLICIES: dict[str, type[Policy]] = {
    "FIFO": Policy,
    "LRU": LRU,
    "LFU": LFU,
    "LFU-DA": LFUDA,
    "GDSF": GDSF,
    "SLRU": SLRU,
    "S3-FIFO": S3FIFO,
    "proxpi": Proxpi,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--counts", type=Path, metavar="FILE", help="JSON object of names and downloads"
    )
    options = parser.parse_args()
    traces = dict(TRACES)
    if options.counts is not None:
        downloads = json.loads(options.counts.read_bytes()).values()
        counts = sorted(map(float, downloads), reverse=True)[:FILES]
        traces["counted"] = lambda: drift(counts)
    columns = [*POLICIES, "future"]
    print("% hits / % bytes".ljust(28), *(f"{name:>8}" for name in columns))
    for label, generate in traces.items():
        trace = generate()
        total = sum(dict(trace).values())
        for capacity in (int(total * share) for share in CAPACITIES):
            rows = {}
            for name, policy in POLICIES.items():
                cache = policy(capacity)
                rows[name] = shares(trace, [cache.request(file, size) for file, size in trace])
            by_bytes = shares(trace, future(trace, capacity, by_size=False))[1]
            by_requests = shares(trace, future(trace, capacity, by_size=True))[0]
            rows["future"] = (by_requests, by_bytes)
            print(
                f"{label}, {capacity / GB:.1f} of {total / GB:.0f} GB".ljust(28),
                *(f"{100 * rows[name][0]:4.0f}/{100 * rows[name][1]:<3.0f}" for name in columns),
            )


if __name__ == "__main__":
    main()
