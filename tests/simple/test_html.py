"""HTML into tokens and facts, by the rules that browsers and package clients follow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.simple.html import (
    MAX_TAG,
    Attributes,
    Markup,
    is_complete_html,
    unescape_attribute,
)
from tests.support.growth import assert_linear
from tests.support.strategies import deterministic

PIECES = (
    *(
        *("<", ">", "</", "/>", "<!--", "-->", "--!>", "<!", "<?", "<![CDATA[", "]]>", "</a>"),
        *("a", " "),
    ),
    *("<a ", "href=", '"', "'", "=", "&amp;", "<script", "</script>", "<title>", "</title", "\n"),
)


class Recorder(Markup):
    """Records tokens in one form, neighbouring texts joined."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.attributes: Attributes = {}
        self._after_text = False

    def _add(self, token: str, *, text: bool = False) -> None:
        if text and self._after_text:
            self.found[-1] += token
        else:
            self.found.append(token)
        self._after_text = text

    def text(self, value: str) -> None:
        self._add(value, text=True)

    def start(self, tag: str, attributes: Attributes) -> None:
        self._add(f"<{tag}>")
        self.attributes = attributes

    def end(self, tag: str) -> None:
        self._add(f"</{tag}>")


def tokens(page: str, size: int = 1 << 20) -> list[str]:
    """Give the tokens of a page that comes in chunks of a size."""
    recorder = Recorder()
    for at in range(0, len(page), size):
        recorder.feed(page[at : at + size])
    recorder.finish()
    return recorder.found


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        *(("<P>x</P >y</p x=1>", "<p> x </p> y </p>"), ("a<b<c>d", "a <b<c> d")),
        *(("1 < 2 <> 3", "1 < 2 <> 3"), ("<a x='>' y=\">\" z=/>t", "<a> t")),
        *(('<a "x>t', "<a> t"), ('<a ="x>t', "<a> t"), ("<a/x/>t", "<a> t"), ("<!-->t", "t")),
        *(("<!--->t", "t"), ("<!-- <a> -- > --!>t", "t"), ("<!--<a>", "")),
        ("<!DOCTYPE html>t<?php a>u<![CDATA[ b>v</ c>w</>x", "tuvwx"),
        ("<![if IE]>t<![endif]>", "t"),
        ("<script>if (a</b>) '<a>'</SCRIPT\n>t", "<script> if (a</b>) '<a>' </script> t"),
        ("<title>a <b> c</title>t", "<title> a <b> c </title> t"),
        ("<textarea><a></textareas></textarea>", "<textarea> <a></textareas> </textarea>"),
        ("<style><a>", "<style> <a>"),
        *(("t<a x='", "t"), ("t<a", "t"), ("t<", "t<"), ("t</", "t</"), ("t<!", "t<!")),
    ],
)
def test_tokens(page: str, expected: str) -> None:
    """Tags, comments, marked sections and raw text end where the HTML Standard says."""
    assert " ".join(tokens(page)) == expected


@pytest.mark.parametrize(
    ("tag", "attributes"),
    [
        *(("<a HREF=x>", {"href": "x"}), ("<a href = 'x' title>", {"href": "x", "title": None})),
        *(("<a href=x href=y>", {"href": "x"}), ("<a href=>", {"href": ""})),
        *(("<a href=a/b/>", {"href": "a/b/"}), ("<a/href=x>", {"href": "x"})),
        ("<a href='a&#38;b' x='\"'>", {"href": "a&b", "x": '"'}),
        *(('<a\nhref\t=\f"a\nb">', {"href": "a\nb"}), ("<a =x>", {"=x": None})),
    ],
)
def test_attributes(tag: str, attributes: dict[str, str | None]) -> None:
    """Attributes may be quoted or not; of two with one name, in any case, the first counts."""
    recorder = Recorder()
    recorder.feed(tag)
    assert recorder.attributes == attributes


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *(("f.whl?a=1&copy=2", "f.whl?a=1&copy=2"), ("f.whl?a=1&copy2", "f.whl?a=1&copy2")),
        *(("f.whl?a=1&notit;", "f.whl?a=1&notit;"), ("f.whl?a=1&amp;copy=2", "f.whl?a=1&copy=2")),
        *(("f.whl?a=1&ampcopy=2", "f.whl?a=1&ampcopy=2"), ("f.whl?a=1&copy;=2", "f.whl?a=1©=2")),
        *(("f.whl?a&lt", "f.whl?a<"), ("f.whl?a&lt b", "f.whl?a< b")),
        ("f.whl?a&region=x&timestamp=1&section=2&para", "f.whl?a&region=x&timestamp=1&section=2¶"),
        *(("&nope;&;&&#;&#x;&#xg", "&nope;&;&&#;&#x;&#xg"), ("&#65;&#x42;&#X43&#0068", "ABCD")),
        ("&#0;&#xD800;&#x110000;&#x80;", "\ufffd\ufffd\ufffd€"),
        (f"&#{'9' * 5000};&#x{'f' * 5000};&#{'0' * 5000}65;", "\ufffd\ufffdA"),
    ],
)
def test_references_in_attributes(value: str, expected: str) -> None:
    """A named reference without ``;`` before ``=``, a letter or a digit is none."""
    assert unescape_attribute(value) == expected


@deterministic
@given(st.lists(st.sampled_from(PIECES), max_size=20).map("".join), st.integers(1, 7))
def test_chunks(page: str, size: int) -> None:
    """However a page is cut into chunks, its tokens are the same."""
    assert tokens(page, size) == tokens(page)


def test_limits() -> None:
    """A tag that is too long in chunks is skipped."""
    page = "<a href='" + "x" * (2 * MAX_TAG) + "'>t<b>"
    assert tokens(page, 1000) == ["t", "<b>"]


HOSTILE = (
    *("<![CDATA[ >", "<!--", "<!-- -->", "<![if", "<!", "<?", "</", "<", "<a ", "<a x=", "<a x='"),
    *('<a x="', "<a x='\"", "<b/", "<b x ", "&", "&amp", "&#9", "<a x=&a", "<script>", "<title>"),
    *("<textarea ", "<script></scrip", "<title></title", "<div>", "</div>", "<a>", "x ", "--"),
    *("]]>", "<a href='&#x41;&lt&nope'>", "<!-->", "<a a a=a>", "< ", "<style></style"),
    *("<!DOCTYPE ", "\x00"),
)


@pytest.mark.parametrize("piece", HOSTILE)
def test_linear(piece: str) -> None:
    """The time grows with the length of the page, whatever is repeated in it."""
    for before, size in (("", 1 << 30), ("", 64 * 1024), ("<a x=\"y' ", 1 << 30)):
        assert_linear(
            lambda page, size=size: tokens(page, size),  # type: ignore[misc]
            lambda count, before=before: before + piece * count,  # type: ignore[misc]
            5_000,
        )


@pytest.mark.parametrize(
    ("complete", "body"),
    [
        *((True, b"<html></html>"), (True, b"<html></HTML>\r\n\t "), (True, b"<html></html >")),
        (True, b"<html></html>\n<!--SERIAL 12345-->\n"),
        *((True, b"<html></html><!-- a --><!-- b -->"), (True, b"</html> text </html>")),
        *((False, b""), (False, b"<html>"), (False, b"<html><a href=x>x</a>")),
        *((False, b"<html></htm"), (False, b"<html></html"), (False, b"</html> text")),
        *((False, b"</html><!-- cut"), (False, b"</html>" + b"<!---->" * 5000 + b"x")),
    ],
)
def test_complete(complete: bool, body: bytes) -> None:
    """A page that ends with its last tag is whole; space and comments may follow."""
    assert is_complete_html(body) is complete


def read(text: str) -> Markup:
    page, half = Markup(), len(text) // 2
    page.feed(text[:half])
    page.feed(text[half:])
    page.finish()
    return page


def test_anchors() -> None:
    """Anchors have attributes and text, also in pieces; those in comments and scripts are none."""
    page = read(
        """<A HREF=a.zip>a&amp;<b>b</b></A><!-- <a href=a>a</a> --><script>'<a href=b>'</script>
        <a href="b&amp;c" href=d data-yanked>x<a href='e'>y</a><style><a></style>"""
    )
    assert [(anchor.attributes, anchor.text) for anchor in page.anchors] == [
        ({"href": "a.zip"}, "a&b"),
        ({"href": "b&c", "data-yanked": None}, "x"),
        ({"href": "e"}, "y"),
    ]


def test_facts() -> None:
    """The first base, metas by name and headings are found, in any case."""
    page = read(
        """<HTML><base target=x><BASE HREF="/b/"><base href="/c/"><title>One <b>Two</b></title>
        <meta name=" Pypi:X " content="1"><meta name="pypi:x" content="2">
        <meta name=y><meta charset=z>
        <h1>Three</h1>"""
    )
    assert page.base == "/b/"
    assert page.metas == {"pypi:x": "1", "y": ""}
    assert page.headings == ["one two", "three"]
    assert page.has_text
    assert not (page.interactive or page.has_script)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<input type=Password>", True),
        ("<iframe src=x></iframe>", True),
        ("<frameset><frame src=x></frameset>", True),
        ("<META HTTP-EQUIV=refresh content='0;url=/login'>", True),
        ('<form method="post"><input name="refresh" type="submit"></form>', False),
    ],
)
def test_interactive(text: str, expected: bool) -> None:
    """Password fields, frames and refreshes count; a mere button, as devpi has, does not."""
    assert read(f"<html>{text}</html>").interactive is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("<p>text", True), ("<html><body>text", True), ("<title>x</title>text <b", True)),
        *(("<title>x</title>", False), ("<script>x</script>", False), ("<!-- x -->", False)),
    ],
)
def test_has_text(text: str, expected: bool) -> None:
    """Text counts, also where the page is cut behind it; a title and a script do not."""
    page = read(text)
    assert page.has_text is expected
    assert page.has_script is ("script" in text)


def test_long_texts() -> None:
    """Texts of headings and anchors are cut."""
    page = read("<h1>" + "x<b>" * 5000 + "</h1><a href=x>" + "y<b>" * 5000 + "</a>")
    assert len(page.headings[0]) <= 1000
    assert len(page.anchors[0].text) <= 1000
