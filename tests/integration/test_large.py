"""Pages of thousands of files, and a list of very many projects: other clients notice nothing.

Nothing but these is to keep the machine from answering others.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.fake_index import FakeIndex
from tests.support.processes import StartProxy
from tests.support.proxy import Proxy, Reply

pytestmark = pytest.mark.alone

JSON = "application/vnd.pypi.simple.v1+json"
#: Of the time that making something takes, the most for which others may have to wait.
SHARE = 0.5


def _page(files: int) -> bytes:
    """Write the page of a project with so many wheels."""
    listed = []
    for number in range(files):
        filename = f"large-1.{number}-py3-none-any.whl"
        digest = hashlib.sha256(filename.encode()).hexdigest()
        listed.append(
            {
                "filename": filename,
                "url": f"http://127.0.0.1:9/{digest}/{filename}",
                "hashes": {"sha256": digest},
                "requires-python": ">=3.11",
                "size": number,
                "upload-time": "2026-01-02T03:04:05.678901Z",
                "yanked": False,
            }
        )
    page: dict[str, Any] = {"meta": {"api-version": "1.4"}, "name": "large", "files": listed}
    page["versions"] = [f"1.{number}" for number in range(files)]
    return json.dumps(page).encode()


def _list(projects: int) -> bytes:
    """Write the list of so many projects."""
    names = [{"_last-serial": number, "name": f"Project_{number}"} for number in range(projects)]
    return json.dumps({"meta": {"api-version": "1.4"}, "projects": names}).encode()


def _beside(proxy: Proxy, path: str, accept: str) -> tuple[Reply, float, list[float]]:
    """Ask for something, and all the while for the health; the seconds that each took."""
    waits: list[float] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            started = time.monotonic()
            assert proxy.get("/health").status == 200
            waits.append(time.monotonic() - started)

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            started = time.monotonic()
            reply = proxy.get(path, Accept=accept, Accept_Encoding="gzip")
            taken = time.monotonic() - started
        finally:
            done.set()
        asking.result()
    return reply, taken, waits


@pytest.mark.parametrize("accept", [JSON, "text/html"])
def test_large_page(fake_index: FakeIndex, start_proxy: StartProxy, accept: str) -> None:
    """While a page of 10,000 files is made, others are answered, each in a part of the time."""
    fake_index.page("large", _page(10_000), JSON)
    proxy = start_proxy(fake_index)
    reply, taken, waits = _beside(proxy, "/index/large/", accept)
    assert (reply.status, reply.headers["x-cache"]) == (200, "MISS")
    assert len(waits) > 3
    assert max(waits) < SHARE * taken


def test_large_list(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """The same while a list of 300,000 projects is made; it is sent from a file from then on."""
    fake_index.page("", _list(300_000), JSON)
    proxy = start_proxy(fake_index)
    reply, taken, waits = _beside(proxy, "/index/", JSON)
    assert (reply.status, reply.headers["x-cache"]) == (200, "MISS")
    assert len(waits) > 3
    assert max(waits) < SHARE * taken
    again = proxy.get("/index/", Accept=JSON, Accept_Encoding="gzip")
    assert (again.body, again.headers["x-cache"]) == (reply.body, "HIT")
