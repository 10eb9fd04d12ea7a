"""Pages of an index, JSON or HTML, read into a ``Project`` (PEP 503, 592, 629, 658, 691, 700, …).

An index is a stranger: its page may be anything. What is not an index page is ``NotAnIndexPage``
and never anything worse; one odd file on a page is left out, not fatal. What may be believed of a
file is for ``entries`` to say.
"""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from packaging.utils import canonicalize_name
from werkzeug.http import parse_options_header

from proxpi.simple import entries, html, urls
from proxpi.simple.html import Anchor, Markup, is_complete_html
from proxpi.simple.model import Entry, Project, Unlisted

_VERSION = re.compile(r"0*([0-9]+)\.[0-9]{1,9}")
_VERSIONED_TYPE = re.compile(r"application/vnd\.pypi\.simple\.v([0-9]+)\+(?:json|html)")

# Charsets of the web beside UTF-8. Python knows more, and some of them (``idna``, ``utf-7``,
# ``unicode_escape``) raise, warn, or give half a surrogate pair, which nothing can encode again.
_CHARSETS = re.compile(
    r"(?:iso-?8859-|latin|windows-|cp|koi8-|gb|big5|shift_jis|euc-)[0-9a-z_-]*", re.IGNORECASE
)

_META_CHARSET = re.compile(
    rb"""<meta\s[^>]{0,200}?charset\s{0,9}=\s{0,9}["']?([a-z0-9_-]{1,40})""", re.IGNORECASE
)
_MARKS = ((BOM_UTF8, "utf-8"), (BOM_UTF16_LE, "utf-16"), (BOM_UTF16_BE, "utf-16"))

_NOT_PASSED_ON = {"name", "files", "meta", "namespaces", "tracks", "alternate-locations"}
_NOT_PASSED_ON_OF_META = {"api-version", "namespaces", "tracks"}

_SUFFIXES = (
    *(".whl", ".tar.gz", ".zip", ".tar.bz2", ".tgz", ".tar.xz", ".tar.z", ".tar", ".egg"),
    *(".exe", ".msi", ".rpm", ".deb", ".dmg"),
)


#: What is in no text, but in images and archives.
BINARY = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
#: Attributes of anchors that say what the key of that name says in JSON.
_SAME = ("requires-python", "gpg-sig", "provenance", "size", "upload-time")
_METADATA = ("core-metadata", "dist-info-metadata")
#: Values of a JSON page, or tags of an HTML page: each takes far more memory than its bytes.
ELEMENTS = 2_000_000
#: Characters of the URL that relative links repeat; a short page must not become a long one.
_LONGEST_BASE = 4096
_FOLDERS = ("", ".", "..")


class NotAnIndexPage(Exception):
    """The body is no page of an index: an error page, a login page, broken, or something else.

    :ivar reason: One plain sentence for people, without a URL.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def parse_project(body: bytes, content_type: str | None, url: str, name: str) -> Project:
    """Read a project page.

    The body decides whether it is JSON or HTML: content types are often missing or wrong.

    :param content_type: The header as it came, or None.
    :param url: Where the page was found in the end, redirects followed; links are joined to it.
    :param name: The normalized name of the project.
    :raises NotAnIndexPage: When this is no page of an index.
    """
    media_type, parameters = parse_options_header(content_type)
    if versioned := _VERSIONED_TYPE.fullmatch(media_type.lower()):
        api_version(f"{versioned[1]}.0")
    body, charset = _without_mark(body)
    if max(body.count(b","), body.count(b"<")) > ELEMENTS:
        raise NotAnIndexPage(f"The answer has more than {ELEMENTS} elements.")
    if body.startswith(b"{"):
        return _from_json(body, url, name)
    # Text may come first, such as the notices of a server's programs.
    if (start := body.find(b"<")) >= 0 and BINARY.search(body, 0, start) is None:
        charset = charset or parameters.get("charset") or _declared(body)
        return _from_html(_decoded(body, charset), url, name)
    raise NotAnIndexPage("The answer is neither JSON nor HTML." if body else "The answer is empty.")


def is_whole(body: bytes) -> bool:
    """Say whether a page that was read ends as a page does, so that it was not cut short."""
    return _without_mark(body)[0].startswith(b"{") or is_complete_html(body)


def _without_mark(body: bytes) -> tuple[bytes, str]:
    """Drop white space and a byte order mark; give what the mark says about the charset."""
    body = body.strip()
    for mark, charset in _MARKS:
        if body.startswith(mark):
            if charset != "utf-8":
                body = body.decode(charset, "replace").encode()
            return body.removeprefix(BOM_UTF8).strip(), "utf-8"
    return body, ""


def _declared(body: bytes) -> str:
    """Give the charset that the page itself declares, as browsers look for it."""
    found = _META_CHARSET.search(body, 0, 1024)
    return found[1].decode("ascii") if found else "utf-8"


def api_version(stated: object) -> str:
    """Give the version to assume: 1.0 if none is stated, or a malformed one (PEP 629).

    :raises NotAnIndexPage: if the major version is not known here
    """
    found = _VERSION.fullmatch(stated) if isinstance(stated, str) else None
    if found is None:
        return "1.0"
    if found[1] not in ("0", "1"):
        raise NotAnIndexPage(
            f"The index speaks version {found[0][:20]} of the Simple API; "
            "only version 1 is understood."
        )
    return found[0]


# JSON (PEP 691)

_VALUES = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
_VALUE = msgspec.json.Decoder()
_NOTHING = msgspec.Raw(b"null")


def _from_json(body: bytes, url: str, name: str) -> Project:
    unlisted = Unlisted()
    try:
        page, files = _read(body, url, unlisted)
    except RecursionError:
        raise NotAnIndexPage("The answer is JSON that is nested too deeply.") from None
    except ValueError:
        raise NotAnIndexPage("The answer is broken or truncated JSON.") from None
    if files is None:
        raise NotAnIndexPage("The answer is JSON, but not a project page: it lists no files.")
    meta = page.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    version = api_version(meta.get("api-version"))

    keys = entries.passed_on(page, _NOT_PASSED_ON)
    if (versions := _versions(keys.pop("versions", None))) is not None:
        keys["versions"] = versions
    status = _project_status(keys.pop("project-status", None))
    if status:
        keys["project-status"] = status
    if kept := entries.passed_on(meta, _NOT_PASSED_ON_OF_META):
        keys["meta"] = kept
    return Project(name, files, keys, version, unlisted)


def _read(
    body: bytes, url: str, unlisted: Unlisted
) -> tuple[dict[str, Any], Sequence[Entry] | None]:
    """Give the values of a page, and apart from them its files, or None where it lists none.

    The page is checked as a whole, but decoded value by value: an odd one (half a surrogate pair,
    bytes that are not UTF-8, NaN) is left out and costs no other, and no single call into C keeps
    other threads waiting for as long as thousands of files take.

    :raises ValueError: When it is not JSON.
    """
    try:
        page = _VALUES.decode(body)
    except ValueError:
        return _read_leniently(body, url, unlisted)
    files: Sequence[Entry] | None = None
    with suppress(msgspec.ValidationError):
        pieces = _ITEMS.decode(page.pop("files", _NOTHING))
        files = entries.usable(_values(pieces), url, unlisted)
    return {key: value for key, raw in page.items() for value in _values([raw])}, files


def _values(pieces: Iterable[msgspec.Raw]) -> Iterator[object]:
    """Decode pieces of JSON; one that cannot be decoded is nothing."""
    for piece in pieces:
        try:
            yield _VALUE.decode(piece)
        except (ValueError, RecursionError):
            yield None


def _read_leniently(
    body: bytes, url: str, unlisted: Unlisted
) -> tuple[dict[str, Any], Sequence[Entry] | None]:
    """Do the same for what is JSON only to the standard library, which takes odd values, too."""
    # The hook is there to be called: other threads get their turn whenever it is.
    page = json.loads(body.decode("utf-8", "surrogateescape"), object_hook=lambda found: found)
    files = page.pop("files", None)
    values = {key: value for key, value in page.items() if _is_sound([key, value])}
    if not isinstance(files, list):
        return values, None
    sound = (file if _is_sound(file) else None for file in files)
    return values, entries.usable(sound, url, unlisted)


def _is_sound(value: object) -> bool:
    """Say whether a value can be written as JSON again."""
    try:
        return bool(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())
    except (ValueError, RecursionError):
        return False


def _versions(value: object) -> list[str] | None:
    """Accept a list of texts, each once; a number is the text that it was before it was one."""
    if not isinstance(value, list):
        return None
    texts = [str(each) if type(each) in (int, float) else each for each in value]
    return list(dict.fromkeys(texts)) if all(isinstance(each, str) for each in texts) else None


def _project_status(value: object) -> dict[str, Any] | None:
    """Accept a status (PEP 792), a new one too, but none that is not an object with ``status``."""
    if not isinstance(value, dict) or entries.text(value.get("status")) is None:
        return None
    if not isinstance(value.get("reason", ""), str):
        del value["reason"]
    return value


# HTML (PEP 503, PEP 629)


def _decoded(body: bytes, charset: str) -> str:
    """Decode by the charset of the header; UTF-8 where that is unknown, no bytes are refused."""
    if _CHARSETS.fullmatch(charset):
        try:
            return body.decode(charset, "replace")
        except LookupError:
            pass
    return body.decode("utf-8", "replace")


def _from_html(text: str, url: str, name: str) -> Project:
    try:
        page = html.read(text)
    except ValueError as error:
        raise NotAnIndexPage(f"The answer is HTML that cannot be read: {error}.") from None
    version = api_version(page.metas.get("pypi:repository-version", "").strip())
    if not _is_listing(page, name):
        raise NotAnIndexPage("The answer is an HTML page, but not a list of files.")
    base = url
    if page.base is not None:
        with suppress(ValueError):
            base = urls.join(url, page.base)
    if len(base) > _LONGEST_BASE:
        raise NotAnIndexPage("The URL to which the links of the answer are relative is too long.")
    keys: dict[str, Any] = {}
    if status := page.metas.get("pypi:project-status", "").strip():
        keys["project-status"] = {"status": status}
        if reason := page.metas.get("pypi:project-status-reason"):
            keys["project-status"]["reason"] = reason
    unlisted = Unlisted()
    files = [file for anchor in page.anchors if (file := _file(anchor)) is not None]
    return Project(name, entries.usable(files, base, unlisted), keys, version, unlisted)


def _file(anchor: Anchor) -> dict[str, Any] | None:
    """Say in the keys of the JSON form what an anchor says, or nothing if it only navigates."""
    attributes = anchor.attributes
    link, fragment, filename = _link(anchor)
    if filename in _FOLDERS and not entries.digests_in(fragment):
        return None
    yanked = attributes.get("data-yanked")
    file: dict[str, Any] = {
        "filename": filename,
        "url": f"{link}#{fragment}" if fragment else link,
        "yanked": (yanked or True) if "data-yanked" in attributes else None,
    }
    for key in _SAME:
        file[key] = attributes.get(f"data-{key}")
    for key in _METADATA:
        if f"data-{key}" in attributes:
            file[key] = entries.stated(attributes[f"data-{key}"] or "")
    return file


def _link(anchor: Anchor) -> tuple[str, str, str]:
    """Give the link of an anchor without its fragment, the fragment, and the file name in it."""
    link, _, fragment = (anchor.attributes.get("href") or "").partition("#")
    return link, fragment, entries.linked_name(link)


def _is_listing(page: Markup, name: str) -> bool:
    """Tell a list of files, an empty one too, from an error, a login or a captive portal.

    A list states the version of the API or links to something that is a distribution. Without
    either, it has a title or heading as listings have (or the project's name) and none of what
    they never have: a password field, a frame, a refresh. Or it is a page with tags but without
    any text and script, as some servers answer for what they lack. In doubt it is no list: taken
    for an empty one, an error page would hide every release, and let another index answer instead.
    """
    if "pypi:repository-version" in page.metas:
        return True
    if any(_is_distribution(anchor, name) for anchor in page.anchors):
        return True
    if page.barred:
        return False
    named = any(canonicalize_name(heading.strip()) == name for heading in page.headings)
    return page.titled or named or (page.tagged and not (page.written or page.scripted))


def _is_distribution(anchor: Anchor, name: str) -> bool:
    """Recognize a link to a file of a project: by digest, by own name, or as one shown by name."""
    _, fragment, filename = _link(anchor)
    return bool(filename) and (
        bool(entries.digests_in(fragment))
        or canonicalize_name(filename).startswith(name + "-")
        or (filename.lower().endswith(_SUFFIXES) and anchor.text.strip() == filename)
    )
