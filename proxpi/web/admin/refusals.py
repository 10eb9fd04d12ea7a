"""Requests that the admin resource refuses, or that fail: JSON for programs, pages for people.

A browser that sends a form, or opens its URL, gets a page with a remedy and a way back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from urllib.parse import unquote

import attrs
from werkzeug.exceptions import MethodNotAllowed

from proxpi.prefetch import locks
from proxpi.simple import names
from proxpi.upstream import UpstreamFailed
from proxpi.web import responses
from proxpi.web.admin import auth, page
from proxpi.web.admin.auth import TriesSlowed, Unauthorized
from proxpi.web.admin.csrf import is_cross_site
from proxpi.web.admin.inventory import BeingCounted
from proxpi.web.responses import WholeResponse, field
from proxpi.web.server import Request

CROSS_SITE = "Pages of other sites may not change anything here."
UNKNOWN_HOST = "A browser may only change something under a name of PROXPI_HOSTS or an address."
TOO_LARGE = "The body of a request has at most {} bytes here."
NOT_FOUND = "There is nothing here; the home page is at /."
NO_PROJECT_NAME = (
    "This is no project name: it has letters, digits, '.', '-' and '_', and a letter or digit at "
    "both ends."
)
NO_CACHE = "PROXPI_CACHE_SIZE is 0: no file can be kept, so none is fetched in advance."
NOT_CACHED = "Nothing of this project is cached."
BEING_COUNTED = "The cached projects are being counted."
NO_FILENAME = "This is no file name."
CONFIRMATION = "forget everything"
NOT_CONFIRMED = f"Nothing is removed: type '{CONFIRMATION}' to confirm that."
HOW = "Send it as 'Authorization: Bearer ...', or as a Basic password."
NO_TOKEN = "PROXPI_ADMIN_TOKEN is not set: there is nothing to log in to."
SLOWED = "Wrong admin tokens came from this address: it has to wait."
#: The paths below which errors are JSON.
JSON_ERRORS = (b"/cache", b"/prefetch", b"/stats/")
#: The remedies for errors of forms.
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


@attrs.define(eq=False)
class Refused(Exception):
    """A request that is refused, with the status and the sentence of its response."""

    status: int
    text: str


#: The errors that :func:`for_error` describes.
ERRORS = (
    *(Refused, Unauthorized, TriesSlowed, BeingCounted),
    *(locks.LockError, UpstreamFailed, OSError),
)


def for_error(request: Request, error: BaseException | None) -> WholeResponse:
    """Make the response to a request that is refused, or fails by upstream or cache folder."""
    as_page = _wants_page(request)
    status, text, headers = _describe(error, as_page)
    if not as_page:
        return responses.api_error(status, text, headers)
    advice, login = ADVICE.get(text, ""), status == 401
    return page.error_page(request.path, status, text, advice, login=login, headers=headers)


def for_route(request: Request, error: BaseException | None) -> WholeResponse:
    """Make the response to a request without a route: 404, 405, or the methods for ``OPTIONS``."""
    status, text, allow = 404, NOT_FOUND, responses.NO_HEADERS
    if isinstance(error, MethodNotAllowed):
        allow = {"Allow": ", ".join(sorted({*(error.valid_methods or ()), "OPTIONS"}))}
        if request.method == b"OPTIONS":
            return WholeResponse(204, allow)
        status, text = 405, f"Only {allow['Allow']} can be used here."
    if _wants_page(request):
        return page.error_page(request.path, status, text, headers=allow)
    make = responses.api_error if request.path.startswith(JSON_ERRORS) else responses.text
    return make(status, text, allow)


def check_request(request: Request, *segments: str) -> None:
    """Refuse a request of another site, a body that is too large, and any URL but this one."""
    path = request.path.decode("latin-1").split("/")[1:]
    if [unquote(segment) for segment in path] != [*segments]:
        raise Refused(404, NOT_FOUND)
    if is_cross_site(request):
        raise Refused(403, CROSS_SITE)
    if request.too_large:
        raise Refused(413, TOO_LARGE.format(request.body_limit))


def require_project(name: str, status: int) -> str:
    """Return a normalized name of a project."""
    normalized = names.normalize(name)
    if normalized is None:
        raise Refused(status, NO_PROJECT_NAME)
    return normalized


def require_filename(name: str, status: int) -> str:
    if not names.is_filename(name):
        raise Refused(status, NO_FILENAME)
    return name


def _describe(error: BaseException | None, as_page: bool) -> tuple[int, str, Mapping[str, str]]:
    """Return status, sentence and header fields of an error."""
    if isinstance(error, Refused):
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


def _wants_page(request: Request) -> bool:
    """Return whether a browser has sent a form, or opened its URL."""
    is_form = request.path.lstrip(b"/").startswith(b"admin/")
    return is_form and "text/html" in (field(request, b"Accept") or "").lower()
