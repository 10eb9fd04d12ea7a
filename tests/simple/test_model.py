"""The model: which digest counts, and pages held as bytes."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given

from proxpi.simple.model import (
    Entry,
    Project,
    best_hash,
    decode,
    encode,
    metadata_hash,
    shown_hash,
)
from tests.support.strategies import deterministic, digests, entries, json_values, projects


def _digest(name: str) -> str:
    return hashlib.new(name, b"x", usedforsecurity=False).hexdigest()


def _entry(**keys: Any) -> Entry:
    return {"filename": "f", "url": "https://h.example/f", "hashes": {}, **keys}


def _with(*names: str) -> Entry:
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


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"name":1,"files":[],"keys":{}}'])
def test_other_bytes_are_refused(data: bytes) -> None:
    """What ``encode`` did not write is a ValueError, so that it can be thrown away."""
    with pytest.raises(ValueError, match=r"."):
        decode(data)


@pytest.mark.parametrize(
    ("names", "best", "shown"),
    [
        (("md5", "sha256", "sha512", "blake2b"), "sha256", "sha256"),
        (("md5", "sha512", "blake2b"), "sha512", "sha512"),
        (("blake2b", "sha384", "md5"), "blake2b", "sha384"),
        (("blake2s", "sha1"), "blake2s", "sha1"),
        (("sha3_256", "sha224"), "sha3_256", "sha3_256"),
        (("sha1", "md5"), "sha1", "sha1"),
        (("blake2b",), "blake2b", None),
        (("md5",), "md5", "md5"),
        ((), None, None),
    ],
)
def test_which_digest_counts(names: tuple[str, ...], best: str | None, shown: str | None) -> None:
    """sha256 before the strongest; blake2 serves for checking, but is not published."""
    assert best_hash(_with(*names)) == (best and (best, _digest(best)))
    assert shown_hash(_with(*names)) == (shown and (shown, _digest(shown)))


@pytest.mark.parametrize(
    "hashes",
    [
        {"sha256": "ab"},
        {"sha256": "g" * 64},
        {"sha256": "a" * 64 + "\n"},
        {"sha256": "\u0663" * 64},
        {"sha256": None},
        {"blake2b": "a" * 64},
        {"shake_128": "ab"},
        {"unknown": "a" * 64},
        None,
        ["sha256"],
    ],
)
def test_unusable_digests_do_not_count(hashes: object) -> None:
    """A digest of the wrong length, not hexadecimal or of an unknown algorithm is none."""
    assert best_hash(_entry(hashes=hashes)) is None
    assert shown_hash(_entry(hashes=hashes)) is None
    assert best_hash({}) is None


def test_an_unusable_digest_leaves_the_next_one() -> None:
    """A broken sha256 does not keep the md5 beside it from being used."""
    entry = _entry(hashes={"sha256": "broken", "md5": _digest("md5")})
    assert best_hash(entry) == shown_hash(entry) == ("md5", _digest("md5"))


@deterministic
@given(digests(), entries())
def test_the_best_digest_can_be_computed(hashes: dict[str, str], entry: Entry) -> None:
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
        (True, True),
        (False, False),
        (None, None),
        ("true", None),
        ({"sha256": _digest("sha256")}, {"sha256": _digest("sha256")}),
        ({"sha256": "broken", "md5": _digest("md5")}, {"md5": _digest("md5")}),
        ({"sha256": "broken"}, True),
    ],
)
def test_core_metadata(stated: object, expected: object) -> None:
    """Usable digests, or whether there is metadata, or nothing where the index says nothing."""
    assert metadata_hash(_entry(**{"core-metadata": stated})) == expected
    assert metadata_hash(_entry()) is None
