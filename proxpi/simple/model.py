"""One project of an index: what a page says, between parsing and rendering (PEP 691, PEP 700).

A file is kept as the specification's own JSON object, so that a key that does not exist yet
passes through by itself; the functions here read the keys that proxpi acts upon.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import attrs
import msgspec

Entry: TypeAlias = dict[str, Any]
"""One file, by the specification's keys: ``filename``, ``url`` (absolute, without fragment),
``hashes`` (always there, lower case) and whatever else the index told."""

# Strongest first, but for sha256: it is what the specification recommends and what lock files hold.
_ALGORITHMS = (
    "sha256",
    "sha512",
    "sha3_512",
    "blake2b",
    "sha384",
    "sha3_384",
    "sha3_256",
    "blake2s",
    "sha224",
    "sha3_224",
    "sha1",
    "md5",
)
_HEX = {
    name: re.compile(f"[0-9a-f]{{{2 * hashlib.new(name, usedforsecurity=False).digest_size}}}")
    for name in _ALGORITHMS
}


@attrs.frozen
class Project:
    """What an index says about one project.

    :ivar name: Its normalized name.
    :ivar files: Its files in the order of the page; no name occurs twice.
    :ivar keys: Every other top-level key to pass on: ``versions``, ``project-status``, unknown
        ones, and under ``meta`` the unknown keys of that object.
    :ivar version: The API version that the index stated, ``1.0`` where it stated none.
    """

    name: str
    files: Sequence[Entry]
    keys: Mapping[str, Any]
    version: str = "1.0"


def encode(project: Project) -> bytes:
    """Write a project down, compact and without loss; no client sees this form."""
    return msgspec.json.encode(project)


def decode(data: bytes) -> Project:
    """Read what ``encode`` wrote.

    :raises ValueError: When it did not write this.
    """
    return msgspec.json.decode(data, type=Project)


def find(data: bytes, filename: str) -> Entry | None:
    """
    Give the entry of one file out of what ``encode`` wrote, and leave the others undecoded.

    A page may list thousands of files, of which a client wants one.
    """
    quoted = msgspec.json.encode(filename)
    for raw in msgspec.json.decode(data, type=_Files).files:
        if quoted in bytes(raw):
            entry: Entry = msgspec.json.decode(raw)
            if entry["filename"] == filename:
                return entry
    return None


class _Files(msgspec.Struct):
    """What ``find`` reads of a project."""

    files: list[msgspec.Raw]


def _usable(hashes: object) -> dict[str, str]:
    """Select the digests that can be computed and have the length of their algorithm."""
    if not isinstance(hashes, dict):
        return {}
    found = {
        name: digest
        for name, digest in hashes.items()
        if name in _HEX and isinstance(digest, str) and _HEX[name].fullmatch(digest)
    }
    # Most files have one digest, and most pages many files.
    return found if len(found) < 2 else {name: found[name] for name in _HEX if name in found}


def best_hash(entry: Entry) -> tuple[str, str] | None:
    """Give algorithm and digest by which to verify the bytes of a file, or None."""
    return next(iter(_usable(entry.get("hashes")).items()), None)


def shown_hash(entry: Entry) -> tuple[str, str] | None:
    """Give algorithm and digest to publish: sha256 if there is one, else the strongest, or None.

    Never blake2: pip takes the name for its longest digest, uv for 256 bits, and uv refuses a
    whole page for one digest whose length it does not expect.
    """
    usable = _usable(entry.get("hashes")).items()
    return next((found for found in usable if not found[0].startswith("blake2")), None)


def metadata_hash(entry: Entry) -> dict[str, str] | bool | None:
    """Say whether the file has core metadata beside it (PEP 658, PEP 714).

    The usable digests of it, strongest first; True without any; False where the index denies
    it; None where the index does not say.
    """
    stated = entry.get("core-metadata")
    if isinstance(stated, dict):
        return _usable(stated) or True
    return stated if isinstance(stated, bool) else None
