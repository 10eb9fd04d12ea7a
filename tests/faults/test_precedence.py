"""Scope of a failure: not other pages; no index is used in place of one that fails."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.distributions import make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.processes import EXPIRED_AT_ONCE, StartProxy
from tests.support.proxy import Proxy, Reply

OURS, THEIRS = "shared-1.0-py3-none-any.whl", "shared-9.9-py3-none-any.whl"
ALONE = "only_theirs-1.0-py3-none-any.whl"
PATHS = ["/index/shared/", "/index/shared/?format=application/vnd.pypi.simple.v1+json", "/index/"]
LOGIN = ("user", "s3cret-w0rd")
#: Failures of pages that say nothing of their index.
BAD_PAGES = {
    "forbidden": Behavior(status=403),
    "error": Behavior(status=500),
    "rejected": Behavior(status=401),
    "legal": Behavior(status=451),
    "busy": Behavior(status=503, headers={"Retry-After": "30"}),
    "greeting": Behavior(body=b"welcome"),
    "image": Behavior(body=b"", headers={"Content-Type": "image/png"}),
    "reset": Behavior(truncate_after=10, reset=True),
    "half": Behavior(hold_after=20),
    "cut": Behavior(truncate_after=20),
}


@contextmanager
def _requesting(proxy: Proxy, *projects: str) -> Iterator[None]:
    """Request these pages all the time, each of which is stale."""
    end = threading.Event()

    def ask(project: str) -> None:
        while not end.is_set():
            assert proxy.get(f"/index/{project}/").headers["x-cache"] == "STALE"

    with ThreadPoolExecutor(len(projects)) as pool:
        asking = [pool.submit(ask, project) for project in projects]
        try:
            yield
        finally:
            end.set()
            for each in asking:
                each.result()


def test_bad_pages(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """While clients request failing pages all the time, every other page is fresh."""
    for project in (*BAD_PAGES, "good", "cold"):
        fake_index.add(make_wheel(project))
    proxy = start_proxy(fake_index, index_ttl=EXPIRED_AT_ONCE)
    for project in (*BAD_PAGES, "good"):
        assert proxy.get(f"/index/{project}/").status == 200
    with ThreadPoolExecutor(len(BAD_PAGES)) as pool:
        for project, behavior in BAD_PAGES.items():
            fake_index.script(f"/simple/{project}/", behavior)
        stale = pool.map(lambda project: proxy.get(f"/index/{project}/"), BAD_PAGES)
        assert {reply.headers["x-cache"] for reply in stale} == {"STALE"}
    with _requesting(proxy, *BAD_PAGES):
        released = make_wheel("good", "2.0")
        fake_index.add(released)
        page = proxy.get("/index/good/")
        assert (page.headers["x-cache"], released.filename in page.text) == ("MISS", True)
        # A file that the cached page does not list yet.
        later = make_wheel("good", "3.0")
        fake_index.add(later)
        assert proxy.get(f"/index/good/{later.filename}").body == later.data
        assert proxy.get("/index/cold/").headers["x-cache"] == "MISS"
        assert proxy.get("/index/").status == 200


def test_expired_token(fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """An index that answers 404 to an expired token loses no project, after a kill either."""
    for project in ("demo", "gone"):
        fake_index.add(make_wheel(project))
    fake_index.require_auth(*LOGIN)
    private = fake_index.url.replace("://", "://{}:{}@".format(*LOGIN))
    settings = {"index_url": private, "cache_dir": tmp_path / "cache"}
    proxy = start_proxy(fake_index, index_ttl=EXPIRED_AT_ONCE, **settings)
    for path in ("/index/demo/", "/index/gone/", "/index/demo/", "/index/gone/", "/index/"):
        assert proxy.get(path).status == 200
    fake_index.forget("gone")
    assert proxy.get("/index/gone/").status == 404
    fake_index.script("/simple/*", Behavior(status=404))
    for _ in range(2):
        for path in ("/index/demo/", "/index/"):
            reply = proxy.get(path)
            assert (reply.status, reply.headers.get("x-cache")) == (200, "STALE")
        proxy.stop(signal.SIGKILL)
        proxy = start_proxy(fake_index, index_ttl=EXPIRED_AT_ONCE, **settings)
    assert LOGIN[1] not in proxy.output


@pytest.fixture
def start(
    fake_index: FakeIndex, extra_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path
) -> Callable[[], Proxy]:
    """Starts proxies of two indexes; the second has a higher version of a project."""
    fake_index.add(make_wheel("shared", "1.0"))
    extra_index.add(make_wheel("shared", "9.9"))
    extra_index.add(make_wheel("only-theirs"))
    ttls = {"index_ttl": EXPIRED_AT_ONCE, "extra_index_ttls": EXPIRED_AT_ONCE}
    both = {"extra_index_urls": extra_index.url, "cache_dir": tmp_path / "cache"}
    return lambda: start_proxy(fake_index, **ttls, **both)


def _is_old(reply: Reply, old: Reply) -> bool:
    stale = (reply.status, reply.headers.get("x-cache")) == (200, "STALE")
    return stale and reply.body == old.body


@pytest.mark.parametrize("status", [None, 503, 401])
def test_first_index_fails(
    fake_index: FakeIndex, extra_index: FakeIndex, start: Callable[[], Proxy], status: int | None
) -> None:
    """While the first index fails, the second never answers alone, after a kill either."""
    proxy = start()
    old = [proxy.get(path) for path in PATHS]
    assert OURS in old[0].text and THEIRS in old[0].text
    assert "only-theirs" in old[2].text
    if status is None:
        fake_index.close()
    else:
        fake_index.script("/simple/*", Behavior(status=status))
    with ThreadPoolExecutor(2) as pool:
        cold = list(pool.map(proxy.get, ["/index/only-theirs/", f"/index/only-theirs/{ALONE}"]))
    assert [reply.status for reply in cold] == [502 if status == 401 else 503] * 2
    assert not [seen for seen in extra_index.files_asked() if "only-theirs" in seen.path]
    assert all(map(_is_old, [proxy.get(path) for path in PATHS], old))
    proxy.stop(signal.SIGKILL)
    again = start()
    assert all(map(_is_old, [again.get(path) for path in PATHS], old))


def test_first_index_lacks_a_project(
    fake_index: FakeIndex, extra_index: FakeIndex, start: Callable[[], Proxy]
) -> None:
    """404, 410 and, without credentials, 403 are absence: the second index answers."""
    proxy = start()
    for status in (404, 410, 403):
        project = f"lacked-{status}"
        extra_index.add(make_wheel(project))
        fake_index.script(f"/simple/{project}/", Behavior(status=status, body=b"no"))
        page = proxy.get(f"/index/{project}/")
        assert (page.status, page.headers["x-cache"]) == (200, "MISS")
        assert make_wheel(project).filename in page.text
