"""Who the client is, whether it is still there, and what it sees of foreign text."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import pytest

from tests.integration.conftest import StartProxy
from tests.support import sockets
from tests.support.behavior import Behavior
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.proxy import GUARD_SECONDS, Proxy

HEAD = b"GET /index/demo/ HTTP/1.1\r\nHost: h\r\n\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n"
PEERS = socket.inet_aton("192.0.2.9") + socket.inet_aton("192.0.2.1") + struct.pack("!HH", 7, 80)
PEERS_6 = socket.inet_pton(socket.AF_INET6, "2001:db8::9") * 2 + struct.pack("!HH", 7, 80)


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (b"PROXY TCP4 192.0.2.8 192.0.2.1 7 80\r\n", "192.0.2.8"),
        (b"PROXY TCP6 2001:db8::8 2001:db8::1 7 80\r\n", "2001:db8::8"),
        (b"PROXY TCP4 \x1b[2Jx 192.0.2.1 7 80\r\n", "-"),
        (b"PROXY UNKNOWN ::1 ::1 7 80\r\n", "127.0.0.1"),
        (V2 + b"\x21\x11" + struct.pack("!H", len(PEERS)) + PEERS, "192.0.2.9"),
        (V2 + b"\x21\x21" + struct.pack("!H", len(PEERS_6)) + PEERS_6, "2001:db8::9"),
        (V2 + b"\x20\x00\0\0", "127.0.0.1"),
    ],
    ids=["v1", "v1-ipv6", "v1-no-address", "v1-unknown", "v2", "v2-ipv6", "v2-local"],
)
def test_proxy_header(fake_index: FakeIndex, tmp_path: Path, header: bytes, client: str) -> None:
    """A listener for balancers logs the client that the PROXY header names, each time."""
    fake_index.add(make_wheel("demo"))
    plain = "tcp:0:interface=127.0.0.1"
    options = [f"--listen={plain}", f"--listen=haproxy:{plain}"]
    with Proxy({"PROXPI_INDEX_URL": fake_index.url}, options, folder=tmp_path) as proxy:
        origin = proxy.wait_for_line(r" and (http://127\.0\.0\.1:\d+)/index/ for").group(1)
        close = HEAD.replace(b"Host: h", b"Host: h\r\nConnection: close")
        for head, line in (
            (close, "GET /index/demo/ 200 \\d+ MISS"),
            (HEAD + close, "GET /index/demo/ 200 \\d+ HIT"),
            (HEAD.replace(b" /", b" "), "- - 400 \\d+ -"),
        ):
            with sockets.connect(origin) as opened:
                opened.sendall(header + head)
                while opened.recv(65536):
                    pass
            proxy.wait_for_line(rf"\] {client} {line} ")


def test_client_that_left(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """A client that leaves while it waits is noticed; a half-closed one stays."""
    fake_index.add(make_wheel("demo"))
    fake_index.script("/simple/demo/", Behavior(hold=True))
    proxy = start_proxy(fake_index, read_timeout=GUARD_SECONDS)
    with sockets.connect(proxy.origin) as half_closed:
        half_closed.sendall(HEAD)
        half_closed.shutdown(socket.SHUT_WR)
        proxy.get("/health")
        before = len(os.listdir(f"/proc/{proxy.pid}/fd"))
        leaving = [sockets.connect(proxy.origin) for _ in range(20)]
        for client in leaving:
            client.sendall(HEAD)
            client.close()
        while len(os.listdir(f"/proc/{proxy.pid}/fd")) > before:
            assert proxy.get("/health").status == 200
        fake_index.release("/simple/demo/")
        received = b""
        while part := half_closed.recv(65536):
            received += part
    assert received.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"").startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("name", ["Content-Type", "Content-Encoding", "Location"])
@pytest.mark.parametrize("odd", ["\x1b[2Jx", "\x9b2Jx", "\x7f\x85x"])
def test_foreign_text(fake_index: FakeIndex, start_proxy: StartProxy, name: str, odd: str) -> None:
    """What an upstream says reaches log and answer in printable characters."""
    fake_index.add(make_wheel("demo"))
    headers: dict[str, str | None] = {name: f"application/{odd}"}
    fake_index.script(
        "/simple/demo/", Behavior(status=302 if name == "Location" else None, headers=headers)
    )
    proxy = start_proxy(fake_index)
    with sockets.connect(proxy.origin) as client:
        client.sendall(
            HEAD.replace(b"Host: h", b"Host: h\r\nConnection: close\r\nUser-Agent: \x9b")
        )
        received = b""
        while part := client.recv(65536):
            received += part
    proxy.wait_for_line("GET /index/demo/ ")
    for text in (received.decode("utf-8").replace("\r\n", ""), proxy.output):
        assert all(line.isprintable() for line in text.split("\n"))
