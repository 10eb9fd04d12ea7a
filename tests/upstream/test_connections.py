"""Connections: their limits for each origin, the pool, and the bounds of response heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred

from proxpi.simple import urls
from proxpi.upstream.connections import (
    BACKGROUND_CONNECTIONS,
    CONNECTIONS,
    HEAD_LIMIT,
    KEEP_ALIVE,
    READ_SIZE,
    ConnectionLimit,
    ConnectionLimits,
    Queue,
    Scheduler,
)
from proxpi.upstream.errors import UpstreamFailed
from tests.support.cases import Case, run
from tests.support.indexes import CONNECT_TIMEOUT, READ_TIMEOUT, Line, Network

PAGE = "http://index.example/simple/demo/"
ONE, OTHER = "https://one.example/a", "https://other.example/a"
HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234"
LINE = b"X-Filler: " + b"x" * 1000 + b"\r\n"


class LimitCase(Case):
    def setUp(self) -> None:
        self.scheduler = Scheduler()
        self.limit = ConnectionLimit(2, self.scheduler)
        self.narrow = ConnectionLimit(1, self.scheduler, within=self.limit)
        self.served: list[str] = []
        self.holders: list[Deferred[None]] = []
        self.addCleanup(self.release_all)

    def release_all(self) -> None:
        for holder in reversed(self.holders):
            holder.addErrback(lambda _: None).cancel()

    def hold(
        self,
        name: str,
        url: str = ONE,
        limit: ConnectionLimit | None = None,
        queue: Queue | None = None,
    ) -> int:
        """Acquire a connection and hold it until it is cancelled; return its number."""

        async def hold() -> None:
            release = await (limit or self.limit).acquire(urls.origin(url), queue)
            try:
                self.served.append(name)
                await Deferred()
            finally:
                release()

        self.holders.append(run(hold()))
        return len(self.holders) - 1

    def release(self, *numbers: int) -> None:
        for number in numbers:
            self.holders[number].cancel()
            self.error(self.holders[number], CancelledError)

    def acquire(self, limit: ConnectionLimit, queue: Queue) -> Deferred[Callable[[], None]]:
        return run(limit.acquire(urls.origin(ONE), queue))


class LimitTests(LimitCase):
    def test_first_in_first_out(self) -> None:
        """Excess requests queue first in, first out; a cancelled one takes no turn."""
        for name in "abcdef":
            self.hold(name)
        assert self.served == ["a", "b"]
        assert self.limit.is_reached(urls.origin(ONE))
        self.release(3, 1, 0, 2)
        assert self.served == list("abcef")
        self.release(4, 5)
        assert not self.limit.is_reached(urls.origin(ONE))

    def test_ends_at_once(self) -> None:
        """A request that ends as soon as it has its connection loses no other request."""

        async def ends(name: str) -> None:
            (await self.limit.acquire(urls.origin(ONE)))()
            self.served.append(name)
            for each in "12":
                self.hold(name + each)

        self.hold("a")
        self.hold("b")
        requests = [run(ends(name)) for name in "xyz"]
        self.release(0, 1)
        for request in requests:
            self.result(request)
        assert len(self.served) == 5 + 2
        while len(self.served) < 5 + 6:
            self.release(next(n for n, each in enumerate(self.holders) if not each.called))
        assert sorted(self.served) == ["a", "b", "x", "x1", "x2", "y", "y1", "y2", "z", "z1", "z2"]

    def test_origins(self) -> None:
        """Each origin has its own limit: another port is another origin, another case is not."""
        for url in (ONE, OTHER, "https://one.example:444/", "http://one.example/"):
            self.hold(url, url)
            self.hold(url, url.upper().replace("HTTP", "http"))
        assert len(self.served) == 8
        self.hold("more")
        assert "more" not in self.served

    def test_within_a_wider_limit(self) -> None:
        """A connection of the narrow limit counts in the wide one, and is released in both."""
        for name, limit in (("a", self.narrow), ("b", self.narrow), ("c", None), ("d", None)):
            self.hold(name, limit=limit)
        assert self.served == ["a", "c"]
        assert self.narrow.is_reached(urls.origin(ONE))
        self.release(0)
        assert self.served == ["a", "c", "b"]
        self.release(2)
        assert self.served == ["a", "c", "b", "d"]
        self.hold("e", limit=self.narrow)
        self.hold("f")
        self.release(3)  # e waits for the narrow limit alone, and holds up no other request
        assert self.served == ["a", "c", "b", "d", "f"]
        self.release(4, 1)  # e is cancelled while it waits
        self.hold("g", limit=self.narrow)
        assert self.served == ["a", "c", "b", "d", "f", "g"]

    def test_cancelled(self) -> None:
        """A queue tells whether a request waits, and cancels those that do."""
        for background in (False, True):
            queue = Queue(background)
            sent, waiting = (self.acquire(self.narrow, queue) for _ in range(2))
            release = self.result(sent)
            assert queue
            queue.cancel()
            self.error(waiting, CancelledError)
            assert not queue
            release()
        self.hold("a", limit=self.narrow)
        assert self.served == ["a"]


class BackgroundTests(LimitCase):
    def setUp(self) -> None:
        super().setUp()
        self.background = Queue(background=True)

    def test_clients_first(self) -> None:
        """A background request waits while a client's does, however late that came."""
        for name in "ab":
            self.hold(name)
        for name in "xyz":
            self.hold(name, queue=self.background)
        for name in "cd":
            self.hold(name)
        assert self.served == ["a", "b"]
        self.release(0, 1)
        assert self.served == list("abcd")
        self.release(5, 3, 6)  # y is cancelled while it waits
        assert self.served == list("abcdx")
        self.hold("e")
        self.release(2)
        assert self.served == list("abcdxe"), "of two connections, one is left to clients"
        self.release(7)
        assert self.served == list("abcdxez")

    def test_a_client_leaves(self) -> None:
        """A background request gets its connection once the last client's request left."""
        limit = ConnectionLimit(4, self.scheduler)
        narrow = ConnectionLimit(1, self.scheduler, within=limit)
        self.hold("a", limit=narrow)
        self.hold("b", limit=narrow)
        self.hold("x", limit=limit, queue=self.background)
        assert self.served == ["a"]
        self.release(1)
        assert self.served == ["a", "x"]

    def test_some_are_left(self) -> None:
        """Background requests leave a quarter of the connections to an origin to clients."""
        limit = ConnectionLimit(8, self.scheduler)
        for number in range(8):
            self.hold(f"background {number}", limit=limit, queue=self.background)
        assert len(self.served) == 6
        for name in "ab":
            self.hold(name, limit=limit)
        assert self.served[6:] == ["a", "b"]

    def test_cap(self) -> None:
        """Pages and files of all origins together have eight background connections at most."""
        limits = ConnectionLimits.of(CONNECTIONS)
        for number in range(8):
            for limit in (limits.pages, limits.files):
                url = f"https://host-{number}.example/"
                self.hold(f"{number}", url, limit=limit, queue=Queue(background=True))
        assert len(self.served) == BACKGROUND_CONNECTIONS == 8
        self.hold("client", limit=limits.pages)
        self.release(0, 5)
        assert self.served[8:] == ["client", "4", "4"]

    def test_lifted_while_it_waits(self) -> None:
        """A request that a client waits for goes behind those of clients, before the others."""
        self.hold("a")
        self.hold("b")
        self.hold("x", queue=Queue(background=True))
        self.hold("y", queue=self.background)
        self.hold("c")
        self.background.lift()
        self.hold("d")
        self.release(0, 1, 4, 3, 5)
        assert self.served == list("abcydx")

    def test_lifted_at_once(self) -> None:
        """Lifted requests take the connections that were left to clients, at each origin."""
        for url in (ONE, OTHER):
            self.hold("x", url, queue=Queue(background=True))
            self.hold("y", url, queue=self.background)
        assert self.served == ["x", "x"]
        self.background.lift()
        assert self.served == ["x", "x", "y", "y"]

    def test_lifted_together(self) -> None:
        """The requests of a queue are lifted together, even if the first one cancels the others."""
        self.hold("a")
        first, second = (self.acquire(self.limit, self.background) for _ in range(2))

        def end(release: Callable[[], None]) -> None:
            self.background.cancel()
            release()

        first.addCallback(end)
        self.background.lift()
        self.result(first)
        self.error(second, CancelledError)
        queue = Queue(True, lambda: False)
        self.hold("b", queue=queue)
        self.hold("c", queue=queue)
        queue.lift()
        self.release(0)
        assert self.served == ["a", "b", "c"], "a request that a client waits for is admitted"

    def test_lifted_while_it_runs(self) -> None:
        """A request that was lifted is none of the eight, and ends as any other."""
        limit = ConnectionLimit(CONNECTIONS, self.scheduler)
        for number in range(10):
            queue = self.background if number < 2 else Queue(background=True)
            self.hold(f"{number}", limit=limit, queue=queue)
        assert len(self.served) == 8
        self.background.lift()
        assert len(self.served) == 10
        self.hold("more", limit=limit, queue=Queue(background=True))
        self.release(0, 1)
        assert "more" not in self.served
        self.release(2)
        assert "more" in self.served
        self.background.lift()

    def test_not_admitted(self) -> None:
        """A background request that is pointless once its turn comes is cancelled, not sent."""
        admitted = True
        queue = Queue(True, lambda: admitted)
        self.hold("x", queue=self.background)
        waiting = [self.acquire(self.limit, queue) for _ in range(3)]
        self.release(0)
        release = self.result(waiting[0])
        admitted = False
        release()
        for each in waiting[1:]:
            self.error(each, CancelledError)
        queue.lift()
        self.hold("a")
        assert self.served == ["x", "a"]


class RandomTests(Case):
    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 99)), max_size=80))
    def test_any_order(self, steps: list[tuple[int, int]]) -> None:
        """In any order of requests and ends, no limit is exceeded, and no connection lies idle."""
        limits = ConnectionLimits.of(3)
        kinds = [
            (limit, url) for limit in attrs.astuple(limits, recurse=False) for url in (ONE, OTHER)
        ]
        queues: list[Queue] = []
        requests: list[tuple[int, Queue, Deferred[Any]]] = []
        held: list[tuple[int, Queue, Callable[[], None]]] = []

        def acquire(kind: int, queue: Queue) -> None:
            limit, url = kinds[kind]
            request = run(limit.acquire(urls.origin(url), queue))
            requests.append((kind, queue, request))
            request.addCallbacks(
                lambda release: held.append((kind, queue, release)), lambda _: None
            )

        def check() -> None:
            number = [sum(kind == each for kind, _, _ in held) for each in range(len(kinds))]
            for place in (0, 1):  # the two origins
                pages, files, backpressure = number[place::2]
                assert pages <= 3
                assert files + backpressure <= 3
                assert backpressure <= 2
            background = [queue.background for _, queue, _ in held]
            assert sum(background) <= BACKGROUND_CONNECTIONS
            waiting = [(kind, queue) for kind, queue, each in requests if not each.called]
            for kind, queue in waiting:
                limit, url = kinds[kind]
                assert not limit.has_room(urls.origin(url), queue.background) or (
                    queue.background
                    and any(k % 2 == kind % 2 and not q.background for k, q in waiting)
                )

        for action, value in steps:
            if action < 2:
                queues.append(Queue(background=action == 1))
                acquire(value % len(kinds), queues[-1])
            elif action == 2 and queues:
                acquire(value % len(kinds), queues[value % len(queues)])
            elif action == 3 and held:
                held.pop(value % len(held))[2]()
            elif action == 4 and queues:
                queues[value % len(queues)].lift()
            elif action == 5 and queues:
                queues[value % len(queues)].cancel()
            check()
        while held:
            held.pop()[2]()
            check()
        assert all(request.called for _, _, request in requests)


class NetworkCase(Case):
    def setUp(self) -> None:
        self.network = Network()

    def request(self) -> Deferred[tuple[bytes, bool]]:
        async def body() -> tuple[bytes, bool]:
            async with self.network.upstream.page(PAGE, {}) as response:
                return await self.network.upstream.read(response)

        return run(body())

    def accepted(self) -> tuple[Deferred[tuple[bytes, bool]], Line]:
        """Request a page, and accept its connection, which must be a new one."""
        request = self.request()
        line = self.network.accept()
        assert line.take().startswith(b"GET /simple/demo/ HTTP/1.1\r\n")
        return request, line

    def assert_failed(self, request: Deferred[Any], cause: str, *, temporary: bool = True) -> None:
        error = self.error(request, UpstreamFailed)
        assert (error.cause, error.temporary) == (cause, temporary)
        self.network.pool.closeCachedConnections()
        assert self.network.reactor.getDelayedCalls() == []
        assert self.unhandled() == []


class PoolTests(NetworkCase):
    def test_reuse(self) -> None:
        """Pages and files of one origin share connections, as many as may be open at once."""
        request, line = self.accepted()
        line.answer(200, b"page")
        assert self.result(request) == (b"page", True)

        async def file() -> bytes:
            chunks: list[bytes] = []
            async with self.network.upstream.file(PAGE, {}) as response:
                await self.network.upstream.stream(response, chunks.append)
            return b"".join(chunks)

        again = run(file())
        assert line.take().startswith(b"GET /simple/demo/")
        line.answer(200, b"file")
        assert self.result(again) == b"file"
        assert len(self.network.attempts) == 1
        assert self.network.pool.maxPersistentPerHost == 2 * CONNECTIONS
        assert line.read_size == READ_SIZE  # a plain connection takes many bytes at once

    def test_closed(self) -> None:
        """A request on a kept connection that the server has closed is sent again on another.

        An idle connection is closed gracefully after a while, before the server does so.
        """
        _, line = self.accepted()
        line.answer(200)
        second = self.request()
        line.close()
        line = self.network.accept()
        line.answer(200, b"page")
        assert self.result(second) == (b"page", True)
        self.network.advance(KEEP_ALIVE - 1)
        assert line.open
        self.network.advance(2)
        assert (line.open, line.aborted) == (False, False)


class EndTests(NetworkCase):
    def test_silent(self) -> None:
        """A server that stops before the head or in the body loses its connection at once."""
        for sent, seconds in ((b"", CONNECT_TIMEOUT + READ_TIMEOUT), (HALF, READ_TIMEOUT)):
            request, line = self.accepted()
            line.send(sent)
            self.network.advance(seconds + 1)
            assert line.aborted
            self.assert_failed(request, "timed out")

    def test_no_head(self) -> None:
        """A connection that is closed without a head, or does not speak HTTP, has failed."""
        request, line = self.accepted()
        line.close()
        self.assert_failed(request, "the connection was closed")
        request, line = self.accepted()
        line.send(b"SSH-2.0-OpenSSH_9\r\n")
        assert line.aborted
        self.assert_failed(request, "no usable answer (ParseError)")

    def test_truncated(self) -> None:
        """A body shorter than announced is truncated; without a length it may be whole."""
        for sent in (HALF, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n01"):
            request, line = self.accepted()
            line.send(sent)
            line.close()
            self.assert_failed(request, "the answer was cut short")
        request, line = self.accepted()
        line.send(b"HTTP/1.1 200 OK\r\n\r\npage")
        line.close()
        assert self.result(request) == (b"page", False)

    def test_cancel(self) -> None:
        """A request that is cancelled, before its head or in its body, loses its connection."""
        for sent in (b"", HALF):
            request, line = self.accepted()
            line.send(sent)
            request.cancel()
            self.error(request, CancelledError)
            assert line.aborted
        assert self.network.reactor.getDelayedCalls() == []


class HeadTests(NetworkCase):
    def assert_too_long(self, request: Deferred[Any], line: Line) -> None:
        """Check that the head was too long, and that the request was not sent again."""
        assert line.aborted
        assert len(self.network.attempts) == 1
        self.assert_failed(request, "the head of the answer is too long", temporary=False)

    def test_long(self) -> None:
        """A head within the limit is taken, in any pieces; the body behind it does not count."""
        request, line = self.accepted()
        body = b"x" * (4 * HEAD_LIMIT)
        interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        line.send(interim + b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert self.result(request) == (body, True)
        request = self.request()
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n" + LINE * (HEAD_LIMIT // len(LINE) - 1)
        for start in range(0, len(head), 999):
            line.send(head[start : start + 999])
        for byte in b"\r\npage":
            line.send(bytes([byte]))
        assert self.result(request) == (b"page", True)
        assert line.open

    def test_too_long(self) -> None:
        """A head beyond the limit, in any form, ends its connection."""
        for head in (
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + LINE * 100 + b"\r\n",
            b"HTTP/1.1 200 OK\r\n" + b"a:\n" * HEAD_LIMIT,
            b"HTTP/1.1 103 Early Hints\r\n\r\n" * (HEAD_LIMIT // 20),
            b"HTTP/1.1 200 OK\r\nX-Filler: " + b"x" * HEAD_LIMIT,
            b"HTTP/1.1 200 OK\r\nX-Filler: " + b"x" * (HEAD_LIMIT // 2) + b"\r\n",
        ):
            self.network = Network()
            request, line = self.accepted()
            line.send(head)
            self.assert_too_long(request, line)

    def test_on_a_kept_connection(self) -> None:
        """Each response has its own head; one that is too long is not requested again."""
        request, line = self.accepted()
        for _ in range(8):
            line.answer(200, b"page", "X-Filler: " + "x" * (HEAD_LIMIT // 5))
            assert self.result(request) == (b"page", True)
            request = self.request()
        line.send(b"x" * HEAD_LIMIT)
        self.assert_too_long(request, line)

    def test_bytes_behind_a_response(self) -> None:
        """Bytes behind the end of a response are no response to the next request."""
        request, line = self.accepted()
        again: list[Deferred[Any]] = []
        request.addBoth(lambda _: again.append(self.request()))
        forged = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
        line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + forged)
        self.network.accept().answer(200, b"true")
        assert self.result(again[0]) == (b"true", True)
        assert not line.open

    def test_transfer_encoding(self) -> None:
        """``identity`` is no transfer coding (RFC 2616 3.6.2), ``chunked`` is, in any case."""
        length, chunks = b"Content-Length: 4\r\n\r\npage", b"\r\n4\r\npage\r\n0\r\n\r\n"
        for coding, body in (
            (b"identity", length),
            (b" Identity ", length),
            (b"identity, identity", length),
            (b"", length),
            (b"Chunked", chunks),
            (b"identity, chunked", chunks),
            (b"chunked\r\nTransfer-Encoding: identity", chunks),
            (b"\r\n chunked", chunks),
        ):
            request, line = self.accepted()
            line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: " + coding + b"\r\n" + body)
            assert self.result(request) == (b"page", True), coding
            line.close()
        request, line = self.accepted()
        line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n")
        self.assert_failed(request, "no usable answer (KeyError)")
