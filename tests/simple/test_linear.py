"""Pages, links and headers of strangers: twice as much takes at most twice as long."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from proxpi.index.representations import merge
from proxpi.simple import caching, negotiate, urls
from proxpi.simple.model import Project, decode, encode, find
from proxpi.simple.parse import NotAnIndexPage, is_whole, parse_project
from proxpi.simple.render import render_html, render_json
from tests.support.growth import assert_linear

URL = "https://index.example/simple/foo/"
SHA = "a" * 64
USUAL = f'{{"filename":"f%d","url":"https://h.example/f%d","hashes":{{"sha256":"{SHA}"}}}}'


def parsed(body: bytes) -> Project:
    return parse_project(body, None, URL, "foo")


def served(body: bytes) -> None:
    is_whole(body)
    project = parsed(body)
    find(encode(decode(encode(merge([project, project])))), "f0")
    render_json(project)
    render_html(project)


def repeated(before: str, piece: str, after: str = "") -> Callable[[int], bytes]:
    """Return a maker of pages with so many bytes of pieces, in which ``%d`` counts."""

    def made(size: int) -> bytes:
        count = size // len(piece)
        pieces = (piece.replace("%d", str(n)) for n in range(count)) if "%d" in piece else ()
        return f"{before}{''.join(pieces) or piece * count}{after}".encode()

    return made


def listed(piece: str) -> Callable[[int], bytes]:
    """Return a maker of JSON pages with so many bytes of pieces in their lists of files."""
    return repeated('{"files": [', piece + ",", "1]}")


def nested(before: str, begin: str, end: str, after: str) -> Callable[[int], bytes]:
    return lambda size: f"{before}{begin * size}1{end * size}{after}".encode()


FILE = '{"files": [{"filename": "f", "url": "f", "hashes": {}, '
LINKS_FOR = "<h1>Links for foo</h1>"
PAGES = {
    "usual": listed(USUAL),
    "one name": listed(USUAL.replace("f%d", "f")),
    "odd": listed(USUAL.replace("f%d", "f %d")),
    "leniently": repeated('{"files": [', USUAL + ",", '1],"x":NaN}'),
    "odd values": listed('{"filename":"f%d","url":"f%d","hashes":{},"x":NaN}'),
    "unusable": listed('{"filename":"f%d"}'),
    "numbers": listed("1"),
    "nested": repeated('{"x": ', "[", "1"),
    "nested and whole": nested('{"x": ', "[", "]", ', "files": []}'),
    "nested objects": repeated('{"x": ', '{"a":', "1"),
    "nested in a file": nested('{"files": [', "[", "]", "]}"),
    "wide": repeated(FILE + '"x": [', "[[]],", "1]}]}"),
    "nulls": repeated(FILE + '"x": [', '{"a":null},', "1]}]}"),
    "long number": repeated('{"files": [], "x": ', "9", "}"),
    "long float": repeated('{"files": [], "x": 0.', "1", "e5}"),
    "long size": repeated(FILE + '"size": ', "9", "}]}"),
    "long text": repeated(FILE + '"yanked": "', "\\u00e9", '"}]}'),
    "cut text": repeated(FILE + '"yanked": "', "\\\\"),
    "surrogates": repeated(FILE + '"yanked": "', "\\ud800", '"}]}'),
    "blanks": repeated('{"files": []', " ", "}"),
    "keys": repeated('{"files": [], ', '"%d": 1,', '"y": 1}'),
    "one key": repeated('{"files": [], ', '"x": 1,', '"y": 1}'),
    "versions": repeated('{"files": [], "versions": [', '"%d",', '"x"]}'),
    "hashes": repeated(
        '{"files": [{"filename":"f","url":"f","hashes":{', '"h%d":"a",', '"x":"a"}}]}'
    ),
    "requires-python": repeated(FILE + '"requires-python": "', ">=3,", '"}]}'),
    "upload-time": repeated(FILE + '"upload-time": "2026-01-02T03:04:05.', "1", 'Z"}]}'),
    "anchors": repeated(LINKS_FOR, f"<a href='f#sha256={SHA}'>f</a>"),
    "attributes": repeated(f"{LINKS_FOR}<a href=f ", "a=b ", ">"),
    "one attribute": repeated(f"{LINKS_FOR}<a href='f", "&amp;", "'>"),
    "comments": repeated(LINKS_FOR, "<!-- "),
    "titles": repeated("", "<title>Index</title>"),
    "title": repeated("<title>", "<b>"),
    "headings": repeated("<h1>", "x<b>"),
    "metas": repeated("", "<meta name='x' content='y'>"),
    "bases": repeated(LINKS_FOR, "<base href=/x/>"),
    "texts": repeated("", "x <b> </b>"),
    "white space": repeated(LINKS_FOR, " \n\t"),
    "ends": repeated(LINKS_FOR, "</html>"),
    "comments at the end": repeated(f"{LINKS_FOR}</html>", "<!---->", "x"),
    "open comments at the end": repeated(f"{LINKS_FOR}</html>", "<!--", "x"),
    "text": repeated("", "x"),
    "marks": repeated("", "\ufeff"),
    "charsets": repeated("<meta ", "charset "),
}


@pytest.mark.parametrize("kind", PAGES)
def test_a_page_takes_linear_time(kind: str) -> None:
    """Four times as much of any repeated text takes no more than about four times."""
    assert_linear(served, PAGES[kind], 100_000, (NotAnIndexPage,))


@pytest.mark.parametrize("depth", [1_000, 1_000_000])
@pytest.mark.parametrize(
    "page",
    ['{"files": [], "x": A}', '{"files": A}', '{"files": [{"x": A}]}', '{"files": [A]}', "A"],
)
@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a":', "}")])
def test_deep_nesting_is_survived(depth: int, page: str, begin: str, end: str) -> None:
    """A page that is nested as deeply as it likes is read without the odd value, or refused."""
    for closing in (end * depth, ""):
        body = page.replace("A", begin * depth + "1" + closing).encode()
        try:
            project = parsed(body)
        except NotAnIndexPage:
            continue
        assert list(project.files) == []
        assert project.keys == {}


LINKS = ("../", "./", "a/", "/", "\\", "é", " ", "%", "?", "#", "&", ";", "@", ":", "a=", "a=b&")


@pytest.mark.parametrize("piece", LINKS)
@pytest.mark.parametrize("before", ["", "/", "//", "https://h.example/", "https://", "x#"])
def test_a_link_takes_linear_time(before: str, piece: str) -> None:
    """A link of any length and kind, and its fragment, take time in proportion to their length."""

    def work(link: str) -> None:
        page = {"files": [{"filename": "f", "url": link, "hashes": {}}]}
        parsed(json.dumps(page).encode())
        parsed(f"<h1>Links for foo</h1><a href='{link}'>f</a>".encode())
        for function in (urls.public, urls.loggable, urls.redacted, urls.filename, urls.userinfo):
            function(link)

    assert_linear(work, lambda size: before + piece * (size // len(piece)), 20_000)


@pytest.mark.parametrize(
    "piece",
    [",", ";", "a,", '"a",', 'W/"', '"', "\\", "a;q=", "*/*;", " ", "=", "0-", "bytes=", "é"],
)
def test_a_header_takes_linear_time(piece: str) -> None:
    """Each header by which a client decides over its answer, and the type of an answer, do so."""
    readers: tuple[Callable[[str], Any], ...] = (
        negotiate.choose_media_type,
        negotiate.accepts_gzip,
        lambda value: caching.precondition(value, value, "x"),
        lambda value: caching.requested_span(value, None, None, 10),
        lambda value: caching.requested_span(f"bytes={value}", value, "x", 10),
        lambda value: parse_project(b"{}", f"text/html; {value}", URL, "foo"),
    )
    refusals = (NotAnIndexPage, caching.Unsatisfiable)
    for reader in readers:
        assert_linear(reader, lambda size: piece * (size // len(piece)), 4_000, refusals)
