"""The deletion queue: cached files are renamed first, then unlinked.

An unlink may take long, so a thread does it; but by the time that a thread runs, another file may
lie under the same cache path. Hence a file is *cached* (under its cache path), then *reserved*
(renamed, on the reactor's thread, to a reserved name in the same folder), then *gone*. Threads
unlink reserved names only. A reserved file is served to nobody, and counts against the quota until
it is gone; one that cannot be unlinked counts on, and is tried again by :meth:`retry`. The startup
scan unlinks the reserved files of a process that was killed.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, succeed

from proxpi.files import layout
from proxpi.files.layout import Identity
from proxpi.files.throttled_log import STAYS, ThrottledLog

#: Files that are renamed, and unlinked, in one go.
SOME = 100


@attrs.define(eq=False)
class DeletionQueue:
    """The reserved files of one cache folder.

    :ivar in_thread: runs a function that takes a while
    """

    folder: Path
    in_thread: Callable[[Callable[[], Any]], Deferred[Any]]
    _log: ThrottledLog
    # Bytes by reserved name: of the files about to be unlinked, and of those that could not be.
    _files: dict[str, int] = attrs.field(init=False, factory=dict)
    _stuck: dict[str, int] = attrs.field(init=False, factory=dict)
    _running: bool = attrs.field(init=False, default=False)
    _waiting: list[Deferred[None]] = attrs.field(init=False, factory=list)

    def __bool__(self) -> bool:
        return bool(self._files)

    @property
    def leaving(self) -> int:
        """Bytes of the files that are about to be unlinked."""
        return sum(self._files.values())

    @property
    def used(self) -> int:
        """Bytes of all reserved files."""
        return self.leaving + sum(self._stuck.values())

    def take(self, place: str, meant: Identity | None = None) -> bool:
        """
        Rename a cached file, to be unlinked after the next :meth:`start`.

        :param meant: the file that is meant; ``None``: whichever lies there
        :return: whether it is not there any more; else another file is
        :raises OSError: if it stays
        """
        taken = layout.set_aside(self.folder, place, meant)
        if isinstance(taken, bool):
            return taken
        self.add(*taken)
        return True

    def add(self, reserved: str, size: int) -> None:
        self._files[reserved] = size

    def start(self) -> Deferred[None]:
        """Have the reserved files unlinked; give a Deferred of when some of them were tried."""
        if not self._files:
            return succeed(None)
        progress: Deferred[None] = Deferred()
        self._waiting.append(progress)
        if not self._running:
            self._running = True
            some = list(islice(self._files, SOME))
            self.in_thread(lambda: self._unlink(some)).addCallback(self._unlinked, some)
        return progress

    def retry(self) -> None:
        """Try again what could not be unlinked."""
        self._files |= self._stuck
        self._stuck.clear()

    def _unlink(self, some: list[str]) -> dict[str, OSError]:
        """Unlink files, in a thread; give those that stay."""
        stay = {}
        for reserved in some:
            try:
                layout.unlink_reserved(self.folder, reserved)
            except OSError as error:
                stay[reserved] = error
        return stay

    def _unlinked(self, stay: dict[str, OSError], some: list[str]) -> None:
        self._running = False
        for reserved in some:
            size = self._files.pop(reserved)
            if reserved in stay:
                self._stuck[reserved] = size
                self._log.say(stay[reserved], STAYS)
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)
        self.start()
