"""Base cases for the project list: of one index or several, and with a list that is stored."""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path

from twisted.internet.defer import Deferred

from proxpi.index import revalidation
from proxpi.index.list_store import ListStore
from proxpi.index.project_list import ProjectList, ProjectListCache
from proxpi.simple.negotiate import Serialization
from tests.support.cases import FolderCase, at_once, root_list, run
from tests.support.indexes import ROOT, Indexes

JSON, HTML = Serialization.JSON, Serialization.HTML
Paths = list[str]  # `list` is a method below


def content(found: ProjectList) -> bytes:
    """Read a list as it is sent."""
    data = os.pread(found.file.descriptor, found.file.size + 1, 0)
    assert len(data) == found.file.size
    return data


def names(found: ProjectList) -> list[str]:
    """Give the names in a list in JSON."""
    return [project["name"] for project in json.loads(content(found))["projects"]]


class ListCase(FolderCase):
    """Tests of the list of one index, or of several.

    :ivar place: the folder of the stored lists
    :ivar skew: seconds by which the wall clock is ahead of the reactor's
    """

    skew = 1_000_000.0

    def setUp(self) -> None:
        """Begin with one index, and with retries without a pause."""
        super().setUp()
        self.put(revalidation, "PAUSES", (0.0, 0.0, 0.0))
        self.place: Path = self.folder / ".proxpi" / "projects"
        self.build(ROOT)

    def build(self, *urls: str, ttls: tuple[float, ...] = (1800.0, 180.0, 60.0)) -> None:
        """Begin with these indexes, and nothing stored."""
        for path in self.folder.rglob("*.*"):
            if path.is_file():
                path.unlink()
        self.indexes = Indexes(urls, ttls)
        self.agent, self.clock = self.indexes.agent, self.indexes.clock
        self.restart()

    def restart(self) -> None:
        """Begin anew on the stored lists."""
        for source in self.indexes.sources:
            source.breakers.succeeded("")
        self.projects = ProjectListCache(
            sources=self.indexes.sources,
            upstream=self.indexes.upstream,
            clock=self.clock,
            store=ListStore(self.place, self.clock, lambda: self.clock.seconds() + self.skew),
            in_thread=at_once,
        )

    def ask(self, form: Serialization = JSON, compressed: bool = False) -> Deferred[ProjectList]:
        """Request the list."""
        return run(self.projects.fetch(form, compressed))

    def list(self, form: Serialization = JSON, compressed: bool = False) -> ProjectList:
        """Give the list, which must be there at once."""
        return self.result(self.ask(form, compressed))

    def open_files(self) -> Paths:
        """Give the open files below the folder, without garbage."""
        gc.collect()
        return super().open_files()


class StoredListCase(ListCase):
    """Tests with a stored list."""

    def setUp(self) -> None:
        """Store a list, with one representation rendered."""
        super().setUp()
        self.indexes.says(ROOT, root_list(["b", "a"]).having(ETag='"x"'))
        self.first = self.list()
        self.asked = len(self.agent.asked)

    @property
    def asks(self) -> int:
        """How many requests an index got since the list was stored."""
        return len(self.agent.asked) - self.asked
