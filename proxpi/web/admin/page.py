"""The admin page: lines to copy, by view, what rules exclude, and two forms.

It is made from a template, without JavaScript.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from twisted.python.filepath import FilePath
from twisted.web.server import Request
from twisted.web.template import Element, Tag, XMLFile, flattenString, renderer

from proxpi import __version__
from proxpi.rules import Exclusion, Exclusions
from proxpi.simple import names
from proxpi.web.responses import WholeResponse, document, field

#: The page loads nothing, and its forms post to this site alone.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


#: Excluded files that the page lists; ``/stats`` has all.
MOST_EXCLUDED = 200


async def admin_page(
    request: Request,
    views: Sequence[str],
    exclusions: Exclusions,
    advisories: Callable[[], str] | None,
) -> WholeResponse:
    """Render the page, with the address under which the client sees it.

    :param views: the names of those that have a path of their own
    :param advisories: describes the advisories that are known, if they count
    """
    known = advisories() if advisories is not None else None
    element = _AdminPage(views, [*exclusions], known)
    body = b"<!DOCTYPE html>\n" + await flattenString(request, element)
    return document(200, body, "text/html; charset=utf-8", _HEADERS)


class _AdminPage(Element):
    """Fills the template's slots."""

    loader = XMLFile(FilePath(__file__).sibling("page.xml"))

    def __init__(
        self,
        views: Sequence[str],
        excluded: Sequence[tuple[str, str, Exclusion]],
        advisories: str | None,
    ) -> None:
        super().__init__()
        self._views, self._excluded, self._advisories = views, excluded, advisories

    @renderer
    def page(self, request: Request, tag: Tag) -> Tag:
        """Fill in what depends on the request."""
        scheme = "https" if request.isSecure() else "http"
        host = field(request, b"Host") or "127.0.0.1:5000"
        self._base = f"{scheme}://{host}/"
        done = _done(request)
        return tag.fillSlots(
            version=__version__,
            index=f"{self._base}index/",
            host=re.sub(r":\d*$", "", host),
            done=done,
            done_class="done" if done else "nothing",
        )

    @renderer
    def views(self, request: Request, tag: Tag) -> Iterator[Tag]:
        """Repeat the lines for each view."""
        for name in self._views:
            yield tag.clone().fillSlots(
                view=name, path=f"{name}/index/", view_index=f"{self._base}{name}/index/"
            )

    @renderer
    def advisories(self, request: Request, tag: Tag) -> Tag | str:
        """Show which advisories are known, if they count."""
        if self._advisories is None:
            return ""
        return tag.fillSlots(advisories=names.printable(self._advisories))

    @renderer
    def excluded(self, request: Request, tag: Tag) -> Tag | str:
        """Show what is excluded, unless that is nothing."""
        if not (count := len(self._excluded)):
            return ""
        shown = f", of which these {MOST_EXCLUDED} were noted last" if count > MOST_EXCLUDED else ""
        return tag.fillSlots(count=f"{count} file{'s' if count > 1 else ''}", shown=shown)

    @renderer
    def exclusions(self, request: Request, tag: Tag) -> Iterator[Tag]:
        """Repeat the row for each excluded file, the last noted project first."""
        for project, file, each in self._excluded[: -MOST_EXCLUDED - 1 : -1]:
            yield tag.clone().fillSlots(
                project=project,
                file=names.printable(file),
                rule=each.rule,
                available=each.available or "",
            )


def _done(request: Request) -> str:
    """Describe the change that the form has made which led here."""
    arguments: dict[bytes, list[bytes]] = request.args or {}
    if b"list" in arguments:
        return "The project list is invalidated: the next request fetches it again."
    for value in arguments.get(b"project", []):
        name = names.normalize(value.decode("utf-8", "replace"))
        if name is not None:
            return f"{name} is invalidated: the next request fetches its page again."
    return ""
