"""Real clients install through proxpi, twice; the second time the upstream is asked for no file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.conftest import StartProxy
from tests.support.clients import Environment, pip_install, poetry_install, uv_install
from tests.support.distributions import make_sdist, make_wheel
from tests.support.fake_index import FakeIndex

_INSTALLED = {"demo_app": "1.0", "demo_lib": "1.5", "demo_other": "2.0", "demo_source": "0.3"}


@pytest.fixture
def tree(fake_index: FakeIndex) -> FakeIndex:
    """An index with three wheels and a source distribution that need each other."""
    fake_index.add(make_wheel("demo-app", requires=["demo-lib>=1", "demo.other"]))
    fake_index.add(make_wheel("demo-lib", "1.0"))
    fake_index.add(make_wheel("demo-lib", "1.5", padding=200_000))
    fake_index.add(make_wheel("demo.other", "2.0", requires=["demo-source==0.3"]))
    fake_index.add(make_sdist("demo-source", "0.3"))
    return fake_index


def _assert_installed(environment: Environment) -> None:
    assert {module: environment.version_of(module) for module in _INSTALLED} == _INSTALLED


def _assert_downloaded_once(index: FakeIndex) -> None:
    """Every download has ended, none was made twice, and each was proxpi's."""
    index.wait_until_quiet()
    asked = index.files_asked()
    assert {seen.headers["user-agent"].split("/")[0] for seen in asked} == {"proxpi"}
    paths = [seen.path for seen in asked]
    assert sorted(paths) == sorted(set(paths))
    assert len([path for path in paths if path.endswith((".whl", ".tar.gz"))]) == len(_INSTALLED)
    index.clear_requests()


@pytest.mark.parametrize("install", [pip_install, uv_install])
def test_second_install_asks_for_no_file(
    tree: FakeIndex, start_proxy: StartProxy, tmp_path: Path, install: object
) -> None:
    """pip and uv install the tree twice; the second install is served from the cache alone."""
    assert callable(install)
    proxy = start_proxy(tree)
    first, _ = install(tmp_path / "first", proxy.url, "demo-app")
    _assert_installed(first)
    _assert_downloaded_once(tree)
    second, _ = install(tmp_path / "second", proxy.url, "demo-app")
    _assert_installed(second)
    assert tree.requests() == []


def test_poetry_second_install_asks_for_no_file(
    tree: FakeIndex, start_proxy: StartProxy, tmp_path: Path, poetry: Path
) -> None:
    """poetry resolves and installs, then installs from its lock file and the cache alone."""
    proxy = start_proxy(tree)
    first, lock = poetry_install(poetry, tmp_path / "first", proxy.url, "demo-app")
    _assert_installed(first)
    _assert_downloaded_once(tree)
    second, _ = poetry_install(poetry, tmp_path / "second", proxy.url, "demo-app", lock=lock)
    _assert_installed(second)
    assert tree.requests() == []


def test_clients_share_one_cache(tree: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """What uv made proxpi fetch is there for pip, although they ask for different forms."""
    proxy = start_proxy(tree)
    _assert_installed(uv_install(tmp_path / "uv", proxy.url, "demo-app")[0])
    _assert_downloaded_once(tree)
    simple = proxy.url.replace("/index/", "/simple/")
    _assert_installed(pip_install(tmp_path / "pip", simple, "demo-app")[0])
    assert tree.requests() == []


def test_a_redirected_client_installs_too(
    tree: FakeIndex, start_proxy: StartProxy, tmp_path: Path
) -> None:
    """A client that is not kept waiting gets files upstream, the next one from the cache."""
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
