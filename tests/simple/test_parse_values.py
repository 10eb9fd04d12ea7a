"""Values on JSON pages: key by key, what is passed on and what is dropped."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxpi.simple.model import Project
from proxpi.simple.parse import parse_project


def _parse(page: object) -> Project:
    return parse_project(json.dumps(page).encode(), None, "https://h.example/simple/foo/", "foo")


def _only(**keys: Any) -> dict[str, Any]:
    file = {"filename": "foo-1.0.whl", "url": "foo-1.0.whl", "hashes": {}, **keys}
    (entry,) = _parse({"files": [file]}).files
    return entry


@pytest.mark.parametrize(
    ("key", "value", "kept"),
    [
        ("hashes", None, {}),
        ("hashes", "sha256", {}),
        ("hashes", {"SHA256": "AB", "md5": None, "sha1": 7}, {"sha256": "ab"}),
        ("hashes", {"new": "Ab"}, {"new": "ab"}),
        ("hashes", {"sha256": " AB\n"}, {"sha256": "ab"}),
        ("hashes", "SHA256=AB", {"sha256": "ab"}),
        ("requires-python", ">=3.6.*", ">=3.6.*"),
        ("requires-python", "", None),
        ("requires-python", 3, None),
        ("requires-python", None, None),
        ("yanked", True, True),
        ("yanked", "why", "why"),
        ("yanked", "", None),
        ("yanked", False, None),
        ("yanked", None, None),
        ("yanked", 1, "1"),
        ("yanked", 0, None),
        ("yanked", [], None),
        ("yanked", {}, None),
        ("yanked", 2.5, "2.5"),
        ("yanked", ["a", 1], '["a",1]'),
        ("yanked", {"reason": "é"}, '{"reason":"é"}'),
        ("size", 0, 0),
        ("size", 2**70, 2**70),
        ("size", -1, None),
        ("size", True, None),
        ("size", 123.0, 123),
        ("size", 1.5, None),
        ("size", -1.0, None),
        ("size", 1e300, None),
        ("size", "123", 123),
        ("size", " 123 ", 123),
        ("size", "-1", None),
        ("size", "12 KB", None),
        ("size", "9" * 5000, None),
        ("size", "\u0663", None),
        ("size", None, None),
        ("upload-time", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
        ("upload-time", "2026-01-02T03:04:05.1Z", "2026-01-02T03:04:05.1Z"),
        ("upload-time", "2026-01-02T03:04:05.123456+00:00", "2026-01-02T03:04:05.123456Z"),
        ("upload-time", "2026-01-02T03:04:05.1234567Z", "2026-01-02T03:04:05.123456Z"),
        ("upload-time", "2026-01-02T03:04:05.123456789+02:00", "2026-01-02T01:04:05.123456Z"),
        ("upload-time", "2026-01-02T03:04:05,5Z", "2026-01-02T03:04:05.5Z"),
        ("upload-time", "2026-01-02t03:04:05z", "2026-01-02T03:04:05Z"),
        ("upload-time", "2026-01-02T03:04:05-0530", "2026-01-02T08:34:05Z"),
        ("upload-time", "2026-01-01T00:30:00+01", "2025-12-31T23:30:00Z"),
        ("upload-time", "2024-02-29T23:59:59.9-23:59", "2024-03-01T23:58:59.9Z"),
        ("upload-time", "0001-01-01T00:00:00+01:00", None),
        ("upload-time", "9999-12-31T23:59:59-01:00", None),
        ("upload-time", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("upload-time", "2026-01-02T03:04:05+25:00", None),
        ("upload-time", "2026-01-02T03:04:05", None),
        ("upload-time", "2026-01-02T03:04Z", "2026-01-02T03:04:00Z"),
        ("upload-time", "2026-01-02 03:04:05.25 UTC", "2026-01-02T03:04:05.25Z"),
        ("upload-time", "2026-01-02", None),
        ("upload-time", "2026-01-02T03:04:05+01:00", "2026-01-02T02:04:05Z"),
        ("upload-time", "2026-01-02 03:04:05Z", "2026-01-02T03:04:05Z"),
        ("upload-time", "2026-01-02 03:04:05.1 +00:00", "2026-01-02T03:04:05.1Z"),
        ("upload-time", "2026-13-02T03:04:05Z", None),
        ("upload-time", "2026-02-30T03:04:05Z", None),
        ("upload-time", "2026-01-02T24:00:00Z", None),
        ("upload-time", "2026-01-02T03:04:05Z\n", "2026-01-02T03:04:05Z"),
        ("upload-time", "\u0662026-01-02T03:04:05Z", None),
        ("upload-time", 1767323045, None),
        ("provenance", "https://index.example/p", "https://index.example/p"),
        ("provenance", "http://index.example/p", None),
        ("provenance", "/p", None),
        ("provenance", "https:///p", None),
        ("provenance", "https://user:secret@index.example/p", None),
        ("provenance", None, None),
        ("provenance", 7, None),
        ("gpg-sig", True, True),
        ("gpg-sig", False, False),
        ("gpg-sig", "True", True),
        ("gpg-sig", "false", False),
        ("gpg-sig", "yes", None),
        ("core-metadata", True, True),
        ("core-metadata", False, False),
        ("core-metadata", {"SHA256": "AB"}, {"sha256": "ab"}),
        ("core-metadata", {}, False),
        ("core-metadata", {"sha256": None}, None),
        ("core-metadata", "true", True),
        ("core-metadata", "False", False),
        ("core-metadata", "sha256=AB", {"sha256": "ab"}),
        ("core-metadata", "banana", True),
        ("core-metadata", "", True),
        ("core-metadata", 1, True),
        ("core-metadata", 0, False),
        ("core-metadata", None, None),
        ("future", {"a": None, "b": [None, {"c": None}]}, {"b": [None, {}]}),
        ("_private", 1, None),
    ],
)
def test_values_of_a_file(key: str, value: object, kept: object) -> None:
    """Each key is kept where its value is of the right kind, and otherwise not there at all."""
    entry = _only(**{key: value})
    assert entry.get(key) == kept
    assert (key in entry) == (kept is not None)
    assert type(entry.get(key)) is type(kept)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"dist-info-metadata": True}, True),
        ({"data-dist-info-metadata": {"sha256": "ab"}}, {"sha256": "ab"}),
        ({"dist-info-metadata": False, "core-metadata": True}, True),
        (
            {"data-dist-info-metadata": False, "dist-info-metadata": {"sha256": "ab"}},
            {"sha256": "ab"},
        ),
        ({"core-metadata": False, "dist-info-metadata": True}, False),
        ({"core-metadata": None, "dist-info-metadata": True}, True),
        ({"core-metadata": "x", "data-dist-info-metadata": True}, True),
    ],
)
def test_the_names_of_core_metadata_are_one(keys: dict[str, Any], expected: object) -> None:
    """Of three spellings the newest that says something counts, and only one is left."""
    entry = _only(**keys)
    assert entry["core-metadata"] == expected
    assert not {"dist-info-metadata", "data-dist-info-metadata"} & entry.keys()


@pytest.mark.parametrize(
    ("key", "value", "kept"),
    [
        ("versions", ["1.0", "2004d"], ["1.0", "2004d"]),
        ("versions", [], []),
        ("versions", ["1.0", "1.0"], ["1.0"]),
        ("versions", [1, 2.5, "3"], ["1", "2.5", "3"]),
        ("versions", ["1.0", True], None),
        ("versions", ["1.0", None], None),
        ("versions", "1.0", None),
        ("versions", None, None),
        ("project-status", {"status": "quarantined"}, {"status": "quarantined"}),
        ("project-status", {"status": "new", "x": 1}, {"status": "new", "x": 1}),
        ("project-status", {"status": "active", "reason": None}, {"status": "active"}),
        ("project-status", {"status": "active", "reason": 7}, {"status": "active"}),
        ("project-status", {"reason": "x"}, None),
        ("project-status", {"status": 7}, None),
        ("project-status", {"status": ""}, None),
        ("project-status", "active", None),
        ("project-status", None, None),
        (
            "meta",
            {"note": None, "_x": 1, "api-version": "1.0", "namespaces": [], "tracks": []},
            None,
        ),
        ("meta", {"note": {"a": None}}, {"note": {}}),
        ("future", None, None),
        ("future", False, False),
        ("_last-serial", 7, None),
        ("tracks", [], None),
        ("namespaces", [], None),
        ("alternate-locations", [], None),
        ("name", "other", None),
    ],
)
def test_values_of_the_page(key: str, value: object, kept: object) -> None:
    """Top-level keys are kept where their value is of the right kind and meant for us."""
    keys = _parse({key: value, "files": []}).keys
    assert keys.get(key) == kept
    assert (key in keys) == (kept is not None)


def test_what_is_nested_too_deeply_is_dropped() -> None:
    """No unknown value can exhaust the stack of those who read it later."""
    shallow: Any = 1
    for _ in range(10):
        shallow = {"a": [shallow]} if isinstance(shallow, int) else {"a": shallow}
    deep: Any = 1
    for _ in range(500):
        deep = [deep]
    project = _parse(
        {"shallow": shallow, "deep": deep, "files": [{"filename": "f", "url": "f", "deep": deep}]}
    )
    assert project.keys == {"shallow": shallow}
    assert "deep" not in project.files[0]


@pytest.mark.parametrize(
    "link", ["https://us%40er:secret@files.example/a/", "//user:secret@files.example/a/"]
)
def test_users_in_links_are_dropped(link: str) -> None:
    """What an index writes before a host is not kept; the rest of the link is, to the letter."""
    entry = _only(url=f"{link}foo-1.0.whl?sig=a%2Fb@c#sha256=abc")
    assert entry["url"] == "https://files.example/a/foo-1.0.whl?sig=a%2Fb@c"
