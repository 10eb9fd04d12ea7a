"""The version in the name of a file (PEP 427, PEP 625): one reader for all; pure.

Rules on versions hold only if a file is read as clients read it. In ``foo-1.2-1.tar.gz`` a client
that installs ``foo`` sees the version ``1.2-1``, which is 1.2.post1; without the name of the
project it could be 1 just as well. So the project is given wherever it is known.
"""

from __future__ import annotations

import re
from functools import lru_cache

from packaging.utils import canonicalize_name
from packaging.version import Version

from proxpi.simple.names import VARIANTS

#: Characters of a file name in which a version is looked for; no folder takes as many.
MAX_LENGTH = 1000
#: Endings of source distributions, those that installers have ceased to take among them.
SDISTS = (
    *(".tar.gz", ".zip", ".tgz", ".tar.bz2", ".tbz", ".tbz2", ".tar.xz", ".txz", ".tar", ".tlz"),
    *(".tar.lz", ".tar.lzma", ".tar.zst", ".tar.z"),
)
#: Parts between hyphens of the names of other files, by ending: of an egg, the platform has some.
_PARTS = {".whl": range(5, 8), ".whlx": range(5, 8), ".egg": range(2, 8)}


def version_of(filename: str, project: str) -> Version | None:
    """
    Return the version that a client reads in the name of a file.

    ========================================  =======  ==========================================
    File                                      Project  Version
    ========================================  =======  ==========================================
    ``foo_bar-1.2-py3-none-any.whl``          foo-bar  1.2; with a build tag, too, and with the
                                                       label of a variant (draft PEP 825)
    ``foo-bar-1.2.tar.gz``, ``….zip``         foo-bar  1.2
    ``foo-1.2-1.tar.gz``                      foo      1.2.post1
    ``foo_bar-1.2-variants.json``             foo-bar  1.2
    ``foo-1.2-py2.7.egg``                     foo      1.2
    ``bar-1.2.tar.gz``, ``foo-1.2.exe``       foo      none
    ========================================  =======  ==========================================

    :param project: the normalized name
    """
    if len(filename) > MAX_LENGTH:
        return None
    text = _version_text(filename, project)
    return version(text) if text else None


def _version_text(filename: str, project: str) -> str:
    stem, dot, ending = filename.rpartition(".")
    if (parts := _PARTS.get(dot + ending)) is not None:
        found = stem.split("-")
        if len(found) in parts and _is(found[0], project):
            return found[1]
        return ""
    if filename.endswith(VARIANTS):
        return _after(filename.removesuffix(VARIANTS), project)
    lower = filename.lower()
    for suffix in SDISTS:
        if lower.endswith(suffix):
            return _after(filename[: -len(suffix)], project)
    return ""


def _after(stem: str, project: str) -> str:
    """Return what follows the name of the project, in any of its forms, and a hyphen."""
    name = _name(project).match(stem)
    return stem[name.end() :] if name is not None else ""


@lru_cache(maxsize=1024)
def _name(project: str) -> re.Pattern[str]:
    forms = "[-_.]+".join(map(re.escape, project.split("-")))
    return re.compile(forms + "-", re.IGNORECASE | re.ASCII)


def _is(name: str, project: str) -> bool:
    return name == project or canonicalize_name(name) == project


@lru_cache(maxsize=16384)
def version(text: str) -> Version | None:
    """Read a version (PEP 440); ``None`` if it is none."""
    try:
        return Version(text)
    except ValueError:  # also one with more digits than Python reads
        return None
