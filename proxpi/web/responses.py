"""Answers that are not a page or a file, and the one place where errors become a status."""

from __future__ import annotations

import math
from collections.abc import Coroutine, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import datetimeToString
from twisted.web.server import Request

from proxpi.files.resolver import NotUpstream
from proxpi.index.page_cache import NoSuchFile, NoSuchProject
from proxpi.index.project_list import NoSuchList
from proxpi.simple import caching
from proxpi.simple.model import NotListed
from proxpi.simple.names import printable
from proxpi.upstream.errors import Offline, UpstreamFailed

#: Seconds after which a client is asked to try again, if the upstream says nothing else.
RETRY_AFTER = 5
#: Seconds beyond which no client is asked to wait.
LONGEST_RETRY_AFTER = 30

#: Of what says how it is at this moment.
UNSTORED = {"Cache-Control": "no-store"}
_TEXT = "text/plain; charset=utf-8"
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))

_log = Logger(namespace="proxpi.web")


def set_headers(request: Request, headers: Mapping[str, str]) -> None:
    """Set header fields, replacing those of the same name.

    In ``Location`` whatever is not printable ASCII is percent-encoded.
    """
    for name, value in headers.items():
        if name == "Location":
            value = quote(value, _PRINTABLE, "utf-8", "replace")
        request.setHeader(name.encode("ascii"), printable(value).encode("latin-1", "replace"))


def field(request: Request, name: bytes) -> str | None:
    """Give a header field of a request; several lines of it are one list (RFC 9110 5.3)."""
    values = request.requestHeaders.getRawHeaders(name)
    return b", ".join(values).decode("latin-1") if values else None


def _fields(body: bytes, content_type: str, others: Mapping[str, str] | None) -> dict[str, str]:
    return {
        "Content-Type": content_type,
        "Content-Length": str(len(body)),
        "X-Content-Type-Options": "nosniff",
        **(others or {}),
    }


def whole(
    request: Request,
    status: int,
    body: bytes,
    content_type: str,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Set the head of a whole answer, and give its body."""
    request.setResponseCode(status)
    set_headers(request, _fields(body, content_type, headers))
    return body


def line(
    request: Request, status: int, text: str, headers: Mapping[str, str] | None = None
) -> bytes:
    """Answer with one plain line; its head is set, its body given."""
    return whole(request, status, f"{printable(text)}\n".encode(), _TEXT, headers)


def succeeded(request: Request, headers: Mapping[str, str] | None = None) -> bytes:
    """Answer as the cache API does when all is well; its head is set, its body given."""
    body = msgspec.json.encode({"status": "success", "data": None})
    return whole(request, 200, body, "application/json", headers)


def error(request: Request, status: int, message: str) -> bytes:
    """Answer as the cache API does when something is wrong; its head is set, its body given."""
    body = msgspec.json.encode({"status": "error", "message": printable(message)})
    return whole(request, status, body, "application/json")


def complete(
    status: int, text: str, fields: Mapping[str, str] | None = None
) -> tuple[bytes, bytes]:
    """Give head and body of one plain line for a request that was never made; then it closes."""
    body = f"{text}\n".encode()
    lines = {"Date": datetimeToString().decode("ascii"), "Connection": "close"}
    lines |= _fields(body, _TEXT, fields)
    head = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    head += [f"{name}: {value}" for name, value in lines.items()]
    return "\r\n".join([*head, "", ""]).encode("latin-1"), body


def empty(request: Request, status: int, headers: Mapping[str, str]) -> bytes:
    """Answer with a head alone, which is set."""
    request.setResponseCode(status)
    set_headers(request, headers)
    return b""


def finish(request: Request, body: bytes) -> None:
    """Send the body of a whole answer."""
    request.write(body)
    request.finish()


def later(request: Request, answer: Coroutine[Deferred[Any], Any, object]) -> None:
    """Let a coroutine answer; it is cancelled when the client goes away."""
    gone = False

    def leave(_: Failure) -> None:
        nonlocal gone
        gone = True
        answered.cancel()

    def fail(failure: Failure) -> None:
        if not gone:
            try:
                refuse(request, failure)
            except Exception:  # noqa: BLE001 (an error of proxpi's own must not leave it unanswered)
                request.processingFailed(Failure())
        elif not failure.check(CancelledError, NotListed, NotUpstream, UpstreamFailed, OSError):
            _log.failure("for a client that is gone", failure=failure)

    answered = Deferred.fromCoroutine(answer)
    request.notifyFinish().addErrback(leave)
    answered.addErrback(fail)


def refuse(request: Request, failure: Failure) -> None:
    """Answer with the status and the sentence that an error stands for."""
    match failure.value:
        case NoSuchList():
            body = line(request, 404, "No index has a list of its projects.")
        case NoSuchProject():
            body = line(request, 404, "No index has this project.")
        case NoSuchFile():
            body = line(request, 404, "No index lists this file.")
        case NotUpstream():
            body = line(request, 404, "The index lists this file, but it is not there.")
        case UpstreamFailed() | OSError() as error:
            status, text, headers = trouble(error)
            body = line(request, status, text, headers)
        case _:
            request.processingFailed(failure)
            return
    finish(request, body)


def trouble(error: UpstreamFailed | OSError) -> tuple[int, str, dict[str, str]]:
    """Give status, sentence and header fields for trouble upstream, or with the cache folder."""
    if isinstance(error, OSError):
        _log.error("cache folder: {error}", error=error)
        text = f"The cache folder cannot be used: {error.strerror or error}"
        return 503, text, {"Retry-After": str(RETRY_AFTER)}
    if not error.temporary:
        return 502, f"Upstream failed: {error}", {}
    text = f"Upstream failed: {error}"
    if isinstance(error, Offline):
        text = f"Not cached, and PROXPI_OFFLINE is set: {error.url}"
    seconds = RETRY_AFTER if error.retry_after is None else math.ceil(error.retry_after)
    seconds = min(max(1, seconds), LONGEST_RETRY_AFTER)
    return 503, text, {"Retry-After": str(seconds)}


def page_caching(etag: str, remaining: float, age: float, stale: bool) -> dict[str, str]:
    """Give the cache headers of a page (RFC 9111)."""
    headers = {"ETag": f'"{etag}"', "Vary": "Accept, Accept-Encoding"}
    if stale:
        headers["Cache-Control"] = "max-age=0, must-revalidate"
        headers["Age"] = str(int(age))
    else:
        headers["Cache-Control"] = f"public, max-age={caching.max_age(remaining)}"
    return headers


def file_caching(etag: str | None, verified: bool) -> dict[str, str]:
    """Give the cache headers of a file; one that is verified never changes under its name."""
    if not verified:
        headers = {"Cache-Control": f"public, max-age={caching.LONGEST}", "X-Verified": "no"}
    else:
        headers = {"Cache-Control": "public, max-age=31536000, immutable"} if etag else {}
    return {**headers, "ETag": f'"{etag}"'} if etag else headers


def decision(request: Request, etag: str | None) -> int | None:
    """Say whether the conditions of a request make its answer a 412 or a 304."""
    return caching.decision(field(request, b"If-Match"), field(request, b"If-None-Match"), etag)
