"""The proxy agent: direct requests, requests at a proxy, tunnels, and the errors of proxies."""

from __future__ import annotations

import base64
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

from proxpi.upstream.errors import CredentialsRejected, ProxyFailed, UpstreamFailed
from proxpi.upstream.proxies import Proxies, Proxy
from proxpi.upstream.proxy_agent import HEAD_LIMIT, Tunnel
from tests.support.cases import Case, run
from tests.support.indexes import CONNECT_TIMEOUT, READ_TIMEOUT, Line, Network
from tests.support.logs import logged

PROXY = "proxy http://proxy.example:3128"
VARIABLES = {
    "HTTP_PROXY": "http://user:secret@proxy.example:3128",
    "HTTPS_PROXY": "http://user:secret@proxy.example:3128",
    "NO_PROXY": "direct.example, 1.2.3.0/24",
}
BASIC = base64.b64encode(b"user:secret").decode()
PLAIN = "http://index.example/simple/demo/"
SECURE = "https://index.example/simple/demo/"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
HELLO = b"\x16\x03"  # how TLS begins
#: Heads that open a tunnel.
HEADS = [
    b"HTTP/1.0 200 OK\r\n\r\n",
    b"HTTP/1.1 200\r\n\r\n",
    b"HTTP/1.1 204 \r\nVia: 1.1 x\r\n\r\n",
    b"HTTP/1.1 200 OK\nX: y\n\n",
    # These two fields mean nothing here (RFC 9110 9.3.6).
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + ESTABLISHED,
    b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
]


class AgentTests(Case):
    def setUp(self) -> None:
        self.begin()

    def begin(self, *index_urls: str) -> None:
        self.network = Network(*index_urls, proxies=Proxies.read(VARIABLES))

    def request(self, url: str) -> Deferred[bytes]:
        async def body() -> bytes:
            async with self.network.upstream.page(url, {}) as response:
                return (await self.network.upstream.read(response))[0]

        return run(body())

    def accepted(self, url: str = PLAIN) -> tuple[Deferred[bytes], Line]:
        request = self.request(url)
        line = self.network.accept()
        begins = f"GET {url}" if url == PLAIN else "CONNECT index.example:443"
        self.head = line.take().decode()
        assert self.head.startswith(f"{begins} HTTP/1.1\r\n")
        assert f"\r\nProxy-Authorization: Basic {BASIC}\r\n" in self.head
        return request, line

    def ports(self) -> list[int]:
        return [attempt[1] for attempt in self.network.attempts]

    def assert_proxy_failed(
        self, request: Deferred[bytes], cause: str, *, temporary: bool = True
    ) -> None:
        """Check that the error names the proxy, without its password."""
        error = self.error(request, ProxyFailed)
        assert (str(error), error.temporary) == (f"{PROXY}: {cause}", temporary)
        assert self.unhandled() == []

    def assert_idle(self) -> None:
        self.network.pool.closeCachedConnections()
        assert self.network.reactor.getDelayedCalls() == []

    def test_connections(self) -> None:
        """The proxy gets whole URLs of several hosts, its own credentials, and those of the index.

        A connection that the proxy closed is replaced unnoticed.
        """
        self.begin("http://reader:word@index.example/simple/")
        request, line = self.accepted()
        assert "\r\nHost: index.example\r\n" in self.head
        index = base64.b64encode(b"reader:word").decode()
        assert f"\r\nAuthorization: Basic {index}\r\n" in self.head
        assert self.ports() == [3128]
        line.answer(200, b"page")
        assert self.result(request) == b"page"
        request = self.request("http://files.example/demo/")
        assert line.take().startswith(b"GET http://files.example/demo/ HTTP/1.1\r\n")
        line.answer(200, b"other")
        assert self.result(request) == b"other"
        assert len(self.network.attempts) == 1
        request = self.request(PLAIN)
        line.close()
        self.network.accept().answer(200, b"page")
        assert self.result(request) == b"page"

    def test_responses(self) -> None:
        """A response is the proxy's if it says so, and any 403 is; others are the upstream's."""
        for status, field, cause in (
            (403, "X-Squid-Error: ERR_ACCESS_DENIED 0", "it refuses to connect (status 403)"),
            (403, "Server: nginx", "it refuses to connect (status 403)"),
            (503, "X-Squid-Error: ERR_CONNECT_FAIL 111", "it could not connect (status 503)"),
            (500, "Server: tinyproxy/1.11.1", "it could not connect (status 500)"),
            (401, "Server: tinyproxy/1.11.1", "it wants other credentials (status 401)"),
            (407, "Proxy-Authenticate: Basic", "it wants other credentials (status 407)"),
            (502, "Server: nginx", None),
        ):
            request, line = self.accepted()
            line.answer(status, b"no", field, "Connection: close")
            if cause is None:
                assert self.result(request) == b"no"
            else:
                self.assert_proxy_failed(request, cause, temporary=status >= 500)
        self.assert_idle()

    def test_failures(self) -> None:
        """The error names a proxy that refuses, cannot be found, is silent or speaks no HTTP."""
        for reason, cause in (
            (ConnectionRefusedError(), "connection refused"),
            (DNSLookupError(), "host name not found"),
        ):
            request = self.request(PLAIN)
            self.network.refuse(reason)
            self.network.advance(1)
            self.assert_proxy_failed(request, cause)
        request, line = self.accepted()
        self.network.advance(CONNECT_TIMEOUT + READ_TIMEOUT + 1)
        self.assert_proxy_failed(request, "timed out")
        assert line.aborted
        request, line = self.accepted()
        line.send(b"SSH-2.0-OpenSSH_9\r\n\r\n")
        self.assert_proxy_failed(request, "no usable answer (ParseError)")
        self.assert_idle()

    def test_tunnel(self) -> None:
        """In the tunnel is TLS, and nothing else goes out, no credentials of the index either."""
        self.begin("https://reader:word@index.example/simple/")
        _, line = self.accepted(SECURE)
        assert "\r\nAuthorization" not in self.head
        assert "\r\nUser-Agent: proxpi/" in self.head
        line.send(ESTABLISHED)
        assert line.take().startswith(HELLO)
        assert self.ports() == [3128]

    def test_open_tunnel(self) -> None:
        """Once the tunnel is open, silence and the end of it are the upstream's."""
        for ends, cause in (
            (lambda line: None, "timed out"),
            (Line.close, "the connection was closed"),
        ):
            request, line = self.accepted(SECURE)
            line.send(ESTABLISHED)
            ends(line)
            self.network.advance(CONNECT_TIMEOUT + READ_TIMEOUT + 1)
            assert str(self.error(request, UpstreamFailed)) == f"{SECURE}: {cause}"
            assert not line.open
        assert self.unhandled() == []
        self.assert_idle()

    def test_direct(self) -> None:
        """Excluded hosts, those of redirects too, are connected to, and learn of no proxy."""
        request, line = self.accepted()
        line.answer(302, b"", "Location: http://direct.example:8080/demo/")
        line = self.network.accept()
        head = line.take()
        assert head.startswith(b"GET /demo/ HTTP/1.1\r\n")
        assert b"Proxy-Authorization" not in head
        line.answer(200, b"page")
        assert self.result(request) == b"page"
        self.request("https://www.direct.example/simple/")
        assert self.network.accept().take().startswith(HELLO)
        self.request("https://1.2.3.4/demo/")
        assert self.ports() == [3128, 8080, 443, 443]

    def test_trusted(self) -> None:
        """The proxy is exempt from the address policy, a direct host is not; none is behind it."""
        self.network.names = {"proxy.example": ["10.0.0.1"], "direct.example": ["10.0.0.2"]}
        for url in (PLAIN, SECURE):
            self.request(url)
        for url in ("https://direct.example/", "http://direct.example:8080/"):
            assert "PROXPI_ALLOW_HOSTS" in self.error(self.request(url), UpstreamFailed).cause
        assert [attempt[:2] for attempt in self.network.attempts] == [("10.0.0.1", 3128)] * 2


class Wrapped(Protocol):
    data = b""
    ended: Failure | None = None

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello")

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self.ended = reason


class Opening:
    """One attempt to open a tunnel to port 443 of a host."""

    TIMEOUT = 100.0

    def __init__(self, url: str = "http://proxy.example:3128", host: bytes = b"index.example"):
        self.reactor = MemoryReactorClock()
        proxy = Proxy.from_url(url)
        tunnel = Tunnel(
            proxy=proxy,
            endpoint=HostnameEndpoint(self.reactor, proxy.host.encode(), proxy.port),
            host=host,
            port=443,
            user_agent=b"proxpi/2",
            timeout=self.TIMEOUT,
            clock=self.reactor,
        )
        self.connected: Deferred[IProtocol] = tunnel.connect(Factory.forProtocol(Wrapped))

    def accept(self) -> Line:
        ((_, _, factory, _, _),) = self.reactor.tcpClients
        self.protocol: Any = factory.buildProtocol(None)
        return Line(self.protocol)


class TunnelTests(Case):
    def wrapped(self, opening: Opening) -> Wrapped:
        wrapped = self.result(opening.connected)
        assert isinstance(wrapped, Wrapped)
        return wrapped

    def test_no_log_lines(self) -> None:
        """A tunnel that is opened and closed writes no line to the log."""
        ((_, _, factory, _, _),) = Opening().reactor.tcpClients
        with logged() as log:
            factory.doStart()
            factory.doStop()
        assert log.lines == []

    def refused(self, response: bytes, url: str = "http://proxy.example:3128") -> ProxyFailed:
        """Return the error of a response that opens no tunnel; the connection must be closed."""
        opening = Opening(url)
        line = opening.accept()
        line.send(response)
        error = self.error(opening.connected, ProxyFailed)
        assert line.aborted
        assert opening.reactor.getDelayedCalls() == []
        return error

    def test_request(self) -> None:
        """CONNECT names host and port, has the proxy's credentials only, and nothing follows."""
        assert Opening().accept().take() == (
            b"CONNECT index.example:443 HTTP/1.1\r\n"
            b"Host: index.example:443\r\n"
            b"User-Agent: proxpi/2\r\n"
            b"\r\n"
        )
        sent = Opening("http://user:p%40ss@proxy.example:3128", b"2001:db8::1").accept().take()
        assert sent.startswith(b"CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n")
        assert b"\r\nProxy-Authorization: Basic dXNlcjpwQHNz\r\n" in sent

    def test_both_ways(self) -> None:
        """An open tunnel relays bytes both ways, and its end."""
        opening = Opening()
        line = opening.accept()
        line.take()
        line.send(ESTABLISHED)
        assert line.take() == b"hello"
        line.send(b"one")
        line.send(b"two")
        wrapped = self.wrapped(opening)
        assert wrapped.data == b"onetwo"
        line.close()
        assert wrapped.ended is not None and wrapped.ended.check(ConnectionDone)

    @given(st.data())
    def test_any_pieces(self, data: st.DataObject) -> None:
        """However the head is cut, the tunnel begins behind it, and no byte is lost."""
        head = data.draw(st.sampled_from(HEADS))
        body = data.draw(st.binary(max_size=20) | st.just(b"\r\n\r\nHTTP/1.1 407 x\r\n\r\n"))
        sent = head + body
        cuts = data.draw(st.lists(st.integers(0, len(sent)), max_size=6).map(sorted))
        opening = Opening()
        line = opening.accept()
        for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
            line.send(sent[start:end])
        assert self.wrapped(opening).data == body
        assert line.open

    def test_length(self) -> None:
        """A head may have 64 KiB; more of it, or interim heads without end, are refused."""
        opening = Opening()
        start = b"HTTP/1.1 200 OK\r\nX: "
        opening.accept().send(start + b"x" * (HEAD_LIMIT - len(start) - 4) + b"\r\n\r\nmore")
        assert self.wrapped(opening).data == b"more"
        self.refused(start + b"y\r\nX: " * 20_000)
        self.refused(start + b"x" * 100_000 + b"\r\n\r\n")
        self.refused(b"HTTP/1.1 100 Continue\r\n\r\n" * 4_000)

    def test_statuses(self) -> None:
        """A proxy that could not connect may later; one that refuses or wants a login will not."""
        for status, userinfo, wanted in (
            (407, "user:secret@", "other credentials"),
            (407, "", "credentials"),
            (401, "u:p@", "other credentials"),
        ):
            response = b"HTTP/1.1 %d x\r\nContent-Length: 4\r\n\r\nsome" % status
            error = self.refused(response, f"http://{userinfo}proxy.example:3128")
            assert str(error.copy()) == f"{PROXY}: it wants {wanted} (status {status})"
            assert not error.temporary
            assert isinstance(error, CredentialsRejected)
        for statuses, cause, temporary in (
            ((408, 425, 429, 500, 502, 503, 599), "it could not connect", True),
            ((300, 302, 400, 403, 404, 418), "it refuses to connect", False),
        ):
            for status in statuses:
                error = self.refused(b"HTTP/1.0 %d x\r\n\r\n" % status)
                expected = (f"{cause} (status {status})", temporary)
                assert (error.cause, error.temporary) == expected

    def test_no_proxy(self) -> None:
        """A response that is not an HTTP proxy's is refused as soon as that shows."""
        for response in (
            b"SSH-2.0-OpenSSH_9\r\n",
            b"\x15\x03\x01\x00\x02\x02\x16",
            b"HTTP/2 200 OK\r\n",
            b"HTTP/1.1 2000 OK\r\n\r\n",
            b"HTTP/1.1 OK\r\n\r\n",
            b"\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\nnonsense",
            ESTABLISHED.lower(),
        ):
            assert self.refused(response).cause == "it does not answer as an HTTP proxy does"

    def test_closed(self) -> None:
        """An end before that of the head is the proxy's; a cancelled attempt leaves nothing."""
        for said in (b"", ESTABLISHED[:-1]):
            opening = Opening()
            line = opening.accept()
            line.send(said)
            line.close()
            error = self.error(opening.connected, ProxyFailed)
            assert (error.cause, error.temporary) == ("the connection was closed", True)

        opening = Opening()
        opening.connected.cancel()
        self.error(opening.connected, ProxyFailed)
        assert opening.reactor.connectors[0].stoppedConnecting
        assert self.unhandled() == []

    def test_timeout(self) -> None:
        """A proxy that accepts and is silent is named once the timeout is over."""
        opening = Opening()
        line = opening.accept()
        opening.reactor.advance(opening.TIMEOUT - 1)
        self.pending(opening.connected)
        opening.reactor.advance(1)
        error = self.error(opening.connected, ProxyFailed)
        assert (error.cause, error.temporary) == ("timed out", True)
        assert line.aborted
