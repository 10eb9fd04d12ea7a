"""Forward proxies, real ones and one that misbehaves: pages and files come through them, a failure
names the proxy, and its credentials are sent to it alone."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.egress.forward import USER, Forward, Squid, Tinyproxy
from tests.support.certificates import make_certificate
from tests.support.clients import pip_install, uv_install
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.inside import overheard
from tests.support.process import GUARD_SECONDS
from tests.support.processes import StartProxy
from tests.support.proxy import Proxy, Reply
from tests.support.servers import Connection, Server

KINDS = pytest.mark.parametrize("kind", [Tinyproxy, Squid])
WHEEL = make_wheel("demo", padding=300_000)
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


def page_and_file(proxy: Proxy) -> list[Reply]:
    return [proxy.get("/index/demo/"), proxy.get(f"/index/demo/{WHEEL.filename}")]


def variables(url: str) -> dict[str, str]:
    return {"HTTP_PROXY": url, "HTTPS_PROXY": url}


def assert_served(proxy: Proxy) -> None:
    """Page and file come through whole."""
    page, file = page_and_file(proxy)
    assert page.status == 200, page.text
    assert WHEEL.filename in page.text
    assert (file.status, file.body) == (200, WHEEL.data)


def netloc(index: FakeIndex) -> str:
    return index.origin.partition("://")[2]


@KINDS
def test_plain(kind: type[Forward], fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """http URLs are requested at the proxy; its credentials are sent to it alone."""
    fake_index.add(WHEEL)
    with kind(locked=True) as forward:
        assert_served(start_proxy(fake_index, **variables(forward.private_url)))
    assert {method for method, _ in forward.served} == {"GET"}
    assert {seen.path for seen in fake_index.requests()} == {
        target.removeprefix(fake_index.origin) for _, target in forward.served
    }
    assert not any("proxy-authorization" in seen.headers for seen in fake_index.requests())


@KINDS
def test_tunnel(kind: type[Forward], tls_index: FakeIndex, start_proxy: StartProxy) -> None:
    """https URLs are requested through one tunnel, in which no credentials of the proxy are."""
    tls_index.add(WHEEL)
    with kind(locked=True) as forward:
        proxy = start_proxy(tls_index, **variables(forward.private_url))
        assert_served(proxy)
        proxy.stop()
    assert forward.served == [("CONNECT", netloc(tls_index))]
    assert len(tls_index.requests()) == 2
    assert not any("proxy-authorization" in seen.headers for seen in tls_index.requests())


@KINDS
@pytest.mark.parametrize("tls", [False, True])
def test_locked_out(kind: type[Forward], tls: bool, start_proxy: StartProxy) -> None:
    """407 is a 502 that names the proxy; no password is written anywhere."""
    with FakeIndex(tls=tls) as index, kind(locked=True) as forward:
        index.add(WHEEL)
        wrong = forward.url.replace("://", f"://{USER}:wr0ng-s3cr3t@")
        for url, wanted in ((wrong, "other credentials"), (forward.url, "credentials")):
            proxy = start_proxy(index, logging_level="DEBUG", **variables(url))
            for reply in page_and_file(proxy):
                assert reply.status == 502
                # tinyproxy has 401 for what is wrong.
                assert f"proxy {forward.url}: it wants {wanted} (status 40" in reply.text
                assert index.origin not in reply.text
                assert "proxy-authenticate" not in reply.headers
                assert "s3cr3t" not in repr(reply.headers) + reply.text
            proxy.wait_for_line(f"proxy {forward.url}: it wants {wanted}")
            proxy.stop()
            assert "s3cr3t" not in proxy.output
        assert index.requests() == []


@KINDS
@pytest.mark.parametrize("tls", [False, True])
def test_cannot_connect(kind: type[Forward], tls: bool, start_proxy: StartProxy) -> None:
    """A proxy that cannot connect says so; waiting may help."""
    with FakeIndex(tls=tls) as index, kind() as forward:
        index.close()
        reply = start_proxy(index, **variables(forward.url)).get("/index/demo/")
    assert reply.status == 503
    assert f"proxy {forward.url}: it could not connect (status 50" in reply.text
    assert "retry-after" in reply.headers


@pytest.mark.parametrize("tls", [False, True])
def test_refuses(tls: bool, start_proxy: StartProxy) -> None:
    """The 403 of a proxy says nothing about projects: no lower index answers instead."""
    with (
        FakeIndex(tls=tls) as index,
        FakeIndex() as extra,
        Squid(denied=[netloc(index).rpartition(":")[2]]) as forward,
    ):
        extra.add(WHEEL)
        urls = variables(forward.url)
        reply = start_proxy(index, extra_index_urls=extra.url, **urls).get("/index/demo/")
    assert reply.status == 502
    assert f"proxy {forward.url}: it refuses to connect (status 403)" in reply.text
    assert "retry-after" not in reply.headers


@pytest.mark.parametrize("tls", [False, True])
def test_secure_proxy(tls: bool, tmp_path: Path, start_proxy: StartProxy) -> None:
    """A proxy may speak TLS, and carry another TLS connection."""
    certificate = make_certificate(tmp_path, "forward")
    with FakeIndex(tls=tls) as index, Squid(locked=True, certificate=certificate) as forward:
        index.add(WHEEL)
        trusted = certificate.read_text()
        if index.certificate:
            trusted += index.certificate.read_text()
        bundle = tmp_path / "trusted.pem"
        bundle.write_text(trusted)
        proxy = start_proxy(index, SSL_CERT_FILE=bundle, **variables(forward.private_url))
        assert forward.private_url.startswith("https://")
        assert_served(proxy)
        proxy.stop()
    assert [method for method, _ in forward.served] == (["CONNECT"] if tls else ["GET", "GET"])


@pytest.mark.parametrize("tls", [False, True])
def test_untrusted_proxy(tls: bool, tmp_path: Path, start_proxy: StartProxy) -> None:
    """A proxy whose certificate is not trusted is named, and gets no credentials."""
    certificate = make_certificate(tmp_path, "forward")
    with FakeIndex(tls=tls) as index, Squid(locked=True, certificate=certificate) as forward:
        reply = start_proxy(index, **variables(forward.private_url)).get("/index/demo/")
        assert reply.status == 502
        assert f"proxy {forward.url}: " in reply.text
        assert "certificate" in reply.text
        assert index.origin not in reply.text
    assert forward.served == []


def test_names(fake_index: FakeIndex, tmp_path: Path, start_proxy: StartProxy) -> None:
    """A name that only the proxy knows is neither looked up nor connected to here."""
    fake_index.add(WHEEL)
    port = fake_index.origin.rpartition(":")[2]
    notes = tmp_path / "notes"
    with Squid(hosts={"index.test": "127.0.0.1"}) as forward:
        proxy = start_proxy(
            fake_index,
            index_url=f"http://index.test:{port}/simple/",
            **variables(forward.url),
            **overheard(notes),
        )
        assert_served(proxy)
    said = notes.read_text()
    assert forward.url.rpartition(":")[2] in said
    assert "index.test" not in said
    assert port not in said


def test_no_proxy(start_proxy: StartProxy) -> None:
    """``NO_PROXY`` is applied to each host: the index directly, its files through the proxy."""
    with FakeIndex(files_elsewhere=True) as index, Tinyproxy() as forward:
        index.add(WHEEL)
        assert_served(start_proxy(index, NO_PROXY=netloc(index), **variables(forward.url)))
    assert [target.partition("/files/")[0] for _, target in forward.served] == [index.files_url]


@pytest.mark.parametrize("install", [pip_install, uv_install])
def test_install(
    install: object, tls_index: FakeIndex, tmp_path: Path, start_proxy: StartProxy
) -> None:
    """pip and uv install through proxpi, a locked proxy with TLS and TLS, from a locked index."""
    assert callable(install)
    tls_index.require_auth("reader", "inde+ s3cr3t")
    tls_index.add(make_wheel("demo-app", requires=["demo"]))
    tls_index.add(WHEEL)
    certificate = make_certificate(tmp_path, "forward")
    assert tls_index.certificate is not None
    bundle = tmp_path / "trusted.pem"
    bundle.write_text(certificate.read_text() + tls_index.certificate.read_text())
    with Squid(locked=True, certificate=certificate) as forward:
        proxy = start_proxy(
            tls_index,
            index_url=tls_index.url.replace("://", "://reader:inde%2B%20s3cr3t@"),
            logging_level="DEBUG",
            SSL_CERT_FILE=bundle,
            **variables(forward.private_url),
        )
        environment, output = install(tmp_path / "client", proxy.url, "demo-app")
        assert environment.version_of("demo") == "1.0"
        proxy.stop()
    assert {target for _, target in forward.served} == {netloc(tls_index)}
    assert all("authorization" in seen.headers for seen in tls_index.requests())
    assert not any("proxy-authorization" in seen.headers for seen in tls_index.requests())
    for secret in ("s3cr3t", forward.password, "reader", USER):
        assert secret not in proxy.output
        assert secret not in output


def port_of(index: FakeIndex) -> int:
    return int(index.origin.rpartition(":")[2])


def open_tunnel(connection: socket.socket) -> bool:
    connection.sendall(ESTABLISHED)
    return True


class Relay(Server):
    """A forward proxy that lies, stalls and drops on demand; all tunnels lead to one port.

    :ivar speak: answers a request for a tunnel; tells whether there is to be one
    :ivar heads: the heads of the requests
    """

    def __init__(self, port: int, speak: Callable[[socket.socket], bool] = open_tunnel) -> None:
        super().__init__()
        self._behind = port
        self._speak = speak
        self.heads: list[str] = []
        self._doomed: set[socket.socket] = set()

    def drop_when_used(self) -> None:
        """Let each open tunnel go on until bytes are sent into it, then close it."""
        with self._changed:
            self._doomed = set(self._open)

    def wait_until_left(self, at_most: int) -> None:
        """Wait until the clients have closed their connections, all but so many."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._open) <= at_most, GUARD_SECONDS)

    def serve(self, connection: socket.socket, number: int) -> None:
        if head := Connection(number, connection).head():
            self.heads.append(head)
            if self._speak(connection):
                self.join(connection, self._behind, lambda: connection in self._doomed)


@pytest.mark.parametrize("when_used", [False, True])
def test_dropped_tunnel(tls_index: FakeIndex, start_proxy: StartProxy, when_used: bool) -> None:
    """One tunnel serves request after request; one that the proxy drops is replaced unnoticed."""
    tls_index.add(WHEEL)
    with Relay(port_of(tls_index)) as relay:
        proxy = start_proxy(tls_index, HTTPS_PROXY=relay.origin, index_ttl=0)
        for tunnels in (1, 1, 2):
            if tunnels == 2:
                (relay.drop_when_used if when_used else relay.drop)()
            reply = proxy.get("/index/demo/")
            assert (reply.status, reply.headers["x-cache"] == "STALE") == (200, False)
            assert len(relay.heads) == tunnels


def half(connection: socket.socket) -> bool:
    """Close in the middle of the head."""
    connection.sendall(ESTABLISHED[:-1])
    return False


def endless(connection: socket.socket) -> bool:
    """Send fields without end, until the connection is closed."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X: y\r\n" * 1000)


def silent(connection: socket.socket) -> bool:
    connection.recv(1)
    return False


@pytest.mark.parametrize(
    ("speak", "cause"),
    [
        (half, "the connection was closed"),
        (endless, "it does not answer as an HTTP proxy does"),
        (silent, "timed out"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_misbehaving(
    tls_index: FakeIndex,
    start_proxy: StartProxy,
    speak: Callable[[socket.socket], bool],
    cause: str,
) -> None:
    """A proxy that opens no tunnel is named, and all connections to it are closed."""
    with Relay(port_of(tls_index), speak) as relay:
        url = relay.origin.replace("://", "://user:s3cr3t@")
        proxy = start_proxy(tls_index, HTTPS_PROXY=url, connect_timeout=0.5, read_timeout=0.5)
        with ThreadPoolExecutor(8) as threads:
            replies = list(threads.map(lambda n: proxy.get(f"/index/demo-{n}/"), range(8)))
        for reply in replies:
            assert reply.status == 503
            assert f"proxy {relay.origin}: {cause}" in reply.text
            assert tls_index.origin not in reply.text
        relay.wait_until_left(at_most=1)  # retries go on, one at a time
        proxy.stop()
        assert "s3cr3t" not in proxy.output


def test_start(start_proxy: StartProxy, fake_index: FakeIndex) -> None:
    """The start says which proxies are used, without their passwords."""
    url = "http://us3r:s3cr3t@127.0.0.1:9"
    proxy = start_proxy(fake_index, HTTP_PROXY=url, ALL_PROXY="https://proxy.test")
    proxy.wait_for_line(r"http goes through proxy http://127\.0\.0\.1:9$")
    proxy.wait_for_line(r"https goes through proxy https://proxy\.test:443$")
    assert not re.search("us3r|s3cr3t", proxy.output)
