"""Spool: the bytes of one download while they arrive. Each reader reads them at its own offset.

States: *growing* (readers get all but the verification tail: the last bytes are withheld until the
digest is right, so a reader of a wrong file never gets all of it), *complete* (a whole file was
verified, a range cannot be) and *failed* (readers are cut off). The bytes lie in one storage:

* a *partial file*, for a file that may be cached: the download runs at full speed. It is created
  when the first response begins: a download that waits for a connection holds no descriptor;
* a *window* of memory, for a range or a file that may not be cached, or above the partial file,
  once the disk fails or the file exceeds the cache; the slowest reader limits its rate
  (backpressure);
* the *cached file*, after completion.

A doubtful response (:mod:`proxpi.files.fetch`) in a partial file is *withheld*: readers get its
first byte once all of it is verified. Wrong bytes restart the spool: their readers are cut off, and
the file begins anew. A download that is not *needed* is cancelled when its last reader leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from proxpi.files.cache_dir import OpenFile, PartialFile
from proxpi.files.resolver import FileReference
from proxpi.files.verify import Digests
from proxpi.simple import Span
from proxpi.upstream import Queue

#: The most bytes of a verification tail. (A small file has a shorter one: it begins at once, too.)
VERIFICATION_TAIL = 64 * 1024
#: Bytes in memory that wait for a reader before the download pauses; more than a tail.
MEMORY_WINDOW = 256 * 1024

T = TypeVar("T")
_log = Logger(namespace="proxpi.files")

State = Enum("State", "GROWING COMPLETE FAILED")


def before_tail(size: int) -> int:
    """Return how many of the first `size` bytes may be read before they are verified."""
    return size - min(VERIFICATION_TAIL, -(-size // 16))


@attrs.define(eq=False)
class Window:
    """Memory for the bytes from `start` on; those before may lie in a partial file, `below`."""

    digests: Digests
    start: int = 0
    below: PartialFile | None = None
    _bytes: bytearray = attrs.field(factory=bytearray)
    _drained: Deferred[None] | None = attrs.field(init=False, default=None)

    def write(self, data: bytes) -> Deferred[None] | None:
        """Append bytes; the Deferred fires when there is space for more, ``None`` if there is."""
        self.digests.add(data)
        self._bytes += data
        if len(self._bytes) > MEMORY_WINDOW and self._drained is None:
            self._drained = Deferred()
        return self._drained

    def read(self, start: int, count: int) -> bytes:
        if start < self.start:
            assert self.below is not None
            return self.below.read(start, min(count, self.start - start))
        start -= self.start
        return bytes(self._bytes[start : start + count])

    def trim(self, offset: int) -> None:
        """Drop the bytes before an offset, as far as they have arrived."""
        offset = min(offset, self.start + len(self._bytes))
        if offset > self.start:
            del self._bytes[: offset - self.start]
            self.start = offset
        if self._drained is not None and len(self._bytes) <= MEMORY_WINDOW:
            drained, self._drained = self._drained, None
            drained.callback(None)


def _nothing() -> None: ...


@attrs.define(eq=False)
class Spool:
    """The bytes of one file, or of a range of it.

    :ivar span: the range; ``None`` is the whole file
    :ivar create: creates the partial file; without it the bytes stay in memory
    :ivar queue: the requests for the bytes; in the background until a client waits for them
    :ivar end: offset at which the bytes end, as far as the upstream announced it
    :ivar readable: offset up to which readers may read now
    """

    reference: FileReference
    span: Span | None = None
    _create: Callable[[], PartialFile] | None = None
    _close_partial: Callable[[PartialFile], object] = PartialFile.close
    queue: Queue = attrs.field(factory=Queue)
    end: int | None = attrs.field(init=False, default=None)
    readable: int = attrs.field(init=False)
    state: State = attrs.field(init=False, default=State.GROWING)
    _storage: PartialFile | Window | OpenFile = attrs.field(init=False)
    _cancel: Callable[[], object] = attrs.field(init=False, default=_nothing)
    _needed: Callable[[], bool] = attrs.field(init=False, default=lambda: True)
    _release: Callable[[], object] = attrs.field(init=False, default=_nothing)
    _withheld: bool = attrs.field(init=False, default=False)
    _readers: list[Reader] = attrs.field(init=False, factory=list)
    _waiting: list[Deferred[Reader]] = attrs.field(init=False, factory=list)
    _error: Exception | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self.readable = self.start
        self._storage = Window(Digests(self.reference.digest), self.start)
        if self.span is not None:
            self.end = self.span.stop

    def fill(
        self, work: Coroutine[Any, Any, T], needed: Callable[[], bool] = lambda: False
    ) -> Deferred[T]:
        """Run the download, which is cancelled without followers unless it is `needed`."""
        filling = Deferred.fromCoroutine(work)
        self._cancel, self._needed = filling.cancel, needed
        return filling

    @property
    def start(self) -> int:
        return 0 if self.span is None else self.span.start

    @property
    def partial(self) -> PartialFile:
        """The partial file, once a response has begun."""
        assert isinstance(self._storage, PartialFile)
        return self._storage

    @property
    def digests(self) -> Digests:
        assert isinstance(self._storage, PartialFile | Window)
        return self._storage.digests

    @property
    def arrived(self) -> int:
        """Offset up to which bytes have arrived."""
        return self.start + self.digests.size

    @property
    def followers(self) -> int:
        """How many read it, or wait for its first byte."""
        return len(self._readers) + len(self._waiting)

    @property
    def followed(self) -> bool:
        return self.followers > 0

    def begin(self, end: int | None, *, withheld: bool = False) -> None:
        """
        Begin the whole file, of `end` bytes if announced.

        :raises OSError: if the partial file cannot be created, or may not become so large
        """
        if self._create is not None:
            partial, self._create = self._create(), None
            self._storage, self._release = partial, lambda: self._close_partial(partial)
        self.end, self._withheld = end, False
        if isinstance(self._storage, PartialFile):
            self._withheld = withheld
            if end is not None:
                self._storage.reservation.announce(end)

    def write(self, data: bytes) -> Deferred[None] | None:
        """Append bytes; the Deferred fires when the storage takes more, ``None`` if it does."""
        assert isinstance(self._storage, PartialFile | Window)
        drained = self._storage.write(data)
        self.trim()
        if self.end is not None and self.arrived > self.end:
            self._cut_off()  # these readers were promised another length
            self.end = None
            self.release_unfollowed()
        self._grow()
        return drained

    def restart(self) -> bool:
        """Discard the bytes and cut off their readers; not possible for bytes in memory."""
        if isinstance(self._storage, PartialFile):
            self._cut_off()
            self._storage.restart()
        elif self.arrived > self.start:
            return False
        if self.span is None:
            self.end = None
        self.readable = self.start
        return True

    def fall_back(self, error: Exception) -> bool:
        """Go on in memory, as the disk fails; without a reader, :meth:`fail` and return false."""
        partial = self._storage
        if not (self._readers and isinstance(partial, PartialFile)):
            self.fail(error)
            return False
        self._refuse(error)
        partial.unlink()
        self._storage = Window(partial.digests, partial.written, partial, partial.gathered)
        self._grow()
        return True

    def complete(self, source: OpenFile | None = None) -> None:
        """All bytes have arrived; `source` replaces the partial file."""
        self.readable = self.arrived
        if self.end not in (None, self.readable):
            self._cut_off()  # these readers were promised another length
            self.end = self.readable
        self.state = State.COMPLETE
        if source is not None:
            self._release()
            self._storage, self._release = source, source.close
        self._notify()
        self.release_unfollowed()

    def fail(self, error: Exception) -> None:
        self.state, self._error = State.FAILED, error
        self._refuse(error)
        self._cut_off()
        self.release_unfollowed()

    def release_unfollowed(self) -> None:
        """Without followers: cancel a download that is not needed, or close the storage."""
        if self.followed:
            return
        if self.state is not State.GROWING:
            release, self._release = self._release, _nothing
            release()
        elif self.arrived != self.end:
            if not self._needed():
                self._cancel()
        elif isinstance(self._storage, Window):
            self._storage.trim(self.arrived)  # it ends by itself; its connection is used again

    def begun(self) -> Deferred[Reader]:
        """Return a reader as soon as there is a first byte, or the end, to read."""
        waiter: Deferred[Reader] = Deferred(self._leave)
        self._waiting.append(waiter)
        if self._error is not None:
            self._refuse(self._error)
        self._notify()
        return waiter

    def _leave(self, waiter: Deferred[Reader]) -> None:
        self._waiting.remove(waiter)
        self.release_unfollowed()

    def reader(self, offset: int) -> Reader:
        """Return a reader, which has to be closed once."""
        reader = Reader(self, offset)
        self._readers.append(reader)
        return reader

    def read(self, start: int, count: int) -> bytes:
        return self._storage.read(start, min(count, self.readable - start))

    def close(self, reader: Reader) -> None:
        if reader in self._readers:
            self._readers.remove(reader)
            self.trim()
            self.release_unfollowed()

    def trim(self) -> None:
        """Drop the bytes in memory that every reader has read."""
        if self._readers and isinstance(self._storage, Window):
            self._storage.trim(min(reader.offset for reader in self._readers))

    def _refuse(self, error: Exception) -> None:
        while self._waiting:
            self._waiting.pop(0).errback(error)

    def _cut_off(self) -> None:
        readers, self._readers = self._readers, []
        for reader in readers:
            reader.cut = True
            reader.notify()

    def _grow(self) -> None:
        readable = self.arrived
        if self.span is None:
            readable = min(readable, before_tail(readable if self.end is None else self.end))
        if readable > self.readable and not self._withheld:
            self.readable = readable
            self._notify()

    def _notify(self) -> None:
        if self.readable > self.start or self.state is State.COMPLETE:
            while self._waiting:
                self._waiting.pop(0).callback(self.reader(self.start))
        for reader in list(self._readers):
            reader.notify()


@attrs.define(eq=False)
class Reader:
    """One client that reads a spool.

    :ivar offset: of the next byte that it reads
    :ivar cut: whether it gets no more bytes, ever
    """

    spool: Spool
    offset: int
    cut: bool = attrs.field(init=False, default=False)
    _changed: Callable[[], None] = attrs.field(init=False, default=_nothing)

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Have `changed` called when there is more to read, at the end, and when it is cut off."""
        self._changed = changed

    @property
    def available(self) -> int:
        return 0 if self.cut else max(0, self.spool.readable - self.offset)

    @property
    def complete(self) -> bool:
        return self.spool.state is State.COMPLETE and not self.cut

    def read(self, count: int) -> bytes:
        """Read at most `count` bytes of those that are available; raises the disk's `OSError`."""
        data = self.spool.read(self.offset, count)
        self.skip_to(self.offset + len(data))
        return data

    def skip_to(self, offset: int) -> None:
        """Read from an offset on, also where the bytes before it have not arrived yet."""
        self.offset = offset
        self.spool.trim()

    def notify(self) -> None:
        try:
            self._changed()
        except Exception:  # noqa: BLE001 (an error in it does not concern other readers)
            _log.failure("while sending a file that is being downloaded")

    def close(self) -> None:
        self.spool.close(self)
