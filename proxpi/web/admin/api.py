"""The Klein resource tree: home page, cache API, health. Pages and files are leaves above it.

``DELETE`` under ``/cache`` and the forms of the home page do the same; both are closed to
pages of other sites.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote

import attrs
from klein import Klein
from twisted.internet.defer import FirstError, gatherResults, maybeDeferred
from twisted.python.failure import Failure
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from proxpi import metrics
from proxpi.files.mirror import Mirror
from proxpi.index.page_cache import PageCache
from proxpi.index.project_list import Projects
from proxpi.simple import names
from proxpi.upstream.errors import UpstreamFailed
from proxpi.web import responses
from proxpi.web.admin.csrf import is_cross_site, is_known_host, is_of_browser
from proxpi.web.admin.page import render_home
from proxpi.web.channel import MAX_BODY
from proxpi.web.routes import can_name

#: Bytes that a form may have.
FORM_LIMIT = 4096
CROSS_SITE = "Pages of other sites may not change anything here."
STRANGE_HOST = "A browser may only change something under a name of PROXPI_HOSTS or an address."
TOO_LARGE = f"The body of a request has at most {MAX_BODY} bytes here."
NOTHING = "There is nothing here; the home page is at /."
NO_NAME = "This is no project name: letters, digits, '.', '-' and '_' are, from end to end."
NO_FILENAME = "This is no file name."

#: The home page loads nothing, and its forms go nowhere else.
_HOME_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


@attrs.define(eq=False)
class _Refused(Exception):
    """A request that changes nothing."""

    status: int
    text: str


@attrs.define(eq=False)
class App:
    """What is neither a page nor a file.

    :ivar hosts: names in ``Host`` under which a browser may change something
    """

    _pages: PageCache
    _projects: Projects
    _mirror: Mirror
    _hosts: frozenset[str] = frozenset()

    app = Klein()
    app.url_map.strict_slashes = False

    @app.route("/", methods=["GET"])
    async def home(self, request: Request) -> bytes:
        """Say what this is and how to use it."""
        body = await render_home(request)
        return responses.whole(request, 200, body, "text/html; charset=utf-8", _HOME_HEADERS)

    @app.route("/health", methods=["GET"])
    def health(self, request: Request) -> bytes:
        """Answer at once, whatever the upstream does."""
        return responses.succeeded(request, responses.UNSTORED)

    @app.route("/metrics", methods=["GET"])
    def metrics(self, request: Request) -> bytes:
        """Tell what was counted, as Prometheus reads it."""
        body = metrics.text()
        return responses.whole(request, 200, body, metrics.CONTENT_TYPE, responses.UNSTORED)

    @app.route("/cache/list", methods=["DELETE"])
    def delete_list(self, request: Request) -> bytes:
        """Forget the project list, and a project called ``list``."""
        self._check_change(request, "cache", "list")
        self._projects.invalidate()
        self._pages.invalidate("list")
        return responses.succeeded(request)

    @app.route("/cache/<name>", methods=["DELETE"])
    def delete_project(self, request: Request, name: str) -> bytes:
        """Forget the pages of a project."""
        self._check_change(request, "cache", name)
        self._pages.invalidate(_project(name, 404))
        return responses.succeeded(request)

    @app.route("/cache/<name>/<filename>", methods=["DELETE"])
    async def delete_file(self, request: Request, name: str, filename: str) -> bytes:
        """Forget a file and what lies beside it, also while it is being fetched or sent."""
        self._check_change(request, "cache", name, filename)
        project = _project(name, 404)
        if not can_name(filename):
            raise _Refused(404, NO_FILENAME)
        await self._mirror.forget(project, filename)
        return responses.succeeded(request)

    @app.route("/cache", methods=["DELETE"])
    async def delete_all(self, request: Request) -> bytes:
        """Remove everything: list, files and pages."""
        self._check_change(request, "cache")
        if request.uri != b"/cache":
            raise _Refused(404, NOTHING)  # whatever a query was to say
        clears = (self._projects.clear, self._mirror.clear, self._pages.clear)
        parts = [maybeDeferred(clear) for clear in clears]
        try:
            await gatherResults(parts, consumeErrors=True)
        except FirstError as error:
            error.subFailure.raiseException()
        return responses.succeeded(request)

    @app.route("/admin/forget-list", methods=["POST"])
    def post_forget_list(self, request: Request) -> bytes:
        """Do what the home page's first form asks for."""
        self._check_change(request, "admin", "forget-list")
        self._projects.invalidate()
        return _back_home(request, "list=forgotten")

    @app.route("/admin/forget-project", methods=["POST"])
    def post_forget_project(self, request: Request) -> bytes:
        """Do what the home page's second form asks for."""
        self._check_change(request, "admin", "forget-project")
        assert request.content is not None  # a request that is being answered has come whole
        fields = parse_qs(request.content.read(FORM_LIMIT).decode("utf-8", "replace"))
        name = _project(fields.get("project", [""])[-1].strip(), 400)
        self._pages.invalidate(name)
        return _back_home(request, f"project={name}")

    def _check_change(self, request: Request, *segments: str) -> None:
        """Refuse what may not change anything, or is not quite the URL of what it would change."""
        if [unquote(one) for one in request.path.decode("latin-1").split("/")[1:]] != [*segments]:
            raise _Refused(404, NOTHING)
        if is_cross_site(request):
            raise _Refused(403, CROSS_SITE)
        if is_of_browser(request) and not is_known_host(request, self._hosts):
            raise _Refused(403, STRANGE_HOST)
        if request.too_large:  # type: ignore[attr-defined]
            raise _Refused(413, TOO_LARGE)

    @app.handle_errors(_Refused)
    def refuse_change(self, request: Any, failure: Failure) -> bytes:
        """Answer a request that changes nothing."""
        error = failure.value
        assert isinstance(error, _Refused)
        return responses.error(request, error.status, error.text)

    @app.handle_errors(UpstreamFailed, OSError)
    def refuse_for_now(self, request: Any, failure: Failure) -> bytes:
        """Answer what cannot be done, for want of an upstream or of a folder that can be used."""
        error = failure.value
        assert isinstance(error, (UpstreamFailed, OSError))
        status, text, headers = responses.trouble(error)
        responses.set_headers(request, headers)
        return responses.error(request, status, text)

    @app.handle_errors(MethodNotAllowed)
    def refuse_method(self, request: Any, failure: Failure) -> bytes:
        """Answer a method that is not for this URL; ``OPTIONS`` tells which are."""
        error = failure.value
        assert isinstance(error, MethodNotAllowed)
        allow = {"Allow": ", ".join(sorted({*(error.valid_methods or ()), "OPTIONS"}))}
        if request.method == b"OPTIONS":
            return responses.empty(request, 204, allow)
        return _refused(request, 405, f"Only {allow['Allow']} can be used here.", allow)

    @app.handle_errors(HTTPException)
    def refuse_rest(self, request: Any, failure: Failure) -> bytes:
        """Answer what Klein's routes do not know."""
        return _refused(request, 404, NOTHING, {})


def _refused(request: Any, status: int, text: str, headers: Mapping[str, str]) -> bytes:
    """Refuse in the form that the part of the tree has."""
    if request.path.startswith(b"/cache"):
        responses.set_headers(request, headers)
        return responses.error(request, status, text)
    return responses.line(request, status, text, headers)


def _project(name: str, status: int) -> str:
    normalized = names.normalize(name)
    if normalized is None:
        raise _Refused(status, NO_NAME)
    return normalized


def _back_home(request: Request, done: str) -> bytes:
    """Lead a browser back, so that a reload repeats nothing."""
    return responses.empty(request, 303, {"Location": f"../?{done}", "Content-Length": "0"})
