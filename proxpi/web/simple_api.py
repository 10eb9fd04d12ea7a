"""The resource under ``/index/`` and ``/simple/`` of a view: project list, pages, way to files.

It is a leaf, without Klein: a hit is answered synchronously, anything else once it is fetched.
"""

from __future__ import annotations

import os

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from proxpi.files import METADATA
from proxpi.index import NoSuchProject, Page, PageCache, ProjectList, ProjectListCache
from proxpi.prefetch import Prefetcher
from proxpi.simple import caching, negotiate
from proxpi.web import responses
from proxpi.web.files import Files
from proxpi.web.response_cache import Cacheable
from proxpi.web.responses import WholeResponse, field
from proxpi.web.routes import FileRoute, ListRoute, PageRoute, RedirectRoute, find_route, find_view
from proxpi.web.server import Request
from proxpi.web.transfer import send_bytes, send_file

ALLOW = {"Allow": "GET, HEAD, OPTIONS"}
VARY = {"Vary": "Accept, Accept-Encoding"}
READ_ONLY = "An index only takes GET and HEAD; nothing can be uploaded here."


@attrs.define(eq=False, slots=False)
class SimpleApi(Resource):
    """The tree of one view; `views`: the names of all that have a path of their own."""

    _views: frozenset[bytes]
    _pages: PageCache
    _projects: ProjectListCache
    _files: Files
    _clock: IReactorTime
    _prefetcher: Prefetcher | None
    isLeaf = True

    def render(self, request: Request) -> int:
        path, question_mark, query = request.uri.partition(b"?")
        found = find_view(path, self._views)
        route = find_route(found[1]) if found is not None else None
        if route is None:
            responses.text(404, "There is nothing of this name.").send(request)
        elif request.method == b"OPTIONS":
            WholeResponse(204, ALLOW).send(request)
        elif request.method not in (b"GET", b"HEAD"):
            responses.text(405, READ_ONLY, ALLOW).send(request)
        else:
            match route:
                case RedirectRoute(location):
                    request.kind = "page"
                    location += (question_mark + query).decode("latin-1")
                    headers = {"Location": location, "Content-Length": "0", **VARY}
                    WholeResponse(301, headers).send(request)
                case FileRoute(name, filename):
                    request.kind = "metadata" if filename.endswith(METADATA) else "file"
                    hit = self._files.respond(request, route)
                    if self._prefetcher is not None:
                        whole = request.method == b"GET" and not field(request, b"Range")
                        self._prefetcher.file_requested(
                            request.sender, name, filename, hit=hit, whole=whole
                        )
                case ListRoute() | PageRoute():
                    request.kind = "list" if isinstance(route, ListRoute) else "page"
                    self._respond(request, route)
        return NOT_DONE_YET

    def _respond(self, request: Request, route: ListRoute | PageRoute) -> None:
        responses.set_headers(request, VARY)
        formats = request.args.get(b"format")
        format = formats[-1].decode("latin-1") if formats else None
        media_type = negotiate.choose_media_type(field(request, b"Accept"), format)
        if media_type is None:
            responses.text(406, negotiate.ACCEPTABLE).send(request)
            return
        compressed = negotiate.accepts_gzip(field(request, b"Accept-Encoding"))
        variant = media_type.serialization, compressed
        headers = {"Content-Type": media_type.content_type, **responses.NO_SNIFF}
        if compressed:
            headers["Content-Encoding"] = "gzip"
        cache_control, refresh = field(request, b"Cache-Control"), False
        if cache_control is not None:
            refresh = caching.is_refresh(cache_control, field(request, b"User-Agent"))
        found: Page | ProjectList | None
        if isinstance(route, ListRoute):
            found = self._projects.ready(*variant, refresh=refresh)
        else:
            try:
                found = self._pages.ready(route.name, *variant, refresh=refresh)
            except NoSuchProject:
                responses.send_error(request, Failure())
                return
            if found is not None and found.status == "HIT":
                until = self._clock.seconds() + found.remaining
                request.cacheable = Cacheable((route.name,), until, found.body.data)

        async def fetch() -> None:
            if isinstance(route, ListRoute):
                projects = await self._projects.fetch(*variant, refresh=refresh)
                self._send(request, projects, headers)
            else:
                page = await self._pages.fetch(route.name, *variant, refresh=refresh)
                self._send(request, page, headers)

        if found is not None:
            self._send(request, found, headers)
        else:
            responses.respond_later(request, fetch())
        if self._prefetcher is not None and isinstance(route, PageRoute):
            hit = found is not None
            self._prefetcher.page_requested(request.sender, route.name, variant, hit=hit)

    def _send(
        self, request: Request, found: Page | ProjectList, representation: dict[str, str]
    ) -> None:
        """Send a page or the list; ``representation`` has the header fields of its body."""
        request.index = found.index
        etag = found.body.etag if isinstance(found, Page) else found.file.etag
        headers = responses.page_headers(etag, found.remaining, found.age, found.status)
        status = responses.precondition(request, etag)
        if status is not None:
            if status == 412:
                request.cacheable = None
                headers["Content-Length"] = "0"
            WholeResponse(status, headers).send(request)
            return
        size = len(found.body.data) if isinstance(found, Page) else found.file.size
        headers["Content-Length"] = str(size)
        responses.set_headers(request, headers | representation)
        if isinstance(found, Page):
            send_bytes(request, found.body.data)
        else:
            # A descriptor of its own: the list may be replaced while it is sent.
            descriptor = os.dup(found.file.descriptor)
            send_file(request, descriptor, 0, size, lambda: os.close(descriptor))
