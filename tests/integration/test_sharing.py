"""Many clients at once, some of which leave: one question upstream, whole answers for the rest."""

from __future__ import annotations

import http.client
import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from tests.integration.conftest import StartProxy
from tests.support.behavior import Behavior
from tests.support.distributions import Distribution, make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.proxy import Proxy


@pytest.fixture
def slow_file(fake_index: FakeIndex) -> tuple[Distribution, str]:
    """A file whose download stops in the middle until it is released, and its path."""
    wheel = make_wheel("demo", padding=2_000_000)
    path = fake_index.add(wheel)
    fake_index.script(path, Behavior(hold_after=100_000))
    return wheel, path


def _ask_and_stay(proxy: Proxy, path: str) -> socket.socket:
    """A connection that has sent a request and reads nothing."""
    parts = urlsplit(proxy.origin)
    connection = socket.create_connection((parts.hostname or "", parts.port or 0), 30)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
    return connection


def test_a_client_that_leaves_stops_nothing(
    fake_index: FakeIndex, start_proxy: StartProxy, slow_file: tuple[Distribution, str]
) -> None:
    """The client that began a download goes away; the one that joined it gets every byte."""
    wheel, path = slow_file
    proxy = start_proxy(fake_index)
    first = _ask_and_stay(proxy, f"/index/demo/{wheel.filename}")
    fake_index.wait_for(lambda requests: any(seen.path == path for seen in requests))
    with ThreadPoolExecutor() as threads:
        second = threads.submit(proxy.get, f"/index/demo/{wheel.filename}")
        first.close()
        fake_index.release(path)
        assert (second.result().status, second.result().body) == (200, wheel.data)
    assert len(fake_index.files_asked()) == 1
    assert "Traceback" not in proxy.output


def test_a_download_outlives_its_only_client(
    fake_index: FakeIndex, start_proxy: StartProxy, slow_file: tuple[Distribution, str]
) -> None:
    """A download that nobody waits for any more is finished, and serves the next client."""
    wheel, path = slow_file
    proxy = start_proxy(fake_index)
    only = _ask_and_stay(proxy, f"/index/demo/{wheel.filename}")
    fake_index.wait_for(lambda requests: any(seen.path == path for seen in requests))
    only.close()
    fake_index.release(path)
    assert proxy.get(f"/index/demo/{wheel.filename}").body == wheel.data
    assert [seen.ended for seen in fake_index.files_asked()] == ["whole"]


def test_one_page_request_for_all_who_ask(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """Ten first requests for a page are one request upstream, and ten times the same page."""
    fake_index.add(make_wheel("demo"))
    fake_index.script("/simple/demo/", Behavior(hold=True))
    proxy = start_proxy(fake_index)
    with ThreadPoolExecutor(10) as threads:
        replies = [threads.submit(proxy.get, "/index/demo/") for _ in range(10)]
        fake_index.wait_for(lambda requests: bool(requests))
        fake_index.release("/simple/demo/")
        assert len({(reply.result().status, reply.result().body) for reply in replies}) == 1
    assert len(fake_index.requests()) == 1


def test_health_answers_while_everything_waits(
    fake_index: FakeIndex, start_proxy: StartProxy
) -> None:
    """An upstream that never answers holds up neither the health check nor another project."""
    fake_index.script("/simple/stuck/", Behavior(silent=True))
    fake_index.add(make_wheel("demo"))
    proxy = start_proxy(fake_index)
    stuck = [_ask_and_stay(proxy, "/index/stuck/") for _ in range(20)]
    fake_index.wait_for(lambda requests: bool(requests))
    assert proxy.get("/health").status == 200
    assert proxy.get("/index/demo/").status == 200
    for connection in stuck:
        connection.close()


def test_a_reader_that_stops_holds_up_nobody(
    fake_index: FakeIndex, start_proxy: StartProxy
) -> None:
    """While one client does not take its bytes, the others are served at full speed."""
    wheel = make_wheel("demo", padding=20_000_000)
    fake_index.add(wheel)
    proxy = start_proxy(fake_index)
    path = f"/index/demo/{wheel.filename}"
    assert proxy.get(path).body == wheel.data
    idle = _ask_and_stay(proxy, path)
    assert proxy.get(path).body == wheel.data
    response = http.client.HTTPResponse(idle)
    response.begin()
    assert response.read() == wheel.data
    idle.close()
