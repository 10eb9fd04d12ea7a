"""The project list: fresh and stale, of one index and of several, invalidated and cleared."""

from __future__ import annotations

import errno
import gzip
import hashlib
import re
import zlib
from collections.abc import Iterable
from typing import IO, Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.web.http import PotentialDataLoss

from proxpi import atomic_files
from proxpi.index.list_store import ListFile, ListStore
from proxpi.index.project_list import (
    UNWRITABLE_TIME,
    ListEntries,
    NoSuchList,
    ProjectList,
    ProjectListCache,
)
from proxpi.index.sources import Member, Members, View
from proxpi.upstream.errors import UpstreamFailed
from proxpi.upstream.response import SizeLimit
from tests.support.agent import Reply
from tests.support.cases import at_once, problems_at, root_list, run
from tests.support.indexes import EXTRA, ROOT, Network, index_client, project_page
from tests.support.pages import Jobs
from tests.support.projects import HTML, JSON, ListCase, StoredListCase, content, names

PRIVATE = ROOT.replace("//", "//user:secret@")
PLAIN = "http://root.example/simple/"
HTML_LIST = (
    b'<!DOCTYPE html><html><head><meta name="pypi:repository-version" content="1.0"></head>'
    b'<body><a href="one/">one</a><br><a href="two/">two</a></body></html>'
)


class LoadingCase(StoredListCase):
    def load_while(self, delete: str) -> Deferred[ProjectList]:
        """Request the list, and let a ``DELETE`` come between the reading and its end."""
        self.restart()
        at_once, self.entries._in_thread = self.entries._in_thread, (jobs := Jobs())
        ask = self.ask()
        jobs.run()
        self.entries._in_thread = at_once
        getattr(self.entries, delete)()
        jobs.end()
        return ask


class RepresentationTests(ListCase):
    def test_equal_in_content(self) -> None:
        """All four have the same names, each with the tag and the size of its very bytes."""
        self.indexes.says(ROOT, root_list(["Zope.Interface", "attrs", "my_pkg"]))
        expected = ["zope-interface", "attrs", "my-pkg"]
        kinds = [(form, packed) for form in (JSON, HTML) for packed in (False, True)]
        found = {kind: self.list(*kind) for kind in kinds}
        assert len(self.agent.asked) == 1
        plain_html = content(found[HTML, False])
        assert gzip.decompress(content(found[JSON, True])) == content(found[JSON, False])
        assert gzip.decompress(content(found[HTML, True])) == plain_html
        assert names(found[JSON, False]) == expected
        anchors = re.findall(rb'<a href="([^"/]*)/">\1</a>', plain_html)
        assert anchors == [name.encode() for name in expected]
        for each in found.values():
            assert each.file.etag == hashlib.sha256(content(each)).hexdigest()[:32]
        assert len({each.file.etag for each in found.values()}) == 4


class SingleTests(ListCase):
    def test_freshness(self) -> None:
        """A list is fresh for the time to live, and then revalidated."""
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
        """All clients share one request to the index; a client that leaves stops nothing."""
        self.indexes.says(ROOT, root_list(["a"]))
        self.agent.silent.add(ROOT)
        asks = [self.ask() for _ in range(20)]
        asks[0].cancel()
        self.error(asks[0], CancelledError)
        self.agent.release(ROOT)
        assert [names(self.result(ask)) for ask in asks[1:]] == [["a"]] * 19
        assert len(self.agent.asked) == 1

    def test_rendered_once(self) -> None:
        """Requests for one representation share its file; a client that leaves stops nothing."""
        self.indexes.says(ROOT, root_list(["a"]))
        self.list()
        self.entries._in_thread = jobs = Jobs()
        leaver, *asks = [self.ask(HTML) for _ in range(3)]
        leaver.cancel()
        self.error(leaver, CancelledError)
        jobs.end()
        assert self.result(asks[0]).file is self.result(asks[1]).file

    def test_thread(self) -> None:
        """Nothing is decoded or parsed on the reactor's thread."""
        body = root_list(["a"]).body
        for reply in (
            Reply(200, (body,)),
            Reply(200, (gzip.compress(body),), {"Content-Encoding": "gzip"}),
            Reply(200, (b"welcome",)),
        ):
            self.build(ROOT)
            self.indexes.says(ROOT, reply)
            self.result(run(self.entries.load()))
            (client,) = self.indexes.clients
            client.in_thread = self.entries._in_thread = jobs = Jobs()
            ask = self.ask()
            self.pending(ask)
            jobs.end()
            assert ask.called
            ask.addErrback(lambda _: None)


class SeveralTests(ListCase):
    def test_merged(self) -> None:
        """Names of several indexes are sorted, each once, also over many blocks."""
        self.begin(["b", "A", "c"], ["d", "a", "B"], ["c"])
        assert names(self.list()) == ["a", "b", "c", "d"]
        lines = ListFile.lines
        self.put(ListFile, "lines", lambda file, start=0, end=None, _=0: lines(file, start, end, 9))
        first = [f"p{number * 7 % 101}" for number in range(101)]
        second = [f"q-{number}" for number in range(20)] + first[:30]
        self.begin(first, second)
        assert names(self.list()) == sorted({*first, *second})

    def test_absence(self) -> None:
        """An index without a list has no names; without any list there is none."""
        for status in (404, 410, 403):
            self.begin(Reply(status), ["b", "a"])
            assert names(self.list()) == ["a", "b"]
        for replies in ([Reply(404)], [Reply(404), Reply(403)]):
            self.begin(*replies)
            self.error(self.ask(), NoSuchList)

    def test_one_fails(self) -> None:
        """Without the list of one index, or with a truncated one, there is none."""
        cut = Reply(200, (b'{"projects": [{"name": "b"}',), ends=ConnectionError)
        for failing, replies in ((ROOT, (Reply(500), ["a"])), (EXTRA, (["a"], cut))):
            self.begin(*replies)
            assert self.error(self.ask(), UpstreamFailed).url == failing

    def test_stale(self) -> None:
        """While one of several fails, its last list is used."""
        self.begin(["a"], ["b"])
        self.list()
        self.clock.advance(2000)
        self.indexes.says(EXTRA, Reply(500))
        self.indexes.says(ROOT, root_list(["c"]))
        found = self.list()
        assert (found.status, found.remaining, names(found)) == ("STALE", 0.0, ["b", "c"])

    def test_confirmed(self) -> None:
        """A list that all indexes confirm stays; one that one of them changes is merged anew."""
        self.begin(*(root_list([name]).having(ETag='"x"') for name in "ab"))
        first = self.list()
        self.clock.advance(1801)
        for url in (ROOT, EXTRA):
            self.indexes.says(url, Reply(304))
        found = self.list()
        assert (found.status, found.file) == ("REVALIDATED", first.file)
        self.clock.advance(1801)
        self.indexes.says(EXTRA, root_list(["c"]))
        found = self.list()
        assert (found.status, names(found)) == ("MISS", ["a", "c"])


class ColdTests(ListCase):
    """Responses that are read as a project list, and those that are refused."""

    def refusal(self, reply: Reply) -> UpstreamFailed:
        self.begin(reply)
        self.indexes.upstream.list_limit = SizeLimit(2_000_000, "X")
        error = self.error(self.slow(), UpstreamFailed)
        assert not self.open_files()
        assert not self.leftovers()
        return error

    def test_codings(self) -> None:
        """The codings that requests accept are decoded, once or twice."""
        body = root_list(["a"]).body
        for coded, coding in (
            (gzip.compress(body), "gzip"),
            (zlib.compress(body), "deflate"),
            (gzip.compress(zlib.compress(body)), "deflate, gzip"),
        ):
            self.begin(Reply(200, (coded,), {"Content-Encoding": coding}))
            assert names(self.list()) == ["a"]

    def test_refused(self) -> None:
        """A body is refused that is no list, truncated, damaged, too long, or unknown."""
        whole = gzip.compress(root_list(f"p{number}" for number in range(1000)).body)
        long = b"{" + b" " * 9_000_000
        bomb = gzip.compress(long)
        type_ = {"Content-Type": "application/vnd.pypi.simple.v2+json"}
        for reply, cause, temporary in (
            (Reply(200, (b"welcome",)), "neither", False),
            (Reply(200, (b"",)), "cut short", False),
            (Reply(200, (b"<html><title>Login</title></html>",)), "HTML page", False),
            (project_page("a.zip"), "not a list of projects", False),
            (Reply(200, root_list(["a"]).chunks, type_), "version 2", False),
            (Reply(200, (long,)), "the answer is too long: X allows 2000000 bytes", False),
            (Reply(200, (long,), length=None), "too long", False),
            *(
                (Reply(200, (body,), {"Content-Encoding": coding}), cause, temporary)
                for body, coding, cause, temporary in (
                    (whole[:-9], "gzip", "the answer was cut short", True),
                    (b"\x1f\x8b" + whole[:50], "gzip", "cannot be decompressed", False),
                    (whole, "br", "br", False),
                    (bomb, "gzip", "the answer is too long: X allows 2000000 bytes", False),
                    (gzip.compress(bomb), "gzip, gzip", "the answer is too long", False),
                )
            ),
        ):
            error = self.refusal(reply)
            assert (cause in error.cause, error.temporary) == (True, temporary), error

    def test_truncated(self) -> None:
        """A list whose end HTTP does not mark needs its own end."""
        for whole in (root_list(["one", "two"]).body, HTML_LIST):
            for end in range(0, len(whole), 7):
                reply = Reply(200, (whole[:end],), length=None, ends=PotentialDataLoss)
                assert self.refusal(reply).temporary
            self.begin(Reply(200, (whole,), length=None, ends=PotentialDataLoss))
            assert names(self.list()) == ["one", "two"]

    def test_rate(self) -> None:
        """A list that arrives steadily is waited for, however long; one that drips is not."""
        for size, whole in ((1, False), (4000, True)):
            network = Network(PLAIN)
            client = index_client(PLAIN, 60.0, network.upstream, problems_at(network.reactor))
            entries = ListEntries(
                indexes=[client],
                clock=network.reactor,
                store=ListStore(self.place, network.reactor),
                in_thread=at_once,
                problems=problems_at(network.reactor),
            )
            projects = ProjectListCache(
                View("default", (client,), Members([Member(client)])), entries
            )
            body = root_list(f"p{number}" for number in range(8_000)).body
            ask = run(projects.fetch(JSON, False))
            line = network.accept()
            line.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
            for at in range(0, len(body), size):
                if ask.called or not line.open:
                    break
                line.send(body[at : at + size])
                network.advance(1)
            if whole:
                assert len(names(self.result(ask))) == 8_000
                assert network.reactor.seconds() > 20
            else:
                assert self.error(ask, UpstreamFailed).cause == "timed out"
                assert network.reactor.seconds() < 16


class StaleTests(StoredListCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock.advance(2000)

    def assert_stale(self, found: ProjectList) -> None:
        assert (found.status, found.remaining, found.age) == ("STALE", 0.0, 2000.0)
        assert found.file.etag == self.first.file.etag

    def test_old_copy(self) -> None:
        """A list with a lower serial than before a restart is a failure, except after a DELETE."""
        self.indexes.says(ROOT, root_list(["b", "a"]).having(X_PyPI_Last_Serial="10"))
        self.first = self.list()
        self.clock.advance(2000)
        self.restart()
        self.indexes.says(ROOT, root_list(["b"]).having(X_PyPI_Last_Serial="9"))
        self.assert_stale(self.result(self.slow()))
        self.entries.invalidate()
        assert names(self.list()) == ["b"]

    def test_failures(self) -> None:
        """However the index fails, the list is served stale, and the log says why."""
        for failure in (
            *(Reply(500), Reply(403), Reply(200, (b"welcome",))),
            Reply(200, (b'{"projects": [{"name": "x"}',), ends=ConnectionError),
        ):
            self.restart()
            before = self.agent.count(ROOT)
            self.indexes.says(ROOT, failure)
            with capturedLogs() as events:
                for _ in range(2):
                    self.assert_stale(self.list())
            assert self.agent.count(ROOT) - before <= 3
            warned = [each for each in events if each["log_level"] == LogLevel.warn]
            assert ["the stale project list" in formatEvent(each) for each in warned] == [True]

    def test_slow_but_arriving(self) -> None:
        """A list that keeps arriving is no failure: there is no second request."""
        whole = root_list(f"p{number}" for number in range(1000)).body
        self.indexes.says(ROOT, Reply(200, (whole[:-2],), whole=False, length=None))
        for _ in range(3):
            ask = self.ask()
            self.clock.advance(5.1)
            assert self.result(ask).status == "STALE"
        assert self.asks == 1
        assert not self.indexes.clients[0].breakers.is_failing("")

    def test_hidden(self) -> None:
        """A list that was there does not go away with credentials: 404 is a failure."""
        self.build(PRIVATE)
        self.indexes.says(ROOT, root_list(["a"]))
        self.list()
        self.clock.advance(1801)
        self.indexes.says(ROOT, Reply(404))
        found = self.list()
        assert (found.status, names(found)) == ("STALE", ["a"])


class InvalidatedTests(LoadingCase):
    def assert_requested(self) -> None:
        """Check that the next process sends a request without validators before its first hit."""
        self.restart()
        self.indexes.says(ROOT, root_list(["c"]))
        assert names(self.list()) == ["c"]
        assert self.agent.asked[-1].header("If-None-Match") is None
        self.restart()
        assert self.list().status == "HIT"

    def test_revalidated(self) -> None:
        """An invalidated list is fetched again before it is used, also after a restart."""
        self.entries.invalidate()
        assert self.projects.ready(JSON, False) is None
        self.assert_requested()
        self.entries.invalidate()  # while it is unloaded
        self.indexes.says(ROOT, root_list(["d"]))
        assert (names(self.list()), self.list().status) == (["d"], "HIT")
        self.entries.invalidate()
        self.restart()
        self.entries.invalidate()
        self.assert_requested()

    def test_while_loading(self) -> None:
        """A ``DELETE`` while the list is read from disk counts for it."""
        self.result(self.load_while("invalidate"))
        assert self.asks == 1

    def test_outage(self) -> None:
        """While the index fails, an invalidated list is served stale, also after a restart."""
        self.entries.invalidate()
        self.indexes.says(ROOT, Reply(500))
        for _ in range(2):
            found = self.result(self.slow())
            assert (found.status, names(found)) == ("STALE", ["b", "a"])
            self.restart()

    def test_old_response_comes_last(self) -> None:
        """The response to an earlier request does not replace a newer list."""
        self.clock.advance(2000)
        self.agent.silent.add(ROOT)
        early = self.ask()
        self.entries.invalidate()
        self.agent.silent.clear()
        self.indexes.says(ROOT, root_list(["new"]))
        assert names(self.list()) == ["new"]
        self.indexes.says(ROOT, root_list(["old"]))
        self.agent.release(ROOT)
        assert names(self.result(early)) == ["old"]
        for _ in range(2):
            assert names(self.list()) == ["new"]
            self.restart()

    def test_while_storing(self) -> None:
        """A list that is being stored as ``DELETE`` comes is not stored."""
        save = ListStore.save

        def invalidate(*arguments: Any, **keywords: Any) -> None:
            self.entries.invalidate()
            save(*arguments, **keywords)

        self.clock.advance(1801)
        patch = self.patch(ListStore, "save", invalidate)  # type: ignore[no-untyped-call]
        self.indexes.says(ROOT, root_list(["d"]))
        assert names(self.list()) == ["d"]
        patch.restore()
        self.assert_requested()

    def test_refused(self) -> None:
        """If the disk refuses, ``DELETE`` is an error, and nothing has changed."""

        def refuse(*arguments: object) -> None:
            raise OSError(errno.EROFS, "Read-only file system")

        self.put(atomic_files, "overwrite", refuse)
        self.put(atomic_files, "discard", refuse)
        for delete in (self.entries.invalidate, self.entries.clear):
            with pytest.raises(OSError, match="Read-only"):
                delete()
        assert self.list().status == "HIT"
        assert self.asks == 0


class ClearedTests(LoadingCase):
    def test_removed(self) -> None:
        """Nothing is left, and the next request is without validators, also after a restart."""
        for restarted in (False, True):
            if restarted:
                self.restart()
            self.entries.clear()
            assert not list(self.folder.rglob("*.list"))
            assert names(self.list()) == ["b", "a"]
            assert self.agent.asked[-1].header("If-None-Match") is None
        assert self.asks == 2

    def test_outage(self) -> None:
        """While the index fails, there is no list, also after a restart."""
        self.entries.clear()
        self.indexes.says(ROOT, Reply(503))
        for _ in range(2):
            self.error(self.slow(), UpstreamFailed)
            self.restart()

    def test_while_loading(self) -> None:
        """A list that is being read from disk is not used."""
        self.indexes.says(ROOT, Reply(503))
        ask = self.load_while("clear")
        self.clock.pump([0.5] * 20)
        self.error(ask, UpstreamFailed)

    def test_under_way(self) -> None:
        """A response under way is for the clients that joined; nothing of it is stored."""
        self.begin(["b", "a"], ["c"])
        self.list()
        self.clock.advance(200)
        self.agent.silent.add(EXTRA)
        ask = self.ask()
        self.entries.clear()
        self.agent.release(EXTRA)
        assert names(self.result(ask)) == ["a", "b", "c"]
        assert self.projects.ready(JSON, False) is None
        self.agent.script.clear()
        self.error(self.ask(), NoSuchList)


class UnwritableTests(StoredListCase):
    def test_full(self) -> None:
        """A list that a full disk refuses is not fetched over and over; the old one is served."""
        self.indexes.says(ROOT, root_list(["new"]))
        write, full = ListStore.write, True

        def refuse(store: ListStore, pieces: Iterable[bytes]) -> ListFile:
            if full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(store, pieces)

        self.put(ListStore, "write", refuse)
        self.clock.advance(2000)
        for _ in range(10):
            assert self.list().status == "STALE"
        assert self.asks == 1
        self.entries.invalidate()  # an operator need not wait
        self.list()
        assert self.asks == 2
        full = False
        self.clock.advance(UNWRITABLE_TIME + 1)
        assert names(self.list()) == ["new"]

    def test_any_file(self) -> None:
        """Whichever file cannot be written, that is the error, and nothing stays behind."""
        coded = zlib.compress(root_list(["b"]).body)
        self.begin(["a"], Reply(200, (coded,), {"Content-Encoding": "deflate"}))
        begin, left = ListStore.temporary, 0

        def temporary(store: ListStore) -> IO[bytes]:
            nonlocal left
            left -= 1
            return begin(store) if left else open("/dev/full", "r+b")

        self.put(ListStore, "temporary", temporary)
        for number in range(1, 6):
            left = number
            asked = len(self.agent.asked)
            for _ in range(2):
                assert self.error(self.ask(), OSError).errno == errno.ENOSPC
            assert len(self.agent.asked) - asked <= 2
            assert not self.leftovers()
            self.clock.advance(UNWRITABLE_TIME)
        left = 0
        assert names(self.list()) == ["a", "b"]
        self.indexes.says(ROOT, root_list(["c"]))
        for number in range(1, 6):
            self.clock.advance(2000)
            left = number
            found = self.list()
            assert (found.status, names(found)) == ("STALE", ["a", "b"])
        self.clock.advance(2000)
        left = 0
        assert names(self.list()) == ["b", "c"]
