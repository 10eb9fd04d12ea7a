"""Rendered pages: read again they say the same, and clients can read them."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote, unquote, urljoin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.simple.html import is_complete_html
from proxpi.simple.model import FileEntry, Project, metadata_hash, published_hash
from proxpi.simple.negotiate import Serialization
from proxpi.simple.parse import parse_project
from proxpi.simple.render import (
    JSON_VERSION,
    render_html,
    render_json,
    render_list,
)
from tests.support.strategies import deterministic, normalized_names, projects

URL = "https://proxy.example/index/foo/"
SHA = "a" * 64


@deterministic
@given(projects())
def test_json_read_again(project: Project) -> None:
    """The JSON page has all that an index stated but links and digests, and the same bytes."""
    body = render_json(project)
    again = parse_project(body, None, URL, project.name)
    assert (again.name, again.keys) == (project.name, project.keys)
    for entry, read in zip(project.files, again.files, strict=True):
        best, metadata = published_hash(entry["hashes"]), metadata_hash(entry)
        expected = entry | {"url": URL + quote(entry["filename"], safe="")}
        expected["hashes"] = dict([best]) if best else {}
        if isinstance(metadata, dict):
            digest = published_hash(metadata)
            expected["core-metadata"] = dict([digest]) if digest else True
        assert read == expected
    assert json.loads(render_json(again)) == json.loads(body)
    assert body == render_json(project)


def _nulls(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(_nulls, value.values()))
    if isinstance(value, list):
        return sum(map(_nulls, value))
    return value is None


@deterministic
@given(projects())
def test_json_for_strict_clients(project: Project) -> None:
    """The required keys are there, hashes hold at most one digest, and nothing is null."""
    page = json.loads(render_json(project))
    assert re.fullmatch(r"1\.\d+", page["meta"]["api-version"])
    assert page["name"] == project.name
    assert _nulls(page) == 0
    for file in page["files"]:
        assert unquote(file["url"]) == file["filename"]
        assert urljoin(URL, file["url"]) == URL + file["url"]
        assert len(file["hashes"]) <= 1
        assert not {"blake2b", "dist-info-metadata", "data-dist-info-metadata"} & (
            file.keys() | file["hashes"]
        )


@pytest.mark.parametrize(
    ("files", "keys", "expected"),
    [
        ([{"size": 1}], {"versions": ["1"]}, JSON_VERSION),
        *(([], {"versions": []}, JSON_VERSION), ([{"size": 1}, {}], {"versions": ["1"]}, "1.0")),
        *(([{"size": 1}], {}, "1.0"), ([], {}, "1.0")),
    ],
)
def test_json_version(files: list[FileEntry], keys: dict[str, Any], expected: str) -> None:
    """Without a size for each file, or without versions, the page says 1.0 and keeps its keys."""
    entries = [
        {"filename": f"f{n}", "url": "https://h/f", "hashes": {}} | f for n, f in enumerate(files)
    ]
    page = json.loads(
        render_json(Project("foo", entries, keys | {"meta": {"api-version": "9.9", "x": 1}}, "1.2"))
    )
    assert page["meta"] == {"api-version": expected, "x": 1}
    assert page.get("versions") == keys.get("versions")
    assert [file.get("size") for file in page["files"]] == [file.get("size") for file in files]


class _Strict(HTMLParser):
    """A reader that insists on balanced tags and on every attribute occurring once."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names)
        assert all(value is not None for _, value in attrs)
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        assert "<" not in data or self.open[-1] == "a"


_ANCHOR = re.compile(r'<a(?: [a-z-]+="[^"<>\']*")+>[^<>]*</a><br>')


@deterministic
@given(projects())
def test_valid_html(project: Project) -> None:
    """Doctype, ASCII, balanced tags, one anchor a line with everything escaped."""
    body = render_html(project)
    text = body.decode("ascii")
    assert text.startswith("<!DOCTYPE html>\n")
    assert is_complete_html(body)
    reader = _Strict()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    assert [tag for tag in reader.seen if tag in ("html", "head", "title", "body", "base")] == [
        *("html", "head", "title", "body"),
    ]
    lines = [line for line in text.splitlines() if line.startswith("<a")]
    assert len(lines) == len(project.files)
    assert all(_ANCHOR.fullmatch(line) for line in lines)
    assert text.count('<meta name="pypi:repository-version" content="1.4">') == 1
    assert text.index("<meta charset") < 1024


def _html(**keys: Any) -> str:
    entry = {"filename": "foo-1.0.whl", "url": "https://h/f", "hashes": {}, **keys}
    return render_html(Project("foo", [entry], {})).decode()


def test_anchor() -> None:
    """Attributes as the specification writes them, both names of core metadata equal."""
    line = _html(
        filename="foo-1!1.0+cu.whl",
        hashes={"sha256": SHA, "md5": "b" * 32},
        yanked=True,
        provenance="https://index.example/p?a&b",
        size=3,
        **{"requires-python": ">=3,<4", "core-metadata": {"sha256": SHA}, "gpg-sig": True},
        **{"upload-time": "2026-01-02T03:04:05Z"},
    ).splitlines()[-3]
    assert line == (
        f'<a href="foo-1%211.0%2Bcu.whl#sha256={SHA}" data-requires-python="&gt;=3,&lt;4" '
        'data-provenance="https://index.example/p?a&amp;b" data-size="3" '
        'data-upload-time="2026-01-02T03:04:05Z" data-yanked="" '
        f'data-core-metadata="sha256={SHA}" data-dist-info-metadata="sha256={SHA}" '
        'data-gpg-sig="true">foo-1!1.0+cu.whl</a><br>'
    )


@pytest.mark.parametrize(
    "name", ["a:b.whl", "//host.example", "?x", "#x", "a%2Fb", "&lt;", "%", "\u2028é"]
)
def test_links(name: str) -> None:
    """No file name can make its link absolute, add a query or escape the folder of the page."""
    file = json.loads(
        render_json(Project("foo", [{"filename": name, "url": "u", "hashes": {}}], {}))
    )["files"][0]
    joined = urljoin(URL, file["url"])
    assert joined.startswith(URL)
    assert "/" not in joined.removeprefix(URL)
    assert unquote(joined.removeprefix(URL)) == name


@pytest.mark.parametrize(
    ("hashes", "json_hashes", "fragment"),
    [
        ({"sha1": "a" * 40}, {"sha1": "a" * 40}, ""),
        ({"sha512": "a" * 128, "sha1": "a" * 40}, {"sha512": "a" * 128}, "#sha512=" + "a" * 128),
        ({"blake2b": "a" * 128}, {}, ""),
        ({"unknown": "a"}, {}, ""),
    ],
)
def test_digests(hashes: dict[str, str], json_hashes: dict[str, str], fragment: str) -> None:
    """uv drops an HTML page over sha1 in a link, pip a JSON page over an unknown name."""
    project = Project("foo", [{"filename": "f", "url": "u", "hashes": hashes}], {})
    assert json.loads(render_json(project))["files"][0]["hashes"] == json_hashes
    assert f'<a href="f{fragment}">f</a><br>' in render_html(project).decode()


@pytest.mark.parametrize(
    ("stated", "in_json", "in_html"),
    [
        (True, True, "true"),
        ({"sha256": SHA, "md5": "b" * 32}, {"sha256": SHA}, f"sha256={SHA}"),
        ({"sha1": "a" * 40}, {"sha1": "a" * 40}, "true"),
        ({"blake2b": "a" * 128}, True, "true"),
        *(({"sha256": "zz"}, True, "true"), ({"sha256": "a" * 63}, True, "true")),
    ],
)
def test_core_metadata(stated: object, in_json: object, in_html: str) -> None:
    """One digest that every client understands, or else the bare fact."""
    entry: FileEntry = {"filename": "f", "url": "u", "hashes": {}, "core-metadata": stated}
    project = Project("foo", [entry], {})
    assert json.loads(render_json(project))["files"][0]["core-metadata"] == in_json
    line = (
        f'<a href="f" data-core-metadata="{in_html}" data-dist-info-metadata="{in_html}">f</a><br>'
    )
    assert line in render_html(project).decode()


def test_no_metadata() -> None:
    """That there is none is stated in JSON alone: in HTML any value means that there is."""
    entry: FileEntry = {"filename": "f", "url": "u", "hashes": {}, "core-metadata": False}
    project = Project("foo", [entry], {})
    assert json.loads(render_json(project))["files"][0]["core-metadata"] is False
    assert b"metadata" not in render_html(project)


def test_signatures() -> None:
    """One file with a statement about its signature puts one on every link."""
    files: list[FileEntry] = [{"filename": name, "url": "u", "hashes": {}} for name in "ab"]
    assert b"data-gpg-sig" not in render_html(Project("foo", files, {}))
    files[1]["gpg-sig"] = True
    text = render_html(Project("foo", files, {})).decode()
    assert re.findall('data-gpg-sig="([a-z]+)"', text) == ["false", "true"]


def test_project_status() -> None:
    """Status and reason are metas of the HTML page (PEP 792), before its body."""
    status = {"status": "archived", "reason": 'see "<x>"'}
    head = (
        render_html(Project("foo", [], {"project-status": status})).decode().partition("<body>")[0]
    )
    assert '<meta name="pypi:project-status" content="archived">' in head
    assert '<meta name="pypi:project-status-reason" content="see &quot;&lt;x&gt;&quot;">' in head
    assert "project-status" not in render_html(Project("foo", [], {})).decode()


@pytest.mark.parametrize(
    ("reason", "written"),
    [
        ("a\r\nb\rc\nd\te", "a&#10;b&#10;c&#10;d&#9;e"),
        ("\x00\x1b\x7f\x85\ufdd0\uffff\U0010ffff", "&#65533;" * 7),
        ("é\U0001f40d", "&#233;&#128013;"),
        ("'\"&<>", "&#x27;&quot;&amp;&lt;&gt;"),
    ],
)
def test_escaping(reason: str, written: str) -> None:
    """Characters that HTML5 forbids, even as references, do not make the page invalid."""
    assert f'data-yanked="{written}"' in _html(yanked=reason)


_lists = st.lists(st.lists(normalized_names, max_size=3), max_size=4)


@deterministic
@given(_lists)
def test_list_in_json(pieces: list[list[str]]) -> None:
    """However the list is cut into pieces, it is one JSON object with every name in order."""
    page = json.loads(b"".join(render_list(pieces, Serialization.JSON)))
    names = [name for piece in pieces for name in piece]
    assert page == {
        "meta": {"api-version": JSON_VERSION},
        "projects": [{"name": name} for name in names],
    }


@deterministic
@given(_lists)
def test_list_in_html(pieces: list[list[str]]) -> None:
    """However the list is cut into pieces, it is one page with an anchor for every name."""
    text = b"".join(render_list(pieces, Serialization.HTML)).decode("ascii")
    names = [name for piece in pieces for name in piece]
    assert re.findall('<a href="(.*)/">(.*)</a><br>\n', text) == [(name, name) for name in names]
    reader = _Strict()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    assert '<meta name="pypi:repository-version" content="1.4">' in text
