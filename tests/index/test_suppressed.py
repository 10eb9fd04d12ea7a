"""Core metadata that turned out not to be there is advertised no more, until the page changes."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred

from tests.index.paged import AT_EXTRA, AT_ROOT, HTML, JSON, PagesCase
from tests.support.agent import Reply
from tests.support.cases import run
from tests.support.indexes import EXTRA, ROOT, project_page

DIGEST = {"sha256": "0" * 64}


def wheel(number: int) -> dict[str, Any]:
    """Give what an index says of a wheel with metadata."""
    name = f"demo-{number}-py3-none-any.whl"
    return {
        "filename": name,
        "url": f"https://files.example/{name}",
        "hashes": {},
        "core-metadata": DIGEST,
    }


ONE, TWO = wheel(1)["filename"], wheel(2)["filename"]


class WithdrawnTests(PagesCase):
    """A page of two wheels, both with metadata, as the index has it."""

    def setUp(self) -> None:
        """Hold the page in both forms."""
        super().setUp()
        self.answer = project_page(wheel(1), wheel(2)).having(ETag='"x"')
        self.indexes.says(AT_ROOT, self.answer)
        self.first = self.page(), self.result(self.ask(form=HTML))

    def suppress_metadata(self, filename: str) -> None:
        """Let it be known that a wheel has no metadata."""
        self.result(run(self.pages.suppress_metadata("demo", filename)))

    def advertised(self) -> list[str]:
        """Give the wheels with metadata; both forms have to agree."""
        listed = json.loads(self.page().body.data)["files"]
        assert [file["filename"] for file in listed] == [ONE, TWO]
        names = [file["filename"] for file in listed if "core-metadata" in file]
        html = self.result(self.ask(form=HTML)).body.data.decode()
        for line in html.splitlines():
            if line.startswith("<a"):
                assert ("core-metadata" in line) == any(name in line for name in names)
                assert ("dist-info-metadata" in line) == any(name in line for name in names)
        return names

    def test_one(self) -> None:
        """The next answer does not advertise it, in neither form, and each has a new tag."""
        self.suppress_metadata(ONE)
        assert self.advertised() == [TWO]
        for before, form in zip(self.first, (JSON, HTML), strict=True):
            after = self.result(self.ask(form=form))
            assert after.body.etag != before.body.etag
            assert after.remaining == before.remaining
        assert len(self.agents.asked) == 1

    def test_both(self) -> None:
        """One after the other, and one twice."""
        for filename in (ONE, TWO, ONE):
            self.suppress_metadata(filename)
        assert self.advertised() == []

    def test_the_file_stays(self) -> None:
        """The wheel itself is listed and found as before."""
        self.suppress_metadata(ONE)
        listed = self.pages.ready_file("demo", ONE)
        assert listed is not None
        assert listed.entry["url"] == wheel(1)["url"]

    def test_confirmed(self) -> None:
        """It stays so while the index confirms its page, or says the same once more."""
        self.suppress_metadata(ONE)
        for answer in (Reply(304), self.answer):
            self.clock.advance(1801)
            self.indexes.says(AT_ROOT, answer)
            assert self.advertised() == [TWO]

    def test_changed(self) -> None:
        """A page that changes is believed anew."""
        self.suppress_metadata(ONE)
        self.clock.advance(1801)
        self.indexes.says(AT_ROOT, project_page(wheel(1), wheel(2), versions=["1", "2"]))
        assert self.advertised() == [ONE, TWO]

    def test_restart(self) -> None:
        """It stays so over a restart."""
        self.suppress_metadata(ONE)
        self.start()
        assert self.advertised() == [TWO]
        assert len(self.agents.asked) == 1

    def test_forgotten(self) -> None:
        """Whoever forgets a page mistrusts that, too."""
        self.suppress_metadata(ONE)
        self.pages.invalidate("demo")
        assert self.advertised() == [ONE, TWO]

    def test_outage(self) -> None:
        """An old page that stands in advertises no more than it did before."""
        self.suppress_metadata(ONE)
        self.clock.advance(1801)
        self.indexes.says(AT_ROOT, Reply(503))
        page = self.slow_page()
        assert page.status == "STALE"
        assert self.advertised() == [TWO]

    def test_of_nothing(self) -> None:
        """Where there is no page there is nothing to do."""
        self.result(run(self.pages.suppress_metadata("other", ONE)))
        assert len(self.agents.asked) == 1

    def test_lost(self) -> None:
        """If the page is gone from disk, it is asked for again, and says what it says."""
        self.store.delete("demo")
        self.suppress_metadata(ONE)
        assert self.advertised() == [ONE, TWO]
        assert len(self.agents.asked) == 2

    def test_while_a_form_is_made(self) -> None:
        """A form that is being made meanwhile is not kept as it comes."""
        self.start()
        jobs: list[tuple[Any, Deferred[Any]]] = []

        def later(job: Any) -> Deferred[Any]:
            jobs.append((job, Deferred()))
            return jobs[-1][1]

        self.pages._in_thread = later
        form = run(self.pages.fetch("demo", JSON, True))
        suppressed = run(self.pages.suppress_metadata("demo", ONE))
        while jobs:
            job, done = jobs.pop(0)
            done.callback(job())
        self.result(suppressed)
        self.result(form)
        assert self.pages.ready("demo", JSON, True) is None
        self.start()
        assert self.advertised() == [TWO]


class TwoIndexesTests(PagesCase):
    """A page merged of two indexes."""

    def test_second_index(self) -> None:
        """It does not matter which of them lists the wheel."""
        self.build(ROOT, EXTRA)
        self.indexes.says(AT_ROOT, project_page(wheel(1)))
        self.indexes.says(AT_EXTRA, project_page(wheel(2)))
        self.page()
        self.result(run(self.pages.suppress_metadata("demo", TWO)))
        listed = json.loads(self.page().body.data)["files"]
        assert [file.get("core-metadata") for file in listed] == [DIGEST, None]
