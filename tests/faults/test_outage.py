"""Outages: each row of the table, in each state, against the real program; the docs show them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from docutils.core import publish_doctree

from tests.faults.matrix import PASSWORD, WHEEL, Answer, Story, run_all
from tests.faults.table import FAILURES, SOON, Expected, Failure, documented

#: Seconds that a busy machine adds to a wait.
MARGIN = 1.5
_PAGE = (Path(__file__).parents[2] / "docs/outages.rst").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def stories(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Story]:
    """The stories of the rows that are tested."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    rows = [item.callspec.params["failure"] for item in items if "stories" in item.fixturenames]
    return run_all([row for row in FAILURES if row in rows], tmp_path_factory.mktemp("faults-"))


def _assert_expected(answer: Answer, expected: Expected, cause: str) -> None:
    reply = answer.reply
    assert reply.status == expected.status, reply.text
    assert reply.headers.get("x-cache", "") == expected.x_cache
    if expected.status == 200:
        assert answer.old is not None
        assert (reply.body, reply.headers["etag"]) == (answer.old.body, answer.old.headers["etag"])
    else:
        assert reply.headers["content-type"].startswith("text/plain")
        assert re.fullmatch(r"[^\n]+\n", reply.text)
        assert cause.lower() in reply.text.lower()
        assert PASSWORD not in reply.text
    if expected.x_cache == "STALE":
        assert int(reply.headers["age"]) >= 0
        assert reply.headers["cache-control"] == "max-age=0, must-revalidate"
    if expected.status == 503:
        assert 1 <= int(reply.headers["retry-after"]) <= 30
    else:
        assert "retry-after" not in reply.headers


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
def test_row(stories: dict[str, Story], failure: Failure) -> None:
    """Status, header, bytes and time are those of the table, for first and later clients.

    Seconds after the upstream has recovered, pages are fresh. Cached files stay hits.
    """
    story = stories[failure.name]
    if story.error is not None:
        raise AssertionError(f"the row ended after {[*story.outcomes]}") from story.error
    for state, outcome in story.outcomes.items():
        expected = failure.expected(state)
        for answer in (*outcome.first, *outcome.then):
            _assert_expected(answer, expected, failure.cause)
        slowest = max(answer.seconds for answer in outcome.first)
        assert slowest <= expected.within + MARGIN, state
        slowest = max((answer.seconds for answer in outcome.then), default=0)
        assert slowest <= expected.then + MARGIN, state
        assert expected.x_cache != "HIT" or outcome.upstream == []
    for state, version in (("cold", ""), ("restarted", "1.2"), ("expired", "1.3")):
        seconds, replies = story.recoveries[state]
        assert seconds <= SOON, state
        assert [reply.status for reply in replies] == [200, 200]
        assert "STALE" not in [reply.headers["x-cache"] for reply in replies]
        if version:
            page, listed = (reply.text for reply in replies)
            assert f"known-{version}-py3-none-any.whl" in page
            assert f"since-{version.replace('.', '-')}" in listed
    assert "Traceback" not in story.output
    assert PASSWORD not in story.output
    assert [(file.status, file.body) for file in story.files] == [(200, WHEEL.data)] * 2
    assert story.files[1].headers["x-cache"] == "HIT"


def test_docs() -> None:
    """``docs/outages.rst`` has the table, without an error of reStructuredText."""
    assert documented() in _PAGE
    assert _PAGE.count("list-table") == 1
    assert len({failure.name for failure in FAILURES}) == len(FAILURES)
    publish_doctree(_PAGE, settings_overrides={"halt_level": 2})
