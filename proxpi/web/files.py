"""One file: whole or a range, conditional, or a better place for it (RFC 9110)."""

from __future__ import annotations

from mimetypes import guess_type

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from proxpi.files.disk import Copy
from proxpi.files.mirror import Elsewhere, Head, Mirror
from proxpi.files.passing import Part
from proxpi.files.stream import Body
from proxpi.simple import conditional
from proxpi.web import answers
from proxpi.web.follow import follow
from proxpi.web.send import send_file
from proxpi.web.target import FileOf

OCTETS = "application/octet-stream"


class _Behind(Exception):
    """The part that is asked for begins behind the end of a file with so many bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


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
        found: Copy | Body | Part | Head | Elsewhere
        if request.method == b"HEAD":
            found = await self._mirror.head(wanted.name, wanted.filename)
        elif answers.field(request, b"Range") and not answers.field(request, b"If-None-Match"):
            try:
                found = await self._part(request, wanted)
            except _Behind as behind:
                _refuse_range(request, behind.size, "MISS")
                return
        else:
            found = await self._mirror.fetch(wanted.name, wanted.filename)
        match found:
            case Copy():
                self._send(request, wanted, found, "MISS" if found.fetched else "HIT")
            case Body():
                self._send_body(request, wanted, found)
            case Part():
                self._set_head(request, wanted, found.size, found.body.sha256, "MISS")
                _set_part(request, found.span, found.size)
                follow(request, found.body, found.span.start, found.span.stop, self._clock)
            case Head():
                self._set_head(request, wanted, found.size, found.sha256, "MISS")
                request.finish()
            case Elsewhere():
                headers = {
                    "Location": found.url,
                    "Content-Length": "0",
                    "Cache-Control": "no-store",
                    "X-Cache": "MISS",
                }
                answers.finish(request, answers.empty(request, 302, headers))

    async def _part(self, request: Request, wanted: FileOf) -> Copy | Body | Part | Elsewhere:
        """Give the part that is asked for of a file that may not be here."""

        def choose(size: int, sha256: str | None) -> conditional.Span | None:
            try:
                return _span(request, sha256, size)
            except conditional.Unsatisfiable:
                raise _Behind(size) from None

        return await self._mirror.part(wanted.name, wanted.filename, choose)

    def _send_body(self, request: Request, wanted: FileOf, body: Body) -> None:
        """Send a file that is on its way, all of it."""
        etag = body.sha256
        if etag and conditional.none_match(answers.field(request, b"If-None-Match"), etag):
            body.drop()
            _confirm(request, etag, "MISS")
            return
        self._set_head(request, wanted, body.size, etag, "MISS")
        follow(request, body, 0, body.size, self._clock)

    def _send(self, request: Request, wanted: FileOf, copy: Copy, status: str) -> None:
        etag = copy.sha256
        if conditional.none_match(answers.field(request, b"If-None-Match"), etag):
            copy.close()
            _confirm(request, etag, status)
            return
        try:
            span = _span(request, etag, copy.size)
        except conditional.Unsatisfiable:
            copy.close()
            _refuse_range(request, copy.size, status)
            return
        self._set_head(request, wanted, copy.size, etag, status)
        start, stop = 0, copy.size
        if span is not None:
            start, stop = span.start, span.stop
            _set_part(request, span, copy.size)
        send_file(request, copy.file.fileno(), start, stop, self._clock, copy.close)

    def _set_head(
        self, request: Request, wanted: FileOf, size: int | None, sha256: str | None, status: str
    ) -> None:
        headers = {
            "Content-Type": OCTETS if self.any_type else content_type(wanted.filename),
            "Accept-Ranges": "bytes",
            "X-Cache": status,
            "X-Content-Type-Options": "nosniff",
            # An HTML file of a stranger must not act as a page of this site.
            "Content-Security-Policy": "sandbox",
        }
        if size is not None:  # else Twisted sends it so that its end shows
            headers["Content-Length"] = str(size)
        if sha256 is not None:
            headers.update(answers.file_caching(sha256))
        answers.set_headers(request, headers)


def _confirm(request: Request, etag: str, status: str) -> None:
    """Answer a client that has the file already."""
    headers = {**answers.file_caching(etag), "X-Cache": status}
    answers.finish(request, answers.empty(request, 304, headers))


def _refuse_range(request: Request, size: int, status: str) -> None:
    headers = {"Content-Range": f"bytes */{size}", "X-Cache": status}
    text = "The range begins behind the last byte."
    answers.finish(request, answers.line(request, 416, text, headers))


def _set_part(request: Request, span: conditional.Span, size: int) -> None:
    """Make the head of a whole file that of a part."""
    request.setResponseCode(206)
    headers = {
        "Content-Range": f"bytes {span.start}-{span.stop - 1}/{size}",
        "Content-Length": str(span.stop - span.start),
    }
    answers.set_headers(request, headers)


def _span(request: Request, etag: str | None, size: int) -> conditional.Span | None:
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
