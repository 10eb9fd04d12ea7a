"""Whatever is sent: every byte that comes back is as if nothing had been known."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.web.traffic import TrafficCase, sent


class Both(TrafficCase):
    """The same traffic, with and without what is known."""

    @settings(max_examples=30, deadline=None)
    @given(sent, st.integers(2, 4), st.sampled_from((None, 4096)))
    def test_same_bytes(self, traffic: list[Any], repeated: int, room: int | None) -> None:
        """Cut anywhere, on connections that are read at any pace."""
        self.anew()
        with_known = self.play(traffic * repeated, room)
        self.anew()
        self.ordinary()
        assert with_known == self.play(traffic * repeated, room)
