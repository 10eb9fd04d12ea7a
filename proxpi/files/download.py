"""One file from upstream to disk: hashed as it comes, checked, and only then given its name."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred

from proxpi.files.disk import Copy, Disk
from proxpi.files.link import Link
from proxpi.files.partial import Partial, Sums
from proxpi.files.reception import Moved, Reception
from proxpi.files.room import TooLarge
from proxpi.files.stream import Arrival, Body
from proxpi.upstream.pool import Upstream


async def download(
    link: Link,
    upstream: Upstream,
    disk: Disk,
    arrival: Arrival,
    moved: Moved,
    rest: Callable[[Reception, Body], Body],
) -> Copy | None:
    """
    Fetch a file; see :class:`Reception` for what is done about an upstream that fails.

    :param arrival: is told how it goes
    :param moved: gives a fresh link where one stopped being of use on the way
    :param rest: gives what goes on in memory, for one reader, where the disk gave up
    :return: ``None`` once it is on disk; a copy without a name if it may not be kept
    :raises Gone: if the upstream has none
    :raises UpstreamFailed: if it does not come, or not right
    :raises OSError: if the disk does not take it
    :raises TooLarge: if it may not take it
    """
    try:
        partial = disk.partial(link)
    except OSError as error:
        arrival.fail(error)
        raise
    sink = _ToDisk(link, partial, disk, arrival)
    reception = Reception(link, upstream, sink, moved)

    async def adopt() -> Copy | None:
        while (room := partial.flush()) is not None:
            await room
        partial.finish()
        await disk.in_thread(partial.sync)
        return disk.adopt(partial, link)

    try:
        unkept = await reception.bring(adopt)
        sink.land(unkept)
        return unkept
    except (OSError, TooLarge) as error:
        sink.hand_over(reception, rest)
        arrival.fail(error)
        raise
    except Exception as error:
        sink.break_off()
        arrival.fail(error)
        raise
    finally:
        disk.end(partial)


@attrs.define(eq=False)
class _ToDisk:
    """Takes a file into a partial one, and tells those who want it meanwhile."""

    _link: Link
    _partial: Partial
    _disk: Disk
    _arrival: Arrival

    @property
    def sums(self) -> Sums:
        """See `Sink`."""
        return self._partial.sums

    def begin(self, size: int | None, doubtful: bool) -> None:
        """See `Sink`; :raises TooLarge: as soon as that is known."""
        self._check_room(size or 0)
        if size is not None:
            self._disk.reserve(self._partial, size)
        if not doubtful:
            self._arrival.body = Body(size, self._link, self._partial)

    def write(self, data: bytes) -> Deferred[None] | None:
        """See `Sink`; :raises TooLarge: as soon as that is known."""
        self._check_room(self.sums.size + len(data))
        room = self._partial.write(data)
        body = self._arrival.body
        if body is not None:
            body.grew(self.sums.size)
            self._arrival.look()
        return room

    def restart(self) -> bool:
        """See `Sink`."""
        self.break_off()
        self._partial.restart()
        return True

    def break_off(self) -> None:
        """Leave those who have begun to read without the rest."""
        body, self._arrival.body = self._arrival.body, None
        if body is not None:
            body.break_off()

    def land(self, unkept: Copy | None) -> None:
        """Give those who read what they read from now on."""
        arrival = self._arrival
        if not arrival.wanted:
            return
        body = arrival.body or Body(self.sums.size, self._link, self._partial)
        arrival.hold(body)
        source = unkept.share() if unkept is not None else self._disk.open(self._link)
        body.land(self.sums.size, source or self._partial.remains())
        arrival.body = body
        arrival.look()

    def hand_over(self, reception: Reception, rest: Callable[[Reception, Body], Body]) -> None:
        """Let each of those who have begun to read go on by itself."""
        body, self._arrival.body = self._arrival.body, None
        if body is None or not self._arrival.wanted:
            return
        try:
            remains = self._partial.remains()
        except OSError:
            body.break_off()
        else:
            self._arrival.hold(body)
            body.hand_over(remains, lambda: rest(reception, body))

    def _check_room(self, size: int) -> None:
        if not self._disk.fits(size):
            raise TooLarge(f"it is larger than the cache ({size} bytes or more)")
