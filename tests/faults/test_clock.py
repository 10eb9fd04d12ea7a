"""A wall clock that jumps does no harm, whether proxpi runs at that moment or not."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.behavior import Behavior
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.inside import WallClock
from tests.support.processes import StartProxy

HOUR = 3600.0


@pytest.fixture
def clock(tmp_path: Path) -> WallClock:
    """The clock on the wall of a process."""
    return WallClock(tmp_path / "clock")


def test_it_jumps_while_proxpi_runs(
    fake_index: FakeIndex, start_proxy: StartProxy, clock: WallClock
) -> None:
    """A fresh page stays fresh, and neither is a wait cut short nor does one never end."""
    for project in ("demo", "slow", "silent"):
        fake_index.add(make_wheel(project))
    proxy = start_proxy(fake_index, environment=clock.environment)
    for project in ("demo", "silent"):
        assert proxy.get(f"/index/{project}/").headers["x-cache"] == "MISS"
    assert proxy.request("DELETE", "/cache/silent").status == 200
    fake_index.script("/simple/slow/", Behavior(hold=True))
    fake_index.script("/simple/silent/", Behavior(silent=True))
    with ThreadPoolExecutor(2) as pool:
        started = time.monotonic()
        slow = pool.submit(proxy.get, "/index/slow/")
        silent = pool.submit(proxy.get, "/index/silent/")
        fake_index.wait_for(lambda requests: len(requests) == 4)
        for jump in (HOUR, -HOUR):
            clock.jump(jump)
            page = proxy.get("/index/demo/")
            assert page.headers["x-cache"] == "HIT"
            assert page.headers["cache-control"] == "public, max-age=60"
        assert silent.result().headers["x-cache"] == "STALE"
        assert 1 < time.monotonic() - started < 6.5
        fake_index.release("/simple/slow/")
        assert slow.result().headers["x-cache"] == "MISS"


@pytest.mark.parametrize(
    ("jump", "found"), [(0.0, "HIT"), (HOUR, "REVALIDATED"), (-HOUR, "REVALIDATED")]
)
def test_it_jumps_while_proxpi_is_down(
    fake_index: FakeIndex, start_proxy: StartProxy, clock: WallClock, jump: float, found: str
) -> None:
    """A page that is too old, or from the future, is asked for again after a start."""
    fake_index.add(make_wheel("demo"))
    folder = clock.path.parent / "cache"
    before = start_proxy(fake_index, environment=clock.environment, cache_dir=folder)
    assert before.get("/index/demo/").headers["x-cache"] == "MISS"
    before.stop()
    clock.jump(jump)
    after = start_proxy(fake_index, environment=clock.environment, cache_dir=folder)
    assert after.get("/index/demo/").headers["x-cache"] == found
    assert after.get("/index/demo/").headers["x-cache"] == "HIT"
