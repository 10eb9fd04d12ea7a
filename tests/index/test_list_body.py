"""The body of an index's list: into a file, and parsed in a thread, but never held."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from proxpi.index import list_store
from proxpi.index.list_parser import BLOCK, project_names
from proxpi.index.list_store import ListStore
from proxpi.index.project_list import ProjectList
from proxpi.simple.model import SkippedLinks
from proxpi.simple.negotiate import Serialization
from proxpi.upstream.errors import UpstreamFailed
from proxpi.upstream.response import SizeLimit
from tests.index.test_cleared import Jobs
from tests.index.test_project_list import ListCase, names
from tests.support.agent import Reply
from tests.support.indexes import ROOT, root_list

#: Names of the list that shows what memory is needed.
MANY = 40_000


def in_json(count: int) -> bytes:
    """Give a list of so many names."""
    projects = [{"name": f"Project.{number:07}"} for number in range(count)]
    return json.dumps({"meta": {"api-version": "1.0"}, "projects": projects}).encode()


def in_html(count: int, anchor: str = '<a href="p-{0}/">P-{0}</a><br>\n') -> bytes:
    """Give the same in HTML."""
    return ("<!DOCTYPE html><html>" + "".join(map(anchor.format, range(count)))).encode()


class ThreadTests(ListCase):
    """What is done where."""

    def setUp(self) -> None:
        """Have a thread that works when a test wants it."""
        super().setUp()
        self.jobs = Jobs()
        self.indexes.sources[0].in_thread = self.jobs

    def test_parsed_in_a_thread(self) -> None:
        """Nothing is decoded or parsed on the reactor's thread."""
        body = in_json(10)
        for reply in (
            Reply(200, (body,)),
            Reply(200, (gzip.compress(body),), {"Content-Encoding": "gzip"}),
            Reply(200, (b"welcome",)),
        ):
            self.indexes.says(ROOT, reply)
            ask = self.ask()
            self.pending(ask)
            self.jobs.end()
            assert ask.called
            ask.addErrback(lambda _: None)
            self.clock.advance(2000)


class CodedTests(ListCase):
    """A list with a content coding."""

    def coded(self, body: bytes, coding: str = "gzip") -> Deferred[ProjectList]:
        """Ask for a list that the index sends so."""
        self.build(ROOT)
        self.indexes.says(ROOT, Reply(200, (body,), {"Content-Encoding": coding}))
        ask = self.ask()
        self.clock.pump([1.0] * 12)
        return ask

    def test_decoded(self) -> None:
        """Any coding that may be used, once or twice, is decoded."""
        body = root_list(["a"]).chunks[0]
        assert names(self.result(self.coded(gzip.compress(body)))) == ["a"]
        assert names(self.result(self.coded(zlib.compress(body), "deflate"))) == ["a"]
        twice = gzip.compress(zlib.compress(body))
        assert names(self.result(self.coded(twice, "deflate, gzip"))) == ["a"]

    def test_not_whole(self) -> None:
        """A coded list has its own end, and must be what it says."""
        whole = gzip.compress(in_json(1000))
        for body, coding, cause in (
            (whole[:-9], "gzip", "the answer was cut short"),
            (b"\x1f\x8b" + whole[:50], "gzip", "the answer cannot be decompressed"),
            (whole, "br", "br"),
        ):
            error = self.error(self.coded(body, coding), UpstreamFailed)
            assert cause in error.cause
            assert not self.open_files()

    def test_bomb(self) -> None:
        """A few bytes that become too many are no list, whatever they are packed in."""
        bomb = gzip.compress(b"{" + b" " * 9_000_000)
        for body, coding in ((bomb, "gzip"), (gzip.compress(bomb), "gzip, gzip")):
            self.build(ROOT)
            self.indexes.upstream.list_limit = SizeLimit(2_000_000, "X")
            self.indexes.says(ROOT, Reply(200, (body,), {"Content-Encoding": coding}))
            error = self.error(self.ask(), UpstreamFailed)
            assert error.cause == "the answer is too long: X allows 2000000 bytes"


@pytest.mark.parametrize(
    "made", [in_json, in_html, lambda count: in_html(count, "<A HREF='p-{0}'><b>p-{0}</b></A>")]
)
def test_memory(made: object, tmp_path: Path) -> None:
    """What it takes to parse and to render a list does not grow with the list."""
    store = ListStore(tmp_path / "projects", Clock())

    def peak(body: bytes) -> int:
        blocks = (body[place : place + BLOCK] for place in range(0, len(body), BLOCK))
        tracemalloc.start()
        try:
            found = store.write(project_names(blocks, True, SkippedLinks()))
            for packed in (False, True):
                store.write(list_store.render(found, (Serialization.HTML, packed)))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    short, long = (made(count) for count in (MANY // 2, MANY))  # type: ignore[operator]
    assert peak(long) < 1.5 * peak(short)
