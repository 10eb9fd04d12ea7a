"""HTML as it is found in the wild, read into facts."""

from __future__ import annotations

import pytest

from proxpi.simple.html import is_complete_html, read


@pytest.mark.parametrize(
    "body",
    [
        b"<html></html>",
        b"<html></HTML>\r\n\t ",
        b"<html></html >",
        b"<html></html>\n<!--SERIAL 12345-->\n",
        b"<html></html><!-- a --><!-- b -->",
        b"</html> text </html>",
    ],
)
def test_complete(body: bytes) -> None:
    """A page that ends with its last tag is whole; space and comments may follow."""
    assert is_complete_html(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"<html><a href=x>x</a>",
        b"<html></htm",
        b"<html></html",
        b"</html> text",
        b"</html><!-- cut",
        b"</html>" + b"<!---->" * 5000 + b"x",
    ],
)
def test_incomplete(body: bytes) -> None:
    """A page that ends before its last tag is not whole, and finding out is quick."""
    assert not is_complete_html(body)


def test_anchors() -> None:
    """Attributes without quotes, in any case, twice or with entities; text in pieces."""
    page = read(
        """<A HREF=a.zip>a&amp;<b>b</b></A>
        <a href="b&amp;c" href=d data-yanked>x<a href='e'>y</a>"""
    )
    assert [(anchor.attributes, anchor.text) for anchor in page.anchors] == [
        ({"href": "a.zip"}, "a&b"),
        ({"href": "b&c", "data-yanked": None}, "x"),
        ({"href": "e"}, "y"),
    ]


def test_what_is_not_markup_has_no_anchors() -> None:
    """Comments and scripts contain no links."""
    page = read("<!-- <a href=a>a</a> --><script>'<a href=b>b</a>'</script><style><a></style>")
    assert page.anchors == []
    assert page.scripted
    assert not page.written


def test_facts() -> None:
    """The first base, metas by name and headings are found, in whatever case."""
    page = read(
        """<HTML><base target=x><BASE HREF="/b/"><base href="/c/"><title>One <b>Two</b></title>
        <meta name=" Pypi:X " content="1"><meta name="pypi:x" content="2">
        <meta name=y><meta charset=z>
        <h1>Three</h1>"""
    )
    assert page.base == "/b/"
    assert page.metas == {"pypi:x": "1", "y": ""}
    assert page.headings == ["one two", "three"]
    assert page.written
    assert not (page.barred or page.scripted)


@pytest.mark.parametrize(
    "text",
    [
        "<input type=Password>",
        "<iframe src=x></iframe>",
        "<frameset><frame src=x></frameset>",
        "<META HTTP-EQUIV=refresh content='0;url=/login'>",
    ],
)
def test_what_no_listing_has(text: str) -> None:
    """Password fields, frames and refreshes are noticed."""
    assert read(f"<html>{text}</html>").barred


def test_a_form_without_a_password_is_harmless() -> None:
    """Some servers put a button for refreshing on their listings."""
    assert not read('<form method="post"><input name="refresh" type="submit"></form>').barred


@pytest.mark.parametrize("text", ["<p>text", "<html><body>text", "<title>x</title>text <b"])
def test_text_is_noticed(text: str) -> None:
    """Text counts as text, also where the page is cut behind it; a title does not."""
    assert read(text).written
    assert not read("<title>x</title>").written


def test_long_texts_are_cut() -> None:
    """Markup in endless pieces costs no more than its length."""
    page = read("<h1>" + "x<b>" * 5000 + "</h1><a href=x>" + "y<b>" * 5000 + "</a>")
    assert len(page.headings[0]) <= 1000
    assert len(page.anchors[0].text) <= 1000


@pytest.mark.parametrize("text", ["<![foo[ bar ]]>", "<![if", "<p>&#" + "9" * 5000 + ";</p>"])
def test_what_the_parser_gives_up_on(text: str) -> None:
    """Where the standard library's parser gives up there is a ValueError and nothing else."""
    try:
        page = read(text)
    except ValueError:
        return
    assert page.anchors == []
