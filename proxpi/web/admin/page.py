"""The home page: what this is, the lines to copy, and two forms. It works without JavaScript."""

from __future__ import annotations

import re

from twisted.python.filepath import FilePath
from twisted.web.server import Request
from twisted.web.template import Element, Tag, XMLFile, flattenString, renderer

from proxpi import __version__
from proxpi.simple import names
from proxpi.web.responses import field

_TEMPLATE = XMLFile(FilePath(__file__).sibling("page.xml"))


async def render_home(request: Request) -> bytes:
    """Render the page for whoever asks, by the address under which they see it."""
    return b"<!DOCTYPE html>\n" + await flattenString(request, _Home())


class _Home(Element):
    """Fills the template's slots."""

    loader = _TEMPLATE

    @renderer
    def page(self, request: Request, tag: Tag) -> Tag:
        """Fill in what depends on the request."""
        scheme = "https" if request.isSecure() else "http"
        host = field(request, b"Host") or "127.0.0.1:5000"
        done = _done(request)
        return tag.fillSlots(
            version=__version__,
            index=f"{scheme}://{host}/index/",
            host=re.sub(r":\d*$", "", host),
            done=done,
            done_class="done" if done else "nothing",
        )


def _done(request: Request) -> str:
    """Say what the form that led here did."""
    arguments: dict[bytes, list[bytes]] = request.args or {}
    if b"list" in arguments:
        return "The project list is forgotten: it is asked for again when it is next wanted."
    for given in arguments.get(b"project", []):
        name = names.normalize(given.decode("utf-8", "replace"))
        if name is not None:
            return f"{name} is forgotten: its page is asked for again when it is next wanted."
    return ""
