"""What a path under ``/index/`` means."""

from __future__ import annotations

from urllib.parse import quote, urljoin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.web.routes import (
    FileRoute,
    ListRoute,
    PageRoute,
    RedirectRoute,
    Route,
    find_route,
    in_tree,
)

WHEEL = "demo-1.0-py3-none-any.whl"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/index/", ListRoute()),
        (b"/simple/", ListRoute()),
        (b"/index", RedirectRoute("index/")),
        (b"//index", RedirectRoute("index/")),
        (b"//simple//", ListRoute()),
        (b"/index/demo/", PageRoute("demo")),
        (b"/simple/demo/", PageRoute("demo")),
        (b"//index//demo//", PageRoute("demo")),
        (b"/index/%64emo/", PageRoute("demo")),
        (b"/index/demo", RedirectRoute("demo/")),
        (b"/index/My.Pkg", RedirectRoute("my-pkg/")),
        (b"/index/My.Pkg/", RedirectRoute("../my-pkg/")),
        (b"/index/my__pkg/", RedirectRoute("../my-pkg/")),
        (b"/index/MY-PKG/", RedirectRoute("../my-pkg/")),
        (b"/index/MY-PKG//", RedirectRoute("../../my-pkg/")),
        (b"/index/demo/" + WHEEL.encode(), FileRoute("demo", WHEEL)),
        (b"/index/My_Pkg/x.whl", FileRoute("my-pkg", "x.whl")),
        (b"/index/demo/x.whl.metadata", FileRoute("demo", "x.whl.metadata")),
        (b"/index/demo/x-1.0+cpu.whl", FileRoute("demo", "x-1.0+cpu.whl")),
        (b"/index/demo/x-1.0%2Bcpu.whl", FileRoute("demo", "x-1.0+cpu.whl")),
        (b"/index/demo/x-1.0%2bcpu.whl", FileRoute("demo", "x-1.0+cpu.whl")),
        (b"/index/demo/x%252B.whl", FileRoute("demo", "x%2B.whl")),
        (b"//index//demo//x.whl", FileRoute("demo", "x.whl")),
        ("/index/demo/ü.whl".encode(), FileRoute("demo", "ü.whl")),
        (b"/index/demo/%C3%BC.whl", FileRoute("demo", "ü.whl")),
        (b"/index/list/x.whl", FileRoute("list", "x.whl")),
    ],
)
def test_meaning(path: bytes, expected: Route) -> None:
    """Each spelling of a page or file means it; pages have one proper URL, files any."""
    assert in_tree(path)
    assert find_route(path) == expected


@pytest.mark.parametrize(
    "path",
    [
        b"/index/-demo/",
        b"/index/demo%0A/",
        b"/index/f%C3%B6%C3%B6/",
        b"/index/%ff/",
        b"/index/../",
        b"/index/%2e%2e/",
        b"/index/%2E%2E%2Fetc/",
        b"/index/a%2Fb/",
        b"/index/demo/../x",
        b"/index/demo/..",
        b"/index/demo/.",
        b"/index/demo/%2e%2e",
        b"/index/demo/a%2Fb.whl",
        b"/index/demo/..%2F..%2Fetc%2Fpasswd",
        b"/index/demo/x%00.whl",
        b"/index/demo/x%0d%0aSet-Cookie:y",
        b"/index/demo/x%1b[2J",
        b"/index/demo/%ff.whl",
        b"/index/demo/x.whl/",
        b"/index/demo/a/b.whl",
        b"/index/demo/" + b"x" * 10_000,
        b"/index/" + b"x" * 10_000 + b"/",
    ],
)
def test_nothing(path: bytes) -> None:
    """What can name no project or file names none."""
    assert find_route(path) is None


@pytest.mark.parametrize(
    "path",
    [b"/", b"", b"/health", b"/indexes/", b"/%69ndex/", b"/cache/index/", b"/Index/", b"/index%2F"],
)
def test_not_in_the_tree(path: bytes) -> None:
    """Everything else is somebody else's, and means nothing here."""
    assert not in_tree(path)
    assert find_route(path) is None


PATHS = st.lists(
    st.one_of(
        st.binary(max_size=12).map(lambda data: quote(data).encode()),
        st.binary(max_size=12),
        st.sampled_from([b"", b".", b"..", b"%2e%2e", b"%2F", b"%00", b"demo", b"My.Pkg", b"%"]),
    ),
    max_size=5,
)


@given(st.sampled_from([b"/index", b"//simple", b"///index"]), PATHS)
def test_any_path(root: bytes, segments: list[bytes]) -> None:
    """No path is an error, and none means anything outside its place."""
    path = b"/".join([root, *(segment.replace(b"?", b"") for segment in segments)])
    assert in_tree(path)
    found = find_route(path)
    if isinstance(found, FileRoute):
        for part in (found.name, found.filename):
            assert part not in ("", ".", "..")
            assert not {"/", "\0", "\r", "\n"} & set(part)
        assert found.name == found.name.lower()
    if isinstance(found, RedirectRoute):
        assert "//" not in found.location and ":" not in found.location


@given(st.sampled_from(["/index", "/simple"]), st.sampled_from(["My.Pkg", "a__b", "demo", "A"]))
def test_moved_leads_there(root: str, name: str) -> None:
    """A redirect leads, by way of a browser's rules, to the proper page, and is the only one."""
    for path in (f"{root}/{name}", f"{root}/{name}/"):
        found = find_route(path.encode())
        if isinstance(found, RedirectRoute):
            found = find_route(urljoin(path, found.location).encode())
        assert isinstance(found, PageRoute)
