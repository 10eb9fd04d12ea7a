"""Upstreams that hang at each step, and the limit on connections."""

from __future__ import annotations

import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest

from tests.support.distributions import make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.process import GUARD_SECONDS
from tests.support.processes import StartProxy
from tests.support.servers import Connection, Conversations
from tests.support.sockets import ask, connect

PAGE = b'{"meta": {"api-version": "1.0"}, "name": "demo", "files": []}'
TYPE = "Content-Type: application/vnd.pypi.simple.v1+json"


def _head_without_end(connection: Connection) -> None:
    """Send a field now and then: the head never ends, nor is it ever silent for long."""
    connection.request()
    connection.send(b"HTTP/1.1 200 OK\r\n")
    connection.socket.settimeout(0.2)
    data = b"more"
    while data:
        connection.send(b"X: y\r\n")
        with suppress(TimeoutError):
            data = connection.socket.recv(65536)


#: What an upstream sends before it hangs; to a client of TLS the first is silence, too.
BEGINNINGS = {
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Ty",
    "half a body": f"HTTP/1.1 200 OK\r\n{TYPE}\r\nContent-Length: 9999\r\n\r\n".encode() + PAGE,
    "a head without end": None,
}


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("hangs", BEGINNINGS)
def test_hangs(start_proxy: StartProxy, hangs: str, scheme: str) -> None:
    """Wherever an upstream stops, it is left in time, with its connection closed.

    Over https, silence and nonsense come in place of the handshake.
    """
    closed = threading.Event()

    def converse(connection: Connection) -> None:
        beginning = BEGINNINGS[hangs]
        with suppress(ConnectionError):
            if beginning is None:
                _head_without_end(connection)
            else:
                if beginning.endswith(PAGE):
                    connection.request()
                connection.send(beginning)
                while connection.socket.recv(65536):
                    pass
        closed.set()

    with Conversations(converse) as server:
        url = f"{server.origin.replace('http', scheme)}/simple/"
        proxy = start_proxy(index_url=url, connect_timeout=0.5, read_timeout=0.5)
        reply = proxy.get("/index/demo/")
        assert reply.status == 503
        assert 1 <= int(reply.headers["retry-after"]) <= 30
        nonsense = scheme == "https" and hangs == "half a head"
        assert ("TLS failed" if nonsense else "timed out") in reply.text
        assert closed.wait(GUARD_SECONDS)
        proxy.stop()


def test_connections(stack: ExitStack, fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """Files take as many connections as was set; pages have their own."""
    index = fake_index
    wheels = [make_wheel(f"demo-{number}") for number in range(8)]
    paths = [index.add(wheel) for wheel in wheels]
    index.script("/files/*", Behavior(hold_after=3))
    proxy = start_proxy(index, upstream_connections=3, slow_download="stream", prefetch="off")
    for wheel in wheels:
        assert proxy.get(f"/index/{wheel.project}/").status == 200
    clients = stack.enter_context(ThreadPoolExecutor(8))
    found = [
        clients.submit(proxy.get, f"/index/{wheel.project}/{wheel.filename}") for wheel in wheels
    ]
    index.wait_for(lambda _: len(index.files_asked()) >= 3)
    for number in range(5):
        index.add(make_wheel(f"page-{number}"))
        assert proxy.get(f"/index/page-{number}/").status == 200
    assert len(index.files_asked()) == 3
    index.release("/files/*")
    for wheel, each in zip(wheels, found, strict=True):
        assert each.result().body == wheel.data
    assert sorted(seen.path for seen in index.files_asked()) == sorted(paths)


def test_client_that_leaves_the_queue(
    stack: ExitStack, fake_index: FakeIndex, start_proxy: StartProxy
) -> None:
    """A request whose client leaves the queue is not sent."""
    index = fake_index
    held, wanted, left = (make_wheel(name) for name in ("held", "wanted", "left"))
    for wheel in (held, wanted, left):
        index.add(wheel)
    index.script("/files/held/*", Behavior(hold=True))
    proxy = start_proxy(index, upstream_connections=1, download_timeout=0.9, prefetch="off")
    for wheel in (held, wanted, left):
        assert proxy.get(f"/index/{wheel.project}/").status == 200
    clients = stack.enter_context(ThreadPoolExecutor(3))
    path = f"/index/held/{held.filename}"
    first = clients.submit(proxy.get, path, Range="bytes=0-3")
    index.wait_for(lambda _: len(index.files_asked()) >= 1)
    path = f"/index/left/{left.filename}"
    with connect(proxy.origin) as leaves:
        ask(leaves, path, "Range: bytes=0-3")
        assert proxy.get("/health").status == 200
        # A reset: a client that merely closes its sending side may still read.
        leaves.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # The answer to a later request shows that proxpi has seen the reset.
    assert proxy.get("/health").status == 200
    path = f"/index/wanted/{wanted.filename}"
    second = clients.submit(proxy.get, path, Range="bytes=0-3")
    index.release("/files/held/*")
    assert first.result().body == held.data[:4]
    assert second.result().body == wanted.data[:4]
    assert [seen.path.split("/")[2] for seen in index.files_asked()] == ["held", "wanted"]
