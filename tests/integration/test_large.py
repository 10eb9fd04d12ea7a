"""Pages of thousands of files, and a list of very many projects, hold up no other request.

Only they load the machine meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import pytest

from tests.support.fake_index import FakeIndex
from tests.support.processes import StartProxy, health_checks
from tests.support.proxy import Proxy, Reply

pytestmark = pytest.mark.alone

JSON = "application/vnd.pypi.simple.v1+json"
#: The longest wait of another request, as a share of the time that the page takes.
SHARE = 0.5


def _page(files: int) -> bytes:
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
    names = [{"_last-serial": number, "name": f"Project_{number}"} for number in range(projects)]
    return json.dumps({"meta": {"api-version": "1.4"}, "projects": names}).encode()


def _get_beside_checks(proxy: Proxy, path: str, accept: str) -> Reply:
    """Request a page that is not cached; a health check takes a part of that time at most."""
    with health_checks(proxy) as waits:
        started = time.monotonic()
        reply = proxy.get(path, Accept=accept, Accept_Encoding="gzip")
        taken = time.monotonic() - started
    assert (reply.status, reply.headers["x-cache"]) == (200, "MISS")
    assert len(waits) > 3
    assert max(waits) < SHARE * taken
    return reply


@pytest.mark.parametrize("accept", [JSON, "text/html"])
def test_page(fake_index: FakeIndex, start_proxy: StartProxy, accept: str) -> None:
    """While a page of 10,000 files is parsed and rendered, other requests are answered."""
    fake_index.page("large", _page(10_000), JSON)
    _get_beside_checks(start_proxy(fake_index), "/index/large/", accept)


def test_list(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """Health checks are answered during a list of 300,000 projects, sent from a file."""
    fake_index.page("", _list(300_000), JSON)
    proxy = start_proxy(fake_index)
    reply = _get_beside_checks(proxy, "/index/", JSON)
    again = proxy.get("/index/", Accept=JSON, Accept_Encoding="gzip")
    assert (again.body, again.headers["x-cache"]) == (reply.body, "HIT")
