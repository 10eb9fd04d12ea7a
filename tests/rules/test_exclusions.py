"""The registry of what rules hold back: log, metrics and statistics."""

from __future__ import annotations

import pytest

from proxpi.rules import exclusions
from proxpi.rules.exclusions import Exclusions
from proxpi.rules.rules import Exclusion
from tests.support.counted import Counted
from tests.support.logs import logged
from tests.support.rules import KnownAdvisories, advised, rules

DENIED = Exclusion('the rule deny = "demo"', None, "deny")
#: 12 o'clock on 15 June 2025, UTC.
NOON = 1749988800.0
YOUNG = Exclusion('the rule exclude-newer = "7 days"', NOON, "age")


def aged(seconds: float) -> Exclusion:
    return Exclusion(YOUNG.rule, NOON + seconds, "age")


def test_listed() -> None:
    """An excluded file is listed with its reason, and the time when it becomes available."""
    now = [NOON - 1.0]
    found = Exclusions(rules(), lambda: now[0])
    found.note("demo", {"demo-1.zip": DENIED})
    found.note("other", {"other-1.zip": YOUNG, "other-2.zip": aged(0.5)})

    denied, young = ("demo", "demo-1.zip", DENIED), ("other", "other-1.zip", YOUNG)
    younger = ("other", "other-2.zip", aged(0.5))
    assert list(found) == [denied, young, younger]
    assert [each.available for _, _, each in found] == [
        None,
        "2025-06-15T12:00:00Z",
        "2025-06-15T12:00:01Z",
    ]
    now[0] = NOON
    assert list(found) == [denied, younger]


def test_replaced() -> None:
    """The exclusions of a page take the place of those of the page before, in the same view."""
    found = Exclusions(rules())
    found.note("demo", {"a.zip": DENIED, "b.zip": DENIED})
    found.note("demo", {"a.zip": DENIED, "c.zip": DENIED}, "cpu")
    assert [file for _, file, _ in found] == ["a.zip", "b.zip", "c.zip"]
    found.note("demo", {"b.zip": DENIED})
    assert [file for _, file, _ in found] == ["b.zip", "a.zip", "c.zip"]
    found.note("demo", {})
    found.note("demo", {}, "cpu")
    assert list(found) == []


def test_changed_rules() -> None:
    """A file that changed rules have excluded is not listed until its page is merged anew."""
    feed = KnownAdvisories({"demo": [advised("MAL-1", "1")]})
    found = Exclusions(rules(advisories=feed))
    reason = Exclusion("the advisory MAL-1", None, "advisory")
    found.note("demo", {"demo-1.zip": reason})
    found.note("demo", {"demo-1.zip": reason}, "cpu")
    found.note("other", {"other-1.zip": DENIED})
    for version in ("2", "3"):
        feed.known["demo"] = [advised("MAL-1", version)]
        feed.change(["demo"])
        assert [file for _, file, _ in found] == ["other-1.zip"]
        if version == "2":
            found.note("demo", {"demo-2.zip": reason})
        else:
            found.add("demo", "demo-2.zip", reason)
        assert [file for _, file, _ in found] == ["other-1.zip", "demo-2.zip"]


def test_counted_once() -> None:
    """A file is counted and logged once for each kind of rule, however often it is noted."""
    found, counted = Exclusions(rules()), Counted()
    with logged("proxpi.rules") as log:
        for _ in range(2):
            found.note("demo", {"demo-1.zip": YOUNG})
            found.note("demo", {"demo-1.zip": YOUNG}, "cpu")
            found.note("demo", {})
        found.note("demo", {"demo-1.zip": DENIED})
    assert log.lines == [
        f"demo: demo-1.zip is excluded by {YOUNG.rule}; it is available from 2025-06-15T12:00:00Z",
        'demo: demo-1.zip is excluded by the rule deny = "demo"',
    ]
    assert counted.since() == {"age": 1, "deny": 1}


def test_many() -> None:
    """Many files that one rule excludes from a page are one line, with their number."""
    found, counted = Exclusions(rules()), Counted()
    files = {f"demo-{number}.zip": aged(-number) for number in range(100)}
    with logged("proxpi.rules") as log:
        found.note("demo", {"bad\n.zip": DENIED, **files})
        found.note("demo", {**files, "new.zip": YOUNG})
    first = (
        "demo-0.zip, demo-1.zip, demo-2.zip and 97 others; the first is available from "
        "2025-06-15T11:58:21Z"
    )
    assert log.lines == [
        'demo: bad\\n.zip is excluded by the rule deny = "demo"',
        f"demo: 100 files are excluded by {YOUNG.rule}: {first}",
        f"demo: new.zip is excluded by {YOUNG.rule}; it is available from 2025-06-15T12:00:00Z",
    ]
    assert counted.since() == {"age": 101, "deny": 1}


def test_many_denied() -> None:
    """A line of many files names no time if none of them becomes available by itself."""
    [line] = exclusions.lines("demo", {f"demo-{number}.zip": DENIED for number in range(5)})
    assert line == (
        'demo: 5 files are excluded by the rule deny = "demo": demo-0.zip, demo-1.zip, demo-2.zip '
        "and 2 others"
    )


def test_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The projects that were noted longest ago are forgotten; the last one is kept as a whole."""
    monkeypatch.setattr(exclusions, "MOST_FILES", 3)
    found = Exclusions(rules())
    found.note("a", {"a-1.zip": DENIED})
    found.note("b", {"b-1.zip": DENIED})
    found.note("c", {"c-1.zip": DENIED})
    found.note("a", {"a-1.zip": DENIED})
    found.note("d", {"d-1.zip": DENIED})
    assert [project for project, _, _ in found] == ["c", "a", "d"]
    found.note("e", {f"e-{number}.zip": DENIED for number in range(5)})
    assert {project for project, _, _ in found} == {"e"}
    assert len(list(found)) == 5


def test_added() -> None:
    """A file that a client requests is noted beside those of its page, once."""
    found, counted = Exclusions(rules()), Counted()
    found.add("demo", "a.zip", DENIED)
    found.note("demo", {"a.zip": DENIED, "b.zip": DENIED})
    for _ in range(2):
        found.add("demo", "c.zip", DENIED)
    assert [file for _, file, _ in found] == ["a.zip", "b.zip", "c.zip"]
    assert counted.since() == {"deny": 3}
