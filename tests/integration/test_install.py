"""Real clients install through proxpi; what proxpi has cached is not requested upstream again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import Environment, isolated_environment, pip_install, run, uv_install
from tests.support.distributions import make_sdist, make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.process import GUARD_SECONDS
from tests.support.processes import EXPIRED_AT_ONCE, StartProxy
from tests.support.proxy import Proxy, way_out

Install = Callable[..., tuple[Environment, str]]

_JSON = "application/vnd.pypi.simple.v1+json"
_INSTALLED = {"demo_app": "1.0", "demo_lib": "1.5", "demo_other": "2.0", "demo_source": "0.3"}
both = pytest.mark.parametrize("install", [pip_install, uv_install])


@pytest.fixture(scope="module")
def poetry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install poetry itself, through the machine's own registry; return the command's path."""
    folder = tmp_path_factory.mktemp("poetry") / "environment"
    environment = Environment.make(folder)
    uv = str(Path(sys.executable).with_name("uv"))
    command = [uv, "pip", "install", "--quiet", "--python", str(environment.python), "poetry>=2.1"]
    run(command, folder, dict(os.environ))
    return folder / "bin" / "poetry"


def poetry_install(
    poetry: Path, folder: Path, index_url: str, *requirements: str, lock: str | None = None
) -> tuple[Environment, str]:
    """Install with poetry; return environment and lock file. With `lock` nothing is resolved."""
    project = folder / "project"
    project.mkdir(parents=True)
    required = ", ".join(f'"{requirement}"' for requirement in requirements)
    (project / "pyproject.toml").write_text(
        f"""
[project]
name = "consumer"
version = "0"
requires-python = ">=3.11,<4"
dependencies = [{required}]
[tool.poetry]
package-mode = false
[[tool.poetry.source]]
name = "proxpi"
url = "{index_url}"
"""
    )
    if lock is not None:
        (project / "poetry.lock").write_text(lock)
    environment = isolated_environment(
        folder,
        POETRY_CACHE_DIR=str(folder / "poetry-cache"),
        POETRY_CONFIG_DIR=str(folder / "poetry-config"),
        POETRY_VIRTUALENVS_IN_PROJECT="true",
        POETRY_VIRTUALENVS_OPTIONS_NO_PIP="true",
        PYTHON_KEYRING_BACKEND="keyring.backends.null.Keyring",
    )
    run([str(poetry), "install", "--no-interaction"], project, environment)
    return Environment(project / ".venv"), (project / "poetry.lock").read_text()


@pytest.fixture
def tree(fake_index: FakeIndex) -> FakeIndex:
    """An index with three wheels and a source distribution that require each other."""
    fake_index.add(make_wheel("demo-app", requires=["demo-lib>=1", "demo.other"]))
    fake_index.add(make_wheel("demo-lib", "1.0"))
    fake_index.add(make_wheel("demo-lib", "1.5", padding=200_000))
    fake_index.add(make_wheel("demo.other", "2.0", requires=["demo-source==0.3"]))
    fake_index.add(make_sdist("demo-source", "0.3"))
    return fake_index


def _assert_installed(environment: Environment) -> None:
    assert {module: environment.version_of(module) for module in _INSTALLED} == _INSTALLED


def _assert_downloaded_once(index: FakeIndex) -> None:
    """Check that proxpi alone has downloaded, each file once."""
    index.wait_until_quiet()
    asked = index.files_asked()
    assert {seen.headers["user-agent"].split("/")[0] for seen in asked} == {"proxpi"}
    paths = [seen.path for seen in asked]
    assert sorted(paths) == sorted(set(paths))
    assert len([path for path in paths if path.endswith((".whl", ".tar.gz"))]) == len(_INSTALLED)
    index.clear_requests()


def test_second_install(
    tree: FakeIndex, start_proxy: StartProxy, tmp_path: Path, poetry: Path
) -> None:
    """After uv, then after poetry, every client installs without a request upstream."""
    proxy = start_proxy(tree)
    _assert_installed(uv_install(tmp_path / "uv", proxy.url, "demo-app")[0])
    _assert_downloaded_once(tree)
    simple = proxy.url.replace("/index/", "/simple/")
    _assert_installed(pip_install(tmp_path / "pip", simple, "demo-app")[0])
    _assert_installed(uv_install(tmp_path / "uv-again", proxy.url, "demo-app")[0])
    assert tree.requests() == []
    assert proxy.request("DELETE", "/cache").status == 200
    first, lock = poetry_install(poetry, tmp_path / "poetry", proxy.url, "demo-app")
    _assert_installed(first)
    _assert_downloaded_once(tree)
    again, _ = poetry_install(poetry, tmp_path / "poetry-again", proxy.url, "demo-app", lock=lock)
    _assert_installed(again)
    assert tree.requests() == []


def test_redirected(tree: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """pip is redirected upstream and installs; the next client is served from the cache."""
    proxy = start_proxy(tree, download_timeout=0)
    _assert_installed(pip_install(tmp_path / "first", proxy.url, "demo-app")[0])
    tree.wait_until_quiet()
    by = {seen.headers["user-agent"].split("/")[0] for seen in tree.files_asked()}
    assert by == {"pip", "proxpi"}
    for path in {seen.path for seen in tree.files_asked()}:
        assert proxy.get_cached(path.replace("/files/", "/index/")).headers["x-cache"] == "HIT"
    tree.clear_requests()
    _assert_installed(uv_install(tmp_path / "second", proxy.url, "demo-app")[0])
    assert tree.files_asked() == []


@both
@pytest.mark.parametrize("cache_size", [0, 100_000_000])
def test_streamed(
    tree: FakeIndex, start_proxy: StartProxy, tmp_path: Path, install: Install, cache_size: int
) -> None:
    """pip and uv install without redirects, whether files are cached or not."""
    settings = {"slow_download": "stream", "cache_size": cache_size, "download_timeout": 0}
    proxy = start_proxy(tree, **settings)
    _assert_installed(install(tmp_path, proxy.url, "demo-app")[0])
    by = {seen.headers["user-agent"].split("/")[0] for seen in tree.files_asked()}
    assert by == {"proxpi"}


def test_ranges(fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """uv reads the metadata of a wheel without sidecar in ranges."""
    fake_index.add(make_wheel("demo-lib", "1.5", padding=2_000_000), core_metadata=None)
    proxy = start_proxy(fake_index, PROXPI_PREFETCH="off")  # which would download all of it first
    environment, _ = uv_install(tmp_path, proxy.url, "demo-lib")
    assert environment.version_of("demo_lib") == "1.5"
    ranges = [seen.headers.get("range") for seen in fake_index.files_asked()]
    assert None in ranges and len(ranges) > 1


@both
def test_no_core_metadata(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path, install: Install
) -> None:
    """Once wheels of an index without core metadata are cached, clients resolve with theirs."""
    wheels = [
        make_wheel("demo-app", requires=["demo-lib>=1", "demo-source"], padding=200_000),
        make_wheel("demo-lib", "1.5", padding=200_000),
    ]
    for wheel in wheels:
        fake_index.add(wheel, core_metadata=None)
    fake_index.add(make_sdist("demo-source", "0.3"))
    cache = tmp_path / "cache"
    proxy = start_proxy(fake_index, cache_dir=cache)
    install(tmp_path / "first", proxy.url, "demo-app")
    for wheel in wheels:
        path, digest = f"/index/{wheel.project}/", hashlib.sha256(wheel.metadata or b"").hexdigest()
        page = _wait_for(proxy, path, b"core-metadata")
        assert json.loads(page)["files"][0]["core-metadata"] == {"sha256": digest}
        assert proxy.get(f"{path}{wheel.filename}.metadata").body == wheel.metadata
    assert b"core-metadata" not in proxy.get("/index/demo-source/", Accept=_JSON).body
    fake_index.wait_until_quiet()
    fake_index.clear_requests()
    for folder in ("second", "third"):
        environment, output = install(tmp_path / folder, proxy.url, "demo-app")
        assert environment.version_of("demo_lib") == "1.5"
        for wheel in wheels:
            assert f"{wheel.filename}.metadata" in output
        proxy = start_proxy(fake_index, cache_dir=cache)
    assert fake_index.files_asked() == []


def _wait_for(proxy: Proxy, path: str, text: bytes) -> bytes:
    """Request a page until it has a text, as no client waits for that; return the page."""
    end = time.monotonic() + GUARD_SECONDS
    while text not in (page := proxy.get(path, Accept=_JSON).body):
        assert time.monotonic() < end, page
    return page


@both
def test_sidecars_gone(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path, install: Install
) -> None:
    """pip and uv install while the advertised core metadata is gone; then in an outage."""
    lib = {version: make_wheel("demo-lib", version, padding=300_000) for version in ("1.0", "1.5")}
    app = make_wheel("demo-app", requires=["demo-lib>=1"])
    for wheel in (app, *lib.values()):
        sidecar = fake_index.add(wheel) + ".metadata"
        fake_index.script(sidecar, Behavior(status=404, body=b"gone"))
    proxy = start_proxy(fake_index)
    first, _ = install(tmp_path / "first", proxy.url, "demo-app")
    fake_index.wait_until_quiet()
    ranges = [seen for seen in fake_index.files_asked() if "range" in seen.headers]
    names = {seen.path.rpartition("/")[2] for seen in ranges}
    assert names >= {app.filename, lib["1.5"].filename}
    fake_index.close()
    second, _ = install(tmp_path / "second", proxy.url, "demo-app")
    for environment in (first, second):
        assert environment.version_of("demo_app") == "1.0"
        assert environment.version_of("demo_lib") == "1.5"


#: What a page says of a wheel besides its URL, and whether that tells two versions apart.
_PAGES: dict[str, tuple[dict[str, Any], bool]] = {
    "no hash, metadata with one": ({"hashes": {}}, True),
    "no hash, size alone": ({"hashes": {}, "core_metadata": None, "upload_time": None}, True),
    "hash, metadata without one": ({"core_metadata": True}, True),
    "nothing": ({"hashes": {}, "core_metadata": None, "upload_time": None, "size": None}, False),
}


@both
@pytest.mark.parametrize("page", _PAGES)
def test_uploaded_again(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path, install: Install, page: str
) -> None:
    """pip and uv install a wheel that was uploaded again under its name, with its new metadata."""
    keys, distinct = _PAGES[page]
    ttl = {} if distinct else {"index_ttl": EXPIRED_AT_ONCE}
    proxy = start_proxy(fake_index, cache_dir=tmp_path / "cache", **ttl)
    fake_index.add(make_wheel("demo-lib", "1.5"))
    for number, requires in enumerate(([], ["demo-lib"])):
        fake_index.forget("demo-app")
        fake_index.add(make_wheel("demo-app", requires=requires, padding=200_000), **keys)
        assert proxy.request("DELETE", "/cache/demo-app").status == 200
        environment, _ = install(tmp_path / f"install-{number}", proxy.url, "demo-app")
        assert environment.version_of("demo_app") == "1.0"
    assert environment.version_of("demo_lib") == "1.5"
    shutil.rmtree(tmp_path / "install-1")
    environment, _ = install(tmp_path / "install-1", proxy.url, "demo-app")
    assert environment.version_of("demo_lib") == "1.5"


@both
def test_default_index(tmp_path: Path, install: Install) -> None:
    """A real package installs through the default index, then from the cache."""
    project, filename = "iniconfig", "iniconfig-2.1.0-py3-none-any.whl"
    settings = {"PROXPI_DOWNLOAD_TIMEOUT": "60", **way_out()}
    with Proxy(settings, folder=tmp_path) as proxy:
        install(tmp_path / "first", proxy.url, f"{project}==2.1.0")
        file = proxy.get(f"/index/{project}/{filename}")
        assert (file.status, file.headers["x-cache"]) == (200, "HIT")
        page = proxy.get(f"/index/{project}/", Accept=_JSON)
        assert (page.status, page.headers["x-cache"]) == (200, "HIT")
        (entry,) = (one for one in json.loads(page.body)["files"] if one["filename"] == filename)
        assert hashlib.sha256(file.body).hexdigest() == entry["hashes"]["sha256"]
        _, output = install(tmp_path / "second", proxy.url, f"{project}==2.1.0")
    # A client logs each host that it sends a request to: the second time this one alone.
    lines = output.splitlines()
    requests = "\n".join(line for line in lines if " request for: " in line or '"GET ' in line)
    assert proxy.origin.removeprefix("http://") in requests
    assert "https://" not in requests
