"""Pages in the shape that known servers give them, shortened to a file or two."""

from __future__ import annotations

from typing import Any

import pytest

from proxpi.simple.parse import parse_project

A, B = "a" * 64, "b" * 64
WHEEL, SDIST = "foo-1.0-py3-none-any.whl", "foo-1.0.tar.gz"
URL = "https://index.example/repo/simple/foo/"
REPO = "https://index.example/repo"

# A row: which server, where its page is, the page, and its files by name: URL, digest, the rest.
_SHAPES: list[tuple[str, str, str, dict[str, tuple[str, str | None, dict[str, Any]]]]] = [
    (
        "Nexus",
        URL,
        f"""<html lang="en">
<head><title>Links for foo</title>
  <meta name="api-version" value="2"/>
</head>
<body><h1>Links for foo</h1>
    <a href="../../packages/foo/1.0/{WHEEL}#sha256={A}" rel="internal" \
data-requires-python="&gt;=3.7">{WHEEL}</a><br/>
    <a href="../../packages/packages/ab/cd/{B}/{SDIST}?originalHref=..%2F..%2Fx#sha256={B}" \
rel="internal">{SDIST}</a><br/>
</body>
</html>""",
        {
            WHEEL: (f"{REPO}/packages/foo/1.0/{WHEEL}", A, {"requires-python": ">=3.7"}),
            SDIST: (
                f"{REPO}/packages/packages/ab/cd/{B}/{SDIST}?originalHref=..%2F..%2Fx",
                B,
                {},
            ),
        },
    ),
    (
        "Artifactory",
        URL,
        f"""<!DOCTYPE html>
<html><head><title>Simple Index</title><meta name="api-version" value="2" /></head><body>
<a href="../../foo/1.0/{WHEEL}#sha256={A}"data-requires-python=">=3.7,<4"rel="internal"\
data-core-metadata="sha256={B}">{WHEEL}</a><br>
<a data-requires-python="&gt;=3.7" data-yanked="" href='../../foo/1.0/{SDIST}#sha256={B}' >\
{SDIST}</a><br></body></html>""",
        {
            WHEEL: (
                f"{REPO}/foo/1.0/{WHEEL}",
                A,
                {"requires-python": ">=3.7,<4", "core-metadata": {"sha256": B}},
            ),
            SDIST: (f"{REPO}/foo/1.0/{SDIST}", B, {"requires-python": ">=3.7", "yanked": True}),
        },
    ),
    (
        "devpi",
        "https://index.example/root/dev/+simple/foo/",
        f"""<!DOCTYPE html>
<html><head><title>root/dev: links for foo</title></head><body>
<h1>root/dev: links for foo</h1>
<form action="/root/dev/+simple/foo/refresh" method="post">\
<input name="refresh" type="submit" value="Refresh" /></form>
<p>INFO: Because this project isn't in the <code>mirror_whitelist</code>, nothing is mixed in.</p>
root/dev <a href="../../+f/aaa/{A}/{WHEEL}#sha256={A}" data-requires-python="&gt;=3.7" \
data-yanked="too &lt;old&gt;">{WHEEL}</a><br/>
<a href="../../../pypi/+e/https_files.example_foo/{SDIST}#md5={"c" * 32}">{SDIST}</a>
</body></html>""",
        {
            WHEEL: (
                f"https://index.example/root/dev/+f/aaa/{A}/{WHEEL}",
                A,
                {"requires-python": ">=3.7", "yanked": "too <old>"},
            ),
            SDIST: (
                f"https://index.example/root/pypi/+e/https_files.example_foo/{SDIST}",
                None,
                {},
            ),
        },
    ),
    (
        "Apache",
        URL,
        f"""<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 3.2 Final//EN">
<html>
 <head>
  <title>Index of /repo/simple/foo</title>
 </head>
 <body>
<h1>Index of /repo/simple/foo</h1>
  <table>
   <tr><th valign="top"><img src="/icons/blank.gif" alt="[ICO]"></th>\
<th><a href="?C=N;O=D">Name</a></th><th><a href="?C=M;O=A">Last modified</a></th></tr>
<tr><td>&nbsp;</td><td><a href="/repo/simple/">Parent Directory</a></td><td>&nbsp;</td></tr>
<tr><td>&nbsp;</td><td><a href="{WHEEL}">foo-1.0-py3-none-a..&gt;</a></td><td>1.0K</td></tr>
<tr><td>&nbsp;</td><td><a href="old/">old/</a></td><td>-</td></tr>
</table>
<address>Apache/2.4 Server at index.example Port 443</address>
</body></html>
""",
        {WHEEL: (URL + WHEEL, None, {})},
    ),
]


@pytest.mark.parametrize("shape", _SHAPES, ids=[shape[0] for shape in _SHAPES])
def test_shapes_of_known_servers(shape: tuple[str, str, str, dict[str, Any]]) -> None:
    """Each file is found with its absolute URL, its digest and what else the page says of it."""
    _, url, page, expected = shape
    found = {}
    for entry in parse_project(page.encode(), None, url, "foo").files:
        rest = {key: entry[key] for key in entry if key not in ("filename", "url", "hashes")}
        found[entry["filename"]] = (entry["url"], entry["hashes"].get("sha256"), rest)
    assert found == expected
