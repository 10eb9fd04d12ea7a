"""Spool: the bytes of one download while they arrive. Each reader reads them at its own offset.

A spool is in one of three states:

* *growing*: bytes arrive. Readers get all but the verification tail: the last bytes are held back
  until the digest is right, so a reader of a wrong file never gets all of it.
* *complete*: all bytes have arrived; a whole file was verified, a part cannot be.
* *failed*: no more bytes will arrive, and the readers are cut off.

The bytes lie in one storage:

* a *partial file*, for a file that may be kept: the download runs at full speed. It is created
  when the first response begins: a download that waits for a connection holds no descriptor;
* a *window* of memory, for a file that may not be kept, or above the partial file, once the disk
  fails or the file turns out larger than the cache: the slowest reader sets the pace, and the
  download ends with its last reader;
* the *cached file*, after completion.

A doubtful response (:mod:`proxpi.files.fetch`) in a partial file is *withheld*: readers get its
first byte once all of it is verified.

Wrong bytes restart the spool: their readers are cut off, and the file begins anew. Only the end of
the download decides whether the file gets its name in the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from proxpi.files.open_file import OpenFile
from proxpi.files.partial import Digests, PartialFile
from proxpi.files.resolver import FileReference

#: The most bytes of a verification tail. (A small file has a shorter one: it begins at once, too.)
TAIL = 64 * 1024
#: Bytes in memory that wait for a reader before the download pauses; more than a tail.
WINDOW = 256 * 1024

_log = Logger(namespace="proxpi.files")


class State(Enum):
    """The states of a spool, see above."""

    GROWING = "growing"
    COMPLETE = "complete"
    FAILED = "failed"


def before_tail(size: int) -> int:
    """Give how many of the first `size` bytes may be read before they are verified."""
    return size - min(TAIL, -(-size // 16))


@attrs.define(eq=False)
class Window:
    """Memory for the bytes between the slowest reader and the download.

    :ivar start: offset of the first byte in memory
    :ivar below: the partial file with the bytes before that, if there is one
    """

    digests: Digests
    start: int = 0
    below: PartialFile | None = None
    _bytes: bytearray = attrs.field(factory=bytearray)
    _drained: Deferred[None] | None = attrs.field(init=False, default=None)

    def write(self, data: bytes) -> Deferred[None] | None:
        """
        Append bytes.

        :return: a Deferred that fires when the window has space again; ``None`` while it has
        """
        self.digests.add(data)
        self._bytes += data
        if len(self._bytes) > WINDOW and self._drained is None:
            self._drained = Deferred()
        return self._drained

    def read(self, start: int, count: int) -> bytes:
        """Read at most `count` bytes at an offset."""
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
        if self._drained is not None and len(self._bytes) <= WINDOW:
            drained, self._drained = self._drained, None
            drained.callback(None)


def _nothing() -> None:
    """Do nothing."""


@attrs.define(eq=False)
class Spool:
    """The bytes of one file, from offset `start` on; see above.

    :ivar start: offset of the first byte that is downloaded
    :ivar tail: whether a verification tail is held back; parts have none
    :ivar size: bytes of the whole file, as far as the upstream announced them
    :ivar readable: the offset up to which readers may read now
    :ivar abandon: is called when the last reader leaves a spool that grows
    """

    reference: FileReference
    start: int = 0
    tail: bool = True
    size: int | None = attrs.field(init=False, default=None)
    state: State = attrs.field(init=False, default=State.GROWING)
    readable: int = attrs.field(init=False, default=0)
    abandon: Callable[[], object] = attrs.field(init=False, default=_nothing)
    _storage: PartialFile | Window | OpenFile = attrs.field(init=False)
    _release: Callable[[], None] = attrs.field(init=False, default=_nothing)
    _create: Callable[[], None] = attrs.field(init=False, default=_nothing)
    _withheld: bool = attrs.field(init=False, default=False)
    _readers: list[Reader] = attrs.field(init=False, factory=list)
    _waiting: list[Deferred[Reader]] = attrs.field(init=False, factory=list)
    _error: Exception | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self.readable = self.start
        self._storage = Window(Digests.of(self.reference.digest), self.start)

    # The download's side.

    def keep_in(
        self, create: Callable[[], PartialFile], release: Callable[[PartialFile], None]
    ) -> None:
        """Let the bytes go to a partial file, which is created when the first response begins."""

        def store() -> None:
            self._create, partial = _nothing, create()
            self._storage, self._release = partial, lambda: release(partial)

        self._create = store

    @property
    def partial(self) -> PartialFile:
        """The partial file, once a response has begun."""
        assert isinstance(self._storage, PartialFile)
        return self._storage

    @property
    def digests(self) -> Digests:
        """The digests of the bytes that have arrived, and how many these are."""
        assert isinstance(self._storage, PartialFile | Window)
        return self._storage.digests

    @property
    def arrived(self) -> int:
        """The offset up to which bytes have arrived."""
        return self.start + self.digests.size

    @property
    def followed(self) -> bool:
        """Whether anybody reads it, or waits for the first byte."""
        return bool(self._readers or self._waiting)

    def begin(self, size: int | None, *, withheld: bool = False) -> None:
        """
        Note that a response begins.

        :param size: bytes of the whole file, if they are announced
        :param withheld: whether readers have to wait until a partial file is verified
        :raises OSError: if the partial file cannot be created, or may not become so large
        """
        self._create()
        self.size, self._withheld = size, False
        if isinstance(self._storage, PartialFile):
            self._withheld = withheld
            if size is not None:
                self._storage.announce(size)

    def write(self, data: bytes) -> Deferred[None] | None:
        """Append bytes; give a Deferred that fires when the storage takes more, unless it does."""
        assert isinstance(self._storage, PartialFile | Window)
        drained = self._storage.write(data)
        self.trim()
        if self.size is not None and self.arrived > self.size:
            self._cut_off()  # these readers were promised another length
            self.size = None
            self.settle()
        self._grow()
        return drained

    def restart(self) -> bool:
        """Forget the bytes and cut off their readers; not possible for bytes in memory."""
        if isinstance(self._storage, PartialFile):
            self._cut_off()
            self._storage.restart()
        elif self.arrived > self.start:
            return False
        self.size, self.readable = None, self.start
        return True

    def fall_back(self, error: Exception) -> bool:
        """
        Go on in memory for the readers, as the disk fails; without a reader the spool fails.

        :param error: for those who wait for the first byte
        :return: whether the download has to go on
        """
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
        """Note that all bytes have arrived; `source` replaces the partial file."""
        self.readable = self.arrived
        if self.size not in (None, self.readable):
            self._cut_off()  # these readers were promised another length
            self.size = self.readable
        self.state = State.COMPLETE
        if source is not None:
            self._release()
            self._storage, self._release = source, source.close
        self._tell()
        self.settle()

    def fail(self, error: Exception) -> None:
        """Note that no more bytes will arrive."""
        self.state, self._error = State.FAILED, error
        self._refuse(error)
        self._cut_off()
        self.settle()

    # The readers' side.

    def begun(self) -> Deferred[Reader]:
        """Give a Deferred of a reader, as soon as there is a first byte, or the end, to read."""
        waiter: Deferred[Reader] = Deferred(self._leave)
        self._waiting.append(waiter)
        if self._error is not None:
            self._refuse(self._error)
        self._tell()
        return waiter

    def reader(self, offset: int) -> Reader:
        """Give a reader, which has to be closed once."""
        reader = Reader(self, offset)
        self._readers.append(reader)
        return reader

    def read(self, start: int, count: int) -> bytes:
        """Read at most `count` bytes; readers do."""
        return self._storage.read(start, min(count, self.readable - start))

    def close(self, reader: Reader) -> None:
        """Let a reader go."""
        if reader in self._readers:
            self._readers.remove(reader)
            self.trim()
            self.settle()

    def trim(self) -> None:
        """Drop the bytes in memory that every reader has read."""
        if self._readers and isinstance(self._storage, Window):
            self._storage.trim(min(reader.offset for reader in self._readers))

    def _leave(self, waiter: Deferred[Reader]) -> None:
        self._waiting.remove(waiter)
        self.settle()

    def _refuse(self, error: Exception) -> None:
        while self._waiting:
            self._waiting.pop(0).errback(error)

    def _cut_off(self) -> None:
        readers, self._readers = self._readers, []
        for reader in readers:
            reader.cut = True
            reader.tell()

    def _grow(self) -> None:
        readable = self.arrived
        if self.tail:
            readable = min(readable, before_tail(readable if self.size is None else self.size))
        if readable > self.readable and not self._withheld:
            self.readable = readable
            self._tell()

    def _tell(self) -> None:
        if self.readable > self.start or self.state is State.COMPLETE:
            while self._waiting:
                self._waiting.pop(0).callback(self.reader(self.start))
        for reader in list(self._readers):
            reader.tell()

    def settle(self) -> None:
        """End what nobody needs any more."""
        if self.followed:
            return
        if self.state is State.GROWING:
            if self.arrived != self.size:
                self.abandon()
            elif isinstance(self._storage, Window):
                self._storage.trim(self.arrived)  # it ends by itself, and its connection serves on
        else:
            release, self._release = self._release, _nothing
            release()


@attrs.define(eq=False)
class Reader:
    """One client's way through a spool.

    :ivar offset: of the next byte that it reads
    :ivar cut: whether it gets no more bytes, ever
    :ivar changed: is called when there is more to read, at the end, and when it is cut off
    """

    spool: Spool
    offset: int
    cut: bool = attrs.field(init=False, default=False)
    changed: Callable[[], None] = attrs.field(init=False, default=_nothing)

    @property
    def available(self) -> int:
        """How many bytes it can read now."""
        return 0 if self.cut else max(0, self.spool.readable - self.offset)

    @property
    def complete(self) -> bool:
        """Whether all of the file is there for it, and right."""
        return self.spool.state is State.COMPLETE and not self.cut

    def read(self, count: int) -> bytes:
        """Read at most `count` bytes of those that are available; raises the disk's `OSError`."""
        data = self.spool.read(self.offset, count)
        self.offset += len(data)
        self.spool.trim()
        return data

    def skip_to(self, offset: int) -> None:
        """Read from an offset on, also where the bytes before it have not arrived yet."""
        self.offset = offset
        self.spool.trim()

    def tell(self) -> None:
        """Call :attr:`changed`; its errors are no trouble of other readers."""
        try:
            self.changed()
        except Exception:  # noqa: BLE001
            _log.failure("while sending a file that is being downloaded")

    def close(self) -> None:
        """Read no more."""
        self.spool.close(self)
