"""Fixtures for the files that users paste: fake indexes, and proxies before them."""

from __future__ import annotations

from tests.support.processes import fake_index, shared_index, start_proxy  # noqa: F401 (fixtures)
