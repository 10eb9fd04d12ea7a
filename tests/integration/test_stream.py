"""Files that reach a client while they come from upstream, over real sockets, with real clients."""

from __future__ import annotations

import hashlib
import http.client
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.integration.conftest import StartProxy
from tests.support.behavior import Behavior
from tests.support.clients import pip_install, uv_install
from tests.support.distributions import Distribution, make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.proxy import GUARD_SECONDS, Proxy


class Download:
    """A client that reads an answer bit by bit."""

    def __init__(self, proxy: Proxy, path: str, **headers: str) -> None:
        parts = urlsplit(proxy.origin)
        self.connection = http.client.HTTPConnection(
            parts.hostname or "", parts.port, timeout=GUARD_SECONDS
        )
        self.connection.request("GET", path, headers=headers)
        self.response = self.connection.getresponse()

    def read(self, count: int | None = None) -> bytes:
        """Read so many bytes, or the rest."""
        return self.response.read(count)

    def close(self) -> None:
        """Go away."""
        self.response.close()
        self.connection.close()


@pytest.fixture
def wheel(fake_index: FakeIndex) -> tuple[Distribution, str, str]:
    """A wheel of some megabytes, its path upstream, and here."""
    made = make_wheel("demo", padding=3_000_000)
    path = fake_index.add(made)
    return made, path, f"/index/demo/{made.filename}"


def test_first_bytes_at_once(
    fake_index: FakeIndex, start_proxy: StartProxy, wheel: tuple[Distribution, str, str]
) -> None:
    """Clients have the first bytes while the last are not even sent, all of one download."""
    made, upstream_path, path = wheel
    fake_index.script(upstream_path, Behavior(hold_after=500_000))
    proxy = start_proxy(fake_index, slow_download="stream")
    first = Download(proxy, path)
    assert first.read(400_000) == made.data[:400_000]
    late = Download(proxy, path)
    assert late.read(400_000) == made.data[:400_000]
    assert first.response.headers["Content-Length"] == str(made.size)
    fake_index.release(upstream_path)
    assert first.read() == late.read() == made.data[400_000:]
    assert len(fake_index.files_asked()) == 1
    assert proxy.get_cached(path).headers["x-cache"] == "HIT"


def test_wrong_bytes_are_never_whole(
    fake_index: FakeIndex, start_proxy: StartProxy, wheel: tuple[Distribution, str, str]
) -> None:
    """A client of a wrong file is cut off; the next one gets the right file."""
    made, upstream_path, path = wheel
    fake_index.script(upstream_path, Behavior(times=1, flip=-1))
    proxy = start_proxy(fake_index, slow_download="stream")
    download = Download(proxy, path)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        download.read()
    assert proxy.get(path).body == made.data


def test_a_cut_is_mended(
    fake_index: FakeIndex, start_proxy: StartProxy, wheel: tuple[Distribution, str, str]
) -> None:
    """An upstream that breaks off is asked for the rest, and the client notices nothing."""
    made, upstream_path, path = wheel
    fake_index.script(upstream_path, Behavior(times=1, truncate_after=1_000_000, reset=True))
    proxy = start_proxy(fake_index, slow_download="stream")
    assert proxy.get(path).body == made.data
    first, second = fake_index.files_asked()
    assert first.headers.get("range") is None
    assert second.headers["range"].startswith("bytes=")
    assert second.headers["if-range"].startswith('"')
    assert second.status == 206


def test_many_at_once(
    fake_index: FakeIndex, start_proxy: StartProxy, wheel: tuple[Distribution, str, str]
) -> None:
    """200 clients of one cold file get the right bytes of one download."""
    made, _, path = wheel
    proxy = start_proxy(fake_index, slow_download="stream")
    with ThreadPoolExecutor(40) as threads:
        replies = list(threads.map(lambda _: proxy.get(path), range(200)))
    digests = {hashlib.sha256(reply.body).hexdigest() for reply in replies}
    assert digests == {made.sha256}
    assert len(fake_index.files_asked()) == 1


def test_cold_range(
    fake_index: FakeIndex, start_proxy: StartProxy, wheel: tuple[Distribution, str, str]
) -> None:
    """The end of a wheel that is not here takes one small request upstream."""
    made, _, path = wheel
    proxy = start_proxy(fake_index, download_timeout=0)
    head = proxy.request("HEAD", path)
    assert (head.status, head.headers["content-length"]) == (200, str(made.size))
    reply = proxy.get(path, Range="bytes=-10000")
    assert (reply.status, reply.body) == (206, made.data[-10000:])
    assert (
        reply.headers["content-range"] == f"bytes {made.size - 10000}-{made.size - 1}/{made.size}"
    )
    [asked] = fake_index.files_asked()
    assert asked.headers["range"] == f"bytes={made.size - 10000}-{made.size - 1}"


def test_memory_stays_flat(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """A large file and readers that stall take no memory to speak of."""
    made = make_wheel("large", padding=60_000_000)
    fake_index.add(made)
    proxy = start_proxy(fake_index, slow_download="stream")
    proxy.get("/health")
    before = _memory(proxy.pid)
    path = f"/index/large/{made.filename}"
    stalled = [Download(proxy, path) for _ in range(20)]
    assert proxy.get(path).body == made.data
    assert _memory(proxy.pid) - before < 40_000_000
    assert all(download.read() == made.data for download in stalled)


def _memory(pid: int) -> int:
    """The most bytes that a process had in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("install", [pip_install, uv_install])
def test_install(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path, install: object
) -> None:
    """pip and uv install through a proxpi that redirects nobody and keeps nothing, or all."""
    assert callable(install)
    fake_index.add(make_wheel("demo-app", requires=["demo-lib"]))
    fake_index.add(make_wheel("demo-lib", "1.5", padding=2_000_000))
    for number, size in enumerate((0, 100_000_000)):
        folder = tmp_path / str(number)
        os.mkdir(folder)
        proxy = start_proxy(fake_index, slow_download="stream", cache_size=size, download_timeout=0)
        environment, _ = install(folder, proxy.url, "demo-app")
        assert environment.version_of("demo_lib") == "1.5"
    by = {seen.headers["user-agent"].split("/")[0] for seen in fake_index.files_asked()}
    assert by == {"proxpi"}


def test_install_without_sidecars(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path
) -> None:
    """uv reads the metadata of a wheel in ranges, and downloads only what it installs."""
    made = make_wheel("demo-lib", "1.5", padding=2_000_000)
    fake_index.add(made, core_metadata=None)
    proxy = start_proxy(fake_index, download_timeout=30)
    environment, _ = uv_install(tmp_path, proxy.url, "demo-lib")
    assert environment.version_of("demo_lib") == "1.5"
    ranges = [seen.headers.get("range") for seen in fake_index.files_asked()]
    assert None in ranges and len(ranges) > 1
    assert all(one is None or one.count("-") == 1 for one in ranges)
