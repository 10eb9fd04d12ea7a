"""What the process takes of the system: descriptors, threads, folders; or why it cannot start.

The end of the process has a deadline, whatever peers, threads, disks and log pipes do.

Theory of operation
-------------------
SIGTERM, SIGINT and SIGHUP (a terminal was closed) are blocked in every thread but one, which takes
them: a reactor that hangs cannot keep them from being heeded. That thread has four states:

* *running*: it waits for a signal, and has the reactor stop.
* *draining*: until the drain time-out has passed. One more signal has the drain aborted.
* *closing*: :data:`CLOSING` seconds for all that comes after the drain.
* *overdue*: the process still runs. What must not stay is removed, in :data:`CLEANING` seconds at
  most, and the process is ended by its signal. As the first process of a container, which no
  signal of its own ends, it exits with status 0.

A process that ends in time never comes to the last state: the reactor stops, and twistd ends it.
"""

from __future__ import annotations

import os
import resource
import secrets
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, Protocol, TypeVar, cast

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

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


class _DaemonThread(Thread):
    """A thread that does not hold up the end of the process."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, daemon=True, **named)


class _Pool(ThreadPool):
    """A pool that starts its threads when a job needs them."""

    threadFactory = _DaemonThread


class RunInThread(Protocol):
    """Runs a slow function off the reactor's thread."""

    def __call__(self, job: Callable[[], T], /) -> Deferred[T]:
        """Give a Deferred of the function's result."""


@attrs.frozen(kw_only=True)
class Resources:
    """The threads and descriptors of the process.

    Cached files have pools of their own, because a slow disk must not delay pages; and a disk that
    writes slowly may still read well.

    :ivar pages: runs the work on pages and project lists
    :ivar writes: runs the writes to the cache folder
    :ivar reads: runs the reads of cached files
    :ivar client_descriptors: descriptors for the connections and responses of clients
    :ivar open_files: descriptors for files that the response cache keeps open
    """

    pages: RunInThread
    writes: RunInThread
    reads: RunInThread
    client_descriptors: int
    open_files: int


def allocate(reactor: Any, *, indexes: int, connections: int, open_files: int) -> Resources:
    """
    Make the thread pools, raise the limit of descriptors as far as it goes, and divide them.

    :param indexes: each has connections for pages and others for its files, and each connection
        for a file has an open partial file
    :param connections: connections of each index for pages, and as many for files
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
        client_descriptors=limit - min(reserved, limit // 2),
        open_files=open_files,
    )


def _runner(reactor: Any, name: str) -> RunInThread:
    pool = _Pool(0, THREADS, f"proxpi {name}")
    pool.start()  # no thread yet: a daemon forks after this
    return cast(RunInThread, partial(deferToThreadPool, reactor, pool))


class Share:
    """A part of the threads of a pool: one user of the pool cannot keep all of its threads.

    A job is *waiting* (first in, first out) or *running*. A job whose Deferred was cancelled is
    left out if it waits, and keeps its thread of the share for as long as it runs.

    :param work: runs a job in the pool
    :param threads: jobs that may run at once
    """

    def __init__(self, work: RunInThread, threads: int) -> None:
        self._work = work
        self._slots = DeferredSemaphore(threads)

    def __call__(self, job: Callable[[], T], /) -> Deferred[T]:
        """Give what `job` will have returned."""
        result: Deferred[T] = Deferred()
        done: Deferred[Any] = self._slots.run(lambda: None if result.called else self._work(job))
        done.chainDeferred(result)
        return result


def use_monotonic_time(reactor: Any) -> None:
    """
    Have the reactor's timers run by the monotonic clock.

    Twisted's reactors schedule by ``IReactorTime.seconds``, which is the wall clock: when that is
    set back, every timer of the process stops for as long. No argument or subclass of ours helps,
    since twistd installs the reactor before it loads a plugin, and Twisted's own timers use it.
    """
    reactor.seconds = time.monotonic


def temporary_path() -> Path:
    """
    Give a new path for a temporary folder.

    :raises StartFailed: with one line, if the system has no place for one
    """
    try:
        return Path(tempfile.gettempdir(), f"proxpi-{secrets.token_hex(8)}")
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


#: Seconds for what comes after the drain. With those for cleaning, they stay below the one second
#: that the end may take, and leave some to the system.
CLOSING = 0.7
#: Seconds for the removal of what must not stay, if the reactor has not come to it.
CLEANING = 0.1
#: Seconds between two looks at whether one more signal came.
POLL = 0.05


@attrs.define(eq=False)
class Shutdown(Service):
    """Takes the signals that end the process, and ends it at the deadline.

    :ivar drain_timeout: seconds for the drain
    :ivar abort_drain: called on the reactor's thread when one more signal came
    :ivar clean: removes what must not stay; called in a thread if the reactor hangs
    """

    _reactor: Any
    drain_timeout: float
    abort_drain: Callable[[], object]
    clean: Callable[[], object]
    _signals: set[signal.Signals] = attrs.field(init=False, factory=set)

    def startService(self) -> None:
        """Take SIGTERM over, and the others unless the process was started to ignore them."""
        super().startService()  # type: ignore[no-untyped-call]
        others = (signal.SIGINT, signal.SIGHUP)
        heeded = {each for each in others if signal.getsignal(each) != signal.SIG_IGN}
        self._signals = {signal.SIGTERM} | heeded
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        threading.Thread(target=self._watch, name="proxpi signals", daemon=True).start()
        # The reactor has put its own handlers there by then.
        self._reactor.callWhenRunning(self._handle_by, signal.SIG_DFL)
        self._reactor.addSystemEventTrigger("after", "shutdown", self._release)

    def _handle_by(self, handler: signal.Handlers) -> None:
        for number in self._signals:
            signal.signal(number, handler)

    def _release(self) -> None:
        """Let twistd end the process by the first signal; the further ones are dropped."""
        self._handle_by(signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._signals)

    def _watch(self) -> None:
        number = signal.sigwait(self._signals)
        stop = self._reactor.sigInt if number == signal.SIGINT else self._reactor.sigTerm
        self._reactor.callFromThread(stop, number)
        deadline = time.monotonic() + self.drain_timeout
        while time.monotonic() < deadline:
            if signal.sigpending() & self._signals:
                self._reactor.callFromThread(self.abort_drain)
                break
            time.sleep(min(POLL, max(0.0, deadline - time.monotonic())))
        time.sleep(CLOSING)
        with suppress(RuntimeError):  # the system has no thread to give
            cleaner = threading.Thread(target=self.clean, name="proxpi cleaner", daemon=True)
            cleaner.start()
            cleaner.join(CLEANING)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
        os._exit(0)
