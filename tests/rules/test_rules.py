"""Rules on what may be installed: decisions on files, and on pages."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.rules.rules import Exclusion, apply, states_times
from proxpi.simple import render_html, render_json
from tests.support.parsing import in_json
from tests.support.rules import KnownAdvisories, a_page, advised, project_rules, rules
from tests.support.strategies import deterministic

SHA, OTHER = "a" * 64, "b" * 64
NOW = datetime(2025, 6, 15, 12, tzinfo=UTC).timestamp()
DAY = 86400.0
AGE = 'the rule exclude-newer = "7 days"'
UNKNOWN = f"{AGE}, since its upload time is not known"


def judged(
    filename: str,
    *,
    uploaded: str | None = None,
    sha256: str = "",
    times: bool = True,
    name: str = "demo",
    now: float = NOW,
    **keys: Any,
) -> tuple[str, float | None] | None:
    """Return rule and time of the exclusion of a file by the rules in `keys`."""
    entry = {"filename": filename, "url": "", "hashes": {"sha256": sha256} if sha256 else {}}
    if uploaded is not None:
        entry["upload-time"] = uploaded
    compiled = rules(**keys).of(name)
    if compiled is None:
        return None
    found = compiled.judge(entry, now, times=times)
    return None if found is None else (found.rule, found.available_at)


@pytest.mark.parametrize(
    ("filename", "deny", "expected"),
    [
        ("demo-1.0.tar.gz", ["demo"], "demo"),
        ("demo-1.0.tar.gz", ["other", "Demo"], "Demo"),
        ("demo-1.0.tar.gz", ["d*"], "d*"),
        ("demo-1.0.tar.gz", ["demo-*"], None),
        ("demo-1.0.tar.gz", ["demo==1"], "demo==1"),
        ("demo-1.0.tar.gz", ["demo<1", "demo>0.9"], "demo>0.9"),
        ("demo-1.0.tar.gz", ["demo>1"], None),
        ("demo-1.0-1.tar.gz", ["demo==1.0.post1"], "demo==1.0.post1"),
        ("demo-1.0-py3-none-any.whl", ["demo==1"], "demo==1"),
        ("demo-1.0-variants.json", ["demo==1"], "demo==1"),
        ("demo-1.0.exe", ["demo==7"], "demo==7"),
        ("1.0.zip", ["demo==7"], "demo==7"),
        ("demo-1.0.tar.gz", [f"sha256:{SHA}"], f"sha256:{SHA}"),
        ("demo-1.0.tar.gz", [f"sha256:{OTHER}"], None),
        ("demo-1.0.tar.gz", ["d*", "demo", f"sha256:{SHA}"], "d*"),
        ("demo-1.0.tar.gz", ["demo", "d*"], "demo"),
    ],
)
def test_deny(filename: str, deny: Sequence[str], expected: str | None) -> None:
    """A file that a selector selects is excluded, and a file without a readable version is too."""
    found = judged(filename, sha256=SHA, deny=deny)
    assert found == (None if expected is None else (f'the rule deny = "{expected}"', None))


@pytest.mark.parametrize(
    ("filename", "allow", "is_allowed"),
    [
        ("demo-1.0.tar.gz", ["demo"], True),
        ("demo-1.0.tar.gz", ["acme-*", "d*"], True),
        ("demo-1.0.tar.gz", ["acme-*"], False),
        ("demo-1.0.tar.gz", [], False),
        ("demo-1.0.tar.gz", ["demo<2"], True),
        ("demo-1.0.tar.gz", ["demo>2", "demo==1.*"], True),
        ("demo-1.0.tar.gz", ["demo>2"], False),
        ("demo-1.0.exe", ["demo<2"], False),
        ("demo-1.0.exe", ["demo"], True),
        ("demo-1.0.tar.gz", [f"sha256:{SHA}"], True),
        ("demo-1.0.exe", ["demo>2", f"sha256:{SHA}"], True),
        ("demo-1.0.tar.gz", [f"sha256:{OTHER}"], False),
    ],
)
def test_allow(filename: str, allow: Sequence[str], is_allowed: bool) -> None:
    """If some files are allowed, all others are excluded, those of unreadable versions too."""
    expected = None if is_allowed else ("the rule allow, which does not name it", None)
    assert judged(filename, sha256=SHA, allow=allow) == expected


@pytest.mark.parametrize(
    ("uploaded", "times", "unknown", "expected"),
    [
        ("2025-06-07T12:00:00Z", True, None, None),
        ("2025-06-08T11:59:59.999999Z", True, None, None),
        ("2025-06-08T12:00:00Z", True, None, None),
        ("2025-06-08T12:00:00.000001Z", True, None, (AGE, NOW + 0.000001)),
        ("2025-06-08T12:00:00.5Z", True, None, (AGE, NOW + 0.5)),
        ("2025-06-09T12:00:00Z", True, None, (AGE, NOW + DAY)),
        ("2025-06-15T12:00:00Z", True, None, (AGE, NOW + 7 * DAY)),
        ("2025-06-16T12:00:00Z", True, None, (AGE, NOW + 8 * DAY)),
        ("2025-06-09T14:00:00+02:00", True, None, (AGE, NOW + DAY)),
        (None, True, None, (UNKNOWN, None)),
        (None, False, None, None),
        (None, True, "keep", None),
        (None, False, "exclude", (UNKNOWN, None)),
        ("once", True, None, (UNKNOWN, None)),
        ("2025-06-07T12:00:00Z", True, "exclude", None),
        ("2025-06-09T12:00:00Z", False, "keep", (AGE, NOW + DAY)),
    ],
)
def test_age(uploaded: str | None, times: bool, unknown: str | None, expected: Any) -> None:
    """A file is excluded until its age has passed since its upload time, to the microsecond."""
    found = judged(
        "demo-1.0.tar.gz",
        uploaded=uploaded,
        times=times,
        exclude_newer="7 days",
        exclude_newer_unknown=unknown,
    )
    assert found == expected


@pytest.mark.parametrize(
    ("uploaded", "date", "is_excluded"),
    [
        ("2025-03-16T11:59:59.999999Z", "2025-03-16T12:00:00Z", False),
        ("2025-03-16T12:00:00Z", "2025-03-16T12:00:00Z", True),
        ("2025-03-16T12:00:00.000Z", "2025-03-16T12:00:00Z", True),
        ("2025-03-16T12:00:00.000001Z", "2025-03-16T12:00:00Z", True),
        ("2025-03-16T12:00:00.5Z", "2025-03-16T12:00:00.50Z", True),
        ("2025-03-16T12:00:00.49Z", "2025-03-16T12:00:00.5Z", False),
        ("2025-03-16T12:00:00Z", "2025-03-16T14:00:00+02:00", True),
        ("2025-03-16T23:59:59.999999Z", "2025-03-16", False),
        ("2025-03-17T00:00:00Z", "2025-03-16", True),
        ("2030-01-01T00:00:00Z", "2035-01-01T00:00:00Z", False),
        ("1999-01-01T00:00:00Z", "9999-12-31", False),
    ],
)
def test_date(uploaded: str, date: str, is_excluded: bool) -> None:
    """A file that was uploaded at a date or later is excluded for good, as in uv and pip."""
    found = judged("demo-1.0.tar.gz", uploaded=uploaded, exclude_newer=date)
    assert found == ((f'the rule exclude-newer = "{date}"', None) if is_excluded else None)


@deterministic
@given(st.integers(0, 8 * 86_400 * 10**6), st.integers(0, 8 * 86_400 * 10**6))
def test_available(microseconds: int, age: int) -> None:
    """At the time from which on a file is available it is not excluded, and before it is."""
    entry = a_page("demo-1.0.zip").files[0]
    moment = datetime.fromtimestamp(NOW, UTC).replace(tzinfo=None).isoformat()
    entry["upload-time"] = f"{moment}.{microseconds % 10**6:06}Z"
    compiled = project_rules("demo", exclude_newer=f"{age / 1e6:.6f} s")
    found = compiled.judge(entry, NOW, times=True)
    if found is None:
        assert microseconds % 10**6 + age == 0
        return
    assert found.available_at is not None
    assert compiled.judge(entry, found.available_at, times=True) is None
    assert compiled.judge(entry, found.available_at - 0.000001, times=True) == found


@pytest.mark.parametrize(
    ("filename", "exceptions", "is_excluded"),
    [
        ("demo-1.0.tar.gz", ["other"], True),
        ("demo-1.0.tar.gz", ["demo"], False),
        ("demo-1.0.tar.gz", ["d*"], False),
        ("demo-1.0.tar.gz", ["demo==1"], False),
        ("demo-1.0.tar.gz", ["demo==2"], True),
        ("demo-1.0.exe", ["demo==1"], True),
        ("demo-1.0.tar.gz", [f"sha256:{SHA}"], False),
        ("demo-1.0.tar.gz", [f"sha256:{OTHER}"], True),
        ("demo-1.0-variants.json", [], False),
    ],
)
def test_exceptions(filename: str, exceptions: Sequence[str], is_excluded: bool) -> None:
    """The age of a file that an exception selects is ignored, and that of a list of variants."""
    keys: dict[str, Any] = {"exclude_newer": "7 days", "exclude_newer_except": exceptions}
    for uploaded in ("2025-06-15T11:00:00Z", None):
        found = judged(filename, uploaded=uploaded, sha256=SHA, **keys)
        assert (found is not None) is is_excluded


@pytest.mark.parametrize(
    ("filename", "sha256", "expected"),
    [
        ("demo-1.0.tar.gz", "", ("the advisory MAL-1", None)),
        ("demo-2.0.tar.gz", "", None),
        ("demo-2.0.tar.gz", SHA, ("the advisory MAL-2", None)),
        ("demo-1.0.tar.gz", SHA, ("the advisory MAL-1", None)),
    ],
)
def test_advisories(filename: str, sha256: str, expected: tuple[str, None] | None) -> None:
    """A file that an advisory matches is excluded, and the reason names the advisory."""
    feed = KnownAdvisories({"demo": [advised("MAL-1", "1.0"), advised("MAL-2", sha256=SHA)]})
    assert judged(filename, sha256=sha256, advisories=feed) == expected


@pytest.mark.parametrize(
    ("left_out", "expected"),
    [
        ([], ("deny", 'the rule deny = "demo==1.0"')),
        (["deny"], ("advisory", "the advisory MAL-1")),
        (["deny", "advisories"], ("allow", "the rule allow, which does not name it")),
        (["deny", "advisories", "allow"], ("age", AGE)),
        (["deny", "advisories", "allow", "exclude_newer"], None),
    ],
)
def test_order(left_out: Sequence[str], expected: tuple[str, str] | None) -> None:
    """The reason is the first rule that matches: deny, advisory, allow, age."""
    keys: dict[str, Any] = {
        "deny": ["demo==1.0"],
        "advisories": KnownAdvisories({"demo": [advised("MAL-1", "1.0")]}),
        "allow": ["demo!=1.0"],
        "exclude_newer": "7 days",
        "exclude_newer_except": ["other"],
    }
    compiled = rules(**{key: value for key, value in keys.items() if key not in left_out}).of(
        "demo"
    )
    entry = a_page("demo-1.0.zip", uploaded="2025-06-15T12:00:00Z").files[0]
    found = compiled and compiled.judge(entry, NOW, times=True)
    assert (found and (found.kind, found.rule)) == expected


def test_an_exception_lifts_the_age_alone() -> None:
    """A file with an exception from the age is still denied, advised against, or not allowed."""
    excepted: dict[str, Any] = {"exclude_newer": "7 days", "exclude_newer_except": ["demo"]}
    feed = KnownAdvisories({"demo": [advised("MAL-1", "1.0")]})
    others: list[dict[str, Any]] = [
        {"deny": ["demo"]},
        {"advisories": feed},
        {"allow": ["other"]},
    ]
    for keys in others:
        assert judged("demo-1.0.zip", **keys, **excepted) is not None
    assert judged("demo-1.0.zip", **excepted) is None


def test_no_rules() -> None:
    """A project from which nothing can be excluded has no rules."""
    assert rules().of("demo") is None
    assert rules(deny=["other", "acme-*"]).of("demo") is None
    assert rules(allow=["demo"]).of("demo") is None
    assert rules(advisories=KnownAdvisories({"other": [advised("MAL-1")]})).of("demo") is None
    assert rules(exclude_newer="7 days", exclude_newer_except=["d*"]).of("demo") is None


def test_nothing_excluded() -> None:
    """A page of which no file is excluded is given back as it is."""
    page = a_page("demo-1.0.zip @ 2025-01-01T00:00:00Z", versions=["1.0"])
    found = apply(project_rules("demo", exclude_newer="7 days", deny=["demo>1"]), page, NOW)
    assert found.project is page
    assert (found.excluded, found.until) == ({}, None)


def test_page() -> None:
    """Excluded files and the versions that have no other file are taken from a page."""
    page = a_page(
        "demo-1.0.zip @ 2025-01-01T00:00:00Z",
        "demo-1.1.zip @ 2025-06-14T12:00:00Z",
        "demo-1.1-py3-none-any.whl @ 2025-06-07T12:00:00Z",
        "demo-1.2.zip @ 2025-06-12T12:00:00Z",
        "demo-1.3rc1.zip @ 2025-06-13T12:00:00Z",
        versions=["0.9", "1.0", "1.1.0", "1.2", "1.3rc1", "odd"],
        meta={"a": "b"},
    )
    found = apply(project_rules("demo", exclude_newer="7 days"), page, NOW)
    assert [entry["filename"] for entry in found.project.files] == [
        "demo-1.0.zip",
        "demo-1.1-py3-none-any.whl",
    ]
    assert found.project.keys == {
        "versions": ["0.9", "1.0", "1.1.0", "odd"],
        "meta": {"a": "b"},
    }
    assert {name: each.available_at for name, each in found.excluded.items()} == {
        "demo-1.1.zip": NOW + 6 * DAY,
        "demo-1.2.zip": NOW + 4 * DAY,
        "demo-1.3rc1.zip": NOW + 5 * DAY,
    }
    assert found.until == NOW + 4 * DAY
    assert len(page.files) == 5


def test_denied_project() -> None:
    """A page of which all files are excluded stays, without files and versions."""
    page = a_page("demo-1.0.zip", "demo-1.0.exe", versions=["1.0", "odd"])
    found = apply(project_rules("demo", deny=["demo"]), page, NOW)
    assert (found.project.files, found.project.keys, found.until) == ([], {"versions": []}, None)
    assert found.excluded.keys() == {"demo-1.0.zip", "demo-1.0.exe"}


def test_untimed() -> None:
    """A file without a time is kept if the page of its own index states none at all."""
    page = a_page("demo-1.0.zip", "demo-2.0.zip", "demo-3.0.zip @ 2025-01-01T00:00:00Z")
    found = apply(project_rules("demo", exclude_newer="7 days"), page, NOW, {"demo-1.0.zip"})
    assert found.excluded == {"demo-2.0.zip": Exclusion(UNKNOWN, None, "age")}
    assert states_times(page)
    assert not states_times(a_page("demo-1.0.zip"))


def test_rendered() -> None:
    """An excluded file is on no page, in JSON or HTML, and a yanked file stays as it is."""
    files = [
        {"filename": "foo-1.0.zip", "url": "foo-1.0.zip", "hashes": {}, "yanked": "broken"},
        {"filename": "foo-2.0.zip", "url": "foo-2.0.zip", "hashes": {}},
    ]
    stated = {"name": "foo", "versions": ["1.0", "2.0"], "files": files}
    left = apply(project_rules("foo", deny=["foo>1"]), in_json(stated), NOW).project
    expected = in_json(stated | {"versions": ["1.0"], "files": files[:1]})
    assert render_json(left) == render_json(expected)
    assert render_html(left) == render_html(expected)
    assert b"foo-2.0" not in render_json(left) + render_html(left)


BASE: dict[str, Any] = {"exclude_newer": "7 days", "allow": ["demo>1"], "deny": ["demo==3"]}


@pytest.mark.parametrize(
    "change",
    [
        {"exclude_newer": "8 days"},
        {"exclude_newer": ""},
        {"exclude_newer": "2025-01-01"},
        {"exclude_newer_unknown": "keep"},
        {"exclude_newer_except": ["demo==2"]},
        {"allow": ["demo>2"]},
        {"allow": None},
        {"allow": ["demo>1", f"sha256:{SHA}"]},
        {"deny": ["demo==3.1"]},
        {"deny": ["demo==3", f"sha256:{SHA}"]},
        {"deny": []},
        {"advisories": KnownAdvisories({"demo": [advised("MAL-1", "1.0")]})},
    ],
)
def test_key(change: dict[str, Any]) -> None:
    """The key of a project's rules differs as soon as one of them differs."""
    assert project_rules("demo", **BASE).key == project_rules("demo", **BASE).key
    assert project_rules("demo", **BASE | change).key != project_rules("demo", **BASE).key


def test_key_of_others() -> None:
    """Rules on other projects do not change a key."""
    keys = {"deny": ["demo==3", "other"], "exclude_newer_except": ["other"]}
    feed = KnownAdvisories({"other": [advised("MAL-1", "1.0")]})
    found = project_rules("demo", advisories=feed, **BASE | keys)
    assert found.key == project_rules("demo", **BASE).key
    feed.known["demo"] = [advised("MAL-1", "1.0")]
    one = project_rules("demo", advisories=feed).key
    feed.known["demo"] = [advised("MAL-1", "1.1")]
    assert project_rules("demo", advisories=feed).key != one


def test_compiled_once() -> None:
    """The rules of a project are compiled once, until its advisories change."""
    feed = KnownAdvisories({})
    found = rules(deny=["demo>3"], advisories=feed)
    told: list[Collection[str] | None] = []
    found.changed.append(told.append)
    first = found.of("demo")
    assert found.of("other") is None
    feed.known["other"] = [advised("MAL-1", "1.0")]
    assert found.of("other") is None
    feed.change({"other", "unknown"})
    assert found.of("other") is not None
    assert found.of("demo") is first
    assert told == [{"other", "unknown"}]


def test_many_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests for any number of names take no more memory than a number of names that is set."""
    monkeypatch.setattr("proxpi.rules.rules.MOST_COMPILED", 2)
    found = rules(exclude_newer="7 days")
    first = found.of("a")
    for name in "abc":
        found.of(name)
    second = found.of("a")
    assert first is not None and second is not None
    assert (second is first, second.key == first.key) == (False, True)
