"""One connection: deadlines, limits, backpressure and its end, state by state."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.protocols.haproxy._wrapper import HAProxyWrappingFactory

from proxpi.web import channel, transfer
from proxpi.web.channel import (
    HALF_CLOSE_GRACE,
    IDLE_TIMEOUT,
    LINGER_TIMEOUT,
    LINGERING,
    MAX_BODY,
    REQUEST_TIMEOUT,
)
from proxpi.web.transfer import AT_ONCE, POLL, STALL_TIMEOUT
from tests.support.agent import Reply
from tests.support.cases import FILES, INDEX, MIB, ProxpiCase, page
from tests.support.exchange import Exchange, settle
from tests.support.exchange import request as written

HEALTH = written("GET", "/health")
BAD = b"GET foo HTTP/1.1\r\nHost: h\r\n\r\n"
UPLOAD = written("POST", "/index/demo/", "Content-Length: 100000000")
CHUNK = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"


class ChannelCase(ProxpiCase):
    def status(self, client: Exchange) -> int:
        client.ask("GET", "/health")
        return client.response().status

    def late_page(self, name: str) -> Reply:
        """Have a page of the index that ends when the test says so."""
        late = attrs.evolve(page(), whole=False)
        self.agent.at(f"{INDEX}{name}/", late)
        return late

    def closes_after(self, client: Exchange, seconds: float, slack: float = 1) -> None:
        self.clock.pass_time(seconds - 1)
        assert not client.closed
        self.clock.pass_time(1 + slack)
        assert not client.transport.connected
        assert self.clock.getDelayedCalls() == []


class Deadlines(ChannelCase):
    def test_request(self) -> None:
        """A whole request has so many seconds from the first byte on, however it is spread."""
        upload = written("POST", "/admin/x", "Content-Length: 60000")
        for begin, data in ((b"", HEALTH), (upload, b"x" * 99)):
            client = self.connect()
            client.send(begin)
            for byte in data[: int(REQUEST_TIMEOUT) - 1]:
                client.send(bytes([byte]))
                self.clock.pass_time(1)
                assert not client.closed
            self.clock.pass_time(1)
            assert client.closed

    def test_nothing_sent(self) -> None:
        """A silent connection is closed; a head that comes just in time is answered."""
        self.closes_after(self.connect(), REQUEST_TIMEOUT)
        client = self.connect()
        client.send(HEALTH[:10])
        self.clock.pass_time(REQUEST_TIMEOUT - 1)
        client.send(HEALTH[10:])
        assert client.response().status == 200

    def test_idle(self) -> None:
        """Between requests a connection stays for longer, each time anew."""
        client = self.connect()
        for _ in range(3):
            assert self.status(client) == 200
            self.clock.pass_time(IDLE_TIMEOUT - 1)
        assert self.status(client) == 200
        self.closes_after(client, IDLE_TIMEOUT)

    def test_next_head(self) -> None:
        """The time of a later head begins with its first byte, also in the packet before it."""
        client = self.connect()
        assert self.status(client) == 200
        self.clock.pass_time(20)
        client.send(HEALTH[:5])
        self.closes_after(client, REQUEST_TIMEOUT)
        client = self.connect()
        client.send(HEALTH + HEALTH[:5])
        assert client.answer() is not None
        self.closes_after(client, REQUEST_TIMEOUT)

    def test_waiting_for_a_response(self) -> None:
        """A client that waits for its response is not dropped, however long that takes."""
        self.build(timeout=1000)
        self.serve("demo.whl", b"data", Reply(200, b"da", whole=False))
        client = self.connect()
        client.ask("GET", "/index/demo/demo.whl")
        assert client.answer() is None
        for _ in range(2):
            self.agent.at(FILES + "demo.whl", Reply(200, b"da", whole=False))
            self.clock.pass_time(19)
            assert not client.closed

    def test_close_that_hangs(self) -> None:
        """A client that takes no part in an orderly close is dropped."""
        client = self.connect(tls=True)
        client.transport.hangs = True
        self.clock.pass_time(REQUEST_TIMEOUT + POLL + 1)
        assert client.aborted
        assert self.clock.getDelayedCalls() == []


class Stalls(ChannelCase):
    def begin(self, *headers: str) -> Exchange:
        """Ask for a file that is written at once, over a kernel that takes little."""
        self.serve("small.whl", b"x" * (AT_ONCE - 1), project="small")
        client = self.connect(capacity=4096)
        # What TCP acknowledges; a Unix socket that was filled again shows no progress.
        self.put(transfer, "_acknowledged", lambda _: len(client.received))
        client.ask("GET", "/index/small/small.whl", *headers)
        return client

    def test_stalled(self) -> None:
        """A client that takes nothing is dropped after a minute, and not before."""
        for headers in ((), ("Connection: close",)):
            client = self.begin(*headers)
            client.read(3000)
            self.clock.pass_time(STALL_TIMEOUT - 1)
            assert client.transport.connected
            self.clock.pass_time(2 * POLL + 2)
            assert client.aborted
            assert self.clock.getDelayedCalls() == []
        client = self.connect()
        client.send(HEALTH)  # the kernel has the whole response
        self.clock.pass_time(STALL_TIMEOUT + 2 * POLL + 1)
        assert client.aborted

    def test_with_a_head(self) -> None:
        """The time of the next head does not run while the response before it is taken."""
        client = self.begin()
        client.send(HEALTH[:5])
        for _ in range(5):
            self.clock.pass_time(55)
            assert not client.closed
            client.read(9000)
            settle(self.clock)
        client.receive()
        self.clock.pass_time(REQUEST_TIMEOUT - POLL - 1)
        assert not client.closed
        self.clock.pass_time(2 * POLL + 2)
        assert client.closed


class Backpressure(ChannelCase):
    def test_thousand(self) -> None:
        """A thousand requests in one go hold a few responses in memory; all are answered."""
        self.serve("demo.whl", b"x" * 2000)
        assert self.get("/index/demo/demo.whl").status == 200
        for path, most in (("/index/demo/demo.whl", 60), ("/health", 999)):
            client = self.connect(capacity=4096)
            before = len(self.access_log)
            client.send(written("GET", path) * 1000)
            assert len(self.access_log) - before + len(self.health_log) < most
            assert client.transport not in self.clock.readers
            assert client.receive().count(b"HTTP/1.1 200 OK") == 1000
            assert client.transport in self.clock.readers

    def test_behind_a_file(self) -> None:
        """Requests behind a file that the client does not take are not read for ever."""
        self.serve("demo.whl", b"x" * MIB)
        assert self.get("/index/demo/demo.whl").status == 200
        for tls in (False, True):
            client = self.connect(capacity=4096, tls=tls)
            client.ask("GET", "/index/demo/demo.whl")
            client.send(HEALTH * 500)
            assert client.transport not in self.clock.readers
            assert client.receive().count(b"HTTP/1.1 200 OK") == 501


class Bodies(ChannelCase):
    def test_refused(self) -> None:
        """A body that nothing reads, or that is too long, is refused before it comes."""
        long = f"Content-Length: {MAX_BODY + 1}"
        for method, path, fields, status in (
            ("POST", "/cache", [long], 405),
            ("GET", "/cache", [long], 405),
            ("DELETE", "/cache", [long], 413),
            ("POST", "/index/", ["Content-Length: 10000000", "Expect: 100-continue"], 405),
            ("POST", "/admin/x", ["Content-Length: 100000", "Expect: 100-continue"], 404),
        ):
            client = self.connect()
            client.send(written(method, path, *fields))
            assert client.response().status == status, (method, path)
            assert client.closed

    def test_read(self) -> None:
        """A body of the greatest length is read; the connection serves on."""
        for field, body in (
            (f"Content-Length: {MAX_BODY}", b"x" * MAX_BODY),
            ("Transfer-Encoding: chunked", CHUNK * 2 + b"0\r\n\r\n"),
        ):
            client = self.connect()
            client.send(written("POST", "/admin/forget-project", "Expect: 100-continue", field))
            assert client.receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.send(body)
            assert client.receive().count(b"HTTP/1.1 400 ") == 1
            client.send(HEALTH)
            assert client.receive().count(b"HTTP/1.1 200 ") == 1

    def test_endless(self) -> None:
        """A body that becomes too long is refused once; nothing behind it is a request."""
        form = written("POST", "/admin/forget-project", "Transfer-Encoding: chunked")
        for head, status in (
            (written("POST", "/index/", "Transfer-Encoding: chunked"), 405),
            (form, 413),
        ):
            for end in (b"", b"0\r\n\r\n"):
                client = self.connect()
                client.send(head + CHUNK * 5 + end)
                client.send(CHUNK)
                assert client.receive().count(b"HTTP/1.1 ") == 1
                assert client.response().status == status
                assert client.closed
        assert self.unhandled() == []

    def test_not_read_by_a_resource(self) -> None:
        """A short body that no resource reads is discarded as it comes, in a request's time."""
        for count in (1, 1000, MAX_BODY):
            client = self.connect()
            client.send(written("POST", "/index/", f"Content-Length: {count}"))
            for start in range(0, count, 10_000):
                client.send(b"G" * min(10_000, count - start))
            assert client.receive().startswith(b"HTTP/1.1 405 ")
            client.send(HEALTH)
            assert client.receive().count(b"HTTP/1.1 200 ") == 1
            client.hang_up()
        client = self.connect()
        client.send(written("POST", "/index/", "Content-Length: 10"))
        assert client.receive().startswith(b"HTTP/1.1 405 ")
        self.closes_after(client, REQUEST_TIMEOUT)

    def test_malformed(self) -> None:
        """A malformed chunk is a 400; nothing behind it is answered."""
        client = self.connect()
        client.send(written("POST", "/admin/forget-project", "Transfer-Encoding: chunked"))
        client.send(b"x\r\n" + HEALTH)
        received = client.receive()
        assert received.startswith(b"HTTP/1.1 400 ") and received.count(b"HTTP/1.1") == 1
        assert client.closed


class Lingering(ChannelCase):
    def test_response_and_end(self) -> None:
        """The client reads a whole response and its end, while it may still write."""
        for head, status in ((BAD, b"400"), (UPLOAD, b"405")):
            client = self.connect()
            client.send(head)
            received = client.receive()
            assert received.startswith(b"HTTP/1.1 " + status)
            for data in (b"x" * 50_000, b"\r\n\r\n", HEALTH):
                client.send(data)
            assert client.receive() == received
            assert client.closed and client.transport.connected
            self.clock.pass_time(LINGER_TIMEOUT - 1)
            assert client.transport.connected
            self.clock.pass_time(2 * POLL + 1)
            assert not client.transport.connected
            assert self.clock.getDelayedCalls() == []

    def test_bytes(self) -> None:
        """A refused client may write so many bytes."""
        self.put(channel, "MAX_LINGER", 200_000)
        client = self.connect()
        client.send(UPLOAD)
        client.send(b"x" * 120_000)
        assert client.transport.connected
        client.send(b"x" * 240_000)
        assert client.aborted

    def test_client_ends(self) -> None:
        """Once the client has closed as well, the connection is over."""
        client = self.connect()
        client.send(BAD)
        client.leave()
        assert not client.transport.connected
        client = self.connect()
        client.socket.send(BAD)
        client.end_input()
        assert client.receive().startswith(b"HTTP/1.1 400 ")
        assert not client.transport.connected

    def test_slow_client(self) -> None:
        """A client that takes the last response slowly gets all of it."""
        self.serve("demo.whl", b"x" * MIB)
        assert self.get("/index/demo/demo.whl").status == 200
        client = self.connect(capacity=4096)
        client.ask("GET", "/index/demo/demo.whl", "Content-Length: 100000000")
        while client.channel._state is not LINGERING:
            assert client.read(1000)
            settle(self.clock)
        for _ in range(4):
            assert client.read(1000)
            self.clock.pass_time(LINGER_TIMEOUT / 3)
            assert client.transport.connected
        answer = client.response()
        assert answer.whole

    def test_requests_behind_the_last(self) -> None:
        """Requests after ``Connection: close`` are neither executed nor answered."""
        for method in ("GET", "DELETE", "POST"):
            for tls in (True, False):
                client = self.connect(tls=tls)
                client.ask("GET", "/health", "Connection: close")
                client.send(written(method, "/cache/demo"))
                client.send(b"x" * 100_000)
                lines = [*self.access_log]
                assert client.receive().count(b"HTTP/1.1 ") == 1
                assert self.access_log == lines
                assert client.closed


class HalfClosed(ChannelCase):
    def test_response(self) -> None:
        """A half-closed client gets its responses, then the end; also behind a PROXY header."""
        balanced: Any = HAProxyWrappingFactory(self.site)
        for factory, begin in (
            (self.site, b""),
            (balanced, b"PROXY TCP4 1.2.3.4 1.2.3.5 5 80\r\n"),
        ):
            late = self.late_page("cold")
            client = Exchange(factory, self.clock)
            client.send(begin + written("GET", "/index/cold/") + HEALTH)
            client.end_input()
            late.end()
            assert client.receive().count(b"HTTP/1.1 200 ") == 2
            assert not client.transport.connected
            self.pages.invalidate("cold")

    def test_upload_behind_a_balancer(self) -> None:
        """Lingering works behind a PROXY header; the log has the address that it names."""
        factory: Any = HAProxyWrappingFactory(self.site)
        client = Exchange(factory, self.clock)
        client.send(b"PROXY TCP4 203.0.113.7 192.0.2.1 5555 80\r\n" + UPLOAD)
        assert self.access_log[-1].startswith("203.0.113.7 POST ")
        for _ in range(3):
            client.send(b"x" * 50_000)
        assert client.receive().startswith(b"HTTP/1.1 405 ")
        assert client.transport.connected
        client.hang_up()

    def test_nothing_or_half_a_head(self) -> None:
        """With no whole request here, the connection closes."""
        for data in (b"", HEALTH[:9], HEALTH):
            client = self.connect()
            client.send(data)
            client.end_input()
            client.receive()
            assert not client.transport.connected

    def test_gone(self) -> None:
        """A client that is gone is found out, whichever of its requests is being answered."""
        late = [self.late_page(f"cold{number}") for number in range(2)]
        client = self.connect()
        client.send(written("GET", "/index/cold0/") + written("GET", "/index/cold1/"))
        client.end_input()
        late[0].end()
        client.receive()
        self.clock.pass_time(HALF_CLOSE_GRACE)
        client.receive()
        assert client.received.endswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        client.leave()
        self.clock.pass_time(POLL + 1)
        assert not client.transport.connected
