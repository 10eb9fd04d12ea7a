"""Indexes behind TLS, and proxies that reach them through others, for each test its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.fake_index import FakeIndex
from tests.support.processes import fake_index, start_proxy  # noqa: F401 (fixtures)


@pytest.fixture
def tls_index() -> Iterator[FakeIndex]:
    """An index at an https URL, with a certificate of its own authority."""
    with FakeIndex(tls=True) as index:
        yield index


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Contexts that end with the test, in reverse order."""
    with ExitStack() as stack:
        yield stack
