"""The page on moving from the original is true: each row is tried with both programs.

A row of requests is a request: both get it, and the page states their statuses. A row of the other
tables has a check of that name here, or names the tests that show it.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import attrs
import pytest
from docutils import nodes
from docutils.core import publish_doctree

from proxpi import __version__
from proxpi.settings import Settings
from proxpi.values import SettingsError
from tests.support.distributions import Distribution, make_sdist, make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.original import RELEASE, Original, run_original, run_original_module
from tests.support.process import GUARD_SECONDS
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
    """The two programs in front of the same indexes, each in a folder of its own."""

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

    def statuses(self, line: str) -> list[int]:
        return [reply.status for reply in self.request([line])]

    def cache(self, distribution: Distribution) -> tuple[Reply, Reply]:
        """List a file, and request it until no program redirects to the index."""
        self.index.add(distribution)
        line = f"GET /index/{distribution.project}/{distribution.filename}"
        end = time.monotonic() + GUARD_SECONDS
        while (replies := self.request([line])) and time.monotonic() < end:
            if {reply.status for reply in replies} == {200}:
                return replies
        raise AssertionError(f"no 200: {replies}")


def variables(settings: Mapping[str, str]) -> dict[str, str]:
    return {f"PROXPI_{name}": value for name, value in settings.items()}


@contextmanager
def both(folder: Path, *, tls: bool = False, **settings: str) -> Iterator[Both]:
    """Start both, in front of a main index and an extra one; settings are without ``PROXPI_``."""
    with ExitStack() as stack:
        index, extra = [stack.enter_context(FakeIndex(tls=each)) for each in (tls, False)]
        extra.require_auth("user", "password")
        extra_url = extra.url.replace("//", "//user:password@")
        indexes = {"INDEX_URL": index.url, "EXTRA_INDEX_URLS": extra_url}
        environment = variables(indexes | settings)
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
        secret = programs.extra.add(make_wheel("secret"))
        programs.extra.script(secret, Behavior(drip=500))
        wrong = programs.index.add(make_wheel("wrong"))
        programs.index.script(wrong, Behavior(flip=100))
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


@cache
def original_values(**settings: str) -> dict[str, Any]:
    """Return what the original reads from variables, and the time-outs of its requests."""
    code = """
import json
from proxpi import _cache
values = {name: value for name, value in vars(_cache).items() if name.isupper()}
values["TIMEOUTS"] = _cache.Cache.from_config().root_cache.session.default_timeout
print(json.dumps(values))"""
    values: dict[str, Any] = json.loads(run_original(code, variables(settings)))
    return values


def proxpi_values(**settings: str) -> Settings:
    return Settings.read(variables(settings), {})


def assert_not_fresh(programs: Both, index: FakeIndex, project: str) -> None:
    """Each program requests the page of a project each time that a client does."""
    index.add(make_wheel(project))
    for count in (1, 2):
        assert programs.statuses(f"GET /index/{project}/") == [200, 200]
        pages = [seen for seen in index.requests() if seen.path == f"/simple/{project}/"]
        agents = [seen.headers["user-agent"] for seen in pages]
        assert agents.count(f"proxpi/{RELEASE}") == agents.count(f"proxpi/{__version__}") == count


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Both with other values than the defaults, which show in their responses."""
    settings = {
        "DISABLE_INDEX_SSL_VERIFICATION": "1",
        "INDEX_TTL": "0",
        "EXTRA_INDEX_TTLS": "0",
        "CACHE_DIR": "cache",
        "CACHE_SIZE": "4000",
        "BINARY_FILE_MIME_TYPE": "1",
        "DOWNLOAD_TIMEOUT": "0.01",
        "LOGGING_LEVEL": "DEBUG",
        "PREFETCH": "off",
    }
    with both(tmp_path_factory.mktemp("changed"), tls=True, **settings) as programs:
        yield programs


def _index_url(programs: Both) -> None:
    programs.index.add(make_wheel("root"))
    assert programs.statuses("GET /index/root/") == [200, 200]
    assert original_values()["INDEX_URL"] == proxpi_values().indexes[0].url
    code = """
from proxpi import _cache
session = _cache.Session()
session.get = lambda url, **_: exit(print(url))
_cache._IndexCache("http://index.example/simple", 1, session).list_files("demo")"""
    assert run_original(code, {}).strip() == "http://index.example/demo"
    [index] = proxpi_values(INDEX_URL="http://index.example/simple").indexes
    assert index.url == "http://index.example/simple/"


def _index_ttl(programs: Both) -> None:
    assert original_values()["INDEX_TTL"] == proxpi_values().indexes[0].ttl == 1800
    assert_not_fresh(programs, programs.index, "ttl")


def _extra_index_urls(programs: Both) -> None:
    programs.extra.add(make_wheel("extra"))
    assert programs.statuses("GET /index/extra/") == [200, 200]
    urls = "http://a.example/, http://b.example/"
    assert original_values(EXTRA_INDEX_URLS=urls)["EXTRA_INDEX_URLS"] == urls.split(",")
    extra = proxpi_values(EXTRA_INDEX_URLS=urls).indexes[1:]
    assert [index.url for index in extra] == urls.split(", ")


def _extra_index_ttls(programs: Both) -> None:
    given = {"EXTRA_INDEX_URLS": "http://a.example/,http://b.example/"}
    assert original_values(**given)["EXTRA_INDEX_TTLS"] == [180, 180]
    assert [index.ttl for index in proxpi_values(**given).indexes[1:]] == [180, 180]
    given["EXTRA_INDEX_TTLS"] = "1"
    with pytest.raises(AssertionError, match="doesn't equal"):
        original_values(**given)
    with pytest.raises(SettingsError, match="1 given for the 2"):
        proxpi_values(**given)
    assert_not_fresh(programs, programs.extra, "extra-ttl")


def _extra_index_ttl(programs: Both) -> None:
    given = {"EXTRA_INDEX_URLS": "http://a.example/", "EXTRA_INDEX_TTLS": "1"}
    assert original_values(**given, EXTRA_INDEX_TTL="2")["EXTRA_INDEX_TTLS"] == [2]
    assert proxpi_values(**given, EXTRA_INDEX_TTL="2").indexes[1].ttl == 2


def _cache_size(programs: Both) -> None:
    assert original_values()["CACHE_SIZE"] == proxpi_values().cache_size == 5368709120
    url = "http://index.example/demo-1.0.zip"
    code = f"from proxpi import _cache; print(_cache._FileCache(0).get({url!r}))"
    assert run_original(code, {}).strip() == url, "0 redirects to the index"
    for version in "12345":
        programs.cache(make_wheel("padded", version, padding=1000))
    for program in (programs.original, programs.proxy):
        files = (program.folder / "cache" / "127-0-0-1").rglob("*.*")
        assert 0 < sum(path.stat().st_size for path in files) <= 4000


def _cache_dir(programs: Both) -> None:
    wheel = make_wheel("kept")
    programs.cache(wheel)
    for program in (programs.original, programs.proxy):
        file = program.folder / "cache" / "127-0-0-1" / "files" / "kept" / wheel.filename
        assert file.read_bytes() == wheel.data


def _binary_file_mime_type(programs: Both) -> None:
    sdist = make_sdist("typed")
    for reply in programs.cache(sdist):
        assert reply.headers["content-type"] == "application/octet-stream"


def _disable_index_ssl_verification(programs: Both) -> None:
    assert programs.index.certificate is not None
    assert programs.statuses("GET /index/") == [200, 200]
    name = "DISABLE_INDEX_SSL_VERIFICATION"
    assert original_values(**{name: "NO"})[name] is True
    assert proxpi_values(**{name: "NO"}).disable_index_ssl_verification is False


def _download_timeout(programs: Both) -> None:
    assert original_values()["DOWNLOAD_TIMEOUT"] == proxpi_values().download_timeout == 0.9
    wheel = make_wheel("late")
    programs.index.script(programs.index.add(wheel), Behavior(drip=2000))
    assert programs.statuses(f"GET /index/late/{wheel.filename}") == [302, 302]


def _timeouts(programs: Both) -> None:
    assert original_values()["TIMEOUTS"] is None
    assert original_values(CONNECT_TIMEOUT="2")["TIMEOUTS"] == [2, 20]
    assert original_values(READ_TIMEOUT="2")["TIMEOUTS"] == [3.1, 2]
    for given, connect, read in (
        ({}, 3.1, 20),
        ({"CONNECT_TIMEOUT": "2"}, 2, 20),
        ({"READ_TIMEOUT": "2"}, 3.1, 2),
    ):
        values = proxpi_values(**given)
        assert (values.connect_timeout, values.read_timeout) == (connect, read)


def _logging_level(programs: Both) -> None:
    assert "[   DEBUG]" in programs.original.output and "#debug]" in programs.proxy.output
    run_original("import proxpi.server", variables({"LOGGING_LEVEL": "WARN"}))
    assert proxpi_values(LOGGING_LEVEL="WARN").logging_level == "WARNING"
    with pytest.raises(AssertionError, match="Unknown level"):
        run_original("import proxpi.server", variables({"LOGGING_LEVEL": "debug"}))
    assert proxpi_values(LOGGING_LEVEL="debug").logging_level == "DEBUG"


#: By variable, without ``PROXPI_``.
VARIABLES: dict[str, Callable[[Both], None]] = {
    "INDEX_URL": _index_url,
    "INDEX_TTL": _index_ttl,
    "EXTRA_INDEX_URLS": _extra_index_urls,
    "EXTRA_INDEX_TTLS": _extra_index_ttls,
    "EXTRA_INDEX_TTL": _extra_index_ttl,
    "CACHE_SIZE": _cache_size,
    "CACHE_DIR": _cache_dir,
    "BINARY_FILE_MIME_TYPE": _binary_file_mime_type,
    "DISABLE_INDEX_SSL_VERIFICATION": _disable_index_ssl_verification,
    "DOWNLOAD_TIMEOUT": _download_timeout,
    "CONNECT_TIMEOUT": _timeouts,
    "READ_TIMEOUT": _timeouts,
    "LOGGING_LEVEL": _logging_level,
}


def test_all_variables() -> None:
    """The table has each variable that the original reads, and each has a check."""
    assert f"release {RELEASE} of the original" in PAGE.astext()
    code = """
from inspect import getsource
from proxpi import _cache, server
print(getsource(_cache), getsource(server))"""
    read = {*re.findall(r"PROXPI_[A-Z_]+", run_original(code, {}))}
    assert {row.literals[0] for row in rows("Variables")} == read
    assert {*variables(dict.fromkeys(VARIABLES, ""))} == read


@pytest.mark.parametrize("name", VARIABLES)
def test_variables(changed: Both, name: str) -> None:
    """Each variable has in both the effect, and the default, that the page states."""
    VARIABLES[name](changed)


def test_cache_folder(fake_index: FakeIndex, tmp_path: Path) -> None:
    """Each program uses the files that the other one has cached, and requests none of them."""
    settings = variables(
        {"INDEX_URL": fake_index.url, "CACHE_DIR": "cache", "DOWNLOAD_TIMEOUT": "30"}
    )
    wheels = [make_wheel("demo", version) for version in "12"]
    paths = [f"/index/demo/{wheel.filename}" for wheel in wheels]
    for wheel in wheels:
        fake_index.add(wheel)
    with Original(settings, folder=tmp_path) as original:
        assert original.get(paths[0]).body == wheels[0].data
    with Proxy(settings | {"PROXPI_PREFETCH": "off"}, folder=tmp_path) as proxy:
        fake_index.clear_requests()
        reply = proxy.get(paths[0])
        assert (reply.body, reply.headers["x-cache"]) == (wheels[0].data, "HIT")
        assert fake_index.files_asked() == []
        assert proxy.get(paths[1]).body == wheels[1].data
    fake_index.clear_requests()
    with Original(settings, folder=tmp_path) as original:
        assert [original.get(path).body for path in paths] == [wheel.data for wheel in wheels]
    assert fake_index.files_asked() == []


def of_log(programs: Both) -> None:
    """A row of the log: both write lines with these patterns for a request."""
    row = next(row for row in rows("Habits") if row.first == "patterns on the access log")
    programs.request(["GET /index/"])
    programs.original.wait_for_line(re.escape(row.original))
    programs.proxy.wait_for_line(re.escape(row.proxpi))


def of_user_agent(programs: Both) -> None:
    programs.request(["GET /index/"])
    agents = {seen.headers["user-agent"] for seen in programs.index.requests()}
    assert agents == {f"proxpi/{RELEASE}", f"proxpi/{__version__}"}


def of_wsgi(*command: str) -> Callable[[Both], None]:
    """Return the check of a server that the original's environment has, with proxpi's package."""

    def check(programs: Both) -> None:
        environment = {"PYTHONPATH": str(TOP), "FLASK_APP": "proxpi.server"}
        with pytest.raises(AssertionError, match="twistd -n --pidfile= proxpi runs it"):
            run_original_module(command, environment)

    return check


def of_extra(programs: Both) -> None:
    assert "pretty" not in metadata("proxpi").get_all("Provides-Extra", [])


#: By the first words of a habit: its check, or the tests that show it.
HABITS: dict[str, Callable[[Both], None] | list[str]] = {
    "docker run IMAGE --bind": ["tests/container/test_entrypoint.py::test_command_line"],
    "GUNICORN_CMD_ARGS": ["tests/test_settings.py::test_a_variable_without_effect"],
    "FLASK_APP": of_wsgi("flask", "run"),
    "gunicorn proxpi.server:app": of_wsgi("gunicorn", "proxpi.server:app"),
    "pip install": of_extra,
    "--volume": ["tests/container/test_original.py::test_goes_on"],
    "docker compose up": ["tests/container/test_compose.py::test_restart_keeps_the_cache"],
    "one process": ["tests/test_gunicorn.py::test_translated"],
    "restart to fetch": ["tests/integration/test_migration.py::test_requests"],
    "docker stop": ["tests/container/test_run.py::test_drain"],
    "patterns on the access log": of_log,
    "User-Agent": of_user_agent,
    "requests of clients alone": ["tests/integration/test_pages.py::test_requests_upstream"],
    "links to private": ["tests/upstream/test_address_policy.py::ResolvedTests.test_private"],
}


@pytest.mark.parametrize("habit", [row.first for row in rows("Habits")])
def test_habits(served: Both, habit: str) -> None:
    """Each habit of the page has a check that holds, or tests that exist."""
    [check] = [HABITS[words] for words in HABITS if habit.startswith(words)]
    if callable(check):
        check(served)
        return
    for test in check:
        file, _, name = test.partition("::")
        assert f"def {name.rpartition('.')[2]}(" in (TOP / file).read_text()
