"""Many clients in an outage."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.faults.conftest import EXPIRED_AT_ONCE, StartProxy
from tests.support.behavior import Behavior
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.proxy import Proxy

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


@pytest.mark.alone
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
