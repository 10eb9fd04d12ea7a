"""Many clients at a time, in an outage and otherwise: they are answered in time.

How many that can be is a matter of the machine.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from tests.faults.test_pressure import MIB, descriptors, resident
from tests.support import sockets
from tests.support.behavior import Behavior
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.processes import EXPIRED_AT_ONCE, StartProxy
from tests.support.proxy import Proxy

pytestmark = pytest.mark.alone

IDLE, OPEN = 5000, 1000
CLIENTS = 50
PROJECTS = [f"demo-{number}" for number in range(10)]


@contextmanager
def _health(proxy: Proxy) -> Iterator[list[float]]:
    """Ask for the health all the time; how many seconds each answer took."""
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
            yield waits
        finally:
            done.set()
            asking.result()


def _crowd(proxy: Proxy) -> list[float]:
    """Let everybody ask for a page that is past its time; how many seconds each one waited."""

    def ask(number: int) -> float:
        started = time.monotonic()
        reply = proxy.get(f"/index/{PROJECTS[number % len(PROJECTS)]}/")
        assert (reply.status, reply.headers["x-cache"]) == (200, "STALE")
        return time.monotonic() - started

    with ThreadPoolExecutor(CLIENTS) as pool:
        return list(pool.map(ask, range(CLIENTS)))


def test_nobody_waits_longer_than_the_first(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """Fifty clients wait at most 5 s, later ones not at all, and the health is told at once."""
    for project in PROJECTS:
        fake_index.add(make_wheel(project))
    proxy = start_proxy(fake_index, index_ttl=EXPIRED_AT_ONCE)
    for project in PROJECTS:
        assert proxy.get(f"/index/{project}/").status == 200
    fake_index.script("/simple/*", Behavior(silent=True))
    with _health(proxy) as waits:
        assert max(_crowd(proxy)) < 6.5
        assert max(_crowd(proxy)) < 1.5
    assert max(waits) < 1


def test_thousands_of_clients(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """With 5,000 idle connections and 1,000 requests under way it answers as ever."""
    wheel = make_wheel("slow")
    path = fake_index.add(wheel)
    fake_index.script(path, Behavior(hold_after=100))
    fake_index.add(make_wheel("demo"))
    proxy = start_proxy(fake_index, download_timeout=50, read_timeout=50)
    before = descriptors(proxy)
    with sockets.many_descriptors(IDLE + OPEN + 500), ExitStack() as stack:
        idle = [stack.enter_context(sockets.connect(proxy.origin)) for _ in range(IDLE)]
        waiting = [stack.enter_context(sockets.connect(proxy.origin)) for _ in range(OPEN)]
        for client in waiting:
            sockets.ask(client, f"/index/slow/{wheel.filename}")
        for _ in range(20):
            began = time.monotonic()
            assert proxy.get("/health").status == 200
            assert time.monotonic() - began < 1
        assert proxy.get("/index/demo/").status == 200
        assert resident(proxy) < 400 * MIB
        sockets.ask(idle[-1], "/health")
        assert sockets.head(idle[-1])[0] == 200
        fake_index.release(path)
        for client in waiting:
            status, fields = sockets.head(client)
            assert status == 200
            assert sockets.body(client, int(fields["content-length"])) == wheel.data
    while descriptors(proxy) > before + 5:
        assert proxy.get("/health").status == 200
