"""A wall clock that jumps makes no page fresh or stale, and no wait longer or shorter."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import pytest

from tests.support.distributions import make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.inside import inserted
from tests.support.processes import StartProxy

HOUR = 3600.0


@attrs.frozen
class WallClock:
    """The ``time.time`` of a process; its monotonic clock and the timers go on."""

    path: Path

    def __attrs_post_init__(self) -> None:
        self.jump(0)

    def jump(self, seconds: float) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(str(seconds), encoding="ascii")
        new.replace(self.path)

    @property
    def environment(self) -> dict[str, str]:
        return inserted(WALL_CLOCK=str(self.path))


def test_running(fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """While proxpi runs, a fresh page stays fresh, and waits take as long as ever."""
    clock = WallClock(tmp_path / "clock")
    for project in ("demo", "slow", "silent"):
        fake_index.add(make_wheel(project))
    proxy = start_proxy(fake_index, **clock.environment)
    for project in ("demo", "silent"):
        assert proxy.get(f"/index/{project}/").headers["x-cache"] == "MISS"
    assert proxy.request("DELETE", "/cache/silent").status == 200
    fake_index.script("/simple/slow/", Behavior(hold=True))
    fake_index.script("/simple/silent/", Behavior(hold=True))
    with ThreadPoolExecutor(2) as pool:
        started = time.monotonic()
        slow = pool.submit(proxy.get, "/index/slow/")
        silent = pool.submit(proxy.get, "/index/silent/")
        fake_index.wait_for(lambda seen: sum(not each.is_file for each in seen) == 4)
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
def test_restarted(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path, jump: float, found: str
) -> None:
    """After a restart a page that is too old, or from the future, is revalidated."""
    clock = WallClock(tmp_path / "clock")
    fake_index.add(make_wheel("demo"))
    settings = {**clock.environment, "cache_dir": tmp_path / "cache"}
    before = start_proxy(fake_index, **settings)
    assert before.get("/index/demo/").headers["x-cache"] == "MISS"
    before.stop()
    clock.jump(jump)
    after = start_proxy(fake_index, **settings)
    assert after.get("/index/demo/").headers["x-cache"] == found
    assert after.get("/index/demo/").headers["x-cache"] == "HIT"
