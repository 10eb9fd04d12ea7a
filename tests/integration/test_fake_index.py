"""The fake index itself: real clients install from it, and it misbehaves as scripted."""

from __future__ import annotations

import http.client
from pathlib import Path

import pytest

from tests.support.behavior import Behavior
from tests.support.clients import pip_install
from tests.support.distributions import make_sdist, make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.proxy import request


def test_distributions_are_deterministic() -> None:
    """The same wheel and source distribution have the same bytes each time they are made."""
    assert make_wheel("demo", padding=10) == make_wheel("demo", padding=10)
    assert make_sdist("demo") == make_sdist("demo")


def test_pip_installs_from_the_fake_index(fake_index: FakeIndex, tmp_path: Path) -> None:
    """The fake is good enough for a real client, so a failure behind a proxy is the proxy's."""
    fake_index.add(make_wheel("demo", requires=["demo-source"]))
    fake_index.add(make_sdist("demo-source", "0.3"))
    environment, _ = pip_install(tmp_path, fake_index.url, "demo")
    assert environment.version_of("demo_source") == "0.3"
    assert all(seen.headers["user-agent"].startswith("pip/") for seen in fake_index.requests())


@pytest.mark.parametrize(
    ("behavior", "error"),
    [
        (Behavior(truncate_after=10), http.client.IncompleteRead),
        (Behavior(truncate_after=10, chunked=True), http.client.IncompleteRead),
        (Behavior(truncate_after=500, reset=True), ConnectionResetError),
        (Behavior(reset=True), ConnectionResetError),
    ],
)
def test_cuts_are_seen_by_a_client(
    fake_index: FakeIndex, behavior: Behavior, error: type[Exception]
) -> None:
    """An answer that is cut short arrives as one that is cut short."""
    path = fake_index.add(make_wheel("demo"))
    fake_index.script(path, behavior)
    with pytest.raises(error):
        request(fake_index.origin, "GET", path)
    assert [seen.ended for seen in fake_index.requests()] == ["cut"]


def test_behaviors_take_turns(fake_index: FakeIndex) -> None:
    """A behavior with a number of times gives way to the next, and at the end to none."""
    path = fake_index.add(make_wheel("demo"))
    fake_index.script(path, Behavior(times=2, status=503), Behavior(times=1, status=404))
    statuses = [request(fake_index.origin, "GET", path).status for _ in range(4)]
    assert statuses == [503, 503, 404, 200]


def test_a_closed_index_refuses_and_comes_back(fake_index: FakeIndex) -> None:
    """An outage ends on the same port that it began on."""
    path = fake_index.add(make_wheel("demo"))
    fake_index.close()
    with pytest.raises(ConnectionRefusedError):
        request(fake_index.origin, "GET", path)
    fake_index.reopen()
    assert request(fake_index.origin, "GET", path).status == 200
