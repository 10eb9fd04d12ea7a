"""The upstream client: requests, credentials, redirects and connection limits, by URL."""

from __future__ import annotations

import base64
import gzip
from itertools import pairwise
from typing import Any, get_args

import attrs
from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError, DNSLookupError, TimeoutError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed
from twisted.web.http import PotentialDataLoss

from proxpi import metrics
from proxpi.upstream.client import LATENCIES, REDIRECTS, USER_AGENT, UpstreamClient
from proxpi.upstream.connections import CONNECTIONS
from proxpi.upstream.errors import FailureKind, Offline, ProxyFailed, UpstreamFailed
from proxpi.upstream.response import DISCARD_TIME, Response
from tests.support.agent import MemoryAgent, Reply
from tests.support.cases import Case, run
from tests.support.counted import samples
from tests.support.indexes import CONNECT_TIMEOUT, READ_TIMEOUT, upstream_client

PRIVATE = "https://user:secret@index.example/simple/"
PAGE = "https://index.example/simple/demo/"
FILE = "https://files.example/demo.whl"
BASIC = "Basic " + base64.b64encode(b"user:secret").decode()


def redirect(location: str, status: int = 302) -> Reply:
    return Reply(status, (b"moved",), {"Location": location})


async def page(upstream: UpstreamClient, url: str = PAGE) -> Response:
    async with upstream.page(url, {"Accept": "text/html"}) as response:
        return response


async def file(upstream: UpstreamClient, url: str = PAGE, method: str = "GET") -> bytes:
    async with upstream.file(url, {}, method) as response:
        return (await upstream.read(response))[0]


class ClientCase(Case):
    def setUp(self) -> None:
        self.clock = Clock()
        self.agent = MemoryAgent()
        self.upstream = upstream_client(self.agent, self.clock, PRIVATE)

    def sent(self, name: str) -> list[str | None]:
        return [asked.header(name) for asked in self.agent.asked]

    def urls(self) -> list[str]:
        return [asked.url for asked in self.agent.asked]

    def fails(self, url: str = PAGE) -> UpstreamFailed:
        return self.error(run(page(self.upstream, url)), UpstreamFailed)


class RequestTests(ClientCase):
    def test_page(self) -> None:
        """A page is requested with proxpi's name, and compressed if the upstream likes."""
        self.agent.at(PAGE, Reply(200, (b"page",), {"ETag": '"x"', "Content-Length": "4"}))
        response = self.result(run(page(self.upstream)))
        assert (response.status, response.url, response.length) == (200, PAGE, 4)
        assert response.header("etag") == '"x"'
        assert [(asked.method, asked.url) for asked in self.agent.asked] == [("GET", PAGE)]
        assert self.sent("User-Agent") == [USER_AGENT.decode()]
        assert self.sent("Accept") == ["text/html"]
        assert self.sent("Accept-Encoding") == ["gzip"]

    def test_compressed_page(self) -> None:
        """treq decodes nothing: a truncated body must not pass for a whole one."""

        async def read() -> tuple[tuple[str, ...], bytes]:
            async with self.upstream.page(PAGE, {}) as response:
                return response.codings, (await self.upstream.read(response))[0]

        for coding in ("gzip", "gzip, gzip", "br, gzip", "deflate"):
            self.agent.at(PAGE, Reply(200, (b"page",), {"Content-Encoding": coding}))
            assert self.result(run(read())) == (tuple(coding.split(", ")), b"page")

    def test_file(self) -> None:
        """A file is requested without compression, and no field has proxpi decompress it."""
        data = gzip.compress(b"bytes")
        self.agent.at(PAGE, Reply(200, (data[:9], data[9:]), {"Content-Encoding": "gzip"}))
        assert self.result(run(file(self.upstream))) == data
        assert self.sent("Accept-Encoding") == ["identity"]
        assert self.sent("User-Agent") == [USER_AGENT.decode()]

    def test_verbatim_url(self) -> None:
        """Non-ASCII goes out percent-encoded; a signature, an address and ``a_b`` stay."""
        for url, sent in (
            (
                "https://files.example/d%C3%A9mo/ü+a%2Bb.whl?sig=a%2Fb&x={1}",
                "https://files.example/d%C3%A9mo/%C3%BC+a%2Bb.whl?sig=a%2Fb&x=%7B1%7D",
            ),
            ("http://[2600::1]:8080/simple/demo/", "http://[2600::1]:8080/simple/demo/"),
            ("http://a_b.example/x/", "http://a_b.example/x/"),
        ):
            for request in (page, file):
                self.result(run(request(self.upstream, url)))
                assert self.urls()[-1] == sent

    def test_cookies(self) -> None:
        """A cookie of an index is sent to none of them."""
        self.agent.at(PAGE, Reply(200, (b"page",), {"Set-Cookie": "session=secret; Path=/"}))
        for _ in range(2):
            self.result(run(page(self.upstream)))
        assert self.sent("Cookie") == [None, None]

    def test_refused(self) -> None:
        """Nothing but http and https goes out, and nothing at all offline."""
        for url in ("ftp://index.example/", "file:///etc/passwd", "index.example", ""):
            assert self.fails(url).cause == "only http and https are supported"
        self.upstream = upstream_client(self.agent, self.clock, PRIVATE, offline=True)
        assert isinstance(self.fails(), Offline)
        assert self.agent.asked == []

    def test_silence(self) -> None:
        """An upstream that sends no head fails after connect timeout and read timeout."""
        self.agent.silent.add(PAGE)
        requests: list[Deferred[Any]] = [run(page(self.upstream)), run(file(self.upstream))]
        self.clock.advance(CONNECT_TIMEOUT + READ_TIMEOUT - 0.1)
        for request in requests:
            self.pending(request)
        self.clock.advance(0.2)
        for request in requests:
            assert self.error(request, UpstreamFailed).cause == "timed out"
        assert self.agent.waiting == 0

    def test_credentials(self) -> None:
        """Credentials go in the header, to their own origin; those of other URLs go nowhere."""
        for url, header in (
            (PRIVATE + "demo/", BASIC),
            ("https://index.example:443/files/demo.whl", BASIC),
            ("https://index.example:8443/simple/demo/", None),
            ("https://me:too@files.example/demo.whl", None),
        ):
            response = self.result(run(page(self.upstream, url)))
            assert self.sent("Authorization")[-1] == header
            assert "@" not in self.urls()[-1] + response.url


class RedirectTests(ClientCase):
    def test_statuses(self) -> None:
        """Five statuses lead on, absolute or relative; others, and those without target, do not."""
        for reply in (Reply(302), redirect("/x", 300), redirect("/x", 304), redirect("/x", 200)):
            self.agent.at(PAGE, reply)
            assert self.result(run(page(self.upstream))).status == reply.status
        assert set(self.urls()) == {PAGE}
        there = "https://index.example/simple/other/"
        self.agent.at(there, Reply(200, (b"page",)))
        for status in (301, 302, 303, 307, 308):
            for location in (there, "../other/", "/simple/other/", "//index.example/simple/other/"):
                self.agent.at(PAGE, redirect(location, status))
                response = self.result(run(page(self.upstream)))
                assert (response.status, response.url) == (200, there)

    def test_hops(self) -> None:
        """Method and fields go along, in UTF-8; each hop decides anew about credentials."""
        away, back = "https://cdn.example/", "https://index.example/d%C3%A9mo/"
        self.agent.at(PAGE, redirect(away))
        self.agent.at(away, redirect("https://index.example/d\u00e9mo/"))
        self.agent.at(back, Reply(200))
        self.result(run(file(self.upstream, method="HEAD")))
        assert self.urls() == [PAGE, away, back]
        assert {asked.method for asked in self.agent.asked} == {"HEAD"}
        assert set(self.sent("User-Agent")) == {USER_AGENT.decode()}
        assert self.sent("Authorization") == [BASIC, None, BASIC]

    def test_heads(self) -> None:
        """The status of each head is told, redirects included."""
        self.agent.at(PAGE, redirect(FILE))
        self.agent.at(FILE, Reply(404))
        statuses: list[int] = []

        async def request() -> None:
            async with self.upstream.page(PAGE, {}, statuses.append):
                pass

        self.result(run(request()))
        assert statuses == [302, 404]

    def test_schemes(self) -> None:
        """From http to https is followed, not back, nor to another scheme, or a private address."""
        plain = PAGE.replace("https", "http")
        self.agent.at(plain, redirect(PAGE))
        self.agent.at(PAGE, Reply(200))
        assert self.result(run(page(self.upstream, plain))).url == PAGE
        private = "https://127.0.0.1/admin"
        for location in (plain, "ftp://index.example/", "file:///etc/passwd", "//[bad/", private):
            self.agent.at(PAGE, redirect(location))
            self.agent.asked.clear()
            assert not self.fails().temporary
            assert self.urls() == [PAGE]

    def test_number(self) -> None:
        """Ten redirects are followed, an eleventh is not, so that a loop ends."""
        urls = [f"https://index.example/{number}" for number in range(REDIRECTS + 1)]
        for url, onto in pairwise(urls):
            self.agent.at(url, redirect(onto))
        self.agent.at(urls[-1], Reply(200, (b"file",)))
        assert self.result(run(file(self.upstream, urls[0]))) == b"file"
        self.agent.at(PAGE, redirect(PAGE))
        self.agent.asked.clear()
        assert not self.fails().temporary
        assert len(self.agent.asked) == REDIRECTS + 1 == 11


class ConnectionTests(ClientCase):
    def test_limit(self) -> None:
        """Requests beyond the limit wait; pages, files and origins have limits of their own."""
        self.agent.silent.add(PAGE)
        requests: list[Deferred[Any]] = [run(page(self.upstream)) for _ in range(CONNECTIONS + 2)]
        assert self.agent.waiting == CONNECTIONS
        requests += [run(file(self.upstream)) for _ in range(CONNECTIONS + 2)]
        assert self.agent.waiting == 2 * CONNECTIONS
        self.result(run(file(self.upstream, FILE)))
        self.agent.release(PAGE)
        for request in requests:
            self.result(request)

    def test_backpressure(self) -> None:
        """Files at the rates of their clients leave a quarter of the connections to others."""
        self.agent.silent.add(FILE)

        async def slow() -> None:
            async with self.upstream.file(FILE, {}, backpressure=True):
                pass

        requests: list[Deferred[Any]] = [run(slow()) for _ in range(CONNECTIONS)]
        assert self.agent.waiting == CONNECTIONS * 3 // 4
        assert self.upstream.backpressure_full(FILE)
        assert not self.upstream.backpressure_full(PAGE)
        requests += [run(file(self.upstream, FILE)) for _ in range(CONNECTIONS)]
        assert self.agent.waiting == CONNECTIONS
        self.agent.release(FILE)
        for request in requests:
            self.result(request)

    def test_failed_requests(self) -> None:
        """A request that fails, or is cancelled and thus withdrawn, gives its connection back."""
        self.agent.at(PAGE, ConnectionRefusedError())
        for _ in range(CONNECTIONS + 1):
            assert str(self.fails()) == f"{PAGE}: connection refused"
        self.agent.silent.add(PAGE)
        for _ in range(CONNECTIONS + 1):
            cancelled = run(page(self.upstream))
            cancelled.cancel()
            self.error(cancelled, CancelledError)
            assert self.agent.waiting == 0
        assert self.clock.getDelayedCalls() == []
        assert len(self.agent.asked) == 2 * (CONNECTIONS + 1)

    def test_held_while_a_body_is_discarded(self) -> None:
        """A connection that still brings an unwanted body counts, even that of a redirect."""
        self.agent.at(FILE, Reply(200))
        for reply in (Reply(404), redirect(FILE)):
            self.agent.at(PAGE, attrs.evolve(reply, chunks=(b"begin",), whole=False))
            self.agent.asked.clear()
            requests = [run(page(self.upstream)) for _ in range(CONNECTIONS + 1)]
            for request in requests[:-1]:
                self.result(request)
            self.pending(requests[-1])
            assert self.agent.count(PAGE) == CONNECTIONS
            self.clock.advance(DISCARD_TIME)
            self.result(requests[-1])
            self.clock.advance(DISCARD_TIME)

    def test_held_while_a_body_is_read(self) -> None:
        """A connection is held while its response is used; the wait in the queue is no silence."""
        self.agent.at(PAGE, Reply(200, (b"begin",), whole=False))
        requests = [run(file(self.upstream)) for _ in range(CONNECTIONS + 1)]
        assert len(self.agent.asked) == CONNECTIONS
        self.clock.advance(READ_TIMEOUT + 0.1)
        assert len(self.agent.asked) == CONNECTIONS + 1
        self.clock.advance(READ_TIMEOUT - 0.1)
        self.pending(requests[-1])
        self.clock.advance(0.2)
        for request in requests:
            assert self.error(request, UpstreamFailed).cause == "timed out"


class CountedTests(ClientCase):
    """Requests for an index are counted: each once, by its result."""

    def setUp(self) -> None:
        super().setUp()
        self.name = self.id().rpartition(".")[2]  # metrics belong to the process
        self.before = self.values()

    def values(self) -> dict[str, float]:
        found = samples(metrics.exposition({})[0].decode())
        return {
            key.partition("{")[0].removeprefix("proxpi_").removesuffix("_total")
            + (f" {key.partition('result=')[2][:-1]}" if "result=" in key else ""): value
            for key, value in found.items()
            if f"index={self.name}" in key and "_bucket" not in key
        }

    def counted(self) -> dict[str, float]:
        """Return the counts since the last call."""
        before, self.before = self.before, self.values()
        return {
            key.removeprefix("upstream_requests "): value - before.get(key, 0.0)
            for key, value in self.before.items()
            if key.startswith("upstream_requests") and value != before.get(key, 0.0)
        }

    async def ask(self, url: str = PAGE, *, fails: bool = False) -> bytes:
        async with self.upstream.file(url, {}, index=self.name) as response:
            if fails:
                raise response.status_error()
            return (await self.upstream.read(response))[0]

    def test_results(self) -> None:
        """The result is that of the status, unless an error says more; each from a short list."""
        cases: tuple[tuple[Reply | Exception, bool, str], ...] = (
            (Reply(200, b"page"), False, "ok"),
            (Reply(206, b"page"), False, "ok"),
            (Reply(304), False, "not_modified"),
            (Reply(404), False, "absent"),
            (Reply(410), False, "absent"),
            (Reply(403), False, "absent"),
            (Reply(403), True, "credentials"),
            (Reply(401), False, "credentials"),
            (Reply(429), True, "rate_limited"),
            (Reply(429), False, "rate_limited"),
            (Reply(500), True, "server_error"),
            (Reply(503), False, "server_error"),
            (Reply(418), False, "status"),
            (Reply(200, b"page", ends=ConnectionResetError), False, "cut"),
            (Reply(200, b"p", length=4, ends=PotentialDataLoss), False, "ok"),
            (ConnectionRefusedError(), False, "connection"),
            (DNSLookupError(), False, "dns"),
            (TimeoutError(), False, "timeout"),
            (ResponseFailed([Failure(SSL.Error([("", "", "certificate")]))]), False, "tls"),
            (ProxyFailed("proxy http://p.example", "refused"), False, "proxy"),
            (UpstreamFailed(PAGE, "?", kind="hash"), False, "invalid"),
        )
        for reply, fails, result in cases:
            self.agent.at(PAGE, reply)
            run(self.ask(fails=fails)).addErrback(lambda _: None)
            assert self.counted() == {result: 1}, reply
            assert result in get_args(FailureKind) or result in ("ok", "not_modified", "absent")

    def test_redirects(self) -> None:
        """A request is one, however many redirects it takes; the bytes are those of its body."""
        other = "https://index.example/other/"
        self.agent.at(PAGE, redirect(other))
        self.agent.at(other, Reply(200, b"page"))
        assert self.result(run(self.ask())) == b"page"
        assert self.counted() == {"ok": 1}
        assert (self.before["received_bytes"], self.before["upstream_seconds_count"]) == (4, 1)
        self.agent.at(other, redirect(PAGE))
        self.error(run(self.ask()), UpstreamFailed)
        assert self.counted() == {"invalid": 1}

    def test_cancelled(self) -> None:
        """A cancelled request is counted as such once it was sent, and not before."""
        self.upstream = upstream_client(self.agent, self.clock, PRIVATE, connections=1)
        self.agent.silent.add(PAGE)
        asked = [run(self.ask()) for _ in range(2)]
        for each in reversed(asked):
            each.cancel()
            self.error(each, CancelledError)
        assert self.counted() == {"cancelled": 1}

    def test_silence(self) -> None:
        """A request without a response is counted as timed out, and has no latency."""
        self.agent.silent.add(PAGE)
        asked = run(self.ask())
        self.clock.advance(CONNECT_TIMEOUT + READ_TIMEOUT)
        self.error(asked, UpstreamFailed)
        assert self.counted() == {"timeout": 1}
        assert self.upstream.latency(self.name) is None

    def test_latency(self) -> None:
        """The latency is the mean of the last responses, until the head."""
        for seconds in (9.0, *([1.0, 3.0] * (LATENCIES // 2))):
            self.agent.silent.add(PAGE)
            self.agent.at(PAGE, reply := Reply(200, b"page", whole=False))
            asked = run(self.ask())
            self.clock.advance(seconds)
            self.agent.release(PAGE)
            self.clock.advance(5)
            reply.end()
            self.result(asked)
        assert self.upstream.latency(self.name) == 2.0
        assert self.before == {}
        assert self.values()["upstream_seconds_sum"] == 9.0 + 2.0 * LATENCIES

    def test_no_index(self) -> None:
        """A request for no index is not counted."""
        before = metrics.totals()
        self.agent.at(PAGE, Reply(200, b"page"))
        assert self.result(run(file(self.upstream))) == b"page"
        self.upstream = upstream_client(self.agent, self.clock, PRIVATE, offline=True)
        self.error(run(self.ask()), Offline)
        after = metrics.totals()
        assert after == before
        assert self.counted() == {}
