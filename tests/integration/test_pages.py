"""Pages of a real process: URLs, precedence, core metadata, the cache API and the folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import attrs
import pytest

from tests.support.clients import pip_install
from tests.support.distributions import make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.processes import EXPIRED_AT_ONCE, StartProxy
from tests.support.proxy import Proxy

_JSON = "application/vnd.pypi.simple.v1+json"
LONG = "x" * 10_000
NAMELESS = [
    *(f"/index/{LONG}/", f"/index/{LONG}", f"/index/{LONG}/demo.whl", f"/index/{'a' * 201}/"),
    *("/index/..%2f..%2fetc%2fpasswd/", "/index/%2e%2e/", "/index/../../etc/passwd"),
    *("/index/a%2Fb/", "/index/a%00b/", "/index/demo%0a/", "/index/%ff%fe/", "/index/f%C3%B6/"),
    *("/index/-demo/", "/index/demo-/", "/index/de%20mo/", "/index/demo%3Fx/", "/index/demo%23x/"),
    *("/index/demo/..%2f..%2fetc%2fpasswd", "/index/demo/%2e%2e", "/index/demo/a%00.whl"),
    *("/index/demo/a/b.whl", f"/index/demo/{LONG}.whl", "/simple/.hidden/"),
]


def _listed(proxy: Proxy, project: str) -> list[dict[str, object]]:
    page = proxy.get(f"/index/{project}/", Accept=_JSON)
    files: list[dict[str, object]] = json.loads(page.body)["files"]
    return files


def test_requests_upstream(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """A cold file costs one page in normal form and one download; a 304 revalidates the page."""
    wheel = make_wheel("demo-app")
    path = fake_index.add(wheel)
    proxy = start_proxy(fake_index, index_ttl=EXPIRED_AT_ONCE, prefetch="off")
    reply = proxy.get(f"/index/Demo.App/{wheel.filename}")
    assert (reply.status, reply.body) == (200, wheel.data)
    asked = [(seen.method, seen.path) for seen in fake_index.requests()]
    assert asked == [("GET", "/simple/demo-app/"), ("GET", path)]
    for spelling in ("Demo_App/", "demo.app", "DEMO--app/", "demo-app"):
        reply = proxy.get(f"/index/{spelling}")
        assert reply.status == 301
        assert reply.headers["location"].endswith("demo-app/")
        assert not reply.headers["location"].startswith(("http:", "//"))
    assert proxy.get("/index/demo-app/").headers["x-cache"] == "REVALIDATED"
    assert [seen.status for seen in fake_index.requests()] == [200, 200, 304]


def test_first_index(
    fake_index: FakeIndex, extra_index: FakeIndex, start_proxy: StartProxy
) -> None:
    """A file name in two indexes is taken from the first of them, hash and bytes."""
    first = make_wheel("demo", padding=10)
    fake_index.add(first)
    extra_index.add(attrs.evolve(first, data=make_wheel("demo", padding=20).data))
    proxy = start_proxy(fake_index, extra_index_urls=extra_index.url)
    (entry,) = _listed(proxy, "demo")
    body = proxy.get(f"/index/demo/{first.filename}").body
    assert entry["hashes"] == {"sha256": hashlib.sha256(body).hexdigest()}
    assert (body, extra_index.files_asked()) == (first.data, [])


def test_names(fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """A malformed name is a 404 or 400 without a request upstream; no name leaves a file."""
    folder = tmp_path / "cache"
    proxy = start_proxy(fake_index, cache_dir=folder)
    before = sorted(folder.rglob("*"))
    for method in ("GET", "HEAD"):
        for path in NAMELESS:
            assert proxy.request(method, path).status in (400, 404), path[:40]
    assert fake_index.requests() == []
    unknown = ("nothing", "con", "list", "a" * 200)
    for name in unknown:
        assert proxy.get(f"/index/{name}/").status == 404
    pages = [seen.path for seen in fake_index.requests() if seen.path != "/simple/"]
    assert pages == [f"/simple/{name}/" for name in unknown]
    assert sorted(folder.rglob("*")) == before
    assert "Traceback" not in proxy.output


def test_wrong_metadata(fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """Core metadata without its advertised digest is suppressed, after a restart as well."""
    wheel = make_wheel("demo")
    other = hashlib.sha256(b"other").hexdigest()
    path = fake_index.add(wheel, core_metadata={"sha256": other})
    proxy = start_proxy(fake_index, cache_dir=tmp_path / "cache")
    before = proxy.get("/index/demo/", Accept=_JSON)
    assert json.loads(before.body)["files"][0]["core-metadata"] == {"sha256": other}
    assert b"data-core-metadata" in proxy.get("/index/demo/").body
    assert proxy.get(path.replace("/files/", "/index/") + ".metadata").status == 404
    for _ in range(2):
        after = proxy.get("/index/demo/", Accept=_JSON)
        assert "core-metadata" not in json.loads(after.body)["files"][0]
        assert after.headers["etag"] != before.headers["etag"]
        html = proxy.get("/index/demo/").body
        assert b"core-metadata" not in html and b"dist-info-metadata" not in html
        proxy = start_proxy(fake_index, cache_dir=tmp_path / "cache")
    installed, _ = pip_install(tmp_path / "pip", proxy.url, "demo")
    assert installed.version_of("demo") == "1.0"


@pytest.mark.parametrize("name", ["Content-Type", "Content-Encoding", "Location"])
def test_foreign_text(shared_index: FakeIndex, shared_proxy: Proxy, name: str) -> None:
    """Text from an upstream reaches log and response in printable characters."""
    for number, odd in enumerate(("\x1b[2Jx", "\x9b2Jx", "\x7f\x85x")):
        project = f"{name.lower()}-{number}"
        headers: dict[str, str | None] = {name: f"application/{odd}"}
        status = 302 if name == "Location" else None
        shared_index.script(f"/simple/{project}/", Behavior(status=status, headers=headers))
        reply = shared_proxy.get(f"/index/{project}/", User_Agent="\x9b")
        shared_proxy.wait_for_line(f"GET /index/{project}/ ")
        for text in (*reply.headers.values(), reply.text, shared_proxy.output):
            assert all(line.isprintable() for line in text.split("\n"))
