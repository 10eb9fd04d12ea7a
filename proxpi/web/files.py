"""One file: whole or a range, conditional, or a better place for it (RFC 9110)."""

from __future__ import annotations

from mimetypes import guess_type

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from proxpi.files.disk import Copy
from proxpi.files.mirror import Elsewhere, Head, Mirror
from proxpi.simple import conditional
from proxpi.web import answers
from proxpi.web.send import send
from proxpi.web.target import FileOf

OCTETS = "application/octet-stream"


@attrs.define(eq=False)
class Files:
    """Answers requests for files.

    :ivar any_type: whether all of them are called ``application/octet-stream``
    """

    _mirror: Mirror
    _clock: IReactorTime
    any_type: bool

    def answer(self, request: Request, wanted: FileOf) -> None:
        """Answer a ``GET`` or ``HEAD``."""
        copy = self._mirror.ready(wanted.name, wanted.filename)
        if copy is not None:
            self._send(request, wanted, copy, "HIT")
        else:
            answers.later(request, self._answer(request, wanted))

    async def _answer(self, request: Request, wanted: FileOf) -> None:
        found: Copy | Head | Elsewhere
        if request.method == b"HEAD":
            found = await self._mirror.head(wanted.name, wanted.filename)
        else:
            found = await self._mirror.fetch(wanted.name, wanted.filename)
        if isinstance(found, Copy):
            self._send(request, wanted, found, "MISS" if found.fetched else "HIT")
        elif isinstance(found, Head):
            self._set_head(request, wanted, found.size, found.sha256, "MISS")
            request.finish()
        else:
            headers = {
                "Location": found.url,
                "Content-Length": "0",
                "Cache-Control": "no-store",
                "X-Cache": "MISS",
            }
            answers.finish(request, answers.empty(request, 302, headers))

    def _send(self, request: Request, wanted: FileOf, copy: Copy, status: str) -> None:
        etag = copy.sha256
        if conditional.none_match(answers.field(request, b"If-None-Match"), etag):
            copy.close()
            headers = {**answers.file_caching(etag), "X-Cache": status}
            answers.finish(request, answers.empty(request, 304, headers))
            return
        try:
            span = _span(request, etag, copy.size)
        except conditional.Unsatisfiable:
            copy.close()
            headers = {"Content-Range": f"bytes */{copy.size}", "X-Cache": status}
            text = "The range begins behind the last byte."
            answers.finish(request, answers.line(request, 416, text, headers))
            return
        self._set_head(request, wanted, copy.size, etag, status)
        start, stop = 0, copy.size
        if span is not None:
            start, stop = span.start, span.stop
            request.setResponseCode(206)
            part = f"bytes {start}-{stop - 1}/{copy.size}"
            answers.set_headers(
                request, {"Content-Range": part, "Content-Length": str(stop - start)}
            )
        send(request, copy.read, start, stop, self._clock, copy.close)

    def _set_head(
        self, request: Request, wanted: FileOf, size: int, sha256: str | None, status: str
    ) -> None:
        headers = {
            "Content-Type": OCTETS if self.any_type else content_type(wanted.filename),
            "Content-Length": str(size),
            "Accept-Ranges": "bytes",
            "X-Cache": status,
            "X-Content-Type-Options": "nosniff",
            # An HTML file of a stranger must not act as a page of this site.
            "Content-Security-Policy": "sandbox",
        }
        if sha256 is not None:
            headers.update(answers.file_caching(sha256))
        answers.set_headers(request, headers)


def _span(request: Request, etag: str, size: int) -> conditional.Span | None:
    """Give the part that is asked for; only ``GET`` can ask for one (RFC 9110 14.2)."""
    if request.method != b"GET":
        return None
    return conditional.requested_span(
        answers.field(request, b"Range"), answers.field(request, b"If-Range"), etag, size
    )


def content_type(filename: str) -> str:
    """
    Guess the type of a file by its name.

    What is compressed says so in its type and never as ``Content-Encoding``, which some
    clients would undo: a ``.tar.gz`` is ``application/x-tar+gzip``.
    """
    kind, encoding = guess_type(filename)
    if kind is None:
        return OCTETS
    return f"{kind}+{encoding}" if encoding else kind
