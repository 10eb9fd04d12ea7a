"""The root list: as fresh as the pages, of all indexes, in four forms, in files."""

from __future__ import annotations

import gc
import gzip
import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred
from twisted.web.http import PotentialDataLoss

from proxpi.index import revalidation
from proxpi.index.list_store import ListFile, ListStore
from proxpi.index.project_list import NoSuchList, ProjectList, Projects
from proxpi.simple.negotiate import Serialization
from proxpi.upstream.errors import UpstreamFailed
from proxpi.upstream.response import SizeLimit
from tests.support.agent import Reply
from tests.support.cases import FolderCase, at_once, run
from tests.support.indexes import EXTRA, ROOT, Indexes, project_page, root_list

JSON, HTML = Serialization.JSON, Serialization.HTML
PRIVATE = ROOT.replace("//", "//user:secret@")
Paths = list[str]  # which is something else where there is a method of this name
HTML_LIST = b"".join(
    [
        b'<!DOCTYPE html><html><head><meta name="pypi:repository-version" content="1.0"></head>',
        b'<body><a href="one/">one</a><br><a href="two/">two</a></body></html>',
    ]
)


def content(found: ProjectList) -> bytes:
    """Read a list as it is sent: at any place, however often."""
    data = os.pread(found.file.descriptor, found.file.size + 1, 0)
    assert len(data) == found.file.size
    return data


def names(found: ProjectList) -> list[str]:
    """Give the names in a list in JSON."""
    return [project["name"] for project in json.loads(content(found))["projects"]]


class ListCase(FolderCase):
    """Tests of the list of one index, or of several.

    :ivar place: where the list is kept
    :ivar skew: how far the wall clock is ahead of the other one
    """

    skew = 1_000_000.0

    def setUp(self) -> None:
        """Begin with one index, which is asked again without a pause if it fails."""
        super().setUp()
        self.put(revalidation, "PAUSES", (0.0, 0.0, 0.0))
        self.place: Path = self.folder / ".proxpi" / "projects"
        self.build(ROOT)

    def build(self, *urls: str, ttls: tuple[float, ...] = (1800.0, 180.0, 60.0)) -> None:
        """Begin with these indexes, and nothing kept."""
        for path in self.folder.rglob("*.*"):
            if path.is_file():
                path.unlink()
        self.indexes = Indexes(urls, ttls)
        self.agents, self.clock = self.indexes.agents, self.indexes.clock
        self.restart()

    def restart(self) -> None:
        """Begin anew on what is kept."""
        for source in self.indexes.sources:
            source.breakers.succeeded("")
        self.projects = Projects(
            self.indexes.sources,
            self.indexes.upstream,
            self.clock,
            ListStore(self.place, self.clock, lambda: self.clock.seconds() + self.skew),
            at_once,
        )

    def ask(self, form: Serialization = JSON, compressed: bool = False) -> Deferred[ProjectList]:
        """Ask for the list."""
        return run(self.projects.fetch(form, compressed))

    def list(self, form: Serialization = JSON, compressed: bool = False) -> ProjectList:
        """Give the list, which must be there at once."""
        return self.result(self.ask(form, compressed))

    def open_files(self) -> Paths:
        """Give what is open below the folder, once what nobody needs is gone."""
        gc.collect()
        return super().open_files()


class FormTests(ListCase):
    """The four forms."""

    def test_equal_in_content(self) -> None:
        """All four say the same, each with the tag and the size of its very bytes."""
        self.indexes.says(ROOT, root_list(["Zope.Interface", "attrs", "my_pkg"]))
        expected = ["zope-interface", "attrs", "my-pkg"]
        found = {
            (form, packed): self.list(form, packed)
            for form in (JSON, HTML)
            for packed in (False, True)
        }
        assert len(self.agents.asked) == 1
        plain_json, plain_html = content(found[JSON, False]), content(found[HTML, False])
        assert gzip.decompress(content(found[JSON, True])) == plain_json
        assert gzip.decompress(content(found[HTML, True])) == plain_html
        assert names(found[JSON, False]) == expected
        assert re.findall(rb'<a href="([^"/]*)/">\1</a>', plain_html) == [
            name.encode() for name in expected
        ]
        for each in found.values():
            digest = hashlib.sha256(content(each)).hexdigest()
            assert digest.startswith(each.file.etag)
            assert len(each.file.etag) >= 32
        assert len({each.file.etag for each in found.values()}) == 4

    def test_empty(self) -> None:
        """An index without projects has a list without names."""
        for reply in (root_list([]), Reply(200, (HTML_LIST.replace(b"<a", b"<b"),))):
            self.build(ROOT)
            self.indexes.says(ROOT, reply)
            assert names(self.list()) == []
            assert b"<a " not in content(self.list(HTML))

    def test_same_list_same_tag(self) -> None:
        """A list that comes again unchanged keeps its tags."""
        self.indexes.says(ROOT, root_list(["a", "b"]))
        first = self.list(HTML, True).file.etag
        self.clock.advance(1801)
        assert self.list(HTML, True).file.etag == first


class SingleTests(ListCase):
    """One index."""

    def test_in_order(self) -> None:
        """Names pass through in the order of the index."""
        order = ["zeta", "alpha", "mid"]
        self.indexes.says(ROOT, root_list(order))
        assert names(self.list()) == order

    def test_request(self) -> None:
        """JSON is asked for first; HTML is understood."""
        self.indexes.says(ROOT, Reply(200, (HTML_LIST,)))
        assert names(self.list()) == ["one", "two"]
        assert (self.agents.asked[0].header("Accept") or "").startswith(
            "application/vnd.pypi.simple.v1+json"
        )

    def test_listing_of_a_folder(self) -> None:
        """What a plain web server shows of a folder is a list."""
        body = b'<html><body><a href="../">../</a>\n<a href="one/">one/</a></body></html>'
        self.indexes.says(ROOT, Reply(200, (body,)))
        assert names(self.list()) == ["one"]

    def test_chunks(self) -> None:
        """A list that comes byte by byte is the same list."""
        whole = root_list(["one", "two"])
        chunks = tuple(bytes([byte]) for byte in whole.chunks[0])
        self.indexes.says(ROOT, Reply(200, chunks))
        assert names(self.list()) == ["one", "two"]

    def test_freshness(self) -> None:
        """A list is fresh for the time to live, and then asked for again."""
        self.indexes.says(ROOT, root_list(["a"]))
        assert self.projects.ready(JSON, False) is None
        first = self.list()
        assert (first.status, first.remaining, first.age) == ("MISS", 1800.0, 0.0)
        self.clock.advance(1799)
        ready = self.projects.ready(JSON, False)
        assert ready is not None
        assert (ready.status, ready.remaining, ready.age) == ("HIT", 1.0, 1799.0)
        assert self.list().status == "HIT"
        self.clock.advance(2)
        assert self.projects.ready(JSON, False) is None
        self.indexes.says(ROOT, root_list(["b"]))
        assert names(self.list()) == ["b"]

    def test_single_flight(self) -> None:
        """However many ask, the index is asked once; who leaves stops nothing."""
        self.indexes.says(ROOT, root_list(["a"]))
        self.agents.silent.add(ROOT)
        asks = [self.ask() for _ in range(20)]
        asks[0].cancel()
        self.error(asks[0], CancelledError)
        self.agents.release(ROOT)
        assert [names(self.result(ask)) for ask in asks[1:]] == [["a"]] * 19
        assert len(self.agents.asked) == 1

    def test_credentials(self) -> None:
        """The list of an index behind credentials is asked for with them."""
        self.build(PRIVATE)
        self.indexes.says(ROOT, root_list(["a"]))
        assert names(self.list()) == ["a"]
        assert (self.agents.asked[0].header("Authorization") or "").startswith("Basic ")


class SeveralTests(ListCase):
    """Several indexes."""

    third = "https://third.example/"

    def merged(self, *lists: Iterable[str]) -> list[str]:
        """Give the names of indexes with these lists, by all four forms."""
        urls = (ROOT, EXTRA, self.third)
        self.build(*urls[: len(lists)])
        for url, names_ in zip(urls, lists, strict=False):
            self.indexes.says(url, root_list(names_))
        return names(self.list())

    def test_merged(self) -> None:
        """Names of several indexes are sorted, each there once."""
        assert self.merged(["b", "A", "c"], ["d", "a", "B"], ["c"]) == ["a", "b", "c", "d"]

    def test_many(self) -> None:
        """The same for more names than are sorted, and merged, in one go."""
        lines = ListFile.lines
        self.put(ListFile, "lines", lambda file, start=0, end=None, _=0: lines(file, start, end, 9))
        first = [f"p{number * 7 % 101}" for number in range(101)]
        second = [f"q-{number}" for number in range(20)] + first[:30]
        assert self.merged(first, second) == sorted({*first, *second})

    def test_freshness(self) -> None:
        """The list is as fresh as its first part that is not."""
        self.build(ROOT, EXTRA)
        for url in (ROOT, EXTRA):
            self.indexes.says(url, root_list(["a"]))
        assert self.list().remaining == 180.0

    def test_index_without_a_list(self) -> None:
        """An index that has no list has no names; the others' are shown."""
        for status in (404, 410, 403):
            self.build(ROOT, EXTRA)
            self.indexes.says(ROOT, Reply(status))
            self.indexes.says(EXTRA, root_list(["b", "a"]))
            assert names(self.list()) == ["a", "b"]

    def test_one_fails(self) -> None:
        """A list without one of its indexes is none."""
        for failing, good in ((ROOT, EXTRA), (EXTRA, ROOT)):
            self.build(ROOT, EXTRA)
            self.indexes.says(failing, Reply(500))
            self.indexes.says(good, root_list(["a"]))
            assert self.error(self.ask(), UpstreamFailed).url == failing

    def test_one_is_cut(self) -> None:
        """Nor is one of which a part was cut on the way."""
        self.build(ROOT, EXTRA)
        self.indexes.says(ROOT, root_list(["a"]))
        self.indexes.says(
            EXTRA, Reply(200, (b'{"projects": [{"name": "b"}',), ends=ConnectionError)
        )
        assert self.error(self.ask(), UpstreamFailed).url == EXTRA


class FailureTests(ListCase):
    """What is no list."""

    def refusal(self, reply: Reply) -> UpstreamFailed:
        """Give why an answer is none."""
        self.build(ROOT)
        self.indexes.says(ROOT, reply)
        ask = self.ask()
        if not ask.called:
            self.clock.pump([1.0] * 10)
        return self.error(ask, UpstreamFailed)

    def test_statuses(self) -> None:
        """Statuses mean for the list what they mean for a page."""
        assert self.refusal(Reply(503)).temporary
        assert self.refusal(Reply(429, headers={"Retry-After": "9"})).retry_after == 9.0
        assert not self.refusal(Reply(401)).temporary
        assert not self.refusal(Reply(206)).temporary

    def test_none_at_all(self) -> None:
        """Where no index has a list there is none, and not an empty one."""
        for urls in ((ROOT,), (ROOT, EXTRA)):
            self.build(*urls)
            for url in urls:
                self.indexes.says(url, Reply(404))
            self.error(self.ask(), NoSuchList)

    def test_not_a_list(self) -> None:
        """An error page, a login page, a project page, or something else, is no list."""
        for body in (
            b"welcome",
            b"",
            b"{}",
            b'{"message": "not found"}',
            b"<html><title>Login</title><form><input type=password></form></html>",
            b"<html><![bad[x]]></html>",
            *project_page("a.zip").chunks,
        ):
            assert not self.refusal(Reply(200, (body,))).temporary

    def test_newer_major_version(self) -> None:
        """A major version that is not known is refused, in the list or in its type (PEP 629)."""
        known = root_list(["a"])
        newer = known.chunks[0].replace(b'"1.4"', b'"2.0"')
        type_ = "application/vnd.pypi.simple.v2+json"
        for reply in (
            Reply(200, (newer,)),
            Reply(200, (HTML_LIST.replace(b'"1.0"', b'"2.0"'),)),
            Reply(200, known.chunks, {"Content-Type": type_}),
        ):
            assert "version 2" in self.refusal(reply).cause

    def test_newer_minor_version(self) -> None:
        """A minor version that is not known is."""
        newer = root_list(["a"]).chunks[0].replace(b'"1.4"', b'"1.99"')
        self.indexes.says(ROOT, Reply(200, (newer,)))
        assert names(self.list()) == ["a"]

    def test_cut_anywhere(self) -> None:
        """A list whose end was not announced counts only if it has its own end."""
        for whole in (root_list(["one", "two"]).chunks[0], HTML_LIST):
            for end in range(len(whole)):
                reply = Reply(200, (whole[:end],), ends=PotentialDataLoss)
                assert self.refusal(reply).temporary
            assert not self.open_files()
            assert not self.leftovers()
            self.build(ROOT)
            self.indexes.says(ROOT, Reply(200, (whole,), ends=PotentialDataLoss))
            assert names(self.list()) == ["one", "two"]

    def test_broken_off(self) -> None:
        """A list that the index itself broke off is none, and waiting will not help."""
        whole = root_list(["one", "two"]).chunks[0]
        error = self.refusal(Reply(200, (whole[:-7],)))
        assert (error.cause, error.temporary) == ("The list is cut short.", False)

    def test_too_long(self) -> None:
        """A list beyond all bounds is none."""
        self.indexes.says(ROOT, root_list(f"p{number}" for number in range(100)))
        self.indexes.upstream.list_limit = SizeLimit(100, "X")
        error = self.error(self.ask(), UpstreamFailed)
        assert error.cause == "the answer is too long: X allows 100 bytes"

    def test_silent(self) -> None:
        """A list that stops coming is given up."""
        self.indexes.says(ROOT, Reply(200, (b'{"projects": [',), whole=False))
        ask = self.ask()
        self.clock.pump([1.0] * 11)
        assert self.error(ask, UpstreamFailed).cause == "timed out"

    def test_no_room(self) -> None:
        """A disk that is full goes through as it is, and leaves no file behind."""

        def full(*arguments: object) -> None:
            raise OSError(28, "No space left on device")

        self.put(ListStore, "write", full)
        self.indexes.says(ROOT, root_list(["a"]))
        self.error(self.ask(), OSError)
        assert not self.open_files()
        assert not self.leftovers()

    def test_not_sticky(self) -> None:
        """The next request asks again."""
        self.refusal(Reply(500))
        self.indexes.says(ROOT, root_list(["a"]))
        assert names(self.list()) == ["a"]
