"""From the page of an index to the page for a client: what was said is said again."""

from __future__ import annotations

import json
from html import escape
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, urljoin

from hypothesis import given

from proxpi.simple.model import Project, decode, encode
from proxpi.simple.parse import parse_project
from proxpi.simple.render import render_html, render_json
from tests.support.strategies import deterministic, raw_pages

URL = "https://index.example/simple/foo/"
Said = dict[str, dict[str, Any]]


def _meant(file: dict[str, Any]) -> dict[str, Any]:
    """Give what a file of a JSON page says in the sense of the specification."""
    hashes = {name: digest.lower() for name, digest in file["hashes"].items()}
    metadata = file.get("core-metadata")
    keys = ("requires-python", "provenance", "gpg-sig", "size", "upload-time")
    meant = {key: file.get(key) for key in keys}
    meant["digest"] = hashes.get("sha256") or hashes.get("md5")
    meant["yanked"] = file.get("yanked") or False
    meant["core-metadata"] = file.get("dist-info-metadata") if metadata is None else metadata
    return meant


def _said(page: dict[str, Any]) -> Said:
    """Give what a JSON page says, by file name, and under no name of the project."""
    said = {file["filename"]: _meant(file) for file in page["files"]}
    return {"": {key: page.get(key) for key in ("versions", "project-status")}} | said


class _Reader(HTMLParser):
    """Reads an HTML page as a client does, knowing nothing but the specification."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.said: Said = {"": {"project-status": None}}
        self._attributes: dict[str, str] | None = None
        self.feed(page.decode("ascii"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if tag == "a":
            self._attributes = attributes
        if (name := attributes.get("name", "")).startswith("pypi:project-status"):
            status = self.said[""]["project-status"] or {}
            status["reason" if name.endswith("reason") else "status"] = attributes["content"]
            self.said[""]["project-status"] = status

    def handle_data(self, data: str) -> None:
        if self._attributes is None:
            return
        attributes, self._attributes = self._attributes, None
        link, _, fragment = attributes["href"].partition("#")
        assert unquote(urljoin(URL, link)) == URL + data
        metadata = attributes.get("data-core-metadata")
        assert metadata == attributes.get("data-dist-info-metadata")
        self.said[data] = {
            "digest": fragment.partition("=")[2] or None,
            "requires-python": attributes.get("data-requires-python"),
            "provenance": attributes.get("data-provenance"),
            "gpg-sig": attributes.get("data-gpg-sig") == "true",
            "yanked": "data-yanked" in attributes and (attributes["data-yanked"] or True),
            "core-metadata": {"sha256": metadata[7:]}
            if metadata not in (None, "true")
            else metadata,
        }


def _in_html(said: Said) -> Said:
    kept: Said = {"": {"project-status": said[""]["project-status"]}}
    for name, meant in said.items():
        if name:
            kept[name] = {key: meant[key] for key in meant if key not in ("size", "upload-time")}
            kept[name]["gpg-sig"] = bool(meant["gpg-sig"])
            metadata = meant["core-metadata"]
            kept[name]["core-metadata"] = "true" if metadata is True else metadata or None
    return kept


def _as_html(page: dict[str, Any]) -> bytes:
    """Write a JSON page in HTML, as an index may that knows both."""
    lines = ["<!DOCTYPE html><title>Links for foo</title>"]
    for key, value in page.get("project-status", {}).items():
        name = "pypi:project-status" + ("-reason" if key == "reason" else "")
        lines.append(f'<meta name="{name}" content="{escape(value)}">')
    for file in page["files"]:
        meant = _meant(file)
        name = "sha256" if "sha256" in file["hashes"] else "md5"
        link = file["url"].partition("#")[0]
        if meant["digest"]:
            link += f"#{name}={meant['digest']}"
        attributes = {"href": link} | {
            f"data-{key}": meant[key] for key in ("requires-python", "provenance") if meant[key]
        }
        if meant["yanked"]:
            attributes["data-yanked"] = "" if meant["yanked"] is True else meant["yanked"]
        if (metadata := meant["core-metadata"]) is not None:
            value = f"sha256={metadata['sha256']}" if isinstance(metadata, dict) else str(metadata)
            attributes["data-core-metadata"] = value
        if meant["gpg-sig"] is not None:
            attributes["data-gpg-sig"] = str(meant["gpg-sig"]).lower()
        written = " ".join(f'{key}="{escape(value)}"' for key, value in attributes.items())
        lines.append(f"<a {written}>{escape(file['filename'])}</a>")
    return "\n".join(lines).encode()


def _parsed(body: bytes) -> Project:
    return decode(encode(parse_project(body, None, URL, "foo")))


@deterministic
@given(raw_pages())
def test_a_json_page_is_passed_on(page: dict[str, Any]) -> None:
    """What the specification names is in both forms of the page, as far as the form can say it."""
    project = _parsed(json.dumps(page).encode())
    again = json.loads(render_json(project))
    assert _said(again) == _said(page)
    assert [file["filename"] for file in again["files"]] == list(_said(page))[1:]
    assert _Reader(render_html(project)).said == _in_html(_said(page))


@deterministic
@given(raw_pages())
def test_an_html_page_is_passed_on(page: dict[str, Any]) -> None:
    """What an index says in HTML alone is in both forms, too."""
    project = _parsed(_as_html(page))
    html = _in_html(_said(page))
    assert _Reader(render_html(project)).said == html
    again = _said(json.loads(render_json(project)))
    assert again[""] == {"versions": None, **html[""]}
    assert _in_html(again) == html
    assert again.keys() == html.keys()
