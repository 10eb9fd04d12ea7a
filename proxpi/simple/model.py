"""One project of an index: what a page says, between parsing and rendering (PEP 691, PEP 700).

A file is kept as the specification's own JSON object, so that a key that does not exist yet
passes through by itself; the functions here read the keys that proxpi acts upon.

What the merged page of a project says of one file: the word between index and mirror.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, TypeAlias

import attrs
import msgspec

Entry: TypeAlias = dict[str, Any]
"""One file, by the specification's keys: ``filename``, ``url`` (absolute, without fragment),
``hashes`` (always there, lower case) and whatever else the index told."""

# Strongest first, but for sha256: it is what the specification recommends and what lock files hold.
ALGORITHMS = (
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
_SHOWN = tuple(name for name in ALGORITHMS if not name.startswith("blake2"))
_HEX = {
    name: re.compile(f"[0-9a-f]{{{2 * hashlib.new(name, usedforsecurity=False).digest_size}}}")
    for name in ALGORITHMS
}


_LONGEST_LINK = 2000


@attrs.define
class Unlisted:
    """Links of a page that cannot be listed as files.

    :ivar first: one of them as it stands there; it may hold credentials
    """

    count: int = 0
    first: str = ""

    def add(self, link: str) -> None:
        """Count a link; of a long one only the length is kept."""
        if not self.count:
            self.first = link if len(link) <= _LONGEST_LINK else f"({len(link)} characters)"
        self.count += 1


@attrs.frozen
class Project:
    """What an index says about one project.

    :ivar name: Its normalized name.
    :ivar files: Its files in the order of the page; no name occurs twice.
    :ivar keys: Every other top-level key to pass on: ``versions``, ``project-status``, unknown
        ones, and under ``meta`` the unknown keys of that object.
    :ivar version: The API version that the index stated, ``1.0`` where it stated none.
    :ivar unlisted: What stands on the page beside its files; it is not kept with them.
    """

    name: str
    files: Sequence[Entry]
    keys: Mapping[str, Any]
    version: str = "1.0"
    unlisted: Unlisted = attrs.field(factory=Unlisted, eq=False)


class _Head(msgspec.Struct, forbid_unknown_fields=True):
    """The first line of an encoded project; ``files`` is the number of the others."""

    name: str
    keys: dict[str, Any]
    version: str
    files: int


to_json = msgspec.json.Encoder().encode
"""Write a value as compact JSON."""

_START = b'{"filename":"'
_HEAD = msgspec.json.Decoder(_Head)
_ENTRY = msgspec.json.Decoder(dict[str, Any])


def encode(project: Project) -> bytes:
    """Write a project down, compact and without loss; no client sees this form.

    Its lines are JSON objects: first what is not a file, then each file, whose first key is
    ``filename``. JSON escapes line breaks, so a line is a file and can be found by its bytes.
    """
    head = {
        "name": project.name,
        "keys": project.keys,
        "version": project.version,
        "files": len(project.files),
    }
    # A loop of Python's: other threads get their turn between two files, not in a C call for all.
    return b"\n".join([to_json(head), *map(_line, project.files), b""])


def _line(entry: Entry) -> bytes:
    line = to_json(entry)
    return line if line.startswith(_START) else to_json({"filename": entry["filename"]} | entry)


def decode(data: bytes) -> Project:
    """Read what ``encode`` wrote.

    :raises ValueError: When it did not write this.
    """
    lines = BytesIO(data)
    try:
        head = _HEAD.decode(lines.readline())
        files = [entry_of(line) for line in lines]
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if head.files != len(files) or not data.endswith(b"\n"):
        raise ValueError("not the whole of what was written")
    return Project(head.name, files, head.keys, head.version)


def entry_of(line: bytes) -> Entry:
    """
    Read a line of what ``encode`` wrote.

    :raises ValueError: When it is no file.
    """
    entry: Entry = _ENTRY.decode(line)
    if not line.startswith(_START) or not {"url", "hashes"} <= entry.keys():
        raise ValueError("not a file")
    return entry


def find(data: bytes, filename: str) -> Entry | None:
    """
    Give the entry of one file out of what ``encode`` wrote, and leave the others undecoded.

    A page may list thousands of files, of which a client wants one.
    """
    start = data.find(b'\n{"filename":' + to_json(filename)) + 1
    return entry_of(data[start : data.find(b"\n", start)]) if start else None


def keys_of(data: bytes) -> Mapping[str, Any]:
    """Give the top-level keys out of what ``encode`` wrote, and leave the files undecoded."""
    return _HEAD.decode(data[: data.index(b"\n")]).keys


def is_usable(name: str, digest: object) -> bool:
    """Say whether a digest has the form and the length of those of its algorithm."""
    form = _HEX.get(name)
    return form is not None and isinstance(digest, str) and form.fullmatch(digest) is not None


def _first(hashes: object, algorithms: Sequence[str]) -> tuple[str, str] | None:
    if isinstance(hashes, dict):
        for name in algorithms:
            if (digest := hashes.get(name)) is not None and is_usable(name, digest):
                return name, digest
    return None


def best_hash(entry: Entry) -> tuple[str, str] | None:
    """Give algorithm and digest by which to verify the bytes of a file, or None."""
    return _first(entry.get("hashes"), ALGORITHMS)


def strength(entry: Entry) -> int:
    """Give the rank of the digest by which the bytes of a file are verified; 0 is none."""
    best = best_hash(entry)
    return len(ALGORITHMS) - ALGORITHMS.index(best[0]) if best else 0


def shown_digest(hashes: object) -> tuple[str, str] | None:
    """Give algorithm and digest to publish out of those that an index stated.

    Never blake2: pip takes the name for its longest digest, uv for 256 bits, and uv refuses a
    whole page for one digest whose length it does not expect.
    """
    return _first(hashes, _SHOWN)


def metadata_hash(entry: Entry) -> dict[str, str] | bool | None:
    """Say whether the file has core metadata beside it (PEP 658, PEP 714).

    The usable digests of it, strongest first; True without any; False where the index denies
    it; None where the index does not say.
    """
    stated = entry.get("core-metadata")
    if isinstance(stated, dict):
        usable = {name: stated[name] for name in _HEX if is_usable(name, stated.get(name))}
        return usable or True
    return stated if isinstance(stated, bool) else None


class NotListed(Exception):
    """No index lists what is asked for; its subclasses say what that is."""


@attrs.frozen(eq=False)
class Listed:
    """A file that an index lists.

    :ivar entry: its entry on the page of the index that won
    :ivar private: whether that index needs credentials, so that a client could not fetch the
        file from it directly
    """

    entry: Entry
    private: bool
