"""A lock fills the cache; then real clients install from it while no index can be reached."""

from __future__ import annotations

import json
import sys
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.clients import Environment, isolated_environment, pip_install, run, uv_install
from tests.support.distributions import make_sdist, make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.processes import StartProxy
from tests.support.proxy import Proxy

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
TARGET = f"/prefetch?python={PYTHON}&platform=manylinux_2_28_x86_64"
FILES = {
    "demo_app-1.0-py3-none-any.whl",
    "demo_lib-1.5-py3-none-any.whl",
    "demo_source-0.3.tar.gz",
}
MODULES = {"demo_app": "1.0", "demo_lib": "1.5", "demo_source": "0.3"}
PROJECT = """
[project]
name = "consumer"
version = "0"
requires-python = ">=3.11"
dependencies = ["demo-app"]
"""


@pytest.fixture
def tree(fake_index: FakeIndex) -> FakeIndex:
    """An index with what an application needs, here and on Windows."""
    requires = ["demo-lib>=1", "demo-source", "demo-windows; sys_platform == 'win32'"]
    fake_index.add(make_wheel("demo-app", requires=requires))
    fake_index.add(make_wheel("demo-lib", "1.0"))
    fake_index.add(make_wheel("demo-lib", "1.5", padding=200_000))
    fake_index.add(make_sdist("demo-source", "0.3"))
    fake_index.add(make_wheel("demo-windows"))
    return fake_index


def uv(folder: Path, proxy: Proxy, *arguments: str) -> str:
    """Run uv in a project that requires the application."""
    project = folder / "project"
    project.mkdir(parents=True, exist_ok=True)
    (project / "pyproject.toml").write_text(PROJECT)
    command = [str(Path(sys.executable).with_name("uv")), "--no-config", "--no-cache", *arguments]
    index = {"UV_DEFAULT_INDEX": proxy.url, "UV_PYTHON": sys.executable}
    return run(command, project, isolated_environment(folder, **index))


def prefetch(proxy: Proxy, lock: str) -> dict[str, str]:
    """Send a lock; return the outcomes by file."""
    reply = proxy.request("POST", TARGET, body=lock.encode())
    assert reply.status == 200, reply
    *lines, summary = [json.loads(line) for line in reply.text.splitlines()]
    assert summary["files"] == len(lines)
    return {line["file"]: line["outcome"] for line in lines}


def test_offline_install(tree: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """After a lock has been sent once, pip and uv install what it pins from an offline proxpi."""
    cache = tmp_path / "cache"
    online = start_proxy(tree, cache_dir=cache)
    uv(tmp_path / "lock", online, "lock")
    lock = (tmp_path / "lock/project/uv.lock").read_text()
    export = ("export", "--frozen", "--no-emit-project", "--quiet", "--format")
    requirements = uv(tmp_path / "lock", online, *export, "requirements-txt")
    pylock = uv(tmp_path / "lock", online, *export, "pylock.toml")
    assert online.request("DELETE", "/cache").status == 200
    tree.clear_requests()
    assert prefetch(online, lock) == dict.fromkeys(FILES, "fetched")
    tree.wait_until_quiet()
    requested = [seen.path for seen in tree.requests()]
    assert sorted(requested) == sorted({*requested}), "nothing is requested twice"
    assert not [path for path in requested if "windows" in path or "lib-1.0" in path]
    tree.clear_requests()
    for text in (lock, requirements, pylock):
        assert prefetch(online, text) == dict.fromkeys(FILES, "cached")
    online.stop()

    offline = start_proxy(tree, cache_dir=cache, offline="on")
    for text in (lock, requirements, pylock):
        assert prefetch(offline, text) == dict.fromkeys(FILES, "cached")
    listed = tmp_path / "requirements.txt"
    listed.write_text(requirements)
    for name, install in {"pip": pip_install, "uv": uv_install}.items():
        environment, _ = install(tmp_path / name, offline.url, "-r", str(listed))
        assert installed(environment) == MODULES
    project = tmp_path / "sync/project"
    project.mkdir(parents=True)
    (project / "uv.lock").write_text(lock.replace(online.origin, offline.origin))
    uv(tmp_path / "sync", offline, "sync", "--frozen", "--no-install-project")
    assert installed(Environment(project / ".venv")) == MODULES
    missing = prefetch(offline, f"{requirements}\ndemo-lib==1.0 ; python_version > '3'\n")
    assert missing == dict.fromkeys(FILES, "cached") | {"demo_lib-1.0-py3-none-any.whl": "failed"}
    assert tree.requests() == []


def installed(environment: Environment) -> dict[str, str]:
    return {module: environment.version_of(module) for module in MODULES}


def test_lines_arrive_at_once(tree: FakeIndex, start_proxy: StartProxy) -> None:
    """The line of a file is on the wire while another file is still downloaded."""
    proxy = start_proxy(tree)
    tree.script("/files/demo-lib/*", Behavior(hold_after=1000))
    connection = HTTPConnection("127.0.0.1", urlsplit(proxy.origin).port, timeout=30)
    connection.request("POST", TARGET, "demo-lib==1.5\ndemo-app==1.0\n")
    response = connection.getresponse()
    assert json.loads(response.readline())["file"] == "demo_app-1.0-py3-none-any.whl"
    tree.release("/files/demo-lib/*")
    assert [len(json.loads(line)) for line in response] == [3, 5]
    connection.close()
