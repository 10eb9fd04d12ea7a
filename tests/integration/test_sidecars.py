"""Metadata that an index advertises and does not have: real clients install all the same."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.integration.conftest import StartProxy
from tests.support.behavior import Behavior
from tests.support.clients import pip_install, uv_install
from tests.support.distributions import make_sdist, make_wheel
from tests.support.fake_index import FakeIndex

_JSON = "application/vnd.pypi.simple.v1+json"
_GONE = Behavior(status=404, body=b"gone")


@pytest.mark.parametrize("install", [pip_install, uv_install])
def test_install_without_sidecars(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path, install: object
) -> None:
    """pip and uv install from an index whose sidecars are all gone; the second time offline."""
    assert callable(install)
    wheels = [
        make_wheel("demo-app", requires=["demo-lib>=1"]),
        make_wheel("demo-lib", "1.0", padding=300_000),
        make_wheel("demo-lib", "1.5", padding=300_000),
    ]
    for wheel in wheels:
        fake_index.script(fake_index.add(wheel) + ".metadata", _GONE)
    proxy = start_proxy(fake_index)
    first, _ = install(tmp_path / "first", proxy.url, "demo-app")
    fake_index.wait_until_quiet()
    parts = [seen for seen in fake_index.files_asked() if "range" in seen.headers]
    assert {seen.path.rpartition("/")[2] for seen in parts} >= {
        wheel.filename for wheel in wheels if wheel.version != "1.0" or "lib" not in wheel.project
    }
    fake_index.close()
    second, _ = install(tmp_path / "second", proxy.url, "demo-app")
    for environment in (first, second):
        assert environment.version_of("demo_app") == "1.0"
        assert environment.version_of("demo_lib") == "1.5"


def test_page_stops_advertising(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path
) -> None:
    """A page advertises no longer what cannot be had, over a restart too; then pip installs."""
    wheel = make_wheel("demo", padding=300_000)
    other = hashlib.sha256(b"other").hexdigest()
    path = fake_index.add(wheel, core_metadata={"sha256": other})
    folder = tmp_path / "cache"
    proxy = start_proxy(fake_index, cache_dir=folder)
    before = proxy.get("/index/demo/", Accept=_JSON)
    assert json.loads(before.body)["files"][0]["core-metadata"] == {"sha256": other}
    assert b"data-core-metadata" in proxy.get("/index/demo/").body
    assert proxy.get(path.replace("/files/", "/index/") + ".metadata").status == 404
    for _ in range(2):
        after = proxy.get("/index/demo/", Accept=_JSON)
        assert "core-metadata" not in json.loads(after.body)["files"][0]
        assert after.headers["etag"] != before.headers["etag"]
        html = proxy.get("/index/demo/").body
        assert b"core-metadata" not in html
        assert b"dist-info-metadata" not in html
        proxy = start_proxy(fake_index, cache_dir=folder)
    installed, _ = pip_install(tmp_path / "pip", proxy.url, "demo")
    assert installed.version_of("demo") == "1.0"


def test_what_is_not_advertised(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """It is asked for upstream all the same, and what that says is passed on."""
    wheel, sdist = make_wheel("demo"), make_sdist("demo")
    paths = [fake_index.add(wheel, core_metadata=None), fake_index.add(sdist)]
    proxy = start_proxy(fake_index)
    for path in paths:
        fake_index.script(path + ".metadata", _GONE)
        assert proxy.get(path.replace("/files/", "/index/") + ".metadata").status == 404
        assert proxy.get(path.replace("/files/", "/index/") + ".asc").status == 404
    asked = [seen.path for seen in fake_index.files_asked()]
    assert asked == [path + suffix for path in paths for suffix in (".metadata", ".asc")]
    fake_index.script(paths[0] + ".metadata")
    reply = proxy.get(paths[0].replace("/files/", "/index/") + ".metadata")
    assert (reply.status, reply.body) == (200, wheel.metadata)


def test_delete_everything(fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """``DELETE /cache`` removes files, pages and list from the folder; others' files stay there."""
    wheel = make_wheel("demo")
    fake_index.add(wheel)
    folder = tmp_path / "cache"
    (folder / "of-others").mkdir(parents=True)
    (folder / "of-others/notes.txt").write_text("x")
    proxy = start_proxy(fake_index, cache_dir=folder)
    file = f"/index/demo/{wheel.filename}"
    for path in ("/index/", "/index/demo/", file):
        assert proxy.get(path).status == 200
    reply = proxy.request("DELETE", "/cache")
    assert (reply.status, json.loads(reply.body)) == (200, {"status": "success", "data": None})
    left = {path.name for path in folder.rglob("*") if path.is_file()}
    assert "notes.txt" in left
    assert not {name for name in left if name.endswith((".whl", ".page", ".list"))}
    fake_index.close()
    proxy = start_proxy(fake_index, cache_dir=folder)
    assert proxy.get("/index/demo/").status == 503
