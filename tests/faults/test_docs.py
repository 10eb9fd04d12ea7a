"""What the docs say of outages is what is tested."""

from __future__ import annotations

from pathlib import Path

from docutils.core import publish_doctree

from tests.faults.table import FAILURES, documented

_PAGE = (Path(__file__).parents[2] / "docs/outages.rst").read_text(encoding="utf-8")


def test_the_page_shows_the_table() -> None:
    """The page has what ``python -m tests.faults.table`` prints, and no other table."""
    assert documented() in _PAGE
    assert _PAGE.count("list-table") == 1


def test_the_page_can_be_read() -> None:
    """It is reStructuredText without an error or a warning."""
    publish_doctree(_PAGE, settings_overrides={"halt_level": 2})


def test_every_line_has_its_own_name() -> None:
    """No line of the table hides behind another one."""
    assert len({failure.name for failure in FAILURES}) == len(FAILURES)
