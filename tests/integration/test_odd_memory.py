"""Memory that clients can fill with odd requests: it has the bound that is stated for it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from proxpi.web.response_cache import MEMORY
from tests.integration.conftest import StartProxy
from tests.support import sockets
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.proxy import Proxy

COUNT = 9000
#: Of those that are large, and take more time.
FEWER = 1500
#: Beside the response cache: header names that Twisted remembers, buffers, and what is not reused.
BESIDE = 16 * 1024 * 1024


def odd(number: int, size: int) -> str:
    """Give text that no other number gives."""
    return f"{number:08}" + "x" * (size - 8)


KINDS: dict[str, Callable[[int], list[str]]] = {
    "targets": lambda number: [f"/index/demo/?{odd(number, 1900)}", "Accept: text/html"],
    "large targets": lambda number: [f"/index/demo/?{odd(number, 15_000)}", "Accept: text/html"],
    "escaped targets": lambda number: [f"/index/demo/{number:08}{'%01' * 600}"],
    "fields": lambda number: ["/index/demo/", f"Accept: {odd(number, 1900)}, */*"],
    "large fields": lambda number: ["/index/demo/", f"Accept: {odd(number, 15_000)}, */*"],
    "codings": lambda number: ["/index/demo/", f"Accept-Encoding: {odd(number, 400)}, gzip"],
    "tags": lambda number: ["/index/demo/", f'If-None-Match: "{odd(number, 1900)}"'],
    "heads": lambda number: ["/index/demo/", f"User-Agent: {odd(number, 1900)}"],
    "large heads": lambda number: ["/index/demo/", f"User-Agent: {odd(number, 15_000)}"],
    "names": lambda number: ["/index/demo/", *(f"{odd(number * 9 + n, 250)}: x" for n in range(9))],
    "large names": lambda number: ["/index/demo/", f"{odd(number, 9000)}: x"],
    "large hosts": lambda number: ["/", f"Host: {odd(number, 1000)}"],
    "large projects": lambda number: [f"/index/{odd(number, 15_000)}/"],
    "files": lambda number: [f"/index/demo/{odd(number, 1900)}"],
}


def resident(proxy: Proxy) -> int:
    """Give the bytes of memory that it takes."""
    lines = Path(f"/proc/{proxy.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def ask_all(proxy: Proxy, kind: Callable[[int], list[str]], numbers: range) -> None:
    """Ask one after the other, on connections that are kept as long as the server keeps them."""
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
        lengths = [
            int(line[16:]) for line in answer.split(b"\r\n") if line.startswith(b"Content-Length: ")
        ]
        sockets.body(client, sum(lengths) - len(body))
        if b"\r\nConnection: close" in answer:
            client.close()
            client = None
    if client is not None:
        client.close()


@pytest.mark.parametrize("kind", KINDS)
def test_bounded(fake_index: FakeIndex, start_proxy: StartProxy, kind: str) -> None:
    """Thousands of requests, each with something odd, take no more than is stated."""
    fake_index.add(make_wheel("demo"))
    proxy = start_proxy(fake_index)
    ask_all(proxy, KINDS[kind], range(200))
    before = resident(proxy)
    ask_all(proxy, KINDS[kind], range(200, FEWER if kind.startswith("large") else COUNT))
    assert resident(proxy) - before < MEMORY + BESIDE
    assert proxy.get("/health").status == 200
