"""Project names out of a root list that comes in chunks, without ever holding the list.

Both forms of the list (PEP 503, PEP 691) are searched for what names a project; everything
else in them is passed over. What this costs in strictness is made up for at the beginning of a
list, which has to look like one, and at its end, which has to be one.

A list has hundreds of thousands of names. So they are found, put into normal form and judged by
the chunk, as bytes; only a chunk in which something is odd is looked at name by name.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from html import unescape

import msgspec

from proxpi.simple import markup, names
from proxpi.simple.model import Unlisted
from proxpi.simple.parse import BINARY
from proxpi.simple.tokenizer import Kind, Tokenizer

#: Bytes that are searched again with the next chunk, because a name may have begun in them.
OVERLAP = 64 * 1024
#: Bytes of an HTML list by which it is told from another page.
BEGINNING = 16 * 1024

_BLANKS = b" \t\r\n"
_PROJECTS = re.compile(rb'"projects"\s*:\s*\[')
_JSON_NAME = re.compile(rb'"name"\s*:\s*"([^"\\]*+(?:\\.[^"\\]*+)*+)"')
#: The same where nothing is escaped: found in two thirds of the time.
_PLAIN_JSON_NAME = re.compile(rb'"name"\s*+:\s*+"([^"]*+)"')
_JSON_VERSION = re.compile(rb'"api-version"\s*:\s*"(\d+)')
#: The last name is a project's, as a rule; but other things in a list may have names, too.
_BEFORE_REST = (
    b'{"projects":[{"name":""',
    b'{"projects":[{"":{"name":""',
    b'{"":{"name":""',
)
_END = re.compile(rb"</a\s*+>", re.IGNORECASE)
#: What is in no list whose anchors all look alike: it begins a comment or raw text.
_BEGINS = re.compile(
    rb"<(?:[!?]|script|style|title|textarea|xmp|iframe|noembed|noframes)", re.IGNORECASE
)
_ELSEWHERE = re.compile(r"[#?]|(?!https?:)[a-z][a-z0-9+.-]*:|\.{0,2}/?\Z", re.IGNORECASE)
#: An anchor as nearly all are, after _FOLDED: the last folder of its link is its text.
_USUAL_ANCHOR = re.compile(
    rb"""(<a[ ](?:[a-z]++="[a-z]*+"[ ])?+href="(?:[^"'\s<>?\#&%/]*+/)*?)
    ([a-z0-9-]++)(/?"[^<>]*+>\s*+)\2(/?\s*+</a\s*+>)""",
    re.VERBOSE,
)
#: Characters of the text of an anchor; a name is shorter.
_LONGEST_TEXT = 1000
#: Bytes beyond which what stands around a name in an anchor is not usual any more.
_LONGEST_USUAL = 500
#: Letters in lower case, and the separators of a name as the one of its normal form (PEP 503).
_FOLDED = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ_.", b"abcdefghijklmnopqrstuvwxyz--")
_RUN = re.compile(rb"--+")
_SEPARATORS = re.compile(r"[-_.]+")
_NORMAL_LINE = re.compile(rb"^[a-z0-9]++(?:-[a-z0-9]++)*+\n", re.MULTILINE)
_NORMAL_NAMES = re.compile(rb"(?:[a-z0-9]++(?:-[a-z0-9]++)*+\n)*+")


class NotAList(ValueError):
    """What comes is no list of projects; its text says why."""


class _Anchors:
    """Reads the names of projects off anchors, which is *between* two of them or in one.

    The text content of an anchor names the project (PEP 503), wherever its link leads.
    """

    def __init__(self) -> None:
        self._tokenizer = Tokenizer()
        self._href = ""
        self._text: str | None = None
        self.unlisted = Unlisted()

    @property
    def between(self) -> bool:
        """Whether nothing has begun that has not ended."""
        return self._text is None and self._tokenizer.in_data

    def feed(self, text: str) -> Iterator[str]:
        """
        Give the names in a piece of a page.

        :raises ValueError: if it has too many marked sections
        """
        for kind, value, attributes in self._tokenizer.feed(text):
            if kind is Kind.TEXT:
                if self._text is not None and len(self._text) < _LONGEST_TEXT:
                    self._text += value[:_LONGEST_TEXT]
            elif value == "a":
                if self._text is not None and (name := self._name(self._text)):
                    yield name
                self._href = (attributes.get("href") or "").strip()
                self._text = "" if kind is Kind.START else None

    def _name(self, text: str) -> str | None:
        if _ELSEWHERE.match(self._href) or not self._href:
            return None
        name = _canonical(unescape(text).strip().removesuffix("/"))
        if name is None:
            self.unlisted.add(self._href)
        return name


class NameScanner:
    """Finds the names in a root list."""

    def __init__(self) -> None:
        self._rest = b""  # what has not been searched to its end
        self._tail = b""  # the last of what has come
        self._beginning = b""
        self._json: bool | None = None
        self._listing = False  # whether the array of projects has begun
        self._found = False
        self._anchors = _Anchors()

    @property
    def unlisted(self) -> Unlisted:
        """The links that name no project."""
        return self._anchors.unlisted

    def feed(self, chunk: bytes) -> bytes:
        """
        Give the normalized names that have come whole, each with a newline behind it.

        What this costs at once grows with the chunk: a few hundred kilobytes are a good size.

        :raises NotAList: if this is no root list
        """
        self._tail = (self._tail + chunk if len(chunk) < OVERLAP else chunk)[-OVERLAP:]
        data = self._rest + chunk
        if self._json is None and not self._recognize(data):
            return b""
        if self._json:
            return self._names_in_json(data)
        self._beginning += chunk[: BEGINNING - len(self._beginning)]
        return self._names_in_html(data)

    @property
    def complete(self) -> bool:
        """Whether what has come ends as a list does, if a list ends at all here.

        :raises NotAList: if this is no root list
        """
        if self._json is None:
            if self._rest.strip():
                raise NotAList("it is neither JSON nor HTML")
            return False
        if not self._json:
            return self._tail.rstrip().endswith(b">")
        if not self._found:
            return _is_json(self._tail)
        searched = max((name.end() for name in _JSON_NAME.finditer(self._tail)), default=0)
        return any(_is_json(before + self._tail[searched:]) for before in _BEFORE_REST)

    @property
    def closed(self) -> bool:
        """Whether what has come ends as only a whole list does."""
        return self.complete and (bool(self._json) or markup.is_complete_html(self._tail))

    def check(self) -> None:
        """
        Look back on what was a list by its end: was it one from its beginning?

        :raises NotAList: if it was another kind of page
        """
        if self._json:
            if not self._listing:
                raise NotAList("it is JSON, but not a list of projects")
            return
        try:
            page = markup.read(self._beginning.decode("utf-8", "replace"))
        except ValueError as error:
            raise NotAList(str(error)) from error
        version = page.metas.get("pypi:repository-version")
        if version is not None:
            _check_major(version.partition(".")[0])
        elif page.barred or not (self._found or page.titled):
            raise NotAList("it is an HTML page, but not a list of projects")

    def _recognize(self, data: bytes) -> bool:
        """Tell from the first bytes what this is; false while they tell nothing."""
        start = self._rest = data.lstrip(_BLANKS).removeprefix(BOM_UTF8).lstrip(_BLANKS)
        if not start or BOM_UTF8.startswith(start):
            return False
        self._json = start.startswith(b"{")
        if self._json or BINARY.search(start, 0, start.find(b"<") + 1) is None and b"<" in start:
            return True
        self._json = None  # text may come first
        if len(start) > BEGINNING or BINARY.search(start):
            raise NotAList("it is neither JSON nor HTML")
        return False

    def _names_in_json(self, data: bytes) -> bytes:
        if b'"api-version"' in data and (version := _JSON_VERSION.search(data)) is not None:
            _check_major(version[1].decode("ascii"))
        if not self._listing:
            begin = _PROJECTS.search(data)
            if begin is None:
                self._rest = data[-OVERLAP:]
                return b""
            self._listing = True
            data = data[begin.end() :]
        # A brace may stand in a name, but in none that is valid.
        data = self._searchable(data, data.rfind(b"}") + 1, _JSON_NAME)
        found = (_JSON_NAME if b"\\" in data else _PLAIN_JSON_NAME).findall(data)
        self._found = self._found or bool(found)
        if (lines := _lines(found)) is None:
            lines = _canonical_lines(name.decode("utf-8", "replace") for name in found)
        return lines

    def _names_in_html(self, data: bytes) -> bytes:
        found = _END.match(data, max(data.rfind(b"</a"), data.rfind(b"</A"), 0))
        end = found.end() if found else 0
        # An element may be longer than all that is kept: its reader knows how it began.
        end = len(data) if len(data) - end > OVERLAP else end
        data, self._rest = data[:end], data[end:]
        lines = _usual_lines(data) if self._anchors.between else None
        if lines is None:
            try:
                lines = _canonical_lines(self._anchors.feed(data.decode("latin-1")))
            except ValueError as error:
                raise NotAList(str(error)) from error
        self._found = self._found or bool(lines)
        return lines

    def _searchable(self, data: bytes, end: int, pattern: re.Pattern[bytes]) -> bytes:
        """
        Cut data where no match of the pattern can be cut in two, and keep the rest.

        :param end: such a place, as near to the end as can be seen at once
        """
        if len(data) - end <= OVERLAP:
            self._rest = data[end:]
            return data[:end]
        # One element is longer than all that is kept: what is in it is passed over.
        end = max((match.end() for match in pattern.finditer(data)), default=0)
        self._rest = data[max(end, len(data) - OVERLAP) :]
        return data[:end]


def _lines(found: list[bytes]) -> bytes | None:
    """
    Write names in normal form, a line for each, without those that have none.

    :return: ``None`` where they have to be looked at one by one
    """
    return _judged(found, _without_runs(b"\n".join(found).translate(_FOLDED)) + b"\n")


def _judged(found: list[bytes], lines: bytes) -> bytes | None:
    """Do the same with names that are in normal form already, if they have one."""
    if not found:
        return b""
    if max(map(len, found)) > names.LONGEST or lines.count(b"\n") != len(found):
        return None
    if _NORMAL_NAMES.fullmatch(lines):
        return lines
    return b"".join(_NORMAL_LINE.findall(lines))


def _usual_lines(data: bytes) -> bytes | None:
    """Write the names of HTML in which all anchors look alike; ``None`` if they do not."""
    folded = _without_runs(data.translate(_FOLDED))
    first = _USUAL_ANCHOR.search(folded)
    if first is None or len(first[0]) > _LONGEST_USUAL:
        return None
    before, _, between, after = first.groups()
    start, end = first.start(2), folded.rfind(after)
    gap = folded.find(before, first.end())
    around = (folded[:start], folded[first.end(1) : max(gap, 0)], folded[end:])
    if any(map(_BEGINS.search, around)):
        return None
    # Where all that is around the names is the same, it can be cut out in a few steps.
    parted = folded[start:end].replace(after + folded[first.end() : gap] + before, b"\n")
    twice = parted.replace(between, b"\n").split(b"\n")
    found = twice[::2]
    if gap < 0 or found != twice[1::2] or len(found) != folded.count(b"<a"):
        return None
    return _judged(found, b"\n".join(found) + b"\n")


def _canonical_lines(found: Iterable[str]) -> bytes:
    """Do the same name by name, and leave out those that are none."""
    valid = map(_canonical, found)
    return "".join(f"{name}\n" for name in valid if name is not None).encode("ascii")


def _canonical(name: str) -> str | None:
    """Give the normal form, whose length is what counts, as it does where all are looked at."""
    return names.canonical(_SEPARATORS.sub("-", name))


def _without_runs(data: bytes) -> bytes:
    """Leave one of each run of separators (PEP 503)."""
    return _RUN.sub(b"-", data)


def _is_json(data: bytes) -> bool:
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    except RecursionError:
        raise NotAList("it is nested too deeply") from None
    return True


def _check_major(version: str) -> None:
    """Refuse a major version that is not known (PEP 629)."""
    if version.isdecimal() and (len(version) > 9 or int(version) > 1):
        raise NotAList(f"it is written in version {version} of the API, which is not known here")
