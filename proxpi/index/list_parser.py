"""Parser of project lists: from the bytes of an index's root (PEP 503, PEP 691) to names.

A list has hundreds of thousands of names, so it is read block by block and never held. Its first
bytes tell its representation. A parser of JSON is *before*, *within* or *behind* the array of the
projects; one of HTML is *between* two anchors or *within* one, whose text content names a project
wherever its link leads. The nesting of JSON, the length of one value and the number of marked
sections are limited. Every byte is looked at a bounded number of times.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from html import unescape
from itertools import chain, islice
from json import JSONDecodeError, JSONDecoder
from typing import Any

import msgspec

from proxpi.simple import html, names
from proxpi.simple.html import Kind, Tokenizer
from proxpi.simple.model import Unlisted
from proxpi.simple.parse import BINARY

#: Bytes that are read and parsed in one go, which takes some milliseconds.
BLOCK = 128 * 1024
#: Characters of one value in JSON; a project takes a hundred.
LONGEST_VALUE = 4 * 1024 * 1024
#: Names that are put into normal form in one go.
BATCH = 2000
#: Bytes of an HTML list by which it is told from another page, and by which its end is known.
BEGINNING = 16 * 1024
ENDING = 64 * 1024
#: Characters of the text of an anchor; a name is shorter.
LONGEST_TEXT = 1000

_OTHER = "it is JSON, but not a list of projects"
_CUT = "it is cut short"
_BLANKS = b" \t\r\n"
_SIGN = re.compile(r"[ \t\r\n]*+(.?)", re.DOTALL)
# Numbers are not converted: that takes long for a long one, and none is of interest.
_DECODER = JSONDecoder(parse_int=bool, parse_float=bool, parse_constant=bool)
_SEPARATORS = re.compile(r"[-_.]+")
_NORMAL_LINES = re.compile(r"(?:[a-z0-9]++(?:-[a-z0-9]++)*+\n)*+")
#: A link that leads to no project, but up, elsewhere on the page, or to another scheme.
_ELSEWHERE = re.compile(r"[#?]|(?!https?:)[a-z][a-z0-9+.-]*:|\.{0,2}/?\Z", re.IGNORECASE)
#: An anchor as most are; the tokenizer would take ten times as long.
_OTHERS = r"""(?:\s++(?!href)[a-z-]++=(?:"[^"<>&]*+"|'[^'<>&]*+'))*+"""
_USUAL_ANCHOR = re.compile(
    rf"""\s*+<a{_OTHERS}\s++href=(?P<quote>["'])(?:https?:)?[\w.~%/-]*\w/?(?P=quote){_OTHERS}\s*+>"""
    r"""\s*+(?P<name>[\w.-]++)/?\s*+</a>(?:<br\s*+/?>)?""",
    re.ASCII | re.IGNORECASE,
)
_ANCHOR_END = re.compile("</a>|\\Z", re.IGNORECASE)


class NotAList(ValueError):
    """What came is no list of projects, or not all of it; the text says why."""


def parse(blocks: Iterable[bytes], announced: bool, unlisted: Unlisted) -> Iterator[bytes]:
    """
    Give the names in a list in normal form, in pieces of whole lines, a name on each.

    :param blocks: the list, in blocks of about :data:`BLOCK` bytes
    :param announced: whether its end was announced; if not, only its own end counts
    :param unlisted: counts the links and names that are no names of projects
    :raises NotAList: if it is none; what was given before is worthless then
    """
    rest, start = iter(blocks), b""
    for block in rest:
        start = (start + block).lstrip(_BLANKS).removeprefix(BOM_UTF8).lstrip(_BLANKS)
        if len(start) >= BEGINNING:
            break
    rest = chain([start], rest)
    if start.startswith(b"{"):
        return (_lines(found, unlisted) for found in _in_json(_Source(rest)))
    if b"<" in start and BINARY.search(start, 0, start.find(b"<")) is None:
        return _in_html(rest, announced, unlisted)
    raise NotAList("it is neither JSON nor HTML" if start else _CUT)


def _lines(found: Sequence[str], unlisted: Unlisted) -> bytes:
    """Write names in normal form: all at once, or one by one if any of them has none."""
    text = "\n".join(found)
    lines = _SEPARATORS.sub("-", text).lower() + "\n"
    if (
        text.isascii()
        and lines.count("\n") == len(found)
        and max(map(len, found)) <= names.MAX_LENGTH
        and _NORMAL_LINES.fullmatch(lines)
    ):
        return lines.encode()
    valid = []
    for name in found:
        if (normal := names.normalize(name)) is not None:
            valid.append(f"{normal}\n")
        else:
            unlisted.add(name)
    return "".join(valid).encode()


class _Project(msgspec.Struct, gc=False):
    name: str = ""


class _Source:
    """JSON text, of which no more is held than one block and one value.

    Its bytes are taken for Latin-1: all that counts is ASCII, and a block may end anywhere.
    """

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._text = ""
        self._at = 0
        self._new = False  # whether the text has not been tried by `several`

    def _more(self) -> bool:
        """Hold twice as much, so that to read a value again takes linear time."""
        size = len(self._text) - self._at
        if size > LONGEST_VALUE:
            raise NotAList(f"a value in it has more than {LONGEST_VALUE} characters, or no end")
        more = b"".join(islice(self._blocks, 1 + size // BLOCK))
        self._text, self._at = self._text[self._at :] + more.decode("latin-1"), 0
        self._new = True
        return bool(more)

    def sign(self) -> str:
        """Look at the next character that is not blank; ``""`` is the end."""
        while True:
            found = _SIGN.match(self._text, self._at)
            assert found is not None  # it matches anything
            self._at = found.start(1)
            if found[1] or not self._more():
                return found[1]

    def take(self, sign: str) -> bool:
        """Take this character, if it is the next."""
        found = self.sign() == sign
        self._at += found
        return found

    def expect(self, sign: str) -> None:
        """Take this character, which must be the next."""
        if not self.take(sign):
            raise NotAList("it is not valid JSON" if self.sign() else _CUT)

    def value(self) -> Any:
        """Take the next value."""
        self.sign()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except RecursionError:
                raise NotAList("it is nested too deeply") from None
            except JSONDecodeError:
                end = len(self._text)
            if end < len(self._text):  # otherwise more may belong to it
                self._at = end
                return value
            if not self._more():
                raise NotAList(_CUT)

    def several(self) -> list[str]:
        """Take projects with commas behind them, as many as a fast parser can; give their names."""
        end = self._text.rfind("},", self._at) + 1
        if not self._new or not end:
            return []
        self._new = False
        try:
            projects = msgspec.json.decode(f"[{self._text[self._at : end]}]", type=list[_Project])
        except (msgspec.DecodeError, RecursionError):
            return []  # the end is within a project, or there is an odd one
        self._at = end + 1
        return [project.name for project in projects]


def _in_json(source: _Source) -> Iterator[list[str]]:
    source.expect("{")
    listed = False
    while not source.take("}"):
        key = source.value()
        source.expect(":")
        if key == "projects" and source.take("["):
            listed = True
            yield from _projects(source)
        elif isinstance(value := source.value(), dict) and key == "meta":
            _check_major(str(value.get("api-version", "")))
        if source.sign() != "}":
            source.expect(",")
    if source.sign():
        raise NotAList("it is not valid JSON")
    if not listed:
        raise NotAList(_OTHER)


def _projects(source: _Source) -> Iterator[list[str]]:
    found: list[str] = []
    while not source.take("]"):
        if several := source.several():
            yield found + several
            found = []
            continue
        project = source.value()
        if not isinstance(project, dict):
            raise NotAList(_OTHER)
        name = project.get("name")
        found.append(name if isinstance(name, str) else "")
        if len(found) == BATCH:
            yield found
            found = []
        if source.sign() != "]":
            source.expect(",")
    if found:
        yield found


class _Anchors:
    """Reads the texts of anchors that may lead to a project."""

    def __init__(self) -> None:
        self._tokenizer = Tokenizer()
        self._href = ""
        self._text: str | None = None

    def feed(self, text: str) -> Iterator[str]:
        """
        Give the texts in a piece of a page.

        :raises ValueError: if it has too many marked sections
        """
        at = 0
        while at < len(text):
            between = self._text is None and self._tokenizer.in_data
            if between and (usual := _USUAL_ANCHOR.match(text, at)):
                yield usual["name"]
                at = usual.end()
            else:
                found = _ANCHOR_END.search(text, at)
                assert found is not None  # it matches the end, too
                yield from self._tokenized(text[at : found.end()])
                at = found.end()

    def _tokenized(self, text: str) -> Iterator[str]:
        for kind, value, attributes in self._tokenizer.feed(text):
            if kind is Kind.TEXT:
                if self._text is not None and len(self._text) < LONGEST_TEXT:
                    self._text += value[:LONGEST_TEXT]
            elif value == "a":
                if self._text is not None and self._href and not _ELSEWHERE.match(self._href):
                    yield unescape(self._text).strip().removesuffix("/")
                self._href = (attributes.get("href") or "").strip()
                self._text = "" if kind is Kind.START else None


def _in_html(blocks: Iterator[bytes], announced: bool, unlisted: Unlisted) -> Iterator[bytes]:
    anchors, beginning, ending, found = _Anchors(), b"", b"", False
    try:
        for block in blocks:
            beginning += block[: BEGINNING - len(beginning)]
            ending = (ending + block)[-ENDING:]
            lines = _lines(list(anchors.feed(block.decode("latin-1"))), unlisted)
            found = found or bool(lines)
            yield lines
        page = html.read(beginning.decode("utf-8", "replace"))
    except ValueError as error:
        raise NotAList(str(error)) from error
    if not (ending.rstrip().endswith(b">") if announced else html.is_complete_html(ending)):
        raise NotAList(_CUT)
    version = page.metas.get("pypi:repository-version")
    if version is not None:
        _check_major(version)
    elif page.barred or not (found or page.titled):
        raise NotAList("it is an HTML page, but not a list of projects")


def _check_major(version: str) -> None:
    """Refuse a major version that is not known (PEP 629)."""
    major = version.partition(".")[0]
    if major.isdecimal() and (len(major) > 9 or int(major) > 1):
        shown = major if len(major) <= 9 else f"{major[:9]}…"
        raise NotAList(f"it is written in version {shown} of the API, which is not known here")
