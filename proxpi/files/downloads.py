"""Downloads: one single flight per file, into one spool.

A download is *under way* from the first request for its file until its flight lands: the file is
*cached*, *complete without being cached* (it was deleted meanwhile), or *failed*. If the disk fails
meanwhile, the flight fails at once, and its spool goes on in memory for those that read it already.
A client *waits* for the whole file, or *follows* the download from its first byte. A deleted
download is *abandoned* once no client follows it or waits for it; any other goes on for the cache.

A *prefetched* file is downloaded *in the background*: behind the requests of clients, and with one
attempt. Once a client joins, the download is *lifted*: it is then the same as any other. One that
no client has joined is abandoned when it is deleted, or when the call of
:meth:`Downloads.prefetch` is cancelled.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from contextlib import suppress
from functools import partial

import attrs
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from proxpi import metrics
from proxpi.files.cache_dir import CacheDir, OpenFile, PartialFile
from proxpi.files.cached_files import CachedFiles
from proxpi.files.extraction import Extraction
from proxpi.files.fetch import Fetch
from proxpi.files.progress import Progress, note_failure
from proxpi.files.quota import TooLarge
from proxpi.files.resolver import FileReference, Gone
from proxpi.files.spool import Reader, Spool, State
from proxpi.problems import Problems
from proxpi.simple import urls
from proxpi.single_flight import Flight, Flights, WaitTimeout
from proxpi.upstream import Offline, Queue, UpstreamClient, UpstreamFailed

#: Below this size a file is sent only once it is whole: a wrong first response is then invisible.
SMALL = 64 * 1024

_log = Logger(namespace="proxpi.files")


@attrs.define(eq=False, kw_only=True)
class Downloads:
    """The downloads; it iterates over the references of those under way.

    :ivar redirects: whether clients may be sent upstream
    """

    _upstream: UpstreamClient
    _cache_dir: CacheDir
    _cached: CachedFiles
    _extraction: Extraction
    _clock: IReactorTime
    _problems: Problems
    _progress: Progress
    _redirects: bool
    _flights: Flights[FileReference, OpenFile | None]
    _spools: dict[FileReference, Spool] = attrs.field(init=False, factory=dict)

    def __iter__(self) -> Iterator[FileReference]:
        return iter(self._flights)

    def join(self, reference: FileReference) -> Flight[OpenFile | None]:
        """Join the download of a file; a result that may not be cached is shared at once."""
        self.lift(reference)
        return self._flight(reference)

    def lift(self, reference: FileReference) -> None:
        """Lift the download of a file, for a client that joins it."""
        if (spool := self._spools.get(reference)) is not None:
            spool.queue.lift()

    async def prefetch(self, reference: FileReference) -> int | None:
        """
        Download a file in the background; return the bytes that came, once that has ended.

        :return: ``None`` if no request was sent: it was under way already, or is not admitted
        """
        if (flight := self.flight(reference)) is not None:
            await flight.landed()
            return None
        references = [each for each, spool in self._spools.items() if spool.queue.background]
        size = sum(each.size or 0 for each in (reference, *references))
        if not self._cache_dir.quota.admits_prefetched(size):
            return None
        spool = self._spool(reference, background=True)
        try:
            await self._flight(reference).landed()
        except CancelledError:
            if spool.queue.background:
                self.delete(reference)
            raise
        if not spool.queue.sent:
            return None
        return spool.readable if spool.state is State.COMPLETE else spool.arrived

    async def whole(self, reference: FileReference, until: float | None) -> OpenFile:
        """
        Open a file once its download has ended.

        :raises WaitTimeout: at `until`, in the clock's seconds

        :raises Gone: if the upstream has none; `OSError` if the disk does not take it
        """
        return await self.open(reference, self.join(reference).wait(until))

    async def open(self, reference: FileReference, landed: Awaitable[OpenFile | None]) -> OpenFile:
        """Open a file once its flight has landed; if that fails, its outdated version."""
        try:
            uncached = await landed
        except (UpstreamFailed, OSError) as error:
            return self._cached.open_outdated(reference, error)
        if uncached is not None:
            return uncached.share()
        file = self._cache_dir.open(reference, fetched=True)
        if file is None:
            raise UpstreamFailed(reference.url, "its copy is gone already")
        return file

    async def follow(self, reference: FileReference, until: float | None) -> OpenFile | Reader:
        """
        Return a reader of the download of a file as soon as its first byte has arrived.

        A file that is complete by then is opened; so is a small one that is complete at `until`.
        """
        # A reader that waits before the download begins keeps its bytes at hand.
        spool = self._spool(reference)
        begun = spool.begun()
        flight = self.join(reference)
        try:
            reader = await begun
            if (spool.end or reference.size or SMALL) < SMALL and not reader.complete:
                try:
                    with suppress(WaitTimeout):
                        await flight.wait(until)
                    if reader.cut:
                        reader = await spool.begun()
                except BaseException:
                    reader.close()
                    raise
        except UpstreamFailed as error:
            return self._cached.open_outdated(reference, error)
        if not reader.complete:
            return reader
        # Its use was counted with those of all readers.
        file = self._cache_dir.open(reference, fetched=True, used=False)
        if file is None:
            return reader
        reader.close()
        return file

    def flight(self, reference: FileReference) -> Flight[OpenFile | None] | None:
        return self._flights.get(reference)

    def under_way(self, reference: FileReference) -> Spool | None:
        return self._spools.get(reference)

    def delete(self, reference: FileReference) -> None:
        """Detach a download: the next request starts anew, its clients get what arrives."""
        self._flights.detach(reference)
        if (spool := self._spools.pop(reference, None)) is not None:
            spool.release_unfollowed()
        self._cached.invalidate(reference)

    def clear(self) -> None:
        for reference in [*self._flights, *self._spools]:
            self.delete(reference)
        self._cached.clear()

    def _flight(self, reference: FileReference) -> Flight[OpenFile | None]:
        return self._flights.join(reference, lambda: self._download(reference))

    def _spool(self, reference: FileReference, *, background: bool = False) -> Spool:
        spool = self._spools.get(reference)
        if spool is None:

            def create() -> PartialFile:
                # The file was deleted if it has another spool, or none.
                cacheable = self._spools.get(reference) is spool
                return self._cache_dir.partial(
                    reference, cacheable=cacheable, prefetched=lambda: queue.background
                )

            queue, close = Queue(background=background), self._cache_dir.discard
            spool = Spool(reference, create=create, close_partial=close, queue=queue)
            self._spools[reference] = spool
        return spool

    async def _download(self, reference: FileReference) -> OpenFile | None:
        spool = self._spool(reference)
        outcome = "failed"
        flight = self._flight(reference)
        try:
            with self._progress.watch(reference, spool, lambda: flight.waiters):
                uncached = await self._fetch(reference, spool)
            outcome = "kept" if uncached is None else "not_kept"
            if uncached is None and not reference.has_digest:
                outcome, url = "kept_unverified", urls.loggable(reference.url)
                _log.info("{url} is cached without a digest: its index names no known one", url=url)
        except Exception as error:
            outcome = self._log_failure(reference, error, background=spool.queue.background)
            raise
        finally:
            metrics.DOWNLOADS.labels(outcome).inc()
            if self._spools.get(reference) is spool:
                del self._spools[reference]
        if uncached is not None:
            self._clock.callLater(0, uncached.close)  # waiters take their share of it at once
        return uncached

    def _log_failure(self, reference: FileReference, error: Exception, *, background: bool) -> str:
        """Log why a file is not cached; return the outcome to count."""
        match error:
            case CancelledError():
                return "not_kept"
            case Gone():
                _log.info("no such file: {error}", error=error)
                return "gone"
            case TooLarge():
                _log.info("{url}: {error}", url=urls.loggable(reference.url), error=error)
                return "too_large"
            case OSError():
                if not background:  # else a client's download will tell
                    self._cache_dir.log_refusal(error)
                return "disk"
            case UpstreamFailed():
                # Core metadata may still be read from its wheel.
                expected = isinstance(error, Offline) or reference.metadata_of is not None
                if expected or background:
                    _log.info("file not downloaded: {error}", error=error)
                else:
                    self._note_failure(reference, error)
        return "failed"

    def _note_failure(self, reference: FileReference, error: UpstreamFailed) -> None:
        consequence = f"clients get {503 if error.temporary else 502}"
        if self._cached.is_outdated(reference):
            consequence = "clients get the cached version"
        elif self._redirects and not reference.private:
            consequence = "clients are redirected upstream"
        note_failure(self._problems, reference, error, consequence)

    async def _fetch(self, reference: FileReference, spool: Spool) -> OpenFile | None:
        fetch = Fetch(reference, self._upstream, spool)
        flight = self._flight(reference)

        async def adopt() -> OpenFile | None:
            now = self._clock.seconds()
            return await self._cache_dir.adopt(spool.partial, reference, fetch.validators, now)

        def needed() -> bool:
            return self._spools.get(reference) is spool or flight.wanted

        try:
            # A disk that takes no file costs no request.
            self._cache_dir.discard(self._cache_dir.partial(reference))
            uncached = await spool.fill(fetch.run(adopt), needed)
        except OSError as error:
            if spool.fall_back(error):
                failed = partial(self._log_failure, reference, background=False)
                fetch.pass_through(self._progress, failed)
            raise
        except Exception as error:
            spool.fail(error)
            raise
        source = None
        if spool.followed:
            if uncached is None and reference.cache_path is not None:
                self._cache_dir.eviction_index.use(reference.cache_path, spool.followers)
            with suppress(OSError):  # there is no descriptor for it: the partial file stays open
                if uncached is None:
                    source = self._cache_dir.open(reference, used=False)
                else:
                    source = uncached.share()
        spool.complete(source)
        self._cached.invalidate(reference)
        if uncached is None:
            self._extraction.begin(reference)
        return uncached
