"""The candidate of a project: the file that a client's resolver will choose; pure.

It is the newest version that fits: the specifiers, the client's Python (``requires-python``) and
wheel tags, not yanked unless pinned, pre-releases by PEP 440's rule, and uploaded before the
cut-off date, if there is one. Versions are searched newest first, and only the entries of one
version at a time are decoded, since a page may have thousands of files. That still takes
milliseconds, so a thread searches large pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import attrs
import msgspec
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from proxpi.prefetch.client import Client
from proxpi.simple import FileEntry, model, versions

#: Characters of a file name that is read.
MAX_NAME = 300
#: Files of one version that are considered.
MAX_FILES = 200
#: Characters of all specifiers of a project together; in large trees they are 250.
MAX_SPECIFIERS = 2000

# The version in the name of a wheel or sdist (PEP 427, PEP 625). An encoded page has a file a line.
_NAME = r'[^"\\]*?-([0-9][^-"\\]*?)(?:-[^"\\]*\.whl|\.tar\.gz|\.zip|\.tar\.bz2|\.tgz)'
_OF_FILE = re.compile(_NAME)
_OF_LINES = re.compile(rb'\n\{"filename":"(%b)"' % _NAME.encode())
_decode = msgspec.json.Decoder(dict[str, Any]).decode


@attrs.frozen
class Constraints:
    """Constraints on the version of a candidate, besides the client's Python and wheel tags.

    :ivar specifiers: of all requirements on the project that are known so far
    :ivar cutoff: an upload time (``upload-time`` of PEP 700): only files from before it count
    """

    specifiers: frozenset[str]
    cutoff: str | None = None


@attrs.frozen
class Candidate:
    """A file that a resolver will choose, or has chosen.

    :ivar has_metadata: whether its index advertises its core metadata
    :ivar uploaded: its upload time; empty if unknown
    :ivar newer: the earliest upload time of the newer versions that fit, the cut-off date aside
    """

    filename: str
    size: int | None = None
    has_metadata: bool = False
    uploaded: str = ""
    newer: str | None = None

    @property
    def is_wheel(self) -> bool:
        return self.filename.endswith(".whl")


def remains(candidate: Candidate, before: Constraints, after: Constraints) -> bool:
    """
    Return whether a candidate for constraints is that for further ones, without a search.

    The newest of many versions is the newest of fewer, if it is among them.
    """
    specifiers, version = _specifiers(after.specifiers), version_of(candidate.filename)
    narrower = before.specifiers <= after.specifiers and before.cutoff == after.cutoff
    if not narrower or specifiers is None or version is None or version.is_prerelease:
        return False
    # A specifier with a pre-release lets others count, and a pin lets yanked files count.
    return not specifiers.prereleases and specifiers.contains(version)


def predict(pages: Sequence[bytes], constraints: Constraints, client: Client) -> Candidate | None:
    """
    Return the candidate that a client's resolver will choose.

    :param pages: encoded pages (:func:`proxpi.simple.model.encode`), in order of precedence
    """
    newer = None
    for files in _fitting(pages, constraints, client):
        best = _best([each for each in files if not _is_late(each, constraints.cutoff)], client)
        if best is not None:
            return attrs.evolve(best, newer=newer)
        newer = _earliest(newer, files)
    return None


def describe(
    pages: Sequence[bytes], constraints: Constraints, client: Client, filename: str
) -> Candidate | None:
    """
    Return the file that a client has chosen, compared with the newer ones that fit.

    :return: ``None`` if no page lists it
    """
    entry = next(filter(None, (model.find(page, filename) for page in pages)), None)
    chosen, newer = version_of(filename), None
    if entry is None or chosen is None:
        return None
    for files in _fitting(pages, constraints, client):
        version = version_of(files[0]["filename"])
        if version is None or version <= chosen:
            break
        newer = _earliest(newer, files)
    return attrs.evolve(_candidate(entry), newer=newer)


def _is_late(entry: FileEntry, cutoff: str | None) -> bool:
    return cutoff is not None and _uploaded(entry) >= cutoff


def _uploaded(entry: FileEntry) -> str:
    uploaded = entry.get("upload-time")
    return uploaded if isinstance(uploaded, str) else ""


def _earliest(known: str | None, files: Sequence[FileEntry]) -> str | None:
    return min(filter(None, [known, *map(_uploaded, files)]), default=None)


def _fitting(
    pages: Sequence[bytes], constraints: Constraints, client: Client
) -> Iterator[Sequence[FileEntry]]:
    """Iterate over the versions that fit, newest first: the files of each that suit a client."""
    specifiers = _specifiers(constraints.specifiers)
    if specifiers is None:
        return
    texts: dict[bytes, list[tuple[bytes, re.Match[bytes]]]] = {}
    for page in pages:
        for match in _OF_LINES.finditer(page):
            texts.setdefault(match[2], []).append((page, match))
    by_version: dict[Version, list[tuple[bytes, re.Match[bytes]]]] = {}
    for text, lines in texts.items():
        if (version := versions.version(text.decode("utf-8", "replace"))) is not None:
            by_version.setdefault(version, []).extend(lines)
    pinned = any(each.operator in ("==", "===") and "*" not in each.version for each in specifiers)
    accepts_all = bool(specifiers.prereleases)
    newest_first = sorted(by_version, reverse=True)
    finals = [each for each in newest_first if accepts_all or not each.is_prerelease]
    rest = [] if accepts_all else [each for each in newest_first if each.is_prerelease]
    found = False
    for version in (*finals, *rest):
        # PEP 440: pre-releases count where nothing else fits.
        if found and version.is_prerelease and not accepts_all:
            return
        if not specifiers.contains(version, prereleases=True):
            continue
        files = [
            entry
            for entry in _files(by_version[version], client)
            if (pinned or not entry.get("yanked"))
            and _suits_python(entry.get("requires-python"), client)
        ]
        if files:
            found = True
            yield files


def _files(lines: Sequence[tuple[bytes, re.Match[bytes]]], client: Client) -> list[FileEntry]:
    """Return the sdists, and the wheels that suit a client, of lines that begin with a match."""
    files: dict[bytes, FileEntry] = {}
    for page, match in lines[:MAX_FILES]:
        name = match[1].decode("utf-8", "replace")
        # A name on two pages is that of the page with precedence.
        if match[1] not in files and (not name.endswith(".whl") or _rank(name, client) is not None):
            files[match[1]] = _decode(page[match.start() + 1 : page.find(b"\n", match.end())])
    return list(files.values())


def version_of(filename: str) -> Version | None:
    """Return the version in the name of a wheel or sdist."""
    match = _OF_FILE.fullmatch(filename) if len(filename) <= MAX_NAME else None
    return versions.version(match[1]) if match is not None else None


@lru_cache(maxsize=1024)
def _specifiers(texts: frozenset[str]) -> SpecifierSet | None:
    if sum(map(len, texts)) > MAX_SPECIFIERS:
        return None
    try:
        return SpecifierSet(",".join(sorted(texts)))
    except InvalidSpecifier:
        return None


def _best(files: Sequence[FileEntry], client: Client) -> Candidate | None:
    """Return the best file of one version: a wheel by its tags, else an sdist."""
    ranked = [
        (rank, n)
        for n, each in enumerate(files)
        if (rank := _rank(each["filename"], client)) is not None
    ]
    if ranked:
        return _candidate(files[min(ranked)[1]])
    return _candidate(files[0]) if files else None


def _candidate(entry: FileEntry) -> Candidate:
    size, has_metadata = entry.get("size"), bool(model.metadata_hash(entry))
    size = size if isinstance(size, int) else None
    return Candidate(entry["filename"], size, has_metadata, _uploaded(entry))


def _rank(filename: str, client: Client) -> int | None:
    if client.ranks is not None:
        return client.rank(filename)
    # If the client states no platform, only such a wheel is known to suit it.
    return 0 if filename.endswith("-none-any.whl") else None


def _suits_python(requires: object, client: Client) -> bool:
    if not isinstance(requires, str) or client.environment is None:
        return True
    return _accepts(requires, client.environment["python_full_version"])


@lru_cache(maxsize=4096)
def _accepts(requires: str, python: str) -> bool:
    try:
        return SpecifierSet(requires).contains(python, prereleases=True)
    except (InvalidSpecifier, InvalidVersion):
        return True  # pip ignores what it cannot read
