"""A wheel that is uploaded again under its name: real clients install the new one at once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import EXPIRED_AT_ONCE, StartProxy
from tests.support.clients import pip_install, uv_install
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex

#: What a page says of the wheel besides its URL, and whether that tells the two versions apart.
PAGES: dict[str, tuple[dict[str, Any], bool]] = {
    "no hash, metadata with one": ({"hashes": {}}, True),
    "no hash, size alone": (
        {"hashes": {}, "core_metadata": None, "upload_time": None},
        True,
    ),
    "hash, metadata without one": ({"core_metadata": True}, True),
    "nothing": ({"hashes": {}, "core_metadata": None, "upload_time": None, "size": None}, False),
}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("install", [pip_install, uv_install])
def test_install(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path, install: object, page: str
) -> None:
    """pip and uv see the new metadata and install the new wheel, with what it requires by now."""
    assert callable(install)
    keys, told = PAGES[page]
    ttl = {} if told else {"index_ttl": EXPIRED_AT_ONCE}
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
