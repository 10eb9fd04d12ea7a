"""The startup scan: what lies in the cache folder, and how many bytes it has.

The usage log of the last process may be older than its end, and other programs may have added
files. While the scan is *running*, the files that the usage log lists are served; no file is added,
as the free quota is unknown. A large folder is scanned in a thread. Once the scan has *ended*, the
eviction index has what the scan found, except at the cache paths that changed meanwhile: the scan
may have seen them before or after that.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, execute, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxpi.files import layout
from proxpi.files.deletion_queue import DeletionQueue
from proxpi.files.quota import EvictionIndex, Quota
from proxpi.files.usage_log import UsageLog

_log = Logger(namespace="proxpi.files")


@attrs.define(eq=False)
class StartupScan:
    """The startup scan of one cache folder.

    :ivar in_thread: runs a slow function in a thread
    :ivar lost: is called with each cache path that is free now, or holds another file
    """

    folder: Path
    _index: EvictionIndex
    _quota: Quota
    _queue: DeletionQueue
    _usage_log: UsageLog
    in_thread: Callable[[Callable[[], Any]], Deferred[Any]]
    lost: Callable[[str], None]
    # The cache paths that changed since the start; ``None`` once the scan has ended.
    _changed: set[str] | None = attrs.field(init=False, default=None)
    _scan_done: Deferred[Any] = attrs.field(init=False, factory=lambda: succeed(None))

    def begin(self) -> None:
        """Scan the folder; a large one in a thread."""
        owned = self._usage_log.recall()
        self._changed = set()
        self._quota.scanned = False
        run: Callable[[Callable[[], Any]], Deferred[Any]] = execute
        with suppress(OSError):  # the scan meets it once more
            if layout.holds_many(self.folder):
                run = self.in_thread
                _log.info(
                    "cache folder {folder}: there are many files; until the startup scan has "
                    "ended, new ones pass through without being kept",
                    folder=self.folder,
                )
        self._scan_done = run(lambda: layout.survey(self.folder, owned))
        self._scan_done.addCallbacks(self._apply, self._failed)

    def ended(self) -> Deferred[None]:
        """Give a Deferred that fires when the scan has ended."""
        ended: Deferred[None] = Deferred()
        self._scan_done.addCallback(ended.callback)
        return ended

    def changed(self, place: str) -> None:
        """Note that what lies at a cache path has changed since the start."""
        if self._changed is not None:
            self._changed.add(place)

    def _failed(self, failure: Failure) -> None:
        failure.trap(OSError)
        self._changed, self._quota.scanned = None, True
        _log.critical("{folder} cannot be read: {error}", folder=self.folder, error=failure.value)

    def _apply(self, scan: layout.Scan) -> None:
        """Bring the index in line with the scan, and evict what exceeds the quota."""
        changed, self._changed = self._changed or set(), None
        self._usage_log.changed()
        self._quota.scanned = True
        found = [(place, found.size) for place, found in scan.files if place not in changed]
        sizes = dict(found)
        for place in self._index:
            if place not in changed and self._index.size(place) != sizes.get(place):
                self.lost(place)
        self._index.fill((place, size) for place, size in found if place not in self._index)
        for reserved, size in scan.leftovers:
            self._queue.add(reserved, size)
        self._queue.start()
        if scan.ignored:
            _log.warn(
                "{folder}: ignored {first}{more}",
                folder=self.folder,
                first=scan.ignored[0],
                more=f", and {len(scan.ignored) - 1} more" if scan.ignored[1:] else "",
            )
        self._usage_log.tidy()
        self._quota.shrink()
