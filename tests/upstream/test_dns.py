"""The DNS resolver: one thread for a name, a limit on threads, and no wait for another name."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.error import DNSLookupError
from twisted.internet.task import Clock

from proxpi.upstream.dns import LOOKUPS, MAX_THREADS, DNSResolver
from proxpi.upstream.errors import DNSTimeout
from tests.support.cases import Case

TIMEOUT = 3.0


class _Reactor(Clock):
    """A clock that takes calls from threads, at once."""

    def callFromThread(self, function: Callable[..., object], *arguments: Any) -> None:
        function(*arguments)


class LookUpTests(Case):
    """Threads work when they are told to."""

    def setUp(self) -> None:
        self.reactor = _Reactor()
        self.jobs: list[Callable[[], None]] = []
        self.asked: list[bytes] = []
        self.known: dict[bytes, list[str] | Exception] = {}
        priority = frozenset({"index.example"})
        self.resolver = DNSResolver(
            self.reactor, TIMEOUT, priority, self.getaddrinfo, self.jobs.append
        )

    def getaddrinfo(self, host: bytes, port: None, family: int, kind: int) -> list[Any]:
        assert (port, family, kind) == (None, 0, socket.SOCK_STREAM)
        self.asked.append(host)
        found = self.known.get(host, ["1.2.3.4"])
        if isinstance(found, Exception):
            raise found
        return [(0, kind, 6, "", (address, 0)) for address in found]

    def work(self, count: int | None = None) -> None:
        jobs, self.jobs[:] = self.jobs[:count], self.jobs[len(self.jobs[:count]) :]
        for job in jobs:
            job()

    def test_order(self) -> None:
        """Addresses come in the order of the system, each of them once; they are not cached."""
        self.known[b"a.example"] = ["2600::1", "1.2.3.4", "2600::1"]
        for _ in range(2):
            found = self.resolver.look_up("a.example")
            self.pending(found)
            self.work()
            assert self.result(found) == ["2600::1", "1.2.3.4"]
        assert self.asked == [b"a.example"] * 2
        assert self.reactor.getDelayedCalls() == []

    def test_unknown(self) -> None:
        """A name without an address, or that is none, is not found."""
        self.known[b"a.example"] = socket.gaierror(-2, "Name or service not known")
        self.known[b"b.example"] = ValueError("embedded null")
        self.known[b"c.example"] = []
        for host in ("a.example", "b.example", "c.example"):
            found = self.resolver.look_up(host)
            self.work()
            self.error(found, DNSLookupError)

    def test_no_thread(self) -> None:
        """A thread that cannot be started fails the lookup, not the next one."""

        def refuse(job: Callable[[], None]) -> None:
            raise RuntimeError("can't start new thread")

        resolver = DNSResolver(self.reactor, TIMEOUT, frozenset(), self.getaddrinfo, refuse)
        for _ in range(2):
            found = resolver.look_up("a.example")
            self.reactor.advance(0)
            self.error(found, DNSLookupError)

    def test_waiters(self) -> None:
        """One thread looks a name up for all waiters; one that leaves takes it from no other."""
        found = [self.resolver.look_up("a.example") for _ in range(100)]
        other = self.resolver.look_up("b.example")
        found[0].cancel()
        self.error(found[0], CancelledError)
        assert len(self.jobs) == 2
        self.jobs.pop()()
        assert self.result(other) == ["1.2.3.4"]
        self.pending(found[1])
        self.work()
        for each in found[1:]:
            assert self.result(each) == ["1.2.3.4"]

    def test_bounded(self) -> None:
        """Names beyond the limit are queued, first in, first out, unless their waiters leave."""
        names = [f"{number}.example" for number in range(LOOKUPS + 3)]
        found = dict(zip(names, map(self.resolver.look_up, names), strict=True))
        assert len(self.jobs) == LOOKUPS
        left = names.pop()
        found[left].cancel()
        self.error(found.pop(left), CancelledError)
        self.work(1)
        self.result(found.pop(names[0]))
        assert len(self.jobs) == LOOKUPS
        self.work()
        self.work()
        assert self.asked == [name.encode() for name in names]
        for each in found.values():
            self.result(each)

    def test_abandoned(self) -> None:
        """Waiters give up in time; names abandoned by them do not count, and serve a later one."""
        hang = [self.resolver.look_up(f"{number}.example") for number in range(LOOKUPS)]
        self.reactor.advance(TIMEOUT - 1)
        other = self.resolver.look_up("other.example")
        assert len(self.jobs) == LOOKUPS
        self.reactor.advance(1)
        for each in hang:
            self.error(each, DNSTimeout)
        self.jobs.pop()()
        assert self.result(other) == ["1.2.3.4"]
        late = self.resolver.look_up("0.example")
        assert len(self.jobs) == LOOKUPS
        self.work()
        assert self.result(late) == ["1.2.3.4"]

    def test_threads(self) -> None:
        """Threads are limited in number, abandoned ones included."""
        for number in range(MAX_THREADS + 10):
            self.resolver.look_up(f"{number}.example").addErrback(lambda _: None).cancel()
        assert len(self.jobs) == MAX_THREADS
        self.resolver.look_up("other.example").addErrback(lambda _: None)
        assert len(self.jobs) == MAX_THREADS
        self.work(1)
        assert len(self.jobs) == MAX_THREADS
        assert self.asked == [b"0.example"]
        self.work()
        assert self.asked[-1] == b"other.example"

    def test_priority(self) -> None:
        """Names of priority skip the queue."""
        for number in range(LOOKUPS + 2):
            self.resolver.look_up(f"{number}.example").addErrback(lambda _: None)
        index = self.resolver.look_up("index.example")
        self.jobs.pop()()
        assert self.result(index) == ["1.2.3.4"]
        assert len(self.jobs) == LOOKUPS
