"""The project list: fresh and stale, of one index and of several, invalidated and cleared."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterable
from typing import IO, Any

import attrs
import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import LogLevel, capturedLogs
from twisted.web.http import PotentialDataLoss

from proxpi import atomic_files
from proxpi.index.list_store import ListFile, ListStore
from proxpi.index.project_list import UNWRITABLE_TIME, NoSuchList, ProjectList, ProjectListCache
from proxpi.upstream.connections import CONNECTIONS
from proxpi.upstream.errors import UpstreamFailed
from proxpi.upstream.response import SizeLimit
from tests.support.agent import Reply
from tests.support.cases import at_once, root_list, run
from tests.support.indexes import EXTRA, ROOT, Network, project_page, source
from tests.support.pages import Jobs
from tests.support.projects import HTML, JSON, ListCase, StoredListCase, content, names

PRIVATE = ROOT.replace("//", "//user:secret@")
PLAIN = "http://root.example/simple/"
THIRD = "https://third.example/"
HTML_LIST = (
    b'<!DOCTYPE html><html><head><meta name="pypi:repository-version" content="1.0"></head>'
    b'<body><a href="one/">one</a><br><a href="two/">two</a></body></html>'
)


class LoadingCase(StoredListCase):
    """Tests of a ``DELETE`` while the list is read from disk."""

    def load_while(self, delete: str) -> Deferred[ProjectList]:
        """Request the list, and let a ``DELETE`` come between the reading and its end."""
        self.restart()
        at_once, self.projects._in_thread = self.projects._in_thread, (jobs := Jobs())
        ask = self.ask()
        jobs.run()
        self.projects._in_thread = at_once
        getattr(self.projects, delete)()
        jobs.end()
        return ask


class RepresentationTests(ListCase):
    """Both formats, with both codings."""

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

    def test_empty(self) -> None:
        """An index without projects has a list without names."""
        for reply in (root_list([]), Reply(200, (HTML_LIST.replace(b"<a", b"<b"),))):
            self.build(ROOT)
            self.indexes.says(ROOT, reply)
            assert names(self.list()) == []
            assert b"<a " not in content(self.list(HTML))


class SingleTests(ListCase):
    """One index."""

    def test_bodies(self) -> None:
        """JSON, HTML and the listing of a folder are read, in the order of the index."""
        folder = b'<html><body><a href="../">../</a>\n<a href="one/">one/</a></body></html>'
        whole = root_list(["one", "two"])
        newer = whole.chunks[0].replace(b'"1.4"', b'"1.99"')
        for reply, expected in (
            (root_list(["zeta", "alpha", "mid"]), ["zeta", "alpha", "mid"]),
            (Reply(200, tuple(bytes([byte]) for byte in whole.body)), ["one", "two"]),
            (Reply(200, (newer,)), ["one", "two"]),
            (Reply(200, (HTML_LIST,)), ["one", "two"]),
            (Reply(200, (folder,)), ["one"]),
        ):
            self.build(ROOT)
            self.indexes.says(ROOT, reply)
            assert names(self.list()) == expected

    def test_request(self) -> None:
        """JSON is preferred, and credentials are sent."""
        self.build(PRIVATE)
        self.indexes.says(ROOT, root_list(["a"]))
        self.list()
        (asked,) = self.agent.asked
        accept = "application/vnd.pypi.simple.v1+json"
        assert (asked.header("Accept") or "").startswith(accept)
        assert (asked.header("Authorization") or "").startswith("Basic ")

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
        """However many clients wait, the index gets one request; who leaves stops nothing."""
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
        self.projects._in_thread = jobs = Jobs()
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
            self.result(run(self.projects._load()))
            self.projects._in_thread = jobs = Jobs()
            ask = self.ask()
            self.pending(ask)
            jobs.end()
            assert ask.called
            ask.addErrback(lambda _: None)


class CodingTests(ListCase):
    """A list with a content coding."""

    def coded(self, body: bytes, coding: str) -> Deferred[ProjectList]:
        """Request a list that the index sends so."""
        self.build(ROOT)
        self.indexes.says(ROOT, Reply(200, (body,), {"Content-Encoding": coding}))
        ask = self.ask()
        self.clock.pump([1.0] * 12)
        return ask

    def test_decoded(self) -> None:
        """The codings that requests accept are decoded, once or twice."""
        body = root_list(["a"]).body
        twice = gzip.compress(zlib.compress(body))
        for coded, coding in (
            (gzip.compress(body), "gzip"),
            (zlib.compress(body), "deflate"),
            (twice, "deflate, gzip"),
        ):
            assert names(self.result(self.coded(coded, coding))) == ["a"]

    def test_refused(self) -> None:
        """A coded list that is truncated, damaged, too long or unknown is refused."""
        whole = gzip.compress(root_list(f"p{number}" for number in range(1000)).body)
        bomb = gzip.compress(b"{" + b" " * 9_000_000)
        for body, coding, cause in (
            (whole[:-9], "gzip", "the answer was cut short"),
            (b"\x1f\x8b" + whole[:50], "gzip", "the answer cannot be decompressed"),
            (whole, "br", "br"),
            (bomb, "gzip", "the answer is too long: X allows 2000000 bytes"),
            (gzip.compress(bomb), "gzip, gzip", "the answer is too long: X allows 2000000 bytes"),
        ):
            self.build(ROOT)
            self.indexes.upstream.list_limit = SizeLimit(2_000_000, "X")
            self.indexes.says(ROOT, Reply(200, (body,), {"Content-Encoding": coding}))
            ask = self.ask()
            self.clock.pump([1.0] * 12)
            assert cause in self.error(ask, UpstreamFailed).cause
            assert not self.open_files()


class SeveralTests(ListCase):
    """Several indexes."""

    def merged(self, *lists: Iterable[str]) -> list[str]:
        """Give the names of indexes with these lists."""
        urls = (ROOT, EXTRA, THIRD)
        self.build(*urls[: len(lists)])
        for url, names_ in zip(urls, lists, strict=False):
            self.indexes.says(url, root_list(names_))
        return names(self.list())

    def test_merged(self) -> None:
        """Names of several indexes are sorted, each once, also over many blocks."""
        assert self.merged(["b", "A", "c"], ["d", "a", "B"], ["c"]) == ["a", "b", "c", "d"]
        lines = ListFile.lines
        self.put(ListFile, "lines", lambda file, start=0, end=None, _=0: lines(file, start, end, 9))
        first = [f"p{number * 7 % 101}" for number in range(101)]
        second = [f"q-{number}" for number in range(20)] + first[:30]
        assert self.merged(first, second) == sorted({*first, *second})

    def test_absence(self) -> None:
        """An index without a list has no names; without any list there is none."""
        for status in (404, 410, 403):
            self.build(ROOT, EXTRA)
            self.indexes.says(ROOT, Reply(status))
            self.indexes.says(EXTRA, root_list(["b", "a"]))
            assert names(self.list()) == ["a", "b"]
        for urls in ((ROOT,), (ROOT, EXTRA)):
            self.build(*urls)
            self.error(self.ask(), NoSuchList)

    def test_one_fails(self) -> None:
        """Without the list of one index, or with a truncated one, there is none."""
        cut = Reply(200, (b'{"projects": [{"name": "b"}',), ends=ConnectionError)
        for failing, good, reply in ((ROOT, EXTRA, Reply(500)), (EXTRA, ROOT, cut)):
            self.build(ROOT, EXTRA)
            self.indexes.says(failing, reply)
            self.indexes.says(good, root_list(["a"]))
            assert self.error(self.ask(), UpstreamFailed).url == failing

    def test_revalidated(self) -> None:
        """The list is as fresh as its first stale part, and only that index gets a request."""
        self.build(ROOT, EXTRA)
        for url in (ROOT, EXTRA):
            self.indexes.says(url, root_list(["a"]))
        assert self.list().remaining == 180.0
        self.clock.advance(200)
        self.list()
        assert (self.agent.count(ROOT), self.agent.count(EXTRA)) == (1, 2)

    def test_stale(self) -> None:
        """While one of several fails, its last list is used."""
        self.build(ROOT, EXTRA)
        self.indexes.says(ROOT, root_list(["a"]))
        self.indexes.says(EXTRA, root_list(["b"]))
        self.list()
        self.clock.advance(2000)
        self.indexes.says(EXTRA, Reply(500))
        self.indexes.says(ROOT, root_list(["c"]))
        found = self.list()
        assert (found.status, found.remaining, names(found)) == ("STALE", 0.0, ["b", "c"])

    def test_confirmed(self) -> None:
        """A list that all indexes confirm stays; one that one of them changes is merged anew."""
        self.build(ROOT, EXTRA)
        for url, name in ((ROOT, "a"), (EXTRA, "b")):
            self.indexes.says(url, root_list([name]).having(ETag='"x"'))
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


class RefusedTests(ListCase):
    """Responses that are no list."""

    def refusal(self, reply: Reply) -> UpstreamFailed:
        """Give the error of a response."""
        self.build(ROOT)
        self.indexes.says(ROOT, reply)
        ask = self.ask()
        if not ask.called:
            self.clock.pump([1.0] * 10)
        return self.error(ask, UpstreamFailed)

    def test_bodies(self) -> None:
        """An error page, a login page, a project page, or a newer API version is no list."""
        newer = root_list(["a"]).body.replace(b'"1.4"', b'"2.0"')
        type_ = {"Content-Type": "application/vnd.pypi.simple.v2+json"}
        for reply, cause in (
            (Reply(200, (b"welcome",)), "neither"),
            (Reply(200, (b"",)), "cut short"),
            (Reply(200, (b'{"message": "not found"}',)), "not a list of projects"),
            (Reply(200, (b"<html><title>Login</title><input type=password></html>",)), "HTML page"),
            (Reply(200, (b"<html><![bad[x]]></html>",)), "HTML page"),
            (project_page("a.zip"), "not a list of projects"),
            (Reply(200, (newer,)), "version 2"),
            (Reply(200, (HTML_LIST.replace(b'"1.0"', b'"2.0"'),)), "version 2"),
            (Reply(200, root_list(["a"]).chunks, type_), "version 2"),
        ):
            error = self.refusal(reply)
            assert cause in error.cause
            assert not error.temporary

    def test_truncated(self) -> None:
        """A list whose end HTTP does not mark needs its own end."""
        for whole in (root_list(["one", "two"]).body, HTML_LIST):
            for end in range(0, len(whole), 7):
                reply = Reply(200, (whole[:end],), length=None, ends=PotentialDataLoss)
                assert self.refusal(reply).temporary
            assert not self.open_files()
            assert not self.leftovers()
            self.build(ROOT)
            self.indexes.says(ROOT, Reply(200, (whole,), length=None, ends=PotentialDataLoss))
            assert names(self.list()) == ["one", "two"]

    def test_too_long(self) -> None:
        """A list that exceeds the limit, announced or not, is refused."""
        whole = json.dumps({"projects": [{"name": "a" * 100}]}).encode()
        for length in (len(whole), None):
            self.build(ROOT)
            self.indexes.upstream.list_limit = SizeLimit(90, "X")
            self.indexes.says(ROOT, Reply(200, (whole,), length=length))
            error = self.error(self.ask(), UpstreamFailed)
            assert error.cause == "the answer is too long: X allows 90 bytes"
            assert not self.open_files()


class ColdTests(ListCase):
    """No list to fall back on."""

    def test_all_leave(self) -> None:
        """Once all clients have left, a request that waits for a connection is not sent."""
        (index,) = self.indexes.sources
        pages = [f"{ROOT}p-{number}/" for number in range(CONNECTIONS)]
        for page in pages:
            self.agent.silent.add(page)
            self.indexes.says(page, project_page("p.zip"))
        slow = [run(index.project(f"p-{number}", None, int)) for number in range(CONNECTIONS)]
        self.indexes.says(ROOT, root_list(["a"]))
        asks = [self.ask() for _ in range(3)]
        for ask in asks:
            ask.cancel()
            self.error(ask, CancelledError)
        for page in pages:
            self.agent.release(page)
        assert all(self.result(each).content for each in slow)
        assert self.agent.count(ROOT) == 0
        assert names(self.list()) == ["a"]
        assert not self.unhandled()

    def test_rate(self) -> None:
        """A list that arrives steadily is waited for, however long; one that drips is not."""
        for size, whole in ((1, False), (4000, True)):
            network = Network(PLAIN)
            index = source(PLAIN, 60.0, network.upstream)
            store = ListStore(self.place, network.reactor)
            projects = ProjectListCache(
                sources=[index],
                upstream=network.upstream,
                clock=network.reactor,
                store=store,
                in_thread=at_once,
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
    """A stale list."""

    def setUp(self) -> None:
        """Let the list become stale."""
        super().setUp()
        self.clock.advance(2000)

    def assert_stale(self, found: ProjectList | None) -> None:
        """Check that this is the old list, and that it says so."""
        assert found is not None
        assert (found.status, found.remaining, names(found)) == ("STALE", 0.0, ["b", "a"])
        assert found.file.etag == self.first.file.etag

    def test_failures(self) -> None:
        """However the index fails, the list is served stale, and the log says why."""
        for failure in (
            *(Reply(500), Reply(401), Reply(403), Reply(200, (b"welcome",))),
            Reply(200, (b'{"projects": [{"name": "x"}',), ends=ConnectionError),
            Reply(200, (b"<html><form><input type=password></form></html>",)),
        ):
            self.restart()
            before = self.agent.count(ROOT)
            self.indexes.says(ROOT, failure)
            with capturedLogs() as events:
                for _ in range(2):
                    found = self.list()
                    self.assert_stale(found)
                    assert found.age == 2000.0
            assert self.agent.count(ROOT) - before <= 3
            warned = [each for each in events if each["log_level"] == LogLevel.warn]
            assert [each["error"].cause != "" for each in warned] == [True]

    def test_slow(self) -> None:
        """A client waits 5 s for a revalidation; that continues, and its list is used."""
        self.indexes.says(ROOT, root_list(["b"]))
        self.agent.silent.add(ROOT)
        ask = self.ask()
        self.clock.advance(4.9)
        self.pending(ask)
        self.clock.advance(0.2)
        self.assert_stale(self.result(ask))
        self.assert_stale(self.list())
        self.agent.release(ROOT)
        assert names(self.list()) == ["b"]
        assert self.asks == 1

    def test_slow_but_arriving(self) -> None:
        """A list that keeps arriving is no failure: there is no second request."""
        whole = root_list(f"p{number}" for number in range(1000)).body
        self.indexes.says(ROOT, Reply(200, (whole[:-2],), whole=False, length=None))
        for _ in range(3):
            ask = self.ask()
            self.clock.advance(5.1)
            self.assert_stale(self.result(ask))
        assert self.asks == 1
        assert not self.indexes.sources[0].breakers.is_failing("")

    def test_confirmed(self) -> None:
        """A list that the index confirms by its validators is fresh again."""
        fields = {"ETag": '"x"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        self.build(ROOT)
        self.indexes.says(ROOT, attrs.evolve(root_list(["a"]), headers=fields))
        first = self.list()
        self.clock.advance(1801)
        self.indexes.says(ROOT, Reply(304))
        found = self.list()
        asked = self.agent.asked[-1]
        assert asked.header("If-None-Match") == '"x"'
        assert asked.header("If-Modified-Since") == fields["Last-Modified"]
        assert (found.status, found.remaining, found.age) == ("REVALIDATED", 1800.0, 0.0)
        assert found.file is first.file

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
    """A list after ``DELETE``."""

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
        self.projects.invalidate()
        assert self.projects.ready(JSON, False) is None
        self.assert_requested()
        self.projects.invalidate()  # while it is unloaded
        self.indexes.says(ROOT, root_list(["d"]))
        assert (names(self.list()), self.list().status) == (["d"], "HIT")
        self.projects.invalidate()
        self.restart()
        self.projects.invalidate()
        self.assert_requested()

    def test_while_loading(self) -> None:
        """A ``DELETE`` while the list is read from disk counts for it."""
        self.result(self.load_while("invalidate"))
        assert self.asks == 1

    def test_outage(self) -> None:
        """While the index fails, an invalidated list is served stale, also after a restart."""
        self.projects.invalidate()
        self.indexes.says(ROOT, Reply(500))
        for _ in range(2):
            ask = self.ask()
            self.clock.pump([0.5] * 20)
            found = self.result(ask)
            assert (found.status, names(found)) == ("STALE", ["b", "a"])
            self.restart()

    def test_under_way(self) -> None:
        """A request gets the result of its own flight; a later one joins no earlier flight."""
        self.clock.advance(2000)
        self.agent.silent.add(ROOT)
        early = self.ask()
        self.projects.invalidate()
        late = self.ask()
        assert self.agent.waiting == 2
        self.indexes.says(ROOT, root_list(["b"]))
        self.agent.release(ROOT)
        assert names(self.result(early)) == names(self.result(late)) == ["b"]

    def test_old_response_comes_last(self) -> None:
        """The response to an earlier request does not replace a newer list."""
        self.clock.advance(2000)
        self.agent.silent.add(ROOT)
        early = self.ask()
        self.projects.invalidate()
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
            self.projects.invalidate()
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
        for delete in (self.projects.invalidate, self.projects.clear):
            with pytest.raises(OSError, match="Read-only"):
                delete()
        assert self.list().status == "HIT"
        assert self.asks == 0


class ClearedTests(LoadingCase):
    """A list after ``DELETE /cache``."""

    def test_removed(self) -> None:
        """Nothing is left, and the next request is without validators, also after a restart."""
        for restarted in (False, True):
            if restarted:
                self.restart()
            self.projects.clear()
            assert not list(self.folder.rglob("*.list"))
            assert names(self.list()) == ["b", "a"]
            assert self.agent.asked[-1].header("If-None-Match") is None
        assert self.asks == 2

    def test_outage(self) -> None:
        """While the index fails, there is no list, also after a restart."""
        self.projects.clear()
        self.indexes.says(ROOT, Reply(503))
        for _ in range(2):
            ask = self.ask()
            self.clock.pump([0.5] * 20)
            self.error(ask, UpstreamFailed)
            self.restart()

    def test_while_loading(self) -> None:
        """A list that is being read from disk is not used."""
        self.indexes.says(ROOT, Reply(503))
        ask = self.load_while("clear")
        self.clock.pump([0.5] * 20)
        self.error(ask, UpstreamFailed)

    def test_under_way(self) -> None:
        """A response under way is for the clients that joined; nothing of it is stored."""
        self.build(ROOT, EXTRA)
        self.indexes.says(ROOT, root_list(["b", "a"]))
        self.indexes.says(EXTRA, root_list(["c"]))
        self.list()
        self.clock.advance(200)
        self.agent.silent.add(EXTRA)
        ask = self.ask()
        self.projects.clear()
        self.agent.release(EXTRA)
        assert names(self.result(ask)) == ["a", "b", "c"]
        assert self.projects.ready(JSON, False) is None
        self.agent.script.clear()
        self.error(self.ask(), NoSuchList)


class UnwritableTests(StoredListCase):
    """A list that cannot be written."""

    def test_full(self) -> None:
        """It is not fetched over and over; the old list is served meanwhile."""
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
        self.projects.invalidate()  # an operator need not wait
        self.list()
        assert self.asks == 2
        full = False
        self.clock.advance(UNWRITABLE_TIME + 1)
        assert names(self.list()) == ["new"]

    def test_any_file(self) -> None:
        """Whichever file cannot be written, that is the error, and nothing stays behind."""
        self.build(ROOT, EXTRA)
        body = root_list(["b"]).body
        self.indexes.says(ROOT, root_list(["a"]))
        self.indexes.says(
            EXTRA, Reply(200, (zlib.compress(body),), {"Content-Encoding": "deflate"})
        )
        begin, left = ListStore.temporary, 0

        def temporary(store: ListStore) -> IO[bytes]:
            nonlocal left
            left -= 1
            return begin(store) if left else open("/dev/full", "r+b")

        self.put(ListStore, "temporary", temporary)
        for number in range(1, 8):
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
