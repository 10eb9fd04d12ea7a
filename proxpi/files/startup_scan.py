"""The look at the cache folder with which a process begins: what lies there, and how much it is.

A large folder is looked at in a thread, while requests are answered. Until that has come to its
end nothing may be added: what the last process wrote down is served from, but it may have been
killed later, or files may have come from elsewhere, so nobody knows whether there is room.
"""

from __future__ import annotations

from collections.abc import Callable
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
    """The first look at one cache folder.

    :ivar in_thread: runs a function that takes a while
    :ivar lost: is told of files that are not there any more, or not as they were
    """

    folder: Path
    _index: EvictionIndex
    _quota: Quota
    _queue: DeletionQueue
    _usage_log: UsageLog
    in_thread: Callable[[Callable[[], Any]], Deferred[Any]]
    lost: Callable[[str], None]
    # What changed since the start, until the folder has been looked at.
    _touched: set[str] | None = attrs.field(init=False, default=None)
    _looked: Deferred[Any] = attrs.field(init=False, factory=lambda: succeed(None))

    def begin(self) -> None:
        """Look; in a thread, if that takes a while."""
        known = self._usage_log.recall()
        self._touched = set()
        self._quota.known = False
        try:
            run = self.in_thread if layout.holds_many(self.folder) else execute
        except OSError:
            run = execute  # and the same once more, to be told of
        self._looked = run(lambda: layout.survey(self.folder, known))
        self._looked.addCallbacks(self._take, self._cannot_look)

    def ended(self) -> Deferred[None]:
        """Give a Deferred of when it is known what lies there."""
        ended: Deferred[None] = Deferred()
        self._looked.addCallback(ended.callback)
        return ended

    def changed(self, place: str) -> None:
        """Take note that a file is no longer as it was at the start."""
        if self._touched is not None:
            self._touched.add(place)

    def _cannot_look(self, failure: Failure) -> None:
        failure.trap(OSError)
        self._touched, self._quota.known = None, True
        _log.critical("{folder} cannot be read: {error}", folder=self.folder, error=failure.value)

    def _take(self, scan: layout.Scan) -> None:
        """Bring what is known in line with what lies there, and remove what is too much."""
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
