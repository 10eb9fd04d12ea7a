"""Routes under ``/index/`` and ``/simple/``, of each view: pure functions from a path to its parts.

The views but ``default`` have their name before that: ``/cu126/index/``.
"""

from __future__ import annotations

from collections.abc import Container
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


def find_view(path: bytes, views: Container[bytes]) -> tuple[bytes, bytes] | None:
    """
    Return the view of a path and the path within; ``None`` if it lies under none of the roots.

    ====================  =================================
    Path                  View and path within
    ====================  =================================
    /index/demo/          (no name), /index/demo/
    //simple//demo/       (no name), //simple//demo/
    /cu126/index/demo/    cu126, /index/demo/
    /cu126/, /other/x/    ``None``
    ====================  =================================

    Doubled slashes count as one.
    """
    first, slash, rest = path.lstrip(b"/").partition(b"/")
    if first in ROOTS:
        return b"", path
    if first in views and rest.lstrip(b"/").partition(b"/")[0] in ROOTS:
        return first, slash + rest
    return None


def find_route(path: bytes) -> Route | None:
    """Find the route of a path within its view, without query; ``None`` is a 404.

    Each segment is percent-decoded once; a slash in it is no separator.
    """
    if find_view(path, ()) is None:
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
