"""The candidate of a project that a client's resolver will choose; pure, to be run in a thread.

It is the newest version that fits: the specifiers, the client's Python (``requires-python``) and
wheel tags, not yanked unless pinned, pre-releases by PEP 440's rule, and uploaded before the
cut-off date, if there is one. Versions are searched newest first, and only the entries of one
version at a time are decoded, since a page may have thousands of files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import attrs
import msgspec
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from proxpi.prefetch.client import Client
from proxpi.simple import model

#: Bytes of a file name that is looked at, and files of one version.
MAX_NAME = 300
MAX_FILES = 200
#: Characters of all specifiers of a project; in large trees it is 250.
MAX_SPECIFIERS = 2000

_NAME = re.compile(rb'\n\{"filename":"([^"\\]+)"')
_SDIST = re.compile(r".+-([0-9][^-]*?)\.(?:tar\.gz|zip|tar\.bz2|tgz)")
_decode = msgspec.json.Decoder(dict[str, Any]).decode


@attrs.frozen
class Wanted:
    """A search for the candidate of a project.

    :ivar specifiers: of all requirements known so far
    :ivar cutoff: an upload time (``upload-time`` of PEP 700); files from then on do not count
    """

    specifiers: frozenset[str]
    cutoff: str | None = None


@attrs.frozen
class Candidate:
    """A file that a resolver chooses.

    :ivar has_metadata: whether its index advertises its core metadata
    :ivar uploaded: its upload time; empty if unknown
    """

    filename: str
    size: int | None = None
    has_metadata: bool = False
    uploaded: str = ""

    @property
    def is_wheel(self) -> bool:
        return self.filename.endswith(".whl")


def choose(pages: Sequence[bytes], wanted: Wanted, client: Client) -> Candidate | None:
    """
    Return the candidate that a client's resolver will choose.

    :param pages: encoded pages (:func:`proxpi.simple.model.encode`), in order of precedence
    """
    return next(_fitting(pages, wanted, client), None)


def next_newer(
    pages: Sequence[bytes], wanted: Wanted, client: Client, filename: str
) -> tuple[Candidate | None, str | None]:
    """
    Compare the file that a client chose with the candidates that fit, too.

    :return: the chosen file, and the earliest upload time of the newer versions; ``None``: no
        newer one fits
    """
    chosen = version_of(filename)
    entry = next(filter(None, (model.find(page, filename) for page in pages)), None)
    newer = []
    if chosen is not None:
        for each in _fitting(pages, attrs.evolve(wanted, cutoff=None), client):
            version = version_of(each.filename)
            if version is None or version <= chosen:
                break
            newer.append(each.uploaded)
    return _candidate(entry) if entry is not None else None, min(filter(None, newer), default=None)


def _fitting(pages: Sequence[bytes], wanted: Wanted, client: Client) -> Iterator[Candidate]:
    """Iterate over the candidates that fit, one a version, the newest first."""
    specifiers = _specifiers(wanted.specifiers)
    if specifiers is None:
        return
    versions = _by_version(pages)
    accepts_all = bool(specifiers.prereleases)
    newest_first = sorted(versions, reverse=True)
    finals = [each for each in newest_first if accepts_all or not each.is_prerelease]
    rest = [] if accepts_all else [each for each in newest_first if each.is_prerelease]
    found = False
    for each in (*finals, *rest):
        # PEP 440: pre-releases count where nothing else fits.
        if found and each.is_prerelease and not accepts_all:
            return
        if not specifiers.contains(each, prereleases=True):
            continue
        files = [_decode(line) for line in versions[each][:MAX_FILES]]
        best = _best(files, each, specifiers, wanted.cutoff, client)
        if best is not None:
            found = True
            yield best


def _by_version(pages: Sequence[bytes]) -> dict[Version, list[bytes]]:
    """Return the encoded entries of pages by version; a name counts where it comes first."""
    names: set[bytes] = set()
    versions: dict[Version, list[bytes]] = {}
    for page in pages:
        for match in _NAME.finditer(page):
            name = match[1]
            if name in names:
                continue
            names.add(name)
            version = version_of(name.decode("utf-8", "replace"))
            if version is not None:
                line = page[match.start() + 1 : page.find(b"\n", match.end())]
                versions.setdefault(version, []).append(line)
    return versions


def version_of(filename: str) -> Version | None:
    """Return the version in the name of a wheel or sdist (PEP 427, PEP 625)."""
    if len(filename) > MAX_NAME:
        return None
    if filename.endswith(".whl"):
        parts = filename.split("-")
        return _version(parts[1]) if len(parts) in (5, 6) else None
    match = _SDIST.fullmatch(filename)
    return _version(match[1]) if match else None


@lru_cache(maxsize=16384)
def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


@lru_cache(maxsize=1024)
def _specifiers(texts: frozenset[str]) -> SpecifierSet | None:
    if sum(map(len, texts)) > MAX_SPECIFIERS:
        return None
    try:
        return SpecifierSet(",".join(sorted(texts)))
    except InvalidSpecifier:
        return None


def _best(
    files: Sequence[Mapping[str, Any]],
    version: Version,
    specifiers: SpecifierSet,
    cutoff: str | None,
    client: Client,
) -> Candidate | None:
    """Return the file of one version that a client takes: a wheel by its tags, else an sdist."""
    pinned = any(each.operator in ("==", "===") and "*" not in each.version for each in specifiers)
    best: tuple[int, Mapping[str, Any]] | None = None
    sdist: Mapping[str, Any] | None = None
    for entry in files:
        uploaded = entry.get("upload-time")
        if cutoff is not None and isinstance(uploaded, str) and uploaded >= cutoff:
            continue
        if entry.get("yanked") and not pinned:
            continue
        if not _suits_python(entry.get("requires-python"), client):
            continue
        rank = _rank(entry["filename"], client)
        if rank is not None:
            if best is None or rank < best[0]:
                best = rank, entry
        elif not entry["filename"].endswith(".whl"):
            sdist = sdist or entry
    entry_or_none = best[1] if best is not None else sdist
    return _candidate(entry_or_none) if entry_or_none is not None else None


def _candidate(entry: Mapping[str, Any]) -> Candidate:
    size, uploaded = entry.get("size"), entry.get("upload-time")
    return Candidate(
        entry["filename"],
        size if isinstance(size, int) else None,
        bool(model.metadata_hash(dict(entry))),
        uploaded if isinstance(uploaded, str) else "",
    )


def _rank(filename: str, client: Client) -> int | None:
    if client.ranks is not None:
        return client.rank(filename)
    # Of a client without a stated platform only this is known to suit.
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
        return True  # as pip has it
