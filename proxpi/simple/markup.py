"""An HTML page of an index, read into anchors and a few facts, before any of it is believed.

What the anchors mean is for ``parse`` to say.
"""

from __future__ import annotations

import re
from html import unescape
from itertools import chain

import attrs

from proxpi.simple.tokenizer import Attributes, Kind, Tokenizer

_COMPLETE = re.compile(rb"</html\s*>(?>\s+|<!--.*?-->)*+", re.DOTALL | re.IGNORECASE)
_LONGEST_TEXT = 1000  # Enough to recognize a name or a title; more would only cost time.
_FRAMES = frozenset({"iframe", "frame", "frameset"})
_HEADINGS = frozenset({"title", "h1"})
_UNSEEN = frozenset({"script", "style", "title"})
_TAGS = re.compile("<[^<>]*+>")

_LISTING_TITLES = ("links for", "index of", "simple index", "directory listing")


@attrs.define
class Anchor:
    """One ``<a>``: its attributes (the first of each name, lower case) and its text.

    :ivar raw: the text with its character references
    """

    attributes: Attributes
    raw: str = ""

    @property
    def text(self) -> str:
        """The beginning of the text content, that of descendants included."""
        return unescape(self.raw)


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
    :ivar tagged: Whether it has any tag but those of anchors.
    """

    anchors: list[Anchor] = attrs.field(factory=list)
    base: str | None = None
    metas: dict[str, str] = attrs.field(factory=dict)
    headings: list[str] = attrs.field(factory=list)
    barred: bool = False
    scripted: bool = False
    written: bool = False
    tagged: bool = False

    @property
    def titled(self) -> bool:
        """Whether a title or heading says that this is a listing."""
        return any(title in heading for heading in self.headings for title in _LISTING_TITLES)

    def note(self, tag: str, attributes: Attributes) -> None:
        """Take the facts from a start tag."""
        self.tagged = True
        if tag == "meta":
            name, content = attributes.get("name"), attributes.get("content") or ""
            if name:
                self.metas.setdefault(name.strip().lower(), content)
            elif (attributes.get("http-equiv") or "").strip().lower() == "refresh":
                self.barred = True
        elif tag == "base" and self.base is None:
            self.base = attributes.get("href")
        elif tag in _HEADINGS:
            self.headings.append("")
        elif tag == "script":
            self.scripted = True
        elif tag in _FRAMES:
            self.barred = True
        elif tag == "input":
            self.barred = self.barred or (attributes.get("type") or "").lower() == "password"


def is_complete_html(body: bytes) -> bool:
    """Say whether the page ends with ``</html>``; white space and comments may follow.

    (The public index writes its serial number in a comment behind the last tag.)
    """
    return _COMPLETE.fullmatch(body, max(0, body.lower().rfind(b"</html"))) is not None


def read(page: str) -> Markup:
    """Read a page.

    :raises ValueError: When it has too many marked sections.
    """
    tokenizer, markup = Tokenizer(), Markup()
    anchor: Anchor | None = None
    inside = ""
    for kind, value, attributes in chain(tokenizer.feed(page), tokenizer.finish()):
        if kind is Kind.TEXT:
            if anchor is not None and len(anchor.raw) < _LONGEST_TEXT:
                anchor.raw += value[:_LONGEST_TEXT]
            if inside in _HEADINGS and len(markup.headings[-1]) < _LONGEST_TEXT:
                # A title shows tags as text.
                text = _TAGS.sub("", value[:_LONGEST_TEXT])
                markup.headings[-1] += unescape(text).lower()
            if not markup.written and inside not in _UNSEEN:
                markup.written = bool(unescape(value.strip()[:_LONGEST_TEXT]).strip())
        elif kind is Kind.END:
            if value == "a":
                anchor = None
            elif value == inside:
                inside = ""
        elif value == "a":
            anchor = Anchor(attributes)
            markup.anchors.append(anchor)
        else:
            markup.note(value, attributes)
            if value in _HEADINGS or value in _UNSEEN:
                inside = value
    return markup
