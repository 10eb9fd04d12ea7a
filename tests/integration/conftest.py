"""Fixtures for real clients and processes."""

from __future__ import annotations

from tests.support.processes import (  # noqa: F401 (fixtures)
    extra_index,
    fake_index,
    shared_index,
    shared_proxy,
    start_proxy,
)
