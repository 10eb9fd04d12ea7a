"""Bodies to a client's transport: bytes in memory, files, and downloads that grow.

A small body is written at once. A larger one goes out through one push producer, :class:`_Sender`,
from memory or a file (:class:`Stored`), or from a download (:class:`proxpi.files.spool.Reader`).
States of a sender: *sending*; *paused* (more than :data:`BUFFER` bytes are unsent); *waiting* (the
source has no bytes yet); *ended* (all bytes are written; the client is gone; or the source failed
and the connection was aborted, so that the client sees a truncated response).

The sending side of a connection is an :class:`Output`. It counts the bytes that the transport has
not handed to the kernel: a *pull* producer, registered with the transport of the socket, is resumed
exactly when the transport's buffer is empty. Only the kernel knows whether a client takes bytes:
megabytes may wait there after the last chunk was handed over. So :class:`Output` reads what the
client has acknowledged, and :mod:`proxpi.web.channel` drops a client that takes none for
:data:`STALL_TIMEOUT` seconds.
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
from twisted.internet.interfaces import IPullProducer, IPushProducer, IReactorTime, ISSLTransport
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from zope.interface import implementer

from proxpi.files import Reader
from proxpi.web.response_cache import CachedResponse

#: Bytes up to which a body is written at once.
AT_ONCE = 256 * 1024
#: Unsent bytes above which nothing more is written.
BUFFER = 64 * 1024
#: Bytes of one chunk.
CHUNK = 128 * 1024
#: Bytes of a file up to which head and body are better off in one write than apart.
SMALL = 16 * 1024
#: Bytes that one connection may be given directly from a file before others have their turn.
MAX_SENDFILE = 1024 * 1024
#: Seconds in which a client has to take something.
STALL_TIMEOUT = 60.0
#: Seconds between two looks at what it has taken.
POLL = 5.0

#: The errors for a kind of file, or of socket, that ``os.sendfile`` cannot serve.
_NO_SENDFILE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSOCK)
#: Where Linux counts, in its ``tcp_info``, the bytes that a peer has acknowledged.
_ACKNOWLEDGED = slice(120, 128)
#: Says that more follows, so that a head and the beginning of a file share a packet (Linux).
_MORE = getattr(socket, "MSG_MORE", 0)
_SHORTER = "it has become shorter"

_log = Logger(namespace="proxpi.web")


def _nothing() -> None:
    pass


@attrs.define(eq=False)
class Stored:
    """A part of an open file, or of memory; it is read like a download.

    :ivar unreadable: called if it cannot be read
    """

    _at: Callable[[int, int], bytes]
    offset: int
    _stop: int
    close: Callable[[], object] = _nothing
    unreadable: Callable[[], object] = _nothing
    cut: bool = False
    complete: bool = True

    def subscribe(self, changed: Callable[[], None]) -> None:
        """All bytes are there: nothing changes."""

    @property
    def available(self) -> int:
        return self._stop - self.offset

    def read(self, count: int) -> bytes:
        data = self._at(self.offset, count)
        if len(data) < count:
            raise OSError(_SHORTER)
        self.offset += count
        return data


def send_bytes(request: Any, data: bytes, start: int = 0) -> None:
    """Send a body that is in memory, and finish."""
    if len(data) - start <= AT_ONCE:
        request.write(data[start:])
        request.finish()
    else:
        send(request, Stored(lambda at, count: data[at : at + count], start, len(data)))


def send_file(
    request: Any,
    descriptor: int,
    start: int,
    stop: int,
    done: Callable[[], object],
    unreadable: Callable[[], object] = _nothing,
) -> None:
    """
    Send a part of an open file, and finish; the head must be set already.

    :param done: closes the descriptor
    :param unreadable: called before that if the file cannot be read
    """
    part = Stored(lambda at, count: os.pread(descriptor, count, at), start, stop, done, unreadable)
    direct = request.channel.output.plain and stop - start > SMALL and hasattr(os, "sendfile")
    send(request, part, sendfile_from=descriptor if direct else None)


def send(
    request: Any,
    source: Reader | Stored,
    stop: int | None = None,
    sendfile_from: int | None = None,
    arrived: Callable[[], object] = _nothing,
) -> None:
    """
    Send a body from a source, close it, and finish; the head must be set already.

    :param stop: the offset at which the body ends; ``None``: where the source does
    :param sendfile_from: a descriptor from which the kernel can send to the client's plain socket
    :param arrived: called when the source has the whole body, or gets no more of it
    """
    if request.method == b"HEAD":
        stop = source.offset
    sender = _Sender(request, request.channel.output, source, stop, sendfile_from, arrived)
    source.subscribe(sender.send)
    request.registerProducer(sender, True)
    if sendfile_from is None:
        sender.send()
    else:
        request.write(b"")  # the head
        # At once: most clients take a head, and many a file, without a turn of the reactor.
        request.channel.output.flush()


@implementer(IPushProducer)
@attrs.define(eq=False)
class _Sender:
    """Gives a request its body, chunk by chunk, as far as it is there."""

    _request: Any
    _output: Output
    _source: Reader | Stored
    _stop: int | None
    _sendfile_from: int | None
    _arrived: Callable[[], object]
    _paused: bool = attrs.field(init=False, default=False)
    _sending: bool = attrs.field(init=False, default=False)
    _ended: bool = attrs.field(init=False, default=False)

    def resumeProducing(self) -> None:
        self._paused = False
        self.send()

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        """The client is gone."""
        self._end()

    def send(self) -> None:
        """Send until the transport has enough, or the source has no more."""
        if self._sending:
            return  # reading made space for more bytes
        self._sending = True
        source, stop = self._source, self._stop
        if source.cut or source.complete or stop == source.offset + source.available:
            self._arrived()
        try:
            while not self._ended and self._send_chunk():
                pass
        finally:
            self._sending = False

    def _send_chunk(self) -> bool:
        """Send a chunk, or finish; return whether to go on at once."""
        source = self._source
        if source.cut:
            self._abort()
            return False
        left = source.available
        if self._stop is not None:
            left = min(left, self._stop - source.offset)
        if source.offset == self._stop or (source.complete and not left):
            self._ended = True
            try:
                self._request.unregisterProducer()
                self._request.finish()
            finally:
                source.close()  # not before: for a head alone the response cache may keep the file
            return False
        if self._paused or not left:
            return False
        try:
            if self._sendfile_from is not None:
                return self._sendfile(self._sendfile_from, left)
            data = source.read(min(CHUNK, left))
            if not data:
                raise OSError(_SHORTER)
        except OSError as error:
            _log.error("a file that is being sent cannot be read: {error}", error=error)
            if isinstance(source, Stored):
                source.unreadable()
            self._abort()
            return False
        self._request.write(data)
        return True

    def _sendfile(self, descriptor: int, left: int) -> bool:
        """Have the kernel send a part; return whether that was all."""
        source = self._source
        try:
            sent = self._output.sendfile(descriptor, source.offset, left)
            if not sent:
                raise OSError(_SHORTER)
        except BlockingIOError:
            sent = 0
        except ConnectionError:
            self._abort()
            return False
        except OSError as error:
            if error.errno not in _NO_SENDFILE:
                raise
            self._sendfile_from = None
            return True
        source.offset += sent
        self._request.sentLength += sent  # for the log: no byte of these was written to it
        if sent < left:
            self._output.resume_when_writable()
        return sent == left

    def _abort(self) -> None:
        self._end()
        self._output.abort()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._source.close()


@implementer(IPullProducer)
class Output:
    """The sending side of a connection.

    :ivar tls: whether it is encrypted
    :ivar plain: whether the kernel can send files to the socket: no TLS or other wrapper above it
    :ivar unsent: bytes that the transport may not have handed to the kernel yet
    """

    def __init__(self, transport: Any, clock: IReactorTime, drained: Callable[[], object]) -> None:
        """
        :param drained: called each time that nothing is unsent, unless there is a producer
        """
        self.tls = ISSLTransport.providedBy(transport)
        self.plain = isinstance(transport, Connection) and not self.tls
        self.unsent = 0
        self._transport = transport
        self._clock = clock
        self._drained = drained
        self._drains = 0
        self._producer: IPushProducer | None = None
        self._close: Callable[[], object] | None = None
        #: What the client had taken when it was last seen to take something.
        self._seen: tuple[int, int] | None = None
        self._since = 0.0
        self._descriptor: Any = transport
        while not isinstance(self._descriptor, FileDescriptor):
            self._descriptor = self._descriptor.transport
        self._descriptor.registerProducer(self, False)

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be written now."""
        return self.unsent > BUFFER

    def resumeProducing(self) -> None:
        """The transport of the socket has handed everything to the kernel."""
        self.unsent = 0
        self._drains += 1
        if self._descriptor.disconnecting:
            self._descriptor.unregisterProducer()  # TLS closes by itself when the client does
        elif self._close is not None:
            self._close_by(self._close)
        elif self._producer is not None:
            self._producer.resumeProducing()
        else:
            self._drained()

    def stopProducing(self) -> None:
        """The protocol is told of the end by itself."""

    def connection_lost(self) -> None:
        if self._producer is not None:
            self._producer.stopProducing()

    def write(self, data: bytes) -> None:
        self._transport.write(data)
        self.unsent += len(data)
        if self.unsent > BUFFER and self._producer is not None:
            self._producer.pauseProducing()

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        assert streaming
        self._producer = producer
        if self.is_full:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        self._producer = None

    def send_cached(self, head: bytes, entry: CachedResponse) -> int:
        """
        Hand a cached response to a plain socket while nothing is unsent; give the bytes it took.

        A transport of Twisted's sends in the next turn of the reactor, which costs more than all
        else.

        :raises OSError: if the client is gone
        """
        connection = self._descriptor.getHandle()
        try:
            if entry.held is None or not entry.stop:
                apart = entry.apart
                sent = connection.sendmsg([head, apart]) if apart else connection.send(head)
                return int(sent)
            sent = connection.send(head, _MORE)
        except BlockingIOError:
            return 0
        # An error here is left to the sender of the rest; not every system has `sendfile`.
        with suppress(OSError, AttributeError):
            if sent == len(head):
                count = min(entry.size, MAX_SENDFILE)
                file = entry.held.file.fileno()
                sent += os.sendfile(connection.fileno(), file, entry.start, count)
        return int(sent)

    def sendfile(self, descriptor: int, start: int, count: int) -> int:
        """Have the kernel send a part of a file to a plain socket, while nothing is unsent."""
        return os.sendfile(self._descriptor.fileno(), descriptor, start, min(count, MAX_SENDFILE))

    def flush(self) -> None:
        """Hand the buffer to the kernel now instead of in the next turn of the reactor."""
        if isinstance(self._descriptor.doWrite(), Exception):
            self.abort()

    def resume_when_writable(self) -> None:
        """Resume the producer, which has written nothing, as soon as the socket takes more."""
        self._descriptor.startWriting()

    def close(self, *, sending_side: bool = False) -> None:
        """Close the connection, or its sending side alone, once nothing is unsent."""
        transport = self._transport
        self._close_by(transport.loseWriteConnection if sending_side else transport.loseConnection)

    def _close_by(self, close: Callable[[], object]) -> None:
        self._close = close
        if not self.unsent:
            self._descriptor.unregisterProducer()  # Twisted closes nothing before
            close()

    def abort(self) -> None:
        """Close the connection at once, so that the client sees a truncated response."""
        self._transport.abortConnection()

    def pending(self) -> bool:
        """Return whether the client has not taken all bytes yet."""
        return self.unsent > 0 or _in_kernel(self._descriptor.getHandle()) > 0

    def stall_deadline(self) -> float:
        """Return the seconds until the client counts as stalled, unless it takes something."""
        # A Unix socket that is filled again shows no progress but that the buffer was empty.
        seen = self._drains, _acknowledged(self._descriptor.getHandle())
        if seen != self._seen:
            self._seen, self._since = seen, self._clock.seconds()
        return self._since + STALL_TIMEOUT - self._clock.seconds()

    def restart_stall_deadline(self) -> None:
        """Note that the client has taken everything: the deadline begins with the next bytes."""
        self._seen = None

    def connection_ended(self) -> bool:
        """Return whether the connection was reset, or is closed on both sides."""
        poll = select.poll()
        poll.register(self._descriptor.fileno(), 0)
        return bool(poll.poll(0))


def _in_kernel(connection: socket.socket) -> int:
    """Return the bytes that wait in the kernel for the client; 0 if that is not known."""
    with suppress(OSError):
        answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
        return int.from_bytes(answer, sys.byteorder)
    return 0


def _acknowledged(connection: socket.socket) -> int:
    """Return a number that changes when a client takes something."""
    if connection.family != socket.AF_UNIX:
        with suppress(OSError, AttributeError):
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKNOWLEDGED.stop)
            return int.from_bytes(info[_ACKNOWLEDGED], sys.byteorder)
    return _in_kernel(connection)
