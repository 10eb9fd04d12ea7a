"""Responses that are too long: their connections are closed, and old pages are served."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.distributions import make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.proxy import Proxy, Reply
from tests.support.servers import Connection, Conversations

EXPIRED_AT_ONCE = "0.000001"
LIMIT = 100_000
#: A field of a head; Twisted takes none that is twice as long.
LONG = b"X-Filler: " + b"x" * 9000 + b"\r\n"
JSON_TYPE = "application/vnd.pypi.simple.v1+json"


@pytest.fixture
def index(stack: ExitStack) -> FakeIndex:
    index = stack.enter_context(FakeIndex())
    index.add(make_wheel("demo"))
    return index


def _proxy(stack: ExitStack, folder: Path, url: str) -> Proxy:
    settings = {
        "PROXPI_INDEX_URL": url,
        "PROXPI_INDEX_TTL": EXPIRED_AT_ONCE,
        "PROXPI_PAGE_LIMIT": str(LIMIT),
        "PROXPI_LIST_LIMIT": str(2 * LIMIT),
    }
    return stack.enter_context(Proxy(settings, folder=folder))


def _assert_too_long(reply: Reply, what: str) -> None:
    assert reply.status == 502
    assert f"the answer is too long: {what} bytes" in reply.text


#: What too long a page may come as.
WAYS: dict[str, Callable[[bytes], Behavior]] = {
    "announced": lambda body: Behavior(status=200, body=body),
    "in chunks": lambda body: Behavior(status=200, body=body, chunked=True),
    "until the end": lambda body: Behavior(status=200, body=body, close_delimited=True),
    "compressed": lambda body: Behavior(
        status=200, body=gzip.compress(body), headers={"Content-Encoding": "gzip"}
    ),
}


def _script(index: FakeIndex, way: str, path: str, size: int) -> None:
    page = {"meta": {"api-version": "1.0"}, "name": "demo", "files": [], "projects": []}
    index.script(path, WAYS[way](json.dumps(page).encode().ljust(size)))


@pytest.mark.parametrize("way", WAYS)
def test_pages(stack: ExitStack, index: FakeIndex, tmp_path: Path, way: str) -> None:
    """A page above the limit is refused, the old one is served, and the log says why."""
    proxy = _proxy(stack, tmp_path, index.url)
    before = proxy.get("/index/demo/")
    assert before.status == 200
    _script(index, way, "/simple/*", LIMIT + 1)
    _assert_too_long(proxy.get("/index/cold/"), f"PROXPI_PAGE_LIMIT allows {LIMIT}")
    after = proxy.get("/index/demo/")
    assert (after.status, after.headers["x-cache"]) == (200, "STALE")
    assert after.body == before.body
    assert proxy.output.count(f"PROXPI_PAGE_LIMIT allows {LIMIT} bytes") >= 2


@pytest.mark.parametrize("way", ["in chunks", "compressed"])
def test_lists(stack: ExitStack, index: FakeIndex, tmp_path: Path, way: str) -> None:
    """The same for the list of projects, with a limit of its own."""
    proxy = _proxy(stack, tmp_path, index.url)
    before = proxy.get("/index/")
    assert before.status == 200
    _script(index, way, "/simple/", 2 * LIMIT + 1)
    after = proxy.get("/index/")
    assert (after.status, after.headers["x-cache"]) == (200, "STALE")
    assert after.body == before.body
    assert f"PROXPI_LIST_LIMIT allows {2 * LIMIT} bytes" in proxy.output


def test_a_bomb(stack: ExitStack, index: FakeIndex, tmp_path: Path) -> None:
    """A decompression bomb is not decompressed beyond the limit."""
    bomb = gzip.compress(b"{" + b" " * (300 << 20), 1)
    fields: dict[str, str | None] = {"Content-Encoding": "gzip", "Content-Type": JSON_TYPE}
    for path in ("/simple/bomb/", "/simple/"):
        index.script(path, Behavior(status=200, headers=fields, body=bomb))
    settings = {"PROXPI_INDEX_URL": index.url}
    proxy = stack.enter_context(Proxy(settings, folder=tmp_path))
    _assert_too_long(proxy.get("/index/bomb/"), "PROXPI_PAGE_LIMIT allows 67108864")
    _assert_too_long(proxy.get("/index/"), "PROXPI_LIST_LIMIT allows 268435456")


@pytest.mark.parametrize("field", [b"a:\r\n", LONG], ids=["short", "long"])
def test_heads(stack: ExitStack, tmp_path: Path, field: bytes) -> None:
    """A head without an end has its connection closed."""
    left: list[int] = []

    def converse(connection: Connection) -> None:
        connection.request()
        sent = 0
        try:
            connection.send(b"HTTP/1.1 200 OK\r\n")
            while sent < 1 << 30:
                connection.send(field * 100)
                sent += len(field) * 100
        except OSError:
            left.append(sent)

    server = stack.enter_context(Conversations(converse))
    proxy = _proxy(stack, tmp_path, f"{server.origin}/simple/")
    reply = proxy.get("/index/demo/")
    assert (reply.status, "the head of the answer is too long" in reply.text) == (502, True)
    assert server.connections == 1
    proxy.stop()
    # What was on its way is lost; that is a few buffers of the system.
    assert left and left[0] < 64 << 20
