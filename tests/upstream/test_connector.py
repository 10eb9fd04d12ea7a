"""The connector: which addresses are tried, in which order, and for how long."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectionRefusedError, TimeoutError
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from proxpi.upstream.address_policy import AddressPolicy
from proxpi.upstream.connector import Connector
from proxpi.upstream.errors import AddressBlocked
from tests.support.cases import Case
from tests.support.indexes import CONNECT_TIMEOUT, PUBLIC

#: Seconds from one attempt to the next.
NEXT = 0.3


class ConnectorTests(Case):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.found: Deferred[list[str]] = succeed([PUBLIC])
        self.asked: list[str] = []
        self.connector = Connector(
            self.reactor, CONNECT_TIMEOUT, self.look_up, AddressPolicy((), (), self.look_up)
        )

    def look_up(self, host: str) -> Deferred[list[str]]:
        self.asked.append(host)
        return self.found

    def connect(
        self, host: bytes = b"index.example", *, trusted: bool = False
    ) -> Deferred[IProtocol]:
        return self.connector.endpoint(host, 80, trusted=trusted).connect(
            Factory.forProtocol(Protocol)
        )

    @property
    def tried(self) -> list[str]:
        return [attempt[0] for attempt in self.reactor.tcpClients]

    def accept(self) -> None:
        factory: Any = self.reactor.tcpClients[-1][2]
        factory.buildProtocol(None).makeConnection(StringTransport())

    def refuse(self) -> None:
        factory: Any = self.reactor.tcpClients[-1][2]
        factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))

    def test_found(self) -> None:
        """The address that was looked up is connected to."""
        self.connect()
        self.connect(b"Index.Example")
        assert (self.asked, self.tried) == (["index.example"] * 2, [PUBLIC] * 2)

    def test_in_turns(self) -> None:
        """Both versions of IP take turns, from the best address on (RFC 8305)."""
        self.found = succeed(["2600::1", "2600::2", "2600::3", "1.2.3.4", "1.2.3.5"])
        self.connect()
        self.reactor.pump([NEXT] * 4)
        assert self.tried == ["2600::1", "1.2.3.4", "2600::2", "1.2.3.5", "2600::3"]

    def test_literal(self) -> None:
        """An address is connected to in the spelling that was checked, without a lookup."""
        for host in (b"1.2.3.4", b"16909060", b"0x01.0x020304", b"1.2.3.4."):
            self.connect(host)
        assert (self.asked, self.tried) == ([], ["1.2.3.4"] * 4)

    def test_odd_names(self) -> None:
        """Names that IDNA refuses are looked up: resolvers know some."""
        for host in (b"my_index", b"a" * 64, b"a--b.example", b"-a.example"):
            self.connect(host)
        assert self.tried == [PUBLIC] * 4

    def test_private(self) -> None:
        """A private address of any host name is not tried."""
        self.found = succeed(["127.0.0.1"])
        self.error(self.connect(), AddressBlocked)
        self.error(self.connect(b"127.0.0.1"), AddressBlocked)
        self.error(self.connect(b"0x7f.1"), AddressBlocked)
        assert self.tried == []

    def test_allowed(self) -> None:
        """Only allowed addresses are tried, checked for each connection; all of a trusted host."""
        self.found = succeed(["10.0.0.1", "169.254.169.254", PUBLIC, "::1"])
        self.connect()
        self.reactor.pump([NEXT] * 5)
        assert self.tried == [PUBLIC]
        self.found = succeed(["127.0.0.1"])
        self.error(self.connect(), AddressBlocked)
        self.connect(trusted=True)
        assert self.tried == [PUBLIC, "127.0.0.1"]

    def test_name_and_connection_together(self) -> None:
        """The lookup counts against the connect timeout."""
        self.found = Deferred()
        connected = self.connect()
        self.reactor.advance(2)
        self.found.callback(["1.2.3.4"])
        self.pending(connected)
        self.reactor.advance(CONNECT_TIMEOUT - 2 - 0.1)
        self.pending(connected)
        self.reactor.advance(0.2)
        self.error(connected, TimeoutError)

    def test_all_addresses_together(self) -> None:
        """Many addresses that do not answer take no longer than one."""
        self.found = succeed([f"1.2.3.{number}" for number in range(50)])
        connected = self.connect()
        self.reactor.pump([0.1] * int(CONNECT_TIMEOUT * 10 + 1))
        self.error(connected, TimeoutError)
        assert self.reactor.getDelayedCalls() == []
        assert all(connector.stoppedConnecting for connector in self.reactor.connectors)

    def test_cancelled(self) -> None:
        """A cancelled connection ends the attempt, or the lookup."""
        connected = self.connect()
        connected.cancel()
        self.error(connected, Exception)
        assert self.reactor.connectors[0].stoppedConnecting
        self.found = Deferred()
        connected = self.connect()
        connected.cancel()
        self.error(connected, CancelledError)
        assert self.reactor.getDelayedCalls() == []
