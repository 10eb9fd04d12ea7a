"""Clients of a running proxpi down at their sockets: many at a time, slow, or silent."""

from __future__ import annotations

import resource
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from tests.support.process import GUARD_SECONDS
from tests.support.proxy import Proxy


def reserve_port() -> tuple[socket.socket, int]:
    """Return a port of 127.0.0.1, bound by a socket until that is closed.

    No other process is given it. A server that sets ``SO_REUSEADDR`` may listen on it.
    """
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved, reserved.getsockname()[1]


def connect(origin: str, *, receives: int | None = None) -> socket.socket:
    """Connect; the kernel receives so many bytes, if any number, before the client reads."""
    parts = urlsplit(origin)
    client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if receives is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
    client.settimeout(GUARD_SECONDS)
    try:
        client.connect((parts.hostname or "", parts.port or 0))
    except BaseException:
        client.close()
        raise
    return client


def connect_tls(proxy: Proxy) -> socket.socket:
    """Connect to the TLS listener of a proxy, with any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    port = int(proxy.wait_for_line(r"https://127\.0\.0\.1:(\d+)/")[1])
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), GUARD_SECONDS))


def ask(client: socket.socket, path: str, *headers: str) -> None:
    lines = [f"GET {path} HTTP/1.1", "Host: proxpi.example", *headers, "", ""]
    client.sendall("\r\n".join(lines).encode())


def head(client: socket.socket) -> tuple[int, dict[str, str]]:
    """Read the head of an answer and no more: its status, and headers with lower-case names."""
    raw = b""
    while not raw.endswith(b"\r\n\r\n"):
        byte = client.recv(1)
        assert byte, f"the connection ended after {raw!r}"
        raw += byte
    first, *lines = raw.decode("latin-1").strip().split("\r\n")
    fields = (line.partition(": ") for line in lines)
    return int(first.split()[1]), {name.lower(): value for name, _, value in fields}


def body(client: socket.socket, count: int, at_a_time: int = 1 << 20) -> bytes:
    """Read so many bytes, or fewer if the connection ends before."""
    parts = []
    while count and (part := client.recv(min(count, at_a_time))):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def read_all(client: socket.socket) -> bytes:
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    return b"".join(parts)


@contextmanager
def many_descriptors(count: int) -> Iterator[None]:
    """Let this process have so many files and sockets meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard == resource.RLIM_INFINITY or hard >= count, f"raise the hard limit above {hard}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
