"""Problems: one line a minute for each, and the last ones for the operator's page."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import get_args

from twisted.internet.task import Clock
from twisted.logger import LogLevel

from proxpi.problems import LOG_INTERVAL, LONGEST, MOST, Problem, Problems, upstream_remedy
from proxpi.upstream.errors import FailureKind
from tests.support.cases import Case
from tests.support.logs import logged

EPOCH = 1_000_000.0


class ProblemsTests(Case):
    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.problems = Problems(self.clock.seconds, lambda: EPOCH + self.clock.seconds())

    def test_line(self) -> None:
        """A line has the problem, its consequence and its remedy, at the given level."""
        with logged("proxpi.problems") as log:
            assert self.problems.note("a", "it fails", "clients wait", "mend it")
            assert self.problems.note("b", "it fails", level=LogLevel.error)
        assert log.lines == ["it fails; clients wait; mend it", "it fails"]
        assert log.levels == ["warn", "error"]

    def test_repeated(self) -> None:
        """One line a minute for each problem, with the number of those since the last line."""
        with logged("proxpi.problems") as log:
            for second in range(130):
                self.problems.note("a", f"it fails {second}")
                self.clock.advance(1)
            self.problems.note("b", "another one")
        assert log.lines == [
            "it fails 0",
            "it fails 60 (59 more since this was last logged)",
            "it fails 120 (59 more since this was last logged)",
            "another one",
        ]

    def test_kept(self) -> None:
        """Each problem is kept as it came last, with its times and its count, the newest first."""
        self.problems.note("a", "it fails once")
        self.problems.note("b", "another one", "nothing", "none")
        self.clock.advance(LOG_INTERVAL / 2)
        self.problems.note("a", "it fails again", "clients wait", "mend it")
        again = EPOCH + LOG_INTERVAL / 2
        assert list(self.problems) == [
            Problem("it fails again", "clients wait", "mend it", 2, EPOCH, again),
            Problem("another one", "nothing", "none", 1, EPOCH, EPOCH),
        ]

    def test_bounded(self) -> None:
        """The last 50 problems are kept, those that keep coming among them; texts are cut."""
        for number in range(10 * MOST):
            self.problems.note("often", "it fails")
            self.problems.note(number, "x" * (LONGEST + number), "y" * (LONGEST + number))
        kept = list(self.problems)
        assert len(kept) == MOST
        assert {len(each.text) for each in kept} == {LONGEST, len("it fails")}
        assert {len(each.consequence) for each in kept} == {LONGEST, 0}
        assert max(each.count for each in kept) == 10 * MOST

    def test_hostile(self) -> None:
        """Nothing in a text forges a line of the log."""
        with logged("proxpi.problems") as log:
            self.problems.note("a", "demo\r\n2026-12-01 [proxpi] all is well\x1b[2J{log_level}")
        (line,) = log.lines
        assert line == "demo\\r\\n2026-12-01 [proxpi] all is well\\x1b[2J{log_level}"
        assert next(iter(self.problems)).text == line

    def test_dropped(self) -> None:
        """A problem that was dropped for others is logged again, and counts anew."""
        with logged("proxpi.problems") as log:
            self.problems.note("a", "it fails")
            for number in range(MOST):
                self.problems.note(number, "others")
            self.problems.note("a", "it fails")
        assert log.lines.count("it fails") == 2
        assert next(iter(self.problems)).count == 1

    def test_remedies(self) -> None:
        """Each kind of failure of an upstream has a remedy, but for the operator's own choices."""
        assert {
            kind for kind in (*get_args(FailureKind), "folder", "hash") if not upstream_remedy(kind)
        } == {"offline"}

    def test_disk(self) -> None:
        """An error of the disk says where, and what to do; the consequence is its key."""
        folder = Path("/srv/cache")
        for number, expected in (
            (errno.ENOSPC, "free space on its disk"),
            (errno.EACCES, f"let the user with the number {os.geteuid()} write there"),
            (None, ""),
        ):
            error = OSError(number, "no") if number else OSError("no")
            self.problems.note_disk(error, folder, "nothing is cached")
            problem = next(iter(self.problems))
            assert problem.text == "cache folder /srv/cache: no"
            assert problem.consequence == "nothing is cached"
            assert problem.remedy.startswith(expected) and bool(problem.remedy) == bool(expected)
        assert problem.count == 3
