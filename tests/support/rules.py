"""Rules of an operator, stated as in the configuration file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import attrs

from proxpi.config import RuleSettings
from proxpi.rules.deny_files import DenyFiles
from proxpi.rules.osv import Advisory
from proxpi.rules.rules import Advisories, ProjectRules, Rules
from proxpi.simple import Project, ages, selector


def advised(identifier: str, *versions: str, sha256: str = "") -> Advisory:
    """Return an advisory on some versions, or on one digest."""
    return Advisory(identifier, versions, digests=(f"sha256:{sha256}",) if sha256 else ())


@attrs.define
class KnownAdvisories:
    """Advisories by name of project."""

    known: dict[str, Sequence[Advisory]]
    changed: list[Callable[[Collection[str]], object]] = attrs.field(factory=list)

    def change(self, names: Collection[str]) -> None:
        for callback in self.changed:
            callback(names)

    def of(self, name: str) -> Sequence[Advisory]:
        return self.known.get(name, ())


def stated(
    *,
    exclude_newer: str = "",
    exclude_newer_except: Sequence[str] = (),
    exclude_newer_unknown: str | None = None,
    deny: Sequence[str] = (),
    allow: Sequence[str] | None = None,
) -> RuleSettings:
    return RuleSettings(
        exclude_newer=ages.exclude_newer(exclude_newer) if exclude_newer else None,
        exclude_newer_text=exclude_newer,
        exclude_newer_except=tuple(map(selector, exclude_newer_except)),
        exclude_newer_unknown=exclude_newer_unknown,
        deny=tuple(map(selector, deny)),
        allow=None if allow is None else tuple(map(selector, allow)),
    )


def rules(
    *, deny_files: DenyFiles | None = None, advisories: Advisories | None = None, **keys: Any
) -> Rules:
    return Rules(stated(**keys), deny_files, advisories)


def project_rules(name: str, **keys: Any) -> ProjectRules:
    """Return the rules of a project, which must have some."""
    found = rules(**keys).of(name)
    assert found is not None
    return found


def a_page(*filenames: str, name: str = "demo", uploaded: str = "", **keys: Any) -> Project:
    """Return a page; each file is given as ``NAME`` or ``NAME @ UPLOAD-TIME``."""
    files = []
    for given in filenames:
        filename, _, time = given.partition(" @ ")
        entry = {"filename": filename, "url": f"https://files.example/{filename}", "hashes": {}}
        if time or uploaded:
            entry["upload-time"] = time or uploaded
        files.append(entry)
    return Project(name, files, keys)
