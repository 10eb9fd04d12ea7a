"""Parser of project lists: from the bytes of an index's root (PEP 503, PEP 691) to names.

A list has hundreds of thousands of names, so it is read block by block and never held. Its first
bytes tell whether it is JSON or HTML. A project of JSON is an object of the array ``projects``; one
of HTML is an anchor, whose text content is its name wherever the link leads. Limits hold for the
nesting of JSON and the length of one value; the time is linear.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from json import JSONDecodeError, JSONDecoder
from typing import Any

import msgspec

from proxpi.simple import Markup, NotAnIndexPage, SkippedLinks, is_complete_html, names, parse

#: Bytes that are read and parsed in one go, which takes some milliseconds.
BLOCK = 128 * 1024
#: Characters of one value in JSON; a project takes a hundred.
MAX_VALUE = 4 * 1024 * 1024
#: Names that are normalized in one go.
BATCH = 2000
#: Bytes that tell whether a list is JSON or HTML, and bytes that hold the end of HTML.
HEAD, TAIL = 16 * 1024, 64 * 1024

_TRUNCATED = "The list is cut short."
_BLANKS = b" \t\r\n"
_NEXT = re.compile(r"[ \t\r\n]*+(.?)", re.DOTALL)
# Numbers are not converted: a long one takes long, and none is used.
_DECODER = JSONDecoder(parse_int=bool, parse_float=bool, parse_constant=bool)
_SEPARATORS = re.compile(r"[-_.]+")
_NORMALIZED_LINES = re.compile(r"(?:[a-z0-9]++(?:-[a-z0-9]++)*+\n)*+")
#: A link that leads to no project, but up, elsewhere on the page, or to another scheme.
_NAVIGATION = re.compile(r"[#?]|(?!https?:)[a-z][a-z0-9+.-]*:|\.{0,2}/?\Z", re.IGNORECASE)
#: An anchor as most are; the tokenizer would take ten times as long.
_OTHERS = r"""(?:\s++(?!href)[a-z-]++=(?:"[^"<>&]*+"|'[^'<>&]*+'))*+"""
_USUAL_ANCHOR = re.compile(
    rf"""\s*+(?:</?(?:br|li|p)\s*+/?>\s*+)*+"""
    rf"""<a{_OTHERS}\s++href=(?P<quote>["'])(?:https?:)?[\w.~%/-]*\w/?(?P=quote){_OTHERS}\s*+>"""
    r"""\s*+(?P<name>[\w.-]++)/?\s*+</a>""",
    re.ASCII | re.IGNORECASE,
)
_ANCHOR_END = re.compile("</a>|\\Z", re.IGNORECASE)


def project_names(
    blocks: Iterable[bytes], end_known: bool, skipped: SkippedLinks
) -> Iterator[bytes]:
    """Return the normalized names of a list, in pieces of whole lines, a name on each.

    :param blocks: the list, in blocks of about :data:`BLOCK` bytes
    :param end_known: whether HTTP marked the end of the body; otherwise the list must have an end
        of its own
    :param skipped: counts the links and names that are no names of projects
    :raises NotAnIndexPage: if it is none; the names that were given before are worthless then
    """
    rest, start = iter(blocks), b""
    for block in rest:
        start = (start + block).lstrip(_BLANKS).removeprefix(BOM_UTF8).lstrip(_BLANKS)
        if len(start) >= HEAD:
            break
    rest = chain([start], rest)
    if start.startswith(b"{"):
        return (_normalized(found, skipped) for found in _in_json(_JSONText(rest)))
    if b"<" in start and parse.BINARY.search(start, 0, start.find(b"<")) is None:
        return _in_html(rest, end_known, skipped)
    raise NotAnIndexPage("The list is neither JSON nor HTML." if start else _TRUNCATED)


def _normalized(found: Sequence[str], skipped: SkippedLinks) -> bytes:
    """Write names in normalized form: all at once, or one by one if any is not valid."""
    text = "\n".join(found)
    lines = _SEPARATORS.sub("-", text).lower() + "\n"
    if (
        text.isascii()
        and lines.count("\n") == len(found)
        and max(map(len, found)) <= names.MAX_LENGTH
        and _NORMALIZED_LINES.fullmatch(lines)
    ):
        return lines.encode()
    valid = []
    for name in found:
        if (normalized := names.normalize(name)) is not None:
            valid.append(f"{normalized}\n")
        else:
            skipped.add(name)
    return "".join(valid).encode()


class _Project(msgspec.Struct, gc=False):
    name: str = ""


class _JSONText:
    """JSON text, of which one block and one value are held at most.

    Its bytes are decoded as Latin-1: only ASCII matters, and a block may end anywhere.
    """

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._text = ""
        self._at = 0
        self._untried = False  # whether the fast parser has not seen this text yet

    def _more(self) -> bool:
        """Hold twice as much, so that to read a value again takes linear time."""
        size = len(self._text) - self._at
        if size > MAX_VALUE:
            raise NotAnIndexPage(f"The list has a value of more than {MAX_VALUE} characters.")
        more = b"".join(islice(self._blocks, 1 + size // BLOCK))
        self._text, self._at = self._text[self._at :] + more.decode("latin-1"), 0
        self._untried = True
        return bool(more)

    def next(self) -> str:
        """Find the next character that is not blank; ``""`` is the end."""
        while True:
            found = _NEXT.match(self._text, self._at)
            assert found is not None  # it matches anything
            self._at = found.start(1)
            if found[1] or not self._more():
                return found[1]

    def skip(self, character: str) -> bool:
        """Pass over this character, if it is the next."""
        found = self.next() == character
        self._at += found
        return found

    def expect(self, character: str) -> None:
        if not self.skip(character):
            raise NotAnIndexPage("The list is not valid JSON." if self.next() else _TRUNCATED)

    def items(self, end: str) -> Iterator[None]:
        """Stop before each item of an array or an object, and pass over its end."""
        comma = False
        while not self.skip(end):
            if comma:
                self.expect(",")
            yield
            comma = True

    def value(self) -> Any:
        self.next()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except RecursionError:
                raise NotAnIndexPage("The list is JSON that is nested too deeply.") from None
            except JSONDecodeError:
                end = len(self._text)
            if end < len(self._text):  # otherwise more may belong to it
                self._at = end
                return value
            if not self._more():
                raise NotAnIndexPage(_TRUNCATED)

    def projects(self) -> list[str]:
        """Read as many projects as a fast parser can, up to a comma, else one; return their names.

        The name of a project without a text as its name is empty.
        """
        end = self._text.rfind("},", self._at) + 1 if self._untried else 0
        self._untried = False
        # That end may lie within a project, or there is an odd one.
        with suppress(msgspec.DecodeError, RecursionError):
            found = msgspec.json.decode(f"[{self._text[self._at : end]}]", type=list[_Project])
            self._at = max(end, self._at)
            if found:
                return [project.name for project in found]
        project = self.value()
        if not isinstance(project, dict):
            raise NotAnIndexPage("The list is JSON, but not a list of projects.")
        name = project.get("name")
        return [name if isinstance(name, str) else ""]


def _in_json(text: _JSONText) -> Iterator[list[str]]:
    text.expect("{")
    listed = False
    for _ in text.items("}"):
        key = text.value()
        text.expect(":")
        if key == "projects" and text.skip("["):
            listed, found = True, list[str]()
            for _ in text.items("]"):
                found += text.projects()
                if len(found) >= BATCH:
                    yield found
                    found = []
            if found:
                yield found
        elif isinstance(value := text.value(), dict) and key == "meta":
            parse.api_version(value.get("api-version"))
    if text.next():
        raise NotAnIndexPage("The list is not valid JSON.")
    if not listed:
        raise NotAnIndexPage("The list is JSON, but not a list of projects.")


def _in_html(blocks: Iterator[bytes], end_known: bool, skipped: SkippedLinks) -> Iterator[bytes]:
    page, tail, found = Markup(), b"", False
    for block in blocks:
        tail = (tail + block)[-TAIL:]
        lines = _normalized(list(_texts(page, block.decode("latin-1"))), skipped)
        found = found or bool(lines)
        yield lines
    if not (tail.rstrip().endswith(b">") if end_known else is_complete_html(tail)):
        raise NotAnIndexPage(_TRUNCATED)
    version = page.metas.get("pypi:repository-version")
    if version is not None:
        parse.api_version(version)
    elif page.interactive or not (found or page.has_listing_title):
        raise NotAnIndexPage("The list is an HTML page, but not a list of projects.")


def _texts(page: Markup, text: str) -> Iterator[str]:
    """Return the texts of the anchors in a block that may lead to a project."""
    at = 0
    while at < len(text):
        if page.between_anchors and (usual := _USUAL_ANCHOR.match(text, at)):
            yield usual["name"]
            at = usual.end()
            continue
        found = _ANCHOR_END.search(text, at)
        assert found is not None  # it matches the end, too
        page.feed(text[at : found.end()])
        anchors, page.anchors = page.anchors, []
        for anchor in anchors:
            link = (anchor.attributes.get("href") or "").strip()
            if link and not _NAVIGATION.match(link):
                yield anchor.text.strip().removesuffix("/")
        at = found.end()
