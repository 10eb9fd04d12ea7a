"""Indexes that fail, and proxies in front of them, for each test its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.fake_index import FakeIndex
from tests.support.proxy import Proxy

# A time to live, in seconds, that no second request comes within.
EXPIRED_AT_ONCE = "0.000001"

StartProxy = Callable[..., Proxy]


@pytest.fixture
def fake_index() -> Iterator[FakeIndex]:
    """An index that fails when it is told to."""
    with FakeIndex() as index:
        yield index


@pytest.fixture
def extra_index() -> Iterator[FakeIndex]:
    """An index that comes after the other one."""
    with FakeIndex() as index:
        yield index


@pytest.fixture
def start_proxy(tmp_path: Path) -> Iterator[StartProxy]:
    """Starts proxies in front of an index; keywords are settings without ``PROXPI_``, in any case.

    ``environment`` has variables that are no settings.
    """
    with ExitStack() as stack:

        def start(
            index: FakeIndex, environment: Mapping[str, str] | None = None, **settings: object
        ) -> Proxy:
            given: dict[str, object] = {"index_url": index.url, "download_timeout": 30} | settings
            variables = {f"PROXPI_{name.upper()}": str(value) for name, value in given.items()}
            proxy = Proxy({**(environment or {}), **variables}, folder=tmp_path)
            return stack.enter_context(proxy)

        yield start
