"""Pass-through: bytes from upstream to one client, in memory and at the client's pace.

For files that may not be kept, the rest of files that the disk does not take, and parts of files
that are not cached. A pass-through is a fetch into a spool in memory: it *waits* for the first
byte, *runs*, and *ends* when all bytes have arrived, the upstream fails, or its reader leaves.
"""

from __future__ import annotations

from collections.abc import Awaitable

import attrs
from twisted.internet.defer import Deferred, execute, succeed

from proxpi.files.fetch import GONE, Fetch, Resolve, belongs, cut_short, validator_of
from proxpi.files.resolver import FileReference, Gone
from proxpi.files.spool import WINDOW, Reader, Spool
from proxpi.files.verify import compare
from proxpi.simple.caching import Span
from proxpi.upstream.client import UpstreamClient
from proxpi.upstream.errors import UpstreamFailed
from proxpi.upstream.response import ContentRange, SizeLimit


class RangeNotServed(Exception):
    """An upstream does not give the part that it was asked for.

    :ivar size: bytes that the whole file has, if they are not as many as was thought
    """

    def __init__(self, size: int | None = None) -> None:
        super().__init__("the answer is not the part that was asked for")
        self.size = size


def pass_on(fetch: Fetch) -> None:
    """Let a fetch fill its spool, in memory, for as long as somebody reads it."""
    spool, reference = fetch.spool, fetch.reference

    def verify() -> Deferred[None]:
        return execute(compare, spool.digests.size, spool.digests.hex(), reference)

    # What fits into the window comes at once, whoever takes it.
    fetch.paced = not reference.size or reference.size > WINDOW
    _fill(spool, fetch.run(verify))


def _fill(spool: Spool, work: Awaitable[None]) -> None:
    async def fill() -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 (the readers are told)
            spool.fail(error)
        else:
            spool.complete()

    spool.abandon = Deferred.fromCoroutine(fill()).cancel


async def pass_through(
    reference: FileReference, upstream: UpstreamClient, resolve: Resolve
) -> Reader:
    """Fetch a file for one reader, as soon as its first byte arrives; raises as a fetch does."""
    spool = Spool(reference)
    pass_on(Fetch(reference, upstream, spool, resolve))
    return await spool.begun()


@attrs.frozen
class Part:
    """Some bytes of a file of so many that is not cached; the reader starts at the first one."""

    reader: Reader
    span: Span
    size: int


@attrs.define(eq=False)
class PartFetch(Fetch):
    """A byte range of one version of a file; `total` is its end.

    :ivar size: of the whole file, in bytes
    :ivar refused: whether the last response was a refusal
    """

    size: int = 0
    refused: bool = attrs.field(init=False, default=False)

    async def ask(self) -> None:
        """Request the bytes that are missing of the range; raises `RangeNotServed`."""
        try:
            await self._ask()
        except Gone as gone:
            self.reference = await self.resolve(gone)
            await self._ask()

    async def _ask(self) -> None:
        at, url = self.spool.arrived, self.reference.url
        begun = at > self.spool.start
        if begun and self.validator is None:
            raise UpstreamFailed(url, "nothing tells its version", temporary=False)
        assert self.total is not None
        async with self.answer(f"bytes={at}-{self.total - 1}") as answer:
            self.refused = answer.status >= 400
            if self.refused and (failure := answer.status_error()).temporary:
                if failure.retry_after and not begun:  # the whole file may come at once
                    raise RangeNotServed()
                raise failure
            if begun and answer.status in GONE:  # signed URLs expire
                raise Gone(self.reference, answer.status)
            part = ContentRange.of(answer)
            if part is not None and part.size not in (None, self.size):
                raise RangeNotServed(part.size)
            if part is None or (part.start, part.stop) != (at, self.total):
                raise RangeNotServed()
            if begun and not belongs(answer, self.validator, sure=True):
                raise UpstreamFailed(url, "it has changed meanwhile", temporary=False)
            self.validator = validator_of(answer)
            limit = SizeLimit(self.total - at)
            write = self.spool.write
            await self.stream(answer, write, limit, resumable=self.validator is not None)
        if self.spool.arrived < self.total:
            raise cut_short(url)


async def pass_part_through(
    reference: FileReference, upstream: UpstreamClient, resolve: Resolve, span: Span, size: int
) -> Part:
    """
    Fetch a part of a file of `size` bytes for one reader, as soon as its first byte arrives.

    Only whole files can be verified; a part is believed as far as the answer says what it is.

    :raises RangeNotServed: if the response is another range, or too many clients do not read
    :raises UpstreamFailed: if it does not begin to arrive
    """
    # What fits into the window comes at once, whoever takes it.
    paced = span.stop - span.start > WINDOW
    if paced and upstream.backpressure_full(reference.url):
        raise RangeNotServed()
    spool = Spool(reference, span.start, tail=False)
    spool.begin(span.stop)
    fetch = PartFetch(reference, upstream, spool, resolve, paced, size)
    fetch.total = span.stop
    _fill(spool, fetch.run(lambda: succeed(None)))
    try:
        return Part(await spool.begun(), span, size)
    except UpstreamFailed:
        if fetch.refused:  # a refused part must not lose the whole
            raise RangeNotServed() from None
        raise
