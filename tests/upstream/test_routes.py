"""Ways out: who is connected to, what is said to whom, and who is blamed, if a proxy is set."""

from __future__ import annotations

import base64
from typing import cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionRefusedError, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.testing import MemoryReactorClock
from twisted.web.client import HTTPConnectionPool

from proxpi.upstream import tls
from proxpi.upstream.connector import Connector
from proxpi.upstream.errors import ProxyFailed, UpstreamFailed
from proxpi.upstream.proxies import Proxies
from proxpi.upstream.proxy_agent import ProxyAgent
from tests.support.cases import Case, run
from tests.support.indexes import CONNECT_TIMEOUT, READ_TIMEOUT, Line, Network

PROXY = "proxy http://proxy.example:3128"
VARIABLES = {
    "HTTP_PROXY": "http://user:secret@proxy.example:3128",
    "HTTPS_PROXY": "http://user:secret@proxy.example:3128",
    "NO_PROXY": "direct.example, 1.2.3.0/24",
}
BASIC = base64.b64encode(b"user:secret")
PLAIN = "http://index.example/simple/demo/"
SECURE = "https://index.example/simple/demo/"
ESTABLISHED = b"HTTP/1.1 200 OK\r\n\r\n"
HELLO = b"\x16\x03"  # how TLS begins


class RouteCase(Case):
    """Tests with a proxy for everything but ``direct.example``."""

    def setUp(self) -> None:
        """Prepare the network."""
        self.begin()

    def begin(self, *index_urls: str, **variables: str) -> None:
        """Prepare the network, with other variables than usual."""
        self.network = Network(*index_urls, proxies=Proxies.read(VARIABLES | variables))

    async def _body(self, url: str) -> bytes:
        async with self.network.upstream.page(url, {}) as answer:
            return (await self.network.upstream.read(answer))[0]

    async def _file(self, url: str) -> bytes:
        async with self.network.upstream.file(url, {}) as answer:
            return (await self.network.upstream.read(answer))[0]

    def page(self, url: str) -> Deferred[bytes]:
        """Ask for a page and read it."""
        return run(self._body(url))

    def file(self, url: str) -> Deferred[bytes]:
        """Ask for a file and read it."""
        return run(self._file(url))

    def ports(self) -> list[int]:
        """Who was connected to, by the port."""
        return [attempt[1] for attempt in self.network.attempts]

    def blamed(self, asked: Deferred[bytes], cause: str, *, temporary: bool) -> None:
        """Make sure that the proxy is said to have failed, without its password."""
        error = self.error(asked, UpstreamFailed)
        assert (str(error), error.temporary) == (f"{PROXY}: {cause}", temporary)
        assert self.unhandled() == []

    def assert_idle(self) -> None:
        """No timer is left but those of the pool's idle connections."""
        self.network.pool.closeCachedConnections()
        assert self.network.reactor.getDelayedCalls() == []


class PlainTests(RouteCase):
    """http URLs are asked for at the proxy."""

    def asked(self, url: str = PLAIN) -> Line:
        """Accept the connection of the newest request, which must be for a whole URL."""
        line = self.network.accept()
        assert line.take().startswith(b"GET %b HTTP/1.1\r\n" % url.encode())
        return line

    def test_request(self) -> None:
        """The proxy gets the whole URL, its credentials, and those of the index for the index."""
        self.begin("http://reader:word@index.example/simple/")
        self.page(PLAIN)
        head = self.network.accept().take().decode()
        assert head.startswith(f"GET {PLAIN} HTTP/1.1\r\n")
        assert "\r\nHost: index.example\r\n" in head
        assert f"\r\nProxy-Authorization: Basic {BASIC.decode()}\r\n" in head
        index = base64.b64encode(b"reader:word").decode()
        assert f"\r\nAuthorization: Basic {index}\r\n" in head
        assert self.ports() == [3128]

    def test_one_connection(self) -> None:
        """One connection to the proxy serves pages and files, of whatever host."""
        first = self.page(PLAIN)
        line = self.asked()
        line.answer(200, b"page")
        assert self.result(first) == b"page"
        second = self.file("http://files.example/demo.whl")
        assert line.take().startswith(b"GET http://files.example/demo.whl HTTP/1.1\r\n")
        line.answer(200, b"file")
        assert self.result(second) == b"file"
        assert len(self.network.attempts) == 1

    def test_stale_connection(self) -> None:
        """One that the proxy has closed meanwhile is replaced, and nobody notices."""
        self.page(PLAIN)
        line = self.asked()
        line.answer(200)
        asked = self.page(PLAIN)
        line.close()
        self.asked().answer(200, b"page")
        assert self.result(asked) == b"page"

    def test_answers_of_the_upstream(self) -> None:
        """Other statuses are answers, as they are without a proxy."""
        asked = self.page(PLAIN)
        self.asked().answer(502, b"from whoever")
        assert self.result(asked) == b"from whoever"

    def test_answers_of_the_proxy(self) -> None:
        """Those that say so, as squid and tinyproxy do, are not taken for the upstream's."""
        for status, field, cause in (
            (403, "X-Squid-Error: ERR_ACCESS_DENIED 0", "it refuses to connect (status 403)"),
            (503, "X-Squid-Error: ERR_CONNECT_FAIL 111", "it could not connect (status 503)"),
            (500, "Server: tinyproxy/1.11.1", "it could not connect (status 500)"),
            (401, "Server: tinyproxy/1.11.1", "it wants other credentials (status 401)"),
        ):
            asked = self.page(PLAIN)
            line = self.asked()
            line.answer(status, b"no", field, "Connection: close")
            line.close()
            self.blamed(asked, cause, temporary=status >= 500)

    def test_forbidden(self) -> None:
        """403 may mean that an index lacks a project, and nobody can see who says it."""
        for field in ("Via: 1.1 proxy", "Server: nginx"):
            asked = self.page(PLAIN)
            line = self.asked()
            line.answer(403, b"from whoever", field, "Connection: close")
            line.close()
            self.blamed(asked, "it refuses to connect (status 403)", temporary=False)

    def test_credentials(self) -> None:
        """407 is never an index's."""
        asked = self.page(PLAIN)
        line = self.asked()
        line.answer(407, b"no", "Proxy-Authenticate: Basic")
        self.blamed(asked, "it wants other credentials (status 407)", temporary=False)
        self.assert_idle()

    def test_not_connected(self) -> None:
        """The proxy is named if it refuses or cannot be found."""
        for reason, cause in (
            (ConnectionRefusedError(), "connection refused"),
            (DNSLookupError(), "host name not found"),
        ):
            asked = self.page(PLAIN)
            self.network.refuse(reason)
            self.network.advance(1)
            self.blamed(asked, cause, temporary=True)
        self.assert_idle()

    def test_silent(self) -> None:
        """If it says nothing it is named, too."""
        asked = self.page(PLAIN)
        line = self.asked()
        self.network.advance(CONNECT_TIMEOUT + READ_TIMEOUT + 1)
        self.blamed(asked, "timed out", temporary=True)
        assert not line.open
        self.assert_idle()

    def test_garbage(self) -> None:
        """If it does not speak HTTP, likewise."""
        asked = self.page(PLAIN)
        self.asked().send(b"SSH-2.0-OpenSSH_9\r\n\r\n")
        assert str(self.error(asked, ProxyFailed)).startswith(f"{PROXY}: ")
        self.assert_idle()

    def test_cancel(self) -> None:
        """Whoever no longer wants the answer closes the connection."""
        asked = self.page(PLAIN)
        line = self.asked()
        asked.cancel()
        self.error(asked, CancelledError)
        assert not line.open
        self.assert_idle()


class SecureTests(RouteCase):
    """https URLs are asked for through a tunnel."""

    def asked(self) -> Line:
        """Accept the connection of the newest request, which must want a tunnel."""
        line = self.network.accept()
        head = line.take().decode()
        assert head.startswith("CONNECT index.example:443 HTTP/1.1\r\n")
        assert f"\r\nProxy-Authorization: Basic {BASIC.decode()}\r\n" in head
        assert "\r\nUser-Agent: proxpi/" in head
        return line

    def test_tunnel(self) -> None:
        """In the tunnel is TLS; nothing else goes out, and the name is the proxy's to look up."""
        self.begin("https://reader:word@index.example/simple/")
        self.page(SECURE)
        line = self.asked()
        line.send(ESTABLISHED)
        assert line.take().startswith(HELLO)
        assert self.ports() == [3128]

    def test_refused(self) -> None:
        """A refusal names the proxy; 407 is for people to mend."""
        for status, cause, temporary in (
            (407, "it wants other credentials (status 407)", False),
            (403, "it refuses to connect (status 403)", False),
            (502, "it could not connect (status 502)", True),
            (503, "it could not connect (status 503)", True),
        ):
            asked = self.file(SECURE)
            line = self.asked()
            line.answer(status, b"<html>")
            self.blamed(asked, cause, temporary=temporary)
            assert not line.open
        self.assert_idle()

    def test_not_connected(self) -> None:
        """So does a proxy that is not there."""
        asked = self.page(SECURE)
        self.network.refuse(ConnectionRefusedError())
        self.network.advance(1)
        self.blamed(asked, "connection refused", temporary=True)
        self.assert_idle()

    def test_silent_proxy(self) -> None:
        """So does one that never answers, or not to the end."""
        for said in (b"", ESTABLISHED[:-2]):
            asked = self.page(SECURE)
            line = self.asked()
            line.send(said)
            self.network.advance(CONNECT_TIMEOUT + READ_TIMEOUT + 1)
            self.blamed(asked, "timed out", temporary=True)
            assert not line.open
        self.assert_idle()

    def test_silent_upstream(self) -> None:
        """Once the tunnel is there, it is not the proxy who is silent."""
        asked = self.page(SECURE)
        line = self.asked()
        line.send(ESTABLISHED)
        self.network.advance(CONNECT_TIMEOUT + READ_TIMEOUT + 1)
        assert str(self.error(asked, UpstreamFailed)) == f"{SECURE}: timed out"
        assert not line.open
        self.assert_idle()

    def test_closed_tunnel(self) -> None:
        """A tunnel that ends before TLS has begun is a connection that was closed."""
        asked = self.page(SECURE)
        line = self.asked()
        line.send(ESTABLISHED)
        line.close()
        assert self.error(asked, UpstreamFailed).cause == "the connection was closed"
        assert self.unhandled() == []
        self.assert_idle()

    def test_cancel(self) -> None:
        """Whoever no longer wants the answer closes the connection, at whatever stage it is."""
        for said in (b"", ESTABLISHED):
            asked = self.page(SECURE)
            line = self.asked()
            line.send(said)
            asked.cancel()
            self.error(asked, CancelledError)
            assert not line.open
            assert self.unhandled() == []
        self.assert_idle()

    def test_secure_proxy(self) -> None:
        """With TLS to the proxy itself, nothing is said to it in the open."""
        self.begin(
            HTTPS_PROXY="https://user:secret@proxy.example:3443", HTTP_PROXY="https://p.example"
        )
        for url in (SECURE, PLAIN):
            self.page(url)
            assert self.network.accept().take().startswith(HELLO)
        assert self.ports() == [3443, 443]


class Dials:
    """Stands where a `Dial` would, and keeps what it is asked for."""

    connect_timeout = 3.1

    def __init__(self, reactor: MemoryReactorClock) -> None:
        self._reactor = reactor
        self.asked: list[tuple[bytes, int, bool]] = []

    def endpoint(self, host: bytes, port: int, *, trusted: bool = False) -> IStreamClientEndpoint:
        """Give the endpoint of some address."""
        self.asked.append((host, port, trusted))
        return TCP4ClientEndpoint(self._reactor, "192.0.2.1", port)


class DialTests(Case):
    """What is dialed, and so looked up and judged."""

    def test_dialed(self) -> None:
        """It is the proxy, whom the user trusts; behind it nobody, and without it the host."""
        reactor = MemoryReactorClock()
        dials = Dials(reactor)
        policy = tls.policy(verify=False)
        proxies = Proxies.read(VARIABLES)
        routes = ProxyAgent(
            clock=reactor,
            pool=HTTPConnectionPool(reactor),
            tls=policy,
            connector=cast(Connector, dials),
            proxies=proxies,
            user_agent=b"proxpi/2",
        )
        for url in (PLAIN, SECURE, "https://direct.example/", "http://direct.example:8080/"):
            routes.request(b"GET", url.encode())
        assert len(reactor.tcpClients) == 4
        assert set(dials.asked) == {
            (b"proxy.example", 3128, True),
            (b"direct.example", 443, False),
            (b"direct.example", 8080, False),
        }


class DirectTests(RouteCase):
    """What NO_PROXY covers."""

    def test_direct(self) -> None:
        """Hosts that are excluded are connected to, and learn nothing of the proxy."""
        self.page("http://direct.example:8080/simple/")
        head = self.network.accept().take()
        assert head.startswith(b"GET /simple/ HTTP/1.1\r\n")
        assert b"Proxy-Authorization" not in head
        self.page("https://www.direct.example/simple/")
        assert self.network.accept().take().startswith(HELLO)
        self.file("https://1.2.3.4/demo.whl")
        assert self.ports() == [8080, 443, 443]

    def test_redirects(self) -> None:
        """Each hop of a redirect finds its own way."""
        asked = self.page(PLAIN)
        self.network.accept().answer(302, b"", "Location: http://direct.example/demo/")
        line = self.network.accept()
        head = line.take()
        assert head.startswith(b"GET /demo/ HTTP/1.1\r\n")
        assert b"Proxy-Authorization" not in head
        line.answer(200, b"page")
        assert self.result(asked) == b"page"
        assert self.ports() == [3128, 80]
