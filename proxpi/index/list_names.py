"""Names of projects in files, one a line: several lists merged, and one rendered.

All of it works on some thousand names at a time, and holds no more; it may take a second for a
large list: call it in a thread.
"""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Iterator, Sequence
from itertools import chain, groupby, islice

from proxpi.index.list_store import ListFile, ListStore
from proxpi.simple.negotiate import Serialization
from proxpi.simple.render import list_head, list_items, list_tail

#: Bytes of names that are held of all sorted runs together, and at least of one.
MERGED, LEAST = 256 * 1024, 1024
#: Names that are written in one go.
BATCH = 4096
_GZIP = 31  # zlib's word for "a gzip header, and the largest window"

#: How a list is written: as what, and whether with gzip.
Representation = tuple[Serialization, bool]


def merge(lists: Sequence[ListFile], store: ListStore) -> ListFile:
    """Make one list of several: sorted, each name there once."""
    starts: list[int] = []
    runs = store.write(_sorted_runs(lists, starts))
    size = max(LEAST, MERGED // max(1, len(starts)))
    ends = [*starts[1:], runs.size]
    merged = heapq.merge(
        *(
            chain.from_iterable(runs.lines(start, end, size))
            for start, end in zip(starts, ends, strict=False)
        )
    )
    unique = (name for name, _ in groupby(merged))
    return store.write(iter(lambda: b"".join(islice(unique, BATCH)), b""))


def _sorted_runs(lists: Sequence[ListFile], starts: list[int]) -> Iterator[bytes]:
    """Sort block by block, and note where a run begins; a list that is sorted is one run."""
    place, last = 0, b""
    for lines in chain.from_iterable(names.lines() for names in lists):
        lines.sort()  # Of what is sorted already, that takes no time.
        if not starts or lines[0] < last:
            starts.append(place)
        last = lines[-1]
        block = b"".join(lines)
        place += len(block)
        yield block


def render(names: ListFile, representation: Representation) -> Iterator[bytes]:
    """Write the list as it is sent (PEP 503, PEP 691)."""
    serialization, compressed = representation
    pieces = _pieces(names, serialization)
    return _compressed(pieces) if compressed else pieces


def _pieces(names: ListFile, serialization: Serialization) -> Iterator[bytes]:
    yield list_head(serialization)
    first = True
    for lines in names.lines():
        yield list_items(serialization, b"".join(lines).decode("ascii").split(), first)
        first = False
    yield list_tail(serialization)


def _compressed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    # Level 1, since the list is long and the next one is never far.
    gzip = zlib.compressobj(1, wbits=_GZIP)
    yield from map(gzip.compress, pieces)
    yield gzip.flush()
