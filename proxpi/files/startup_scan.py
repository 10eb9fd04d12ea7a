"""The startup scan: what lies in the cache folder, and how many bytes it has.

The usage log of the last process may be older than its end, and other programs may have added
files. So the scan is *running* first: what the usage log knows is served, and no file is added, as
nobody knows how much of the quota is free. A large folder is scanned in a thread. Once the scan has
*ended*, the eviction index is brought in line with it, except for the cache paths that changed
while it ran: the scan may have seen them before or after that.
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
from proxpi.files.eviction_index import EvictionIndex
from proxpi.files.quota import Quota
from proxpi.files.usage_log import UsageLog

_log = Logger(namespace="proxpi.files")


@attrs.define(eq=False)
class StartupScan:
    """The startup scan of one cache folder.

    :ivar in_thread: runs a function that takes a while
    :ivar lost: is told of cache paths at which no file lies any more, or another one
    """

    folder: Path
    _index: EvictionIndex
    _quota: Quota
    _queue: DeletionQueue
    _usage_log: UsageLog
    in_thread: Callable[[Callable[[], Any]], Deferred[Any]]
    lost: Callable[[str], None]
    # The cache paths that changed since the start; ``None`` once the scan has ended.
    _touched: set[str] | None = attrs.field(init=False, default=None)
    _looked: Deferred[Any] = attrs.field(init=False, factory=lambda: succeed(None))

    def begin(self) -> None:
        """Scan; in a thread, if that takes a while."""
        known = self._usage_log.recall()
        self._touched = set()
        self._quota.known = False
        run: Callable[[Callable[[], Any]], Deferred[Any]] = execute
        with suppress(OSError):  # the scan meets it once more
            if layout.holds_many(self.folder):
                run = self.in_thread
                _log.info(
                    "cache folder {folder}: there are many files; until the startup scan has "
                    "ended, new ones pass through without being kept",
                    folder=self.folder,
                )
        self._looked = run(lambda: layout.survey(self.folder, known))
        self._looked.addCallbacks(self._take, self._cannot_look)

    def ended(self) -> Deferred[None]:
        """Give a Deferred of when the scan has ended."""
        ended: Deferred[None] = Deferred()
        self._looked.addCallback(ended.callback)
        return ended

    def changed(self, place: str) -> None:
        """Note that what lies at a cache path has changed since the start."""
        if self._touched is not None:
            self._touched.add(place)

    def _cannot_look(self, failure: Failure) -> None:
        failure.trap(OSError)
        self._touched, self._quota.known = None, True
        _log.critical("{folder} cannot be read: {error}", folder=self.folder, error=failure.value)

    def _take(self, scan: layout.Scan) -> None:
        """Bring the index in line with the scan, and evict what exceeds the quota."""
        touched, self._touched = self._touched or set(), None
        self._usage_log.changed()
        self._quota.known = True
        found = [(place, found.size) for place, found in scan.files if place not in touched]
        sizes = dict(found)
        for place in self._index:
            if place not in touched and self._index.size(place) != sizes.get(place):
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
