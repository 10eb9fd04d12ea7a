"""Project pages: fresh ones at once, others asked for, once however many want one."""

from __future__ import annotations

import gzip
import hashlib
import json
from typing import Any

import pytest
from twisted.internet.defer import CancelledError

from proxpi.index import page_cache
from proxpi.index.page_cache import NoSuchFile, NoSuchProject, Page
from proxpi.simple import urls
from proxpi.simple.negotiate import Serialization
from tests.index.paged import AT_EXTRA, AT_ROOT, HTML, JSON, PagesCase, files
from tests.support.agent import Reply
from tests.support.cases import run
from tests.support.indexes import EXTRA, ROOT, project_page


class FreshnessTests(PagesCase):
    """How long a page is used, and what asking again costs."""

    def test_first_and_second(self) -> None:
        """The first who asks waits for the index, the second for nothing."""
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        assert self.pages.ready("demo", JSON, False) is None
        first = self.page()
        assert (first.status, first.remaining, first.age) == ("MISS", 1800.0, 0.0)
        assert files(first) == ["a.zip"]
        second = self.pages.ready("demo", JSON, False)
        assert second is not None
        assert (second.status, second.body) == ("HIT", first.body)
        assert self.page().status == "HIT"
        assert len(self.agents.asked) == 1

    def test_ttl(self) -> None:
        """A page is asked for again when its time is over, and not before."""
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        self.page()
        self.clock.advance(1799.5)
        held = self.pages.ready("demo", JSON, False)
        assert held is not None
        assert (held.remaining, held.age) == (0.5, 1799.5)
        self.clock.advance(1)
        assert self.pages.ready("demo", JSON, False) is None
        self.indexes.says(AT_ROOT, project_page("b.zip"))
        page = self.page()
        assert (page.status, files(page), page.age) == ("MISS", ["b.zip"], 0.0)

    def test_each_index_has_its_ttl(self) -> None:
        """Only those indexes are asked whose part of the page is over its time."""
        self.build(ROOT, EXTRA)
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        self.indexes.says(AT_EXTRA, project_page("b.zip"))
        assert self.page().remaining == 180.0
        self.clock.advance(181)
        assert files(self.page()) == ["a.zip", "b.zip"]
        assert (self.agents.count(AT_ROOT), self.agents.count(AT_EXTRA)) == (1, 2)
        self.clock.advance(1620)
        self.page()
        assert (self.agents.count(AT_ROOT), self.agents.count(AT_EXTRA)) == (2, 3)

    def test_no_index_cache(self) -> None:
        """With a time to live of 0 each request is a question, but those at once share it."""
        self.build(ROOT, ttls=(0.0,))
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        assert self.page().remaining == 0.0
        assert self.pages.ready("demo", JSON, False) is None
        self.agents.silent.add(AT_ROOT)
        asks = [self.ask() for _ in range(10)]
        self.agents.release(AT_ROOT)
        assert {self.result(ask).status for ask in asks} == {"MISS"}
        assert self.agents.count(AT_ROOT) == 2

    def test_absence(self) -> None:
        """That no index has a project is known for a minute, and asked again thereafter."""
        self.error(self.ask(), NoSuchProject)
        self.clock.advance(59)
        with pytest.raises(NoSuchProject):
            self.pages.ready("demo", JSON, False)
        self.error(self.ask(), NoSuchProject)
        assert len(self.agents.asked) == 1
        self.clock.advance(2)
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        assert files(self.page()) == ["a.zip"]

    def test_project_that_is_gone(self) -> None:
        """A project that the index no longer has is gone when its time is over."""
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        self.page()
        self.indexes.says(AT_ROOT, Reply(404))
        self.clock.advance(1801)
        self.error(self.ask(), NoSuchProject)

    def test_revalidated(self) -> None:
        """A page that the index confirms is the same page, with all its time again."""
        self.indexes.says(AT_ROOT, project_page("a.zip").having(ETag='"x"'))
        first = self.page()
        self.clock.advance(1801)
        self.indexes.says(AT_ROOT, Reply(304))
        again = self.page()
        assert (again.status, again.remaining, again.age) == ("REVALIDATED", 1800.0, 0.0)
        assert again.body is first.body
        assert self.agents.asked[-1].header("If-None-Match") == '"x"'

    def test_partly_revalidated(self) -> None:
        """A page is new when any of its responses is."""
        self.build(ROOT, EXTRA)
        self.indexes.says(AT_ROOT, project_page("a.zip").having(ETag='"x"'))
        self.indexes.says(AT_EXTRA, project_page("b.zip"))
        self.page()
        self.clock.advance(1801)
        self.indexes.says(AT_ROOT, Reply(304))
        self.indexes.says(AT_EXTRA, project_page("c.zip"))
        page = self.page()
        assert (page.status, files(page)) == ("MISS", ["a.zip", "c.zip"])


class FlightTests(PagesCase):
    """Many who ask at once."""

    def setUp(self) -> None:
        """Let the index take its time."""
        super().setUp()
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        self.agents.silent.add(AT_ROOT)

    def test_one_question(self) -> None:
        """However many ask, in whatever form, the index is asked once."""
        asks = [self.ask(form=form) for form in (JSON, HTML) for _ in range(100)]
        assert len(self.agents.asked) == 1
        self.agents.release(AT_ROOT)
        assert {self.result(ask).status for ask in asks} == {"MISS"}

    def test_projects_are_apart(self) -> None:
        """Another project does not wait for this one."""
        slow = self.ask()
        self.indexes.says(f"{ROOT}other/", project_page("o.zip"))
        assert files(self.page("other")) == ["o.zip"]
        self.pending(slow)

    def test_client_that_leaves(self) -> None:
        """A client that goes away stops nothing for the others, nor for the cache."""
        leaves, stays = self.ask(), self.ask()
        leaves.cancel()
        self.error(leaves, CancelledError)
        assert self.agents.waiting == 1
        self.agents.release(AT_ROOT)
        assert files(self.result(stays)) == ["a.zip"]

    def test_all_clients_leave(self) -> None:
        """What nobody waits for any more is still there for the next."""
        leaves = self.ask()
        leaves.cancel()
        self.error(leaves, CancelledError)
        self.agents.release(AT_ROOT)
        assert self.page().status == "HIT"


class MergeTests(PagesCase):
    """Several indexes."""

    def setUp(self) -> None:
        """Begin with two indexes."""
        super().setUp()
        self.build(ROOT, EXTRA)

    def test_precedence(self) -> None:
        """A file is the first index's, listing and bytes; what that has not is the second's."""
        self.indexes.says(AT_ROOT, project_page("a.zip", "b.zip", host="first.example"))
        self.indexes.says(AT_EXTRA, project_page("b.zip", "c.zip", host="second.example"))
        assert files(self.page()) == ["a.zip", "b.zip", "c.zip"]
        hosts = {}
        for name in ("a.zip", "b.zip", "c.zip"):
            listed = self.pages.ready_file("demo", name)
            assert listed is not None
            hosts[name] = listed.entry["url"].split("/")[2]
        assert hosts == {
            "a.zip": "first.example",
            "b.zip": "first.example",
            "c.zip": "second.example",
        }

    def test_versions(self) -> None:
        """Versions are those of all indexes."""
        self.indexes.says(AT_ROOT, project_page(versions=["1"]))
        self.indexes.says(AT_EXTRA, project_page(versions=["2", "1"]))
        assert json.loads(self.page().body.data)["versions"] == ["1", "2"]

    def test_quarantined(self) -> None:
        """Files of a quarantined index are in no form and found by no name; the mark is in both."""
        status: dict[str, Any] = {"project-status": {"status": "quarantined", "reason": "malware"}}
        for bad, good in ((AT_ROOT, AT_EXTRA), (AT_EXTRA, AT_ROOT)):
            self.setUp()
            self.indexes.says(bad, project_page("a.zip", "b.zip", host="bad.example", **status))
            self.indexes.says(good, project_page("b.zip", "c.zip", host="good.example"))
            page = self.page()
            assert files(page) == ["b.zip", "c.zip"]
            assert json.loads(page.body.data)["project-status"] == status["project-status"]
            html = self.result(self.ask(form=HTML)).body.data
            assert b'<meta name="pypi:project-status" content="quarantined">' in html
            assert b'<meta name="pypi:project-status-reason" content="malware">' in html
            assert b"a.zip" not in html
            listed = self.pages.ready_file("demo", "b.zip")
            assert listed is not None
            assert "good.example" in listed.entry["url"]
            assert self.pages.ready_file("demo", "a.zip") is None
            self.error(run(self.pages.fetch_file("demo", "a.zip")), NoSuchFile)

    def test_one_lacks_it(self) -> None:
        """A project that one index lacks is no error, whichever it is."""
        for has in (AT_ROOT, AT_EXTRA):
            self.setUp()
            self.indexes.says(has, project_page("a.zip"))
            page = self.page()
            assert (files(page), page.remaining) == (["a.zip"], 60.0)

    def test_all_are_requested_at_once(self) -> None:
        """The indexes are asked side by side."""
        self.agents.silent |= {AT_ROOT, AT_EXTRA}
        ask = self.ask()
        assert self.agents.waiting == 2
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        self.agents.release(AT_EXTRA)
        self.pending(ask)
        self.agents.release(AT_ROOT)
        assert files(self.result(ask)) == ["a.zip"]

    def test_private(self) -> None:
        """A file of an index behind credentials is known to be one."""
        self.build(ROOT.replace("//", "//user:secret@"), EXTRA)
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        self.indexes.says(AT_EXTRA, project_page("a.zip", "b.zip"))
        self.page()
        privacy = {
            name: listed.private
            for name in ("a.zip", "b.zip")
            if (listed := self.pages.ready_file("demo", name)) is not None
        }
        assert privacy == {"a.zip": True, "b.zip": False}

    def test_private_by_its_own_origin(self) -> None:
        """So is one that a public index keeps where another index has credentials."""
        extra = EXTRA.replace("//", "//user:secret@")
        self.build(ROOT, extra)
        host = urls.origin(extra)[1]
        self.indexes.says(AT_ROOT, project_page("a.zip", host=host))
        self.indexes.says(AT_EXTRA, Reply(404))
        self.page()
        listed = self.pages.ready_file("demo", "a.zip")
        assert listed is not None
        assert listed.private


class FormTests(PagesCase):
    """The forms of a page."""

    def form(self, serialization: Serialization, compressed: bool) -> Page:
        """Give one of the four."""
        return self.result(run(self.pages.fetch("demo", serialization, compressed)))

    def test_forms(self) -> None:
        """All four are of one page, each with the tag of its very bytes."""
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        forms = [
            self.form(each, compressed) for each in (JSON, HTML) for compressed in (False, True)
        ]
        plain_json, packed_json, plain_html, packed_html = (each.body.data for each in forms)
        assert files(forms[0]) == ["a.zip"]
        assert b'<a href="a.zip">a.zip</a>' in plain_html
        assert gzip.decompress(packed_json) == plain_json
        assert gzip.decompress(packed_html) == plain_html
        assert len({each.body.etag for each in forms}) == 4
        for each in forms:
            assert hashlib.sha256(each.body.data).hexdigest().startswith(each.body.etag)

    def test_made_once(self) -> None:
        """A form is made once per refresh, never per request."""
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        assert self.form(HTML, True).body is self.form(HTML, True).body

    def test_same_page_same_tag(self) -> None:
        """A page that comes again unchanged keeps its tags, and another one has others."""
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        first = self.form(JSON, True).body.etag
        self.clock.advance(1801)
        assert self.form(JSON, True).body.etag == first
        self.clock.advance(1801)
        self.indexes.says(AT_ROOT, project_page("b.zip"))
        assert self.form(JSON, True).body.etag != first


class MemoryTests(PagesCase):
    """What is held has a bound."""

    def setUp(self) -> None:
        """Leave room for about three projects."""
        super().setUp()
        self.put(page_cache, "MEMORY", 4 * page_cache.OVERHEAD)
        for name in "abcde":
            self.indexes.says(f"{ROOT}{name}/", project_page(f"{name}.zip"))

    def held(self) -> list[str]:
        """Give the names of the pages that are in memory."""
        entries: Any = self.pages
        return list(entries._entries)

    def test_least_recently_used(self) -> None:
        """What nobody used for longest goes first."""
        for name in "abc":
            self.page(name)
        assert self.pages.ready("a", JSON, False) is not None
        self.page("d")
        assert self.held() == ["c", "a", "d"]

    def test_evicted_is_on_disk(self) -> None:
        """A page that went from memory is read from disk, and not asked for again."""
        for name in "abcde":
            self.page(name)
        assert len(self.held()) == 3
        assert (self.page("a").status, files(self.page("a"))) == ("HIT", ["a.zip"])
        assert len(self.agents.asked) == 5

    def test_larger_than_all(self) -> None:
        """A page larger than the bound is served all the same."""
        names = [hashlib.sha256(b"%d" % number).hexdigest() for number in range(400)]
        self.indexes.says(f"{ROOT}big/", project_page(*names))
        assert files(self.page("big")) == names

    def test_unknown_projects_count(self) -> None:
        """Names that no index has are forgotten in the end, too, however many are asked for."""
        for number in range(20):
            self.error(self.ask(f"no-{number}"), NoSuchProject)
        before = len(self.agents.asked)
        self.error(self.ask("no-0"), NoSuchProject)
        assert len(self.agents.asked) == before + 1

    def test_failures_count(self) -> None:
        """Names that failed leave nothing that grows; pages that are used outlive them."""
        self.page("a")
        for number in range(20):
            self.indexes.says(f"{ROOT}no-{number}/", Reply(501))
            self.fails(self.ask(f"no-{number}"))
            assert self.page("a").status == "HIT"
        assert len(self.held()) <= 4

    def test_evicted_under_way(self) -> None:
        """A page that is let go of while it is asked for is no unknown project."""
        self.agents.silent.add(f"{ROOT}a/")
        early = self.ask("a")
        for name in "bcde":
            self.page(name)
        late = self.ask("a")
        early.cancel()
        self.error(early, CancelledError)
        self.agents.release(f"{ROOT}a/")
        assert files(self.result(late)) == ["a.zip"]
