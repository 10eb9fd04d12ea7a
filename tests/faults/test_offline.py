"""``PROXPI_OFFLINE``: cached pages and files of any age, and no connection to any other host."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.inside import overheard
from tests.support.processes import EXPIRED_AT_ONCE, proxies
from tests.support.proxy import Proxy

JSON = "application/vnd.pypi.simple.v1+json"
WHEEL = make_wheel("known")
FILE = f"/index/known/{WHEEL.filename}"
NEWER = "known-2.0-py3-none-any.whl"


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy that is offline, on a cache folder that another one has filled.

    Files in its own folder note what both have sent to other hosts.
    """
    folder = tmp_path_factory.mktemp("offline")
    with FakeIndex() as index, proxies(folder) as start:
        for distribution in (WHEEL, make_wheel("unknown"), make_wheel("known", "2.0")):
            index.add(distribution)
        settings = {"index_ttl": EXPIRED_AT_ONCE, "cache_dir": folder / "cache"}
        filling = start(index, **overheard(folder / "before"), **settings)
        for path in ("/index/known/", "/index/", FILE):
            assert filling.get(path).status == 200
        filling.stop()
        index.clear_requests()
        yield start(index, **overheard(folder / "now"), offline="on", **settings)
        assert index.requests() == []


def test_cached(offline: Proxy) -> None:
    """Page, project list and file come from the folder."""
    for accept in (JSON, "text/html"):
        page = offline.get("/index/known/", Accept=accept)
        assert (page.status, WHEEL.filename in page.text) == (200, True)
        listed = offline.get("/index/", Accept=accept)
        assert (listed.status, "unknown" in listed.text) == (200, True)
    file = offline.get(FILE)
    assert (file.status, file.headers["x-cache"], file.body) == (200, "HIT", WHEEL.data)


def test_not_cached(offline: Proxy) -> None:
    """Anything else is a 503 that names the setting; a file is one line at INFO, not retried."""
    for path in ("unknown/", f"known/{NEWER}", "unknown/unknown-1.0-py3-none-any.whl"):
        before = len(offline.output)
        reply = offline.get(f"/index/{path}")
        assert reply.status == 503
        assert reply.text.startswith("Not cached, and PROXPI_OFFLINE is set: http://")
        assert 1 <= int(reply.headers["retry-after"]) <= 30
        offline.wait_for_line(f"/{path} 503")
        if NEWER in path:
            lines = offline.output[before:].splitlines()
            [line] = [line for line in lines if "PROXPI_OFFLINE" in line and NEWER in line]
            assert "#info]" in line
    assert "PROXPI_OFFLINE: no connection is made upstream" in offline.output
    assert "asking once more" not in offline.output


def test_no_connection(offline: Proxy) -> None:
    """No connection is opened, no datagram sent and no name looked up, for any request."""
    for path in ("/", "/health", "/index/", "/index/known/", "/index/unknown/", FILE, "/index/a/b"):
        offline.get(path)
        offline.get(path, Range="bytes=0-9")
        offline.request("HEAD", path)
    offline.request("DELETE", "/cache/known")
    assert offline.get("/index/known/").status == 200
    # The proxy that filled the folder was overheard: so would this one have been.
    assert "socket.connect" in (offline.folder / "before").read_text()
    assert (offline.folder / "now").read_text() == ""
