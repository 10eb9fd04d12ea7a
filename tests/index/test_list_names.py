"""Files of names: merged, rendered, and never held."""

from __future__ import annotations

import gzip
import json
import os
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from proxpi.index import list_store
from proxpi.index.list_store import ListFile, ListStore
from proxpi.simple.negotiate import Serialization
from proxpi.simple.render import list_head, list_items, list_tail
from tests.support.strategies import deterministic, normalized_names

REPRESENTATIONS = [(form, packed) for form in Serialization for packed in (False, True)]
#: Names of the list that shows what memory is needed.
MANY = 150_000
#: Its files are elsewhere, since it cannot be written.
STORE = ListStore(Path("/proc/nowhere/projects"), Clock())


def file(names: Iterable[str]) -> ListFile:
    """Write names."""
    return STORE.write(f"{name}\n".encode() for name in names)


def rendered(names: ListFile, representation: list_store.Representation) -> bytes:
    """Render names."""
    return b"".join(list_store.render(names, representation))


def in_blocks(patch: pytest.MonkeyPatch, size: int) -> None:
    """Let files be read in small blocks."""
    lines = ListFile.lines

    def few(
        file: ListFile, start: int = 0, end: int | None = None, _: int = 0
    ) -> Iterator[list[bytes]]:
        return lines(file, start, end, size)

    patch.setattr(ListFile, "lines", few)


@settings(deterministic, max_examples=100)
@given(st.lists(st.lists(normalized_names, max_size=30), max_size=4), st.integers(1, 200))
def test_merge(lists: list[list[str]], block: int) -> None:
    """Whatever the lists and however small the blocks: sorted, and each name once."""
    with pytest.MonkeyPatch.context() as patch:
        in_blocks(patch, block)
        merged = list_store.merge([file(names) for names in lists], STORE)
    found = b"".join(line for lines in merged.lines() for line in lines).decode().splitlines()
    # As bytes: that is the order of names in normal form, which are ASCII.
    assert found == sorted(set[str]().union(*lists))


def test_sorted_lists_are_merged_without_being_sorted() -> None:
    """A list in order is one run, however long; one out of order is some."""
    ordered = [f"p{number:06}" for number in range(100_000)]
    for names, runs in ((ordered, 1), (ordered[::-1], 7)):
        starts: list[int] = []
        assert sum(map(len, list_store._sorted_runs([file(names)], starts))) == 800_000
        assert len(starts) == runs


@settings(deterministic, max_examples=40)
@given(
    st.lists(normalized_names, max_size=30), st.sampled_from(REPRESENTATIONS), st.integers(1, 200)
)
def test_render(names: list[str], representation: list_store.Representation, block: int) -> None:
    """A list is rendered the same in whatever pieces."""
    with pytest.MonkeyPatch.context() as patch:
        in_blocks(patch, block)
        made = rendered(file(names), representation)
    serialization, compressed = representation
    head, tail = list_head(serialization), list_tail(serialization)
    expected = head + list_items(serialization, names, True) + tail
    assert (gzip.decompress(made) if compressed else made) == expected


def test_memory_of_a_merge() -> None:
    """What a merge takes does not grow with the lists, sorted or not."""

    def peak(count: int) -> int:
        many = [f"project-{number:07}" for number in range(count)]
        both = [file(many[::-1]), file(many[1::2])]
        del many
        tracemalloc.start()
        try:
            merged = list_store.merge(both, STORE)
            taken = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert merged.size == both[0].size
        return taken

    assert peak(MANY) < 1.5 * peak(MANY // 4)


def test_shortened_behind_our_back() -> None:
    """A file that ends too early is an error, not a short list."""
    names = file(["a"] * 100)
    os.ftruncate(names.descriptor, 2)
    with pytest.raises(OSError, match="ends after 2 of 200 bytes"):
        rendered(names, REPRESENTATIONS[0])


def test_json_is_json() -> None:
    """A list of many names in JSON is read back as it was."""
    many = [f"project-{number}" for number in range(20_000)]
    made = rendered(file(many), (Serialization.JSON, False))
    assert [project["name"] for project in json.loads(made)["projects"]] == many
