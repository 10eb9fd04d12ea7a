"""The model: which digest counts, and pages held as bytes."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.simple import model, render
from proxpi.simple.model import (
    FileEntry,
    Project,
    SkippedLinks,
    best_hash,
    decode,
    encode,
    find,
    metadata_hash,
    published_hash,
)
from tests.support.strategies import (
    deterministic,
    digests,
    entries,
    filenames,
    json_values,
    projects,
)


def _digest(name: str) -> str:
    return hashlib.new(name, b"x", usedforsecurity=False).hexdigest()


def _entry(**keys: Any) -> FileEntry:
    return {"filename": "f", "url": "https://h.example/f", "hashes": {}, **keys}


def _with(*names: str) -> FileEntry:
    return _entry(hashes={name: _digest(name) for name in names})


@deterministic
@given(projects())
def test_a_project_survives_being_held_as_bytes(project: Project) -> None:
    """Encoding loses nothing, and equal projects are equal bytes."""
    assert decode(encode(project)) == project
    assert encode(decode(encode(project))) == encode(project)


@deterministic
@given(json_values)
def test_unknown_values_survive_being_held_as_bytes(value: Any) -> None:
    """A key that nobody knows yet comes back with the very value that it had."""
    project = Project("foo", [_entry(new=value)], {"new": value}, "1.9")
    assert decode(encode(project)) == project


_HEAD = b'{"name":"a","keys":{},"version":"1.0","files":%d}\n'
_LINE = b'{"filename":"f","url":"u","hashes":{}}\n'


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{}", b"[]", b"\n", b"\xff", b'{"name":1,"files":[],"keys":{}}'),
        *(_HEAD % 1, _HEAD % 0 + _LINE, _HEAD % 1 + _LINE.strip(), _HEAD % 1 + b"\n"),
        _HEAD % 1 + b'{"filename":"f"}\n',
        _HEAD % 1 + b'{"filename":1,"url":"u","hashes":{}}\n',
        *(_HEAD % 1 + b'{"url":"u","filename":"f","hashes":{}}\n', _HEAD % 1 + b'["filename"]\n'),
        _HEAD % 1 + b'{"filename":"f","url":"u","hashes":' + b"[" * 100_000 + b"\n",
        (_HEAD % 1).replace(b"{}", b"[]") + _LINE,
        (_HEAD % 1).replace(b"{}", b"[" * 100_000) + _LINE,
        (_HEAD % 1).replace(b"{}", b'{},"x":1') + _LINE,
    ],
)
def test_other_bytes_are_refused(data: bytes) -> None:
    """What ``encode`` did not write is a ValueError, so that it can be thrown away."""
    with pytest.raises(ValueError, match=r"."):
        decode(data)


def test_what_is_written_is_read() -> None:
    """The first line is what is not a file, each further one a file, its name in front."""
    data = encode(Project("a", [{"hashes": {}, "url": "u", "filename": "f"}], {}))
    assert data == _HEAD % 1 + b'{"filename":"f","hashes":{},"url":"u"}\n'
    assert decode(_HEAD % 1 + _LINE) == decode(data)


@deterministic
@given(projects(), st.data())
def test_a_cut_project_is_refused(project: Project, data: st.DataObject) -> None:
    """What was written in part, or twice, is a ValueError wherever it was cut."""
    written = encode(project)
    with pytest.raises(ValueError, match=r"."):
        decode(written[: data.draw(st.integers(0, len(written) - 1))])
    with pytest.raises(ValueError, match=r"."):
        decode(written + written)


@deterministic
@given(projects(), filenames)
def test_a_file_is_found_by_its_name(project: Project, name: str) -> None:
    """The entry of every file is found, and none for a name that is not listed."""
    data = encode(project)
    listed = {entry["filename"]: entry for entry in project.files}
    assert {other: find(data, other) for other in listed} == listed
    assert find(data, name) == listed.get(name)


@pytest.mark.parametrize("name", ["f", "a.whl", "b", 'b"', "c\n", "c", "é", ""])
def test_only_a_file_is_found(name: str) -> None:
    """What looks like a file inside of another, or in the name of one, is none."""
    nested = {"x": {"filename": "b", "y": '\n{"filename":"c","url":"u"'}}
    files = [_entry(filename="a.whl.metadata", **nested), _entry(filename='b",\n{"filename":"c')]
    assert find(encode(Project("f", files, {"filename": "f"})), name) is None


def test_a_large_project_is_written_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call encodes more than a file: while one runs, the reactor's thread waits."""
    sizes = []

    def recording(value: Any) -> bytes:
        sizes.append(len(msgspec.json.encode(value)))
        return msgspec.json.encode(value)

    project = Project("foo", [_entry(filename=f"f{n}") for n in range(100)], {})
    monkeypatch.setattr(model, "to_json", recording)
    monkeypatch.setattr(render, "to_json", recording)
    encode(project)
    render.render_json(project)
    assert len(sizes) == 202
    assert max(sizes) < 100


@pytest.mark.parametrize(
    ("names", "best", "shown"),
    [
        (("md5", "sha256", "sha512", "blake2b"), "sha256", "sha256"),
        (("md5", "sha512", "blake2b"), "sha512", "sha512"),
        (("blake2b", "sha384", "md5"), "blake2b", "sha384"),
        (("blake2s", "sha1"), "blake2s", "sha1"),
        *((("sha3_256", "sha224"), "sha3_256", "sha3_256"), (("sha1", "md5"), "sha1", "sha1")),
        *((("blake2b",), "blake2b", None), (("md5",), "md5", "md5"), ((), None, None)),
    ],
)
def test_which_digest_counts(names: tuple[str, ...], best: str | None, shown: str | None) -> None:
    """sha256 before the strongest; blake2 serves for checking, but is not published."""
    assert best_hash(_with(*names)) == (best and (best, _digest(best)))
    assert published_hash(_with(*names)["hashes"]) == (shown and (shown, _digest(shown)))


@pytest.mark.parametrize(
    "hashes",
    [
        *({"sha256": "ab"}, {"sha256": "g" * 64}, {"sha256": "a" * 64 + "\n"}),
        *({"sha256": "\u0663" * 64}, {"sha256": None}, {"blake2b": "a" * 64}),
        *({"shake_128": "ab"}, {"unknown": "a" * 64}, None, ["sha256"]),
    ],
)
def test_unusable_digests_do_not_count(hashes: object) -> None:
    """A digest of the wrong length, not hexadecimal or of an unknown algorithm is none."""
    assert best_hash(_entry(hashes=hashes)) is None
    assert published_hash(hashes) is None
    assert best_hash({}) is None


def test_an_unusable_digest_leaves_the_next_one() -> None:
    """A broken sha256 does not keep the md5 beside it from being used."""
    entry = _entry(hashes={"sha256": "broken", "md5": _digest("md5")})
    assert best_hash(entry) == published_hash(entry["hashes"]) == ("md5", _digest("md5"))


@deterministic
@given(digests(), entries())
def test_the_best_digest_can_be_computed(hashes: dict[str, str], entry: FileEntry) -> None:
    """hashlib knows every algorithm that is chosen, and the digest is one of those given."""
    best = best_hash(entry | {"hashes": hashes})
    assert (best is None) == (not hashes)
    assert best is None or (hashlib.new(best[0]).digest_size * 2, best[1]) == (
        len(hashes[best[0]]),
        hashes[best[0]],
    )


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        *((True, True), (False, False), (None, None), ("true", None)),
        ({"sha256": _digest("sha256")}, {"sha256": _digest("sha256")}),
        ({"sha256": "broken", "md5": _digest("md5")}, {"md5": _digest("md5")}),
        ({"sha256": "broken"}, True),
    ],
)
def test_core_metadata(stated: object, expected: object) -> None:
    """Usable digests, or whether there is metadata, or nothing where the index says nothing."""
    assert metadata_hash(_entry(**{"core-metadata": stated})) == expected
    assert metadata_hash(_entry()) is None


def test_skipped() -> None:
    """The first link that cannot be listed is kept, unless it is long, and all are counted."""
    for link, first in (("a", "a"), ("a" * 2001, "(2001 characters)")):
        skipped = SkippedLinks()
        skipped.add(link)
        skipped.add("b")
        assert (skipped.count, skipped.first) == (2, first)
