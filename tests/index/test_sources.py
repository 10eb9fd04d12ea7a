"""Views: which indexes may have a project, and in which order."""

from __future__ import annotations

import pytest

from proxpi.index.sources import Member, Members, View
from proxpi.simple.selectors import name_pattern
from tests.support.cases import Case
from tests.support.indexes import Indexes

URLS = tuple(f"https://{name}.example/simple/" for name in ("internal", "cuda", "public"))
PUBLIC, CUDA, INTERNAL = "public.example", "cuda.example", "internal.example"


class SourcesTests(Case):
    def setUp(self) -> None:
        super().setUp()
        self.internal, self.cuda, self.public = Indexes(URLS, (1800.0,) * 3).clients
        self.members = Members(
            [
                Member(self.internal, owns=(name_pattern("acme-*"),)),
                Member(self.cuda, projects=(name_pattern("torch*"), name_pattern("nvidia-*"))),
                Member(self.public),
            ]
        )

    def sources(self, name: str, *indexes: object) -> list[str]:
        chosen = tuple(each for each in self.members.indexes if not indexes or each in indexes)
        view = View("default", chosen, self.members)
        return [index.name for index in view.sources(name)]

    def test_table(self) -> None:
        """An owned project comes from its owner alone, others from the indexes that may have it."""
        table = {
            "acme-tool": [INTERNAL],
            "acme": [INTERNAL, PUBLIC],
            "torch": [INTERNAL, CUDA, PUBLIC],
            "torchvision": [INTERNAL, CUDA, PUBLIC],
            "nvidia": [INTERNAL, PUBLIC],
            "numpy": [INTERNAL, PUBLIC],
        }
        assert {name: self.sources(name) for name in table} == table

    def test_view_without_the_owner(self) -> None:
        """Where the owner is missing, an owned project has no source at all."""
        assert self.sources("acme-tool", self.public, self.cuda) == []
        assert self.sources("numpy", self.public, self.cuda) == [PUBLIC]

    def test_order(self) -> None:
        """The order is that of the view."""
        view = View("x", (self.public, self.cuda), self.members)
        assert [index.name for index in view.sources("torch")] == [PUBLIC, CUDA]

    def test_equal_sources(self) -> None:
        """The same sources in two views are one object, by which the views share pages."""
        one = View("one", (self.cuda, self.public), self.members)
        other = View("other", (self.public,), self.members)
        assert one.sources("numpy") is other.sources("numpy")
        assert one.sources("torch") is not other.sources("torch")
        assert one.sources("torch").key != other.sources("torch").key

    def test_an_owner_needs_no_projects(self) -> None:
        """An index has the names that it owns, whatever its ``projects`` are."""
        members = Members(
            [
                Member(self.public),
                Member(self.internal, (name_pattern("other"),), (name_pattern("acme-*"),)),
            ]
        )
        view = View("default", tuple(members.indexes), members)
        assert [index.name for index in view.sources("acme-tool")] == [INTERNAL]
        assert [index.name for index in view.sources("numpy")] == [PUBLIC]

    def test_several_owners(self) -> None:
        """Of several owners all are sources, in the order of the view."""
        members = Members(
            [
                Member(self.internal, owns=(name_pattern("acme-*"),)),
                Member(self.cuda, owns=(name_pattern("*-tool"),)),
                Member(self.public),
            ]
        )
        view = View("default", tuple(members.indexes), members)
        assert [index.name for index in view.sources("acme-tool")] == [INTERNAL, CUDA]

    def test_owners_in_views(self) -> None:
        """A project that two indexes own comes, in a view with one of them, from that one."""
        own = (name_pattern("torch"),)
        members = Members(
            [Member(self.internal, owns=own), Member(self.cuda, owns=own), Member(self.public)]
        )
        view = View("cuda", (self.cuda, self.public), members)
        assert [index.name for index in view.sources("torch")] == [CUDA]

    def test_unrestricted(self) -> None:
        """Without patterns all indexes are the sources of each project."""
        members = Members([Member(self.cuda), Member(self.public)])
        view = View("default", tuple(members.indexes), members)
        assert view.sources("torch") is view.sources("acme-tool") is view.all


@pytest.mark.parametrize("name", ["acme-tool", "numpy"])
def test_many_names(name: str) -> None:
    """The sources of a name are the same after a view has forgotten them."""
    internal, public, _ = Indexes(URLS, (1800.0,) * 3).clients
    members = Members([Member(internal, owns=(name_pattern("acme-*"),)), Member(public)])
    view = View("default", (internal, public), members)
    first = view.sources(name)
    for number in range(20_001):
        view.sources(f"p{number}")
    assert view.sources(name) is first
