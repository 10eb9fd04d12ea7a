"""The history of the traffic in ``/stats``, over a restart of the real process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.processes import StartProxy
from tests.support.proxy import Proxy


def traffic(proxy: Proxy, span: str) -> dict[str, Any]:
    """Return what ``/stats`` says of a span."""
    found: dict[str, Any] = json.loads(proxy.get("/stats").body)["traffic"][span]
    return found


def test_restart(fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """What a process served, hits of the response cache included, the next one still counts."""
    wheel = make_wheel("demo")
    fake_index.add(wheel)
    file = f"/index/demo/{wheel.filename}"
    first = start_proxy(fake_index, cache_dir=tmp_path / "cache", prefetch="off")
    for path in ("/index/demo/", file, file, file, "/index/missing/"):
        first.get(path)
    before = traffic(first, "day")
    assert (before["requests"], before["from_cache"]) == (5, 2)
    assert before["saved_bytes"] == 2 * len(wheel.data)
    first.stop()
    second = start_proxy(fake_index, cache_dir=tmp_path / "cache", prefetch="off")
    assert traffic(second, "day") == traffic(second, "month") == before
    second.get(file)
    assert traffic(second, "day")["requests"] == 6
    series = json.loads(second.get("/stats").body)["history"]["day"]
    assert sum(series["requests"]) == 6
    assert sum(series["saved_bytes"]) == 3 * len(wheel.data)
    assert len(series["requests"]) * series["step_seconds"] == 86_400
