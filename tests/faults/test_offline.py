"""``PROXPI_OFFLINE``: what there is, however old, and not one word to anybody outside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.inside import overheard
from tests.support.processes import EXPIRED_AT_ONCE
from tests.support.proxy import Proxy, Reply

JSON = "application/vnd.pypi.simple.v1+json"
WHEEL = make_wheel("known")
FILE = f"/index/known/{WHEEL.filename}"


@attrs.frozen
class _Offline:
    """A proxy that is offline, the index that it could ask, and what was overheard.

    ``before`` is what another proxy said to the index when it filled the folder.
    """

    proxy: Proxy
    index: FakeIndex
    before: Path
    now: Path

    def get(self, path: str, **headers: str) -> Reply:
        """Ask the proxy."""
        return self.proxy.get(path, **headers)


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Offline]:
    """A proxy that is offline, on a folder that another one has filled."""
    folder = tmp_path_factory.mktemp("offline")
    before, now = folder / "before", folder / "now"
    with FakeIndex() as index:
        for distribution in (WHEEL, make_wheel("unknown"), make_wheel("known", "2.0")):
            index.add(distribution)
        settings = {
            "PROXPI_INDEX_URL": index.url,
            "PROXPI_INDEX_TTL": EXPIRED_AT_ONCE,
            "PROXPI_CACHE_DIR": str(folder / "cache"),
            "PROXPI_DOWNLOAD_TIMEOUT": "30",
        }
        with Proxy(settings | overheard(before), folder=folder) as filling:
            paths = ["/index/known/", "/index/", FILE]
            assert [filling.get(path).status for path in paths] == [200] * 3
        index.clear_requests()
        settings |= {"PROXPI_OFFLINE": "on"}
        with Proxy(settings | overheard(now), folder=folder) as proxy:
            yield _Offline(proxy, index, before, now)


def test_what_is_cached_is_served(offline: _Offline) -> None:
    """Pages in both forms, the list of projects and files come from the folder."""
    for form in (JSON, "text/html"):
        page = offline.get("/index/known/", Accept=form)
        assert page.status == 200
        assert WHEEL.filename in page.text
        listed = offline.get("/index/", Accept=form)
        assert listed.status == 200
        assert "unknown" in listed.text
    file = offline.get(FILE)
    assert (file.status, file.headers["x-cache"], file.body) == (200, "HIT", WHEEL.data)


@pytest.mark.parametrize(
    "path",
    [
        "/index/unknown/",
        "/index/known/known-2.0-py3-none-any.whl",
        "/index/unknown/unknown-1.0-py3-none-any.whl",
    ],
)
def test_what_is_not_cached_is_a_503(offline: _Offline, path: str) -> None:
    """Whoever asks for more is told why there is no answer, and that there may be one later."""
    reply = offline.get(path)
    assert reply.status == 503
    assert reply.text.startswith("Not cached, and PROXPI_OFFLINE is set: http://")
    assert 1 <= int(reply.headers["retry-after"]) <= 30


def test_a_file_is_given_up_at_once(offline: _Offline) -> None:
    """A listed file that is not cached is one line at INFO; nothing is tried once more."""
    version = make_wheel("known", "2.0").filename
    before = len(offline.proxy.output)
    assert offline.get(f"/index/known/{version}").status == 503
    offline.proxy.wait_for_line(f"/{version} 503")
    said = offline.proxy.output[before:].splitlines()
    [line] = [line for line in said if "PROXPI_OFFLINE" in line and version in line]
    assert "#info]" in line
    assert "PROXPI_OFFLINE: no connection is made upstream" in offline.proxy.output
    assert "asking once more" not in offline.proxy.output


def test_nobody_is_spoken_to(offline: _Offline) -> None:
    """No connection is opened, no datagram sent and no name looked up, whatever is asked for."""
    paths = ["/", "/health", "/index/", "/index/known/", "/index/unknown/", FILE, "/index/a/b.whl"]
    for path in paths:
        offline.get(path)
        offline.get(path, Range="bytes=0-9")
        offline.proxy.request("HEAD", path)
    offline.proxy.request("DELETE", "/cache/known")
    assert offline.get("/index/known/").status == 200
    assert offline.index.requests() == []
    # The proxy that filled the folder was overheard: so would this one have been.
    assert "socket.connect" in offline.before.read_text()
    assert offline.now.read_text() == ""
