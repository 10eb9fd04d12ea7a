"""The decisions against recorded resolutions of real clients: which requests are guessed.

``benchmarks/record.py`` writes the recordings. The bounds hold the promise of prefetching: most
of what an installation requests is fetched before, and little else.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from proxpi.prefetch.decide import Kind, State
from tests.support.replay import read_recording

RECORDINGS = sorted((Path(__file__).parent / "recordings").glob("*.json.gz"))
#: The part of the client's requests that is fetched before, and the part of others at most. uv
#: requests its files at once; a list pinned a year ago, or a resolution alone, allows more waste.
BOUNDS = {
    "notebook-pip-3.13": (0.95, 0.01),
    "testing-pip-3.9": (0.90, 0.01),
    "web-uv-3.13": (0.50, 0.01),
    "science-uv-3.13-macos": (0.50, 0.02),
    "web-pip-3.13-pinned": (0.75, 0.25),
    "web-uv-lock-3.13": (0.60, 0.25),
    "backtracking-pip-3.13": (0.15, 0.10),
}


def name_of(path: Path) -> str:
    return path.name.removesuffix(".json.gz")


def test_each_recording_has_its_bounds() -> None:
    """A new recording is not passed over."""
    assert {name_of(path) for path in RECORDINGS} == BOUNDS.keys()


@pytest.mark.parametrize("path", RECORDINGS, ids=name_of)
def test_most_of_a_resolution_is_predicted(path: Path) -> None:
    """Nothing cached: guesses come before the client's own requests, few of them in vain."""
    replay, (predicted, wasted) = read_recording(path), BOUNDS[name_of(path)]
    replay.play()
    assert replay.predicted >= predicted
    assert len(replay.wasted) <= wasted * len(replay.requested)
    assert len(replay.sent) == len(set(replay.sent))


@pytest.mark.parametrize("path", RECORDINGS, ids=name_of)
def test_expired_pages_are_revalidated_before_their_requests(path: Path) -> None:
    """Files cached, pages stale: the client waits only for pages of roots, or of wrong guesses."""
    replay, (_, wasted) = read_recording(path), BOUNDS[name_of(path)]
    replay.cached = set(replay.requested)
    replay.stale = {resource for resource in replay.requested if resource.kind is Kind.PAGE}
    pages = set(replay.stale)
    replay.play()
    assert len(replay.wasted) <= wasted * len(replay.requested)
    assert all(replay.state(page) is State.FRESH for page in pages)
    alone = {page for page in pages if page not in replay.sent}
    assert replay.waited <= 0.06 * len(alone) + 0.5
