"""Bodies on their way to a client, never faster than it takes them.

A small body is written at once. A larger one goes out through one push producer, :class:`_Sender`,
whatever it is read from: memory and files (:class:`Stored`), and downloads that go on
(:class:`proxpi.files.spool.Reader`). Its states:

* *paused*: the transport has as much as it takes.
* *waiting*: the transport takes more, and the source has none yet.
* *moving*: the kernel moves a file to a plain socket (``os.sendfile``), a part each time that there
  is room. The buffer of the transport stays empty; the transport is made to believe that it has
  paused a producer, so that it calls as soon as the socket takes more.
* *ended*: all is handed over, or the client is gone, or it was cut off, so that it cannot take what
  it got for all: the source broke off, or the client took nothing for
  :data:`STALL_TIMEOUT` seconds.

Whether a client takes something, only the kernel knows: megabytes may wait there after the last
piece was handed over, and a slow client empties them without anything being asked of the producer.
So :class:`SendProgress` looks at what the client has acknowledged.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import attrs
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime, ISSLTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.server import Request
from zope.interface import implementer

from proxpi.files.spool import Reader
from proxpi.web.response_cache import CachedResponse

#: Bytes up to which a body is written at once.
AT_ONCE = 256 * 1024
#: Bytes of one piece.
CHUNK = 128 * 1024
#: Bytes of a file up to which head and body are better off in one write than apart.
SMALL = 16 * 1024
#: Bytes that one connection may be given directly from a file before others have their turn.
MAX_SENDFILE = 1024 * 1024
#: Seconds in which a client has to take something.
STALL_TIMEOUT = 60.0
#: Seconds after which it is looked again whether it did.
POLL = 5.0

#: What says that this kind of file, or of socket, cannot be sent from directly.
_NOT_DIRECTLY = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSOCK)
#: Where Linux counts, in its ``tcp_info``, the bytes that a peer has acknowledged.
_ACKNOWLEDGED = slice(120, 128)
_SHORTER = "it has become shorter"

_log = Logger(namespace="proxpi.web")


def _nothing() -> None:
    pass


@attrs.define(eq=False)
class Stored:
    """A part of an open file, or of memory; it is read like a spool.

    :ivar spoilt: called if it cannot be read
    """

    _at: Callable[[int, int], bytes]
    offset: int
    _stop: int
    close: Callable[[], object] = _nothing
    spoilt: Callable[[], object] = _nothing
    cut: bool = False
    complete: bool = True
    changed: Callable[[], None] = _nothing

    @property
    def available(self) -> int:
        """See :class:`proxpi.files.spool.Reader`."""
        return self._stop - self.offset

    def read(self, count: int) -> bytes:
        """See :class:`proxpi.files.spool.Reader`."""
        piece = self._at(self.offset, count)
        if len(piece) < count:
            raise OSError(_SHORTER)
        self.offset += count
        return piece


def send_bytes(request: Request, data: bytes, clock: IReactorTime, start: int = 0) -> None:
    """Send a body that is in memory, and finish."""
    if len(data) - start <= AT_ONCE:
        request.write(data[start:])
        request.finish()
    else:
        send(request, Stored(lambda at, count: data[at : at + count], start, len(data)), clock)


def send_file(
    request: Request,
    descriptor: int,
    start: int,
    stop: int,
    clock: IReactorTime,
    done: Callable[[], object],
    spoilt: Callable[[], object] = _nothing,
) -> None:
    """
    Send a part of an open file, and finish; the head must be set already.

    :param descriptor: must stay open until `done` is called
    :param done: called once nothing is read any more, whatever happened
    :param spoilt: called before that if the file cannot be read
    """
    part = Stored(lambda at, count: os.pread(descriptor, count, at), start, stop, done, spoilt)
    transport = _transport(request)
    if (
        isinstance(transport, FileDescriptor)
        and not ISSLTransport.providedBy(transport)
        and stop - start > SMALL
        and hasattr(os, "sendfile")
    ):
        send(request, part, clock, moved=descriptor)
    else:
        send(request, part, clock)


def send(
    request: Request,
    source: Reader | Stored,
    clock: IReactorTime,
    stop: int | None = None,
    moved: int | None = None,
) -> None:
    """
    Send what a source has, close it, and finish; the head must be set already.

    :param stop: the offset at which the body ends; ``None``: where the source does
    :param moved: the descriptor from which the kernel can move it to the client's plain socket
    """
    if request.method == b"HEAD":
        try:
            request.finish()
        finally:
            source.close()
    else:
        _Sender(request, source, clock, stop, moved).begin()


@implementer(IPushProducer)
@attrs.define(eq=False)
class _Sender:
    """Gives a request its body, piece by piece, as far as it is there."""

    _request: Request
    _source: Reader | Stored
    _clock: IReactorTime
    _stop: int | None
    _moved: int | None
    _paused: bool = attrs.field(init=False, default=True)
    _sending: bool = attrs.field(init=False, default=False)
    _ended: bool = attrs.field(init=False, default=False)
    _looks: int = attrs.field(init=False, default=0)
    _progress: SendProgress = attrs.field(init=False)
    _looking: IDelayedCall | None = attrs.field(init=False, default=None)

    def begin(self) -> None:
        """Take the request over."""
        transport = _transport(self._request)
        self._progress = SendProgress(transport, self._clock)
        self._source.changed = self._send
        self._request.registerProducer(self, True)
        if self._moved is None:
            self.resumeProducing()
        else:
            self._request.write(b"")
            self._call_again()
            # At once: most clients take a head, and many a file, without a turn of the reactor.
            if isinstance(transport.doWrite(), Exception):
                self._cut_off()
        if not self._ended:
            self._look()

    def resumeProducing(self) -> None:
        """Send until the transport has enough; see `IPushProducer`."""
        if self._moved is not None:
            self._move(self._moved)
        else:
            self._paused = False
            self._send()

    def pauseProducing(self) -> None:
        """See `IPushProducer`."""
        self._paused = True

    def stopProducing(self) -> None:
        """The client is gone; see `IProducer`."""
        self._end()

    def _send(self) -> None:
        if self._sending:
            return  # reading made room for more to come
        self._sending = True
        try:
            while not self._ended and self._send_piece():
                pass
        finally:
            self._sending = False

    def _send_piece(self) -> bool:
        """Send a piece, or finish; tell whether there may be another piece right now."""
        source = self._source
        if source.cut:
            self._cut_off()
            return False
        left = source.available
        if self._stop is not None:
            left = min(left, self._stop - source.offset)
        if source.offset == self._stop or (source.complete and not left):
            self._finish()
            return False
        if self._paused or not left:
            return False
        try:
            piece = source.read(min(CHUNK, left))
            if not piece:
                raise OSError(_SHORTER)
        except OSError as error:
            self._unreadable(error)
            return False
        self._request.write(piece)
        return True

    def _move(self, descriptor: int) -> None:
        """Have the kernel move a part."""
        if self._ended:
            return
        source, transport = self._source, _transport(self._request)
        count = min(MAX_SENDFILE, source.available)
        try:
            moved = os.sendfile(transport.fileno(), descriptor, source.offset, count)
            if not moved:
                raise OSError(_SHORTER)
        except BlockingIOError:
            moved = 0
        except ConnectionError:
            self._cut_off()
            return
        except OSError as error:
            if error.errno in _NOT_DIRECTLY:
                self._moved = None
                self.resumeProducing()
            else:
                self._unreadable(error)
            return
        source.offset += moved
        self._request.sentLength += moved  # for the log: no byte of these was written to it
        if source.available:
            self._call_again()
        else:
            self._finish()

    def _call_again(self) -> None:
        transport = _transport(self._request)
        transport.producerPaused = True
        transport.startWriting()

    def _finish(self) -> None:
        self._end()
        self._request.unregisterProducer()
        self._request.finish()

    def _unreadable(self, why: object) -> None:
        _log.error("a file that is being sent cannot be read: {error}", error=why)
        if isinstance(self._source, Stored):
            self._source.spoilt()
        self._cut_off()

    def _look(self) -> None:
        # A client that waits for the upstream has all the time in the world.
        self._looks += not self._paused
        left = self._progress.stall_deadline(self._source.offset + self._looks)
        if left > 0:
            self._looking = self._clock.callLater(min(POLL, left), self._look)
        else:
            self._cut_off()

    def _cut_off(self) -> None:
        self._end()
        cut_off(self._request)

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            if self._looking is not None and self._looking.active():
                self._looking.cancel()
            self._source.close()


@attrs.define(eq=False)
class SendProgress:
    """Whether a client takes what is sent to it.

    :ivar transport: that of its connection, TLS or not
    """

    transport: object
    _clock: IReactorTime
    _seen: tuple[int, int] | None = attrs.field(init=False, default=None)
    _since: float = attrs.field(init=False, default=0.0)

    def pending(self) -> bool:
        """Tell whether something is on its way that the client has not taken yet."""
        below = _descriptor(self.transport)
        if below is None:
            return False
        return bool(below.dataBuffer or below._tempDataBuffer or _in_kernel(below.getHandle()))

    def gone(self) -> bool:
        """Tell whether the client has answered something with the end of its connection."""
        below = _descriptor(self.transport)
        if below is None:
            return False
        poll = select.poll()
        poll.register(below.fileno(), 0)
        return bool(poll.poll(0))

    def stall_deadline(self, progress: int = 0) -> float:
        """
        Give the seconds after which it is to be dropped if it takes nothing more.

        :param progress: grows with what is sent, for what the kernel does not tell
        """
        now, below = self._clock.seconds(), _descriptor(self.transport)
        seen = (progress, _acknowledged(below.getHandle()) if below is not None else 0)
        if seen != self._seen or (below is not None and not self.pending()):
            self._seen, self._since = seen, now
        return self._since + STALL_TIMEOUT - now


def _transport(request: Request) -> Any:
    """Give the transport of a request's connection, unless it has gone away."""
    return getattr(getattr(request, "channel", None), "transport", None)


def _descriptor(transport: Any) -> Any:
    """Give the transport that has the socket, below TLS and whatever else wraps it."""
    while transport is not None and not isinstance(transport, FileDescriptor):
        transport = getattr(transport, "transport", None)
    return transport if transport is not None and transport.connected else None


def _in_kernel(connection: socket.socket) -> int:
    """Give how many bytes wait in the kernel for a client to take them; 0 if nobody knows."""
    with suppress(OSError):
        answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
        return int.from_bytes(answer, sys.byteorder)
    return 0


def _acknowledged(connection: socket.socket) -> int:
    """Give a number that changes when a client takes something."""
    if connection.family == socket.AF_UNIX:
        return _in_kernel(connection)
    with suppress(OSError, AttributeError):
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKNOWLEDGED.stop)
        return int.from_bytes(info[_ACKNOWLEDGED], sys.byteorder)
    return 0


def cut_off(request: Request) -> None:
    """Close the connection at once, so that what was sent cannot be taken for the whole."""
    transport = _transport(request)
    if transport is not None:
        transport.abortConnection()


#: Says that more follows, so that a head and the beginning of a file share a packet (Linux).
_MORE = getattr(socket, "MSG_MORE", 0)


def send_cached(connection: socket.socket, head: bytes, answer: CachedResponse) -> int:
    """
    Send a response as far as it goes.

    :param head: the response's head, of now
    :return: the bytes that the socket took
    :raises OSError: if the client is gone
    """
    try:
        if answer.held is not None and answer.stop:
            sent = connection.send(head, _MORE)
            if sent == len(head):
                sent += _move(connection, answer.held.file.fileno(), answer.start, answer.stop)
            return sent
        apart = answer.apart
        return connection.sendmsg([head, apart]) if apart else connection.send(head)
    except BlockingIOError:
        return 0


def _move(connection: socket.socket, descriptor: int, start: int, stop: int) -> int:
    """Send from a file; an error here is left to the sender of the rest."""
    try:
        return os.sendfile(connection.fileno(), descriptor, start, min(stop - start, MAX_SENDFILE))
    except OSError:
        return 0


@attrs.define(eq=False)
class Rest:
    """What a channel and a producer need of a request while the rest of a response goes out.

    :ivar started: when the request came, in seconds of the clock
    :ivar sentLength: bytes of the body that were sent
    """

    channel: Any
    answer: CachedResponse
    started: float
    sentLength: int = 0
    method: bytes = b"GET"
    startedWriting: bool = True
    responseHeaders: Headers = attrs.field(factory=Headers)

    def begin(self, head: bytes, sent: int, clock: IReactorTime) -> None:
        """
        Send what is left.

        :param head: the head of which, and of what follows, `sent` bytes went out already
        """
        answer = self.answer
        size = answer.size
        if sent < len(head):
            self.channel.write(head[sent:])
        begin = max(0, sent - len(head))
        self.sentLength = begin
        if begin == size:
            self.finish()
        elif answer.held is None:
            send_bytes(self, answer.apart, clock, begin)  # type: ignore[arg-type]
        else:
            copy, spoilt = answer.held.share(), answer.held.mark_unverified
            start, stop = answer.start + begin, answer.stop
            send_file(self, copy.file.fileno(), start, stop, clock, copy.close, spoilt)  # type: ignore[arg-type]

    def write(self, data: bytes) -> None:
        """Send a piece."""
        self.sentLength += len(data)
        self.channel.write(data)

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """See `IConsumer`."""
        self.channel.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """See `IConsumer`."""
        self.channel.unregisterProducer()

    def finish(self) -> None:
        """Note that all was handed over."""
        site = self.channel.site
        site.log_cached(self.channel, self.answer, site.clock.seconds() - self.started)
        self.channel.requestDone(self)

    def connectionLost(self, reason: Failure) -> None:
        """The client is gone; the producer is told by the transport."""
