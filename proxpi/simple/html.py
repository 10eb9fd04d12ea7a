"""Reader of HTML pages: their anchors and a few facts (WHATWG HTML Standard, 13.2.5).

Browsers and package clients read an index page by these rules; the standard library's parser does
not, and takes quadratic time for some pages. Here every character is looked at a bounded number
of times, also where a page comes in chunks.

A reader is in one of three states: in *data*; in *raw text* (``script``, ``title``, …), which only
its end tag ends; or in a *comment*, which is skipped (``<?``, ``<!`` and ``</`` before anything
but a tag begin a bogus comment, and so does ``<![CDATA[``: a marked section). At the end of the
page, an open tag or comment is dropped; a lone ``<`` and the rest of raw text are text.
"""

from __future__ import annotations

import re
from html import unescape
from html.entities import html5

import attrs

#: By lower-case name, the first of each name; ``None`` is no value.
Attributes = dict[str, str | None]

#: Characters of a tag that comes in chunks; a longer one is skipped.
MAX_TAG = 64 * 1024

_SPACE = r"[\t\n\f\r ]"
_NAME = re.compile(r"</?+([A-Za-z][^\t\n\f\r />]*+)")
_VALUE = r"""(?:"[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z)|[^\t\n\f\r >]*+)"""
_KEY = r"[^\t\n\f\r />][^\t\n\f\r />=]*+"
_REST_OF_TAG = re.compile(
    rf"((?:(?:{_SPACE}|/)*+{_KEY}(?:{_SPACE}*+={_SPACE}*+{_VALUE})?+)*+(?:{_SPACE}|/)*+)>"
)
_ATTRIBUTE = re.compile(
    rf"""({_KEY})(?:{_SPACE}*+(=){_SPACE}*+(?:"([^"]*+)"|'([^']*+)'|([^\t\n\f\r >]*+)))?+"""
)
_WITH_ATTRIBUTES = frozenset({"a", "base", "input", "meta"})
_RAW = frozenset({"script", "style", "title", "textarea", "xmp", "iframe", "noembed", "noframes"})
_RAW_END = {name: re.compile(rf"</{name}(?=[\t\n\f\r />])", re.IGNORECASE) for name in _RAW}
_COMMENT_END = re.compile("--!?>")
_BOGUS_COMMENT_END = re.compile(">")
_MAX_END = len("</textarea")  # of an end that a chunk may divide
_REFERENCE = re.compile(
    r"&(?:#(?:([0-9]++)|[xX]([0-9A-Fa-f]++));?|([A-Za-z][A-Za-z0-9]*+(?:;|(?!=))))"
)
_COMPLETE = re.compile(rb"</html\s*>(?>\s+|<!--.*?-->)*+", re.DOTALL | re.IGNORECASE)
_MAX_TEXT = 1000  # enough to recognize a name or a title
_MAX_FACTS = 1000
_FRAMES = frozenset({"iframe", "frame", "frameset"})
_HEADINGS = frozenset({"title", "h1"})
_INVISIBLE = frozenset({"script", "style", "title"})
_TAGS = re.compile("<[^<>]*+>")
_LISTING_TITLES = ("links for", "index of", "simple index", "directory listing")


@attrs.define
class Anchor:
    """One ``<a>``.

    :ivar attributes: by lower-case name; the first of each name
    :ivar raw: the beginning of its text, with character references
    """

    attributes: Attributes
    raw: str = ""

    @property
    def text(self) -> str:
        """The beginning of the text content, that of descendants included."""
        return unescape(self.raw)


@attrs.define
class Markup:
    """Anchors and facts of a page; their meaning is for the parsers to say.

    :ivar anchors: those that have ended
    :ivar base: the ``href`` of the first ``<base>`` that has one
    :ivar metas: contents of ``<meta name=… content=…>`` by lower-case name; the first wins
    :ivar headings: lower-case text of each ``<title>`` and ``<h1>``
    :ivar interactive: whether it has what no listing has: a password field, a frame or a refresh
    :ivar has_tags: whether it has any tag but those of anchors
    """

    anchors: list[Anchor] = attrs.field(init=False, factory=list)
    base: str | None = attrs.field(init=False, default=None)
    metas: dict[str, str] = attrs.field(init=False, factory=dict)
    headings: list[str] = attrs.field(init=False, factory=list)
    interactive: bool = attrs.field(init=False, default=False)
    has_script: bool = attrs.field(init=False, default=False)
    has_text: bool = attrs.field(init=False, default=False)
    has_tags: bool = attrs.field(init=False, default=False)
    _anchor: Anchor | None = attrs.field(init=False, default=None)
    _inside: str = attrs.field(init=False, default="")
    _rest: str = attrs.field(init=False, default="")
    # The end of raw text or of a comment.
    _until: re.Pattern[str] | None = attrs.field(init=False, default=None)
    _raw: bool = attrs.field(init=False, default=False)

    @property
    def has_listing_title(self) -> bool:
        """Whether a title or heading is that of a listing."""
        return any(title in heading for heading in self.headings for title in _LISTING_TITLES)

    @property
    def between_anchors(self) -> bool:
        """Whether no anchor, tag, comment or raw text is open."""
        return self._anchor is None and self._until is None and not self._rest

    def feed(self, chunk: str) -> None:
        """Read a chunk of the page."""
        text, self._rest, at = self._rest + chunk, "", 0
        while at < len(text):
            if self._until is not None:
                found = self._until.search(text, at)
                stop = found.start() if found else max(at, len(text) - _MAX_END)
                if self._raw and stop > at:
                    self.text(text[at:stop])
                if found is None:
                    self._rest = text[stop:]
                    return
                self._until = None
                at = stop if self._raw else found.end()
                continue
            start = text.find("<", at)
            if start != at:
                self.text(text[at : start if start >= 0 else len(text)])
            if start < 0:
                return
            name = _NAME.match(text, start)
            if name is None:
                at = self._skip(text, start)
                if at == start:
                    self._rest = text[start:]
                    return
                if self._until is None:
                    self.text("<")
                continue
            rest = _REST_OF_TAG.match(text, name.end())
            if rest is None:
                self._rest = text[start:]
                if len(self._rest) > MAX_TAG:
                    self._until, self._raw = _BOGUS_COMMENT_END, False
                return
            at = rest.end()
            tag = name[1].lower()
            if text[start + 1] == "/":
                self.end(tag)
                continue
            self.start(tag, _attributes(rest[1]) if tag in _WITH_ATTRIBUTES else {})
            if tag in _RAW:
                self._until, self._raw = _RAW_END[tag], True

    def _skip(self, text: str, start: int) -> int:
        """Begin a comment, or skip a ``<`` that is text; return `start` if more must come."""
        following = text[start : start + 4]
        if following != "<!--" and "<!--".startswith(following) or following == "</":
            return start
        if following[1] not in "!?/":
            return start + 1
        # The end of a comment is also found within its beginning: "<!-->" is a comment.
        self._until = _COMMENT_END if following == "<!--" else _BOGUS_COMMENT_END
        self._raw = False
        return start + 2

    def finish(self) -> None:
        """Read the end of the page, and end an open anchor."""
        if self._rest and (self._raw if self._until else not _NAME.match(self._rest)):
            self.text(self._rest)
        if self._anchor is not None:
            self.end("a")

    def text(self, value: str) -> None:
        """Add text, with its character references, to the open anchor and the open heading."""
        anchor, inside = self._anchor, self._inside
        if anchor is not None and len(anchor.raw) < _MAX_TEXT:
            anchor.raw += value[:_MAX_TEXT]
        if inside in _HEADINGS and self.headings and len(self.headings[-1]) < _MAX_TEXT:
            # A title shows tags as text.
            self.headings[-1] += unescape(_TAGS.sub("", value[:_MAX_TEXT])).lower()
        if not self.has_text and inside not in _INVISIBLE:
            self.has_text = bool(unescape(value.strip()[:_MAX_TEXT]).strip())

    def end(self, tag: str) -> None:
        """End the open anchor or heading."""
        if tag == self._inside:
            self._inside = ""
        elif tag == "a" and self._anchor is not None:
            self.anchors.append(self._anchor)
            self._anchor = None

    def start(self, tag: str, attributes: Attributes) -> None:
        """Take the facts from a start tag; few tags have their attributes read."""
        if tag == "a":
            self.end("a")
            self._anchor = Anchor(attributes)
            return
        self.has_tags = True
        if tag in _HEADINGS or tag in _INVISIBLE:
            self._inside = tag
        if tag == "meta":
            name, content = attributes.get("name"), attributes.get("content") or ""
            if name and len(self.metas) < _MAX_FACTS:
                self.metas.setdefault(name.strip().lower(), content)
            elif (attributes.get("http-equiv") or "").strip().lower() == "refresh":
                self.interactive = True
        elif tag == "base" and self.base is None:
            self.base = attributes.get("href")
        elif tag in _HEADINGS and len(self.headings) < _MAX_FACTS:
            self.headings.append("")
        elif tag == "script":
            self.has_script = True
        elif tag in _FRAMES:
            self.interactive = True
        elif tag == "input":
            self.interactive |= (attributes.get("type") or "").lower() == "password"


def _attributes(text: str) -> Attributes:
    return {
        name.lower(): unescape_attribute(double or single or bare) if equals else None
        for name, equals, double, single, bare in reversed(_ATTRIBUTE.findall(text))
    }


def unescape_attribute(value: str) -> str:
    """Replace the character references in the value of an attribute.

    A named reference without ``;`` before ``=``, a letter or a digit is none: ``?a=1&copy=2``
    keeps its ``&copy``. In text, :func:`html.unescape` has other rules.
    """
    return _REFERENCE.sub(_replacement, value) if "&" in value else value


def _replacement(found: re.Match[str]) -> str:
    decimal, hexadecimal, name = found.groups()
    if name is not None:
        return html5.get(name, found[0])
    digits = (decimal or hexadecimal).lstrip("0") or "0"
    return unescape(f"&#{'' if decimal else 'x'}{digits};") if len(digits) < 8 else "\ufffd"


def is_complete_html(body: bytes) -> bool:
    """Return whether the page ends with ``</html>``; white space and comments may follow.

    (The public index writes its serial number in a comment behind the last tag.)
    """
    return _COMPLETE.fullmatch(body, max(0, body.lower().rfind(b"</html"))) is not None
