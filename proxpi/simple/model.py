"""One project of an index, between parsing and rendering (PEP 691, PEP 700).

A file is kept as the specification's own JSON object, so that a key that does not exist yet
passes through by itself; the functions here read the keys that proxpi acts upon.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Mapping, Sequence
from io import BytesIO
from typing import Any, TypeAlias, TypeGuard

import attrs
import msgspec

#: One file, by the specification's keys: ``filename`` (the first one), ``url`` (absolute, without
#: fragment), ``hashes`` (always there, lower case) and every other key that the index stated.
FileEntry: TypeAlias = dict[str, Any]

#: Strongest first, but for sha256: the specification recommends it, and lock files hold it.
ALGORITHMS = (
    *("sha256", "sha512", "sha3_512", "blake2b", "sha384", "sha3_384", "sha3_256", "blake2s"),
    *("sha224", "sha3_224", "sha1", "md5"),
)
# Never blake2: pip takes the name for its longest digest, uv for 256 bits, and uv refuses a whole
# page for one digest whose length it does not expect.
_PUBLISHED = tuple(name for name in ALGORITHMS if not name.startswith("blake2"))
#: Characters of a digest: two for each byte.
_LENGTHS = {name: 2 * hashlib.new(name, usedforsecurity=False).digest_size for name in ALGORITHMS}
_MAX_LINK = 2000


class NotListed(Exception):
    """No index lists the project or the file; subclasses say which."""


class FileExcluded(Exception):
    """A rule excludes a file that an index lists.

    :ivar rule: a noun phrase that names it
    :ivar available: the time from which on the rule lets the file through (RFC 3339), if any
    """

    def __init__(self, filename: str, rule: str, available: str | None = None) -> None:
        super().__init__(f"{filename} is excluded by {rule}")
        self.filename = filename
        self.rule = rule
        self.available = available


@attrs.frozen(eq=False)
class ListedFile:
    """A file that an index lists.

    :ivar private: whether its index needs credentials, so that no client could fetch it there
    :ivar project: the normalized name
    :ivar index: name of its index
    :ivar extracted: whether no index states the core metadata of the entry: it is that of the wheel
    """

    entry: FileEntry
    private: bool
    project: str
    extracted: bool = False
    index: str = ""


@attrs.define
class SkippedLinks:
    """Links of a page that cannot be listed.

    :ivar first: one of them as the page has it; it may hold credentials
    """

    count: int = 0
    first: str = ""

    def add(self, link: str) -> None:
        """Count a link; of a long one only the length is kept."""
        if not self.count:
            self.first = link if len(link) <= _MAX_LINK else f"({len(link)} characters)"
        self.count += 1


@attrs.frozen
class Project:
    """The page of one index for one project.

    :ivar name: normalized
    :ivar files: in the order of the page; no name occurs twice
    :ivar keys: every other top-level key to pass on: ``versions``, ``project-status``, unknown
        ones, and under ``meta`` the unknown keys of that object
    :ivar version: the API version that the index stated, ``1.0`` if it stated none
    :ivar skipped: not part of the encoded project
    """

    name: str
    files: Sequence[FileEntry]
    keys: Mapping[str, Any]
    version: str = "1.0"
    skipped: SkippedLinks = attrs.field(factory=SkippedLinks, eq=False)


class _ProjectHead(msgspec.Struct, forbid_unknown_fields=True):
    """The first line of an encoded project; ``files`` is the number of the others."""

    name: str
    keys: dict[str, Any]
    version: str
    files: int


to_json = msgspec.json.Encoder().encode


class _Name(msgspec.Struct):
    filename: str


_NAME = msgspec.json.Decoder(_Name)
_START = b'{"filename":"'
_HEAD = msgspec.json.Decoder(_ProjectHead)
_ENTRY = msgspec.json.Decoder(dict[str, Any])


def encode(project: Project) -> bytes:
    """Write a project for the cache, compact and without loss.

    Its lines are JSON objects: first all but the files, then each file, whose first key is
    ``filename``. JSON escapes line breaks, so a line is a file and can be found by its bytes.
    """
    head = _ProjectHead(project.name, dict(project.keys), project.version, len(project.files))
    # A loop of Python's: other threads get their turn between two files, not in a C call for all.
    return b"\n".join([to_json(head), *[to_json(entry) for entry in project.files], b""])


def decode(data: bytes) -> Project:
    """Read an encoded project.

    :raises ValueError: if it is damaged
    """
    lines = BytesIO(data)
    try:
        head = _HEAD.decode(lines.readline())
        files = [_entry(line) for line in lines]
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if head.files != len(files) or not data.endswith(b"\n"):
        raise ValueError("not a whole project")
    return Project(head.name, files, head.keys, head.version)


def _entry(line: bytes) -> FileEntry:
    entry: FileEntry = _ENTRY.decode(line)
    if not line.startswith(_START) or not {"url", "hashes"} <= entry.keys():
        raise ValueError("not a file")
    return entry


def find(data: bytes, filename: str) -> FileEntry | None:
    """Return the entry of one file of an encoded project, and leave the others undecoded.

    :raises ValueError: if it is damaged
    """
    start = data.find(b'\n{"filename":' + to_json(filename)) + 1
    return _entry(data[start : data.find(b"\n", start)]) if start else None


def without(data: bytes, filenames: Container[str]) -> bytes:
    """Return an encoded project without some files: for searches, since its head counts them."""
    head, *lines = data.splitlines(keepends=True)
    return head + b"".join(line for line in lines if _NAME.decode(line).filename not in filenames)


def keys_of(data: bytes) -> Mapping[str, Any]:
    """Return the top-level keys of an encoded project."""
    return _HEAD.decode(data[: data.index(b"\n")]).keys


def is_usable(name: str, digest: object) -> bool:
    """Return whether a digest has the form and the length of those of its algorithm."""
    if not isinstance(digest, str) or len(digest) != _LENGTHS.get(name):
        return False
    try:  # half the time of a regular expression, and a page has two digests a file
        return bytes.fromhex(digest).hex() == digest
    except ValueError:
        return False


def is_sha256_alone(hashes: object) -> TypeGuard[dict[str, str]]:
    """Return whether a file has the hashes of most: a usable sha256 and no other."""
    return (
        isinstance(hashes, dict) and len(hashes) == 1 and is_usable("sha256", hashes.get("sha256"))
    )


def _first(hashes: object, algorithms: Sequence[str]) -> tuple[str, str] | None:
    if isinstance(hashes, dict):
        for name in algorithms:
            if (digest := hashes.get(name)) is not None and is_usable(name, digest):
                return name, digest
    return None


def best_hash(entry: FileEntry) -> tuple[str, str] | None:
    """Return algorithm and digest by which to verify a file."""
    return _first(entry.get("hashes"), ALGORITHMS)


def strength(entry: FileEntry) -> int:
    """Return the rank of the digest by which the bytes of a file are verified; 0 is none."""
    best = best_hash(entry)
    return len(ALGORITHMS) - ALGORITHMS.index(best[0]) if best else 0


def published_hash(hashes: object) -> tuple[str, str] | None:
    """Return algorithm and digest to publish, of those that an index stated."""
    return _first(hashes, _PUBLISHED)


def metadata_hash(entry: FileEntry) -> dict[str, str] | bool | None:
    """Return the digests of the core metadata beside a file, strongest first (PEP 658, PEP 714).

    ``True`` without any; ``False`` if the index denies it; ``None`` if the index does not say.
    """
    stated = entry.get("core-metadata")
    if isinstance(stated, dict):
        usable = {name: stated[name] for name in ALGORITHMS if is_usable(name, stated.get(name))}
        return usable or True
    return stated if isinstance(stated, bool) else None
