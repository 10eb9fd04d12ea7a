"""Files that a page lists: validation of what an index states, in JSON or HTML, into entries.

An entry has a safe name, an absolute http(s) link, keys of the right type and no null. A file that
cannot be used is left out.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from proxpi.simple import model, names, urls
from proxpi.simple.model import FileEntry, SkippedLinks

_MAX_DEPTH = 16  # of an unknown value: a page must not be able to exhaust the stack
_ZONE = re.compile(r" ?(?:[Zz]|UTC|GMT|([+-][0-9:]+))\Z")
# Most times are written so already; a leap day is looked at more closely.
_UTC = re.compile(
    r"[12][0-9]{3}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])"
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?Z"
)
_NUMBER = re.compile("[0-9]{1,18}")
_USUAL_DIGEST = re.compile("sha256=([0-9a-f]{64})")
_DIGEST = re.compile(r"([A-Za-z0-9_]+)=([0-9A-Fa-f]+)")
_PARTS = re.compile("[&;]")
# A link that needs no normalization: absolute, or below a folder on its host. The match is the
# beginning, which many links of a page have in common.
_CLEAN = re.compile(
    r"https?://[a-z0-9.-]{1,255}(?::[0-9]{1,5})?/(?=[!\"$-\[\]-~]*\Z)"
    r"|(?:/|\./|(?:\.\./){0,9})(?=[\w%+~!=-][\w.%+~!=/-]*\Z)(?!.*/[./])",
    re.ASCII,
)
# The newest name first (PEP 714).
METADATA_KEYS = ("core-metadata", "dist-info-metadata", "data-dist-info-metadata")
_READ_ALREADY = frozenset({"filename", "url", "hashes", *METADATA_KEYS})


def usable(found: Iterable[object], base: str, skipped: SkippedLinks) -> list[FileEntry]:
    """Keep the files that can be used; of two with one name the one with the better digest.

    Of two with digests of one kind the first is kept. Keys that only the other one has are kept.

    :param base: the absolute URL that links are relative to
    :param skipped: counts the files that cannot be used
    """
    kept: dict[str, FileEntry] = {}
    for item in found:
        stated = item if isinstance(item, dict) else {}
        entry = _entry(stated, base)
        if entry is None:
            link = stated.get("url") or stated.get("filename")
            skipped.add(link if isinstance(link, str) else f"({type(link or item).__name__})")
            continue
        first = kept.setdefault(entry["filename"], entry)
        if first is not entry and model.strength(entry) > model.strength(first):
            kept[entry["filename"]] = first | entry
    return list(kept.values())


def _entry(found: dict[str, Any], base: str) -> FileEntry | None:
    filename, link = found.get("filename"), found.get("url")
    if not (isinstance(filename, str) and isinstance(link, str) and names.is_filename(filename)):
        return None
    link, _, fragment = link.partition("#")
    try:
        clean = _CLEAN.match(link)
        url = _start(base, clean[0]) + link[clean.end() :] if clean else _resolved(base, link)
    except ValueError:
        return None
    entry: FileEntry = {"filename": filename, "url": url, "hashes": _digests(found.get("hashes"))}
    if fragment:
        entry["hashes"] = digests_in(fragment) | entry["hashes"]
    for key in METADATA_KEYS:
        if (value := found.get(key)) is not None and (value := _metadata(value)) is not None:
            entry["core-metadata"] = value
            break
    for key, value in found.items():
        if value is None or key in _READ_ALREADY:
            continue
        if (accept := _ACCEPT.get(key)) is None:
            entry |= passed_on({key: value})
        elif (value := accept(value)) is not None:
            entry[key] = value
    return entry


def digests_in(text: str) -> dict[str, str]:
    """Read the digests in a fragment, such as ``egg=foo&sha256=…``: the first usable of each."""
    if (usual := _USUAL_DIGEST.fullmatch(text)) is not None:
        return {"sha256": usual[1]}
    found: dict[str, str] = {}
    for part in _PARTS.split(unquote(text) if "%" in text else text):
        if (stated := _DIGEST.fullmatch(part.strip())) is not None:
            name, digest = stated[1].lower(), stated[2].lower()
            if name in model.ALGORITHMS and not model.is_usable(name, found.get(name)):
                found[name] = digest
    return found


def _resolved(base: str, link: str) -> str:
    """Return the URL of a link, without user; `ValueError` if it leads to no web server."""
    if not link.strip():
        raise ValueError("no link at all")
    url = urls.join(base, link)
    urls.origin(url)
    # The credentials of a link are never used, so they are not kept either.
    return urls.public(url) if urls.userinfo(url) else urls.without_fragment(url)


@lru_cache(maxsize=256)
def _start(base: str, link: str) -> str:
    """Resolve the beginning of clean links, up to a slash."""
    return _resolved(base, link + "x").removesuffix("x")


def linked_name(link: str) -> str:
    """Return the name of the file to which a link of a page leads, or ``""``."""
    with suppress(ValueError):  # a link to nowhere is skipped later
        link = link if _CLEAN.match(link) else urls.join("", link)
    return urls.filename(link)


def passed_on(values: dict[str, Any], left_out: Collection[str] = ()) -> dict[str, Any]:
    """Leave out keys that are null, private to a server, in `left_out`, or nested too deeply."""
    found = {}
    for key, value in values.items():
        if value is not None and not key.startswith("_") and key not in left_out:
            with suppress(RecursionError):
                found[key] = _without_nulls(value, _MAX_DEPTH)
    return found


def _without_nulls(value: Any, levels: int) -> Any:
    """Drop keys whose value is null; `RecursionError` if there are more levels."""
    if not isinstance(value, dict | list):
        return value
    if levels == 0:
        raise RecursionError
    if isinstance(value, list):
        return [_without_nulls(item, levels - 1) for item in value]
    items = value.items()
    return {key: _without_nulls(item, levels - 1) for key, item in items if item is not None}


def _digests(value: object) -> dict[str, str]:
    if model.is_sha256_alone(value):
        return value
    if isinstance(value, dict):
        found = value.items()
        return {name.lower(): hex.strip().lower() for name, hex in found if isinstance(hex, str)}
    return digests_in(value) if isinstance(value, str) else {}


def _metadata(value: object) -> dict[str, str] | bool | None:
    """Unify statements about core metadata: any truthy value says that it exists (PEP 714).

    An attribute of HTML without a value is an empty text, which clients take for ``true``.
    """
    if isinstance(value, dict):
        return _digests(value) or (None if value else False)
    if isinstance(value, str):
        return digests_in(value) or value.strip().lower() != "false"
    return bool(value) if isinstance(value, bool | int | float) else None


def _yanked(value: object) -> bool | str | None:
    if not value or value is True or isinstance(value, str):
        return value or None  # type: ignore[return-value]
    return model.to_json(value).decode()


def text(value: object) -> str | None:
    """Accept a text that is not empty."""
    return value if isinstance(value, str) and value else None


def _flag(value: object) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def _size(value: object) -> int | None:
    if type(value) is int:
        return value if value >= 0 else None
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, float) and 0 <= value <= 2**53 and value.is_integer():
        return int(value)
    return None


def _upload_time(value: object) -> str | None:
    """Write a time as PEP 700 wants it, in UTC: uv refuses a whole page for one that is not."""
    if not isinstance(value, str):
        return None
    if _UTC.fullmatch(value):
        return value
    try:
        text = _ZONE.sub(lambda found: found[1] or "+00:00", value.strip())
        time = datetime.datetime.fromisoformat(text)
        utc = time.astimezone(datetime.UTC).replace(tzinfo=None).isoformat()
    except (ValueError, OverflowError):
        return None
    # With six digits or none: Python before 3.11, hence pip there, reads no other number of them.
    return f"{utc}Z" if time.tzinfo else None


def _secure(value: object) -> str | None:
    """Accept an absolute https URL: nothing else may be published as provenance (PEP 740)."""
    with suppress(ValueError):
        if isinstance(value, str) and urls.origin(value).scheme == "https":
            return value if urls.userinfo(value) is None else None
    return None


_ACCEPT: dict[str, Callable[[Any], Any]] = {
    "gpg-sig": _flag,
    "provenance": _secure,
    "requires-python": text,
    "size": _size,
    "upload-time": _upload_time,
    "yanked": _yanked,
}
