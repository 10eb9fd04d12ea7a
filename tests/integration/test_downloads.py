"""Downloads over real sockets: verified, shared, resumed, streamed, redirected, in ranges."""

from __future__ import annotations

import hashlib
import http.client
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.support import sockets
from tests.support.distributions import Distribution, make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.processes import HttpServer, StartProxy, proxies
from tests.support.proxy import Proxy

JSON = "application/vnd.pypi.simple.v1+json"
HTML: dict[str, str | None] = {"Content-Type": "text/html"}


@pytest.fixture(scope="module")
def streaming(shared_index: FakeIndex, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with proxies(tmp_path_factory.mktemp("streaming")) as start:
        yield start(shared_index, slow_download="stream")


def add(
    index: FakeIndex, project: str, *behaviors: Behavior, size: int = 0
) -> tuple[Distribution, str, str]:
    """List a wheel whose download is scripted; return it, its path upstream, and here."""
    wheel = make_wheel(project, padding=size)
    path = index.add(wheel)
    if behaviors:
        index.script(path, *behaviors)
    return wheel, path, f"/index/{project}/{wheel.filename}"


def downloads(index: FakeIndex, path: str) -> int:
    """Count the requests for a file upstream."""
    return sum(seen.path == path for seen in index.files_asked())


def test_bad_bytes(shared_index: FakeIndex, shared_proxy: Proxy) -> None:
    """A wrong or short download is repeated once; bytes without the page's hash never arrive."""
    for number, behavior in enumerate(
        (
            Behavior(times=1, flip=100),
            Behavior(times=1, truncate_after=100),
            Behavior(times=1, truncate_after=100, chunked=True),
            Behavior(times=1, truncate_after=100, reset=True),
            Behavior(times=1, length=100),
            Behavior(times=1, body=b""),
            Behavior(times=1, body=b"<html>Please log in</html>", headers=HTML),
        )
    ):
        wheel, upstream_path, path = add(shared_index, f"bad-{number}", behavior)
        reply = shared_proxy.get(path)
        assert (reply.status, reply.body) == (200, wheel.data), behavior
        assert downloads(shared_index, upstream_path) == 2
    wheel, upstream_path, path = add(shared_index, "wrong", Behavior(flip=100))
    refused = shared_proxy.get(path)
    location = shared_index.origin + upstream_path
    assert (refused.status, refused.headers["location"]) == (302, location)
    shared_index.script(upstream_path)
    assert shared_proxy.get(path).body == wheel.data


def test_one_download(shared_index: FakeIndex, shared_proxy: Proxy) -> None:
    """Ten clients of a cold file cost one page and one download; those that leave end nothing."""
    behavior = Behavior(hold_after=1000)
    wheel, upstream_path, path = add(shared_index, "herd", behavior, size=300_000)
    shared_index.script("/simple/herd/", Behavior(hold=True))
    shared_index.clear_requests()
    with ThreadPoolExecutor(20) as threads, sockets.connect(shared_proxy.origin) as leaving:
        pages = [threads.submit(shared_proxy.get, "/index/herd/") for _ in range(10)]
        shared_index.wait_for(lambda requests: bool(requests))
        shared_index.release("/simple/herd/")
        assert len({(page.result().status, page.result().body) for page in pages}) == 1
        sockets.ask(leaving, path)
        shared_index.wait_for(lambda requests: any(seen.path == upstream_path for seen in requests))
        files = [threads.submit(shared_proxy.get, path) for _ in range(10)]
        leaving.close()
        assert shared_proxy.get("/health").status == 200
        shared_index.release(upstream_path)
        assert {reply.result().body for reply in files} == {wheel.data}
    paths = [seen.path for seen in shared_index.requests()]
    # Metadata is prefetched.
    assert [path for path in paths if not path.endswith(".metadata")] == [
        "/simple/herd/",
        upstream_path,
    ]


def test_streamed_at_once(shared_index: FakeIndex, streaming: Proxy) -> None:
    """Clients have the first bytes before the last are sent upstream, all of one download."""
    behavior = Behavior(hold_after=500_000)
    wheel, upstream_path, path = add(shared_index, "streamed", behavior, size=3_000_000)
    with sockets.connect(streaming.origin) as first, sockets.connect(streaming.origin) as second:
        for client in (first, second):
            sockets.ask(client, path)
            _, fields = sockets.head(client)
            assert fields["content-length"] == str(wheel.size)
            assert sockets.body(client, 400_000) == wheel.data[:400_000]
        shared_index.release(upstream_path)
        for client in (first, second):
            assert sockets.body(client, wheel.size - 400_000) == wheel.data[400_000:]
    assert downloads(shared_index, upstream_path) == 1
    assert streaming.get_cached(path).headers["x-cache"] == "HIT"


def test_streamed_and_wrong(shared_index: FakeIndex, streaming: Proxy) -> None:
    """A client of a wrong file is cut off; the next one gets the right file."""
    wheel, _, path = add(shared_index, "flipped", Behavior(times=1, flip=-1), size=3_000_000)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        streaming.get(path)
    assert streaming.get(path).body == wheel.data


def test_resumed(shared_index: FakeIndex, streaming: Proxy) -> None:
    """After a cut the rest is requested, and 200 clients get all of one file."""
    behavior = Behavior(times=1, truncate_after=1_000_000, reset=True)
    wheel, upstream_path, path = add(shared_index, "cut", behavior, size=3_000_000)
    with ThreadPoolExecutor(40) as threads:
        replies = list(threads.map(lambda _: streaming.get(path), range(200)))
    assert {hashlib.sha256(reply.body).hexdigest() for reply in replies} == {wheel.sha256}
    first, second = (seen for seen in shared_index.files_asked() if seen.path == upstream_path)
    assert first.headers.get("range") is None
    assert second.headers["range"].startswith("bytes=")
    assert second.headers["if-range"].startswith('"')
    assert second.status == 206


def test_range(shared_index: FakeIndex, shared_proxy: Proxy) -> None:
    """The end of a wheel that is not cached costs one range upstream, and ``HEAD`` nothing."""
    wheel, upstream_path, path = add(shared_index, "range", size=3_000_000)
    head = shared_proxy.request("HEAD", path)
    assert (head.status, head.headers["content-length"]) == (200, str(wheel.size))
    reply = shared_proxy.get(path, Range="bytes=-10000")
    assert (reply.status, reply.body) == (206, wheel.data[-10000:])
    span = f"{wheel.size - 10000}-{wheel.size - 1}"
    assert reply.headers["content-range"] == f"bytes {span}/{wheel.size}"
    [asked] = [seen for seen in shared_index.files_asked() if seen.path == upstream_path]
    assert asked.headers["range"] == f"bytes={span}"


@pytest.mark.parametrize("connections", [1, 4])
def test_clients_that_read_nothing(start_proxy: StartProxy, connections: int) -> None:
    """Clients that read nothing of a file elsewhere hold no connection of the first origin."""
    files: list[dict[str, object]] = [
        {"filename": name, "url": f"/files/{name}", "hashes": {}}
        for name in ("large.tar.gz", "small.tar.gz")
    ]
    page = {"meta": {"api-version": "1.0"}, "name": "demo", "files": files}

    def answer(path: str) -> tuple[int, dict[str, str], bytes]:
        if path.endswith("/large.tar.gz"):
            return 302, {"Location": f"{elsewhere.origin}/large.tar.gz"}, b""
        if path.endswith("/small.tar.gz"):
            return 200, {}, b"small"
        return 200, {"Content-Type": JSON}, json.dumps(page).encode()

    with ExitStack() as stack:
        large = 200, {"Accept-Ranges": "bytes"}, bytes(100_000_000)
        elsewhere = stack.enter_context(HttpServer(lambda _: large))
        first = stack.enter_context(HttpServer(answer))
        settings = {"slow_download": "stream", "cache_size": 0}
        proxy = start_proxy(
            index_url=f"{first.origin}/simple/", upstream_connections=connections, **settings
        )
        for number in range(connections + 1):
            client = stack.enter_context(sockets.connect(proxy.origin))
            sockets.ask(client, "/index/demo/large.tar.gz")
            if number < max(1, connections * 3 // 4):
                assert sockets.head(client)[0] == 200
        assert proxy.get("/index/demo/small.tar.gz").body == b"small"
