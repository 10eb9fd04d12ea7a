"""Pages of indexes that answer as a test wants, on a clock and a folder of the test's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from shutil import rmtree
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from proxpi.config import RuleSettings
from proxpi.index.page_cache import Page, PageCache
from proxpi.index.page_entries import PageEntries
from proxpi.rules.exclusions import Exclusions
from proxpi.rules.rules import Rules
from proxpi.simple.negotiate import Serialization
from proxpi.upstream.errors import UpstreamFailed
from tests.support.agent import Reply
from tests.support.cases import FolderCase, at_once, run
from tests.support.indexes import EPOCH, EXTRA, ROOT, Indexes, page_store

JSON, HTML = Serialization.JSON, Serialization.HTML
AT_ROOT, AT_EXTRA = f"{ROOT}demo/", f"{EXTRA}demo/"


def files(page: Page) -> list[str]:
    return [file["filename"] for file in json.loads(page.body.data)["files"]]


class Jobs:
    """A thread whose jobs end when a test wants it."""

    def __init__(self) -> None:
        self._jobs: list[tuple[Any, Deferred[Any]]] = []

    def __call__(self, job: Any) -> Deferred[Any]:
        self._jobs.append((job, Deferred()))
        return self._jobs[-1][1]

    def run(self) -> None:
        """Run the jobs, and keep their results."""
        self._jobs = [(_giving(job()), end) for job, end in self._jobs]

    def end(self) -> None:
        """Run the jobs, and give their results."""
        while self._jobs:
            job, end = self._jobs.pop(0)
            maybeDeferred(job).chainDeferred(end)


def _giving(result: Any) -> Callable[[], Any]:
    return lambda: result


class PagesCase(FolderCase):
    rule_settings: Any = RuleSettings()

    def setUp(self) -> None:
        super().setUp()
        self.epoch = EPOCH
        self.build(ROOT)

    def build(self, *urls: str, ttls: tuple[float, ...] = (1800.0, 180.0)) -> None:
        rmtree(self.folder / ".proxpi", ignore_errors=True)
        self.indexes = Indexes(urls, ttls)
        self.agent, self.clock = self.indexes.agent, self.indexes.clock
        self.start()

    def begin(self, *replies: Reply | Exception) -> None:
        """Begin with the first indexes, which send these pages of the project."""
        self.build(*(ROOT, EXTRA)[: len(replies)])
        for index, reply in zip(self.indexes.clients, replies, strict=True):
            self.indexes.says(f"{index.url}demo/", reply)

    def start(self) -> None:
        """Begin with what lies in the folder, as after a restart."""
        self.store = page_store(self.folder / ".proxpi/pages", self.clock, self.wall)
        self.rules = Rules(self.rule_settings)
        self.exclusions = Exclusions(self.rules)
        self.entries = PageEntries(
            indexes=self.indexes.clients,
            clock=self.clock,
            wall=self.wall,
            store=self.store,
            in_thread=at_once,
            problems=self.indexes.problems,
            rules=self.rules,
            exclusions=self.exclusions,
        )
        self.rules.changed.append(self.entries.rules_changed)
        self.pages = PageCache(self.indexes.view(), self.entries)

    def wall(self) -> float:
        return self.clock.seconds() + self.epoch

    def ask(self, name: str = "demo", form: Serialization = JSON) -> Deferred[Page]:
        return run(self.pages.fetch(name, form, False))

    def refresh(self, name: str = "demo") -> Deferred[Page]:
        """Ask for a page as a client does that wants it revalidated now."""
        return run(self.pages.fetch(name, JSON, False, refresh=True))

    def prefetch(self, name: str = "demo", form: Serialization = JSON) -> Deferred[bool]:
        """Prefetch a page; give whether a request was sent for it."""
        return run(self.pages.prefetch(name, form, False)).addCallback(
            lambda size: size is not None
        )

    def url(self, filename: str = "a.zip") -> str | None:
        """Return the URL that the cached page lists for a file."""
        listed = self.pages.ready_file("demo", filename)
        return None if listed is None else str(listed.entry["url"])

    def fails(self, ask: Deferred[Any]) -> UpstreamFailed:
        self.clock.pump([0.5] * 20)
        return self.error(ask, UpstreamFailed)

    def slow_page(self) -> Page:
        ask = self.ask()
        self.clock.pump([0.1] * 10)
        return self.result(ask)

    def page(self, name: str = "demo") -> Page:
        return self.result(self.ask(name))
