"""The Klein resource: admin page, cache API, prefetch, statistics and health; not pages and files.

``DELETE`` under ``/cache``, a lock for ``/prefetch`` and the forms of the admin page change
something: each such request passes one check (:meth:`AdminApi._check_change`), and each but a lock
needs the admin token, if there is one (:mod:`proxpi.web.admin.auth`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs
import msgspec
from klein import Klein
from klein.resource import KleinResource
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from proxpi.files import Mirror
from proxpi.simple import printable
from proxpi.single_flight import InThread
from proxpi.web import responses
from proxpi.web.admin import auth, page, refusals
from proxpi.web.admin.actions import Actions, Result, Results
from proxpi.web.admin.auth import Authentication
from proxpi.web.admin.csrf import is_rebound
from proxpi.web.admin.inventory import (
    BeingCounted,
    FileListing,
    Inventory,
    ProjectListing,
    Sort,
    sort_of,
)
from proxpi.web.admin.prefetch import LockPrefetch
from proxpi.web.admin.refusals import Refused, check_request, require_filename, require_project
from proxpi.web.admin.stats import Statistics
from proxpi.web.readiness import Readiness
from proxpi.web.responses import WholeResponse
from proxpi.web.server import Request

#: Bytes that a form may have.
MAX_FORM = 4096
LOGGED_IN = "Logged in, for 12 hours at most."
LOGGED_OUT = "Logged out."
_log = Logger(namespace="proxpi.admin")

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
        listed: ProjectListing | FileListing | None = None
        with suppress(BeingCounted):
            if project := _query_field(request, "project"):
                listed = await self._inventory.files(project, sort, number)
            # A project of which nothing is cached is looked for, and not found.
            listed = listed or await self._inventory.projects(search or project, sort, number)
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
        return responses.success().apply(request)

    @app.route("/ready", methods=["GET"])
    async def ready(self, request: Request) -> bytes:
        return (await self._readiness.respond()).apply(request)

    @app.route("/metrics", methods=["GET"])
    def metrics(self, request: Request) -> bytes:
        accept = responses.field(request, b"Accept") or ""
        body, content_type = self._exposition(accept)
        return responses.document(200, body, content_type).apply(request)

    @app.route("/stats", methods=["GET"])
    async def stats(self, request: Request) -> bytes:
        """Send the statistics: as JSON, or as the live sections of the admin page."""
        if _query_field(request, "format") != "html":
            return responses.json(200, await self._statistics.document()).apply(request)
        statistics = msgspec.to_builtins(await self._statistics.document(page.MOST_EXCLUDED))
        return (await self._in_thread(lambda: page.sections(statistics))).apply(request)

    @app.route("/stats/projects", methods=["GET"])
    async def stats_projects(self, request: Request) -> bytes:
        """Send a page of the list of the cached projects, by ``search``, ``sort`` and ``page``."""
        listed = await self._inventory.projects(*_list_query(request))
        return responses.json(200, listed).apply(request)

    @app.route("/stats/projects/<name>", methods=["GET"])
    async def stats_files(self, request: Request, name: str) -> bytes:
        """Send a page of the list of a project's cached files, by ``sort`` and ``page``."""
        _, sort, number = _list_query(request)
        if (listed := await self._inventory.files(name, sort, number)) is None:
            raise Refused(404, refusals.NOT_CACHED)
        return responses.json(200, listed).apply(request)

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
        self._actions.forget_project(require_project(name, 404))
        return responses.success().apply(request)

    @app.route("/cache/<name>/<filename>", methods=["DELETE"])
    async def delete_file(self, request: Request, name: str, filename: str) -> bytes:
        await self._check_change(request, "cache", name, filename)
        await self._actions.forget_file(require_project(name, 404), require_filename(filename, 404))
        return responses.success().apply(request)

    @app.route("/cache", methods=["DELETE"])
    async def delete_all(self, request: Request) -> bytes:
        await self._check_change(request, "cache")
        if request.uri != b"/cache":
            raise Refused(404, refusals.NOT_FOUND)  # a query could be meant to restrict this
        await self._actions.forget_everything()
        return responses.success().apply(request)

    @app.route("/admin/forget-list", methods=["POST"])
    async def post_forget_list(self, request: Request) -> bytes:
        await self._check_change(request, "admin", "forget-list")
        return self._show(request, self._actions.forget_list())

    @app.route("/admin/forget-project", methods=["POST"])
    async def post_forget_project(self, request: Request) -> bytes:
        await self._check_change(request, "admin", "forget-project")
        project = require_project(_fields(request)["project"], 400)
        return self._show(request, self._actions.forget_project(project))

    @app.route("/admin/forget-file", methods=["POST"])
    async def post_forget_file(self, request: Request) -> bytes:
        await self._check_change(request, "admin", "forget-file")
        fields = _fields(request)
        project = require_project(fields["project"], 400)
        filename = require_filename(fields["file"], 400)
        return self._show(request, await self._actions.forget_file(project, filename))

    @app.route("/admin/forget-everything", methods=["POST"])
    async def post_forget_everything(self, request: Request) -> bytes:
        await self._check_change(request, "admin", "forget-everything")
        if _fields(request)["confirm"].lower() != refusals.CONFIRMATION:
            raise Refused(400, refusals.NOT_CONFIRMED)
        return self._show(request, await self._actions.forget_everything())

    @app.route("/admin/refetch", methods=["POST"])
    async def post_refetch(self, request: Request) -> bytes:
        await self._check_change(request, "admin", "refetch")
        project = require_project(_fields(request)["project"], 400)
        return self._show(request, await self._actions.refetch(project))

    @app.route("/admin/login", methods=["GET"])
    def login_form(self, request: Request) -> bytes:
        if self._authentication is None:
            raise Refused(409, refusals.NO_TOKEN)
        return page.error_page(request.path, 200, auth.MISSING, login=True).apply(request)

    @app.route("/admin/login", methods=["POST"])
    async def log_in(self, request: Request) -> bytes:
        check_request(request, "admin", "login")
        if self._authentication is None:
            raise Refused(409, refusals.NO_TOKEN)
        token = _fields(request)["token"]
        cookie = await self._authentication.log_in(token, request.client_address)
        _set_cookie(request, cookie, auth.SESSION)
        return self._show(request, Result(LOGGED_IN))

    @app.route("/admin/logout", methods=["POST"])
    def log_out(self, request: Request) -> bytes:
        check_request(request, "admin", "logout")
        _set_cookie(request, b"", 0)
        return self._show(request, Result(LOGGED_OUT))

    @app.route("/prefetch", methods=["POST"])
    async def prefetch(self, request: Request) -> bytes:
        """Fetch the files of a lock; that needs no token, as an install needs none."""
        check_request(request, "prefetch")
        self._check_host(request)
        if not self._mirror.caches:
            raise Refused(409, refusals.NO_CACHE)
        await self._prefetch.respond(request)
        return b""

    async def _check_change(self, request: Request, *segments: str) -> None:
        """Refuse a request that may not change anything, or whose URL is not exactly this one."""
        check_request(request, *segments)
        if self._authentication is not None:
            await self._authentication.require(request)
        else:
            self._check_host(request)

    def _show(self, request: Request, result: Result) -> bytes:
        """Log a result, and redirect a browser to the admin page: a reload repeats nothing."""
        text = printable(result.text)
        _log.info("{client} on the admin page: {text}", client=request.client_address, text=text)
        headers = {"Location": f"../?done={self._results.add(result)}", "Content-Length": "0"}
        return WholeResponse(303, headers).apply(request)

    def _check_host(self, request: Request) -> None:
        if is_rebound(request, self._hosts):
            raise Refused(403, refusals.UNKNOWN_HOST)

    @app.handle_errors(*refusals.ERRORS)
    def send_error(self, request: Any, failure: Failure) -> bytes:
        return refusals.for_error(request, failure.value).apply(request)

    @app.handle_errors(HTTPException)
    def send_route_error(self, request: Any, failure: Failure) -> bytes:
        return refusals.for_route(request, failure.value).apply(request)


class _Secured(KleinResource):
    def render(self, request: Any) -> Any:
        responses.set_headers(request, HEADERS)
        if request.method.isupper():
            return super().render(request)
        # Methods are case-sensitive (RFC 9110 9.1), and Klein's routes are not: "delete" would get
        # past a reverse proxy that lets no DELETE through.
        path = b"/".join([b"", *request.postpath]).decode()
        methods = AdminApi.app.url_map.bind("").allowed_methods(path)
        error = MethodNotAllowed(methods) if methods else NotFound()
        return refusals.for_route(request, error).apply(request)


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
    """Return search, order and page number from the query of a list."""
    number = _query_field(request, "page")
    page = int(number) if re.fullmatch("[0-9]{1,9}", number) else 1
    return _query_field(request, "search"), sort_of(_query_field(request, "sort")), page


def _set_cookie(request: Request, value: bytes, seconds: int) -> None:
    """Let a browser have the cookie of a login for some seconds."""
    seen = urlsplit(request.base_url)
    attributes = [f"Max-Age={seconds}", f"Path={seen.path}", "HttpOnly", "SameSite=Strict"]
    if seen.scheme == "https":
        attributes.append("Secure")
    cookie = "; ".join([f"{auth.COOKIE.decode()}={value.decode()}", *attributes])
    responses.set_headers(request, {"Set-Cookie": cookie})
