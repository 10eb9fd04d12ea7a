"""Advisories in use: refreshed from a feed that changes, fails, lags and lies; kept on disk."""

from __future__ import annotations

import random
from collections.abc import Collection
from pathlib import Path
from typing import Any

from packaging.version import Version
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock

from proxpi import metrics
from proxpi.rules import advisories
from proxpi.rules.advisories import Advisories
from proxpi.rules.advisory_feed import open_feed
from proxpi.rules.advisory_store import AdvisoryStore
from tests.support.advisories import ARCHIVE, FEED, LISTING, Entries, affected, modified
from tests.support.agent import MemoryAgent, Reply
from tests.support.cases import FolderCase, at_once, problems_at
from tests.support.indexes import upstream_client
from tests.support.logs import logged

INTERVAL = 600.0


class AdvisoriesCase(FolderCase):
    """Tests of a feed with two entries.

    :ivar told: the names that the callback was called with, sorted, in turn
    :ivar wall: the wall clock, which runs with the other one
    """

    url = FEED

    def setUp(self) -> None:
        super().setUp()
        self.put(random, "uniform", lambda low, high: low)
        self.agent, self.clock = MemoryAgent(), Clock()
        self.entries = Entries()
        self.entries.put("MAL-2026-1", affected("evil"), day=1)
        self.entries.put("MAL-2026-2", affected("worse", "1.0"), day=2)
        self.entries.publish(self.agent)
        self.told: list[list[str]] = []
        self.problems = problems_at(self.clock)
        self.build()

    def build(self, *excepted: str, offline: bool = False) -> None:
        upstream = upstream_client(self.agent, self.clock, FEED, offline=offline)
        source = open_feed(self.url, upstream, at_once)
        self.advisories = Advisories(
            feed=source,
            store=AdvisoryStore(self.folder / ".proxpi" / "advisories", source.url),
            clock=self.clock,
            in_thread=at_once,
            problems=self.problems,
            excepted=frozenset(excepted),
            wall=lambda: self.clock.seconds() + 1e9,
        )
        self.advisories.changed.append(self.tell)
        self.addCleanup(self.advisories.stop)

    def tell(self, names: Collection[str]) -> None:
        self.told.append(sorted(names))

    def restart(self, *excepted: str, offline: bool = False) -> None:
        self.advisories.stop()
        self.agent.asked.clear()
        self.told.clear()
        self.build(*excepted, offline=offline)
        self.advisories.start()

    def start(self) -> None:
        self.advisories.start()
        self.agent.asked.clear()
        self.told.clear()

    def refresh(self) -> list[str]:
        """Publish the entries, and let the next refresh come; return the documents requested."""
        self.entries.publish(self.agent)
        return self.wait()

    def wait(self, seconds: float = INTERVAL) -> list[str]:
        self.agent.asked.clear()
        self.told.clear()
        self.clock.advance(seconds)
        return [url.removeprefix(FEED) for url in self.agent.urls()]

    def excludes(self, name: str, version: str = "1.0") -> list[str]:
        """Return the entries that affect a version of a project."""
        found = self.advisories.of(name)
        return [each.id for each in found if each.matches(Version(version), {})]

    @property
    def problem(self) -> str | None:
        problem: str | None = self.advisories.status()["error"]
        return problem


class FirstTests(AdvisoriesCase):
    def test_archive(self) -> None:
        """The first refresh reads the archive, and the list; no entry alone."""
        assert self.advisories.of("evil") == ()
        with logged("proxpi.rules", "proxpi.problems") as log:
            self.advisories.start()
        assert [each.url for each in self.agent.asked] == [ARCHIVE, LISTING]
        assert self.told == [["evil", "worse"]]
        assert self.excludes("evil", "77") == ["MAL-2026-1"]
        assert self.excludes("worse") == ["MAL-2026-2"]
        assert self.excludes("worse", "2.0") == self.excludes("good") == []
        assert "no advisories are known yet" in log.text
        assert FEED in log.text

    def test_entries_since_the_archive(self) -> None:
        """Entries that are newer than the archive are read as well, and those that are gone go."""
        old = self.entries.archive
        self.entries.put("MAL-2026-2", affected("worse", "2.0"), day=3)
        self.entries.put("MAL-2026-3", affected("worst"), day=3)
        del self.entries.documents["MAL-2026-1"]
        self.entries.publish(self.agent)
        self.agent.at(ARCHIVE, Reply(200, old))
        self.advisories.start()
        assert self.excludes("evil") == self.excludes("worse") == []
        assert self.excludes("worse", "2.0") == ["MAL-2026-2"]
        assert self.excludes("worst") == ["MAL-2026-3"]

    def test_no_archive(self) -> None:
        """A feed without an archive is read entry by entry."""
        self.agent.at(ARCHIVE, Reply(404))
        self.advisories.start()
        assert self.excludes("evil") == ["MAL-2026-1"]
        assert self.problem is None

    def test_no_list(self) -> None:
        """A feed without a list is read by its archive, again once that has changed."""
        self.entries.publish(self.agent)
        self.agent.at(LISTING, Reply(404))
        self.agent.at(ARCHIVE, Reply(200, self.entries.archive).having(ETag='"1"'))
        self.start()
        self.agent.at(ARCHIVE, Reply(304))
        assert self.wait() == ["modified_id.csv", "all.zip"]
        assert self.agent.asked[-1].header("If-None-Match") == '"1"'
        assert self.excludes("evil") == ["MAL-2026-1"]
        del self.entries.documents["MAL-2026-1"]
        self.agent.at(ARCHIVE, Reply(200, self.entries.archive))
        self.wait()
        assert (self.told, self.excludes("evil")) == ([["evil"]], [])

    def test_no_feed(self) -> None:
        """A URL with nothing below it is a failure that names it; nothing is excluded."""
        self.agent.script.clear()
        with logged("proxpi.rules", "proxpi.problems") as log:
            self.advisories.start()
        assert "files are served without them" in log.text
        assert ARCHIVE in (self.problem or "")
        assert self.advisories.of("evil") == ()
        assert self.advisories.status()["age"] is None
        assert metrics.ADVISORIES_AGE not in self.advisories.gauges()

    def test_empty(self) -> None:
        """A feed may be empty, and get its first entry later."""
        self.entries.documents.clear()
        self.entries.publish(self.agent)
        self.start()
        assert (self.problem, self.advisories.age) == (None, 0.0)
        self.entries.put("MAL-2026-9", affected("evil"), day=9)
        assert self.refresh() == ["modified_id.csv", "MAL-2026-9.json"]
        assert self.excludes("evil") == ["MAL-2026-9"]


class ChangeTests(AdvisoriesCase):
    def setUp(self) -> None:
        super().setUp()
        self.start()

    def test_added(self) -> None:
        """An entry that is new in the list is read, and its project told."""
        self.entries.put("MAL-2026-3", affected("good", "1.0"), day=3)
        assert self.refresh() == ["modified_id.csv", "MAL-2026-3.json"]
        assert self.told == [["good"]]
        assert self.excludes("good") == ["MAL-2026-3"]
        assert self.excludes("good", "1.1") == []

    def test_changed(self) -> None:
        """An entry with a newer time is read again; projects that it names no more are told."""
        self.entries.put("MAL-2026-2", affected("worse", "2.0"), affected("good", "2.0"), day=3)
        assert self.refresh() == ["modified_id.csv", "MAL-2026-2.json"]
        assert self.told == [["good", "worse"]]
        assert self.excludes("worse") == []
        assert self.excludes("worse", "2.0") == ["MAL-2026-2"]
        self.entries.put("MAL-2026-2", affected("good", "2.0"), day=4)
        self.refresh()
        assert (self.told, self.advisories.of("worse")) == ([["worse"]], ())

    def test_changed_otherwise(self) -> None:
        """An entry that changes in its text alone tells no project."""
        self.entries.put("MAL-2026-2", affected("worse", "1.0"), day=3, summary="Worse.")
        assert self.refresh() == ["modified_id.csv", "MAL-2026-2.json"]
        assert self.told == []
        assert self.refresh() == ["modified_id.csv"]

    def test_withdrawn(self) -> None:
        """A withdrawn entry affects nothing any more, and is not read again."""
        self.entries.put("MAL-2026-1", affected("evil"), day=3, withdrawn=modified(3))
        assert self.refresh() == ["modified_id.csv", "MAL-2026-1.json"]
        assert (self.told, self.advisories.of("evil")) == ([["evil"]], ())
        assert self.refresh() == ["modified_id.csv"]

    def test_vanished(self) -> None:
        """An entry that is listed no more does not count."""
        del self.entries.documents["MAL-2026-2"]
        assert self.refresh() == ["modified_id.csv"]
        assert (self.told, self.advisories.of("worse")) == ([["worse"]], ())

    def test_unchanged(self) -> None:
        """A list that has not changed is confirmed by its validators, also after a restart."""
        self.agent.at(LISTING, Reply(200, self.entries.listing).having(ETag='"1"'))
        self.wait()
        self.entries.put("MAL-2026-3", affected("good"), day=3)
        self.agent.at(f"{FEED}MAL-2026-3.json", Reply(200, self.entries.data("MAL-2026-3")))
        self.agent.at(LISTING, Reply(200, self.entries.listing).having(ETag='"3"'))
        self.wait()
        self.agent.at(LISTING, Reply(304))
        for _ in range(2):
            assert self.wait() == ["modified_id.csv"]
            assert self.agent.asked[0].header("If-None-Match") == '"3"'
            assert (self.told, self.advisories.age) == ([], 0.0)
            self.restart()
        assert self.excludes("good") == ["MAL-2026-3"]

    def test_many(self) -> None:
        """If too many entries changed for single requests, the archive is read again."""
        self.put(advisories, "MOST_SINGLE", 3)
        for number in range(10, 13):
            self.entries.put(f"MAL-2026-{number}", affected(f"p{number}"), day=3)
        assert len(self.refresh()) == 4
        for number in range(20, 24):
            self.entries.put(f"MAL-2026-{number}", affected(f"p{number}"), day=4)
        assert self.refresh() == ["modified_id.csv", "all.zip"]
        assert self.excludes("p23") == ["MAL-2026-23"]

    def test_old_archive(self) -> None:
        """An archive that is older than single entries does not undo them."""
        self.put(advisories, "MOST_SINGLE", 1)
        old = self.entries.archive
        self.entries.put("MAL-2026-1", affected("evil", "2.0"), day=3)
        self.refresh()
        for number in (10, 11):
            self.entries.put(f"MAL-2026-{number}", affected(f"p{number}"), day=4)
        self.entries.publish(self.agent)
        self.agent.at(ARCHIVE, Reply(200, old))
        documents = self.wait()
        assert documents == ["modified_id.csv", "all.zip", "MAL-2026-11.json", "MAL-2026-10.json"]
        assert (self.excludes("evil"), self.excludes("evil", "2.0")) == ([], ["MAL-2026-1"])

    def test_older_list(self) -> None:
        """A list that is older than the last one is an old copy of it, and ignored for an hour."""

        def listed(hour: int) -> Reply:
            date = f"Tue, 03 Mar 2026 {hour}:00:00 GMT"
            return Reply(200, self.entries.listing).having(Last_Modified=date)

        old = listed(10)
        self.entries.put("MAL-2026-3", affected("good"), day=3)
        self.entries.publish(self.agent)
        self.agent.at(LISTING, listed(11))
        self.wait()
        self.agent.at(LISTING, old)
        for _ in range(5):
            assert self.wait() == ["modified_id.csv"]
            assert self.excludes("good") == ["MAL-2026-3"]
        assert self.problem is None
        assert self.advisories.age == 5 * INTERVAL
        self.wait()
        assert self.excludes("good") == []

    def test_lagging(self) -> None:
        """An entry that is older than its list is requested again, for an hour."""
        old = self.entries.data("MAL-2026-2")
        self.entries.put("MAL-2026-2", affected("worse", "2.0"), day=3)
        self.entries.publish(self.agent)
        self.agent.at(f"{FEED}MAL-2026-2.json", Reply(200, old))
        self.agent.at(LISTING, Reply(200, self.entries.listing).having(ETag='"3"'))
        for _ in range(6):
            assert self.wait() == ["modified_id.csv", "MAL-2026-2.json"]
            assert self.agent.asked[0].header("If-None-Match") is None
            assert self.problem is None
        self.refresh()
        assert self.excludes("worse", "2.0") == ["MAL-2026-2"]
        assert self.refresh() == ["modified_id.csv"]

    def test_lagging_for_ever(self) -> None:
        """A list whose times are never those of its entries is believed after an hour."""
        self.entries.put("MAL-2026-2", affected("worse", "2.0"), day=9)
        listing = self.entries.listing
        self.entries.put("MAL-2026-2", affected("worse", "2.0"), day=3)
        self.entries.publish(self.agent)
        self.agent.at(LISTING, Reply(200, listing))
        asked = [len(self.wait()) for _ in range(9)]
        assert asked == [2] * 7 + [1] * 2
        assert self.excludes("worse", "2.0") == ["MAL-2026-2"]


class FailureTests(AdvisoriesCase):
    def setUp(self) -> None:
        super().setUp()
        self.start()

    def holds(self) -> None:
        """Assert that the entries are those before the failure."""
        assert self.problem is not None
        assert self.told == []
        assert self.excludes("evil") == ["MAL-2026-1"]
        assert self.excludes("worse") == ["MAL-2026-2"]

    def test_outage(self) -> None:
        """In an outage the entries count as before; lines say so, and one that it is over."""
        self.agent.at(LISTING, ConnectionRefusedError())
        with logged("proxpi.rules", "proxpi.problems") as log:
            self.wait()
            self.wait(59)  # the next try comes within a minute
            (line,) = log.lines
            assert line == (
                f"advisories cannot be refreshed: {LISTING}: connection refused; those of "
                "10 min ago are used; check that it runs, its URL and the network"
            )
            self.wait(INTERVAL - 59)
            for _ in range(39):
                self.wait()
                self.holds()
        (problem,) = self.problems
        assert (problem.count, len(log.lines)) == (42, 41)
        assert self.advisories.age == 41 * INTERVAL
        assert self.advisories.gauges()[metrics.ADVISORIES_AGE] == 41 * INTERVAL
        with logged("proxpi.rules", "proxpi.problems") as log:
            self.refresh()
        assert (self.problem, self.advisories.age) == (None, 0.0)
        assert log.text.count("refreshed again") == 1

    def test_pauses(self) -> None:
        """After a failure the pauses double, up to the interval; ``Retry-After`` is heeded."""
        self.agent.at(LISTING, Reply(500))
        self.wait()
        pauses = []
        for _ in range(9):
            start = self.clock.seconds()
            while not self.wait(1):
                pass
            pauses.append(self.clock.seconds() - start)
        assert pauses == [5, 10, 20, 40, 80, 160, 320, 600, 600]
        self.agent.at(LISTING, Reply(503, headers={"Retry-After": "1000"}))
        self.wait()
        assert self.wait(999) == []
        assert self.wait(1) != []

    def test_damaged_list(self) -> None:
        """A list that is no list, is cut, or lacks most entries, changes nothing."""
        for number in range(3, 30):
            self.entries.put(f"MAL-2026-{number}", affected(f"p{number}"), day=number)
        self.refresh()
        listing = self.entries.listing
        lines = listing.splitlines(keepends=True)
        for damaged in (
            Reply(200, b"<html></html>"),
            Reply(200, b""),
            Reply(200, listing[: len(listing) * 2 // 3]),
            Reply(200, b"".join(lines[:15])),
            Reply(200, b"".join(lines[:14])),
            Reply(200, listing[:-1].rpartition(b"\n")[0]),
            Reply(404),
        ):
            self.agent.at(LISTING, damaged)
            self.agent.at(ARCHIVE, Reply(500))
            self.wait()
            self.holds()
        assert self.refresh() == ["modified_id.csv"]
        assert self.problem is None

    def test_cut_transfer(self) -> None:
        """A list whose transfer breaks changes nothing."""
        listing = self.entries.listing
        reply = Reply(200, listing[:-10], length=len(listing), whole=False)
        self.agent.at(LISTING, reply)
        self.wait()
        reply.cut()
        self.holds()
        assert "cut short" in (self.problem or "")

    def test_damaged_archive(self) -> None:
        """An archive that is cut, or of a feed that lost most entries, changes nothing."""
        self.agent.at(LISTING, Reply(404))
        whole = self.entries.archive
        for damaged in (whole[: len(whole) // 2], b"<html>", Entries().archive):
            self.agent.at(ARCHIVE, Reply(200, damaged))
            self.wait()
            self.holds()

    def test_some_entries(self) -> None:
        """Of several changed entries those that can be read are used, the others tried again."""
        self.entries.put("MAL-2026-1", affected("evil", "2.0"), day=3)
        for number in range(3, 6):
            self.entries.put(f"MAL-2026-{number}", affected(f"p{number}"), day=number)
        self.entries.publish(self.agent)
        self.agent.at(LISTING, Reply(200, self.entries.listing).having(ETag='"3"'))
        self.agent.at(f"{FEED}MAL-2026-1.json", Reply(200, self.entries.data("MAL-2026-1")[:-9]))
        self.agent.at(f"{FEED}MAL-2026-3.json", Reply(404))
        self.agent.at(f"{FEED}MAL-2026-4.json", Reply(500))
        self.wait()
        assert self.told == [["p5"]]
        assert self.excludes("evil") == ["MAL-2026-1"]
        assert self.advisories.age == INTERVAL
        assert self.problem is not None
        documents = self.refresh()
        assert sorted(documents[1:]) == [f"MAL-2026-{number}.json" for number in (1, 3, 4)]
        assert self.problem is None
        assert self.excludes("evil", "2.0") == ["MAL-2026-1"]

    def test_many_failures(self) -> None:
        """If many entries cannot be read, the others wait for the next refresh."""
        for number in range(10, 50):
            self.entries.put(f"MAL-2026-{number}", affected("p"), day=3)
        self.agent.at(LISTING, Reply(200, self.entries.listing))
        assert len(self.wait()) == 1 + advisories.MOST_FAILED

    def test_defect(self) -> None:
        """An error that is none of the feed is logged with its traceback, and ends nothing."""

        def defect(names: Collection[str]) -> None:
            raise ZeroDivisionError

        self.advisories.changed.append(defect)
        self.entries.put("MAL-2026-3", affected("good"), day=3)
        self.refresh()
        assert len(self.unhandled()) == 1
        self.advisories.changed.remove(defect)
        self.refresh()
        assert self.problem is None
        assert self.excludes("good") == ["MAL-2026-3"]

    def test_unwritable(self) -> None:
        """If the disk refuses, the entries are kept in memory; they are stored once it does not."""
        own = self.folder / ".proxpi"
        (own / "advisories").unlink()
        (own / "advisories").mkdir()
        self.entries.put("MAL-2026-3", affected("good"), day=3)
        with logged("proxpi.rules", "proxpi.problems") as log:
            self.refresh()
            self.refresh()
        assert log.text.count("cannot be stored") == 1
        assert self.excludes("good") == ["MAL-2026-3"]
        (own / "advisories").rmdir()
        self.refresh()
        self.restart(offline=True)
        assert self.excludes("good") == ["MAL-2026-3"]

    def test_removed(self) -> None:
        """Entries whose file was removed are stored by the next refresh, changed or not."""
        (self.folder / ".proxpi" / "advisories").unlink()
        self.refresh()
        self.restart(offline=True)
        assert self.excludes("evil") == ["MAL-2026-1"]

    def test_no_folder(self) -> None:
        """Without a cache folder that can be written, the archive is read nevertheless."""
        self.advisories.stop()
        (self.folder / ".proxpi" / "advisories").unlink()
        (self.folder / ".proxpi").rmdir()
        (self.folder / ".proxpi").write_text("")
        self.build()
        self.advisories.start()
        assert self.excludes("evil") == ["MAL-2026-1"]


class RestartTests(AdvisoriesCase):
    def setUp(self) -> None:
        super().setUp()
        self.start()

    def test_outage(self) -> None:
        """After a restart in an outage the stored entries count, before any request."""
        self.clock.advance(INTERVAL)
        self.agent.at(LISTING, ConnectionRefusedError())
        self.advisories.stop()
        self.clock.advance(7200)
        self.build()
        assert self.excludes("evil") == ["MAL-2026-1"]
        with logged("proxpi.rules", "proxpi.problems") as log:
            self.advisories.start()
        assert "2 entries, 2 h old" in log.text
        assert "those of 2 h ago are used" in log.text
        assert self.advisories.age == 7200.0

    def test_offline(self) -> None:
        """Offline, the stored entries count, and nothing is requested."""
        self.restart(offline=True)
        self.clock.advance(10 * INTERVAL)
        assert self.excludes("evil") == ["MAL-2026-1"]
        assert self.agent.asked == []
        assert self.advisories.stop() is None

    def test_offline_from_the_start(self) -> None:
        """Offline, without stored entries, one line says that there will be none."""
        (self.folder / ".proxpi" / "advisories").unlink()
        with logged("proxpi.rules", "proxpi.problems") as log:
            self.restart(offline=True)
        assert "never while proxpi is offline" in log.text
        assert self.advisories.of("evil") == ()

    def test_refreshed(self) -> None:
        """A restart reads the list at once, and the archive no more."""
        self.entries.put("MAL-2026-3", affected("good"), day=3)
        self.entries.publish(self.agent)
        self.restart()
        documents = [url.removeprefix(FEED) for url in self.agent.urls()]
        assert documents == ["modified_id.csv", "MAL-2026-3.json"]
        assert self.excludes("good") == ["MAL-2026-3"]

    def test_damaged(self) -> None:
        """A damaged file is none: the feed is read anew."""
        (self.folder / ".proxpi" / "advisories").write_bytes(b"?")
        self.restart()
        assert [each.url for each in self.agent.asked] == [ARCHIVE, LISTING]
        assert self.excludes("evil") == ["MAL-2026-1"]

    def test_excepted(self) -> None:
        """An excepted entry does not count, whatever changes in it; other entries do."""
        self.restart("MAL-2026-1")
        assert self.excludes("evil") == []
        assert self.excludes("worse") == ["MAL-2026-2"]
        self.entries.put("MAL-2026-1", affected("evil", "1.0"), day=3)
        self.entries.put("MAL-2026-3", affected("evil", "1.0"), day=3)
        self.refresh()
        assert (self.told, self.excludes("evil")) == ([["evil"]], ["MAL-2026-3"])

    def test_stopped(self) -> None:
        """After the stop nothing is requested any more, and a request under way has ended."""
        self.agent.silent.add(LISTING)
        self.wait()
        assert self.agent.waiting == 1
        stopped: Deferred[None] | None = self.advisories.stop()
        assert stopped is not None
        self.result(stopped)
        assert self.agent.waiting == 0
        assert self.clock.getDelayedCalls() == []
        assert self.advisories.stop() is None


class StatusTests(AdvisoriesCase):
    def test_status(self) -> None:
        """The status tells the source without credentials, how much is known, and its age."""
        self.url = FEED.replace("//", "//user:secret@")
        self.build()
        status: dict[str, Any] = {"source": FEED, "error": None}
        unknown = {"entries": 0, "projects": 0, "age": None}
        assert self.advisories.status() == status | unknown
        self.start()
        self.clock.advance(60)
        assert self.advisories.status() == status | {"entries": 2, "projects": 2, "age": 60.0}
        assert self.advisories.gauges() == {metrics.ADVISORIES: 2, metrics.ADVISORIES_AGE: 60.0}

    def test_wall_clock_set_back(self) -> None:
        """Entries from the future are not older than now."""
        self.start()
        self.advisories.wall = lambda: 0.0
        assert self.advisories.age == 0.0


class FolderFeedTests(AdvisoriesCase):
    """A feed in a folder."""

    def setUp(self) -> None:
        super().setUp()
        self.place: Path = self.folder / "feed"
        self.url = self.place.as_uri()
        self.entries.write(self.place)
        self.build(offline=True)

    def test_folder(self) -> None:
        """A folder is read without any request, and a change in it is seen within seconds."""
        self.start()
        assert self.excludes("evil") == ["MAL-2026-1"]
        self.entries.put("MAL-2026-3", affected("good"), day=3)
        self.entries.write(self.place)
        self.clock.advance(5)
        assert self.excludes("good") == ["MAL-2026-3"]
        assert self.advisories.age == 0.0
        (self.place / "modified_id.csv").unlink()
        del self.entries.documents["MAL-2026-3"]
        (self.place / "all.zip").write_bytes(self.entries.archive)
        self.clock.advance(5)
        assert self.excludes("good") == []
        assert self.agent.asked == []

    def test_few_writes(self) -> None:
        """The looks at a folder write no more than a note of the time, every few minutes."""
        self.start()
        path, times = self.folder / ".proxpi" / "advisories", set()
        for _ in range(240):
            self.clock.advance(5)
            times.add(path.read_bytes())
        assert len(times) == 1200 // advisories.TIME_INTERVAL + 1

    def test_missing(self) -> None:
        """A folder that vanishes changes nothing."""
        self.start()
        self.place.rename(self.folder / "elsewhere")
        self.clock.advance(5)
        assert "no such file" in (self.problem or "")
        assert self.excludes("evil") == ["MAL-2026-1"]
