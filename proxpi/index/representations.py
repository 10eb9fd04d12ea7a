"""Representations of a merged page: JSON and HTML, plain and gzip, rendered once and kept.

Rendering a page of thousands of files takes a while: these functions run in a thread, and touch
nothing but their arguments and the disk.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import attrs
import msgspec

from proxpi.index.client import IndexPage, StoredResponse
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


@attrs.frozen
class Body:
    """The bytes of one form of a page.

    :ivar etag: the entity tag, without quotes; it is of these very bytes
    """

    data: bytes
    etag: str


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


def update(
    store: PageStore,
    name: str,
    before: StoredPage | None,
    responses: Mapping[str, StoredResponse],
    pages: Mapping[str, IndexPage],
    wanted: Collection[Representation],
    suppress: str | None,
    current: Callable[[], bool],
) -> tuple[StoredPage | None, dict[Representation, Body]]:
    """
    Store what the indexes said of a project, with its representations.

    :param before: what was stored until now
    :param responses: what they said, by identity of the index, in order of precedence
    :param pages: those pages that are new
    :param wanted: the representations to add
    :param suppress: a file whose core metadata is not advertised any more, until a page changes
    :param current: see :meth:`proxpi.index.page_store.PageStore.save`
    :return: what is stored now, and the wanted representations; of no project, nothing
    :raises Lost: if a page that still holds is not there any more
    """
    present = [key for key, response in responses.items() if response.present]
    if not present:
        store.delete(name, current)
        return None, {}
    old = (before.read() if before is not None else None) or {}
    documents = {}
    for section in [DOCUMENT + key for key in present]:
        key = section.removeprefix(DOCUMENT)
        if key not in pages and section not in old:
            raise Lost(name)
        documents[section] = pages[key].document if key in pages else old[section]
    unchanged = documents == {key: data for key, data in old.items() if key.startswith(DOCUMENT)}
    sections = old if unchanged else documents
    suppressed = msgspec.json.decode(sections.get(SUPPRESSED, b"[]"), type=list[str])
    if suppress is not None:
        suppressed = sorted({suppress, *suppressed})
        sections = documents | {SUPPRESSED: model.to_json(suppressed)}
    missing = [form for form in wanted if form.name not in sections]
    if missing:
        projects = [
            pages[key].project if key in pages else model.decode(documents[DOCUMENT + key])
            for key in present
        ]
        sections = sections | render(projects, missing, suppressed)
    stored = store.save(name, responses, sections, current)
    return stored, {
        form: Body(sections[form.name], stored.sections[form.name].digest) for form in wanted
    }
