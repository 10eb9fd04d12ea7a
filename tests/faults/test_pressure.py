"""More clients than descriptors, and clients that do not read: both take bounded resources."""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack, suppress

import pytest

from proxpi.upstream.connections import CONNECTIONS
from tests.support import sockets
from tests.support.distributions import make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.processes import StartProxy

MIB = 1 << 20
FEW = 400
ABANDONED = 3 * CONNECTIONS


def test_descriptors_exhausted(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """Beyond the limit of descriptors clients get a 503; health and admitted clients are served."""
    fake_index.add(make_wheel("demo"))
    proxy = start_proxy(fake_index, within=["prlimit", f"--nofile=64:{FEW}"])
    with ExitStack() as stack:
        admitted = stack.enter_context(sockets.connect(proxy.origin))
        sockets.ask(admitted, "/health")
        _, fields = sockets.head(admitted)
        sockets.body(admitted, int(fields["content-length"]))
        others = [stack.enter_context(sockets.connect(proxy.origin)) for _ in range(FEW)]
        reply = proxy.get("/index/demo/")
        assert (reply.status, reply.headers["connection"]) == (503, "close")
        assert 0 < int(reply.headers["retry-after"]) <= 30
        assert proxy.get("/health").status == 200
        # There are descriptors for what an admitted client needs.
        sockets.ask(admitted, "/index/demo/")
        assert sockets.head(admitted)[0] == 200
        for client in others:
            client.close()
        while proxy.get("/index/demo/").status != 200:
            pass
    assert "Too many open files" not in proxy.output


@pytest.mark.parametrize("resets", [False, True])
def test_abandoned_requests(fake_index: FakeIndex, start_proxy: StartProxy, resets: bool) -> None:
    """Requests whose clients left while they were queued are not sent upstream."""
    fake_index.add(make_wheel("demo", "1.0"))
    fake_index.script("/simple/p-*", Behavior(hold=True))
    proxy = start_proxy(fake_index)
    before = proxy.descriptors()
    with ExitStack() as stack:
        for number in range(ABANDONED):
            client = stack.enter_context(sockets.connect(proxy.origin))
            if resets:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sockets.ask(client, f"/index/p-{number}/")
        fake_index.wait_for(lambda requests: len(requests) >= CONNECTIONS)
    proxy.wait_for_descriptors(before + CONNECTIONS)
    fake_index.release("/simple/p-*")
    assert proxy.get("/index/demo/").status == 200
    sent = [seen.path for seen in fake_index.wait_until_quiet()]
    assert sum(path.startswith("/simple/p-") for path in sent) == CONNECTIONS


def test_unread_responses(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """A thousand pipelined requests, whose responses the client does not read, cost little."""
    for number in range(300):
        fake_index.add(make_wheel("many", f"1.{number}"))
    proxy = start_proxy(fake_index)
    page = proxy.get("/index/many/")
    assert len(page.body) > 50_000
    memory = proxy.memory()
    with sockets.connect(proxy.origin) as client:
        client.setblocking(False)
        request = b"GET /index/many/ HTTP/1.1\r\nHost: proxpi.example\r\n\r\n"
        rest = request * 1000
        with suppress(BlockingIOError):  # it does not even read them all
            while rest:
                rest = rest[client.send(rest) :]
        for _ in range(20):
            assert proxy.get("/health").status == 200
        assert proxy.memory() < memory + 10 * MIB
        client.settimeout(60)
        for _ in range(999 - len(rest) // len(request)):
            status, fields = sockets.head(client)
            assert status == 200
            assert sockets.body(client, int(fields["content-length"])) == page.body
