"""Entries of the OSV schema: what is read of them, which files match, what a list tells."""

from __future__ import annotations

import io
import json
import zipfile
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import InvalidVersion, Version

from proxpi.rules import osv
from proxpi.rules.osv import Advisory, FeedDamaged, Listing, Record
from tests.support.advisories import Entries, affected, document, in_range

SHA256 = "5f" * 32


def advisory(*stated: dict[str, Any], name: str = "evil", **keys: Any) -> Advisory | None:
    """Return the advisory of a project that an entry is read as."""
    data = json.dumps(document("MAL-2026-1", *stated, **keys)).encode()
    record = osv.read_record(data, "MAL-2026-1")
    found = osv.advisories([record], name)
    return found[0] if found else None


def version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.sampled_from(["package", "name", "ecosystem", "type", "events", "introduced", "purl"])
    return st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)


RANGES = {
    "all": [in_range(introduced="0")],
    "before": [in_range(introduced="0", fixed="2")],
    "until": [in_range(introduced="1", last_affected="2")],
    "limited": [in_range(introduced="0", limit="2")],
    "no limit": [in_range(introduced="1", limit="*")],
    "two": [in_range(introduced="1", fixed="2"), in_range(introduced="3", fixed="4")],
    "again": [
        {
            "type": "ECOSYSTEM",
            "events": [{"introduced": "1"}, {"fixed": "2"}, {"introduced": "3"}, {"fixed": "4"}],
        }
    ],
    "same version": [
        {"type": "ECOSYSTEM", "events": [{"fixed": "1"}, {"introduced": "1"}, {"introduced": "0"}]}
    ],
    "out of order": [
        {"type": "ECOSYSTEM", "events": [{"fixed": "4"}, {"introduced": "3"}, {"fixed": "1"}]}
    ],
    "odd introduced": [in_range(introduced="first", fixed="2")],
    "odd fixed": [in_range(introduced="1", fixed="second")],
    "fixed alone": [in_range(fixed="2")],
    "of git": [in_range("GIT", introduced="0")],
    "semantic": [in_range("SEMVER", introduced="0")],
    "empty": [],
}


@pytest.mark.parametrize(
    ("ranges", "matched", "others"),
    [
        ("all", ["0.dev0", "1", "99!1", "1.0-odd"], []),
        ("before", ["0.dev0", "1.9", "2rc1"], ["2", "2.0.1", "1.0-odd"]),
        ("until", ["1", "1.5", "2.0"], ["0.9", "1rc1", "2.0.post1", "1.0-odd"]),
        ("limited", ["0", "1.9"], ["2", "3", "1.0-odd"]),
        ("no limit", ["1", "9"], ["0.9"]),
        ("two", ["1", "3.9"], ["0.9", "2", "2.9", "4"]),
        ("again", ["1", "3.9"], ["0.9", "2", "2.9", "4"]),
        ("same version", ["0", "1", "2"], []),
        ("out of order", ["3", "3.5"], ["0", "2", "4"]),
        ("odd introduced", ["0", "1.9"], ["2"]),
        ("odd fixed", ["1", "99"], ["0.9"]),
        ("fixed alone", [], ["1", "2", "1.0-odd"]),
        ("of git", [], ["1", "1.0-odd"]),
        ("semantic", [], ["1", "1.0-odd"]),
        ("empty", [], ["1", "1.0-odd"]),
    ],
)
def test_ranges(ranges: str, matched: list[str], others: list[str]) -> None:
    """A version is affected as the evaluation of the OSV schema says, in the order of PEP 440."""
    found = advisory(affected("evil", ranges=RANGES[ranges]))
    assert found is not None
    assert [each for each in matched if not found.matches(version(each), {})] == []
    assert [each for each in others if found.matches(version(each), {})] == []


def is_vulnerable(version: Version, events: list[dict[str, str]]) -> bool:
    """The pseudo-code of the OSV schema ("Evaluation"), word for word."""

    def order(event: dict[str, str]) -> tuple[bool, Version]:
        (text,) = event.values()
        return event != {"introduced": "0"}, Version(text)

    limits = [Version(event["limit"]) for event in events if "limit" in event]
    if limits and not any(version < limit for limit in limits):
        return False
    vulnerable = False
    for event in sorted((each for each in events if "limit" not in each), key=order):
        if "introduced" in event and (
            event["introduced"] == "0" or version >= Version(event["introduced"])
        ):
            vulnerable = True
        fixed, last = event.get("fixed"), event.get("last_affected")
        if (fixed and version >= Version(fixed)) or (last and version > Version(last)):
            vulnerable = False
    return vulnerable


VERSIONS = st.sampled_from(["0", "0.dev0", "0.1", "1rc1", "1", "1.0", "1.post1", "1.5", "2", "1!0"])
KINDS = st.sampled_from(["introduced", "fixed", "last_affected", "limit"])


@given(st.lists(st.tuples(KINDS, VERSIONS), max_size=6), VERSIONS)
def test_any_range(events: list[tuple[str, str]], text: str) -> None:
    """Any range is evaluated as the pseudo-code of the OSV schema says."""
    stated = [{kind: bound} for kind, bound in events]
    found = advisory(affected("evil", ranges=[{"type": "ECOSYSTEM", "events": stated}]))
    assert found is not None
    assert found.matches(Version(text), {}) == is_vulnerable(Version(text), stated)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=3), nested))
def test_any_entry(value: Any) -> None:
    """An entry is read or refused, with any value in any field."""
    for key in ("id", "modified", "withdrawn", "affected"):
        data = json.dumps(document("MAL-2026-1", affected("evil")) | {key: value}).encode()
        with suppress(FeedDamaged):
            osv.read_record(data, "MAL-2026-1")
    for place in ("package", "versions", "ranges"):
        stated = affected("evil") | {place: value}
        with suppress(FeedDamaged):
            osv.read_record(json.dumps(document("MAL-2026-1", stated)).encode(), "MAL-2026-1")


@pytest.mark.parametrize(
    ("listed", "matched", "others"),
    [
        (["1.0"], ["1", "1.0.0", "v1.0"], ["1.0.1", "1.0+local", "1.0-odd"]),
        (["1.0RC1", "2"], ["1rc1", "2.0"], ["1", "1rc2"]),
        (["1.0-odd"], ["2004-odd"], ["1.0", "2004"]),
        (["9" * 5000, "2"], ["2", "2004-odd"], ["9"]),
    ],
)
def test_versions(listed: list[str], matched: list[str], others: list[str]) -> None:
    """Listed versions are compared as PEP 440 does, and those that it cannot read with files
    whose version it cannot read either."""
    found = advisory(affected("evil", *listed))
    assert found is not None
    assert [each for each in matched if not found.matches(version(each), {})] == []
    assert [each for each in others if found.matches(version(each), {})] == []


def test_digests() -> None:
    """A file is affected by its digest if the package URL states that, in any project's version."""
    package = {
        "ecosystem": "PyPI",
        "name": "evil",
        "purl": f"pkg:pypi/evil?checksum=md5:00,sha256:{SHA256.upper()}#sub",
    }
    found = advisory(affected("evil", "9", package=package))
    assert found is not None
    assert found.matches(Version("1"), {"sha256": SHA256, "md5": "11"})
    assert found.matches(Version("1"), {"md5": "00"})
    assert found.matches(None, {"sha256": SHA256})
    assert not found.matches(Version("1"), {"sha256": "00" * 32, "blake2b_256": SHA256})
    assert not found.matches(Version("1"), {})


@pytest.mark.parametrize(
    "stated",
    [
        {
            "database_specific": {
                "indicators": {"package_integrity": [{"hashes": {"sha256": SHA256}}]}
            }
        },
        {"ecosystem_specific": {"hashes": {"sha256": SHA256}}},
    ],
)
def test_what_databases_say_specifically(stated: dict[str, Any]) -> None:
    """The fields of a database or an ecosystem affect no file."""
    found = advisory(
        affected("evil", ranges=[], **stated),
        database_specific={"malicious-packages-origins": [{"sha256": SHA256, "versions": ["1"]}]},
    )
    assert found == Advisory("MAL-2026-1")
    assert not found.matches(Version("1"), {"sha256": SHA256})


@pytest.mark.parametrize(
    ("stated", "name"),
    [
        (affected("Evil_Tool.X"), "evil-tool-x"),
        (affected("evil", package={"ecosystem": "PyPI:local", "name": "evil"}), "evil"),
    ],
)
def test_projects(stated: dict[str, Any], name: str) -> None:
    """A project is found by its normalized name, in the ecosystem PyPI or a part of it."""
    assert advisory(stated, name=name) is not None


@pytest.mark.parametrize(
    "stated",
    [
        affected("evil", package={"ecosystem": "npm", "name": "evil"}),
        affected("evil", package={"ecosystem": "Root:PyPI", "name": "evil"}),
        affected("evil", package={"ecosystem": "PyPI", "name": "../evil"}),
        affected("evil", package=None),
        affected("other"),
    ],
)
def test_other_packages(stated: dict[str, Any]) -> None:
    """Packages elsewhere, and names that no project has, do not count."""
    assert advisory(stated) is None


def test_withdrawn() -> None:
    """A withdrawn entry affects nothing."""
    assert advisory(affected("evil"), withdrawn="2026-03-02T00:00:00Z") is None
    assert advisory(affected("evil"), withdrawn=None) is not None


def test_several_statements() -> None:
    """The statements of an entry about one project are one advisory."""
    found = advisory(affected("evil", "1"), affected("other", "2"), affected("Evil", "3"))
    assert found == Advisory("MAL-2026-1", versions=("1", "3"))


def test_nulls() -> None:
    """Null stands for an empty list, as some programs write it."""
    found = advisory(affected("evil", "1") | {"ranges": None}, severity=None)
    assert found == Advisory("MAL-2026-1", versions=("1",))
    assert advisory(affected("evil", ranges=[{"type": "ECOSYSTEM", "events": None}])) is not None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"id": "MAL-2026-1"',
        b'{"id": "MAL-2026-1"}',
        b'{"id": "MAL-2026-1", "modified": "yesterday"}',
        b'{"id": "MAL-2026-2", "modified": "2026-03-01T00:00:00Z"}',
        b'{"id": "MAL-2026-1", "modified": "2026-03-01T00:00:00Z", "affected": ["evil"]}',
        b'{"id": "MAL-2026-1", "modified": "2026-13-01T00:00:00Z"}',
        b'{"id": "MAL-2026-1", "modified": "2026-03-01T00:00:00Z", "x": ' + b"[" * 100_000,
    ],
)
def test_no_entry(data: bytes) -> None:
    """A document that is no whole entry, or another one, is refused with its identifier."""
    with pytest.raises(FeedDamaged, match="MAL-2026-1"):
        osv.read_record(data, "MAL-2026-1")


def test_times() -> None:
    """Times of any precision are compared as times."""
    assert osv.nanoseconds("1970-01-01T00:00:01Z") == 10**9
    assert osv.nanoseconds("1970-01-01T00:00:01.5Z") == 1_500_000_000
    assert osv.nanoseconds("1970-01-01T00:00:01.500000001+00:00") == 1_500_000_001
    for wrong in ("1970-01-01", "1970-01-01T00:00:01", "1970-01-01T00:00:01+01:00", ""):
        with pytest.raises(ValueError, match="no time"):
            osv.nanoseconds(wrong)


def read(data: bytes) -> list[str]:
    return [record.id for record in osv.read_archive(io.BytesIO(data))]


def archive(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        for name, data in members.items():
            opened.writestr(name, data)
    return file.getvalue()


def test_archive() -> None:
    """Of an archive the entries on malicious packages are read, in any folder of it."""
    entries = Entries({"PYSEC-2026-1": {"id": "PYSEC-2026-1"}})
    entries.put("MAL-2026-1", affected("evil"))
    assert read(entries.archive) == ["MAL-2026-1"]
    inner = entries.data("MAL-2026-1")
    members = {"PyPI/MAL-2026-1.json": inner, "MAL-2026-1.txt": b"", "MAL-.json": b""}
    assert read(archive(**members)) == ["MAL-2026-1"]
    assert read(archive()) == []


def test_archive_with_an_unreadable_entry() -> None:
    """One entry that cannot be read does not hide the others; an archive of such is refused."""
    entries = Entries()
    entries.put("MAL-2026-1", affected("evil"))
    bad = {"MAL-2026-0.json": b"{", "MAL-2026-1.json": entries.data("MAL-2026-1")}
    assert read(archive(**bad)) == ["MAL-2026-1"]
    with pytest.raises(FeedDamaged, match="MAL-2026-0"):
        read(archive(**{"MAL-2026-0.json": b"{"}))


def test_damaged_archives() -> None:
    """An archive that is cut, changed, or none at all is refused."""
    entries = Entries()
    for number in range(50):
        entries.put(f"MAL-2026-{number}", affected(f"evil-{number}"))
    whole = entries.archive
    middle = len(whole) // 3
    changed = whole[:middle] + bytes(byte ^ 255 for byte in whole[middle : middle + 40])
    changed += whole[middle + 40 :]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_LZMA) as opened:
        opened.writestr("MAL-2026-1.json", entries.data("MAL-2026-1"))
    for data in (
        b"",
        b"<html>",
        whole[:-1],
        whole[: len(whole) // 2],
        whole[100:],
        changed,
        packed.getvalue(),
    ):
        with pytest.raises(FeedDamaged, match="archive"):
            read(data)


def test_large_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry, or all of them together, may not be larger than memory allows."""
    entries = Entries()
    for number in range(9):
        entries.put(f"MAL-2026-{number}", affected("evil"))
    size = len(entries.data("MAL-2026-1"))
    for name, limit in (("ENTRY_LIMIT", size - 1), ("ENTRIES_LIMIT", size * 9 - 1)):
        with monkeypatch.context() as patch:
            patch.setattr(osv, name, limit)
            with pytest.raises(FeedDamaged, match="too large"):
                read(entries.archive)


T1, T2 = "2026-03-01T10:00:00Z", "2026-03-02T10:00:00.5Z"


def test_listing() -> None:
    """The list tells when entries on malicious packages were modified; others do not count."""
    text = f"{T2},MAL-2026-2\r\n{T2},GHSA-1\n\n{T1},PyPI/MAL-2026-1\n{T1},MAL-2026-2\n"
    listing = osv.read_listing(text.encode())
    assert listing.modified == {
        "MAL-2026-2": osv.nanoseconds(T2),
        "MAL-2026-1": osv.nanoseconds(T1),
    }
    assert listing.whole
    assert osv.read_listing(b"") == Listing({})


def test_listing_that_may_be_cut() -> None:
    """A list without a last line end, or whose end was not announced, may be cut."""
    text = f"{T2},MAL-2026-2\n{T1},MAL-2026-1"
    assert not osv.read_listing(text.encode()).whole
    assert not osv.read_listing(f"{text}\n".encode(), ended=False).whole
    assert osv.read_listing(f"{text}\n".encode()).whole


@pytest.mark.parametrize(
    "text",
    [
        "<html>\n",
        "modified,id\n",
        f"{T1}\n{T1},MAL-2026-1\n2026-03-0",
        f"MAL-2026-1,{T1}\n",
        "yesterday,MAL-2026-1\n",
        f"{T1},npm/MAL-2026-1\n",
        f"{T1},../MAL-2026-1\n",
        f"{T1},MAL-2026-1?x\n",
        f"{T1},MAL-\n",
        "\xff",
    ],
)
def test_no_listing(text: str) -> None:
    """A document that is no list of entries is refused."""
    with pytest.raises(FeedDamaged, match="list"):
        osv.read_listing(text.encode("latin-1"))


def test_changed() -> None:
    """Entries that are new in the list, or newer than the known version, have changed."""
    known = {"a": 5, "b": 5, "c": 5, "zero": -9}
    assert osv.changed(known, Listing({"a": 6, "b": 5, "c": 4, "d": 1, "e": -9})) == ["a", "d", "e"]


def numbered(numbers: range) -> dict[str, int]:
    """Return a hundred times, or some of them: the smaller the number, the newer."""
    return {f"MAL-2026-{number}": 1000 - number for number in numbers}


@pytest.mark.parametrize(
    ("listing", "gone"),
    [
        (Listing(numbered(range(100))), 0),
        (Listing(numbered(range(-50, 100))), 0),
        (Listing(numbered(range(0, 100, 2))), 50),
        (Listing(numbered(range(90))), 10),
        (Listing(numbered(range(30, 100))), 30),
        (Listing(numbered(range(100)), whole=False), 0),
    ],
)
def test_vanished(listing: Listing, gone: int) -> None:
    """Known entries that a list lacks have vanished."""
    assert len(osv.vanished(numbered(range(100)), listing)) == gone


@pytest.mark.parametrize(
    "listing",
    [
        Listing({}),
        Listing(numbered(range(89))),
        Listing(numbered(range(0, 98, 2))),
        Listing(numbered(range(99)), whole=False),
        Listing(numbered(range(200, 300))),
    ],
)
def test_list_that_is_too_short(listing: Listing) -> None:
    """A list that is cut at its old end, or lacks most entries, changes nothing."""
    with pytest.raises(FeedDamaged, match="too short"):
        osv.vanished(numbered(range(100)), listing)


def test_nothing_known() -> None:
    """The first list may be empty, as the database may be."""
    assert osv.vanished({}, Listing({})) == set()
    assert osv.vanished({}, Listing({"MAL-2026-1": 1}, whole=False)) == set()


def test_values() -> None:
    """Advisories are equal, and written equally, if they match the same files."""
    one = osv.advisories([Record("MAL-1", 1, (osv.Affected("evil", ("1",)),))], "evil")
    two = osv.advisories([Record("MAL-1", 2, (osv.Affected("evil", ("1",)),))], "evil")
    assert one == two
    assert one[0].matches(Version("1"), {})
    assert repr(one) == repr(two)
    assert one != osv.advisories([Record("MAL-1", 2, (osv.Affected("evil", ("2",)),))], "evil")
