"""The end of a connection: what a client may still write, for how long, and half-closed clients."""

from __future__ import annotations

import socket

import attrs
from twisted.protocols.haproxy._wrapper import HAProxyWrappingFactory

from proxpi.web import channel
from proxpi.web.channel import HALF_CLOSE_GRACE, LINGER_TIMEOUT, MAX_BODY, REQUEST_TIMEOUT, State
from proxpi.web.transfer import POLL
from tests.support.cases import ProxpiCase, page
from tests.support.exchange import request as written
from tests.support.kernel import Client
from tests.support.logs import logged
from tests.web.knowing import DATA, INDEX_PAGE, JSON, LARGE, PAGE, KnownCase

BAD = b"GET foo HTTP/1.1\r\nHost: h\r\n\r\n"
UPLOAD = written("POST", PAGE, "Content-Length: 100000000")


class Lingering(KnownCase):
    """What comes behind the last response is discarded."""

    def ended(self, client: Client) -> bool:
        """Tell whether the server has let go of a connection."""
        return not client.transport.connected

    def write_on(self, client: Client, data: bytes) -> None:
        """Write although the server has closed its sending side."""
        client.closed = False
        client.send(data)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and everything that is due happen."""
        for _ in range(int(seconds)):
            self.clock.advance(1)
            while self.clock.turn():
                pass

    def test_answer_and_end(self) -> None:
        """The client reads a whole answer and its end, while it may still write."""
        for head, status in ((BAD, b"400"), (UPLOAD, b"405")):
            client = self.client()
            received = self.ask_with(client, head)
            assert received.startswith(b"HTTP/1.1 " + status)
            for data in (b"x" * 50_000, b"\r\n\r\n", written("GET", PAGE)):
                self.write_on(client, data)
            assert client.settle() == received
            assert client.closed
            assert not self.ended(client)

    def test_time(self) -> None:
        """It may do so for some seconds."""
        client = self.client()
        self.ask_with(client, BAD)
        self.pass_time(LINGER_TIMEOUT - 1)
        assert not self.ended(client)
        self.pass_time(2 * POLL + 1)
        assert self.ended(client)

    def test_bytes(self) -> None:
        """And it may write so many bytes."""
        self.put(channel, "MAX_LINGER", 200_000)
        client = self.client()
        self.ask_with(client, UPLOAD)
        for _ in range(2):
            self.write_on(client, b"x" * 60_000)
        assert not self.ended(client)
        for _ in range(4):
            self.write_on(client, b"x" * 60_000)
        self.pass_time(1)
        assert self.ended(client)

    def test_client_ends(self) -> None:
        """Once the client has closed as well, the connection is over."""
        client = self.client()
        self.ask_with(client, BAD)
        client.hang_up()
        self.pass_time(1)
        assert self.ended(client)

    def test_short_body(self) -> None:
        """A short body that no resource reads is discarded, and the connection stays."""
        for count in (1, 1000, MAX_BODY):
            client = self.client()
            head = written("POST", PAGE, f"Content-Length: {count}")
            assert self.ask_with(client, head).startswith(b"HTTP/1.1 405 ")
            body = b"G" * count
            for start in range(0, count, 10_000):
                client.send(body[start : start + 10_000])
            assert self.ask_with(client, written("GET", PAGE)).startswith(b"HTTP/1.1 200 ")

    def test_short_body_that_does_not_come(self) -> None:
        """It has to come in the time that a request has."""
        client = self.client()
        self.ask_with(client, written("POST", PAGE, "Content-Length: 10"))
        self.pass_time(REQUEST_TIMEOUT - 1)
        assert not self.ended(client)
        self.pass_time(2 * POLL + 1)
        assert self.ended(client)

    def test_slow_client(self) -> None:
        """A client that takes the last response slowly gets all of it."""
        client = self.client()
        client.send(written("GET", PAGE + LARGE, "Content-Length: 100000000"))
        while client.transport.protocol._state is not State.LINGER:
            assert client.read(1000)
            self.clock.turn()
        for _ in range(4):
            assert client.read(40_000)
            self.pass_time(LINGER_TIMEOUT / 3)
            assert not self.ended(client)
        assert client.settle().endswith(DATA[LARGE])


class Balanced(KnownCase):
    """Connections that begin with a PROXY header end like any other."""

    def front(self) -> HAProxyWrappingFactory:
        """See `KnownCase`."""
        return HAProxyWrappingFactory(self.site)

    def client(self, room: int | None = None) -> Client:
        """Connect by way of a balancer."""
        client = super().client(room)
        client.send(b"PROXY TCP4 203.0.113.7 192.0.2.1 5555 80\r\n")
        return client

    def test_half_closed(self) -> None:
        """A client that has closed its sending side gets its response, and then the end."""
        client = self.client()
        late = attrs.evolve(page(), whole=False)
        self.internet.at(INDEX_PAGE.replace("demo", "cold"), late)
        client.send(written("GET", "/index/cold/", JSON))
        client._socket.shutdown(socket.SHUT_WR)
        client.settle()
        late.end()
        assert client.settle().startswith(b"HTTP/1.1 200 ")
        assert client.closed

    def test_upload(self) -> None:
        """A client that writes all of a refused body before it reads can read the response."""
        client = self.client()
        received = self.ask_with(client, UPLOAD)
        assert received.startswith(b"HTTP/1.1 405 ")
        for _ in range(3):
            client.closed = False
            client.send(b"x" * 50_000)
            assert not client.closed
        assert client.transport.connected


class AfterTheLast(ProxpiCase):
    """Requests behind the last one of a connection (RFC 9112 9.6)."""

    def test_not_answered(self) -> None:
        """What a client sends after its ``Connection: close`` is neither done nor answered."""
        for method in ("GET", "DELETE", "POST"):
            exchange = self.connect(tls=True)
            exchange.ask("GET", "/health", "Connection: close")
            exchange.send(written(method, "/cache/demo"))
            exchange.send(b"x" * 100_000)
            with logged("proxpi.access") as log:
                received = exchange.receive()
            assert received.count(b"HTTP/1.1 ") == 1
            assert log.lines == []
            assert exchange.closed


class HalfClosed(KnownCase):
    """Clients whose sending side is closed, and who may be gone."""

    def test_second_of_two(self) -> None:
        """A client that is gone is found out whichever of its requests is being answered."""
        late = [attrs.evolve(page(), whole=False) for _ in range(2)]
        for number, reply in enumerate(late):
            self.internet.at(INDEX_PAGE.replace("demo", f"cold{number}"), reply)
        client = self.client()
        client.send(written("GET", "/index/cold0/") + written("GET", "/index/cold1/"))
        client._socket.shutdown(socket.SHUT_WR)
        client.settle()
        late[0].end()
        client.settle()
        for _ in range(3):
            self.clock.advance(HALF_CLOSE_GRACE)
            client.settle()
        assert client.received.endswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        client.hang_up()
        for _ in range(int(POLL) + 1):
            self.clock.advance(1)
            self.clock.turn()
        assert not client.transport.connected
