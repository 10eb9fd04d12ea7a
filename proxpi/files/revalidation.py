"""Revalidation of cached files that have no digest: only their upstream knows whether they changed.

Such a file is *current* for the time to live of its page after the upstream had it last. Then it is
*stale*: the next request asks the upstream with its validators (RFC 9110 13.1). Clients wait some
seconds for that; later they get the cached version. If the upstream has another version, the cached
one is *outdated*: it is downloaded anew, and served only where that fails. A file without
validators is revalidated by the date of its response; a found file is stale at once, and is
revalidated by the date of its last change. A file without any date stays current.
"""

from __future__ import annotations

from contextlib import suppress

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from proxpi.files.cache_dir import CacheDir
from proxpi.files.fetch import is_whole, validators_of
from proxpi.files.resolver import FileReference
from proxpi.simple import caching, urls
from proxpi.single_flight import Flights, Late
from proxpi.upstream.client import UpstreamClient
from proxpi.upstream.errors import UpstreamFailed

#: Seconds that clients wait for a revalidation before they get the cached version.
DEADLINE = 5.0
#: Seconds after a failed revalidation before the next one, if the time to live is not shorter.
RETRY = 60.0

_log = Logger(namespace="proxpi.files")


@attrs.define(eq=False)
class Revalidation:
    """The revalidation of all files without a digest.

    :ivar ttl: seconds for which a file is current
    :ivar outdated: files of which the upstream has another version
    """

    _upstream: UpstreamClient
    _cache_dir: CacheDir
    _clock: IReactorTime
    ttl: float
    outdated: set[FileReference] = attrs.field(init=False, factory=set)
    _flights: Flights[FileReference, None] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._flights = Flights(self._clock)

    def is_current(self, reference: FileReference) -> bool:
        """Tell whether a cached file may be served without asking the upstream."""
        return reference.digest is not None or not (
            reference in self.outdated or self._is_stale(reference)
        )

    async def settle(self, reference: FileReference) -> None:
        """Revalidate a file if it is stale; wait for that at most :data:`DEADLINE` seconds."""
        if not self.is_current(reference) and reference not in self.outdated:
            flight = self._flights.join(reference, lambda: self._ask(reference))
            until = flight.started + DEADLINE
            if until > self._clock.seconds():
                with suppress(Late):
                    await flight.wait(until)

    def forget(self, reference: FileReference) -> None:
        """Know nothing of a file any more; it was removed, or downloaded anew."""
        self._flights.forget(reference)
        self.outdated.discard(reference)

    def clear(self) -> None:
        """Know nothing of any file any more."""
        for reference in [*self._flights, *self.outdated]:
            self.forget(reference)

    def _is_stale(self, reference: FileReference) -> bool:
        checked = self._cache_dir.checked(reference)
        if self._upstream.offline or checked is None or not (checked.etag or checked.modified):
            return False
        return not caching.remaining(checked.confirmed_at, self.ttl, self._clock.seconds())

    async def _ask(self, reference: FileReference) -> None:
        checked = self._cache_dir.checked(reference)
        assert checked is not None
        conditions = {"If-None-Match": checked.etag, "If-Modified-Since": checked.modified}
        headers = {"Accept": "*/*", **{name: each for name, each in conditions.items() if each}}
        cause: object = None
        try:
            async with self._upstream.file(reference.url, headers) as answer:
                if self._cache_dir.checked(reference) != checked:
                    return  # it was removed meanwhile
                # Some upstreams know no conditions.
                same = validators_of(answer) == (checked.etag, checked.modified)
                if is_whole(reference, answer) and not same:
                    self.outdated.add(reference)
                    return
                if answer.status not in (200, 203, 206, 304):
                    cause = f"{urls.loggable(reference.url)}: status {answer.status}"
        except UpstreamFailed as error:
            cause = error
        confirmed_at = self._clock.seconds()
        if cause is not None:
            _log.warn("{cause}; the cached version is served", cause=cause)
            confirmed_at += min(RETRY - self.ttl, 0.0)
        self._cache_dir.confirm(reference, confirmed_at)
