"""Several indexes, one answer: the first that lists a file has it, and nothing is lost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxpi.index import representations as merge
from proxpi.simple import model
from proxpi.simple.model import Project
from tests.support.growth import assert_linear
from tests.support.strategies import deterministic, projects

few = settings(deterministic, max_examples=25)

several = st.lists(projects(), min_size=1, max_size=4)


def project(*filenames: str, **keys: Any) -> Project:
    """Give a project with these files."""
    files = [{"filename": name, "url": f"https://x/{name}", "hashes": {}} for name in filenames]
    return Project("demo", files, keys)


def names(merged: Project) -> list[str]:
    """Give the names of the files."""
    return [entry["filename"] for entry in merged.files]


@few
@given(several)
def test_precedence(found: list[Project]) -> None:
    """Each file is the entry of the first index that lists it, and each file is there once."""
    merged = merge.merge(found)
    for entry in merged.files:
        first = next(
            other
            for project in found
            for other in project.files
            if other["filename"] == entry["filename"]
        )
        assert entry == first
    assert len(set(names(merged))) == len(merged.files)


@few
@given(several)
def test_nothing_is_lost(found: list[Project]) -> None:
    """Every file name and every key of every index is in the merged page, and no other."""
    merged = merge.merge(found)
    assert set(names(merged)) == {entry["filename"] for each in found for entry in each.files}
    assert set(merged.keys) == {key for each in found for key in each.keys}
    assert merged.name == found[0].name


@few
@given(several)
def test_keys(found: list[Project]) -> None:
    """Other keys are the first index's that has them; versions are those of all, each once."""
    merged = merge.merge(found)
    for key, value in merged.keys.items():
        if key not in ("versions", "project-status"):
            assert value == next(each.keys[key] for each in found if key in each.keys)
    versions = merged.keys.get("versions", [])
    assert len(set(versions)) == len(versions)
    assert set(versions) >= {v for each in found for v in each.keys.get("versions", [])}


@few
@given(several)
def test_files_follow_the_page(found: list[Project]) -> None:
    """The first index that knows a name is the one whose file the merged page lists."""
    documents = [model.encode(project) for project in found]
    for entry in merge.merge(found).files:
        by_index = (model.find(document, entry["filename"]) for document in documents)
        assert next(each for each in by_index if each is not None) == entry
    assert all(model.find(document, "\0 no such file") is None for document in documents)


@few
@given(several)
def test_inputs_stay(found: list[Project]) -> None:
    """Merging changes nothing of what it is given: the responses are kept and merged again."""
    before = [(list(each.files), dict(each.keys)) for each in found]
    merge.merge(found)
    assert [(list(each.files), dict(each.keys)) for each in found] == before


def test_order() -> None:
    """Files stand in the order of precedence, and within it as their index has them."""
    merged = merge.merge([project("b", "a"), project("c", "a"), project("b", "d")])
    assert names(merged) == ["b", "a", "c", "d"]


def test_alone() -> None:
    """A single index's word is passed on as it is, versions that are not there included."""
    alone = project("demo-1.0.tar.gz")
    assert merge.merge([alone]) is alone
    assert "versions" not in merge.merge([alone, project("demo-2.0.tar.gz")]).keys


def test_versions() -> None:
    """Versions are united; an index that states none is taken by the names of its files."""
    stated = project("demo-1.0.tar.gz", versions=["1.0", "1.1"])
    silent = project(
        "demo-2.0.tar.gz",
        "demo-2.0-py3-none-any.whl",
        "demo-1.1.zip",
        "demo-3.0-cp311-cp311-linux_x86_64.whl",
        "demo-not-a-version.tar.gz",
        "demo-0.1-oops.whl",
        "demo-4.0.exe",
    )
    expected = {"1.0", "1.1", "2.0", "3.0"}
    for order in ([stated, silent], [silent, stated]):
        versions = merge.merge(order).keys["versions"]
        assert set(versions) == expected
        assert len(versions) == len(expected)


@pytest.mark.parametrize(
    ("before", "piece", "after"),
    [
        ("f-", "1.", "1-py3-none-any.whl"),
        ("f-", "9", "-py3-none-any.whl"),
        ("f-", "9", ".tar.gz"),
        ("f-1-", "py3.", "py3-none-any.whl"),
        ("f-1-" + "a." * 400 + "a-" + "b." * 50 + "b-", "c.", "any.whl"),
        ("f-1+", "a.", "a.tar.gz"),
        ("f", "-", "1.zip"),
        ("f-1", "_", ".zip"),
    ],
)
def test_a_version_in_any_file_name(before: str, piece: str, after: str) -> None:
    """No file name, however long or odd, is an error or takes more time than its length."""

    def work(filename: str) -> None:
        versions = merge.merge([project("f-7.zip", versions=["7"]), project(filename)]).keys
        assert "7" in versions["versions"]

    work(before + piece * 300 + after)
    work(before + piece * 10_000 + after)
    assert_linear(work, lambda size: before + piece * size + after, 200)
    assert_linear(work, lambda size: before + piece * size + after, 5_000)


STATUSES = ["quarantined", "archived", "deprecated", "of-tomorrow", "active"]


@pytest.mark.parametrize(
    ("strong", "weak"),
    [pair for n, one in enumerate(STATUSES) for pair in zip([one] * 4, STATUSES[n + 1 :])],
)
def test_strongest_status(strong: str, weak: str) -> None:
    """Of two statuses the stronger one is passed on, with its own reason, in either order."""
    one = project("a.zip", **{"project-status": {"status": strong, "reason": "x"}})
    other = project("b.zip", **{"project-status": {"status": weak, "reason": "y"}})
    for found in ([one, other], [other, one], [project(), other, project("c.zip"), one]):
        assert merge.merge(found).keys["project-status"] == {"status": strong, "reason": "x"}


def test_equal_statuses() -> None:
    """Of two equally strong statuses that of the first index is passed on."""
    one, other = (
        project(**{"project-status": {"status": status}}) for status in ("of-tomorrow", "new")
    )
    assert merge.merge([project(), one, other]).keys["project-status"] == {"status": "of-tomorrow"}
    assert "project-status" not in merge.merge([project(), project()]).keys


def test_quarantined_files() -> None:
    """Files of a quarantined index are left out, of whichever index; those of others stay."""
    bad = project("a.zip", "b.zip", versions=["1"], **{"project-status": {"status": "quarantined"}})
    good = project("b.zip", "c.zip", versions=["2"])
    for found in ([bad, good], [good, bad]):
        merged = merge.merge(found)
        assert names(merged) == ["b.zip", "c.zip"]
        assert merged.files[0] is good.files[0]
        assert merged.keys["project-status"] == {"status": "quarantined"}
        assert set(merged.keys["versions"]) == {"1", "2"}
    for found in ([bad], [bad, bad]):
        assert names(merge.merge(found)) == []


@pytest.mark.parametrize("status", [*STATUSES, "Quarantined "])
def test_single_file(status: str) -> None:
    """The look-up of one file follows the same rule as the page."""
    one = project("a.zip", **{"project-status": {"status": status}})
    listed = names(merge.merge([one, project("b.zip")]))
    for name in ("a.zip", "none.zip"):
        found = merge.find(model.encode(one), name)
        assert (found is not None) == (name in listed)
