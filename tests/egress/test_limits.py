"""Responses that are too long: their connections are closed, and old pages are served."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from tests.support.distributions import make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.processes import EXPIRED_AT_ONCE, StartProxy
from tests.support.proxy import Reply
from tests.support.servers import Connection, Conversations

LIMIT = 100_000
#: A field of a head; Twisted takes none that is twice as long.
LONG = b"X-Filler: " + b"x" * 9000 + b"\r\n"
JSON_TYPE = "application/vnd.pypi.simple.v1+json"


def _assert_too_long(reply: Reply, what: str) -> None:
    assert reply.status == 502
    assert f"the answer is too long: {what} bytes" in reply.text


@pytest.mark.parametrize("path", ["/index/demo/", "/index/"])
@pytest.mark.parametrize("way", ["announced", "chunked", "close_delimited", "compressed"])
def test_pages_and_lists(
    fake_index: FakeIndex, start_proxy: StartProxy, way: str, path: str
) -> None:
    """A page above its limit is refused, the old one is served, and the log says why."""
    fake_index.add(make_wheel("demo"))
    limits = {"page_limit": LIMIT, "list_limit": 2 * LIMIT}
    proxy = start_proxy(fake_index, index_ttl=EXPIRED_AT_ONCE, **limits)
    before = proxy.get(path)
    assert before.status == 200
    page = {"meta": {"api-version": "1.0"}, "name": "demo", "files": [], "projects": []}
    body = json.dumps(page).encode().ljust(2 * LIMIT + 1)
    form: dict[str, Any] = {} if way in ("announced", "compressed") else {way: True}
    if way == "compressed":
        form, body = {"headers": {"Content-Encoding": "gzip"}}, gzip.compress(body)
    fake_index.script("/simple/*", Behavior(status=200, body=body, **form))
    _assert_too_long(proxy.get("/index/cold/"), f"PROXPI_PAGE_LIMIT allows {LIMIT}")
    after = proxy.get(path)
    assert (after.status, after.headers["x-cache"]) == (200, "STALE")
    assert after.body == before.body
    setting = "PAGE_LIMIT" if path == "/index/demo/" else "LIST_LIMIT"
    assert f"/: the answer is too long: PROXPI_{setting} allows" in proxy.output


def test_a_bomb(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """A decompression bomb is not decompressed beyond the limit."""
    bomb = gzip.compress(b"{" + b" " * (300 << 20), 1)
    fields: dict[str, str | None] = {"Content-Encoding": "gzip", "Content-Type": JSON_TYPE}
    for path in ("/simple/bomb/", "/simple/"):
        fake_index.script(path, Behavior(status=200, headers=fields, body=bomb))
    proxy = start_proxy(fake_index)
    _assert_too_long(proxy.get("/index/bomb/"), "PROXPI_PAGE_LIMIT allows 67108864")
    _assert_too_long(proxy.get("/index/"), "PROXPI_LIST_LIMIT allows 268435456")


@pytest.mark.parametrize("field", [b"a:\r\n", LONG], ids=["short", "long"])
def test_heads(start_proxy: StartProxy, field: bytes) -> None:
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

    with Conversations(converse) as server:
        proxy = start_proxy(index_url=f"{server.origin}/simple/")
        reply = proxy.get("/index/demo/")
        assert (reply.status, "the head of the answer is too long" in reply.text) == (502, True)
        assert server.connections == 1
        proxy.stop()
    # What was on its way is lost; that is a few buffers of the system.
    assert left and left[0] < 64 << 20
