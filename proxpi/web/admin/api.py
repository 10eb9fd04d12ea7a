"""The Klein resource: admin page, cache API, prefetch, statistics and health; not pages and files.

``DELETE`` under ``/cache``, a lock for ``/prefetch`` and the forms of the admin page change
something: each such request passes one check (:meth:`AdminApi._check_change`), and each but a lock
needs the admin token, if there is one (:mod:`proxpi.web.admin.auth`). A browser gets the errors of
forms as pages.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import attrs
import msgspec
from klein import Klein
from klein.resource import KleinResource
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from proxpi.files import Mirror
from proxpi.prefetch import locks
from proxpi.simple import names
from proxpi.single_flight import InThread
from proxpi.upstream import UpstreamFailed
from proxpi.web import responses
from proxpi.web.admin import auth, page
from proxpi.web.admin.actions import Actions, Result, Results
from proxpi.web.admin.auth import Authentication, TriesSlowed, Unauthorized
from proxpi.web.admin.csrf import is_cross_site, is_rebound
from proxpi.web.admin.inventory import BeingCounted, FileList, Inventory, ProjectList, Sort, sort_of
from proxpi.web.admin.prefetch import LockPrefetch
from proxpi.web.admin.stats import Statistics
from proxpi.web.readiness import Readiness
from proxpi.web.responses import WholeResponse, field
from proxpi.web.server import Request

#: Bytes that a form may have.
MAX_FORM = 4096
CROSS_SITE = "Pages of other sites may not change anything here."
UNKNOWN_HOST = "A browser may only change something under a name of PROXPI_HOSTS or an address."
TOO_LARGE = "The body of a request has at most {} bytes here."
NOT_FOUND = "There is nothing here; the home page is at /."
NO_PROJECT_NAME = "This is no project name: letters, digits, '.', '-' and '_' are, from end to end."
NO_CACHE = "PROXPI_CACHE_SIZE is 0: no file can be kept, so none is fetched in advance."
#: The paths below which errors are JSON.
JSON_ERRORS = (b"/cache", b"/prefetch", b"/stats/")
NOT_CACHED = "Nothing of this project is cached."
BEING_COUNTED = "The cached projects are being counted."
NO_FILENAME = "This is no file name."
CONFIRMATION = "forget everything"
NOT_CONFIRMED = f"Nothing is removed: type '{CONFIRMATION}' to confirm that."
LOGGED_IN = "You are logged in, for 12 hours at most."
LOGGED_OUT = "You are logged out."
HOW = "Send it as 'Authorization: Bearer ...', or as a Basic password."
NO_TOKEN = "PROXPI_ADMIN_TOKEN is not set: there is nothing to log in to."
SLOWED = "Wrong admin tokens came from this address: it has to wait."
#: What a person can do about an error of a form.
ADVICE = {
    CROSS_SITE: "Open the admin page of this proxpi and use its buttons. Behind a reverse proxy, "
    "let it pass on the name that the browser uses (nginx: proxy_set_header Host $http_host), or "
    "name its address in PROXPI_TRUSTED_PROXIES and let it set X-Forwarded-Host.",
    UNKNOWN_HOST: "Add the name in the address bar to PROXPI_HOSTS, or set PROXPI_ADMIN_TOKEN.",
    SLOWED: "Try again in a moment.",
    **dict.fromkeys((auth.MISSING, auth.EXPIRED), "Log in, and then use the button again."),
}
#: The challenges of a 401 (RFC 9110 11.6.1). Basic would have a browser ask on its own.
_CHALLENGE = 'Bearer realm="proxpi"'
_CHALLENGES = f'{_CHALLENGE}, Basic realm="proxpi"'


#: Header fields of every response here, unless the response states them otherwise. Pages load
#: nothing but their own style and script, and post to this site alone.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    **responses.NO_SNIFF,
    **responses.NO_STORE,
}


@attrs.define(eq=False)
class _Refused(Exception):
    status: int
    text: str


@attrs.define(eq=False)
class AdminApi:
    """Everything but pages and files.

    :ivar hosts: names in ``Host`` under which a browser may change something
    :ivar views: the names of those that have a path of their own
    :ivar authentication: requires the admin token, if there is one
    :ivar statistics: makes the document of ``/stats``
    :ivar in_thread: renders the page, which takes 10 ms, and ten times as long the first time
    """

    _actions: Actions
    _results: Results
    _mirror: Mirror
    _prefetch: LockPrefetch
    _hosts: frozenset[str]
    _authentication: Authentication | None
    _views: Sequence[str]
    _readiness: Readiness
    _exposition: Callable[[str], tuple[bytes, str]]
    _statistics: Statistics
    _inventory: Inventory
    _in_thread: InThread

    app = Klein()
    app.url_map.strict_slashes = False

    def resource(self) -> IResource:
        return _Secured(self.app)

    @app.route("/", methods=["GET"])
    async def home(self, request: Request) -> bytes:
        """Send the admin page, with a page of the cached projects, or of the files of one."""
        search, sort, number = _list_query(request)
        listed: ProjectList | FileList | None = None
        with suppress(BeingCounted):
            if project := _query_field(request, "project"):
                listed = await self._inventory.files(project, sort, number)
            listed = listed or await self._inventory.projects(search, sort, number)
        document = await self._statistics.document(page.MOST_EXCLUDED)
        statistics = msgspec.to_builtins(document)
        listing = msgspec.to_builtins(listed)
        result = self._results.find(_query_field(request, "done"))
        access: page.Access = "open"
        if self._authentication is not None:
            # Not verified: that would be a try, and changes are refused all the same.
            access = "locked" if auth.login_cookie(request) is None else "logged in"
        url, views = request.base_url, self._views

        def render() -> WholeResponse:
            return page.home(url, statistics, views, listing, access, result)

        return (await self._in_thread(render)).apply(request)

    @app.route(f"/admin/<any({', '.join(map(repr, page.ASSETS))}):name>", methods=["GET"])
    def asset(self, request: Request, name: str) -> bytes:
        """Send a file that pages load."""
        return page.asset(request, name).apply(request)

    @app.route("/health", methods=["GET"])
    def health(self, request: Request) -> bytes:
        return responses.success(responses.NO_STORE).apply(request)

    @app.route("/ready", methods=["GET"])
    async def ready(self, request: Request) -> bytes:
        return (await self._readiness.respond()).apply(request)

    @app.route("/metrics", methods=["GET"])
    def metrics(self, request: Request) -> bytes:
        accept = responses.field(request, b"Accept") or ""
        body, content_type = self._exposition(accept)
        return responses.document(200, body, content_type, responses.NO_STORE).apply(request)

    @app.route("/stats", methods=["GET"])
    async def stats(self, request: Request) -> bytes:
        """Send the statistics: as JSON, or as the live sections of the admin page."""
        if _query_field(request, "format") != "html":
            return _json(await self._statistics.document()).apply(request)
        statistics = msgspec.to_builtins(await self._statistics.document(page.MOST_EXCLUDED))
        return (await self._in_thread(lambda: page.sections(statistics))).apply(request)

    @app.route("/stats/projects", methods=["GET"])
    async def stats_projects(self, request: Request) -> bytes:
        """Send a page of the list of the cached projects, by ``search``, ``sort`` and ``page``."""
        return _json(await self._inventory.projects(*_list_query(request))).apply(request)

    @app.route("/stats/projects/<name>", methods=["GET"])
    async def stats_files(self, request: Request, name: str) -> bytes:
        """Send a page of the list of a project's cached files, by ``sort`` and ``page``."""
        _, sort, number = _list_query(request)
        if (listed := await self._inventory.files(name, sort, number)) is None:
            raise _Refused(404, NOT_CACHED)
        return _json(listed).apply(request)

    @app.route("/cache/list", methods=["DELETE"])
    async def delete_list(self, request: Request) -> bytes:
        """Forget the project list, and the page of a project called ``list``."""
        await self._check_change(request, "cache", "list")
        self._actions.forget_list()
        self._actions.forget_project("list")
        return responses.success().apply(request)

    @app.route("/cache/<name>", methods=["DELETE"])
    async def delete_project(self, request: Request, name: str) -> bytes:
        await self._check_change(request, "cache", name)
        self._actions.forget_project(_project(name, 404))
        return responses.success().apply(request)

    @app.route("/cache/<name>/<filename>", methods=["DELETE"])
    async def delete_file(self, request: Request, name: str, filename: str) -> bytes:
        await self._check_change(request, "cache", name, filename)
        await self._actions.forget_file(_project(name, 404), _filename(filename, 404))
        return responses.success().apply(request)

    @app.route("/cache", methods=["DELETE"])
    async def delete_all(self, request: Request) -> bytes:
        await self._check_change(request, "cache")
        if request.uri != b"/cache":
            raise _Refused(404, NOT_FOUND)  # a query could be meant to restrict this
        await self._actions.forget_everything()
        return responses.success().apply(request)

    @app.route("/admin/forget-list", methods=["POST"])
    async def post_forget_list(self, request: Request) -> bytes:
        await self._check_change(request, "admin", "forget-list")
        return self._show(self._actions.forget_list()).apply(request)

    @app.route("/admin/forget-project", methods=["POST"])
    async def post_forget_project(self, request: Request) -> bytes:
        await self._check_change(request, "admin", "forget-project")
        project = _project(_fields(request)["project"], 400)
        return self._show(self._actions.forget_project(project)).apply(request)

    @app.route("/admin/forget-file", methods=["POST"])
    async def post_forget_file(self, request: Request) -> bytes:
        await self._check_change(request, "admin", "forget-file")
        fields = _fields(request)
        project, filename = _project(fields["project"], 400), _filename(fields["file"], 400)
        return self._show(await self._actions.forget_file(project, filename)).apply(request)

    @app.route("/admin/forget-everything", methods=["POST"])
    async def post_forget_everything(self, request: Request) -> bytes:
        await self._check_change(request, "admin", "forget-everything")
        if _fields(request)["confirm"].lower() != CONFIRMATION:
            raise _Refused(400, NOT_CONFIRMED)
        return self._show(await self._actions.forget_everything()).apply(request)

    @app.route("/admin/refetch", methods=["POST"])
    async def post_refetch(self, request: Request) -> bytes:
        await self._check_change(request, "admin", "refetch")
        project = _project(_fields(request)["project"], 400)
        return self._show(await self._actions.refetch(project)).apply(request)

    @app.route("/admin/login", methods=["GET"])
    def login_form(self, request: Request) -> bytes:
        if self._authentication is None:
            raise _Refused(409, NO_TOKEN)
        return page.error_page(200, auth.MISSING, login=True).apply(request)

    @app.route("/admin/login", methods=["POST"])
    async def log_in(self, request: Request) -> bytes:
        _check_request(request, "admin", "login")
        if self._authentication is None:
            raise _Refused(409, NO_TOKEN)
        token = _fields(request)["token"]
        cookie = await self._authentication.log_in(token, request.client_address)
        _set_cookie(request, cookie, auth.SESSION)
        return self._show(Result(LOGGED_IN)).apply(request)

    @app.route("/admin/logout", methods=["POST"])
    def log_out(self, request: Request) -> bytes:
        _check_request(request, "admin", "logout")
        _set_cookie(request, b"", 0)
        return self._show(Result(LOGGED_OUT)).apply(request)

    @app.route("/prefetch", methods=["POST"])
    async def prefetch(self, request: Request) -> bytes:
        """Fetch the files of a lock; that needs no token, as an install needs none."""
        _check_request(request, "prefetch")
        self._check_host(request)
        if not self._mirror.caches:
            raise _Refused(409, NO_CACHE)
        await self._prefetch.respond(request)
        return b""

    async def _check_change(self, request: Request, *segments: str) -> None:
        """Refuse a request that may not change anything, or whose URL is not exactly this one."""
        _check_request(request, *segments)
        if self._authentication is not None:
            await self._authentication.require(request)
        else:
            self._check_host(request)

    def _show(self, result: Result) -> WholeResponse:
        """Redirect a browser to the admin page, so that a reload repeats nothing."""
        location = f"../?done={self._results.add(result)}"
        return WholeResponse(303, {"Location": location, "Content-Length": "0"})

    def _check_host(self, request: Request) -> None:
        if is_rebound(request, self._hosts):
            raise _Refused(403, UNKNOWN_HOST)

    @app.handle_errors(
        _Refused,
        Unauthorized,
        TriesSlowed,
        BeingCounted,
        locks.LockError,
        UpstreamFailed,
        OSError,
    )
    def send_error(self, request: Any, failure: Failure) -> bytes:
        """Answer a request that is refused, or fails because of upstream or cache folder."""
        as_page = _wants_page(request)
        status, text, headers = _describe(failure.value, as_page)
        if not as_page:
            return responses.api_error(status, text, headers).apply(request)
        advice, login = ADVICE.get(text, ""), status == 401
        return page.error_page(status, text, advice, login=login, headers=headers).apply(request)

    @app.handle_errors(HTTPException)
    def send_route_error(self, request: Any, failure: Failure) -> bytes:
        """Answer a request that no route takes: 404, 405, or the methods for ``OPTIONS``."""
        error, status, text, allow = failure.value, 404, NOT_FOUND, responses.NO_HEADERS
        if isinstance(error, MethodNotAllowed):
            allow = {"Allow": ", ".join(sorted({*(error.valid_methods or ()), "OPTIONS"}))}
            if request.method == b"OPTIONS":
                return WholeResponse(204, allow).apply(request)
            status, text = 405, f"Only {allow['Allow']} can be used here."
        if _wants_page(request):
            return page.error_page(status, text, headers=allow).apply(request)
        make = responses.api_error if request.path.startswith(JSON_ERRORS) else responses.text
        return make(status, text, allow).apply(request)


class _Secured(KleinResource):
    def render(self, request: Any) -> Any:
        responses.set_headers(request, HEADERS)
        return super().render(request)


def _describe(error: BaseException | None, as_page: bool) -> tuple[int, str, Mapping[str, str]]:
    """Return status, sentence and header fields of an error."""
    if isinstance(error, _Refused):
        return error.status, error.text, responses.NO_HEADERS
    if isinstance(error, Unauthorized):
        if as_page:
            return 401, error.text, {"WWW-Authenticate": _CHALLENGE}
        return 401, f"{error.text} {HOW}", {"WWW-Authenticate": _CHALLENGES}
    if isinstance(error, TriesSlowed):
        return 503, SLOWED, {"Retry-After": str(math.ceil(error.seconds))}
    if isinstance(error, BeingCounted):
        return 503, BEING_COUNTED, {"Retry-After": "1"}
    if isinstance(error, locks.LockError):
        return 400, str(error), responses.NO_HEADERS
    described = responses.for_error(error)
    assert described is not None
    return described


def _check_request(request: Request, *segments: str) -> None:
    """Refuse a request of another site, a body that is too large, and any URL but this one."""
    path = request.path.decode("latin-1").split("/")[1:]
    if [unquote(segment) for segment in path] != [*segments]:
        raise _Refused(404, NOT_FOUND)
    if is_cross_site(request):
        raise _Refused(403, CROSS_SITE)
    if request.too_large:
        raise _Refused(413, TOO_LARGE.format(request.body_limit))


def _wants_page(request: Request) -> bool:
    """Return whether a browser has sent a form, or opened its URL."""
    is_form = request.path.lstrip(b"/").startswith(b"admin/")
    return is_form and "text/html" in (field(request, b"Accept") or "").lower()


def _fields(request: Request) -> defaultdict[str, str]:
    """Return the fields of a form; one that is not there is empty."""
    assert request.content is not None  # the channel has read the whole body
    body: bytes = request.content.read(MAX_FORM)
    parsed = parse_qs(body.decode("utf-8", "replace"))
    return defaultdict(str, {name: values[-1].strip() for name, values in parsed.items()})


def _query_field(request: Request, name: str) -> str:
    """Return a field of the query, empty if it is not there."""
    arguments: dict[bytes, list[bytes]] = request.args or {}
    return arguments.get(name.encode(), [b""])[-1].decode("utf-8", "replace").strip()


def _list_query(request: Request) -> tuple[str, Sort, int]:
    """Return what the query of a list says: search, order and number of the page."""
    number = _query_field(request, "page")
    page = int(number) if re.fullmatch("[0-9]{1,9}", number) else 1
    return _query_field(request, "search"), sort_of(_query_field(request, "sort")), page


def _json(value: msgspec.Struct) -> WholeResponse:
    body = msgspec.json.encode(value)
    return responses.document(200, body, "application/json", responses.NO_STORE)


def _project(name: str, status: int) -> str:
    normalized = names.normalize(name)
    if normalized is None:
        raise _Refused(status, NO_PROJECT_NAME)
    return normalized


def _filename(name: str, status: int) -> str:
    if not names.is_filename(name):
        raise _Refused(status, NO_FILENAME)
    return name


def _set_cookie(request: Request, value: bytes, seconds: int) -> None:
    """Let a browser have the cookie of a login for some seconds."""
    seen = urlsplit(request.base_url)
    attributes = [f"Max-Age={seconds}", f"Path={seen.path}", "HttpOnly", "SameSite=Strict"]
    if seen.scheme == "https":
        attributes.append("Secure")
    cookie = "; ".join([f"{auth.COOKIE.decode()}={value.decode()}", *attributes])
    responses.set_headers(request, {"Set-Cookie": cookie})
