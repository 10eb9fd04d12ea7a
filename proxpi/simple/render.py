"""Renderer of pages for clients, in JSON and in HTML (PEP 503, 629, 691, 700, 714, 740, 792).

Links are relative to the page, so that a page does not depend on the address of the proxy. The
same project always gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any
from urllib.parse import quote

from proxpi.simple.model import FileEntry, Project, is_sha256_alone, published_hash, to_json
from proxpi.simple.negotiate import Serialization

JSON_VERSION = "1.4"
#: From 1.1 on, every file has its size, and the page its versions (PEP 700).
_VERSION_WITHOUT_SIZES = "1.0"
#: Frozen (PEP 833).
HTML_VERSION = "1.4"

# uv refuses an HTML page for any other algorithm in a link.
_IN_LINKS = frozenset({"sha256", "sha384", "sha512", "md5"})

# Code points that HTML5 forbids even as character references.
_NONCHARACTERS = "".join(
    chr(0x10000 * plane + low) for plane in range(17) for low in (0xFFFE, 0xFFFF)
)
_FORBIDDEN = re.compile(
    rf"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef{_NONCHARACTERS}]"
)
_UNRESERVED = re.compile(r"[A-Za-z0-9_.~-]*")  # RFC 3986, 2.3: never percent-encoded.
_RESERVED = re.compile(r"[^A-Za-z0-9_.~-]+")
_PLAIN = re.compile(r"[ !#-%(-;=?-~]*")
_SPACES = str.maketrans({"\n": "&#10;", "\t": "&#9;"})


def render_json(project: Project) -> bytes:
    """Render a project page as JSON.

    It states ``JSON_VERSION`` only if it has all that this version promises, and keeps every key
    anyway. One hash a file, no ``dist-info-metadata`` (it crashes pip 22.3 to 23.1).
    """
    # One by one: a single call for all would let no other thread run for as long as it takes.
    files = [to_json(_json_file(entry)) for entry in project.files]
    complete = "versions" in project.keys and all("size" in entry for entry in project.files)
    version = JSON_VERSION if complete else _VERSION_WITHOUT_SIZES
    meta = {**project.keys.get("meta", {}), "api-version": version}
    head = to_json({"meta": meta, "name": project.name} | {**project.keys, "meta": meta})
    return b"".join((head.removesuffix(b"}"), b',"files":[', b",".join(files), b"]}"))


def _json_file(entry: FileEntry) -> dict[str, Any]:
    file = entry | {"url": _href(entry["filename"]), "hashes": _published(entry.get("hashes"))}
    if isinstance(metadata := entry.get("core-metadata"), dict):
        file["core-metadata"] = _published(metadata) or True
    return file


def _published(hashes: object) -> dict[str, str]:
    if is_sha256_alone(hashes):
        return hashes
    return dict([published]) if (published := published_hash(hashes)) else {}


def _href(filename: str) -> str:
    """Return the link to a file, relative to the page, in characters that need no escaping."""
    if _UNRESERVED.fullmatch(filename):  # nearly all are, and this test is quicker
        return filename
    return _RESERVED.sub(lambda found: quote(found[0], safe=""), filename)


def render_html(project: Project) -> bytes:
    """Render a project page as HTML5 in ASCII, one anchor a line."""
    metas = {"pypi:repository-version": HTML_VERSION}
    status = project.keys.get("project-status", {})
    for key, name in (("status", "pypi:project-status"), ("reason", "pypi:project-status-reason")):
        if key in status:
            metas[name] = status[key]
    # A repository that states signatures should do so for each of its links (PEP 503).
    signatures = any("gpg-sig" in entry for entry in project.files)
    anchors = [_anchor(entry, signatures).encode() for entry in project.files]
    return b"".join((_head(f"Links for {project.name}", metas), *anchors, _HTML_TAIL))


def _head(title: str, metas: dict[str, str]) -> bytes:
    lines = [
        *("<!DOCTYPE html>", '<html lang="en">', "<head>", '<meta charset="utf-8">'),
        *(f'<meta name="{name}" content="{_escaped(text)}">' for name, text in metas.items()),
        *(f"<title>{_escaped(title)}</title>", "</head>", "<body>", f"<h1>{_escaped(title)}</h1>"),
    ]
    return "".join(line + "\n" for line in lines).encode()


_HTML_TAIL = b"</body>\n</html>\n"


def _anchor(entry: FileEntry, signatures: bool) -> str:
    filename, digest = entry["filename"], _digest(entry.get("hashes"))
    written = f'<a href="{_href(filename)}{digest and "#"}{digest}"'
    for key in ("requires-python", "provenance", "size", "upload-time"):
        if key in entry:
            written += f' data-{key}="{_escaped(str(entry[key]))}"'
    if "yanked" in entry:
        reason = "" if entry["yanked"] is True else _escaped(entry["yanked"])
        written += f' data-yanked="{reason}"'
    # HTML can only say that there is metadata; clients take any value for that.
    if stated := entry.get("core-metadata"):
        value = _digest(stated) or "true"
        written += f' data-core-metadata="{value}" data-dist-info-metadata="{value}"'
    if signatures:
        written += f' data-gpg-sig="{"true" if entry.get("gpg-sig") else "false"}"'
    return f"{written}>{_escaped(filename)}</a><br>\n"


def _digest(hashes: object) -> str:
    """Return the digest for an attribute; ``""`` if there is none that every client takes."""
    published = published_hash(hashes)
    return "=".join(published) if published and published[0] in _IN_LINKS else ""


def _escaped(text: str) -> str:
    """Escape text for an element or an attribute, in ASCII and on one line."""
    if _PLAIN.fullmatch(text):
        return text
    if text.isascii() and text.isprintable():
        return escape(text)
    text = _FORBIDDEN.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))
    return escape(text).translate(_SPACES).encode("ascii", "xmlcharrefreplace").decode("ascii")


def render_list(batches: Iterable[Iterable[str]], serialization: Serialization) -> Iterator[bytes]:
    """Render the project list in pieces: it can have a million names.

    :param batches: normalized names, which need no escaping
    """
    if serialization is Serialization.HTML:
        yield _head("Simple index", {"pypi:repository-version": HTML_VERSION})
        for names in batches:
            yield "".join(f'<a href="{name}/">{name}</a><br>\n' for name in names).encode()
        yield _HTML_TAIL
        return
    yield b'{"meta":{"api-version":"%s"},"projects":[' % JSON_VERSION.encode()
    comma = ""
    for names in batches:
        items = ",".join(f'{{"name":"{name}"}}' for name in names)
        yield (comma + items if items else "").encode()
        comma = "," if items else comma
    yield b"]}"
