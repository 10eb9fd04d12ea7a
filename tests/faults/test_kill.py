"""``kill -9`` and pages: each page is a whole one, none older than a client has seen or deleted."""

from __future__ import annotations

import itertools
import json
import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from signal import SIGKILL

import pytest

from tests.support.distributions import make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.process import GUARD_SECONDS
from tests.support.processes import EXPIRED_AT_ONCE, HttpServer, StartProxy, kill_at
from tests.support.proxy import Proxy, Reply

ROUNDS, LANES = 6, 4
PROJECTS = ["alpha", "beta", "gamma"]
FILES = 300
JSON, HTML = "application/vnd.pypi.simple.v1+json", "text/html"
PAGES = {"/index/": "/simple/", "/index/demo/": "/simple/demo/", "/index/other/": "/simple/other/"}
#: What each DELETE invalidates or removes.
DELETES = {
    "/cache/demo": ["/index/demo/"],
    "/cache/D%65MO": ["/index/demo/"],
    "/cache/list": ["/index/"],
    "/cache": list(PAGES),
}


def _get(proxy: Proxy, path: str, accept: str = JSON) -> Reply:
    reply = proxy.get(path, Accept=accept)
    assert reply.status == 200
    return reply


class _Numbered:
    """An index whose pages have another number each time, in every file name.

    :ivar served: the number of the newest page, by project
    """

    def __init__(self) -> None:
        self.served: dict[str, int] = {}
        self._numbers = itertools.count(1)

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Return the next page of a project."""
        project = path.strip("/").rpartition("/")[2]
        number = self.served[project] = next(self._numbers)
        names = [f"{project}-{number}.{file}.tar.gz" for file in range(FILES)]
        files = [{"filename": name, "url": name, "hashes": {"sha256": "0" * 64}} for name in names]
        page = {"meta": {"api-version": "1.0"}, "name": project, "files": files}
        return 200, {"Content-Type": JSON}, json.dumps(page).encode()


def _number(proxy: Proxy, project: str, accept: str = JSON) -> int:
    """Return the number of a page, which must be whole."""
    text = _get(proxy, f"/index/{project}/", accept).text
    names = re.findall(rf"{project}-(\d+)\.(\d+)\.tar\.gz", text)
    [number] = {int(number) for number, _ in names}
    assert {int(file) for _, file in names} == set(range(FILES))
    return number


def _rounds(lane: int, folder: Path) -> int:
    """Kill again and again on one folder; count the pages that were stored meanwhile."""
    folder.mkdir()
    moments, between = random.Random(lane), 0
    index = _Numbered()
    with HttpServer(index.answer) as server:
        settings = {
            "PROXPI_INDEX_URL": f"{server.origin}/simple/",
            "PROXPI_INDEX_TTL": EXPIRED_AT_ONCE,
            "PROXPI_CACHE_DIR": str(folder / "cache"),
        }
        for _ in range(ROUNDS):
            seen = dict.fromkeys(PROJECTS, 0)
            with Proxy(settings, folder=folder) as proxy:

                def read(project: str, proxy: Proxy = proxy, seen: dict[str, int] = seen) -> None:
                    for accept in (JSON, HTML):
                        seen[project] = _number(proxy, project, accept)

                for project in PROJECTS:
                    read(project)
                # The moment is random on purpose; nothing is waited for.
                moment = partial(time.sleep, moments.uniform(0, 0.3))
                kill_at(moment, proxy, [partial(read, project) for project in PROJECTS])
            with Proxy(settings | {"PROXPI_OFFLINE": "1"}, folder=folder) as proxy:
                for project in PROJECTS:
                    [found] = {_number(proxy, project, accept) for accept in (JSON, HTML)}
                    assert seen[project] <= found <= index.served[project]
                    between += found < index.served[project]
    return between


def test_pages(tmp_path: Path) -> None:
    """No page that a client has seen is lost, and no half-written one is served."""
    with ThreadPoolExecutor(LANES) as pool:
        between = sum(pool.map(_rounds, range(LANES), [tmp_path / str(n) for n in range(LANES)]))
    # Otherwise each kill came while nothing was stored.
    assert between


def test_deletes_under_way(tmp_path: Path) -> None:
    """A kill undoes no DELETE that was answered with 200, while more of them are under way."""
    index, moments = _Numbered(), random.Random(1)
    with HttpServer(index.answer) as server:
        settings = {
            "PROXPI_INDEX_URL": f"{server.origin}/simple/",
            "PROXPI_CACHE_DIR": str(tmp_path / "cache"),
        }
        for _ in range(ROUNDS):
            deleted, answered = dict.fromkeys(PROJECTS, 0), threading.Semaphore(0)
            with Proxy(settings, folder=tmp_path) as proxy:

                def delete(project: str, proxy: Proxy, answered: threading.Semaphore) -> None:
                    before = _number(proxy, project)
                    assert proxy.request("DELETE", f"/cache/{project}").status == 200
                    deleted[project] = before  # noqa: B023 (called in this round only)
                    answered.release()

                def moment(answered: threading.Semaphore = answered) -> None:
                    for _ in range(moments.randint(3, 30)):
                        assert answered.acquire(timeout=GUARD_SECONDS)

                kill_at(
                    moment, proxy, [partial(delete, each, proxy, answered) for each in PROJECTS]
                )
            with Proxy(settings, folder=tmp_path) as proxy:
                for project in PROJECTS:
                    assert _number(proxy, project) > deleted[project]


@pytest.mark.parametrize("path", DELETES)
@pytest.mark.parametrize("under_way", [False, True])
def test_deleted(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path, path: str, under_way: bool
) -> None:
    """After DELETE and kill the page is requested anew, and other pages are hits.

    An invalidated page is still the fallback; a removed one is not.
    """
    for name in ("demo", "other"):
        fake_index.add(make_wheel(name, "1.0"))
    folder = {"cache_dir": tmp_path / "cache"}
    ttl = {"index_ttl": EXPIRED_AT_ONCE if under_way else 1800}
    proxy = start_proxy(fake_index, **ttl, **folder)
    for page, accept in itertools.product(PAGES, (JSON, HTML)):
        _get(proxy, page, accept)

    with ThreadPoolExecutor(len(PAGES)) as clients:
        if under_way:
            fake_index.clear_requests()
            for page in DELETES[path]:
                fake_index.script(PAGES[page], Behavior(hold=True))
                clients.submit(proxy.get, page)
            asked = {PAGES[page] for page in DELETES[path]}
            fake_index.wait_for(lambda seen: asked <= {each.path for each in seen})
        assert proxy.request("DELETE", path).status == 200
        proxy.stop(SIGKILL)
        for page in DELETES[path] if under_way else []:
            fake_index.release(PAGES[page])
    fake_index.wait_until_quiet()
    if not under_way:
        proxy = start_proxy(fake_index, offline=1, **folder)
        for page in DELETES[path]:
            reply = proxy.get(page)
            fallback = (200, "STALE") if path != "/cache" else (503, None)
            assert (reply.status, reply.headers.get("x-cache")) == fallback
        proxy.stop()
    proxy = start_proxy(fake_index, **folder)
    for page in PAGES:
        fake_index.clear_requests()
        invalidated = page in DELETES[path]
        assert _get(proxy, page).headers["x-cache"] == ("MISS" if invalidated else "HIT")
        pages = [seen for seen in fake_index.requests() if not seen.is_file]
        conditional = ["if-none-match" in seen.headers for seen in pages]
        assert conditional == [False] * invalidated
        assert _get(proxy, page, HTML).headers["x-cache"] == "HIT"
