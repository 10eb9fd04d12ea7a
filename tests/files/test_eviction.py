"""What goes first: what is worth least, just enough of it, and never what is busy."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxpi.files.eviction_index import MAX_USES, EvictionIndex, value

SIZES = st.dictionaries(st.text(max_size=3), st.integers(0, 100), max_size=12)
BYTES = st.integers(0, 10**10)
USES = st.integers(0, 1000)


def index_of(sizes: dict[str, int]) -> EvictionIndex:
    """Give an index of files that were added in this order."""
    index = EvictionIndex()
    for name, size in sizes.items():
        index.add(name, size)
    return index


def test_lowest_first() -> None:
    """Files go in their order, until there is room, and not one more."""
    assert index_of({"a": 3, "b": 3, "c": 3}).victims(4, set()) == ["a", "b"]


def test_at_most() -> None:
    """No more are chosen than may be at once."""
    assert index_of({"a": 3, "b": 3, "c": 3}).victims(6, {"a"}, 1) == ["b"]


def test_room_enough() -> None:
    """Nothing goes while there is room."""
    assert index_of({"a": 3}).victims(0, set()) == []
    assert index_of({"a": 3}).victims(-5, set()) == []


@given(SIZES, st.integers(-10, 1000), st.sets(st.text(max_size=3)))
def test_enough_and_no_more(sizes: dict[str, int], excess: int, busy: set[str]) -> None:
    """What goes is enough if that can be, is not busy, and all of it is needed."""
    chosen = index_of(sizes).victims(excess, busy)
    free = sum(size for name, size in sizes.items() if name not in busy)
    if excess > max(free, 0):
        assert chosen is None
        return
    assert chosen is not None
    assert len(set(chosen)) == len(chosen)
    assert not busy & set(chosen)
    gone = sum(sizes[name] for name in chosen)
    free = sum(size for name, size in sizes.items() if name not in busy)
    assert gone >= min(excess, free)
    assert not chosen or gone - sizes[chosen[-1]] < excess


@given(SIZES, st.integers(-10, 1000), st.sets(st.text(max_size=3)))
def test_in_order(sizes: dict[str, int], excess: int, busy: set[str]) -> None:
    """What stays, though it could have gone, comes after all that goes; again and again."""
    index = index_of(sizes)
    for _ in range(2):
        chosen = index.victims(excess, busy) or []
        assert [name for name in sizes if name not in busy][: len(chosen)] == chosen


@given(USES, BYTES, USES, BYTES)
def test_worth(uses: int, size: int, more: int, larger: int) -> None:
    """It is above zero; more uses are worth no less, and more bytes are worth no more."""
    assert 0 < value(uses, size) <= value(uses + more, size)
    assert value(uses, size + larger) <= value(uses, size)


def test_request_and_bytes_weigh() -> None:
    """Small files outlast many uses of a large one; large ones are judged by uses alone, almost."""
    assert value(1, 100_000) > value(MAX_USES, 10**9)
    assert value(2, 10**9) > value(1, 10**8)
