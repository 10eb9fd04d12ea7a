"""More clients than usual, and clients that do not behave."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path

from tests.support import sockets
from tests.support.distributions import Distribution, make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.processes import StartProxy
from tests.support.proxy import Proxy

MIB = 1 << 20
FEW = 400


def resident(proxy: Proxy) -> int:
    """Bytes of memory that it takes."""
    lines = Path(f"/proc/{proxy.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def descriptors(proxy: Proxy) -> int:
    """How many it has open."""
    return len(os.listdir(f"/proc/{proxy.pid}/fd"))


def large(size: int) -> Distribution:
    """A file of random bytes."""
    return Distribution("large", "1.0", "large-1.0.tar.gz", os.urandom(size), "")


def test_more_than_there_is_room_for(
    fake_index: FakeIndex, tmp_path: Path, start_proxy: StartProxy
) -> None:
    """Beyond its limit of descriptors clients are asked to come back, and the health is told."""
    fake_index.add(make_wheel("demo"))
    settings = {"PROXPI_INDEX_URL": fake_index.url, "PROXPI_CACHE_DIR": str(tmp_path / "cache")}
    within = ["prlimit", f"--nofile=64:{FEW}"]
    with Proxy(settings, folder=tmp_path, within=within) as proxy, ExitStack() as stack:
        admitted = stack.enter_context(sockets.connect(proxy.origin))
        sockets.ask(admitted, "/health")
        _, fields = sockets.head(admitted)
        sockets.body(admitted, int(fields["content-length"]))
        crowd = [stack.enter_context(sockets.connect(proxy.origin)) for _ in range(FEW)]
        reply = proxy.get("/index/demo/")
        assert (reply.status, reply.headers["connection"]) == (503, "close")
        assert 0 < int(reply.headers["retry-after"]) <= 30
        assert proxy.get("/health").status == 200
        # Whoever was here before is served, and what that takes can be opened.
        sockets.ask(admitted, "/index/demo/")
        assert sockets.head(admitted)[0] == 200
        for client in crowd:
            client.close()
        while proxy.get("/index/demo/").status != 200:
            pass
        assert "Too many open files" not in proxy.output


def test_slow_reader(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """A client with a tiny window gets every byte right, as do others meanwhile."""
    file = large(5 * MIB)
    fake_index.add(file)
    proxy = start_proxy(fake_index)
    path = f"/index/large/{file.filename}"
    assert proxy.get(path).body == file.data
    memory = resident(proxy)
    with sockets.connect(proxy.origin, receives=4096) as slow:
        sockets.ask(slow, path)
        status, fields = sockets.head(slow)
        assert (status, fields["x-cache"]) == (200, "HIT")
        start = sockets.body(slow, MIB, at_a_time=1500)
        assert proxy.get(path).body == file.data
        assert start + sockets.body(slow, len(file.data) - MIB) == file.data
        sockets.ask(slow, path, f"Range: bytes={MIB}-")
        assert sockets.head(slow)[0] == 206
        assert sockets.body(slow, len(file.data) - MIB) == file.data[MIB:]
    assert resident(proxy) < memory + 20 * MIB


def test_clients_that_leave(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """Clients that go away in the middle of a file leave nothing open behind."""
    file = large(20 * MIB)
    fake_index.add(file)
    proxy = start_proxy(fake_index)
    path = f"/index/large/{file.filename}"
    assert proxy.get(path).body == file.data
    before = descriptors(proxy)
    for _ in range(50):
        with sockets.connect(proxy.origin) as client:
            sockets.ask(client, path)
            sockets.body(client, 10_000)
    while descriptors(proxy) > before + 5:
        assert proxy.get("/health").status == 200
    assert proxy.get(path).body == file.data
    assert "Traceback" not in proxy.output


def test_unread_answers(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """A thousand requests for something large, of which nobody takes the answers, cost little."""
    wheels = [make_wheel("many", f"1.{number}") for number in range(300)]
    for wheel in wheels:
        fake_index.add(wheel)
    proxy = start_proxy(fake_index)
    page = proxy.get("/index/many/")
    assert len(page.body) > 50_000
    memory = resident(proxy)
    with sockets.connect(proxy.origin) as client:
        client.setblocking(False)
        request = b"GET /index/many/ HTTP/1.1\r\nHost: proxpi.example\r\n\r\n"
        rest = request * 1000
        try:
            while rest:
                rest = rest[client.send(rest) :]
        except BlockingIOError:
            pass  # it does not even read them all
        for _ in range(20):
            assert proxy.get("/health").status == 200
        assert resident(proxy) < memory + 10 * MIB
        client.settimeout(60)
        asked = 1000 - len(rest) // len(request)
        for _ in range(asked - 1):
            status, fields = sockets.head(client)
            assert status == 200
            assert sockets.body(client, int(fields["content-length"])) == page.body


def test_large_uploads(fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """Whatever is uploaded is refused before it takes memory or space."""
    proxy = start_proxy(fake_index)
    memory = resident(proxy)
    for length in ("Content-Length: 1000000000", "Transfer-Encoding: chunked"):
        with sockets.connect(proxy.origin) as client:
            start = f"POST /index/ HTTP/1.1\r\nHost: proxpi.example\r\n{length}\r\n\r\n"
            client.sendall(start.encode())
            chunk = b"100000\r\n" + bytes(MIB) + b"\r\n"
            try:
                for _ in range(200):
                    client.sendall(chunk)
            except ConnectionError:
                refused = True
            else:
                refused = False
            assert refused
    assert resident(proxy) < memory + 10 * MIB
    assert proxy.get("/health").status == 200


def test_refused_socket_is_closed(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """What is no request is answered, and its connection closed."""
    proxy = start_proxy(fake_index)
    with sockets.connect(proxy.origin) as client:
        client.sendall(b"\x16\x03\x01\x02\r\n\r\n")
        assert client.recv(100, socket.MSG_WAITALL).startswith(b"HTTP/1.1 400 ")
