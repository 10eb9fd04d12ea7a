"""Requests that are refused: a client reads why, also one that has not finished writing."""

from __future__ import annotations

import email
import http.client
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import make_certificate
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.proxy import GUARD_SECONDS, Proxy

MIB = 1 << 20
PLAIN = "tcp:0:interface=127.0.0.1"
HEAD = b"GET /index/demo/ HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy that listens plainly, and with TLS; its page of ``demo`` is in the cache."""
    folder = tmp_path_factory.mktemp("refused")
    pem = make_certificate(folder)
    tls = f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}"
    with FakeIndex() as index:
        index.add(make_wheel("demo"))
        settings = {"PROXPI_INDEX_URL": index.url}
        options = [f"--listen={PLAIN}", f"--listen={tls}"]
        with Proxy(settings, options, folder=folder) as running:
            assert exchange(running, HEAD + HEAD).count(b"HTTP/1.1 200 OK") == 2
            yield running


def connected(proxy: Proxy, scheme: str = "http") -> socket.socket:
    """Connect to one of its listeners."""
    found = re.search(rf"{scheme}://127\.0\.0\.1:(\d+)/", proxy.output)
    assert found is not None
    client = socket.create_connection(("127.0.0.1", int(found[1])), GUARD_SECONDS)
    if scheme == "http":
        return client
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(client)


def exchange(proxy: Proxy, *parts: bytes, scheme: str = "http", end: bool = True) -> bytes:
    """Send all, close the sending side if it is to, and read until the end of the connection."""
    with connected(proxy, scheme) as client:
        for part in parts:
            client.sendall(part)
        if end:
            client.shutdown(socket.SHUT_WR)
        received = b""
        while part := client.recv(65536):
            received += part
    return received


def read_whole(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Take an answer apart, which must be one whole answer and nothing else."""
    head, _, body = answer.partition(b"\r\n\r\n")
    line, _, fields = head.partition(b"\r\n")
    headers = {name.lower(): value for name, value in email.message_from_bytes(fields).items()}
    assert int(headers["content-length"]) == len(body), answer
    return int(line.split()[1]), headers, body


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (HEAD.replace(b"Host: h\r\n", b""), 400),
        (HEAD.replace(b"Host: h", b"Host: h\r\nHost: h"), 400),
        (HEAD.replace(b"Host: h", b"Host: h/x"), 400),
        (HEAD.replace(b"Host: h", b"Host:"), 400),
        (HEAD.replace(b"GET /", b"GET "), 400),
        (HEAD.replace(b"GET ", b"GET  "), 400),
        (HEAD.replace(b"\r\n", b"\n"), 400),
        (HEAD.replace(b"Host: h", b"Host: h\r\n folded"), 400),
        (HEAD.replace(b"Host: h", b"Host: h\r\nX : y"), 400),
        (HEAD.replace(b"Host: h", b"Host: h\r\n" + b"x" * 300 + b": y"), 400),
        (HEAD.replace(b"Host: h", b"Host: h\r\nX: " + b"y" * 17_000), 431),
        (HEAD.replace(b"Host: h", b"Host: h\r\nX: " + b"y" * 3_000_000), 431),
        (HEAD.replace(b"Host: h", b"Host: h" + b"\r\nX: y" * 600), 431),
        (HEAD.replace(b"demo", b"x" * 17_000), 414),
        (HEAD.replace(b"demo", b"x" * 3_000_000), 414),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (HEAD.replace(b"GET", b"CONNECT"), 405),
        (HEAD.replace(b"Host: h", b"Host: h\r\nContent-Length: 1\r\nContent-Length: 2"), 400),
        (
            HEAD.replace(b"Host: h", b"Host: h\r\nContent-Length: 9\r\nTransfer-Encoding: chunked"),
            400,
        ),
    ],
    ids=lambda value: repr(value)[:40],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_malformed(proxy: Proxy, scheme: str, request_: bytes, status: int) -> None:
    """A malformed request gets a whole answer; what is pipelined behind it gets none."""
    answer = exchange(proxy, request_ + HEAD, scheme=scheme, end=False)
    found, headers, body = read_whole(answer)
    assert found == status
    assert headers["connection"] == "close"
    assert headers["date"].endswith(" GMT")
    assert headers["content-type"].startswith("text/plain")
    assert re.fullmatch(rb"[ -~]+\.\n", body)


def test_pipelined_behind_good_ones(proxy: Proxy) -> None:
    """What comes before a malformed request is answered first."""
    answer = exchange(proxy, HEAD + HEAD + HEAD.replace(b"Host", b"Hos") + HEAD, end=False)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"200", b"400"]


def test_learned_head_with_a_bad_host(proxy: Proxy) -> None:
    """What the response cache answers is as strict."""
    for _ in range(3):
        assert b" 200 OK" in exchange(proxy, HEAD)
        for bad in (b"", b"Host: a b\r\n", b"Host: h\r\nHost: i\r\n"):
            assert b" 400 " in exchange(proxy, HEAD.replace(b"Host: h\r\n", bad))


def test_target_with_an_authority(proxy: Proxy) -> None:
    """What looks like a path, and is in the query of a URL, is none."""
    line = b"DELETE http://x?y=/cache/demo HTTP/1.1"
    answer = exchange(proxy, HEAD.replace(b"GET /index/demo/ HTTP/1.1", line))
    assert b" 405 " in answer
    assert b"X-Cache: HIT" in exchange(proxy, HEAD)


@pytest.mark.parametrize("connection", [b"TE,close", b"TE, Close", b"close", b"x ,CLOSE, y"])
def test_closes_as_asked(proxy: Proxy, connection: bytes) -> None:
    """``close`` in a list closes the connection."""
    head = HEAD.replace(b"Host: h", b"Host: h\r\nConnection: " + connection)
    answer = exchange(proxy, head, end=False)
    assert b"\r\nConnection: close\r\n" in answer


@pytest.mark.parametrize("path", ["/index/demo/", "/index/", "/nothing", "/cache", "/"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_upload(proxy: Proxy, scheme: str, method: str, path: str) -> None:
    """A client that writes 20 MiB before it reads learns that it may not, and which methods do."""
    with connected(proxy, scheme) as client:
        connection = http.client.HTTPConnection("proxpi.example")
        connection.sock = client
        connection.request(method, path, body=bytes(20 * MIB))
        answer = connection.getresponse()
        body = answer.read()
    assert answer.status == (404 if path == "/nothing" else 405)
    if answer.status == 405:
        assert "OPTIONS" in (answer.getheader("Allow") or "")
    assert body


@pytest.mark.parametrize("size", [0, 1, 100, 65_536, 65_537, 100_000])
def test_answered_by_the_head(proxy: Proxy, size: int) -> None:
    """The answer is there before any of the body; a short body may follow, and a next request."""
    post = b"POST /index/demo/ HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size
    with connected(proxy) as client:
        client.sendall(post)
        answer = b""
        while not answer.endswith(b"uploaded here.\n"):
            part = client.recv(65536)
            assert part
            answer += part
        assert answer.startswith(b"HTTP/1.1 405 ")
        client.sendall(b"x" * size + HEAD)
        client.shutdown(socket.SHUT_WR)
        rest = b""
        while part := client.recv(65536):
            rest += part
    assert rest.count(b"HTTP/1.1 ") == (1 if size <= 65_536 else 0)


@pytest.mark.parametrize("expect", [["-H", "Expect: 100-continue"], ["-H", "Expect:"]])
@pytest.mark.parametrize("how", ["form", "chunked", "put"])
def test_curl(proxy: Proxy, tmp_path: Path, how: str, expect: list[str]) -> None:
    """curl reads the sentence, however it uploads."""
    file = tmp_path / "upload"
    file.write_bytes(bytes(20 * MIB))
    ways = {
        "form": ["-F", f"content=@{file}"],
        "chunked": ["-H", "Transfer-Encoding: chunked", "--data-binary", f"@{file}"],
        "put": ["-T", str(file)],
    }
    command = ["curl", "-sS", "-w", "%{http_code}", *ways[how], *expect, f"{proxy.url}demo/"]
    done = subprocess.run(command, capture_output=True, timeout=GUARD_SECONDS, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.endswith(b"nothing can be uploaded here.\n405")


def test_delete_with_a_body(proxy: Proxy) -> None:
    """A DELETE acts with a short body, and is refused with one that is too long."""
    assert proxy.request("DELETE", "/cache/other", body=b"x" * 1000).status == 200
    assert proxy.request("DELETE", "/cache/other", body=b"x" * 100_000).status == 413


@pytest.mark.parametrize("path", [b"/index/demo/", b"/health", b"/", b"/index/cold/"])
def test_half_closed(proxy: Proxy, path: bytes) -> None:
    """A client that has closed its sending side gets its answer, and then the end."""
    answer = exchange(proxy, HEAD.replace(b"/index/demo/", path))
    status, _, _ = read_whole(answer)
    assert status == (404 if path == b"/index/cold/" else 200)


def test_half_closed_with_several(proxy: Proxy) -> None:
    """All that it asked before is answered."""
    assert exchange(proxy, HEAD * 50).count(b"HTTP/1.1 200 OK") == 50


def test_half_closed_within_a_head(proxy: Proxy) -> None:
    """What can never become a request ends."""
    assert exchange(proxy, HEAD[:-3]) == b""


def test_access_log(proxy: Proxy) -> None:
    """Refusals are in the access log."""
    exchange(proxy, b"\x1b[2J HTTP/1.1\r\n\r\n", end=False)
    proxy.wait_for_line(r"127\.0\.0\.1 - - 400 \d+ - ")
    assert "\x1b" not in proxy.output
