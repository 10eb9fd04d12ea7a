"""Whole responses and header fields: the one place where errors become statuses.

A :class:`WholeResponse` is a value: status, header fields and body. Resources send it; Klein gets
its body; a connection whose request cannot be parsed gets it serialized. :func:`for_error` is the
table of errors: pages and files send the sentence as text, the cache API as JSON.
"""

from __future__ import annotations

import math
from collections.abc import Coroutine, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import attrs
import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import datetimeToString
from twisted.web.server import Request

from proxpi.files import MissingUpstream
from proxpi.index import NoSuchFile, NoSuchList, NoSuchProject, NotInView
from proxpi.simple import FileExcluded, NotListed, caching, printable
from proxpi.upstream import Offline, UpstreamFailed

#: Seconds of ``Retry-After`` where the upstream states none, and the most that it may state.
RETRY_AFTER = 5
MAX_RETRY_AFTER = 30

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
NO_STORE = {"Cache-Control": "no-store"}
NO_SNIFF = {"X-Content-Type-Options": "nosniff"}
_NOT_FOUND = {
    NoSuchList: "No index has a list of its projects.",
    # Before NoSuchProject, of which it is a kind.
    NotInView: "No index of this view may have this project (projects and owns say which may).",
    NoSuchProject: "No index has this project.",
    NoSuchFile: "No index lists this file.",
    MissingUpstream: "The index lists this file, but it is not there.",
}
#: The errors that :func:`for_error` describes.
EXPECTED = (NotListed, MissingUpstream, FileExcluded, UpstreamFailed, OSError)
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))

_log = Logger(namespace="proxpi.web")


@attrs.frozen
class WholeResponse:
    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    def apply(self, request: Request) -> bytes:
        """Set status and header fields on a request; return the body, which Klein writes."""
        request.setResponseCode(self.status)
        set_headers(request, self.headers)
        return self.body

    def send(self, request: Request) -> None:
        request.write(self.apply(request))
        request.finish()

    def serialize(self) -> tuple[bytes, bytes]:
        """Return head and body for a connection that closes afterwards."""
        headers = {"Date": datetimeToString().decode("ascii"), "Connection": "close"}
        head = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        head += [f"{name}: {value}" for name, value in (headers | {**self.headers}).items()]
        return "\r\n".join([*head, "", ""]).encode("latin-1"), self.body


def document(
    status: int, body: bytes, content_type: str, headers: Mapping[str, str] = NO_HEADERS
) -> WholeResponse:
    fields = {"Content-Type": content_type, "Content-Length": str(len(body)), **NO_SNIFF}
    return WholeResponse(status, fields | {**headers}, body)


def text(status: int, sentence: str, headers: Mapping[str, str] = NO_HEADERS) -> WholeResponse:
    """Make a response of one plain line."""
    body = f"{printable(sentence)}\n".encode()
    return document(status, body, "text/plain; charset=utf-8", headers)


def json(status: int, value: object, headers: Mapping[str, str] = NO_HEADERS) -> WholeResponse:
    return document(status, msgspec.json.encode(value), "application/json", headers)


def success(headers: Mapping[str, str] = NO_HEADERS) -> WholeResponse:
    return json(200, {"status": "success", "data": None}, headers)


def api_error(status: int, sentence: str, headers: Mapping[str, str] = NO_HEADERS) -> WholeResponse:
    return json(status, {"status": "error", "message": printable(sentence)}, headers)


def set_headers(request: Request, headers: Mapping[str, str]) -> None:
    """Set header fields; in ``Location`` what is not printable ASCII is percent-encoded."""
    for name, value in headers.items():
        if name == "Location":
            value = quote(value, _PRINTABLE, "utf-8", "replace")
        request.setHeader(name.encode("ascii"), printable(value).encode("latin-1", "replace"))


def field(request: Request, name: bytes) -> str | None:
    """Return a header field of a request; several lines of it are one list (RFC 9110, 5.3)."""
    values = request.requestHeaders.getRawHeaders(name)
    return b", ".join(values).decode("latin-1") if values else None


def respond_later(request: Any, work: Coroutine[Deferred[Any], Any, object]) -> None:
    """Let a coroutine answer a request; it is cancelled when the client disconnects.

    :param request: of the class :class:`proxpi.web.server.Request`
    """
    disconnected = False

    def cancel(_: Failure) -> None:
        nonlocal disconnected
        disconnected = True
        deferred.cancel()

    def fail(failure: Failure) -> None:
        if not disconnected:
            try:
                send_error(request, failure)
            except Exception:  # noqa: BLE001 (a bug in proxpi must not leave the request open)
                request.processingFailed(Failure())
        elif not failure.check(*EXPECTED, CancelledError):
            _log.failure("for a client that has disconnected", failure=failure)

    deferred = Deferred.fromCoroutine(work)
    if not deferred.called:
        request.begin_wait()
    request.notifyFinish().addErrback(cancel)
    deferred.addErrback(fail)


def send_error(request: Request, failure: Failure) -> None:
    described = for_error(failure.value)
    if described is None:
        request.processingFailed(failure)
    else:
        text(*described).send(request)


def for_error(error: BaseException | None) -> tuple[int, str, Mapping[str, str]] | None:
    """Return status, sentence and header fields for an error; ``None`` for a bug in proxpi."""
    for kind, sentence in _NOT_FOUND.items():
        if isinstance(error, kind):
            return 404, sentence, NO_HEADERS
    if isinstance(error, FileExcluded):
        until = f" until {error.available}" if error.available else ""
        return 403, f"{error}{until}.", NO_HEADERS
    if isinstance(error, OSError):
        _log.error("cache folder: {error}", error=error)
        sentence = f"The cache folder cannot be used: {error.strerror or error}"
        return 503, sentence, {"Retry-After": str(RETRY_AFTER)}
    if not isinstance(error, UpstreamFailed):
        return None
    sentence = f"Upstream failed: {error}"
    if not error.temporary:
        return 502, sentence, NO_HEADERS
    if isinstance(error, Offline):
        sentence = f"Not cached, and PROXPI_OFFLINE is set: {error.url}"
    seconds = RETRY_AFTER if error.retry_after is None else math.ceil(error.retry_after)
    return 503, sentence, {"Retry-After": str(min(max(1, seconds), MAX_RETRY_AFTER))}


def page_headers(etag: str, remaining: float, age: float, status: str) -> dict[str, str]:
    """Return the cache headers of a page (RFC 9111); `remaining` and `age` are seconds.

    :param age: since an index sent or confirmed it
    """
    headers = {"ETag": f'"{etag}"', "X-Cache": status}
    if status == "STALE":
        return {**headers, "Cache-Control": "max-age=0, must-revalidate", "Age": str(int(age))}
    return {**headers, "Cache-Control": f"public, max-age={caching.max_age(remaining)}"}


def file_headers(
    sha256: str | None, has_digest: bool, status: str, remaining: float = math.inf
) -> dict[str, str]:
    """Return the cache headers of a file; one with a digest does not change under its name.

    :param remaining: seconds for which a file that may change stays what it is
    """
    headers = {"X-Cache": status} | ({"ETag": f'"{sha256}"'} if sha256 else {})
    if not has_digest:
        headers["X-Verified"] = "no"
    if not has_digest or remaining < math.inf:
        headers["Cache-Control"] = f"public, max-age={caching.max_age(remaining)}"
    elif sha256:
        headers["Cache-Control"] = "public, max-age=31536000, immutable"
    return headers


def precondition(request: Request, etag: str | None) -> int | None:
    return caching.precondition(field(request, b"If-Match"), field(request, b"If-None-Match"), etag)
