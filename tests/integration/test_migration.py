"""The page on moving from the original is true: each row is tried with both programs.

A row of requests is a request: both get it, and the page states their statuses. A row of the other
tables has a check of that name here, or names the tests that show it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import pytest
from docutils import nodes
from docutils.core import publish_doctree

from tests.support.distributions import make_sdist, make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.original import Original
from tests.support.proxy import Proxy, Reply

TOP = Path(__file__).parents[2]
PAGE = publish_doctree((TOP / "docs/migration.rst").read_text())
VERDICTS = ("Same", "Better", "Different")


@attrs.frozen
class Row:
    """A row of a table: its first cell, the cells of the original and of proxpi, and the rest."""

    first: str
    literals: list[str]
    original: str
    proxpi: str
    remark: str

    @property
    def verdict(self) -> str:
        return re.split(r"[.:]", self.remark)[0]

    @property
    def condition(self) -> str:
        """The failure of the index that the first cell states."""
        return self.first.partition(", the index ")[2]


def rows(title: str) -> list[Row]:
    """Return the rows of the table in a section."""
    sections = PAGE.findall(nodes.section)
    section = next(each for each in sections if next(each.findall(nodes.title)).astext() == title)
    found = []
    for row in next(section.findall(nodes.tbody)).findall(nodes.row):
        first, *others = row.findall(nodes.entry)
        literals = [each.astext() for each in first.findall(nodes.literal)]
        found.append(Row(first.astext(), literals, *(each.astext() for each in others)))
    return found


@attrs.frozen
class Both:
    """The two programs in front of the same indexes."""

    index: FakeIndex
    extra: FakeIndex
    original: Original
    proxy: Proxy

    def request(self, literals: list[str]) -> tuple[Reply, Reply]:
        """Send the request of a row: a request line, and header fields in place of ``*/*``."""
        line, *fields = literals
        method, path = line.split()
        headers = dict(field.split(": ") for field in fields if ": " in field)
        if "Accept" not in fields:
            headers = {"Accept": "*/*"} | headers
        with ThreadPoolExecutor() as pool:
            programs = (self.original, self.proxy)
            replies = [pool.submit(each.request, method, path, headers) for each in programs]
            original, proxpi = [each.result() for each in replies]
        return original, proxpi


@contextmanager
def both(folder: Path, **settings: str) -> Iterator[Both]:
    """Start both, in front of a main index and an extra one; settings are without ``PROXPI_``."""
    with ExitStack() as stack:
        index, extra = (stack.enter_context(FakeIndex()) for _ in range(2))
        variables = {"INDEX_URL": index.url, "EXTRA_INDEX_URLS": extra.url} | settings
        environment = {f"PROXPI_{name}": value for name, value in variables.items()}
        folders = folder / "original", folder / "proxpi"
        for each in folders:
            each.mkdir()
        programs = Original(environment, folder=folders[0]), Proxy(environment, folder=folders[1])
        with ThreadPoolExecutor() as pool:
            original, proxy = pool.map(stack.enter_context, programs)
        yield Both(index, extra, original, proxy)


def assert_stated(row: Row, original: Reply, proxpi: Reply) -> None:
    """Both statuses are those of the row, and "same" is said of equal ones alone."""
    assert row.verdict in VERDICTS
    assert (str(original.status), str(proxpi.status)) == (row.original[:3], row.proxpi[:3])
    if row.verdict == "Same":
        kinds = [each.headers.get("content-type", "").split(";")[0] for each in (original, proxpi)]
        assert original.status == proxpi.status
        assert kinds[0] == kinds[1] or original.status >= 300


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Both with their defaults, and an index that has what the page's requests name."""
    with both(tmp_path_factory.mktemp("served")) as programs:
        for project in ("demo", "My.Demo"):
            programs.index.add(make_wheel(project))
            programs.index.add(make_sdist(project))
        slow = programs.index.add(make_wheel("slow"))
        programs.index.script(slow, Behavior(hold_after=10))
        missing = programs.index.add(make_wheel("missing"))
        programs.index.script(missing, Behavior(status=404))
        yield programs


@pytest.mark.parametrize("row", rows("Requests"), ids=lambda row: " ".join(row.literals))
def test_requests(served: Both, row: Row) -> None:
    """Each request of the page gets the two statuses that the page states."""
    assert_stated(row, *served.request(row.literals))


NO_PAGE = Behavior(status=200, body=b"hello", headers={"Content-Type": "text/plain"})
#: How the index fails, by the words of the page.
FAILURES: dict[str, Callable[[FakeIndex], None]] = {
    "rejects the credentials": lambda index: index.script("/simple/*", Behavior(status=401)),
    "sends no index page": lambda index: index.script("/simple/*", NO_PAGE),
    "responds with 503": lambda index: index.script("/simple/*", Behavior(status=503)),
    "is down": lambda index: index.close(),
}


def test_failures(tmp_path: Path) -> None:
    """With each failure of the index, each request gets the two statuses that the page states."""
    with both(tmp_path, INDEX_TTL="0") as programs:
        programs.index.add(make_wheel("demo"))
        for path in ("/index/", "/index/demo/", "/index/demo/demo-1.0-py3-none-any.whl"):
            programs.request([f"GET {path}"])
        found = rows("When the index fails")
        assert {row.condition for row in found} == {*FAILURES}
        for condition, group in itertools.groupby(found, lambda row: row.condition):
            FAILURES[condition](programs.index)
            for row in group:
                assert_stated(row, *programs.request(row.literals))
