"""Names of a root list that comes in pieces, cut anywhere."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from packaging.utils import canonicalize_name

from proxpi.index import list_parser
from proxpi.index.list_parser import BLOCK, LONGEST_VALUE, NotAList, parse
from proxpi.simple.html import MARKED_SECTIONS
from proxpi.simple.model import Unlisted
from tests.support.growth import assert_linear
from tests.support.strategies import deterministic, project_names

few = settings(deterministic, max_examples=40)

JSON_HEAD = '{"meta": {"api-version": "1.4", "_last-serial": 7}, "projects": ['
SEVERAL = [b'"Foo.Bar"', b"'foo_bar/'", b"/simple/foo-bar/", b'"https://x/y/FOO..bar/?a=b#c"']


def scan(*chunks: bytes, unlisted: Unlisted | None = None) -> list[str]:
    """Give the names found in a list that comes in these chunks, which must be whole."""
    found = b"".join(parse(chunks, True, unlisted or Unlisted()))
    assert not found or found.endswith(b"\n")
    return found.decode("ascii").splitlines()


def refusal(data: bytes, announced: bool = True) -> str:
    """Give why this is no list."""
    with pytest.raises(NotAList) as raised:
        b"".join(parse(in_blocks(data), announced, Unlisted()))
    return str(raised.value)


def in_blocks(data: bytes) -> Iterator[bytes]:
    """Cut bytes as they are read from a file."""
    return (data[place : place + BLOCK] for place in range(0, len(data), BLOCK))


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
    return f"<html><title>Simple index</title>\n{anchors}\n</html>\n".encode()


several = st.lists(project_names, max_size=12)
cuts = st.lists(st.integers(min_value=0, max_value=10_000), max_size=12)


@few
@given(several, cuts, st.sampled_from([None, 1]))
@example(["a", "b"], list(range(200)), None)
def test_any_chunks_of_json(names: list[str], cuts: list[int], indent: int | None) -> None:
    """However JSON is cut, its names are found, in order and in normal form."""
    data = in_json(names, indent)
    assert scan(*pieces(data, cuts)) == [canonicalize_name(name) for name in names]


@few
@given(several, cuts)
@example(["a", "b"], list(range(200)))
def test_any_chunks_of_html(names: list[str], cuts: list[int]) -> None:
    """The same for HTML."""
    assert scan(*pieces(in_html(names), cuts)) == [canonicalize_name(name) for name in names]


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


@pytest.mark.parametrize(
    "anchor",
    [
        b'<a href="demo/index.html">demo</a>',
        b'<a href="demo/"><b>demo</b></a>',
        b'<a href="demo/"><span><i></i> Demo</span>\n</a>',
        b'<a href="demo/"><b>de</b>mo<br></a>',
        b'<a href="/p/17?x=1">demo</a>',
        b'<a href="https://h.example/other/">demo/</a>',
        b"<a title='</a>' href=x>demo</a>",
    ],
)
def test_the_text_names_the_project(anchor: bytes) -> None:
    """The text content of an anchor is the name, wherever its link leads (PEP 503)."""
    data = b"<!DOCTYPE html><html>" + anchor + b"</html>"
    assert scan(data) == ["demo"]
    assert scan(*(data[at : at + 1] for at in range(len(data)))) == ["demo"]
    usual = b'<a href="a/">a</a>\n<a href="b/">b</a>\n'
    assert scan(b"Notice: a < b\n" + usual, data, usual) == ["a", "b", "demo", "a", "b"]


def test_what_is_not_listed_is_counted() -> None:
    """A list says how many links and names name no project; links that navigate do not count."""
    unlisted = Unlisted()
    links = b'<a href="../">..</a><a href="x y/">x y</a><a href="z">&gt;</a><a href="_/">_</a>'
    assert scan(b"<html>" + links + b"<a href=b>b</a></html>", unlisted=unlisted) == ["b"]
    assert (unlisted.count, unlisted.first) == (3, "x y")
    unlisted = Unlisted()
    names = b'{"name": "a"}, {"name": "x y"}, {"name": 5}, {"name": null}, {}'
    assert scan(b'{"projects": [' + names + b"]}", unlisted=unlisted) == ["a"]
    assert (unlisted.count, unlisted.first) == (4, "x y")


@pytest.mark.parametrize("version", ["2", "9" * 5000])
def test_a_version_that_is_not_known(version: str) -> None:
    """A major version that is not known, of any length, is a refusal."""
    for page in (
        f'{{"meta": {{"api-version": "{version}.0"}}, "projects": []}}',
        f'<html><meta name="pypi:repository-version" content="{version}.0"></html>',
    ):
        assert "version" in refusal(page.encode())


def test_nested_too_deeply() -> None:
    """A list that is nested too deeply to be looked at is none."""
    for data in (b"[" * 20_000 + b"]" * 20_000, b'{"a":' * 10_000 + b"1" + b"}" * 10_000):
        for whole in (b'{"projects": %s}' % data, b'{"projects": [{"name": "a", "b": %s}]}' % data):
            assert "nested" in refusal(whole)


HOSTILE = (
    *(b'<a href="x/">x</a>', b"<a>", b"<a x>", b"</a>", b"<a <b", b"<![CDATA[ >", b"<!--"),
    *(b"<title>", b"<a href='", b"&", b"<", b"<a href=x>x", b"<script>"),
    b"<a href=x>" + b"&#9" * 50 + b"</a>",
    *(b'{"name":"', b'{"name":"\\', b'"name"   ', b'"projects"  ', b"[", b'{"a":', b'"'),
    *(b"\\", b" ", b'"name":"x",', b'{"name":"x"},', b'"api-version":"1', b"{", b"}", b"-"),
    b'{"name":"a--',
)


@pytest.mark.parametrize("piece", HOSTILE)
def test_scanning_is_linear(piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is repeated, and in whatever chunks it comes, four times as much takes no longer."""
    monkeypatch.setattr("proxpi.simple.html.MARKED_SECTIONS", 1 << 30)

    def work(data: bytes) -> None:
        b"".join(parse(in_blocks(data), True, Unlisted()))

    for before in (b"", b"<html>", b'{"projects": ['):

        def made(size: int, before: bytes = before) -> bytes:
            return before + piece * (size // len(piece))

        assert_linear(work, made, 200_000, (NotAList,))


def test_references_to_huge_numbers() -> None:
    """A reference to a number of any length names no project, and is no error."""
    for huge in ("&#" + "9" * 10_000, "&#x" + "f" * 10_000 + ";"):
        page = f'<title>Simple index {huge}</title><a href="{huge}">{huge}</a><a href=b>b{huge}</a>'
        assert scan(f"<html>{page}<a href=a>a</a></html>".encode()) == ["a"]


def test_entities() -> None:
    """References in text and link are what they stand for."""
    assert scan(b'<html><a href="foo&#45;bar/">foo&#x2d;bar</a></html>') == ["foo-bar"]
    assert scan(b'<html><a href="foo%2Dbar/">foo-bar</a></html>') == ["foo-bar"]


@pytest.mark.parametrize(
    "anchor",
    [
        b'<a href="../">Parent directory</a>',
        b'<a href="?C=N">foo</a> <a href="#top">foo</a> <a href="">foo</a>',
        b'<a href="mailto:foo">foo</a> <a href="javascript:foo">foo</a>',
        b'<a href="../">foo</a> <a href="/">foo</a>',
        b'<!-- <a href="foo/">foo</a> --><script><a href="foo/">foo</a></script>',
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
    assert refusal(data) == "it is neither JSON nor HTML"


@pytest.mark.parametrize("data", [in_json(["a", "b"]), in_json(["a"], 1), in_html(["a", "b"])])
@pytest.mark.parametrize("announced", [True, False])
def test_cut_short(data: bytes, announced: bool) -> None:
    """A list that is cut anywhere within a project, or behind all of them, says so."""
    for end in range(len(data.rstrip()) - 1):
        if announced and data[:end].rstrip().endswith(b">"):
            continue  # that is all that HTML needs
        refusal(data[:end], announced)
    assert {refusal(data[: len(data) // 2], announced), refusal(b"  ")} == {"it is cut short"}


@pytest.mark.parametrize("data", [b"{} {}", b'{"projects": [{"name": "a"} {"name": "b"}]}', b"{1}"])
def test_invalid_json(data: bytes) -> None:
    """What begins as JSON and is none is no list."""
    assert refusal(data) == "it is not valid JSON"


@pytest.mark.parametrize("projects", ["5", "{}", '["a"]', '{"a": {"name": "a"}}', "null"])
def test_other_json(projects: str) -> None:
    """Only an array of objects is one of projects."""
    assert "not a list of projects" in refusal(f'{{"projects": {projects}}}'.encode())


def test_numbers() -> None:
    """A number may be of any length, and stand where a block ends."""
    long = b"9" * 100_000
    data = b'{"a": 12345, "projects": [{"x": -1.5e9, "name": "a", "y": %s}], "z": 1}' % long
    for size in (1, 5, 11, 40_000):
        chunks = [data[place : place + size] for place in range(0, min(len(data), 9000), size)]
        assert scan(*chunks, data[sum(map(len, chunks)) :]) == ["a"]


@pytest.mark.parametrize(
    "data",
    [
        b'{"projects": [{"name": "demo"}], "owner": {"name": "x y"}}',
        b'{"projects": [{"name": "demo", "owner": {"name": "x y"}}]}',
        b'{"projects": [{"owner": {"name": "x y"}, "name": "demo"}]}',
        b'{"projects": [{"x": [{"name": "x"}, {"name": "y"}], "name": "demo"}]}',
        b'{"x": "\\"projects\\": [{\\"name\\": \\"x\\"}]", "projects": [{"name": "demo"}]}',
        b'{"x": {"projects": [{"name": "x"}]}, "projects": [{"name": "demo"}]}',
        b'{"meta": {"api-version": "1.4", "name": "x y"}, "projects": [{"name": "demo"}]}',
    ],
)
def test_names_of_other_things(data: bytes) -> None:
    """Keys that nobody knows yet may have names in them; the list is whole all the same."""
    assert scan(data) == ["demo"]


def one_by_one(data: bytes) -> list[str]:
    """Give the names of a list, each looked at by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(list_parser, "_NORMAL_LINES", re.compile("none"))
        patch.setattr(list_parser, "_USUAL_ANCHOR", re.compile("none"))
        patch.setattr(list_parser._Source, "several", lambda source: [])
        return scan(data)


names_and_others = st.one_of(
    project_names,
    st.text(st.sampled_from("aB0-_./\\é\n &%"), max_size=6),
    st.sampled_from(["x" * 200, "x" * 201, "a" + "-" * 300 + "b", "K"]),
)


@few
@given(st.lists(names_and_others, max_size=8), st.booleans())
def test_all_at_once_or_one_by_one_in_json(names: list[str], escaped: bool) -> None:
    """Names are found by the hundred just as they would be one by one, odd ones among them."""
    projects = ",".join(
        '{"name": %s}' % (json.dumps(name) if escaped else f'"{name}"') for name in names
    )
    data = f'{{"projects": [{projects}, {{"name": "end"}}]}}'.encode()
    try:
        expected = one_by_one(data)
    except NotAList:  # some of the names are not escaped
        return
    assert scan(data) == expected


ANCHORS = (
    '<a href="/simple/{0}/">{1}</a>\n',
    '<a href="{0}/">{1}/</a>',
    '<a rel="internal" href="../{0}/" data-x="y">\n{1}\n</a >',
    "<A HREF='{0}'>{1}</A>",
    '<abbr><a href="{0}/?a#b">{1}</a></abbr>',
    '<a href="other/">{1}</a>',
    '<a data-href="{0}/" href="x/">{1}</a>',
    '<a href="../" href="{0}/">{1}</a>',
    """<a href="{0}' class='x'>{1}</a>""",
    "<a CLASS='x' hreF='https://h.example/{0}/' title=\"y\" >\n{1}\n</a><br />",
)


@few
@given(
    st.lists(st.tuples(names_and_others, names_and_others | st.none()), max_size=8),
    st.sampled_from(ANCHORS),
    st.sampled_from([*ANCHORS, ""]),
)
def test_all_at_once_or_one_by_one_in_html(
    pairs: list[tuple[str, str | None]], usual: str, odd: str
) -> None:
    """The same in HTML, in which anchors may look alike or not."""
    anchors = [usual.format(link, link if text is None else text) for link, text in pairs]
    page = "".join(["<title>Simple index</title>", *anchors, odd.format("demo", "Demo")])
    data = f"<html>{page}</html>".encode()
    assert scan(data) == one_by_one(data)


@pytest.mark.parametrize("filler", [b'"x": "%s", ' % (b"y" * 100_000), b" " * 100_000])
def test_long_elements_in_json(filler: bytes) -> None:
    """A value, or a gap, may be longer than a block."""
    data = b'{"projects": [{"name": "a", %s"z": 1}, {%s"name": "b"}]}' % (filler, filler)
    for size in (1000, 70_000, 300_000):
        chunks = [data[place : place + size] for place in range(0, len(data), size)]
        assert scan(*chunks) == ["a", "b"]


def test_many_odd_projects() -> None:
    """A list of projects that have more in them than a name is read like any other."""
    numbers = range(2 * list_parser.BATCH + 1)
    odd = ",".join(f'{{"x": [{{"name": "x"}}, {{}}], "name": "p{number}"}}' for number in numbers)
    found = scan(*in_blocks(f'{{"projects": [{odd}]}}'.encode()))
    assert found == [f"p{number}" for number in numbers]


def test_marked_sections_are_limited() -> None:
    """HTML with too many marked sections is no list, and the refusal says so."""
    sections = b"<![CDATA[ >" * (MARKED_SECTIONS + 1)
    assert "marked sections" in refusal(b"<html>" + sections + b"<a href=a>a</a></html>")


@pytest.mark.parametrize("begin", [b'{"a": "', b'{"projects": [{"name": "', b'{"a": [0'])
def test_values_are_limited(begin: bytes) -> None:
    """No value is held that is longer than any that a list has."""
    assert "more than" in refusal(begin + b",0" * LONGEST_VALUE)


def test_garbage_costs_no_more_than_a_list() -> None:
    """The time for what is no list grows with its length, as for one that is."""

    def seconds(data: bytes) -> float:
        start = time.process_time()
        with suppress(NotAList):
            b"".join(parse(in_blocks(data), True, Unlisted()))
        return time.process_time() - start

    usual = seconds(b"<html>" + b'<A href="demo/">demo</A>\n' * 80_000 + b"</html>")
    for garbage in (b"<a ", b"<a href=", b"<a href=" + b"/" * 1000, b'<a href="/', b'{"name": "'):
        assert seconds(b"<html>" + garbage * (2_000_000 // len(garbage))) < 10 * usual
