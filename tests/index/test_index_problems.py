"""What the log and the operator's page say of a failing index: the cause, and what clients get."""

from __future__ import annotations

from datetime import UTC, datetime

from twisted.internet.error import ConnectionRefusedError

from proxpi.index import revalidation
from proxpi.problems import MOST
from proxpi.upstream import UpstreamFailed
from tests.support.agent import Reply
from tests.support.indexes import ROOT, project_page
from tests.support.logs import Log, logged
from tests.support.pages import AT_ROOT, PagesCase

PRIVATE = ROOT.replace("//", "//user:secret@")
NAMESPACES = ("proxpi.index", "proxpi.problems")


class IndexProblemsTests(PagesCase):
    def setUp(self) -> None:
        super().setUp()
        self.put(revalidation, "PAUSES", (0.0, 0.0, 0.0))

    def keep(self, *names: str) -> None:
        """Cache the pages of projects, and let them become stale."""
        for name in names:
            self.indexes.says(f"{ROOT}{name}/", project_page("a.zip"))
            self.page(name)
        self.clock.advance(2000)

    def answer(self, reply: Reply | Exception, *names: str) -> Log:
        """Let the index fail, and request the pages of projects."""
        with logged(*NAMESPACES) as log:
            for name in names:
                self.indexes.says(f"{ROOT}{name}/", reply)
                self.ask(name).addErrback(lambda failure: failure.trap(UpstreamFailed) and None)
        return log

    def test_stale(self) -> None:
        """The stale page that clients get, and when it was confirmed."""
        self.keep("demo")
        log = self.answer(Reply(500), "demo")
        then = datetime.fromtimestamp(self.epoch, UTC)
        (line,) = log.lines
        assert line == (
            f"index root.example: {AT_ROOT}: status 500; the stale page of demo, of "
            f"{then:%Y-%m-%d %H:%M} UTC, is served; wait, or tell the operator of that server"
        )

    def test_without_a_page(self) -> None:
        """Without a page clients get an error; each kind of failure has a remedy of its own."""
        for reply, expected in (
            (ConnectionRefusedError(), "connection refused; clients get 503; check that it runs"),
            (Reply(500), "status 500; clients get 503; wait"),
            (Reply(401), "(status 401); clients get 502; check user and password"),
            (Reply(200, b"<html>login"), "; clients get 502; check that its URL is the root"),
        ):
            self.build(ROOT)
            log = self.answer(reply, "demo")
            assert [line for line in log.lines if expected in line] == log.lines != []

    def test_retried(self) -> None:
        """A failure that a retry mends is no problem."""
        self.indexes.agent.at(AT_ROOT, Reply(500), project_page("a.zip"))
        with logged(*NAMESPACES) as log:
            assert self.page().status == "MISS"
        assert (log.lines, list(self.indexes.problems)) == ([], [])

    def test_throttled(self) -> None:
        """However many pages fail, the index has one line a minute for a kind of failure."""
        names = [f"demo-{number}" for number in range(2 * MOST)]
        self.keep(*names)
        assert len(self.answer(Reply(500), *names).lines) == 1
        (problem,) = self.indexes.problems
        assert problem.count == 2 * MOST
        assert len(self.answer(Reply(401), *names).lines) == 0  # the breakers are open
        self.clock.advance(60)
        assert len(self.answer(Reply(401), *names).lines) == 1
        assert [each.count for each in self.indexes.problems] == [2 * MOST, 2 * MOST]

    def test_recovery(self) -> None:
        """One line says that the index responds again, and after what time."""
        self.keep("demo", "other")
        self.answer(ConnectionRefusedError(), "demo")
        self.clock.advance(240)
        assert self.answer(project_page("a.zip"), "demo", "other").lines == [
            "index root.example responds again after 4 min"
        ]

    def test_bad_page(self) -> None:
        """One bad page among good ones is no outage that could end."""
        self.keep("demo", "other")
        assert len(self.answer(Reply(500), "demo").lines) == 1
        assert self.answer(project_page("a.zip"), "other").lines == []

    def test_background(self) -> None:
        """No client waits for a page that is prefetched."""
        self.indexes.says(AT_ROOT, Reply(500))
        with logged(*NAMESPACES) as log:
            self.prefetch()
        (line,) = log.lines
        assert "; no client waits for it; " in line

    def test_credentials(self) -> None:
        """No credentials are in a line or a problem."""
        self.build(PRIVATE)
        replies: list[Reply | Exception] = [ConnectionRefusedError(), Reply(403), Reply(503)]
        for number, reply in enumerate(replies):
            log = self.answer(reply, f"demo-{number}")
            assert len(log.lines) == 1
            assert "secret" not in log.text
        assert "secret" not in repr(list(self.indexes.problems))
