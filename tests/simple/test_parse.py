"""Index pages, JSON and HTML: each rule of the specification, and what is no page."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.simple import parse
from proxpi.simple.model import Project, decode, encode
from proxpi.simple.parse import NotAnIndexPage, parse_project
from proxpi.simple.render import render_html, render_json
from tests.support.parsing import JSON_TYPE, SHA, URL, a_file, in_html, in_json
from tests.support.strategies import deterministic, json_values


def test_json() -> None:
    """Specified keys are kept, links are absolute, private keys are left out."""
    file = {
        "filename": "foo-1.0.whl",
        "requires-python": ">=3.8",
        "size": 10,
        "upload-time": "2026-01-02T03:04:05.678Z",
        "yanked": "broken",
        "gpg-sig": False,
        "core-metadata": {"sha256": SHA},
        "provenance": "https://index.example/p",
    }
    keys = {
        "versions": ["1.0"],
        "project-status": {"status": "archived", "reason": "done"},
        "future": {"a": [1]},
    }
    url = "https://index.example/files/foo-1.0.whl?sig=a%2Fb+c"
    stated = {
        "url": "../../files/foo-1.0.whl?sig=a%2Fb+c#sha256=abc",
        "hashes": {"SHA256": SHA.upper(), "md5": "b" * 32},
        "_private": 1,
        "future": [1, {"a": None}],
    }
    private = {"name": "Foo", "namespaces": [{}], "tracks": ["x"], "_x": 1}
    meta = {"api-version": "1.4", "_last-serial": 7, "tracks": [], "note": "x"}
    project = in_json({"meta": meta, "files": [file | stated], **private, **keys})
    file |= {"url": url, "hashes": {"sha256": SHA, "md5": "b" * 32}, "future": [1, {}]}
    assert project == Project("foo", [file], keys | {"meta": {"note": "x"}}, "1.4")


def test_html() -> None:
    """Each attribute of the specification becomes the key of the JSON form."""
    project = in_html(
        f"""<!DOCTYPE html><html><head>
        <meta name="pypi:repository-version" content="1.4">
        <meta name="pypi:project-status" content="deprecated">
        <meta name="pypi:project-status-reason" content="use &lt;bar&gt;">
        </head><body><!-- <a href="commented-1.0.whl">commented</a> -->
        <a href="../../files/foo-1.0%2Bcu.whl?x=1&amp;y=2#SHA256={SHA.upper()}" 
           data-requires-python="&gt;=3.8" data-yanked="broken &amp; old"
           data-core-metadata="sha256={SHA}" data-dist-info-metadata="true"
           data-gpg-sig="false" data-provenance="https://index.example/p">foo-1.0+cu.whl</a>
        </body></html>"""
    )
    file = {
        "filename": "foo-1.0+cu.whl",
        "url": "https://index.example/files/foo-1.0%2Bcu.whl?x=1&y=2",
        "hashes": {"sha256": SHA},
        "requires-python": ">=3.8",
        "yanked": "broken & old",
        "core-metadata": {"sha256": SHA},
        "gpg-sig": False,
        "provenance": "https://index.example/p",
    }
    status = {"status": "deprecated", "reason": "use <bar>"}
    assert project == Project("foo", [file], {"project-status": status}, "1.4")


TYPES = ("application/json", "text/html", "TEXT/HTML; charset=x", "image/png", ";;;", "", None)


@pytest.mark.parametrize(
    "content_type", [JSON_TYPE.upper(), f"{JSON_TYPE};a=b", JSON_TYPE[:-4] + "html", *TYPES]
)
def test_content_type(content_type: str | None) -> None:
    """The body decides whether a page is JSON or HTML, not its content type."""
    assert len(in_json({"files": [a_file()]}, content_type).files) == 1
    assert len(in_html("<a href=foo-1.0.zip>foo-1.0.zip</a>", content_type).files) == 1


def test_start() -> None:
    """A byte order mark and white space may come before a page."""
    for before in (b"\xef\xbb\xbf", b"\n \t", b"\xef\xbb\xbf\r\n"):
        for page in (b'{"files":[]} \n', b"<h1>Links for foo</h1>"):
            assert parse_project(before + page, None, URL, "foo").files == []


@pytest.mark.parametrize("before", [b"GIF89a\x01\x00", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n\x00"])
def test_binary_before_markup(before: bytes) -> None:
    """Text may come before the markup, but an image or an archive with a tag in it is no page."""
    for start in (b"Warning: x in y.php on line 1\n\n", b"\x1b[1m \xe9"):
        page = start + b"<h1>Links for foo</h1><a href=foo-1.0.zip>x</a>"
        assert len(parse_project(page, None, URL, "foo").files) == 1
        with pytest.raises(NotAnIndexPage, match="neither"):
            parse_project(before + page, None, URL, "foo")


@pytest.mark.parametrize(
    ("stated", "version"),
    [
        *(("1.0", "1.0"), ("1.99", "1.99"), ("0.9", "0.9"), ("1", "1.0"), ("banana", "1.0")),
        *(("2", "1.0"), ("\u0662.0", "1.0"), ("1." + "9" * 5000, "1.0"), ("", "1.0")),
    ],
)
def test_version(stated: str, version: str) -> None:
    """The stated version is kept; one that is absent or malformed is 1.0 (PEP 629)."""
    assert in_json({"meta": {"api-version": stated}, "files": []}).version == version
    page = f'<meta name="pypi:repository-version" content=" {stated} ">'
    assert in_html(page).version == version
    for meta in ({"api-version": 2.0}, {"api-version": "1.0\n"}, {}, None, "1.4"):
        assert in_json({"meta": meta, "files": []}).version == "1.0"


@pytest.mark.parametrize("version", ["2.0", "10.0", "9" * 5000 + ".0"])
def test_unknown_version(version: str) -> None:
    """An unknown major version, in the page or its content type, is refused."""
    major = version.partition(".")[0]
    media_type = f"application/vnd.pypi.simple.v{major}"
    for body, content_type in (
        (json.dumps({"meta": {"api-version": version}, "files": []}), JSON_TYPE),
        (f'<meta name="pypi:repository-version" content="{version}"><a href=f>f</a>', None),
        ('{"files": []}', f"{media_type}+json; x=y"),
        ("<h1>Links for foo</h1>", f"{media_type}+HTML"),
    ):
        with pytest.raises(NotAnIndexPage, match="speaks version") as caught:
            parse_project(body.encode(), content_type, URL, "foo")
        assert version[:20] in caught.value.reason


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b" \n", b"{", b'{"files": [{"filename": "foo-1.0.whl", "ur'),
        *(b'{"files": []} trailing', b'{"files": {}}', b'{"files": null}'),
        *(b'{"message": "not found"}', b'{"projects": []}', b"[]", b"null", b'"text"'),
        *(b"plain text", b"\x1f\x8b\x08\x00", b"\x00\xff", b'{"files": [{"filename": tru]}'),
        b'{"files": [{"filename": "a" "url": "a"}]}',
        b'{"files": [{"filename": "a", "url": "a",}]}',
        b'{"files": [{"filename": "a\x01", "url": "a"}]}',
        *(b'{"files": [{"filename": "\\q", "url": "a"}]}', b'{"files": [01]}'),
        *(b'{"files": [NaN]', b'{"files": [NaN, tru]}', b'{"files": ["\\ud800"]} trailing'),
        *(b'{"files": [], "x": {"files": NaN}', b'{"\xff": ', b'{"a":' * 100_000, b"[" * 100_000),
    ],
)
def test_not_a_page(body: bytes) -> None:
    """Empty, cut, foreign and malicious bodies are refused with a sentence and no URL."""
    with pytest.raises(NotAnIndexPage) as caught:
        parse_project(body, JSON_TYPE, URL, "foo")
    assert caught.value.reason == str(caught.value)
    assert caught.value.reason.endswith(".")
    assert "://" not in caught.value.reason


@pytest.mark.parametrize("body", [b'{"files": [%s]}' % (b"1," * 3_000_000), b"<a>" * 3_000_000])
def test_too_many_elements(body: bytes) -> None:
    """A page with more values or tags than any index has is refused before each is an object."""
    with pytest.raises(NotAnIndexPage, match="more than"):
        parse_project(body, None, URL, "foo")


def test_long_base() -> None:
    """A page whose links would each become very long is refused: it would fill the memory."""
    with pytest.raises(NotAnIndexPage, match="too long"):
        in_html(f"<base href='/{'a' * 5000}/'><a href=foo-1.0.whl>x</a>")


_GOOD = b'{"filename": "good.whl", "url": "good.whl", "hashes": {}, "size": 7}'


@pytest.mark.parametrize(
    "value",
    [
        *(b'"\\ud800"', b'"\\udc00\\ud800"', b'"\xff"', b'"\xed\xa0\x80"', b"NaN", b"-Infinity"),
        *(b"1e999", b'{"a": [1, NaN]}', b'{"\\ud800": 1}', b'{"\xff": 1}'),
    ],
)
@pytest.mark.parametrize("more", [b"", b'"other": NaN, '])
def test_odd_values(value: bytes, more: bytes) -> None:
    """Values that JSON, UTF-8 or numbers cannot express do not make a page fail."""
    odd = b'{"filename": "odd.whl", "url": "odd.whl", "yanked": %s}' % value
    page = b'{%s"odd": %s, "versions": ["1"], "meta": {"api-version": "1.3"}, "files": [%s]}'
    files = b",".join([odd, _GOOD, value])
    project = parse_project(page % (more, value, files), None, URL, "foo")
    good = {"filename": "good.whl", "url": URL + "good.whl", "hashes": {}, "size": 7}
    assert project == Project("foo", [good], {"versions": ["1"]}, "1.3")
    assert project.skipped.count == 2


def test_odd_key() -> None:
    """A key that cannot be written again is not passed on, and costs nothing else."""
    page = b'{"\\ud800": 1, "x": "\\ud83d\\udc0d", "files": [%s]}' % _GOOD
    project = parse_project(page, None, URL, "foo")
    assert project.keys == {"x": "\U0001f40d"}
    assert len(project.files) == 1


@pytest.mark.parametrize("other", [b'"x": 1', b'"x": NaN'])
def test_repeated_key(other: bytes) -> None:
    """A page with a key twice is read as everybody reads it, also where something is odd."""
    page = b'{"files": [], %s, "files": [%s], "files": [%s, %s]}' % (other, _GOOD, _GOOD, _GOOD)
    project = parse_project(page.replace(_GOOD, _GOOD.replace(b"good", b"late"), 1), None, URL, "x")
    assert [entry["filename"] for entry in project.files] == ["good.whl"]


def test_decoded_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call decodes more than a file: while one runs, the reactor's thread waits."""
    sizes = []

    class Recording:
        def decode(self, piece: msgspec.Raw) -> Any:
            sizes.append(len(memoryview(piece)))
            return msgspec.json.decode(piece)

    monkeypatch.setattr(parse, "_VALUE", Recording())
    assert len(in_json({"files": [a_file(filename=f"f{n}") for n in range(100)]}).files) == 100
    assert len(sizes) == 100
    assert max(sizes) < 100


TOP_LEVEL: dict[str, list[tuple[object, object]]] = {
    "versions": [
        *((["1.0", "2004d"], ["1.0", "2004d"]), ([], []), (["1.0", "1.0"], ["1.0"])),
        *(([1, 2.5, "3"], ["1", "2.5", "3"]), (["1.0", True], None), (["1.0", None], None)),
        *(("1.0", None), (None, None)),
    ],
    "project-status": [
        *(({"status": "quarantined"},) * 2, ({"status": "new", "x": 1},) * 2),
        *(({"status": "active", "reason": x}, {"status": "active"}) for x in (None, 7)),
        *(
            (each, None)
            for each in ({"reason": "x"}, {"status": 7}, {"status": ""}, "active", None)
        ),
    ],
    "meta": [
        ({"note": None, "_x": 1, "api-version": "1.0", "namespaces": [], "tracks": []}, None),
        ({"note": {"a": None}}, {"note": {}}),
    ],
    "future": [(None, None), (False, False)],
    **{key: [([], None)] for key in ("tracks", "namespaces", "alternate-locations")},
    **{key: [("x", None)] for key in ("_last-serial", "name")},
}


@pytest.mark.parametrize("key", TOP_LEVEL)
def test_top_level_values(key: str) -> None:
    """Top-level keys are kept where their value is of the right kind and meant for clients."""
    for value, kept in TOP_LEVEL[key]:
        keys = in_json({key: value, "files": []}).keys
        assert (value, keys.get(key)) == (value, kept)
        assert (key in keys) == (kept is not None)


def test_nesting() -> None:
    """An unknown value that is nested deeply is left out: it could exhaust a reader's stack."""
    shallow: Any = 1
    for _ in range(10):
        shallow = {"a": shallow}
    deep: Any = 1
    for _ in range(500):
        deep = [deep]
    page = {"shallow": shallow, "deep": deep, "files": [a_file(deep=deep, shallow=shallow)]}
    project = in_json(page)
    assert project.keys == {"shallow": shallow}
    assert project.files[0].keys() & {"deep", "shallow"} == {"shallow"}


@pytest.mark.parametrize(
    ("body", "content_type", "yanked"),
    [
        *(("é".encode(), f"text/html{end}", "é") for end in ("", "; charset=UTF-8")),
        # No charset of the web, or an unknown one: UTF-8.
        *(("é".encode(), f"text/html; charset={name}", "é") for name in ("banana", "base64")),
        *(
            ("é".encode(), f"text/html; charset={name}", "é")
            for name in ("undefined", "iso-8859-99")
        ),
        ("é".encode("latin-1"), "text/html; charset=iso-8859-1", "é"),
        *((b"\xe9", "text/html", "\ufffd"), (b"+2AA-", "text/html; charset=utf-7", "+2AA-")),
        (b"<meta charset='Latin-1'>\xe9", "text/html", "<meta charset='Latin-1'>é"),
        (b"<meta charset=latin-1>\xc3\xa9", "text/html; charset=utf-8", "<meta charset=latin-1>é"),
    ],
)
def test_charset(body: bytes, content_type: str, yanked: str) -> None:
    """The charset of the header counts, then the declared one, then UTF-8; no byte is fatal."""
    page = b'<h1>Links for foo</h1><a href=foo-1.0.whl data-yanked="%s">x</a>' % body
    (entry,) = parse_project(page, content_type, URL, "foo").files
    assert entry["yanked"] == yanked


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://files.example/x/", "https://files.example/x/foo-1.0.whl"),
        ("/p/", "https://index.example/p/foo-1.0.whl"),
        ("../bar/", "https://index.example/simple/bar/foo-1.0.whl"),
        ("//[bad/", URL + "foo-1.0.whl"),
    ],
)
def test_base(base: str, url: str) -> None:
    """The first base is joined to the page and links to it; one that is broken is ignored."""
    page = f'<a href="foo-1.0.whl">x</a><base href="{base}"><base href="/other/">'
    (entry,) = in_html(page).files
    assert entry["url"] == url


@pytest.mark.parametrize(
    "page",
    [
        '<meta name="pypi:repository-version" content="1.0"><p>text<input type=password>',
        "<title>Links for foo</title><h1>Links for foo</h1>",
        '<title>root/dev: Links for foo</title><form><input name="refresh" type="submit"></form>',
        "<title>Index of /simple/foo/</title><h1>Index of /simple/foo/</h1><a href='../'>../</a>",
        "<title>Directory listing for /foo/</title><hr><ul></ul>",
        *("<title>Simple Index</title><p>nothing here", "<title>FOO</title><h1>Foo</h1>"),
        *("<!DOCTYPE html><html><body>\n</body></html>", "<html></html>"),
    ],
)
def test_empty_listings(page: str) -> None:
    """A listing without files is a project without files."""
    assert in_html(page).files == []


@pytest.mark.parametrize(
    "anchor",
    [
        f"<a href='x#sha256={SHA}'>x</a>",
        "<a href='foo-1.0.zip'>download</a>",
        "<a href='Foo_-1.0-variants.json'>x</a>",
        "<a href='other-1.0.tar.gz'>other-1.0.tar.gz</a>",
    ],
)
def test_bare_listings(anchor: str) -> None:
    """A page that links to a distribution is a listing, however bare or adorned it is."""
    assert len(in_html(f"<p>Welcome<script>x</script>{anchor}").files) == 1


@pytest.mark.parametrize(
    "page",
    [
        "<h1>404 Not Found</h1>",
        "<html><head><title>502 Bad Gateway</title></head><body><center>502</center></body></html>",
        *("<html><body>Service unavailable</body></html>", "<html><body>Service unavailable"),
        "<title>Login</title><form action=/login><input name=u><input type=password></form>",
        "<title>foo</title><form><input type='password'></form>",
        "<title>Links for foo</title><iframe src=https://portal.example/></iframe>",
        "<meta http-equiv=refresh content='0; url=/login'>",
        "<script>location = '/portal'</script>",
        "<p>Accept the terms <a href='/accept'>here</a>",
        "<p>Install our certificate: <a href='/installer.exe'>click</a>",
        "<a href='/login'>login</a>",
        *("<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "<![foo[ bar ]]>"),
    ],
)
def test_not_a_listing(page: str) -> None:
    """Errors, logins and portals are not taken for projects without files."""
    with pytest.raises(NotAnIndexPage):
        in_html(page)


PIECES = st.sampled_from(
    [*("<a href=", "<a ", "</a>", ">", "<", '"', "'", "<!--", "-->", "<![CDATA[", "<!", "<?", "</")]
    + [*("/>", "foo-1.0.whl", "#sha256=ab", "data-yanked", "=", "<base href=", "//[", "http://")]
    + [*("&#", "&amp", ";", "<meta name=pypi:repository-version content=", "1.0", "[")]
    + [*("<script>", "&#xD800;", "<h1>Links for foo")]
)
BODIES = st.lists(PIECES, max_size=15).map(lambda pieces: "".join(pieces).encode())
CHARSETS = st.sampled_from(
    [*("latin-1", "gb18030", "big5", "utf-16", "utf-7", "idna", "hex", "unicode_escape", "\x00")]
)


@deterministic
@given(
    st.sampled_from([b"", b"<html>", b"<", b"{", b"<h1>Links for foo</h1><a href="]),
    BODIES | st.binary(max_size=60),
    st.none() | st.text(max_size=30) | CHARSETS.map("text/html; charset={}".format),
)
def test_any_bytes(start: bytes, noise: bytes, content_type: str | None) -> None:
    """Any body and charset gives files with links to the web, or a refusal."""
    try:
        project = parse_project(start + noise, content_type, URL, "foo")
    except NotAnIndexPage:
        return
    assert all(entry["url"].lower().startswith(("http://", "https://")) for entry in project.files)


@deterministic
@given(st.lists(json_values, max_size=3), json_values)
def test_lenient(files: list[Any], value: Any) -> None:
    """A page is read in the same way whether or not something odd stands on it."""
    files = [a_file(new=value, **{"requires-python": ">=3"}), *files]
    page = {"x": value, "versions": ["1"], "files": files}
    assert in_json({**page, "odd": float("nan")}) == in_json(page)


KEYS = st.sampled_from(
    ["filename", "url", "hashes", "size", "yanked", "upload-time", "core-metadata", "provenance"]
)
VALUES = json_values | st.sampled_from(["f.whl", "http://[x", "a://b"])
FILES = st.lists(json_values | st.dictionaries(KEYS, VALUES), max_size=4)
OTHERS = dict.fromkeys(["meta", "versions", "project-status", "x"], json_values)


@deterministic
@given(st.fixed_dictionaries({"files": FILES | json_values}, optional=OTHERS))
def test_any_json(page: object) -> None:
    """Any page is refused, or can be held as bytes and rendered."""
    try:
        project = in_json(page)
    except NotAnIndexPage:
        return
    assert decode(encode(project)) == project
    assert b'"files":' in render_json(project)
    assert render_html(project).isascii()
