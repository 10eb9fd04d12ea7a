"""The answers of an index that behaves: pages in both forms, and files with ranges.

Pure functions of what is listed; the misbehavior is added elsewhere.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import attrs

_JSON = "application/vnd.pypi.simple.v1+json"


@attrs.frozen
class Listed:
    """A file of a project: its version, and its entry on the page."""

    version: str
    entry: dict[str, Any]


@attrs.define
class Answer:
    """An answer before it is sent."""

    status: int
    body: bytes
    headers: dict[str, str] = attrs.field(factory=dict)


def project_page(project: str, listed: list[Listed], files_at: str, accept: str) -> Answer:
    """A project's page in the form asked for."""
    files: list[dict[str, Any]] = []
    for one in listed:
        url = files_at + f"{project}/{quote(one.entry['filename'])}"
        files.append({"url": url, **one.entry})
    if _JSON in accept:
        page = {
            "meta": {"api-version": "1.4"},
            "name": project,
            "versions": sorted({one.version for one in listed}),
            "files": files,
        }
        return Answer(200, json.dumps(page).encode(), {"Content-Type": _JSON})
    anchors = "".join(_anchor(entry) for entry in files)
    head = f'<meta name="pypi:repository-version" content="1.4"><title>{project}</title>'
    body = f"<!DOCTYPE html><html><head>{head}</head><body>{anchors}</body></html>"
    return Answer(200, body.encode(), {"Content-Type": "text/html; charset=utf-8"})


def _anchor(entry: dict[str, Any]) -> str:
    """A file's link in the HTML form."""
    fragment = "".join(f"#{name}={digest}" for name, digest in entry.get("hashes", {}).items())
    attributes = {"href": entry["url"] + fragment}
    if "requires-python" in entry:
        attributes["data-requires-python"] = entry["requires-python"]
    if entry.get("core-metadata"):
        attributes["data-core-metadata"] = "sha256=" + entry["core-metadata"]["sha256"]
    if entry.get("yanked"):
        attributes["data-yanked"] = "" if entry["yanked"] is True else entry["yanked"]
    text = " ".join(f'{name}="{html.escape(value)}"' for name, value in attributes.items())
    return f"<a {text}>{html.escape(entry['filename'])}</a>\n"


def root_list(projects: Iterable[str], accept: str) -> Answer:
    """The list of all projects."""
    if _JSON in accept:
        names = [{"name": project} for project in projects]
        body = json.dumps({"meta": {"api-version": "1.4"}, "projects": names})
        return Answer(200, body.encode(), {"Content-Type": _JSON})
    links = "".join(f'<a href="{name}/">{name}</a>\n' for name in projects)
    return Answer(200, f"<!DOCTYPE html><html><body>{links}</body></html>".encode())


def ranged(answer: Answer, asked: str | None) -> Answer:
    """A file's answer with one byte range applied (RFC 9110, section 14)."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", asked or "")
    if match is None or match.group() == "bytes=-":
        return answer
    size = len(answer.body)
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= size:
        return Answer(416, b"", {"Content-Range": f"bytes */{size}"})
    content_range = {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}
    return Answer(206, answer.body[start:stop], {**answer.headers, **content_range})


def entity_tag(body: bytes) -> str:
    """A strong entity tag of these bytes."""
    return f'"{hashlib.sha256(body).hexdigest()[:16]}"'


def revalidated(page: Answer, known: str) -> Answer:
    """A page with its validator, or a 304 to a client that knows it by that."""
    tag = entity_tag(page.body)
    headers = {"ETag": tag, "Cache-Control": "max-age=600", "Vary": "Accept"}
    if known == tag:
        return Answer(304, b"", headers)
    return Answer(page.status, page.body, {**headers, **page.headers})
