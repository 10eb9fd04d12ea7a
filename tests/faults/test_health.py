"""Health and readiness of a process whose upstream is dead, while its clients wait for that."""

from __future__ import annotations

import json
import select
import shutil
import time
from contextlib import ExitStack
from pathlib import Path

from tests.support import sockets
from tests.support.distributions import make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.processes import StartProxy

#: Requests that are open, and how often the health is requested meanwhile.
OPEN, CHECKS = 1000, 20


def test_many_open_requests(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """While 1,000 requests wait for a dead upstream, health and readiness respond at once."""
    wheel = make_wheel("demo")
    fake_index.script(fake_index.add(wheel), Behavior(hold=True))
    # Files, since the requests for pages end after ten seconds.
    proxy = start_proxy(fake_index, read_timeout=300, download_timeout=300)
    with sockets.many_descriptors(OPEN + 500), ExitStack() as stack:
        began = time.monotonic()
        waiting = [stack.enter_context(sockets.connect(proxy.origin)) for _ in range(OPEN)]
        for client in waiting:
            sockets.ask(client, f"/index/demo/{wheel.filename}")
        while proxy.descriptors() < OPEN:
            assert proxy.get("/health").status == 200
        opened = time.monotonic() - began
        waits = []
        for _ in range(CHECKS):
            for path in ("/health", "/ready"):
                began = time.monotonic()
                assert proxy.get(path).status == 200
                waits.append(time.monotonic() - began)
        # The time of the thousand requests is that of one, some hundred times. A busy machine may
        # let single ones wait.
        waits.sort()
        assert waits[CHECKS] < opened / 10
        assert waits[-CHECKS // 5] < opened
        answered = select.poll()
        for client in waiting:
            answered.register(client, select.POLLIN)
        assert answered.poll(0) == [], "all of them are still open"


def test_cache_folder(fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """A process whose cache folder is gone is healthy, and not ready."""
    folder = tmp_path / "cache"
    proxy = start_proxy(fake_index, cache_dir=folder)
    assert proxy.get("/ready").status == 200
    shutil.rmtree(folder)
    reply = proxy.get("/ready")
    while reply.status == 200:  # the outcome of the last check is shared for a moment
        reply = proxy.get("/ready")
    assert reply.status == 503
    assert "No such file or directory" in json.loads(reply.body)["reasons"][0]
    assert proxy.get("/health").status == 200
