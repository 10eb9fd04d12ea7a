"""HTML into tokens and facts, by the rules that browsers and package clients follow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.simple.html import MAX_TAG, Attributes, Markup, is_complete_html, unescape_attribute
from tests.support.growth import assert_linear
from tests.support.strategies import deterministic

PIECES = (
    *(
        "<",
        ">",
        "</",
        "/>",
        "<!--",
        "-->",
        "--!>",
        "<!",
        "<?",
        "<![CDATA[",
        "]]>",
        "</a>",
        "a",
        " ",
    ),
    *("<a ", "href=", '"', "'", "=", "&amp;", "<script", "</script>", "<title>", "</title", "\n"),
)


class Recorder(Markup):
    """Records tokens, neighbouring texts joined."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.attributes: Attributes = {}
        self._after_text = False

    def text(self, value: str) -> None:
        if self._after_text:
            value = self.found.pop() + value
        self.found.append(value)
        self._after_text = True

    def start(self, tag: str, attributes: Attributes) -> None:
        self.found.append(f"<{tag}>")
        self.attributes, self._after_text = attributes, False

    def end(self, tag: str) -> None:
        self.found.append(f"</{tag}>")
        self._after_text = False


def tokens(page: str, size: int = 1 << 20) -> list[str]:
    """Return the tokens of a page that comes in chunks of a size."""
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


HOSTILE = (
    *("<![CDATA[ >", "<!--", "<!-- -->", "<![if", "<!", "<?", "</", "<", "<a ", "<a x=", "<a x='"),
    *('<a x="', "<a x='\"", "<b/", "<b x ", "&", "&amp", "&#9", "<a x=&a", "<script>", "<title>"),
    *("<textarea ", "<script></scrip", "<title></title", "<div>", "</div>", "<a>", "x ", "--"),
    *("]]>", "<a href='&#x41;&lt&nope'>", "<!-->", "<a a a=a>", "< ", "<style></style"),
    *("<!DOCTYPE ", "\x00"),
)


@pytest.mark.parametrize("piece", HOSTILE)
def test_linear(piece: str) -> None:
    """The time grows with the length of the page, with any text repeated in it."""
    for before, size in (("", 1 << 30), ("", 64 * 1024), ("<a x=\"y' ", 1 << 30)):
        assert_linear(
            lambda page, size=size: tokens(page, size),  # type: ignore[misc]
            lambda count, before=before: before + piece * count,  # type: ignore[misc]
            5_000,
        )


WHOLE = (
    *(b"<html></html>", b"<html></HTML>\r\n\t ", b"<html></html >", b"</html> text </html>"),
    *(b"<html></html>\n<!--SERIAL 12345-->\n", b"<html></html><!-- a --><!-- b -->"),
)
CUT = (
    *(b"", b"<html>", b"<html><a href=x>x</a>", b"<html></htm", b"<html></html", b"</html> text"),
    *(b"</html><!-- cut", b"</html>" + b"<!---->" * 5000 + b"x"),
)


def test_complete() -> None:
    """A page that ends with its last tag is whole; space and comments may follow."""
    assert [body for body in (*WHOLE, *CUT) if is_complete_html(body)] == [*WHOLE]


def read(text: str) -> Markup:
    """Read a page that comes in two chunks."""
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
        *(({"href": "a.zip"}, "a&b"), ({"href": "b&c", "data-yanked": None}, "x")),
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


def test_interactive() -> None:
    """Password fields, frames and refreshes count; a mere button, as devpi has, does not."""
    for text in (
        *("<input type=Password>", "<iframe src=x></iframe>"),
        *("<frameset><frame src=x></frameset>", "<META HTTP-EQUIV=refresh content='0;url=/login'>"),
    ):
        assert read(f"<html>{text}</html>").interactive, text
    assert not read('<form method="post"><input name="refresh" type="submit"></form>').interactive


def test_has_text() -> None:
    """Text counts, also where the page is cut behind it; a title and a script do not."""
    for text in ("<p>text", "<html><body>text", "<title>x</title>text <b"):
        assert (read(text).has_text, read(text).has_script) == (True, False)
    for text in ("<title>x</title>", "<script>x</script>", "<!-- x -->"):
        assert (read(text).has_text, read(text).has_script) == (False, "script" in text)


def test_long_texts() -> None:
    """Texts of headings and anchors are cut, and a tag that is too long in chunks is skipped."""
    page = read("<h1>" + "x<b>" * 5000 + "</h1><a href=x>" + "y<b>" * 5000 + "</a>")
    assert len(page.headings[0]) <= 1000
    assert len(page.anchors[0].text) <= 1000
    assert tokens("<a href='" + "x" * (2 * MAX_TAG) + "'>t<b>", 1000) == ["t", "<b>"]
