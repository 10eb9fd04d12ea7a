"""What the path of a request under ``/index/`` means: a pure function over bytes."""

from __future__ import annotations

from typing import TypeAlias
from urllib.parse import unquote_to_bytes

import attrs

from proxpi.simple import names
from proxpi.simple.entries import UNSAFE

#: The roots of the tree; the first is the original's, the second what many expect.
ROOTS = (b"index", b"simple")
#: Characters beyond which nothing is a file name. (A disk takes fewer: what is too long for it is
#: redirected.)
LONGEST_FILENAME = 2000


@attrs.frozen
class ListPage:
    """The list of all projects."""


@attrs.frozen
class ProjectPage:
    """The page of a project, by its normalized name."""

    name: str


@attrs.frozen
class FileOf:
    """A file of a project, by the project's normalized name."""

    name: str
    filename: str


@attrs.frozen
class Moved:
    """The same page under its proper URL, relative to the one that was asked for."""

    location: str


Target: TypeAlias = ListPage | ProjectPage | FileOf | Moved


def in_tree(path: bytes) -> bool:
    """Tell whether a path lies under one of the roots; doubled slashes count as one."""
    return path.lstrip(b"/").partition(b"/")[0] in ROOTS


def target(path: bytes) -> Target | None:
    """
    Read a path that lies under a root.

    Each segment is percent-decoded once, and a slash in it is no separator.

    :param path: as it came, without query
    :return: ``None`` if nothing can be there
    """
    segments = [_decoded(segment) for segment in path.split(b"/") if segment]
    folder = path.endswith(b"/")
    if not in_tree(path):
        return None
    if len(segments) == 1:
        return ListPage() if folder else Moved(f"{segments[0]}/")
    name = names.normalize(segments[1]) if segments[1] is not None else None
    if name is None:
        return None
    if len(segments) == 2:
        if not folder:
            return Moved(f"{name}/")
        # Each slash at the end is a folder to leave, doubled ones, too.
        up = "../" * (len(path) - len(path.rstrip(b"/")))
        return ProjectPage(name) if name == segments[1] else Moved(f"{up}{name}/")
    filename = segments[2]
    if len(segments) > 3 or folder or filename is None:
        return None
    return FileOf(name, filename)


def _decoded(segment: bytes) -> str | None:
    """Decode a segment; ``None`` for one that cannot name anything."""
    try:
        text = unquote_to_bytes(segment).decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if can_name(text) else None


def can_name(text: str) -> bool:
    """Tell whether anything can be called so."""
    return not (text in (".", "..") or len(text) > LONGEST_FILENAME or UNSAFE.search(text))
