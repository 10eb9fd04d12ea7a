"""Pass-through: bytes from upstream to one client, in memory and at the client's pace.

For files that may not be kept, the rest of files that the disk does not take, and parts of files
that are not cached. A pass-through is a fetch into a spool in memory: it *waits* for the first
byte, *runs*, and *ends* when all bytes have arrived, the upstream fails, or its reader leaves.
"""

from __future__ import annotations

from collections.abc import Awaitable

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from proxpi.files.fetch import (
    PATIENCE,
    TRIES,
    ContentRange,
    Fetch,
    Moved,
    belongs,
    pause_after,
    stall_timeout,
    validator_of,
)
from proxpi.files.link import Link
from proxpi.files.spool import WINDOW, Reader, Spool
from proxpi.files.verify import compare
from proxpi.simple.conditional import Span
from proxpi.upstream.body import Limit
from proxpi.upstream.errors import BodyStalled, UpstreamFailed
from proxpi.upstream.pool import Upstream


class Misfit(Exception):
    """An upstream does not give the part that it was asked for.

    :ivar size: bytes that the whole file has, if they are not as many as was thought
    """

    def __init__(self, size: int | None = None) -> None:
        super().__init__("the answer is not the part that was asked for")
        self.size = size


def pass_on(fetch: Fetch) -> None:
    """Let a fetch fill its spool, in memory, for as long as somebody reads it."""
    spool, link = fetch.spool, fetch.link

    async def verify() -> None:
        compare(spool.digests.size, spool.digests.hex(), link)

    # What fits into the window comes at once, whoever takes it.
    fetch.paced = not link.size or link.size > WINDOW
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


async def pass_through(link: Link, upstream: Upstream, moved: Moved) -> Reader:
    """
    Fetch a file for one reader, as soon as its first byte arrives.

    :param moved: gives a fresh link where one stopped being valid on the way
    :raises Gone: if the upstream has none
    :raises UpstreamFailed: if it does not begin to arrive
    """
    spool = Spool(link)
    pass_on(Fetch(link, upstream, spool, moved))
    return await spool.begun()


@attrs.frozen
class Part:
    """Some bytes of a file that is not cached.

    :ivar reader: reads them, from the first one on
    :ivar size: of the whole file, in bytes
    """

    reader: Reader
    span: Span
    size: int


async def pass_part_through(link: Link, upstream: Upstream, span: Span, size: int) -> Part:
    """
    Fetch a part of a file for one reader, as soon as its first byte arrives.

    Only whole files can be verified; a part is believed as far as the answer says what it is.

    :param size: of the whole file, in bytes
    :raises Misfit: if the upstream does not give this part; it tells the size if that is another
        one. Also if there are too many clients that do not take what they asked for
    :raises Gone: if the upstream has none
    :raises UpstreamFailed: if it does not begin to arrive
    """
    # What fits into the window comes at once, whoever takes it.
    paced = span.stop - span.start > WINDOW
    if paced and upstream.crowded(link.url):
        raise Misfit()
    spool = Spool(link, span.start, tail=False)
    _fill(spool, _fetch_part(spool, upstream, span, size, paced))
    return Part(await spool.begun(), span, size)


async def _fetch_part(spool: Spool, upstream: Upstream, span: Span, size: int, paced: bool) -> None:
    """Ask for a part; if it breaks off, once more for what is missing of it."""
    url = spool.link.url
    headers = {"Accept": "*/*"}
    validator: str | None = None
    tries_left = TRIES
    spool.begin(span.stop)
    while True:
        at = spool.arrived
        headers["Range"] = f"bytes={at}-{span.stop - 1}"
        refused = False
        try:
            async with upstream.file(url, headers, paced=paced) as answer:
                refused = answer.status >= 400
                if refused and (failure := answer.refusal()).temporary:
                    raise failure
                part = ContentRange.of(answer)
                if part is None:
                    raise Misfit()
                if part.size not in (None, size):
                    raise Misfit(part.size)
                if (part.start, part.stop) != (at, span.stop):
                    raise Misfit()
                if at > span.start and not belongs(answer, validator, sure=True):
                    raise UpstreamFailed(url, "it has changed meanwhile", temporary=False)
                validator = validator_of(answer)
                stall = stall_timeout(answer, resumable=paced and validator is not None)
                limit = Limit(span.stop - at)
                await upstream.stream(answer, spool.write, limit, stall_timeout=stall)
            if spool.arrived == span.stop:
                return
            failure = UpstreamFailed(url, "the answer was cut short")
        except BodyStalled as stalled:
            await stalled.room
            headers["If-Range"] = validator or ""
            continue
        except UpstreamFailed as error:
            failure = error
        tries_left -= 1
        begun = spool.arrived > span.start
        pause = 0.0 if begun else pause_after(failure)
        if not (failure.temporary and tries_left) or pause > PATIENCE:
            # A refused part must not lose the whole.
            raise Misfit() if refused and not begun else failure
        if pause:
            await deferLater(upstream.clock, pause)
        if begun:
            if validator is None:
                raise failure
            headers["If-Range"] = validator
