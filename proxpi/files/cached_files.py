"""Cached files: whether the cached version of a file may be served, and whether it is fresh.

A file that was found in the cache folder is *unverified*: it is compared with its page, by one
single flight, before its first response; clients wait for that without a deadline. A file with a
digest is then *fresh* for ever. One without is fresh for the time to live of its page after the
upstream had it last. Then it is *stale*: the next request asks the upstream with its validators
(RFC 9110 13.1), or the date of its response; clients wait some seconds for that, then they get the
cached version. If the upstream has another version, the cached one is *outdated*: it is downloaded
anew, and served only where that fails. A found file is stale at once. One without any date stays
fresh. A file in a folder that is an index is not cached, but served from there.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TypeVar

import attrs
from twisted.internet.interfaces import IReactorTime

from proxpi.files.cache_dir import CacheDir, OpenFile
from proxpi.files.extraction import Extraction
from proxpi.files.fetch import is_whole, validators_of
from proxpi.files.folder_files import FolderFiles
from proxpi.files.resolver import FileReference
from proxpi.problems import Problems, upstream_remedy
from proxpi.simple import caching
from proxpi.single_flight import Flights, WaitTimeout
from proxpi.upstream import UpstreamClient, UpstreamFailed

#: Seconds that clients wait for a revalidation before they get the cached version.
DEADLINE = 5.0
#: Seconds after a failed revalidation before the next one, if the time to live is not shorter.
RETRY = 60.0

T = TypeVar("T")


@attrs.define(eq=False, kw_only=True)
class CachedFiles:
    """The cached versions of files; `ttl`: seconds for which one without a digest is fresh."""

    _upstream: UpstreamClient
    _cache_dir: CacheDir
    _extraction: Extraction
    folder_files: FolderFiles
    _clock: IReactorTime
    _problems: Problems
    _checks: Flights[FileReference, bool]
    _revalidations: Flights[FileReference, None]
    _ttl: float
    _outdated: set[FileReference] = attrs.field(init=False, factory=set)

    def ready(self, reference: FileReference) -> OpenFile | None:
        """Open a file that is verified and fresh, or lies in a folder, without waiting."""
        if reference.in_folder:
            return self.folder_files.ready(reference)
        return self._open(reference) if self._is_fresh(reference) else None

    async def open(self, reference: FileReference) -> OpenFile | None:
        """
        Open a file that is not outdated, once it is verified and, if stale, revalidated.

        One in a folder that is an index is opened there, or raises `Gone` or `UpstreamFailed`.
        """
        if reference.in_folder:
            return await self.folder_files.open(reference)
        await self.verify(reference)
        if reference not in self._outdated and not self._is_fresh(reference):
            flight = self._revalidations.join(reference, lambda: self._revalidate(reference))
            until = flight.started + DEADLINE
            if until > self._clock.seconds():
                with suppress(WaitTimeout):
                    await flight.wait(until)
        return None if reference in self._outdated else self._open(reference)

    async def verify(self, reference: FileReference) -> bool:
        """Verify a file if it was found; return whether a version of it is cached."""
        if self._cache_dir.found(reference):
            await self._checks.join(reference, lambda: self._cache_dir.check(reference)).wait()
        return self._cache_dir.verified(reference) is not None

    def is_outdated(self, reference: FileReference) -> bool:
        """Whether the upstream has another version of a cached file."""
        return reference in self._outdated

    def open_outdated(self, reference: FileReference, error: Exception) -> OpenFile:
        """Open the outdated version of a file that cannot be fetched, or raise the error."""
        file = self._cache_dir.open(reference) if reference in self._outdated else None
        if file is None:
            raise error
        return file

    def invalidate(self, reference: FileReference) -> None:
        """Invalidate the freshness of a file that was deleted or replaced; detach its flights."""
        self._checks.detach(reference)
        self._revalidations.detach(reference)
        self._outdated.discard(reference)

    def clear(self) -> None:
        for reference in [*self._checks, *self._revalidations, *self._outdated]:
            self.invalidate(reference)

    def _open(self, reference: FileReference) -> OpenFile | None:
        file = self._cache_dir.open(reference)
        if file is not None:
            self._extraction.begin(reference)
        return file

    def _is_fresh(self, reference: FileReference) -> bool:
        if reference.has_digest:
            return True
        if reference in self._outdated:
            return False
        verified = self._cache_dir.verified(reference)
        if self._upstream.offline or verified is None or not (verified.etag or verified.modified):
            return True
        return caching.remaining(verified.revalidated_at, self._ttl, self._clock.seconds()) > 0

    async def _revalidate(self, reference: FileReference) -> None:
        verified = self._cache_dir.verified(reference)
        assert verified is not None
        conditions = {"If-None-Match": verified.etag, "If-Modified-Since": verified.modified}
        headers = {"Accept": "*/*", **{name: each for name, each in conditions.items() if each}}
        failure: UpstreamFailed | None = None
        try:
            async with self._upstream.file(
                reference.url, headers, index=reference.index
            ) as response:
                if self._cache_dir.verified(reference) != verified:
                    return  # it was deleted meanwhile
                # Some upstreams ignore conditions.
                same = validators_of(response) == (verified.etag, verified.modified)
                if is_whole(reference, response) and not same:
                    self._outdated.add(reference)
                    return
                if response.status not in (200, 203, 206, 304):
                    failure = response.status_error()
        except UpstreamFailed as error:
            failure = error
        revalidated_at = self._clock.seconds()
        if failure is not None:
            self._problems.note(
                ("file", reference.index, failure.kind),
                f"file not revalidated: {failure}",
                "the cached version is served",
                upstream_remedy(failure.kind),
            )
            revalidated_at += min(RETRY - self._ttl, 0.0)
        self._cache_dir.set_revalidated_at(reference, revalidated_at)
