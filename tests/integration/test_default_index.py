"""proxpi as it comes, with the index that it has by default, and a small real package."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.support.clients import pip_install, uv_install
from tests.support.proxy import Proxy, way_out

_PACKAGE = "iniconfig"
_FILE = "iniconfig-2.1.0-py3-none-any.whl"


@pytest.mark.parametrize("install", [pip_install, uv_install])
def test_second_install_comes_from_the_cache(tmp_path: Path, install: object) -> None:
    """A real package installs through the default index, then from the cache."""
    assert callable(install)
    settings = {"PROXPI_DOWNLOAD_TIMEOUT": "60", **way_out()}
    with Proxy(settings, folder=tmp_path) as proxy:
        install(tmp_path / "first", proxy.url, f"{_PACKAGE}==2.1.0")
        file = proxy.get(f"/index/{_PACKAGE}/{_FILE}")
        assert (file.status, file.headers["x-cache"]) == (200, "HIT")
        page = proxy.get(f"/index/{_PACKAGE}/", Accept="application/vnd.pypi.simple.v1+json")
        assert (page.status, page.headers["x-cache"]) == (200, "HIT")
        (entry,) = (one for one in json.loads(page.body)["files"] if one["filename"] == _FILE)
        assert hashlib.sha256(file.body).hexdigest() == entry["hashes"]["sha256"]
        _, output = install(tmp_path / "second", proxy.url, f"{_PACKAGE}==2.1.0")
        # A client names every host that it talks to: the second time there is only this one.
        assert proxy.origin.removeprefix("http://") in output
        assert "https://" not in _requested(output)


def _requested(output: str) -> str:
    """The lines of a client's log that tell of a request."""
    lines = output.splitlines()
    return "\n".join(line for line in lines if " request for: " in line or '"GET ' in line)
