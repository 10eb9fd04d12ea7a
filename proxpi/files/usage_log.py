"""The usage log: what is known of the cached files, written down so that it outlasts the process.

It is a snapshot of the eviction index (``uses.json``), replaced atomically every 1000 changes,
every 5 minutes and at the end; a damaged one is ignored.

A file name such as ``*.whl`` tells that the cache owns the file. Of every other file the cache path
is appended to ``places`` before the rename; otherwise no process would count it after a crash.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from proxpi import atomic_files
from proxpi.files import layout
from proxpi.files.quota import EvictionIndex

#: The name of the document.
NAME = "uses.json"
#: The name of the list of the cache paths that do not look like one of the cache's own files.
PLACES = "places"
#: Bytes of that list beyond which a start drops the cache paths at which no file lies.
LONG = 1 << 20
#: Changes after which it is written, unless there are more files than that.
CHANGES = 1000
#: Seconds after which it is written anyway, with the next change.
LONGEST = 300.0

_log = Logger(namespace="proxpi.files")


@attrs.define(eq=False)
class UsageLog:
    """The usage log in one folder of proxpi's own."""

    own: Path
    _index: EvictionIndex
    in_thread: Callable[[Callable[[], Any]], Deferred[Any]]
    seconds: Callable[[], float]
    _changes: int = attrs.field(init=False, default=0)
    _writing: Deferred[None] = attrs.field(init=False, factory=lambda: succeed(None))
    _next: bytes | None = attrs.field(init=False, default=None)
    _written_at: float = attrs.field(
        init=False, default=attrs.Factory(lambda self: self.seconds(), takes_self=True)
    )

    def recall(self) -> frozenset[str]:
        """Load what the last process wrote; give the cache paths that it knew."""
        try:
            self._index.load((self.own / NAME).read_bytes())
        except OSError:
            pass  # the first start, most likely
        except ValueError as error:
            _log.warn("{name} is damaged, and not used: {error}", name=NAME, error=error)
        for place in self._index:
            if not layout.is_cache_path(place):
                self._index.drop(place)
        places: list[str] = []
        with suppress(OSError, ValueError):
            places = (self.own / PLACES).read_text("utf-8", "surrogateescape").split("\n")
        return frozenset(self._index) | frozenset(filter(layout.is_cache_path, places))

    def mark(self, place: str) -> None:
        """Write down that a file is the cache's own, if it is not called so."""
        if place not in self._index and not layout.has_distribution_name(place):
            with open(self.own / PLACES, "ab", buffering=0) as places:
                places.write(f"{place}\n".encode())

    def tidy(self) -> None:
        """Drop the cache paths at which no file lies from a list that has become long."""
        with suppress(OSError):
            if (self.own / PLACES).stat().st_size > LONG:
                places = [place for place in self._index if not layout.has_distribution_name(place)]
                text = "".join(f"{place}\n" for place in places)
                atomic_files.write_whole(self.own / PLACES, text.encode())

    def changed(self) -> None:
        """Count a change, and write all of them down now and then."""
        self._changes += 1
        due = max(CHANGES, len(self._index))
        if self._changes >= due or self.seconds() >= self._written_at + LONGEST:
            self._write()

    def finish(self) -> Deferred[None]:
        """Write down what changed since."""
        if self._changes:
            self._write()
        return self._writing

    def _write(self) -> None:
        """Write, after what is being written: an older document replaces no newer one."""
        self._changes, self._written_at = 0, self.seconds()
        waits, self._next = self._next is not None, self._index.dump()
        if not waits:
            self._writing.addCallback(self._write_next)

    def _write_next(self, _: object) -> Deferred[None]:
        document, self._next = self._next or b"", None

        def write() -> None:
            try:
                atomic_files.write_whole(self.own / NAME, document)
            except OSError as error:
                _log.debug("uses are not written down: {error}", error=error)

        return self.in_thread(write)
