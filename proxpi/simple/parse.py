"""Parser of index pages, JSON or HTML, into a project (PEP 503, 592, 629, 658, 691, 700, …).

A page may be anything: :class:`NotAnIndexPage` is the only error. One odd file of a page is left
out (:mod:`proxpi.simple.listed_files`).
"""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import attrs
import msgspec
from packaging.utils import canonicalize_name
from werkzeug.http import parse_options_header

from proxpi.simple import filenames, listed_files, urls
from proxpi.simple.html import Anchor, Markup, is_complete_html
from proxpi.simple.model import FileEntry, Project, SkippedLinks

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
_META_NOT_PASSED_ON = {"api-version", "namespaces", "tracks"}

#: Bytes of images and archives that no text has.
BINARY = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
# Keys of JSON that an anchor has as attributes, with ``data-`` before them.
_IN_ATTRIBUTES = (
    *("requires-python", "gpg-sig", "provenance", "size", "upload-time", "yanked"),
    *listed_files.METADATA_KEYS[:2],
)
#: Values of a JSON page, or tags of an HTML page: each takes far more memory than its bytes.
MAX_ELEMENTS = 2_000_000
#: Characters of the URL that relative links repeat; a short page must not become a long one.
_MAX_BASE = 4096
_FOLDERS = ("", ".", "..")


@attrs.define(eq=False)
class NotAnIndexPage(Exception):
    """A body is no page of an index; `reason` is one plain sentence for people, without a URL."""

    reason: str


def parse_project(body: bytes, content_type: str | None, url: str, name: str) -> Project:
    """Read a project page.

    The body decides whether it is JSON or HTML: content types are often missing or wrong.

    :param content_type: the header as it came
    :param url: of the page, after redirects; links are joined to it
    :param name: the normalized name of the project
    :raises NotAnIndexPage: if this is no page of an index
    """
    require_known_version(content_type)
    body, charset = _without_mark(body)
    if len(body) > MAX_ELEMENTS < max(body.count(b","), body.count(b"<")):
        raise NotAnIndexPage(f"The answer has more than {MAX_ELEMENTS} elements.")
    if body.startswith(b"{"):
        return _from_json(body, url, name)
    # Text may come first, such as the warnings of a server's programs.
    if (start := body.find(b"<")) >= 0 and BINARY.search(body, 0, start) is None:
        charset = charset or parse_options_header(content_type)[1].get("charset", "")
        if not charset and (declared := _META_CHARSET.search(body, 0, 1024)):
            charset = declared[1].decode("ascii")
        return _from_html(_decoded(body, charset), url, name)
    raise NotAnIndexPage("The answer is neither JSON nor HTML." if body else "The answer is empty.")


def is_whole(body: bytes) -> bool:
    """Return whether a page ends as one does, so that it was not cut short."""
    return _without_mark(body)[0].startswith(b"{") or is_complete_html(body)


def _without_mark(body: bytes) -> tuple[bytes, str]:
    """Drop white space and a byte order mark; return the charset that the mark states."""
    body = body.strip()
    for mark, charset in _MARKS:
        if body.startswith(mark):
            if charset != "utf-8":
                body = body.decode(charset, "replace").encode()
            return body.removeprefix(BOM_UTF8).strip(), "utf-8"
    return body, ""


def require_known_version(content_type: str | None) -> None:
    """Refuse a content type that states an unknown major version of the API."""
    media_type = parse_options_header(content_type)[0].lower()
    if versioned := _VERSIONED_TYPE.fullmatch(media_type):
        api_version(f"{versioned[1]}.0")


def api_version(stated: object) -> str:
    """Return the version to assume: 1.0 for a malformed one (PEP 629); refuse an unknown one."""
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

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_VALUE = msgspec.json.Decoder()


def _from_json(body: bytes, url: str, name: str) -> Project:
    skipped = SkippedLinks()
    try:
        page, files = _read(body, url, skipped)
    except RecursionError:
        raise NotAnIndexPage("The answer is JSON that is nested too deeply.") from None
    except ValueError:
        raise NotAnIndexPage("The answer is broken or truncated JSON.") from None
    if files is None:
        raise NotAnIndexPage("The answer is JSON, but not a project page: it lists no files.")
    meta = meta if isinstance(meta := page.get("meta"), dict) else {}
    version = api_version(meta.get("api-version"))
    keys = listed_files.passed_on(page, _NOT_PASSED_ON)
    for key, accept in (("versions", _versions), ("project-status", _project_status)):
        if (value := accept(keys.pop(key, None))) is not None:
            keys[key] = value
    if kept := listed_files.passed_on(meta, _META_NOT_PASSED_ON):
        keys["meta"] = kept
    return Project(name, files, keys, version, skipped)


def _read(
    body: bytes, url: str, skipped: SkippedLinks
) -> tuple[dict[str, Any], Sequence[FileEntry] | None]:
    """Return the values of a page, and its files, if it lists any; `ValueError`: no JSON.

    The page is checked as a whole, but decoded value by value: an odd one (half a surrogate pair,
    bytes that are not UTF-8, NaN) is left out and costs no other, and no single call into C keeps
    other threads waiting while it decodes thousands of files.
    """
    decode: Callable[[Any], Any] = _decoded_value
    try:
        page: dict[str, Any] = _OBJECT.decode(body)
        files = page.pop("files", None)
        with suppress(msgspec.ValidationError):
            files = files and _ARRAY.decode(files)
    except ValueError:
        # The standard library takes odd values. While the hook is called, other threads get a turn.
        page = json.loads(body.decode("utf-8", "surrogateescape"), object_hook=lambda found: found)
        files, decode = page.pop("files", None), _sound_value
    values = {key: decode(value) for key, value in page.items() if _sound_value(key) is not None}
    listed = isinstance(files, list)
    return values, listed_files.usable(map(decode, files), url, skipped) if listed else None


def _decoded_value(raw: msgspec.Raw) -> object:
    try:
        return _VALUE.decode(raw)
    except (ValueError, RecursionError):
        return None


def _sound_value(value: object) -> object:
    """Return a value if it can be encoded as JSON again, else ``None``."""
    with suppress(ValueError, RecursionError):
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        return value
    return None


def _versions(value: object) -> list[str] | None:
    """Accept a list of texts, each once; a number is read as the text that it was."""
    if not isinstance(value, list):
        return None
    texts = [str(each) if type(each) in (int, float) else each for each in value]
    return list(dict.fromkeys(texts)) if all(isinstance(each, str) for each in texts) else None


def _project_status(value: object) -> dict[str, Any] | None:
    """Accept an object with ``status`` (PEP 792), also one that is not known yet."""
    if not isinstance(value, dict) or listed_files.text(value.get("status")) is None:
        return None
    if not isinstance(value.get("reason", ""), str):
        del value["reason"]
    return value


# HTML (PEP 503, PEP 629)


def _decoded(body: bytes, charset: str) -> str:
    """Decode by a charset of the web, else as UTF-8; invalid bytes are replaced."""
    if _CHARSETS.fullmatch(charset):
        with suppress(LookupError):
            return body.decode(charset, "replace")
    return body.decode("utf-8", "replace")


def _from_html(text: str, url: str, name: str) -> Project:
    page = Markup()
    page.feed(text)
    page.finish()
    version = api_version(page.metas.get("pypi:repository-version", "").strip())
    if not _is_listing(page, name):
        raise NotAnIndexPage("The answer is an HTML page, but not a list of files.")
    base = url
    if page.base is not None:
        with suppress(ValueError):
            base = urls.join(url, page.base)
    if len(base) > _MAX_BASE:
        raise NotAnIndexPage("The URL to which the links of the answer are relative is too long.")
    keys: dict[str, Any] = {}
    if status := page.metas.get("pypi:project-status", "").strip():
        keys["project-status"] = {"status": status}
        if reason := page.metas.get("pypi:project-status-reason"):
            keys["project-status"]["reason"] = reason
    skipped = SkippedLinks()
    files = [file for anchor in page.anchors if (file := _file(anchor)) is not None]
    return Project(name, listed_files.usable(files, base, skipped), keys, version, skipped)


def _file(anchor: Anchor) -> dict[str, Any] | None:
    """Return the JSON object that an anchor stands for; ``None`` if it only navigates."""
    attributes = anchor.attributes
    _, fragment, filename = _link(anchor)
    if filename in _FOLDERS and not listed_files.digests_in(fragment):
        return None
    file: dict[str, Any] = {"filename": filename, "url": attributes.get("href") or ""}
    for key in _IN_ATTRIBUTES:
        if f"data-{key}" in attributes:
            file[key] = attributes[f"data-{key}"] or (True if key == "yanked" else "")
    return file


def _link(anchor: Anchor) -> tuple[str, str, str]:
    """Return the link of an anchor without its fragment, the fragment, and the file name."""
    link, _, fragment = (anchor.attributes.get("href") or "").partition("#")
    return link, fragment, listed_files.linked_name(link)


def _is_listing(page: Markup, name: str) -> bool:
    """Distinguish a list of files, an empty one too, from an error, a login or a captive portal.

    A list states the version of the API or links to a distribution. Without either, it has the
    title or heading of a listing (or the project's name), and neither a password field nor a
    frame nor a refresh. Or it is a page with tags but without any text and script: the answer of
    some servers for an absent project. In doubt it is no list: an error page taken for an empty
    list would hide every release, and let another index answer instead.
    """
    if "pypi:repository-version" in page.metas:
        return True
    if any(_is_distribution(anchor, name) for anchor in page.anchors):
        return True
    if page.interactive:
        return False
    if page.has_listing_title or (page.has_tags and not (page.has_text or page.has_script)):
        return True
    return any(canonicalize_name(heading.strip()) == name for heading in page.headings)


def _is_distribution(anchor: Anchor, name: str) -> bool:
    """Recognize a link to a file of a project: by its digest, its name, or its text and suffix."""
    _, fragment, filename = _link(anchor)
    return bool(filename) and (
        bool(listed_files.digests_in(fragment))
        or canonicalize_name(filename).startswith(name + "-")
        or (filename.lower().endswith(filenames.SUFFIXES) and anchor.text.strip() == filename)
    )
