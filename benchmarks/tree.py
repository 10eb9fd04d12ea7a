"""A synthetic tree of packages: a hundred projects of two releases each, eight levels deep.

It is pure and the same in every run. ``tree-000`` requires all others: each project but that one
has a parent on the level above, and some have a second one further above. Some requirements exclude
the newest release. Each project also requires ``tree-winonly`` under a marker that never holds
there, and ``tree-docs`` under an extra: a client requests neither.
"""

from __future__ import annotations

import hashlib
import random
import re
from functools import cache
from typing import Any

from stand_ins import StandIn
from wheels import Wheel, build

ROOT = "tree-000"
VERSIONS = ("1.0", "2.0")
#: Projects on each level.
_LEVELS = (1, 5, 10, 15, 20, 20, 15, 9, 5)
_FILE = re.compile(r"tree_(\d{3})-([12])\.0-py3-none-any\.whl")


def names() -> list[str]:
    return list(_requirements())


def below(project: str) -> set[str]:
    """Return a project and all that it requires, directly or not."""
    found: set[str] = set()
    todo = [project]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += [requirement[: len(ROOT)] for requirement in _requirements()[name]]
    return found


def root(count: int) -> str:
    """Return the project with the largest tree of at most `count` projects."""
    return max((len(found), name) for name in names() if len(found := below(name)) <= count)[1]


@cache
def _requirements() -> dict[str, list[str]]:
    """Return the requirements of each project."""
    drawn = random.Random(14)
    found: dict[str, list[str]] = {}
    above: list[str] = []
    older: list[str] = []
    for size in _LEVELS:
        level = [f"tree-{len(found) + number:03}" for number in range(size)]
        for name in level:
            found[name] = []
            limit = drawn.choice(["<2", "~=1.0"]) if drawn.random() < 0.1 else ">=1.0"
            if above:
                found[drawn.choice(above)].append(f"{name}{limit}")
            if older and drawn.random() < 0.5:
                found[drawn.choice(older)].append(f"{name}>=1.0")
        older, above = older + above, level
    return found


def items(project: str) -> list[tuple[str, str, str]]:
    """Return all that an index serves for a project: kind, project, file name."""
    filenames = [_wheel(project, version).filename for version in VERSIONS]
    kinds = [(kind, project, name) for name in filenames for kind in ("metadata", "file")]
    return [("page", project, ""), *kinds]


@cache
def _wheel(project: str, version: str) -> Wheel:
    requirements = [
        *_requirements()[project],
        'tree-winonly; sys_platform == "win32"',
        'tree-docs>=1; extra == "docs"',
    ]
    return build(project, version, requirements, extras=["docs"])


def _of(filename: str) -> Wheel | None:
    found = _FILE.fullmatch(filename)
    known = found and f"tree-{found[1]}" in _requirements()
    return _wheel(f"tree-{found[1]}", f"{found[2]}.0") if found and known else None


class Tree:
    """The tree as the content of an index, complete from the start."""

    captured = 0

    def page(self, project: str) -> list[dict[str, Any]]:
        """Return the entries of a page; none if the project is unknown."""
        if project not in _requirements():
            return []
        return [
            {
                "filename": wheel.filename,
                "hashes": {"sha256": hashlib.sha256(wheel.data).hexdigest()},
                "requires-python": ">=3.9",
                "size": len(wheel.data),
                "upload-time": f"2026-0{version[0]}-01T12:00:00.000000Z",
                "core-metadata": {"sha256": hashlib.sha256(wheel.metadata).hexdigest()},
            }
            for version in VERSIONS
            for wheel in (_wheel(project, version),)
        ]

    def metadata(self, project: str, filename: str) -> bytes:
        """Return the metadata of a wheel; empty if it is unknown."""
        wheel = _of(filename)
        return wheel.metadata if wheel else b""

    def file(self, project: str, filename: str) -> StandIn | None:
        wheel = _of(filename)
        return StandIn(wheel.data, 0, b"") if wheel else None
