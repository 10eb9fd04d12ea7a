"""The layers hold: which module imports which, and a few rules that are easily forgotten.

The layers, from the bottom, are those of CONTRIBUTING.rst.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from urllib.parse import urlsplit

from docutils.core import publish_doctree

from proxpi.settings import SETTINGS

TOP = Path(__file__).parent.parent
LAYERS = [
    {"simple", "single_flight", "atomic_files", "archives", "local_files"}
    | {
        "access_log",
        "values",
        "gunicorn",
        "server",
        "config",
        "settings",
        "metrics",
        "history",
        "problems",
        "quantities",
    },
    {"upstream"},
    {"rules"},
    {"index", "files"},
    {"prefetch"},
    {"web"},
    {"options", "logs", "resources", "reactor_lag"},
    {"service", "check"},
    {"tap"},
]
#: Packages of one layer that do not import each other.
APART = {frozenset({"index", "files"}), frozenset({"rules", "files"})}

MODULES = sorted((TOP / "proxpi").rglob("*.py"))
TESTS = sorted(TOP.glob("tests/**/*.py"))
SOURCES = [*MODULES, *sorted(TOP.glob("twisted/**/*.py")), *TESTS]
SOURCES += [*sorted(TOP.glob("benchmarks/**/*.py")), TOP / "noxfile.py"]
TREES = {path: ast.parse(path.read_text()) for path in SOURCES}


def label(path: Path) -> str:
    return str(path.relative_to(TOP))


def name(path: Path) -> str:
    return label(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(path: Path) -> Iterator[str]:
    """Return all imports anywhere in a file, as dotted names: module, or module and name."""
    package = path.relative_to(TOP).parent.parts
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *filter(None, [node.module])])
            yield from (f"{module}.{name.name}" for name in node.names)


def part(module: str) -> str:
    """The part of proxpi that a dotted name is in, or an empty text for none."""
    parts = module.split(".")
    known = set[str]().union(*LAYERS)
    return parts[1] if len(parts) > 1 and parts[0] == "proxpi" and parts[1] in known else ""


def layer(part: str) -> int:
    return next(number for number, parts in enumerate(LAYERS) if part in parts)


def part_of(path: Path) -> str:
    return path.relative_to(TOP / "proxpi").parts[0].removesuffix(".py")


def test_every_module_has_its_layer() -> None:
    """A new part of proxpi is given a layer before it is built."""
    assert {part_of(path) for path in MODULES} - {"__init__"} <= set[str]().union(*LAYERS)


def test_nothing_imports_upward() -> None:
    """A module imports from its own layer and those below; ``index`` and ``files`` are apart."""
    for path in MODULES:
        own = part_of(path)
        imported = {part(name) for name in imports(path)} - {""}
        if own == "__init__":
            assert not imported
            continue
        assert not {name for name in imported if layer(name) > layer(own)}, label(path)
        assert not {name for name in imported if frozenset({own, name}) in APART}, label(path)


def test_a_layer_is_used_by_its_face() -> None:
    """A module imports names of another layer from its package, which states what it offers."""
    packages = {"simple", "upstream", "rules", "index", "files", "prefetch", "web"}
    found = {
        f"{label(path)} {node.module}"
        for path in MODULES
        for node in TREES[path].body
        if isinstance(node, ast.ImportFrom) and node.module and node.module.count(".") > 1
        if part(node.module) in packages - {part_of(path)}
    }
    assert not found


def test_no_import_cycle() -> None:
    """Of two modules at most one knows the other, directly or through others."""
    modules = {name(path) for path in MODULES}
    graph = {
        name(path): {
            found
            for imported in imports(path)
            for found in [imported if imported in modules else imported.rpartition(".")[0]]
            if found in modules and found != name(path) and found != "proxpi"
        }
        for path in MODULES
    }
    TopologicalSorter(graph).prepare()


def test_simple_is_pure() -> None:
    """The Simple Repository API knows no network, no clock and no other part of proxpi."""
    foreign = {"twisted", "treq", "klein", "zope", "socket", "asyncio", "time", "os", "pathlib"}
    for path in sorted((TOP / "proxpi/simple").rglob("*.py")):
        names = set(imports(path))
        assert not {name.split(".")[0] for name in names} & foreign, label(path)
        assert {part(name) for name in names} <= {"", "simple"}, label(path)


def test_only_the_composition_root_has_the_reactor() -> None:
    """The global reactor is an argument everywhere but in the composition root."""
    found = [label(path) for path in MODULES if "twisted.internet.reactor" in set(imports(path))]
    assert found == ["proxpi/tap.py"]


def written(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Return the private attributes that code assigns or deletes."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and not isinstance(node.ctx, ast.Load)
            and node.attr.startswith("_")
            and not node.attr.endswith("__")
        ):
            yield node


def is_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def test_private_attributes_are_written_by_their_own_class() -> None:
    """No module writes a private attribute of an object of another class."""
    found = {
        f"{label(path)} {ast.unparse(node)}"
        for path in MODULES
        for node in written(TREES[path])
        if not is_self(node)
    }
    assert not found


@cache
def private(base: type) -> frozenset[str]:
    """Return the private attributes that a class has, or writes on itself."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
    return frozenset({node.attr for node in written(tree) if is_self(node)} | {*vars(base)})


def test_no_private_attribute_of_a_base_class_of_twisted() -> None:
    """A class that is derived from one of Twisted's writes no attribute that is private there."""
    for path in MODULES:
        if part_of(path) == "server":
            continue  # its import is an error
        module = importlib.import_module(name(path))
        for _, own in inspect.getmembers(module, inspect.isclass):
            if own.__module__ != module.__name__:
                continue
            bases = [
                base for base in own.__mro__ if base.__module__.startswith(("twisted.", "treq."))
            ]
            if bases:
                tree = ast.parse(textwrap.dedent(inspect.getsource(own)))
                attributes = {node.attr for node in written(tree) if is_self(node)}
                assert not attributes & frozenset().union(*map(private, bases)), own


def test_a_module_says_why_it_exists() -> None:
    """Every module opens with a docstring, unless there is nothing in it."""
    for path in SOURCES:
        assert ast.get_docstring(TREES[path]) or not TREES[path].body, label(path)


def test_a_test_says_what_it_is_for() -> None:
    """Every test has its intent as docstring."""
    for path in TESTS:
        if path.name.startswith("test_"):
            tests = [
                node
                for node in ast.walk(TREES[path])
                if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
            ]
            assert tests, label(path)
            assert [test.name for test in tests if not ast.get_docstring(test)] == [], label(path)


def names_of_tests(path: Path) -> Iterator[str]:
    for node in TREES[path].body:
        for each in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(each, ast.FunctionDef) and each.name.startswith("test_"):
                name = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
                yield f"{label(path)}::{name}{each.name}"


def test_every_promise_has_its_tests() -> None:
    """Each promise of ``promises.rst`` stands there once, with tests that exist."""
    page = (TOP / "tests/promises.rst").read_text()
    publish_doctree(page, settings_overrides={"halt_level": 2})
    rows = [line.strip().split(" | ") for line in page.splitlines() if " | " in line]
    assert len(dict(rows)) == len(rows) > 0
    named = {promise: tests.split() for promise, tests in rows}
    existing = {test for path in TESTS for test in names_of_tests(path)}
    assert [promise for promise, tests in named.items() if not tests] == []
    assert [test for tests in named.values() for test in tests if test not in existing] == []


def test_tests_do_not_import_tests() -> None:
    """Base cases and helpers live in ``tests/support``; no test module imports another one."""
    found = {
        label(path)
        for path in TESTS
        for each in imports(path)
        if ".test_" in each and each.startswith("tests.")
    }
    assert found == set()


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
