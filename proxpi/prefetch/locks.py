"""Lock files: which files of which projects a lock pins, for one Python and one platform.

``POST /prefetch`` gets a lock as its body. It is recognized by its content: ``uv.lock``,
``pylock.toml`` (PEP 751), ``poetry.lock``, ``pdm.lock``, or a ``requirements.txt`` whose
requirements are pinned. :func:`read` makes a :class:`Lock` of it, :func:`fitting` the packages that
a :class:`Target` needs, with their files; :func:`listed_files` finds the files of a package of
which the lock names none on the project's page. Only names, versions, markers and digests of a lock
are used, never its URLs. Extras and dependency groups count as wanted, all of them.

Pure functions and values. A lock is input from outside: whatever it is, it raises :exc:`LockError`
at worst, in bounded time and memory. The largest take seconds, so a thread reads them.
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

from proxpi.prefetch.client import Client, platforms_of, wheel_tags
from proxpi.simple import names, printable, urls

#: The most packages that a lock may pin, files that may fit, and different markers.
MAX_ITEMS = 20_000
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
_QUOTED = re.compile(r"\"([^\"]*)\"|'([^']*)'")
_PYTHON = re.compile(r"3\.[0-9]{1,2}(\.[0-9]{1,2})?")
_CPU = re.compile(r"(?:(?:many|musl)?linux(?:_[0-9]+_[0-9]+|[0-9]+)?|macosx_[0-9]+_[0-9]+)_(\w+)")
_WINDOWS = {"win_amd64": "AMD64", "win_arm64": "ARM64", "win32": "x86"}
#: Sources of packages in ``uv.lock`` and ``poetry.lock`` that are indexes.
_INDEXES = frozenset({"registry", "legacy", "pypi"})
#: What a requirement is that no index has: a folder, a file, or a URL.
_ELSEWHERE = re.compile(r"\.{0,2}/|[A-Za-z][A-Za-z+]*:|[A-Za-z]:\\")
_COMMENT = re.compile(r"(?<!\S)#.*")
_OPTION = re.compile(r"\s--[a-z]")
_HASH = re.compile(r"\s--hash[=\s]\s*(\S+)")
_SDISTS = (".tar.gz", ".zip")

T = TypeVar("T", bound=msgspec.Struct)


class LockError(Exception):
    """A lock, or a target, that cannot be used; one sentence says why and what is accepted."""


@attrs.frozen
class LockedFile:
    """A file; `sha256` is empty if any digest that the index states will do."""

    filename: str
    sha256: frozenset[str] = frozenset()


@attrs.frozen
class Locked:
    """A package as a lock pins it.

    :ivar project: the normalized name
    :ivar version: may be empty if the lock names the files
    :ivar files: those that the lock names
    :ivar sha256: the digests of which a file has to have one, where the lock names no files
    """

    project: str
    version: str
    files: tuple[LockedFile, ...] = ()
    sha256: frozenset[str] = frozenset()


@attrs.frozen
class Node:
    """A package in the graph of a lock.

    :ivar locked: ``None`` if it is not from an index
    :ivar markers: one of them has to hold; none: it is always needed
    :ivar requires: keys of other packages (see `Lock.keys`), and whether the target needs them
    :ivar root: whether no other package has to require it
    """

    locked: Locked | None
    markers: tuple[Marker, ...] = ()
    requires: tuple[tuple[str, Marker | None], ...] = ()
    root: bool = True


@attrs.frozen
class Lock:
    """
    :ivar keys: the places of nodes by name, and by name and version
    :ivar skipped: what no index has, a sentence each
    """

    nodes: Sequence[Node]
    keys: Mapping[str, Sequence[int]] = attrs.field(factory=dict)
    skipped: Sequence[str] = ()


@attrs.frozen(eq=False)
class Target:
    """The Python and the platform that files have to fit.

    :ivar environments: marker environments (PEP 508) that it may have: the micro version of its
        Python may be unknown
    """

    environments: Sequence[Mapping[str, str]]
    client: Client

    @classmethod
    def of(cls, python: str, platform: str) -> Target:
        """
        Make the target of a query.

        :param python: such as ``3.12`` or ``3.12.4``
        :param platform: the newest platform tag that fits, such as ``manylinux_2_28_x86_64``
        :raises LockError: if it is none
        """
        found = _PYTHON.fullmatch(python)
        if found is None:
            shown = printable(python[:100])
            raise LockError(f"python={shown} is no version of Python 3: write it as python=3.12.")
        try:
            ranks = wheel_tags(python, "CPython", platforms_of(platform))
        except ValueError as error:
            raise LockError(f"platform: {printable(str(error))}.") from None
        micros = [python] if found[1] else [f"{python}.0", f"{python}.99"]
        environments = [_environment(micro, platform) for micro in micros]
        return cls(environments, Client(environment=environments[0], ranks=ranks))

    def needs(self, marker: Marker) -> bool:
        """Return whether a marker may hold: with or without the extras and groups it names."""
        text = str(marker)
        named = frozenset(canonicalize_name(a or b) for a, b in _QUOTED.findall(text))
        for extras in (named, frozenset[str]()) if "extra" in text or "group" in text else (named,):
            selected = {"extra": extras, "extras": extras, "dependency_groups": extras}
            for environment in self.environments:
                try:
                    if marker.evaluate_prepared({**environment, **selected}):
                        return True
                except (KeyError, ValueError, RecursionError):
                    return True  # it names what the query does not tell
        return False


def _environment(python: str, platform: str) -> dict[str, str]:
    os_name, sys_platform, system = "posix", "linux", "Linux"
    if platform in _WINDOWS:
        os_name, sys_platform, system = "nt", "win32", "Windows"
    elif platform.startswith("macosx"):
        sys_platform, system = "darwin", "Darwin"
    cpu = _CPU.fullmatch(platform)
    return {
        "implementation_name": "cpython",
        "implementation_version": python,
        "os_name": os_name,
        "platform_machine": cpu[1] if cpu else _WINDOWS[platform],
        "platform_python_implementation": "CPython",
        "platform_system": system,
        "python_full_version": python,
        "python_version": python.rpartition(".")[0],
        "sys_platform": sys_platform,
    }


def fitting(lock: Lock, target: Target | None) -> list[Locked]:
    """
    Return the packages that a target needs, each with the one file of those named that fits best.

    A package of which the lock names files is left out if none fits.

    :param target: ``None``: all packages with all of their files
    :raises LockError: if they are too many
    """
    nodes, seen, followed = lock.nodes, set[int](), set[str]()
    holds: dict[Marker, bool] = {}

    def needs(marker: Marker | None) -> bool:
        if target is None or marker is None:
            return True
        if marker not in holds:
            holds[marker] = target.needs(marker)
        return holds[marker]

    waiting = [place for place, node in enumerate(nodes) if node.root]
    while waiting:
        place = waiting.pop()
        node = nodes[place]
        if place in seen or (node.markers and not any(map(needs, node.markers))):
            continue
        seen.add(place)
        for key, marker in node.requires:
            if key not in followed and needs(marker):
                followed.add(key)
                waiting += lock.keys.get(key, ())
    found, files = [], 0
    for locked in dict.fromkeys(nodes[place].locked for place in sorted(seen)):
        if locked is not None:
            chosen = tuple(_choose(locked.files, target))
            if chosen or not locked.files:
                found.append(attrs.evolve(locked, files=chosen))
                files += len(chosen) or 1
    if files > MAX_ITEMS:
        raise LockError(f"More than {MAX_ITEMS} files of the lock fit: send it in parts.")
    return found


def listed_files(
    locked: Locked, listed: Mapping[str, str | None], target: Target | None
) -> list[LockedFile]:
    """
    Return the files of a package of which the lock names none, as its project's page lists them.

    :param listed: SHA-256 by name of file; ``None`` if the index states none
    """
    wanted = Version(locked.version)
    same: dict[str, bool] = {}

    def fits(filename: str) -> bool:
        text = _version_of(filename)
        if text not in same:
            try:
                same[text] = Version(text) == wanted
            except InvalidVersion:
                same[text] = False
        return same[text]

    allowed = [
        LockedFile(filename, locked.sha256)
        for filename, digest in listed.items()
        if not (locked.sha256 and digest and digest not in locked.sha256) and fits(filename)
    ]
    return list(_choose(allowed, target))


def _version_of(filename: str) -> str:
    """Return the version in the name of a wheel or a source distribution, or an empty text."""
    if filename.endswith(".whl"):
        return filename.split("-", 2)[1] if filename.count("-") >= 2 else ""
    for suffix in _SDISTS:
        if filename.endswith(suffix):
            return filename.removesuffix(suffix).rpartition("-")[2]
    return ""


def _choose(files: Sequence[LockedFile], target: Target | None) -> Iterable[LockedFile]:
    """Choose the wheel that fits best; where none fits, a source distribution."""
    if target is None:
        return files
    ranked = [
        (rank, -_build(file.filename), place)
        for place, file in enumerate(files)
        if (rank := target.client.rank(file.filename)) is not None
    ]
    if ranked:
        return [files[min(ranked)[2]]]
    sdists = [file for suffix in _SDISTS for file in files if file.filename.endswith(suffix)]
    return sdists[:1]


def _build(wheel: str) -> int:
    parts = wheel.split("-")
    number = re.match(r"[0-9]{1,9}", parts[2]) if len(parts) == 6 else None
    return int(number[0]) if number else 0


def read(body: bytes) -> Lock:
    """Read a lock, whatever its format; raises :exc:`LockError`."""
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
    places = {place for root in roots for place in keys.get(root, ())}
    nodes = [attrs.evolve(node, root=place in places) for place, node in enumerate(nodes)]
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
    """Say where a package is from that no index has."""
    kind = source.get("type") or next(iter(source), "")
    return f"it is from no index ({printable(str(kind)[:50])})" if kind else "it is from no index"
