"""When an upstream comes back, or was merely slow, or asked to be left alone for a while."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.behavior import Behavior
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.processes import EXPIRED_AT_ONCE, StartProxy


def test_after_twenty_failures_the_next_answer_is_used(
    fake_index: FakeIndex, start_proxy: StartProxy
) -> None:
    """However often an index failed, its first good answer reaches the client at once."""
    fake_index.add(make_wheel("demo"))
    fake_index.script("/simple/demo/", Behavior(times=20, body=b"{"))
    proxy = start_proxy(fake_index)
    statuses = [proxy.get("/index/demo/").status]
    while statuses[-1] != 200:
        statuses.append(proxy.get("/index/demo/").status)
        assert len(statuses) <= 21
    assert set(statuses[:-1]) == {502}
    assert len(fake_index.requests()) == 21


def test_after_many_projects_failed_all_are_served(
    fake_index: FakeIndex, start_proxy: StartProxy
) -> None:
    """Twenty projects that could not be had are all there as soon as their index is."""
    projects = [f"demo-{number}" for number in range(20)]
    for project in projects:
        fake_index.add(make_wheel(project))
    fake_index.script("/simple/*", Behavior(status=500))
    proxy = start_proxy(fake_index)

    def statuses() -> set[int]:
        with ThreadPoolExecutor(len(projects)) as pool:
            return set(pool.map(lambda name: proxy.get(f"/index/{name}/").status, projects))

    assert statuses() == {503}
    assert len(fake_index.requests()) >= 20
    fake_index.script("/simple/*")
    assert statuses() == {200}


def test_one_failing_page_does_no_harm_to_others(
    fake_index: FakeIndex, start_proxy: StartProxy
) -> None:
    """While one project's page is a 502 for long, all others are as fresh as ever."""
    for project in ("broken", "well"):
        fake_index.add(make_wheel(project))
    proxy = start_proxy(fake_index, index_ttl=EXPIRED_AT_ONCE)
    assert proxy.get("/index/broken/").status == proxy.get("/index/well/").status == 200
    fake_index.script("/simple/broken/", Behavior(status=502))
    for _ in range(3):
        assert proxy.get("/index/broken/").headers["x-cache"] == "STALE"
        assert proxy.get("/index/well/").headers["x-cache"] == "REVALIDATED"


def test_a_slow_refresh_is_used_when_it_comes(
    fake_index: FakeIndex, start_proxy: StartProxy
) -> None:
    """After five seconds the old page is served, and the new one once it is there."""
    fake_index.add(make_wheel("demo"))
    proxy = start_proxy(fake_index, index_ttl=EXPIRED_AT_ONCE)
    old = proxy.get("/index/demo/")
    fake_index.add(make_wheel("demo", "2.0"))
    # All that the proxy can have of the new page is the slow answer.
    fake_index.script("/simple/demo/", Behavior(times=1, delay=7), Behavior(status=500))
    started = time.monotonic()
    first = proxy.get("/index/demo/")
    assert time.monotonic() - started < 6
    assert (first.headers["x-cache"], first.body) == ("STALE", old.body)
    second = proxy.get("/index/demo/")
    assert time.monotonic() - started < 6.5
    assert (second.headers["x-cache"], second.body) == ("STALE", old.body)
    fake_index.wait_for(lambda requests: requests[1].ended == "whole")
    while (reply := proxy.get("/index/demo/")).body == old.body:
        assert time.monotonic() - started < 10
    assert "demo-2.0-py3-none-any.whl" in reply.text


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after(fake_index: FakeIndex, start_proxy: StartProxy, status: int) -> None:
    """``Retry-After: 2`` is waited for: with 429 for all pages, with 503 for the page alone."""
    for project in ("demo", "other"):
        fake_index.add(make_wheel(project))
    proxy = start_proxy(fake_index, index_ttl=EXPIRED_AT_ONCE)
    assert proxy.get("/index/demo/").status == 200
    busy = Behavior(times=1, status=status, headers={"Retry-After": "2"})
    fake_index.script("/simple/demo/", busy)
    with ThreadPoolExecutor(2) as pool:
        stale = pool.submit(proxy.get, "/index/demo/")
        fake_index.wait_for(lambda requests: [seen.ended for seen in requests] == ["whole"] * 2)
        said = time.monotonic()
        # What was sent before is read before: proxpi knows of the wish when it answers this.
        assert proxy.get("/health").status == 200
        cold = proxy.get("/index/other/")
        took = time.monotonic() - said
        assert cold.status == stale.result().status == 200
    asked = [seen.path for seen in fake_index.requests()[2:]]
    if status == 429:
        assert took > 1.9
    else:
        assert asked == ["/simple/other/", "/simple/demo/"]


@pytest.mark.parametrize("status", [503, 429])
def test_nobody_is_told_to_wait_for_an_hour(
    fake_index: FakeIndex, start_proxy: StartProxy, status: int
) -> None:
    """An upstream's ``Retry-After: 3600`` becomes half a minute at most, and never a 429."""
    fake_index.script("/simple/*", Behavior(status=status, headers={"Retry-After": "3600"}))
    proxy = start_proxy(fake_index)
    for path in ("/index/demo/", "/index/other/", "/index/"):
        reply = proxy.get(path)
        assert reply.status == 503
        assert 1 <= int(reply.headers["retry-after"]) <= 30
    assert len(fake_index.requests()) <= 3
