"""Strategies of hypothesis: names, files and projects as ``parse`` yields them.

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
    """Return whether HTML can express the character: no control, surrogate or noncharacter."""
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


digests = st.dictionaries(
    st.sampled_from(["sha256", "sha512", "md5", "sha1", "blake2b"]), st.binary(max_size=2)
).map(lambda data: {name: _digest(name, data[name]) for name in data})
"""Digests of the right length for some algorithms."""


def _digest(algorithm: str, data: bytes) -> str:
    return hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()


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
_optional: dict[str, st.SearchStrategy[Any]] = {
    "core-metadata": st.one_of(st.booleans(), digests.filter(bool)),
    "gpg-sig": st.booleans(),
    "provenance": st.just("https://index.example/provenance"),
    "requires-python": _some_text,
    "size": st.integers(min_value=0, max_value=2**40),
    "upload-time": st.sampled_from(["2024-02-29T23:59:59Z", "2026-01-02T03:04:05.678901Z"]),
    "yanked": st.one_of(st.just(True), _some_text),
    "x-unknown": st.one_of(texts, st.integers(), st.lists(texts, max_size=2)),
}


_entries: st.SearchStrategy[FileEntry] = st.fixed_dictionaries(
    {
        "filename": filenames,
        "url": st.builds("https://files.example/{}".format, _paths),
        "hashes": digests,
    },
    optional=_optional,
).map(lambda entry: {"filename": entry["filename"]} | entry)  # the name is first, as parsed


projects = st.builds(
    Project,
    normalized_names,
    st.lists(_entries, unique_by=lambda entry: entry["filename"], max_size=4),
    st.fixed_dictionaries(
        {},
        optional={
            "versions": _some_texts,
            "project-status": st.fixed_dictionaries(
                {"status": st.sampled_from(["active", "archived", "new"])},
                optional={"reason": _some_text},
            ),
            "x-unknown": texts,
            "meta": st.fixed_dictionaries({"x-unknown": texts}),
        },
    ),
    st.sampled_from(["1.0", "1.4"]),
)
"""Projects as ``parse_project`` gives them."""
