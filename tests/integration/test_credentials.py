"""Credentials of an index go to that index, and are seen nowhere else."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import attrs
import pytest

from tests.support.distributions import make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.processes import StartProxy

_USER = "reader"
_PASSWORD = "s3cr3t/p@ss"
_JSON = "application/vnd.pypi.simple.v1+json"


def _url(index: FakeIndex) -> str:
    pair = f"{quote(_USER, safe='')}:{quote(_PASSWORD, safe='')}@"
    return index.url.replace("://", f"://{pair}")


def _is_hidden(text: str) -> bool:
    encoded = base64.b64encode(f"{_USER}:{_PASSWORD}".encode()).decode().rstrip("=")
    forms = (_PASSWORD, quote(_PASSWORD), quote(_PASSWORD, safe=""), encoded)
    return not any(form in text for form in forms)


@pytest.fixture
def private_index() -> Iterator[FakeIndex]:
    """An index that requires credentials, whose files lie on an origin that does not."""
    with FakeIndex(files_elsewhere=True) as index:
        index.require_auth(_USER, _PASSWORD)
        yield index


def test_own_origin(private_index: FakeIndex, start_proxy: StartProxy) -> None:
    """The credentials reach the index alone, after a redirect as well, and no log or response."""
    wheel = make_wheel("demo")
    for project in (wheel, make_wheel("moved")):
        private_index.add(project)
    moved = Behavior(redirect=f"{private_index.files_url}/simple/moved/")
    private_index.script("/simple/moved/", attrs.evolve(moved, times=1))
    proxy = start_proxy(index_url=_url(private_index), logging_level="DEBUG")
    paths = ("/", "/index/", "/index/demo/", "/index/absent/", "/index/moved/", "/health")
    replies = [proxy.get(path) for path in paths]
    replies += [proxy.get("/index/demo/", Accept=_JSON)]
    replies += [proxy.get(f"/index/demo/{wheel.filename}")]
    assert [reply.status for reply in replies] == [200, 200, 200, 404, 200, 200, 200, 200]
    asked = private_index.requests()
    assert all(("authorization" in seen.headers) == (seen.origin == "index") for seen in asked)
    statuses = [seen.status for seen in asked if seen.origin == "files"]
    assert len(statuses) >= 2 and {*statuses} == {200}
    proxy.stop()
    assert _is_hidden(proxy.output)
    for reply in replies:
        assert _is_hidden(repr(reply.headers) + reply.body.decode("latin-1"))


def test_rejected(private_index: FakeIndex, start_proxy: StartProxy) -> None:
    """Rejected credentials are a 502 and a line in the log, without the credentials."""
    private_index.add(make_wheel("demo"))
    private_index.require_auth(_USER, "another")
    proxy = start_proxy(index_url=_url(private_index))
    reply = proxy.get("/index/demo/")
    assert (reply.status, "www-authenticate" in reply.headers) == (502, False)
    proxy.wait_for_line("credentials rejected")
    assert _is_hidden(proxy.output + reply.text)


@pytest.mark.parametrize("cache_size", [0, 100_000_000])
def test_file(fake_index: FakeIndex, start_proxy: StartProxy, cache_size: int) -> None:
    """A client of a file behind credentials waits for it, and is never redirected."""
    fake_index.require_auth(_USER, _PASSWORD)
    wheel = make_wheel("demo", padding=300_000)
    path = fake_index.add(wheel)
    fake_index.script(path, Behavior(hold_after=1000))
    settings = {"download_timeout": 0.05, "cache_size": cache_size}
    proxy = start_proxy(index_url=_url(fake_index), **settings)
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(proxy.get, f"/index/demo/{wheel.filename}")
        fake_index.wait_for(lambda requests: any(seen.path == path for seen in requests))
        # This request upstream takes longer than the download time-out.
        fake_index.script("/simple/absent/", Behavior(delay=0.3))
        assert proxy.get("/index/absent/").status == 404
        assert not waiting.done()
        fake_index.release(path)
        reply = waiting.result()
    assert (reply.status, reply.body) == (200, wheel.data)
    assert _is_hidden(repr(reply.headers))
