"""How far a failure reaches, with real processes; ``tests/index/test_scope.py`` has the rest."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.behavior import Behavior
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.processes import EXPIRED_AT_ONCE, StartProxy
from tests.support.proxy import Proxy

LOGIN = ("user", "s3cret-w0rd")
CLIENTS = 100
#: What two pages may do while all others are well.
BAD = {
    "403 and 500": (Behavior(status=403), Behavior(status=500)),
    "401 and 451": (Behavior(status=401), Behavior(status=451)),
    "Retry-After": (Behavior(status=503, headers={"Retry-After": "30"}),) * 2,
    "no page": (
        Behavior(body=b"welcome"),
        Behavior(body=b"", headers={"Content-Type": "image/png"}),
    ),
    "reset": (Behavior(truncate_after=10, reset=True), Behavior(reset=True)),
    "half a page": (Behavior(hold_after=20), Behavior(truncate_after=20)),
}


@contextmanager
def _wanted(proxy: Proxy, *projects: str) -> Iterator[None]:
    """Ask for these pages all the time, each of which is stale."""
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


@pytest.mark.parametrize("bad", BAD)
def test_two_bad_pages(fake_index: FakeIndex, start_proxy: StartProxy, bad: str) -> None:
    """While clients ask for two bad pages all the time, everything else is as fresh as ever."""
    for project in ("bad-1", "bad-2", "good", "cold"):
        fake_index.add(make_wheel(project))
    proxy = start_proxy(fake_index, index_ttl=EXPIRED_AT_ONCE)
    for project in ("bad-1", "bad-2", "good"):
        assert proxy.get(f"/index/{project}/").status == 200
    for project, behavior in zip(("bad-1", "bad-2"), BAD[bad], strict=True):
        fake_index.script(f"/simple/{project}/", behavior)
        assert proxy.get(f"/index/{project}/").headers["x-cache"] == "STALE"
    with _wanted(proxy, "bad-1", "bad-2"):
        released = make_wheel("good", "2.0")
        fake_index.add(released)
        page = proxy.get("/index/good/")
        assert (page.headers["x-cache"], released.filename in page.text) == ("MISS", True)
        # A file that the page at hand does not list yet.
        later = make_wheel("good", "3.0")
        fake_index.add(later)
        assert proxy.get(f"/index/good/{later.filename}").body == later.data
        assert proxy.get("/index/cold/").headers["x-cache"] == "MISS"
        assert proxy.get("/index/").status == 200


def test_a_hundred_clients(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """Of a silent index's clients only the first waits; a trial goes out now and then."""
    fake_index.add(make_wheel("demo"))
    proxy = start_proxy(fake_index, index_ttl=EXPIRED_AT_ONCE)
    old = proxy.get("/index/demo/")
    fake_index.script("/simple/demo/", Behavior(silent=True))
    assert proxy.get("/index/demo/").headers["x-cache"] == "STALE"

    def seconds(_: int) -> float:
        began = time.monotonic()
        reply = proxy.get("/index/demo/")
        assert (reply.headers["x-cache"], reply.body) == ("STALE", old.body)
        return time.monotonic() - began

    fake_index.clear_requests()
    began = time.monotonic()
    with ThreadPoolExecutor(CLIENTS // 4) as pool:
        waits = sorted(pool.map(seconds, range(20 * CLIENTS)))
    took = time.monotonic() - began
    asked = len(fake_index.requests())
    assert asked <= took + 2
    # All but those whose requests were trials wait for nothing.
    assert sum(wait > 0.5 for wait in waits) <= asked + len(waits) // 100
    fake_index.add(make_wheel("demo", "2.0"))
    fake_index.script("/simple/demo/")
    returned = time.monotonic()
    while proxy.get("/index/demo/").body == old.body:
        assert time.monotonic() - returned < 6
        time.sleep(0.1)


def test_expired_credentials(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path
) -> None:
    """An index that hides all from an expired token loses no project, after `kill -9` either."""
    fake_index.require_auth(*LOGIN)
    for project in ("demo", "gone"):
        fake_index.add(make_wheel(project))
    url = fake_index.url.replace("://", "://{}:{}@".format(*LOGIN))
    settings = {"index_url": url, "index_ttl": EXPIRED_AT_ONCE, "cache_dir": tmp_path / "cache"}
    proxy = start_proxy(fake_index, **settings)
    for _ in range(2):
        assert proxy.get("/index/demo/").status == proxy.get("/index/gone/").status == 200
    assert proxy.get("/index/").status == 200
    fake_index.forget("gone")
    assert proxy.get("/index/gone/").status == 404
    fake_index.script("/simple/*", Behavior(status=404))
    for _ in range(2):
        reply = proxy.get("/index/demo/")
        assert (reply.status, reply.headers.get("x-cache")) == (200, "STALE")
        reply = proxy.get("/index/")
        assert (reply.status, reply.headers.get("x-cache")) == (200, "STALE")
        proxy.stop(signal.SIGKILL)
        proxy = start_proxy(fake_index, **settings)
    assert LOGIN[1] not in proxy.output


def test_wrong_url(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """An index URL that leads nowhere is named in one line of the log."""
    fake_index.add(make_wheel("demo"))
    proxy = start_proxy(fake_index, index_url=f"{fake_index.origin}/nope/")
    for number in range(5):
        assert proxy.get(f"/index/demo-{number}/").status == 404
    proxy.stop()
    (line,) = [line for line in proxy.output.splitlines() if "PROXPI_INDEX_URL" in line]
    assert f"{fake_index.origin}/nope/ answers 404" in line
