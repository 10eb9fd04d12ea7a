"""The eviction index: sums, priorities, victims, and the document that outlasts the process."""

from __future__ import annotations

import json
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.files.eviction_index import MAX_USES, VERSION, EvictionIndex, value
from proxpi.files.verify import VerifiedFile
from proxpi.local_files import Identity

PATHS = st.sampled_from([f"h/{name}" for name in "abcdef"])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "prefetch", "use", "remove", "raise_inflation"]),
        PATHS,
        st.integers(1, 10**7),
    ),
    max_size=60,
)
SIZES = st.dictionaries(st.text(max_size=3), st.integers(1, 100), max_size=12)
BYTES = st.integers(0, 10**10)
USES = st.integers(0, 1000)


def after(steps: list[tuple[str, str, int]]) -> EvictionIndex:
    """Return the index after these steps, as far as they are possible."""
    index = EvictionIndex(wall=lambda: 7.0)
    for step, path, size in steps:
        if step in ("add", "prefetch"):
            index.add(path, size, prefetched=step == "prefetch")
        elif step == "remove" or path in index:
            getattr(index, step)(path)
    return index


def index_of(sizes: dict[str, int]) -> EvictionIndex:
    """Return an index of files that were added in this order."""
    return after([("add", name, size) for name, size in sizes.items()])


def order(index: EvictionIndex) -> list[str]:
    """Return the order in which all files would be evicted."""
    victims = index.victims(index.used)
    assert victims is not None
    return victims


@pytest.mark.parametrize(
    ("excess", "staying", "limit", "victims"),
    [
        (0, "", None, []),
        (-5, "", None, []),
        (4, "", None, ["a", "b"]),
        (9, "", None, ["a", "b", "c"]),
        (9, "", 1, ["a"]),
        (6, "a", 1, ["b"]),
        (10, "", None, None),
        (7, "a", None, None),
        (1, "abc", None, None),
    ],
)
def test_victims(excess: int, staying: str, limit: int | None, victims: list[str] | None) -> None:
    """As many files as needed in their order, or none at all; staying and in use are alike."""
    index = index_of({"a": 3, "b": 3, "c": 3})
    assert index.victims(excess, staying, limit) == victims
    for name in staying:
        index.acquire(name)
        index.acquire(name)
        index.release(name)
    assert index.victims(excess, (), limit) == victims


@given(USES, BYTES, USES, BYTES)
def test_value(uses: int, size: int, more: int, larger: int) -> None:
    """More uses are worth no less, more bytes no more; requests and bytes both cost."""
    assert 0 < value(uses, size) <= value(uses + more, size)
    assert value(uses, size + larger) <= value(uses, size)
    assert value(1, 100_000) > value(MAX_USES, 10**9)
    assert value(2, 10**9) > value(1, 10**8)


@given(STEPS)
def test_invariants(steps: list[tuple[str, str, int]]) -> None:
    """The sums are those of the files, prefetched ones go first, and a restart keeps the order."""
    index = after(steps)
    assert index.used == sum(map(index.size, index))
    prefetched = [path for path in order(index) if index.is_prefetched(path)]
    assert index.prefetched == sum(map(index.size, prefetched))
    assert order(index)[: len(prefetched)] == prefetched
    assert index.victims(index.prefetched, prefetched=True) == prefetched
    assert index.victims(index.prefetched + 1, prefetched=True) is None
    assert len(index) == len(list(index))
    assert sorted(order(index)) == sorted(index)
    assert order(index) == order(index)
    assert index.dump() == after(steps).dump()
    restarted = EvictionIndex()
    restarted.load(index.dump())
    assert order(restarted) == order(index)
    assert restarted.dump() == index.dump()
    assert (restarted.used, restarted.prefetched) == (index.used, index.prefetched)


def test_scans_and_aging() -> None:
    """A file that was used again outlasts a hundred that are used once, but not five hundred."""
    for uses, others, stays in ((3, 100, True), (50, 500, False)):
        index = EvictionIndex()
        index.add("h/used", 1000)
        index.use("h/used", uses)
        for number in range(others):
            index.add(f"h/{number}", 1000)
            index.use(f"h/{number}")
            if index.used > 50_000:
                first = order(index)[0]
                index.raise_inflation(first)
                index.remove(first)
        assert ("h/used" in index) == stays


def test_responses() -> None:
    """Each change of a file's bytes invalidates its responses; their uses count."""
    responses = mock.Mock(**{"uses.return_value": [("b", 2)]})
    index = EvictionIndex(responses)
    verified = VerifiedFile(Identity(1, 5, 2), {"sha256": "0"})
    for name in "bac":
        index.add(name, 5, verified)
    index.collect_uses()
    assert order(index) == ["a", "c", "b"]
    responses.invalidate.reset_mock()
    index.mark_unverified("a", Identity(9, 9, 9))
    index.set_revalidated_at("a", 7.0)
    index.use("a")
    responses.invalidate.assert_not_called()
    assert (known := index.verified("a")) and known.revalidated_at == 7.0
    index.mark_unverified("a", verified.identity)
    index.remove("b")
    index.add("c", 5, verified)
    assert responses.invalidate.mock_calls == [mock.call(name) for name in "abc"]
    index.set_revalidated_at("a", 8.0)
    assert index.verified("a") is None


def test_startup_scan() -> None:
    """The scan adds the oldest first and drops what is gone, but for what changed meanwhile."""
    index = index_of({"gone": 1, "grown": 1, "same": 1, "came-and-went": 1})
    index.begin_scan()
    assert not index.is_complete
    index.remove("came-and-went")
    index.add("came", 7)
    sizes = {"old": 2, "came-and-went": 1, "newer": 2, "same": 1, "grown": 3}
    index.end_scan([(name, Identity(1, size, 2), 3) for name, size in sizes.items()])
    assert index.is_complete
    found = {name: index.size(name) for name in index}
    assert found == {"same": 1, "came": 7, "old": 2, "newer": 2, "grown": 3}
    assert [name for name in order(index) if index.size(name) == 2] == ["old", "newer"]
    index.begin_scan()
    index.end_scan(None)
    assert len(index) == 5


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
        *({"files": [["h/a", 1, 1, 1.0, note]]} for note in ("", [], [[1, 2], {"sha256": "0"}])),
        {"files": [["h/a", 1, 1, 1.0, [[1, 2, 3], {"md5": "0"}]]]},
        {"used_at": [1, 2]},
        {"used_at": [-1]},
        {"more": 1},
    ],
)
def test_foreign_document(change: dict[str, object]) -> None:
    """A document of another kind is refused, and nothing of it is taken."""
    document = {"version": VERSION, "level": 0.0, "files": [["h/b", 1, 1, 1.0, None]]}
    EvictionIndex().load(json.dumps(document).encode())
    index = EvictionIndex()
    with pytest.raises(ValueError):
        index.load(json.dumps(document | change).encode())
    assert list(index) == []
    with pytest.raises(ValueError):
        index.load(json.dumps(document).encode()[:-1])


def test_times_of_last_uses() -> None:
    """A file was last used when it was added or used, also after a restart; a count is no use."""
    now = 5.0
    index = EvictionIndex(wall=lambda: now)
    index.add("h/a", 1)
    index.add("h/b", 1)
    now = 9.5
    index.use("h/a")
    index.use("h/b", 0)
    restarted = EvictionIndex()
    restarted.load(index.dump())
    for each in (index, restarted):
        assert {path: file.used_at for path, file in zip(*each.snapshot(), strict=True)} == {
            "h/a": 9,
            "h/b": 5,
        }


def test_times_of_last_uses_that_an_earlier_release_did_not_write() -> None:
    """The document of an earlier release is read, and the scan tells the times."""
    document = {"version": VERSION, "level": 0.0, "files": [["h/a", 1, 1, 1.0, None]]}
    index = EvictionIndex(wall=lambda: 9.0)
    index.load(json.dumps(document).encode())
    index.add("h/b", 1)
    index.begin_scan()
    index.end_scan([(name, Identity(1, 1, 2), 4) for name in ("h/a", "h/b", "h/c")])
    used_at = {path: file.used_at for path, file in zip(*index.snapshot(), strict=True)}
    assert used_at == {"h/a": 4, "h/b": 9, "h/c": 4}
