"""Pages of an index, JSON or HTML, read into a ``Project`` (PEP 503, 592, 629, 658, 691, 700, …).

An index is a stranger: its page may be anything. What comes out of here holds what ``render``
promises: names that are safe, absolute http(s) links, keys of the right type, no null. What is
not an index page is ``NotAnIndexPage`` and never anything worse; one odd file on a page is left
out, not fatal.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any

import msgspec
from werkzeug.http import parse_options_header

from proxpi.simple import markup, names, urls
from proxpi.simple.markup import Anchor, Markup, is_complete_html
from proxpi.simple.model import Entry, Project

__all__ = ["NotAnIndexPage", "UnsupportedVersion", "is_complete_html", "parse_project"]

_MAJOR = 1
_DEEPEST = 16  # Levels of an unknown value; a page must not be able to exhaust the stack.
_VERSION = re.compile(r"([0-9]{1,9})\.[0-9]{1,9}")
_TYPE_MAJOR = re.compile(r"application/vnd\.pypi\.simple\.v([0-9]{1,9})\+(?:json|html)")
_UPLOAD_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?)"
    r"(?:Z|\+00:00)"
)
#: What no file name may have in it.
UNSAFE = re.compile(r"[/\\\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_DIGEST = re.compile(r"([A-Za-z0-9_-]+)=([0-9A-Fa-f]+)")

# Charsets of the web beside UTF-8. Python knows more, and some of them (``idna``, ``utf-7``,
# ``unicode_escape``) raise, warn, or give half a surrogate pair, which nothing can encode again.
_CHARSETS = re.compile(
    r"(?:iso-?8859-|latin|windows-|cp|koi8-|gb|big5|shift_jis|euc-)[0-9a-z_-]*", re.IGNORECASE
)

_METADATA_KEYS = ("core-metadata", "dist-info-metadata", "data-dist-info-metadata")
_NOT_PASSED_ON_OF_FILES = {"filename", "url", "hashes", *_METADATA_KEYS}
_NOT_PASSED_ON = {"name", "files", "meta", "namespaces", "tracks", "alternate-locations"}
_NOT_PASSED_ON_OF_META = {"api-version", "namespaces", "tracks"}

_SUFFIXES = (
    *(".whl", ".tar.gz", ".zip", ".tar.bz2", ".tgz", ".tar.xz", ".tar.z", ".tar", ".egg"),
    *(".exe", ".msi", ".rpm", ".deb", ".dmg"),
)


class NotAnIndexPage(Exception):
    """The body is no page of an index: an error page, a login page, broken, or something else.

    :ivar reason: One plain sentence for people, without a URL.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnsupportedVersion(NotAnIndexPage):
    """The page follows a major version of the API that is not known here (PEP 629)."""


def parse_project(body: bytes, content_type: str | None, url: str, name: str) -> Project:
    """Read a project page.

    The body decides whether it is JSON or HTML: content types are often missing or wrong.

    :param content_type: The header as it came, or None.
    :param url: Where the page was found in the end, redirects followed; links are joined to it.
    :param name: The normalized name of the project.
    :raises NotAnIndexPage: When this is no page of an index.
    """
    media_type, parameters = parse_options_header(content_type)
    stated = _TYPE_MAJOR.fullmatch(media_type.lower())
    if stated and int(stated[1]) > _MAJOR:
        raise _unsupported(stated[1])
    body = body.removeprefix(b"\xef\xbb\xbf").strip()
    if body.startswith(b"{"):
        return _from_json(body, url, name)
    if body.startswith(b"<"):
        return _from_html(_decoded(body, parameters.get("charset", "utf-8")), url, name)
    raise NotAnIndexPage("The answer is neither JSON nor HTML." if body else "The answer is empty.")


def _unsupported(version: str) -> UnsupportedVersion:
    return UnsupportedVersion(
        f"The index speaks version {version} of the Simple API; only version 1 is understood."
    )


def _api_version(stated: object) -> str:
    """Give the version to assume: what is absent or malformed is 1.0 (PEP 629)."""
    found = _VERSION.fullmatch(stated) if isinstance(stated, str) else None
    if found is None:
        return "1.0"
    if int(found[1]) > _MAJOR:
        raise _unsupported(found[0])
    return found[0]


# JSON (PEP 691)


def _from_json(body: bytes, url: str, name: str) -> Project:
    try:
        page = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        raise NotAnIndexPage("The answer is broken or truncated JSON.") from None
    meta = page.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    version = _api_version(meta.get("api-version"))
    files = page.get("files")
    if not isinstance(files, list):
        raise NotAnIndexPage("The answer is JSON, but not a project page: it lists no files.")

    keys = _passed_on(page, _NOT_PASSED_ON)
    versions = keys.get("versions", [])
    if not (_is_strings(versions) and len(set(versions)) == len(versions)):
        del keys["versions"]
    status = _project_status(keys.pop("project-status", None))
    if status:
        keys["project-status"] = status
    if kept := _passed_on(meta, _NOT_PASSED_ON_OF_META):
        keys["meta"] = kept
    return Project(name, _entries(files, url), keys, version)


def _passed_on(values: dict[str, Any], left_out: Collection[str] = ()) -> dict[str, Any]:
    """Select the keys to pass on: not null, not private to a server, not among ``left_out``."""
    return {
        key: _pruned(value) if isinstance(value, dict | list) else value
        for key, value in values.items()
        if value is not None and not key.startswith("_") and key not in left_out
        if _fits(value, _DEEPEST)
    }


def _fits(value: object, levels: int) -> bool:
    """Say whether a value is nested no deeper than so many levels."""
    if not isinstance(value, dict | list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_fits(item, levels - 1) for item in inner)


def _pruned(value: Any) -> Any:
    """Drop keys whose value is null, at any depth."""
    if isinstance(value, dict):
        return {key: _pruned(item) for key, item in value.items() if item is not None}
    return [_pruned(item) for item in value] if isinstance(value, list) else value


def _is_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _project_status(value: object) -> dict[str, Any] | None:
    """Accept a status (PEP 792), a new one too, but none that is not an object with ``status``."""
    if not isinstance(value, dict) or _text(value.get("status")) is None:
        return None
    if not isinstance(value.get("reason", ""), str):
        del value["reason"]
    return value


# Files of either serialization


def _entries(found: Iterable[object], base: str) -> list[Entry]:
    """Keep the files that can be used; of two with one name the first."""
    entries: dict[str, Entry] = {}
    for item in found:
        if isinstance(item, dict):
            entry = _entry(item, base)
            if entry is not None:
                entries.setdefault(entry["filename"], entry)
    return list(entries.values())


def _entry(found: dict[str, Any], base: str) -> Entry | None:
    filename, link = found.get("filename"), found.get("url")
    if not isinstance(filename, str) or not isinstance(link, str) or not link.strip():
        return None
    if filename in ("", ".", "..") or UNSAFE.search(filename):
        return None
    try:
        url = urls.without_fragment(urls.join(base, link))
        urls.origin(url)
    except ValueError:
        return None
    if not url.isascii():
        return None
    metadata = [_metadata(found.get(key)) for key in _METADATA_KEYS]
    entry: Entry = {"filename": filename, "url": url, "hashes": _digests(found.get("hashes"))}
    entry |= _passed_on(found, _NOT_PASSED_ON_OF_FILES)
    entry["core-metadata"] = next((value for value in metadata if value is not None), None)
    for key, accept in _ACCEPT.items():
        if key in entry and (value := accept(entry.pop(key))) is not None:
            entry[key] = value
    return entry


def _digests(value: object) -> dict[str, str]:
    """Give digests with names and hexadecimal digits in lower case."""
    if not isinstance(value, dict):
        return {}
    return {name.lower(): hex.lower() for name, hex in value.items() if isinstance(hex, str)}


def _metadata(value: object) -> dict[str, str] | bool | None:
    """Unify what is said about core metadata: an empty object is falsy, so it says no (PEP 714)."""
    if isinstance(value, dict):
        return _digests(value) or (None if value else False)
    return value if isinstance(value, bool) else None


def _yanked(value: object) -> bool | str | None:
    return value if value is True or (isinstance(value, str) and value) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _size(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _upload_time(value: object) -> str | None:
    """Accept a UTC time as PEP 700 writes it: uv refuses a whole page for one that is not."""
    found = _UPLOAD_TIME.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    try:
        datetime.datetime.fromisoformat(found[1])
    except ValueError:
        return None
    return found[1] + "Z"


def _secure(value: object) -> str | None:
    """Accept an absolute https URL: nothing else may be published as provenance (PEP 740)."""
    if not isinstance(value, str) or not value.lower().startswith("https://"):
        return None
    try:
        urls.origin(value)
    except ValueError:
        return None
    return value if urls.userinfo(value) is None else None


_ACCEPT: dict[str, Callable[[Any], Any]] = {
    "core-metadata": lambda value: value,
    "gpg-sig": _flag,
    "provenance": _secure,
    "requires-python": _text,
    "size": _size,
    "upload-time": _upload_time,
    "yanked": _yanked,
}


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
        page = markup.read(text)
    except ValueError:
        raise NotAnIndexPage("The answer is HTML that cannot be read.") from None
    version = _api_version(page.metas.get("pypi:repository-version", "").strip())
    if not _is_listing(page, name):
        raise NotAnIndexPage("The answer is an HTML page, but not a list of files.")
    base = url
    if page.base is not None:
        try:
            base = urls.join(url, page.base)
        except ValueError:
            base = url
    keys: dict[str, Any] = {}
    if status := page.metas.get("pypi:project-status", "").strip():
        keys["project-status"] = {"status": status}
        if reason := page.metas.get("pypi:project-status-reason"):
            keys["project-status"]["reason"] = reason
    return Project(name, _entries(map(_file, page.anchors), base), keys, version)


def _file(anchor: Anchor) -> dict[str, Any]:
    """Say in the keys of the JSON form what an anchor says; what it does not say is None."""
    attributes = anchor.attributes
    link, fragment, filename = _link(anchor)
    yanked = attributes.get("data-yanked")
    return {
        "filename": filename,
        "url": link,
        "hashes": _digest(fragment),
        "requires-python": attributes.get("data-requires-python"),
        "core-metadata": _stated(attributes.get("data-core-metadata")),
        "dist-info-metadata": _stated(attributes.get("data-dist-info-metadata")),
        "gpg-sig": _stated(attributes.get("data-gpg-sig")),
        "provenance": attributes.get("data-provenance"),
        "yanked": (yanked or True) if "data-yanked" in attributes else None,
    }


def _link(anchor: Anchor) -> tuple[str, str, str]:
    """Give the link of an anchor without its fragment, the fragment, and the file name in it."""
    link, _, fragment = (anchor.attributes.get("href") or "").partition("#")
    return link, fragment, urls.filename(urls.join("", link))


def _digest(text: str) -> dict[str, str] | None:
    """Read ``sha256=…``; other fragments (``egg=…``, a heading) are no digests."""
    found = _DIGEST.fullmatch(text.partition("&")[0].strip())
    return {found[1]: found[2]} if found else None


def _stated(value: str | None) -> dict[str, str] | bool | None:
    """Read ``true``, ``false`` or a digest."""
    stated = (value or "").strip()
    return {"true": True, "false": False}.get(stated.lower(), _digest(stated))


def _is_listing(page: Markup, name: str) -> bool:
    """Tell a list of files, an empty one too, from an error, a login or a captive portal.

    A list states the version of the API or links to something that is a distribution. Without
    either, it has a title or heading as listings have (or the project's name) and none of what
    they never have: a password field, a frame, a refresh. Or it is a page without any text and
    script, as some servers answer for what they lack. In doubt it is no list: taken for an empty
    one, an error page would hide every release, and let another index answer in its place.
    """
    if "pypi:repository-version" in page.metas:
        return True
    if any(_is_distribution(anchor, name) for anchor in page.anchors):
        return True
    if page.barred:
        return False
    named = any(names.normalize(heading.strip()) == name for heading in page.headings)
    return page.titled or named or not (page.written or page.scripted)


def _is_distribution(anchor: Anchor, name: str) -> bool:
    """Recognize a link to a file of a project: by digest, by own name, or as one shown by name."""
    _, fragment, filename = _link(anchor)
    return bool(filename) and (
        _digest(fragment) is not None
        or names.normalize(filename).startswith(name + "-")
        or (filename.lower().endswith(_SUFFIXES) and anchor.text.strip() == filename)
    )
