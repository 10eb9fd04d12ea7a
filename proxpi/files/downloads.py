"""Downloads: one single flight per file, into one spool.

A download is *under way* from the first request for its file until its flight lands: the file is
cached, passed on without being kept, or failed. If the disk fails meanwhile, the flight fails at
once, and its spool goes on in memory for those that read it already. A deleted download is
*abandoned* once no client follows it. Core metadata that is gone upstream is *extracted* from its
wheel; clients wait for that without a deadline. A file that was found in the cache folder is
checked here, too, by a single flight, before its first response.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from proxpi import metrics
from proxpi.files.cache_dir import CacheDir, OpenFile
from proxpi.files.fetch import Fetch
from proxpi.files.partial import PartialFile
from proxpi.files.passthrough import pass_on
from proxpi.files.quota import TooLarge
from proxpi.files.resolver import FileReference, Gone, Resolver
from proxpi.files.revalidation import Revalidation
from proxpi.files.spool import Spool
from proxpi.files.wheel_metadata import Wheels, Work
from proxpi.simple import urls
from proxpi.single_flight import Flight, Flights
from proxpi.upstream.client import UpstreamClient
from proxpi.upstream.errors import Offline, UpstreamFailed

_log = Logger(namespace="proxpi.files")


@attrs.define(eq=False)
class Downloads:
    """The downloads under way, of which it gives an iterator of references.

    :ivar in_thread: runs a function that takes a while off the reactor's thread
    :ivar ttl: seconds for which a cached file without a digest is taken to be current
    """

    _resolver: Resolver
    _upstream: UpstreamClient
    _cache_dir: CacheDir
    _clock: IReactorTime
    _in_thread: Work
    ttl: float
    _flights: Flights[FileReference, OpenFile | None] = attrs.field(init=False)
    _checks: Flights[FileReference, None] = attrs.field(init=False)
    _wheels: Wheels = attrs.field(init=False)
    _revalidation: Revalidation = attrs.field(init=False)
    _spools: dict[FileReference, Spool] = attrs.field(init=False, factory=dict)
    _extracting: set[FileReference] = attrs.field(init=False, factory=set)

    def __attrs_post_init__(self) -> None:
        self._flights, self._checks = Flights(self._clock), Flights(self._clock)
        self._wheels = Wheels(self._upstream, self._cache_dir, self._in_thread, self._kept_whole)
        self._revalidation = Revalidation(self._upstream, self._cache_dir, self._clock, self.ttl)

    def __iter__(self) -> Iterator[FileReference]:
        return iter(self._flights)

    async def here(self, reference: FileReference) -> OpenFile | None:
        """Give a file that is here, even if it has to be checked first: nobody is sent away."""
        if self._cache_dir.found(reference):
            await self._checks.join(reference, lambda: self._check(reference)).wait()
        await self._revalidation.settle(reference)
        return None if reference in self._revalidation.outdated else self._cache_dir.open(reference)

    def ready(self, reference: FileReference) -> OpenFile | None:
        """Give a file that is here and current, without waiting."""
        return self._cache_dir.open(reference) if self._revalidation.is_current(reference) else None

    def outdated(self, reference: FileReference) -> OpenFile | None:
        """Give an outdated version of a file, for when the current one is not to be had."""
        return self._cache_dir.open(reference) if reference in self._revalidation.outdated else None

    async def whole(self, reference: FileReference, until: float | None) -> OpenFile:
        """
        Give a file once all of it is here; raises `Late` at `until`, the clock's seconds.

        :raises Gone: if the upstream has none
        :raises UpstreamFailed: if it does not come, or not right
        :raises OSError: if the disk does not take it
        """
        try:
            unkept = await self.join(reference).wait(until)
        except (UpstreamFailed, OSError):
            copy = self.outdated(reference)
            if copy is None:
                raise
            return copy
        copy = unkept.share() if unkept is not None else self._cache_dir.open(reference)
        if copy is None:
            raise UpstreamFailed(reference.url, "its copy is gone already")
        copy.fetched = True
        return copy

    def join(self, reference: FileReference) -> Flight[OpenFile | None]:
        """Give the flight of a file's download, which may begin with this; see :meth:`_bring`."""
        return self._flights.join(reference, lambda: self._bring(reference))

    def spool(self, reference: FileReference) -> Spool:
        """Give the spool of a file's download; :meth:`join` has to start that."""
        spool = self._spools.get(reference)
        if spool is None:
            spool = self._spools[reference] = Spool(reference)
        return spool

    def under_way(self, reference: FileReference) -> Spool | None:
        """Give the spool of a file's download, if one is under way."""
        return self._spools.get(reference)

    def is_being_extracted(self, reference: FileReference) -> bool:
        """Whether this is core metadata that is being extracted from its wheel."""
        return reference in self._extracting

    def forget(self, reference: FileReference) -> None:
        """Let the next who asks start anew; what is under way is for those who wait already."""
        self._flights.forget(reference)
        self._checks.forget(reference)
        if (spool := self._spools.pop(reference, None)) is not None:
            spool.settle()
        self._revalidation.forget(reference)

    def clear(self) -> None:
        """Do so with all of them."""
        for reference in [*self._flights, *self._checks, *self._spools]:
            self.forget(reference)
        self._revalidation.clear()

    async def _kept_whole(self, reference: FileReference) -> OpenFile | None:
        """Give a file that is here, or can be kept here, without anyone's waiting for it."""
        copy = await self.here(reference)
        if copy is not None or not self._cache_dir.fits(reference.size):
            return copy
        return await self.whole(reference, None)

    async def _check(self, reference: FileReference) -> None:
        """Compare a file that lies here already with what the page says."""
        checked = await self._in_thread(lambda: self._cache_dir.check(reference))
        self._cache_dir.trust(reference, checked)

    async def _bring(self, reference: FileReference) -> OpenFile | None:
        """Download a file; give an open one without a name if it may not be cached."""
        spool = self.spool(reference)
        outcome = "failed"
        try:
            unkept = await self._download(reference, spool)
            outcome = _outcome(reference, unkept)
        except Gone as error:
            outcome = "gone"
            _log.info("no such file: {error}", error=error)
            raise
        except TooLarge as error:
            outcome = "too_large"
            _log.info("{url}: {error}", url=urls.loggable(reference.url), error=error)
            raise
        except Offline as error:
            _log.info("{error}", error=error)
            raise
        except UpstreamFailed as error:
            _log.error("file not to be had: {error}", error=error)
            raise
        except OSError as error:
            outcome = "disk"
            self._cache_dir.complain(error)
            raise
        finally:
            metrics.DOWNLOADS.labels(outcome).inc()
            if self._spools.get(reference) is spool:
                del self._spools[reference]
        if unkept is not None:
            # Those who wait take their share of it at once.
            self._clock.callLater(0, unkept.close)
        return unkept

    async def _download(self, reference: FileReference, spool: Spool) -> OpenFile | None:
        try:
            return await self._fetch(reference, spool)
        except (Gone, UpstreamFailed, OSError) as error:
            if reference.metadata_of is None or isinstance(error, TooLarge):
                raise
            self._extracting.add(reference)
            try:
                return await self._wheels.instead(reference, error)
            finally:
                self._extracting.discard(reference)

    async def _fetch(self, reference: FileReference, spool: Spool) -> OpenFile | None:
        def create() -> PartialFile:
            # It was deleted if it has another spool, or none.
            return self._cache_dir.partial(
                reference, cacheable=self._spools.get(reference) is spool
            )

        async def adopt() -> OpenFile | None:
            partial = spool.partial
            while (room := partial.flush()) is not None:
                await room
            partial.finish()
            await self._cache_dir.in_thread(partial.sync)
            etag, modified = fetch.validators
            return self._cache_dir.adopt(partial, reference, etag, modified, self._clock.seconds())

        def abandon() -> None:
            # A deleted download without clients is of no use; any other is for the cache.
            if self._spools.get(reference) is not spool and not flight.wanted:
                running.cancel()

        spool.keep_in(create, self._cache_dir.end)
        fetch, flight = (
            Fetch(reference, self._upstream, spool, self._resolver.moved),
            self.join(reference),
        )
        try:
            self._cache_dir.end(create())  # a disk that takes no file costs no request
            running = Deferred.fromCoroutine(fetch.run(adopt))
            spool.abandon = abandon
            unkept = await running
        except OSError as error:
            if spool.fall_back(error):
                pass_on(fetch)
            raise
        except Exception as error:
            spool.fail(error)
            raise
        source = None
        if spool.followed:
            with suppress(OSError):  # there is no descriptor for it: the partial file stays open
                source = unkept.share() if unkept is not None else self._cache_dir.open(reference)
        spool.complete(source)
        self._revalidation.forget(reference)
        return unkept


def _outcome(reference: FileReference, unkept: OpenFile | None) -> str:
    """Give the outcome of a successful download; log a file without a digest."""
    if unkept is not None:
        return "not_kept"
    if reference.has_digest:
        return "kept"
    _log.warn(
        "{url} is cached without a digest: its index names none that is known here",
        url=urls.loggable(reference.url),
    )
    return "kept_unverified"
