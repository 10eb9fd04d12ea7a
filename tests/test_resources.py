"""The resources of the process: threads, descriptors, folders, time."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.epollreactor import EPollReactor

from proxpi.resources import Share, allocate, use_monotonic_time
from tests.support.cases import Case


class Threads(Case):
    def setUp(self) -> None:
        self.running: list[Deferred[Any]] = []
        self.share = Share(self.run_job, 2)

    def run_job(self, job: Callable[[], Any]) -> Deferred[Any]:
        self.running.append(Deferred())
        return self.running[-1].addCallback(lambda _: job())

    def end(self) -> None:
        self.running.pop(0).callback(None)

    def test_daemons(self) -> None:
        """Jobs run in threads of their pool, which do not hold up the end of the process."""
        calls: list[Callable[[], object]] = []
        came = threading.Semaphore(0)

        class Reactor:
            def callFromThread(self, call: Callable[..., object], *arguments: object) -> None:
                calls.append(lambda: call(*arguments))
                came.release()

        resources = allocate(Reactor(), indexes=1, connections=1, open_files=1)
        for name in ("pages", "writes", "reads"):
            done = getattr(resources, name)(threading.current_thread)
            came.acquire()
            calls.pop()()
            thread = self.result(done)
            assert name in thread.name
            assert thread.daemon

    def test_share(self) -> None:
        """The third job begins when one of two has ended, and each gives its own result."""
        results = [self.share(lambda number=number: number) for number in range(4)]  # type: ignore[misc]
        assert len(self.running) == 2
        self.end()
        assert self.result(results[0]) == 0
        assert len(self.running) == 2
        for _ in range(3):
            self.end()
        assert [self.result(each) for each in results[1:]] == [1, 2, 3]

    def test_error(self) -> None:
        """The error of a job is its result, and frees its thread."""

        def fails() -> None:
            raise KeyError

        results = [self.share(fails) for _ in range(3)]
        for result in results:
            self.end()
            self.error(result, KeyError)
        assert self.unhandled() == []

    def test_cancelled(self) -> None:
        """A cancelled job keeps its thread until it ends; one that waits does not begin."""
        results = [self.share(lambda: None) for _ in range(4)]
        for result in (results[0], results[2]):
            result.cancel()
            self.error(result, CancelledError)
        assert len(self.running) == 2
        self.end()
        assert len(self.running) == 2
        self.end()
        self.end()
        assert self.running == []
        self.result(results[1])
        self.result(results[3])


class Descriptors(Case):
    def clients(self, hard: int, *, connections: int = 32, raises: bool = True) -> int:
        """Return the descriptors for clients under a limit."""
        limits = [(1024, hard)]

        def setrlimit(_: int, wanted: tuple[int, int]) -> None:
            if not raises:
                raise ValueError("not so many")
            limits.append(wanted)

        self.put(resource, "getrlimit", lambda _: limits[-1])
        self.put(resource, "setrlimit", setrlimit)
        made = allocate(None, indexes=1, connections=connections, open_files=100)
        assert limits[-1] == ((hard, hard) if raises else (1024, hard))
        return made.client_descriptors

    def test_divided(self) -> None:
        """The limit is raised, and a part is reserved for upstreams, files and the process."""
        clients = self.clients(20_000)
        assert 19_000 < clients < 20_000 - 64
        assert clients - self.clients(20_000, connections=132) == 100 * 3 * 2
        assert self.clients(resource.RLIM_INFINITY) > 100_000
        assert self.clients(64) == 32, "half of very few"
        assert 500 < self.clients(20_000, raises=False) < 1024 - 64


class Time(Case):
    def test_wall_clock_set_back(self) -> None:
        """A timer of Twisted's own reactor is due although the wall clock was set back."""
        reactor = EPollReactor()
        self.addCleanup(reactor._poller.close)
        use_monotonic_time(reactor)
        self.put(time, "time", lambda: 0.0)
        due: list[bool] = []
        reactor.callLater(0, due.append, True)
        reactor.callLater(60, due.append, True)
        assert reactor.timeout() == 0
        reactor.runUntilCurrent()
        assert due == [True]
        assert 0 < (reactor.timeout() or 0) <= 60
