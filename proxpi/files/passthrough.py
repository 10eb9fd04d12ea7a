"""The range client: requests for a part or the length of a file, and files that are not cached.

A *pass-through* is a fetch of a range, or of a file that may not be cached, into a spool in memory,
at the rate of its one client. It ends when all bytes have arrived, the upstream fails, or its
reader leaves. Only whole files can be verified; a range is believed as far as the response states
what it is. A response that is not the requested range is :class:`RangeNotServed`: the caller
takes the range from the whole file.
"""

from __future__ import annotations

from functools import partial

import attrs

from proxpi.files.fetch import Disposition, Fetch, Missing, disposition_of, is_whole, validator_of
from proxpi.files.progress import Progress, note_failure
from proxpi.files.resolver import FileReference, Gone, refresh_url
from proxpi.files.spool import MEMORY_WINDOW, Reader, Spool
from proxpi.problems import Problems
from proxpi.simple import Span
from proxpi.upstream import ContentRange, Offline, SizeLimit, UpstreamClient, UpstreamFailed


@attrs.define
class RangeNotServed(Exception):
    """A response is not the requested range; `size`: of its file, if not the expected one."""

    size: int | None = None


@attrs.frozen
class RangeResponse:
    """A range of a file of `size` bytes that is not cached; the reader starts at its first byte."""

    reader: Reader
    span: Span
    size: int


@attrs.frozen
class Piece:
    """Some bytes of a file of `size` bytes, from an offset on."""

    start: int
    data: bytes
    size: int


@attrs.define(eq=False)
class _RangeFetch(Fetch):
    """The range of one version of a file; `refused`: the last response was an error status."""

    refused: bool = attrs.field(init=False, default=False)

    async def _attempt(self) -> None:
        try:
            await self._request_range()
        except Gone as gone:
            self.reference = await refresh_url(gone)
            await self._request_range()

    async def _request_range(self) -> None:
        begun = self.spool.arrived > self.spool.start
        changed = UpstreamFailed(self.reference.url, "it may have changed", temporary=False)
        if begun and self.validator is None:
            raise changed
        missing = Missing(self.spool.arrived, self.stop, self.size, self.validator, proof=begun)
        async with self.request(missing.headers) as response:
            use, part = disposition_of(self.reference, response, missing), ContentRange.of(response)
            self.refused = response.status >= 400
            if use is Disposition.PART:
                self.validator = validator_of(response)
                await self.receive_part(response)
            elif use is Disposition.GONE and begun:  # signed URLs expire
                raise Gone(self.reference, response.status)
            elif self.refused and (failure := response.status_error()).temporary:
                if failure.retry_after and not begun:  # the whole file may come at once
                    raise RangeNotServed()
                raise failure
            elif begun:
                raise changed
            else:
                raise RangeNotServed(None if part is None or part.size == self.size else part.size)


@attrs.frozen(eq=False)
class RangeClient:
    _upstream: UpstreamClient
    _problems: Problems
    _progress: Progress

    async def length(self, reference: FileReference) -> int | None:
        """Request the size of a file (``HEAD``); ``None`` if the upstream does not tell it."""
        try:
            async with self._upstream.file(
                reference.url, {}, method="HEAD", index=reference.index
            ) as response:
                told = is_whole(reference, response) and not response.codings
                return response.length or None if told else None
        except Offline:
            raise
        except UpstreamFailed:
            return None  # many upstreams do not serve HEAD

    async def read(self, reference: FileReference, byte_range: str, most: int) -> Piece:
        """
        Read a range of at most `most` bytes; `byte_range` may be a suffix.

        :raises RangeNotServed: if the response is no such part, of a file of known size
        """
        headers = {"Accept": "*/*", "Range": byte_range}
        async with self._upstream.file(reference.url, headers, index=reference.index) as response:
            part = ContentRange.of(response)
            if part is None or part.size is None:
                raise RangeNotServed()
            if not part.start < part.stop <= min(part.size, part.start + most):
                raise RangeNotServed()
            chunks: list[bytes] = []
            await self._upstream.stream(response, chunks.append, SizeLimit(most))
        data = b"".join(chunks)
        if len(data) != part.stop - part.start:
            raise UpstreamFailed(response.url, "a part of another length than announced")
        return Piece(part.start, data, part.size)

    async def pass_through(self, reference: FileReference) -> Reader:
        """Fetch a file for one reader, which begins with the first byte; raises as `Fetch.run`."""
        spool = Spool(reference)
        fetch = Fetch(reference, self._upstream, spool)
        fetch.pass_through(self._progress, partial(self._note_failure, reference))
        return await spool.begun()

    def _note_failure(self, reference: FileReference, error: Exception) -> None:
        if isinstance(error, UpstreamFailed) and not isinstance(error, Offline):
            note_failure(self._problems, reference, error, "its client gets no whole file")

    async def pass_range_through(
        self, reference: FileReference, span: Span, size: int
    ) -> RangeResponse:
        """
        Fetch a range of a file of `size` bytes for one reader, as soon as a byte arrives.

        :raises RangeNotServed: if the response is another range, or the connections for clients
            with backpressure are in use; `UpstreamFailed` if no byte arrives
        """
        is_long = span.stop - span.start > MEMORY_WINDOW
        if is_long and self._upstream.backpressure_full(reference.url):
            raise RangeNotServed()
        spool = Spool(reference, span)
        fetch = _RangeFetch(reference, self._upstream, spool, size)

        def failed(error: Exception) -> None:
            if not fetch.refused:
                self._note_failure(reference, error)

        fetch.pass_through(self._progress, failed)
        try:
            return RangeResponse(await spool.begun(), span, size)
        except UpstreamFailed:
            if fetch.refused:  # a refused range must not lose the whole
                raise RangeNotServed() from None
            raise
