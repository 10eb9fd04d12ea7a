"""More clients than there is room for, and the end of the process."""

from __future__ import annotations

from typing import Any

from proxpi.web.server import CLOSE_TIMEOUT, DRAIN_POLL, MAX_REFUSED
from tests.support.agent import Reply
from tests.support.cases import MIB, ProxpiCase
from tests.support.exchange import Exchange
from tests.support.logs import logged
from tests.support.pipe import PipeExchange, play_kernel

PATH = "/index/demo/demo.whl"


class CrowdCase(ProxpiCase):
    """Tests of a server with room for a few."""

    room = 8

    def setUp(self) -> None:
        """Build it."""
        super().setUp()
        self.build(client_descriptors=self.room)
        self.serve("demo.whl", b"data", Reply(200, b"da", whole=False))

    def said(self, client: Exchange, path: str = "/nothing") -> int:
        """Ask, and give the status."""
        client.ask("GET", path)
        answer = client.answer()
        assert answer is not None
        if answer.status == 503:
            assert 0 < int(answer.headers["retry-after"]) <= 30
        return answer.status


class Connections(CrowdCase):
    """More connections than there is room for."""

    def test_refused(self) -> None:
        """Those that are too many are told to come back, and those before are served on."""
        first = [self.connect() for _ in range(6)]
        for _ in range(2):
            late = self.connect()
            assert self.said(late) == 503
            assert late.closed
            late.hang_up()
        assert [self.said(client) for client in first] == [404] * 6

    def test_health(self) -> None:
        """The health is told to everybody."""
        clients = [self.connect() for _ in range(10)]
        assert [self.said(client, "/health") for client in clients] == [200] * 10

    def test_room_again(self) -> None:
        """Once somebody has gone there is room again."""
        first = [self.connect() for _ in range(6)]
        first[3].hang_up()
        assert self.said(self.connect()) == 404

    def test_flood(self) -> None:
        """Of those that are refused only a few are kept: the oldest goes, the newest is heard."""
        flood = [self.connect() for _ in range(6 + 3 * MAX_REFUSED)]
        self.clock.advance(0)
        assert sum(not client.closed for client in flood) == 6 + MAX_REFUSED
        assert self.said(self.connect(), "/health") == 200

    def test_logged_once(self) -> None:
        """The log has one line for all of them, and one more when it happens again."""
        with logged("proxpi.web") as log:
            for _ in range(2):
                clients = [self.connect() for _ in range(20)]
                for client in clients:
                    client.hang_up()
        assert log.levels == ["warn", "warn"]


class Requests(CrowdCase):
    """More requests than there is room for."""

    def test_refused(self) -> None:
        """A request that finds no descriptor left is refused; its connection stays."""
        clients = [self.connect() for _ in range(6)]
        for client in clients[:2]:
            client.ask("GET", PATH)
            assert client.answer() is None
        assert self.said(clients[2]) == 503
        assert not clients[2].closed
        assert self.said(clients[2], "/health") == 200
        clients[0].hang_up()
        assert self.said(clients[2]) == 404

    def test_new_connection(self) -> None:
        """Requests leave less room for connections."""
        for _ in range(4):
            self.connect().ask("GET", PATH)
        assert self.said(self.connect()) == 503


class Drain(ProxpiCase):
    """The end of the process."""

    def drain(self, seconds: float = 8.0) -> Any:
        """Begin it."""
        return self.site.drain(seconds)

    def test_nobody(self) -> None:
        """With nobody there it is over at once."""
        self.result(self.drain())
        assert self.clock.getDelayedCalls() == []

    def test_idle(self) -> None:
        """Connections without a request are closed at once."""
        silent, served = self.connect(), self.connect()
        served.ask("GET", "/health")
        served.answer()
        drained = self.drain()
        for client in (silent, served):
            assert client.closed
            client.receive()
        self.clock.advance(DRAIN_POLL)
        self.result(drained)

    def test_half_a_head(self) -> None:
        """So are those with a request that has not come whole."""
        client = self.connect()
        client.send(b"GET /health")
        drained = self.drain()
        client.receive()
        self.clock.advance(DRAIN_POLL)
        self.result(drained)

    def test_file(self) -> None:
        """What is being sent is finished, at the client's pace, down to its last byte."""
        data = b"x" * MIB
        self.serve("demo.whl", data)
        assert self.get(PATH).body == data
        client = PipeExchange(self.site, self.clock, 100_000)
        play_kernel(self, client.wire)
        client.ask("GET", PATH)
        drained = self.drain()
        taken = b""
        while not taken.endswith(data):
            self.clock.advance(DRAIN_POLL)
            self.pending(drained)
            taken += client.wire.take(20_000)
        self.clock.advance(DRAIN_POLL)
        client.wire.go_on()
        assert client.wire.ended and not client.wire.aborted
        self.clock.advance(DRAIN_POLL)
        self.result(drained)

    def test_in_the_kernel(self) -> None:
        """An answer counts as sent once the client has it, also where it wants the end itself."""
        client = PipeExchange(self.site, self.clock)
        play_kernel(self, client.wire)
        self.serve("demo.whl", b"data", Reply(200, b"da", whole=False))
        client.ask("GET", PATH, "Connection: close")
        drained = self.drain()
        self.clock.pump([0.25] * 4)
        client.wire.go_on()
        assert b" 302 " in client.wire.kernel
        self.clock.pump([DRAIN_POLL] * 10)
        self.pending(drained)
        client.wire.take()
        self.clock.pump([DRAIN_POLL])
        client.wire.go_on()
        self.clock.pump([DRAIN_POLL])
        self.result(drained)

    def test_announced(self) -> None:
        """An answer that has not begun says that the connection ends; no request comes after."""
        self.serve("demo.whl", b"data", Reply(200, b"da", whole=False))
        client = self.connect()
        client.ask("GET", PATH)
        client.ask("GET", "/health")
        drained = self.drain()
        self.clock.pump([0.25] * 4)
        answer = client.answer()
        assert answer is not None
        assert (answer.status, answer.headers["connection"]) == (302, "close")
        self.clock.pump([DRAIN_POLL] * 2)
        assert client.answer() is None
        assert client.closed
        self.clock.pump([DRAIN_POLL] * 2)
        self.result(drained)

    def stuck(self) -> Exchange:
        """Give a client that takes nothing of what is being sent."""
        self.serve("demo.whl", b"x" * MIB)
        assert self.get(PATH).status == 200
        client = self.connect()
        client.ask("GET", PATH)
        return client

    def test_time_is_over(self) -> None:
        """What is not sent by then is cut off."""
        client = self.stuck()
        drained = self.drain(8)
        self.clock.pump([DRAIN_POLL] * int(7.9 / DRAIN_POLL))
        self.pending(drained)
        self.clock.pump([DRAIN_POLL] * 4)
        self.result(drained)
        assert client.aborted
        assert self.open_files() == []

    def test_hurry(self) -> None:
        """Whoever asks a second time waits for nothing."""
        client = self.stuck()
        drained = self.drain(8)
        self.site.abort_drain()
        self.clock.pump([DRAIN_POLL] * 2)
        self.result(drained)
        assert client.aborted

    def test_no_time(self) -> None:
        """With no time at all everything is cut off at once."""
        client = self.stuck()
        self.result(self.drain(0))
        self.clock.advance(0)
        assert client.aborted

    def test_farewell(self) -> None:
        """A client that takes no part in the end of its idle connection is not waited for."""
        client = self.connect()
        drained = self.drain(8)
        self.clock.pump([DRAIN_POLL] * (int(CLOSE_TIMEOUT / DRAIN_POLL) + 4))
        assert client.aborted
        self.result(drained)
