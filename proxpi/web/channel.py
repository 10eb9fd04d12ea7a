"""One connection of a client: requests are read, answered one after the other, and it ends.

States
------
``HEAD``
    The head of a request is due, or a part of it is here. Whole heads in the input are taken one
    by one, as long as the client takes the responses.
``BODY``
    A resource reads the body of the request, and a part of it is due.
``RESPONSE``
    The response to a request is under way. What comes meanwhile is kept, up to
    :data:`MAX_PIPELINED` bytes.
``LINGER``
    The last response is written, and the connection is closed once the client has taken it. What
    still comes is discarded. If a part of a request may still come, only the sending side is closed
    first, so that a client that writes all of a request before it reads can read the response
    (RFC 9112 9.6).
``CLOSED``
    The connection is lost.

Limits
------
* A whole request, from its first byte (or from the connection's beginning) to its last, has to
  come within :data:`REQUEST_TIMEOUT` seconds, however it is spread over them.
* Between two requests a connection may be silent for :data:`IDLE_TIMEOUT` seconds.
* A client that takes nothing of what is sent for a minute is dropped, and one that asks without
  taking the answers is not read from, nor is what it has asked answered.
* Only a ``POST`` outside the index has a body that is read: :data:`MAX_BODY` bytes at most.
  Any other request is answered by its head, and its body is discarded.
* A client that has closed its sending side gets its responses. Whether it has only done that, or
  is gone, shows once something is sent to it: after :data:`HALF_CLOSE_GRACE` seconds a
  ``100 Continue``.

On a plain TCP connection with nothing under way, the response cache
(:mod:`proxpi.web.response_cache`) answers first.
"""

from __future__ import annotations

import enum
from ipaddress import ip_address
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, ISSLTransport
from twisted.internet.tcp import Connection
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from twisted.web.http import NOT_MODIFIED, HTTPChannel
from twisted.web.http_headers import Headers
from zope.interface import alsoProvides, implementer

from proxpi.web import responses
from proxpi.web.request_parser import (
    MAX_HEAD,
    BadRequest,
    Chunks,
    Counted,
    Head,
    cache_key,
    check_beginning,
    parse,
)
from proxpi.web.response_cache import CachedResponse
from proxpi.web.routes import in_tree
from proxpi.web.transfer import POLL, Rest, SendProgress, send_cached

#: Seconds for a whole request to come.
REQUEST_TIMEOUT = 30.0
#: Seconds between two requests; longer than what is in front of a server keeps its connections.
IDLE_TIMEOUT = 75.0
#: Bytes that the body of a request may have.
MAX_BODY = 64 * 1024
#: Bytes that are kept of what comes while a response is under way.
MAX_PIPELINED = 16 * 1024
#: Seconds, and bytes, of what is discarded behind a last response.
LINGER_TIMEOUT = 30.0
MAX_LINGER = 128 * 1024 * 1024
#: Seconds after which a client that has closed its sending side is tried.
HALF_CLOSE_GRACE = 1.0

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class State(enum.Enum):
    """See the module."""

    HEAD = enum.auto()
    BODY = enum.auto()
    RESPONSE = enum.auto()
    LINGER = enum.auto()
    CLOSED = enum.auto()


@implementer(IHalfCloseableProtocol)
class Channel(HTTPChannel):
    """Parses requests one after the other, and no faster than their answers are taken.

    :ivar admitted: whether there is room for more than refusals
    :ivar send_progress: whether the client takes what it is sent
    :ivar closed_at: when it was told to close for a shutdown, in seconds of the clock
    :ivar client: the client's address, for the log
    """

    site: Any
    transport: Any
    admitted = True
    send_progress: SendProgress
    closed_at: float | None = None
    client = "-"
    _state = State.HEAD
    #: Whether cached responses can be handed to the socket itself.
    _plain = False
    #: Whether the transport has as much to send as it takes.
    _backpressure = False
    #: Whether :meth:`_advance` is at work, and need not be called.
    _advancing = False
    #: Whether the client has closed its sending side.
    _half_closed = False
    _head: Head
    #: The body of the last request; what is left of it may also come after the response.
    _body: Counted | Chunks = Counted(0)
    #: When its timer rings.
    _timer_at = 0.0
    #: Whether a request is due: some of it has come, or nothing at all since the beginning.
    _expects_request = True
    _deadline = 0.0

    def connectionMade(self) -> None:
        """See `IProtocol`."""
        self.timeOut = REQUEST_TIMEOUT  # type: ignore[assignment]
        super().connectionMade()  # type: ignore[no-untyped-call]
        self._input = bytearray()
        self.send_progress = SendProgress(self.transport, self.site.clock)
        self._tls = ISSLTransport.providedBy(self.transport)
        self._plain = isinstance(self.transport, Connection) and not self._tls
        if isinstance(self.transport, ProtocolWrapper) and not self._tls:
            # The wrapper of an endpoint with PROXY headers passes on everything but this.
            wrapper: Any = self.transport
            wrapper.readConnectionLost = self.readConnectionLost
            wrapper.writeConnectionLost = self.writeConnectionLost
            alsoProvides(wrapper, IHalfCloseableProtocol)
        self._note_client()
        self._deadline = self.site.clock.seconds() + REQUEST_TIMEOUT
        self.admitted = self.site.admit(self)

    def _note_client(self) -> None:
        """Note the client's address; a PROXY header may say anything else."""
        try:
            self.client = str(ip_address(getattr(self.transport.getPeer(), "host", "-")))
        except ValueError:
            self.client = "-"

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """See `IProtocol`."""
        self._state = State.CLOSED
        self.site.release(self)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    def readConnectionLost(self) -> None:
        """The client has closed its sending side, or is gone; see `IHalfCloseableProtocol`."""
        if self._half_closed:
            return
        self._half_closed = True
        if self._state is State.RESPONSE:
            self._probe_later(HALF_CLOSE_GRACE, self.requests[0])
        else:
            self._advance()

    def writeConnectionLost(self) -> None:
        """See `IHalfCloseableProtocol`; this side closes only to linger."""

    def _probe_later(self, seconds: float, request: Any) -> None:
        self.site.clock.callLater(seconds, self._probe_client, request)

    def _probe_client(self, request: Any) -> None:
        """Find out whether a client whose sending side is closed is gone."""
        if request not in self.requests:
            return
        if self.send_progress.gone():
            self.transport.abortConnection()
            return
        if not request.startedWriting and request.clientproto == b"HTTP/1.1":
            self.transport.write(_CONTINUE)
        self._probe_later(POLL, request)

    def resetTimeout(self) -> None:
        """Do nothing: with a byte now and then, a request would never have to be whole."""

    def setTimeout(self, period: float | None) -> float | None:
        """Set the timer, and note when it rings."""
        self._timer_at = self.site.clock.seconds() + (period or 0.0)
        return super().setTimeout(period)  # type: ignore[no-untyped-call, no-any-return]

    def dataReceived(self, data: bytes) -> None:
        """See `IProtocol`."""
        if not (self._state is State.HEAD and self._can_send_cached()):
            self._parse(data)
            return
        cache, now = self.site.response_cache, self.site.clock.seconds()
        entry = cache.by_head(data, now)
        if entry is not None:
            self._send_cached(entry, now)
            return
        key = cache_key(data)
        entry = cache.by_key(key, now) if key is not None else None
        if entry is not None:
            self._send_cached(entry, now)
            cache.alias(data, entry)  # not before: to make room, it may have to go itself
        else:
            self._parse(data)

    def _can_send_cached(self) -> bool:
        """Tell whether a cached response could be handed to the socket now."""
        transport = self.transport
        return bool(
            self._plain
            and self._body.done
            and not self._input
            and self.persistent
            and self.admitted
            and not (self.site.draining or transport.disconnecting)
            # With anything in either, it would come before what was to come first.
            and not (transport.dataBuffer or transport._tempDataBuffer)
        )

    def _send_cached(self, answer: CachedResponse, now: float) -> None:
        """Send a cached response to a request of which nothing else is known."""
        head = answer.head(now)
        try:
            sent = send_cached(self.transport.socket, head, answer)
        except OSError:
            self.transport.abortConnection()
            return
        if sent == len(head) + answer.size:
            self.site.log_cached(self, answer)
            self._expects_request = False
            self._deadline = now + IDLE_TIMEOUT
            if self._timer_at > now + POLL:  # whether the client takes it
                self.setTimeout(POLL)
        else:
            rest = Rest(self, answer, now)
            self.requests[:] = [rest]
            self._begin_response(rest)
            rest.begin(head, sent, self.site.clock)

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """Write a head, and store the response that it begins, if it is cacheable."""
        sequence = [version, b" ", code, b" ", reason, b"\r\n"]
        for name, values in headers.getAllRawHeaders():
            for value in values:
                sequence.extend((name, b": ", value, b"\r\n"))
        sequence.append(b"\r\n")
        request = self.requests[0]
        cacheable = request.cacheable
        key = self._head.key
        if cacheable is not None and key is not None and self._plain:
            if request.method == b"HEAD" or request.code == NOT_MODIFIED:
                cacheable = cacheable.bare()
            line = self.site.describe(
                request.method, request.path, request.code, cacheable.size, "HIT"
            )
            self.site.response_cache.store(key, b"".join(sequence), line, cacheable)
        self.transport.writeSequence(sequence)

    def _parse(self, data: bytes) -> None:
        """Take what came, and handle as much of it as the state allows."""
        if not self._plain:
            self._note_client()  # a PROXY header may have come before
        self._input += data
        self._skip_body()
        self._advance()

    def _skip_body(self) -> None:
        """Discard a short body that no resource reads."""
        if self.persistent and self._state is not State.BODY:
            self._body.feed(self._input)

    def _advance(self) -> None:
        """Go from state to state as far as the input, and the client's send_progress, allow."""
        if self._advancing or self._state is State.CLOSED:
            return
        self._advancing = True
        try:
            while not (self._backpressure or self.site.draining) and (
                (self._state is State.HEAD and self._read_head())
                or (self._state is State.BODY and self._read_body())
            ):
                pass
        except BadRequest as error:
            self._refuse(error)
        finally:
            self._advancing = False
        if self._state is State.LINGER:
            self._discard()
        elif self._state is not State.RESPONSE and self._half_closed and not self._backpressure:
            self.loseConnection()  # type: ignore[no-untyped-call]
        self._pause_or_resume_reading()
        self._await_request()

    def _read_head(self) -> bool:
        """Begin with the next request, if its head is here; tell whether it is."""
        while self._input.startswith(b"\r\n"):
            del self._input[:2]  # RFC 9112 2.2: behind a body, where nothing should be
        if not self._input:
            return False
        end = self._input.find(b"\r\n\r\n", 0, MAX_HEAD) + 4
        if end < 4:
            check_beginning(self._input)
            return False
        self._head = parse(bytes(self._input[:end]))
        del self._input[:end]
        self._begin(self._head)
        return True

    def _begin(self, head: Head) -> None:
        """Read the body of a request, or answer it by its head."""
        self.persistent = head.persistent
        request: Any = self.requestFactory(self)
        for name, value in head.fields:
            request.requestHeaders.addRawHeader(name, value)
        self.requests.append(request)
        request.gotLength(head.length)
        self._body = Chunks() if head.length is None else Counted(head.length)
        request.too_large = (head.length or 0) > MAX_BODY
        if self._body.done:
            self._answer()
        elif head.method == b"POST" and not in_tree(head.target) and not request.too_large:
            self._state = State.BODY
            if head.expects_continue:
                self.transport.write(_CONTINUE)
        else:
            if head.length is None or request.too_large or head.expects_continue:
                self.persistent = False
            self._skip_body()
            self._answer()

    def _read_body(self) -> bool:
        """Read the body of a request; once it is whole, answer. Tell whether it is whole."""
        request: Any = self.requests[0]
        request.handleContentChunk(self._body.feed(self._input))
        request.too_large = request.content.tell() > MAX_BODY
        if request.too_large:
            self.persistent = False
        elif not self._body.done:
            return False
        self._answer()
        return True

    def _answer(self) -> None:
        request, head = self.requests[0], self._head
        if not self.persistent:
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        self._begin_response(request)
        request.requestReceived(head.method, head.target, head.version)

    def _begin_response(self, request: Any) -> None:
        self._state = State.RESPONSE
        self._expects_request = False
        self.setTimeout(None)
        self.site.busy.add(self)
        if self._half_closed:
            self._probe_later(HALF_CLOSE_GRACE, request)

    def requestDone(self, request: Any) -> None:
        """Go on with the next request, if the client takes the answers."""
        self.requests.remove(request)
        self.site.busy.discard(self)
        self._deadline = self.site.clock.seconds() + IDLE_TIMEOUT
        self._state = State.HEAD
        self.setTimeout(POLL)
        # While it drains, it is closed once the client has all of it: see `Site.drain`.
        if self.persistent or self.site.draining:
            self._advance()
        else:
            self._linger(reads=bool(self._input or not self._body.done))

    def _refuse(self, error: BadRequest) -> None:
        """Refuse a request that is malformed, and close: its end is not known."""
        self.requests.clear()
        bare = self._state is State.HEAD and self._input.startswith(b"HEAD ")
        head, body = responses.text(error.status, error.text, dict(error.fields)).serialize()
        self.transport.write(head if bare else head + body)
        line = self.site.describe(b"-", b"-", error.status, 0 if bare else len(body), "-")
        self.site.access(f"{self.client} {line} 0.000s")
        self._linger()

    def _linger(self, *, reads: bool = True) -> None:
        """Close once all is sent: the sending side alone, if more than the head may still come."""
        self._state = State.LINGER
        self.persistent = False
        self._expects_request = False
        self._deadline = self.site.clock.seconds() + LINGER_TIMEOUT
        self._left = MAX_LINGER
        self.transport.unregisterProducer()
        if self._tls or not reads:
            self.transport.loseConnection()  # TLS waits for the client's end of its own accord
        else:
            self.transport.loseWriteConnection()
        self.setTimeout(POLL)
        self._discard()

    def _discard(self) -> None:
        """Discard what came, and close once the client has closed, or has sent too much."""
        self._left -= len(self._input)
        self._input.clear()
        if self._half_closed:
            self.transport.loseConnection()
        elif self._left < 0:
            self.transport.abortConnection()

    def _pause_or_resume_reading(self) -> None:
        """Read from the client, or let it wait."""
        if self._state is State.RESPONSE and len(self._input) > MAX_PIPELINED:
            self.transport.pauseProducing()
        elif not (self._backpressure or self._half_closed):
            self.transport.resumeProducing()

    def _await_request(self) -> None:
        """Set the timer for the rest of a request once some of it is here."""
        waits = self._state is State.BODY or (
            self._state is State.HEAD and (self._input or not self._body.done)
        )
        if waits and not self._expects_request:
            self._expects_request = True
            self._deadline = self.site.clock.seconds() + REQUEST_TIMEOUT
            # Soon, because this may as well be a client that does not take its answers.
            self.setTimeout(POLL)

    def pauseProducing(self) -> None:
        """Wait for the client to take what is to be sent; see `IPushProducer`."""
        self._backpressure = True
        super().pauseProducing()  # type: ignore[no-untyped-call]

    def resumeProducing(self) -> None:
        """Go on with what was not parsed for want of a client that takes the answers."""
        self._backpressure = False
        super().resumeProducing()  # type: ignore[no-untyped-call]
        self._advance()

    def timeoutConnection(self) -> None:
        """Drop the client if its time is over; look again later if it is not."""
        now, pending = self.site.clock.seconds(), self.send_progress.pending()
        if pending:
            left = self.send_progress.stall_deadline()
            lingers = self._state is State.LINGER
            self._deadline = now + (
                LINGER_TIMEOUT
                if lingers
                else REQUEST_TIMEOUT
                if self._expects_request
                else IDLE_TIMEOUT
            )
        else:
            left = self._deadline - now
        if left > 0:
            self.setTimeout(min(left, POLL) if pending else left)
        elif pending or self.transport.disconnecting:
            self.transport.abortConnection()
        else:
            self.loseConnection()  # type: ignore[no-untyped-call]
            self._deadline = now + POLL
            self.setTimeout(POLL)
