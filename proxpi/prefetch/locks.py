"""The files of a lock that one Python and one platform need; pure functions and values.

A :class:`Lock` is a graph of packages; :mod:`proxpi.prefetch.lock_formats` reads it from a body.
:func:`fitting` selects the packages that a :class:`Target` needs, with their files;
:func:`listed_files` selects those of a package of which the lock names none on the project's page.
All extras and dependency groups count as requested.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import attrs
from packaging.markers import Marker
from packaging.utils import canonicalize_name
from packaging.version import Version

from proxpi.prefetch.client import Client, platforms_of, wheel_tags
from proxpi.simple import printable, versions

#: The most packages that a lock may pin, and files that may fit.
MAX_ITEMS = 20_000
_QUOTED = re.compile(r"\"([^\"]*)\"|'([^']*)'")
_PYTHON = re.compile(r"3\.[0-9]{1,2}(\.[0-9]{1,2})?")
_CPU = re.compile(r"(?:(?:many|musl)?linux(?:_[0-9]+_[0-9]+|[0-9]+)?|macosx_[0-9]+_[0-9]+)_(\w+)")
_WINDOWS = {"win_amd64": "AMD64", "win_arm64": "ARM64", "win32": "x86"}
_SDISTS = (".tar.gz", ".zip")


class LockError(Exception):
    """A lock, or a target, that cannot be used; one sentence says why and what is accepted."""


@attrs.frozen
class LockedFile:
    """A file, with the digests that it may have; without any, the index's digest counts."""

    filename: str
    sha256: frozenset[str] = frozenset()


@attrs.frozen
class Locked:
    """A package as a lock pins it.

    :ivar project: the normalized name
    :ivar version: it may be empty if the lock names files
    :ivar files: the files that the lock names
    :ivar sha256: if it names none, a file has to have one of these digests
    """

    project: str
    version: str
    files: tuple[LockedFile, ...] = ()
    sha256: frozenset[str] = frozenset()


@attrs.frozen
class Node:
    """A package in the graph of a lock.

    :ivar locked: ``None`` if it is not from an index
    :ivar markers: one of them has to hold; without any, the package is always needed
    :ivar requires: keys of other packages (see `Lock.keys`), each with the marker that has to hold
    :ivar root: whether it is needed without a package that requires it
    """

    locked: Locked | None
    markers: tuple[Marker, ...] = ()
    requires: tuple[tuple[str, Marker | None], ...] = ()
    root: bool = True


@attrs.frozen
class Lock:
    """A lock: a graph of packages.

    :ivar keys: positions in `nodes`, by name, and by name and version
    :ivar skipped: sentences about packages that no index has
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
                    return True  # it names a key that the query does not tell
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

    waiting = [position for position, node in enumerate(nodes) if node.root]
    while waiting:
        position = waiting.pop()
        node = nodes[position]
        if position in seen or (node.markers and not any(map(needs, node.markers))):
            continue
        seen.add(position)
        for key, marker in node.requires:
            if key not in followed and needs(marker):
                followed.add(key)
                waiting += lock.keys.get(key, ())
    found, files = [], 0
    for locked in dict.fromkeys(nodes[position].locked for position in sorted(seen)):
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
    allowed = [
        LockedFile(filename, locked.sha256)
        for filename, digest in listed.items()
        if not (locked.sha256 and digest and digest not in locked.sha256)
        and versions.version_of(filename, locked.project) == wanted
    ]
    return list(_choose(allowed, target))


def _choose(files: Sequence[LockedFile], target: Target | None) -> Iterable[LockedFile]:
    """Choose the wheel that fits best; where none fits, a source distribution."""
    if target is None:
        return files
    ranked = [
        (rank, -_build(file.filename), position)
        for position, file in enumerate(files)
        if (rank := target.client.rank(file.filename)) is not None
    ]
    if ranked:
        return [files[min(ranked)[2]]]
    sdists = [file for suffix in _SDISTS for file in files if file.filename.endswith(suffix)]
    return sdists[:1]


def _build(wheel: str) -> int:
    """Return the number in the build tag of a wheel (PEP 427); without one: 0."""
    parts = wheel.split("-")
    number = re.match(r"[0-9]{1,9}", parts[2]) if len(parts) == 6 else None
    return int(number[0]) if number else 0
