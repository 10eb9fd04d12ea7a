"""How far a failure reaches: one page, or every page of the index; never another index."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from twisted.internet import error
from twisted.python.failure import Failure
from twisted.web.client import ResponseNeverReceived
from werkzeug.http import http_date

from proxpi.index import revalidation
from proxpi.upstream.errors import TLSFailed, UpstreamFailed
from tests.index.paged import AT_EXTRA, AT_ROOT, JSON, PagesCase, files
from tests.support.agent import Reply
from tests.support.cases import run
from tests.support.indexes import EXTRA, ROOT, project_page

PRIVATE = ROOT.replace("//", "//user:secret@")
OTHER, COLD = f"{ROOT}other/", f"{ROOT}cold/"
ELSEWHERE = "https://mirror.example/demo/"
IN_HALF_A_MINUTE = http_date(datetime.now(UTC) + timedelta(seconds=600))
LOOP = Reply(302, headers={"Location": AT_ROOT})
#: Failures of one page. A response of any status is one, with or without ``Retry-After``.
PAGE_FAILURES: list[Reply | Exception] = [
    *(
        Reply(status, (b"no",), {"Content-Type": "text/plain"})
        for status in (204, 400, 401, 402, 403, 405, 408, 412, 418, 425, 451)
    ),
    *(Reply(status) for status in (500, 501, 502, 503, 504, 507, 520, 599)),
    *(
        Reply(status, headers={"Retry-After": value})
        for status in (500, 502, 503)
        for value in ("0", "2", "30", IN_HALF_A_MINUTE)
    ),
    Reply(200, (b"welcome",)),
    Reply(200, (b"\x89PNG\r\n",), {"Content-Type": "image/png"}),
    Reply(200, (b"garbage",), {"Content-Encoding": "gzip"}),
    Reply(200, (b'{"files"',), ends=ConnectionError),
    LOOP,
    Reply(302, headers={"Location": ELSEWHERE}),
    project_page(version="2.0"),
    error.ConnectionLost(),
    ResponseNeverReceived([Failure(error.ConnectionDone())]),
]
#: Failures of the index: no connection, or too many requests.
INDEX_FAILURES: list[Reply | Exception] = [
    error.ConnectionRefusedError(),
    error.DNSLookupError("root.example"),
    error.NoRouteError(),
    error.TimeoutError(),
    error.TCPTimedOutError(),
    TLSFailed("TLS failed: the certificate of root.example has expired", temporary=False),
    Reply(429),
    Reply(429, headers={"Retry-After": "2"}),
    Reply(429, headers={"Retry-After": IN_HALF_A_MINUTE}),
]


class ScopeCase(PagesCase):
    """Tests with two stale pages of one index."""

    def hold(self, url: str = ROOT) -> None:
        """Hold two pages that are stale, with validators; each has got a new file since."""
        self.build(url)
        self.indexes.says(ELSEWHERE, error.ConnectionRefusedError())
        for name in ("demo", "other"):
            self.indexes.says(f"{ROOT}{name}/", project_page("a.zip").having(ETag='"1"'))
            self.page(name)
        self.clock.advance(2000)
        for address in (AT_ROOT, OTHER, COLD):
            self.indexes.says(address, project_page("b.zip"))

    def stale(self, name: str = "demo") -> None:
        """Ask for a page; its first client gets the stale one within 5 s."""
        ask = self.ask(name)
        self.clock.pump([0.1] * 51)
        assert self.result(ask).status == "STALE"

    def at_once(self, name: str = "demo") -> str:
        """Give the status of a page, for which a client waits half a second at most."""
        ask = self.ask(name)
        if not ask.called:
            self.clock.advance(0.5)
        return self.result(ask).status

    def hammer(self, seconds: int) -> int:
        """Ask for the failing page all the time; tell how often the index was asked."""
        before = self.agents.count(AT_ROOT)
        for _ in range(seconds * 4):
            assert self.at_once() == "STALE"
            self.clock.advance(0.25)
        return self.agents.count(AT_ROOT) - before

    def fresh_after(self, name: str, most: float) -> float:
        """Tell after how many seconds a client gets the fresh page that there is now."""
        began = self.clock.seconds()
        while self.at_once(name) == "STALE":
            self.clock.advance(0.1)
            assert self.clock.seconds() - began <= most
        assert files(self.page(name)) == ["b.zip"]
        return self.clock.seconds() - began


class PageTests(ScopeCase):
    """One page fails."""

    def break_(self, failure: Reply | Exception) -> None:
        """Let it fail so."""
        self.indexes.says(AT_ROOT, failure)

    def test_other_pages(self) -> None:
        """Every other page is fresh, also a cold one, however often the bad one is wanted."""
        for url in (ROOT, PRIVATE):
            for failure in PAGE_FAILURES:
                self.hold(url)
                self.break_(failure)
                self.stale()
                self.hammer(3)
                page = self.page("other")
                assert (page.status, files(page)) == ("MISS", ["b.zip"]), failure
                assert self.page("cold").status == "MISS"

    def test_two_bad_pages(self) -> None:
        """Nor do several bad pages make a bad index."""
        for failure in PAGE_FAILURES:
            self.hold()
            self.break_(failure)
            for name in ("bad-1", "bad-2", "bad-3"):
                self.indexes.says(f"{ROOT}{name}/", Reply(500))
                run(self.pages.fetch(name, JSON, False)).addErrback(lambda _: None)
            self.stale()
            assert self.page("other").status == "MISS"

    def test_files(self) -> None:
        """A signed link of another page is renewed; one of the bad page has its own error."""
        for failure in PAGE_FAILURES:
            self.hold()
            self.break_(failure)
            self.stale()
            listed = self.result(run(self.pages.ask_again("other", "b.zip")))
            assert listed is not None
            ask = run(self.pages.ask_again("demo", "b.zip"))
            self.clock.pump([0.1] * 51)
            at = self.error(ask, UpstreamFailed).url
            assert at in (AT_ROOT, ELSEWHERE)

    def test_upstream_requests(self) -> None:
        """The index is asked for the bad page once in a few seconds, and then in 30."""
        for failure in PAGE_FAILURES:
            self.hold()
            self.break_(failure)
            self.stale()
            # A 4xx may be due to the validators: the index is asked once more without them.
            hops = 11 if failure == LOOP else 2
            assert 1 <= self.hammer(30) <= 12 * hops, failure
            rejected = isinstance(failure, Reply) and failure.status in (401, 403)
            self.break_(project_page("b.zip"))
            self.fresh_after("demo", 30.0 if rejected or _retry_after(failure) else 4.0)

    def test_without_a_stale_page(self) -> None:
        """A client without a stale page has the index asked, whatever the breaker says."""
        for failure in PAGE_FAILURES:
            self.build(PRIVATE)
            self.indexes.says(ELSEWHERE, error.ConnectionRefusedError())
            self.break_(failure)
            ask = self.ask()
            self.clock.pump([0.5] * 24)
            asked = self.agents.count(AT_ROOT)
            self.error(ask, UpstreamFailed)
            self.break_(project_page("b.zip"))
            assert files(self.page()) == ["b.zip"]
            assert self.agents.count(AT_ROOT) == asked + 1

    def test_silence_after_the_head(self) -> None:
        """A page that comes to a halt harms no other."""
        self.hold()
        self.break_(Reply(200, (b'{"files"',), whole=False))
        self.stale()
        assert self.page("other").status == "MISS"
        assert self.page("cold").status == "MISS"
        self.clock.pump([1.0] * 20)
        assert self.hammer(30) <= 12
        assert self.page("cold").status == "HIT"

    def test_silence_beside_answers(self) -> None:
        """Nor does a page that hangs, while others are answered."""
        self.hold()
        self.agents.silent.add(AT_ROOT)
        ask = self.ask()
        self.clock.advance(3)
        assert self.page("other").status == "MISS"
        self.clock.advance(3)
        assert self.result(ask).status == "STALE"
        assert self.page("cold").status == "MISS"

    def test_connections(self) -> None:
        """However long a page hangs, few requests for it are under way; a slow one may end."""
        self.hold()
        self.agents.silent.add(AT_ROOT)
        self.stale()
        for _ in range(60):
            self.hammer(1)
            assert self.agents.waiting <= 4
        self.agents.release(AT_ROOT)
        assert files(self.page()) == ["b.zip"]

    def test_silence_of_a_page(self) -> None:
        """A page that hangs, asked for all the time, holds others up for a few seconds at most."""
        self.hold()
        self.agents.silent.add(AT_ROOT)
        self.stale()
        for _ in range(20):
            self.hammer(10)
            if self.at_once("other") != "STALE":
                break
        else:
            raise AssertionError("the other page never came")
        for _ in range(5):
            self.clock.advance(2000)  # all is stale again
            self.at_once()
            self.hammer(40)
            assert self.at_once("other") != "STALE"


class IndexTests(ScopeCase):
    """The whole index fails."""

    def break_(self, failure: Reply | Exception) -> None:
        """Let all pages fail so."""
        for address in (AT_ROOT, OTHER, COLD):
            self.indexes.says(address, failure)

    def test_other_pages(self) -> None:
        """What one page has found out, no client of another one has to."""
        self.put(revalidation, "PAUSES", (0.0, 0.0, 0.0))
        for failure in INDEX_FAILURES:
            self.hold()
            self.break_(failure)
            ask = self.ask()
            while not ask.called:
                self.clock.advance(0.1)
            asked = len(self.agents.asked)
            ready = self.pages.ready("other", JSON, False)
            assert ready is not None
            assert ready.status == "STALE"
            assert len(self.agents.asked) == asked

    def test_after_a_forced_refresh(self) -> None:
        """A forced refresh ignores the breakers once; later requests of that page heed them."""
        self.put(revalidation, "PAUSES", (0.0, 0.0, 0.0))
        for failure in INDEX_FAILURES:
            self.hold()
            self.pages.invalidate("demo")
            assert self.page("demo").status == "MISS"
            self.clock.advance(2000)
            self.break_(failure)
            ask = self.ask("other")
            while not ask.called:
                self.clock.advance(0.1)
            ready = self.pages.ready("demo", JSON, False)
            assert ready is not None
            assert ready.status == "STALE"

    def test_upstream_requests(self) -> None:
        """The index is asked once in two seconds, however many pages are wanted."""
        for failure in INDEX_FAILURES:
            self.hold()
            self.break_(failure)
            self.stale()
            asked = len(self.agents.asked)
            for _ in range(100):
                assert self.at_once() == self.at_once("other") == "STALE"
                self.clock.advance(0.3)
            assert len(self.agents.asked) - asked <= 22
            self.break_(project_page("b.zip"))
            limit = _retry_after(failure)
            self.fresh_after("other", 30.0 if limit else 4.0)
            self.fresh_after("demo", 30.0 if limit else 4.0)

    def test_silence(self) -> None:
        """An index that is silent is asked once in a few seconds, and is seen to come back."""
        self.hold()
        self.agents.silent |= {AT_ROOT, OTHER}
        self.stale()
        asked = len(self.agents.asked)
        began = self.clock.seconds()
        for _ in range(100):
            assert self.at_once() == self.at_once("other") == "STALE"
            self.clock.advance(0.3)
        assert len(self.agents.asked) - asked <= (self.clock.seconds() - began) / 1.5 + 3
        self.agents.silent.clear()
        assert self.fresh_after("other", 4.0) <= 4.0
        assert self.fresh_after("demo", 4.0) <= 4.0

    def test_return_of_many_pages(self) -> None:
        """After a silence every page is fresh a few seconds later, those of trials included."""
        names = [f"page-{number}" for number in range(20)]
        self.build(ROOT)
        for name in names:
            self.indexes.says(f"{ROOT}{name}/", project_page("a.zip"))
            self.page(name)
        self.clock.advance(2000)
        for name in names:
            self.indexes.says(f"{ROOT}{name}/", project_page("b.zip"))
        self.agents.silent |= {f"{ROOT}{name}/" for name in names}
        self.stale(names[0])
        for first in range(40):
            for number in range(20):
                assert self.at_once(names[(first + number) % 20]) == "STALE"
            self.clock.advance(0.3)
        self.agents.silent.clear()
        self.clock.advance(5)
        assert [self.at_once(name) for name in names] == ["MISS"] * 20

    def test_a_hundred_clients(self) -> None:
        """Once the time has passed, one request is sent for a hundred clients; 99 do not wait."""
        for failure in INDEX_FAILURES[:2] + PAGE_FAILURES[:2]:
            self.hold()
            self.break_(failure)
            self.stale()
            self.clock.advance(31)
            self.agents.silent.add(AT_ROOT)
            asked = len(self.agents.asked)
            asks = [self.ask() for _ in range(100)]
            assert len(self.agents.asked) == asked + 1
            assert [ask.called for ask in asks] == [False] + [True] * 99
            assert {self.result(ask).status for ask in asks[1:]} == {"STALE"}
            self.indexes.says(AT_ROOT, project_page("b.zip"))
            self.agents.release(AT_ROOT)
            assert self.result(asks[0]).status == "MISS"

    def test_files_of_other_pages(self) -> None:
        """A link that expired meanwhile fails with the error of the index, not of another page."""
        self.put(revalidation, "PAUSES", (0.0, 0.0, 0.0))
        self.hold()
        self.break_(INDEX_FAILURES[0])
        self.stale()
        self.clock.advance(9)
        self.at_once()
        failure = self.error(run(self.pages.ask_again("other", "a.zip")), UpstreamFailed)
        assert failure.url == ROOT

    def test_other_index(self) -> None:
        """Another index is revalidated as ever, and its news are in the stale page."""
        for failure in INDEX_FAILURES + PAGE_FAILURES:
            self.build(ROOT, EXTRA)
            self.indexes.says(ELSEWHERE, ConnectionRefusedError())
            self.indexes.says(AT_ROOT, project_page("a.zip"))
            self.indexes.says(AT_EXTRA, project_page("x.zip"))
            self.page()
            self.clock.advance(2000)
            self.break_(failure)
            self.indexes.says(AT_EXTRA, project_page("y.zip"))
            self.stale()
            assert files(self.page()) == ["a.zip", "y.zip"], failure


def _retry_after(failure: Reply | Exception) -> bool:
    return isinstance(failure, Reply) and "Retry-After" in failure.headers
