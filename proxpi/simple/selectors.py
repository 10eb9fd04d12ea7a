"""Selectors: short texts that select projects, versions of projects, or files; pure.

Rules of an operator (deny, allow, exceptions, ownership of names) select in one language, which is
read here and nowhere else. A :class:`NamePattern` selects projects; a :class:`Selector` selects
files, by the name of their project, by its versions too, or by a digest:

=========================  ===================================================================
Selector                   Selected files
=========================  ===================================================================
``evil``                   all files of the project
``acme-*``                 all files of projects whose normalized name begins with ``acme-``
``left-pad>=1.2,<1.3``     files of those versions (PEP 440), pre-releases included
``sha256:<64 hex digits>`` the file with this digest, in any project
=========================  ===================================================================

A name is compared in its normalized form (PEP 503), so ``Acme_Tool`` and ``acme-tool`` are one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

import attrs
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from proxpi.simple import model, names

#: The texts that :func:`selector` accepts, for error messages.
ACCEPTED = (
    "a project name such as acme-tool, a pattern such as acme-*, a name with versions such as "
    "acme-tool>=1.2,<1.3, or sha256: and 64 hexadecimal digits"
)
#: The texts that :func:`name_pattern` accepts, for error messages.
ACCEPTED_PATTERN = "a project name such as acme-tool, or a pattern such as acme-*"

_MAX_LENGTH = 1000
_NORMALIZED = re.compile("[a-z0-9]+(?:-[a-z0-9]+)*")
_SEPARATORS = re.compile("[-_.]+")
_VERSIONS = re.compile(r"[<>=!~]")
_DIGEST = re.compile(r"([a-z0-9_]+)\s*:\s*(.*)", re.IGNORECASE | re.DOTALL)
_FOREIGN = re.compile(r"[\[;@(]")


@attrs.frozen
class NamePattern:
    """A normalized project name, in which ``*`` stands for any run of characters, also for none.

    :ivar text: normalized, without two ``*`` in a row
    """

    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def is_name(self) -> bool:
        """Whether it matches one name only."""
        return "*" not in self.text

    def matches(self, name: str) -> bool:
        """
        Return whether it matches a name.

        ==========  ===========  =======
        Pattern     Name         Matches
        ==========  ===========  =======
        acme        acme         yes
        acme        acme-tool    no
        acme-*      acme-tool    yes
        acme-*      acme         no
        *-stubs     foo-stubs    yes
        a*b*c       a-b-b-c      yes
        ab*ba       aba          no
        ==========  ===========  =======

        :param name: normalized
        """
        first, *rest = self.text.split("*")
        if not rest:
            return name == first
        last = rest.pop()
        if len(name) < len(first) + len(last) or not name.startswith(first):
            return False
        position, end = len(first), len(name) - len(last)
        for part in rest:  # the first place of each part leaves most for the others
            if (found := name.find(part, position, end)) < 0:
                return False
            position = found + len(part)
        return name.endswith(last)


def name_pattern(text: str) -> NamePattern:
    """Read a project name, or a pattern with ``*``; raises :exc:`ValueError` with a reason."""
    written = text.strip()
    # Nearly all lines of a long list: the other ways take ten times as long.
    if _NORMALIZED.fullmatch(written) and len(written) <= names.MAX_LENGTH:
        return NamePattern(written)
    if not written:
        raise ValueError("it is empty")
    pattern = _SEPARATORS.sub("-", re.sub(r"\*+", "*", written)).lower()
    # A star stands for letters also where it is an end of the name.
    if names.normalize(pattern.replace("*", "x")) is None:
        if len(written) > names.MAX_LENGTH:
            raise ValueError(f"a project name has at most {names.MAX_LENGTH} characters")
        raise ValueError(
            f"{written!r} is no project name: it has letters, digits and - _ . "
            "between them, and * for any characters"
        )
    return NamePattern(pattern)


@attrs.frozen
class Selector:
    """Selects files.

    :ivar text: as written
    :ivar pattern: of the names of their projects
    :ivar versions: the specifiers that their versions fit; empty: all versions
    :ivar sha256: the digest that they have; empty: any
    """

    text: str
    pattern: NamePattern
    versions: str = ""
    sha256: str = ""

    def __str__(self) -> str:
        return self.text

    @property
    def whole_projects(self) -> bool:
        """Whether it selects all files of the projects that it selects."""
        return not self.versions and not self.sha256

    def matches_name(self, name: str) -> bool:
        """Return whether it may select files of a project, by its normalized name."""
        return self.pattern.matches(name)

    def matches(
        self,
        name: str,
        version: Version | None,
        hashes: Mapping[str, str],
        *,
        unreadable: bool,
    ) -> bool:
        """
        Return whether it selects a file.

        :param name: of the project, normalized
        :param version: ``None`` if the name of the file tells none
        :param hashes: as its index states them
        :param unreadable: the result for a file without a version, if the selector has versions:
            true where a match excludes the file, and false where a match lets it through
        """
        if not self.pattern.matches(name):
            return False
        if self.sha256:
            return hashes.get("sha256") == self.sha256
        if not self.versions:
            return True
        return unreadable if version is None else _contains(self.versions, version)


def selector(text: str) -> Selector:
    """Read a selector; raises :exc:`ValueError` with a reason.

    See :data:`ACCEPTED` for what is accepted.
    """
    written = text.strip()
    if len(written) > _MAX_LENGTH:
        raise ValueError(f"it has more than {_MAX_LENGTH} characters")
    if (digest := _DIGEST.fullmatch(written)) is not None:
        return Selector(written, NamePattern("*"), sha256=_sha256(digest[1], digest[2]))
    if (foreign := _FOREIGN.search(written)) is not None:
        raise ValueError(
            f"extras, markers, URLs and parentheses ({foreign[0]}) have no place in it"
        )
    start = _VERSIONS.search(written)
    name, versions = (
        (written[: start.start()], written[start.start() :]) if start else (written, "")
    )
    pattern = name_pattern(name)
    if versions:
        versions = versions.strip()
        try:
            # With any version: packaging looks at some of a specifier only when it is used.
            SpecifierSet(versions).contains(Version("1"), prereleases=True)
        except ValueError:
            raise ValueError(f"{versions!r} are no versions such as ==1.2 or >=1.2,<1.3") from None
    return Selector(written, pattern, versions)


def _sha256(algorithm: str, digest: str) -> str:
    if algorithm.lower() != "sha256":
        raise ValueError(f"{algorithm!r} is no digest that is compared: sha256 is")
    digest = digest.lower()
    if not model.is_usable("sha256", digest):
        raise ValueError("a SHA-256 digest has 64 hexadecimal digits")
    return digest


@lru_cache(maxsize=16384)
def _contains(versions: str, version: Version) -> bool:
    return SpecifierSet(versions).contains(version, prereleases=True)
