"""Upstreams whose files change, and clients that read nothing, over real sockets."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

import pytest

from tests.integration.conftest import StartProxy
from tests.support.proxy import GUARD_SECONDS

JSON = "application/vnd.pypi.simple.v1+json"
OLD, NEW = bytes(range(256)) * 2000, bytes(reversed(range(256))) * 1200
Handler = Callable[[BaseHTTPRequestHandler], None]
StartServer = Callable[[dict[str, Handler]], str]


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Starts servers that answer by path; gives the origin."""
    with ExitStack() as stack:

        def start(answers: dict[str, Handler]) -> str:
            class Answering(BaseHTTPRequestHandler):
                protocol_version = "HTTP/1.1"

                def do_GET(self) -> None:
                    answers[self.path](self)

                def log_message(self, *_: object) -> None:
                    """Say nothing."""

            server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
            server.daemon_threads = True
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            Thread(target=server.serve_forever, daemon=True).start()
            return f"http://127.0.0.1:{server.server_port}"

        yield start


def send(data: bytes, **headers: str) -> Handler:
    """Answer with all of this."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(data)

    return answer


def page(*names: str) -> Handler:
    """Answer with a page that lists these files, and says nothing of them."""
    files = [{"filename": name, "url": f"/files/{name}", "hashes": {}} for name in names]
    document = {"meta": {"api-version": "1.0"}, "name": "demo", "files": files}
    return send(json.dumps(document).encode(), Content_Type=JSON)


def in_chunks(data: bytes, *, whole: bool) -> Handler:
    """Answer with this in chunks, with the last one only if it is to be whole."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        if whole:
            request.wfile.write(b"0\r\n\r\n")
        request.close_connection = not whole

    return answer


@pytest.mark.parametrize("slow_download", ["redirect", "stream"])
@pytest.mark.parametrize("new", [NEW, OLD[:300_000], NEW + OLD], ids=["other", "shorter", "longer"])
def test_versions(
    start_server: StartServer, start_proxy: StartProxy, slow_download: str, new: bytes
) -> None:
    """A file that changes while it breaks off is kept as the version that came whole."""
    answers = [in_chunks(OLD[:-23], whole=False), in_chunks(new, whole=True)]

    def next_answer(request: BaseHTTPRequestHandler) -> None:
        (answers.pop(0) if len(answers) > 1 else answers[0])(request)

    name = "demo-1.0.tar.gz"
    origin = start_server({"/simple/demo/": page(name), f"/files/{name}": next_answer})
    proxy = start_proxy(index_url=f"{origin}/simple/", slow_download=slow_download)
    path = f"/index/demo/{name}"
    if slow_download == "stream":  # whoever began to read the old version is cut off
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            proxy.get(path)
    assert proxy.get(path).body == new
    reply = proxy.get(path)
    assert (reply.body == new, reply.headers["x-cache"]) == (True, "HIT")


@pytest.mark.parametrize("connections", [1, 2, 4])
def test_client_that_reads_nothing(
    start_server: StartServer, start_proxy: StartProxy, connections: int
) -> None:
    """Clients that read nothing of a file elsewhere keep no file of the first origin waiting."""
    large = send(bytes(100_000_000), Accept_Ranges="bytes")
    elsewhere = start_server({"/large.tar.gz": large})

    def redirect(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", f"{elsewhere}/large.tar.gz")
        request.send_header("Content-Length", "0")
        request.end_headers()

    origin = start_server(
        {
            "/simple/demo/": page("large.tar.gz", "small.tar.gz"),
            "/files/large.tar.gz": redirect,
            "/files/small.tar.gz": send(b"small"),
        }
    )
    proxy = start_proxy(
        index_url=f"{origin}/simple/",
        slow_download="stream",
        cache_size=0,
        upstream_connections=connections,
    )
    where = urlsplit(proxy.origin)
    with ExitStack() as stack:
        for number in range(connections + 1):
            client = socket.create_connection((where.hostname, where.port), GUARD_SECONDS)
            stack.enter_context(client)
            client.sendall(b"GET /index/demo/large.tar.gz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            if number < max(1, connections * 3 // 4):
                assert client.recv(9) == b"HTTP/1.1 "
        assert proxy.get("/index/demo/small.tar.gz").body == b"small"
