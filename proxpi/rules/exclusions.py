"""The excluded files: a registry for log, metrics, statistics and the admin page.

A resolver that finds no version tells its user nothing about rules, so an operator must be able to
see what was excluded, why, and until when. The page cache notes the exclusions of each page that it
merges; the registry keeps them by project until the page is merged anew, or its rules change, and
forgets the projects noted longest ago when it has :data:`MOST_FILES` files.

A file is *new* the first time that it is noted with a kind of rule (deny, advisory, allow, age),
in any view. A new file is counted once and logged once: a few new files of a page with one line
each; more than :data:`MOST_LINES` that the same rule excludes with one line that has their number
and the first names, since the first page of a large project may have thousands. A file of a project
that was forgotten is new again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import attrs
from twisted.logger import Logger

from proxpi import metrics
from proxpi.rules.rules import Exclusion, Rules
from proxpi.simple import printable

#: Files that are kept, of all projects together. The project noted last is kept as a whole.
MOST_FILES = 10_000
#: New files of one page and one rule that have a line each.
MOST_LINES = 3

_log = Logger(namespace="proxpi.rules")


@attrs.define(eq=False)
class _Project:
    """The exclusions of one project.

    :ivar key: that of its rules when it was noted
    :ivar known: names of files with the kinds of the rules that have excluded them
    :ivar excluded: by the key of the sources of a page, and by name of file
    """

    key: str
    known: set[tuple[str, str]] = attrs.field(factory=set)
    excluded: dict[str, Mapping[str, Exclusion]] = attrs.field(factory=dict)


@attrs.define(eq=False)
class Exclusions:
    """The exclusions of the pages that were merged last, as far as the rules are still the same.

    `wall` gives the seconds since the epoch.
    """

    _rules: Rules
    _wall: Callable[[], float] = time.time
    _projects: dict[str, _Project] = attrs.field(init=False, factory=dict)
    _files: int = attrs.field(init=False, default=0)

    def note(self, project: str, excluded: Mapping[str, Exclusion], sources: str = "") -> None:
        """
        Note what is excluded from the page of a project now, in place of what was before.

        :param project: the normalized name
        :param excluded: by name of file; empty if nothing is excluded (any more)
        :param sources: the key of the sources that the page is merged from
        """
        key = self._key(project)
        noted = self._projects.pop(project, None)
        if noted is None:
            if not excluded:
                return
            noted = _Project(key)
        elif noted.key != key:
            noted.key, noted.excluded = key, {}
        self._projects[project] = noted  # as the last one
        noted.excluded[sources] = excluded
        new = {
            filename: each
            for filename, each in excluded.items()
            if (filename, each.kind) not in noted.known
        }
        for filename, each in new.items():
            noted.known.add((filename, each.kind))
            metrics.EXCLUDED.labels(each.kind).inc()
        for line in lines(project, new):
            _log.info("{line}", line=line)
        self._files += len(new)
        while self._files > MOST_FILES and len(self._projects) > 1:
            oldest = next(iter(self._projects))
            self._files -= len(self._projects.pop(oldest).known)

    def add(self, project: str, filename: str, exclusion: Exclusion, sources: str = "") -> None:
        """Note one file, which a client has requested: its page may not be merged yet."""
        noted = self._projects.get(project)
        same = noted is not None and noted.key == self._key(project)
        before = noted.excluded.get(sources, {}) if noted is not None and same else {}
        if before.get(filename) != exclusion:
            self.note(project, {**before, filename: exclusion}, sources)

    def __iter__(self) -> Iterator[tuple[str, str, Exclusion]]:
        """Iterate over project, file and exclusion; a file once, however many views list it."""
        now = self._wall()
        for name, noted in self._projects.items():
            if noted.key != self._key(name):
                continue
            files: dict[str, Exclusion] = {}
            for excluded in noted.excluded.values():
                files |= excluded
            for file, each in files.items():
                if each.available_at is None or now < each.available_at:
                    yield name, file, each

    def _key(self, project: str) -> str:
        """Return the key of the rules of a project."""
        rules = self._rules.of(project)
        return rules.key if rules is not None else ""


def lines(project: str, new: Mapping[str, Exclusion]) -> Iterable[str]:
    """
    Return the lines of the log for new exclusions of one page.

    ``demo: demo-1.0.zip is excluded by the rule deny = "demo"``, or ``demo: 1200 files are excluded
    by the rule exclude-newer = "7 days": a.zip, b.zip, c.zip and 1197 others; the first is
    available from 2025-06-16T12:00:00Z``.
    """
    by_rule: dict[str, dict[str, Exclusion]] = {}
    for filename, each in new.items():
        by_rule.setdefault(each.rule, {})[filename] = each
    for rule, files in by_rule.items():
        if len(files) <= MOST_LINES:
            for filename, each in files.items():
                available = f"; it is available from {each.available}" if each.available else ""
                yield f"{project}: {printable(filename)} is excluded by {rule}{available}"
        else:
            yield f"{project}: {len(files)} files are excluded by {rule}: {_some([*files])}" + (
                _first_available(files.values())
            )


def _some(filenames: Sequence[str]) -> str:
    first = ", ".join(map(printable, filenames[:MOST_LINES]))
    return f"{first} and {len(filenames) - MOST_LINES} others"


def _first_available(excluded: Iterable[Exclusion]) -> str:
    moments = [each for each in excluded if each.available_at is not None]
    if not moments:
        return ""
    first = min(moments, key=lambda each: each.available_at or 0.0)
    return f"; the first is available from {first.available}"
