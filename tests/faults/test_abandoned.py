"""Clients that ask and leave: what they asked for takes no slot that a client waits for."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from proxpi.upstream.connections import CONNECTIONS
from tests.support.behavior import Behavior
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.processes import StartProxy
from tests.support.proxy import Proxy

ABANDONED = 3 * CONNECTIONS


def _open(proxy: Proxy) -> int:
    """The descriptors that it has open."""
    return len(os.listdir(f"/proc/{proxy.pid}/fd"))


@pytest.mark.parametrize("resets", [False, True])
def test_ask_and_leave(fake_index: FakeIndex, start_proxy: StartProxy, resets: bool) -> None:
    """Of many requests whose clients leave, those are sent upstream that had a slot by then."""
    fake_index.add(make_wheel("demo", "1.0"))
    fake_index.script("/simple/p-*", Behavior(hold=True))
    proxy = start_proxy(fake_index)
    parts = urlsplit(proxy.origin)
    before = _open(proxy)
    with ExitStack() as stack:
        for number in range(ABANDONED):
            client = stack.enter_context(socket.create_connection((parts.hostname, parts.port)))
            if resets:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(b"GET /index/p-%d/ HTTP/1.1\r\nHost: localhost\r\n\r\n" % number)
        fake_index.wait_for(lambda requests: len(requests) >= CONNECTIONS)
    while _open(proxy) > before + CONNECTIONS:  # until it has noticed that they left
        assert proxy.get("/health").status == 200
    fake_index.release("/simple/p-*")
    assert proxy.get("/index/demo/").status == 200
    asked = [seen.path for seen in fake_index.wait_until_quiet()]
    assert sum(path.startswith("/simple/p-") for path in asked) == CONNECTIONS
