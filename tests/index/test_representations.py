"""The merged page: the first index that lists a file has it, and nothing is lost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxpi.index.representations import merge
from proxpi.simple import model
from proxpi.simple.model import Project
from tests.support.growth import assert_linear
from tests.support.strategies import deterministic, projects


def project(*filenames: str, **keys: Any) -> Project:
    files = [{"filename": name, "url": f"https://x/{name}", "hashes": {}} for name in filenames]
    return Project("demo", files, keys)


def names(merged: Project) -> list[str]:
    return [entry["filename"] for entry in merged.files]


@settings(deterministic, max_examples=25)
@given(st.lists(projects, min_size=1, max_size=4))
def test_merge(found: list[Project]) -> None:
    """A file or key is that of the first index that has it; none is lost, doubled or changed."""
    before = [(list(each.files), dict(each.keys)) for each in found]
    documents = [model.encode(project) for project in found]
    merged = merge(found)
    assert merged.name == found[0].name
    assert set(names(merged)) == {entry["filename"] for each in found for entry in each.files}
    assert len(set(names(merged))) == len(merged.files)
    for entry in merged.files:
        by_index = (model.find(document, entry["filename"]) for document in documents)
        assert next(each for each in by_index if each is not None) == entry
        listed = (each for project in found for each in project.files)
        assert next(each for each in listed if each["filename"] == entry["filename"]) == entry
    assert all(model.find(document, "\0 no such file") is None for document in documents)
    assert set(merged.keys) == {key for each in found for key in each.keys}
    for key in merged.keys.keys() - {"versions", "project-status"}:
        assert merged.keys[key] == next(each.keys[key] for each in found if key in each.keys)
    versions = merged.keys.get("versions", [])
    assert len(set(versions)) == len(versions)
    assert set(versions) >= {v for each in found for v in each.keys.get("versions", [])}
    assert [(list(each.files), dict(each.keys)) for each in found] == before


def test_order() -> None:
    """Files are in the order of precedence, then of their index; a single page is as it is."""
    merged = merge([project("b", "a"), project("c", "a"), project("b", "d")])
    assert names(merged) == ["b", "a", "c", "d"]
    alone = project("demo-1.0.tar.gz")
    assert merge([alone]) is alone
    assert "versions" not in merge([alone, project("demo-2.0.tar.gz")]).keys


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
        versions = merge(order).keys["versions"]
        assert set(versions) == expected
        assert len(versions) == len(expected)


@pytest.mark.parametrize(
    ("before", "piece", "after"),
    [
        ("demo-", "1.", "1-py3-none-any.whl"),
        ("demo-", "9", "-py3-none-any.whl"),
        ("demo-", "9", ".tar.gz"),
        ("demo-1-", "py3.", "py3-none-any.whl"),
        ("demo-1-" + "a." * 400 + "a-" + "b." * 50 + "b-", "c.", "any.whl"),
        ("demo-1+", "a.", "a.tar.gz"),
        ("demo", "-", "1.zip"),
        ("demo-1", "_", ".zip"),
    ],
)
def test_a_version_in_any_file_name(before: str, piece: str, after: str) -> None:
    """No file name, however long or odd, is an error or takes more time than its length."""

    def work(filename: str) -> None:
        versions = merge([project("demo-7.zip", versions=["7"]), project(filename)]).keys
        assert "7" in versions["versions"]

    work(before + piece * 300 + after)
    work(before + piece * 10_000 + after)
    assert_linear(work, lambda size: before + piece * size + after, 200)
    assert_linear(work, lambda size: before + piece * size + after, 5_000)


STATUSES = ["quarantined", "archived", "deprecated", "of-tomorrow", "active"]


def test_strongest_status() -> None:
    """Of several statuses the strongest one, then the first, is passed on with its reason."""
    for position, strong in enumerate(STATUSES):
        for weak in STATUSES[position + 1 :]:
            one = project("a.zip", **{"project-status": {"status": strong, "reason": "x"}})
            other = project("b.zip", **{"project-status": {"status": weak, "reason": "y"}})
            for found in ([one, other], [other, one], [project(), other, project("c.zip"), one]):
                assert merge(found).keys["project-status"] == {"status": strong, "reason": "x"}
    one, other = (project(**{"project-status": {"status": each}}) for each in ("unknown", "new"))
    assert merge([project(), one, other]).keys["project-status"] == {"status": "unknown"}
    assert "project-status" not in merge([project(), project()]).keys


def test_quarantined_files() -> None:
    """Files of a quarantined index are left out, of whichever index; those of others stay."""
    bad = project("a.zip", "b.zip", versions=["1"], **{"project-status": {"status": "quarantined"}})
    good = project("b.zip", "c.zip", versions=["2"])
    for found in ([bad, good], [good, bad]):
        merged = merge(found)
        assert names(merged) == ["b.zip", "c.zip"]
        assert merged.files[0] is good.files[0]
        assert merged.keys["project-status"] == {"status": "quarantined"}
        assert set(merged.keys["versions"]) == {"1", "2"}
    for found in ([bad], [bad, bad]):
        assert names(merge(found)) == []
