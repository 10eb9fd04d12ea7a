"""The resources that the process takes from the system: threads, descriptors, folders, time.

:func:`allocate` divides threads and descriptors among pages, files and clients before anything is
built, so that none of them can starve the others. A folder that cannot be made ends the start
with one line (:class:`StartFailed`).
"""

from __future__ import annotations

import os
import resource
import secrets
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar, cast

import attrs
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from proxpi.single_flight import InThread

T = TypeVar("T")

#: Threads of each pool.
THREADS = 4
#: Descriptors for the process itself, its state, and connections that are refused.
OWN_DESCRIPTORS = 96
#: Descriptors that are assumed where the system sets no limit.
UNLIMITED = 1 << 20


class StartFailed(SystemExit, Exception):
    """Ends the start with one line and status 1.

    An `Exception`, too: a starting daemon reports no other to the process that waits for it.
    """


class _Pool(ThreadPool):
    """A pool of threads that do not hold up the end of the process."""

    # From Python 3.14 on an instance would bind a mere partial, as it does a function.
    threadFactory = cast("type[Thread]", staticmethod(partial(Thread, daemon=True)))


@attrs.frozen(kw_only=True)
class Resources:
    """The threads and descriptors of the process.

    Cached files have pools of their own, because a slow disk must not delay pages; and a disk that
    writes slowly may still read well.
    """

    #: Runs the work on pages and project lists.
    pages: InThread
    #: Run the writes to the cache folder, and the reads from it.
    writes: InThread
    reads: InThread
    #: Tries whether the disk of the cache folder responds.
    checks: InThread
    #: Descriptors for the connections and responses of clients.
    client_descriptors: int
    #: Descriptors for files that the response cache keeps open.
    open_files: int


def allocate(reactor: Any, *, indexes: int, connections: int, open_files: int) -> Resources:
    """
    Make the thread pools, raise the limit of descriptors as far as it goes, and divide them.

    :param connections: connections of each index for pages, and as many for files, each of which
        has an open partial file
    :param open_files: files that the response cache keeps open, if there are descriptors enough
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # macOS: less than what it calls the hard limit
        hard = soft
    limit = UNLIMITED if hard == resource.RLIM_INFINITY else hard
    open_files = min(open_files, limit // 8)
    reserved = OWN_DESCRIPTORS + open_files + 3 * connections * (indexes + 1)
    return Resources(
        pages=_runner(reactor, "pages"),
        writes=_runner(reactor, "writes"),
        reads=_runner(reactor, "reads"),
        checks=_runner(reactor, "checks"),
        client_descriptors=limit - min(reserved, limit // 2),
        open_files=open_files,
    )


def _runner(reactor: Any, name: str) -> InThread:
    pool = _Pool(0, THREADS, f"proxpi {name}")
    pool.start()  # no thread yet: a daemon forks after this
    return cast(InThread, partial(deferToThreadPool, reactor, pool))


class Share:
    """A share of the threads of a pool, so that one user of the pool cannot keep all of them.

    A job is *waiting* (first in, first out) or *running*. A cancelled job does not start if it
    waits, and keeps its thread until it ends if it runs.

    :param run: runs a job in the pool
    :param threads: jobs that may run at once
    """

    def __init__(self, run: InThread, threads: int) -> None:
        self._run = run
        self._slots = DeferredSemaphore(threads)

    def __call__(self, job: Callable[[], T], /) -> Deferred[T]:
        result: Deferred[T] = Deferred()
        done: Deferred[Any] = self._slots.run(lambda: None if result.called else self._run(job))
        done.chainDeferred(result)
        return result


def use_monotonic_time(reactor: Any) -> None:
    """
    Have the reactor's timers run by the monotonic clock.

    Twisted's reactors schedule by their ``seconds`` (`IReactorTime`), the wall clock: once that is
    set back, every timer of the process waits for as long. A clock as an argument is not enough,
    since its timers, and those inside Twisted, are the reactor's; and a reactor of our own comes
    too late, since twistd installs one before it loads the plugin.
    """
    reactor.seconds = time.monotonic


def temporary_path() -> Path:
    """Return a new path for a temporary folder; :exc:`StartFailed` if the system has no place."""
    try:
        return Path(tempfile.gettempdir(), f"proxpi-{secrets.token_hex(8)}")
    except OSError as error:
        raise StartFailed(
            f"proxpi: {error.strerror or error}; set TMPDIR, or PROXPI_CACHE_DIR"
        ) from None


def make_folder(folder: Path, variable: str, mode: int, owner: int | None = None) -> None:
    """
    Make a folder and its parents, unless they exist; raises :exc:`StartFailed`.

    :param variable: the setting that names the folder, for the error
    :param owner: the user id that gets the new folders; ``None``: that of this process
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
