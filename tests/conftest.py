"""What holds for all tests: property tests take the same examples in every run."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("proxpi", derandomize=True, database=None, deadline=None)
settings.load_profile("proxpi")
