"""What the process takes of the system: descriptors, threads, folders; or why it cannot start."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.python.threadpool import ThreadPool

from proxpi.web.response_cache import FILES

T = TypeVar("T")

#: Threads for what takes a while: so many for pages, and as many each to write and to read files.
THREADS = 4
#: Descriptors for the process itself, its state, and connections that are refused.
OWN_DESCRIPTORS = 96
#: As many as there are for sure where the system sets no limit.
UNLIMITED = 1 << 20


class StartFailed(SystemExit, Exception):
    """The start ends with one line and status 1.

    An `Exception` too: twistd tells the process that waits for a daemon about no other.
    """


def room(indexes: int, connections: int) -> tuple[int, int]:
    """Raise the limit of descriptors as far as it goes, and give how many are for clients.

    :param indexes: how many there are; each has connections for pages, its files have others,
        and each of those writes a file
    :param connections: how many connections each of them has for either
    :return: that, and how many are for files that are kept open between requests
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # macOS: less than what it calls the hard limit
        hard = soft
    limit = UNLIMITED if hard == resource.RLIM_INFINITY else hard
    held = min(FILES, limit // 8)
    kept = OWN_DESCRIPTORS + held + 3 * connections * (indexes + 1)
    return limit - min(kept, limit // 2), held


class _Daemon(Thread):
    """A thread that the end of the process does not wait for."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, daemon=True, **named)


def pool(name: str) -> ThreadPool:
    """Make a pool whose threads begin when they are needed, and hold up no end of the process."""
    made = ThreadPool(0, THREADS, f"proxpi {name}")
    made.threadFactory = _Daemon
    return made


class Share:
    """A part of the threads of a pool: one user of the pool cannot keep all of its threads.

    A job is *waiting* (first in, first out) or *running*. A job whose Deferred was cancelled is
    left out if it waits, and keeps its thread of the share for as long as it runs.

    :param work: runs a job in the pool
    :param threads: jobs that may run at once
    """

    def __init__(self, work: Callable[[Callable[[], Any]], Deferred[Any]], threads: int) -> None:
        self._work = work
        self._slots = DeferredSemaphore(threads)

    def __call__(self, job: Callable[[], T], /) -> Deferred[T]:
        """Give what `job` will have returned."""
        result: Deferred[T] = Deferred()
        done: Deferred[Any] = self._slots.run(lambda: None if result.called else self._work(job))
        done.chainDeferred(result)
        return result


def temporary_place() -> str:
    """
    Give the folder for temporary ones.

    :raises StartFailed: with one line, if there is none
    """
    try:
        return tempfile.gettempdir()
    except OSError as error:
        raise StartFailed(
            f"proxpi: {error.strerror or error}; set TMPDIR, or PROXPI_CACHE_DIR"
        ) from None


def make_folder(folder: Path, variable: str, mode: int, owner: int | None = None) -> None:
    """
    Make a folder, and what is above it, unless it is there.

    :param variable: where its name came from
    :param owner: the number of the user whose it is to be, if not this process's own
    :raises StartFailed: with one line, if it cannot be made
    """
    try:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(mode, parents=True, exist_ok=True)
        if owner is not None:
            for path in missing:
                os.chown(path, owner, -1)
    except OSError as error:
        raise StartFailed(
            f"proxpi: {variable}={str(folder)!r}: {error.strerror}; "
            "a folder that exists or can be made is accepted"
        ) from None
