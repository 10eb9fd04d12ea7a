"""Forward proxies, real and misbehaving: what they serve, and the errors that name them."""

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
from tests.support.proxy import Proxy
from tests.support.servers import Connection, Server

KINDS = pytest.mark.parametrize("kind", [Tinyproxy, Squid])
WHEEL = make_wheel("demo", padding=300_000)
PATHS = ("/index/demo/", f"/index/demo/{WHEEL.filename}")
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


def variables(url: str) -> dict[str, str]:
    return {"HTTP_PROXY": url, "HTTPS_PROXY": url}


def assert_served(proxy: Proxy) -> None:
    page, file = (proxy.get(path) for path in PATHS)
    assert page.status == 200, page.text
    assert WHEEL.filename in page.text
    assert (file.status, file.body) == (200, WHEEL.data)


def netloc(index: FakeIndex) -> str:
    return index.origin.partition("://")[2]


@KINDS
@pytest.mark.parametrize("tls", [False, True])
def test_served(kind: type[Forward], tls: bool, start_proxy: StartProxy) -> None:
    """http URLs are requested at the proxy, https URLs through one tunnel.

    The credentials of the proxy are sent to it alone.
    """
    with FakeIndex(tls=tls) as index, kind(locked=True) as forward:
        index.add(WHEEL)
        proxy = start_proxy(index, prefetch="off", **variables(forward.private_url))
        assert_served(proxy)
        proxy.stop()
        requests = index.requests()
    if tls:
        assert forward.served == [("CONNECT", netloc(index))]
        assert len(requests) == 2
    else:
        assert forward.served == [("GET", index.origin + seen.path) for seen in requests]
    assert not any("proxy-authorization" in seen.headers for seen in requests)


@KINDS
@pytest.mark.parametrize("tls", [False, True])
def test_locked_out(kind: type[Forward], tls: bool, start_proxy: StartProxy) -> None:
    """407 is a 502 that names the proxy; no password is written anywhere."""
    with FakeIndex(tls=tls) as index, kind(locked=True) as forward:
        index.add(WHEEL)
        wrong = forward.url.replace("://", f"://{USER}:wr0ng-s3cr3t@")
        for url, wanted in ((wrong, "other credentials"), (forward.url, "credentials")):
            proxy = start_proxy(index, logging_level="DEBUG", **variables(url))
            for reply in map(proxy.get, PATHS):
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
    """A proxy may speak TLS, and carry another TLS connection.

    One whose certificate is not trusted is named, and gets no credentials.
    """
    certificate = make_certificate(tmp_path, "forward")
    with FakeIndex(tls=tls) as index, Squid(locked=True, certificate=certificate) as forward:
        index.add(WHEEL)
        proxy = start_proxy(index, **variables(forward.private_url))
        reply = proxy.get("/index/demo/")
        proxy.stop()
        assert reply.status == 502
        assert re.search(f"proxy {forward.url}: .*certificate", reply.text)
        assert index.origin not in reply.text
        settings = {"ca_bundle": certificate, "prefetch": "off"}
        proxy = start_proxy(index, **settings, **variables(forward.private_url))
        assert_served(proxy)
        proxy.stop()
    assert [method for method, _ in forward.served] == (["CONNECT"] if tls else ["GET", "GET"])


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
        given = {"prefetch": "off", "NO_PROXY": netloc(index), **variables(forward.url)}
        assert_served(start_proxy(index, **given))
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
    with Squid(locked=True, certificate=certificate) as forward:
        proxy = start_proxy(
            tls_index,
            index_url=tls_index.url.replace("://", "://reader:inde%2B%20s3cr3t@"),
            logging_level="DEBUG",
            ca_bundle=certificate,
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


class Relay(Server):
    """A forward proxy that drops tunnels on demand, or that only `speak` answers, without tunnels.

    :ivar heads: the heads of the requests
    """

    def __init__(
        self, index: FakeIndex, speak: Callable[[socket.socket], object] | None = None
    ) -> None:
        super().__init__()
        self._behind = int(index.origin.rpartition(":")[2])
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
            if self._speak is not None:
                self._speak(connection)
            else:
                connection.sendall(ESTABLISHED)
                self.join(connection, self._behind, lambda: connection in self._doomed)


@pytest.mark.parametrize("when_used", [False, True])
def test_dropped_tunnel(tls_index: FakeIndex, start_proxy: StartProxy, when_used: bool) -> None:
    """One tunnel serves request after request; one that the proxy drops is replaced unnoticed."""
    tls_index.add(WHEEL)
    with Relay(tls_index) as relay:
        settings = {"index_ttl": 0, "prefetch": "off"}
        proxy = start_proxy(tls_index, HTTPS_PROXY=relay.origin, **settings)
        for tunnels in (1, 1, 2):
            if tunnels == 2:
                (relay.drop_when_used if when_used else relay.drop)()
            reply = proxy.get("/index/demo/")
            assert (reply.status, reply.headers["x-cache"] == "STALE") == (200, False)
            assert len(relay.heads) == tunnels


def endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X: y\r\n" * 1000)


@pytest.mark.parametrize(
    ("speak", "cause"),
    [
        pytest.param(
            lambda one: one.sendall(ESTABLISHED[:-1]), "the connection was closed", id="half"
        ),
        pytest.param(endless, "it does not answer as an HTTP proxy does", id="endless"),
        pytest.param(lambda one: one.recv(1), "timed out", id="silent"),
    ],
)
def test_misbehaving(
    tls_index: FakeIndex,
    start_proxy: StartProxy,
    speak: Callable[[socket.socket], object],
    cause: str,
) -> None:
    """A proxy that opens no tunnel is named, and all connections to it are closed."""
    with Relay(tls_index, speak) as relay:
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
