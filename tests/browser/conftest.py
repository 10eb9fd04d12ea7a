"""Fixtures of the tests with a browser: one for each module, since others share its process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.support.browser import OpenPage, chromium, pages
from tests.support.processes import (  # noqa: F401 (fixtures)
    extra_index,
    fake_index,
    shared_index,
    shared_proxy,
    start_proxy,
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    with pages(browser) as open_page:
        yield open_page
