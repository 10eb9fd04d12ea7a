"""Project pages: fresh ones at once, others revalidated, once however many clients request one."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred

from proxpi.index import page_entries, page_store
from proxpi.index.page_cache import MAX_RELOADS, MIN_REFETCH_AGE, NoSuchFile, NoSuchProject, Page
from proxpi.index.page_store import PageStore, StoredPage
from proxpi.simple import model
from proxpi.simple.model import ListedFile
from proxpi.simple.negotiate import Serialization
from proxpi.upstream.connections import BACKGROUND_CONNECTIONS, CONNECTIONS
from proxpi.upstream.errors import UpstreamFailed
from tests.support.agent import Reply
from tests.support.cases import run
from tests.support.indexes import EXTRA, ROOT, project_page
from tests.support.pages import AT_EXTRA, AT_ROOT, HTML, JSON, Jobs, PagesCase, files

PRIVATE_ROOT, PRIVATE_EXTRA = (url.replace("//", "//user:secret@") for url in (ROOT, EXTRA))


class FreshnessTests(PagesCase):
    def test_ttl(self) -> None:
        """A page is served at once until its time to live is over, and then revalidated."""
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        assert self.pages.ready("demo", JSON, False) is None
        first = self.page()
        assert (first.status, first.remaining, first.age) == ("MISS", 1800.0, 0.0)
        self.clock.advance(1799.5)
        assert self.page() == Page(first.body, "HIT", 0.5, 1799.5, "root.example")
        assert self.pages.ready("demo", JSON, False) == Page(
            first.body, "HIT", 0.5, 1799.5, "root.example"
        )
        self.clock.advance(1)
        assert self.pages.ready("demo", JSON, False) is None
        self.indexes.says(AT_ROOT, project_page("b.zip"))
        page = self.page()
        assert (page.status, files(page), page.age) == ("MISS", ["b.zip"], 0.0)
        assert len(self.agent.asked) == 2

    def test_each_index_has_its_ttl(self) -> None:
        """Only those indexes get a request whose response is stale."""
        self.begin(project_page("a.zip"), project_page("b.zip"))
        assert self.page().remaining == 180.0
        self.clock.advance(181)
        assert files(self.page()) == ["a.zip", "b.zip"]
        assert (self.agent.count(AT_ROOT), self.agent.count(AT_EXTRA)) == (1, 2)
        self.clock.advance(1620)
        self.page()
        assert (self.agent.count(AT_ROOT), self.agent.count(AT_EXTRA)) == (2, 3)

    def test_no_index_cache(self) -> None:
        """With a time to live of 0 each request is sent on, but those at a time share it."""
        self.build(ROOT, ttls=(0.0,))
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        assert self.page().remaining == 0.0
        assert self.pages.ready("demo", JSON, False) is None
        self.agent.silent.add(AT_ROOT)
        asks = [self.ask() for _ in range(10)]
        self.agent.release(AT_ROOT)
        assert {self.result(ask).status for ask in asks} == {"MISS"}
        assert self.agent.count(AT_ROOT) == 2

    def test_absence(self) -> None:
        """An absence is fresh for a minute, also that of a project that was there."""
        self.error(self.ask(), NoSuchProject)
        self.clock.advance(59)
        with pytest.raises(NoSuchProject):
            self.pages.ready("demo", JSON, False)
        self.error(self.ask(), NoSuchProject)
        assert len(self.agent.asked) == 1
        self.clock.advance(2)
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        assert files(self.page()) == ["a.zip"]
        self.indexes.says(AT_ROOT, Reply(404))
        self.clock.advance(1801)
        self.error(self.ask(), NoSuchProject)

    def test_absence_with_a_short_ttl(self) -> None:
        """An absence is fresh no longer than a page of its index."""
        self.build(ROOT, ttls=(20.0,))
        for seconds, requests in ((0, 1), (19, 1), (2, 2)):
            self.clock.advance(seconds)
            self.error(self.ask(), NoSuchProject)
            assert len(self.agent.asked) == requests

    def test_revalidated(self) -> None:
        """A page that the index confirms is the same page, with all its time again."""
        self.indexes.says(AT_ROOT, project_page("a.zip").having(ETag='"x"'))
        first = self.page()
        self.clock.advance(1801)
        self.indexes.says(AT_ROOT, Reply(304))
        again = self.page()
        assert again == Page(first.body, "REVALIDATED", 1800.0, 0.0, "root.example")
        assert again.body is first.body
        assert self.agent.asked[-1].header("If-None-Match") == '"x"'


class FlightTests(PagesCase):
    def setUp(self) -> None:
        super().setUp()
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        self.agent.silent.add(AT_ROOT)

    def test_one_request(self) -> None:
        """All clients of a page share one request, in any representation; others do not."""
        asks = [self.ask(form=form) for form in (JSON, HTML) for _ in range(100)]
        assert len(self.agent.asked) == 1
        self.indexes.says(f"{ROOT}other/", project_page("o.zip"))
        assert files(self.page("other")) == ["o.zip"]
        self.agent.release(AT_ROOT)
        assert {self.result(ask).status for ask in asks} == {"MISS"}

    def test_one_request_an_index(self) -> None:
        """A revalidation of stale indexes and one of all share the request to each index."""
        self.begin(project_page("a.zip"), project_page("b.zip"))
        self.page()
        self.clock.advance(200)
        self.agent.silent |= {AT_ROOT, AT_EXTRA}
        one, other = self.ask(), run(self.pages.refetch_file("demo", "a.zip"))
        assert (self.agent.count(AT_ROOT), self.agent.count(AT_EXTRA)) == (2, 2)
        self.agent.release(AT_ROOT)
        self.pending(one)
        self.agent.release(AT_EXTRA)
        assert files(self.result(one)) == ["a.zip", "b.zip"]
        assert self.result(other) is not None


class QueueTests(PagesCase):
    """Requests that wait for a connection, as pages that are slow take all of the index."""

    def setUp(self) -> None:
        super().setUp()
        self.names = [f"p-{number}" for number in range(2 * CONNECTIONS)]
        for name in self.names:
            self.agent.silent.add(f"{ROOT}{name}/")
            self.indexes.says(f"{ROOT}{name}/", project_page("p.zip"))
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        self.asks = [self.ask(name) for name in self.names]
        assert len(self.agent.asked) == CONNECTIONS

    def leave(self) -> None:
        for ask in self.asks:
            ask.cancel()
            self.error(ask, CancelledError)

    def test_all_leave(self) -> None:
        """A request that waits ends with its last client; one that was sent continues."""
        self.clock.advance(7)
        ask = self.ask()
        self.leave()
        self.agent.release(f"{ROOT}{self.names[0]}/")
        assert files(self.result(ask)) == ["a.zip"]
        for name in self.names[1:CONNECTIONS]:
            self.agent.release(f"{ROOT}{name}/")
        assert len(self.agent.asked) == CONNECTIONS + 1
        assert self.page(self.names[0]).status == "HIT"
        assert not self.unhandled()

    def test_one_client(self) -> None:
        """A client that stays, or comes next, gets the page."""
        for stays in (True, False):
            self.setUp()
            ask = self.ask(self.names[-1]) if stays else None
            self.leave()
            ask = ask or self.ask(self.names[-1])
            self.agent.silent.clear()
            self.agent.release(f"{ROOT}{self.names[0]}/")
            assert files(self.result(ask)) == ["p.zip"]

    def test_late(self) -> None:
        """A revalidation that waits continues behind a client that got the stale page."""
        for name in self.names:
            self.agent.release(f"{ROOT}{name}/")
        self.page()
        self.clock.advance(2000)
        self.agent.silent |= {f"{ROOT}{name}/" for name in self.names}
        self.asks = [self.ask(name) for name in self.names[:CONNECTIONS]]
        stale = self.ask()
        self.clock.advance(5.1)
        assert self.result(stale).status == "STALE"
        self.indexes.says(AT_ROOT, project_page("b.zip"))
        for name in self.names:
            self.agent.release(f"{ROOT}{name}/")
        page = self.pages.ready("demo", JSON, False)
        assert page is not None
        assert (page.status, files(page)) == ("HIT", ["b.zip"])


class MergeTests(PagesCase):
    def test_precedence(self) -> None:
        """A file name is taken, listing and bytes, from the first index that lists it."""
        second = project_page("a.zip", "b.zip", host="second.example")
        self.begin(project_page("a.zip", host="first.example"), second)
        expected = {"a.zip": "https://first.example/a.zip", "b.zip": "https://second.example/b.zip"}
        for name, url in expected.items():
            assert self.result(run(self.pages.fetch_file("demo", name))).entry["url"] == url
            assert self.url(name) == url
        assert files(self.page()) == ["a.zip", "b.zip"]

    def test_quarantined(self) -> None:
        """Files of a quarantined index are in no representation, and found by no name."""
        status: dict[str, Any] = {"project-status": {"status": "quarantined", "reason": "malware"}}
        pages = [project_page("a.zip", "b.zip", **status), project_page("b.zip", host="good")]
        for _ in range(2):
            pages.reverse()
            self.begin(*pages)
            page = self.page()
            assert files(page) == ["b.zip"]
            assert json.loads(page.body.data)["project-status"] == status["project-status"]
            html = self.result(self.ask(form=HTML)).body.data
            assert (b'content="quarantined"' in html, b"a.zip" in html) == (True, False)
            assert (self.url("a.zip"), self.url("b.zip")) == (None, "https://good/b.zip")
            self.error(run(self.pages.fetch_file("demo", "a.zip")), NoSuchFile)

    def test_one_lacks_it(self) -> None:
        """A project that one index lacks is no error, whichever it is."""
        for replies in ((project_page("a.zip"), Reply(404)), (Reply(404), project_page("a.zip"))):
            self.begin(*replies)
            page = self.page()
            assert (files(page), page.remaining) == (["a.zip"], 60.0)

    def test_private(self) -> None:
        """A file is private behind credentials of its index, or of its own origin."""
        for urls, host, private in (
            ((PRIVATE_ROOT, EXTRA), "files.example", [True, False]),
            ((ROOT, PRIVATE_EXTRA), "extra.example", [True, True]),
        ):
            self.build(*urls)
            self.indexes.says(AT_ROOT, project_page("a.zip", host=host))
            self.indexes.says(AT_EXTRA, project_page("a.zip", "b.zip"))
            self.page()
            found = (self.pages.ready_file("demo", name) for name in ("a.zip", "b.zip"))
            assert [listed is not None and listed.private for listed in found] == private


class RepresentationTests(PagesCase):
    def body(self, serialization: Serialization, compressed: bool) -> Any:
        return self.result(run(self.pages.fetch("demo", serialization, compressed))).body

    def test_representations(self) -> None:
        """All four are of one page, rendered once, each with the tag of its very bytes."""
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        bodies = [self.body(form, packed) for form in (JSON, HTML) for packed in (False, True)]
        plain_json, packed_json, plain_html, packed_html = (each.data for each in bodies)
        assert json.loads(plain_json)["files"][0]["filename"] == "a.zip"
        assert b'<a href="a.zip">a.zip</a>' in plain_html
        assert gzip.decompress(packed_json) == plain_json
        assert gzip.decompress(packed_html) == plain_html
        assert len({each.etag for each in bodies}) == 4
        for each in bodies:
            assert hashlib.sha256(each.data).hexdigest().startswith(each.etag)
        assert self.body(HTML, True) is bodies[3]

    def test_tags(self) -> None:
        """A page that comes again unchanged keeps its tags, and another one has others."""
        tags = []
        for name in ("a.zip", "a.zip", "b.zip"):
            self.indexes.says(AT_ROOT, project_page(name))
            tags.append(self.body(JSON, True).etag)
            self.clock.advance(1801)
        assert tags[0] == tags[1] != tags[2]


class PrefetchTests(PagesCase):
    def setUp(self) -> None:
        super().setUp()
        self.indexes.says(AT_ROOT, project_page("a.zip").having(ETag='"x"'))

    def test_rendered(self) -> None:
        """The next client gets the page at once, rendered, as without prefetch byte for byte."""
        expected = {form: self.result(self.ask(form=form)).body for form in (JSON, HTML)}
        for form, body in expected.items():
            self.build(ROOT)
            self.indexes.says(AT_ROOT, project_page("a.zip"))
            assert not self.pages.is_fresh("demo")
            assert self.result(self.prefetch(form=form))
            assert self.pages.is_fresh("demo")
            assert self.pages.ready("demo", form, False) == Page(
                body, "HIT", 1800.0, 0.0, "root.example"
            )
            assert len(self.agent.asked) == 1

    def test_revalidated(self) -> None:
        """A stale page is confirmed or replaced; a fresh one, or a fresh absence, needs nothing."""
        self.page()
        assert not self.result(self.prefetch())
        self.clock.advance(2000)
        self.agent.conditional = Reply(304)
        assert self.result(self.prefetch())
        assert self.pages.ready("demo", JSON, False) is not None
        self.clock.advance(2000)
        self.agent.conditional = None
        self.indexes.says(AT_ROOT, project_page("b.zip"))
        assert self.result(self.prefetch())
        assert files(self.page()) == ["b.zip"]
        assert self.result(self.prefetch("absent"))
        assert self.pages.is_fresh("absent")
        assert not self.result(self.prefetch("absent"))
        assert len(self.agent.asked) == 4

    def test_joined(self) -> None:
        """Clients join the flight, in any representation, and it those of clients."""
        firsts: list[Callable[[], Deferred[Any]]] = [self.prefetch, self.ask]
        for first in firsts:
            self.build(ROOT)
            self.indexes.says(AT_ROOT, project_page("a.zip"))
            self.agent.silent.add(AT_ROOT)
            begun = first()
            asks = [self.ask(form=form) for form in (JSON, HTML)]
            found = run(self.pages.fetch_file("demo", "a.zip"))
            later = self.prefetch()
            self.pending(later)
            self.agent.release(AT_ROOT)
            assert self.result(begun)
            assert not self.result(later)
            assert {self.result(ask).status for ask in asks} == {"MISS"}
            assert self.result(found).entry["filename"] == "a.zip"
            assert len(self.agent.asked) == 1

    def test_offline(self) -> None:
        """Offline nothing is sent."""
        self.indexes.upstream.offline = True
        assert not self.result(self.prefetch())
        assert self.agent.asked == []

    def test_lost(self) -> None:
        """A page that an index confirms and that the disk has lost is as if it never was there."""
        self.page()
        self.clock.advance(2000)
        self.start()
        assert not self.pages.is_fresh("demo")
        (path,) = (self.folder / ".proxpi/pages").iterdir()
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        self.agent.conditional = Reply(304)
        assert self.result(self.prefetch())
        assert self.result(self.prefetch())
        assert self.page().status == "HIT"

    def test_superseded(self) -> None:
        """After a DELETE meanwhile, nothing of the flight is stored."""
        self.page()
        self.clock.advance(2000)
        self.agent.silent.add(AT_ROOT)
        flight = self.prefetch()
        self.entries.invalidate("demo")
        self.agent.release(AT_ROOT)
        assert self.result(flight)
        assert not self.pages.is_fresh("demo")
        assert self.page().status == "MISS"


class PrefetchQueueTests(PagesCase):
    """Background flights while other pages take connections of the index."""

    def setUp(self) -> None:
        super().setUp()
        self.names = [f"p-{number}" for number in range(CONNECTIONS + 8)]
        for name in self.names:
            self.agent.silent.add(f"{ROOT}{name}/")
            self.indexes.says(f"{ROOT}{name}/", project_page("p.zip"))
        self.indexes.says(AT_ROOT, project_page("a.zip"))

    def asked(self, name: str = "demo") -> int:
        return self.agent.count(f"{ROOT}{name}/")

    def test_clients_first(self) -> None:
        """A page waits behind those that clients wait for, until a client waits for it."""
        self.agent.silent.add(AT_ROOT)
        asks = [self.ask(name) for name in self.names[:CONNECTIONS]]
        first, second = self.prefetch(self.names[-1]), self.prefetch()
        self.clock.advance(4)
        asks += [self.ask(name) for name in self.names[CONNECTIONS:-1]]
        for name in self.names[:8]:
            self.agent.release(f"{ROOT}{name}/")
        assert (self.asked(self.names[-2]), self.asked(self.names[-1]), self.asked()) == (1, 0, 0)
        client = self.ask()
        self.agent.release(f"{ROOT}{self.names[8]}/")
        assert (self.asked(self.names[-1]), self.asked()) == (0, 1)
        self.agent.release(AT_ROOT)
        assert (self.result(client).status, self.result(second)) == ("MISS", True)
        for name in self.names:
            self.agent.release(f"{ROOT}{name}/")
        assert self.result(first)
        assert [files(self.result(ask)) for ask in asks] == [["p.zip"]] * len(asks)
        assert len(self.agent.asked) == len(self.names) + 1

    def test_no_longer_wanted(self) -> None:
        """Pages that wait for a connection are not requested of an index that fails meanwhile."""
        refused = error.ConnectionRefusedError()
        for failure in (refused, Reply(429, headers={"Retry-After": "20"})):
            self.setUp()
            flights = [self.prefetch(name) for name in self.names]
            assert len(self.agent.asked) == BACKGROUND_CONNECTIONS
            for name in self.names:
                self.indexes.says(f"{ROOT}{name}/", failure)
            for name in self.names:
                self.agent.release(f"{ROOT}{name}/")
            # The first one that fails gives its connection to the next before the breaker opens.
            sent = BACKGROUND_CONNECTIONS + 1
            assert len(self.agent.asked) == sent
            assert [self.result(each) for each in flights[:sent]] == [True] * sent
            assert not any(self.result(each) for each in flights[sent:])
            assert not self.result(self.prefetch())

    def test_waits_for_long(self) -> None:
        """A client with a stale page has its 5 s, however long the flight has waited."""
        self.page()
        self.clock.advance(2000)
        asks = [self.ask(name) for name in self.names[:CONNECTIONS]]
        flight = self.prefetch()
        self.clock.advance(9)
        client = self.ask()
        self.clock.advance(0.5)
        self.pending(client)
        self.indexes.says(AT_ROOT, project_page("b.zip"))
        self.agent.release(f"{ROOT}p-0/")
        assert (self.result(client).status, files(self.page())) == ("MISS", ["b.zip"])
        assert self.result(flight)
        for name in self.names:
            self.agent.release(f"{ROOT}{name}/")
        for ask in asks:
            self.result(ask)

    def test_retries_of_a_client(self) -> None:
        """A client has the retries of its own, however long the flight has waited."""
        for name in self.names[:CONNECTIONS]:
            self.ask(name).addErrback(lambda _: None)
        flight = self.prefetch()
        self.clock.advance(15)
        client = self.ask()
        self.indexes.says(AT_ROOT, Reply(503))
        self.agent.release(f"{ROOT}p-0/")
        assert self.asked() == 1
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        self.clock.advance(1)
        assert (files(self.result(client)), self.result(flight)) == (["a.zip"], True)

    def test_lifted(self) -> None:
        """A client's joining sends the request on a connection that is left to clients."""
        for name in self.names[: CONNECTIONS * 3 // 4]:
            self.ask(name).addErrback(lambda _: None)
        flight = self.prefetch()
        assert self.asked() == 0
        assert files(self.page()) == ["a.zip"]
        assert (self.result(flight), self.asked()) == (True, 1)

    def test_cancelled(self) -> None:
        """A flight that waits for a connection ends with the last that waits for its page."""
        asks = [self.ask(name) for name in self.names[:CONNECTIONS]]
        flight, client = self.prefetch(), self.ask()
        client.cancel()
        self.error(client, CancelledError)
        flight.cancel()
        self.error(flight, CancelledError)
        for name in self.names:
            self.agent.release(f"{ROOT}{name}/")
        for ask in asks:
            self.result(ask)
        assert self.asked() == 0
        assert self.page().status == "MISS"
        assert not self.unhandled()


class SearchTests(PagesCase):
    def found(self, name: str = "demo") -> list[list[str]] | None:
        """Return the files on the pages that a search gets."""

        def names(pages: Sequence[bytes]) -> list[list[str]]:
            return [[file["filename"] for file in model.decode(page).files] for page in pages]

        return self.result(run(self.pages.search(name, names)))

    def test_pages(self) -> None:
        """A search gets the pages of all indexes that have the project, in order of precedence."""
        one, other = project_page("a.zip"), project_page("a.zip", "b.zip")
        status: dict[str, Any] = {"project-status": {"status": "quarantined"}}
        bad = project_page("c.zip", **status)
        for replies, expected in (
            ((one, other), [["a.zip"], ["a.zip", "b.zip"]]),
            ((other, Reply(404)), [["a.zip", "b.zip"]]),
            ((bad, one), [["a.zip"]]),
            ((Reply(404), Reply(404)), None),
            ((one, Reply(500)), None),
        ):
            self.begin(*replies)
            self.ask().addErrback(lambda _: None)
            self.clock.pump([0.5] * 30)
            asked = len(self.agent.asked)
            assert self.found() == expected
            self.clock.advance(10_000)
            assert self.found() == expected
            self.start()
            assert self.found() == expected
            assert len(self.agent.asked) == asked

    def test_memory(self) -> None:
        """A search, or the question whether a page is fresh, evicts no page from memory."""
        self.put(page_entries, "MEMORY", 2 * page_entries.OVERHEAD)
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        page = self.page()
        for number in range(10):
            assert self.found(f"no-{number}") is None
            assert not self.pages.is_fresh(f"no-{number}")
        assert self.page().body is page.body

    def test_lost(self) -> None:
        """A page that was written anew meanwhile is found, and one that is damaged is not."""
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        self.page()
        store, pages = self.store, self.pages
        self.indexes.says(AT_ROOT, project_page("longer.zip"))
        self.clock.advance(2000)
        self.start()
        self.page()
        self.store, self.pages = store, pages
        assert self.found() == [["longer.zip"]]
        (path,) = (self.folder / ".proxpi/pages").iterdir()
        path.write_bytes(path.read_bytes().replace(b"longer", b"lodger"))
        assert self.found() is None

    def test_error(self) -> None:
        """An error of the function is the caller's."""
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        self.page()
        self.error(run(self.pages.search("demo", lambda pages: 1 // 0)), ZeroDivisionError)


class MemoryTests(PagesCase):
    def setUp(self) -> None:
        super().setUp()
        self.put(page_entries, "MEMORY", 4 * page_entries.OVERHEAD)
        for name in "abcde":
            self.indexes.says(f"{ROOT}{name}/", project_page(f"{name}.zip"))

    def held(self) -> dict[str, Any]:
        pages: Any = self.entries
        entries: dict[str, Any] = pages._entries
        return entries

    def large(self, name: str) -> list[str]:
        """Let the index have a project that is larger than the memory; return its files."""
        listed = [hashlib.sha256(b"%d" % number).hexdigest() for number in range(400)]
        self.indexes.says(f"{ROOT}{name}/", project_page(*listed))
        return listed

    def test_least_recently_used(self) -> None:
        """The least recently used page is evicted; it is read from disk again."""
        for name in "abc":
            self.page(name)
        assert self.pages.ready("a", JSON, False) is not None
        self.page("d")
        assert list(self.held()) == ["c", "a", "d"]
        assert (self.page("b").status, files(self.page("b"))) == ("HIT", ["b.zip"])
        assert len(self.agent.asked) == 4
        listed = self.large("large")
        assert files(self.page("large")) == listed
        assert list(self.held()) == ["large"]
        self.start()
        assert self.pages.ready("large", JSON, False) is not None
        self.page("a")
        assert list(self.held()) == ["a"]

    def test_absent_and_failed(self) -> None:
        """Names that are absent or fail are evicted as well."""
        for number in range(20):
            self.error(self.ask(f"no-{number}"), NoSuchProject)
        self.error(self.ask("no-0"), NoSuchProject)
        assert self.agent.count(f"{ROOT}no-0/") == 2
        self.page("a")
        for number in range(20):
            self.indexes.says(f"{ROOT}bad-{number}/", Reply(501))
            self.fails(self.ask(f"bad-{number}"))
            assert self.page("a").status == "HIT"
        assert len(self.held()) <= 4

    def test_pinned(self) -> None:
        """An entry under revalidation is pinned, so that its page is requested once; then not."""
        self.agent.silent.add(f"{ROOT}a/")
        asks = [self.ask("a")]
        for number in range(4):
            self.large(f"large-{number}")
            self.page(f"large-{number}")
            asks.append(self.ask("a"))
        leaves = asks.pop(0)
        leaves.cancel()
        self.error(leaves, CancelledError)
        assert self.agent.waiting == 1
        self.agent.release(f"{ROOT}a/")
        assert [files(self.result(ask)) for ask in asks] == [["a.zip"]] * 4
        assert self.page("a").status == "HIT"
        for name in "bcde":
            self.page(name)
        assert "a" not in self.held()


class FileTests(PagesCase):
    def setUp(self) -> None:
        super().setUp()
        self.indexes.says(AT_ROOT, project_page("a.zip").having(ETag='"x"'))

    def file(self, name: str = "a.zip") -> Deferred[ListedFile]:
        return run(self.pages.fetch_file("demo", name))

    def again(self, name: str = "a.zip") -> Deferred[ListedFile | None]:
        return run(self.pages.refetch_file("demo", name))

    def test_known(self) -> None:
        """A listed file is found without a page before, and then at once, from a stale page."""
        assert self.url() is None
        listed = self.result(self.file())
        assert listed.entry["url"] == "https://files.example/a.zip"
        self.clock.advance(100_000)
        assert self.pages.ready_file("demo", "a.zip") is listed
        assert self.agent.count(AT_ROOT) == 1
        self.indexes.says(AT_ROOT, project_page("a.zip", host="elsewhere.example"))
        self.page()
        assert self.url() == "https://elsewhere.example/a.zip"

    def test_unknown(self) -> None:
        """An unknown file costs one conditional request, unless the page is young."""
        self.page()
        for _ in range(5):
            self.error(self.file("b.zip"), NoSuchFile)
        assert self.agent.count(AT_ROOT) == 1
        self.clock.advance(MIN_REFETCH_AGE + 1)
        self.indexes.says(AT_ROOT, Reply(304))
        self.error(self.file("b.zip"), NoSuchFile)
        assert self.agent.asked[-1].header("If-None-Match") == '"x"'
        assert self.agent.count(AT_ROOT) == 2
        self.clock.advance(MIN_REFETCH_AGE + 1)
        self.indexes.says(AT_ROOT, project_page("a.zip", "b.zip"))
        assert self.result(self.file("b.zip")).entry["filename"] == "b.zip"
        self.error(run(self.pages.fetch_file("absent", "a.zip")), NoSuchProject)

    def test_outage(self) -> None:
        """In an outage a listed file is found; an unknown one may exist, and is no 404."""
        self.indexes.says(AT_ROOT, Reply(500))
        assert self.fails(self.file()).cause == "status 500"
        self.setUp()
        for age, status in ((MIN_REFETCH_AGE + 1, "HIT"), (2000, "STALE")):
            self.page()
            self.clock.advance(age)
            self.indexes.says(AT_ROOT, Reply(500))
            asks = self.file(), self.file("b.zip")
            assert self.fails(asks[1]).cause == "status 500"
            assert self.result(asks[0]).entry["filename"] == "a.zip"
            assert self.page().status == status
            self.setUp()
        self.page()
        self.clock.advance(MIN_REFETCH_AGE + 1)
        self.agent.silent.add(AT_ROOT)
        ask = self.file("b.zip")
        self.clock.advance(5.1)
        error = self.error(ask, UpstreamFailed)
        assert (error.cause, error.temporary) == ("timed out", True)

    def test_again(self) -> None:
        """A page is revalidated for a signed URL that expired, however young it is."""
        assert self.result(self.again()) is not None
        assert self.agent.count(AT_ROOT) == 1
        self.indexes.says(AT_ROOT, project_page("a.zip", host="signed.example"))
        listed = self.result(self.again())
        assert listed is not None
        assert listed.entry["url"] == "https://signed.example/a.zip"
        assert self.result(self.again("b.zip")) is None

    def test_again_in_an_outage(self) -> None:
        """A stale page proves nothing about what the index lists now."""
        self.page()
        self.indexes.says(AT_ROOT, Reply(500))
        assert self.fails(self.again()).cause == "status 500"
        self.begin(project_page("a.zip"))
        self.page()
        self.agent.silent.add(AT_ROOT)
        ask = self.again()
        self.clock.advance(5.1)
        assert self.error(ask, UpstreamFailed).cause == "timed out"

    def test_a_disk_that_cannot_be_read(self) -> None:
        """A page that is lost whenever it is read is a failure, after a few tries."""
        self.put(StoredPage, "read", lambda *_: None)
        assert self.error(self.file(), UpstreamFailed).temporary
        assert self.agent.count(AT_ROOT) <= MAX_RELOADS
        assert "a.zip" in self.page().body.data.decode()


def wheel(number: int) -> dict[str, Any]:
    name = f"demo-{number}-py3-none-any.whl"
    url, digests = f"https://files.example/{name}", {"sha256": "0" * 64}
    return {"filename": name, "url": url, "hashes": {}, "core-metadata": digests}


ONE, TWO = wheel(1)["filename"], wheel(2)["filename"]


class MetadataCase(PagesCase):
    """Tests of a page with two wheels, and of core metadata that it advertises."""

    def lists(self, *wheels: dict[str, Any], **keys: Any) -> None:
        self.reply = project_page(*wheels, **keys).having(ETag='"x"')
        self.indexes.says(AT_ROOT, self.reply)

    def suppress_metadata(self, filename: str, project: str = "demo") -> None:
        self.result(run(self.pages.suppress_metadata(project, filename)))

    def advertised(self) -> list[str]:
        listed = json.loads(self.page().body.data)["files"]
        assert [file["filename"] for file in listed] == [ONE, TWO]
        names = [file["filename"] for file in listed if "core-metadata" in file]
        html = self.result(self.ask(form=HTML)).body.data.decode()
        for line in html.splitlines():
            if line.startswith("<a"):
                assert ("core-metadata" in line) == any(name in line for name in names)
                assert ("dist-info-metadata" in line) == any(name in line for name in names)
        return names


class SuppressedTests(MetadataCase):
    """Core metadata that is not to be had is not advertised, until the page changes."""

    def setUp(self) -> None:
        super().setUp()
        self.lists(wheel(1), wheel(2))
        self.first = self.page(), self.result(self.ask(form=HTML))

    def test_suppressed(self) -> None:
        """The next response is without it, has a new tag, and lists the wheel as before."""
        self.suppress_metadata(ONE)
        self.suppress_metadata(ONE, "absent")
        assert self.advertised() == [TWO]
        for before, form in zip(self.first, (JSON, HTML), strict=True):
            after = self.result(self.ask(form=form))
            assert after.body.etag != before.body.etag
            assert after.remaining == before.remaining
        assert self.url(ONE) is not None
        self.suppress_metadata(TWO)
        self.suppress_metadata(ONE)
        assert self.advertised() == []
        assert len(self.agent.asked) == 1

    def test_suppression_ends(self) -> None:
        """Suppression lasts over restarts, revalidations and outages, to a new page or DELETE."""
        self.suppress_metadata(ONE)
        self.start()
        for reply in (Reply(304), self.reply, Reply(503)):
            assert self.advertised() == [TWO]
            self.clock.advance(1801)
            self.indexes.says(AT_ROOT, reply)
            assert self.slow_page().status == "STALE" or reply.status != 503
        self.indexes.says(AT_ROOT, project_page(wheel(1), wheel(2), versions=["1", "2"]))
        self.clock.advance(60)
        assert self.advertised() == [ONE, TWO]
        self.suppress_metadata(ONE)
        self.entries.invalidate("demo")
        assert self.advertised() == [ONE, TWO]

    def test_while_it_is_rendered(self) -> None:
        """A representation that is being rendered meanwhile is not served any more."""
        self.start()
        jobs = Jobs()
        self.entries.in_thread = jobs
        ask = run(self.pages.fetch("demo", JSON, True))
        suppressed = run(self.pages.suppress_metadata("demo", ONE))
        jobs.end()
        self.result(suppressed)
        self.result(ask)
        assert self.pages.ready("demo", JSON, True) is None
        self.start()
        assert self.advertised() == [TWO]


WHEEL_DIGEST, METADATA_DIGEST = "1" * 64, "2" * 64


def bare(number: int, **keys: Any) -> dict[str, Any]:
    """Return what an index says of a wheel that has no core metadata."""
    entry = {**wheel(number), "hashes": {"sha256": WHEEL_DIGEST}, **keys}
    return {key: value for key, value in entry.items() if key != "core-metadata" or key in keys}


class ExtractedTests(MetadataCase):
    """Core metadata that was extracted from wheels is advertised where the index states none."""

    def setUp(self) -> None:
        super().setUp()
        self.lists(bare(1), bare(2))
        self.first = self.page(), self.result(self.ask(form=HTML))

    def advertise(self, *filenames: str, project: str = "demo") -> None:
        for filename in filenames:
            work = self.pages.advertise_metadata(project, filename, WHEEL_DIGEST, METADATA_DIGEST)
            self.result(run(work))

    def core_metadata(self, filename: str = ONE) -> Any:
        """Return what the page lists for a file, if that is extracted."""
        listed = self.pages.ready_file("demo", filename)
        assert listed is not None
        stated = listed.entry.get("core-metadata")
        rendered = {each["filename"]: each for each in json.loads(self.page().body.data)["files"]}
        assert rendered[filename].get("core-metadata") == stated
        assert listed.extracted == (stated == {"sha256": METADATA_DIGEST})
        return stated

    def test_advertised(self) -> None:
        """The next responses have the digest and a new tag, and cost no request."""
        self.core_metadata()
        changed: list[str | None] = []
        self.entries.changed = changed.append
        self.advertise(ONE)
        assert changed == ["demo"]
        self.advertise(ONE, project="absent")
        assert self.advertised() == [ONE]
        for before, form in zip(self.first, (JSON, HTML), strict=True):
            after = self.result(self.ask(form=form))
            assert (after.status, after.remaining) == ("HIT", before.remaining)
            assert after.body.etag != before.body.etag
        html = self.result(self.ask(form=HTML)).body.data.decode()
        assert html.count(f'core-metadata="sha256={METADATA_DIGEST}"') == 1
        assert html.count(f'dist-info-metadata="sha256={METADATA_DIGEST}"') == 1
        assert self.core_metadata() == {"sha256": METADATA_DIGEST}
        assert self.core_metadata(TWO) is None
        self.advertise(TWO)
        assert self.advertised() == [ONE, TWO]
        assert self.agent.urls().count(AT_ROOT) == 1

    def test_lasting(self) -> None:
        """It lasts over restarts, revalidations, outages, new pages, another version and DELETE."""
        self.advertise(ONE)
        new = project_page(bare(1), bare(2), versions=["1", "2"])
        for reply in (Reply(304), self.reply, Reply(503), new):
            self.start()
            assert self.advertised() == [ONE]
            self.clock.advance(1801)
            self.indexes.says(AT_ROOT, reply)
            assert self.slow_page().status == "STALE" or reply.status != 503
            self.clock.advance(60)
            assert self.core_metadata() == {"sha256": METADATA_DIGEST}
        self.put(page_store, "__version__", "0.0.0")
        self.start()
        assert self.advertised() == [ONE]
        self.entries.invalidate("demo")
        assert self.advertised() == [ONE]
        self.build(ROOT, EXTRA)
        self.indexes.says(AT_ROOT, new)
        self.page()
        self.advertise(ONE)
        self.indexes = attrs.evolve(self.indexes, urls=(EXTRA, ROOT))
        self.start()
        self.page()
        assert self.core_metadata() == {"sha256": METADATA_DIGEST}

    def test_what_the_index_states(self) -> None:
        """An index with core metadata of its own has precedence; one that denies it has none."""
        own = {"sha256": "3" * 64}
        for stated, listed in ((own, own), (True, True), (False, {"sha256": METADATA_DIGEST})):
            self.build(ROOT)
            self.lists(bare(1), bare(2))
            self.page()
            self.advertise(ONE)
            self.lists(bare(1, **{"core-metadata": stated}), bare(2))
            self.clock.advance(1801)
            self.page()
            assert self.core_metadata() == listed
            # What was superseded is forgotten.
            self.lists(bare(1), bare(2))
            self.clock.advance(1801)
            self.page()
            assert self.core_metadata() == (None if stated else listed)

    def test_another_wheel(self) -> None:
        """The page advertises the metadata of the very wheel that it lists."""
        for other in (
            [bare(1, hashes={"sha256": "4" * 64}), bare(2)],
            [bare(1, hashes={}), bare(2)],
        ):
            self.build(ROOT)
            self.lists(*other)
            self.page()
            self.advertise(ONE)
            assert self.core_metadata() is None
            self.lists(bare(1), bare(2))
            self.clock.advance(1801)
            self.page()
            assert self.core_metadata() is None

    def test_quarantined(self) -> None:
        """Files of a quarantined project are not listed, with or without metadata."""
        self.advertise(ONE)
        self.lists(bare(1), **{"project-status": {"status": "quarantined"}})
        self.clock.advance(1801)
        assert files(self.page()) == []

    def test_suppressed(self) -> None:
        """Metadata that cannot be served is suppressed, until it is extracted again."""
        self.advertise(ONE, TWO)
        self.suppress_metadata(ONE)
        assert self.advertised() == [TWO]
        assert self.core_metadata() is None
        self.advertise(ONE)
        assert self.advertised() == [ONE, TWO]

    def test_together(self) -> None:
        """Digests that come while the page is written are written together, once."""
        jobs = Jobs()
        self.entries.in_thread = jobs
        wheels = [bare(number) for number in range(50)]
        self.lists(*wheels)
        self.clock.advance(1801)
        ask = self.ask()
        jobs.end()
        self.result(ask)
        saved: list[object] = []
        save = PageStore.save

        def counting(*arguments: Any) -> StoredPage:
            saved.append(arguments)
            return save(*arguments)

        self.put(PageStore, "save", counting)
        digests = WHEEL_DIGEST, METADATA_DIGEST
        names = [each["filename"] for each in wheels]
        work = [run(self.pages.advertise_metadata("demo", name, *digests)) for name in names]
        jobs.end()
        for each in work:
            self.result(each)
        assert len(saved) == 2
        ask = self.ask()
        jobs.end()
        listed = json.loads(self.result(ask).body.data)["files"]
        assert all(file["core-metadata"] == {"sha256": METADATA_DIGEST} for file in listed)

    def test_lost(self) -> None:
        """A page whose digests of metadata are damaged is fetched anew."""
        self.advertise(ONE)
        path = self.store.folder / "demo.page"
        damaged = path.read_bytes().replace(METADATA_DIGEST.encode(), b"5" * 64)
        path.write_bytes(damaged)
        self.start()
        assert self.pages.ready_file("demo", ONE) is None
        assert self.page().status == "MISS"
        assert self.core_metadata() is None

    def test_deleted_meanwhile(self) -> None:
        """Nothing of a superseded page is stored."""
        jobs = Jobs()
        self.entries.in_thread = jobs
        work = run(self.pages.advertise_metadata("demo", ONE, WHEEL_DIGEST, METADATA_DIGEST))
        self.result_of_clear(jobs)
        self.result(work)
        self.start()
        assert self.advertised() == []

    def result_of_clear(self, jobs: Jobs) -> None:
        cleared = self.entries.clear()
        jobs.end()
        self.result(cleared)
