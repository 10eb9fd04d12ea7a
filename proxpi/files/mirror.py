"""The file mirror: decides, for each request for a file, from where its client gets the bytes.

A request *hits* the cache, or joins the download of its file, or starts it. At its deadline the
client is *redirected* upstream; the download continues. Where redirects are off
(``PROXPI_SLOW_DOWNLOAD=stream``, offline, or a file behind credentials) the client *follows* the
download; a file that cannot be cached *passes through*, and so does a range of a file that is not
cached. A file in a folder that is an index is always sent from there. If a file is gone, a fresh
page gives its URL first (signed URLs expire); if that fails too, the client is redirected. A file
that may change under its name (:func:`proxpi.simple.may_change`) is as fresh as its page: a stale
page is revalidated before the file is served, and so is one whose digest the file has not. A
failure is not remembered: the next request tries again.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import Enum
from typing import TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from proxpi.files.cache_dir import CacheDir, OpenFile, Removed
from proxpi.files.cached_files import CachedFiles
from proxpi.files.downloads import Downloads
from proxpi.files.passthrough import RangeClient, RangeNotServed, RangeResponse
from proxpi.files.progress import DownloadStatus, Progress
from proxpi.files.quota import TooLarge
from proxpi.files.resolver import (
    METADATA,
    SIGNATURE,
    FileReference,
    Gone,
    MissingUpstream,
    Resolver,
)
from proxpi.files.spool import Reader
from proxpi.files.wheel_metadata import WheelFailed, WheelMetadata
from proxpi.simple import Span, Unsatisfiable, may_change, urls
from proxpi.single_flight import WaitTimeout
from proxpi.upstream import UpstreamFailed

#: Chooses a range of a file by its size in bytes and its SHA-256; ``None`` is the whole file. It
#: may raise `Unsatisfiable`.
Choose = Callable[[int, str | None], Span | None]

T = TypeVar("T")


@attrs.frozen
class Redirect:
    """A redirect of the client to the upstream; the URL has no credentials."""

    url: str


@attrs.frozen
class FileHead:
    """The reference of a file that is not cached, and its size in bytes, if known."""

    size: int | None
    reference: FileReference


@attrs.frozen
class Prefetched:
    """A file that was requested in the background.

    :ivar size: bytes that arrived
    :ivar cached: whether it is cached now; else its download has failed
    """

    size: int
    cached: bool = True


#: Wait for the whole file, until the deadline or longer; follow its download from its first byte.
Step = Enum("Step", "WAIT WAIT_LONG FOLLOW PASS_THROUGH REDIRECT")


def plan(*, admitted: bool, redirects: bool, metadata: bool = False, failed: bool = False) -> Step:
    """
    Decide how a client gets a file that is not cached.

    ============= ============== ========= ====== ============
    core metadata quota admits   redirects failed step
    ============= ============== ========= ====== ============
    no            no             on        -      REDIRECT
    no            no             off       -      PASS_THROUGH
    no            yes            on        no     WAIT
    no            yes            off       no     FOLLOW
    yes           -              on        no     WAIT
    yes           -              off       no     WAIT_LONG
    -             -              on        yes    REDIRECT
    -             -              off       yes    PASS_THROUGH
    ============= ============== ========= ====== ============

    :param failed: whether the cache folder did not take the file
    """
    if failed or not (admitted or metadata):
        return Step.REDIRECT if redirects else Step.PASS_THROUGH
    if redirects:
        return Step.WAIT
    return Step.WAIT_LONG if metadata else Step.FOLLOW


#: Request the size of the file; refuse the range as unsatisfiable; serve the whole file; join the
#: download that is under way; request the range; cut the range out of the whole file.
RangeStep = Enum("RangeStep", "LENGTH REFUSE WHOLE JOIN RANGE CUT")


def plan_range(
    size: int | None,
    span: Span | Unsatisfiable | None,
    *,
    size_from_upstream: bool = False,
    end: int | None = None,
    readable: int = 0,
) -> RangeStep:
    """
    Decide the next step towards a range of a file that is not cached.

    ======= ========= ========================================= ======
    size    upstream  range of a file of this size              step
    ======= ========= ========================================= ======
    unknown no        -                                         LENGTH
    unknown yes       -                                         CUT
    known   no        unsatisfiable                             LENGTH
    known   yes       unsatisfiable                             REFUSE
    known   -         none: the whole file                      WHOLE
    known   -         its first byte is readable in a download  JOIN
                      of this size
    known   -         all bytes                                 CUT
    known   -         any other                                 RANGE
    ======= ========= ========================================= ======

    :param size_from_upstream: whether the upstream told the size; an index may be wrong about it
    :param end: size of the download that is under way, and `readable` bytes of it
    """
    if size is None or isinstance(span, Unsatisfiable):
        last = RangeStep.CUT if size is None else RangeStep.REFUSE
        return last if size_from_upstream else RangeStep.LENGTH
    if span is None:
        return RangeStep.WHOLE
    if end == size and span.start < readable:
        return RangeStep.JOIN
    return RangeStep.CUT if span == Span(0, size) else RangeStep.RANGE


@attrs.frozen(eq=False, kw_only=True)
class Mirror:
    """The files of all indexes; `timeout`: seconds until a redirect; `stream`: there is none."""

    _resolver: Resolver
    _cache_dir: CacheDir
    _cached: CachedFiles
    _downloads: Downloads
    _progress: Progress
    _ranges: RangeClient
    _metadata: WheelMetadata
    _clock: IReactorTime
    _timeout: float
    _stream: bool
    _offline: bool

    @property
    def prefetch_capacity(self) -> int:
        """Bytes that prefetched files may have before a client requests them."""
        return self._cache_dir.quota.prefetch_capacity

    @property
    def caches(self) -> bool:
        """Whether any file is kept."""
        return self._cache_dir.quota.admits(None)

    def ready(self, name: str, filename: str) -> OpenFile | None:
        """Open a file that is cached and fresh, without waiting."""
        if self.remaining(name, filename) <= 0:
            return None  # its page comes first
        reference = self._resolver.known(name, filename)
        return self._cached.ready(reference) if reference is not None else None

    def remaining(self, name: str, filename: str, *, in_folder: bool = False) -> float:
        """
        Seconds for which a file stays as it is: without end, unless it may change.

        :param in_folder: whether it lies in a folder that is an index, where it may be replaced
        """
        if in_folder or may_change(filename):
            return self._resolver.remaining(name)
        return math.inf

    def index_name(self, name: str, filename: str) -> str:
        """Return the name of the index that lists a file, on the page at hand; ``""``: none."""
        reference = self._resolver.known(name, filename)
        return reference.index if reference is not None else ""

    def in_view(self, resolver: Resolver) -> Mirror:
        """Return the mirror of another view, which shares cache folder and downloads."""
        return attrs.evolve(self, resolver=resolver)

    async def reference(self, name: str, filename: str) -> FileReference:
        return await self._resolver.find(name, filename)

    async def fetch(self, name: str, filename: str) -> OpenFile | Reader | Redirect:
        """
        Return a file, whole or as it arrives (a reader has to be closed), or a redirect.

        :raises MissingUpstream: if the upstream has none; `UpstreamFailed` if redirects are off
        """
        until = self._clock.seconds() + self._timeout
        return await self._serve(name, filename, lambda each: self._obtain(each, until))

    async def whole(self, name: str, filename: str) -> OpenFile:
        """Return a file once it is whole, however long that takes; raises as :meth:`fetch`."""

        async def serve(reference: FileReference) -> OpenFile:
            try:
                file = await self._cached.open(reference)
                return file or await self._whole(reference, None)
            except TooLarge as error:
                raise UpstreamFailed(reference.url, str(error), temporary=False) from None

        found = await self._serve(name, filename, serve, redirects=False)
        assert not isinstance(found, Redirect)
        return found

    async def range(
        self, name: str, filename: str, choose: Choose
    ) -> OpenFile | Reader | RangeResponse | Redirect:
        """
        Return a range of a file; or all of it, if it is cached or its upstream serves no ranges.

        :raises Unsatisfiable: if the file has no such range; else as :meth:`fetch`
        """
        until = self._clock.seconds() + self._timeout
        return await self._serve(name, filename, lambda each: self._range(each, choose, until))

    async def head(self, name: str, filename: str) -> OpenFile | FileHead:
        """Return a file if it is cached, else its size; raises as :meth:`fetch`."""
        found = await self._serve(name, filename, self._head, redirects=False)
        assert not isinstance(found, Redirect)
        return found

    def downloads(self) -> list[DownloadStatus]:
        """Return the downloads under way, of all views."""
        return self._progress.status()

    def is_cached(self, name: str, filename: str) -> bool:
        """Whether a file is cached, if only unverified, or in a folder; this counts as no use."""
        reference = self._resolver.known(name, filename)
        return reference is not None and (
            reference.in_folder
            or self._cache_dir.verified(reference) is not None
            or self._cache_dir.found(reference)
        )

    async def metadata(self, name: str, filename: str) -> bytes | None:
        """Read core metadata of a wheel that is cached, without a request upstream or a use."""
        wheel = self._resolver.known(name, filename)
        if wheel is None:
            return None
        companion = self._resolver.known(name, filename + METADATA)
        return await self._metadata.cached(filename, wheel, companion)

    async def prefetch(self, name: str, filename: str) -> Prefetched | None:
        """
        Download a listed file, or core metadata that its index has, in the background.

        Nothing is sent where the file is cached or not listed on a page at hand, where the quota
        does not admit it, and offline. A download that is under way is waited for. Cancelling the
        call ends the download that it began, unless a client has joined that.

        :return: ``None`` if nothing was sent; failures do not raise
        """
        reference = self._resolver.known(name, filename)
        if reference is None or reference.cache_path is None or self._offline:
            return None
        listed = reference.metadata_of
        if reference.is_companion and (listed is None or listed.extracted):
            return None
        if (flight := self._metadata.under_way(reference)) is not None:
            await flight.landed()
            return None
        if await self._cached.verify(reference):
            return None
        size = await self._downloads.prefetch(reference)
        if size is None:
            return None
        return Prefetched(size, self._cache_dir.verified(reference) is not None)

    async def landed(self, name: str, filename: str) -> None:
        """Wait until the download of a listed file has ended, if one is under way; join none."""
        reference = self._resolver.known(name, filename)
        if reference is not None:
            flight = self._metadata.under_way(reference) or self._downloads.flight(reference)
            if flight is not None:
                await flight.landed()

    def delete(self, name: str, filename: str) -> Deferred[Removed]:
        """
        Delete a file and its companions; give a Deferred of the removed files.

        :raises OSError: if a file cannot be removed, at once or by the Deferred
        """
        names = {filename, filename + METADATA, filename + SIGNATURE}
        known = {self._resolver.known(name, each) for each in names}
        under_way = {*self._downloads, *self._metadata}
        known |= {each for each in under_way if urls.filename(each.url) in names}
        removed = Removed()
        for reference in filter(None, known):
            self._downloads.delete(reference)
            self._metadata.delete(reference)
            removed += self._cache_dir.delete(reference.cache_path)

        async def delete_named() -> Removed:
            # From whichever host: without a page at hand the URLs are not known.
            return removed + await self._cache_dir.delete_named(names)

        return Deferred.fromCoroutine(delete_named())

    def clear(self) -> Deferred[Removed]:
        self._downloads.clear()
        self._metadata.clear()
        return Deferred.fromCoroutine(self._cache_dir.clear())

    def _redirects(self, reference: FileReference) -> bool:
        return not (self._stream or self._offline or reference.private)

    async def _serve(
        self,
        name: str,
        filename: str,
        serve: Callable[[FileReference], Awaitable[T]],
        *,
        redirects: bool = True,
    ) -> T | Redirect:
        """Serve a file as its page says, and if that does not hold, as a fresh page says."""
        reference = await self._resolver.find(name, filename)
        failure: Exception
        try:
            try:
                return await serve(reference)
            except Gone as gone:
                reference = await self._resolver.find_again(name, filename, gone)
                return await serve(reference)
            except UpstreamFailed as error:
                if not reference.may_change or error.kind != "hash":
                    raise
                reference = await self._resolver.find_changed(name, filename, reference, error)
                return await serve(reference)
        except Gone as gone:
            await self._resolver.suppress_metadata(reference)
            if gone.status != 403:
                raise MissingUpstream(urls.loggable(gone.reference.url)) from gone
            failure = UpstreamFailed(gone.reference.url, "status 403", temporary=False)
        except (WaitTimeout, UpstreamFailed, OSError) as error:
            failure = error
        if not redirects or not self._redirects(reference) or isinstance(failure, WheelFailed):
            raise failure
        return Redirect(reference.public_url)

    async def _obtain(
        self, reference: FileReference, until: float | None, *, redirects: bool = True
    ) -> OpenFile | Reader | Redirect:
        """Open a file, or follow :func:`plan`; raises `WaitTimeout` at `until`."""
        file = await self._cached.open(reference)
        if file is not None:
            return file
        admitted = self._cache_dir.quota.admits(reference.size)
        metadata = reference.metadata_of is not None
        redirects = redirects and self._redirects(reference)
        step = plan(admitted=admitted, redirects=redirects, metadata=metadata)
        try:
            if step is Step.FOLLOW:
                return await self._downloads.follow(reference, until)
            if step in (Step.WAIT, Step.WAIT_LONG):
                return await self._whole(reference, until if step is Step.WAIT else None)
        except OSError:
            step = plan(admitted=admitted, redirects=redirects, failed=True)
        if step is Step.REDIRECT:
            return Redirect(reference.public_url)
        return await self._ranges.pass_through(reference)

    async def _whole(self, reference: FileReference, until: float | None) -> OpenFile:
        source = self._downloads if reference.metadata_of is None else self._metadata
        return await source.whole(reference, until)

    async def _range(
        self, reference: FileReference, choose: Choose, until: float
    ) -> OpenFile | Reader | RangeResponse | Redirect:
        file = await self._cached.open(reference)
        if file is not None:
            return file
        size, from_upstream = reference.size, False
        # Of a file that may change, a range passed through could be one of other bytes.
        while reference.metadata_of is None and not reference.may_change:
            span = _chosen(choose, size, reference)
            spool = self._downloads.under_way(reference)
            end, readable = (spool.end, spool.readable) if spool else (None, 0)
            step = plan_range(
                size, span, size_from_upstream=from_upstream, end=end, readable=readable
            )
            if step is RangeStep.LENGTH:
                size, from_upstream = await self._length(reference), True
                continue
            if step is RangeStep.WHOLE:
                break
            if step is RangeStep.CUT:
                return await self._cut(reference, choose, until)
            if isinstance(span, Unsatisfiable):
                raise span
            assert span is not None and size is not None
            if step is RangeStep.JOIN and spool is not None:
                self._downloads.lift(reference)
                return RangeResponse(spool.reader(span.start), span, size)
            try:
                return await self._ranges.pass_range_through(reference, span, size)
            except RangeNotServed as refusal:
                # Of a file of another size, the range may be another one.
                size, from_upstream = None if from_upstream else refusal.size, True
        return await self._obtain(reference, until)

    async def _cut(
        self, reference: FileReference, choose: Choose, until: float
    ) -> OpenFile | Reader | RangeResponse | Redirect:
        """Take a range from the whole file: until the deadline cached, then as it arrives."""
        if self._cache_dir.quota.admits(reference.size):
            with suppress(WaitTimeout, OSError):
                return await self._downloads.whole(reference, until)
        found = await self._obtain(reference, until, redirects=False)
        if not isinstance(found, Reader):
            return found
        size = found.spool.end or reference.size
        span = _chosen(choose, size, reference)
        if isinstance(span, Unsatisfiable):
            found.close()
            raise span
        if span is None or size is None:
            return found
        found.skip_to(span.start)
        return RangeResponse(found, span, size)

    async def _head(self, reference: FileReference) -> OpenFile | FileHead:
        file = await self._cached.open(reference)
        if file is not None:
            return file
        if reference.metadata_of is None:  # else its wheel may hold it, if the upstream does not
            size = reference.size
            if not size or self._offline:
                size = await self._length(reference)
            if size is not None:
                return FileHead(size, reference)
        # Some servers have no HEAD, or none for signed URLs; the file itself tells.
        found = await self._obtain(reference, None, redirects=False)
        assert not isinstance(found, Redirect)
        if isinstance(found, OpenFile):
            return found
        found.close()
        if found.spool.end is None and self._cache_dir.quota.admits(reference.size):
            with suppress(OSError):
                return await self._downloads.whole(reference, None)
        return FileHead(found.spool.end, reference)

    async def _length(self, reference: FileReference) -> int | None:
        """The size of a file as its download tells it, or its upstream."""
        spool = self._downloads.under_way(reference)
        if spool is not None and spool.end is not None:
            return spool.end
        return await self._ranges.length(reference)


def _chosen(
    choose: Choose, size: int | None, reference: FileReference
) -> Span | Unsatisfiable | None:
    try:
        return None if size is None else choose(size, reference.sha256)
    except Unsatisfiable as error:
        return error
