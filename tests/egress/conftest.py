"""A fake index, and proxies in front of it, as the integration tests have them."""

from __future__ import annotations

from tests.integration.conftest import fake_index, start_proxy

__all__ = ["fake_index", "start_proxy"]
