"""HTML pages: listings as servers write them, and pages that are none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxpi.simple.model import FileEntry, Project
from proxpi.simple.parse import (
    NotAnIndexPage,
    parse_project,
)
from tests.support.strategies import deterministic

URL = "https://index.example/simple/foo/"
SHA = "a" * 64


def _parse(text: str, content_type: str | None = "text/html", url: str = URL) -> Project:
    return parse_project(text.encode(), content_type, url, "foo")


def _only(anchor: str) -> FileEntry:
    (entry,) = _parse(f"<h1>Links for foo</h1>{anchor}").files
    return entry


def test_a_page_with_everything() -> None:
    """Each attribute of the specification becomes the key of the JSON form."""
    project = _parse(
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
    assert project == Project(
        "foo",
        [
            {
                "filename": "foo-1.0+cu.whl",
                "url": "https://index.example/files/foo-1.0%2Bcu.whl?x=1&y=2",
                "hashes": {"sha256": SHA},
                "requires-python": ">=3.8",
                "yanked": "broken & old",
                "core-metadata": {"sha256": SHA},
                "gpg-sig": False,
                "provenance": "https://index.example/p",
            }
        ],
        {"project-status": {"status": "deprecated", "reason": "use <bar>"}},
        "1.4",
    )


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/html",
        "TEXT/HTML;charset=x",
        "application/vnd.pypi.simple.v1+html",
        "application/json",
    ],
)
def test_the_body_decides(content_type: str | None) -> None:
    """HTML is read as HTML whatever its content type is."""
    assert len(_parse("<a href=foo-1.0.zip>foo-1.0.zip</a>", content_type).files) == 1


@pytest.mark.parametrize(
    ("link", "url", "filename"),
    [
        ("foo-1.0.whl", URL + "foo-1.0.whl", "foo-1.0.whl"),
        ("./foo-1.0.whl", URL + "foo-1.0.whl", "foo-1.0.whl"),
        ("../../p/foo-1.0.whl", "https://index.example/p/foo-1.0.whl", "foo-1.0.whl"),
        ("/p/foo-1.0.whl", "https://index.example/p/foo-1.0.whl", "foo-1.0.whl"),
        ("//files.example/foo-1.0.whl", "https://files.example/foo-1.0.whl", "foo-1.0.whl"),
        (
            "HTTP://files.example:81/foo-1.0.whl",
            "HTTP://files.example:81/foo-1.0.whl",
            "foo-1.0.whl",
        ),
        ("foo-1.0%2Bcu.whl", URL + "foo-1.0%2Bcu.whl", "foo-1.0+cu.whl"),
        ("foo-1.0+cu.whl", URL + "foo-1.0+cu.whl", "foo-1.0+cu.whl"),
        ("foo-1.0%252B.whl", URL + "foo-1.0%252B.whl", "foo-1.0%2B.whl"),
        ("foo 1.0.whl", URL + "foo%201.0.whl", "foo 1.0.whl"),
        ("foö.whl", URL + "fo%C3%B6.whl", "foö.whl"),
        ("\n foo-1.0.whl ", URL + "foo-1.0.whl", "foo-1.0.whl"),
        ("foo-1.0.whl?a=b/c#x", URL + "foo-1.0.whl?a=b/c", "foo-1.0.whl"),
        ("foo&#45;1.0.whl?a&amp;b", URL + "foo-1.0.whl?a&b", "foo-1.0.whl"),
        ("foo-1.0.whl?a=1&copy=2", URL + "foo-1.0.whl?a=1&copy=2", "foo-1.0.whl"),
        ("foo-1.0.whl?a=1&amp;reg=2", URL + "foo-1.0.whl?a=1&reg=2", "foo-1.0.whl"),
        ("foo-\t1.0\n.whl", URL + "foo-1.0.whl", "foo-1.0.whl"),
        ("..\\foo-1.0.whl", "https://index.example/simple/foo-1.0.whl", "foo-1.0.whl"),
        ("https://h.example/a\\foo.whl?b\\c", "https://h.example/a/foo.whl?b\\c", "foo.whl"),
        ("https://Bücher.example/a.whl", "https://xn--bcher-kva.example/a.whl", "a.whl"),
        ("//u:pß@faß.example:81/a.whl", "https://xn--fa-hia.example:81/a.whl", "a.whl"),
    ],
)
def test_links(link: str, url: str, filename: str) -> None:
    """Every kind of link is joined to the page, and its last segment names the file."""
    entry = _only(f'<a href="{link}">x</a>')
    assert (entry["url"], entry["filename"]) == (url, filename)


@pytest.mark.parametrize(
    "anchor",
    [
        "<a>foo-1.0.whl</a>",
        "<a href>foo-1.0.whl</a>",
        '<a href="">x</a>',
        '<a href="#top">x</a>',
        '<a href="../">Parent</a>',
        '<a href="..">Parent</a>',
        '<a href="?C=N;O=D">Name</a>',
        '<a href="sub/">sub/</a>',
        '<a href="https://files.example">x</a>',
        '<a href="mailto:someone@host.example">x</a>',
        '<a href="javascript:foo-1.0.whl">x</a>',
        '<a href="ftp://files.example/foo-1.0.whl">x</a>',
        '<a href="http://[bad/foo-1.0.whl">x</a>',
        '<a href="//[bad/foo-1.0.whl">x</a>',
        '<a href="https://\u2488.example/foo-1.0.whl">x</a>',
        f'<a href="https://{"é" * 300}/foo-1.0.whl">x</a>',
        '<a href="a%2Fb.whl">x</a>',
        '<a href="a%5Cb.whl">x</a>',
        '<a href="a%00.whl">x</a>',
        '<a href="%2e%2e">x</a>',
    ],
)
def test_anchors_that_are_no_files(anchor: str) -> None:
    """Links without a name, to elsewhere than the web, or with an unsafe name are left out."""
    assert _parse(f"<h1>Links for foo</h1>{anchor}").files == []


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
    (entry,) = _parse(page).files
    assert entry["url"] == url


@pytest.mark.parametrize(
    ("attributes", "key", "kept"),
    [
        ("data-yanked", "yanked", True),
        ('data-yanked=""', "yanked", True),
        ('data-yanked="&quot;why&quot;"', "yanked", '"why"'),
        ("", "yanked", None),
        ("data-core-metadata=true", "core-metadata", True),
        ("data-core-metadata=FALSE", "core-metadata", False),
        (f'data-core-metadata=" sha256={SHA} "', "core-metadata", {"sha256": SHA}),
        ("data-core-metadata", "core-metadata", True),
        ('data-core-metadata=""', "core-metadata", True),
        ("data-dist-info-metadata", "core-metadata", True),
        ("data-core-metadata=banana", "core-metadata", True),
        ("data-dist-info-metadata=yes", "core-metadata", True),
        ("data-dist-info-metadata=sha256=", "core-metadata", True),
        (f"data-core-metadata='egg=x&amp;SHA256={SHA}'", "core-metadata", {"sha256": SHA}),
        (f"data-dist-info-metadata=sha256={SHA}", "core-metadata", {"sha256": SHA}),
        ("data-dist-info-metadata=true data-core-metadata=false", "core-metadata", False),
        ("data-size=123", "size", 123),
        ("data-size", "size", None),
        ("data-size=big", "size", None),
        ("data-upload-time=2026-01-02T03:04:05Z", "upload-time", "2026-01-02T03:04:05Z"),
        ("data-upload-time=2026-01-02T03:04:05+01:00", "upload-time", "2026-01-02T02:04:05Z"),
        ("data-upload-time=yesterday", "upload-time", None),
        ("data-gpg-sig=true", "gpg-sig", True),
        ("data-gpg-sig", "gpg-sig", None),
        ("data-gpg-sig=md5=ab", "gpg-sig", None),
        ("data-provenance=https://index.example/p", "provenance", "https://index.example/p"),
        ("data-provenance=http://index.example/p", "provenance", None),
        ("data-requires-python=&gt;=3", "requires-python", ">=3"),
        ('data-requires-python=">=3,<4"', "requires-python", ">=3,<4"),
        ("data-requires-python", "requires-python", None),
    ],
)
def test_attributes(attributes: str, key: str, kept: object) -> None:
    """Each attribute is understood with and without a value; what is not stated is not there."""
    entry: dict[str, Any] = _only(f"<a href=foo-1.0.whl {attributes}>x</a>")
    assert entry.get(key) == kept
    assert (key in entry) == (kept is not None)


@pytest.mark.parametrize(
    ("fragment", "hashes"),
    [
        (f"sha256={SHA}", {"sha256": SHA}),
        (f"sha256={SHA}&egg=foo", {"sha256": SHA}),
        (f"egg=foo&sha256={SHA}", {"sha256": SHA}),
        (f"egg=foo&amp;sha256={SHA}", {"sha256": SHA}),
        (f"sha256%3D{SHA}", {"sha256": SHA}),
        (f"egg%3Dfoo%26SHA256%3d{SHA.upper()}", {"sha256": SHA}),
        (f"subdirectory=a;sha256={SHA};x", {"sha256": SHA}),
        (f"md5={SHA[:32]}&sha256={SHA}", {"md5": SHA[:32], "sha256": SHA}),
        (f"sha256=ab&sha256={SHA}&sha256={'b' * 64}", {"sha256": SHA}),
        (f"sha256=&sha512={SHA}{SHA}", {"sha512": SHA + SHA}),
        ("egg=deadbeef&subdirectory=abc", {}),
        ("md5=AB", {"md5": "ab"}),
        ("egg=foo", {}),
        ("top", {}),
        ("sha256=", {}),
        ("", {}),
    ],
)
def test_digest_in_the_link(fragment: str, hashes: dict[str, str]) -> None:
    """The fragment is a digest where it has the form of one, and never part of the URL."""
    entry = _only(f'<a href="foo-1.0.whl#{fragment}">x</a>')
    assert (entry["hashes"], entry["url"]) == (hashes, URL + "foo-1.0.whl")


@pytest.mark.parametrize("before", [b"GIF89a\x01\x00", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n\x00"])
def test_binary_before_markup(before: bytes) -> None:
    """Text may come before the markup, but an image or an archive with a tag in it is no page."""
    for start in (b"Warning: x in y.php on line 1\n\n", b"\x1b[1m \xe9"):
        page = start + b"<h1>Links for foo</h1><a href=foo-1.0.zip>x</a>"
        assert len(parse_project(page, None, URL, "foo").files) == 1
        with pytest.raises(NotAnIndexPage, match="neither"):
            parse_project(before + page, None, URL, "foo")


@pytest.mark.parametrize("body", [b'{"files": [%s]}' % (b"1," * 3_000_000), b"<a>" * 3_000_000])
def test_too_many_elements(body: bytes) -> None:
    """A page with more values or tags than any index has is refused before each is an object."""
    with pytest.raises(NotAnIndexPage, match="more than"):
        parse_project(body, None, URL, "foo")


def test_a_base_that_is_too_long() -> None:
    """A page whose links would each become very long is refused: it would fill the memory."""
    with pytest.raises(NotAnIndexPage, match="too long"):
        _parse(f"<base href='/{'a' * 5000}/'><a href=foo-1.0.whl>x</a>")


def test_the_better_digest_wins() -> None:
    """A file that stands on the page twice, first without a digest, has the digest."""
    page = f"<a href=foo-1.0.whl>x</a><a href='b/foo-1.0.whl#sha256={SHA}'>x</a>"
    (entry,) = _parse(page).files
    assert (entry["url"], entry["hashes"]) == (f"{URL}b/foo-1.0.whl", {"sha256": SHA})


def test_what_cannot_be_listed_is_counted() -> None:
    """Links that lead to no file are counted, those that only navigate are not."""
    page = "<h1>Links for foo</h1><a href=../>..</a><a href='?C=N'>x</a><a href=#a>x</a><a>x</a>"
    assert _parse(page).skipped.count == 0
    page += "<a href=git+https://h.example/foo#egg=foo>x</a><a href=ftp://h.example/b.whl>x</a>"
    page += f"<a href=javascript:x>x</a><a href='https://h.example/#sha256={SHA}'>x</a>"
    skipped = _parse(page).skipped
    assert (skipped.count, skipped.first) == (4, "git+https://h.example/foo#egg=foo")


@pytest.mark.parametrize(
    ("body", "content_type", "yanked"),
    [
        ("é".encode(), "text/html", "é"),
        ("é".encode(), "text/html; charset=UTF-8", "é"),
        ("é".encode("latin-1"), "text/html; charset=iso-8859-1", "é"),
        ("é".encode("latin-1"), "text/html", "\ufffd"),
        ("é".encode(), "text/html; charset=banana", "é"),
        ("é".encode(), "text/html; charset=base64", "é"),
        ("é".encode(), "text/html; charset=undefined", "é"),
        ("é".encode(), "text/html; charset=iso-8859-99", "é"),
        (b"+2AA-", "text/html; charset=utf-7", "+2AA-"),
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
    ("content", "expected"),
    [("1.0", "1.0"), (" 1.1 ", "1.1"), ("1.99", "1.99"), ("banana", "1.0"), ("", "1.0")],
)
def test_version(content: str, expected: str) -> None:
    """The stated version is kept; one that is absent or malformed is 1.0."""
    assert _parse(f'<meta name="pypi:repository-version" content="{content}">').version == expected


def test_a_new_major_version_is_refused() -> None:
    """A page of a major version that is not known may mean anything (PEP 629)."""
    with pytest.raises(NotAnIndexPage, match="speaks version"):
        _parse('<meta name="pypi:repository-version" content="2.0"><a href=foo-1.0.whl>x</a>')


@pytest.mark.parametrize(
    "page",
    [
        '<meta name="pypi:repository-version" content="1.0"><p>whatever<input type=password>',
        "<title>Links for foo</title><h1>Links for foo</h1>",
        '<title>root/dev: Links for foo</title><form><input name="refresh" type="submit"></form>',
        "<title>Index of /simple/foo/</title><h1>Index of /simple/foo/</h1><a href='../'>../</a>",
        "<title>Directory listing for /foo/</title><hr><ul></ul>",
        "<title>Simple Index</title><p>nothing here",
        "<title>FOO</title><h1>Foo</h1>",
        "<!DOCTYPE html><html><body>\n</body></html>",
        "<html></html>",
    ],
)
def test_empty_listings(page: str) -> None:
    """A listing without files is a project without files."""
    assert _parse(page).files == []


@pytest.mark.parametrize(
    "anchor",
    [
        f"<a href='x#sha256={SHA}'>x</a>",
        "<a href='foo-1.0.zip'>download</a>",
        "<a href='Foo_-1.0-variants.json'>x</a>",
        "<a href='other-1.0.tar.gz'>other-1.0.tar.gz</a>",
    ],
)
def test_a_distribution_makes_a_listing(anchor: str) -> None:
    """A page that links to a distribution is a listing, however bare or adorned it is."""
    assert len(_parse(f"<p>Welcome<script>x</script>{anchor}").files) == 1


@pytest.mark.parametrize(
    "page",
    [
        "<h1>404 Not Found</h1>",
        "<html><head><title>502 Bad Gateway</title></head><body><center>502</center></body></html>",
        "<html><body>Service unavailable</body></html>",
        "<html><body>Service unavailable",
        "<title>Login</title><form action=/login><input name=u><input type=password></form>",
        "<title>foo</title><form><input type='password'></form>",
        "<title>Links for foo</title><iframe src=https://portal.example/></iframe>",
        "<meta http-equiv=refresh content='0; url=/login'>",
        "<script>location = '/portal'</script>",
        "<p>Accept the terms <a href='/accept'>here</a>",
        "<p>Install our certificate: <a href='/installer.exe'>click</a>",
        "<a href='/login'>login</a>",
        "<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
        "<![foo[ bar ]]>",
    ],
)
def test_pages_that_are_no_listings(page: str) -> None:
    """Errors, logins and portals are not taken for projects without files."""
    with pytest.raises(NotAnIndexPage):
        _parse(page)


@pytest.mark.parametrize(
    "charset",
    [
        "gb18030",
        "big5",
        "utf-16",
        "utf-7",
        "idna",
        "punycode",
        "hex",
        "unicode_escape",
        "\x00",
        "x" * 300,
    ],
)
@deterministic
@given(st.binary(max_size=20))
def test_no_charset_is_fatal(charset: str, noise: bytes) -> None:
    """Whatever codec a header names, the page is read or refused."""
    try:
        project = parse_project(
            b"<h1>Links for foo</h1><a href=" + noise, f"text/html; charset={charset}", URL, "foo"
        )
    except NotAnIndexPage:
        return
    assert project.name == "foo"


_PIECES = st.sampled_from(
    [
        *(
            "<a href=",
            "<a ",
            "</a>",
            ">",
            "<",
            '"',
            "'",
            "<!--",
            "-->",
            "<![CDATA[",
            "<!",
            "<?",
            "</",
            "/>",
        ),
        *(
            "foo-1.0.whl",
            "#sha256=ab",
            "data-yanked",
            "=",
            "<base href=",
            "//[",
            "http://",
            "&#",
            "&amp",
            ";",
        ),
        *(
            "<meta name=pypi:repository-version content=",
            "1.0",
            "<h1>Links for foo",
            "<script>",
            "&#xD800;",
        ),
    ]
)


@deterministic
@given(
    st.lists(_PIECES, max_size=15),
    st.sampled_from([None, "text/html", "text/html; charset=latin-1"]),
)
@example(["<!", "["], None)
def test_broken_markup_is_survived(pieces: list[str], content_type: str | None) -> None:
    """Markup in any disorder gives files with links to the web, or a refusal."""
    try:
        project = _parse("<html>" + "".join(pieces), content_type)
    except NotAnIndexPage:
        return
    assert all(entry["url"].lower().startswith(("http://", "https://")) for entry in project.files)


@deterministic
@given(
    st.one_of(
        st.binary(max_size=60),
        st.binary(max_size=60).map(b"<".__add__),
        st.binary(max_size=60).map(b"{".__add__),
    ),
    st.one_of(st.none(), st.text(max_size=30), st.just("text/html; charset=utf-16")),
)
def test_any_bytes_are_survived(body: bytes, content_type: str | None) -> None:
    """No body and no content type raises anything but the refusal."""
    try:
        project = parse_project(body, content_type, URL, "foo")
    except NotAnIndexPage:
        return
    assert project.name == "foo"
