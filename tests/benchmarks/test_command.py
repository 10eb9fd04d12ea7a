"""The scenarios are consistent, and the documents match the commands."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from command import BEGIN, DOCUMENT, END, SCENARIOS, Result, figures, parser, replace_figures
from docutils.core import publish_doctree
from environments import ORIGINAL_RELEASE, BenchmarkError
from plot import COMPARISON, FIRST_INSTALLS
from programs import Program
from results import NGINX, ORIGINAL, PROGRAMS, PROXPI, UVLOOP, Values
from scenario import QUICK, Sizes

from tests.support.original import RELEASE

TOP = Path(__file__).parents[2]
MODULES = sorted(path.stem for path in (TOP / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("sizes", [Sizes(), QUICK], ids=["usual", "quick"])
def test_rows_and_targets_fit(sizes: Sizes) -> None:
    """Each measure has one row, each target a measure and programs, each bar of the plot a row."""
    keys = [measure.key for scenario in SCENARIOS for measure in scenario.measures(sizes)]
    assert len(keys) == len(set(keys))
    for plot in (COMPARISON, FIRST_INSTALLS):
        assert set(plot.labels) | set(plot.base_keys.values()) <= set(keys)
    for scenario in SCENARIOS:
        own = {measure.key for measure in scenario.measures(sizes)}
        for target in scenario.targets:
            assert target.key in own
            assert {target.name, target.beside or target.name} <= set(PROGRAMS)


def test_scenarios_have_distinct_names() -> None:
    """``--only`` selects a scenario by its name; the help lists all names."""
    names = [scenario.name for scenario in SCENARIOS]
    assert len(names) == len(set(names))
    assert all(name in parser().format_help() for name in names)
    assert parser().parse_args(["--only", names[0]]).only == [names[0]]


def test_figures_are_replaced_between_their_marks() -> None:
    """The text around the marks stays; a document without marks is an error."""
    document = f"before\n\n{BEGIN}\nold\n\n{END}\nafter\n"
    assert replace_figures(document, "new\n") == f"before\n\n{BEGIN}\nnew\n\n{END}\nafter\n"
    assert replace_figures(replace_figures(document, "new\n"), "old\n") == document
    with pytest.raises(BenchmarkError, match="lacks the marks"):
        replace_figures("nothing", "new\n")


def test_the_document_is_valid_with_new_figures() -> None:
    """The document has the marks, and docutils accepts it with other figures."""
    values = Values()
    for name, value in (("proxpi", 3.0), ("original", 2.0)):
        values.note("small_rate", name, value)
    measures = [row for scenario in SCENARIOS for row in scenario.measures(Sizes())]
    targets = [target for scenario in SCENARIOS for target in scenario.targets]
    verdicts = values.verdicts(measures, targets)
    inner = figures(Result({"cores": 2}, values, measures, verdicts))
    document = replace_figures(DOCUMENT.read_text(), inner)
    publish_doctree(document, settings_overrides={"halt_level": 2})
    assert "1.5" in document


def test_commands() -> None:
    """The commands are executable; each document with figures names the one that measures them."""
    for name in ("benchmarks/run", "benchmarks/profile"):
        assert (TOP / name).stat().st_mode & 0o111
    for document in ("README.rst", "benchmarks/README.rst", "docs/performance.rst"):
        assert "benchmarks/run" in (TOP / document).read_text()


def test_modules() -> None:
    """Each module can be imported and has a row in the README's table."""
    for name in MODULES:
        importlib.import_module(name)
    lines = (TOP / "benchmarks/README.rst").read_text().splitlines()
    listed = {line.split("``")[1] for line in lines if line.startswith("``")}
    assert {name for name in listed if name.endswith(".py")} == {f"{name}.py" for name in MODULES}


def test_the_original_takes_part_in_each_round_only_for_a_target() -> None:
    """Warm pages have a target relative to the original; elsewhere the first round measures it."""
    programs = [Program(name, TOP, ()) for name in (PROXPI, UVLOOP, ORIGINAL, NGINX)]
    later = {
        scenario.name: {program.name for program in scenario.select(programs, first_round=False)}
        for scenario in SCENARIOS
    }
    assert all({PROXPI, NGINX} <= names for names in later.values())
    assert {name for name, names in later.items() if ORIGINAL in names} == {"hits", "large-page"}
    first = SCENARIOS[-1].select(programs, first_round=True)
    assert [program.name for program in first] == [PROXPI, ORIGINAL, NGINX]


def test_release_of_the_original() -> None:
    """The release that is measured is the one that the page on moving compares."""
    assert ORIGINAL_RELEASE == RELEASE
