"""Memory: requests of any kind and large files take no more than the bound that is stated."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack

from proxpi.web.response_cache import MEMORY
from tests.support import sockets
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.processes import StartProxy
from tests.support.proxy import Proxy

COUNT = 9000
#: Of large requests, which take more time.
FEWER = 1500
MIB = 1 << 20
#: Beside the response cache: header names that Twisted remembers, buffers, and fragmentation.
BESIDE = 16 * MIB


def odd(number: int, size: int) -> str:
    """Return text that no other number gives."""
    return f"{number:08}" + "x" * (size - 8)


#: Targets and header fields, of a kind, that no other number gives.
KINDS: dict[str, Callable[[int], list[str]]] = {
    "targets": lambda n: [f"/index/demo/?{odd(n, 1900)}", "Accept: text/html"],
    "large targets": lambda n: [f"/index/demo/?{odd(n, 15_000)}", "Accept: text/html"],
    "escaped targets": lambda n: [f"/index/demo/{n:08}{'%01' * 600}"],
    "fields": lambda n: ["/index/demo/", f"Accept: {odd(n, 1900)}, */*"],
    "codings": lambda n: ["/index/demo/", f"Accept-Encoding: {odd(n, 400)}, gzip"],
    "tags": lambda n: ["/index/demo/", f'If-None-Match: "{odd(n, 1900)}"'],
    "heads": lambda n: ["/index/demo/", f"User-Agent: {odd(n, 1900)}"],
    "large heads": lambda n: ["/index/demo/", f"User-Agent: {odd(n, 15_000)}"],
    "names": lambda n: ["/index/demo/", *(f"{odd(n * 9 + each, 250)}: x" for each in range(9))],
    "large names": lambda n: ["/index/demo/", f"{odd(n, 9000)}: x"],
    "large hosts": lambda n: ["/", f"Host: {odd(n, 1000)}"],
    "large projects": lambda n: [f"/index/{odd(n, 15_000)}/"],
    "files": lambda n: [f"/index/demo/{odd(n, 1900)}"],
}


def send_all(proxy: Proxy, kind: Callable[[int], list[str]], numbers: range) -> None:
    """Send one after the other, on connections that are kept as long as the server keeps them."""
    client: socket.socket | None = None
    for number in numbers:
        target, *fields = kind(number)
        host = [] if any(field.startswith("Host:") for field in fields) else ["Host: h"]
        head = "\r\n".join([f"GET {target} HTTP/1.1", *host, *fields, "", ""])
        client = client or sockets.connect(proxy.origin)
        client.sendall(head.encode())
        received = client.recv(65536)
        while b"\r\n\r\n" not in received:
            received += client.recv(65536)
        answer, _, body = received.partition(b"\r\n\r\n")
        prefix = b"Content-Length: "
        lengths = [int(line[16:]) for line in answer.split(b"\r\n") if line.startswith(prefix)]
        sockets.body(client, sum(lengths) - len(body))
        if b"\r\nConnection: close" in answer:
            client.close()
            client = None
    if client is not None:
        client.close()


def test_requests(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """Thousands of requests that each differ, of every kind, take no more than is stated."""
    fake_index.add(make_wheel("demo"))
    proxy = start_proxy(fake_index)
    for kind in KINDS.values():
        send_all(proxy, kind, range(200))
    before = proxy.memory()
    for name, kind in KINDS.items():
        send_all(proxy, kind, range(200, FEWER if name.startswith("large") else COUNT))
        assert proxy.memory() - before < MEMORY + BESIDE, name
    assert proxy.get("/health").status == 200


def test_large_file(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """A large file with stalled clients takes less than 40 MB, and each gets all of it."""
    wheel = make_wheel("large", padding=60_000_000)
    fake_index.add(wheel)
    proxy = start_proxy(fake_index, slow_download="stream")
    before = proxy.memory("VmHWM")
    path = f"/index/large/{wheel.filename}"
    with ExitStack() as stack:
        stalled = [stack.enter_context(sockets.connect(proxy.origin)) for _ in range(20)]
        for client in stalled:
            sockets.ask(client, path)
            assert sockets.head(client)[0] == 200
        assert proxy.get(path).body == wheel.data
        assert proxy.memory("VmHWM") - before < 40_000_000
        assert all(sockets.body(client, wheel.size) == wheel.data for client in stalled[:3])
