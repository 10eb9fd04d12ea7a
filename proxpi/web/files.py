"""The resource of one file: whole or a range, conditional, or a redirect upstream (RFC 9110)."""

from __future__ import annotations

from mimetypes import guess_type

import attrs
from twisted.internet.interfaces import IReactorTime

from proxpi.files import FileHead, FileReference, Mirror, OpenFile, RangeResponse, Reader, Redirect
from proxpi.simple import caching
from proxpi.web import responses
from proxpi.web.response_cache import Cacheable
from proxpi.web.responses import WholeResponse, field
from proxpi.web.routes import FileRoute
from proxpi.web.server import Request
from proxpi.web.transfer import send, send_file

OCTETS = "application/octet-stream"


@attrs.define(eq=False)
class Files:
    """:ivar any_type: whether all files have the type ``application/octet-stream``"""

    _mirror: Mirror
    _clock: IReactorTime
    any_type: bool

    def respond(self, request: Request, route: FileRoute) -> bool:
        """Answer a ``GET`` or ``HEAD``; return whether it is a hit."""
        cached = self._mirror.ready(route.name, route.filename)
        if cached is None:
            responses.respond_later(request, self._fetch(request, route))
            return False
        request.index = self._mirror.index_name(route.name, route.filename)
        remaining = self._remaining(route, cached)
        if cached.has_digest and remaining > 0:  # else it may have to be revalidated the next time
            keys = (route.name, cached.cache_path)
            until = self._clock.seconds() + remaining
            request.cacheable = Cacheable(keys, until, hold=cached.keep)
        self._send_cached(request, route, cached, "HIT")
        return True

    async def _fetch(self, request: Request, route: FileRoute) -> None:
        where = route.name, route.filename
        found: OpenFile | Reader | RangeResponse | FileHead | Redirect
        if field(request, b"If-Match") or field(request, b"If-None-Match"):
            reference = await self._mirror.reference(*where)
            known = reference.sha256 is not None
            if known and self._is_decided(request, route, reference, "MISS"):
                return
        if request.method == b"HEAD":
            found = await self._mirror.head(*where)
        elif field(request, b"Range") and not field(request, b"If-None-Match"):
            try:
                found = await self._mirror.range(
                    *where, lambda size, etag: _requested_span(request, etag, size)
                )
            except caching.Unsatisfiable as error:
                _range_not_satisfiable(error.size, "MISS").send(request)
                return
        else:
            found = await self._mirror.fetch(*where)
        # To a client of HTTP/1.0 only the length shows that a response is whole.
        needs_length = request.clientproto == b"HTTP/1.0"
        if isinstance(found, Reader) and found.spool.end is None and needs_length:
            found.close()
            found = await self._mirror.whole(*where)
        hit = isinstance(found, OpenFile) and not found.fetched
        if not isinstance(found, Redirect):
            request.index = self._mirror.index_name(*where)
        match found:
            case OpenFile():
                self._send_cached(request, route, found, "HIT" if hit else "MISS")
            case Reader():
                self._send_spool(request, route, found, found.spool.end)
            case RangeResponse(reader, span, size):
                self._send_spool(request, route, reader, size, span)
            case FileHead(size, reference):
                if not self._is_decided(request, route, reference, "MISS"):
                    self._set_head(request, route, size, reference, "MISS")
                    request.finish()  # type: ignore[no-untyped-call]
            case Redirect():
                headers = {"Location": found.url, "Content-Length": "0", "X-Cache": "MISS"}
                WholeResponse(302, headers | responses.NO_STORE).send(request)

    def _send_spool(
        self,
        request: Request,
        route: FileRoute,
        reader: Reader,
        size: int | None,
        span: caching.Span | None = None,
    ) -> None:
        """Send a file, or a range of it, while it arrives."""
        if self._is_decided(request, route, reader.spool.reference, "MISS"):
            reader.close()
            return
        self._set_head(request, route, size, reader.spool.reference, "MISS", span)
        request.follows = True
        request.begin_wait()
        stop = size if span is None else span.stop
        send(request, reader, stop, arrived=request.end_wait)

    def _send_cached(
        self, request: Request, route: FileRoute, cached: OpenFile, status: str
    ) -> None:
        if self._is_decided(request, route, cached, status):
            cached.close()
            return
        try:
            span = _requested_span(request, cached.sha256, cached.size)
        except caching.Unsatisfiable:
            cached.close()
            request.cacheable = None
            _range_not_satisfiable(cached.size, status).send(request)
            return
        self._set_head(request, route, cached.size, cached, status, span)
        start, stop = (0, cached.size) if span is None else (span.start, span.stop)
        if request.cacheable is not None:
            request.cacheable = attrs.evolve(request.cacheable, start=start, stop=stop)
        descriptor = cached.file.fileno()
        send_file(request, descriptor, start, stop, cached.close, cached.mark_unverified)

    def _set_head(
        self,
        request: Request,
        route: FileRoute,
        size: int | None,
        of: OpenFile | FileReference,
        status: str,
        span: caching.Span | None = None,
    ) -> None:
        """Set the head of a whole file of `size` bytes (`None`: unknown), or of a range of it."""
        headers = self._headers(route, of, status) | {
            "Content-Type": OCTETS if self.any_type else content_type(route.filename),
            "Accept-Ranges": "bytes",
            **responses.NO_SNIFF,
            # An HTML file from a package must not act as a page of this site.
            "Content-Security-Policy": "sandbox",
        }
        if size is not None:
            headers["Content-Length"] = str(size)
        if span is not None:
            request.setResponseCode(206)
            headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{size}"
            headers["Content-Length"] = str(span.stop - span.start)
        responses.set_headers(request, headers)

    def _is_decided(
        self, request: Request, route: FileRoute, of: OpenFile | FileReference, status: str
    ) -> bool:
        """Answer a request if its preconditions decide the response; return whether they do."""
        decided = responses.precondition(request, of.sha256)
        if decided == 304:
            WholeResponse(304, self._headers(route, of, status)).send(request)
        elif decided == 412:
            request.cacheable = None
            text = "The file is not the one that If-Match names."
            responses.text(412, text, {"X-Cache": status}).send(request)
        return decided is not None

    def _headers(
        self, route: FileRoute, of: OpenFile | FileReference, status: str
    ) -> dict[str, str]:
        remaining = self._remaining(route, of)
        return responses.file_headers(of.sha256, of.has_digest, status, remaining)

    def _remaining(self, route: FileRoute, of: OpenFile | FileReference) -> float:
        """Seconds for which clients may keep a file."""
        return self._mirror.remaining(route.name, route.filename, in_folder=of.in_folder)


def _range_not_satisfiable(size: int, status: str) -> WholeResponse:
    headers = {"Content-Range": f"bytes */{size}", "X-Cache": status}
    return responses.text(416, "The range begins behind the last byte.", headers)


def _requested_span(request: Request, etag: str | None, size: int) -> caching.Span | None:
    """Read the requested range; only ``GET`` can have one (RFC 9110, 14.2)."""
    if request.method != b"GET":
        return None
    return caching.requested_span(field(request, b"Range"), field(request, b"If-Range"), etag, size)


def content_type(filename: str) -> str:
    """Guess the type of a file by its name.

    A compressed file is never sent with ``Content-Encoding``, which some clients would undo: the
    type of a ``.tar.gz`` is ``application/x-tar+gzip``.
    """
    kind, encoding = guess_type(filename)
    if kind is None:
        return OCTETS
    return f"{kind}+{encoding}" if encoding else kind
