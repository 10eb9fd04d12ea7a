"""The synthetic tree is what its module says, and waste is counted right."""

from __future__ import annotations

import pytest
from first_install import Traffic, requested
from packaging.metadata import Metadata
from tree import ROOT, Tree, below, names, root

LOG = """
2026-12-01T03:33:56+0000 [proxpi.access#info] 127.0.0.1 GET /index/tree-002/ 200 398 MISS 0.072s
2026-12-01T03:33:56+0000 [proxpi.access#info] 127.0.0.1 GET /index/a/a-1%2Bb-py3-none-any.whl.metadata 200 4 HIT 0.0s
2026-12-01T03:33:56+0000 [proxpi.access#info] 127.0.0.1 GET /index/a/a-1%2Bb-py3-none-any.whl 200 4 HIT 0.000s
2026-12-01T03:33:56+0000 [proxpi.access#info] 127.0.0.1 GET /health 200 40 - 0.000s
"""  # noqa: E501


def test_the_tree_hangs_together() -> None:
    """The root requires all 100 projects, over eight levels, and each has two releases."""
    tree, depths, level = Tree(), dict[str, int](), [ROOT]
    for depth in range(len(names())):
        depths |= dict.fromkeys(level, depth)
        level = [name for each in level for name in required(tree, each) if name not in depths]
    assert sorted(depths) == names()
    assert len(names()) == 100
    assert max(depths.values()) in (7, 8)
    assert not tree.page("tree-winonly")


def required(tree: Tree, project: str) -> list[str]:
    """Return what the newest release of a project requires without extras on this system."""
    older, newest = tree.page(project)
    metadata = Metadata.from_email(tree.metadata(project, newest["filename"]))
    assert newest["filename"] > older["filename"]
    return [
        requirement.name
        for requirement in metadata.requires_dist or ()
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    ]


def test_a_smaller_root_requires_fewer_projects() -> None:
    """For a quick run, a root has at most so many projects below it, itself included."""
    assert root(100) == ROOT
    assert 2 <= len(below(root(10))) <= 10


def test_requests_are_read_from_the_access_log() -> None:
    """Pages, metadata and files of an access log are told apart; other requests are left out."""
    name = "a-1+b-py3-none-any.whl"
    assert requested(LOG) == {
        ("page", "tree-002", ""),
        ("metadata", "a", name),
        ("file", "a", name),
    }


def test_waste_is_what_no_client_requested() -> None:
    """A share counts requests and bytes whose page or file the client did not request."""
    used, unused = ("page", "a", ""), ("file", "b", "b-1-py3-none-any.whl")
    traffic = Traffic([(used, 100), (used, 0), (unused, 300)])
    requests, size = traffic.wasted({used})
    assert requests == pytest.approx(100 / 3)
    assert size == 75
    assert Traffic([]).wasted(set()) == (0, 0)
