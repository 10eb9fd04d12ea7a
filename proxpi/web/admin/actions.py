"""The actions of cache API and admin page: what each does, and the sentence that says so.

The admin page shows the sentence after a redirect, whose URL has a random key of it: so no link of
another site can make the page state a false result.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Mapping

import attrs
from twisted.internet.defer import FirstError, gatherResults, maybeDeferred

from proxpi import quantities
from proxpi.files import Mirror, Removed
from proxpi.index import ListEntries, PageCache, PageEntries, Refetched

#: Results that can still be shown.
MAX_RESULTS = 100
NEXT = "The next request fetches {} again."


@attrs.frozen
class Result:
    """The outcome of an action, as a sentence."""

    text: str
    failed: bool = False


@attrs.frozen(eq=False)
class Results:
    """The last results, by their keys."""

    _results: OrderedDict[str, Result] = attrs.field(init=False, factory=OrderedDict)

    def add(self, result: Result) -> str:
        """Keep a result; return its key."""
        key = secrets.token_urlsafe(9)
        self._results[key] = result
        if len(self._results) > MAX_RESULTS:
            self._results.popitem(last=False)
        return key

    def find(self, key: str) -> Result | None:
        return self._results.get(key)


@attrs.frozen(eq=False)
class Actions:
    """The actions; each raises an `OSError` if the disk refuses it.

    :param entries: the pages of all views, and `pages`: those of each view, by its name
    """

    _entries: PageEntries
    _pages: Mapping[str, PageCache]
    _projects: ListEntries
    _mirror: Mirror

    def forget_list(self) -> Result:
        self._projects.invalidate()
        return Result(f"The project list is forgotten. {NEXT.format('it')}")

    def forget_project(self, project: str) -> Result:
        known = bool(self._entries.peek(project).responses)
        self._entries.invalidate(project)
        if not known:
            return Result(f"There was no page of {project} in the cache.")
        return Result(f"{project} is forgotten. {NEXT.format('its page')} Its files stay.")

    async def forget_file(self, project: str, filename: str) -> Result:
        """Delete a file with its metadata and signature, also during its download."""
        removed = await self._mirror.delete(project, filename)
        if not removed.files:
            return Result(f"There was no file {filename} of {project} in the cache.")
        return Result(f"{filename} is removed: {_describe(removed)}. {NEXT.format('it')}")

    async def forget_everything(self) -> Result:
        """Remove all pages, lists and files for good."""
        clears = (self._mirror.clear, self._projects.clear, self._entries.clear)
        try:
            removed, *_ = await gatherResults(
                [maybeDeferred(clear) for clear in clears], consumeErrors=True
            )
        except FirstError as error:
            error.subFailure.raiseException()
        assert isinstance(removed, Removed)
        return Result(f"Everything is removed: all pages, and {_describe(removed)}.")

    async def refetch(self, project: str) -> Result:
        """Revalidate a page now at the indexes of all views."""
        found: dict[str, Refetched] = {}
        for pages in self._pages.values():
            found = await pages.refetch(project) | found
        if not found:
            return Result(f"No index may have {project}: nothing was requested.", failed=True)
        parts = "; ".join(f"{name} {_outcome(each)}" for name, each in found.items())
        failed = any(each.outcome == "failed" for each in found.values())
        return Result(f"The page of {project}: {parts}.", failed)


def _describe(removed: Removed) -> str:
    return f"{quantities.counted(removed.files, 'file')} of {quantities.size(removed.size)}"


def _outcome(refetched: Refetched) -> str:
    if refetched.outcome == "failed":
        kept = "its last page is kept" if refetched.usable else "nothing of it is cached"
        return f"failed ({refetched.cause}; {kept})"
    return {
        "changed": "has sent a new page",
        "unchanged": "has confirmed it",
        "absent": "does not have the project",
        "recent": "was asked a moment ago",
    }[refetched.outcome]
