"""The benchmarks fit together, and the documents name the commands that there are."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from bench import QUICK, Sizes
from command import BEGIN, DOCUMENT, END, SCENARIOS, Result, figures, parser, replaced
from docutils.core import publish_doctree
from environments import Unusable
from plot import ROWS
from programs import Program
from values import NGINX, ORIGINAL, OURS, PROGRAMS, Values

TOP = Path(__file__).parents[2]
MODULES = sorted(path.stem for path in (TOP / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("sizes", [Sizes(), QUICK], ids=["usual", "quick"])
def test_rows_and_targets_fit(sizes: Sizes) -> None:
    """Each measure has one row, each target a measure and programs, each bar of the plot a row."""
    keys = [measure.key for scenario in SCENARIOS for measure in scenario.measures(sizes)]
    assert len(keys) == len(set(keys))
    assert set(ROWS) <= set(keys)
    for scenario in SCENARIOS:
        own = {measure.key for measure in scenario.measures(sizes)}
        for target in scenario.targets:
            assert target.key in own
            assert {target.name, target.beside or target.name} <= set(PROGRAMS)


def test_each_scenario_has_a_name_of_its_own() -> None:
    """``--only`` chooses one of them, and help names them all."""
    names = [scenario.name for scenario in SCENARIOS]
    assert len(names) == len(set(names))
    assert all(name in parser().format_help() for name in names)
    assert parser().parse_args(["--only", names[0]]).only == [names[0]]


def test_the_figures_go_where_they_belong() -> None:
    """What is between the marks is replaced, and nothing else is touched."""
    document = f"before\n\n{BEGIN}\nold\n\n{END}\nafter\n"
    assert replaced(document, "new\n") == f"before\n\n{BEGIN}\nnew\n\n{END}\nafter\n"
    assert replaced(replaced(document, "new\n"), "old\n") == document
    with pytest.raises(Unusable, match="no place"):
        replaced("nothing", "new\n")


def test_the_document_has_a_place_for_figures() -> None:
    """With new figures it is valid, whatever they are."""
    values = Values()
    for name, value in (("proxpi", 3.0), ("original", 2.0)):
        values.note("small_rate", name, value)
    measures = [row for scenario in SCENARIOS for row in scenario.measures(Sizes())]
    targets = [target for scenario in SCENARIOS for target in scenario.targets]
    verdicts = values.verdicts(measures, targets)
    inner = figures(Result({"cores": 2}, values, measures, verdicts))
    document = replaced(DOCUMENT.read_text(), inner)
    publish_doctree(document, settings_overrides={"halt_level": 2})
    assert "1.5" in document


def test_the_commands() -> None:
    """The commands can be started, and the documents name the one that measures."""
    for name in ("benchmarks/run", "benchmarks/profile"):
        assert (TOP / name).stat().st_mode & 0o111
    for document in ("README.rst", "benchmarks/README.rst", "docs/performance.rst"):
        assert "benchmarks/run" in (TOP / document).read_text()


def test_every_module() -> None:
    """Each can be imported, and has a row in the benchmarks' own README."""
    for name in MODULES:
        importlib.import_module(name)
    lines = (TOP / "benchmarks/README.rst").read_text().splitlines()
    named = {line.split("``")[1] for line in lines if line.startswith("``")}
    assert {name for name in named if name.endswith(".py")} == {f"{name}.py" for name in MODULES}


def test_the_original_takes_part_in_every_round_that_judges_by_it() -> None:
    """A target beside the original is compared round by round; elsewhere it is measured once."""
    programs = [Program(name, TOP, ()) for name in PROGRAMS]
    for scenario in SCENARIOS:
        beside = any(target.beside == ORIGINAL for target in scenario.targets)
        for first in (True, False):
            chosen = {program.name for program in scenario.chosen(programs, first)}
            assert (ORIGINAL in chosen) == (first or beside)
            assert {OURS, NGINX} <= chosen
