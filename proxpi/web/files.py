"""One file: whole or a range, conditional, or a better place for it (RFC 9110)."""

from __future__ import annotations

from mimetypes import guess_type

import attrs
from twisted.internet.interfaces import IReactorTime

from proxpi import metrics
from proxpi.files.cache_dir import OpenFile
from proxpi.files.mirror import Head, Mirror, Redirect
from proxpi.files.passthrough import Part
from proxpi.files.resolver import FileReference
from proxpi.files.spool import Reader
from proxpi.simple import caching
from proxpi.web import responses
from proxpi.web.response_cache import Cacheable
from proxpi.web.routes import FileOf
from proxpi.web.server import Request
from proxpi.web.transfer import send, send_file

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
            metrics.FILE_HITS.inc()
            if copy.has_digest:  # anything else may have to be revalidated the next time
                about = (wanted.name, copy.place)
                request.cacheable = Cacheable(about, hold=lambda: self._mirror.hold(copy))
            self._send(request, wanted, copy, "HIT")
        else:
            responses.later(request, self._answer(request, wanted))

    async def _answer(self, request: Request, wanted: FileOf) -> None:
        found: OpenFile | Reader | Part | Head | Redirect
        if responses.field(request, b"If-Match") or responses.field(request, b"If-None-Match"):
            reference = await self._mirror.reference(wanted.name, wanted.filename)
            if reference.sha256 is not None and _decided(request, reference, "MISS"):
                metrics.FILE_MISSES.inc()
                return
        if request.method == b"HEAD":
            found = await self._mirror.head(wanted.name, wanted.filename)
        elif responses.field(request, b"Range") and not responses.field(request, b"If-None-Match"):
            try:
                found = await self._mirror.part(
                    wanted.name, wanted.filename, lambda size, etag: _span(request, etag, size)
                )
            except caching.Unsatisfiable as error:
                _refuse_range(request, error.size, "MISS")
                return
        else:
            found = await self._mirror.fetch(wanted.name, wanted.filename)
        # Only its length can tell a client of HTTP/1.0 that a response is whole.
        needs_length = request.clientproto == b"HTTP/1.0"
        if isinstance(found, Reader) and found.spool.size is None and needs_length:
            found.close()
            found = await self._mirror.whole(wanted.name, wanted.filename)
        hit = isinstance(found, OpenFile) and not found.fetched
        redirected = isinstance(found, Redirect)
        outcome = metrics.FILE_REDIRECTS if redirected else metrics.FILE_MISSES
        (metrics.FILE_HITS if hit else outcome).inc()
        match found:
            case OpenFile():
                self._send(request, wanted, found, "HIT" if hit else "MISS")
            case Reader():
                self._send_spool(request, wanted, found, None, found.spool.size)
            case Part(reader, span, size):
                self._send_spool(request, wanted, reader, span, size)
            case Head(size, reference):
                if not _decided(request, reference, "MISS"):
                    self._set_head(request, wanted, size, reference, "MISS")
                    request.finish()  # type: ignore[no-untyped-call]
            case Redirect():
                headers = {
                    "Location": found.url,
                    "Content-Length": "0",
                    "Cache-Control": "no-store",
                    "X-Cache": "MISS",
                }
                responses.finish(request, responses.empty(request, 302, headers))

    def _send_spool(
        self,
        request: Request,
        wanted: FileOf,
        reader: Reader,
        span: caching.Span | None,
        size: int | None,
    ) -> None:
        """Send a file that is on its way, or a part of it."""
        if _decided(request, reader.spool.reference, "MISS"):
            reader.close()
            return
        self._set_head(request, wanted, size, reader.spool.reference, "MISS")
        if span is not None:
            assert size is not None
            _set_part(request, span, size)
        send(request, reader, self._clock, size if span is None else span.stop)

    def _send(self, request: Request, wanted: FileOf, copy: OpenFile, status: str) -> None:
        etag = copy.sha256
        if _decided(request, copy, status):
            copy.close()
            return
        try:
            span = _span(request, etag, copy.size)
        except caching.Unsatisfiable:
            copy.close()
            request.cacheable = None
            _refuse_range(request, copy.size, status)
            return
        self._set_head(request, wanted, copy.size, copy, status)
        start, stop = 0, copy.size
        if span is not None:
            start, stop = span.start, span.stop
            _set_part(request, span, copy.size)
        if request.cacheable is not None:
            request.cacheable = attrs.evolve(request.cacheable, start=start, stop=stop)
        descriptor = copy.file.fileno()
        send_file(request, descriptor, start, stop, self._clock, copy.close, copy.mark_unverified)

    def _set_head(
        self,
        request: Request,
        wanted: FileOf,
        size: int | None,
        of: OpenFile | FileReference,
        status: str,
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
        headers.update(responses.file_caching(of.sha256, of.has_digest))
        responses.set_headers(request, headers)


def _decided(request: Request, of: OpenFile | FileReference, status: str) -> bool:
    """Answer a request whose conditions decide; tell whether they do."""
    decided = responses.decision(request, of.sha256)
    if decided == 304:
        headers = {**responses.file_caching(of.sha256, of.has_digest), "X-Cache": status}
        responses.finish(request, responses.empty(request, 304, headers))
    elif decided == 412:
        request.cacheable = None
        text = "The file is not the one that If-Match names."
        responses.finish(request, responses.line(request, 412, text, {"X-Cache": status}))
    return decided is not None


def _refuse_range(request: Request, size: int, status: str) -> None:
    headers = {"Content-Range": f"bytes */{size}", "X-Cache": status}
    text = "The range begins behind the last byte."
    responses.finish(request, responses.line(request, 416, text, headers))


def _set_part(request: Request, span: caching.Span, size: int) -> None:
    """Make the head of a whole file that of a part."""
    request.setResponseCode(206)
    headers = {
        "Content-Range": f"bytes {span.start}-{span.stop - 1}/{size}",
        "Content-Length": str(span.stop - span.start),
    }
    responses.set_headers(request, headers)


def _span(request: Request, etag: str | None, size: int) -> caching.Span | None:
    """Give the part that is asked for; only ``GET`` can ask for one (RFC 9110 14.2)."""
    if request.method != b"GET":
        return None
    return caching.requested_span(
        responses.field(request, b"Range"), responses.field(request, b"If-Range"), etag, size
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
