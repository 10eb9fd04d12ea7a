"""Files of a page, JSON or HTML alike, from what an index says to what may be passed on.

What comes out of here holds what ``render`` promises: a name that is safe, an absolute http(s)
link, keys of the right type, no null. A file that cannot be used is left out.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from proxpi.simple import model, urls
from proxpi.simple.model import Entry, Unlisted

_NESTED = (dict, list)
_DEEPEST = 16  # Levels of an unknown value; a page must not be able to exhaust the stack.
_UPLOAD_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]((?:[01][0-9]|2[0-3]):[0-9]{2}(?::[0-9]{2})?)"
    r"([.,][0-9]{1,18})? ?([Zz]|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?)"
)
# Most times are written so already; a leap day is looked at more closely.
_UTC = re.compile(
    r"[12][0-9]{3}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])"
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?Z"
)
_OFFSET = re.compile("[Zz]|UTC|GMT")
_NUMBER = re.compile("[0-9]{1,18}")
_USUAL_DIGEST = re.compile("sha256=([0-9a-f]{64})")
_DIGEST = re.compile(r"([A-Za-z0-9_]+)=([0-9A-Fa-f]+)")
_PARTS = re.compile("[&;]")
#: What no file name may have in it.
UNSAFE = re.compile(r"[/\\\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# The newest name first (PEP 714).
_METADATA_KEYS = ("core-metadata", "dist-info-metadata", "data-dist-info-metadata")


def usable(found: Iterable[object], base: str, unlisted: Unlisted | None = None) -> list[Entry]:
    """Keep the files that can be used; of two with one name the one with the better digest.

    Of two with digests of one kind the first is kept. What only the other one says is kept, too.

    :param unlisted: gets the links of those that cannot be used
    """
    kept: dict[str, Entry] = {}
    for item in found:
        entry = _entry(item, base) if isinstance(item, dict) else None
        if entry is None:
            if unlisted is not None:
                unlisted.add(_named(item))
            continue
        first = kept.setdefault(entry["filename"], entry)
        if first is not entry and model.strength(entry) > model.strength(first):
            kept[entry["filename"]] = first | entry
    return list(kept.values())


def _named(item: object) -> str:
    """Give what names a file that cannot be used: its link, else its name."""
    link = (item.get("url") or item.get("filename")) if isinstance(item, dict) else None
    return link if isinstance(link, str) else f"({type(link or item).__name__})"


def _entry(found: dict[str, Any], base: str) -> Entry | None:
    filename, link = found.get("filename"), found.get("url")
    if not isinstance(filename, str) or not isinstance(link, str) or not _is_safe(filename):
        return None
    link, _, fragment = link.partition("#")
    try:
        url = _located(base, link)
    except ValueError:
        return None
    entry: Entry = {"filename": filename, "url": url, "hashes": _digests(found.get("hashes"))}
    if fragment:
        entry["hashes"] = digests_in(fragment) | entry["hashes"]
    for key in _METADATA_KEYS:
        if (value := found.get(key)) is not None and (value := _metadata(value)) is not None:
            entry["core-metadata"] = value
            break
    for key, value in found.items():
        if (accept := _ACCEPT.get(key)) is not None:
            if value is not None and (value := accept(value)) is not None:
                entry[key] = value
        elif key not in _READ:
            entry |= passed_on({key: value})
    return entry


def digests_in(text: str) -> dict[str, str]:
    """Read the digests in a fragment, such as ``egg=foo&sha256=…``, percent-encoded or not.

    Of two of one kind the first counts that can be one.
    """
    if (usual := _USUAL_DIGEST.fullmatch(text)) is not None:
        return {"sha256": usual[1]}
    found: dict[str, str] = {}
    for part in _PARTS.split(unquote(text) if "%" in text else text):
        if (stated := _DIGEST.fullmatch(part.strip())) is not None:
            name, digest = stated[1].lower(), stated[2].lower()
            if name in model.ALGORITHMS and not model.is_usable(name, found.get(name)):
                found[name] = digest
    return found


def _is_safe(filename: str) -> bool:
    if filename in ("", ".", ".."):
        return False
    if filename.isprintable():  # Nearly all are, and this is quicker to say of them.
        return "/" not in filename and "\\" not in filename
    return UNSAFE.search(filename) is None


# A link that stands on a page as it will be asked for: absolute, or below a folder on its host.
# What it matches is the beginning, which many links of a page have in common.
_CLEAN = re.compile(
    r"https?://[a-z0-9.-]{1,255}(?::[0-9]{1,5})?/(?=[!\"$-\[\]-~]*\Z)"
    r"|(?:/|\./|(?:\.\./){0,9})(?=[\w%+~!=-][\w.%+~!=/-]*\Z)(?!.*/[./])",
    re.ASCII,
)


def _located(base: str, link: str) -> str:
    """Give the absolute URL of a link, without fragment and user.

    :raises ValueError: When it leads to no server of the web.
    """
    clean = _CLEAN.match(link)
    return start(base, clean[0]) + link[clean.end() :] if clean else _resolved(base, link)


def _resolved(base: str, link: str) -> str:
    if not link.strip():
        raise ValueError("no link at all")
    url = urls.join(base, link)
    urls.origin(url)
    # What an index writes before a host is never used, so it is not kept either.
    url = urls.public(url) if urls.userinfo(url) else urls.without_fragment(url)
    return url


@lru_cache(maxsize=256)
def start(base: str, link: str) -> str:
    """Resolve what clean links have in common: the beginning, up to a slash.

    :raises ValueError: When it leads to no server of the web.
    """
    return _resolved(base, link + "x").removesuffix("x")


def linked_name(link: str) -> str:
    """Give the name of the file to which a link of a page leads, or nothing."""
    with suppress(ValueError):  # of a link to nowhere the name is of no use
        link = link if _CLEAN.match(link) else urls.join("", link)
    return urls.filename(link)


def passed_on(values: dict[str, Any], left_out: Collection[str] = ()) -> dict[str, Any]:
    """Select the keys to pass on: not null, not private to a server, not among ``left_out``."""
    return {
        key: _pruned(value) if isinstance(value, dict | list) else value
        for key, value in values.items()
        if value is not None and not key.startswith("_") and key not in left_out
        if _fits(value, _DEEPEST)
    }


def _fits(value: object, levels: int) -> bool:
    """Say whether a value is nested no deeper than so many levels."""
    if not isinstance(value, _NESTED):
        return True
    inner = value.values() if isinstance(value, dict) else value
    # Of the versions of a project, which may be thousands, none is looked into.
    nested = [item for item in inner if isinstance(item, _NESTED)]
    return levels > 0 and all(_fits(item, levels - 1) for item in nested)


def _pruned(value: Any) -> Any:
    """Drop keys whose value is null, at any depth."""
    if isinstance(value, dict):
        return {key: _pruned(item) for key, item in value.items() if item is not None}
    return [_pruned(item) for item in value] if isinstance(value, list) else value


def _digests(value: object) -> dict[str, str]:
    """Give digests with names and hexadecimal digits in lower case."""
    if isinstance(value, dict):
        found = value.items()
        return {name.lower(): hex.strip().lower() for name, hex in found if isinstance(hex, str)}
    return digests_in(value) if isinstance(value, str) else {}


def _metadata(value: object) -> dict[str, str] | bool | None:
    """Unify what is said about core metadata: any truthy value says that it is there (PEP 714)."""
    if isinstance(value, dict):
        return _digests(value) or (None if value else False)
    if isinstance(value, str):
        return stated(value)
    return bool(value) if isinstance(value, bool | int | float) else None


def stated(value: str) -> dict[str, str] | bool:
    """Read ``true``, ``false``, digests, or anything else, which clients take for ``true``."""
    return digests_in(value) or value.strip().lower() != "false"


def _yanked(value: object) -> bool | str | None:
    if not value or value is True or isinstance(value, str):
        return value or None  # type: ignore[return-value]
    return model.to_json(value).decode()


def text(value: object) -> str | None:
    """Accept a text that says anything."""
    return value if isinstance(value, str) and value else None


def _flag(value: object) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def _size(value: object) -> int | None:
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, float) and 0 <= value <= 2**53 and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _upload_time(value: object) -> str | None:
    """Write a time as PEP 700 wants it, in UTC: uv refuses a whole page for one that is not."""
    if isinstance(value, str) and _UTC.fullmatch(value):
        return value
    found = _UPLOAD_TIME.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        return None
    day, clock, fraction, offset = found.groups()
    try:
        time = datetime.datetime.fromisoformat(f"{day}T{clock}{_OFFSET.sub(r'+00:00', offset)}")
        utc = time.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    except (ValueError, OverflowError):
        return None
    return f"{utc.zfill(19)}{(fraction or '')[:7].replace(',', '.')}Z"


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
    "gpg-sig": _flag,
    "provenance": _secure,
    "requires-python": text,
    "size": _size,
    "upload-time": _upload_time,
    "yanked": _yanked,
}

_READ = frozenset({"filename", "url", "hashes", *_METADATA_KEYS})
