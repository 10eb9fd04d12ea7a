"""Names of a root list that comes in pieces, cut anywhere."""

from __future__ import annotations

import json
import time
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxpi.index.scanner import NameScanner
from proxpi.simple.names import normalize
from tests.support.strategies import deterministic, project_names

few = settings(deterministic, max_examples=40)

JSON_HEAD = '{"meta": {"api-version": "1.4", "_last-serial": 7}, "projects": ['
SEVERAL = [b'"Foo.Bar"', b"'foo_bar/'", b"/simple/foo-bar/", b'"https://x/y/FOO..bar/?a=b#c"']


def scan(*chunks: bytes) -> list[str]:
    """Give the names found in a list that comes in these chunks, which must be whole."""
    scanner = NameScanner()
    found = [name for chunk in chunks for name in scanner.feed(chunk)]
    assert scanner.complete
    return found


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut bytes at these places."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


def in_json(names: list[str], indent: int | None = None) -> bytes:
    """Write a list in JSON as some other index would, with keys of its own."""
    projects = [{"_last-serial": 3, "name": name, "x": {"y": ["}", "<"]}} for name in names]
    page = {"meta": {"api-version": "1.4"}, "projects": projects, "z": "é\\"}
    return json.dumps(page, indent=indent, ensure_ascii=False).encode()


def in_html(names: list[str]) -> bytes:
    """Write a list in HTML as some other index would."""
    anchors = "\n".join(f'<A class=x HREF="/simple/{name}/">\n {name} </a >' for name in names)
    return f"<!DOCTYPE html><html><body>\n{anchors}\n</body></html>\n".encode()


several = st.lists(project_names, max_size=12)
cuts = st.lists(st.integers(min_value=0, max_value=10_000), max_size=12)


@few
@given(several, cuts, st.sampled_from([None, 1]))
@example(["a", "b"], list(range(200)), None)
def test_any_chunks_of_json(names: list[str], cuts: list[int], indent: int | None) -> None:
    """However JSON is cut, its names are found, in order and in normal form."""
    data = in_json(names, indent)
    assert scan(*pieces(data, cuts)) == [normalize(name) for name in names]


@few
@given(several, cuts)
@example(["a", "b"], list(range(200)))
def test_any_chunks_of_html(names: list[str], cuts: list[int]) -> None:
    """The same for HTML."""
    assert scan(*pieces(in_html(names), cuts)) == [normalize(name) for name in names]


@pytest.mark.parametrize("before", [b"", b" \r\n\t", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("data", [in_json(["demo"]), in_html(["demo"])])
def test_beginning(before: bytes, data: bytes) -> None:
    """White space and a byte order mark may come first, by themselves too."""
    assert scan(before + data) == ["demo"]
    assert scan(before, data) == ["demo"]
    assert scan(*(bytes([byte]) for byte in before + data)) == ["demo"]


@pytest.mark.parametrize("href", SEVERAL)
def test_links(href: bytes) -> None:
    """A link may be written in any way that leads to the project."""
    data = b"<html><a rel=x href=%s>Foo.Bar</a></html>" % href
    assert scan(data) == ["foo-bar"]


def test_entities() -> None:
    """References in text and link are what they stand for."""
    assert scan(b'<html><a href="foo&#45;bar/">foo&#x2d;bar</a></html>') == ["foo-bar"]
    assert scan(b'<html><a href="foo%2Dbar/">foo-bar</a></html>') == ["foo-bar"]


@pytest.mark.parametrize(
    "anchor",
    [
        b'<a href="../">Parent directory</a>',
        b'<a href="/about/">foo</a>',
        b'<a name="foo">foo</a> <a>foo</a>',
        b'<a href="-foo/">-foo</a>',
        b'<a href="f%C3%B6%C3%B6/">f\xc3\xb6\xc3\xb6</a>',
        b'<link href="foo/">foo',
    ],
)
def test_other_links(anchor: bytes) -> None:
    """What leads elsewhere, or is no name, is left out; what stands beside it is found."""
    assert scan(b'<html>%s<a href="demo/">demo</a></html>' % anchor) == ["demo"]


@pytest.mark.parametrize("name", ["", "-x", "x y", "..", "a/b", 'a"b', "é", "x" * 300])
def test_invalid_names_in_json(name: str) -> None:
    """No name gets through that could not be asked for."""
    assert scan(in_json(["a", name, "b"])) == ["a", "b"]


@pytest.mark.parametrize("data", [b"welcome", b"[1]", b"\x1f\x8b", b'"x"', b"\xef\xbb\xbfx"])
def test_neither(data: bytes) -> None:
    """What is neither JSON nor HTML is no list."""
    with pytest.raises(ValueError, match="neither JSON nor HTML"):
        scan(data)


@pytest.mark.parametrize("data", [b"", b"  ", b'{"projects": [', b"<html><body", b'{"projects"'])
def test_incomplete(data: bytes) -> None:
    """What has not come to its end says so."""
    scanner = NameScanner()
    scanner.feed(data)
    assert not scanner.complete


@pytest.mark.parametrize(
    "data",
    [
        b'{"projects": [{"name": "demo"}], "owner": {"name": "x y"}}',
        b'{"projects": [{"name": "demo", "owner": {"name": "x y"}}]}',
        b'{"projects": [{"owner": {"name": "x y"}, "name": "demo"}]}',
        b'{"meta": {"api-version": "1.4", "name": "x y"}, "projects": [{"name": "demo"}]}',
    ],
)
def test_names_of_other_things(data: bytes) -> None:
    """Keys that nobody knows yet may have names in them; the list is whole all the same."""
    assert scan(data) == ["demo"]


@pytest.mark.parametrize("garbage", [b"<a ", b"<a href=", b"<a href=" + b"/" * 1000, b'{"name": "'])
def test_garbage_costs_no_more_than_a_list(garbage: bytes) -> None:
    """The time for what is no list grows with its length, as for one that is."""

    def seconds(head: bytes, piece: bytes, tail: bytes) -> float:
        scanner = NameScanner()
        data = head + piece * (2_000_000 // len(piece)) + tail
        start = time.process_time()
        for place in range(0, len(data), 65536):
            scanner.feed(data[place : place + 65536])
        return time.process_time() - start

    if garbage.startswith(b"<"):
        usual = seconds(b"<html>", b'<a href="demo/">demo</a>\n', b"</html>")
        assert seconds(b"<html>", garbage, b"") < 10 * usual
    else:
        usual = seconds(b'{"projects": [', b'{"name": "demo"},', b"]}")
        assert seconds(b'{"projects": [', garbage, b"") < 10 * usual
