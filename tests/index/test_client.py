"""One index: the requests to it, the meaning of its responses, and its root."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.web.http import PotentialDataLoss

from proxpi.index.client import SMALL
from proxpi.index.index_response import IndexPage, IndexResponse, StoredResponse
from proxpi.index.page_cache import NoSuchProject
from proxpi.simple import model
from proxpi.simple.model import Project
from proxpi.upstream.errors import UpstreamFailed
from tests.support.agent import Asked, Reply
from tests.support.cases import Case, at_once, root_list, run
from tests.support.indexes import EXTRA, ROOT, Indexes, project_page
from tests.support.pages import AT_ROOT, PagesCase, files

T = TypeVar("T")
PRIVATE = ROOT.replace("//", "//user:secret@")
FILE = "demo-1.0.tar.gz"
PROJECT = project_page(FILE)
HTML = b'<!DOCTYPE html><html><body><a href="demo-1.0.tar.gz">demo-1.0.tar.gz</a></body></html>'
SIZE = len(HTML)


def html(body: bytes = HTML, status: int = 200, **fields: str) -> Reply:
    return Reply(status, (body,)).having(**fields)


def at(value: str) -> dict[str, str]:
    """Return the header field with the serial of a page."""
    return {"X_PyPI_Last_Serial": value}


def project_of(response: IndexResponse[IndexPage]) -> Project:
    assert response.content is not None
    stored = model.decode(response.content.document)
    assert stored == response.content.project
    return stored


class ClientCase(Case):
    def setUp(self) -> None:
        self.build(ROOT)

    def build(self, url: str) -> None:
        self.indexes = Indexes((url,))
        (self.index,) = self.indexes.clients

    def ask(
        self, reply: Reply | Exception, stored: StoredResponse | None = None
    ) -> Deferred[IndexResponse[IndexPage]]:
        self.indexes.says(AT_ROOT, reply)
        self.progress: list[int] = []
        return run(self.index.project("demo", stored, self.progress.append))

    def response(self, reply: Reply = PROJECT) -> IndexResponse[IndexPage]:
        return self.result(self.ask(reply))

    def stored(self, reply: Reply = PROJECT) -> StoredResponse:
        return self.response(reply).stored

    def listed(self, reply: Reply) -> list[str]:
        return [entry["filename"] for entry in project_of(self.response(reply)).files]

    def asked(self) -> Asked:
        return self.indexes.agent.asked[-1]

    def refusal(self, reply: Reply, stored: StoredResponse | None = None) -> UpstreamFailed:
        return self.error(self.ask(reply, stored), UpstreamFailed)


class ResponseTests(ClientCase):
    def test_request(self) -> None:
        """JSON is preferred, HTML is accepted; links are relative to where the page was found."""
        assert self.listed(PROJECT) == [FILE]
        accepted = (self.asked().header("Accept") or "").split(", ")
        assert accepted[0] == "application/vnd.pypi.simple.v1+json"
        others = {each.partition(";")[0] for each in accepted[1:]}
        assert others == {"application/vnd.pypi.simple.v1+html", "text/html"}
        assert self.asked().header("If-None-Match") is None
        assert self.asked().header("If-Modified-Since") is None
        elsewhere = "https://mirror.example/deep/demo/"
        self.indexes.says(elsewhere, html())
        for reply, place in (
            (html(Content_Type="Text/HTML; charset=utf-8"), AT_ROOT),
            (Reply(301, headers={"Location": elsewhere}), elsewhere),
        ):
            assert project_of(self.response(reply)).files[0]["url"] == f"{place}{FILE}"

    def test_pages(self) -> None:
        """A page under status 203, behind text, with harmless codings, or in a whole 206 is one."""
        replies = {
            "gzip": html(gzip.compress(HTML), Content_Encoding="gzip"),
            "and aws": html(gzip.compress(HTML), Content_Encoding="gzip, aws-chunked"),
            "x-gzip": html(gzip.compress(HTML), Content_Encoding="aws-chunked,X-GZIP"),
            "deflate": html(zlib.compress(HTML), Content_Encoding="deflate"),
            "end not announced": Reply(200, (HTML,), ends=PotentialDataLoss),
        }
        for number, body in enumerate(
            (HTML, b"\nNotice: x in a.php\n" + HTML, b" \xef\xbb\xbf" + HTML)
        ):
            for coding in ("aws-chunked", "binary", "UTF-8", "none", "identity,", ""):
                replies[f"{number} {coding}"] = html(body, 203, Content_Encoding=coding)
        for whole in (f"bytes 0-{SIZE - 1}/{SIZE}", f"BYTES 0-{SIZE - 1}/{SIZE} "):
            replies[whole] = html(HTML, 206, Content_Range=whole, Content_Length=str(SIZE))
        for case, reply in replies.items():
            assert self.listed(reply) == [FILE], case

    def test_threads(self) -> None:
        """A page is parsed in a thread unless it has few bytes, also when decompressed."""
        jobs: list[object] = []

        def in_thread(job: Callable[[], T]) -> Deferred[T]:
            jobs.append(job)
            return at_once(job)

        self.index = attrs.evolve(self.index, in_thread=in_thread)
        large = HTML + b" " * SMALL.size
        for body, expected in ((HTML, 0), (large, 1)):
            for reply in (html(body), html(gzip.compress(body), Content_Encoding="gzip")):
                jobs.clear()
                assert self.listed(reply) == [FILE]
                assert len(jobs) == expected

    def test_no_pages(self) -> None:
        """A response that is no page is a failure, never an empty page; only a cut is temporary."""
        cut_json, cut_html = PROJECT.chunks[0][:-5], HTML[: HTML.index(b"</body>")]
        whole = gzip.compress(PROJECT.chunks[0])
        bomb = gzip.compress(bytes(65 * 1024 * 1024))
        login = b"<html><title>Login</title><form><input type=password></form></html>"
        cut, garbage = "the answer was cut short", "the answer cannot be decompressed"
        too_long = "the answer is too long: PROXPI_PAGE_LIMIT allows 67108864 bytes"
        cases: list[tuple[Reply, bool, str]] = [
            *((html(body), False, "") for body in (b"", b"welcome", b"{", b"[]", b"{}", login)),
            # Hostile pages: marked sections, deep nesting, and too many gzip members.
            (html(b"<![CDATA[ >" * 50_000), False, ""),
            (html(b'{"files": ' + b"[" * 200_000), False, ""),
            (html(b'{"files": [], "x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"), False, ""),
            (html(b'{"a":' * 200_000), False, ""),
            (html(gzip.compress(b"") * 50_000, Content_Encoding="gzip"), False, ""),
            (html(HTML, Content_Encoding="br"), False, "br"),
            (html(HTML, Content_Encoding="gzip, zstd"), False, "zstd"),
            (html(b"garbage", Content_Encoding="gzip"), False, garbage),
            (html(whole[:-9], Content_Encoding="gzip"), True, cut),
            (html(bomb, Content_Encoding="gzip"), False, too_long),
            (Reply(200, (HTML[:60],), ends=ConnectionError), True, cut),
            (html(cut_json), False, ""),
            (Reply(200, (cut_json,), ends=PotentialDataLoss), True, ""),
            *(
                (Reply(200, (before + cut_html,), ends=PotentialDataLoss), True, "")
                for before in (b"", b"\n", b"\xef\xbb\xbf")
            ),
            *(
                (html(HTML, 206, Content_Range=part, Content_Length=str(SIZE)), False, "status 206")
                for part in (
                    f"bytes 0-{SIZE - 1}/{SIZE + 1}",
                    f"bytes 1-{SIZE}/{SIZE + 1}",
                    f"bytes 0-{SIZE - 1}/*",
                    f"bytes 0-{SIZE}/{SIZE + 1}",
                    "",
                )
            ),
        ]
        for reply, temporary, cause in cases:
            error = self.refusal(reply)
            assert (error.temporary, cause in error.cause) == (temporary, True), error
        assert self.listed(html(cut_html)) == [FILE]

    def test_stored_without_loss(self) -> None:
        """The stored page gives back the project, unknown keys included."""
        new: dict[str, Any] = {"x-new": [1, {"y": "z"}]}
        reply = project_page("a.zip", version="1.4", versions=["1"], **new)
        assert project_of(self.response(reply)) == Project(
            "demo",
            [{"filename": "a.zip", "url": "https://files.example/a.zip", "hashes": {}}],
            {"versions": ["1"], **new},
            "1.4",
        )

    def test_unlisted(self) -> None:
        """One line counts the links that are not listed, without credentials of theirs."""
        links = (
            b"git+https://user:secret@h.example/demo?token=x#egg=demo",
            b"ftp://h.example/\x1b[1m",
        )
        page = b"".join(b"<a href='%s'>demo</a>" % link for link in links)
        for body, count in ((HTML + page, 2), (HTML, 0)):
            with capturedLogs() as events:
                self.response(html(body))
            lines = [line for line in map(formatEvent, events) if "not listed" in line]
            assert len(lines) == (1 if count else 0)
            for line in lines:
                assert f"{count} link(s)" in line
                assert "git+https://***@h.example/demo'" in line
                assert line.isprintable()
                assert "secret" not in line
                assert "token" not in line

    def test_absence(self) -> None:
        """404 and 410 mean absence; so does 403 without credentials, if it was never served."""
        served = self.stored()
        gone = self.result(self.ask(Reply(404), served)).stored
        for status in (404, 410):
            for stored in (None, served):
                absent = self.result(self.ask(Reply(status, (b"nothing",)), stored))
                assert (absent.stored.present, absent.content) == (False, None)
        for never in (None, StoredResponse(False, 0.0)):
            assert not self.result(self.ask(Reply(403), never)).stored.present
        for stored in (served, gone):
            error = self.refusal(Reply(403), stored)
            assert (error.temporary, error.retry_after) == (False, None)
            assert "credentials rejected" in error.cause

    def test_rejected(self) -> None:
        """401, and 403 in spite of credentials, are credentials rejected."""
        for url, status in ((ROOT, 401), (PRIVATE, 401), (PRIVATE, 403)):
            self.build(url)
            error = self.refusal(Reply(status))
            assert (error.temporary, error.kind) == (False, "credentials")
            assert error.cause == f"credentials rejected (status {status})"
            assert "secret" not in str(error)


class ValidatorTests(ClientCase):
    def test_sent(self) -> None:
        """The validators are sent back as they were; none for an absence, or after a DELETE."""
        date = "Wed, 21 Oct 2015 07:28:00 GMT"
        both = self.stored(PROJECT.having(ETag='W/"x"', Last_Modified=date))
        one = self.stored(PROJECT.having(ETag='"x"'))
        for stored, etag, modified in (
            (both, 'W/"x"', date),
            (one, '"x"', None),
            (StoredResponse(False, 0.0, etag='"x"'), None, None),
            (one.invalidate(), None, None),
        ):
            self.result(self.ask(PROJECT, stored))
            assert self.asked().header("If-None-Match") == etag
            assert self.asked().header("If-Modified-Since") == modified

    def test_confirmed(self) -> None:
        """304 renews what is stored, and keeps the validators; without a condition it fails."""
        stored = self.stored(PROJECT.having(ETag='"x"'))
        self.indexes.clock.advance(2000)
        confirmed = self.result(self.ask(Reply(304), stored))
        assert confirmed == IndexResponse(attrs.evolve(stored, requested_at=2000.0))
        assert self.index.remaining(confirmed.stored) == self.index.ttl
        for unconditional in (None, self.stored(), StoredResponse(False, 0.0, etag='"x"')):
            self.refusal(Reply(304), unconditional)

    def test_serials(self) -> None:
        """A page or 304 with a lower serial is a failure; a value that is no serial is ignored."""
        old = self.stored(PROJECT.having(ETag='"x"', **at("10")))
        assert old.serial == 10
        for value, serial in (
            ("10", 10),
            (" 11 ", 11),
            ("9", None),
            ("0", None),
            *((bad, 0) for bad in ("", "-1", "9.5", "nine", "٣", "9" * 19, "1e3")),
        ):
            page, confirmation = (each.having(**at(value)) for each in (PROJECT, Reply(304)))
            if serial is None:
                for reply in (page, confirmation):
                    failure = self.refusal(reply, old)
                    assert failure.temporary
                    assert f"its serial {value} is lower than 10" in str(failure)
            else:
                assert self.result(self.ask(page, old)).stored.serial == (serial or None)
                assert self.result(self.ask(confirmation, old)).stored.serial == (serial or 10)
        assert self.refusal(Reply(500).having(**at("9")), old).cause == "status 500"

    def test_serials_before(self) -> None:
        """A lower serial is accepted after a DELETE, not after an absence or without validators."""
        old, low = self.stored(PROJECT.having(**at("10"))), PROJECT.having(**at("9"))
        for stored in (None, old.invalidate(), self.stored()):
            assert self.result(self.ask(low, stored)).stored.serial == 9
        absent = self.result(self.ask(Reply(404), old)).stored
        for known in (absent, old.without_validators()):
            self.refusal(low, known)
        forgotten = self.result(self.ask(Reply(404), old.invalidate())).stored
        assert self.result(self.ask(low, forgotten)).stored.serial == 9

    def test_overtaken(self) -> None:
        """Of two requests at a time, the response with the lower serial is not used."""
        high = self.response(PROJECT.having(**at("10")))
        self.indexes.clock.advance(1)
        low, none = self.response(PROJECT.having(**at("9"))), self.response()
        assert not low.supersedes(high.stored)
        assert low.supersedes(high.stored.invalidate())
        assert none.supersedes(high.stored)

    def test_progress(self) -> None:
        """The head and the bytes are counted as they arrive; age begins with the request."""
        self.indexes.agent.silent.add(AT_ROOT)
        asking = self.ask(PROJECT)
        self.indexes.clock.advance(15)
        assert self.progress == []
        self.indexes.agent.release(AT_ROOT)
        assert self.result(asking).stored.requested_at == 0.0
        assert self.progress[0] == 0
        assert sum(self.progress) == len(PROJECT.chunks[0])

    def test_versions(self) -> None:
        """A newer minor version is understood, with one warning, without credentials."""
        self.build(PRIVATE)
        self.indexes.says(ROOT, root_list([]))
        with capturedLogs() as events:
            for version in ("1.0", "1.4", "banana", "1.99", "1.99"):
                assert self.listed(project_page("a.zip", version=version)) == ["a.zip"]
        (warning,) = events
        assert (warning["log_level"], warning["version"]) == (LogLevel.warn, "1.99")
        assert "secret" not in repr(warning)
        assert "secret" not in repr(self.index)


OTHER = f"{ROOT}other/"
#: What the root of an index may send once its credentials have expired.
ROOT_FAILURES: tuple[Reply | Exception, ...] = (
    *(Reply(status) for status in (400, 401, 403, 404, 410, 429, 500, 503)),
    ConnectionRefusedError(),
)


class ExpiredTests(PagesCase):
    """An index with credentials that had a page, and then sends 404."""

    def hold(self, root: Reply | Exception | None = None, url: str = PRIVATE) -> None:
        self.build(url)
        self.indexes.says(ROOT, root or root_list(["demo"]))
        for address in (AT_ROOT, OTHER):
            self.indexes.says(address, project_page("a.zip").having(ETag='"1"'))
        self.page()
        self.page("other")
        self.clock.advance(2000)
        for address in (AT_ROOT, OTHER):
            self.indexes.says(address, Reply(404))

    def test_root_fails(self) -> None:
        """If its root fails as well, that is a failure that the log names: the page stays."""
        for failure in ROOT_FAILURES:
            for status in (404, 410):
                self.hold()
                self.indexes.says(ROOT, failure)
                self.indexes.says(AT_ROOT, Reply(status))
                with capturedLogs() as events:
                    page = self.page()
                assert (page.status, files(page)) == ("STALE", ["a.zip"])
                (event,) = [each for each in events if each["log_level"] == LogLevel.warn]
                assert "do the credentials still hold?" in formatEvent(event)
                assert "secret" not in repr(event)

    def test_absent(self) -> None:
        """404 means absence if the root serves, or never did, or there are no credentials."""
        for root, url in (
            (None, PRIVATE),
            (None, ROOT),
            *((failure, PRIVATE) for failure in ROOT_FAILURES),
        ):
            self.hold(root, url)
            self.error(self.ask(), NoSuchProject)
            asked = self.agent.count(ROOT)
            assert url == PRIVATE or asked == 0
            for name in ("demo", "demo", "never-served"):
                self.clock.advance(61)
                self.error(self.ask(name), NoSuchProject)
            assert root or self.agent.count(ROOT) == asked

    def test_restart(self) -> None:
        """A restart keeps the knowledge that the root has sent 200."""
        self.hold()
        self.indexes = attrs.evolve(self.indexes)
        self.agent, self.clock = self.indexes.agent, self.indexes.clock
        self.start()
        for address in (ROOT, AT_ROOT, OTHER):
            self.indexes.says(address, Reply(404))
        assert self.page("other").status == self.page().status == "STALE"

    def test_root_request_rate(self) -> None:
        """One request to the root serves all pages for 30 s; then a page that is back is fresh."""
        self.hold()
        self.agent.silent.add(ROOT)
        asked = self.agent.count(ROOT)
        asks = [self.ask(), self.ask("other")]
        assert self.agent.count(ROOT) == asked + 1
        self.indexes.says(ROOT, Reply(404))
        self.agent.release(ROOT)
        assert [self.result(ask).status for ask in asks] == ["STALE", "STALE"]
        for _ in range(10):
            self.clock.advance(2)
            assert self.page().status == self.page("other").status == "STALE"
        assert self.agent.count(ROOT) == asked + 1
        self.indexes.says(AT_ROOT, project_page("b.zip"))
        self.clock.advance(31)
        assert files(self.page()) == ["b.zip"]


class WrongUrlTests(PagesCase):
    def warnings(self, *names: str) -> list[str]:
        with capturedLogs() as events:
            for name in names:
                self.error(self.ask(name), NoSuchProject)
        return [
            event["log_format"].format(**event)
            for event in events
            if event["log_level"] == LogLevel.warn
        ]

    def test_everything_is_404(self) -> None:
        """If its root and first pages are 404, there is one warning, without credentials."""
        for url in (ROOT, PRIVATE):
            for status in (404, 410):
                self.build(url)
                self.indexes.says(ROOT, Reply(status))
                (warning,) = self.warnings(*(f"p{number}" for number in range(20)))
                assert f"root.example/simple/ answers {status}" in warning
                assert "PROXPI_INDEX_URL" in warning
                assert "secret" not in warning
                assert self.agent.count(ROOT) == 1
        self.build(ROOT, EXTRA)  # each index by itself
        self.indexes.says(EXTRA, root_list([]))
        (warning,) = self.warnings("one", "two", "three")
        assert "root.example" in warning

    def test_no_warning(self) -> None:
        """No warning for an index whose root is not 404, or that served a page, or lacks one."""
        for root in (root_list([]), Reply(403), Reply(500), ConnectionRefusedError()):
            self.build(ROOT)
            self.indexes.says(ROOT, root)
            assert self.warnings("one", "two", "three", "four") == []
            assert self.agent.count(ROOT) == 1
        self.build(ROOT)
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        self.page()
        assert self.warnings("one", "two", "three") == []
        self.build(ROOT)
        for _ in range(3):
            assert self.warnings("one") == []
            self.clock.advance(61)
        assert self.agent.count(ROOT) == 0
