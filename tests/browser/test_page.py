"""The admin page of an eventful day: in each scheme and width, with scripts and without."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.browser import (
    SCHEMES,
    WIDTHS,
    OpenPage,
    Scheme,
    overflow,
    screenshot,
    violations,
)
from tests.support.scene import PASSWORD, SCRIPT, Scene, scene

#: The figures that are broken into several lines.
BROKEN = """[...document.querySelectorAll('.figures b')]
    .filter(each => each.getClientRects().length > 1).map(each => each.textContent)"""
OPEN_ALL = "document.querySelectorAll('details').forEach(each => each.open = true)"


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(tmp_path_factory.mktemp("scene")) as day:
        yield day


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_appearance(day: Scene, open_page: OpenPage, scheme: Scheme, width: int) -> None:
    """Nothing is wider than the window, and axe finds no fault, also with all details open."""
    page = open_page(f"{day.proxy.origin}/", scheme=scheme, width=width)
    screenshot(page, f"admin-{scheme}-{width}")
    assert not page.evaluate(BROKEN)
    page.evaluate(OPEN_ALL)
    assert overflow(page) <= 0
    assert not violations(page)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("query", ["?project=hostile", "?search=nothing", "?sort=size&page=2"])
def test_lists(day: Scene, open_page: OpenPage, query: str, width: int) -> None:
    """The files of a project and the result of a search fit and have no fault, either."""
    page = open_page(f"{day.proxy.origin}/{query}", scheme="dark", width=width)
    assert overflow(page) <= 0
    assert not violations(page)


def test_hostile_names(day: Scene, open_page: OpenPage) -> None:
    """Names of files and reasons are text: no script runs, and no element comes of them."""
    page = open_page(f"{day.proxy.origin}/")
    assert page.get_by_text(SCRIPT).count()
    assert not page.locator("img, body script").count()
    assert PASSWORD not in page.content()


def test_without_scripts(day: Scene, open_page: OpenPage) -> None:
    """Scripts add buttons to copy lines; all else is there without them."""
    pages = [
        open_page(f"{day.proxy.origin}/", java_script_enabled=enabled) for enabled in (True, False)
    ]
    for number, page in enumerate(pages):
        assert overflow(page) <= 0, number
    headings, buttons = (
        [page.locator(selector).all_inner_texts() for page in pages]
        for selector in ("h1, h2, h3, summary, th", "button")
    )
    assert headings[0] == headings[1]
    assert {*buttons[0]} - {*buttons[1]} <= {"", *(text for text in buttons[0] if "Copy" in text)}
