"""Requests that no client of a package index sends: a plain refusal, and nothing else happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.conftest import StartProxy
from tests.support.fake_index import FakeIndex

LONG = "x" * 10_000
PATHS = [
    f"/index/{LONG}/",
    f"/index/{LONG}",
    f"/index/{LONG}/demo.whl",
    f"/index/{'a' * 201}/",
    "/index/..%2f..%2fetc%2fpasswd/",
    "/index/%2e%2e/",
    "/index/../../etc/passwd",
    "/index/a%2Fb/",
    "/index/a%00b/",
    "/index/demo%00/",
    "/index/demo%0a/",
    "/index/%ff%fe/",
    "/index/f%C3%B6%C3%B6/",
    "/index/-demo/",
    "/index/demo-/",
    "/index/de%20mo/",
    "/index/demo%3Fx/",
    "/index/demo%23x/",
    "/index/demo/..%2f..%2fetc%2fpasswd",
    "/index/demo/%2e%2e",
    "/index/demo/a%00.whl",
    "/index/demo/a/b.whl",
    f"/index/demo/{LONG}.whl",
    "/simple/.hidden/",
]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_odd_names(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path, method: str
) -> None:
    """Whatever is no name is a 404 or 400; nobody is asked, and nothing is written."""
    folder = tmp_path / "cache"
    proxy = start_proxy(fake_index, cache_dir=folder)
    before = sorted(folder.rglob("*"))
    statuses = {path[:40]: proxy.request(method, path).status for path in PATHS}
    assert not {path: status for path, status in statuses.items() if status not in (400, 404)}
    assert fake_index.requests() == []
    assert sorted(folder.rglob("*")) == before
    assert "Traceback" not in proxy.output
    assert proxy.get("/health").status == 200


def test_unknown_names(fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """Names that might be a project's, but are nobody's, are asked for and leave no trace."""
    folder = tmp_path / "cache"
    proxy = start_proxy(fake_index, cache_dir=folder)
    before = sorted(folder.rglob("*"))
    names = ("nothing", "con", "list", "a" * 200)
    for name in names:
        assert proxy.get(f"/index/{name}/").status == 404
    pages = [seen.path for seen in fake_index.requests() if seen.path != "/simple/"]
    assert pages == [f"/simple/{name}/" for name in names]
    assert sorted(folder.rglob("*")) == before
