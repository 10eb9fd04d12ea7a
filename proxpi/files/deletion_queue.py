"""The deletion queue: cached files are renamed first, then unlinked.

An unlink may take long, so a thread does it; but by the time that a thread runs, another file may
lie under the same cache path. Hence a file is *cached* (under its cache path), then *reserved*
(renamed, on the reactor's thread, to a reserved name in the same folder), then *gone*. Threads
unlink reserved names only. A reserved file is served to nobody, and counts against the quota until
it is gone; one that cannot be unlinked counts on, and is tried again by :meth:`retry`. The startup
scan unlinks the reserved files of a process that was killed.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, succeed

from proxpi.files import layout
from proxpi.files.layout import RESERVED, Identity
from proxpi.files.throttled_log import STAYS, ThrottledLog

#: Files that are renamed, and unlinked, in one go.
SOME = 100
#: What the system says where a folder takes no further name, or no longer one.
_NO_NEW_NAME = (errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG)


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

        It is compared with the one that is meant before the rename, and once more after it, as
        another program may have replaced it between the two; then it is put back.

        :param meant: the file that is meant; ``None``: whichever lies there
        :return: whether it is not there any more; else another file is
        :raises OSError: if it stays
        """
        path = os.path.join(self.folder, place)
        reserved = os.path.join(os.path.dirname(path), RESERVED + secrets.token_hex(8))
        try:
            before = layout.look(self.folder, place)
            if before is None or stat.S_ISDIR(before.st_mode):
                return True
            if meant is not None and Identity.of(before) != meant:
                return False
            try:
                os.rename(path, reserved)
            except OSError as error:
                if error.errno not in _NO_NEW_NAME:
                    raise
                os.unlink(path)  # here, where no other file can have come
                return True
            after = os.lstat(reserved)
        except OSError as error:
            if not layout.says_no_file(error):
                raise
            return True
        if _unrenamed(after) != _unrenamed(before):
            _put_back(reserved, path)
            return False
        self.add(reserved, after.st_size)
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
                with suppress(FileNotFoundError):
                    os.unlink(reserved)
            except OSError as error:
                stay[reserved] = error
            else:
                self._remove_folders(Path(reserved).parent)
        return stay

    def _remove_folders(self, path: Path) -> None:
        """Remove the folders that held nothing else; the first one that does stays."""
        with suppress(OSError):
            while path != self.folder and path.parent != self.folder:
                path.rmdir()
                path = path.parent

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


def _unrenamed(status: os.stat_result) -> tuple[int, ...]:
    """Give what a rename leaves as it is; it changes the time of change."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _put_back(reserved: str, path: str) -> None:
    """Give a file its cache path again, unless a third one, which is newer, lies there."""
    try:
        os.link(reserved, path, follow_symlinks=False)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not os.path.lexists(path):
            os.rename(reserved, path)
            return
    os.unlink(reserved)
