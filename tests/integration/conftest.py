"""Fixtures for real clients and processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.clients import install_poetry
from tests.support.processes import (  # noqa: F401 (fixtures)
    extra_index,
    fake_index,
    shared_index,
    shared_proxy,
    start_proxy,
)


@pytest.fixture(scope="session")
def poetry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Poetry's command, installed for this run."""
    return install_poetry(tmp_path_factory.mktemp("poetry") / "environment")
