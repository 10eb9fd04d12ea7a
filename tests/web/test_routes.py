"""Routes: which project or file a path names."""

from __future__ import annotations

from urllib.parse import quote, urljoin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.web.routes import FileRoute, ListRoute, PageRoute, RedirectRoute, find_route, find_view

ROUTES = {
    b"/index/": ListRoute(),
    b"//simple//": ListRoute(),
    b"/index": RedirectRoute("index/"),
    b"//simple": RedirectRoute("simple/"),
    b"/simple/demo/": PageRoute("demo"),
    b"//index//demo//": PageRoute("demo"),
    b"/index/%64emo/": PageRoute("demo"),
    b"/index/demo": RedirectRoute("demo/"),
    b"/index/My.Pkg": RedirectRoute("my-pkg/"),
    b"/index/my__pkg/": RedirectRoute("../my-pkg/"),
    b"/index/MY-PKG//": RedirectRoute("../../my-pkg/"),
    b"/index/My_Pkg/x.whl": FileRoute("my-pkg", "x.whl"),
    b"//index//demo//x.whl.metadata": FileRoute("demo", "x.whl.metadata"),
    b"/index/demo/x-1.0+cpu.whl": FileRoute("demo", "x-1.0+cpu.whl"),
    b"/index/demo/x-1.0%2Bcpu.whl": FileRoute("demo", "x-1.0+cpu.whl"),
    b"/index/demo/x%252B.whl": FileRoute("demo", "x%2B.whl"),
    "/index/demo/ü.whl".encode(): FileRoute("demo", "ü.whl"),
    b"/index/demo/%C3%BC.whl": FileRoute("demo", "ü.whl"),
    b"/index/list/x.whl": FileRoute("list", "x.whl"),
}
NAMELESS = [
    *(b"-demo/", b"demo%0A/", b"f%C3%B6/", b"%ff/", b"../", b"%2e%2e/", b"%2E%2E%2Fetc/"),
    *(b"demo/../x", b"demo/..", b"demo/.", b"demo/%2e%2e", b"demo/a%2Fb.whl", b"demo/x%00.whl"),
    *(b"demo/x%0d%0aSet-Cookie:y", b"demo/x%1b[2J", b"demo/%ff.whl", b"demo/x.whl/", b"demo/a/b"),
    *(b"demo/" + b"x" * 10_000, b"x" * 10_000 + b"/", b"a%2Fb/"),
]
OUTSIDE = [
    b"/",
    b"",
    b"/health",
    b"/indexes/",
    b"/%69ndex/",
    b"/cache/index/",
    b"/Index/",
    b"/index%2F",
]


def test_routes() -> None:
    """Every spelling of a page or file has its route; a page has one URL in normal form."""
    assert {path: find_route(path) for path in ROUTES} == ROUTES
    assert all(find_view(path, ()) == (b"", path) for path in ROUTES)


@pytest.mark.parametrize("path", [*(b"/index/" + name for name in NAMELESS), *OUTSIDE])
def test_no_route(path: bytes) -> None:
    """A path outside the tree, or that can name no project or file, has no route."""
    assert find_route(path) is None
    assert (find_view(path, ()) is None) is (path in OUTSIDE)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (b"/cu126/index/demo/", (b"cu126", b"/index/demo/")),
        (b"//cu126//simple//demo/", (b"cu126", b"//simple//demo/")),
        (b"/cu126/index", (b"cu126", b"/index")),
        (b"/index/cu126/index/", (b"", b"/index/cu126/index/")),
        (b"/cu126/", None),
        (b"/cu126", None),
        (b"/other/index/demo/", None),
        (b"/cu126/cache/demo", None),
    ],
)
def test_views(path: bytes, found: tuple[bytes, bytes] | None) -> None:
    """The name of a view stands before the tree; other paths lie outside."""
    assert find_view(path, {b"cu126"}) == found


SEGMENTS = st.lists(
    st.one_of(
        st.binary(max_size=12).map(lambda data: quote(data).encode()),
        st.binary(max_size=12),
        st.sampled_from([b"", b".", b"..", b"%2e%2e", b"%2F", b"%00", b"demo", b"My.Pkg", b"%"]),
    ),
    max_size=5,
)


@given(st.sampled_from([b"/index", b"//simple", b"///index"]), SEGMENTS)
def test_any_path(root: bytes, segments: list[bytes]) -> None:
    """No path raises an error, or leads out of its folder or to another host."""
    path = b"/".join([root, *(segment.replace(b"?", b"") for segment in segments)])
    route = find_route(path)
    if isinstance(route, FileRoute):
        for name in (route.name, route.filename):
            assert name not in ("", ".", "..")
            assert not {"/", "\0", "\r", "\n"} & set(name)
        assert route.name == route.name.lower()
    if isinstance(route, RedirectRoute):
        assert "//" not in route.location and ":" not in route.location


@pytest.mark.parametrize("name", ["My.Pkg", "a__b", "demo", "A"])
def test_redirect(name: str) -> None:
    """One redirect, resolved as a browser does, leads to the page."""
    for path in (f"/index/{name}", f"/simple/{name}/"):
        route = find_route(path.encode())
        if isinstance(route, RedirectRoute):
            route = find_route(urljoin(path, route.location).encode())
        assert isinstance(route, PageRoute)
