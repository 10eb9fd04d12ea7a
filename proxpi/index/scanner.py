"""Project names out of a root list that comes in chunks, without ever holding the list.

Both forms of the list (PEP 503, PEP 691) are searched for what names a project; everything
else in them is passed over. What this costs in strictness is made up for at the beginning of a
list, which has to look like one, and at its end, which has to be one.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from html import unescape
from urllib.parse import unquote

import msgspec

from proxpi.simple import markup, names

#: Bytes that are searched again with the next chunk, because a name may have begun in them.
OVERLAP = 64 * 1024
#: Bytes of an HTML list by which it is told from another page.
BEGINNING = 16 * 1024

_BLANKS = b" \t\r\n"
_PROJECTS = re.compile(rb'"projects"\s*:\s*\[')
_JSON_NAME = re.compile(rb'"name"\s*:\s*"((?:[^"\\]|\\.)*+)"')
_JSON_VERSION = re.compile(rb'"api-version"\s*:\s*"(\d+)')
#: The last name is a project's, as a rule; but other things in a list may have names, too.
_BEFORE_REST = (
    b'{"projects":[{"name":""',
    b'{"projects":[{"":{"name":""',
    b'{"":{"name":""',
)
_ANCHOR = re.compile(rb"<a\b([^<>]*+)>([^<]*+)</a\s*+>", re.IGNORECASE)
_HREF = re.compile(rb"""\bhref\s*+=\s*+["']?+([^"'\s]++)""", re.IGNORECASE)


class NotAList(ValueError):
    """What comes is no list of projects; its text says why."""


class NameScanner:
    """Finds the names in a root list."""

    def __init__(self) -> None:
        self._rest = b""
        self._beginning = b""
        self._json: bool | None = None
        self._listing = False  # whether the array of projects has begun
        self._found = False

    def feed(self, chunk: bytes) -> list[str]:
        """
        Give the normalized names that have come whole.

        :raises NotAList: if this is no root list
        """
        data = self._rest + chunk
        if self._json is None and not self._recognize(data):
            self._rest = data
            return []
        return self._names_in_json(data) if self._json else self._names_in_html(data)

    @property
    def complete(self) -> bool:
        """Whether what has come ends as a list does, if a list ends at all here."""
        if self._json:
            return any(_is_json(before + self._rest) for before in self._before)
        return self._json is not None and self._rest.rstrip().endswith(b">")

    @property
    def closed(self) -> bool:
        """Whether what has come ends as only a whole list does."""
        return self.complete and (bool(self._json) or markup.is_complete_html(self._rest))

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

    @property
    def _before(self) -> tuple[bytes, ...]:
        """What may stand before the rest of a list in JSON, up to the last name."""
        return _BEFORE_REST if self._found else (b"",)

    def _recognize(self, data: bytes) -> bool:
        """Tell from the first bytes what this is; false while they tell nothing."""
        start = data.lstrip(_BLANKS).removeprefix(BOM_UTF8).lstrip(_BLANKS)
        if not start or BOM_UTF8.startswith(start):
            return False
        if start[:1] not in (b"{", b"<"):
            raise NotAList("it is neither JSON nor HTML")
        self._json = start.startswith(b"{")
        return True

    def _names_in_json(self, data: bytes) -> list[str]:
        if (version := _JSON_VERSION.search(data)) is not None:
            _check_major(version[1].decode("ascii"))
        searched = 0
        if not self._listing:
            begin = _PROJECTS.search(data)
            if begin is None:
                self._rest = data[-OVERLAP:] if len(data) > OVERLAP else data
                return []
            self._listing = True
            searched = begin.end()
        found = []
        for match in _JSON_NAME.finditer(data, searched):
            self._found, searched = True, match.end()
            # An escape is no part of a valid name.
            found.append(names.canonical(match[1].decode("utf-8", "replace")))
        self._keep(data, searched if self._found else 0)
        return [name for name in found if name is not None]

    def _names_in_html(self, data: bytes) -> list[str]:
        self._beginning += data[len(self._rest) :][: BEGINNING - len(self._beginning)]
        searched = 0
        found = []
        for match in _ANCHOR.finditer(data):
            searched = match.end()
            found.append(_html_name(match))
        self._keep(data, searched)
        result = [name for name in found if name is not None]
        self._found = self._found or bool(result)
        return result

    def _keep(self, data: bytes, searched: int) -> None:
        self._rest = data[max(searched, len(data) - OVERLAP) :]


def _is_json(data: bytes) -> bool:
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def _html_name(match: re.Match[bytes]) -> str | None:
    """Read a project's name off a link that leads to it; any other link has no name."""
    link = _HREF.search(match[1])
    if link is None:
        return None
    href, text = (unescape(part.decode("utf-8", "replace")) for part in (link[1], match[2]))
    name = names.canonical(text.strip().removesuffix("/"))
    folder = unquote(href.split("#")[0].split("?")[0].rstrip("/").rpartition("/")[2])
    return name if name is not None and name == names.canonical(folder) else None


def _check_major(version: str) -> None:
    """Refuse a major version that is not known (PEP 629)."""
    if version.isdecimal() and int(version) > 1:
        raise NotAList(f"it is written in version {version} of the API, which is not known here")
