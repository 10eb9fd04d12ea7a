"""Files of a page: names, links, digests and values, from JSON and from HTML."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxpi.simple import urls
from proxpi.simple.names import MAX_FILENAME
from proxpi.simple.parse import parse_project
from tests.support.parsing import SHA, URL, a_file, in_html, in_json, only_anchor, only_file
from tests.support.strategies import deterministic


@pytest.mark.parametrize(
    "odd",
    [
        *(None, "foo-1.0.whl", 7, [], {}, {"filename": "foo.whl"}, {"url": "foo.whl"}),
        *({"filename": name, "url": "foo.whl"} for name in (None, 7, "", ".", "..", "a/b", "../a")),
        *({"filename": name, "url": "foo.whl"} for name in ("a\\b", "a\0", "a\n", "\x7f", "\x85")),
        {"filename": "x" * (MAX_FILENAME + 1), "url": "foo.whl"},
        *({"filename": "foo.whl", "url": url} for url in (None, "", " ", "ftp://h.example/f.whl")),
        *({"filename": "foo.whl", "url": url} for url in ("file:///etc/passwd", "http:///f.whl")),
        *({"filename": "foo.whl", "url": url} for url in ("http://[bad/f", "http://a\\@b/f")),
        {"filename": "foo.whl", "url": "http://\u2488.example/foo.whl"},
    ],
)
def test_unusable_files(odd: object) -> None:
    """A file that cannot be used or must not be served is left out, and the others stay."""
    project = in_json({"files": [odd, a_file()]})
    assert [entry["filename"] for entry in project.files] == ["foo-1.0.whl"]


def test_names() -> None:
    """Unknown kinds, foreign and odd names are no reason to leave a file out."""
    for name in ("foo-1.0-variants.json", "other-1.0.tar.gz", "foo 1.0+cü.exe", "x"):
        assert only_file(filename=name)["filename"] == name


def test_repeated_names() -> None:
    """Of two files with one name the one with the better digest counts, whichever comes first."""
    sha, other, md5 = {"sha256": "a" * 64}, {"sha256": "b" * 64}, {"md5": "c" * 32}
    wrong = {"sha256": "a" * 63}
    for first, second, best in (
        *(({}, sha, 1), (sha, {}, 0), (md5, sha, 1), (sha, md5, 0), (wrong, md5, 1)),
        *((sha, other, 0), ({}, {}, 0)),
    ):
        files = [
            {"filename": "f.whl", "url": str(place), "hashes": hashes, f"key-{place}": place}
            for place, hashes in enumerate((first, second))
        ]
        (entry,) = in_json({"files": files}).files
        assert (entry["url"], entry["hashes"]) == (f"{URL}{best}", (first, second)[best])
        assert entry[f"key-{best}"] == best
    (entry,) = in_json({"files": [files[0] | {"yanked": "why"}, files[1] | {"hashes": sha}]}).files
    assert (entry["yanked"], entry["hashes"]) == ("why", sha)


def test_digests() -> None:
    """The fragment of a link adds to the digests beside it, and never replaces one."""
    link = f"f.whl#egg=f&sha256={'A' * 64}&md5={'b' * 32}"
    for stated, hashes in (({}, {"md5": "b" * 32}), ({"md5": "c" * 32}, {"md5": "c" * 32})):
        entry = only_file(url=link, hashes=stated)
        assert (entry["hashes"], entry["url"]) == ({"sha256": SHA} | hashes, f"{URL}f.whl")


def test_skipped() -> None:
    """Files and links that cannot be listed are counted; links that navigate are not."""
    files = [a_file(), a_file(filename="a", url="git+https://h.example/a"), 7, {"filename": "b"}]
    skipped = in_json({"files": files}).skipped
    assert (skipped.count, skipped.first) == (3, "git+https://h.example/a")
    assert in_json({"files": [7]}).skipped.first == "(int)"
    page = "<h1>Links for foo</h1><a href=../>..</a><a href='?C=N'>x</a><a href=#a>x</a><a>x</a>"
    assert in_html(page).skipped.count == 0
    page += "<a href=git+https://h.example/foo#egg=foo>x</a><a href=ftp://h.example/b.whl>x</a>"
    page += f"<a href=javascript:x>x</a><a href='https://h.example/#sha256={SHA}'>x</a>"
    skipped = in_html(page).skipped
    assert (skipped.count, skipped.first) == (4, "git+https://h.example/foo#egg=foo")


H = "https://h.example"


@pytest.mark.parametrize(
    ("link", "url", "filename"),
    [
        # A link that stays as it is behind the URL of the page.
        *((link, URL + link, "f.whl") for link in ("f.whl", "f.whl?a=b/c", "f.whl?a=1&copy=2")),
        *(("f%2Bcu", URL + "f%2Bcu", "f+cu"), ("f+cu", URL + "f+cu", "f+cu")),
        ("f%252B", URL + "f%252B", "f%2B"),
        # A link that is resolved or normalized.
        *(("./f.whl", URL + "f.whl", "f.whl"), ("\n f.whl ", URL + "f.whl", "f.whl")),
        *(("f-\t1.0\n", URL + "f-1.0", "f-1.0"), ("f.whl?a#x", URL + "f.whl?a", "f.whl")),
        *(("f 1.0", URL + "f%201.0", "f 1.0"), ("foö", URL + "fo%C3%B6", "foö")),
        *(("f&#45;1?a&amp;b", URL + "f-1?a&b", "f-1"), ("f?a&amp;reg=2", URL + "f?a&reg=2", "f")),
        *(("../../p/f.whl", "https://index.example/p/f.whl", "f.whl"),),
        *(("/p/f.whl", "https://index.example/p/f.whl", "f.whl"), ("//h.example/f", H + "/f", "f")),
        *(("..\\f.whl", "https://index.example/simple/f.whl", "f.whl"),),
        *(("HTTP://h.example:81/f", "HTTP://h.example:81/f", "f"),),
        *((H + "/a\\f.whl?b\\c", H + "/a/f.whl?b\\c", "f.whl"),),
        ("https://Bücher.example/a.whl", "https://xn--bcher-kva.example/a.whl", "a.whl"),
        ("//u:pß@faß.example:81/a.whl", "https://xn--fa-hia.example:81/a.whl", "a.whl"),
        # Credentials are not kept; the rest is, to the letter.
        ("https://us%40er:secret@h.example/a/f?sig=a%2Fb@c#x", H + "/a/f?sig=a%2Fb@c", "f"),
        ("//user:secret@h.example/f", H + "/f", "f"),
    ],
)
def test_links(link: str, url: str, filename: str) -> None:
    """Every kind of link is joined to the page, and its last segment names the file."""
    entry = only_anchor(f'<a href="{link}">x</a>')
    assert (entry["url"], entry["filename"]) == (url, filename)


LINKS = st.one_of(
    st.lists(
        st.sampled_from(
            [*("https://", "http://h.example", "HTTPS://", "//", "/", "../", "./", "..", "a/", "?")]
            + [*("f-1.0.whl", "%2B", "+", ":", "@", ":80", ":99999", ";", "=", "#", "&", "~", " ")]
            + [*("\n", "\\", "é", ".", '"', "[", "|")]
        ),
        max_size=6,
    ).map("".join),
    st.text(max_size=6),
)


@deterministic
@given(LINKS, st.sampled_from([URL, "https://h.example/a/../b?c#d", "http://h.example:81"]))
@example("a/../f-1.0.whl", URL)
@example("../a//f-1.0.whl", URL)
@example("./a/./..", URL)
@example("#", URL)
def test_joined(link: str, base: str) -> None:
    """The shortest way to the URL of a file gives the same as the long one."""
    try:
        url = urls.without_fragment(urls.join(base, link))
        urls.origin(url)
    except ValueError:
        url = ""
    page = json.dumps({"files": [{"filename": "f", "url": link}]}).encode()
    expected = [url] if url.isascii() and url and link.partition("#")[0].strip() else []
    assert [entry["url"] for entry in parse_project(page, None, base, "foo").files] == expected


@pytest.mark.parametrize(
    "href",
    [
        *("", "#top", "../", "..", "?C=N;O=D", "sub/", "https://h.example", "mailto:a@h.example"),
        *("javascript:foo-1.0.whl", "ftp://h.example/f.whl", "http://[bad/f.whl", "//[bad/f.whl"),
        *("https://\u2488.example/f.whl", f"https://{'é' * 300}/f.whl", "a%2Fb.whl", "a%5Cb.whl"),
        *("a%00.whl", "%2e%2e"),
    ],
)
def test_other_anchors(href: str) -> None:
    """Links without a name, to elsewhere than the web, or with an unsafe name are left out."""
    assert in_html(f"<h1>Links for foo</h1><a href='{href}'>x</a>").files == []
    assert in_html("<h1>Links for foo</h1><a>foo-1.0.whl</a><a href>foo-1.0.whl</a>").files == []


@pytest.mark.parametrize(
    ("attributes", "key", "kept"),
    [
        *(("data-yanked", "yanked", True), ('data-yanked=""', "yanked", True)),
        *(('data-yanked="&quot;why&quot;"', "yanked", '"why"'), ("", "yanked", None)),
        *((f"data-core-metadata{value}", "core-metadata", True) for value in ("", '=""', "=true")),
        *((f"data-dist-info-metadata{v}", "core-metadata", True) for v in ("", "=yes", "=sha256=")),
        *((f"data-core-metadata={v}", "core-metadata", False) for v in ("FALSE", "'false '")),
        (f"data-core-metadata='egg=x&amp;SHA256={SHA}'", "core-metadata", {"sha256": SHA}),
        (f"data-dist-info-metadata=' sha256={SHA} '", "core-metadata", {"sha256": SHA}),
        ("data-dist-info-metadata=true data-core-metadata=false", "core-metadata", False),
        *(("data-size=123", "size", 123), ("data-size", "size", None)),
        ("data-upload-time=2026-01-02T03:04:05Z", "upload-time", "2026-01-02T03:04:05Z"),
        *(("data-upload-time", "upload-time", None), ("data-provenance", "provenance", None)),
        *(("data-gpg-sig=true", "gpg-sig", True), ("data-gpg-sig", "gpg-sig", None)),
        ("data-provenance=https://index.example/p", "provenance", "https://index.example/p"),
        ("data-requires-python=&gt;=3", "requires-python", ">=3"),
        ('data-requires-python=">=3,<4"', "requires-python", ">=3,<4"),
        ("data-requires-python", "requires-python", None),
    ],
)
def test_attributes(attributes: str, key: str, kept: object) -> None:
    """Each attribute is understood with and without a value; what is not stated is not there."""
    entry: dict[str, Any] = only_anchor(f"<a href=foo-1.0.whl {attributes}>x</a>")
    assert entry.get(key) == kept
    assert (key in entry) == (kept is not None)


@pytest.mark.parametrize(
    ("fragment", "hashes"),
    [
        *((f"sha256={SHA}", {"sha256": SHA}), (f"sha256={SHA}&egg=foo", {"sha256": SHA})),
        *((f"egg=foo&amp;sha256={SHA}", {"sha256": SHA}), (f"sha256%3D{SHA}", {"sha256": SHA})),
        (f"egg%3Dfoo%26SHA256%3d{SHA.upper()}", {"sha256": SHA}),
        (f"subdirectory=a;sha256={SHA};x", {"sha256": SHA}),
        (f"md5={SHA[:32]}&sha256={SHA}", {"md5": SHA[:32], "sha256": SHA}),
        (f"sha256=ab&sha256={SHA}&sha256={'b' * 64}", {"sha256": SHA}),
        (f"sha256=&sha512={SHA}{SHA}", {"sha512": SHA + SHA}),
        *(("egg=deadbeef&subdirectory=abc", {}), ("md5=AB", {"md5": "ab"}), ("egg=foo", {})),
        *(("top", {}), ("sha256=", {}), ("", {})),
    ],
)
def test_fragments(fragment: str, hashes: dict[str, str]) -> None:
    """The fragment is a digest where it has the form of one, and never part of the URL."""
    entry = only_anchor(f'<a href="foo-1.0.whl#{fragment}">x</a>')
    assert (entry["hashes"], entry["url"]) == (hashes, URL + "foo-1.0.whl")


DAY = "2026-01-02T"
VALUES: dict[str, tuple[tuple[object, object], ...]] = {
    "hashes": (
        *((None, {}), ("sha256", {}), ({"SHA256": "AB", "md5": None, "x": 7}, {"sha256": "ab"})),
        *(({"new": "Ab"}, {"new": "ab"}), ({"sha256": " AB\n"}, {"sha256": "ab"})),
        ("SHA256=AB", {"sha256": "ab"}),
    ),
    "requires-python": ((">=3.6.*", ">=3.6.*"), ("", None), (3, None), (None, None)),
    "yanked": (
        *((True, True), ("why", "why"), ("", None), (False, None), (None, None), (1, "1")),
        *((0, None), ([], None), ({}, None), (2.5, "2.5"), (["a", 1], '["a",1]')),
        ({"reason": "é"}, '{"reason":"é"}'),
    ),
    "size": (
        *((0, 0), (2**70, 2**70), (-1, None), (True, None), (123.0, 123), (1.5, None)),
        *((-1.0, None), (1e300, None), ("123", 123), (" 123 ", 123), ("-1", None)),
        *(("12 KB", None), ("9" * 5000, None), ("\u0663", None), (None, None)),
    ),
    "upload-time": (
        *((f"{DAY}03:04:05Z", f"{DAY}03:04:05Z"), (f"{DAY}03:04:05.1Z", f"{DAY}03:04:05.1Z")),
        (f"{DAY}03:04:05.123456+00:00", f"{DAY}03:04:05.123456Z"),
        (f"{DAY}03:04:05.123456789+02:00", f"{DAY}01:04:05.123456Z"),
        *((f"{DAY}03:04:05,5Z", f"{DAY}03:04:05.500000Z"), (f"{DAY}03:04Z", f"{DAY}03:04:00Z")),
        *(("2026-01-02t03:04:05z", f"{DAY}03:04:05Z"), (f"{DAY}03:04:05Z\n", f"{DAY}03:04:05Z")),
        (f"{DAY}03:04:05-0530", f"{DAY}08:34:05Z"),
        ("2026-01-01T00:30:00+01", "2025-12-31T23:30:00Z"),
        ("2024-02-29T23:59:59.9-23:59", "2024-03-01T23:58:59.900000Z"),
        ("2026-01-02 03:04:05.25 UTC", f"{DAY}03:04:05.250000Z"),
        ("2026-01-02 03:04:05.1 +00:00", f"{DAY}03:04:05.100000Z"),
        ("2016-05-31T20:55:51.332990Z", "2016-05-31T20:55:51.332990Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        *(("0001-01-01T00:00:00+01:00", None), ("9999-12-31T23:59:59-01:00", None)),
        *((f"{DAY}03:04:05+25:00", None), (f"{DAY}03:04:05", None), ("2026-01-02", None)),
        *(("2026-13-02T03:04:05Z", None), ("2026-02-30T03:04:05Z", None), ("yesterday", None)),
        *((f"{DAY}24:00:00Z", None), ("\u0662026-01-02T03:04:05Z", None), (1767323045, None)),
    ),
    "provenance": (
        ("https://index.example/p", "https://index.example/p"),
        *(("http://index.example/p", None), ("/p", None), ("https:///p", None)),
        *(("https://user:secret@index.example/p", None), (None, None), (7, None)),
    ),
    "gpg-sig": ((True, True), (False, False), ("True", True), ("false", False), ("yes", None)),
    "core-metadata": (
        *((True, True), (False, False), ({"SHA256": "AB"}, {"sha256": "ab"}), ({}, False)),
        *(({"sha256": None}, None), ("true", True), ("False", False), (None, None)),
        *(("sha256=AB", {"sha256": "ab"}), ("banana", True), ("", True), (1, True), (0, False)),
    ),
    "future": (({"a": None, "b": [None, {"c": None}]}, {"b": [None, {}]}),),
    "_private": ((1, None),),
}


@pytest.mark.parametrize("key", VALUES)
def test_values(key: str) -> None:
    """A key is kept, in the form of the specification, if its value is valid; else it is absent."""
    for value, kept in VALUES[key]:
        entry = only_file(**{key: value})
        assert (value, entry.get(key)) == (value, kept)
        assert (key in entry) == (kept is not None)
        assert type(entry.get(key)) is type(kept)


def test_core_metadata_keys() -> None:
    """Of three spellings the newest that says something counts, and only one is left."""
    core, dist, data = "core-metadata", "dist-info-metadata", "data-dist-info-metadata"
    digest = {"sha256": "ab"}
    cases: tuple[tuple[dict[str, Any], object], ...] = (
        *(({dist: True}, True), ({data: digest}, digest), ({dist: False, core: True}, True)),
        *(({data: False, dist: digest}, digest), ({core: False, dist: True}, False)),
        *(({core: None, dist: True}, True), ({core: "x", data: True}, True)),
    )
    for keys, expected in cases:
        entry = only_file(**keys)
        assert (keys, entry[core]) == (keys, expected)
        assert not {dist, data} & entry.keys()
