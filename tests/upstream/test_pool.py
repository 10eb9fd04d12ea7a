"""The way out: what is sent where, how redirects are followed, how many may ask at once."""

from __future__ import annotations

import base64
import gzip
from itertools import pairwise
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock

from proxpi.upstream.client import CONNECTIONS, REDIRECTS, USER_AGENT, UpstreamClient
from proxpi.upstream.errors import UpstreamFailed
from proxpi.upstream.response import DRAIN_TIME, Response
from tests.support.agent import Asked, MemoryAgent, Reply
from tests.support.cases import Case, run
from tests.support.indexes import CONNECT_TIMEOUT, READ_TIMEOUT, upstream_client

PRIVATE = "https://user:secret@index.example/simple/"
PAGE = "https://index.example/simple/demo/"
BASIC = "Basic " + base64.b64encode(b"user:secret").decode()


def redirect(location: str, status: int = 302) -> Reply:
    """Give a redirect."""
    return Reply(status, (b"moved",), {"Location": location})


async def page(upstream: UpstreamClient, url: str = PAGE) -> Response:
    """Ask for a page, and leave its body."""
    async with upstream.page(url, {"Accept": "text/html"}) as answer:
        return answer


async def file(upstream: UpstreamClient, url: str = PAGE, method: str = "GET") -> bytes:
    """Ask for a file and read it."""
    async with upstream.file(url, {}, method) as answer:
        return (await upstream.read(answer))[0]


class PoolCase(Case):
    """Tests with an agent that answers by URL."""

    def setUp(self) -> None:
        """Prepare an upstream with an index behind credentials."""
        self.clock = Clock()
        self.agents = MemoryAgent()
        self.upstream = upstream_client(self.agents, self.clock, PRIVATE)

    def only(self) -> Asked:
        """Give the one request that was made."""
        (asked,) = self.agents.asked
        return asked

    def urls(self) -> list[str]:
        """Give the URLs that were asked for."""
        return [asked.url for asked in self.agents.asked]


class RequestTests(PoolCase):
    """What goes out."""

    def test_page(self) -> None:
        """A page is asked for with proxpi's name, compressed if the upstream likes."""
        self.agents.at(PAGE, Reply(200, (b"page",), {"ETag": '"x"', "Content-Length": "4"}))
        answer = self.result(run(page(self.upstream)))
        assert (answer.status, answer.url, answer.header("etag")) == (200, PAGE, '"x"')
        asked = self.only()
        assert (asked.method, asked.url) == ("GET", PAGE)
        assert asked.header("User-Agent") == USER_AGENT.decode()
        assert asked.header("Accept") == "text/html"
        assert asked.header("Accept-Encoding") == "gzip"

    def test_file(self) -> None:
        """A file is asked for as it is: no coding may change its bytes."""
        self.agents.at(PAGE, Reply(200, (b"by", b"tes"), {"Content-Encoding": "gzip"}))
        assert self.result(run(file(self.upstream))) == b"bytes"
        assert self.only().header("Accept-Encoding") == "identity"
        assert self.only().header("User-Agent") == USER_AGENT.decode()

    def test_head(self) -> None:
        """A file can be asked about with HEAD, also over a redirect."""
        self.agents.at(PAGE, redirect("/there"))
        self.agents.at("https://index.example/there", Reply(200))
        self.result(run(file(self.upstream, method="HEAD")))
        assert [asked.method for asked in self.agents.asked] == ["HEAD", "HEAD"]

    def test_length(self) -> None:
        """The announced length is a number, or it is not known."""
        for stated, length in (("17", 17), ("-1", None), ("many", None), (None, None)):
            headers = {"Content-Length": stated} if stated is not None else {}
            self.agents.at(PAGE, Reply(200, headers=headers, length=None))
            assert self.result(run(page(self.upstream))).length == length

    def test_non_ascii(self) -> None:
        """What is no ASCII goes out percent-encoded, and a signature stays as it was signed."""
        url = "https://files.example/d%C3%A9mo/ü+a%2Bb.whl?sig=a%2Fb&x={1}"
        self.result(run(page(self.upstream, url)))
        assert self.only().url == (
            "https://files.example/d%C3%A9mo/%C3%BC+a%2Bb.whl?sig=a%2Fb&x=%7B1%7D"
        )

    def test_other_schemes(self) -> None:
        """Nothing but http and https goes out."""
        for url in ("ftp://index.example/", "file:///etc/passwd", "index.example", ""):
            error = self.error(run(page(self.upstream, url)), UpstreamFailed)
            assert not error.temporary
        assert self.agents.asked == []

    def test_refused(self) -> None:
        """A request that fails is an upstream that failed."""
        self.agents.at(PAGE, ConnectionRefusedError())
        for ask in (page(self.upstream), file(self.upstream)):
            error = self.error(run(ask), UpstreamFailed)
            assert (error.cause, error.url) == ("connection refused", PAGE)

    def test_silent(self) -> None:
        """An upstream that sends no head is given up after the connect and the read timeout."""
        self.agents.silent.add(PAGE)
        asks: list[Deferred[Any]] = [run(page(self.upstream)), run(file(self.upstream))]
        self.clock.advance(CONNECT_TIMEOUT + READ_TIMEOUT - 0.1)
        for ask in asks:
            self.pending(ask)
        self.clock.advance(0.2)
        for ask in asks:
            assert self.error(ask, UpstreamFailed).cause == "timed out"
        assert self.agents.waiting == 0

    def test_cancel(self) -> None:
        """Whoever no longer wants the answer ends the request, and is told nothing else."""
        self.agents.silent.add(PAGE)
        for ask in (page, file):
            asked = run(ask(self.upstream))
            asked.cancel()
            self.error(asked, CancelledError)
            assert self.agents.waiting == 0
        assert self.clock.getDelayedCalls() == []


class TreqTests(PoolCase):
    """What treq would do with a page, and must not."""

    def test_ipv6(self) -> None:
        """An index may live at an address, which is no name to be encoded."""
        url = "http://[2600::1]:8080/simple/demo/"
        self.agents.at(url, Reply(200, (b"page",)))
        assert self.result(run(page(self.upstream, url))).status == 200
        assert self.urls() == [url]

    def test_cookies(self) -> None:
        """A cookie of one index is never sent, to none of them."""
        self.agents.at(PAGE, Reply(200, (b"page",), {"Set-Cookie": "session=secret; Path=/"}))
        for _ in range(2):
            self.result(run(page(self.upstream)))
        assert [asked.header("Cookie") for asked in self.agents.asked] == [None, None]

    def test_compression_of_files(self) -> None:
        """No field of an answer makes proxpi decompress a file."""
        data = gzip.compress(b"file")
        for name in ("Content-Encoding", "X-Proxpi-Content-Encoding"):
            self.agents.at(PAGE, Reply(200, (data,), {name: "gzip"}))
            assert self.result(run(file(self.upstream))) == data


class CredentialsTests(PoolCase):
    """Credentials go to their own origin, whatever leads elsewhere."""

    def test_own_origin(self) -> None:
        """Pages and files on the origin of the index are asked for with its credentials."""
        self.result(run(page(self.upstream)))
        self.result(run(file(self.upstream, "https://index.example:443/files/demo.whl")))
        assert [asked.header("Authorization") for asked in self.agents.asked] == [BASIC, BASIC]

    def test_not_in_the_url(self) -> None:
        """They travel in the header alone, and the answer's URL has none either."""
        answer = self.result(run(page(self.upstream, PRIVATE + "demo/")))
        assert self.only().url == answer.url == PAGE
        assert self.only().header("Authorization") == BASIC

    def test_other_origin(self) -> None:
        """Another origin gets nothing, not even what its own URL says."""
        self.result(run(file(self.upstream, "https://me:too@files.example/demo.whl")))
        assert self.only().url == "https://files.example/demo.whl"
        assert self.only().header("Authorization") is None

    def test_redirects(self) -> None:
        """Each hop decides anew: away without, and back with credentials."""
        away, back = "https://cdn.example/", "https://index.example/back"
        self.agents.script |= {PAGE: [redirect(away)], away: [redirect(back)], back: [Reply(200)]}
        self.result(run(file(self.upstream)))
        assert self.urls() == [PAGE, away, back]
        assert [asked.header("Authorization") for asked in self.agents.asked] == [
            BASIC,
            None,
            BASIC,
        ]

    def test_downgrade_to_another_port(self) -> None:
        """Another port of the same host is another origin."""
        elsewhere = "https://index.example:8443/simple/demo/"
        self.agents.script |= {PAGE: [redirect(elsewhere)], elsewhere: [Reply(200)]}
        self.result(run(page(self.upstream)))
        assert self.agents.asked[1].header("Authorization") is None


class RedirectTests(PoolCase):
    """Redirects."""

    def test_statuses(self) -> None:
        """Each of the five redirects leads on, absolute or relative; the last URL is told."""
        there = "https://index.example/simple/other/"
        self.agents.at(there, Reply(200, (b"page",)))
        for status in (301, 302, 303, 307, 308):
            for location in (there, "../other/", "/simple/other/", "//index.example/simple/other/"):
                self.agents.at(PAGE, redirect(location, status))
                answer = self.result(run(page(self.upstream)))
                assert (answer.status, answer.url) == (200, there)

    def test_headers_go_along(self) -> None:
        """What was asked stays asked at the next hop."""
        there = "https://cdn.example/"
        self.agents.script |= {PAGE: [redirect(there)], there: [Reply(200)]}
        self.result(run(page(self.upstream)))
        assert self.agents.asked[1].header("Accept") == "text/html"
        assert self.agents.asked[1].header("User-Agent") == USER_AGENT.decode()

    def test_no_redirects(self) -> None:
        """A redirect without a target, and a status that is none, are answers."""
        for reply in (Reply(302), redirect("/x", 300), redirect("/x", 304), redirect("/x", 200)):
            self.agents.at(PAGE, reply)
            assert self.result(run(page(self.upstream))).status == reply.status
        assert set(self.urls()) == {PAGE}

    def test_from_https_to_http(self) -> None:
        """What was asked for in secret is not asked for in public."""
        self.agents.at(PAGE, redirect("http://index.example/simple/demo/"))
        error = self.error(run(page(self.upstream)), UpstreamFailed)
        assert not error.temporary
        assert self.urls() == [PAGE]

    def test_from_http_to_https(self) -> None:
        """The other way round is welcome."""
        plain = PAGE.replace("https", "http")
        self.agents.script |= {plain: [redirect(PAGE)], PAGE: [Reply(200)]}
        assert self.result(run(page(self.upstream, plain))).url == PAGE

    def test_to_other_schemes(self) -> None:
        """A redirect to what is not http or https, or to no URL at all, is a failure."""
        for location in ("ftp://index.example/", "file:///etc/passwd", "http://[bad/", "//[bad/"):
            self.agents.at(PAGE, redirect(location))
            error = self.error(run(page(self.upstream)), UpstreamFailed)
            assert not error.temporary

    def test_to_a_private_address(self) -> None:
        """A redirect to an address inside is not followed, and the error says what to set."""
        for host in ("127.0.0.1", "[::1]", "10.0.0.1:8080", "2130706433", "localhost"):
            self.agents.at(PAGE, redirect(f"https://{host}/admin"))
            for ask in (page(self.upstream), file(self.upstream)):
                error = self.error(run(ask), UpstreamFailed)
                assert "PROXPI_ALLOW_HOSTS" in error.cause
                assert (error.url, error.temporary) == (f"https://{host}/admin", False)
        assert set(self.urls()) == {PAGE}

    def test_ten(self) -> None:
        """Ten redirects are followed."""
        urls = [f"https://index.example/{number}" for number in range(REDIRECTS + 1)]
        self.agents.script |= {url: [redirect(onto)] for url, onto in pairwise(urls)}
        self.agents.at(urls[-1], Reply(200, (b"file",)))
        assert self.result(run(file(self.upstream, urls[0]))) == b"file"

    def test_loop(self) -> None:
        """An eleventh is not, so that a loop ends."""
        self.agents.at(PAGE, redirect(PAGE))
        error = self.error(run(page(self.upstream)), UpstreamFailed)
        assert not error.temporary
        assert len(self.agents.asked) == REDIRECTS + 1 == 11

    def test_utf_8(self) -> None:
        """A target that is not percent-encoded means the bytes that it has."""
        self.agents.at(PAGE, redirect("/d\u00e9mo/"))
        self.result(run(page(self.upstream)))
        assert self.urls()[1] == "https://index.example/d%C3%A9mo/"


class SlotTests(PoolCase):
    """How many may ask one origin at once."""

    def test_limit(self) -> None:
        """Beyond the limit requests wait for their turn, first come first served."""
        self.agents.silent.add(PAGE)
        asks = [run(page(self.upstream)) for _ in range(CONNECTIONS + 2)]
        assert self.agents.waiting == CONNECTIONS
        self.agents.release(PAGE)
        for ask in asks:
            self.result(ask)
        assert len(self.agents.asked) == CONNECTIONS + 2

    def test_kinds_and_origins_are_apart(self) -> None:
        """Slow files never starve pages, nor does one upstream another."""
        self.agents.silent.add(PAGE)
        asks = [run(file(self.upstream)) for _ in range(CONNECTIONS + 1)]
        self.result(run(page(self.upstream, "https://index.example/simple/other/")))
        self.result(run(file(self.upstream, "https://files.example/demo.whl")))
        self.agents.release(PAGE)
        for ask in asks:
            self.result(ask)

    def test_failures_give_their_slot_back(self) -> None:
        """However a request ends, the next one gets its turn."""
        self.agents.at(PAGE, ConnectionRefusedError())
        for _ in range(CONNECTIONS + 1):
            self.error(run(page(self.upstream)), UpstreamFailed)
        self.agents.silent.add(PAGE)
        for _ in range(CONNECTIONS + 1):
            cancelled = run(page(self.upstream))
            cancelled.cancel()
            self.error(cancelled, Exception)
        assert len(self.agents.asked) == 2 * (CONNECTIONS + 1)

    def test_the_slot_of_where_it_leads(self) -> None:
        """Those who were redirected count where they are, not where they came from."""
        there = "https://files.example/demo.whl"
        self.agents.at(PAGE, redirect(there))
        self.agents.silent.add(there)
        redirected = [run(file(self.upstream)) for _ in range(CONNECTIONS + 1)]
        assert self.agents.count(there) == CONNECTIONS
        assert self.agents.count(PAGE) == CONNECTIONS + 1
        self.agents.release(there)
        for ask in redirected:
            self.result(ask)

    def test_number(self) -> None:
        """The limit is the one that was set."""
        self.agents.silent.add(PAGE)
        clock = self.clock
        few = upstream_client(self.agents, clock, connections=2)
        asks = [run(page(few)) for _ in range(3)]
        assert self.agents.waiting == 2
        self.agents.release(PAGE)
        for ask in asks:
            self.result(ask)

    def test_held_until_a_body_that_nobody_wants_is_over(self) -> None:
        """A connection that still brings one counts, be it that of a redirect or of an error."""
        there = "https://files.example/demo.whl"
        self.agents.at(there, Reply(200))
        for reply in (Reply(404), redirect(there)):
            self.agents.at(PAGE, attrs.evolve(reply, chunks=(b"begin",), whole=False))
            self.agents.asked.clear()
            asks = [run(page(self.upstream)) for _ in range(CONNECTIONS + 1)]
            for ask in asks[:-1]:
                self.result(ask)
            self.pending(asks[-1])
            assert self.agents.count(PAGE) == CONNECTIONS
            self.clock.advance(DRAIN_TIME)
            self.result(asks[-1])
            self.clock.advance(DRAIN_TIME)

    def test_waiting_is_no_silence(self) -> None:
        """The time that an upstream has for an answer begins with the request, not in the row."""
        self.agents.silent.add(PAGE)
        asks = [run(page(self.upstream)) for _ in range(CONNECTIONS + 1)]
        self.clock.advance(CONNECT_TIMEOUT + READ_TIMEOUT - 1)
        self.agents.release(PAGE)
        self.agents.silent.add(PAGE)
        self.result(asks[0])
        waits = run(page(self.upstream))
        self.clock.advance(CONNECT_TIMEOUT + READ_TIMEOUT - 1)
        self.pending(waits)
        self.agents.release(PAGE)
        self.result(waits)

    def test_held_until_the_body_is_over(self) -> None:
        """The slot is held as long as the answer is used."""

        async def use() -> None:
            async with self.upstream.file(PAGE, {}) as answer:
                await self.upstream.read(answer)

        self.agents.at(PAGE, Reply(200, (b"begin",), whole=False))
        asks = [run(use()) for _ in range(CONNECTIONS + 1)]
        assert len(self.agents.asked) == CONNECTIONS
        self.clock.advance(READ_TIMEOUT + 0.1)
        assert len(self.agents.asked) == CONNECTIONS + 1
        self.clock.advance(READ_TIMEOUT + 0.1)
        for ask in asks:
            assert self.error(ask, UpstreamFailed).cause == "timed out"
