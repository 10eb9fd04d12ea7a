"""Credentials of an index go to that index, and are seen nowhere else."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest

from tests.integration.conftest import StartProxy
from tests.support.behavior import Behavior, Seen
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex

_USER = "reader"
_PASSWORD = "s3cr3t/p@ss"
_JSON = "application/vnd.pypi.simple.v1+json"


def _url(index: FakeIndex) -> str:
    """The index's URL with the credentials in it."""
    pair = f"{quote(_USER, safe='')}:{quote(_PASSWORD, safe='')}@"
    return index.url.replace("://", f"://{pair}")


def _hidden(text: str) -> bool:
    """Whether no form of the password stands in a text."""
    encoded = base64.b64encode(f"{_USER}:{_PASSWORD}".encode()).decode().rstrip("=")
    forms = (_PASSWORD, quote(_PASSWORD), quote(_PASSWORD, safe=""), encoded)
    return not any(form in text for form in forms)


@pytest.fixture
def locked_index() -> Iterator[FakeIndex]:
    """An index that asks for credentials, and keeps its files on an origin that wants none."""
    with FakeIndex(files_elsewhere=True) as index:
        index.require_auth(_USER, _PASSWORD)
        yield index


def test_credentials_stay_with_their_origin(
    locked_index: FakeIndex, start_proxy: StartProxy
) -> None:
    """The credentials reach the index, no other origin, and no eye."""
    wheel = make_wheel("demo")
    locked_index.add(wheel)
    proxy = start_proxy(index_url=_url(locked_index), logging_level="DEBUG")
    replies = [
        proxy.get("/"),
        proxy.get("/index/"),
        proxy.get("/index/demo/"),
        proxy.get("/index/demo/", Accept=_JSON),
        proxy.get("/index/absent/"),
        proxy.get(f"/index/demo/{wheel.filename}"),
        proxy.get("/health"),
    ]
    assert [reply.status for reply in replies] == [200, 200, 200, 200, 404, 200, 200]
    assert all("authorization" in seen.headers for seen in _of(locked_index, "index"))
    elsewhere = _of(locked_index, "files")
    assert [seen.status for seen in elsewhere] == [200]
    assert not any("authorization" in seen.headers for seen in elsewhere)
    proxy.stop()
    assert _hidden(proxy.output)
    for reply in replies:
        assert _hidden(repr(reply.headers) + reply.body.decode("latin-1"))


def test_a_redirect_does_not_take_credentials_along(
    locked_index: FakeIndex, start_proxy: StartProxy
) -> None:
    """An index that redirects its page to another origin does not hand its credentials to it."""
    locked_index.add(make_wheel("demo"))
    moved = f"{locked_index.files_url}/simple/demo/"
    locked_index.script("/simple/demo/", Behavior(times=1, redirect=moved))
    proxy = start_proxy(index_url=_url(locked_index))
    assert proxy.get("/index/demo/").status == 200
    (elsewhere,) = _of(locked_index, "files")
    assert "authorization" not in elsewhere.headers


def test_rejected_credentials_are_a_502(locked_index: FakeIndex, start_proxy: StartProxy) -> None:
    """Wrong credentials are the operator's to mend: 502, said in the log, and still not shown."""
    locked_index.add(make_wheel("demo"))
    locked_index.require_auth(_USER, "another")
    proxy = start_proxy(index_url=_url(locked_index))
    reply = proxy.get("/index/demo/")
    assert reply.status == 502
    assert "www-authenticate" not in reply.headers
    proxy.wait_for_line("credentials rejected")
    assert _hidden(proxy.output + reply.text)


def test_a_file_behind_credentials_is_never_redirected(
    fake_index: FakeIndex, start_proxy: StartProxy
) -> None:
    """A client could not follow to a locked file: it waits for the whole download instead."""
    fake_index.require_auth(_USER, _PASSWORD)
    wheel = make_wheel("demo", padding=300_000)
    path = fake_index.add(wheel)
    fake_index.script(path, Behavior(hold_after=1000))
    proxy = start_proxy(index_url=_url(fake_index), download_timeout=0.05)
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(proxy.get, f"/index/demo/{wheel.filename}")
        fake_index.wait_for(lambda requests: any(seen.path == path for seen in requests))
        # A request that goes all the way out and back takes longer than proxpi would have waited.
        fake_index.script("/simple/absent/", Behavior(delay=0.3))
        assert proxy.get("/index/absent/").status == 404
        assert not waiting.done()
        fake_index.release(path)
        reply = waiting.result()
    assert (reply.status, reply.body) == (200, wheel.data)
    assert _hidden(repr(reply.headers))


def test_nothing_stored_behind_credentials_is_still_served(
    fake_index: FakeIndex, start_proxy: StartProxy
) -> None:
    """Without a file cache a locked file passes through: no redirect there either."""
    fake_index.require_auth(_USER, _PASSWORD)
    wheel = make_wheel("demo")
    fake_index.add(wheel)
    proxy = start_proxy(index_url=_url(fake_index), cache_size=0)
    reply = proxy.get(f"/index/demo/{wheel.filename}")
    assert (reply.status, reply.body) == (200, wheel.data)


def _of(index: FakeIndex, origin: str) -> list[Seen]:
    return [seen for seen in index.requests() if seen.origin == origin]
