"""One connection: how long it may take, what it may bring, and how much is answered ahead."""

from __future__ import annotations

from proxpi.web.channel import IDLE_TIMEOUT, MAX_BODY, REQUEST_TIMEOUT
from proxpi.web.transfer import AT_ONCE, POLL, STALL_TIMEOUT
from tests.support.agent import Reply
from tests.support.cases import FILES, MIB, ProxpiCase
from tests.support.exchange import Exchange
from tests.support.exchange import request as written
from tests.support.logs import logged
from tests.support.pipe import PipeExchange, play_kernel

HEALTH = written("GET", "/health")


class ChannelCase(ProxpiCase):
    """Tests of connections in memory, with and without a kernel below."""

    def plain(self, capacity: int) -> PipeExchange:
        """Connect over a plain socket."""
        client = PipeExchange(self.site, self.clock, capacity)
        self.addCleanup(client.wire.hang_up)
        play_kernel(self, client.wire)
        return client

    def served(self, client: Exchange) -> bool:
        """Ask for the health, and tell whether it is told."""
        client.ask("GET", "/health")
        answer = client.answer()
        return answer is not None and answer.status == 200

    def open_for(self, client: Exchange, seconds: float) -> None:
        """See that a connection is still open a little before that time, and not after it."""
        self.clock.pump([1] * (int(seconds) - 1))
        assert not client.closed
        self.clock.pump([1, 1])
        client.receive()
        assert client.closed


class Time(ChannelCase):
    """How long a connection may take."""

    def test_silent(self) -> None:
        """One on which nothing ever comes is closed when a request should be here."""
        self.open_for(self.connect(), REQUEST_TIMEOUT)

    def test_byte_by_byte(self) -> None:
        """A head that comes byte by byte has no more time than any other."""
        client = self.connect()
        for byte in HEALTH[: int(REQUEST_TIMEOUT) - 1]:
            client.send(bytes([byte]))
            self.clock.advance(1)
        assert not client.closed
        self.clock.advance(1)
        assert client.closed

    def test_body_byte_by_byte(self) -> None:
        """Nor has a body."""
        client = self.connect()
        client.send(b"POST /index/ HTTP/1.1\r\nHost: h\r\nContent-Length: 60000\r\n\r\n")
        for _ in range(int(REQUEST_TIMEOUT) - 1):
            client.send(b"x")
            self.clock.advance(1)
        assert not client.closed
        self.clock.advance(1)
        assert client.closed

    def test_slow_but_whole(self) -> None:
        """A head that takes its time, and comes, is answered."""
        client = self.connect()
        client.send(HEALTH[:10])
        self.clock.advance(REQUEST_TIMEOUT - 1)
        client.send(HEALTH[10:])
        answer = client.answer()
        assert answer is not None and answer.status == 200

    def test_idle(self) -> None:
        """Between requests a connection stays for longer, each time anew."""
        client = self.connect()
        for _ in range(3):
            assert self.served(client)
            self.clock.pump([1] * int(IDLE_TIMEOUT - 1))
        assert self.served(client)
        self.open_for(client, IDLE_TIMEOUT)

    def test_next_head(self) -> None:
        """The time of a later head counts from its first byte."""
        client = self.connect()
        assert self.served(client)
        self.clock.pump([1] * 20)
        client.send(HEALTH[:5])
        self.open_for(client, REQUEST_TIMEOUT)

    def test_next_head_in_one_packet(self) -> None:
        """Also if that byte came with the request before."""
        client = self.connect()
        client.send(HEALTH + HEALTH[:5])
        assert client.answer() is not None
        self.open_for(client, REQUEST_TIMEOUT)

    def test_waiting_for_an_answer(self) -> None:
        """A client that waits for its answer is not dropped, however long that takes."""
        self.build(timeout=1000)
        self.serve("demo.whl", b"data", Reply(200, b"da", whole=False))
        client = self.connect()
        client.ask("GET", "/index/demo/demo.whl")
        self.clock.pump([1] * 19)
        assert not client.closed
        self.internet.at(FILES + "demo.whl", Reply(200, b"da", whole=False))
        self.clock.pump([1] * 19)
        assert not client.closed

    def test_gone_while_closing(self) -> None:
        """A client that does not take part in the end of its connection is dropped."""
        client = self.connect()
        self.clock.pump([1] * int(REQUEST_TIMEOUT + POLL + 1))
        assert client.aborted
        assert self.clock.getDelayedCalls() == []


class Taking(ChannelCase):
    """Clients that do not take a small answer, which the server has long since written."""

    def setUp(self) -> None:
        """Serve one, and ask for it over a kernel that takes little."""
        super().setUp()
        self.serve("small.whl", b"x" * (AT_ONCE - 1), project="small")
        self.client = self.plain(10_000)
        self.client.ask("GET", "/index/small/small.whl")

    def test_stalled(self) -> None:
        """One that takes nothing is dropped after a minute, and not before."""
        self.client.wire.take(5000)
        self.clock.pump([1] * int(STALL_TIMEOUT - 1))
        assert not self.client.closed
        self.clock.pump([1] * int(2 * POLL + 2))
        assert self.client.wire.aborted
        assert self.clock.getDelayedCalls() == []

    def test_stalled_at_the_end(self) -> None:
        """The same goes for one whose connection is to close after the answer."""
        client = self.plain(10_000)
        client.ask("GET", "/index/small/small.whl", "Connection: close")
        client.wire.take(5000)
        self.clock.pump([1] * int(STALL_TIMEOUT - 1))
        assert not client.wire.aborted
        self.clock.pump([1] * int(2 * POLL + 2))
        assert client.wire.aborted and client.wire.ended

    def test_slow_but_steady(self) -> None:
        """One that takes a little each minute gets all of it, and may ask again."""
        taken = b""
        while len(taken) < AT_ONCE:
            self.clock.pump([POLL] * 11)
            assert not self.client.closed
            taken += self.client.wire.take(9000)
        assert taken.endswith(b"x" * (AT_ONCE - 1))
        self.client._methods.clear()
        assert self.served(self.client)

    def test_slow_with_a_head(self) -> None:
        """The time of a next head does not run while the answer before it is taken."""
        self.client.send(HEALTH[:5])
        for _ in range(10):
            self.clock.pump([POLL] * 11)
            assert not self.client.closed
            self.client.wire.take(9000)
        while self.client.wire.take():
            pass
        self.clock.pump([1] * int(REQUEST_TIMEOUT - POLL - 1))
        assert not self.client.closed
        self.clock.pump([1] * int(2 * POLL + 2))
        assert self.client.closed


class Pipelined(ChannelCase):
    """Clients that ask without taking the answers."""

    def answers(self, client: Exchange) -> int:
        """Take all that comes, and count the answers in it."""
        return client.receive().count(b"HTTP/1.1 200 OK")

    def test_thousand_unread(self) -> None:
        """A thousand requests in one go hold a few answers in memory, and all are answered."""
        self.serve("demo.whl", b"x" * 10_000)
        assert self.get("/index/demo/demo.whl").status == 200
        client = self.plain(20_000)
        with logged("proxpi.access") as log:
            client.send(written("GET", "/index/demo/demo.whl") * 1000)
            client.wire.go_on()
        assert client.wire.buffered < 100_000
        assert len(log.lines) < 15
        assert not client.wire.reading
        assert self.answers(client) == 1000
        assert client.wire.reading

    def test_thousand_small(self) -> None:
        """So it is with answers of a few bytes, each of which would fit."""
        client = self.plain(20_000)
        with logged("proxpi.access") as log:
            client.send(HEALTH * 1000)
            client.wire.go_on()
        assert client.wire.buffered < 100_000
        assert len(log.lines) < 1000
        assert self.answers(client) == 1000

    def test_behind_a_file(self) -> None:
        """What comes while a file is sent that nobody takes is not read for ever."""
        self.serve("demo.whl", b"x" * MIB)
        assert self.get("/index/demo/demo.whl").status == 200
        for client in (self.plain(20_000), self.connect()):
            client.ask("GET", "/index/demo/demo.whl")
            for _ in range(50):
                client.send(HEALTH * 40)
            assert not client.wire.reading
            assert self.answers(client) == 2001

    def test_stalled(self) -> None:
        """A client that takes none of them is dropped like any other."""
        client = self.plain(20_000)
        client.send(HEALTH * 1000)
        self.clock.pump([1] * int(STALL_TIMEOUT - 1))
        assert not client.closed
        self.clock.pump([1] * int(2 * POLL + 2))
        assert client.wire.aborted


class Bodies(ChannelCase):
    """What clients bring along."""

    def upload(self, *headers: str, body: bytes = b"") -> Exchange:
        """Bring something."""
        client = self.connect()
        client.send(written("POST", "/index/", *headers) + body)
        return client

    def test_too_long(self) -> None:
        """A body that says to be too long is refused before it comes, after the method is."""
        for method, status in (("POST", 405), ("DELETE", 413), ("GET", 405), ("PUT", 405)):
            client = self.connect()
            client.send(written(method, "/cache", f"Content-Length: {MAX_BODY + 1}"))
            answer = client.answer()
            assert answer is not None and answer.status == status
            assert status == 413 or answer.headers["allow"] == "DELETE, OPTIONS"
            assert client.closed

    def test_not_asked_for(self) -> None:
        """A client that waits for a leave to send it gets none."""
        client = self.upload("Content-Length: 10000000", "Expect: 100-continue")
        assert client.receive().startswith(b"HTTP/1.1 405 ")
        client = self.connect()
        client.send(written("POST", "/admin/x", "Content-Length: 100000", "Expect: 100-continue"))
        assert client.receive().startswith(b"HTTP/1.1 404 ")

    def test_longest(self) -> None:
        """One that is just not too long is taken, whatever becomes of it."""
        client = self.upload(f"Content-Length: {MAX_BODY}", body=b"x" * MAX_BODY)
        answer = client.answer()
        assert answer is not None and answer.status == 405
        assert self.served(client)

    def test_chunks(self) -> None:
        """One that does not say how long it is may be as long."""
        chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
        client = self.upload("Transfer-Encoding: chunked", body=chunk * 2 + b"0\r\n\r\n")
        answer = client.answer()
        assert answer is not None and answer.status == 405

    def test_endless_chunks(self) -> None:
        """And no longer; it is no request."""
        chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
        for path, status in (("/index/", 405), ("/admin/forget-project", 413)):
            for end in (b"", b"0\r\n\r\n"):
                client = self.connect()
                client.send(written("POST", path, "Transfer-Encoding: chunked") + chunk * 5 + end)
                client.send(chunk)
                assert client.receive().count(b"HTTP/1.1 ") == 1
                answer = client.answer()
                assert answer is not None and answer.status == status
                assert client.closed
        assert self.unhandled() == []

    def test_form(self) -> None:
        """A form that is too long is no form."""
        client = self.connect()
        client.ask("POST", "/admin/forget-project", body="x" * 200_000)
        answer = client.answer()
        assert answer is not None and answer.status == 413


class Versions(ChannelCase):
    """What is spoken."""

    def test_no_http_2(self) -> None:
        """HTTP/2 is not offered: none of this would hold there."""
        assert self.site.acceptableProtocols() == [b"http/1.1"]
