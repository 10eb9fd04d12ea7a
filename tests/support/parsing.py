"""Project pages of an index, JSON or HTML, parsed."""

from __future__ import annotations

import json
from typing import Any

from proxpi.simple.model import FileEntry, Project
from proxpi.simple.parse import parse_project

URL = "https://index.example/simple/foo/"
JSON_TYPE = "application/vnd.pypi.simple.v1+json"
SHA = "a" * 64


def in_json(page: object, content_type: str | None = JSON_TYPE) -> Project:
    return parse_project(json.dumps(page).encode(), content_type, URL, "foo")


def in_html(text: str, content_type: str | None = "text/html") -> Project:
    return parse_project(text.encode(), content_type, URL, "foo")


def a_file(**keys: Any) -> dict[str, Any]:
    """Return a file of a JSON page, as the index states it."""
    return {"filename": "foo-1.0.whl", "url": "foo-1.0.whl", "hashes": {}, **keys}


def only_file(**keys: Any) -> FileEntry:
    (entry,) = in_json({"files": [a_file(**keys)]}).files
    return entry


def only_anchor(anchor: str) -> FileEntry:
    (entry,) = in_html(f"<h1>Links for foo</h1>{anchor}").files
    return entry
