"""The house holds: who imports whom, and a few rules that are easily forgotten.

The floors, from the top, are those of CONTRIBUTING.rst.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from proxpi.settings import SETTINGS

TOP = Path(__file__).parent.parent
FLOORS = [
    {"simple", "single_flight", "atomic_files", "quantities", "settings", "metrics"},
    {"upstream"},
    {"index", "files"},
    {"web"},
    {"options", "logs", "resources", "shutdown"},
    {"tap"},
]
#: Rooms on one floor whose doors are walled up.
APART = {frozenset({"index", "files"})}

MODULES = sorted((TOP / "proxpi").rglob("*.py"))
SOURCES = [*MODULES, *sorted(TOP.glob("twisted/**/*.py")), *sorted(TOP.glob("tests/**/*.py"))]
SOURCES += [*sorted(TOP.glob("benchmarks/**/*.py")), TOP / "noxfile.py"]


def label(path: Path) -> str:
    """How a file is called in a report."""
    return str(path.relative_to(TOP))


def imports(path: Path) -> Iterator[str]:
    """All that a file imports, wherever in it, as dotted names: module, or module and name."""
    package = path.relative_to(TOP).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *filter(None, [node.module])])
            yield from (f"{module}.{name.name}" for name in node.names)


def room(module: str) -> str:
    """The part of proxpi that a dotted name is in, or an empty text for none."""
    parts = module.split(".")
    rooms = set[str]().union(*FLOORS)
    return parts[1] if len(parts) > 1 and parts[0] == "proxpi" and parts[1] in rooms else ""


def floor(name: str) -> int:
    """The number of the floor that a room is on."""
    return next(number for number, rooms in enumerate(FLOORS) if name in rooms)


def room_of(path: Path) -> str:
    """The room that a module of proxpi is in."""
    return path.relative_to(TOP / "proxpi").parts[0].removesuffix(".py")


def test_every_module_has_its_floor() -> None:
    """A new part of proxpi is given a floor before it is built."""
    assert {room_of(path) for path in MODULES} - {"__init__"} <= set[str]().union(*FLOORS)


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_nothing_imports_upward(path: Path) -> None:
    """A module imports from its own floor and those below, and not through a wall."""
    own = room_of(path)
    imported = {room(name) for name in imports(path)} - {""}
    if own == "__init__":
        assert not imported
        return
    assert not {name for name in imported if floor(name) > floor(own)}
    assert not {name for name in imported if frozenset({own, name}) in APART}


@pytest.mark.parametrize("path", sorted((TOP / "proxpi/simple").rglob("*.py")), ids=label)
def test_simple_is_pure(path: Path) -> None:
    """The Simple Repository API knows no network, no clock and no other part of proxpi."""
    foreign = {"twisted", "treq", "klein", "zope", "socket", "asyncio", "time", "os", "pathlib"}
    names = set(imports(path))
    assert not {name.split(".")[0] for name in names} & foreign
    assert {room(name) for name in names} <= {"", "simple"}


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_only_the_composition_root_has_the_reactor(path: Path) -> None:
    """The global reactor is an argument everywhere but where the parts of a process meet."""
    if path != TOP / "proxpi/tap.py":
        assert "twisted.internet.reactor" not in set(imports(path))


@pytest.mark.parametrize("path", SOURCES, ids=label)
def test_a_module_says_why_it_exists(path: Path) -> None:
    """Every module opens with a docstring, unless there is nothing in it."""
    module = ast.parse(path.read_text())
    assert ast.get_docstring(module) or not module.body


@pytest.mark.parametrize("path", sorted(TOP.glob("tests/**/test_*.py")), ids=label)
def test_a_test_says_what_it_is_for(path: Path) -> None:
    """Every test has its intent as docstring."""
    functions = (
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    tests = {node.name: ast.get_docstring(node) for node in functions if "test_" in node.name[:5]}
    assert tests
    assert not [name for name, docstring in tests.items() if not docstring]


def test_twisted_stays_a_namespace() -> None:
    """A package file in the plugin folders would hide Twisted itself."""
    assert not list((TOP / "twisted").rglob("__init__.py"))
    assert (TOP / "twisted/plugins/proxpi_plugin.py").is_file()


def test_the_default_index_is_named_once() -> None:
    """Its host stands in the table of settings, and nowhere else in code, tests and images."""
    host = urlsplit(next(row.default for row in SETTINGS if row.name == "index_url")).hostname
    assert host
    others = [path for path in (TOP / "docker").iterdir() if path.is_file()]
    found = {label(path): path.read_text().count(host) for path in [*SOURCES, *others]}
    assert {name: count for name, count in found.items() if count} == {"proxpi/settings.py": 1}
