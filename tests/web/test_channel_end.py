"""The end of a connection: what a client may still write, for how long, and half-closed clients."""

from __future__ import annotations

from proxpi.web import channel
from proxpi.web.channel import BODY, HEAD, LINGER
from proxpi.web.send import LOOK
from tests.support.exchange import request as written
from tests.support.kernel import Client
from tests.web.knowing import PAGE, KnownCase

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
        self.pass_time(LINGER - 1)
        assert not self.ended(client)
        self.pass_time(2 * LOOK + 1)
        assert self.ended(client)

    def test_bytes(self) -> None:
        """And it may write so many bytes."""
        self.put(channel, "LINGER_BYTES", 200_000)
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
        for count in (1, 1000, BODY):
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
        self.pass_time(HEAD - 1)
        assert not self.ended(client)
        self.pass_time(2 * LOOK + 1)
        assert self.ended(client)
