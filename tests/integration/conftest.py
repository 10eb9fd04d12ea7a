"""Fixtures for real clients and processes."""

from __future__ import annotations

import pytest

from tests.support.clients import install_pip
from tests.support.processes import (  # noqa: F401 (fixtures)
    extra_index,
    fake_index,
    shared_index,
    shared_proxy,
    start_proxy,
)


@pytest.fixture(scope="session")
def new_pip(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The command of a pip that has ``--uploaded-prior-to`` and ``--refresh-package``."""
    return install_pip(tmp_path_factory.mktemp("pip"), "pip>=26.2")
