"""Many clients at a time: none waits for another.

How many clients that can be depends on the machine, so nothing else runs meanwhile.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from tests.support import sockets
from tests.support.distributions import make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.processes import StartProxy

pytestmark = pytest.mark.alone

MIB = 1 << 20
IDLE, OPEN = 5000, 1000


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
