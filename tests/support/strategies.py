"""What hypothesis draws: names, files and projects as ``parse`` yields them.

``deterministic`` decorates every property: the same few examples in each run, no clock.
"""

from __future__ import annotations

import hashlib
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from packaging.utils import canonicalize_name

from proxpi.simple.model import FileEntry, Project

deterministic = settings(max_examples=60, derandomize=True, deadline=None, database=None)

_ALNUM = "abcxyzABCXYZ0189"

project_names = st.builds(
    "{}{}{}".format,
    st.sampled_from(_ALNUM),
    st.text(_ALNUM + "-_.", max_size=12),
    st.sampled_from(_ALNUM),
)
"""Valid names in any spelling."""

normalized_names = project_names.map(canonicalize_name)


def _is_character(text: str) -> bool:
    """Say whether HTML can express the character: not a control, half a pair or a noncharacter."""
    code = ord(text)
    return code & 0xFFFE != 0xFFFE and not 0xFDD0 <= code <= 0xFDEF


texts = st.text(
    st.one_of(
        st.sampled_from("<>&\"'\n\t =;#%!+é\U0001f40d"),
        st.characters(exclude_categories=["Cs", "Cc"]).filter(_is_character),
    ),
    max_size=20,
)
"""Any text that both serializations can carry."""

filenames = st.one_of(
    st.builds(
        "{}-{}{}".format,
        project_names,
        st.sampled_from(["1.0", "1!2.0", "1.0+cu12"]),
        st.just(".tar.gz"),
    ),
    st.text(st.sampled_from("aZ0.-_+!~:;,?#%&=@ <>'\"é\U0001f40d"), min_size=1, max_size=15),
).filter(lambda name: name not in (".", ".."))
"""Names of files that may be served, the odd ones too."""


@st.composite
def digests(
    draw: st.DrawFn, algorithms: tuple[str, ...] = ("sha256", "sha512", "md5", "sha1", "blake2b")
) -> dict[str, str]:
    """Draw digests of the right length for some algorithms."""
    chosen = draw(st.lists(st.sampled_from(algorithms), unique=True))
    data = draw(st.binary(max_size=2))
    return {name: hashlib.new(name, data, usedforsecurity=False).hexdigest() for name in chosen}


json_values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        texts,
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text("abc-_", max_size=4), inner, max_size=3),
    ),
    max_leaves=6,
)
"""Any JSON value."""


# Made once: making a strategy takes longer than drawing from it.
_some_text = texts.filter(bool)
_some_texts = st.lists(texts, unique=True, max_size=3)
_paths = st.text("abc/.%2B", max_size=8)
_digests = digests()
_optional: dict[str, st.SearchStrategy[Any]] = {
    "core-metadata": st.one_of(st.booleans(), _digests.filter(bool)),
    "gpg-sig": st.booleans(),
    "provenance": st.just("https://index.example/provenance"),
    "requires-python": _some_text,
    "size": st.integers(min_value=0, max_value=2**40),
    "upload-time": st.sampled_from(["2024-02-29T23:59:59Z", "2026-01-02T03:04:05.678901Z"]),
    "yanked": st.one_of(st.just(True), _some_text),
    "x-unknown": st.one_of(texts, st.integers(), st.lists(texts, max_size=2)),
}


@st.composite
def entries(draw: st.DrawFn) -> FileEntry:
    """Draw a file in the form that ``parse_project`` gives it."""
    entry: FileEntry = {
        "filename": draw(filenames),
        "url": "https://files.example/" + draw(_paths),
        "hashes": draw(_digests),
    }
    for key, values in _optional.items():
        if draw(st.booleans()):
            entry[key] = draw(values)
    return entry


_files = st.lists(entries(), unique_by=lambda entry: entry["filename"], max_size=4)


@st.composite
def projects(draw: st.DrawFn) -> Project:
    """Draw a project in the form that ``parse_project`` gives it."""
    keys: dict[str, Any] = {}
    if draw(st.booleans()):
        keys["versions"] = draw(_some_texts)
    if draw(st.booleans()):
        keys["project-status"] = {"status": draw(st.sampled_from(["active", "archived", "new"]))}
        if draw(st.booleans()):
            keys["project-status"]["reason"] = draw(_some_text)
    if draw(st.booleans()):
        keys["x-unknown"] = draw(texts)
    if draw(st.booleans()):
        keys["meta"] = {"x-unknown": draw(texts)}
    return Project(
        draw(normalized_names), draw(_files), keys, draw(st.sampled_from(["1.0", "1.4"]))
    )
