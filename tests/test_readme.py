"""The README is true: its commands, its settings, and its reStructuredText."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from docutils.core import publish_doctree

from proxpi.config import RESERVED_SEGMENTS, TABLES
from proxpi.options import Options
from proxpi.prefetch.locks import Target
from proxpi.settings import SETTINGS, Settings, table

TOP = Path(__file__).parent.parent
README = (TOP / "README.rst").read_text()


def command(introduction: str) -> str:
    """The command of the first code block behind some words of the README."""
    block = README.partition(introduction)[2].partition(".. code-block:: sh\n\n")[2]
    return block.partition("\n\n")[0].strip()


DOCUMENTS = ["README.rst", "CONTRIBUTING.rst", "CHANGELOG.rst"]
DOCUMENTS += [f"docs/{path.name}" for path in sorted((TOP / "docs").glob("*.rst"))]

#: Files to paste, which tests elsewhere parse or run.
SNIPPETS = [path for path in sorted((TOP / "docs/ci").rglob("*")) if path.is_file()]
SNIPPETS += sorted((TOP / "docker").glob("compose*.yaml"))

LINK = re.compile(r"`[^`<]+ <([^`>]+)>`_")
BLOCK = re.compile(r"^( *)\.\. code-block:: (\w+)\n\n((?:\1 +.*\n|\n)+)", re.MULTILINE)


def blocks(name: str, language: str) -> list[str]:
    """Return the code blocks of a document in one language."""
    found = BLOCK.findall((TOP / name).read_text())
    return [textwrap.dedent(text) for _, each, text in found if each == language]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_it_is_valid(name: str) -> None:
    """The documents are reStructuredText without an error or a warning."""
    publish_doctree((TOP / name).read_text(), settings_overrides={"halt_level": 2})


@pytest.mark.parametrize("name", DOCUMENTS)
def test_its_links(name: str) -> None:
    """Each link to a file of this repository leads to one."""
    for target in LINK.findall((TOP / name).read_text()):
        assert "://" in target or ((TOP / name).parent / target).is_file(), target


def test_snippets() -> None:
    """A page links to each snippet, whose first line is a comment."""
    linked = {
        ((TOP / name).parent / target).resolve()
        for name in DOCUMENTS
        for target in LINK.findall((TOP / name).read_text())
    }
    for path in SNIPPETS:
        assert path.resolve() in linked, path
        assert path.read_text().startswith(("#", "//")), path


def test_blocks_of_snippets() -> None:
    """Each configuration that the page on CI systems shows is a part of a snippet."""
    snippets = [path.read_text() for path in SNIPPETS]
    for language in ("dockerfile", "groovy", "toml", "yaml"):
        for block in blocks("docs/ci.rst", language):
            indented = [textwrap.indent(block.rstrip(), " " * width) for width in range(0, 14, 2)]
            assert any(text in snippet for text in indented for snippet in snippets), block


@pytest.mark.parametrize("name", ["README.rst", "docs/indexes.rst", "docs/rules.rst"])
def test_configuration_files(name: str, tmp_path: Path) -> None:
    """Each configuration file that a document shows is understood, without a warning."""
    files = [text for text in blocks(name, "toml") if text.startswith("# proxpi.toml\n")]
    assert files
    for text in files:
        (tmp_path / "proxpi.toml").write_text(text)
        assert Settings.read({}, {"config": str(tmp_path / "proxpi.toml")}).warnings == ()


def test_alternatives() -> None:
    """The page on choosing has all programs that the original's README lists."""
    text = (TOP / "docs/alternatives.rst").read_text()
    listed = re.findall(r"^   \* - (.+)$", text, re.MULTILINE)
    for name in (
        *(
            "simpleindex",
            "bandersnatch",
            "devpi",
            "pypiserver",
            "dumb-pypi",
            "PyPI Cloud",
            "Gemfury",
        ),
        *("pypiprivate", "Pulp", "pip2pi", "nginx_pypi_cache", "Flask-Pypi-Proxy", "Apache"),
        "``python -m http.server``",
    ):
        assert any(each.startswith(name) for each in listed), name


def test_keys_of_the_configuration_file() -> None:
    """The reference has each key of each table, and no other."""
    text = (TOP / "docs/indexes.rst").read_text()
    tables = re.findall(r"\* - ``\[+(\w+)]+``\n((?:   .*\n|\n)+)", text)
    found = {title: re.findall(r"\* - ``([a-z-]+)``", rows) for title, rows in tables}
    assert found == {title: [*keys] for title, (_, keys) in TABLES.items()}


def test_names_that_no_view_has() -> None:
    """The reference names the paths that are no names of views."""
    text = (TOP / "docs/indexes.rst").read_text()
    [names] = re.findall(r"^\* ([^*]+?)\s+are no names of views", text, re.MULTILINE)
    assert re.findall(r"``([a-z]+)``", names) == [*RESERVED_SEGMENTS]


def test_the_settings_are_those_of_the_code() -> None:
    """The table is what ``python -m proxpi.settings`` prints, and there is no second one."""
    assert table() in README
    assert README.count("list-table") == 1
    host = urlsplit(next(row.default for row in SETTINGS if row.name == "index_url")).hostname
    assert README.count(str(host)) == 1, "the default index is named in the table alone"


def test_no_other_setting_is_named() -> None:
    """Each ``PROXPI_…`` in the README is a variable that proxpi reads."""
    known = {setting.variable for setting in SETTINGS} | {"PROXPI_EXTRA_INDEX_TTL"}
    known |= {f"{setting.variable}_FILE" for setting in SETTINGS if setting.secret}
    assert set(re.findall(r"PROXPI_[A-Z_]+", README)) <= known


def test_the_command_that_runs_is_on_the_first_screen() -> None:
    """The first screen of the README shows how to run proxpi and how to test it."""
    first_screen = README.splitlines()[:40]
    assert any(command("**Run it**") in line for line in first_screen)
    assert any(command("**Test it**") in line for line in first_screen)
    assert command("**Run it**").endswith("/twistd -n --pidfile= proxpi")


@pytest.mark.parametrize("other", [".ci/run", "CONTRIBUTING.rst"])
def test_ci_runs_the_command_that_tests(other: str) -> None:
    """Continuous integration, a program, and contributors use the README's own test command."""
    lines = [line.strip() for line in (TOP / other).read_text().splitlines()]
    assert command("**Test it**") in lines
    assert (TOP / ".ci/run").stat().st_mode & 0o111, "it is a program"


def test_the_query_of_a_lock() -> None:
    """The line that fetches a lock has a query that is accepted."""
    found = re.search(r"data-binary @uv.lock 'http://127.0.0.1:5000/prefetch[?](.+)'", README)
    assert found is not None
    assert Target.of(**dict(parse_qsl(found[1])))


def example_lines(name: str) -> list[str]:
    """The options of a document's examples that start proxpi."""
    text = (TOP / name).read_text()
    return re.findall(r"^   twistd -n --pidfile= proxpi (.+)$", text, re.MULTILINE)


@pytest.mark.parametrize("name", ["README.rst", "docs/migration.rst"])
def test_the_examples_are_options(name: str) -> None:
    """The options of the examples exist, and their endpoint strings are understood."""
    assert example_lines(name)
    for example in example_lines(name):
        names = re.findall(r"--([a-z-]+)=", example)
        assert names
        assert set(names) <= {setting.option for setting in SETTINGS}
        for endpoint in re.findall(r"--listen='?([^'\s]+)", example):
            # These want a certificate, and a socket from systemd.
            if not endpoint.startswith(("ssl:", "systemd:")):
                options = Options()  # type: ignore[no-untyped-call]
                options.parseOptions([f"--listen={endpoint}"])
                assert options.settings.listen == (endpoint,)


@pytest.mark.parametrize("name", ["docs/ci.rst", "docs/migration.rst"])
def test_the_original_is_removed_first(name: str) -> None:
    """Its container has the name that proxpi gets: Docker would refuse it a second time."""
    text = (TOP / name).read_text()
    assert "--name proxpi" in text
    assert "docker rm --force proxpi" in text
