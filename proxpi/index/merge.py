"""Several indexes, one answer: the first index that lists a file name has it.

Pure functions over values. Listing and bytes follow the same order, because the mirror asks
the merged page, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from packaging.utils import InvalidSdistFilename, parse_sdist_filename
from packaging.version import InvalidVersion, Version

from proxpi.simple.model import Entry, Project

#: Characters of a file name in which a version is looked for; no folder takes as many.
_LONGEST_NAME = 1000


def merge(projects: Sequence[Project]) -> Project:
    """
    Merge what several indexes say of one project, given in order of precedence.

    A file name and a top-level key are taken from the first that has them; ``versions`` (PEP
    700) are united.
    """
    if len(projects) == 1:
        return projects[0]
    files: dict[str, Entry] = {}
    keys: dict[str, object] = {}
    for project in projects:
        for entry in project.files:
            files.setdefault(entry["filename"], entry)
        for key, value in project.keys.items():
            keys.setdefault(key, value)
    if "versions" in keys:
        keys["versions"] = _all_versions(projects)
    return Project(projects[0].name, list(files.values()), keys)


def _all_versions(projects: Sequence[Project]) -> list[str]:
    """
    Unite the versions; where an index states none, those its file names tell.

    PEP 700 promises that every file belongs to one of the versions.
    """
    versions: dict[str, None] = {}
    for project in projects:
        stated = project.keys.get("versions")
        if stated is None:
            stated = [v for v in map(_version_of, project.files) if v is not None]
        versions.update(dict.fromkeys(stated))
    return list(versions)


def _version_of(entry: Entry) -> str | None:
    """Read the version out of a distribution's file name (PEP 427, PEP 625)."""
    filename = entry["filename"]
    if len(filename) > _LONGEST_NAME:
        return None
    try:
        if not filename.endswith(".whl"):
            return str(parse_sdist_filename(filename)[1])
        # packaging's own parser of wheels multiplies the tags of a name, of which some have many.
        parts = filename.removesuffix(".whl").split("-")
        return str(Version(parts[1])) if len(parts) in (5, 6) else None
    except (InvalidSdistFilename, InvalidVersion):
        return None
