"""Whatever is sent, and wherever: every byte that comes back is as if there were no workers."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.web.traffic import TrafficCase, sent
from tests.workers.crewed import CrewCase


class Both(CrewCase, TrafficCase):
    """The same traffic, with two workers, and without any or anything that is known."""

    @settings(max_examples=30, deadline=None)
    @given(sent, st.integers(2, 4), st.sampled_from((None, 4096)))
    def test_same_bytes(self, traffic: list[Any], repeated: int, room: int | None) -> None:
        """Cut anywhere, on connections that are read at any pace, and go from hand to hand."""
        self.anew()
        with_workers = self.play(traffic * repeated, room)
        self.anew()
        self.end()
        self.crew = None
        self.site.others = None
        self.ordinary()
        assert with_workers == self.play(traffic * repeated, room)
