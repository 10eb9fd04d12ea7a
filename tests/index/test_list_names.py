"""Files of names: merged, made pages of, and never held."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxpi.index import list_names
from proxpi.index.list_folder import Draft, Form, ListFile
from proxpi.simple.negotiate import Serialization
from proxpi.simple.render import list_head, list_items, list_tail
from tests.support.strategies import deterministic, normalized_names

FORMS = [(form, packed) for form in Serialization for packed in (False, True)]
#: Names of the list that shows what memory is needed.
MANY = 200_000


def draft() -> Draft:
    """Begin a file without a name."""
    return Draft(None)


def file(names: Iterable[str]) -> ListFile:
    """Write names."""
    made = draft()
    made.write("".join(f"{name}\n" for name in names).encode())
    return made.finish()


def content(made: ListFile) -> bytes:
    """Read a file."""
    return b"".join(made.blocks())


def lines(made: ListFile) -> list[str]:
    """Give the names in a file."""
    return content(made).decode().splitlines()


@settings(deterministic, max_examples=100)
@given(
    st.lists(st.lists(normalized_names, max_size=30), max_size=4),
    st.integers(1, 200),
    st.integers(1, 200),
)
def test_merge(lists: list[list[str]], run: int, block: int) -> None:
    """Whatever the lists and however small the blocks: sorted, and each name once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(list_names, "RUN", run)
        patch.setattr(list_names, "RUN_BLOCK", (1, block))
        patch.setattr(list_names, "MERGED", 2 * block)
        merged = list_names.merge([file(names) for names in lists], draft)
    # As bytes: that is the order of names in normal form, which are ASCII.
    assert lines(merged) == sorted(set[str]().union(*lists))


def test_sorted_lists_are_merged_without_being_sorted() -> None:
    """A list in order is one run, however long; one out of order is some."""
    ordered = [f"p{number:06}" for number in range(100_000)]
    assert list_names._sort([file(ordered)], lambda data: None) == [0]
    assert len(list_names._sort([file(reversed(ordered))], lambda data: None)) == 4


@settings(deterministic, max_examples=40)
@given(st.lists(normalized_names, max_size=30), st.sampled_from(FORMS), st.integers(15, 200))
def test_form(names: list[str], form: Form, piece: int) -> None:
    """A form made in bulk is the one that is made name by name, in whatever pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(list_names, "PIECE", piece)
        made = content(list_names.form(file(names), form, draft))
    serialization, compressed = form
    expected = b"".join(
        [
            list_head(serialization),
            list_items(serialization, names, True),
            list_tail(serialization),
        ]
    )
    assert (gzip.decompress(made) if compressed else made) == expected


def test_etag() -> None:
    """The same list has the same tag, and another list has another."""
    first, same, other = (
        list_names.form(file(names), FORMS[0], draft).etag for names in (["a"], ["a"], ["b"])
    )
    assert first == same != other


@pytest.mark.parametrize("form", FORMS)
def test_memory_of_a_form(form: Form) -> None:
    """What a form takes does not grow with the list, but for its file."""

    def peak(count: int) -> int:
        names = file(f"project-{number:07}" for number in range(count))
        tracemalloc.start()
        try:
            list_names.form(names, form, draft)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(MANY) < 1.2 * peak(MANY // 4)


def test_memory_of_a_merge() -> None:
    """Nor does what a merge takes, which is less than half of the names alone."""

    def peak(count: int) -> int:
        many = [f"project-{number:07}" for number in range(count)]
        both = [file(many), file(many[1::2])]
        tracemalloc.start()
        try:
            merged = list_names.merge(both, draft)
            taken = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert merged.size == both[0].size
        return taken

    assert peak(MANY) < 1.2 * peak(MANY // 4)


def test_shortened_behind_our_back(tmp_path: Path) -> None:
    """A file that ends too early is an error, not a short list."""
    folder = tmp_path / "own" / "projects"
    made = Draft(folder)
    made.write(b"a\n" * 100)
    names = made.finish()
    (partial,) = folder.parent.glob("partial-*")
    partial.write_bytes(b"a\n")
    with pytest.raises(OSError, match="ends after 2 of 200 bytes"):
        list_names.form(names, FORMS[0], draft)


def test_json_is_json() -> None:
    """A list of many names in JSON is read back as it was."""
    many = [f"project-{number}" for number in range(20_000)]
    made = list_names.form(file(many), (Serialization.JSON, False), draft)
    assert [project["name"] for project in json.loads(content(made))["projects"]] == many
