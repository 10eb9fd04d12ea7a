"""Rules of an operator, stated as in the configuration file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import attrs

from proxpi.index.deny_files import DenyFiles
from proxpi.index.rules import Advisories, ProjectRules, Rules
from proxpi.simple import Project, Selector, exclude_newer, selector


@attrs.frozen(kw_only=True)
class Stated:
    """The rules that an operator states."""

    exclude_newer: timedelta | datetime | None = None
    exclude_newer_text: str = ""
    exclude_newer_except: tuple[Selector, ...] = ()
    exclude_newer_unknown: str | None = None
    deny: tuple[Selector, ...] = ()
    allow: tuple[Selector, ...] | None = None


def stated(
    *,
    exclude_newer: str = "",
    exclude_newer_except: Sequence[str] = (),
    exclude_newer_unknown: str | None = None,
    deny: Sequence[str] = (),
    allow: Sequence[str] | None = None,
) -> Stated:
    return Stated(
        exclude_newer=_age(exclude_newer) if exclude_newer else None,
        exclude_newer_text=exclude_newer,
        exclude_newer_except=tuple(map(selector, exclude_newer_except)),
        exclude_newer_unknown=exclude_newer_unknown,
        deny=tuple(map(selector, deny)),
        allow=None if allow is None else tuple(map(selector, allow)),
    )


_age = exclude_newer


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
