"""The cache folder as it is found: where a file of the cache can lie."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.files import layout
from proxpi.files.layout import is_cache_path

#: Names that no URL leads to: reserved ones, the original's partial files, and what is no text.
ODD = [
    f"a/{layout.RESERVED}0123456789abcdef",
    f"a/{layout.RESERVED}0123456789abcdef/b",
    f"a/{layout.RESERVED}",
    "a/b.whl.proxpi-partial",
    "a/b\n",
    "a/b\nh/c.whl",
    "a/\x1b[31mb.whl",
    "a/\x7f.whl",
    "a/\u2028.whl",
    "a/\u202e.whl",
    "a/\udcff.whl",
    "a/\udcff/b.whl",
]


@pytest.mark.parametrize("text", ["a/b", "files-example/a b/..c", "127-0-0-1/.../x", "a/b/é"])
def test_places(text: str) -> None:
    """Below a host's folder any printable name that is no step up, down or aside is one."""
    assert is_cache_path(text)


@pytest.mark.parametrize(
    "text",
    ["", "a", "a/", "/a", "a//b", "a/..", "a/./b", "a/../b", ".proxpi/x", "A/b", "a\n/b", *ODD],
)
def test_no_places(text: str) -> None:
    """Nothing else has: not above, not in the folder of proxpi's own, not beside the hosts."""
    assert not is_cache_path(text)


@given(st.text("a./-", max_size=9))
def test_by_the_segment(text: str) -> None:
    """A place is the folder of a host, and segments each of which is a name."""
    host, *path = text.split("/")
    named = bool(path) and not {"", ".", ".."} & set(path)
    assert is_cache_path(text) == (named and bool(host) and set(host) <= set("a-"))
