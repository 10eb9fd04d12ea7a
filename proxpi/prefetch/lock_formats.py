"""Formats of lock files, read into a :class:`~proxpi.prefetch.locks.Lock`; pure.

A body is recognized by its content: ``uv.lock``, ``pylock.toml`` (PEP 751), ``poetry.lock``,
``pdm.lock``, or a ``requirements.txt`` whose requirements are pinned. Only names, versions, markers
and digests are used, never URLs.

A lock is input from outside: whatever it is, :func:`read` raises :exc:`LockError` at worst, in
bounded time and memory. The largest locks take seconds, so a thread reads them.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import attrs
import msgspec
from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from proxpi.prefetch.locks import MAX_ITEMS, Lock, Locked, LockedFile, LockError, Node
from proxpi.simple import names, printable, urls

#: The most signs of structure (keys, tables, lines) in a lock, which bound the memory it takes.
MAX_SIGNS = 1_000_000
#: The most parts of a dotted key: the time for one grows with their square.
MAX_KEY_PARTS = 16
#: Characters of a line, with the lines that continue it: no regular expression matches more.
MAX_LINE = 256 * 1024
#: Characters of a marker, or of a requirement without its digests.
MAX_TEXT = 10_000
ACCEPTED = "a uv.lock, pylock.toml, poetry.lock, pdm.lock or pinned requirements.txt"

_SIGNS = "=[{,\r\n"
#: A line of TOML; no requirement and no option of pip looks like it.
_TOML = re.compile(r"^[ \t]*+(?:\[|[A-Za-z][\w-]*[ \t]*=[ \t]*[^=\s])", re.MULTILINE)
#: Comments and strings of TOML, and beginnings of strings of several lines.
_COMMENT_OR_STRING = re.compile(r"""#.*+|\"{3}|'{3}|(?<!\\)"(?:[^"\\\n]++|\\.)*+"|'[^'\n]*+'""")
_DOTTED = re.compile(r"[\w\-. \t]++")
_SHA256 = re.compile(r"[0-9a-f]{64}")
#: Sources of packages in ``uv.lock`` and ``poetry.lock`` that are indexes.
_INDEXES = frozenset({"registry", "legacy", "pypi"})
#: Beginnings of requirements that no index has: folders, files and URLs.
_ELSEWHERE = re.compile(r"\.{0,2}/|[A-Za-z][A-Za-z+]*:|[A-Za-z]:\\")
_COMMENT = re.compile(r"(?<!\S)#.*")
_OPTION = re.compile(r"\s--[a-z]")
_HASH = re.compile(r"\s--hash[=\s]\s*(\S+)")

T = TypeVar("T", bound=msgspec.Struct)


def read(body: bytes) -> Lock:
    """Read a lock of any format; raises :exc:`LockError`."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise LockError(f"The body is not text in UTF-8: send {ACCEPTED}.") from None
    if "\0" in text or not text.strip():
        raise LockError(f"The body is empty, or no text: send {ACCEPTED}.")
    if sum(map(text.count, _SIGNS)) > MAX_SIGNS:
        raise LockError(f"The lock has more than {MAX_SIGNS} keys, tables and lines.")
    if max(map(len, text.split("\n"))) > MAX_LINE:
        raise LockError(f"A line of the lock has more than {MAX_LINE} characters.")
    lock = _read_toml(text) if _TOML.search(text) else _read_requirements(text)
    if len(lock.nodes) > MAX_ITEMS:
        raise LockError(f"The lock pins more than {MAX_ITEMS} packages: send it in parts.")
    return lock


class _File(msgspec.Struct):
    """A file, by the keys of all formats: its name, or where it lies, and its digest."""

    file: str = ""
    filename: str = ""
    name: str = ""
    url: str = ""
    path: str = ""
    hash: str = ""
    hashes: dict[str, str] = {}


class _Edge(msgspec.Struct):
    name: str
    version: str = ""
    marker: str = ""


class _UvPackage(msgspec.Struct, rename="kebab"):
    name: str
    version: str = ""
    source: dict[str, Any] = {}
    dependencies: list[_Edge] = []
    optional_dependencies: dict[str, list[_Edge]] = {}
    dev_dependencies: dict[str, list[_Edge]] = {}
    sdist: _File | None = None
    wheels: list[_File] = []


class _Manifest(msgspec.Struct, rename="kebab", frozen=True):
    requirements: list[_Edge] = []
    dependency_groups: dict[str, list[_Edge]] = {}


class _UvLock(msgspec.Struct):
    package: list[_UvPackage] = []
    manifest: _Manifest = _Manifest()


class _PylockPackage(msgspec.Struct):
    name: str
    version: str = ""
    marker: str = ""
    sdist: _File | None = None
    wheels: list[_File] = []


class _Pylock(msgspec.Struct):
    packages: list[_PylockPackage]


class _Package(msgspec.Struct):
    """A package of poetry or pdm."""

    name: str
    version: str
    source: dict[str, Any] = {}
    marker: str = ""
    markers: str | dict[str, str] = ""
    files: list[_File] = []
    git: Any = None
    url: Any = None
    path: Any = None


class _Metadata(msgspec.Struct, frozen=True):
    """Where older versions of poetry and pdm list files, or digests alone."""

    files: dict[str, list[_File]] = {}
    hashes: dict[str, list[str]] = {}


class _FlatLock(msgspec.Struct):
    package: list[_Package] = []
    metadata: _Metadata = _Metadata()


def _read_toml(text: str) -> Lock:
    _check_keys(text)
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise LockError("The tables of the lock are nested too deeply.") from None
    except ValueError as error:
        cause = printable(str(error)[:200])
        raise LockError(f"The lock is no TOML: {cause}; send {ACCEPTED}.") from None
    metadata = document.get("metadata")
    if "lock-version" in document:
        return _read_pylock(_convert(document, _Pylock))
    if isinstance(metadata, dict) and not metadata.keys().isdisjoint(
        {"lock-version", "lock_version", "content-hash", "content_hash"}
    ):
        return _read_flat(_convert(document, _FlatLock))
    if isinstance(document.get("version"), int):
        return _read_uv(_convert(document, _UvLock))
    raise LockError(f"The tables are none of a lock that is known: send {ACCEPTED}.")


def _check_keys(text: str) -> None:
    """Refuse dotted keys with many parts: ``tomllib`` takes quadratic time for them."""
    parts, end = [], 0
    for match in _COMMENT_OR_STRING.finditer(text):
        if match[0] in ('"""', "'''"):
            raise LockError("A lock has no strings of several lines.")
        parts.append(text[end : match.start()])
        end = match.end()
    for run in _DOTTED.finditer("x".join([*parts, text[end:]])):
        if run[0].count(".") > MAX_KEY_PARTS:
            raise LockError(f"A key of a lock has at most {MAX_KEY_PARTS} parts.")


def _convert(document: dict[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(document, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise LockError(f"The lock is damaged: {printable(str(error)[:200])}.") from None


def _read_uv(lock: _UvLock) -> Lock:
    """Read ``uv.lock``: markers are at its requirements, so its graph is walked from its roots.

    Roots are packages in folders, what a script requires, and what no package requires.
    """
    nodes, keys, skipped = [], dict[str, list[int]](), []
    manifest = [lock.manifest.requirements, *lock.manifest.dependency_groups.values()]
    roots: set[str] = {canonicalize_name(edge.name) for edges in manifest for edge in edges}
    required = set[str]()
    for package in lock.package:
        groups = (package.dependencies, *package.optional_dependencies.values())
        edges = [*groups, *package.dev_dependencies.values()]
        requires = tuple((_key(edge), _marker(edge.marker)) for group in edges for edge in group)
        own = canonicalize_name(package.name)
        required |= {key.partition(" ")[0] for key, _ in requires} - {own}
        locked = None
        if _from_index(package.source):
            files = [*package.wheels, *([package.sdist] if package.sdist else ())]
            locked = _locked(package.name, package.version, files)
        else:
            roots.add(own)
            skipped.append(f"{printable(own[:200])}: {_kind(package.source)}")
        nodes.append(Node(locked, requires=requires, root=False))
        for key in {own, f"{own} {package.version}"}:
            keys.setdefault(key, []).append(len(nodes) - 1)
    roots |= {key for key in keys if " " not in key} - required
    positions = {position for root in roots for position in keys.get(root, ())}
    nodes = [attrs.evolve(node, root=position in positions) for position, node in enumerate(nodes)]
    return Lock(nodes, keys, skipped)


def _key(edge: _Edge) -> str:
    name = canonicalize_name(edge.name)
    return f"{name} {edge.version}" if edge.version else name


def _read_pylock(lock: _Pylock) -> Lock:
    nodes, skipped = [], []
    for package in lock.packages:
        files = [*package.wheels, *([package.sdist] if package.sdist else ())]
        if files:
            locked = _locked(package.name, package.version, files)
            nodes.append(Node(locked, _markers([package.marker])))
        else:
            skipped.append(f"{printable(package.name[:200])}: it has neither sdist nor wheels")
    return Lock(nodes, skipped=skipped)


def _read_flat(lock: _FlatLock) -> Lock:
    """Read ``poetry.lock`` or ``pdm.lock``: packages with their markers."""
    nodes, skipped = [], []
    for package in lock.package:
        name, version = package.name, package.version
        if not _from_index(package.source) or package.git or package.url or package.path:
            skipped.append(f"{printable(name[:200])}: {_kind(package.source)}")
            continue
        older = lock.metadata.files
        files = package.files or older.get(name) or older.get(f"{name} {version}") or []
        digests = [f"sha256:{digest}" for digest in lock.metadata.hashes.get(name, ())]
        markers = package.markers or package.marker
        texts = list(markers.values()) if isinstance(markers, dict) else [markers]
        nodes.append(Node(_locked(name, version, files, digests), _markers(texts)))
    return Lock(nodes, skipped=skipped)


def _read_requirements(text: str) -> Lock:
    nodes, skipped = [], []
    for number, line in _logical_lines(text):
        shown = printable(line[:100])
        if line.startswith(("-r", "--requirement")):
            raise LockError(f"Line {number}: {shown!r} names another file: send that one, too.")
        if line.startswith(("-e", "--editable")) or _ELSEWHERE.match(line):
            skipped.append(f"line {number}: {shown!r} is from no index")
        if line.startswith("-") or _ELSEWHERE.match(line):
            continue
        requirement = _requirement(number, _OPTION.split(line, maxsplit=1)[0])
        if requirement.url is not None:
            skipped.append(f"line {number}: {shown!r} is from no index")
            continue
        pins = [each for each in requirement.specifier if each.operator in ("==", "===")]
        if len(pins) != 1 or len(requirement.specifier) != 1 or pins[0].version.endswith("*"):
            raise LockError(f"Line {number}: {shown!r} is not pinned: write name==version.")
        try:
            locked = _locked(requirement.name, pins[0].version, [], _HASH.findall(line))
        except LockError as error:
            raise LockError(f"Line {number}: {error}") from None
        nodes.append(Node(locked, (requirement.marker,) if requirement.marker else ()))
        if len(nodes) > MAX_ITEMS:
            break
    if not nodes and not skipped:
        raise LockError(f"The body pins nothing: send {ACCEPTED}.")
    return Lock(nodes, skipped=skipped)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Join continued lines, and leave comments out, as pip does; with the number of the first."""
    parts: list[str] = []
    first = 1
    for number, line in enumerate([*re.split(r"\r\n?|\n", text), ""], 1):
        if not parts:
            first = number
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            parts.append(line[:-1])
            continue
        parts.append(f" {line}" if line.startswith("#") else line)
        if sum(map(len, parts)) > MAX_LINE:
            raise LockError(f"Line {first}: it has more than {MAX_LINE} characters.")
        if joined := _COMMENT.sub("", "".join(parts)).strip():
            yield first, joined
        parts.clear()


def _requirement(number: int, text: str) -> Requirement:
    try:
        if len(text) > MAX_TEXT:
            raise InvalidRequirement(f"it has more than {MAX_TEXT} characters")
        return Requirement(text)
    except (InvalidRequirement, RecursionError):
        shown = printable(text[:100])
        raise LockError(
            f"Line {number}: {shown!r} is no requirement: write name==version, or send {ACCEPTED}."
        ) from None


def _locked(name: str, version: str, files: Sequence[_File], digests: Sequence[str] = ()) -> Locked:
    shown = printable(name[:200])
    project = names.normalize(name)
    if project is None:
        raise LockError(f"{shown!r} is no name of a project.")
    sha256 = frozenset(filter(None, [_sha256(digest, shown) for digest in digests]))
    if not files:
        try:
            Version(version)
        except InvalidVersion:
            raise LockError(f"{shown}: {printable(version[:100])!r} is no version.") from None
    return Locked(project, version, tuple(_file(file, shown) for file in files), sha256)


def _file(file: _File, project: str) -> LockedFile:
    stated = file.file or file.filename or file.name or urls.filename(file.url)
    filename = stated or file.path.replace("\\", "/").rpartition("/")[2]
    if not names.is_filename(filename):
        shown = printable(filename[:100])
        raise LockError(f"{project}: {shown!r} is no name of a file.")
    digest = f"sha256:{file.hashes['sha256']}" if "sha256" in file.hashes else file.hash
    sha256 = _sha256(digest, project)
    return LockedFile(filename, frozenset({sha256} if sha256 else ()))


def _sha256(stated: str, project: str) -> str | None:
    """Return a digest as it was stated, with its algorithm; ``None`` for another algorithm."""
    algorithm, _, digest = stated.lower().partition(":")
    if algorithm != "sha256":
        return None
    if not _SHA256.fullmatch(digest):
        shown = printable(stated[:100])
        raise LockError(f"{project}: {shown!r} is no digest: write sha256: and 64 digits.")
    return digest


def _markers(texts: Iterable[str]) -> tuple[Marker, ...]:
    """Read markers, of which one has to hold; none if one of them is empty."""
    markers = [_marker(text) for text in texts]
    return () if None in markers else tuple(filter(None, markers))


@lru_cache(maxsize=1024)
def _marker(text: str) -> Marker | None:
    if not text:
        return None
    try:
        if len(text) > MAX_TEXT:
            raise ValueError
        return Marker(text)
    except (ValueError, RecursionError):
        raise LockError(f"{printable(text[:100])!r} is no environment marker (PEP 508).") from None


def _from_index(source: Mapping[str, Any]) -> bool:
    return not source or not _INDEXES.isdisjoint({*source, str(source.get("type"))})


def _kind(source: Mapping[str, Any]) -> str:
    """Return the part of a sentence about a package that no index has: its source."""
    kind = source.get("type") or next(iter(source), "")
    return f"it is from no index ({printable(str(kind)[:50])})" if kind else "it is from no index"
