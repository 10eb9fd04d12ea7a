"""Tests of ratios, verdicts and tables."""

from __future__ import annotations

import json

import pytest
from docutils.core import publish_doctree
from results import Measure, Spread, Target, Values, format_number, target_table, text, to_rst

RATE = Measure("rate", "page: requests/s", more_is_better=True)
CPU = Measure("cpu", "… CPU µs")
CORES = Measure("cores", "… cores", more_is_better=None)


def measured() -> Values:
    """Three rounds of two programs; the last round has no value of the second program."""
    values = Values()
    for number, (ours, theirs) in enumerate([(30, 10), (80, 20), (45, None)]):
        values.round = number
        values.note("rate", "proxpi", ours)
        values.note("cores", "proxpi", 1)
        if theirs is not None:
            values.note("rate", "original", theirs)
            values.note("cores", "original", 1)
    values.note("cpu", "proxpi", 7)
    return values


def test_a_ratio_is_taken_round_by_round() -> None:
    """A ratio compares values of one round; a missing value is replaced by its median."""
    assert measured().ratio("rate", "proxpi", "original") == Spread(3, 3, 4)


def test_a_ratio_needs_two_values() -> None:
    """There is no ratio to a program without values, nor to zero."""
    values = measured()
    values.note("zero", "proxpi", 1)
    values.note("zero", "original", 0)
    assert values.ratio("rate", "proxpi", "nginx") is None
    assert values.ratio("nowhere", "proxpi", "original") is None
    assert values.ratio("zero", "proxpi", "original") is None


@pytest.mark.parametrize(
    ("target", "holds", "word"),
    [
        (Target("rate", "≥", 2, "original"), True, "holds"),
        (Target("rate", "≥", 3.5, "original"), False, "misses, barely"),
        (Target("rate", "≤", 3, "original"), True, "holds, barely"),
        (Target("rate", "≤", 2, "original"), False, "misses"),
        (Target("rate", "≥", 30), True, "holds"),
        (Target("rate", "≥", 1, "nginx"), None, "not measured"),
    ],
)
def test_a_target_holds_by_the_median(target: Target, holds: bool | None, word: str) -> None:
    """The median decides; "barely" marks rounds that disagree."""
    [verdict] = measured().verdicts([RATE], [target])
    assert (verdict.holds, verdict.word()) == (holds, word)


def test_targets() -> None:
    """The text of a target has sign, figure and program; targets of other measures are left out."""
    assert Target("rate", "≥", 35, "original").text() == "≥ 35 × original"
    assert Target("cpu", "≤", 1, "nginx").text() == "≤ nginx"
    assert Target("cpu", "≤", 0.5).text() == "≤ 0.5"
    assert not measured().verdicts([CPU], [Target("rate", "≥", 1)])


def test_the_table_has_a_row_for_each_value() -> None:
    """A row has medians by program, ratios with their range, and the better direction."""
    measures = [RATE, CPU, CORES, Measure("none", "nothing")]
    assert measured().rows(measures) == [
        ["", "proxpi", "original", "proxpi : original", "better"],
        ["page: requests/s", "45", "15", "3 (3 to 4)", "more"],
        ["… CPU µs", "7", "–", "–", "less"],
        ["… cores", "1", "1", "–", "–"],
    ]


def test_a_verdict_has_the_full_label() -> None:
    """Outside of its group, a label includes the common part of the group."""
    verdicts = measured().verdicts([RATE, CPU], [Target("cpu", "≤", 8)])
    assert target_table(verdicts)[1] == ["page: CPU µs", "proxpi", "≤ 8", "7", "holds"]


def test_tables_have_two_formats() -> None:
    """The terminal format has aligned columns; docutils accepts the other one."""
    table = measured().rows([RATE, CPU])
    first, second = text(table).splitlines()[1:]
    assert first.index("45") == second.index("7")
    document = publish_doctree(to_rst(table), settings_overrides={"halt_level": 2})
    assert "… CPU µs" in document.astext()


def test_the_summary_is_json() -> None:
    """The summary has every value of every round, and JSON can encode it."""
    [summary] = json.loads(json.dumps(measured().summary([RATE])))
    assert summary["values"] == {
        "proxpi": {"0": 30, "1": 80, "2": 45},
        "original": {"0": 10, "1": 20},
    }
    assert summary["ratio"]["original"] == {"low": 3, "median": 3, "high": 4}


def test_numbers() -> None:
    """A number has three significant digits, or all before the point."""
    for value, expected in ((48_219, "48,219"), (0.0123456, "0.0123"), (2.0, "2"), (99.96, "100")):
        assert format_number(value) == expected
