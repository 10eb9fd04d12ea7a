"""JSON pages: each rule of the specification, and each way in which a page can be wrong."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxpi.simple import parse, urls
from proxpi.simple.model import FileEntry, Project, decode, encode
from proxpi.simple.parse import NotAnIndexPage, parse_project
from proxpi.simple.render import render_html, render_json
from tests.support.strategies import deterministic, json_values

URL = "https://index.example/simple/foo/"
JSON_TYPE = "application/vnd.pypi.simple.v1+json"
SHA = "a" * 64


def _parse(page: object, content_type: str | None = JSON_TYPE) -> Project:
    return parse_project(json.dumps(page).encode(), content_type, URL, "foo")


def _file(**keys: Any) -> dict[str, Any]:
    return {"filename": "foo-1.0.whl", "url": "foo-1.0.whl", "hashes": {}, **keys}


def _only(**keys: Any) -> FileEntry:
    (entry,) = _parse({"files": [_file(**keys)]}).files
    return entry


def test_a_page_with_everything() -> None:
    """What the specification has is kept, links are absolute, what is private is not there."""
    project = _parse(
        {
            "meta": {"api-version": "1.4", "_last-serial": 7, "tracks": [], "note": "x"},
            "name": "Foo",
            "versions": ["1.0"],
            "project-status": {"status": "archived", "reason": "done"},
            "namespaces": [{"name": "foo"}],
            "tracks": ["https://other.example/"],
            "alternate-locations": [],
            "_private": 1,
            "future": {"a": [1]},
            "files": [
                {
                    "filename": "foo-1.0.whl",
                    "url": "../../files/foo-1.0.whl?sig=a%2Fb+c#sha256=abc",
                    "hashes": {"SHA256": SHA.upper(), "md5": "b" * 32},
                    "requires-python": ">=3.8",
                    "size": 10,
                    "upload-time": "2026-01-02T03:04:05.678Z",
                    "yanked": "broken",
                    "gpg-sig": False,
                    "core-metadata": {"sha256": SHA},
                    "provenance": "https://index.example/p",
                    "_private": 1,
                    "future": [1, {"a": None}],
                }
            ],
        }
    )
    assert project == Project(
        "foo",
        [
            {
                "filename": "foo-1.0.whl",
                "url": "https://index.example/files/foo-1.0.whl?sig=a%2Fb+c",
                "hashes": {"sha256": SHA, "md5": "b" * 32},
                "requires-python": ">=3.8",
                "size": 10,
                "upload-time": "2026-01-02T03:04:05.678Z",
                "yanked": "broken",
                "gpg-sig": False,
                "core-metadata": {"sha256": SHA},
                "provenance": "https://index.example/p",
                "future": [1, {}],
            }
        ],
        {
            "versions": ["1.0"],
            "project-status": {"status": "archived", "reason": "done"},
            "future": {"a": [1]},
            "meta": {"note": "x"},
        },
        "1.4",
    )


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        JSON_TYPE,
        JSON_TYPE.upper(),
        f"{JSON_TYPE}; charset=UTF-8",
        "application/json",
        "text/html",
        "text/html; charset=utf-8",
        "image/png",
        ";;;",
    ],
)
def test_the_body_decides(content_type: str | None) -> None:
    """JSON is read as JSON whatever its content type is."""
    assert len(_parse({"files": [_file()]}, content_type).files) == 1


@pytest.mark.parametrize("prefix", [b"\xef\xbb\xbf", b"\n \t", b"\xef\xbb\xbf\r\n"])
def test_what_may_stand_before_the_page(prefix: bytes) -> None:
    """A byte order mark and white space do no harm."""
    assert parse_project(prefix + b'{"files":[]} \n', None, URL, "foo").files == []


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"api-version": "1.0"}, "1.0"),
        ({"api-version": "1.99"}, "1.99"),
        ({"api-version": "0.9"}, "0.9"),
        ({"api-version": "1"}, "1.0"),
        ({"api-version": "banana"}, "1.0"),
        ({"api-version": "2"}, "1.0"),
        ({"api-version": 2.0}, "1.0"),
        ({"api-version": "1.0\n"}, "1.0"),
        ({"api-version": "\u0662.0"}, "1.0"),
        ({"api-version": "1." + "9" * 5000}, "1.0"),
        ({"api-version": None}, "1.0"),
        ({}, "1.0"),
        (None, "1.0"),
        ("1.4", "1.0"),
    ],
)
def test_version(meta: object, expected: str) -> None:
    """The stated version is kept; one that is absent or malformed is 1.0."""
    assert _parse({"meta": meta, "files": []}).version == expected


@pytest.mark.parametrize("version", ["2.0", "10.4", "9" * 5000 + ".0"])
def test_a_new_major_version_is_refused(version: str) -> None:
    """A page of a major version that is not known may mean anything (PEP 629)."""
    with pytest.raises(NotAnIndexPage, match="speaks version") as caught:
        _parse({"meta": {"api-version": version}, "files": []})
    assert version[:20] in caught.value.reason


@pytest.mark.parametrize("serialization", ["json", "html", "JSON"])
def test_a_new_major_content_type_is_refused(serialization: str) -> None:
    """The content type alone can state a major version that is not known."""
    with pytest.raises(NotAnIndexPage, match="speaks version"):
        _parse({"files": []}, f"application/vnd.pypi.simple.v2+{serialization}; x=y")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \n",
        b"{",
        b'{"files": [{"filename": "foo-1.0.whl", "ur',
        b'{"files": []} trailing',
        b'{"files": {}}',
        b'{"files": null}',
        b'{"message": "not found"}',
        b'{"projects": []}',
        b"[]",
        b"null",
        b'"text"',
        b"plain text",
        b"\x1f\x8b\x08\x00",
        b"\x00\xff",
        b'{"files": [{"filename": tru]}',
        b'{"files": [{"filename": "a" "url": "a"}]}',
        b'{"files": [{"filename": "a", "url": "a",}]}',
        b'{"files": [{"filename": "a\x01", "url": "a"}]}',
        b'{"files": [{"filename": "\\q", "url": "a"}]}',
        b'{"files": [01]}',
        b'{"files": [NaN]',
        b'{"files": [NaN, tru]}',
        b'{"files": ["\\ud800"]} trailing',
        b'{"files": [], "x": {"files": NaN}',
        b'{"\xff": ',
        b'{"a":' * 100_000,
        b"[" * 100_000,
    ],
)
def test_what_is_no_page(body: bytes) -> None:
    """Empty, cut, foreign and malicious bodies are refused with a sentence and no URL."""
    with pytest.raises(NotAnIndexPage) as caught:
        parse_project(body, JSON_TYPE, URL, "foo")
    assert caught.value.reason == str(caught.value)
    assert caught.value.reason.endswith(".")
    assert "://" not in caught.value.reason


@pytest.mark.parametrize(
    "odd",
    [
        None,
        "foo-1.0.whl",
        7,
        [],
        {},
        {"filename": "foo.whl"},
        {"url": "foo.whl"},
        {"filename": None, "url": "foo.whl"},
        {"filename": "foo.whl", "url": None},
        {"filename": "foo.whl", "url": ""},
        {"filename": "foo.whl", "url": " "},
        {"filename": 7, "url": "foo.whl"},
        {"filename": "foo.whl", "url": "ftp://host.example/foo.whl"},
        {"filename": "foo.whl", "url": "file:///etc/passwd"},
        {"filename": "foo.whl", "url": "http://[bad/foo.whl"},
        {"filename": "foo.whl", "url": "http:///foo.whl"},
        {"filename": "foo.whl", "url": "http://a\\@b/foo.whl"},
        {"filename": "foo.whl", "url": "http://\u2488.example/foo.whl"},
        *(
            {"filename": name, "url": "foo.whl"}
            for name in ("", ".", "..", "a/b", "../a", "a\\b", "a\x00", "a\n", "\x7f", "\x85")
        ),
    ],
)
def test_an_odd_file_is_left_out(odd: object) -> None:
    """A file that cannot be used or must not be served is left out, and the others stay."""
    project = _parse({"files": [odd, _file()]})
    assert [entry["filename"] for entry in project.files] == ["foo-1.0.whl"]


def test_the_better_digest_wins() -> None:
    """Of two files with one name the one with the better digest counts, whichever comes first."""
    sha, other, md5 = {"sha256": "a" * 64}, {"sha256": "b" * 64}, {"md5": "c" * 32}
    wrong = {"sha256": "a" * 63}
    for first, second, best in (
        ({}, sha, 1),
        (sha, {}, 0),
        (md5, sha, 1),
        (sha, md5, 0),
        (wrong, md5, 1),
        (sha, other, 0),
        ({}, {}, 0),
    ):
        files = [
            {"filename": "f.whl", "url": str(place), "hashes": hashes, f"key-{place}": place}
            for place, hashes in enumerate((first, second))
        ]
        (entry,) = _parse({"files": files}).files
        assert (entry["url"], entry["hashes"]) == (f"{URL}{best}", (first, second)[best])
        assert entry[f"key-{best}"] == best
    (entry,) = _parse({"files": [files[0] | {"yanked": "why"}, files[1] | {"hashes": sha}]}).files
    assert (entry["yanked"], entry["hashes"]) == ("why", sha)


def test_a_digest_in_a_link_counts() -> None:
    """The fragment of a link adds to the digests beside it, and never replaces one."""
    link = f"f.whl#egg=f&sha256={'A' * 64}&md5={'b' * 32}"
    files = [_file(url=link, hashes={}), _file(filename="g", url=link, hashes={"md5": "c" * 32})]
    first, second = _parse({"files": files}).files
    assert first["hashes"] == {"sha256": "a" * 64, "md5": "b" * 32}
    assert second["hashes"] == {"sha256": "a" * 64, "md5": "c" * 32}
    assert first["url"] == second["url"] == f"{URL}f.whl"


def test_what_cannot_be_listed_is_counted() -> None:
    """A page says how many of its files cannot be listed, and which is the first."""
    files = [_file(), _file(filename="a", url="git+https://h.example/a"), 7, {"filename": "b"}]
    skipped = _parse({"files": files}).skipped
    assert (skipped.count, skipped.first) == (3, "git+https://h.example/a")
    assert _parse({"files": [7]}).skipped.first == "(int)"


_GOOD = b'{"filename": "good.whl", "url": "good.whl", "hashes": {}, "size": 7}'


@pytest.mark.parametrize(
    "value",
    [
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b"NaN",
        b"-Infinity",
        b"1e999",
        b'{"a": [1, NaN]}',
        b'{"\\ud800": 1}',
        b'{"\xff": 1}',
    ],
)
@pytest.mark.parametrize("more", [b"", b'"other": NaN, '])
def test_an_odd_value_costs_its_file_alone(value: bytes, more: bytes) -> None:
    """What JSON, UTF-8 or numbers cannot express is no reason to refuse the rest of the page."""
    odd = b'{"filename": "odd.whl", "url": "odd.whl", "yanked": %s}' % value
    page = b'{%s"odd": %s, "versions": ["1"], "meta": {"api-version": "1.3"}, "files": [%s]}'
    files = b",".join([odd, _GOOD, value])
    project = parse_project(page % (more, value, files), None, URL, "foo")
    good = {"filename": "good.whl", "url": URL + "good.whl", "hashes": {}, "size": 7}
    assert project == Project("foo", [good], {"versions": ["1"]}, "1.3")
    assert project.skipped.count == 2


def test_an_odd_key_of_the_page_is_dropped() -> None:
    """A key that cannot be written again is not passed on, and costs nothing else."""
    page = b'{"\\ud800": 1, "x": "\\ud83d\\udc0d", "files": [%s]}' % _GOOD
    project = parse_project(page, None, URL, "foo")
    assert project.keys == {"x": "\U0001f40d"}
    assert len(project.files) == 1


@pytest.mark.parametrize("other", [b'"x": 1', b'"x": NaN'])
def test_of_a_key_that_stands_twice_the_last_counts(other: bytes) -> None:
    """A page with a key twice is read as everybody reads it, also where something is odd."""
    page = b'{"files": [], %s, "files": [%s], "files": [%s, %s]}' % (other, _GOOD, _GOOD, _GOOD)
    project = parse_project(page.replace(_GOOD, _GOOD.replace(b"good", b"late"), 1), None, URL, "x")
    assert [entry["filename"] for entry in project.files] == ["good.whl"]


def test_a_large_page_is_decoded_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call decodes more than a file: while one runs, the reactor's thread waits."""
    sizes = []

    class Recording:
        def decode(self, piece: msgspec.Raw) -> Any:
            sizes.append(len(memoryview(piece)))
            return msgspec.json.decode(piece)

    monkeypatch.setattr(parse, "_VALUE", Recording())
    assert len(_parse({"files": [_file(filename=f"f{n}") for n in range(100)]}).files) == 100
    assert len(sizes) == 100
    assert max(sizes) < 100


def test_of_two_files_with_one_name_the_first_counts() -> None:
    """A name that occurs twice on a page is one file."""
    project = _parse({"files": [_file(url="a"), _file(url="b"), _file(filename="c", url="c")]})
    assert [entry["url"] for entry in project.files] == [URL + "a", URL + "c"]


@pytest.mark.parametrize(
    "name", ["foo-1.0-variants.json", "other-1.0.tar.gz", "foo 1.0+cü.exe", "x"]
)
def test_files_of_any_kind_are_listed(name: str) -> None:
    """Unknown kinds, foreign and odd names are no reason to leave a file out."""
    assert _only(filename=name)["filename"] == name


_LINKS = st.one_of(
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
@given(_LINKS, st.sampled_from([URL, "https://h.example/a/../b?c#d", "http://h.example:81"]))
@example("a/../f-1.0.whl", URL)
@example("../a//f-1.0.whl", URL)
@example("./a/./..", URL)
def test_links_are_joined_to_the_page(link: str, base: str) -> None:
    """The shortest way to the URL of a file gives the same as the long one."""
    try:
        url = urls.without_fragment(urls.join(base, link))
        urls.origin(url)
    except ValueError:
        url = ""
    page = json.dumps({"files": [{"filename": "f", "url": link}]}).encode()
    expected = [url] if url.isascii() and url and link.strip() else []
    assert [entry["url"] for entry in parse_project(page, None, base, "foo").files] == expected


@deterministic
@given(st.lists(json_values, max_size=3), json_values)
def test_what_is_odd_changes_nothing_else(files: list[Any], value: Any) -> None:
    """A page is read in the same way whether or not something odd stands on it."""
    files = [_file(new=value, **{"requires-python": ">=3"}), *files]
    page = {"x": value, "versions": ["1"], "files": files}
    assert _parse({**page, "odd": float("nan")}) == _parse(page)


_KEYS = st.sampled_from(
    ["filename", "url", "hashes", "size", "yanked", "upload-time", "core-metadata", "provenance"]
)
_FILES = st.lists(
    st.one_of(
        json_values,
        st.dictionaries(
            _KEYS, st.one_of(json_values, st.sampled_from(["f.whl", "http://[x", "a://b"]))
        ),
    ),
    max_size=4,
)


@deterministic
@given(
    st.fixed_dictionaries(
        {"files": st.one_of(_FILES, json_values)},
        optional={
            "meta": json_values,
            "versions": json_values,
            "project-status": json_values,
            "x": json_values,
        },
    )
)
def test_any_json_gives_a_project_that_can_be_used(page: object) -> None:
    """Whatever stands on a page, it is refused, or can be held as bytes and rendered."""
    try:
        project = _parse(page)
    except NotAnIndexPage:
        return
    assert decode(encode(project)) == project
    assert b'"files":' in render_json(project)
    assert render_html(project).isascii()
