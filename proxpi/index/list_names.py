"""Names of the root list in files, one a line: several lists made one, and one made a page.

All of it works on blocks of many names, as bytes, and holds a few blocks at a time; what is done
with a block in one go takes some milliseconds, since nothing else of Python runs meanwhile. It
takes up to a second for the whole list: call it in a thread.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, compress
from operator import ne

import attrs

from proxpi.index.list_folder import Draft, Form, ListFile
from proxpi.simple.negotiate import Serialization
from proxpi.simple.render import list_head, list_tail

#: Bytes of names that are sorted in one go.
RUN = 256 * 1024
#: Bytes of names that are held of all runs together while they are merged.
MERGED = 512 * 1024
#: Bytes of names that are held of one run, at most and at least.
RUN_BLOCK = (1024, 64 * 1024)
#: Bytes of names that are made part of a page in one go.
PIECE = 64 * 1024

_GZIP = 31  # zlib's word for "a gzip header, and the largest window"


@attrs.define(eq=False)
class _Run:
    """Names that are sorted, each there once, read block by block."""

    _blocks: Iterator[bytes]
    names: list[bytes] = attrs.field(init=False, factory=list)

    def fill(self) -> bool:
        """Read on if all names were taken; tell whether there are any left."""
        if not self.names and (block := next(self._blocks, b"")):
            self.names = block[:-1].split(b"\n")
        return bool(self.names)

    def up_to(self, last: bytes) -> list[bytes]:
        """Take the names that come no later than `last`."""
        count = bisect_right(self.names, last)
        taken, self.names = self.names[:count], self.names[count:]
        return taken


def merge(lists: Sequence[ListFile], draft: Callable[[], Draft]) -> ListFile:
    """
    Make one list of several: sorted, each name there once.

    :param draft: begins a file
    """
    sorted_names, merged = draft(), draft()
    try:
        starts = _sort(lists, sorted_names.write)
        runs_file = sorted_names.finish()
        least, most = RUN_BLOCK
        size = max(least, min(most, MERGED // max(1, len(starts))))
        ends = [*starts[1:], runs_file.size]
        runs = [
            _Run(runs_file.lines(size, start, end))
            for start, end in zip(starts, ends, strict=False)
        ]
        while runs := [run for run in runs if run.fill()]:
            # Beyond the last name of any block there may be more to come of that run.
            last = min(run.names[-1] for run in runs)
            merged.write(_unique_lines(name for run in runs for name in run.up_to(last)))
        return merged.finish()
    finally:
        sorted_names.abandon()
        merged.abandon()


def _sort(lists: Sequence[ListFile], write: Callable[[bytes], object]) -> list[int]:
    """Write sorted runs, as few as possible, one behind the other, and give their beginnings."""
    starts: list[int] = []
    place = 0
    for names in lists:
        last = None
        for block in names.lines(RUN):
            lines = _unique_lines(block[:-1].split(b"\n"))
            first = lines[: lines.index(b"\n")]
            if last is None or first <= last:
                starts.append(place)
            last = lines[lines.rindex(b"\n", 0, -1) + 1 : -1] if lines.count(b"\n") > 1 else first
            write(lines)
            place += len(lines)
    return starts


def _unique_lines(names: Iterable[bytes]) -> bytes:
    # What is sorted already, wholly or in long stretches, is sorted in no time.
    ordered = sorted(names)
    unique = compress(ordered, map(ne, ordered, chain((b"",), ordered)))
    return b"\n".join(unique) + b"\n"


def form(names: ListFile, form: Form, draft: Callable[[], Draft]) -> ListFile:
    """Write the list as it is sent."""
    press = Press(form, draft)
    try:
        for lines in names.lines():
            press.add(lines)
        return press.finish()
    finally:
        press.abandon()


class Press:
    """Writes one form of the list (PEP 503, PEP 691)."""

    def __init__(self, form: Form, draft: Callable[[], Draft]) -> None:
        serialization, compressed = form
        self._new_draft = draft
        self._draft: Draft | None = None
        # Level 1, since the list is long and the next one is never far.
        self._gzip = zlib.compressobj(1, wbits=_GZIP) if compressed else None
        self._json = serialization is Serialization.JSON
        self._tail = list_tail(serialization)
        self._before = list_head(serialization)

    def add(self, lines: bytes) -> None:
        """Add names, each with a newline behind it."""
        items = _json_items if self._json else _html_items
        start = 0
        while start < len(lines):
            # No piece is longer, so that nothing here takes long or much memory.
            end = lines.rfind(b"\n", start, start + PIECE) + 1
            self._write(self._before + items(lines[start:end]))
            self._before = b"," if self._json else b""
            start = end

    def finish(self) -> ListFile:
        """Write the end, and give the file."""
        self._write((self._before if self._draft is None else b"") + self._tail)
        assert self._draft is not None  # something was written
        if self._gzip is not None:
            self._draft.write(self._gzip.flush())
        return self._draft.finish()

    def abandon(self) -> None:
        """Throw away what was not finished."""
        if self._draft is not None:
            self._draft.abandon()

    def _write(self, data: bytes) -> None:
        if self._draft is None:
            self._draft = self._new_draft()
        self._draft.write(self._gzip.compress(data) if self._gzip is not None else data)


def _json_items(lines: bytes) -> bytes:
    """Write names; they are in normal form, so they need no escaping."""
    return b'{"name":"%b"}' % lines[:-1].replace(b"\n", b'"},{"name":"')


def _html_items(lines: bytes) -> bytes:
    names = lines[:-1].split(b"\n")
    twice: list[bytes] = [b""] * (2 * len(names))
    twice[::2] = twice[1::2] = names
    # All in one go: nearly twice as fast as name by name.
    return (b'<a href="%b/">%b</a><br>\n' * len(names)) % tuple(twice)
