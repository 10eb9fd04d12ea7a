"""Real clients install through a proxpi that prefetches; each upstream request is counted."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import Environment, isolated_environment, pip_install, run, uv_install
from tests.support.distributions import make_sdist, make_wheel
from tests.support.fake_index import FakeIndex, Seen
from tests.support.inside import inserted
from tests.support.prefetching import USER_AGENT
from tests.support.processes import EXPIRED_AT_ONCE, StartProxy
from tests.support.proxy import Proxy

Install = Callable[..., tuple[Environment, str]]

JSON = "application/vnd.pypi.simple.v1+json"
#: The last pip that does not request the core metadata that JSON pages advertise.
OLD_PIP = "23.1.2"
INSTALLED = {
    "demo_app": "2.0",
    "demo_lib": "1.5",
    "demo_fast": "2.0",
    "demo_old": "1.0",
    "demo_yanked": "1.0",
    "demo_pre": "1.0",
    "demo_source": "0.3",
}
SENT = re.compile(r'^proxpi_prefetch_requests_total\{outcome="sent"\} (\S+)$', re.MULTILINE)


def add_tree(index: FakeIndex, **keys: Any) -> None:
    """Add two versions of each project: with markers, an extra, an sdist, a yanked version."""
    requires = [
        *("demo-lib[fast]>=1", "demo-old<2", "demo-pre", "demo-yanked", "demo-source"),
        *("demo-windows; sys_platform == 'win32'", "demo-lib>=0.5; python_version >= '3'"),
    ]
    lib = ["demo-fast; extra == 'fast'", "demo-slow; extra == 'slow'", "demo-old"]
    for version in ("1.0", "2.0"):
        index.add(make_wheel("demo-app", version, requires=requires), **keys)
        for project in ("demo-fast", "demo-slow", "demo-windows", "demo-old"):
            index.add(make_wheel(project, version), **keys)
        yanked: dict[str, Any] = {"yanked": "broken"} if version == "2.0" else {}
        index.add(make_wheel("demo-yanked", version), **keys, **yanked)
    for version in ("1.0", "1.5"):
        wheel = make_wheel(
            "demo-lib", version, requires=lib, extras=["fast", "slow"], padding=20_000
        )
        index.add(wheel, **keys)
    for version in ("1.0", "2.0rc1"):
        index.add(make_wheel("demo-pre", version), **keys)
    for version in ("0.2", "0.3"):
        index.add(make_sdist("demo-source", version, requires=["demo-pre"]))


@pytest.fixture(scope="session")
def old_pip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install an old pip, through the machine's own registry; return its interpreter."""
    folder = tmp_path_factory.mktemp("pip") / "environment"
    environment = Environment.make(folder)
    uv = str(Path(sys.executable).with_name("uv"))
    command = [uv, "pip", "install", "--quiet", "--python", str(environment.python)]
    run([*command, f"pip=={OLD_PIP}"], folder, dict(os.environ))
    return environment.python


@pytest.fixture(params=["pip", "old pip", "uv"])
def install(request: pytest.FixtureRequest) -> Install:
    if request.param == "uv":
        return uv_install
    if request.param == "pip":
        return pip_install
    return partial(old_pip_install, request.getfixturevalue("old_pip"))


def old_pip_install(
    python: Path, folder: Path, index_url: str, *requirements: str
) -> tuple[Environment, str]:
    environment = Environment.make(folder / "environment")
    command = [str(python), "-m", "pip", "--python", str(environment.python), "install"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--no-input"]
    command += ["--index-url", index_url, *requirements]
    return environment, run(command, folder, isolated_environment(folder))


def assert_installed(environment: Environment) -> None:
    assert {module: environment.version_of(module) for module in INSTALLED} == INSTALLED


def requested_by_client(proxy: Proxy) -> set[str]:
    """The paths that clients have requested, as the upstream has them."""
    found = set()
    for path in re.findall(r" GET /index/(\S+) \d+ ", proxy.output):
        found.add(f"/simple/{path}" if path.endswith("/") else f"/files/{path}")
    return found


def sent_ahead(proxy: Proxy) -> int:
    """The number of background requests."""
    match = SENT.search(proxy.get("/metrics").text)
    return int(float(match[1])) if match else 0


def assert_no_waste(index: FakeIndex, proxy: Proxy) -> Sequence[Seen]:
    """Check that each upstream request is one of the client's, and the only one; return them."""
    seen = index.wait_until_quiet()
    counts = Counter(each.path for each in seen if "range" not in each.headers)
    assert {path: count for path, count in counts.items() if count > 1} == {}
    # By the list proxpi tells whether credentials are valid.
    assert {each.path for each in seen} - {"/simple/"} <= requested_by_client(proxy)
    assert {each.headers["user-agent"].split("/")[0] for each in seen} == {"proxpi"}
    return seen


def fill(index: FakeIndex, proxy: Proxy, install: Install, folder: Path) -> None:
    """Fill the cache by an installation; stop the proxy, and forget its requests."""
    install(folder, proxy.url, "demo-app")
    proxy.stop()
    index.wait_until_quiet()
    index.clear_requests()


@pytest.mark.parametrize("slow_download", ["redirect", "stream"])
def test_first_install(
    fake_index: FakeIndex,
    start_proxy: StartProxy,
    tmp_path: Path,
    install: Install,
    slow_download: str,
) -> None:
    """Of a first install nothing is requested twice or in vain, and much before the client."""
    add_tree(fake_index)
    proxy = start_proxy(fake_index, slow_download=slow_download)
    assert_installed(install(tmp_path, proxy.url, "demo-app")[0])
    seen = assert_no_waste(fake_index, proxy)
    # uv requests pages and files as soon as it knows them.
    assert sent_ahead(proxy) >= (2 if install is uv_install else len(seen) // 2)
    assert "Traceback" not in proxy.output


def test_expired(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path, install: Install
) -> None:
    """An hour later each page is revalidated once, most of them before the client's request."""
    add_tree(fake_index)
    later = tmp_path / "later"
    later.write_text("3600")
    settings = {"cache_dir": tmp_path / "cache"}
    fill(fake_index, start_proxy(fake_index, **settings), install, tmp_path / "first")
    proxy = start_proxy(fake_index, **settings, **inserted(WALL_CLOCK=str(later)))
    assert_installed(install(tmp_path / "second", proxy.url, "demo-app")[0])
    seen = assert_no_waste(fake_index, proxy)
    assert {each.status for each in seen} == {304}
    assert sent_ahead(proxy) >= (1 if install is uv_install else len(seen) // 2)


def test_offline(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path, install: Install
) -> None:
    """Offline, a client installs what another one has, and no request is sent upstream."""
    add_tree(fake_index)
    cache = {"cache_dir": tmp_path / "cache"}
    fill(fake_index, start_proxy(fake_index, **cache), install, tmp_path / "first")
    offline = start_proxy(fake_index, offline="on", index_ttl=EXPIRED_AT_ONCE, **cache)
    assert_installed(install(tmp_path / "offline", offline.url, "demo-app")[0])
    assert fake_index.requests() == []


def test_no_core_metadata(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path, install: Install
) -> None:
    """Of an index without core metadata nothing is requested in vain; wheels are predicted."""
    add_tree(fake_index, core_metadata=None)
    proxy = start_proxy(fake_index)
    assert_installed(install(tmp_path, proxy.url, "demo-app")[0])
    seen = assert_no_waste(fake_index, proxy)
    assert sent_ahead(proxy) >= (1 if install is uv_install else len(seen) // 3)


@pytest.mark.parametrize("slow_download", ["redirect", "stream"])
@pytest.mark.parametrize("cache_size", [0, 100_000])
def test_scanty_cache(
    fake_index: FakeIndex,
    start_proxy: StartProxy,
    tmp_path: Path,
    cache_size: int,
    slow_download: str,
) -> None:
    """Without a cache, or with one of which a tenth holds no wheel, pip and uv install as ever."""
    add_tree(fake_index)
    proxy = start_proxy(fake_index, cache_size=cache_size, slow_download=slow_download)
    for name, client in {"pip": pip_install, "uv": uv_install}.items():
        assert_installed(client(tmp_path / name, proxy.url, "demo-app")[0])
    fake_index.wait_until_quiet()
    own = [seen for seen in fake_index.files_asked() if "proxpi" in seen.headers["user-agent"]]
    if cache_size == 0 and slow_download == "redirect":
        assert not [seen for seen in own if seen.path.endswith(".whl")]
    assert "Traceback" not in proxy.output


def test_private_names(
    fake_index: FakeIndex, extra_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path
) -> None:
    """A name in a private file is requested from no index before a client chose that file."""
    fake_index.require_auth("user", "s3cret")
    private = fake_index.url.replace("://", "://user:s3cret@")
    fake_index.add(wheel := make_wheel("demo-app", requires=["demo-secret"]))
    fake_index.add(make_wheel("demo-secret"))
    extra_index.add(make_wheel("demo-public"))
    proxy = start_proxy(index_url=private, extra_index_urls=extra_index.url)
    page = proxy.request("GET", "/index/demo-app/", {"User-Agent": USER_AGENT, "Accept": JSON})
    assert page.status == 200
    path = f"/files/demo-app/{wheel.filename}.metadata"
    fake_index.wait_for(
        lambda seen: any((each.path, each.ended) == (path, "whole") for each in seen)
    )
    for _ in range(20):
        assert proxy.get("/health").status == 200
    asked = [*fake_index.wait_until_quiet(), *extra_index.wait_until_quiet()]
    assert not [seen.path for seen in asked if "demo-secret" in seen.path]
    environment, _ = pip_install(tmp_path, proxy.url, "demo-app")
    assert environment.version_of("demo_secret") == "1.0"
    for index in (fake_index, extra_index):
        assert_no_waste(index, proxy)
