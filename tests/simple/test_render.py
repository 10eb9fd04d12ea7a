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
from proxpi.simple.render import JSON_VERSION, render_html, render_json, render_list
from tests.support.strategies import deterministic, normalized_names, projects

URL = "https://proxy.example/index/foo/"
SHA, SHA512, MD5 = "a" * 64, "a" * 128, "b" * 32


def a_project(*files: dict[str, Any], **keys: Any) -> Project:
    entries: list[FileEntry] = [
        {"filename": f"f{number}", "url": "https://h.example/f", "hashes": {}} | file
        for number, file in enumerate(files)
    ]
    return Project("foo", entries, keys)


def in_json(*files: dict[str, Any], **keys: Any) -> Any:
    return json.loads(render_json(a_project(*files, **keys)))


def in_html(*files: dict[str, Any], **keys: Any) -> str:
    return render_html(a_project(*files, **keys)).decode("ascii")


@deterministic
@given(projects)
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


@deterministic
@given(projects)
def test_html_read_again(project: Project) -> None:
    """The HTML page has what HTML can express of a project, in its order."""
    again = parse_project(render_html(project), None, URL, project.name)
    assert again.keys == {key: project.keys[key] for key in project.keys if "status" in key}
    signed = any("gpg-sig" in entry for entry in project.files)
    for entry, read in zip(project.files, again.files, strict=True):
        expected = {key: entry[key] for key in entry if key != "x-unknown"}
        expected["url"] = URL + quote(entry["filename"], safe="")
        best, metadata = published_hash(entry["hashes"]), metadata_hash(entry)
        expected["hashes"] = dict([best]) if best and best[0] != "sha1" else {}
        if isinstance(metadata, dict):
            digest = published_hash(metadata)
            expected["core-metadata"] = dict([digest]) if digest and digest[0] != "sha1" else True
        elif not metadata:
            expected.pop("core-metadata", None)
        if signed:
            expected["gpg-sig"] = bool(entry.get("gpg-sig"))
        assert read == expected


def _nulls(value: Any) -> int:
    if isinstance(value, dict | list):
        return sum(map(_nulls, value.values() if isinstance(value, dict) else value))
    return value is None


@deterministic
@given(projects)
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
        names = file.keys() | file["hashes"]
        assert not {"blake2b", "dist-info-metadata", "data-dist-info-metadata"} & names


@pytest.mark.parametrize(
    ("files", "keys", "expected"),
    [
        *(([{"size": 1}], {"versions": ["1"]}, JSON_VERSION), ([], {"versions": []}, JSON_VERSION)),
        *(([{"size": 1}, {}], {"versions": ["1"]}, "1.0"), ([{"size": 1}], {}, "1.0")),
        ([], {}, "1.0"),
    ],
)
def test_json_version(files: list[FileEntry], keys: dict[str, Any], expected: str) -> None:
    """Without a size for each file, or without versions, the page says 1.0 and keeps its keys."""
    page = in_json(*files, **keys, meta={"api-version": "9.9", "x": 1})
    assert page["meta"] == {"api-version": expected, "x": 1}
    assert page.get("versions") == keys.get("versions")
    assert [file.get("size") for file in page["files"]] == [file.get("size") for file in files]


class _Strict(HTMLParser):
    """A reader that insists on balanced tags and on every attribute occurring once."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names)
        assert all(value is not None for _, value in attrs)
        self.seen.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        assert "<" not in data or self.open[-1] == "a"


_ANCHOR = re.compile(r'<a(?: [a-z-]+="[^"<>\']*")+>[^<>]*</a><br>')


@deterministic
@given(projects)
def test_valid_html(project: Project) -> None:
    """Doctype, ASCII, balanced tags, one anchor a line with everything escaped."""
    body = render_html(project)
    text = body.decode("ascii")
    assert text.startswith("<!DOCTYPE html>\n")
    assert is_complete_html(body)
    structure = ["html", "head", "title", "body"]
    assert [tag for tag in _Strict(text).seen if tag in (*structure, "base")] == structure
    lines = [line for line in text.splitlines() if line.startswith("<a")]
    assert len(lines) == len(project.files)
    assert all(_ANCHOR.fullmatch(line) for line in lines)
    assert text.count('<meta name="pypi:repository-version" content="1.4">') == 1
    assert text.index("<meta charset") < 1024


def test_anchor() -> None:
    """Attributes as the specification writes them, both names of core metadata equal."""
    file = {
        "filename": "foo-1!1.0+cu.whl",
        "hashes": {"sha256": SHA, "md5": MD5},
        "yanked": True,
        "provenance": "https://index.example/p?a&b",
        "size": 3,
        "requires-python": ">=3,<4",
        "core-metadata": {"sha256": SHA},
        "gpg-sig": True,
        "upload-time": "2026-01-02T03:04:05Z",
    }
    assert in_html(file).splitlines()[-3] == (
        f'<a href="foo-1%211.0%2Bcu.whl#sha256={SHA}" data-requires-python="&gt;=3,&lt;4" '
        'data-provenance="https://index.example/p?a&amp;b" data-size="3" '
        'data-upload-time="2026-01-02T03:04:05Z" data-yanked="" '
        f'data-core-metadata="sha256={SHA}" data-dist-info-metadata="sha256={SHA}" '
        'data-gpg-sig="true">foo-1!1.0+cu.whl</a><br>'
    )


def test_links() -> None:
    """No file name can make its link absolute, add a query or escape the folder of the page."""
    for name in ("a:b.whl", "//host.example", "?x", "#x", "a%2Fb", "&lt;", "%", "\u2028é"):
        joined = urljoin(URL, in_json({"filename": name})["files"][0]["url"])
        assert joined.startswith(URL)
        assert "/" not in joined.removeprefix(URL)
        assert unquote(joined.removeprefix(URL)) == name


@pytest.mark.parametrize(
    ("hashes", "published", "fragment"),
    [
        ({"sha1": "a" * 40}, {"sha1": "a" * 40}, ""),
        ({"sha512": SHA512, "sha1": "a" * 40}, {"sha512": SHA512}, f"#sha512={SHA512}"),
        *(({"blake2b": SHA512}, {}, ""), ({"unknown": "a"}, {}, "")),
    ],
)
def test_digests(hashes: dict[str, str], published: dict[str, str], fragment: str) -> None:
    """uv drops an HTML page over sha1 in a link, pip a JSON page over an unknown name."""
    assert in_json({"hashes": hashes})["files"][0]["hashes"] == published
    assert f'<a href="f0{fragment}">f0</a><br>' in in_html({"hashes": hashes})


@pytest.mark.parametrize(
    ("stated", "published", "value"),
    [
        *((True, True, "true"), ({"sha256": SHA, "md5": MD5}, {"sha256": SHA}, f"sha256={SHA}")),
        *(({"sha1": "a" * 40}, {"sha1": "a" * 40}, "true"), ({"blake2b": SHA512}, True, "true")),
        *(({"sha256": "zz"}, True, "true"), ({"sha256": "a" * 63}, True, "true")),
        # That there is none is stated in JSON alone: in HTML any value means that there is.
        (False, False, None),
    ],
)
def test_core_metadata(stated: object, published: object, value: str | None) -> None:
    """Core metadata has one digest that every client understands, or else ``true``."""
    file = {"core-metadata": stated}
    assert in_json(file)["files"][0]["core-metadata"] == published
    attributes = value and f' data-core-metadata="{value}" data-dist-info-metadata="{value}"'
    assert f'<a href="f0"{attributes or ""}>f0</a><br>' in in_html(file)


def test_signatures() -> None:
    """One file with a statement about its signature puts one on every link."""
    assert "data-gpg-sig" not in in_html({}, {})
    text = in_html({}, {"gpg-sig": True})
    assert re.findall('data-gpg-sig="([a-z]+)"', text) == ["false", "true"]


def test_project_status() -> None:
    """Status and reason are metas of the HTML page (PEP 792), before its body."""
    status = {"status": "archived", "reason": 'see "<x>"'}
    head = in_html(**{"project-status": status}).partition("<body>")[0]
    assert '<meta name="pypi:project-status" content="archived">' in head
    assert '<meta name="pypi:project-status-reason" content="see &quot;&lt;x&gt;&quot;">' in head
    assert "project-status" not in in_html()


def test_escaping() -> None:
    """Characters that HTML5 forbids, even as references, do not make the page invalid."""
    for reason, written in {
        "a\r\nb\rc\nd\te": "a&#10;b&#10;c&#10;d&#9;e",
        "\x00\x1b\x7f\x85\ufdd0\uffff\U0010ffff": "&#65533;" * 7,
        "é\U0001f40d": "&#233;&#128013;",
        "'\"&<>": "&#x27;&quot;&amp;&lt;&gt;",
    }.items():
        assert f'data-yanked="{written}"' in in_html({"yanked": reason})


@deterministic
@given(st.lists(st.lists(normalized_names, max_size=3), max_size=4))
def test_list(pieces: list[list[str]]) -> None:
    """However the list is cut into pieces, it is one page with every name in order."""
    names = [name for piece in pieces for name in piece]
    assert json.loads(b"".join(render_list(pieces, Serialization.JSON))) == {
        "meta": {"api-version": JSON_VERSION},
        "projects": [{"name": name} for name in names],
    }
    text = b"".join(render_list(pieces, Serialization.HTML)).decode("ascii")
    assert re.findall('<a href="(.*)/">(.*)</a><br>\n', text) == [(name, name) for name in names]
    assert _Strict(text).seen.count("a") == len(names)
    assert '<meta name="pypi:repository-version" content="1.4">' in text
