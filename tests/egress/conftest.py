"""Indexes behind TLS, and proxies that reach them through others, for each test its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.fake_index import FakeIndex
from tests.support.proxy import Proxy

StartProxy = Callable[..., Proxy]


@pytest.fixture
def fake_index() -> Iterator[FakeIndex]:
    with FakeIndex() as index:
        yield index


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


@pytest.fixture
def start_proxy(tmp_path: Path) -> Iterator[StartProxy]:
    """Starts proxies in front of an index, whose certificate they trust.

    Keywords are variables; those in lower case are settings, without ``PROXPI_``.
    """
    with ExitStack() as stack:

        def start(index: FakeIndex, **variables: object) -> Proxy:
            given: dict[str, object] = {"index_url": index.url, "download_timeout": 30}
            if index.certificate is not None:
                given["SSL_CERT_FILE"] = index.certificate
            environment = {
                name if name.isupper() else f"PROXPI_{name.upper()}": str(value)
                for name, value in (given | variables).items()
            }
            return stack.enter_context(Proxy(environment, folder=tmp_path))

        yield start
