"""An HTML page of an index, read into anchors and a few facts, before any of it is believed.

What the anchors mean is for ``parse`` to say. The standard library's parser is used because real
listings are not valid HTML5: no body, attributes without quotes, anchors in comments.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

import attrs

Attributes = dict[str, str | None]

_COMPLETE = re.compile(rb"</html\s*>(?>\s+|<!--.*?-->)*+", re.DOTALL | re.IGNORECASE)
_LONGEST_TEXT = 1000  # Enough to recognize a name or a title; more would only cost time.
_FRAMES = frozenset({"iframe", "frame", "frameset"})
_HEADINGS = frozenset({"title", "h1"})
_UNSEEN = frozenset({"script", "style", "title"})

_LISTING_TITLES = ("links for", "index of", "simple index", "directory listing")


@attrs.define
class Anchor:
    """One ``<a>``: its attributes (the first of each name, lower case) and its text."""

    attributes: Attributes
    text: str = ""


@attrs.define
class Markup:
    """What a page contains.

    :ivar base: The ``href`` of the first ``<base>`` that has one.
    :ivar metas: Contents of ``<meta name=… content=…>`` by lower-case name; the first wins.
    :ivar headings: Lower-case text of each ``<title>`` and ``<h1>``.
    :ivar barred: Whether it holds what no listing has: a password field, a frame or a
        refresh.
    :ivar scripted: Whether it holds a script.
    :ivar written: Whether it shows any text.
    """

    anchors: list[Anchor] = attrs.field(factory=list)
    base: str | None = None
    metas: dict[str, str] = attrs.field(factory=dict)
    headings: list[str] = attrs.field(factory=list)
    barred: bool = False
    scripted: bool = False
    written: bool = False

    @property
    def titled(self) -> bool:
        """Whether a title or heading says that this is a listing."""
        return any(title in heading for heading in self.headings for title in _LISTING_TITLES)


def is_complete_html(body: bytes) -> bool:
    """Say whether the page ends with ``</html>``; white space and comments may follow.

    (The public index writes its serial number in a comment behind the last tag.)
    """
    return _COMPLETE.fullmatch(body, max(0, body.lower().rfind(b"</html"))) is not None


def read(text: str) -> Markup:
    """Read a page.

    :raises ValueError: When the standard library's parser gives up.
    """
    reader = _Reader()
    # Nothing behind the last ">" is a tag, and that parser takes quadratic time to find it out.
    end = text.rfind(">") + 1
    try:
        reader.feed(text[:end])
        reader.close()
    except AssertionError as error:  # How it reports a marked section that it does not know.
        raise ValueError("the markup cannot be read") from error
    if text[end:].strip():
        reader.markup.written = True
    return reader.markup


class _Reader(HTMLParser):
    """Collects the facts while the standard library's parser walks over the page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.markup = Markup()
        self._anchor: Anchor | None = None
        self._inside: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        markup = self.markup
        if tag == "a":
            self._anchor = Anchor(dict(reversed(attrs)))
            markup.anchors.append(self._anchor)
        elif tag == "meta":
            self._meta(dict(reversed(attrs)))
        elif tag == "base" and markup.base is None:
            markup.base = dict(reversed(attrs)).get("href")
        elif tag in _FRAMES or (tag == "input" and _is_password(attrs)):
            markup.barred = True
        elif tag in _HEADINGS:
            self._inside = tag
            markup.headings.append("")
        elif tag in _UNSEEN:
            self._inside = tag
            markup.scripted = markup.scripted or tag == "script"

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._anchor = None
        elif tag == self._inside:
            self._inside = None

    def handle_data(self, data: str) -> None:
        if self._anchor is not None and len(self._anchor.text) < _LONGEST_TEXT:
            self._anchor.text += data
        if self._inside in _HEADINGS and len(self.markup.headings[-1]) < _LONGEST_TEXT:
            self.markup.headings[-1] += data.lower()
        if self._inside not in _UNSEEN and not self.markup.written:
            self.markup.written = bool(data.strip())

    def updatepos(self, i: int, j: int) -> int:
        return j  # It would count lines, which nobody asks for.

    def _meta(self, attributes: Attributes) -> None:
        name, content = attributes.get("name"), attributes.get("content") or ""
        if name:
            self.markup.metas.setdefault(name.strip().lower(), content)
        elif (attributes.get("http-equiv") or "").strip().lower() == "refresh":
            self.markup.barred = True


def _is_password(attrs: list[tuple[str, str | None]]) -> bool:
    return any(name == "type" and (value or "").lower() == "password" for name, value in attrs)
