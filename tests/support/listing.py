"""Pages as the file mirror sees them: what is listed, and how long it takes to know it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from proxpi.simple.model import ListedFile, NotListed


class FakePages:
    """A `Listings` that a test fills.

    :ivar known: the files of each page that is at hand, by project and name
    :ivar fresh: the files that pages turn out to list once they are asked
    :ivar asked_again: which pages were asked anew
    :ivar suppressed: the files that are not said to have metadata any more
    :ivar slow: what asking a page waits for
    :ivar failure: what asking a page raises
    """

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], ListedFile] = {}
        self.fresh: dict[tuple[str, str], ListedFile] = {}
        self.asked_again: list[tuple[str, str]] = []
        self.suppressed: list[tuple[str, str]] = []
        self.slow: Deferred[None] | None = None
        self.failure: Exception | None = None

    def lists(self, entry: dict[str, Any], *, private: bool = False, cold: bool = False) -> None:
        """Let the page of ``demo`` list a file; a cold one has to be asked for it first."""
        listed = ListedFile(entry, private)
        (self.fresh if cold else self.known)["demo", entry["filename"]] = listed

    def ready_file(self, name: str, filename: str) -> ListedFile | None:
        """See `Listings`."""
        return self.known.get((name, filename))

    async def fetch_file(self, name: str, filename: str) -> ListedFile:
        """See `Listings`."""
        if (listed := self.ready_file(name, filename)) is None:
            await self._ask()
            listed = self.ready_file(name, filename)
        if listed is None:
            raise NotListed(filename)
        return listed

    async def refetch_file(self, name: str, filename: str) -> ListedFile | None:
        """See `Listings`."""
        self.asked_again.append((name, filename))
        await self._ask()
        return self.ready_file(name, filename)

    async def suppress_metadata(self, name: str, filename: str) -> None:
        """See `Listings`."""
        self.suppressed.append((name, filename))

    async def _ask(self) -> None:
        if self.slow is not None:
            await self.slow
        if self.failure is not None:
            raise self.failure
        self.known.update(self.fresh)
