"""Base cases for the project list: of one index or several, and with a list that is stored."""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path

from twisted.internet.defer import Deferred

from proxpi.index import revalidation
from proxpi.index.list_store import ListStore
from proxpi.index.project_list import ListEntries, ProjectList, ProjectListCache
from proxpi.simple.negotiate import Serialization
from tests.support.agent import Reply
from tests.support.cases import FolderCase, at_once, root_list, run
from tests.support.indexes import EXTRA, ROOT, Indexes

JSON, HTML = Serialization.JSON, Serialization.HTML
THIRD = "https://third.example/"
Paths = list[str]  # `list` is a method below


def content(found: ProjectList) -> bytes:
    data = os.pread(found.file.descriptor, found.file.size + 1, 0)
    assert len(data) == found.file.size
    return data


def names(found: ProjectList) -> list[str]:
    return [project["name"] for project in json.loads(content(found))["projects"]]


class ListCase(FolderCase):
    """Tests of the list of one index, or of several.

    :ivar place: the folder of the stored lists
    :ivar skew: seconds by which the wall clock is ahead of the reactor's
    """

    skew = 1_000_000.0

    def setUp(self) -> None:
        super().setUp()
        self.put(revalidation, "PAUSES", (0.0, 0.0, 0.0))
        self.place: Path = self.folder / ".proxpi" / "projects"
        self.build(ROOT)

    def build(self, *urls: str, ttls: tuple[float, ...] = (1800.0, 180.0, 60.0)) -> None:
        for path in self.folder.rglob("*.*"):
            if path.is_file():
                path.unlink()
        self.indexes = Indexes(urls, ttls)
        self.agent, self.clock = self.indexes.agent, self.indexes.clock
        self.restart()

    def begin(self, *replies: Reply | Paths) -> None:
        """Build the first indexes, which send these lists; one may be given by its names."""
        self.build(*(ROOT, EXTRA, THIRD)[: len(replies)])
        for index, reply in zip(self.indexes.clients, replies, strict=True):
            self.indexes.says(index.url, reply if isinstance(reply, Reply) else root_list(reply))

    def restart(self) -> None:
        for index in self.indexes.clients:
            index.breakers.succeeded("")
        self.entries = ListEntries(
            indexes=self.indexes.clients,
            clock=self.clock,
            store=ListStore(self.place, self.clock, lambda: self.clock.seconds() + self.skew),
            in_thread=at_once,
            problems=self.indexes.problems,
        )
        self.projects = ProjectListCache(self.indexes.view(), self.entries)

    def ask(self, form: Serialization = JSON, compressed: bool = False) -> Deferred[ProjectList]:
        return run(self.projects.fetch(form, compressed))

    def list(self, form: Serialization = JSON, compressed: bool = False) -> ProjectList:
        return self.result(self.ask(form, compressed))

    def slow(self) -> Deferred[ProjectList]:
        """Request the list, and let all tries pass."""
        ask = self.ask()
        self.clock.pump([0.5] * 24)
        return ask

    def open_files(self) -> Paths:
        gc.collect()
        return super().open_files()


class StoredListCase(ListCase):
    def setUp(self) -> None:
        super().setUp()
        self.indexes.says(ROOT, root_list(["b", "a"]).having(ETag='"x"'))
        self.first = self.list()
        self.asked = len(self.agent.asked)

    @property
    def asks(self) -> int:
        return len(self.agent.asked) - self.asked
