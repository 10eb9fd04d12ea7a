"""The file mirror: a file from disk, or from one download for all who ask.

A request for a file is a *hit*, or joins the download of that file, or starts it. It *waits* until
its deadline; then the client is *redirected* upstream, and the download continues. Where redirects
are off (``PROXPI_SLOW_DOWNLOAD=stream``, offline, or a file behind credentials) the client
*follows* the download; a file that cannot be cached *passes through*. A range of a file that is not
cached is requested by itself, and passes through; if the upstream refuses it, it is taken from the
whole file.

If a file is gone, a fresh page gives its URL first (signed URLs expire); after that the client is
redirected. A failure is not remembered: the next request tries again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from proxpi.files.cache_dir import CacheDir, OpenFile
from proxpi.files.downloads import Downloads
from proxpi.files.fetch import is_whole
from proxpi.files.open_file import KeptDescriptor
from proxpi.files.passthrough import Part, RangeNotServed, pass_part_through, pass_through
from proxpi.files.quota import TooLarge
from proxpi.files.resolver import (
    METADATA,
    SIGNATURE,
    FileReference,
    Gone,
    Listings,
    NotUpstream,
    Resolver,
)
from proxpi.files.spool import Reader
from proxpi.files.wheel_metadata import WheelFailed, Work
from proxpi.simple import urls
from proxpi.simple.caching import Span, Unsatisfiable
from proxpi.single_flight import Late
from proxpi.upstream.client import UpstreamClient
from proxpi.upstream.errors import Offline, UpstreamFailed

#: Below this size a file is sent only once it is whole: a wrong first response is then invisible.
SMALL = 64 * 1024
#: Chooses what is asked for of a file, by its size in bytes and its SHA-256; ``None`` is all.
#: It may raise `Unsatisfiable`.
Choose = Callable[[int, str | None], Span | None]

T = TypeVar("T")


@attrs.frozen
class Redirect:
    """A redirect of the client to the upstream; the URL has no credentials."""

    url: str


@attrs.frozen
class Head:
    """What is known of a file that is not here; its size in bytes, if anybody tells."""

    size: int | None
    reference: FileReference


@attrs.define(eq=False)
class Mirror:
    """The files of all indexes together.

    :ivar timeout: seconds that a client waits for a file before it is redirected
    :ivar in_thread: runs a function that takes a while off the reactor's thread
    :ivar ttl: seconds for which a cached file without a digest is taken to be current
    :ivar stream: whether redirects are off; clients get files while they arrive
    """

    _listings: Listings
    _upstream: UpstreamClient
    _cache_dir: CacheDir
    _clock: IReactorTime
    timeout: float
    in_thread: Work
    stream: bool = False
    ttl: float = 1800.0
    _resolver: Resolver = attrs.field(init=False)
    _downloads: Downloads = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._resolver = Resolver(self._listings)
        self._downloads = Downloads(
            self._resolver, self._upstream, self._cache_dir, self._clock, self.in_thread, self.ttl
        )

    def ready(self, name: str, filename: str) -> OpenFile | None:
        """Give a file that is here, without waiting."""
        reference = self._resolver.known(name, filename)
        return self._downloads.ready(reference) if reference is not None else None

    async def reference(self, name: str, filename: str) -> FileReference:
        """Give what the page says of a file, asking for the page if need be."""
        return await self._resolver.find(name, filename)

    async def fetch(self, name: str, filename: str) -> OpenFile | Reader | Redirect:
        """
        Give a file, whole or on its way (a reader has to be closed), or a better place for it.

        :raises NotUpstream: if it is listed, but not there
        :raises UpstreamFailed: if it cannot be had and redirects are off
        """
        until = self._clock.seconds() + self.timeout
        return await self._asked(
            name,
            filename,
            lambda reference: self._obtain(reference, until, self._streams(reference)),
        )

    async def whole(self, name: str, filename: str) -> OpenFile:
        """Give a file once all of it is here, however long that takes; raises as :meth:`fetch`."""

        async def wait(reference: FileReference) -> OpenFile:
            try:
                return await self._downloads.here(reference) or await self._downloads.whole(
                    reference, None
                )
            except TooLarge as error:
                raise UpstreamFailed(reference.url, str(error), temporary=False) from None

        found = await self._asked(name, filename, wait, sent=False)
        assert not isinstance(found, Redirect)
        return found

    async def part(
        self, name: str, filename: str, choose: Choose
    ) -> OpenFile | Reader | Part | Redirect:
        """
        Give a part of a file; or all of it, if it is here or its upstream knows no parts.

        :raises Unsatisfiable: if there is no such part; else as :meth:`fetch`
        """
        until = self._clock.seconds() + self.timeout
        return await self._asked(
            name, filename, lambda reference: self._part(reference, choose, until)
        )

    async def head(self, name: str, filename: str) -> OpenFile | Head:
        """Give a file if it is here, else its length, fetched only if need be; as :meth:`fetch`."""
        found = await self._asked(name, filename, self._length, sent=False)
        assert not isinstance(found, Redirect)
        return found

    def hold(self, copy: OpenFile) -> KeptDescriptor | None:
        """Keep the file of a copy open for more of them; ``None`` if it is not here any more."""
        return self._cache_dir.hold(copy)

    def forget(self, name: str, filename: str) -> Deferred[None]:
        """
        Forget a file and what lies beside it; give a Deferred of when it is gone.

        :raises OSError: if it cannot be removed, at once or by the Deferred
        """
        names = {filename, filename + METADATA, filename + SIGNATURE}
        references = {
            reference
            for each in names
            if (reference := self._resolver.known(name, each)) is not None
        }
        references |= {
            reference for reference in self._downloads if urls.filename(reference.url) in names
        }
        for reference in references:
            self._downloads.forget(reference)
            self._cache_dir.forget(reference)
        # From whichever host: without a page at hand the URLs are not known.
        return Deferred.fromCoroutine(self._cache_dir.forget_named(names))

    def clear(self) -> Deferred[None]:
        """Remove every file, as :meth:`forget` does; give a Deferred of the end of it."""
        self._downloads.clear()
        return self._cache_dir.clear()

    async def _asked(
        self,
        name: str,
        filename: str,
        ask: Callable[[FileReference], Awaitable[T]],
        *,
        sent: bool = True,
    ) -> T | Redirect:
        """
        Ask for a file where its page says, and if it is gone there, where a fresh page says.

        :param sent: whether the client may be redirected if all fails
        """
        reference = await self._resolver.find(name, filename)
        failure: Exception
        try:
            try:
                return await ask(reference)
            except Gone as gone:
                reference = await self._resolver.again(name, filename, gone)
                return await ask(reference)
        except Gone as gone:
            await self._resolver.suppress_metadata(name, reference)
            failure = _explained(gone)
            if isinstance(failure, NotUpstream):
                raise failure from gone
        except (Late, UpstreamFailed, OSError) as error:
            failure = error
        if self._streams(reference) or not sent or isinstance(failure, WheelFailed):
            raise failure
        return Redirect(reference.public_url)

    async def _obtain(
        self, reference: FileReference, until: float | None, streamed: bool
    ) -> OpenFile | Reader:
        """
        Give a file, whole or, if `streamed`, on its way.

        :raises Late: if it is not here in time
        :raises OSError: if it cannot be kept, unless `streamed`
        """
        copy = await self._downloads.here(reference)
        if copy is not None:
            return copy
        try:
            if reference.metadata_of is None and not self._cache_dir.fits(reference.size):
                raise TooLarge
            if reference.metadata_of is None and streamed:
                return await self._follow(reference, until)
            try:
                return await self._downloads.whole(reference, None if streamed else until)
            except Late:
                if not self._downloads.is_being_extracted(reference):
                    raise
                return await self._downloads.whole(reference, None)
        except OSError:
            if not streamed:
                raise
            return await self._pass(reference)

    async def _follow(self, reference: FileReference, until: float | None) -> OpenFile | Reader:
        """Give a file on its way: its reader, as soon as there is a first byte."""
        # A reader that waits before the download begins keeps its bytes at hand.
        spool = self._downloads.spool(reference)
        begun = spool.begun()
        flight = self._downloads.join(reference)
        try:
            reader = await begun
            if (spool.size or reference.size or SMALL) < SMALL and not reader.complete:
                try:
                    with suppress(Late):
                        await flight.wait(until)
                    if reader.cut:
                        reader = await spool.begun()
                except BaseException:
                    reader.close()
                    raise
        except UpstreamFailed:
            copy = self._downloads.outdated(reference)
            if copy is None:
                raise
            return copy
        copy = self._cache_dir.open(reference) if reader.complete else None
        if copy is None:
            return reader
        reader.close()
        copy.fetched = True
        return copy

    async def _pass(self, reference: FileReference) -> Reader:
        return await pass_through(reference, self._upstream, self._resolver.moved)

    async def _part(
        self, reference: FileReference, choose: Choose, until: float
    ) -> OpenFile | Reader | Part:
        copy = await self._downloads.here(reference)
        if copy is not None:
            return copy
        streamed = self._streams(reference)
        if reference.metadata_of is not None:
            return await self._obtain(reference, until, streamed)
        doubtful = reference.size is not None  # an index may be wrong about a size
        size = reference.size if doubtful else await self._announced_length(reference)
        while size is not None:
            try:
                span = choose(size, reference.sha256)
            except Unsatisfiable:
                if not doubtful:
                    raise
                size, doubtful = await self._announced_length(reference), False
                continue
            if span is None:
                return await self._obtain(reference, until, streamed)
            spool = self._downloads.under_way(reference)
            if spool is not None and spool.size == size and span.start < spool.readable:
                return Part(spool.reader(span.start), span, size)
            if span == Span(0, size):
                break
            try:
                return await pass_part_through(
                    reference, self._upstream, self._resolver.moved, span, size
                )
            except RangeNotServed as misfit:
                # Of a file of another size, the part may be another one.
                size, doubtful = misfit.size if doubtful else None, False
        # All of it, or an upstream without parts: from its beginning then, and from here.
        if self._cache_dir.fits(reference.size):
            with suppress(Late, OSError):
                return await self._downloads.whole(reference, until)
        found = await self._obtain(reference, until, True)
        size = (found.spool.size or reference.size) if isinstance(found, Reader) else None
        if not isinstance(found, Reader) or size is None:
            return found
        try:
            span = choose(size, reference.sha256)
        except Unsatisfiable:
            found.close()
            raise
        if span is None:
            return found
        found.skip_to(span.start)
        return Part(found, span, size)

    async def _length(self, reference: FileReference) -> OpenFile | Head:
        copy = await self._downloads.here(reference)
        if copy is not None:
            return copy
        if (
            reference.metadata_of is None
        ):  # else it may be out of the wheel, whatever the upstream says
            if reference.size and not self._upstream.offline:
                return Head(reference.size, reference)
            size = await self._announced_length(reference)
            if size is not None:
                return Head(size, reference)
        # Some servers have no HEAD, or none for signed URLs; the file itself tells.
        found = await self._obtain(reference, None, True)
        if isinstance(found, Reader):
            found.close()
            if found.spool.size is not None or not self._cache_dir.fits(reference.size):
                return Head(found.spool.size, reference)
            try:
                return await self._downloads.whole(reference, None)
            except OSError:
                return Head(None, reference)
        return found

    async def _announced_length(self, reference: FileReference) -> int | None:
        """Give the length of a file that its page does not state, if its upstream states it."""
        spool = self._downloads.under_way(reference)
        if spool is not None and spool.size is not None:
            return spool.size
        try:
            async with self._upstream.file(reference.url, {}, method="HEAD") as answer:
                told = is_whole(reference, answer) and not answer.codings
                return answer.length or None if told else None
        except Offline:
            raise
        except UpstreamFailed:
            return None  # whoever gives files need not understand this

    def _streams(self, reference: FileReference) -> bool:
        """Tell whether redirects are off: by setting, behind credentials, offline."""
        return self.stream or reference.private or self._upstream.offline


def _explained(gone: Gone) -> NotUpstream | UpstreamFailed:
    """Say what it means that a file is gone where its page, asked anew, says it is."""
    if gone.status == 403:
        return UpstreamFailed(gone.reference.url, "status 403", temporary=False)
    return NotUpstream(urls.loggable(gone.reference.url))
