"""Names of hosts, looked up in threads of their own.

Theory of operation
-------------------
The resolver of the C library blocks whoever asks it, for half a minute if its servers are silent,
and cannot be told to stop. So it is asked in threads that do nothing else, for which the end of the
process does not wait: one thread for a name, however many wait for it, and only so many threads.
Names beyond that wait for their turn; those that matter most do not. Whoever waits does so no
longer than it may take to connect.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from threading import Thread
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError

from proxpi.upstream.errors import DNSTimeout

#: Names that are looked up at a time for somebody who waits, besides those that come first.
LOOKUPS = 32
#: Threads at most, those included in which a name is looked up for nobody any more.
MOST_THREADS = 256

#: Gives the addresses of a host, the best ones first; there is at least one.
LookUp = Callable[[str], "Deferred[list[str]]"]


def _in_thread(job: Callable[[], None]) -> None:
    Thread(target=job, name="proxpi names", daemon=True).start()


@attrs.define(eq=False)
class DNSResolver:
    """Looks names up.

    :ivar timeout: seconds that anybody waits
    :ivar first: the names that are looked up at once, however many others are
    """

    _reactor: Any
    timeout: float
    first: frozenset[str] = frozenset()
    _getaddrinfo: Callable[..., list[Any]] = socket.getaddrinfo
    _begin: Callable[[Callable[[], None]], object] = _in_thread
    _waiting: dict[str, list[Deferred[list[str]]]] = attrs.field(init=False, factory=dict)
    _queue: list[str] = attrs.field(init=False, factory=list)
    # Those that are looked up for somebody who waits.
    _counted: set[str] = attrs.field(init=False, factory=set)

    def look_up(self, host: str) -> Deferred[list[str]]:
        """
        Give the addresses of a host, the best ones first (RFC 6724).

        The Deferred fails with `DNSLookupError` if there are none, with :class:`DNSTimeout` if
        they take too long. Cancelling it concerns nobody else.
        """
        waiter: Deferred[list[str]] = Deferred(lambda waiter: self._leave(host, waiter))
        if host in self._waiting:
            self._waiting[host].append(waiter)
        else:
            self._waiting[host] = [waiter]
            if host in self.first:
                self._look_up(host)
            else:
                self._queue.append(host)
                self._go_on()
        return waiter.addTimeout(self.timeout, self._reactor, _timed_out)

    def _leave(self, host: str, waiter: Deferred[list[str]]) -> None:
        waiters = self._waiting[host]
        waiters.remove(waiter)
        if waiters:
            return
        if host in self._queue:
            self._queue.remove(host)
            del self._waiting[host]
        elif host in self._counted:
            # Its thread may hang for long, but nobody else has to wait for that.
            self._counted.remove(host)
            self._go_on()

    def _go_on(self) -> None:
        while (
            self._queue
            and len(self._counted) < LOOKUPS
            and len(self._waiting) - len(self._queue) < MOST_THREADS
        ):
            host = self._queue.pop(0)
            self._counted.add(host)
            self._look_up(host)

    def _look_up(self, host: str) -> None:
        def job() -> None:
            try:
                # Bytes: Python would take a text for one that is to be encoded by IDNA, and refuse
                # names that the resolver knows.
                found = self._getaddrinfo(host.encode(), None, 0, socket.SOCK_STREAM)
                addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
            except Exception:  # noqa: BLE001 (whatever it is, the name is not under way any more)
                addresses = []
            self._reactor.callFromThread(self._found, host, addresses)

        try:
            self._begin(job)
        except RuntimeError:  # the system has no thread to give
            self._reactor.callLater(0, self._found, host, [])

    def _found(self, host: str, addresses: list[str]) -> None:
        self._counted.discard(host)
        for waiter in self._waiting.pop(host):
            if addresses:
                waiter.callback(list(addresses))
            else:
                waiter.errback(DNSLookupError(f"no address of {host}"))
        self._go_on()


def _timed_out(result: object, timeout: float) -> Any:
    raise DNSTimeout()
