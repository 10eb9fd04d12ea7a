"""Files on their way: what of them can be sent before they are whole.

Theory of operation
-------------------
A :class:`Body` is the bytes of one attempt to bring a file, as readers see them: so many are
there to be read, and it is going on, whole, or broken. Any number of readers follow it, each at
its own pace; it calls them when something changes, and they read from what lies below it (a
partial file, or a window of memory), so a slow one holds up nobody.

Until the bytes have been compared with what the index names, the last of them are held back: who
follows a wrong file never gets all of it. If the disk fails under a body that is being read, each
reader goes on with another one, which is made for it where this one ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from proxpi.files.link import Link

#: The most bytes that are held back. (Of a small file less: it is to begin at once, too.)
HELD_BACK = 64 * 1024

_log = Logger(namespace="proxpi.files")


class Readable(Protocol):
    """What a body is read from."""

    def read(self, start: int, count: int) -> bytes:
        """Give at most `count` bytes; none only if there are none."""


class Owned(Readable, Protocol):
    """The same, if somebody has to let go of it."""

    def close(self) -> None:
        """Let go of it."""


def free(size: int) -> int:
    """Tell how many of the first `size` bytes may be read before all of them are checked."""
    return size - min(HELD_BACK, -(-size // 16))


@attrs.define(eq=False)
class Body:
    """The bytes of a file as they come.

    :ivar size: of the whole file, in bytes, as far as anyone told
    :ivar link: what the index says of it
    :ivar start: the place in the file where these bytes begin
    :ivar there: the place in the file up to which they can be read now
    :ivar whole: whether that is all of it, and right
    :ivar broken: whether no more will come, ever
    """

    size: int | None
    link: Link
    _source: Readable
    start: int = 0
    _owned: Owned | None = None
    _held_back: bool = True
    there: int = attrs.field(init=False)
    whole: bool = attrs.field(init=False, default=False)
    broken: bool = attrs.field(init=False, default=False)
    _rest: Callable[[], Body] | None = attrs.field(init=False, default=None)
    _readers: list[Callable[[], None]] = attrs.field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        self.there = self.start

    @property
    def begun(self) -> bool:
        """Whether there is something to send: a first byte, or the end of an empty file."""
        return self.there > self.start or self.whole

    def read(self, start: int, count: int) -> bytes:
        """Read bytes that are there; fewer than asked for now and then, none if the disk failed."""
        return self._source.read(start, count)

    def follow(self, changed: Callable[[], None]) -> None:
        """Have `changed` called whenever there is more, or the end has come."""
        self._readers.append(changed)

    def leave(self, changed: Callable[[], None]) -> None:
        """Follow no longer."""
        self._readers.remove(changed)
        self.drop()

    def drop(self) -> None:
        """Let go of what it is read from, unless somebody follows it."""
        if not self._readers and self._owned is not None:
            self._owned.close()

    def successor(self) -> Body | None:
        """Give the body that goes on where this one ends, for one reader; it is a new one."""
        return self._rest() if self._rest is not None else None

    def grew(self, came: int) -> None:
        """Take note that the file has come up to this place."""
        if self._held_back:
            came = min(came, free(came if self.size is None else self.size))
        if came > self.there:
            self.there = came
            self._tell()

    def land(self, size: int, source: Owned | None = None) -> None:
        """
        Take note that it is whole and right.

        :param source: what to read it from henceforth, if not from what it came to
        """
        if source is not None:
            self._source = self._owned = source
        # Those who were told another length can only be shown that it was wrong.
        self.whole = self.size in (None, size)
        self.broken = not self.whole
        self.there = size
        self._tell()

    def break_off(self) -> None:
        """Take note that it goes no further."""
        self.broken = True
        self._tell()

    def hand_over(self, source: Owned, rest: Callable[[], Body]) -> None:
        """
        Take note that it goes no further here, but elsewhere.

        :param source: what to read what has come from
        :param rest: gives a body that begins where this one ends
        """
        self._source = self._owned = source
        self._rest = rest
        self._tell()

    def _tell(self) -> None:
        for changed in list(self._readers):
            if changed in self._readers:  # it may have left because of what another did
                try:
                    changed()
                except Exception:  # noqa: BLE001 (a reader in trouble is no trouble of the others)
                    _log.failure("while sending a file that is on its way")


@attrs.define(eq=False)
class Arrival:
    """A download as those see it who want its bytes while they come.

    :ivar body: the attempt under way, once its head has come
    :ivar wanted: whether anybody asked for it
    """

    body: Body | None = attrs.field(init=False, default=None)
    wanted: bool = attrs.field(init=False, default=False)
    _error: Exception | None = attrs.field(init=False, default=None)
    _waiting: list[Deferred[Body]] = attrs.field(init=False, factory=list)
    _held: list[Body] = attrs.field(init=False, factory=list)

    def begun(self) -> Deferred[Body]:
        """Give a Deferred of a body that has begun; it fails if none ever does."""
        self.wanted = True
        waiter: Deferred[Body] = Deferred(self._waiting.remove)
        self._waiting.append(waiter)
        self.look()
        return waiter

    def look(self) -> None:
        """Give those who wait the body, if it has begun by now, or the reason why it never will."""
        while self._waiting and self._error is not None:
            self._waiting.pop(0).errback(self._error)
        while self._waiting and self.body is not None and self.body.begun:
            self._waiting.pop(0).callback(self.body)

    def fail(self, error: Exception) -> None:
        """Take note that there will be no body any more."""
        self._error = error
        self.look()

    def hold(self, body: Body) -> None:
        """Keep what a body is read from until those who wait have had their turn."""
        self._held.append(body)
        body.follow(_nothing)

    def release(self) -> None:
        """Keep nothing any longer."""
        while self._held:
            self._held.pop().leave(_nothing)


def _nothing() -> None:
    """Follow a body without being interested in it."""
