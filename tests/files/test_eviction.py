"""What goes first: the least recently used, just enough of it, and never what is busy."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxpi.files.eviction import victims

SIZES = st.dictionaries(st.text(max_size=3), st.integers(0, 100), max_size=12)


def test_least_recently_used_first() -> None:
    """Files go in their order, until there is room, and not one more."""
    assert victims([("a", 3), ("b", 3), ("c", 3)], 4, set()) == ["a", "b"]


def test_room_enough() -> None:
    """Nothing goes while there is room."""
    assert victims([("a", 3)], 0, set()) == []
    assert victims([("a", 3)], -5, set()) == []


def test_busy() -> None:
    """A file that is being sent stays, and the next one goes instead of it."""
    assert victims([("a", 3), ("b", 3), ("c", 3)], 4, {"a"}) == ["b", "c"]


@given(SIZES, st.integers(-10, 500), st.sets(st.text(max_size=3)))
def test_enough_or_all(sizes: dict[str, int], excess: int, busy: set[str]) -> None:
    """Room is made, unless all else is busy; the last victim was needed."""
    chosen = victims(sizes.items(), excess, busy)
    assert not set(chosen) & busy
    assert len(set(chosen)) == len(chosen)
    freed = sum(sizes[name] for name in chosen)
    assert freed >= excess or set(chosen) == set(sizes) - busy
    if chosen:
        assert freed - sizes[chosen[-1]] < excess
