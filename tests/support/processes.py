"""Fixtures of the tests with real processes: fake indexes, and proxies in front of them.

A process takes a second to start, so a module whose tests only ask has one for all of them:
``shared_index`` and ``shared_proxy``. Its tests use projects of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.fake_index import FakeIndex
from tests.support.proxy import Proxy

#: A time to live, in seconds, within which no second request comes.
EXPIRED_AT_ONCE = "0.000001"

StartProxy = Callable[..., Proxy]


@contextmanager
def proxies(folder: Path) -> Iterator[StartProxy]:
    """
    Start proxies, which end with the block.

    Keywords are settings without ``PROXPI_``, in any case. ``environment`` has further variables,
    ``options`` are those of the plugin, and `within` is a command as in :class:`Proxy`. Clients
    wait half a minute for a file, so that no test depends on the speed of the machine.
    """
    with ExitStack() as stack:

        def start(
            index: FakeIndex | None = None,
            *options: str,
            environment: Mapping[str, str] | None = None,
            within: Sequence[str] = (),
            listens: bool = True,
            **settings: object,
        ) -> Proxy:
            given: dict[str, object] = {"download_timeout": 30} | settings
            if index is not None:
                given = {"index_url": index.url} | given
            variables = {f"PROXPI_{name.upper()}": str(value) for name, value in given.items()}
            proxy = Proxy(
                {**(environment or {}), **variables},
                options,
                folder=folder,
                listens=listens,
                within=within,
            )
            return stack.enter_context(proxy)

        yield start


@pytest.fixture
def start_proxy(tmp_path: Path) -> Iterator[StartProxy]:
    """See :func:`proxies`."""
    with proxies(tmp_path) as start:
        yield start


@pytest.fixture
def fake_index() -> Iterator[FakeIndex]:
    """An index that fails as it is told to."""
    with FakeIndex() as index:
        yield index


@pytest.fixture
def extra_index() -> Iterator[FakeIndex]:
    """An index of lower precedence."""
    with FakeIndex() as index:
        yield index


@pytest.fixture(scope="module")
def shared_index() -> Iterator[FakeIndex]:
    """An index for all tests of a module."""
    with FakeIndex() as index:
        yield index


@pytest.fixture(scope="module")
def shared_proxy(
    shared_index: FakeIndex, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    """A proxy in front of it, for all tests of a module."""
    with proxies(tmp_path_factory.mktemp("shared")) as start:
        yield start(shared_index)
