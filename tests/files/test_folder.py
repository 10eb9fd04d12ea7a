"""The cache folder as it is found: where a file of the cache can lie."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.files.folder import is_place


@pytest.mark.parametrize("text", ["a/b", "files-example/a b/..c", "127-0-0-1/.../x\n", "a/b/é"])
def test_places(text: str) -> None:
    """Below a host's folder anything has its place that is no step up, down or aside."""
    assert is_place(text)


@pytest.mark.parametrize(
    "text", ["", "a", "a/", "/a", "a//b", "a/..", "a/./b", "a/../b", ".proxpi/x", "A/b", "a\n/b"]
)
def test_no_places(text: str) -> None:
    """Nothing else has: not above, not in the folder of proxpi's own, not beside the hosts."""
    assert not is_place(text)


@given(st.text("a./-\n", max_size=9))
def test_by_the_segment(text: str) -> None:
    """A place is the folder of a host, and segments each of which is a name."""
    host, *path = text.split("/")
    named = bool(path) and not {"", ".", ".."} & set(path)
    assert is_place(text) == (named and bool(host) and set(host) <= set("a-"))
