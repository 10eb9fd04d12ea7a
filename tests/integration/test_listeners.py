"""Files through the other kinds of listeners: TLS, where sendfile is no way, and a Unix socket."""

from __future__ import annotations

import hashlib
import http.client
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.certificates import make_certificate
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.proxy import GUARD_SECONDS, Proxy

#: More than all buffers between here and there take.
LARGE = 40 * 1024 * 1024
PLAIN = "tcp:0:interface=127.0.0.1"

Connect = Callable[[], socket.socket]


def _tls(proxy: Proxy) -> Connect:
    found = re.search(r"https://127\.0\.0\.1:(\d+)/", proxy.output)
    assert found is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    address = ("127.0.0.1", int(found[1]))
    return lambda: context.wrap_socket(socket.create_connection(address, GUARD_SECONDS))


def _unix(path: Path) -> Connect:
    def connect() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(GUARD_SECONDS)
        connection.connect(str(path))
        return connection

    return connect


@pytest.fixture(params=["tls", "unix"])
def connect(
    request: pytest.FixtureRequest, fake_index: FakeIndex, tmp_path: Path
) -> Iterator[Connect]:
    """Opens connections to a proxy that streams, by a listener of each kind."""
    place = tmp_path / "socket"
    if request.param == "tls":
        pem = make_certificate(tmp_path)
        listen = f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}"
    else:
        listen = f"unix:{place}"
    settings = {"PROXPI_INDEX_URL": fake_index.url, "PROXPI_SLOW_DOWNLOAD": "stream"}
    with Proxy(settings, [f"--listen={PLAIN}", f"--listen={listen}"], folder=tmp_path) as proxy:
        yield _tls(proxy) if request.param == "tls" else _unix(place)


class _Connection(http.client.HTTPConnection):
    """A connection that is open already."""

    def __init__(self, opened: socket.socket) -> None:
        super().__init__("proxpi.example")
        self.sock = opened


def test_a_large_file(fake_index: FakeIndex, connect: Connect) -> None:
    """Cold, warm and in part it comes as it is, on one connection."""
    wheel = make_wheel("demo", padding=LARGE)
    fake_index.add(wheel)
    opened = connect()
    path = f"/index/demo/{wheel.filename}"
    connection = _Connection(opened)
    try:
        for cache in ("MISS", "HIT", "HIT"):
            connection.request("GET", path)
            answer = connection.getresponse()
            digest, size = hashlib.sha256(), 0
            while piece := answer.read(65536):
                digest.update(piece)
                size += len(piece)
            assert (answer.status, answer.getheader("X-Cache")) == (200, cache)
            assert (size, digest.hexdigest()) == (len(wheel.data), wheel.sha256)
        connection.request("GET", path, headers={"Range": "bytes=-100000"})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (206, wheel.data[-100000:])
    finally:
        connection.close()


def test_who_goes_away_leaves_nothing(fake_index: FakeIndex, connect: Connect) -> None:
    """A client that hangs up in the middle is no matter to the next one."""
    wheel = make_wheel("demo", padding=LARGE)
    fake_index.add(wheel)
    for _ in range(3):
        with connect() as opened:
            opened.sendall(f"GET /index/demo/{wheel.filename} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert opened.recv(1000).startswith(b"HTTP/1.1 200 ")
    connection = _Connection(connect())
    try:
        connection.request("GET", f"/index/demo/{wheel.filename}")
        assert hashlib.sha256(connection.getresponse().read()).hexdigest() == wheel.sha256
    finally:
        connection.close()
    assert len(fake_index.files_asked()) == 1
