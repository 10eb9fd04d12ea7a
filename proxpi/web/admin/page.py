"""The admin page and its messages: templates, filters and assets; pure but for reading those files.

The page renders the document of ``/stats``. Its live sections are a template of their own, which
``/stats?format=html`` sends, too: one renderer. The server escapes all values (Jinja2's autoescape)
and shows characters that are not printable escaped. Jinja2 is imported at the first page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlencode, urlsplit

from markupsafe import Markup, escape
from twisted.web.server import Request

from proxpi import quantities
from proxpi.simple import names
from proxpi.web import responses
from proxpi.web.admin import charts
from proxpi.web.responses import WholeResponse, document

if TYPE_CHECKING:
    from jinja2 import Environment
    from jinja2.runtime import Context

    from proxpi.web.admin.actions import Result

#: A browser may keep a page for its history, but has to revalidate it.
_HEADERS = {"Cache-Control": "no-cache"}
#: Excluded files that the page lists; ``/stats`` has all.
MOST_EXCLUDED = 200
#: The files below ``/admin/`` that pages load, with their types.
ASSETS = {
    "style.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
#: The names of the levels of the state on the page.
LEVELS = {"ok": "OK", "degraded": "Degraded", "failing": "Failing"}
#: Whether changes need no login, or one that the browser lacks, or has.
Access = Literal["open", "locked", "logged in"]

_HTML = "text/html; charset=utf-8"
_HERE = Path(__file__).parent
_LOCAL = re.compile(r"localhost|.*\.localhost|127\.[\d.]+|\[::1\]")
_NO_VALUE = "–"
#: A digest; a person compares its beginning alone.
_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{20,}\b")


def home(
    base_url: str,
    statistics: Mapping[str, Any],
    views: Sequence[str],
    listing: Mapping[str, Any] | None,
    access: Access = "open",
    result: Result | None = None,
) -> WholeResponse:
    """Render the page; slow.

    :param base_url: the URL under which the client sees it
    :param statistics: the document of ``/stats``
    :param views: the names of those that have a path of their own
    :param listing: a page of the cached projects or, with the key ``files``, of the files of one
    :param access: ``locked`` shows the form to log in in place of the actions
    :param result: of the action that led here
    """
    seen = urlsplit(base_url)
    name = re.sub(r":\d*$", "", seen.netloc)
    body = _render(
        "page.html",
        **_of_statistics(statistics),
        views=views,
        listing=listing,
        root="",
        base_url=base_url,
        hostname=name,
        secure=seen.scheme == "https" or _LOCAL.fullmatch(name) is not None,
        access=access,
        result=result,
    )
    return document(200, body, _HTML, _HEADERS)


def sections(statistics: Mapping[str, Any]) -> WholeResponse:
    """Render the live sections alone, for the page's script; slow."""
    return document(200, _render("sections.html", **_of_statistics(statistics)), _HTML, _HEADERS)


def error_page(
    path: bytes,
    status: int,
    text: str,
    advice: str = "",
    *,
    login: bool = False,
    headers: Mapping[str, str] = responses.NO_HEADERS,
) -> WholeResponse:
    """Render an error of a form below ``/admin/``, or the form to log in, for a person.

    :param path: of the request: the links are relative to it
    :param advice: what to do about it
    :param login: whether the form to log in is shown
    """
    title = HTTPStatus(status).phrase if status >= 400 else "Log in"
    root = "../" * (path.count(b"/") - 1)
    body = _render("error.html", title=title, text=text, advice=advice, login=login, root=root)
    return document(status, body, _HTML, {**_HEADERS, **headers})


def asset(request: Request, name: str) -> WholeResponse:
    """Send one of :data:`ASSETS`; a browser revalidates it each time."""
    body, etag = _asset(name)
    headers = {"ETag": f'"{etag}"', "Cache-Control": "no-cache"}
    if responses.precondition(request, etag) == 304:
        return WholeResponse(304, headers)
    return document(200, body, ASSETS[name], headers)


@cache
def _asset(name: str) -> tuple[bytes, str]:
    body = (_HERE / "static" / name).read_bytes()
    return body, sha256(body).hexdigest()[:32]


def _render(template: str, **values: Any) -> bytes:
    return _templates().get_template(template).render(values).encode("utf-8", "replace")


def _of_statistics(statistics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of templates that show the statistics; `now` is when these were made."""
    process = statistics["proxpi"]
    started = datetime.fromisoformat(process["started"]).timestamp() if process["started"] else 0.0
    now = started + process["uptime_seconds"]
    return {"stats": statistics, "now": now}


@cache
def _templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context

    templates = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        auto_reload=False,
        finalize=_printable,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    templates.globals |= {"levels": LEVELS, "charts": charts}
    quantity = {
        "bytes": _unbroken(quantities.size),
        "count": _unbroken(quantities.count),
        "duration": _unbroken(quantities.duration),
        "percent": _unbroken(quantities.percent),
    }
    templates.filters |= quantity | {
        "abridged": lambda text: _DIGEST.sub("\\1…", text),
        "ago": pass_context(_ago),
        "clients": _counted("client waits", "clients wait"),
        "clock": pass_context(_clock),
        "day": lambda moment: moment[:10],
        "figure": lambda value, kind: quantity[kind](value),
        "files": _counted("file"),
        "projects": _counted("project"),
        "requests": _counted("request waits", "requests wait"),
        "query": lambda fields: f"?{urlencode(fields)}",
        "title": _title,
        "until": pass_context(_until),
        "uses": _counted("use"),
    }
    return templates


def _printable(value: Any) -> Any:
    """Escape unprintable characters of texts, but not of markup, which has line ends."""
    plain = isinstance(value, str) and not hasattr(value, "__html__")
    return names.printable(value) if plain else value


def _counted(one: str, many: str = "") -> Callable[[int], str]:
    return lambda number: quantities.counted(number, one, many)


def _unbroken(write: Callable[[Any], str]) -> Callable[[Any], str]:
    """Keep number and unit in one line; write an unknown one as a dash."""

    def filter_(value: Any) -> str:
        text = _NO_VALUE if value is None else write(value)
        return Markup(escape(text).replace(" ", Markup("&nbsp;")))

    return filter_


def _title(statistics: Mapping[str, Any]) -> str:
    level = statistics["state"]["level"]
    return "proxpi" if level == "ok" else f"{LEVELS[level]} – proxpi"


def _seconds_since(context: Context, moment: str) -> float:
    return float(context["now"] - datetime.fromisoformat(moment).timestamp())


def _ago(context: Context, moment: str | None) -> str:
    if moment is None:
        return _NO_VALUE
    seconds = _seconds_since(context, moment)
    return "just now" if seconds < 1 else f"{_rounded(seconds)} ago"


def _until(context: Context, moment: str) -> str:
    seconds = -_seconds_since(context, moment)
    return "now" if seconds < 1 else f"in {_rounded(seconds)}"


def _rounded(seconds: float) -> str:
    return f"{int(seconds)} s" if seconds < 60 else quantities.duration(seconds)


def _clock(context: Context, moment: str | None) -> str:
    """Write the time of the day, with the date unless that is today's, in UTC."""
    if moment is None:
        return _NO_VALUE
    then, now = datetime.fromisoformat(moment), datetime.fromtimestamp(context["now"], UTC)
    date = "" if then.date() == now.date() else f"{then:%Y-%m-%d} "
    return f"{date}{then:%H:%M} UTC"
