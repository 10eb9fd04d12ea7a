"""Rules on the files that may be installed, which exclude others from pages; pure decisions.

An operator states rules once, for all clients. A rule excludes *files*: they are not listed, so
that a resolver chooses among the others, and they are not served. The first rule that matches is
the reason that is given, in this order:

===========  =====================================================  ==============================
Kind         Excluded                                               Lifted by
===========  =====================================================  ==============================
deny         files that a selector of ``deny``, or a line of one    nothing
             of ``deny-files``, selects
advisory     files that an advisory on malicious packages names     ``advisories-except``
allow        files that no selector of ``allow`` selects, if it is  nothing
             given
age          files uploaded at the date of ``exclude-newer`` or     ``exclude-newer-except``, time
             later, or not as long ago as its age
===========  =====================================================  ==============================

A file whose version cannot be read in its name counts as one of the versions of a selector that
excludes, and as none of those of one that lets through. A file without an upload time is as
``exclude-newer-unknown`` says: by default it is excluded if the page of its index states the time
of another file, since an index that states none would have no file left. The age of a
``NAME-VERSION-variants.json`` (draft PEP 825) is ignored: it is no file to install, and is written
anew when a wheel is added.

:class:`Rules` holds all rules and compiles those of one project, :class:`ProjectRules`, once:
most have none, or an age alone, and a page may have thousands of files. When deny files or
advisories change, the projects concerned are compiled anew.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Literal, Protocol, TypeAlias

import attrs
from packaging.version import Version

from proxpi.config import RuleSettings
from proxpi.rules.deny_files import Denial, DenyFiles
from proxpi.rules.osv import Advisory
from proxpi.simple import FileEntry, Project, Selector, ages, names, printable, versions

Kind: TypeAlias = Literal["deny", "advisory", "allow", "age"]
Digests: TypeAlias = Mapping[str, str]

#: Compiled projects that are kept.
MOST_COMPILED = 20_000


class Advisories(Protocol):
    """The advisories that are known now, without those that an exception lifts.

    :ivar changed: called with the names of the projects whose advisories have changed
    """

    @property
    def changed(self) -> list[Callable[[Collection[str]], object]]: ...
    def of(self, name: str) -> Sequence[Advisory]: ...


@attrs.frozen
class Exclusion:
    """Why a file is excluded.

    :ivar rule: a noun phrase that completes "This file is excluded by …"
    :ivar available_at: seconds of the epoch from which on the file is not excluded any more;
        ``None``: time alone changes nothing
    """

    rule: str
    available_at: float | None = None
    kind: Kind = "deny"

    @property
    def available(self) -> str | None:
        """The time `available_at` by RFC 3339."""
        return None if self.available_at is None else ages.rfc3339(self.available_at)


@attrs.frozen
class Ruled:
    """A page after the rules.

    :ivar project: the very page that was given if no file is excluded
    :ivar excluded: by name of file
    :ivar until: seconds of the epoch at which the next file comes of age
    """

    project: Project
    excluded: dict[str, Exclusion]
    until: float | None


#: Says why a rule excludes a file, by its version and digests.
_Check: TypeAlias = Callable[[Version | None, Digests], Exclusion | None]


@attrs.frozen
class _Age:
    """The rule ``exclude-newer`` for one project.

    :ivar seconds: the age; ``None`` for a date
    :ivar date: in seconds of the epoch
    :ivar unknown: whether a file without upload time is excluded; ``None``: see the module
    :ivar exceptions: files that it does not exclude
    """

    rule: str
    seconds: float | None
    date: float
    unknown: bool | None
    exceptions: tuple[Selector, ...]

    def judge(self, entry: FileEntry, now: float, times: bool) -> Exclusion | None:
        stated = entry.get("upload-time")
        uploaded = ages.timestamp(stated) if isinstance(stated, str) else None
        if uploaded is None:
            if self.unknown if self.unknown is not None else times:
                return Exclusion(f"{self.rule}, since its upload time is not known", None, "age")
            return None
        if self.seconds is None:
            return Exclusion(self.rule, None, "age") if uploaded >= self.date else None
        available_at = uploaded + self.seconds
        return Exclusion(self.rule, available_at, "age") if now < available_at else None


@attrs.frozen(eq=False)
class ProjectRules:
    """The rules that can exclude files of one project.

    :ivar name: of the project, normalized
    :ivar key: differs if the decision on any file could differ for another reason than time
    """

    name: str
    key: str
    _checks: tuple[_Check, ...]
    _reads_versions: bool
    _age: _Age | None

    def judge(self, entry: FileEntry, now: float, *, times: bool) -> Exclusion | None:
        """
        Return why a file is excluded; ``None`` if it is not.

        With ``deny = ["foo==1.0"]``, ``allow = ["foo"]`` and ``exclude-newer = "7 days"``:

        ===========  ===================  ==========================  =============
        Version      Uploaded             Other files have times      Excluded
        ===========  ===================  ==========================  =============
        1.0          any time ago                                     by deny
        unreadable   any time ago                                     by deny
        2.0          8 days ago                                       no
        2.0          7 days ago                                       no
        2.0          6 days ago                                       for 1 more day
        2.0          in 1 day                                         for 8 more days
        2.0          unknown              yes                         by age
        2.0          unknown              no                          no
        ===========  ===================  ==========================  =============

        :param now: seconds of the epoch
        :param times: whether the page of its index states an upload time of any file
        """
        if self._checks:
            hashes = entry["hashes"]
            version = None
            if self._reads_versions:
                version = versions.version_of(entry["filename"], self.name)
            for check in self._checks:
                if (found := check(version, hashes)) is not None:
                    return found
        age = self._age
        if age is None or (found := age.judge(entry, now, times)) is None:
            return None
        return None if self._is_exception(entry, age.exceptions) else found

    def _is_exception(self, entry: FileEntry, exceptions: Sequence[Selector]) -> bool:
        """Return whether the age of a file is ignored."""
        filename, hashes = entry["filename"], entry["hashes"]
        version = versions.version_of(filename, self.name) if exceptions else None
        return names.may_change(filename) or any(
            each.matches(self.name, version, hashes, unreadable=False) for each in exceptions
        )


def states_times(project: Project) -> bool:
    """Return whether a page states an upload time of any file."""
    return any("upload-time" in entry for entry in project.files)


def apply(
    rules: ProjectRules, project: Project, now: float, untimed: Collection[str] = frozenset()
) -> Ruled:
    """
    Take the excluded files from a page, and the versions of which no file is left (PEP 700).

    :param now: seconds of the epoch
    :param untimed: names of files from pages that state no upload time at all
    """
    excluded: dict[str, Exclusion] = {}
    kept: list[FileEntry] = []
    for entry in project.files:
        found = rules.judge(entry, now, times=entry["filename"] not in untimed)
        if found is None:
            kept.append(entry)
        else:
            excluded[entry["filename"]] = found
    if not excluded:
        return Ruled(project, excluded, None)
    keys = dict(project.keys)
    if isinstance(stated := keys.get("versions"), list):
        keys["versions"] = _left(stated, rules.name, kept, excluded)
    moments = [each.available_at for each in excluded.values() if each.available_at is not None]
    return Ruled(attrs.evolve(project, files=kept, keys=keys), excluded, min(moments, default=None))


def _left(
    stated: Sequence[str], name: str, kept: Sequence[FileEntry], excluded: Iterable[str]
) -> list[str]:
    """Return the versions that still have a file, and those that had none before."""
    if not kept:
        return []
    gone = {versions.version_of(filename, name) for filename in excluded}
    gone -= {None, *(versions.version_of(entry["filename"], name) for entry in kept)}
    return [each for each in stated if versions.version(each) not in gone]


@attrs.frozen
class _List:
    """Selectors of one list, in an order that makes those of a project quick to find.

    :ivar names: those of one project, by its name, each with its position in the list
    :ivar digests: by digest
    :ivar digests_key: differs if digests or their reasons differ
    """

    names: Mapping[str, Sequence[tuple[int, Denial]]]
    patterns: Sequence[tuple[int, Denial]]
    digests: Mapping[str, Exclusion]
    digests_key: str

    @classmethod
    def of(cls, denials: Iterable[Denial]) -> _List:
        names: dict[str, list[tuple[int, Denial]]] = {}
        patterns: list[tuple[int, Denial]] = []
        digests: dict[str, Exclusion] = {}
        for position, denial in enumerate(denials):
            chosen = denial.selector
            if chosen.sha256:
                digests.setdefault(chosen.sha256, Exclusion(denial.rule, None, "deny"))
            elif chosen.pattern.is_name:
                names.setdefault(chosen.pattern.text, []).append((position, denial))
            else:
                patterns.append((position, denial))
        key = _fingerprint(f"{digest} {each.rule}" for digest, each in sorted(digests.items()))
        return cls(names, patterns, digests, key if digests else "")

    def matching(self, name: str) -> list[Denial]:
        """Return the selectors of a project without digests, in the order of the list."""
        found = [*self.names.get(name, ())]
        found += [each for each in self.patterns if each[1].selector.matches_name(name)]
        return [denial for _, denial in sorted(found, key=lambda each: each[0])]


def _fingerprint(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()[:32]


@attrs.define(eq=False)
class Rules:
    """All rules, and those of each project.

    :ivar changed: called after rules have changed, with the names of all projects that are
        concerned; ``None`` if these are not known
    """

    _settings: RuleSettings
    _deny_files: DenyFiles | None = None
    _advisories: Advisories | None = None
    changed: list[Callable[[Collection[str] | None], None]] = attrs.field(factory=list)
    _compiled: dict[str, ProjectRules | None] = attrs.field(init=False, factory=dict)
    _deny: _List = attrs.field(init=False)
    _in_files: _List = attrs.field(init=False)
    _allow: _List | None = attrs.field(init=False)
    _age: _Age | None = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        stated = self._settings
        self._deny = _List.of(Denial(each, f'the rule deny = "{each}"') for each in stated.deny)
        self._allow = None
        if stated.allow is not None:
            self._allow = _List.of(Denial(each, each.text) for each in stated.allow)
        self._age = _age(stated)
        self._in_files = _List.of(self._deny_files.denials if self._deny_files else ())
        if self._deny_files is not None:
            self._deny_files.changed.append(self._deny_files_changed)
        if self._advisories is not None:
            self._advisories.changed.append(self._invalidate)

    def of(self, name: str) -> ProjectRules | None:
        """
        Return the rules of a project; ``None`` if nothing can be excluded from it.

        :param name: normalized
        """
        try:
            return self._compiled[name]
        except KeyError:
            pass
        if len(self._compiled) >= MOST_COMPILED:
            self._compiled.clear()  # quickly made again, and clients may ask for any name
        compiled = self._compiled[name] = self._compile(name)
        return compiled

    def _invalidate(self, names: Collection[str] | None) -> None:
        """Compile the rules of projects anew; ``None``: of all."""
        if names is None:
            self._compiled.clear()
        else:
            for name in names:
                self._compiled.pop(name, None)
        for callback in self.changed:
            callback(names)

    def _deny_files_changed(self, names: Collection[str] | None) -> None:
        assert self._deny_files is not None
        self._in_files = _List.of(self._deny_files.denials)
        self._invalidate(names)

    def _compile(self, name: str) -> ProjectRules | None:
        checks: list[_Check] = []
        parts: list[str] = []
        reads_versions = False
        for each in (self._deny, self._in_files):
            for denial in each.matching(name):
                checks.append(_denied(name, denial.selector, Exclusion(denial.rule, None, "deny")))
                parts.append(f"deny {denial.selector} {denial.rule}")
                reads_versions |= not denial.selector.whole_projects
            if each.digests:
                checks.append(_by_digest(each.digests))
                parts.append(f"deny digests {each.digests_key}")
        for advisory in self._advisories.of(name) if self._advisories is not None else ():
            checks.append(_advised(advisory))
            parts.append(f"advisory {advisory!r}")
            reads_versions = True
        if self._allow is not None:
            allowed = tuple(denial.selector for denial in self._allow.matching(name))
            if not any(each.whole_projects for each in allowed):
                checks.append(_allowed(name, allowed, self._allow.digests))
                reads_versions |= bool(allowed)
                parts.append(f"allow {[*map(str, allowed)]} {self._allow.digests_key}")
        if (age := self._age) is not None:
            exceptions = tuple(each for each in age.exceptions if each.matches_name(name))
            if any(each.whole_projects for each in exceptions):
                age = None
            else:
                age = attrs.evolve(age, exceptions=exceptions)
                parts.append(f"age {age!r}")
        if not parts:
            return None
        return ProjectRules(name, _fingerprint(parts), tuple(checks), reads_versions, age)


def _age(stated: RuleSettings) -> _Age | None:
    value, unknown = stated.exclude_newer, stated.exclude_newer_unknown
    if value is None:
        return None
    date = value if isinstance(value, datetime.datetime) else None
    return _Age(
        rule=f'the rule exclude-newer = "{printable(stated.exclude_newer_text)}"',
        seconds=value.total_seconds() if isinstance(value, datetime.timedelta) else None,
        date=date.timestamp() if date is not None else 0.0,
        unknown=None if unknown is None else unknown == "exclude",
        exceptions=stated.exclude_newer_except,
    )


def _denied(name: str, chosen: Selector, exclusion: Exclusion) -> _Check:
    def denied(version: Version | None, hashes: Digests) -> Exclusion | None:
        return exclusion if chosen.matches(name, version, hashes, unreadable=True) else None

    return denied


def _by_digest(exclusions: Mapping[str, Exclusion]) -> _Check:
    def by_digest(version: Version | None, hashes: Digests) -> Exclusion | None:
        return exclusions.get(hashes.get("sha256", ""))

    return by_digest


def _advised(advisory: Advisory) -> _Check:
    exclusion = Exclusion(f"the advisory {printable(advisory.id)}", None, "advisory")

    def advised(version: Version | None, hashes: Digests) -> Exclusion | None:
        return exclusion if advisory.matches(version, hashes) else None

    return advised


def _allowed(name: str, chosen: Sequence[Selector], digests: Collection[str]) -> _Check:
    exclusion = Exclusion("the rule allow, which does not name it", None, "allow")

    def allowed(version: Version | None, hashes: Digests) -> Exclusion | None:
        if hashes.get("sha256") in digests:
            return None
        if any(each.matches(name, version, hashes, unreadable=False) for each in chosen):
            return None
        return exclusion

    return allowed
