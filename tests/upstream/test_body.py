"""Bodies: each comes to one of its four ends, and lets go of its connection."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http import PotentialDataLoss

from proxpi.upstream.errors import BodyStalled, BodyTimeout, BodyTooLong, BodyTruncated
from proxpi.upstream.response import DRAIN_LIMIT, discard, receive
from tests.support.cases import Case


class Response:
    """A response whose body the test sends."""

    def deliverBody(self, protocol: Protocol) -> None:
        """Connect the receiver."""
        self.receiver = protocol
        self.transport = StringTransportWithDisconnection()
        self.transport.protocol = Protocol()
        protocol.makeConnection(self.transport)

    def end(self, reason: Exception) -> None:
        """End the body."""
        self.receiver.connectionLost(Failure(reason))

    @property
    def closed(self) -> bool:
        """Whether the receiver closed the connection."""
        return not self.transport.connected


class BodyTests(Case):
    """The ends of a body."""

    def setUp(self) -> None:
        """Prepare a response."""
        self.clock = Clock()
        self.response = Response()
        self.chunks: list[bytes] = []

    def receive(self, limit: int | None = None) -> Deferred[bool]:
        """Receive the body into a list."""
        return receive(
            self.response, self.chunks.append, clock=self.clock, idle_timeout=20.0, limit=limit
        )

    def assert_over(self) -> None:
        """Nothing is left behind, and nothing that comes later matters."""
        assert self.clock.getDelayedCalls() == []
        chunks = list(self.chunks)
        self.response.receiver.dataReceived(b"late")
        self.response.end(ConnectionDone())
        assert self.chunks == chunks

    def test_complete(self) -> None:
        """A body whose end was announced is whole, and its connection stays open."""
        ended = self.receive()
        self.response.receiver.dataReceived(b"one")
        self.response.receiver.dataReceived(b"two")
        self.pending(ended)
        self.response.end(ResponseDone())
        assert self.result(ended) is True
        assert self.chunks == [b"one", b"two"]
        assert not self.response.closed
        self.assert_over()

    def test_end_not_announced(self) -> None:
        """A body that ends with its connection may be whole or not, and says so."""
        ended = self.receive()
        self.response.end(PotentialDataLoss())
        assert self.result(ended) is False
        self.assert_over()

    def test_cut(self) -> None:
        """A body that ends before its announced end has failed."""
        ended = self.receive()
        self.response.receiver.dataReceived(b"one")
        self.response.end(ResponseFailed([Failure(ConnectionDone())]))
        self.error(ended, BodyTruncated)
        self.assert_over()

    def test_idle(self) -> None:
        """A body that brings nothing for too long is given up, and its connection closed."""
        ended = self.receive()
        self.clock.advance(19.9)
        self.pending(ended)
        self.clock.advance(0.2)
        self.error(ended, BodyTimeout)
        assert self.response.closed
        self.assert_over()

    def test_slow_is_not_idle(self) -> None:
        """Each chunk gives the upstream the whole time again."""
        ended = self.receive()
        for _ in range(10):
            self.clock.advance(19)
            self.response.receiver.dataReceived(b"x")
        self.pending(ended)
        self.clock.advance(20.1)
        self.error(ended, BodyTimeout)
        assert len(self.chunks) == 10

    def test_limit(self) -> None:
        """A body may have as many bytes as the limit says, and not one more."""
        ended = self.receive(limit=4)
        self.response.receiver.dataReceived(b"1234")
        self.pending(ended)
        self.response.receiver.dataReceived(b"5")
        self.error(ended, BodyTooLong)
        assert self.chunks == [b"1234"]
        assert self.response.closed
        self.assert_over()

    def test_cancel(self) -> None:
        """Who no longer wants the body closes its connection."""
        ended = self.receive()
        ended.cancel()
        self.error(ended, CancelledError)
        assert self.response.closed
        self.assert_over()

    def test_write_fails(self) -> None:
        """What the taker of the chunks raises ends the body, and goes through."""

        def full(data: bytes) -> None:
            raise OSError("disk full")

        ended = receive(self.response, full, clock=self.clock, idle_timeout=20.0)
        self.response.receiver.dataReceived(b"one")
        self.error(ended, OSError)
        assert self.response.closed
        self.assert_over()

    def test_write_cancels(self) -> None:
        """The taker may end the body while it takes a chunk, and fail thereafter."""

        def enough(data: bytes) -> None:
            ended.cancel()
            raise OSError("too late to matter")

        ended = receive(self.response, enough, clock=self.clock, idle_timeout=20.0)
        self.response.receiver.dataReceived(b"one")
        self.error(ended, CancelledError)
        assert self.response.closed
        self.assert_over()

    def test_stalled(self) -> None:
        """A body that is not read for too long closes its connection, and gives the wait back."""
        for late in (False, True):
            room: Deferred[None] = Deferred()
            ended = receive(
                self.response,
                lambda _, room=room: room,  # type: ignore[misc]
                clock=self.clock,
                idle_timeout=20.0,
                stall_timeout=5.0,
            )
            self.response.receiver.dataReceived(b"one")
            self.clock.advance(4.9)
            if late:
                self.clock.advance(0.1)
                assert self.response.closed
                assert self.error(ended, BodyStalled).drained is room
                room.callback(None)
                self.assert_over()
            else:
                room.callback(None)
                self.clock.advance(15)
                assert not self.response.closed
                self.response.end(ResponseDone())
                assert self.result(ended) is True

    def test_write_cancels_and_waits(self) -> None:
        """A body that is cancelled by whoever takes its bytes waits for no room."""

        def take(_: bytes) -> Deferred[None]:
            ended.cancel()
            return Deferred()

        ended = receive(self.response, take, clock=self.clock, idle_timeout=20.0)
        self.response.receiver.dataReceived(b"one")
        self.error(ended, CancelledError)
        assert self.response.closed
        self.assert_over()

    def test_cancel_before_delivery(self) -> None:
        """A body that has not begun to come can be given up as well."""

        class Later(Response):
            def deliverBody(self, protocol: Protocol) -> None:
                self.receiver = protocol

        self.response = Later()
        ended = self.receive()
        ended.cancel()
        self.error(ended, CancelledError)
        self.assert_over()

    def test_delivery_fails(self) -> None:
        """A response that cannot deliver, since it cannot be decoded, ends at once."""

        class Undecodable(Response):
            def deliverBody(self, protocol: Protocol) -> None:
                super().deliverBody(protocol)
                raise ResponseFailed([Failure(ValueError())])

        self.response = Undecodable()
        ended = self.receive()
        self.error(ended, ResponseFailed)
        assert self.response.closed
        self.assert_over()

    def test_discard_short(self) -> None:
        """What nobody needs is read to its end, so that its connection can be used again."""
        discard(self.response, clock=self.clock, idle_timeout=20.0)
        self.response.receiver.dataReceived(b"x" * DRAIN_LIMIT)
        assert not self.response.closed
        self.response.end(ResponseDone())
        self.assert_over()

    def test_discard_long(self) -> None:
        """A long body that nobody needs is not worth its connection."""
        discard(self.response, clock=self.clock, idle_timeout=20.0)
        self.response.receiver.dataReceived(b"x" * (DRAIN_LIMIT + 1))
        assert self.response.closed
        self.assert_over()

    def test_discard_silently(self) -> None:
        """However an unwanted body ends, nobody is told."""
        discard(self.response, clock=self.clock, idle_timeout=20.0)
        self.clock.advance(20.1)
        assert self.response.closed
        assert self.unhandled() == []
