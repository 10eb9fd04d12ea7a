"""Names of a project list that comes in pieces, cut anywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from packaging.utils import canonicalize_name

from proxpi.index import list_parser
from proxpi.index.list_parser import BATCH, BLOCK, MAX_VALUE, project_names
from proxpi.simple.model import SkippedLinks
from proxpi.simple.parse import NotAnIndexPage
from tests.support import strategies
from tests.support.growth import assert_linear, seconds
from tests.support.strategies import deterministic

few = settings(deterministic, max_examples=40)


def scan(*chunks: bytes, skipped: SkippedLinks | None = None) -> list[str]:
    found = b"".join(project_names(chunks, True, skipped or SkippedLinks()))
    assert not found or found.endswith(b"\n")
    return found.decode("ascii").splitlines()


def refusal(data: bytes, end_known: bool = True) -> str:
    with pytest.raises(NotAnIndexPage) as raised:
        b"".join(project_names(in_blocks(data), end_known, SkippedLinks()))
    return raised.value.reason


def in_blocks(data: bytes, size: int = BLOCK) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def in_json(names: list[str], indent: int | None = None) -> bytes:
    """Write a list in JSON as some other index would, with keys of its own."""
    projects = [{"_last-serial": 3, "name": name, "x": {"y": ["}", "<"]}} for name in names]
    page = {"meta": {"api-version": "1.4"}, "projects": projects, "z": "é\\"}
    return json.dumps(page, indent=indent, ensure_ascii=False).encode()


def in_html(names: list[str], _: int | None = None) -> bytes:
    anchors = "\n".join(f'<A class=x HREF="/simple/{name}/">\n {name} </a >' for name in names)
    return f"<html><title>Simple index</title>\n{anchors}\n</html>\n".encode()


@few
@given(
    st.lists(strategies.project_names, max_size=12),
    st.lists(st.integers(0, 10_000), max_size=12),
    st.sampled_from([(in_json, None), (in_json, 1), (in_html, None)]),
)
@example(["a", "b"], list(range(200)), (in_json, None))
@example(["a", "b"], list(range(200)), (in_html, None))
def test_chunks(names: list[str], cuts: list[int], form: tuple[object, int | None]) -> None:
    """However a list is cut, its names are found, in order and normalized."""
    data = form[0](names, form[1])  # type: ignore[operator]
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    pieces = [data[start:end] for start, end in pairwise(places)]
    assert scan(*pieces) == [canonicalize_name(name) for name in names]


@pytest.mark.parametrize("before", [b"", b" \r\n\t", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("data", [in_json(["demo"]), in_html(["demo"])])
def test_start(before: bytes, data: bytes) -> None:
    """White space and a byte order mark may come first, also in chunks of their own."""
    for chunks in ([before + data], [before, data], in_blocks(before + data, 1)):
        assert scan(*chunks) == ["demo"]


@pytest.mark.parametrize(
    "anchor",
    [
        *(b"<a rel=x href='demo_/'>Demo</a>", b'<a href="https://x/y/other/?a=b#c">demo/</a>'),
        b'<a href="demo/index.html">demo</a>',
        b'<a href="demo/"><span><i></i> Demo</span>\n</a>',
        *(b'<a href="demo/"><b>de</b>mo<br></a>', b"<a title='</a>' href=x>demo</a>"),
        b'<a href="foo&#45;bar/">d&#x65;mo</a>',
    ],
)
def test_text(anchor: bytes) -> None:
    """The text content of an anchor is the name, wherever its link leads (PEP 503)."""
    data = b"<!DOCTYPE html><html>" + anchor + b"</html>"
    assert scan(data) == scan(*in_blocks(data, 1)) == ["demo"]
    usual = b'<a href="a/">a</a>\n<a href="b/">b</a>\n'
    assert scan(b"Notice: a < b\n" + usual, data, usual) == ["a", "b", "demo", "a", "b"]


@pytest.mark.parametrize(
    "anchor",
    [
        b'<a href="../">Parent directory</a>',
        b'<a href="?C=N">foo</a> <a href="#top">foo</a> <a href="">foo</a>',
        b'<a href="mailto:foo">foo</a> <a href="javascript:foo">foo</a>',
        b'<a href="../">foo</a> <a href="/">foo</a>',
        b'<!-- <a href="foo/">foo</a> --><script><a href="foo/">foo</a></script>',
        *(b'<a name="foo">foo</a> <a>foo</a>', b'<a href="-foo/">-foo</a>'),
        *(b'<a href="f%C3%B6%C3%B6/">f\xc3\xb6\xc3\xb6</a>', b'<link href="foo/">foo'),
        b'<a href="&#' + b"9" * 10_000 + b'">&#x' + b"f" * 10_000 + b";</a>",
    ],
)
def test_other_links(anchor: bytes) -> None:
    """Navigation and invalid names are left out; the projects beside them are found."""
    assert scan(b'<html>%s<a href="demo/">demo</a></html>' % anchor) == ["demo"]


@pytest.mark.parametrize("name", ["", "-x", "x y", "..", "a/b", 'a"b', "é", "x" * 300])
def test_invalid_names(name: str) -> None:
    """A name that no client could request is left out."""
    assert scan(in_json(["a", name, "b"])) == ["a", "b"]


def test_skipped() -> None:
    """Links and names that name no project are counted; links that navigate are not."""
    anchors = b'<a href="../">..</a><a href="x y/">x y</a><a href="z">&gt;</a><a href="_/">_</a>'
    names = b'{"name": "b"}, {"name": "x y"}, {"name": 5}, {"name": null}, {}'
    for data, count in (
        (b"<html>%s<a href=b>b</a></html>" % anchors, 3),
        (b'{"projects": [%s]}' % names, 4),
    ):
        skipped = SkippedLinks()
        assert scan(data, skipped=skipped) == ["b"]
        assert (skipped.count, skipped.first) == (count, "x y")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        *((data, "neither JSON nor HTML") for data in (b"welcome", b"[1]", b"\x1f\x8b", b'"x"')),
        *((data, "not valid JSON") for data in (b"{} {}", b'{"projects": [{} {}]}', b"{1}")),
        *(
            (b'{"projects": %s}' % projects, "not a list of projects")
            for projects in (b"5", b"{}", b'["a"]', b'{"a": {"name": "a"}}', b"null")
        ),
        *(
            (data % (b'"a": {' * 10_000 + b"}" * 10_000), "nested too deeply")
            for data in (b'{"projects": {%s}}', b'{"projects": [{"name": "a", %s}]}')
        ),
        *(
            (data % version, "speaks version")
            for data in (
                b'{"meta": {"api-version": "%s.0"}, "projects": []}',
                b'<html><meta name="pypi:repository-version" content="%s.0"></html>',
            )
            for version in (b"2", b"9" * 5000)
        ),
        *(
            (begin + b",0" * MAX_VALUE, "more than")
            for begin in (b'{"a": "', b'{"projects": [{"name": "', b'{"a": [0')
        ),
    ],
)
def test_refused(data: bytes, reason: str) -> None:
    """A body that is no list, or exceeds a limit, is refused with its reason."""
    assert reason in refusal(data)


@pytest.mark.parametrize("data", [in_json(["a", "b"]), in_json(["a"], 1), in_html(["a", "b"])])
@pytest.mark.parametrize("end_known", [True, False])
def test_truncated(data: bytes, end_known: bool) -> None:
    """A list that is cut anywhere within a project, or behind all of them, is refused."""
    for end in range(len(data.rstrip()) - 1):
        if end_known and data[:end].rstrip().endswith(b">"):
            continue  # HTML needs no more
        refusal(data[:end], end_known)
    for cut in (data[: len(data) // 2], b"  "):
        assert refusal(cut, end_known) == "The list is cut short."


HOSTILE = (
    *(b'<a href="x/">x</a>', b"<a>", b"<a x>", b"</a>", b"<a <b", b"<![CDATA[ >", b"<!--"),
    *(b"<title>", b"<a href='", b"&", b"<", b"<a href=x>x", b"<script>", b"<br>", b"</p \n"),
    b"<a href=x>" + b"&#9" * 50 + b"</a>",
    *(b'{"name":"', b'{"name":"\\', b'"name"   ', b'"projects"  ', b"[", b'{"a":', b'"'),
    *(b"\\", b" ", b'"name":"x",', b'{"name":"x"},', b'"api-version":"1', b"{", b"}", b"-"),
    b'{"name":"a--',
)


def work(data: bytes) -> None:
    b"".join(project_names(in_blocks(data), True, SkippedLinks()))


@pytest.mark.parametrize("piece", HOSTILE)
def test_linear(piece: bytes) -> None:
    """The time grows with the length of the list, with any text repeated in it."""
    for before in (b"", b"<html>", b'{"projects": ['):

        def made(size: int, before: bytes = before) -> bytes:
            return before + piece * (size // len(piece))

        assert_linear(work, made, 200_000, (NotAnIndexPage,))


def test_cost_of_garbage() -> None:
    """Garbage takes at most ten times as long as a list of its length."""
    usual = seconds(work, b"<html>" + b'<A HREF="demo/">demo</A>\n' * 80_000 + b"</html>")
    for garbage in (b"<a ", b"<a href=", b"<a href=" + b"/" * 1000, b'<a href="/', b'{"name": "'):
        data = b"<html>" + garbage * (2_000_000 // len(garbage))
        assert seconds(work, data, (NotAnIndexPage,)) < 10 * usual


def test_long_values() -> None:
    """A number, a text or a gap may be longer than a block, and end where one ends."""
    number = b'{"a": 12345, "projects": [{"x": -1.5e9, "name": "a", "y": %s}], "z": 1}'
    data = number % (b"9" * 100_000)
    for size in (1, 5, 11, 40_000):
        assert scan(*in_blocks(data[:9000], size), data[9000:]) == ["a"]
    for filler in (b'"x": "%s", ' % (b"y" * 100_000), b" " * 100_000):
        data = b'{"projects": [{"name": "a", %s"z": 1}, {%s"name": "b"}]}' % (filler, filler)
        for size in (1000, 70_000, 300_000):
            assert scan(*in_blocks(data, size)) == ["a", "b"]


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
    """Unknown keys may have names in them."""
    assert scan(data) == ["demo"]


def test_odd_projects() -> None:
    """Projects that the fast parser cannot tell apart are read one by one, in batches."""
    odd = ",".join(
        f'{{"x": [{{"name": "x"}}, {{}}], "name": "p{n}"}}' for n in range(2 * BATCH + 1)
    )
    found = scan(*in_blocks(f'{{"projects": [{odd}]}}'.encode()))
    assert found == [f"p{number}" for number in range(2 * BATCH + 1)]


def one_by_one(data: bytes) -> list[str]:
    """Return the names of a list without the fast ways."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(list_parser, "_NORMALIZED_LINES", re.compile("none"))
        patch.setattr(list_parser, "_USUAL_ANCHOR", re.compile("none"))
        patch.setattr(list_parser, "_Project", int)
        return scan(data)


names_and_others = st.one_of(
    strategies.project_names,
    st.text(st.sampled_from("aB0-_./\\é\n &%"), max_size=6),
    st.sampled_from(["x" * 200, "x" * 201, "a" + "-" * 300 + "b", "K"]),
)


@few
@given(st.lists(names_and_others, max_size=8), st.booleans())
def test_fast_way_of_json(names: list[str], escaped: bool) -> None:
    """The fast ways find the names that the slow way finds, odd ones included."""
    projects = ",".join(
        '{"name": %s}' % (json.dumps(name) if escaped else f'"{name}"') for name in names
    )
    data = f'{{"projects": [{projects}, {{"name": "end"}}]}}'.encode()
    try:
        expected = one_by_one(data)
    except NotAnIndexPage:  # some of the names are not escaped
        return
    assert scan(data) == expected


ANCHORS = (
    *('<a href="/simple/{0}/">{1}</a>\n', '<li><a href="{0}/">{1}/</a></li>'),
    *('<a rel="internal" href="../{0}/" data-x="y">\n{1}\n</a >', "<A HREF='{0}'>{1}</A>"),
    *('<abbr><a href="{0}/?a#b">{1}</a></abbr>', '<a href="other/">{1}</a>'),
    *('<a data-href="{0}/" href="x/">{1}</a>', '<a href="../" href="{0}/">{1}</a>'),
    """<a href="{0}' class='x'>{1}</a>""",
    "<a CLASS='x' hreF='https://h.example/{0}/' title=\"y\" >\n{1}\n</a><br />",
)


@few
@given(
    st.lists(st.tuples(names_and_others, names_and_others | st.none()), max_size=8),
    st.sampled_from(ANCHORS),
    st.sampled_from([*ANCHORS, ""]),
)
def test_fast_way_of_html(pairs: list[tuple[str, str | None]], usual: str, odd: str) -> None:
    """The fast way finds the names of HTML lists whose anchors look alike or not."""
    anchors = [usual.format(link, link if text is None else text) for link, text in pairs]
    page = "".join(["<title>Simple index</title>", *anchors, odd.format("demo", "Demo")])
    data = f"<html>{page}</html>".encode()
    assert scan(data) == one_by_one(data)
