"""Files that say nothing unusual: read another way, and to the byte as all others are."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.simple import entries, usual
from proxpi.simple.model import Lines, Project, encode
from proxpi.simple.parse import parse_project
from proxpi.simple.render import render_html, render_json
from tests.support.strategies import deterministic, json_values, raw_files

A, B = "a" * 64, "0123456789abcdef" * 4
BASE = "https://index.example/simple/foo/"
USUAL: dict[str, Any] = {
    "core-metadata": {"sha256": A},
    "data-dist-info-metadata": {"sha256": B},
    "filename": "foo-1.0-py3-none-any.whl",
    "hashes": {"sha256": B},
    "provenance": "https://index.example/integrity/foo",
    "requires-python": ">=3.9",
    "size": 123,
    "upload-time": "2026-01-31T03:04:05.678901Z",
    "url": "https://files.example/packages/aa/foo-1.0-py3-none-any.whl",
    "yanked": False,
}
#: Values of a key, of which some are usual and others are not.
ODD: dict[str, list[Any]] = {
    "core-metadata": [None, True, False, {}, {"sha256": "x"}, {"md5": "0" * 32}, 1, [], {"a": 1}],
    "data-dist-info-metadata": [None, True, {}, 1],
    "dist-info-metadata": [None, True, {"sha256": A}],
    "filename": [None, "", ".", "..", ".foo", "a b", "a/b", "a\nb", "é", "a+b", 'a"', "a\\", 1],
    "gpg-sig": [None, True, False, "yes"],
    "hashes": [None, {}, {"sha256": B.upper()}, {"sha256": B[1:]}, {"sha256": B[1:] + "\n"}]
    + [{"sha256": B[2:] + "\n\n"}, {"sha256": B, "md5": "0" * 32}, {"sha256": None}, []],
    "provenance": [None, "", "http://a.example/", "https://u:p@a.example/", "https://", "https://a"]
    + ["https://a/\n", "https://a/é", 'https://a/"', "https://a.example:99999/", "HTTPS://a/", 1],
    "requires-python": [None, "", "<4\n", 'é"', 1, [">=3"]],
    "size": [None, -1, 0, 1.0, True, 2**53, 2**53 + 1, 2**70, "1"],
    "upload-time": [
        None,
        "",
        "2026-02-29T00:00:00Z",
        "2024-02-29T00:00:00Z",
        "0000-01-01T00:00:00Z",
    ]
    + ["2026-04-31T00:00:00Z", "2026-04-30T23:59:59.1Z", "2026-01-01T24:00:00Z", 1]
    + ["2026-01-01T00:00:60Z", "2026-01-01T00:00:00.1234567Z", "2026-01-01T00:00:00+00:00"]
    + ["2026-01-01T00:00:00Z\n", "2026-01-01T00:00:00Z\n2026-01-01T00:00:00Z"],
    "url": [None, "", "foo.whl", "/foo.whl", "//a/foo", "https://files.example/a#b", "ftp://a/b"]
    + ["https://files.example/a b", "https://files.example/é", "https://other.example/a"]
    + ["https://files.example/a\n", 'https://files.example/"', "https://files.example/\\"]
    + ["https://u:p@files.example/a", "https://files.example", "http://files.example:80/a"]
    + ["https://files.example:99999/a", "HTTPS://files.example/a", "https://../a"],
    "yanked": [None, True, "", "broken\n", 0, {}],
    "x-new": [1, None],
    "_private": [1],
}


def _same(files: list[dict[str, Any]]) -> Lines | None:
    """Read files in both ways; what the quicker one gives is what the other does, to the byte."""
    pieces = [msgspec.Raw(json.dumps(file).encode()) for file in files]
    read = usual.read(pieces, BASE)
    if read is not None:
        found = entries.usable(files, BASE)
        keys = {"versions": ["1.0"]}
        quick, other = Project("foo", read, keys), Project("foo", found, keys)
        assert read == found
        assert encode(quick) == encode(other)
        assert render_json(quick) == render_json(other)
        assert render_html(quick) == render_html(other)
    return read


@deterministic
@given(
    st.lists(
        st.dictionaries(st.sampled_from(sorted(ODD)), st.integers(0, 30), max_size=2), max_size=4
    )
)
def test_no_value_is_read_otherwise(changes: list[dict[str, int]]) -> None:
    """Whatever the values are, and in whatever company, either both ways agree or one declines."""
    files = []
    for number, changed in enumerate(changes):
        names = {"filename": f"foo-{number}.whl", "url": f"https://files.example/{number}"}
        odd = {key: ODD[key][choice % len(ODD[key])] for key, choice in changed.items()}
        files.append(USUAL | names | odd)
    _same(files)


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in ODD.items() for value in values]
)
def test_each_odd_value(key: str, value: Any) -> None:
    """No odd value of any key comes through in another form than it always had."""
    _same([USUAL | {key: value}])


@deterministic
@given(
    st.lists(raw_files(), max_size=3), st.dictionaries(st.sampled_from(sorted(USUAL)), json_values)
)
def test_any_page(files: list[dict[str, Any]], changed: dict[str, Any]) -> None:
    """Pages as indexes may write them, or as they may not, are read as they always were."""
    _same(files)
    _same([USUAL | changed])


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"yanked": "broken"},
        {"core-metadata": True, "provenance": None},
        {"core-metadata": None, "data-dist-info-metadata": None},
        {"size": None, "upload-time": None, "requires-python": None},
        {"url": "http://127.0.0.1:8080/a?b=%20"},
    ],
)
def test_usual_ones_are_read(changed: dict[str, Any]) -> None:
    """What large indexes say of their files is usual: it is not declined."""
    file = {key: value for key, value in (USUAL | changed).items() if value is not None}
    assert _same([file]) is not None


def _many(count: int) -> list[dict[str, Any]]:
    return [
        USUAL | {"filename": f"foo-{number}.whl", "url": f"https://files.example/{number}"}
        for number in range(count)
    ]


def test_no_object_for_a_file() -> None:
    """Out of a page of three hundred files no object of a file is made until one is looked at."""
    page = {"meta": {"api-version": "1.4"}, "name": "foo", "versions": [], "files": _many(300)}
    files = parse_project(json.dumps(page).encode(), None, BASE, "foo").files
    assert isinstance(files, Lines)
    assert {type(line) for line in files.lines} == {bytes}
    assert [entry["filename"] for entry in files[298:]] == ["foo-298.whl", "foo-299.whl"]
    assert files[7]["url"] == "https://files.example/7"


def test_a_name_twice_is_unusual() -> None:
    """Of two files with one name the first counts, which is not for the quick way to say."""
    assert usual.read([msgspec.Raw(json.dumps(USUAL).encode())] * 2, BASE) is None


def test_many_are_read_in_batches() -> None:
    """The last file of a long page is looked at as well as the first."""
    files = _many(usual.BATCH + 1)
    assert _same(files) is not None
    files[-1]["filename"] = "a b"
    assert _same(files) is None
