"""An upstream whose certificate nobody vouches for."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.conftest import StartProxy
from tests.support.certificates import make_certificate
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex


@pytest.fixture
def tls_index() -> Iterator[FakeIndex]:
    """An index that speaks TLS with a self-signed certificate."""
    with FakeIndex(tls=True) as index:
        yield index


def test_an_untrusted_certificate_is_refused(tls_index: FakeIndex, start_proxy: StartProxy) -> None:
    """Waiting does not help against a wrong certificate: a 502 that names it, and no retry hint."""
    tls_index.add(make_wheel("demo"))
    reply = start_proxy(tls_index).get("/index/demo/")
    assert reply.status == 502
    assert "certificate" in reply.text.lower()
    assert len(reply.text.strip().splitlines()) == 1
    assert "retry-after" not in reply.headers
    assert tls_index.requests() == []


def test_verification_can_be_switched_off(tls_index: FakeIndex, start_proxy: StartProxy) -> None:
    """With the switch on, page and file come through, and the log says so loudly."""
    wheel = make_wheel("demo")
    tls_index.add(wheel)
    proxy = start_proxy(tls_index, disable_index_ssl_verification="yes")
    assert wheel.filename in proxy.get("/index/demo/").text
    assert proxy.get(f"/index/demo/{wheel.filename}").body == wheel.data
    assert "PROXPI_DISABLE_INDEX_SSL_VERIFICATION" in proxy.output


def test_an_abandoned_body_leaves_no_connection(tmp_path: Path, start_proxy: StartProxy) -> None:
    """A peer that falls silent, and answers no farewell either, does not keep a connection."""
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
            server.close()  # whoever tries again is refused
            with context.wrap_socket(connection, server_side=True) as silent:
                silent.recv(65536)
                silent.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
                assert asked.result().status == 503
                # Once more through the reactor: what it was to close is closed by then.
                assert proxy.get("/health").status == 200
                assert established(port) == 0


def established(port: int) -> int:
    """Count the connections that clients hold to a port of this machine (Linux)."""
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    fields = [line.split() for line in lines]
    return sum(1 for each in fields if each[2].endswith(f":{port:04X}") and each[3] == "01")
