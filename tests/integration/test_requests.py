"""Malformed requests, uploads and half-closed connections: a client reads why it is refused."""

from __future__ import annotations

import email
import http.client
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import sockets
from tests.support.certificates import make_certificate
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.process import GUARD_SECONDS
from tests.support.processes import proxies
from tests.support.proxy import Proxy

MIB = 1 << 20
HEAD = b"GET /index/demo/ HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.fixture(scope="module")
def proxy(shared_index: FakeIndex, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy with a plain and a TLS listener; its page of ``demo`` is in the response cache."""
    folder = tmp_path_factory.mktemp("requests")
    pem = make_certificate(folder)
    tls = f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}"
    shared_index.add(make_wheel("demo"))
    with proxies(folder) as start:
        options = ["--listen=tcp:0:interface=127.0.0.1", f"--listen={tls}"]
        running = start(shared_index, *options)
        assert exchange(running, HEAD + HEAD).count(b"HTTP/1.1 200 OK") == 2
        yield running


def connected(proxy: Proxy, scheme: str = "http") -> socket.socket:
    return sockets.connect_tls(proxy) if scheme == "https" else sockets.connect(proxy.origin)


def exchange(proxy: Proxy, data: bytes, scheme: str = "http", *, end: bool = True) -> bytes:
    """Send data, half-close the connection if `end`, and read until the server closes it."""
    with connected(proxy, scheme) as client:
        client.sendall(data)
        if end:
            client.shutdown(socket.SHUT_WR)
        return sockets.read_all(client)


def read_whole(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Parse one whole response with nothing behind it, but perhaps a 100 (RFC 9110 15.2) before."""
    answer = answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    line, _, fields = head.partition(b"\r\n")
    headers = {name.lower(): value for name, value in email.message_from_bytes(fields).items()}
    assert int(headers["content-length"]) == len(body), answer
    return int(line.split()[1]), headers, body


def with_fields(*lines: bytes) -> bytes:
    """Write a request with further header fields."""
    return HEAD.replace(b"Host: h", b"\r\n".join([b"Host: h", *lines]))


MALFORMED = {
    HEAD.replace(b"Host: h\r\n", b""): 400,
    HEAD.replace(b"Host: h", b"Host: h/x"): 400,
    HEAD.replace(b"Host: h", b"Host:"): 400,
    HEAD.replace(b"GET /", b"GET "): 400,
    HEAD.replace(b"GET ", b"GET  "): 400,
    HEAD.replace(b"\r\n", b"\n"): 400,
    with_fields(b"Host: h"): 400,
    with_fields(b" folded"): 400,
    with_fields(b"X : y"): 400,
    with_fields(b"x" * 300 + b": y"): 400,
    with_fields(b"X: " + b"y" * 17_000): 431,
    with_fields(b"X: " + b"y" * 3_000_000): 431,
    with_fields(*[b"X: y"] * 600): 431,
    HEAD.replace(b"demo", b"x" * 17_000): 414,
    HEAD.replace(b"demo", b"x" * 3_000_000): 414,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n": 505,
    b"\x16\x03\x01\x02\r\n\r\n": 400,
    HEAD.replace(b"GET", b"CONNECT"): 405,
    with_fields(b"Content-Length: 1", b"Content-Length: 2"): 400,
    with_fields(b"Content-Length: 9", b"Transfer-Encoding: chunked"): 400,
}


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_malformed(proxy: Proxy, scheme: str) -> None:
    """A malformed request gets a whole response; what is pipelined behind it gets none."""
    for request, status in MALFORMED.items():
        found, headers, body = read_whole(exchange(proxy, request + HEAD, scheme, end=False))
        assert found == status, request[:60]
        assert headers["connection"] == "close"
        assert headers["date"].endswith(" GMT")
        assert headers["content-type"].startswith("text/plain")
        assert re.fullmatch(rb"[ -~]+\.\n", body)
    exchange(proxy, b"\x1b[2J HTTP/1.1\r\n\r\n", end=False)
    proxy.wait_for_line(r"127\.0\.0\.1 - - 400 \d+ 0ms REFUSED ")
    assert "\x1b" not in proxy.output


def test_malformed_among_others(proxy: Proxy) -> None:
    """Requests before a malformed one are answered; the response cache is as strict."""
    answer = exchange(proxy, HEAD + HEAD + HEAD.replace(b"Host", b"Hos") + HEAD, end=False)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"200", b"400"]
    for bad in (b"", b"Host: a b\r\n", b"Host: h\r\nHost: i\r\n"):
        assert b" 200 OK" in exchange(proxy, HEAD)
        assert b" 400 " in exchange(proxy, HEAD.replace(b"Host: h\r\n", bad))
    # A path in the query of a URL is no path.
    line = b"DELETE http://x?y=/cache/demo HTTP/1.1"
    assert b" 405 " in exchange(proxy, HEAD.replace(b"GET /index/demo/ HTTP/1.1", line))
    assert b"X-Cache: HIT" in exchange(proxy, HEAD)
    for connection in (b"TE,close", b"TE, Close", b"close", b"x ,CLOSE, y"):
        answer = exchange(proxy, with_fields(b"Connection: " + connection), end=False)
        assert b"\r\nConnection: close\r\n" in answer


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_upload(proxy: Proxy, scheme: str) -> None:
    """A client that writes 20 MiB before it reads gets a 405 with the allowed methods."""
    for path in ("/index/demo/", "/index/", "/nothing", "/cache", "/"):
        for method in ("POST", "PUT"):
            connection = http.client.HTTPConnection("proxpi.example")
            connection.sock = connected(proxy, scheme)
            connection.request(method, path, body=bytes(20 * MIB))
            answer = connection.getresponse()
            assert answer.read()
            assert answer.status == (404 if path == "/nothing" else 405)
            assert path == "/nothing" or "OPTIONS" in (answer.getheader("Allow") or "")
            connection.close()


@pytest.mark.parametrize("expect", ["Expect: 100-continue", "Expect:"])
def test_curl(proxy: Proxy, tmp_path: Path, expect: str) -> None:
    """curl shows the sentence for every kind of upload."""
    file = tmp_path / "upload"
    file.write_bytes(bytes(20 * MIB))
    for upload in (
        ["-F", f"content=@{file}"],
        ["-H", "Transfer-Encoding: chunked", "--data-binary", f"@{file}"],
        ["-T", str(file)],
    ):
        command = ["curl", "-sS", "-w", "%{http_code}", *upload, "-H", expect, f"{proxy.url}demo/"]
        done = subprocess.run(command, capture_output=True, timeout=GUARD_SECONDS, check=False)
        assert (done.returncode, done.stderr) == (0, b""), upload
        assert done.stdout.endswith(b"nothing can be uploaded here.\n405")


def test_half_closed(proxy: Proxy) -> None:
    """A client that has half-closed its connection gets all its responses, and then the end."""
    for path in (b"/index/demo/", b"/health", b"/", b"/index/cold/"):
        status, _, _ = read_whole(exchange(proxy, HEAD.replace(b"/index/demo/", path)))
        assert status == (404 if path == b"/index/cold/" else 200)
    assert exchange(proxy, HEAD * 50).count(b"HTTP/1.1 200 OK") == 50
    assert exchange(proxy, HEAD[:-3]) == b""
