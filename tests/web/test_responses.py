"""Which status and which sentence an error stands for."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure
from twisted.web.test.requesthelper import DummyRequest

from proxpi.files.resolver import NotUpstream
from proxpi.index.page_cache import NoSuchFile, NoSuchProject
from proxpi.upstream.errors import UpstreamFailed
from proxpi.web import responses

URL = "https://user:secret@index.example/simple/"


def refused(error: Exception) -> tuple[int | None, str, str | None]:
    """The status, the body and ``Retry-After`` for an error."""
    request = DummyRequest([b""])
    responses.send_error(request, Failure(error))  # type: ignore[arg-type]
    waits = request.responseHeaders.getRawHeaders("Retry-After", [None])
    return request.responseCode, b"".join(request.written).decode(), waits[0]


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (NoSuchProject("demo"), 404, "project"),
        (NoSuchFile("x.whl"), 404, "file"),
        (NotUpstream("x.whl"), 404, "not there"),
        (UpstreamFailed(URL, "status 401", temporary=False), 502, "index.example"),
        (UpstreamFailed(URL, "connection refused"), 503, "connection refused"),
        (OSError(28, "No space left on device"), 503, "No space left"),
    ],
)
def test_statuses(error: Exception, status: int, words: str) -> None:
    """Each is one plain line with its status, and credentials are in none."""
    code, body, waits = refused(error)
    assert (code, body.count("\n")) == (status, 1)
    assert words in body and "secret" not in body
    assert (waits is not None) == (status == 503)


@pytest.mark.parametrize(
    ("said", "expected"),
    [(None, "5"), (0.0, "1"), (0.2, "1"), (1.2, "2"), (30.0, "30"), (3600.0, "30")],
)
def test_retry_after(said: float | None, expected: str) -> None:
    """It is whole seconds, at least one, and never more than thirty."""
    assert refused(UpstreamFailed(URL, "busy", retry_after=said))[2] == expected


def test_gone() -> None:
    """A client that is gone is told nothing."""
    request = DummyRequest([b""])
    responses.send_error(request, Failure(CancelledError()))  # type: ignore[arg-type]
    assert (request.written, request.finished) == ([], 0)


def test_page_caching() -> None:
    """A fresh page may be kept for what is left of its time, at most a minute."""
    for remaining, expected in [(10.9, 10), (0.5, 0), (5000.0, 60)]:
        headers = responses.page_headers("tag", remaining, 3.0, "HIT")
        assert headers["Cache-Control"] == f"public, max-age={expected}"
        assert "Age" not in headers
        assert headers["ETag"] == '"tag"'


def test_an_error_while_refusing() -> None:
    """Whatever goes wrong while an error is put into words, the client gets an answer."""
    failed: list[Failure] = []

    class Request(DummyRequest):
        def processingFailed(self, reason: Failure) -> None:
            failed.append(reason)

    async def fails() -> None:
        raise UpstreamFailed(URL, "status 503", retry_after=float("inf"))

    responses.respond_later(Request([b""]), fails())  # type: ignore[arg-type]
    assert [type(failure.value) for failure in failed] == [OverflowError]
