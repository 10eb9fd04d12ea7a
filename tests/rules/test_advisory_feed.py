"""Documents of a feed, from a web server and from a folder."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

from twisted.internet.task import Clock
from twisted.web.http import PotentialDataLoss

from proxpi.rules import advisory_feed
from proxpi.rules.advisory_feed import DocumentMissing, Fetched, open_feed
from proxpi.rules.osv import FeedDamaged
from proxpi.upstream import SizeLimit, UpstreamFailed
from tests.support.advisories import FEED, LISTING
from tests.support.agent import MemoryAgent, Reply
from tests.support.cases import Case, FolderCase, at_once, run
from tests.support.indexes import upstream_client

NAME = "modified_id.csv"


class WebTests(Case):
    def setUp(self) -> None:
        super().setUp()
        self.agent, self.clock = MemoryAgent(), Clock()
        self.feed = open_feed(FEED, upstream_client(self.agent, self.clock, FEED), at_once)
        self.chunks: list[bytes] = []

    def fetch(self, **known: str) -> Fetched | None:
        return self.result(run(self.feed.fetch(NAME, self.chunks.append, known)))

    def failure(self, reply: Reply | Exception) -> UpstreamFailed:
        self.agent.at(LISTING, reply)
        return self.error(run(self.feed.fetch(NAME, self.chunks.append, {})), UpstreamFailed)

    def test_document(self) -> None:
        """A document comes with its validators, which ask for a newer one."""
        stated = {"ETag": '"1"', "Last-Modified": "Sun, 01 Mar 2026 10:00:00 GMT"}
        self.agent.at(LISTING, Reply(200, (b"ab", b"c"), stated), Reply(304))
        fetched = self.fetch()
        assert fetched is not None
        assert b"".join(self.chunks) == b"abc"
        assert (fetched.ended, fetched.modified) == (True, 1772359200.0)
        assert self.fetch(**fetched.validators) is None
        asked = self.agent.asked[-1]
        assert asked.header("If-None-Match") == stated["ETag"]
        assert asked.header("If-Modified-Since") == stated["Last-Modified"]

    def test_place(self) -> None:
        """A URL is that of a folder, with or without a slash at its end; it is logged in public."""
        url = "https://user:secret@advisories.example/PyPI"
        found = open_feed(url, upstream_client(self.agent, self.clock, url), at_once)
        self.agent.at(LISTING, Reply(200, b""))
        assert self.result(run(found.fetch(NAME, self.chunks.append, {}))) == Fetched({})
        assert self.agent.asked[0].url == LISTING
        assert self.agent.asked[0].header("Authorization") is not None
        assert (found.url, found.interval) == (FEED, 600.0)
        assert "secret" not in repr(found)

    def test_database(self) -> None:
        """The URL of a database with several ecosystems stands for that of PyPI, once found."""
        root = FEED.removesuffix("PyPI/")
        found = open_feed(root, upstream_client(self.agent, self.clock, root), at_once)
        assert (found.url, found.interval, found.offline) == (root, 600.0, False)
        self.error(run(found.fetch(NAME, self.chunks.append, {})), DocumentMissing)
        assert self.agent.urls() == [LISTING, root + NAME]
        for url in (LISTING, root + NAME):
            self.agent.at(url, Reply(200, b"abc"), Reply(404))
        assert self.result(run(found.fetch(NAME, self.chunks.append, {}))) == Fetched({})
        assert found.url == FEED
        self.error(run(found.fetch(NAME, self.chunks.append, {})), DocumentMissing)

    def test_one_ecosystem(self) -> None:
        """The URL of a copy of PyPI's entries may have any name."""
        copy = "https://advisories.example/copy/"
        found = open_feed(copy, upstream_client(self.agent, self.clock, copy), at_once)
        self.agent.at(copy + NAME, Reply(200, b"abc"))
        for asked in ([f"{copy}PyPI/{NAME}", copy + NAME], [copy + NAME]):
            assert self.result(run(found.fetch(NAME, self.chunks.append, {}))) == Fetched({})
            assert self.agent.urls() == asked
            self.agent.asked.clear()

    def test_missing(self) -> None:
        """404 and 410 mean that the feed has no such document; other statuses are failures."""
        for status in (404, 410):
            self.agent.at(LISTING, Reply(status))
            work = run(self.feed.fetch(NAME, self.chunks.append, {}))
            assert LISTING in str(self.error(work, DocumentMissing))
        for status in (403, 500, 206, 304):
            assert f"status {status}" in str(self.failure(Reply(status)))

    def test_cut(self) -> None:
        """A body that is shorter than announced is a failure; one without a length may be cut."""
        reply = Reply(200, b"abc", length=5, whole=False)
        self.agent.at(LISTING, reply)
        work = run(self.feed.fetch(NAME, self.chunks.append, {}))
        reply.cut()
        assert "cut short" in str(self.error(work, UpstreamFailed))
        self.agent.at(LISTING, Reply(200, b"abc", length=None, ends=PotentialDataLoss))
        assert self.fetch() == Fetched({}, ended=False)

    def test_compressed(self) -> None:
        """A server that compresses unasked is understood; what cannot be decoded is a failure."""
        whole = gzip.compress(b"abc")
        coded = {"Content-Encoding": "gzip"}
        self.agent.at(LISTING, Reply(200, whole, coded))
        assert self.fetch() == Fetched({})
        assert self.agent.asked[-1].header("Accept-Encoding") == "identity"
        assert b"".join(self.chunks) == b"abc"
        self.failure(Reply(200, whole[:-9], coded))
        self.failure(Reply(200, b"abc", coded))
        self.failure(Reply(200, whole, {"Content-Encoding": "br"}))

    def test_large(self) -> None:
        """A document may not fill memory, nor the archive the disk."""
        self.put(advisory_feed, "DOCUMENT_LIMIT", SizeLimit(2))
        assert "too long" in str(self.failure(Reply(200, b"abc")))
        self.put(advisory_feed, "DOCUMENT_LIMIT", SizeLimit(100))
        coded = {"Content-Encoding": "gzip"}
        assert "too long" in str(self.failure(Reply(200, gzip.compress(bytes(1000)), coded)))

    def test_silence(self) -> None:
        """A document has a minute to arrive, the archive longer."""
        reply = Reply(200, b"abc", length=10**6, whole=False)
        for name, lasts in ((NAME, 60), ("all.zip", 1800)):
            self.agent.at(FEED + name, reply)
            work = run(self.feed.fetch(name, self.chunks.append, {}))
            for _ in range(lasts // 5 - 1):
                self.clock.advance(5)
                reply.bring(bytes(10_000))
            self.pending(work)
            self.clock.advance(5)
            assert "timed out" in str(self.error(work, UpstreamFailed))

    def test_offline(self) -> None:
        """Offline, nothing is requested from a server."""
        assert not self.feed.offline
        upstream = upstream_client(self.agent, self.clock, FEED, offline=True)
        assert open_feed(FEED, upstream, at_once).offline


class FolderTests(FolderCase):
    def setUp(self) -> None:
        super().setUp()
        self.place = self.folder / "my feed"
        self.place.mkdir()
        upstream = upstream_client(MemoryAgent(), Clock(), offline=True)
        self.feed = open_feed(self.place.as_uri(), upstream, at_once)
        self.chunks: list[bytes] = []

    def fetch(self, fetched: Fetched | None = None) -> Fetched | None:
        known = fetched.validators if fetched else {}
        return self.result(run(self.feed.fetch(NAME, self.chunks.append, known)))

    def failure(self) -> FeedDamaged:
        return self.error(run(self.feed.fetch(NAME, self.chunks.append, {})), FeedDamaged)

    def test_document(self) -> None:
        """A file is read again once it has changed, offline as well."""
        path = self.place / NAME
        path.write_bytes(b"abc")
        first = self.fetch()
        assert b"".join(self.chunks) == b"abc"
        assert self.fetch(first) is None
        os.utime(path, (1, 1))
        assert self.fetch(first) not in (None, first)
        assert not self.feed.offline
        assert (self.feed.url, self.feed.interval) == (self.place.as_uri() + "/", 5.0)

    def test_missing(self) -> None:
        """A file or folder that is missing is a missing document."""
        assert isinstance(self.failure(), DocumentMissing)
        self.place.rmdir()
        assert isinstance(self.failure(), DocumentMissing)

    def test_no_file(self) -> None:
        """A pipe or a folder in the place of a document is refused, and holds up nothing."""
        path: Path = self.place / NAME
        os.mkfifo(path)
        assert "no regular file" in str(self.failure())
        path.unlink()
        path.mkdir()
        assert "no regular file" in str(self.failure())

    def test_large(self) -> None:
        """A file may not fill memory."""
        (self.place / NAME).write_bytes(b"abc")
        self.put(advisory_feed, "DOCUMENT_LIMIT", SizeLimit(2))
        assert "larger" in str(self.failure())
