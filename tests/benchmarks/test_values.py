"""Ratios, verdicts and tables are what they are said to be."""

from __future__ import annotations

import json

import pytest
from docutils.core import publish_doctree
from values import Measure, Spread, Target, Values, judged, restructured, short, text

RATE = Measure("rate", "page: requests/s", more_is_better=True)
CPU = Measure("cpu", "… CPU µs")
ROOM = Measure("room", "… cores", more_is_better=None)


def measured() -> Values:
    """Three rounds of two programs, the second of which was left out of the last."""
    values = Values()
    for number, (ours, theirs) in enumerate([(30, 10), (80, 20), (45, None)]):
        values.round = number
        values.note("rate", "proxpi", ours)
        values.note("room", "proxpi", 1)
        if theirs is not None:
            values.note("rate", "original", theirs)
            values.note("room", "original", 1)
    values.note("cpu", "proxpi", 7)
    return values


def test_a_ratio_is_taken_round_by_round() -> None:
    """What both did in a round is compared; what one did alone is beside the other's median."""
    assert measured().ratio("rate", "proxpi", "original") == Spread(3, 3, 4)


def test_nothing_is_compared_with_nothing() -> None:
    """A program that was not measured has no ratio, and neither has a value beside zero."""
    values = measured()
    values.note("zero", "proxpi", 1)
    values.note("zero", "original", 0)
    assert values.ratio("rate", "proxpi", "nginx") is None
    assert values.ratio("nowhere", "proxpi", "original") is None
    assert values.ratio("zero", "proxpi", "original") is None


@pytest.mark.parametrize(
    ("target", "holds", "word"),
    [
        (Target("rate", True, 2, "original"), True, "holds"),
        (Target("rate", True, 3.5, "original"), False, "misses, barely"),
        (Target("rate", False, 3, "original"), True, "holds, barely"),
        (Target("rate", False, 2, "original"), False, "misses"),
        (Target("rate", True, 30), True, "holds"),
        (Target("rate", True, 1, "nginx"), None, "not measured"),
    ],
)
def test_a_target_holds_by_the_median(target: Target, holds: bool | None, word: str) -> None:
    """The median decides, and the word says whether every round agrees."""
    [verdict] = measured().verdicts([RATE], [target])
    assert (verdict.holds, verdict.word()) == (holds, word)


def test_targets() -> None:
    """A target is a sign, a figure and a program; those of other rows are left out."""
    assert Target("rate", True, 35, "original").text() == "≥ 35 × original"
    assert Target("cpu", False, 1, "nginx").text() == "≤ nginx"
    assert Target("cpu", False, 0.5).text() == "≤ 0.5"
    assert not measured().verdicts([CPU], [Target("rate", True, 1)])


def test_the_table_has_a_row_for_what_was_measured() -> None:
    """Medians by program, ratios with their spread where there is one, and what is better."""
    measures = [RATE, CPU, ROOM, Measure("none", "nothing")]
    assert measured().rows(measures) == [
        ["", "proxpi", "original", "proxpi : original", "better"],
        ["page: requests/s", "45", "15", "3 (3 to 4)", "more"],
        ["… CPU µs", "7", "–", "–", "less"],
        ["… cores", "1", "1", "–", "–"],
    ]


def test_a_target_is_told_with_the_whole_label() -> None:
    """Out of its group, a row says what the group has in common."""
    verdicts = measured().verdicts([RATE, CPU], [Target("cpu", False, 8)])
    assert judged(verdicts)[1] == ["page: CPU µs", "proxpi", "≤ 8", "7", "holds"]


def test_tables_are_text_and_restructured_text() -> None:
    """A terminal gets columns, the documentation a table that docutils understands."""
    table = measured().rows([RATE, CPU])
    first, second = text(table).splitlines()[1:]
    assert first.index("45") == second.index("7")
    document = publish_doctree(restructured(table), settings_overrides={"halt_level": 2})
    assert "… CPU µs" in document.astext()


def test_the_summary_can_be_written() -> None:
    """Every value of every round is in it, and it is plain enough for JSON."""
    [summary] = json.loads(json.dumps(measured().summary([RATE])))
    assert summary["values"] == {
        "proxpi": {"0": 30, "1": 80, "2": 45},
        "original": {"0": 10, "1": 20},
    }
    assert summary["ratio"]["original"] == {"low": 3, "middle": 3, "high": 4}


def test_figures() -> None:
    """Figures have three digits, or all before the point."""
    for value, said in ((48_219, "48,219"), (0.0123456, "0.0123"), (2.0, "2"), (99.96, "100")):
        assert short(value) == said
