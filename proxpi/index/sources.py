"""Views: which indexes may have a project, by the view that a client uses, and in which order.

A *view* is a list of indexes in order of precedence. The *sources* of a project in a view are those
of its indexes that may have the project. An index *owns* the names that match its ``owns``: in each
view the sources of such a project are its owners alone, and none where the view lacks them. Any
other project comes from the indexes without ``projects``, and from those whose ``projects`` match.
So a public project never takes the place of an internal one, whether the owner responds or not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import attrs

from proxpi.index.breaker import Breakers
from proxpi.index.index_response import IndexPage, IndexResponse, StoredResponse
from proxpi.index.index_status import IndexStatus
from proxpi.index.list_store import ListFile, ListStore
from proxpi.simple import NamePattern
from proxpi.upstream import Queue, UpstreamFailed

#: Projects whose sources a view remembers.
REMEMBERED = 20_000


class Index(Protocol):
    """One index: what the page cache, the revalidation and the project list need of it.

    :ivar url: its root, with a slash at its end; `name`: that of the configuration
    :ivar identity: its name in the stores: 16 hexadecimal digits
    :ivar private: whether requests to it carry credentials
    :ivar offline: whether no request may be sent to it
    """

    name: str
    url: str
    breakers: Breakers

    def __hash__(self) -> int: ...

    @property
    def identity(self) -> str: ...

    @property
    def private(self) -> bool: ...

    @property
    def offline(self) -> bool: ...

    def status(self) -> IndexStatus:
        """Return its status for the admin page."""

    def guards(self, url: str) -> bool:
        """Whether a client could not fetch a file of this index from upstream by itself."""

    def timeout_error(self, page: str, since: float) -> UpstreamFailed:
        """Return the error for a page that has not arrived: a failure since then or a timeout."""

    def remaining(self, stored: StoredResponse | None) -> float:
        """Seconds for which a response stays fresh."""

    async def project(
        self,
        name: str,
        stored: StoredResponse | None,
        on_bytes: Callable[[int], object],
        queue: Queue | None = None,
    ) -> IndexResponse[IndexPage]:
        """Request the page of a project, by its normalized name.

        :param stored: the last response, which the index may confirm
        :param on_bytes: is called with the bytes that arrive; with 0 for the head of a response
        :raises UpstreamFailed: if the index fails; absence is a response
        """

    async def project_list(
        self,
        stored: StoredResponse | None,
        lists: ListStore,
        on_bytes: Callable[[int], object],
        queue: Queue | None = None,
    ) -> IndexResponse[ListFile]:
        """Request the names of all projects, which go into a file of the store.

        :raises UpstreamFailed: if the index fails
        :raises OSError: if the file cannot be written
        """


@attrs.frozen(eq=False)
class Member:
    """An index with its rules of names.

    :ivar projects: patterns of the names that it may have; ``None``: all
    :ivar owns: patterns of the names that no other index may have
    """

    index: Index
    projects: tuple[NamePattern, ...] | None = None
    owns: tuple[NamePattern, ...] = ()

    def owns_project(self, name: str) -> bool:
        return any(pattern.matches(name) for pattern in self.owns)

    def may_have(self, name: str) -> bool:
        return self.projects is None or any(pattern.matches(name) for pattern in self.projects)


@attrs.frozen(eq=False)
class Sources:
    """The indexes that may have a project, in order of precedence; equal ones are one object.

    :ivar key: tells these sources from others in the stores
    """

    indexes: tuple[Index, ...]
    key: str = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        identities = ",".join(index.identity for index in self.indexes)
        object.__setattr__(self, "key", hashlib.sha256(identities.encode()).hexdigest()[:16])

    def __iter__(self) -> Iterator[Index]:
        return iter(self.indexes)


@attrs.define(eq=False)
class Members:
    """All indexes of the configuration, in its order; makes the sources of projects.

    :ivar restricts: whether the sources of two projects can differ
    """

    _members: Sequence[Member]
    restricts: bool = attrs.field(init=False)
    _made: dict[tuple[Index, ...], Sources] = attrs.field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self.restricts = any(each.owns or each.projects is not None for each in self._members)

    @property
    def indexes(self) -> list[Index]:
        return [member.index for member in self._members]

    def having(self, name: str) -> list[Index]:
        """Return the indexes that may have a project: its owners, if there are any."""
        owners = [each.index for each in self._members if each.owns_project(name)]
        return owners or [each.index for each in self._members if each.may_have(name)]

    def sources(self, indexes: tuple[Index, ...]) -> Sources:
        """Return the one object for some indexes in this order."""
        return self._made.setdefault(indexes, Sources(indexes))


@attrs.define(eq=False)
class View:
    """A view; `name` is the first segment of its URLs, and ``default`` has none.

    :ivar all: all of its indexes: the sources of its project list
    :ivar restricts: whether an index may lack names that it lists
    """

    name: str
    indexes: tuple[Index, ...]
    _members: Members
    all: Sources = attrs.field(init=False)
    restricts: bool = attrs.field(init=False)
    _sources: dict[str, Sources] = attrs.field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self.all = self._members.sources(self.indexes)
        self.restricts = self._members.restricts

    def sources(self, name: str) -> Sources:
        """Return the sources of a project, by its normalized name."""
        if not self.restricts:
            return self.all
        if (found := self._sources.get(name)) is None:
            if len(self._sources) >= REMEMBERED:
                self._sources.clear()
            having = self._members.having(name)
            chosen = tuple(index for index in self.indexes if index in having)
            found = self._sources[name] = self._members.sources(chosen)
        return found

    def may_have(self, index: Index, name: str) -> bool:
        """Whether an index of the view may have a project; for many names, in any thread."""
        return index in self._members.having(name)
