"""A fake index, and proxies in front of it, for each test its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.clients import install_poetry
from tests.support.fake_index import FakeIndex
from tests.support.proxy import Proxy

# A time to live, in seconds, that no second request comes within.
EXPIRED_AT_ONCE = "0.000001"

StartProxy = Callable[..., Proxy]


@pytest.fixture
def fake_index() -> Iterator[FakeIndex]:
    """An upstream that does as it is told."""
    with FakeIndex() as index:
        yield index


@pytest.fixture
def start_proxy(tmp_path: Path) -> Iterator[StartProxy]:
    """Starts proxies in front of an index; keywords are settings without ``PROXPI_``, in any case.

    They wait half a minute for a file before they redirect, so that no test depends on how
    fast the machine is, unless it sets ``download_timeout``.
    """
    with ExitStack() as stack:

        def start(index: FakeIndex | None = None, **settings: object) -> Proxy:
            given: dict[str, object] = {"download_timeout": 30} | settings
            if index is not None:
                given = {"index_url": index.url} | given
            variables = {f"PROXPI_{name.upper()}": str(value) for name, value in given.items()}
            return stack.enter_context(Proxy(variables, folder=tmp_path))

        yield start


@pytest.fixture(scope="session")
def poetry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Poetry's command, installed for this run."""
    return install_poetry(tmp_path_factory.mktemp("poetry") / "environment")
