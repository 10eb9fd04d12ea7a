"""Representations of a project's page: the pages of its indexes merged, rendered and stored.

The functions run in a thread, since a page may have thousands of files; they touch nothing but
their arguments and the disk. Listing and bytes follow the same rules, those of :func:`merge`: the
first index that lists a file name has the file; an index offers no file of a project whose status
it gives as quarantined (PEP 792). Between :func:`merge` and :func:`render`, the rules exclude files
(:mod:`proxpi.rules.rules`); a :class:`Ruling` tells by which rules, and until when, the rendered
representations of some sources are right.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import attrs
import msgspec

from proxpi.index.compression import compress
from proxpi.index.index_response import IndexPage, StoredResponse
from proxpi.index.page_store import (
    DOCUMENT,
    EXTRACTED,
    RULINGS,
    SUPPRESSED,
    Extracted,
    PageStore,
    StoredPage,
    is_source,
)
from proxpi.index.sources import Index, Sources
from proxpi.rules import Exclusion, ProjectRules, apply, states_times
from proxpi.simple import (
    FileEntry,
    Project,
    Serialization,
    model,
    render_html,
    render_json,
    versions,
)

#: Statuses of PEP 792, the strongest first. An unknown one is stronger than ``active`` alone:
#: it says something, but clients can act upon those that they know.
_STATUSES = ("quarantined", "archived", "deprecated", None, "active")

T = TypeVar("T")


class StoredPageLost(Exception):
    """The stored page of a project is gone or damaged."""


@attrs.frozen
class Representation:
    """One of the four representations of a page that is merged from some sources.

    :ivar compressed: whether with gzip
    """

    serialization: Serialization
    compressed: bool
    sources: Sources

    @property
    def name(self) -> str:
        """The name of its section on disk."""
        extension = ".gz" if self.compressed else ""
        return f"{self.sources.key} {self.serialization.value}{extension}"


class Ruling(msgspec.Struct, frozen=True):
    """The verdict of the rules on the merged page of some sources.

    :ivar key: that of the rules
    :ivar until: wall-clock seconds from which on another verdict follows from the same rules
    :ivar excluded: by file name
    """

    key: str
    until: float | None
    excluded: dict[str, Exclusion]


def follows(ruling: Ruling | None, rules: ProjectRules | None, now: float) -> bool:
    """Whether this verdict, or none, follows from rules at some time (wall-clock seconds)."""
    if ruling is None or rules is None:
        return ruling is None and rules is None
    return ruling.key == rules.key and (ruling.until is None or now < ruling.until)


#: By the keys of sources; there is none for those to which no rule applies.
Rulings: TypeAlias = dict[str, Ruling]


@attrs.frozen
class Body:
    """The bytes of a representation, with their own entity tag, without quotes."""

    data: bytes
    etag: str
    ruling: Ruling | None = None


def merge(projects: Sequence[Project]) -> Project:
    """Merge what several indexes say of one project, given in order of precedence.

    A file name and a top-level key are taken from the first that has them; ``versions`` (PEP
    700) are united; of several statuses the strongest is taken, with its reason.
    """
    projects = [
        attrs.evolve(each, files=[]) if is_quarantined(each.keys) else each for each in projects
    ]
    if len(projects) == 1:
        return projects[0]
    files: dict[str, FileEntry] = {}
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


def find(document: bytes, filename: str) -> FileEntry | None:
    """Return the entry of a file on the page of an index, unless that is quarantined."""
    entry = model.find(document, filename)
    return entry if entry is not None and not is_quarantined(model.keys_of(document)) else None


def origins(
    stored: StoredPage, indexes: Sequence[Index], filenames: Collection[str]
) -> dict[str, str]:
    """Return by file name the name of the first index whose page has it."""
    found: dict[str, str] = {}
    for index in indexes:
        section = DOCUMENT + index.identity
        pages = stored.read(section) or {}
        for filename in filenames if pages else ():
            if filename not in found and find(pages[section], filename) is not None:
                found[filename] = index.name
    return found


def search(
    stored: StoredPage,
    sources: Sources,
    find: Callable[[Sequence[bytes]], T],
    rules: ProjectRules | None,
    now: float,
) -> T:
    """Return the result of a function of encoded pages, without quarantined ones.

    The pages lack the files that the rules exclude.

    :raises StoredPageLost: if one is gone or damaged
    """
    sections = [DOCUMENT + index.identity for index in sources]
    sections = [section for section in sections if section in stored.sections]
    rulings = [RULINGS] if rules is not None and RULINGS in stored.sections else []
    if (found := stored.read(*sections, *rulings)) is None:
        raise StoredPageLost(stored.path)
    pages = [found[section] for section in sections]
    offering = [page for page in pages if not is_quarantined(model.keys_of(page))]
    if rules is not None:
        ruling = read_rulings(found).get(sources.key)
        if ruling is None or not follows(ruling, rules, now):
            ruling = _rule([model.decode(page) for page in pages], rules, now)[1]
        offering = [model.without(page, ruling.excluded) for page in offering]
    return find(offering)


def _rule(projects: Sequence[Project], rules: ProjectRules, now: float) -> tuple[Project, Ruling]:
    """Merge pages, and exclude files by the rules."""
    untimed: dict[str, bool] = {}
    for project in projects:
        states_none = not states_times(project)
        for entry in () if is_quarantined(project.keys) else project.files:
            untimed.setdefault(entry["filename"], states_none)
    exempt = {name for name, states_none in untimed.items() if states_none}
    ruled = apply(rules, merge(projects), now, exempt)
    return ruled.project, Ruling(rules.key, ruled.until, ruled.excluded)


def read_rulings(sections: Mapping[str, bytes]) -> Rulings:
    return msgspec.json.decode(sections.get(RULINGS, b"{}"), type=Rulings)


def read_extracted(sections: Mapping[str, bytes]) -> Extracted:
    """Read the digests of core metadata that was extracted from wheels."""
    return msgspec.json.decode(sections.get(EXTRACTED, b"{}"), type=Extracted)


def advertise(entry: FileEntry, extracted: Extracted) -> FileEntry:
    """Return an entry with the core metadata of this very wheel, if its index states none."""
    _, metadata = extracted.get(file_key(entry), ("", ""))
    if not metadata or model.metadata_hash(entry):
        return entry
    return entry | {"core-metadata": {"sha256": metadata}}


def file_key(entry: FileEntry) -> str:
    """Return a key that tells a file from others of its name, as other views may list them."""
    return key_of_file(entry["filename"], entry["hashes"].get("sha256") or entry["url"])


def key_of_file(filename: str, sha256: str) -> str:
    return f"{filename} {sha256}"


def is_quarantined(keys: Mapping[str, Any]) -> bool:
    """Whether none of the files of a project may be used."""
    return _rank(keys) == 0


def _rank(keys: Mapping[str, Any]) -> int:
    status = str(keys.get("project-status", {}).get("status", "active")).strip().lower()
    return _STATUSES.index(status if status in _STATUSES else None)


def _all_versions(projects: Sequence[Project]) -> list[str]:
    """Unite the versions, of which every file has one (PEP 700), stated or in its name."""
    united: dict[str, None] = {}
    for project in projects:
        stated = project.keys.get("versions")
        if stated is None:
            names = (entry["filename"] for entry in project.files)
            found = (versions.version_of(name, project.name) for name in names)
            stated = [str(version) for version in found if version is not None]
        united.update(dict.fromkeys(stated))
    return list(united)


def render(project: Project, representations: Iterable[Representation]) -> dict[str, bytes]:
    """Render a merged page; return the representations by name."""
    written: dict[Serialization, bytes] = {}
    rendered = {}
    for each in representations:
        if each.serialization not in written:
            write = render_json if each.serialization is Serialization.JSON else render_html
            written[each.serialization] = write(project)
        data = written[each.serialization]
        rendered[each.name] = compress(data) if each.compressed else data
    return rendered


def update(
    store: PageStore,
    name: str,
    *,
    before: StoredPage | None,
    responses: Mapping[str, StoredResponse],
    pages: Mapping[str, IndexPage],
    requested: Collection[Representation],
    suppress: str | None,
    extract: Extracted,
    rules: ProjectRules | None,
    now: float,
    current: Callable[[], bool],
) -> tuple[StoredPage | None, dict[Representation, Body]]:
    """Store the responses of the indexes for a project, with its representations.

    :param responses: by identity of the index; `pages`: the new ones
    :param suppress: the :func:`file_key` of a file whose core metadata is not advertised any more,
        until a page changes
    :param extract: core metadata of wheels to advertise where an index states none
    :param now: seconds of the wall clock
    :param current: see :meth:`proxpi.index.entry_store.EntryStore.put`
    :return: the page that is stored now, and the requested representations, as far as their
        sources have the project; nothing for an absence
    :raises StoredPageLost: if a page that was not replaced is gone or damaged
    """
    present = [key for key, response in responses.items() if response.present]
    if not present:
        store.delete(name, current)
        return None, {}
    old = (before.read() if before is not None else None) or {}
    known = old | {DOCUMENT + key: page.document for key, page in pages.items()}
    if any(DOCUMENT + key not in known for key in present):
        raise StoredPageLost(name)
    documents = {DOCUMENT + key: known[DOCUMENT + key] for key in present}
    unchanged = documents == {key: data for key, data in old.items() if key.startswith(DOCUMENT)}
    suppressed, extracted = _amendments(old, documents.values(), unchanged, suppress, extract)
    kept = old if unchanged and suppress is None and not extract else {}
    rulings = read_rulings(kept)
    rendered = {key: kept[key] for key in kept if not is_source(key) and key != RULINGS}
    for sources in {each.sources: None for each in requested}:
        if not follows(rulings.get(sources.key), rules, now):
            rulings.pop(sources.key, None)
            rendered = {
                key: data for key, data in rendered.items() if not key.startswith(sources.key)
            }
        missing = [
            each for each in requested if each.sources is sources and each.name not in rendered
        ]
        identities = [index.identity for index in sources if index.identity in present]
        if not missing or not identities:
            continue
        projects = [
            pages[key].project if key in pages else model.decode(documents[DOCUMENT + key])
            for key in identities
        ]
        if rules is None:
            merged = merge(projects)
        else:
            merged, rulings[sources.key] = _rule(projects, rules, now)
        rendered |= render(_amended(merged, suppressed, extracted), missing)
    amendments = {SUPPRESSED: sorted(suppressed), EXTRACTED: extracted, RULINGS: rulings}
    sections = documents | {key: model.to_json(each) for key, each in amendments.items() if each}
    sections |= rendered
    stored = store.save(name, responses, sections, current)
    return stored, {
        each: Body(
            sections[each.name],
            stored.sections[each.name].digest,
            rulings.get(each.sources.key),
        )
        for each in requested
        if each.name in sections
    }


def _amendments(
    old: Mapping[str, bytes],
    documents: Collection[bytes],
    unchanged: bool,
    suppress: str | None,
    extract: Extracted,
) -> tuple[set[str], Extracted]:
    """Return the suppressed core metadata, by :func:`file_key`, and the extracted one."""
    suppressed = set(msgspec.json.decode(old.get(SUPPRESSED, b"[]"))) if unchanged else set()
    extracted = read_extracted(old)
    if suppress is not None:
        suppressed.add(suppress)
        extracted.pop(suppress, None)
    suppressed -= extract.keys()
    extracted |= extract
    if extract or not unchanged:
        extracted = _still_missing(extracted, documents)
    return suppressed, extracted


def _still_missing(extracted: Extracted, documents: Iterable[bytes]) -> Extracted:
    """Return the extracted core metadata of wheels that are listed, and listed without it."""
    found: Extracted = {}
    for key, (filename, metadata) in extracted.items():
        for entry in filter(None, (model.find(document, filename) for document in documents)):
            if advertise(entry, {key: (filename, metadata)}) is not entry:
                found[key] = filename, metadata
    return found


def _amended(project: Project, suppressed: Collection[str], extracted: Extracted) -> Project:
    """Return a page without suppressed core metadata, and with extracted one."""
    if not (suppressed or extracted):
        return project
    files = [
        {key: value for key, value in entry.items() if key != "core-metadata"}
        if file_key(entry) in suppressed
        else advertise(entry, extracted)
        for entry in project.files
    ]
    return attrs.evolve(project, files=files)
