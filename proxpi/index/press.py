"""The merged page of a project in the forms that clients ask for, made in one go and kept.

This is what takes time with a page of thousands of files: it is called in a thread, and touches
nothing but its arguments and the disk.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import attrs
import msgspec

from proxpi.index.client import Page, Part
from proxpi.index.merge import merge
from proxpi.index.store import DOCUMENT, WITHDRAWN, Store, Stored
from proxpi.simple import model
from proxpi.simple.negotiate import Serialization
from proxpi.simple.render import render_html, render_json

#: How hard gzip tries. Digests, of which pages mostly consist, are as long however hard: 3 takes
#: 0.9 ms for 300 files, and 6 takes 1.9 ms to save a twelfth.
LEVEL = 3


class Lost(Exception):
    """What was kept of a project is gone or damaged."""


@attrs.frozen
class Form:
    """One of the four ways to write a page.

    :ivar compressed: whether with gzip
    """

    serialization: Serialization
    compressed: bool

    @property
    def name(self) -> str:
        """How it is called on disk."""
        return self.serialization.value + (".gz" if self.compressed else "")


def press(
    projects: Sequence[model.Project], forms: Iterable[Form], withdrawn: Collection[str] = ()
) -> dict[str, bytes]:
    """
    Merge what the indexes say, and write it down in some forms.

    :param projects: in order of precedence; at least one
    :param withdrawn: names of the files whose core metadata is not advertised
    :return: the forms by name
    """
    merged = merge(projects)
    if withdrawn:
        files = [
            {key: value for key, value in entry.items() if key != "core-metadata"}
            if entry["filename"] in withdrawn
            else entry
            for entry in merged.files
        ]
        merged = attrs.evolve(merged, files=files)
    written: dict[Serialization, bytes] = {}
    pressed = {}
    for form in forms:
        data = written.get(form.serialization)
        if data is None:
            render = render_json if form.serialization is Serialization.JSON else render_html
            data = written[form.serialization] = render(merged)
        # Without a time in it, the same page compresses to the same bytes: one tag for them.
        pressed[form.name] = gzip.compress(data, LEVEL, mtime=0) if form.compressed else data
    return pressed


def keep(
    store: Store,
    name: str,
    before: Stored | None,
    parts: Mapping[str, Part],
    pages: Mapping[str, Page],
    wanted: Collection[Form],
    current: Callable[[], bool],
) -> tuple[Stored | None, dict[str, bytes]]:
    """
    Keep what the indexes said of a project, with the forms of it that are wanted.

    :param before: what was kept until now
    :param parts: what they said, by identity of the index, in order of precedence
    :param pages: those pages that are new
    :param current: see :meth:`proxpi.index.store.Store.save`
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
        made = press(projects, wanted)
    return store.save(name, parts, sections | made, current), made


def add(
    store: Store,
    name: str,
    kept: Stored,
    parts: Mapping[str, Part],
    form: Form,
    current: Callable[[], bool],
) -> tuple[Stored, bytes]:
    """
    Make one more form of a page that is kept.

    :raises Lost: if it is not there any more
    """
    sections = kept.read()
    if sections is None:
        raise Lost(name)
    documents = [sections[DOCUMENT + key] for key, part in parts.items() if part.present]
    withdrawn = _withdrawn(sections)
    made = press([model.decode(document) for document in documents], [form], withdrawn)
    return store.save(name, parts, sections | made, current), made[form.name]


def withdraw(
    store: Store,
    name: str,
    kept: Stored,
    parts: Mapping[str, Part],
    filename: str,
    current: Callable[[], bool],
) -> Stored:
    """
    Let the forms of a page that is kept advertise no core metadata of a file, until it changes.

    :raises Lost: if it is not there any more
    """
    sections = kept.read()
    if sections is None:
        raise Lost(name)
    withdrawn = model.to_json(sorted({filename, *_withdrawn(sections)}))
    documents = {key: data for key, data in sections.items() if key.startswith(DOCUMENT)}
    return store.save(name, parts, documents | {WITHDRAWN: withdrawn}, current)


def _withdrawn(sections: Mapping[str, bytes]) -> list[str]:
    return msgspec.json.decode(sections.get(WITHDRAWN, b"[]"), type=list[str])
