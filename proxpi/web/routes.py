"""Routes under ``/index/`` and ``/simple/``: a pure function from a path to what it names."""

from __future__ import annotations

from typing import TypeAlias
from urllib.parse import unquote_to_bytes

import attrs

from proxpi.simple import names

#: The roots of the tree; the first is the original's, the second the usual one.
ROOTS = (b"index", b"simple")


@attrs.frozen
class ListRoute:
    """The project list."""


@attrs.frozen
class PageRoute:
    """The page of a project, by its normalized name."""

    name: str


@attrs.frozen
class FileRoute:
    """A file of a project, by the project's normalized name."""

    name: str
    filename: str


@attrs.frozen
class RedirectRoute:
    """The normal form of a page's URL, relative to the requested one."""

    location: str


Route: TypeAlias = ListRoute | PageRoute | FileRoute | RedirectRoute


def in_tree(path: bytes) -> bool:
    """Return whether a path lies under one of the roots; doubled slashes count as one."""
    return path.lstrip(b"/").partition(b"/")[0] in ROOTS


def find_route(path: bytes) -> Route | None:
    """Find the route of a path, as the client sent it without query; ``None`` is a 404.

    Each segment is percent-decoded once; a slash in it is no separator.
    """
    if not in_tree(path):
        return None
    try:
        root, *rest = [unquote_to_bytes(each).decode() for each in path.split(b"/") if each]
    except UnicodeDecodeError:
        return None
    slashes = len(path) - len(path.rstrip(b"/"))
    if not rest:
        return ListRoute() if slashes else RedirectRoute(f"{root}/")
    project, *files = rest
    name = names.normalize(project)
    if name is None:
        return None
    if not files:
        # Each slash at the end, doubled ones included, is one folder up.
        normal = slashes and name == project
        return PageRoute(name) if normal else RedirectRoute(f"{'../' * slashes}{name}/")
    if len(files) > 1 or slashes or not names.is_filename(files[0]):
        return None
    return FileRoute(name, files[0])
