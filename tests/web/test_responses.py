"""Responses: statuses and sentences of errors, caching fields."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure
from twisted.web.test.requesthelper import DummyRequest

from proxpi.files.resolver import MissingUpstream
from proxpi.index.page_cache import NoSuchFile, NoSuchProject
from proxpi.index.project_list import NoSuchList
from proxpi.upstream.errors import UpstreamFailed
from proxpi.web import responses

URL = "https://user:secret@index.example/simple/"


@pytest.mark.parametrize(
    ("error", "status", "words", "retry_after"),
    [
        (NoSuchProject("demo"), 404, "project", None),
        (NoSuchFile("x.whl"), 404, "file", None),
        (NoSuchList(), 404, "list", None),
        (MissingUpstream("x.whl"), 404, "not there", None),
        (UpstreamFailed(URL, "status 401", temporary=False), 502, "index.example", None),
        (UpstreamFailed(URL, "connection refused"), 503, "connection refused", "5"),
        (UpstreamFailed(URL, "busy", retry_after=0.0), 503, "busy", "1"),
        (UpstreamFailed(URL, "busy", retry_after=1.2), 503, "busy", "2"),
        (UpstreamFailed(URL, "busy", retry_after=3600.0), 503, "busy", "30"),
        (OSError(28, "No space left on device"), 503, "No space left", "5"),
    ],
)
def test_errors(error: Exception, status: int, words: str, retry_after: str | None) -> None:
    """An error is one plain line without credentials; ``Retry-After`` is 1 to 30 whole seconds."""
    request = DummyRequest([b""])
    responses.send_error(request, Failure(error))  # type: ignore[arg-type]
    body = b"".join(request.written).decode()
    code: object = request.responseCode
    assert (code, body.count("\n")) == (status, 1)
    assert words in body and "secret" not in body
    waits = request.responseHeaders.getRawHeaders("Retry-After", [None])
    assert waits[0] == retry_after


def test_disconnected_client() -> None:
    """A cancelled request gets no response."""
    request = DummyRequest([b""])
    responses.send_error(request, Failure(CancelledError()))  # type: ignore[arg-type]
    assert (request.written, request.finished) == ([], 0)


def test_error_within_an_error() -> None:
    """A bug in the description of an error is logged as one, and the request ends."""
    failed: list[Failure] = []

    class Request(DummyRequest):
        def processingFailed(self, reason: Failure) -> None:
            failed.append(reason)

        def begin_wait(self) -> None:
            """It counts no waits."""

    async def fails() -> None:
        raise UpstreamFailed(URL, "status 503", retry_after=float("inf"))

    responses.respond_later(Request([b""]), fails())
    assert [type(failure.value) for failure in failed] == [OverflowError]
