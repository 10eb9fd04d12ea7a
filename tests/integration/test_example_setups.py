"""The examples in the documents of simpleindex and pypiserver, moved to proxpi, with real clients.

simpleindex sends a project to a folder or a web server by patterns of names; pypiserver serves a
folder, and sends clients elsewhere for a project that the folder lacks.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import configs
from tests.support.clients import Environment, pip_install, uv_install
from tests.support.distributions import Distribution, make_sdist, make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.processes import StartProxy

JSON = "application/vnd.pypi.simple.v1+json"
Install = Callable[..., tuple[Environment, str]]
both = pytest.mark.parametrize("install", [pip_install, uv_install])


def _put(folder: Path, *files: Distribution) -> str:
    """Put files into a folder; return the URL of the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        (folder / file.filename).write_bytes(file.data)
    return f"file://{folder}/"


def _installed(environment: Environment, *modules: str) -> list[str]:
    return [environment.version_of(module) for module in modules]


@both
def test_simpleindex_folders(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path, install: Install
) -> None:
    """simpleindex's README: projects of one prefix from folders, and all others from elsewhere."""
    root = tmp_path / "root"
    _put(root / "uranusjr-core", *(make_wheel("uranusjr-core", each) for each in ("1.0", "2.0")))
    needs = ["uranusjr-core<2", "demo-lib"]
    _put(root / "uranusjr-web", make_wheel("uranusjr-web", "2.0", requires=needs))
    (root / "configuration.toml").write_text("[server]\n")
    fake_index.add(make_wheel("demo-lib", "1.5"))
    fake_index.add(make_wheel("uranusjr-core", "1.9"))
    own = {"projects": ["uranusjr-*"], "owns": ["uranusjr-*"]}
    config = configs.write(
        tmp_path,
        configs.index("uranusjr", f"file://{root}/", **own),
        configs.index("others", fake_index),
    )
    proxy = start_proxy(config=config)
    environment, _ = install(tmp_path / "client", proxy.url, "uranusjr-web")
    assert _installed(environment, "uranusjr_web", "uranusjr_core", "demo_lib") == [
        *("2.0", "1.0", "1.5")
    ]
    assert not [seen.path for seen in fake_index.requests() if "uranusjr" in seen.path]


@both
def test_simpleindex_routes(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path, install: Install
) -> None:
    """simpleindex's annotated example: two projects have a folder, one of them an old page, too."""
    root = tmp_path / "index"
    first = make_wheel("my-first-package", "1.0", requires=["my-second-package"])
    _put(root / "my-first-package", first)
    _put(root / "my-second-package", make_sdist("my-second-package", "0.3"))
    (root / "my-second-package/index.html").write_text("<a href='x.zip'>x.zip</a>")
    fake_index.add(make_wheel("demo-lib", "1.5"))
    names = ["my-first-package", "my-second-package"]
    config = configs.write(
        tmp_path,
        configs.index("own", f"file://{root}/", projects=names, owns=names),
        configs.index("others", fake_index),
    )
    proxy = start_proxy(config=config)
    environment, _ = install(tmp_path / "client", proxy.url, "my-first-package", "demo-lib")
    assert _installed(environment, "my_first_package", "my_second_package", "demo_lib") == [
        *("1.0", "0.3", "1.5")
    ]


def _packages(folder: Path) -> str:
    """Fill a folder as pypiserver's users do: wheels, sdists and signatures, in one folder."""
    app = make_wheel("Demo.App", "1.0", requires=["demo-lib", "demo-source"])
    url = _put(folder, app, make_wheel("demo-app", "0.9"), make_sdist("demo-source", "0.3"))
    (folder / f"{app.filename}.asc").write_text("-----BEGIN PGP SIGNATURE-----\n")
    (folder / "notes.txt").write_text("mine\n")
    _put(folder / ".hidden", make_wheel("demo-app", "5.0"))
    return url


@both
def test_pypiserver(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path, install: Install
) -> None:
    """``pypi-server run ~/packages``: the folder first, and the public index for all that it lacks.

    No configuration file is needed for that.
    """
    packages = _packages(tmp_path / "packages")
    fake_index.add(make_wheel("demo-lib", "1.5"))
    proxy = start_proxy(index_url=packages, extra_index_urls=fake_index.url)
    url = proxy.url.replace("/index/", "/simple/")
    environment, _ = install(tmp_path / "client", url, "demo-app")
    assert _installed(environment, "demo_app", "demo_lib", "demo_source") == ["1.0", "1.5", "0.3"]


def test_pypiserver_as_extra(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path
) -> None:
    """``pip install --extra-index-url http://localhost:8080/simple/``, without fallback."""
    proxy = start_proxy(index_url=_packages(tmp_path / "packages"))
    fake_index.add(make_wheel("demo-lib", "1.5"))
    extra = ("--extra-index-url", proxy.url.replace("/index/", "/simple/"))
    environment, _ = pip_install(tmp_path / "client", fake_index.url, *extra, "demo-app")
    assert _installed(environment, "demo_app", "demo_lib") == ["1.0", "1.5"]
    assert proxy.get("/simple/demo-lib/").status == 404
    listed = json.loads(proxy.get("/simple/", Accept=JSON).body)["projects"]
    assert {project["name"] for project in listed} == {"demo-app", "demo-source"}


@both
def test_pypiserver_folders(start_proxy: StartProxy, tmp_path: Path, install: Install) -> None:
    """``pypi-server run FOLDER FOLDER --disable-fallback``; what is copied there appears soon."""
    first, second = _packages(tmp_path / "first"), _put(tmp_path / "second")
    config = configs.write(
        tmp_path,
        configs.index("first", first, ttl=0.1),
        configs.index("second", second, ttl=0.1),
    )
    proxy = start_proxy(config=config)
    with pytest.raises(AssertionError, match="demo-lib"):
        install(tmp_path / "before", proxy.url, "demo-app==1.0")
    _put(tmp_path / "second", make_wheel("demo-lib", "1.5"))
    environment, _ = install(tmp_path / "after", proxy.url, "demo-app==1.0")
    assert _installed(environment, "demo_app", "demo_lib") == ["1.0", "1.5"]
