"""The eviction index: the cached files with their bytes and uses, and which is evicted first.

A cached file is *unverified* (nothing is known of its bytes) or *verified* (see
:class:`~proxpi.files.verify.VerifiedFile`), and *in use* while it is being sent. During the
startup scan the eviction index is *incomplete*: files may lie in the folder that it does not have.
It touches no file. It is written as one JSON document, so that recency, frequency and verifications
outlast the process.

Policy: GreedyDual-Size-Frequency (GDSF). The file with the lowest *priority* is evicted first, and
priority = inflation + min(uses, 4) * cost / size. The *inflation* is the priority of the last
evicted file; so it rises, and unused files age. The cost is that of a miss: the bytes of the file
and one request. ``benchmarks/eviction.py`` compares this with other policies.

A *prefetched* file was fetched without a client that waited for it, and has not been used yet. Its
priority is 0, below that of any used file: prefetched files are evicted first, the oldest of them
before the others. At its first use it gets the priority of a new file.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import count, repeat
from typing import Annotated, Protocol

import attrs
import msgspec
from msgspec.structs import replace

from proxpi.files.verify import VerifiedFile
from proxpi.local_files import Identity

#: The version of the document.
VERSION = 3
#: Bytes that cost as much as the request for them: a tenth of a second at 30 MB/s.
REQUEST = 3_000_000
#: Uses beyond which the value of a file does not rise.
MAX_USES = 4
#: Bytes that a file takes at least, as file systems have it.
MIN_SIZE = 1024
#: The priority of prefetched files, and of no other file.
PREFETCHED = 0.0


# Cache path, bytes, uses, priority, and what is known of the bytes.
_Count = Annotated[int, msgspec.Meta(ge=0)]
_Row = tuple[str, _Count, _Count, float, VerifiedFile | None]


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    """The document; documents of earlier releases are without `used_at`.

    :ivar used_at: :attr:`IndexedFile.used_at` of the files, in their order
    """

    version: int
    inflation: float = msgspec.field(name="level")
    files: list[_Row]
    used_at: list[_Count] = []


class CachedResponses(Protocol):
    """The response cache, as far as it holds responses that were built from cached files."""

    def invalidate(self, key: str | None) -> None: ...

    def uses(self) -> Iterable[tuple[str, int]]:
        """Return the uses of files, by cache path, since the last call; the latest last."""


def value(uses: int, size: int) -> float:
    """Return the value of each byte of a file."""
    return min(max(uses, 1), MAX_USES) * (1 / max(size, MIN_SIZE) + 1 / REQUEST)


class IndexedFile(msgspec.Struct, eq=False, gc=False):
    """A cached file: bytes, uses since it was added, and when it was last used.

    The garbage collector ignores them, tens of thousands: they are in no cycle.

    :ivar turn: the order of the last uses
    :ivar used_at: the last use, or else the addition, in seconds since the epoch; 0 if unknown
    :ivar flushed: whether its bytes are on the disk
    """

    size: int
    uses: int
    priority: float
    turn: int
    used_at: int
    verified: VerifiedFile | None = None
    flushed: bool = True

    @property
    def prefetched(self) -> bool:
        return self.priority == PREFETCHED


@attrs.define(eq=False)
class EvictionIndex:
    """The cached files by cache path: how many bytes are `used`, how often each is `in_use`.

    :ivar wall: gives the seconds since the epoch
    :ivar prefetched: bytes of the prefetched files, which `used` counts, too
    """

    _response_cache: CachedResponses | None = None
    wall: Callable[[], float] = time.time
    used: int = attrs.field(init=False, default=0)
    prefetched: int = attrs.field(init=False, default=0)
    changes: int = attrs.field(init=False, default=0)
    in_use: Counter[str] = attrs.field(init=False, factory=Counter)
    _files: dict[str, IndexedFile] = attrs.field(init=False, factory=dict)
    _inflation: float = attrs.field(init=False, default=0.0)
    _turns: Iterator[int] = attrs.field(init=False, factory=count)
    # Entries whose file has another turn by now, or is gone, are passed over.
    _heap: list[tuple[float, int, str]] = attrs.field(init=False, factory=list)
    # The cache paths that changed since the scan began; ``None`` while it is complete.
    _changed: set[str] | None = attrs.field(init=False, default=None)

    def __contains__(self, path: str) -> bool:
        return path in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._files))

    def __len__(self) -> int:
        return len(self._files)

    def snapshot(self) -> tuple[list[str], list[IndexedFile]]:
        """Return cache paths and files, for a thread that reads them and no more.

        Two lists take a millisecond; a pair for each file would start the garbage collector, too.
        """
        return list(self._files), list(self._files.values())

    def size(self, path: str) -> int:
        return self._files[path].size if path in self._files else 0

    def verified(self, path: str) -> VerifiedFile | None:
        return self._files[path].verified if path in self._files else None

    def is_prefetched(self, path: str) -> bool:
        return path in self._files and self._files[path].prefetched

    def add(
        self,
        path: str,
        size: int,
        verified: VerifiedFile | None = None,
        *,
        prefetched: bool = False,
        flushed: bool = True,
    ) -> None:
        """Add a file in the place of any other; with the same size it keeps its uses.

        :param flushed: whether its bytes are on the disk; see :meth:`set_flushed`
        """
        file = self._files.get(path)
        if file is not None and file.size == size:
            file.verified = verified
        else:
            self.remove(path)
            priority = PREFETCHED if prefetched else self._inflation + value(0, size)
            now = int(self.wall())
            self._files[path] = IndexedFile(size, 0, priority, next(self._turns), now, verified)
            self.used += size
            self.prefetched += size if prefetched else 0
            self._push(path)
        self._files[path].flushed = flushed
        self._note_change(path)

    def set_flushed(self, path: str, identity: Identity) -> None:
        """Note that the bytes of a verified file are on the disk, if it has this identity."""
        verified = self.verified(path)
        if verified is not None and verified.identity == identity:
            self._files[path].flushed = True
            self.changes += 1

    def remove(self, path: str) -> None:
        if (file := self._files.pop(path, None)) is not None:
            self.used -= file.size
            self.prefetched -= file.size if file.prefetched else 0
        self._note_change(path)

    def set_revalidated_at(self, path: str, now: float) -> None:
        """Note when the upstream had, or is taken to have had, a verified file."""
        file = self._files.get(path)
        if file is not None and file.verified is not None:
            file.verified = replace(file.verified, revalidated_at=now)
            self.changes += 1

    def mark_unverified(self, path: str, expected: Identity | None = None) -> None:
        """Have a file verified before it is served again, if it has the expected identity."""
        verified = self.verified(path)
        if verified is not None and expected in (None, verified.identity):
            self._files[path].verified = None
            self._invalidate(path)

    def use(self, path: str, uses: int = 1) -> None:
        """Count uses of a file, if it is cached; after the first one it is not prefetched."""
        if (file := self._files.get(path)) is not None:
            file.uses += uses
            if file.uses or not file.prefetched:
                self.prefetched -= file.size if file.prefetched else 0
                file.priority = self._inflation + value(file.uses, file.size)
            file.turn = next(self._turns)
            if uses:
                file.used_at = int(self.wall())
            self._push(path)
            self.changes += 1

    def collect_uses(self) -> None:
        """Count the files that the response cache has served since the last call."""
        for path, uses in self._response_cache.uses() if self._response_cache is not None else ():
            self.use(path, uses)

    def acquire(self, path: str) -> None:
        self.in_use[path] += 1

    def release(self, path: str) -> None:
        self.in_use[path] -= 1
        if not self.in_use[path]:
            del self.in_use[path]

    def raise_inflation(self, path: str) -> None:
        """Raise the inflation to the priority of a file that is about to be evicted."""
        self._inflation = max(self._inflation, self._files[path].priority)

    def victims(
        self,
        excess: int,
        staying: Iterable[str] = (),
        limit: int | None = None,
        *,
        prefetched: bool = False,
    ) -> list[str] | None:
        """
        Choose the files to evict, the lowest priorities first; this changes nothing.

        ==================================  =======================================
        no excess                           none
        excess > bytes that may be evicted  ``None``, so nothing is evicted in vain
        else                                as many as needed, at most `limit`
        ==================================  =======================================

        :param excess: bytes to be freed
        :param staying: files that stay, as do those in use
        :param prefetched: whether no other than prefetched files may be evicted
        """
        kept = {*staying, *self.in_use}
        evictable = self.used - sum(map(self.size, kept))
        if prefetched:
            evictable = self.prefetched - sum(map(self.size, filter(self.is_prefetched, kept)))
        if excess > 0 and excess > evictable:
            return None
        victims: list[str] = []
        popped = []
        while excess > 0 and len(victims) != limit:
            entry = heapq.heappop(self._heap)
            _, turn, path = entry
            file = self._files.get(path)
            if file is not None and file.turn == turn:
                popped.append(entry)
                if path not in kept:
                    victims.append(path)
                    excess -= file.size
        for entry in popped:
            heapq.heappush(self._heap, entry)
        return victims

    @property
    def is_complete(self) -> bool:
        return self._changed is None

    def begin_scan(self) -> None:
        self._changed = set()

    def end_scan(self, found: Iterable[tuple[str, Identity, int]] | None) -> None:
        """
        Take over what a scan found, but for paths that changed since.

        :param found: with the times of the last uses, in this order; ``None`` if the scan failed
        """
        changed, self._changed = self._changed or set(), None
        if found is None:
            return
        there = {path: (each.size, at) for path, each, at in found if path not in changed}
        for path, file in list(self._files.items()):
            size, used_at = there.get(path, (None, 0))
            if path not in changed and file.size != size:
                self.remove(path)
            file.used_at = file.used_at or used_at
        new = [(path, *each) for path, each in there.items() if path not in self._files]
        # Only the order of their last use is known: let the priority rise from one to the next.
        step = sum(value(0, size) for _, size, _ in new) / max(len(new), 1) ** 2
        rows: list[_Row] = []
        for number, (path, size, _) in enumerate(new):
            priority = self._inflation + value(0, size) + number * step
            rows.append((path, size, 0, priority, None))
        self._add_all(rows, (at for _, _, at in new))

    def dump(self) -> bytes:
        """Write the document; of the files, the least recently used first.

        A file that is not flushed yet is unverified there: a power failure may leave other bytes.
        """
        rows = sorted(self._files.items(), key=lambda item: item[1].turn)
        files = [
            (path, each.size, each.uses, each.priority, each.verified if each.flushed else None)
            for path, each in rows
        ]
        used_at = [each.used_at for _, each in rows]
        return msgspec.json.encode(_Document(VERSION, self._inflation, files, used_at))

    def load(self, document: bytes) -> None:
        """Read a document: all of it, or, if it is damaged (`ValueError`), nothing."""
        read = msgspec.json.decode(document, type=_Document)
        known = [verified for *_, verified in read.files if verified is not None]
        if read.version != VERSION or any("sha256" not in each.digests for each in known):
            raise ValueError("another version, or a digest is missing")
        if len(read.used_at) not in (0, len(read.files)):
            raise ValueError("times of uses are missing")
        self._inflation = read.inflation
        self._add_all(read.files, read.used_at or repeat(0))

    def _add_all(self, rows: Iterable[_Row], used_at: Iterable[int]) -> None:
        """Add files in one go: at a start there may be tens of thousands."""
        self.changes += 1
        for (path, size, uses, priority, verified), at in zip(rows, used_at, strict=False):
            turn = next(self._turns)
            self._files[path] = IndexedFile(size, uses, priority, turn, at, verified)
        self.used = sum(file.size for file in self._files.values())
        self.prefetched = sum(file.size for file in self._files.values() if file.prefetched)
        self._rebuild_heap()

    def _push(self, path: str) -> None:
        file = self._files[path]
        heapq.heappush(self._heap, (file.priority, file.turn, path))
        if len(self._heap) > 2 * len(self._files) + 1000:
            self._rebuild_heap()

    def _rebuild_heap(self) -> None:
        self._heap = [(file.priority, file.turn, path) for path, file in self._files.items()]
        heapq.heapify(self._heap)

    def _note_change(self, path: str) -> None:
        self.changes += 1
        if self._changed is not None:
            self._changed.add(path)
        self._invalidate(path)

    def _invalidate(self, path: str) -> None:
        if self._response_cache is not None:
            self._response_cache.invalidate(path)
