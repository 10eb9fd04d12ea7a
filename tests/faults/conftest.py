"""Fixtures for real processes whose upstream, disk or end is at fault."""

from __future__ import annotations

from tests.support.processes import extra_index, fake_index, start_proxy  # noqa: F401 (fixtures)
