"""The DNS resolver: the addresses of host names, looked up in threads of its own.

The resolver of the C library blocks its caller, for half a minute if the DNS servers are silent,
and cannot be cancelled. So it is called in daemon threads, for which the end of the process does
not wait. A name is *queued*, then *looked up* in one thread, however many waiters it has, and
*abandoned* if all of them leave: an abandoned thread no longer counts against :data:`LOOKUPS`, but
against :data:`MAX_THREADS`. Names of priority (indexes and proxies) skip the queue. Waiters wait no
longer than the connect timeout.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from threading import Thread
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError

from proxpi.upstream.errors import DNSTimeout, on_timeout

#: Names that are looked up at a time, besides those of priority.
LOOKUPS = 32
#: Threads at most, abandoned ones included.
MAX_THREADS = 256

#: Gives the addresses of a host, the best ones first; there is at least one.
LookUp = Callable[[str], "Deferred[list[str]]"]


def _in_thread(job: Callable[[], None]) -> None:
    Thread(target=job, name="proxpi DNS", daemon=True).start()


@attrs.define(eq=False)
class DNSResolver:
    """Looks host names up; a waiter waits for `timeout` seconds."""

    _reactor: Any
    timeout: float
    priority: frozenset[str] = frozenset()
    _getaddrinfo: Callable[..., list[Any]] = socket.getaddrinfo
    _start_thread: Callable[[Callable[[], None]], object] = _in_thread
    _waiters: dict[str, list[Deferred[list[str]]]] = attrs.field(init=False, factory=dict)
    _queue: list[str] = attrs.field(init=False, factory=list)
    _looked_up: set[str] = attrs.field(init=False, factory=set)

    def look_up(self, host: str) -> Deferred[list[str]]:
        """Return the addresses of a host, the best ones first (RFC 6724).

        Fails with `DNSLookupError` or :class:`DNSTimeout`; cancelling concerns no other waiter.
        """
        waiter: Deferred[list[str]] = Deferred(lambda waiter: self._leave(host, waiter))
        if host in self._waiters:
            self._waiters[host].append(waiter)
        else:
            self._waiters[host] = [waiter]
            if host in self.priority:
                self._look_up(host)
            else:
                self._queue.append(host)
                self._next()
        return waiter.addTimeout(self.timeout, self._reactor, on_timeout(DNSTimeout))

    def _leave(self, host: str, waiter: Deferred[list[str]]) -> None:
        waiters = self._waiters[host]
        waiters.remove(waiter)
        if waiters:
            return
        if host in self._queue:
            self._queue.remove(host)
            del self._waiters[host]
        elif host in self._looked_up:
            self._looked_up.remove(host)
            self._next()

    def _next(self) -> None:
        while (
            self._queue
            and len(self._looked_up) < LOOKUPS
            and len(self._waiters) - len(self._queue) < MAX_THREADS
        ):
            host = self._queue.pop(0)
            self._looked_up.add(host)
            self._look_up(host)

    def _look_up(self, host: str) -> None:
        def job() -> None:
            try:
                # Bytes: Python would encode a text by IDNA, and refuse names that resolvers know.
                found = self._getaddrinfo(host.encode(), None, 0, socket.SOCK_STREAM)
                addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
            except Exception:  # noqa: BLE001 (after any error the lookup has ended)
                addresses = []
            self._reactor.callFromThread(self._found, host, addresses)

        try:
            self._start_thread(job)
        except RuntimeError:  # the system has no thread to give
            self._reactor.callLater(0, self._found, host, [])

    def _found(self, host: str, addresses: list[str]) -> None:
        self._looked_up.discard(host)
        for waiter in self._waiters.pop(host):
            if addresses:
                waiter.callback(list(addresses))
            else:
                waiter.errback(DNSLookupError(f"no address of {host}"))
        self._next()
