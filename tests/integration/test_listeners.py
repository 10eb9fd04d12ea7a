"""TLS on either side, Unix sockets, and listeners behind the PROXY protocol."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import sockets
from tests.support.certificates import make_certificate
from tests.support.distributions import make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.process import GUARD_SECONDS
from tests.support.processes import StartProxy

#: More than all buffers between client and proxy hold.
LARGE = 40 * 1024 * 1024
PLAIN = "tcp:0:interface=127.0.0.1"
HEAD = b"GET /index/demo/ HTTP/1.1\r\nHost: h\r\n\r\n"
CLOSE = HEAD.replace(b"Host: h", b"Host: h\r\nConnection: close")
V2 = b"\r\n\r\n\0\r\nQUIT\n"
PEERS = socket.inet_aton("192.0.2.9") + socket.inet_aton("192.0.2.1") + struct.pack("!HH", 7, 80)
PEERS_6 = socket.inet_pton(socket.AF_INET6, "2001:db8::9") * 2 + struct.pack("!HH", 7, 80)
#: A header of the PROXY protocol, and the client in the access log.
PROXY_HEADERS = {
    b"PROXY TCP4 192.0.2.8 192.0.2.1 7 80\r\n": "192.0.2.8",
    b"PROXY TCP6 2001:db8::8 2001:db8::1 7 80\r\n": "2001:db8::8",
    b"PROXY TCP4 \x1b[2Jx 192.0.2.1 7 80\r\n": "-",
    b"PROXY UNKNOWN ::1 ::1 7 80\r\n": "127.0.0.1",
    V2 + b"\x21\x11" + struct.pack("!H", len(PEERS)) + PEERS: "192.0.2.9",
    V2 + b"\x21\x21" + struct.pack("!H", len(PEERS_6)) + PEERS_6: "2001:db8::9",
    V2 + b"\x20\x00\0\0": "127.0.0.1",
}

Connect = Callable[[], socket.socket]


@pytest.fixture(params=["tls", "unix"])
def connect(
    request: pytest.FixtureRequest, fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path
) -> Iterator[Connect]:
    """Opens connections to a proxy that streams, by a listener of each kind."""
    listen = f"unix:{tmp_path / 'socket'}"
    if request.param == "tls":
        pem = make_certificate(tmp_path)
        listen = f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}"
    options = [f"--listen={PLAIN}", f"--listen={listen}"]
    proxy = start_proxy(fake_index, *options, slow_download="stream")

    def connect() -> socket.socket:
        if request.param == "tls":
            return sockets.connect_tls(proxy)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(GUARD_SECONDS)
        connection.connect(str(tmp_path / "socket"))
        return connection

    yield connect


def test_large_file(fake_index: FakeIndex, connect: Connect) -> None:
    """A miss, hits and a range are whole on one connection; clients that left matter to none."""
    wheel = make_wheel("demo", padding=LARGE)
    fake_index.add(wheel)
    path = f"/index/demo/{wheel.filename}"
    connection = http.client.HTTPConnection("proxpi.example")
    connection.sock = connect()
    try:
        for cache in ("MISS", "HIT", "HIT"):
            connection.request("GET", path)
            answer = connection.getresponse()
            assert (answer.status, answer.getheader("X-Cache")) == (200, cache)
            assert hashlib.sha256(answer.read()).hexdigest() == wheel.sha256
            with connect() as leaving:
                leaving.sendall(HEAD.replace(b"/index/demo/", path.encode()))
                assert leaving.recv(1000).startswith(b"HTTP/1.1 200 ")
        connection.request("GET", path, headers={"Range": "bytes=-100000"})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (206, wheel.data[-100000:])
    finally:
        connection.close()
    assert len(fake_index.files_asked()) == 1


def test_proxy_protocol(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """The access log has the client of the PROXY header, in every way of answering."""
    fake_index.add(make_wheel("demo"))
    proxy = start_proxy(fake_index, f"--listen={PLAIN}", f"--listen=haproxy:{PLAIN}")
    origin = proxy.wait_for_line(r" and (http://127\.0\.0\.1:\d+)/index/ for").group(1)
    assert proxy.get("/index/demo/").status == 200
    for header, client in PROXY_HEADERS.items():
        for head, line in (
            (CLOSE, "GET /index/demo/ 200 \\d+ \\d+ms HIT"),
            (HEAD + CLOSE, "GET /index/demo/ 200 \\d+ \\d+ms HIT"),
            (HEAD.replace(b" /", b" "), "- - 400 \\d+ \\d+ms REFUSED"),
        ):
            before = len(proxy.output.splitlines())
            with sockets.connect(origin) as opened:
                opened.sendall(header + head)
                while opened.recv(65536):
                    pass
            proxy.wait_for_line(rf"\] {client} {line} ", after=before)


def test_client_that_left(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """A client that closes while it waits is noticed; a half-closed one gets its response."""
    fake_index.add(make_wheel("demo"))
    fake_index.script("/simple/demo/", Behavior(hold=True))
    proxy = start_proxy(fake_index, read_timeout=GUARD_SECONDS)
    with sockets.connect(proxy.origin) as half_closed:
        half_closed.sendall(HEAD)
        half_closed.shutdown(socket.SHUT_WR)
        proxy.get("/health")
        before = proxy.descriptors()
        leaving = [sockets.connect(proxy.origin) for _ in range(20)]
        for client in leaving:
            client.sendall(HEAD)
            client.close()
        proxy.wait_for_descriptors(before)
        fake_index.release("/simple/demo/")
        received = sockets.read_all(half_closed)
    assert received.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"").startswith(b"HTTP/1.1 200 OK")


def test_untrusted_index(start_proxy: StartProxy) -> None:
    """An untrusted certificate is a 502, unless checks are switched off; the log says so then."""
    wheel = make_wheel("demo")
    with FakeIndex(tls=True) as index:
        index.add(wheel)
        reply = start_proxy(index_url=index.url).get("/index/demo/")
        assert (reply.status, "retry-after" in reply.headers) == (502, False)
        assert "certificate" in reply.text.lower()
        assert index.requests() == []
        proxy = start_proxy(index_url=index.url, disable_index_ssl_verification="yes")
        assert wheel.filename in proxy.get("/index/demo/").text
        assert proxy.get(f"/index/demo/{wheel.filename}").body == wheel.data
        assert "PROXPI_DISABLE_INDEX_SSL_VERIFICATION" in proxy.output


def test_silent_tls_index(tmp_path: Path, start_proxy: StartProxy) -> None:
    """The connection to a silent index that does not answer its TLS closure either is closed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(make_certificate(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        proxy = start_proxy(
            index_url=f"https://127.0.0.1:{port}/simple/",
            disable_index_ssl_verification="on",
            read_timeout=1,
        )
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(proxy.get, "/index/demo/")
            connection, _ = server.accept()
            server.close()  # another attempt is refused
            with context.wrap_socket(connection, server_side=True) as silent:
                silent.recv(65536)
                silent.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
                assert asked.result().status == 503
                # Once more through the reactor: it has closed the connection by then.
                assert proxy.get("/health").status == 200
                assert established(port) == 0


def established(port: int) -> int:
    """Count the connections of clients to a port of this machine (Linux)."""
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    fields = [line.split() for line in lines]
    return sum(1 for each in fields if each[2].endswith(f":{port:04X}") and each[3] == "01")


def test_an_abandoned_socket(start_proxy: StartProxy, tmp_path: Path) -> None:
    """A start takes a socket over if nothing listens to it, as after a crash of a container."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(str(path))
    # The number of a process that runs, as 1 is in every container.
    path.with_name("socket.lock").symlink_to(str(os.getpid()))
    start_proxy(None, f"--listen={PLAIN}", f"--listen=unix:{path}")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    second = start_proxy(None, f"--listen=unix:{path}", listens=False)
    assert second.wait() != 0
    assert "lock" in second.output
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
