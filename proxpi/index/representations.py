"""Representations of a merged page: JSON and HTML, plain and gzip, rendered once and kept.

Rendering a page of thousands of files takes a while: these functions run in a thread, and touch
nothing but their arguments and the disk.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import attrs
import msgspec

from proxpi.index.client import Page, Part
from proxpi.index.merge import merge
from proxpi.index.page_store import DOCUMENT, SUPPRESSED, PageStore, StoredPage
from proxpi.simple import model
from proxpi.simple.negotiate import Serialization
from proxpi.simple.render import render_html, render_json

#: How hard gzip tries. Digests, of which pages mostly consist, are as long however hard: 3 takes
#: 0.9 ms for 300 files, and 6 takes 1.9 ms to save a twelfth.
LEVEL = 3


class Lost(Exception):
    """What was kept of a project is gone or damaged."""


@attrs.frozen
class Representation:
    """One of the four ways to write a page.

    :ivar compressed: whether with gzip
    """

    serialization: Serialization
    compressed: bool

    @property
    def name(self) -> str:
        """How it is called on disk."""
        return self.serialization.value + (".gz" if self.compressed else "")


def render(
    projects: Sequence[model.Project],
    forms: Iterable[Representation],
    suppressed: Collection[str] = (),
) -> dict[str, bytes]:
    """
    Merge what the indexes say, and render some representations of it.

    :param projects: in order of precedence; at least one
    :param suppressed: names of the files whose core metadata is not advertised
    :return: the forms by name
    """
    merged = merge(projects)
    if suppressed:
        files = [
            {key: value for key, value in entry.items() if key != "core-metadata"}
            if entry["filename"] in suppressed
            else entry
            for entry in merged.files
        ]
        merged = attrs.evolve(merged, files=files)
    written: dict[Serialization, bytes] = {}
    rendered = {}
    for form in forms:
        data = written.get(form.serialization)
        if data is None:
            write = render_json if form.serialization is Serialization.JSON else render_html
            data = written[form.serialization] = write(merged)
        # Without a time in it, the same page compresses to the same bytes: one tag for them.
        rendered[form.name] = gzip.compress(data, LEVEL, mtime=0) if form.compressed else data
    return rendered


def keep(
    store: PageStore,
    name: str,
    before: StoredPage | None,
    parts: Mapping[str, Part],
    pages: Mapping[str, Page],
    wanted: Collection[Representation],
    current: Callable[[], bool],
) -> tuple[StoredPage | None, dict[str, bytes]]:
    """
    Keep what the indexes said of a project, with the forms of it that are wanted.

    :param before: what was kept until now
    :param parts: what they said, by identity of the index, in order of precedence
    :param pages: those pages that are new
    :param current: see :meth:`proxpi.index.page_store.PageStore.save`
    :return: what is kept now, and the forms that were made; no project, nothing kept
    :raises Lost: if a page that still holds is not there any more
    """
    present = [key for key, part in parts.items() if part.present]
    if not present:
        store.remove(name, current)
        return None, {}
    old = (before.read() if before is not None else None) or {}
    sections = {}
    for key in present:
        section = DOCUMENT + key
        if key in pages:
            sections[section] = pages[key].document
        elif section in old:
            sections[section] = old[section]
        else:
            raise Lost(name)
    if sections == {key: data for key, data in old.items() if key.startswith(DOCUMENT)}:
        return store.save(name, parts, old, current), {}
    made: dict[str, bytes] = {}
    if wanted:
        projects = [
            pages[key].project if key in pages else model.decode(sections[DOCUMENT + key])
            for key in present
        ]
        made = render(projects, wanted)
    return store.save(name, parts, sections | made, current), made


def add(
    store: PageStore,
    name: str,
    kept: StoredPage,
    parts: Mapping[str, Part],
    form: Representation,
    current: Callable[[], bool],
) -> tuple[StoredPage, bytes]:
    """
    Make one more form of a page that is kept.

    :raises Lost: if it is not there any more
    """
    sections = kept.read()
    if sections is None:
        raise Lost(name)
    documents = [sections[DOCUMENT + key] for key, part in parts.items() if part.present]
    suppressed = _suppressed(sections)
    made = render([model.decode(document) for document in documents], [form], suppressed)
    return store.save(name, parts, sections | made, current), made[form.name]


def suppress_metadata(
    store: PageStore,
    name: str,
    kept: StoredPage,
    parts: Mapping[str, Part],
    filename: str,
    current: Callable[[], bool],
) -> StoredPage:
    """
    Let the forms of a page that is kept advertise no core metadata of a file, until it changes.

    :raises Lost: if it is not there any more
    """
    sections = kept.read()
    if sections is None:
        raise Lost(name)
    suppressed = model.to_json(sorted({filename, *_suppressed(sections)}))
    documents = {key: data for key, data in sections.items() if key.startswith(DOCUMENT)}
    return store.save(name, parts, documents | {SUPPRESSED: suppressed}, current)


def _suppressed(sections: Mapping[str, bytes]) -> list[str]:
    return msgspec.json.decode(sections.get(SUPPRESSED, b"[]"), type=list[str])
