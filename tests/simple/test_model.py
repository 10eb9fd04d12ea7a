"""The model: which digest counts, and projects encoded for the cache."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.simple import model, render
from proxpi.simple.model import FileEntry, Project, best_hash, decode, encode, find, published_hash
from tests.support import strategies
from tests.support.strategies import deterministic, projects

DIGESTS = {
    name: hashlib.new(name, b"x", usedforsecurity=False).hexdigest() for name in model.ALGORITHMS
}


def an_entry(**keys: Any) -> FileEntry:
    return {"filename": "f", "url": "https://h.example/f", "hashes": {}, **keys}


@deterministic
@given(projects, strategies.json_values, st.data())
def test_encoded(project: Project, value: Any, data: st.DataObject) -> None:
    """Encoding loses nothing, unknown values included; a cut or doubled project is an error."""
    encoded = encode(project)
    assert (decode(encoded), encode(decode(encoded))) == (project, encoded)
    for damaged in (encoded[: data.draw(st.integers(0, len(encoded) - 1))], encoded + encoded):
        with pytest.raises(ValueError, match=r"."):
            decode(damaged)
    project = Project("foo", [an_entry(new=value)], {"new": value}, "1.9")
    assert decode(encode(project)) == project


HEAD = b'{"name":"a","keys":{},"version":"1.0","files":%d}\n'
LINE = b'{"filename":"f","url":"u","hashes":{}}\n'


def test_lines() -> None:
    """The first line has all but the files, each further one a file, its name in front."""
    data = encode(Project("a", [{"filename": "f", "url": "u", "hashes": {}}], {}))
    assert data == HEAD % 1 + LINE


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{}", b"[]", b"\n", b"\xff", b'{"name":1,"files":[],"keys":{}}'),
        *(HEAD % 1, HEAD % 0 + LINE, HEAD % 1 + LINE.strip(), HEAD % 1 + b"\n"),
        HEAD % 1 + b'{"filename":"f"}\n',
        HEAD % 1 + b'{"filename":1,"url":"u","hashes":{}}\n',
        HEAD % 1 + b'{"url":"u","filename":"f","hashes":{}}\n',
        HEAD % 1 + b'["filename"]\n',
        HEAD % 1 + b'{"filename":"f","url":"u","hashes":' + b"[" * 100_000 + b"\n",
        (HEAD % 1).replace(b"{}", b"[]") + LINE,
        (HEAD % 1).replace(b"{}", b"[" * 100_000) + LINE,
        (HEAD % 1).replace(b"{}", b'{},"x":1') + LINE,
    ],
)
def test_damaged(data: bytes) -> None:
    """Bytes that are no encoded project are a ValueError."""
    with pytest.raises(ValueError, match=r"."):
        decode(data)


@deterministic
@given(projects, strategies.filenames)
def test_find(project: Project, name: str) -> None:
    """The entry of every file is found, and none for a name that is not listed."""
    data = encode(project)
    listed = {entry["filename"]: entry for entry in project.files}
    assert {other: find(data, other) for other in listed} == listed
    assert find(data, name) == listed.get(name)


@pytest.mark.parametrize("name", ["f", "a.whl", "b", 'b"', "c\n", "c", "é", ""])
def test_find_nested(name: str) -> None:
    """Text that looks like a file inside of another, or in the name of one, is none."""
    nested = {"x": {"filename": "b", "y": '\n{"filename":"c","url":"u"'}}
    files = [
        an_entry(filename="a.whl.metadata", **nested),
        an_entry(filename='b",\n{"filename":"c'),
    ]
    assert find(encode(Project("f", files, {"filename": "f"})), name) is None


def test_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call encodes more than a file: while one runs, the reactor's thread waits."""
    sizes = []

    def recording(value: Any) -> bytes:
        sizes.append(len(msgspec.json.encode(value)))
        return msgspec.json.encode(value)

    project = Project("foo", [an_entry(filename=f"f{n}") for n in range(100)], {})
    monkeypatch.setattr(model, "to_json", recording)
    monkeypatch.setattr(render, "to_json", recording)
    encode(project)
    render.render_json(project)
    assert len(sizes) == 202
    assert max(sizes) < 100


@pytest.mark.parametrize(
    ("names", "best", "published"),
    [
        ("md5 sha256 sha512 blake2b", "sha256", "sha256"),
        *(("md5 sha512 blake2b", "sha512", "sha512"), ("blake2b sha384 md5", "blake2b", "sha384")),
        *(("blake2s sha1", "blake2s", "sha1"), ("sha3_256 sha224", "sha3_256", "sha3_256")),
        *(("sha1 md5", "sha1", "sha1"), ("blake2b", "blake2b", None), ("md5", "md5", "md5")),
        ("", None, None),
    ],
)
def test_best_hash(names: str, best: str | None, published: str | None) -> None:
    """sha256 before the strongest; blake2 verifies, but is not published."""
    hashes = {name: DIGESTS[name] for name in names.split()}
    assert best_hash(an_entry(hashes=hashes)) == (best and (best, DIGESTS[best]))
    assert published_hash(hashes) == (published and (published, DIGESTS[published]))


@pytest.mark.parametrize(
    "hashes",
    [
        *({"sha256": "ab"}, {"sha256": "g" * 64}, {"sha256": "a" * 64 + "\n"}, {"sha256": None}),
        *({"sha256": "\u0663" * 64}, {"blake2b": "a" * 64}, {"shake_128": "ab"}, None, ["sha256"]),
        {"unknown": "a" * 64},
    ],
)
def test_unusable_hashes(hashes: object) -> None:
    """A digest of the wrong length, form or algorithm is none, and hides no other."""
    assert best_hash(an_entry(hashes=hashes)) is published_hash(hashes) is best_hash({}) is None
    if isinstance(hashes, dict):
        hashes["md5"] = DIGESTS["md5"]
        assert best_hash(an_entry(hashes=hashes)) == ("md5", DIGESTS["md5"])


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        *((True, True), (False, False), (None, None), ("true", None), ({"sha256": "x"}, True)),
        ({"sha256": DIGESTS["sha256"]}, {"sha256": DIGESTS["sha256"]}),
        ({"sha256": "broken", "md5": DIGESTS["md5"]}, {"md5": DIGESTS["md5"]}),
    ],
)
def test_metadata_hash(stated: object, expected: object) -> None:
    """Usable digests, else whether there is metadata, else ``None``."""
    assert model.metadata_hash(an_entry(**{"core-metadata": stated})) == expected
    assert model.metadata_hash(an_entry()) is None


def test_skipped_links() -> None:
    """The first link that cannot be listed is kept, unless it is long, and all are counted."""
    for link, first in (("a", "a"), ("a" * 2001, "(2001 characters)")):
        skipped = model.SkippedLinks()
        skipped.add(link)
        skipped.add("b")
        assert (skipped.count, skipped.first) == (2, first)
