"""Routes under ``/index/`` and ``/simple/``: a pure function from a path to what it names."""

from __future__ import annotations

from typing import TypeAlias
from urllib.parse import unquote_to_bytes

import attrs

from proxpi.simple import names
from proxpi.simple.entries import UNSAFE_CHARACTERS

#: The roots of the tree; the first is the original's, the second the usual one.
ROOTS = (b"index", b"simple")
#: Characters of the longest file name. (A disk allows fewer: the client is redirected then.)
MAX_FILENAME = 2000


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
    """Tell whether a path lies under one of the roots; doubled slashes count as one."""
    return path.lstrip(b"/").partition(b"/")[0] in ROOTS


def find_route(path: bytes) -> Route | None:
    """
    Find the route of a path; each segment is percent-decoded once, a slash in it is no separator.

    :param path: as the client sent it, without query
    :return: ``None`` for a 404
    """
    if not in_tree(path):
        return None
    try:
        root, *rest = (_decoded(segment) for segment in path.split(b"/") if segment)
    except ValueError:
        return None
    slashes = len(path) - len(path.rstrip(b"/"))
    if not rest:
        return ListRoute() if slashes else RedirectRoute(f"{root}/")
    project, *rest = rest
    name = names.normalize(project)
    if name is None or len(rest) > 1 or (rest and slashes):
        return None
    if rest:
        return FileRoute(name, rest[0])
    # Each slash at the end, doubled ones included, is one folder up.
    normal = slashes and name == project
    return PageRoute(name) if normal else RedirectRoute(f"{'../' * slashes}{name}/")


def _decoded(segment: bytes) -> str:
    """Decode a segment; `ValueError` if it cannot be a name."""
    text = unquote_to_bytes(segment).decode("utf-8")
    if not is_safe_name(text):
        raise ValueError(text)
    return text


def is_safe_name(text: str) -> bool:
    """Tell whether a decoded segment may name a project or a file."""
    return not (text in (".", "..") or len(text) > MAX_FILENAME or UNSAFE_CHARACTERS.search(text))
