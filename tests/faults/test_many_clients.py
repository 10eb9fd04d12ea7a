"""Many clients at a time: none waits for another.

How many clients that can be depends on the machine, so nothing else runs meanwhile.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.support import sockets
from tests.support.distributions import make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.processes import EXPIRED_AT_ONCE, StartProxy, health_checks

pytestmark = pytest.mark.alone

MIB = 1 << 20
IDLE, OPEN = 5000, 1000
#: Clients in an outage, and the projects that they request.
CLIENTS, PROJECTS = 50, 10


def test_outage(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """While 50 clients wait for a silent index, the health is answered at once."""
    paths = [f"/index/demo-{number}/" for number in range(PROJECTS)]
    proxy = start_proxy(fake_index, index_ttl=EXPIRED_AT_ONCE)
    for path in paths:
        fake_index.add(make_wheel(path.split("/")[2]))
        assert proxy.get(path).status == 200
    fake_index.script("/simple/*", Behavior(hold=True))
    began = time.monotonic()
    with health_checks(proxy) as waits, ThreadPoolExecutor(CLIENTS) as pool:
        for reply in pool.map(proxy.get, paths * (CLIENTS // PROJECTS)):
            assert (reply.status, reply.headers["x-cache"]) == (200, "STALE")
    assert max(waits) < (time.monotonic() - began) / 4


def test_thousands_of_clients(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """With 5,000 idle connections and 1,000 waiting requests, others are answered."""
    wheel = make_wheel("slow")
    path = fake_index.add(wheel)
    fake_index.script(path, Behavior(hold_after=100))
    fake_index.add(make_wheel("demo"))
    proxy = start_proxy(fake_index, download_timeout=50, read_timeout=50)
    before = proxy.descriptors()
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
        assert proxy.memory() < 400 * MIB
        sockets.ask(idle[-1], "/health")
        assert sockets.head(idle[-1])[0] == 200
        fake_index.release(path)
        for client in waiting:
            status, fields = sockets.head(client)
            assert status == 200
            assert sockets.body(client, int(fields["content-length"])) == wheel.data
    proxy.wait_for_descriptors(before + 5)
