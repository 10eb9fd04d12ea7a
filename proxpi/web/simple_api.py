"""The tree under ``/index/`` and ``/simple/``: the hot path, a leaf that Klein never sees."""

from __future__ import annotations

import os

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from proxpi.index.page_cache import NoSuchProject, Page, PageCache
from proxpi.index.project_list import ProjectList, Projects
from proxpi.simple import negotiate
from proxpi.web import responses
from proxpi.web.files import Files
from proxpi.web.response_cache import Cacheable
from proxpi.web.routes import FileOf, ListPage, Moved, ProjectPage, Target, target
from proxpi.web.server import Request
from proxpi.web.transfer import send_bytes, send_file

ALLOW = {"Allow": "GET, HEAD, OPTIONS"}
VARY = {"Vary": "Accept, Accept-Encoding"}


@attrs.define(eq=False, slots=False)
class IndexTree(Resource):
    """Answers whatever is asked for under a root of the tree."""

    _pages: PageCache
    _projects: Projects
    _files: Files
    _clock: IReactorTime
    isLeaf = True

    def render(self, request: Request) -> int:
        """See `IResource`."""
        wanted = target(request.uri.partition(b"?")[0])
        if wanted is None:
            body = responses.line(request, 404, "There is nothing of this name.")
            responses.finish(request, body)
        elif request.method in (b"GET", b"HEAD"):
            self._answer(request, wanted)
        elif request.method == b"OPTIONS":
            responses.finish(request, responses.empty(request, 204, ALLOW))
        else:
            text = "An index only takes GET and HEAD; nothing can be uploaded here."
            responses.finish(request, responses.line(request, 405, text, ALLOW))
        return NOT_DONE_YET

    def _answer(self, request: Request, wanted: Target) -> None:
        match wanted:
            case Moved(location):
                _, question_mark, query = request.uri.partition(b"?")
                location += (question_mark + query).decode("latin-1")
                headers = {"Location": location, "Content-Length": "0", **VARY}
                responses.finish(request, responses.empty(request, 301, headers))
            case FileOf():
                self._files.answer(request, wanted)
            case ListPage() | ProjectPage():
                self._answer_form(request, wanted)

    def _answer_form(self, request: Request, wanted: ListPage | ProjectPage) -> None:
        responses.set_headers(request, VARY)
        form = negotiate.choose_form(responses.field(request, b"Accept"), _format(request))
        if form is None:
            responses.finish(request, responses.line(request, 406, negotiate.ACCEPTABLE))
            return
        compressed = negotiate.accepts_gzip(responses.field(request, b"Accept-Encoding"))
        if isinstance(wanted, ListPage):
            projects = self._projects.ready(form.serialization, compressed)
            if projects is not None:
                self._send_list(request, projects, form, compressed)
            else:
                responses.later(request, self._fetch_list(request, form, compressed))
            return
        try:
            page = self._pages.ready(wanted.name, form.serialization, compressed)
        except NoSuchProject:
            responses.refuse(request, Failure())
            return
        if page is not None:
            if page.status == "HIT":
                until = self._clock.seconds() + page.remaining
                request.cacheable = Cacheable((wanted.name,), until, page.body.data)
            self._send_page(request, page, form, compressed)
        else:
            responses.later(request, self._fetch_page(request, wanted.name, form, compressed))

    async def _fetch_page(
        self, request: Request, name: str, form: negotiate.Form, compressed: bool
    ) -> None:
        page = await self._pages.fetch(name, form.serialization, compressed)
        self._send_page(request, page, form, compressed)

    async def _fetch_list(self, request: Request, form: negotiate.Form, compressed: bool) -> None:
        projects = await self._projects.fetch(form.serialization, compressed)
        self._send_list(request, projects, form, compressed)

    def _send_page(
        self, request: Request, page: Page, form: negotiate.Form, compressed: bool
    ) -> None:
        data = page.body.data
        if _set_head(request, page, page.body.etag, len(data), form, compressed):
            send_bytes(request, data, self._clock)
        else:
            request.finish()  # type: ignore[no-untyped-call]

    def _send_list(
        self, request: Request, projects: ProjectList, form: negotiate.Form, compressed: bool
    ) -> None:
        file = projects.file
        # A descriptor of its own: the list may be replaced while it is sent.
        descriptor = os.dup(file.descriptor)
        if not _set_head(request, projects, file.etag, file.size, form, compressed):
            os.close(descriptor)
            request.finish()  # type: ignore[no-untyped-call]
            return
        send_file(request, descriptor, 0, file.size, self._clock, lambda: os.close(descriptor))


def _set_head(
    request: Request,
    page: Page | ProjectList,
    etag: str,
    size: int,
    form: negotiate.Form,
    compressed: bool,
) -> bool:
    """Set the head of a page or of the list; tell whether there is a body to send."""
    headers = responses.page_caching(etag, page.remaining, page.age, page.status == "STALE")
    headers["X-Cache"] = page.status
    decided = responses.decision(request, etag)
    if decided is not None:
        request.setResponseCode(decided)
    if decided == 412:
        request.cacheable = None
        headers["Content-Length"] = "0"
    if decided is None:
        headers["Content-Type"] = form.content_type
        headers["Content-Length"] = str(size)
        headers["X-Content-Type-Options"] = "nosniff"
        if compressed:
            headers["Content-Encoding"] = "gzip"
    responses.set_headers(request, headers)
    return decided is None


def _format(request: Request) -> str | None:
    values = request.args.get(b"format")
    return values[-1].decode("latin-1") if values else None
