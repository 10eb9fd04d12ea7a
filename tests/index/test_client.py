"""One index: what is sent to it, and what its answers mean."""

from __future__ import annotations

import gzip
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.web.http import PotentialDataLoss
from werkzeug.http import http_date

from proxpi.index.client import ABSENT_TTL, IndexPage, IndexResponse, StoredResponse
from proxpi.simple import model
from proxpi.simple.model import Project
from proxpi.upstream.errors import UpstreamFailed
from tests.support.agent import Asked, Reply
from tests.support.cases import Case, run
from tests.support.indexes import ROOT, Indexes, project_page, source

PAGE = f"{ROOT}demo/"
PRIVATE = ROOT.replace("//", "//user:secret@")
PROJECT = project_page("demo-1.0.tar.gz")
HTML = b'<!DOCTYPE html><html><body><a href="demo-1.0.tar.gz">demo-1.0.tar.gz</a></body></html>'


def project_of(said: IndexResponse[IndexPage]) -> Project:
    """Give the project that an index told, as it is kept."""
    assert said.content is not None
    kept = model.decode(said.content.document)
    assert kept == said.content.project
    return kept


def listed(said: IndexResponse[IndexPage]) -> list[str]:
    """Give the names of the files that an index told."""
    return [entry["filename"] for entry in project_of(said).files]


class ClientCase(Case):
    """Tests of one index."""

    def setUp(self) -> None:
        """Prepare an index without credentials."""
        self.build(ROOT)

    def build(self, url: str) -> None:
        """Prepare an index."""
        self.indexes = Indexes((url,))
        (self.source,) = self.indexes.sources

    def ask(
        self, reply: Reply | Exception, stored: StoredResponse | None = None
    ) -> Deferred[IndexResponse[IndexPage]]:
        """Ask for the project of the tests, which the index answers so."""
        self.indexes.says(PAGE, reply)
        self.heard: list[int] = []
        return run(self.source.project("demo", stored, self.heard.append))

    def said(self, reply: Reply = PROJECT) -> IndexResponse[IndexPage]:
        """Give what the index said when it answered so."""
        return self.result(self.ask(reply))

    def stored(self, reply: Reply = PROJECT) -> StoredResponse:
        """Give what is remembered of such an answer."""
        return self.said(reply).stored

    def asked(self) -> Asked:
        """Give the newest request."""
        return self.indexes.agents.asked[-1]

    def refusal(self, reply: Reply, stored: StoredResponse | None = None) -> UpstreamFailed:
        """Give why an answer is none."""
        return self.error(self.ask(reply, stored), UpstreamFailed)


class AnswerTests(ClientCase):
    """What answers mean."""

    def test_request(self) -> None:
        """JSON is asked for first, and HTML as well."""
        assert listed(self.said()) == ["demo-1.0.tar.gz"]
        accepted = (self.asked().header("Accept") or "").split(", ")
        assert accepted[0] == "application/vnd.pypi.simple.v1+json"
        assert {each.partition(";")[0] for each in accepted[1:]} == {
            "application/vnd.pypi.simple.v1+html",
            "text/html",
        }
        assert self.asked().header("If-None-Match") is None
        assert self.asked().header("If-Modified-Since") is None

    def test_html(self) -> None:
        """HTML is understood, and links are those of the page's own place."""
        said = self.said(Reply(200, (HTML,), {"Content-Type": "Text/HTML; charset=utf-8"}))
        assert project_of(said).files[0]["url"] == f"{PAGE}demo-1.0.tar.gz"

    def test_links_after_a_redirect(self) -> None:
        """Links are joined to where the page was found in the end."""
        elsewhere = "https://mirror.example/deep/demo/"
        self.indexes.says(elsewhere, Reply(200, (HTML,)))
        said = self.said(Reply(301, headers={"Location": elsewhere}))
        assert project_of(said).files[0]["url"] == f"{elsewhere}demo-1.0.tar.gz"

    def test_answers_that_clients_take(self) -> None:
        """A page under status 203, behind text, or with codings that change no byte is a page."""
        utf16 = HTML.decode().encode("utf-16")
        for body in (
            HTML,
            b"\nNotice: undefined index in a.php\n" + HTML,
            b" \xef\xbb\xbf" + HTML,
            utf16,
        ):
            for coding in ("aws-chunked", "binary", "UTF-8", "none", "identity,", ""):
                reply = Reply(203, (body,), {"Content-Encoding": coding})
                assert listed(self.said(reply)) == ["demo-1.0.tar.gz"]
        for coding in ("gzip, aws-chunked", "aws-chunked,X-GZIP"):
            reply = Reply(200, (gzip.compress(HTML),), {"Content-Encoding": coding})
            assert listed(self.said(reply)) == ["demo-1.0.tar.gz"]
        reply = Reply(200, (zlib.compress(HTML),), {"Content-Encoding": "deflate"})
        assert listed(self.said(reply)) == ["demo-1.0.tar.gz"]

    def test_a_whole_that_is_called_a_part(self) -> None:
        """A 206 that nobody asked for is a page if its range is the whole, else none."""
        size = len(HTML)
        for whole in (f"bytes 0-{size - 1}/{size}", f"BYTES 0-{size - 1}/{size} "):
            reply = Reply(206, (HTML,), {"Content-Range": whole, "Content-Length": f"{size}"})
            assert listed(self.said(reply)) == ["demo-1.0.tar.gz"]
        for stored in (
            f"bytes 0-{size - 1}/{size + 1}",
            f"bytes 1-{size}/{size + 1}",
            f"bytes 0-{size - 1}/*",
            f"bytes 0-{size}/{size + 1}",
            "",
        ):
            fields = {"Content-Range": stored, "Content-Length": f"{size}"}
            assert self.refusal(Reply(206, (HTML,), fields)).cause == "status 206"

    def test_codings_that_are_not_known(self) -> None:
        """A coding that nobody asked for is named as the reason, and waiting does not help."""
        for coding in ("br", "gzip, zstd"):
            error = self.refusal(Reply(200, (HTML,), {"Content-Encoding": coding}))
            assert coding.rpartition(" ")[2] in error.cause
            assert not error.temporary

    def test_hostile_pages(self) -> None:
        """Deep nesting, and too many marked sections or gzip members, are no page at once."""
        for body, fields in (
            (b"<![CDATA[ >" * 50_000, {}),
            (b'{"files": ' + b"[" * 200_000, {}),
            (b'{"files": [], "x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", {}),
            (b'{"a":' * 200_000, {}),
            (gzip.compress(b"") * 50_000, {"Content-Encoding": "gzip"}),
        ):
            assert not self.refusal(Reply(200, (body,), fields)).temporary

    def test_what_is_not_listed(self) -> None:
        """One line says how many links are not listed, without what they hold of credentials."""
        links = (
            b"git+https://user:secret@h.example/demo?token=x#egg=demo",
            b"ftp://h.example/\x1b[1m",
        )
        page = b"".join(b"<a href='%s'>demo</a>" % link for link in links)
        for body, count in ((HTML + page, 2), (HTML, 0)):
            with capturedLogs() as events:
                self.said(Reply(200, (body,)))
            lines = [line for line in map(formatEvent, events) if "not listed" in line]
            assert len(lines) == (1 if count else 0)
            assert not count or f"{count} link(s)" in lines[0]
            assert all(line.isprintable() and "secret" not in line for line in lines)
            assert all(
                "token" not in line and "git+https://***@h.example/demo'" in line for line in lines
            )

    def test_compressed(self) -> None:
        """A compressed page is understood."""
        reply = Reply(200, (gzip.compress(HTML),), {"Content-Encoding": "gzip"})
        assert listed(self.said(reply)) == ["demo-1.0.tar.gz"]

    def test_compressed_garbage(self) -> None:
        """What is no compression, ends early, or holds too much, is no page."""
        whole = gzip.compress(PROJECT.chunks[0])
        bomb = gzip.compress(bytes(65 * 1024 * 1024))
        for body, cause in (
            (b"garbage", "the answer cannot be decompressed"),
            (whole[:-9], "the answer was cut short"),
            (bomb, "the answer is too long: PROXPI_PAGE_LIMIT allows 67108864 bytes"),
        ):
            error = self.refusal(Reply(200, (body,), {"Content-Encoding": "gzip"}))
            assert error.cause == cause

    def test_held_without_loss(self) -> None:
        """What is held gives back the project, keys that nobody knows included."""
        new: dict[str, Any] = {"x-new": [1, {"y": "z"}]}
        reply = project_page("a.zip", version="1.4", versions=["1"], **new)
        assert project_of(self.said(reply)) == Project(
            "demo",
            [{"filename": "a.zip", "url": "https://files.example/a.zip", "hashes": {}}],
            {"versions": ["1"], **new},
            "1.4",
        )

    def test_not_here(self) -> None:
        """404 and 410 mean that the index has no such project, whatever was before."""
        for stored in (None, self.stored()):
            for status in (404, 410):
                absent = self.result(self.ask(Reply(status, (b"nothing",)), stored))
                assert (absent.stored.present, absent.content) == (False, None)

    def test_403_of_an_object_store(self) -> None:
        """403 without credentials, for what was never served, means the same."""
        assert not self.stored(Reply(403)).present
        assert not self.result(self.ask(Reply(403), StoredResponse(False, 0.0))).stored.present

    def test_403_after_it_was_served(self) -> None:
        """403 for what was served before is a permission that was lost."""
        served = self.stored()
        since_gone = self.result(self.ask(Reply(404), served)).stored
        for stored in (served, since_gone):
            error = self.refusal(Reply(403), stored)
            assert (error.temporary, error.retry_after) == (False, None)
            assert "credentials rejected" in error.cause

    def test_rejected(self) -> None:
        """401, and 403 in spite of credentials, say that these are rejected; so does the log."""
        for url, status in ((ROOT, 401), (PRIVATE, 401), (PRIVATE, 403)):
            self.build(url)
            with capturedLogs() as events:
                error = self.refusal(Reply(status))
            assert not error.temporary
            (event,) = [each for each in events if each["log_level"] == LogLevel.error]
            assert "credentials rejected" in event["log_format"]
            assert "secret" not in repr(event)

    def test_outages(self) -> None:
        """Server errors and too many requests pass with time."""
        for status in (408, 425, 429, 500, 502, 503, 504):
            error = self.refusal(Reply(status))
            assert (error.cause, error.temporary) == (f"status {status}", True)

    def test_odd_statuses(self) -> None:
        """What is no answer to the question does not pass by waiting."""
        for status in (201, 204, 206, 300, 302, 400, 402, 405, 418):
            error = self.refusal(Reply(status))
            assert (error.cause, error.temporary) == (f"status {status}", False)

    def test_no_page(self) -> None:
        """A page that is no index page is a failure that does not pass, never an empty page."""
        bodies = (
            b"",
            b"welcome",
            b"{",
            b"[]",
            b"{}",
            b"<html><title>Login</title><form><input type=password></form></html>",
        )
        for body in bodies:
            assert not self.refusal(Reply(200, (body,))).temporary

    def test_cut(self) -> None:
        """A page cut on the way is a failure that passes."""
        error = self.refusal(Reply(200, (HTML[:60],), ends=ConnectionError))
        assert (error.cause, error.temporary) == ("the answer was cut short", True)

    def test_end_not_announced(self) -> None:
        """HTML that ends with the connection counts if it has its own end."""
        assert listed(self.said(Reply(200, (HTML,), ends=PotentialDataLoss)))
        for whole in (HTML, b"\n" + HTML, b"\xef\xbb\xbf" + HTML):
            cut = whole[: whole.index(b"</body>")]
            error = self.refusal(Reply(200, (cut,), ends=PotentialDataLoss))
            assert error.temporary
            assert listed(self.said(Reply(200, (cut,))))

    def test_json_that_breaks_off(self) -> None:
        """JSON that ends too early is a failure, and one that passes if the connection broke."""
        cut = PROJECT.chunks[0][:-5]
        assert not self.refusal(Reply(200, (cut,))).temporary
        assert self.refusal(Reply(200, (cut,), ends=PotentialDataLoss)).temporary


class RetryAfterTests(ClientCase):
    """When the upstream wants to be asked again."""

    def test_seconds(self) -> None:
        """It may say so in seconds."""
        for stated, seconds in (("17", 17.0), (" 3 ", 3.0), ("0", 0.0), ("9" * 400, 86_400.0)):
            error = self.refusal(Reply(429, headers={"Retry-After": stated}))
            assert error.retry_after == seconds

    def test_date(self) -> None:
        """It may say so by a date; one that has passed means now."""
        now = datetime.now(UTC)
        for offset, least, most in ((1000, 900, 1000), (-1000, 0, 0)):
            date = http_date(now + timedelta(seconds=offset))
            after = self.refusal(Reply(503, headers={"Retry-After": date})).retry_after
            assert after is not None
            assert least <= after <= most

    def test_nothing_usable(self) -> None:
        """What is neither is as if it were not there."""
        for headers in ({}, {"Retry-After": "soon"}, {"Retry-After": "-5"}, {"Retry-After": ""}):
            assert self.refusal(Reply(503, headers=headers)).retry_after is None


class ValidatorTests(ClientCase):
    """Asking again for what is held."""

    def test_sent(self) -> None:
        """Both validators that the index gave are sent back as they were."""
        date = "Wed, 21 Oct 2015 07:28:00 GMT"
        stored = self.stored(PROJECT.having(ETag='W/"x"', Last_Modified=date))
        self.result(self.ask(PROJECT, stored))
        assert self.asked().header("If-None-Match") == 'W/"x"'
        assert self.asked().header("If-Modified-Since") == date

    def test_one_of_them(self) -> None:
        """One is enough."""
        self.result(self.ask(PROJECT, self.stored(PROJECT.having(ETag='"x"'))))
        assert self.asked().header("If-None-Match") == '"x"'
        assert self.asked().header("If-Modified-Since") is None

    def test_confirmed(self) -> None:
        """304 renews what is held, and keeps the validators."""
        stored = self.stored(PROJECT.having(ETag='"x"'))
        self.indexes.clock.advance(2000)
        renewed = self.result(self.ask(Reply(304), stored))
        assert (renewed.stored.requested_at, renewed.stored.invalidated, renewed.content) == (
            2000.0,
            False,
            None,
        )
        assert (renewed.stored.present, renewed.stored.etag) == (True, '"x"')
        assert self.source.remaining(renewed.stored) == self.source.ttl

    def test_304_unasked(self) -> None:
        """304 to a question without validators confirms nothing."""
        for stored in (None, self.stored(), StoredResponse(False, 0.0, etag='"x"')):
            self.refusal(Reply(304), stored)

    def test_absence_has_no_validators(self) -> None:
        """What was not there is asked for plainly."""
        self.result(self.ask(PROJECT, StoredResponse(False, 0.0, etag='"x"')))
        assert self.asked().header("If-None-Match") is None

    def test_due(self) -> None:
        """What an operator forgot is asked for plainly."""
        stored = attrs.evolve(self.stored(PROJECT.having(ETag='"x"')), invalidated=True)
        self.result(self.ask(PROJECT, stored))
        assert self.asked().header("If-None-Match") is None

    def test_heard(self) -> None:
        """Whoever asks learns what comes while it comes: the head, then the body."""
        self.said()
        assert self.heard[0] == 0
        assert sum(self.heard) == len(PROJECT.chunks[0])

    def test_when_it_was_asked(self) -> None:
        """A page is as old as the question, not as its answer."""
        self.indexes.agents.silent.add(PAGE)
        asking = self.ask(PROJECT)
        self.indexes.clock.advance(15)
        self.indexes.agents.release(PAGE)
        assert self.result(asking).stored.requested_at == 0.0


class FreshnessTests(ClientCase):
    """How long an answer counts."""

    def test_ttl(self) -> None:
        """A page is fresh for the index's time to live."""
        stored = self.stored()
        assert self.source.remaining(stored) == 1800.0
        self.indexes.clock.advance(1799)
        assert self.source.remaining(stored) == 1.0
        self.indexes.clock.advance(2)
        assert self.source.remaining(stored) == 0.0

    def test_absence(self) -> None:
        """That there is nothing is believed for a minute, or for a shorter time to live."""
        absent = self.stored(Reply(404))
        assert self.source.remaining(absent) == ABSENT_TTL == 60.0
        short = source(ROOT, 10.0, self.indexes.upstream)
        assert short.remaining(absent) == 10.0

    def test_nothing(self) -> None:
        """What was never asked is not fresh, nor what is to be asked again."""
        assert self.source.remaining(None) == 0.0
        assert self.source.remaining(StoredResponse(True, 0.0, invalidated=True)) == 0.0


class VersionTests(ClientCase):
    """Versions of the API (PEP 629)."""

    def test_newer_minor(self) -> None:
        """A newer minor version is understood, with one warning however often it is met."""
        with capturedLogs() as events:
            for _ in range(3):
                assert listed(self.said(project_page("a.zip", version="1.99")))
        warnings = [event for event in events if event["log_level"] == LogLevel.warn]
        assert len(warnings) == 1
        assert warnings[0]["version"] == "1.99"

    def test_known(self) -> None:
        """Known versions, and none, are worth no word."""
        with capturedLogs() as events:
            for version in ("1.0", "1.4", "banana"):
                self.said(project_page("a.zip", version=version))
        assert events == []

    def test_newer_major(self) -> None:
        """A newer major version is refused, in the page or in its type."""
        for reply in (
            project_page("a.zip", version="2.0"),
            PROJECT.having(Content_Type="application/vnd.pypi.simple.v2+json"),
        ):
            error = self.refusal(reply)
            assert not error.temporary
            assert "version 2" in error.cause

    def test_no_credentials_in_the_warning(self) -> None:
        """The warning names the index without its credentials."""
        self.build(PRIVATE)
        with capturedLogs() as events:
            self.said(project_page("a.zip", version="1.5"))
        assert len(events) == 1
        assert "secret" not in repr(events[0])
        assert "secret" not in repr(self.source)
