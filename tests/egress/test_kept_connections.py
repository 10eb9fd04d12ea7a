"""Kept connections that turn out to be closed when they are used again."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.certificates import make_certificate
from tests.support.processes import StartProxy
from tests.support.servers import Connection, Conversations

JSON_TYPE = "Content-Type: application/vnd.pypi.simple.v1+json"
DATA = b"the bytes of a file"


def _answer(connection: Connection, target: str) -> None:
    """Answer as an index does that has one file in each project."""
    if target.startswith("/files/"):
        connection.answer(DATA)
        return
    name = target.split("/")[2]
    digest = hashlib.sha256(DATA).hexdigest()
    file = {"filename": f"{name}-1.0.zip", "url": f"/files/{name}", "hashes": {"sha256": digest}}
    page = {"meta": {"api-version": "1.0"}, "name": name, "files": [file]}
    connection.answer(json.dumps(page).encode(), JSON_TYPE)


@pytest.mark.parametrize(
    ("moment", "end", "tls"),
    [
        ("between", Connection.close, True),
        ("between", Connection.reset, False),
        ("with the request", Connection.close, False),
        ("with the request", Connection.reset, True),
    ],
)
def test_closed(
    tmp_path: Path,
    start_proxy: StartProxy,
    end: Callable[[Connection], None],
    moment: str,
    tls: bool,
) -> None:
    """A server may close between two requests, or as it gets one: the client does not notice.

    Each connection answers one request. The server ends it before the next one, or reads that
    one and ends it then.
    """
    certificate = make_certificate(tmp_path, "server", "127.0.0.1") if tls else None
    next_one = threading.Semaphore(0)
    ended = threading.Semaphore(0)

    def converse(connection: Connection) -> None:
        target = connection.request()
        assert target is not None
        _answer(connection, target)
        if moment == "between":
            assert next_one.acquire(timeout=60)
        else:
            connection.request()
        end(connection)
        ended.release()

    with Conversations(converse, certificate) as server:
        proxy = start_proxy(index_url=f"{server.origin}/simple/", SSL_CERT_FILE=certificate or "")
        for number in range(4):
            for file in ("", f"demo-{number}-1.0.zip"):
                reply = proxy.get(f"/index/demo-{number}/{file}")
                assert reply.status == 200, reply.text
                assert reply.body == DATA or not file
                if moment == "between":
                    next_one.release()
                    assert ended.acquire(timeout=60)
        assert server.connections == 8
        assert "the connection was closed" not in proxy.output
        proxy.stop()


def test_retried_once(start_proxy: StartProxy) -> None:
    """A new connection that is closed before a response is an outage."""
    requests: list[str] = []

    def converse(connection: Connection) -> None:
        while target := connection.request():
            requests.append(target)
            if target.startswith("/files/"):
                return connection.reset()
            _answer(connection, target)

    with Conversations(converse) as server:
        proxy = start_proxy(index_url=f"{server.origin}/simple/", slow_download="stream")
        assert proxy.get("/index/demo/").status == 200
        reply = proxy.get("/index/demo/demo-1.0.zip")
        assert (reply.status, "the connection was closed" in reply.text) == (503, True)
        # On the connection that was kept and on a fresh one, and that once more after a pause.
        assert requests.count("/files/demo") == 3
        proxy.stop()
