"""The usage log and the startup scan: how the eviction index is filled at a start, and remembered.

The usage log is a snapshot of the eviction index (``uses.json``). It is replaced atomically after
1000 changes, after 5 minutes and at the end; a damaged one is ignored. A file name such as
``*.whl`` tells that the cache owns the file. Of every other file the cache path is appended to
``places`` before the rename; otherwise no process would count it after a crash.

While the startup scan is *running*, the files that the log lists are served; no file is added, as
the free quota is unknown. A large folder is scanned in a thread. Once the scan has *ended*, the
index has what the scan found, except at the cache paths that changed meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import attrs
from twisted.internet.defer import Deferred, DeferredLock, execute
from twisted.logger import Logger

from proxpi import atomic_files
from proxpi.files import layout
from proxpi.files.eviction_index import EvictionIndex
from proxpi.files.quota import DeletionQueue
from proxpi.single_flight import InThread

#: The names of the snapshot, and of the list of files whose names do not tell.
NAME, CACHE_PATHS = "uses.json", "places"
#: Bytes of that list beyond which a start drops the cache paths at which no file lies.
MAX_CACHE_PATHS = 1 << 20
#: Changes after which the snapshot is written, unless there are more files than that.
CHANGES = 1000
#: Seconds after which it is written with the next change.
MAX_AGE = 300.0

_log = Logger(namespace="proxpi.files")


@attrs.define(eq=False)
class UsageLog:
    """The usage log in one folder of proxpi's own; `seconds`: a monotonic clock."""

    own: Path
    _eviction_index: EvictionIndex
    _in_thread: InThread
    _seconds: Callable[[], float]
    _saved_changes: int = attrs.field(init=False, default=0)
    # Until the log is loaded, no age makes a snapshot due.
    _saved_at: float = attrs.field(init=False, default=math.inf)
    _lock: DeferredLock = attrs.field(init=False, factory=DeferredLock)

    def _load(self) -> frozenset[str]:
        """Load the snapshot; return the cache paths that the last process knew."""
        try:
            self._eviction_index.load((self.own / NAME).read_bytes())
        except OSError:
            pass  # the first start, most likely
        except ValueError as error:
            _log.warn("{name} is damaged, and not used: {error}", name=NAME, error=error)
        for path in self._eviction_index:
            if not layout.is_cache_path(path):
                self._eviction_index.remove(path)
        listed: list[str] = []
        with suppress(OSError, ValueError):
            listed = (self.own / CACHE_PATHS).read_text("utf-8", "surrogateescape").split("\n")
        self._saved_at = self._seconds()
        return frozenset(self._eviction_index) | frozenset(filter(layout.is_cache_path, listed))

    def mark(self, path: str) -> None:
        """Write down that the cache owns a file whose name does not tell."""
        if path not in self._eviction_index and not layout.has_distribution_name(path):
            with open(self.own / CACHE_PATHS, "ab", buffering=0) as file:
                file.write(f"{path}\n".encode())

    def save_if_due(self) -> None:
        """Write the snapshot if the eviction index has changed often, or the last one is old."""
        changes = self._eviction_index.changes - self._saved_changes
        is_old = self._seconds() >= self._saved_at + MAX_AGE
        is_due = changes >= max(CHANGES, len(self._eviction_index)) or (changes and is_old)
        if is_due and not self._lock.waiting:
            self.save()

    def save(self) -> Deferred[None]:
        """Write a snapshot, after the one that is being written."""
        return self._lock.run(self._save)

    def _save(self) -> Deferred[None]:
        self._saved_changes, self._saved_at = self._eviction_index.changes, self._seconds()
        snapshot = self._eviction_index.dump()

        def write() -> None:
            try:
                atomic_files.write_whole(self.own / NAME, snapshot)
            except OSError as error:
                _log.debug("the usage log cannot be written: {error}", error=error)

        return self._in_thread(write)

    async def scan(self, folder: Path, queue: DeletionQueue) -> None:
        """Fill the eviction index from the log at once, and from the scan once it has ended."""
        owned = self._load()
        self._eviction_index.begin_scan()
        run: InThread = execute
        try:
            if layout.is_large(folder):
                run = self._in_thread
                _log.info(
                    "cache folder {folder}: there are many files; until the startup scan has "
                    "ended, new ones are not cached",
                    folder=folder,
                )
            found = await run(lambda: layout.scan(folder, owned))
        except OSError as error:
            self._eviction_index.end_scan(None)
            _log.critical("{folder} cannot be read: {error}", folder=folder, error=error)
            return
        self._eviction_index.end_scan(found.files)
        for reserved, size in found.leftovers:
            queue.add(reserved, size)
        queue.start()
        if found.ignored:
            more = f", and {len(found.ignored) - 1} more" if found.ignored[1:] else ""
            _log.warn(
                "{folder}: ignored {first}{more}", folder=folder, first=found.ignored[0], more=more
            )
        with suppress(OSError):
            if (self.own / CACHE_PATHS).stat().st_size > MAX_CACHE_PATHS:
                named = layout.has_distribution_name
                text = "".join(f"{path}\n" for path in self._eviction_index if not named(path))
                atomic_files.write_whole(self.own / CACHE_PATHS, text.encode())
