"""The Klein resource: admin page, cache API, prefetch, statistics and health; not pages and files.

``DELETE`` under ``/cache``, a lock for ``/prefetch`` and the forms of the admin page change
something: each such request passes one check (:meth:`AdminApi._check_change`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote

import attrs
import msgspec
from klein import Klein
from twisted.internet.defer import FirstError, gatherResults, maybeDeferred
from twisted.python.failure import Failure
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from proxpi import metrics
from proxpi.files import Mirror
from proxpi.index import ListEntries, PageEntries
from proxpi.prefetch import locks
from proxpi.simple import names
from proxpi.upstream import UpstreamFailed
from proxpi.web import responses
from proxpi.web.admin import page
from proxpi.web.admin.csrf import is_cross_site, is_rebound
from proxpi.web.admin.prefetch import LockPrefetch
from proxpi.web.responses import WholeResponse

#: Bytes that a form may have.
MAX_FORM = 4096
CROSS_SITE = "Pages of other sites may not change anything here."
UNKNOWN_HOST = "A browser may only change something under a name of PROXPI_HOSTS or an address."
TOO_LARGE = "The body of a request has at most {} bytes here."
NOT_FOUND = "There is nothing here; the home page is at /."
NO_PROJECT_NAME = "This is no project name: letters, digits, '.', '-' and '_' are, from end to end."
NO_CACHE = "PROXPI_CACHE_SIZE is 0: no file can be kept, so none is fetched in advance."
#: The paths below which errors are JSON.
JSON_ERRORS = (b"/cache", b"/prefetch")
NO_FILENAME = "This is no file name."


@attrs.define(eq=False)
class _Refused(Exception):
    status: int
    text: str


@attrs.define(eq=False)
class AdminApi:
    """Everything but pages and files.

    :ivar hosts: names in ``Host`` under which a browser may change something
    :ivar views: the names of those that have a path of their own
    :ivar statistics: makes the object that ``/stats`` serves
    """

    _pages: PageEntries
    _projects: ListEntries
    _mirror: Mirror
    _prefetch: LockPrefetch
    _hosts: frozenset[str]
    _views: Sequence[str]
    _exposition: Callable[[], bytes]
    _statistics: Callable[[], Mapping[str, object]]

    app = Klein()
    app.url_map.strict_slashes = False

    @app.route("/", methods=["GET"])
    def home(self, request: Request) -> bytes:
        return page.home(request, self._statistics(), self._views).apply(request)

    @app.route(f"/admin/<any({', '.join(map(repr, page.ASSETS))}):name>", methods=["GET"])
    def asset(self, request: Request, name: str) -> bytes:
        """Send a file that pages load."""
        return page.asset(request, name).apply(request)

    @app.route("/health", methods=["GET"])
    def health(self, request: Request) -> bytes:
        return responses.success(responses.NO_STORE).apply(request)

    @app.route("/metrics", methods=["GET"])
    def metrics(self, request: Request) -> bytes:
        body, headers = self._exposition(), responses.NO_STORE
        return responses.document(200, body, metrics.CONTENT_TYPE, headers).apply(request)

    @app.route("/stats", methods=["GET"])
    def stats(self, request: Request) -> bytes:
        """Send the statistics: as JSON, or as the live sections of the admin page."""
        statistics = self._statistics()
        if (request.args or {}).get(b"format") == [b"html"]:
            return page.sections(statistics).apply(request)
        body = msgspec.json.encode(statistics)
        return responses.document(200, body, "application/json", responses.NO_STORE).apply(request)

    @app.route("/cache/list", methods=["DELETE"])
    def delete_list(self, request: Request) -> bytes:
        """Invalidate the project list, and the page of a project called ``list``."""
        self._check_change(request, "cache", "list")
        self._projects.invalidate()
        self._pages.invalidate("list")
        return responses.success().apply(request)

    @app.route("/cache/<name>", methods=["DELETE"])
    def delete_project(self, request: Request, name: str) -> bytes:
        self._check_change(request, "cache", name)
        self._pages.invalidate(_project(name, 404))
        return responses.success().apply(request)

    @app.route("/cache/<name>/<filename>", methods=["DELETE"])
    async def delete_file(self, request: Request, name: str, filename: str) -> bytes:
        """Delete a file with its metadata and signature, also during its download."""
        self._check_change(request, "cache", name, filename)
        project = _project(name, 404)
        if not names.is_filename(filename):
            raise _Refused(404, NO_FILENAME)
        await self._mirror.delete(project, filename)
        return responses.success().apply(request)

    @app.route("/cache", methods=["DELETE"])
    async def delete_all(self, request: Request) -> bytes:
        self._check_change(request, "cache")
        if request.uri != b"/cache":
            raise _Refused(404, NOT_FOUND)  # a query could be meant to restrict this
        clears = (self._projects.clear, self._mirror.clear, self._pages.clear)
        try:
            await gatherResults([maybeDeferred(clear) for clear in clears], consumeErrors=True)
        except FirstError as error:
            error.subFailure.raiseException()
        return responses.success().apply(request)

    @app.route("/admin/forget-list", methods=["POST"])
    def post_invalidate_list(self, request: Request) -> bytes:
        self._check_change(request, "admin", "forget-list")
        self._projects.invalidate()
        return _see_admin_page("list=forgotten").apply(request)

    @app.route("/admin/forget-project", methods=["POST"])
    def post_invalidate_project(self, request: Request) -> bytes:
        self._check_change(request, "admin", "forget-project")
        assert request.content is not None  # the channel has read the whole body
        fields = parse_qs(request.content.read(MAX_FORM).decode("utf-8", "replace"))
        name = _project(fields.get("project", [""])[-1].strip(), 400)
        self._pages.invalidate(name)
        return _see_admin_page(f"project={name}").apply(request)

    @app.route("/prefetch", methods=["POST"])
    async def prefetch(self, request: Request) -> bytes:
        """Fetch the files of a lock."""
        self._check_change(request, "prefetch")
        if not self._mirror.caches:
            raise _Refused(409, NO_CACHE)
        await self._prefetch.respond(request)
        return b""

    def _check_change(self, request: Request, *segments: str) -> None:
        """Refuse a request that may not change anything, or whose URL is not exactly this one."""
        path = request.path.decode("latin-1").split("/")[1:]
        if [unquote(segment) for segment in path] != [*segments]:
            raise _Refused(404, NOT_FOUND)
        if is_cross_site(request):
            raise _Refused(403, CROSS_SITE)
        if is_rebound(request, self._hosts):
            raise _Refused(403, UNKNOWN_HOST)
        if request.too_large:  # type: ignore[attr-defined]
            raise _Refused(413, TOO_LARGE.format(request.body_limit))  # type: ignore[attr-defined]

    @app.handle_errors(_Refused, locks.LockError, UpstreamFailed, OSError)
    def send_error(self, request: Any, failure: Failure) -> bytes:
        """Answer a request that is refused, or fails because of upstream or cache folder."""
        error = failure.value
        if isinstance(error, _Refused):
            return responses.api_error(error.status, error.text).apply(request)
        if isinstance(error, locks.LockError):
            return responses.api_error(400, str(error)).apply(request)
        described = responses.for_error(error)
        assert described is not None
        return responses.api_error(*described).apply(request)

    @app.handle_errors(HTTPException)
    def send_route_error(self, request: Any, failure: Failure) -> bytes:
        """Answer a request that no route takes: 404, 405, or the methods for ``OPTIONS``."""
        error, status, text, allow = failure.value, 404, NOT_FOUND, responses.NO_HEADERS
        if isinstance(error, MethodNotAllowed):
            allow = {"Allow": ", ".join(sorted({*(error.valid_methods or ()), "OPTIONS"}))}
            if request.method == b"OPTIONS":
                return WholeResponse(204, allow).apply(request)
            status, text = 405, f"Only {allow['Allow']} can be used here."
        make = responses.api_error if request.path.startswith(JSON_ERRORS) else responses.text
        return make(status, text, allow).apply(request)


def _project(name: str, status: int) -> str:
    normalized = names.normalize(name)
    if normalized is None:
        raise _Refused(status, NO_PROJECT_NAME)
    return normalized


def _see_admin_page(done: str) -> WholeResponse:
    """Redirect a browser to the admin page, so that a reload repeats nothing."""
    return WholeResponse(303, {"Location": f"../?{done}", "Content-Length": "0"})
