"""The deletion queue: cached files are renamed first, then unlinked.

An unlink may take long, so a thread does it; but by the time that a thread runs, another file may
lie under the same cache path. Hence a file is *cached* (under its cache path), then *queued*
(renamed, on the reactor's thread, to a reserved name in the same folder), then *unlinked*. Threads
unlink reserved names only. A queued file is never served, and counts against the quota. One that
cannot be unlinked is *stuck*: it counts, and :meth:`retry` queues it again. The startup scan
unlinks the queued files of a process that was killed. Where the folder takes no further name (full
disk, quota, name too long), the reactor's thread unlinks the cached file at once.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from itertools import islice
from pathlib import Path

import attrs
from twisted.internet.defer import Deferred, DeferredLock

from proxpi.atomic_files import ThrottledLog
from proxpi.files import layout
from proxpi.files.eviction_index import EvictionIndex
from proxpi.files.layout import RESERVED, Identity
from proxpi.single_flight import InThread

#: Files that are renamed, and unlinked, at once.
BATCH = 100
#: What the system says where a folder takes no further name, or no longer one.
_NO_NEW_NAME = (errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG)


@attrs.define(eq=False)
class DeletionQueue:
    """The queued and the stuck files of one cache folder."""

    folder: Path
    _index: EvictionIndex
    _log: ThrottledLog
    _in_thread: InThread
    # Bytes by reserved name.
    _queued: dict[str, int] = attrs.field(init=False, factory=dict)
    _stuck: dict[str, int] = attrs.field(init=False, factory=dict)
    _lock: DeferredLock = attrs.field(init=False, factory=DeferredLock)

    def __bool__(self) -> bool:
        return bool(self._queued)

    @property
    def pending(self) -> int:
        """Bytes of the queued files."""
        return sum(self._queued.values())

    @property
    def used(self) -> int:
        """Bytes of the queued and the stuck files."""
        return self.pending + sum(self._stuck.values())

    def remove(self, path: str, expected: Identity | None = None) -> bool:
        """
        Rename a cached file; the next :meth:`start` unlinks it.

        :param expected: the identity that the file must have; ``None``: any
        :return: true if the cache path is free now, false if it holds another file
        :raises OSError: if the file stays; the log says so
        """
        try:
            free = self._rename(path, expected)
        except OSError as error:
            self._log.error(error, "the file stays, and counts")
            raise
        if free:
            self._index.drop(path)
        else:
            self._index.mark_unverified(path)
        return free

    def _rename(self, cache_path: str, expected: Identity | None) -> bool:
        path = os.path.join(self.folder, cache_path)
        reserved = os.path.join(os.path.dirname(path), RESERVED + secrets.token_hex(8))
        try:
            before = layout.look(self.folder, cache_path)
            if before is None or stat.S_ISDIR(before.st_mode):
                return True
            if expected is not None and Identity.of(before) != expected:
                return False
            try:
                os.rename(path, reserved)
            except OSError as error:
                if error.errno not in _NO_NEW_NAME:
                    raise
                os.unlink(path)  # on this thread no other file can come in between
                return True
            after = os.lstat(reserved)
        except OSError as error:
            if not layout.says_no_file(error):
                raise
            return True
        if _unrenamed(after) != _unrenamed(before):
            # Another program replaced the file between the two calls.
            _put_back(reserved, path)
            return False
        self.add(reserved, after.st_size)
        return True

    def add(self, reserved: str, size: int) -> None:
        """Queue a file that has its reserved name already."""
        self._queued[reserved] = size

    def start(self) -> Deferred[None]:
        """
        Unlink the queued files in a thread, one batch after the other.

        :return: fires after a batch of at most :data:`BATCH` that begins from now on
        """
        return self._lock.run(self._unlink_batch)

    async def _unlink_batch(self) -> None:
        if batch := list(islice(self._queued, BATCH)):
            errors = await self._in_thread(lambda: self._unlink(batch))
            for reserved in batch:
                size = self._queued.pop(reserved)
                if reserved in errors:
                    self._stuck[reserved] = size
                    self._log.error(errors[reserved], "the file stays, and counts")
            if self._queued and not self._lock.waiting:
                self.start()

    def retry(self) -> None:
        """Queue the stuck files again."""
        self._queued |= self._stuck
        self._stuck.clear()

    def _unlink(self, batch: list[str]) -> dict[str, OSError]:
        """Unlink files, in a thread; give the errors of those that stay."""
        errors = {}
        for reserved in batch:
            try:
                with suppress(FileNotFoundError):
                    os.unlink(reserved)
            except OSError as error:
                errors[reserved] = error
            else:
                self._remove_folders(Path(reserved).parent)
        return errors

    def _remove_folders(self, path: Path) -> None:
        """Remove the folders that held nothing else; the first one that does stays."""
        with suppress(OSError):
            while path != self.folder and path.parent != self.folder:
                path.rmdir()
                path = path.parent


def _unrenamed(status: os.stat_result) -> tuple[int, ...]:
    """Give what a rename does not change; it changes the ctime."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _put_back(reserved: str, path: str) -> None:
    """Give a file its cache path again, unless a third, newer one lies there."""
    try:
        os.link(reserved, path, follow_symlinks=False)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not os.path.lexists(path):
            os.rename(reserved, path)
            return
    os.unlink(reserved)
