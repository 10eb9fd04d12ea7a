"""Tunnels: what is said to a proxy, what it may answer, and that no byte behind that is lost."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectionDone, ConnectionRefusedError, DNSLookupError
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from proxpi.upstream.errors import CredentialsRejected, ProxyFailed
from proxpi.upstream.proxies import Proxy
from proxpi.upstream.proxy_agent import HEAD_LIMIT, Tunnel
from tests.support.cases import Case
from tests.support.indexes import Line

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class User(Protocol):
    """The protocol that the tunnel is for: it greets, and keeps what comes."""

    data = b""
    ended: Failure | None = None

    def connectionMade(self) -> None:
        """Speak first, as a TLS client does."""
        self.write(b"hello")

    def write(self, data: bytes) -> None:
        """Send bytes to the other end."""
        assert self.transport is not None
        self.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.data += data

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        """Keep the reason."""
        self.ended = reason


#: Seconds that a tunnel may take to open; longer than anything here but a proxy that hangs.
TIMEOUT = 100.0


class Opening:
    """One attempt to open a tunnel to index.example:443."""

    def __init__(self, url: str = "http://proxy.example:3128", host: bytes = b"index.example"):
        self.proxy = Proxy.from_url(url)
        self.reactor = MemoryReactorClock()
        name = self.proxy.host.encode()
        endpoint = HostnameEndpoint(self.reactor, name, self.proxy.port)
        tunnel = Tunnel(
            proxy=self.proxy,
            endpoint=endpoint,
            host=host,
            port=443,
            user_agent=b"proxpi/2",
            timeout=TIMEOUT,
            clock=self.reactor,
        )
        self.connected: Deferred[IProtocol] = tunnel.connect(Factory.forProtocol(User))

    @property
    def attempt(self) -> Any:
        """The factory of the one connection that is attempted."""
        ((_, _, factory, _, _),) = self.reactor.tcpClients
        return factory

    def accept(self) -> Line:
        """Let the proxy accept the connection."""
        return Line(self.attempt.buildProtocol(None))

    def refuse(self, error: Exception) -> None:
        """Let the connection fail."""
        self.attempt.clientConnectionFailed(None, Failure(error))
        self.reactor.advance(10)  # for the other addresses that the proxy might have had


class TunnelCase(Case):
    """Tests of one tunnel."""

    def user(self, opening: Opening) -> User:
        """The protocol at this end of an open tunnel."""
        user = self.result(opening.connected)
        assert isinstance(user, User)
        return user

    def refusal(self, answer: bytes, url: str = "http://proxy.example:3128") -> ProxyFailed:
        """What becomes of an answer that opens no tunnel; the connection must be closed."""
        opening = Opening(url)
        line = opening.accept()
        line.send(answer)
        error = self.error(opening.connected, ProxyFailed)
        assert not line.open
        assert opening.reactor.getDelayedCalls() == []
        return error


class Requests(TunnelCase):
    """What is said to the proxy."""

    def test_request(self) -> None:
        """CONNECT names host and port, twice, and has neither body nor credentials."""
        assert Opening().accept().take() == (
            b"CONNECT index.example:443 HTTP/1.1\r\n"
            b"Host: index.example:443\r\n"
            b"User-Agent: proxpi/2\r\n"
            b"\r\n"
        )

    def test_credentials(self) -> None:
        """The proxy's credentials are in its own header."""
        asked = Opening("http://user:p%40ss@proxy.example:3128").accept().take()
        assert b"\r\nProxy-Authorization: Basic dXNlcjpwQHNz\r\n" in asked
        assert b"\r\nAuthorization" not in asked

    def test_ipv6(self) -> None:
        """An IPv6 address stands in brackets."""
        asked = Opening(host=b"2001:db8::1").accept().take()
        assert asked.startswith(
            b"CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n"
        )

    def test_nothing_before_the_answer(self) -> None:
        """Nothing that is for the host is said to the proxy, before or after."""
        opening = Opening()
        line = opening.accept()
        assert b"hello" not in line.take()
        line.send(ESTABLISHED)
        assert line.take() == b"hello"


class Answers(TunnelCase):
    """What opens a tunnel."""

    def test_both_ways(self) -> None:
        """What comes is the user's, what the user writes goes out, and its end is the end."""
        opening = Opening()
        line = opening.accept()
        line.send(ESTABLISHED)
        user = self.user(opening)
        line.take()
        line.send(b"one")
        line.send(b"two")
        assert user.data == b"onetwo"
        user.write(b"three")
        assert line.take() == b"three"
        line.close()
        assert user.ended is not None
        assert user.ended.check(ConnectionDone)

    @given(st.data())
    def test_any_pieces(self, data: st.DataObject) -> None:
        """However the answer is cut, the tunnel begins behind it, and no byte is lost."""
        head = data.draw(
            st.sampled_from(
                [
                    ESTABLISHED,
                    b"HTTP/1.0 200 OK\r\n\r\n",
                    b"HTTP/1.1 200\r\n\r\n",
                    b"HTTP/1.1 204 \r\nVia: 1.1 x\r\n\r\n",
                    b"HTTP/1.1 200 OK\nX: y\n\n",
                    # These two mean nothing here (RFC 9110 9.3.6).
                    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                    b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + ESTABLISHED,
                    b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
                ]
            )
        )
        body = data.draw(st.binary(max_size=20) | st.just(b"\r\n\r\nHTTP/1.1 407 x\r\n\r\n"))
        sent = head + body
        cuts = data.draw(st.lists(st.integers(0, len(sent)), max_size=6).map(sorted))
        opening = Opening()
        line = opening.accept()
        for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
            line.send(sent[start:end])
        assert self.user(opening).data == body
        assert line.open

    def test_byte_by_byte(self) -> None:
        """An answer may come as slowly as it likes, as long as somebody waits for it."""
        opening = Opening()
        line = opening.accept()
        for byte in ESTABLISHED + b"\x16\x03":
            line.send(bytes([byte]))
        assert self.user(opening).data == b"\x16\x03"

    def test_long(self) -> None:
        """Many headers are read and of no interest."""
        opening = Opening()
        start = b"HTTP/1.1 200 OK\r\nX: "
        opening.accept().send(start + b"x" * (HEAD_LIMIT - len(start) - 4) + b"\r\n\r\nmore")
        assert self.user(opening).data == b"more"

    def test_closed_at_once(self) -> None:
        """A tunnel that is closed as soon as it is open has been open."""
        opening = Opening()
        line = opening.accept()
        line.send(ESTABLISHED)
        line.close()
        assert self.user(opening).ended is not None


class Refusals(TunnelCase):
    """What opens none: each time the proxy is named, and nobody else."""

    def test_credentials(self) -> None:
        """407 means other credentials, or some at all; waiting does not bring them."""
        for userinfo, wanted in (("user:secret@", "other credentials"), ("", "credentials")):
            error = self.refusal(
                b"HTTP/1.1 407 Proxy Authentication Required\r\n"
                b"Proxy-Authenticate: Basic\r\nContent-Length: 4\r\n\r\nsome",
                f"http://{userinfo}proxy.example:3128",
            )
            assert str(error) == f"proxy http://proxy.example:3128: it wants {wanted} (status 407)"
            assert not error.temporary
            # Such probes are made less often: some servers count them.
            assert isinstance(error, CredentialsRejected)
            assert str(error.copy()) == str(error)
        # tinyproxy has this of credentials that are wrong.
        error = self.refusal(b"HTTP/1.0 401 Unauthorized\r\n\r\n", "http://u:p@proxy.example:3128")
        assert (error.cause, error.temporary) == ("it wants other credentials (status 401)", False)

    def test_statuses(self) -> None:
        """The proxy could not, or it would not; only the former may end by itself."""
        for status in (408, 425, 429, 500, 502, 503, 504, 599):
            error = self.refusal(b"HTTP/1.0 %d x\r\n\r\n" % status)
            assert (error.cause, error.temporary) == (
                f"it could not connect (status {status})",
                True,
            )
        for status in (300, 302, 400, 403, 404, 405, 418, 451):
            error = self.refusal(b"HTTP/1.1 %d x\r\n\r\n" % status)
            assert error.cause == f"it refuses to connect (status {status})"
            assert not error.temporary

    def test_garbage(self) -> None:
        """What is no answer of an HTTP proxy is recognized as soon as it can be."""
        for answer in (
            b"SSH-2.0-OpenSSH_9\r\n",
            b"\x15\x03\x01\x00\x02\x02\x16",
            b"HTTP/2 200 OK\r\n",
            b"HTTP/1.1 2000 OK\r\n\r\n",
            b"HTTP/1.1 OK\r\n\r\n",
            b"HTTP/1.1 \r\n\r\n",
            b"\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\nnonsense",
            ESTABLISHED.lower(),
        ):
            error = self.refusal(answer)
            assert str(error) == (
                "proxy http://proxy.example:3128: it does not answer as an HTTP proxy does"
            )

    def test_too_long(self) -> None:
        """A head without end is not waited for, nor interim answers without end."""
        self.refusal(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000)
        self.refusal(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n")
        self.refusal(b"HTTP/1.1 100 Continue\r\n\r\n" * 4_000)

    def test_closed(self) -> None:
        """A connection that ends before the answer does is the proxy's doing."""
        for said in (b"", ESTABLISHED[:-1]):
            opening = Opening()
            line = opening.accept()
            line.send(said)
            line.close()
            error = self.error(opening.connected, ProxyFailed)
            assert error.cause == "the connection was closed"
            assert error.temporary

    def test_not_connected(self) -> None:
        """So is a connection that cannot be made."""
        for reason, cause in (
            (ConnectionRefusedError(), "connection refused"),
            (DNSLookupError(), "host name not found"),
        ):
            opening = Opening("http://user:secret@proxy.example:3128")
            opening.refuse(reason)
            error = self.error(opening.connected, ProxyFailed)
            assert str(error) == f"proxy http://proxy.example:3128: {cause}"
            assert "secret" not in repr(vars(error))

    def test_more_after_a_refusal(self) -> None:
        """What a proxy goes on to say is nobody's."""
        opening = Opening()
        protocol = opening.attempt.buildProtocol(None)
        line = Line(protocol)
        line.send(b"HTTP/1.1 403 x\r\n\r\n")
        protocol.dataReceived(b"HTTP/1.1 200 OK\r\n\r\n")
        self.error(opening.connected, ProxyFailed)
        assert self.unhandled() == []


class Hanging(TunnelCase):
    """A proxy that takes the connection, and says nothing."""

    def test_named(self) -> None:
        """It is named once its time is over, and the connection closed."""
        opening = Opening()
        line = opening.accept()
        opening.reactor.advance(TIMEOUT - 1)
        self.pending(opening.connected)
        opening.reactor.advance(1)
        error = self.error(opening.connected, ProxyFailed)
        assert (error.cause, error.temporary) == ("timed out", True)
        assert "proxy.example" in str(error)
        assert not line.open


class Cancelled(TunnelCase):
    """Whoever does not want to wait leaves no connection behind."""

    def test_while_connecting(self) -> None:
        """A connection that is not there yet is not made."""
        opening = Opening()
        opening.connected.cancel()
        self.error(opening.connected, ProxyFailed)
        assert opening.reactor.connectors[0].stoppedConnecting
        assert opening.reactor.getDelayedCalls() == []

    def test_while_the_proxy_is_silent(self) -> None:
        """One that is waited on is closed."""
        opening = Opening()
        line = opening.accept()
        line.send(ESTABLISHED[:10])
        opening.connected.cancel()
        self.error(opening.connected, ProxyFailed)
        assert not line.open
        assert self.unhandled() == []
