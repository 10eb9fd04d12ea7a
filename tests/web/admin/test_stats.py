"""The statistics: the state in words, and the document that ``/stats`` sends."""

from __future__ import annotations

from typing import Any

import pytest

from proxpi.index import IndexStatus
from proxpi.metrics import Totals
from proxpi.web.admin import stats
from tests.support.cases import INDEX

SERVED = Totals(requests=1000, from_cache=940, saved_bytes=12_400_000_000)


def index(name: str, state: Any) -> IndexStatus:
    return IndexStatus(name, INDEX, "http", state, None, None, None, None, 1800.0)


def indexes(states: str) -> list[IndexStatus]:
    """Return indexes a, b, c by the first letters of their states."""
    of_letter = {"r": "reachable", "f": "failing", "u": "unknown", "o": "offline"}
    return [index(name, of_letter[each]) for name, each in zip("abc", states, strict=False)]


@pytest.mark.parametrize(
    ("states", "writable", "problems", "level", "sentence"),
    [
        ("r", True, 0, "ok", "Serving; the index is reachable"),
        ("rr", True, 0, "ok", "Serving; 2 of 2 indexes reachable"),
        ("u", True, 0, "ok", "Serving; the index was not asked yet"),
        ("uu", True, 0, "ok", "Serving; no index was asked yet"),
        ("rru", True, 0, "ok", "Serving; 2 of 3 indexes reachable, 1 not asked yet"),
        ("oo", True, 0, "ok", "Serving what is cached; offline"),
        ("or", True, 0, "ok", "Serving what is cached; offline"),
        ("of", True, 0, "degraded", "Serving what is cached; offline; b fails"),
        ("rrf", True, 0, "degraded", "Serving; 2 of 3 indexes reachable (c fails)"),
        (
            "ffu",
            True,
            1,
            "degraded",
            "Serving; 0 of 3 indexes reachable (a, b fail), 1 not asked yet",
        ),
        (
            "r",
            False,
            3,
            "degraded",
            "Serving; the index is reachable; the cache folder cannot be written",
        ),
        (
            "r",
            True,
            1,
            "degraded",
            "Serving; the index is reachable; 1 problem in the last 10 minutes",
        ),
        (
            "r",
            True,
            2,
            "degraded",
            "Serving; the index is reachable; 2 problems in the last 10 minutes",
        ),
        ("f", True, 1, "failing", "Serving only what is cached; the index is not reachable"),
        ("ff", True, 1, "failing", "Serving only what is cached; no index is reachable"),
    ],
)
def test_state(states: str, writable: bool, problems: int, level: str, sentence: str) -> None:
    """The level is the worst of all situations, and the sentence tells why."""
    found = stats.state(indexes(states), writable=writable, problems=problems, day=Totals())
    assert (found.level, found.sentence) == (level, sentence)


def test_state_with_traffic() -> None:
    """The sentence ends with what the cache saved."""
    sentence = stats.state(indexes("rrf"), writable=True, problems=0, day=SERVED).sentence
    assert sentence == (
        "Serving; 2 of 3 indexes reachable (c fails); "
        "94 % of requests from the cache in the last 24 hours; 12.4 GB not downloaded"
    )
