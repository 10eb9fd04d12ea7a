"""Files that pass through: from upstream to one client, with no more of them kept than a window.

For what may not be kept, what the disk does not take, and the parts of files that are not here.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from proxpi.files.disk import Disk
from proxpi.files.link import Link
from proxpi.files.partial import Sums
from proxpi.files.reception import (
    NO_PART,
    PATIENCE,
    TRIES,
    ContentRange,
    Moved,
    Reception,
    belongs,
    check_head,
    pause_after,
    validator_of,
)
from proxpi.files.stream import Arrival, Body
from proxpi.simple.conditional import Span
from proxpi.upstream.body import Limit
from proxpi.upstream.errors import UpstreamFailed
from proxpi.upstream.pool import Upstream

#: Bytes that wait for a client before no more are read from upstream; more than are held back.
WINDOW = 256 * 1024


class Misfit(Exception):
    """An upstream gave something else than the part that it was asked for.

    :ivar size: bytes that the whole file has, if they are not as many as was thought
    """

    def __init__(self, size: int | None = None) -> None:
        super().__init__("the answer is not the part that was asked for")
        self.size = size


class Window:
    """Bytes between an upstream and one reader, who takes them in their order.

    :ivar sums: of all that came
    """

    def __init__(self, sums: Sums, start: int = 0) -> None:
        self.sums = sums
        self._start = start
        self._bytes = bytearray()
        self._room: Deferred[None] | None = None
        self.work: Deferred[Any] | None = None

    def add(self, data: bytes) -> Deferred[None] | None:
        """Take bytes; give a Deferred of when there is room for more, unless there is."""
        self.sums.add(data)
        self.preload(data)
        if len(self._bytes) > WINDOW and self._room is None:
            self._room = Deferred()
        return self._room

    def __len__(self) -> int:
        return len(self._bytes)

    def preload(self, data: bytes) -> None:
        """Take bytes that are in the sums already."""
        self._bytes += data

    def read(self, start: int, count: int) -> bytes:
        """Give the next bytes, and forget them."""
        assert start == self._start
        data = bytes(self._bytes[:count])
        del self._bytes[:count]
        self._start += len(data)
        if self._room is not None and len(self._bytes) <= WINDOW:
            room, self._room = self._room, None
            room.callback(None)
        return data

    def close(self) -> None:
        """Ask for nothing more."""
        if self.work is not None:
            self.work.cancel()


def _run(window: Window, work: Coroutine[Deferred[Any], Any, None]) -> None:
    """Let something fill a window until nobody reads from it any more."""
    window.work = Deferred.fromCoroutine(work)
    window.work.addErrback(lambda _: None)  # the body has told


@attrs.define(eq=False)
class _ToClient:
    """Takes a file into a window."""

    _link: Link
    _arrival: Arrival
    _window: Window

    @property
    def sums(self) -> Sums:
        """See `Sink`."""
        return self._window.sums

    def begin(self, size: int | None, doubtful: bool) -> None:
        """See `Sink`."""
        self._arrival.body = Body(size, self._link, self._window, owned=self._window)

    def write(self, data: bytes) -> Deferred[None] | None:
        """See `Sink`."""
        room = self._window.add(data)
        assert self._arrival.body is not None
        self._arrival.body.grew(self.sums.size)
        self._arrival.look()
        return room

    def restart(self) -> bool:
        """See `Sink`: what went out cannot be taken back."""
        return self.sums.size == 0


async def _fill(reception: Reception, link: Link, arrival: Arrival) -> None:
    """Bring a file; tell how it goes."""
    sums = reception.sink.sums

    async def compare() -> None:
        Disk.compare(sums.size, sums.digests(), link)

    try:
        await reception.bring(compare)
    except Exception as error:
        if arrival.body is not None:
            arrival.body.break_off()
        arrival.fail(error)
        raise
    assert arrival.body is not None
    arrival.body.land(sums.size)
    arrival.look()


async def passing(link: Link, upstream: Upstream, moved: Moved) -> Body:
    """
    Let a file pass for one reader, as soon as it begins to come.

    :param moved: gives a fresh link where one stopped being of use on the way
    :raises Gone: if the upstream has none
    :raises UpstreamFailed: if it does not begin to come
    """
    window, arrival = Window(_sums(link)), Arrival()
    begun = arrival.begun()
    reception = Reception(link, upstream, _ToClient(link, arrival, window), moved, paced=True)
    _run(window, _fill(reception, link, arrival))
    try:
        return await begun
    except BaseException:
        window.close()
        raise


def passing_on(reception: Reception, body: Body) -> Body:
    """Let the rest of a file pass for one reader of a body that was handed over."""
    known = reception.sink.sums
    window, arrival = Window(known.branch(), body.there), Arrival()
    rest = Body(body.size, body.link, window, body.there, window)
    arrival.body = rest
    while (at := body.there + len(window)) < known.size:
        window.preload(body.read(at, known.size - at))
    rest.grew(known.size)
    link = reception.link
    goes_on = attrs.evolve(reception, sink=_ToClient(link, arrival, window), paced=True)
    _run(window, _fill(goes_on, link, arrival))
    return rest


@attrs.frozen
class Part:
    """Some bytes of a file that is not here.

    :ivar body: where they are to be had
    :ivar size: of the whole file, in bytes
    """

    body: Body
    span: Span
    size: int


async def passing_part(link: Link, upstream: Upstream, span: Span, size: int) -> Part:
    """
    Let a part of a file pass for one reader, as soon as it begins to come.

    Only whole files can be checked; this is believed as far as the answer says what it is.

    :param size: of the whole file, in bytes
    :raises Misfit: if the upstream gives anything else; it tells the size if that is another one.
        Also if there are too many clients that do not take what they asked for
    :raises Gone: if the upstream has none
    :raises UpstreamFailed: if it does not begin to come
    """
    # What fits into the window comes at once, whoever takes it.
    paced = span.stop - span.start > WINDOW
    if paced and upstream.crowded(link.url):
        raise Misfit()
    window, arrival = Window(Sums(()), span.start), Arrival()
    # A part has nothing that it could be compared with: no byte of it is held back.
    arrival.body = body = Body(None, link, window, span.start, window, held_back=False)

    def take(data: bytes) -> object:
        room = window.add(data)
        body.grew(span.start + window.sums.size)
        arrival.look()
        return room

    async def fill() -> None:
        try:
            await _bring_part(link, upstream, span, size, window.sums, take, paced)
        except Exception as error:
            body.break_off()
            arrival.fail(error)
            raise
        body.land(span.stop)

    _run(window, fill())
    try:
        return Part(await arrival.begun(), span, size)
    except BaseException:
        window.close()
        raise


async def _bring_part(
    link: Link,
    upstream: Upstream,
    span: Span,
    size: int,
    came: Sums,
    take: Callable[[bytes], object],
    paced: bool,
) -> None:
    """Ask for a part; if it breaks off, once more for what is missing of it."""
    headers = {"Accept": "*/*"}
    validator: str | None = None
    for tries_left in reversed(range(TRIES)):
        at = span.start + came.size
        headers["Range"] = f"bytes={at}-{span.stop - 1}"
        try:
            async with upstream.file(link.url, headers, paced=paced) as answer:
                if answer.status not in (200, 206, *NO_PART):
                    check_head(link, answer)
                part = ContentRange.of(answer)
                if part is None:
                    raise Misfit()
                if part.size not in (None, size):
                    raise Misfit(part.size)
                if (part.start, part.stop) != (at, span.stop):
                    raise Misfit()
                if came.size and not belongs(answer, validator, sure=True):
                    raise UpstreamFailed(link.url, "it has changed meanwhile", temporary=False)
                validator = validator_of(answer)
                await upstream.stream(answer, take, Limit(span.stop - at))
            if span.start + came.size == span.stop:
                return
            failure = UpstreamFailed(link.url, "the answer was cut short")
        except UpstreamFailed as error:
            failure = error
        pause = 0.0 if came.size else pause_after(failure)
        if not (failure.temporary and tries_left) or pause > PATIENCE:
            raise failure
        if pause:
            await deferLater(upstream.clock, pause)
        if came.size:
            if validator is None:
                raise failure
            headers["If-Range"] = validator


def _sums(link: Link) -> Sums:
    return Sums({link.digest[0]} if link.digest else ())
