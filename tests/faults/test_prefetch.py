"""Prefetching while the upstream is at fault: clients wait no longer, and get the same responses.

Each test installs a tree as pip does (page and core metadata of one package after the other, then
the wheels), through two proxies at the same time that differ in ``PROXPI_PREFETCH`` alone.
"""

from __future__ import annotations

import hashlib
import http.client
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import attrs
import pytest

from tests.support.distributions import Distribution, make_wheel
from tests.support.fake_index import Behavior, FakeIndex, Seen
from tests.support.prefetching import USER_AGENT
from tests.support.process import GUARD_SECONDS
from tests.support.processes import EXPIRED_AT_ONCE, StartProxy, proxies
from tests.support.proxy import Proxy
from tests.support.servers import Server, readable

JSON = "application/vnd.pypi.simple.v1+json"
PACKAGES = 30
#: The time that a client may take with prefetching, as a multiple of that without, and seconds
#: that a busy machine adds to either.
MARGIN, NOISE = 1.25, 0.5
#: Connections to the upstream that stay open for a next request.
KEPT = 2
#: Background requests that are under way when an index begins to fail, and the client's own.
UNDER_WAY = 9
SLOW = Behavior(delay=0.1)


def wheels(padding: int = 0, number: int = PACKAGES) -> list[Distribution]:
    """Make a binary tree of packages, the root first."""
    return [
        make_wheel(
            f"p{each}",
            requires=[f"p{child}" for child in (2 * each + 1, 2 * each + 2) if child < number],
            padding=padding,
        )
        for each in range(number)
    ]


TREE = wheels()


@attrs.frozen
class Response:
    path: str
    status: int
    digest: str
    x_cache: str = attrs.field(eq=False)


@attrs.define
class Side:
    """One of the two proxies, with its own index."""

    index: FakeIndex
    start: Callable[..., Proxy]

    def add(self, distributions: Sequence[Distribution]) -> None:
        for distribution in distributions:
            self.index.add(distribution)


@attrs.frozen
class Installed:
    """The responses to a client, their time, and the upstream requests until then."""

    responses: list[Response]
    seconds: float
    upstream: list[Seen]

    @property
    def statuses(self) -> set[int]:
        return {response.status for response in self.responses}

    def requests_for(self, path: str) -> int:
        return sum(seen.path == path for seen in self.upstream)


def install(proxy: Proxy, tree: Sequence[Distribution] = TREE) -> list[Response]:
    """Request a tree as pip does, but for files of pages that fail; redirects are followed."""
    parts = urlsplit(proxy.origin)
    client = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=GUARD_SECONDS)
    found, files = [], []
    for wheel in tree:
        path = f"/index/{wheel.project}/"
        found.append(_request(client, path, Accept=JSON))
        if found[-1].status == 200:
            files.append(f"{path}{wheel.filename}")
            found.append(_request(client, f"{files[-1]}.metadata"))
    found += [_request(client, path) for path in files]
    client.close()
    return found


def _request(client: http.client.HTTPConnection, path: str, **headers: str) -> Response:
    client.request("GET", path, headers={"User-Agent": USER_AGENT, **headers})
    reply = client.getresponse()
    body, status, x_cache = reply.read(), reply.status, reply.headers.get("X-Cache", "")
    if status == 302:
        moved = urlsplit(reply.headers["Location"])
        direct = http.client.HTTPConnection(moved.hostname or "", moved.port)
        direct.request("GET", moved.path)
        redirected = direct.getresponse()
        body, status = redirected.read(), redirected.status
        direct.close()
    return Response(path, status, hashlib.sha256(body).hexdigest() * (status == 200), x_cache)


Sides = dict[str, Side]


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[Sides]:
    """The two proxies, which are not started yet, by the value of their setting."""
    with ExitStack() as stack:
        found: Sides = {}
        for prefetch in ("off", "on"):
            (folder := tmp_path / prefetch).mkdir()
            index = stack.enter_context(FakeIndex())
            start = stack.enter_context(proxies(folder))
            found[prefetch] = Side(index, _starter(start, index, prefetch))
        yield found


def _starter(start: StartProxy, index: FakeIndex, prefetch: str) -> Callable[..., Proxy]:
    return lambda **settings: start(index, prefetch=prefetch, **settings)


def compare(
    sides: Sides,
    tree: Sequence[Distribution] = TREE,
    prepare: Callable[[Side, Proxy], object] = lambda side, proxy: None,
    **settings: object,
) -> tuple[Installed, Installed]:
    """
    Install through both proxies at the same time; return both outcomes, first that without.

    The client with prefetching has the same responses, and does not wait longer.
    """

    def run(side: Side) -> Installed:
        side.add(tree)
        proxy = side.start(**settings)
        prepare(side, proxy)
        side.index.clear_requests()
        ready.wait()
        began = time.monotonic()
        responses = install(proxy, tree)
        seconds = time.monotonic() - began
        assert "Traceback" not in proxy.output
        return Installed(responses, seconds, side.index.requests())

    ready = threading.Barrier(2, timeout=GUARD_SECONDS)
    with ThreadPoolExecutor(2) as pool:
        without, with_it = pool.map(run, (sides["off"], sides["on"]))
    assert with_it.responses == without.responses
    assert with_it.seconds < MARGIN * without.seconds + NOISE, (with_it.seconds, without.seconds)
    return without, with_it


def fill(side: Side, proxy: Proxy) -> None:
    """Fill the cache."""
    assert {response.status for response in install(proxy)} == {200}
    side.index.wait_until_quiet()


def test_slow(sides: Sides) -> None:
    """Where each response takes long, a client waits for less than half of them."""
    without, with_it = compare(sides, prepare=lambda side, _: side.index.script("/*", SLOW))
    assert with_it.statuses == {200}
    assert with_it.seconds < 0.6 * without.seconds
    paths = [seen.path for seen in with_it.upstream]
    assert sorted(paths) == sorted(seen.path for seen in without.upstream)


def test_some_pages_fail(sides: Sides) -> None:
    """Pages that fail are retried for the client as often as ever, and others are not delayed."""

    def prepare(side: Side, _: Proxy) -> None:
        side.index.script("/*", Behavior(delay=0.02))
        for project in ("p3", "p8"):
            side.index.script(f"/simple/{project}/", Behavior(status=503))

    without, with_it = compare(sides, prepare=prepare)
    assert with_it.statuses == {200, 503}
    assert len(with_it.upstream) <= len(without.upstream) + 2


def test_files_are_cut(sides: Sides) -> None:
    """Metadata and wheels whose bodies are cut, or fail once, arrive whole."""

    def prepare(side: Side, _: Proxy) -> None:
        side.index.script("/*", Behavior(delay=0.02))
        for wheel in TREE[::3]:
            path = f"/files/{wheel.project}/{wheel.filename}"
            side.index.script(path, Behavior(times=1, truncate_after=100))
            side.index.script(f"{path}.metadata", Behavior(times=1, truncate_after=10))

    _, with_it = compare(sides, prepare=prepare)
    assert with_it.statuses == {200}


FAILURES = {
    "failing": Behavior(status=503),
    "busy": Behavior(status=503, headers={"Retry-After": "30"}),
    "limiting": Behavior(status=429, headers={"Retry-After": "30"}),
    "silent": Behavior(hold=True),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_expired_pages(sides: Sides, failure: str) -> None:
    """While no page can be revalidated, each is stale as soon as without prefetching.

    A page is requested no more often: its breaker opens once. A rate limit, or silence, ends the
    requests to the index, except for those that are under way, and trials.
    """

    def prepare(side: Side, proxy: Proxy) -> None:
        fill(side, proxy)
        side.index.script("/simple/*", FAILURES[failure])

    without, with_it = compare(sides, prepare=prepare, index_ttl=EXPIRED_AT_ONCE)
    assert with_it.statuses == {200}
    pages = [response for response in with_it.responses if response.path.endswith("/")]
    assert {response.x_cache for response in pages} == {"STALE"}
    if failure in ("limiting", "silent"):
        assert len(with_it.upstream) <= len(without.upstream) + UNDER_WAY
    else:
        for wheel in TREE:
            path = f"/simple/{wheel.project}/"
            assert with_it.requests_for(path) <= max(2, without.requests_for(path))
    sides["on"].index.release("/simple/*")
    sides["off"].index.release("/simple/*")


class SlowLink(Server):
    """A link before a port of 127.0.0.1, whose connections share `rate` bytes per second."""

    PIECE = 16 * 1024

    def __init__(self, behind: int, rate: float) -> None:
        super().__init__()
        self._behind, self._rate = behind, rate
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._free = 0.0

    def serve(self, connection: socket.socket, number: int) -> None:
        other = socket.create_connection(("127.0.0.1", self._behind))
        with self.held(other):
            while True:
                for source in readable(connection, other, seconds=GUARD_SECONDS):
                    if not (data := source.recv(self.PIECE)):
                        return
                    if source is other:
                        self._wait_for_turn(len(data))
                    (connection if source is other else other).sendall(data)

    def _wait_for_turn(self, size: int) -> None:
        with self._lock:
            now = time.monotonic()
            self._free = max(self._free, now) + size / self._rate
            wait = self._free - now
        self._ended.wait(wait)

    def end(self) -> None:
        self._ended.set()
        super().end()


@pytest.mark.parametrize(("size", "number"), [(1_000_000, 9), (8_000_000, 3)])
def test_slow_link(sides: Sides, size: int, number: int) -> None:
    """On a slow link, prefetched wheels delay the client's own one by no more than they save.

    A client that waits too long is redirected, and downloads a wheel again: the first two at most.
    """
    with ExitStack() as stack:
        for side in sides.values():
            link = stack.enter_context(SlowLink(side.index.files_port, rate=4_000_000))
            side.start = partial(side.start, index_url=f"{link.origin}/simple/")
        outcomes = compare(sides, wheels(size, number), download_timeout=0.9)
    without, with_it = (
        sum(seen.path.endswith(".whl") for seen in each.upstream) for each in outcomes
    )
    assert with_it <= without + 2


#: More than a loaded machine adds to the end of a process, far less than any time-out.
SOON = 5.0
LONG = 50


@pytest.mark.parametrize("kind", ["page", "metadata", "wheel"])
def test_end(fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path, kind: str) -> None:
    """A background request that hangs does not delay the end, and leaves no partial file."""
    tree = wheels(300_000, 3)
    for wheel in tree:
        fake_index.add(wheel)
    last = tree[-1]
    file = f"/files/{last.project}/{last.filename}"
    path = {"page": f"/simple/{last.project}/", "metadata": f"{file}.metadata", "wheel": file}[kind]
    fake_index.script(path, Behavior(hold_after=10))
    cache = tmp_path / "cache"
    proxy = start_proxy(fake_index, cache_dir=cache, drain_timeout=LONG, read_timeout=LONG)
    for wheel in tree if kind == "wheel" else tree[:-1]:
        _get(proxy, f"/index/{wheel.project}/")
        _get(proxy, f"/index/{wheel.project}/{wheel.filename}.metadata")
    _get(proxy, f"/index/p0/{tree[0].filename}")
    fake_index.wait_for(lambda seen: any(each.path == path for each in seen))
    began = time.monotonic()
    assert proxy.stop() == -signal.SIGTERM
    assert time.monotonic() - began < SOON
    assert list((cache / ".proxpi").glob("partial-*")) == []
    assert "Traceback" not in proxy.output
    assert "Unhandled" not in proxy.output


def _get(proxy: Proxy, path: str) -> None:
    headers = {"User-Agent": USER_AGENT, "Accept": JSON}
    assert proxy.request("GET", path, headers).status == 200


def test_descriptors(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """Background requests that hang end at the read time-out, with their descriptors."""
    requires = [f"q{number}" for number in range(20)]
    wheel = make_wheel("demo", requires=requires)
    fake_index.add(wheel)
    fake_index.script("/simple/q*", Behavior(hold=True))
    proxy = start_proxy(fake_index, read_timeout=1)
    before = proxy.descriptors()
    for path in ("", f"{wheel.filename}.metadata"):
        _get(proxy, f"/index/demo/{path}")
    fake_index.wait_for(lambda seen: sum("/simple/q" in each.path for each in seen) >= 3)
    assert proxy.descriptors() > before + KEPT
    proxy.wait_for_descriptors(before + KEPT)
    assert "Traceback" not in proxy.output
