"""Through a proxy that does what real ones do on bad days, and what is said at the start."""

from __future__ import annotations

import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.egress.conftest import StartProxy
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.forward import reserved
from tests.support.inside import overheard
from tests.support.proxy import Proxy
from tests.support.relay import ESTABLISHED, Relay

WHEEL = make_wheel("demo", padding=300_000)
#: A name that nobody can look up; with the switch, its certificate may be any.
NOWHERE = {"index_url": "https://index.test/simple/", "disable_index_ssl_verification": "on"}


def port_of(index: FakeIndex) -> int:
    """The port of an index."""
    port = urlsplit(index.origin).port
    assert port is not None
    return port


def test_names_are_the_proxy_s_to_look_up(
    tls_index: FakeIndex, tmp_path: Path, start_proxy: StartProxy
) -> None:
    """A name in an https URL is not looked up here either: the proxy gets it as it is."""
    tls_index.add(WHEEL)
    notes = tmp_path / "notes"
    with Relay(port_of(tls_index)) as relay:
        proxy = start_proxy(tls_index, HTTPS_PROXY=relay.url, **NOWHERE, **overheard(notes))
        assert proxy.get("/index/demo/").status == 200
        assert proxy.get(f"/index/demo/{WHEEL.filename}").body == WHEEL.data
    assert relay.heads[0].startswith("CONNECT index.test:443 HTTP/1.1\r\nHost: index.test:443\r\n")
    said = notes.read_text()
    assert relay.url.rpartition(":")[2] in said
    assert "index.test" not in said


def test_one_tunnel(tls_index: FakeIndex, start_proxy: StartProxy) -> None:
    """Page after page goes through one tunnel; a second one is made for what comes meanwhile."""
    tls_index.add(WHEEL)
    with Relay(port_of(tls_index)) as relay:
        proxy = start_proxy(tls_index, HTTPS_PROXY=relay.url, index_ttl=0)
        for _ in range(5):
            assert proxy.get("/index/demo/").status == 200
        assert len(relay.heads) == 1
    assert len(tls_index.requests()) == 5


def test_dropped_tunnel(tls_index: FakeIndex, start_proxy: StartProxy) -> None:
    """A tunnel that the proxy drops while it is idle is made again; the client notices nothing."""
    tls_index.add(WHEEL)
    with Relay(port_of(tls_index)) as relay:
        proxy = start_proxy(tls_index, HTTPS_PROXY=relay.url, index_ttl=0)
        for count in range(1, 4):
            reply = proxy.get("/index/demo/")
            assert (reply.status, reply.headers["x-cache"] == "STALE") == (200, False)
            assert len(relay.heads) == count
            relay.drop()


def test_tunnel_that_drops_when_it_is_used(tls_index: FakeIndex, start_proxy: StartProxy) -> None:
    """The same for one that looks open until the next request is sent into it."""
    tls_index.add(WHEEL)
    with Relay(port_of(tls_index)) as relay:
        proxy = start_proxy(tls_index, HTTPS_PROXY=relay.url, index_ttl=0)
        assert proxy.get("/index/demo/").status == 200
        relay.drop_when_used()
        reply = proxy.get("/index/demo/")
        assert (reply.status, reply.headers["x-cache"] == "STALE") == (200, False)
        assert len(relay.heads) == 2


def test_byte_by_byte(tls_index: FakeIndex, start_proxy: StartProxy) -> None:
    """A proxy that sends interim answers and its own byte by byte makes a tunnel all the same."""

    def slowly(connection: socket.socket) -> bool:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 \r\nContent-Length: 7\r\n\r\n":
            connection.sendall(bytes([byte]))
        return True

    tls_index.add(WHEEL)
    with Relay(port_of(tls_index), slowly) as relay:
        proxy = start_proxy(tls_index, HTTPS_PROXY=relay.url)
        assert proxy.get(f"/index/demo/{WHEEL.filename}").body == WHEEL.data


def closed(connection: socket.socket) -> bool:
    """Close without a word."""
    return False


def half(connection: socket.socket) -> bool:
    """Close in the middle of the answer."""
    connection.sendall(ESTABLISHED[:-1])
    return False


def endless(connection: socket.socket) -> bool:
    """Send headers without end, until nobody reads them."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X: y\r\n" * 1000)


def garbage(connection: socket.socket) -> bool:
    """Speak another language, and wait."""
    connection.sendall(b"SSH-2.0-OpenSSH_9\r\n")
    connection.recv(1)
    return False


def silent(connection: socket.socket) -> bool:
    """Say nothing, and wait."""
    connection.recv(1)
    return False


@pytest.mark.parametrize(
    ("speak", "cause"),
    [
        (closed, "the connection was closed"),
        (half, "the connection was closed"),
        (endless, "it does not answer as an HTTP proxy does"),
        (garbage, "it does not answer as an HTTP proxy does"),
        (silent, "timed out"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_bad_days(tls_index: FakeIndex, start_proxy: StartProxy, speak: object, cause: str) -> None:
    """Whatever a proxy says instead of an answer, it is named, and its connections are closed."""
    assert callable(speak)
    tls_index.add(WHEEL)
    with Relay(port_of(tls_index), speak) as relay:
        url = relay.url.replace("://", "://user:s3cr3t@")
        proxy = start_proxy(tls_index, HTTPS_PROXY=url, connect_timeout=0.5, read_timeout=0.5)
        reply = proxy.get("/index/demo/")
        assert reply.status == 503
        assert f"proxy {relay.url}: {cause}" in reply.text
        assert tls_index.origin not in reply.text
        relay.wait_until_left(at_most=1)  # it goes on trying, once at a time
        proxy.stop()
        assert "s3cr3t" not in proxy.output


@pytest.mark.parametrize("tls", [False, True])
def test_no_proxy_there(tls: bool, start_proxy: StartProxy) -> None:
    """A proxy that is not there, or whose name is nobody's, is named."""
    with reserved() as port, FakeIndex(tls=tls) as index:
        nobody = f"http://127.0.0.1:{port.getsockname()[1]}"
        causes = {nobody: "connection refused", "http://proxy.invalid:3128": ""}
        for url, cause in causes.items():
            proxy = start_proxy(index, HTTP_PROXY=url, HTTPS_PROXY=url)
            reply = proxy.get("/index/demo/")
            assert reply.status == 503
            assert f"proxy {url}: {cause}" in reply.text
            assert index.origin not in reply.text


def test_closed_after_the_answer(tls_index: FakeIndex, start_proxy: StartProxy) -> None:
    """A proxy that promises a tunnel and closes it leaves nobody waiting, and nothing open."""

    def promise(connection: socket.socket) -> bool:
        connection.sendall(ESTABLISHED)
        return False

    with Relay(port_of(tls_index), promise) as relay:
        proxy = start_proxy(tls_index, HTTPS_PROXY=relay.url)
        reply = proxy.get("/index/demo/")
        assert reply.status == 503
        assert "the connection was closed" in reply.text
        proxy.stop()
        assert "Traceback" not in proxy.output


def test_many_at_once(tls_index: FakeIndex, start_proxy: StartProxy) -> None:
    """Tunnels that are given up while they are made are closed, however many there are."""
    patience = {"connect_timeout": 0.5, "read_timeout": 0.5}
    with Relay(port_of(tls_index), silent) as relay:
        proxy = start_proxy(tls_index, HTTPS_PROXY=relay.url, **patience)
        with ThreadPoolExecutor(8) as threads:
            replies = list(threads.map(lambda n: proxy.get(f"/index/demo-{n}/"), range(8)))
        assert {reply.status for reply in replies} == {503}
        assert len(relay.heads) >= 8
        relay.wait_until_left(at_most=1)  # it goes on trying, once at a time


def test_what_is_said_at_the_start(start_proxy: StartProxy, fake_index: FakeIndex) -> None:
    """The start says which proxies are used, without their passwords."""
    url = "http://us3r:s3cr3t@127.0.0.1:9"
    proxy = start_proxy(fake_index, HTTP_PROXY=url, ALL_PROXY="https://proxy.test")
    proxy.wait_for_line(r"http goes through proxy http://127\.0\.0\.1:9$")
    proxy.wait_for_line(r"https goes through proxy https://proxy\.test:443$")
    assert not re.search("us3r|s3cr3t", proxy.output)


@pytest.mark.parametrize(
    ("variable", "text", "why"),
    [
        ("ALL_PROXY", "socks5://u:s3cr3t@127.0.0.1:1080", "socks5 proxies are not supported"),
        ("https_proxy", "socks5h://127.0.0.1:1080", "socks5h proxies are not supported"),
        ("HTTP_PROXY", "http://u:s3cr3t/@proxy:3128", "not understood"),
    ],
)
def test_a_proxy_that_is_not_supported(tmp_path: Path, variable: str, text: str, why: str) -> None:
    """A proxy that cannot be used ends the start with one line, and nothing around it."""
    with Proxy({variable: text}, folder=tmp_path, listens=False) as proxy:
        assert proxy.wait() == 1
        (line,) = proxy.output.splitlines()
    assert line.startswith(f"proxpi: {variable}=")
    assert line.endswith(f": {why}; an http or https URL with a host is accepted")
    assert "s3cr3t" not in line
