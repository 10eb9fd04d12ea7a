"""Upstreams that hang at each step, and the limit on connections."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from tests.support.distributions import make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.process import GUARD_SECONDS
from tests.support.proxy import Proxy
from tests.support.servers import Connection, Conversations
from tests.support.sockets import ask, connect

PAGE = b'{"meta": {"api-version": "1.0"}, "name": "demo", "files": []}'
TYPE = "Content-Type: application/vnd.pypi.simple.v1+json"


def _mute(connection: Connection) -> bool:
    """Accept, and send nothing: to a client of TLS not even the first word of the handshake."""
    while connection.socket.recv(65536):
        pass
    return True


def _half_a_head(connection: Connection) -> bool:
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Ty")
    return _mute(connection)


def _head_without_end(connection: Connection) -> bool:
    """Send a field now and then: the head never ends, nor is it ever silent for long."""
    began = time.monotonic()
    connection.request()
    connection.send(b"HTTP/1.1 200 OK\r\n")
    connection.socket.settimeout(0.2)
    while time.monotonic() - began < GUARD_SECONDS / 2:
        connection.send(b"X: y\r\n")
        try:
            if not connection.socket.recv(65536):
                return True
        except TimeoutError:
            pass
    return False


def _half_a_body(connection: Connection) -> bool:
    connection.request()
    connection.send(f"HTTP/1.1 200 OK\r\n{TYPE}\r\nContent-Length: 9999\r\n\r\n".encode() + PAGE)
    return _mute(connection)


HANGS: list[Callable[[Connection], bool]] = [_mute, _half_a_head, _head_without_end, _half_a_body]


def _hung_up_on(hang: Callable[[Connection], bool], scheme: str, folder: Path) -> str:
    """Request a page of an upstream that hangs; give the text of the response."""
    left: list[bool] = []
    folder.mkdir()

    def converse(connection: Connection) -> None:
        try:
            left.append(hang(connection))
        except TimeoutError:
            left.append(False)
        except OSError:
            left.append(True)

    with Conversations(converse) as server:
        settings = {
            "PROXPI_INDEX_URL": f"{server.origin.replace('http', scheme)}/simple/",
            "PROXPI_CONNECT_TIMEOUT": "1",
            "PROXPI_READ_TIMEOUT": "1",
        }
        with Proxy(settings, folder=folder) as proxy:
            reply = proxy.get("/index/demo/")
            assert reply.status == 503
            assert 1 <= int(reply.headers["retry-after"]) <= 30
    assert left and all(left), "a connection was not closed"
    return reply.text


def test_hangs(stack: ExitStack, tmp_path: Path) -> None:
    """Wherever an upstream stops, it is left in time, with its connection closed.

    Over https, silence and nonsense come in place of the handshake.
    """
    clients = stack.enter_context(ThreadPoolExecutor(4))
    told = {
        (hang, scheme): clients.submit(_hung_up_on, hang, scheme, tmp_path / f"{hang}{scheme}")
        for hang in HANGS
        for scheme in ("http", "https")
    }
    for (hang, scheme), text in told.items():
        nonsense = scheme == "https" and hang is _half_a_head
        expected = "TLS failed" if nonsense else "timed out"
        assert expected in text.result(), (hang, scheme)


def test_connections(stack: ExitStack, tmp_path: Path) -> None:
    """Files take as many connections as was set; pages have their own."""
    index = stack.enter_context(FakeIndex())
    wheels = [make_wheel(f"demo-{number}") for number in range(8)]
    paths = [index.add(wheel) for wheel in wheels]
    index.script("/files/*", Behavior(hold_after=3))
    settings = {
        "PROXPI_INDEX_URL": index.url,
        "PROXPI_UPSTREAM_CONNECTIONS": "3",
        "PROXPI_SLOW_DOWNLOAD": "stream",
    }
    proxy = stack.enter_context(Proxy(settings, folder=tmp_path))
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


def test_client_that_leaves_the_queue(stack: ExitStack, tmp_path: Path) -> None:
    """A request whose client leaves the queue is not sent."""
    index = stack.enter_context(FakeIndex())
    held, wanted, left = (make_wheel(name) for name in ("held", "wanted", "left"))
    for wheel in (held, wanted, left):
        index.add(wheel)
    index.script("/files/held/*", Behavior(hold=True))
    settings = {"PROXPI_INDEX_URL": index.url, "PROXPI_UPSTREAM_CONNECTIONS": "1"}
    proxy = stack.enter_context(Proxy(settings, folder=tmp_path))
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
