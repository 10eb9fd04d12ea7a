"""Real clients install from folders, as pypiserver and simpleindex lay them out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.clients import Environment, pip_install, uv_install
from tests.support.distributions import Distribution, make_sdist, make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.processes import EXPIRED_AT_ONCE, StartProxy, health_checks

Install = Callable[..., tuple[Environment, str]]
JSON = "application/vnd.pypi.simple.v1+json"
both = pytest.mark.parametrize("install", [pip_install, uv_install])

TREE = [
    make_wheel("Demo.App", requires=["demo-lib>=1", "demo_source"]),
    *(make_wheel("demo-lib", version) for version in ("0.9", "1.5")),
    make_sdist("demo-source", "0.3"),
]
INSTALLED = {"demo_app": "1.0", "demo_lib": "1.5", "demo_source": "0.3"}


def flat(folder: Path, *files: Distribution) -> str:
    """Lay files into one folder; return its URL."""
    folder.mkdir(exist_ok=True)
    for file in files:
        (folder / file.filename).write_bytes(file.data)
    return f"file://{folder}"


def by_project(folder: Path, *files: Distribution) -> str:
    """Lay files into one folder a project; return the URL of all."""
    folder.mkdir(exist_ok=True)
    for file in files:
        flat(folder / file.project, file)
    return f"file://{folder}"


def assert_installed(environment: Environment) -> None:
    assert {module: environment.version_of(module) for module in INSTALLED} == INSTALLED


@both
@pytest.mark.parametrize("lay", [flat, by_project])
def test_install(
    start_proxy: StartProxy, tmp_path: Path, install: Install, lay: Callable[..., str]
) -> None:
    """pip and uv install from a folder without a network, and nothing is copied to the cache."""
    proxy = start_proxy(index_url=lay(tmp_path / "wheels", *TREE), offline="on")
    assert_installed(install(tmp_path / "client", proxy.url, "demo-app")[0])
    cached = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert not cached & {file.filename for file in TREE}


@both
def test_beside_an_index(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path, install: Install
) -> None:
    """A folder before an index has its names first; the index has all others."""
    fake_index.add(make_wheel("demo-lib", "1.5", padding=100))
    fake_index.add(TREE[-1])
    url = flat(tmp_path / "wheels", *TREE[:-1])
    variables = {"index_url": url, "extra_index_urls": fake_index.url}
    proxy = start_proxy(**variables, prefetch="off")
    assert_installed(install(tmp_path / "client", proxy.url, "demo-app")[0])
    assert [seen.path.rpartition("/")[2] for seen in fake_index.files_asked()] == [
        TREE[-1].filename
    ]


@both
def test_changes(start_proxy: StartProxy, tmp_path: Path, install: Install) -> None:
    """A release that is added, then replaced, is installed as it lies there."""
    folder = tmp_path / "wheels"
    proxy = start_proxy(index_url=flat(folder, *TREE), index_ttl=EXPIRED_AT_ONCE)
    assert_installed(install(tmp_path / "first", proxy.url, "demo-app")[0])
    flat(folder, make_wheel("demo-lib", "2.0"))
    environment, _ = install(tmp_path / "second", proxy.url, "demo-lib")
    assert environment.version_of("demo_lib") == "2.0"
    (folder / "demo_lib-2.0-py3-none-any.whl").unlink()
    other = make_wheel("demo-lib", "1.5", padding=100_000)
    flat(folder, other)
    requirement = tmp_path / "requirements.txt"
    requirement.write_text(f"demo-lib==1.5 --hash=sha256:{other.sha256}\n")
    environment, _ = install(tmp_path / "third", proxy.url, "-r", str(requirement))
    assert environment.version_of("demo_lib") == "1.5"


def test_large_file(start_proxy: StartProxy, tmp_path: Path) -> None:
    """A large file is sent whole and in parts, from its descriptor to the socket."""
    folder, data = tmp_path / "wheels", os.urandom(20_000_000)
    url = flat(folder, Distribution("large", "1.0", "large-1.0.tar.gz", data, ""))
    proxy, path = start_proxy(index_url=url), "/index/large/large-1.0.tar.gz"
    for _ in range(2):
        assert hashlib.sha256(proxy.get(path).body).digest() == hashlib.sha256(data).digest()
        part = proxy.get(path, Range="bytes=10000000-10000009")
        assert part.body == data[10_000_000:10_000_010]


def test_many_projects(start_proxy: StartProxy, tmp_path: Path) -> None:
    """Clients of a folder of thousands of files get their pages side by side."""
    folder = tmp_path / "wheels"
    files = [make_wheel(f"project-{number}", padding=1000) for number in range(3000)]
    proxy = start_proxy(index_url=flat(folder, *files))
    names = [f"/index/project-{number}/" for number in range(0, 3000, 10)]
    with health_checks(proxy) as waits, ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(proxy.get, names))
    assert {reply.status for reply in replies} == {200}
    assert len(waits) > 1
    assert proxy.get("/index/", Accept=JSON).body.count(b'{"name":') == 3000
