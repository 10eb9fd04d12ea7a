"""The outage matrix: each line of the table, in each state, against the real program."""

from __future__ import annotations

import re

import pytest

from tests.faults.matrix import PASSWORD, Asked, Outcome, Story, tell_all
from tests.faults.table import FAILURES, SOON, Expected, Failure, State

#: Seconds that a busy machine adds to a wait.
MARGIN = 1.5
_ALL_STATES: tuple[State, ...] = (
    "cold",
    "fresh",
    "expired",
    "restarted fresh",
    "restarted expired",
)


@pytest.fixture(scope="session")
def stories(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Story]:
    """What became of those lines of the table that are to be tested."""
    lines: dict[str, Failure] = {}
    for item in request.session.items:
        if isinstance(item, pytest.Function) and "stories" in item.fixturenames:
            failure = item.callspec.params["failure"]
            assert isinstance(failure, Failure)
            lines[failure.name] = failure
    return tell_all(list(lines.values()), tmp_path_factory.mktemp("faults-"))


def _told(stories: dict[str, Story], failure: Failure) -> Story:
    return stories[failure.name]


def _outcome(story: Story, state: State) -> Outcome:
    if state not in story.outcomes:
        raise AssertionError(f"it never came to {state!r}") from story.trouble
    return story.outcomes[state]


def _is_as_expected(asked: Asked, expected: Expected, cause: str) -> None:
    reply = asked.reply
    assert reply.status == expected.status, reply.text
    assert reply.headers.get("x-cache", "") == expected.x_cache
    match expected.body:
        case "old page":
            assert asked.old is not None
            assert reply.body == asked.old.body
            assert reply.headers["etag"] == asked.old.headers["etag"]
        case "one line":
            assert reply.headers["content-type"].startswith("text/plain")
            assert re.fullmatch(r"[^\n]+\n", reply.text)
            assert cause.lower() in reply.text.lower()
            assert PASSWORD not in reply.text
            assert "Traceback" not in reply.text
    if expected.x_cache == "STALE":
        assert int(reply.headers["age"]) >= 0
        assert reply.headers["cache-control"] == "max-age=0, must-revalidate"
    if expected.status == 503:
        assert 1 <= int(reply.headers["retry-after"]) <= 30
    else:
        assert "retry-after" not in reply.headers


@pytest.mark.parametrize("state", _ALL_STATES)
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
def test_what_a_client_gets(stories: dict[str, Story], failure: Failure, state: State) -> None:
    """Status, header, bytes and time are what the table says, for first and later clients."""
    outcome = _outcome(_told(stories, failure), state)
    expected = failure.expected(state)
    for asked in (*outcome.first, *outcome.then):
        _is_as_expected(asked, expected, failure.cause)
    assert max(asked.seconds for asked in outcome.first) <= expected.within + MARGIN
    assert max((asked.seconds for asked in outcome.then), default=0) <= expected.then + MARGIN
    if expected.x_cache == "HIT":
        assert outcome.upstream == []


@pytest.mark.parametrize("state", ["cold", "expired", "restarted"])
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
def test_the_upstream_comes_back(stories: dict[str, Story], failure: Failure, state: str) -> None:
    """Clients that ask a few seconds after the upstream's return get fresh pages."""
    story = _told(stories, failure)
    if state not in story.returns:
        raise AssertionError(f"it never came back from {state!r}") from story.trouble
    came_back = story.returns[state]
    assert came_back.seconds <= SOON
    assert [reply.status for reply in came_back.replies] == [200, 200]
    assert "STALE" not in [reply.headers["x-cache"] for reply in came_back.replies]
    if state != "cold":
        version = {"restarted": "1.2", "expired": "1.3"}[state]
        page, listed = (reply.text for reply in came_back.replies)
        assert f"known-{version}-py3-none-any.whl" in page
        assert f"since-{version.replace('.', '-')}" in listed


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
def test_nothing_is_wrong_inside(stories: dict[str, Story], failure: Failure) -> None:
    """No outage brings a traceback or a credential into the log, nor ends a story early."""
    story = _told(stories, failure)
    if story.trouble is not None:
        raise AssertionError("the story ended early") from story.trouble
    for written in story.written:
        assert "Traceback" not in written
        assert PASSWORD not in written
