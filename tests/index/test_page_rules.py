"""Rules in the page cache: excluded files are not listed and not found, until rules let them."""

from __future__ import annotations

import datetime
import gzip
import json
from typing import Any

from proxpi.config import RuleSettings
from proxpi.index import page_entries
from proxpi.index.page_cache import Page
from proxpi.rules.rules import Rules
from proxpi.simple import FileExcluded, model
from proxpi.simple.selectors import selector
from tests.support.agent import Reply
from tests.support.cases import entry, run
from tests.support.indexes import EXTRA, ROOT, project_page
from tests.support.pages import AT_EXTRA, AT_ROOT, HTML, JSON, PagesCase, files

WEEK = datetime.timedelta(days=7)
OLD, NEW = "demo-1.0.zip", "demo-2.0.zip"


def uploaded(filename: str, seconds: float, **keys: Any) -> dict[str, Any]:
    """Return an entry of a file that was uploaded so many seconds before the tests begin."""
    time = datetime.datetime.fromtimestamp(1_000_000.0 - seconds, datetime.UTC)
    stated = time.isoformat().replace("+00:00", "Z")
    return entry(filename, filename.encode(), **{"upload-time": stated, **keys})


class RulesCase(PagesCase):
    def with_rules(self, **stated: Any) -> None:
        """Begin with these rules and what lies in the folder, as after a restart."""
        self.rule_settings = RuleSettings(**stated)
        self.start()

    def says(self, *listed: dict[str, Any], **keys: Any) -> None:
        self.indexes.says(AT_ROOT, project_page(*listed, version="1.1", **keys))

    def excluded(self, filename: str) -> FileExcluded:
        assert self.pages.ready_file("demo", filename) is None
        return self.error(run(self.pages.fetch_file("demo", filename)), FileExcluded)

    def found(self) -> list[str]:
        def names(pages: Any) -> list[str]:
            lines = b"".join(page.partition(b"\n")[2] for page in pages).splitlines()
            return [json.loads(line)["filename"] for line in lines]

        return self.result(run(self.pages.search("demo", names))) or []


class DeniedTests(RulesCase):
    def setUp(self) -> None:
        super().setUp()
        self.says(uploaded(OLD, 60.0), uploaded(NEW, 50.0), versions=["1.0", "2.0"])

    def test_page(self) -> None:
        """An excluded file is in no representation, nor is its version."""
        self.with_rules(deny=(selector("demo>1"),))
        page = self.page()
        assert files(page) == [OLD]
        assert json.loads(page.body.data)["versions"] == ["1.0"]
        assert NEW not in self.result(self.ask(form=HTML)).body.data.decode()
        packed = self.result(run(self.pages.fetch("demo", JSON, True)))
        assert gzip.decompress(packed.body.data) == page.body.data

    def test_file(self) -> None:
        """An excluded file is refused with the rule; the others are found, cold as well."""
        self.with_rules(deny=(selector("demo>1"),))
        assert 'deny = "demo>1"' in self.excluded(NEW).rule
        assert self.url(OLD) is not None
        assert self.url(NEW) is None
        assert self.result(run(self.pages.fetch_file("demo", OLD))).entry["filename"] == OLD
        self.error(run(self.pages.refetch_file("demo", NEW)), FileExcluded)

    def test_search(self) -> None:
        """Prefetching does not see an excluded file, whether a page was rendered or not."""
        self.with_rules(deny=(selector("demo>1"),))
        self.result(run(self.pages.fetch_file("demo", OLD)))
        assert self.found() == [OLD]
        self.page()
        assert self.found() == [OLD]
        self.with_rules()
        assert self.found() == [OLD, NEW]

    def test_search_of_a_quarantined_page(self) -> None:
        """Prefetching sees no file of a quarantined page, also by rules that are new."""
        quarantined: dict[str, Any] = {"project-status": {"status": "quarantined"}}
        self.says(uploaded(OLD, 60.0), **quarantined)
        self.page()
        self.with_rules(deny=(selector("demo>1"),))
        assert self.found() == []

    def test_other_rules(self) -> None:
        """Pages that were rendered by other rules are rendered anew, without a request."""
        etags: list[str] = []
        for deny, listed in (
            ((), [OLD, NEW]),
            (("demo>1",), [OLD]),
            (("demo",), []),
            (("other",), [OLD, NEW]),
            (("demo==1.0",), [NEW]),
        ):
            self.with_rules(deny=tuple(map(selector, deny)))
            for _ in range(2):
                page = self.page()
                assert (files(page), page.status == "HIT") == (listed, bool(etags))
                ready = self.pages.ready("demo", JSON, False)
                assert ready is not None and ready.body == page.body
                etags.append(page.body.etag)
        assert etags[0::2] == etags[1::2]
        assert len({*etags}) == 4
        assert len(self.agent.asked) == 1

    def test_changed(self) -> None:
        """When rules change, the pages and files in memory follow them at once."""
        changed: list[str | None] = []
        self.with_rules()
        self.entries.changed = changed.append
        page = self.page()
        assert self.url(NEW) is not None
        self.entries.rules = Rules(RuleSettings(deny=(selector("demo>1"),)))
        for names in (["demo"], None):
            del changed[:]
            self.entries.rules_changed(names)
            assert changed == [names and "demo"]
            assert self.pages.ready("demo", JSON, False) is None or names is None
            assert files(self.page()) == [OLD]
            self.excluded(NEW)
        assert self.page().body.etag != page.body.etag
        self.entries.rules = Rules(RuleSettings())
        self.entries.rules_changed(["demo"])
        assert self.page().body == page.body
        assert self.url(NEW) is not None
        assert len(self.agent.asked) == 1

    def test_noted(self) -> None:
        """What is excluded is noted, also after a restart and for a file without a page."""
        self.with_rules(deny=(selector("demo>1"),))
        self.excluded(NEW)
        assert [file for _, file, _ in self.exclusions] == [NEW]
        self.page()
        assert [file for _, file, _ in self.exclusions] == [NEW]
        self.with_rules(deny=(selector("demo>1"),))
        self.page()
        assert [file for _, file, _ in self.exclusions] == [NEW]
        self.entries.rules = Rules(RuleSettings())
        self.entries.rules_changed(["demo"])
        self.page()
        assert [*self.exclusions] == []

    def test_nothing_left(self) -> None:
        """A project without a file left is a page without files, which is no absence."""
        self.with_rules(deny=(selector("demo"),))
        page = self.page()
        assert (files(page), json.loads(page.body.data)["versions"]) == ([], [])

    def test_no_rules(self) -> None:
        """Without a rule for a project its page on disk and in memory is that without any rule."""
        before = self.page()
        stored = next((self.folder / ".proxpi/pages").iterdir()).read_bytes()
        self.with_rules(deny=(selector("other"),))
        self.page()
        assert self.page().body == before.body
        assert next((self.folder / ".proxpi/pages").iterdir()).read_bytes() == stored


class MemoryTests(RulesCase):
    def test_excluded_files(self) -> None:
        """Excluded files count as memory of their page, whose representations may be short."""
        self.put(page_entries, "MEMORY", 4 * page_entries.OVERHEAD)
        self.with_rules(allow=(selector("none"),))
        page = project_page(*(f"demo-{number}.zip" for number in range(30)))
        for name in ("demo", "a", "b", "c"):
            self.indexes.says(f"{ROOT}{name}/", page)
            assert files(self.page(name)) == []
        entries: Any = self.entries
        assert list(entries._entries) == ["c"]


class SeveralIndexes(RulesCase):
    def test_merged(self) -> None:
        """An excluded file does not come from another index that lists the same name."""
        self.build(ROOT, EXTRA)
        self.says(uploaded(NEW, 60.0), uploaded(OLD, 60.0))
        self.indexes.says(AT_EXTRA, project_page(entry(NEW, b"other"), version="1.1"))
        denied = entry(NEW, NEW.encode())["hashes"]["sha256"]
        self.with_rules(deny=(selector(f"sha256:{denied}"),))
        assert files(self.page()) == [OLD]
        self.excluded(NEW)

    def test_times(self) -> None:
        """A file without a time counts by its own index: whether that states times of others."""
        untimed = {"upload-time": None}
        self.build(ROOT, EXTRA)
        self.says(uploaded("demo-1.0.zip", 10e6), uploaded("demo-2.0.zip", 0, **untimed))
        extra = project_page(entry("demo-3.0.zip", b"3"), entry("demo-2.0.zip", b"2"))
        self.indexes.says(AT_EXTRA, extra)
        self.with_rules(exclude_newer=WEEK, exclude_newer_text="7 days")
        assert files(self.page()) == ["demo-1.0.zip", "demo-3.0.zip"]
        self.excluded("demo-2.0.zip")
        assert self.url("demo-3.0.zip") is not None

    def test_times_beside_a_quarantined_page(self) -> None:
        """A quarantined page, which lists no file, decides on no file of the next index."""
        self.build(ROOT, EXTRA)
        quarantined: dict[str, Any] = {"project-status": {"status": "quarantined"}}
        self.indexes.says(AT_ROOT, project_page("demo-2.0.zip", **quarantined))
        extra = project_page(uploaded(OLD, 10e6), entry(NEW, b"2"), version="1.1")
        self.indexes.says(AT_EXTRA, extra)
        self.with_rules(exclude_newer=WEEK, exclude_newer_text="7 days")
        assert files(self.page()) == [OLD]
        self.excluded(NEW)

    def test_a_key_of_another_value(self) -> None:
        """An upload time within an unknown value is none: page and file agree."""
        self.says(entry("demo-1.0.zip", b"1", provided={"upload-time": "2020-01-01T00:00:00Z"}))
        self.with_rules(exclude_newer=WEEK, exclude_newer_text="7 days")
        assert files(self.page()) == ["demo-1.0.zip"]
        assert self.url("demo-1.0.zip") is not None


class AgeTests(RulesCase):
    def setUp(self) -> None:
        super().setUp()
        week = WEEK.total_seconds()
        self.says(uploaded(OLD, week + 100), uploaded(NEW, week - 100))
        self.rule_settings = RuleSettings(exclude_newer=WEEK, exclude_newer_text="7 days")
        self.start()

    def test_comes_of_age(self) -> None:
        """A page is fresh until a file comes of age, and then lists it, without a request."""
        page = self.page()
        assert (files(page), page.remaining) == ([OLD], 100.0)
        self.excluded(NEW)
        self.clock.advance(99)
        ready = self.pages.ready("demo", JSON, False)
        assert ready is not None and ready.remaining == 1.0
        self.clock.advance(2)
        assert self.pages.ready("demo", JSON, False) is None
        page = self.page()
        assert (files(page), page.status, page.remaining) == ([OLD, NEW], "HIT", 1699.0)
        assert self.url(NEW) is not None
        assert self.found() == [OLD, NEW]
        assert len(self.agent.asked) == 1

    def test_after_a_restart(self) -> None:
        """A page that was rendered before a file came of age is not used afterwards."""
        self.page()
        self.start()
        assert files(self.page()) == [OLD]
        assert self.found() == [OLD]
        self.clock.advance(101)
        self.start()
        assert self.found() == [OLD, NEW]
        assert files(self.page()) == [OLD, NEW]

    def test_stale(self) -> None:
        """In an outage a file comes of age as well."""
        self.page()
        self.indexes.says(AT_ROOT, Reply(500))
        self.clock.advance(2000)
        page: Page = self.slow_page()
        assert (page.status, files(page)) == ("STALE", [OLD, NEW])

    def test_extracted(self) -> None:
        """Metadata that is advertised for a file leaves the exclusion of another as it is."""
        self.page()
        work = self.pages.advertise_metadata("demo", OLD, "1" * 64, "2" * 64)
        self.result(run(work))
        assert files(self.page()) == [OLD]


def test_without() -> None:
    """Lines of an encoded project are left out by the names of their files."""
    project = model.Project("demo", [uploaded(OLD, 0), uploaded(NEW, 0)], {})
    encoded = model.encode(project)
    assert model.find(model.without(encoded, {NEW}), NEW) is None
    assert model.find(model.without(encoded, {NEW}), OLD) is not None
    assert model.without(encoded, ()) == encoded
