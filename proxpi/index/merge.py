"""Several indexes, one answer: the first index that lists a file name has it.

Pure functions over values. Listing and bytes follow the same rules: the order, and that an index
offers none of its files of a project that it says is quarantined (PEP 792).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from packaging.utils import InvalidSdistFilename, parse_sdist_filename
from packaging.version import InvalidVersion, Version

from proxpi.simple import model
from proxpi.simple.model import Entry, Project

#: Statuses of PEP 792, the strongest first. An unknown one is stronger than ``active`` alone:
#: it says something, but clients can act upon those that they know.
_STATUSES = ("quarantined", "archived", "deprecated", None, "active")
#: Characters of a file name in which a version is looked for; no folder takes as many.
_LONGEST_NAME = 1000


def merge(projects: Sequence[Project]) -> Project:
    """
    Merge what several indexes say of one project, given in order of precedence.

    A file name and a top-level key are taken from the first that has them; ``versions`` (PEP
    700) are united; of several statuses the strongest is taken, with its reason.
    """
    projects = [
        attrs.evolve(each, files=[]) if is_quarantined(each.keys) else each for each in projects
    ]
    if len(projects) == 1:
        return projects[0]
    files: dict[str, Entry] = {}
    keys: dict[str, object] = {}
    for project in projects:
        for entry in project.files:
            files.setdefault(entry["filename"], entry)
        for key, value in project.keys.items():
            keys.setdefault(key, value)
    if "project-status" in keys:
        stated = [each.keys for each in projects if "project-status" in each.keys]
        keys["project-status"] = min(stated, key=_rank)["project-status"]
    if "versions" in keys:
        keys["versions"] = _all_versions(projects)
    return Project(projects[0].name, list(files.values()), keys)


def find(document: bytes, filename: str) -> Entry | None:
    """Give what an index says of one file, if it offers it on the merged page, too."""
    entry = model.find(document, filename)
    return entry if entry is not None and not is_quarantined(model.keys_of(document)) else None


def is_quarantined(keys: Mapping[str, Any]) -> bool:
    """Whether an index says of a project that none of its files may be used."""
    return _rank(keys) == 0


def _rank(keys: Mapping[str, Any]) -> int:
    status = str(keys.get("project-status", {}).get("status", "active")).strip().lower()
    return _STATUSES.index(status if status in _STATUSES else None)


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
        responses = filename.removesuffix(".whl").split("-")
        return str(Version(responses[1])) if len(responses) in (5, 6) else None
    except (InvalidSdistFilename, InvalidVersion):
        return None
