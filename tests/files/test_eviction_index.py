"""What is known of the files in the cache: sums, ranks, and what outlasts the process."""

from __future__ import annotations

import json
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.files.eviction_index import VERSION, EvictionIndex
from proxpi.files.layout import Identity
from proxpi.files.verify import Checked

PLACES = st.sampled_from([f"h/{name}" for name in "abcdef"])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "use", "drop", "raise_inflation"]), PLACES, st.integers(1, 10**7)
    ),
    max_size=60,
)


def after(steps: list[tuple[str, str, int]]) -> EvictionIndex:
    """The stock after these steps, as far as they are possible."""
    stock = EvictionIndex()
    for what, place, size in steps:
        if what == "add":
            stock.add(place, size)
        elif what == "drop" or place in stock:
            getattr(stock, what)(place)
    return stock


def order(stock: EvictionIndex) -> list[str]:
    """In which order all of it would go."""
    return stock.victims(stock.used) or []


@given(STEPS)
def test_sum(steps: list[tuple[str, str, int]]) -> None:
    """The sum is that of the files, and each of them goes once."""
    stock = after(steps)
    assert stock.used == sum(map(stock.size, stock))
    assert sorted(order(stock)) == sorted(stock)
    assert len(stock) == len(list(stock))


@given(STEPS)
def test_choosing_changes_nothing(steps: list[tuple[str, str, int]]) -> None:
    """To ask what would go is no use, and does not let it go."""
    stock = after(steps)
    assert order(stock) == order(stock)
    assert stock.victims(1, set(stock)) is None
    assert stock.dump() == after(steps).dump()


@given(STEPS)
def test_restart(steps: list[tuple[str, str, int]]) -> None:
    """What is read is what was written: the same files go in the same order."""
    stock, new = after(steps), EvictionIndex()
    new.load(stock.dump())
    assert order(new) == order(stock)
    assert new.dump() == stock.dump()
    assert new.used == stock.used


def test_scan() -> None:
    """What was used again outlasts many files that are asked for once."""
    stock = EvictionIndex()
    stock.add("h/wanted", 1000)
    for _ in range(3):
        stock.use("h/wanted")
    for number in range(100):
        stock.add(f"h/{number}", 1000)
        stock.use(f"h/{number}")
        if stock.used > 50_000:
            stock.raise_inflation(first := order(stock)[0])
            stock.drop(first)
    assert "h/wanted" in stock


def test_aging() -> None:
    """What was used often goes nevertheless, once nobody uses it any more."""
    stock = EvictionIndex()
    stock.add("h/once-loved", 1000)
    for _ in range(50):
        stock.use("h/once-loved")
    for number in range(500):
        stock.add(f"h/{number}", 1000)
        stock.use(f"h/{number}")
        if stock.used > 50_000:
            stock.raise_inflation(first := order(stock)[0])
            stock.drop(first)
    assert "h/once-loved" not in stock


def test_many_uses_take_no_memory() -> None:
    """Ranks of the past are let go of."""
    stock = EvictionIndex()
    stock.add("h/a", 1)
    for _ in range(5000):
        stock.use("h/a")
    assert len(stock._heap) < 2000
    assert order(stock) == ["h/a"]


def test_found_by_age() -> None:
    """Of files of which only their age is known the oldest goes first, if they are alike."""
    stock = EvictionIndex()
    stock.begin_scan()
    stock.end_scan([(f"h/{number}", Identity(number, 1000, 0)) for number in range(5)])
    assert order(stock) == [f"h/{number}" for number in range(5)]
    stock.add("h/new", 1000)
    assert set(islice(order(stock), 1)) == {"h/0"}


@pytest.mark.parametrize(
    "change",
    [
        {"version": VERSION - 1},
        {"level": "high"},
        {"level": 1e999},
        {"files": [["h/a", 1]]},
        {"files": [["h/a", -1, 1, 1.0, None]]},
        {"files": [["h/a", 1, -1, 1.0, None]]},
        {"files": [["h/a", 1, 1, 1e999, None]]},
        {"files": [["h/a", 1, 1, 1.0, ""]]},
        {"more": 1},
    ],
)
def test_foreign(change: dict[str, object]) -> None:
    """A document that is none of these is refused, and nothing of it is taken in."""
    document = {"version": VERSION, "level": 0.0, "files": [["h/b", 1, 1, 1.0, None]]}
    EvictionIndex().load(json.dumps(document).encode())
    stock = EvictionIndex()
    document |= change
    with pytest.raises(ValueError):
        stock.load(json.dumps(document).encode())
    assert list(stock) == []


@given(st.data())
def test_damaged(data: st.DataObject) -> None:
    """A document that was cut is refused."""
    stock = after([("add", "h/a", 1), ("add", "h/b", 2)])
    document = stock.dump()
    cut = data.draw(st.integers(0, len(document) - 1))
    with pytest.raises(ValueError):
        EvictionIndex().load(document[:cut])


def test_a_place_twice() -> None:
    """A file that is written down twice, or is known already, counts once, as it was told last."""
    verified = Checked(Identity(1, 4, 2), {"sha256": "0"})
    told = [[1, 4, 2], {"sha256": "0"}]
    rows = [["h/a", 1, 0, 1.0, None], ["h/b", 2, 0, 2.0, None], ["h/a", 4, 0, 3.0, told]]
    stock = after([("add", "h/b", 100)])
    stock.load(json.dumps({"version": VERSION, "level": 0.0, "files": rows}).encode())
    assert stock.used == 6
    assert order(stock) == ["h/b", "h/a"]
    assert stock.verified("h/a") == verified
