"""One client connection: the protocol that owns the transport, as a written state table.

It reads requests and hands them one at a time to ``twisted.web``, as their channel. It is no
``HTTPChannel``: it offers a request the same methods, as Twisted's HTTP/2 streams do.

===========  ===========================  =================  ==================  ==========
state        input                        client closes its  response is done    deadline
                                          sending side
===========  ===========================  =================  ==================  ==========
*idle*       a cached response;           *closing*          --                  *closing*
             else → *head*
*head*       whole: → *answering* or      *closing*          --                  *closing*
             *body*; malformed: an
             error, → *lingering*
*body*       whole: → *answering*;        *closing*          --                  *closing*
             malformed: as above
*answering*  is kept                      the client is      → *idle* or, after  none
                                          probed             the last response,
                                                             *lingering* or
                                                             *closing*
*lingering*  is discarded, up to          *closing*          --                  aborted
             :data:`MAX_LINGER` bytes
*closing*    is discarded                 --                 --                  aborted
===========  ===========================  =================  ==================  ==========

* *head*: a part of a head is here, or the rest of a body that no resource reads.
* *lingering*: only the sending side is closed, so that a client that writes all of a request before
  it reads can read the response (RFC 9112 9.6). TLS has no such half: there the state is *closing*.
* *closing*: the connection closes as soon as the transport has sent everything. A drain makes this
  of *idle*, *head* and *body* at once, and of *answering* after the response.

Deadlines: a whole request has to come within :data:`REQUEST_TIMEOUT` seconds from its first byte,
or from the connection's beginning; between two requests a connection may be silent for
:data:`IDLE_TIMEOUT` seconds. A deadline starts once the client has taken all bytes. In every state,
a client that takes no bytes for :data:`~proxpi.web.transfer.STALL_TIMEOUT` seconds is dropped. A
client that has closed its sending side gets its responses; whether it is gone shows once something
is sent to it: after :data:`HALF_CLOSE_GRACE` seconds a ``100 Continue``.

Backpressure: while the client does not take the responses (:class:`~proxpi.web.transfer.Output` is
full), no further request is begun. With more than :data:`MAX_PIPELINED` bytes of further requests,
the channel stops reading.

A hit in the response cache (:mod:`proxpi.web.response_cache`) is handed to the socket without
parsing: on a plain connection that is *idle*, with an empty buffer.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Iterable
from typing import Any

import attrs
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from zope.interface import alsoProvides, implementer

from proxpi.access_log import AccessLog
from proxpi.values import UNIX
from proxpi.web import accounting, responses
from proxpi.web.forwarded import TrustedProxies, peer_address
from proxpi.web.request_parser import (
    MAX_HEAD,
    BadRequest,
    Chunks,
    Counted,
    Head,
    check_beginning,
    parse,
    without_origin,
)
from proxpi.web.response_cache import CachedResponse, ResponseCache
from proxpi.web.transfer import POLL, Output, send_bytes, send_file

#: Seconds for a whole request to come.
REQUEST_TIMEOUT = 30.0
#: Seconds between two requests; longer than load balancers keep idle connections.
IDLE_TIMEOUT = 75.0
#: Bytes that the body of a request may have. Only a ``POST`` outside the index has one that is
#: read; any other request is answered by its head, and its body is discarded.
MAX_BODY = 64 * 1024
#: The same for a lock, and its path: only there a body may be larger, as far as the limiter admits.
MAX_LOCK = 16 * 1024 * 1024
LOCK_PATH = b"/prefetch"
#: Bytes of further requests that are kept while a response is under way.
MAX_PIPELINED = 16 * 1024
#: Seconds, and bytes, of input that is discarded after the last response.
LINGER_TIMEOUT = 30.0
MAX_LINGER = 128 * 1024 * 1024
#: Seconds after which a client that has closed its sending side is probed.
HALF_CLOSE_GRACE = 1.0

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Limiter(typing.Protocol):
    """Counts connections and responses: :class:`proxpi.web.server.ConnectionLimiter`."""

    draining: bool

    def admit(self, channel: Channel) -> bool: ...
    def release(self, channel: Channel) -> None: ...
    def begin_response(self, channel: Channel) -> None: ...
    def end_response(self, channel: Channel) -> None: ...
    def admit_body(self, channel: Channel, size: int) -> bool: ...
    def release_body(self, channel: Channel) -> None: ...


class Server(typing.Protocol):
    """Tells the time, knows the views, and has the access log: `proxpi.web.server.Site`."""

    clock: IReactorTime
    access: AccessLog
    trusted_proxies: TrustedProxies

    def is_read_only(self, target: bytes) -> bool: ...


@attrs.frozen(eq=False)
class State:
    """A row of the table.

    :ivar timeout: seconds from the beginning of the state to its deadline
    :ivar read: takes input; tells whether to read again at once
    :ivar input_ended: called once the client has closed its sending side
    :ivar expire: called at the deadline
    """

    timeout: float
    read: Callable[[Channel], bool]
    input_ended: Callable[[Channel], object]
    expire: Callable[[Channel], object]


@implementer(IHalfCloseableProtocol)
class Channel(Protocol):
    """The protocol of one connection, and the channel of its requests; see the module.

    :ivar admitted: whether the connection gets more than refusals
    :ivar peer: the address of the peer, ``unix`` for a unix socket, or ``-`` if it is not known
    :ivar output: its sending side
    :ivar persistent: whether the connection stays open after the response
    """

    transport: Any
    output: Output
    _head: Head
    admitted = False
    peer = "-"
    persistent = True

    def __init__(
        self,
        server: Server,
        limiter: Limiter,
        response_cache: ResponseCache,
        request_factory: Callable[[Channel], Any],
    ) -> None:
        # A request of twisted.web finds its site, and who writes its log line, by these names.
        self.site = self.factory = server
        self._server = server
        self._limiter = limiter
        self._cache = response_cache
        self._make_request = request_factory
        self._clock = server.clock
        self._state = IDLE
        #: In seconds of the clock; so is the time at which the timer rings.
        self._deadline = self._timer_at = math.inf
        self._timer: IDelayedCall | None = None
        self._input = bytearray()
        self._input_ended = False
        self._reading_paused = False
        #: Whether :meth:`_advance` is at work, and need not be called.
        self._advancing = False
        #: The body of the last request; what is left of it may also come after the response.
        self._body: Counted | Chunks = Counted(0)
        self._request: Any = None
        self._left_to_discard = MAX_LINGER

    # The transport's side.

    def connectionMade(self) -> None:
        transport = self.transport
        output = self.output = Output(transport, self._clock, self._output_drained)
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        if isinstance(transport, ProtocolWrapper) and not output.tls:
            # The wrapper of an endpoint with PROXY headers passes on everything but this.
            wrapper: Any = transport
            wrapper.readConnectionLost = self.readConnectionLost
            wrapper.writeConnectionLost = self.writeConnectionLost
            alsoProvides(wrapper, IHalfCloseableProtocol)
        self._note_peer()
        self.admitted = self._limiter.admit(self)
        self._enter(IDLE, REQUEST_TIMEOUT)

    def _note_peer(self) -> None:
        """Note the peer's address; a PROXY header may say anything else."""
        peer = self.transport.getPeer()
        self.peer = UNIX if isinstance(peer, UNIXAddress) else peer_address(peer.host)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._state = CLOSED
        self._limiter.release(self)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self.output.connection_lost()
        if self._request is not None:
            self._request.connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:
        output = self.output
        if self._state is IDLE and output.plain and self.admitted and not output.unsent:
            now = self._clock.seconds()
            entry, client, request_id = self._cache.find(data, now), self.peer, ""
            if entry is None:
                common, fields = without_origin(data)
                entry = self._cache.search(data, common, now)
                client = self._server.trusted_proxies.client(client, fields, common)
                request_id = fields.get(b"x-request-id", "")
            if entry is not None:
                self._send_cached(entry, now, client, request_id)
                return
        if not output.plain:
            self._note_peer()  # a PROXY header may have come before
        self._input += data
        self._advance()

    def readConnectionLost(self) -> None:
        """The client has closed its sending side, or is gone."""
        self._input_ended = True
        self._advance()

    def writeConnectionLost(self) -> None:
        """This side closes only to linger."""

    def _output_drained(self) -> None:
        if self._input or self._input_ended:
            self._advance()

    # Responses from the cache.

    def _send_cached(self, entry: CachedResponse, now: float, client: str, request_id: str) -> None:
        head = entry.head(now)
        try:
            sent = self.output.send_cached(head, entry)
        except OSError:
            self.abort()
            return
        if sent == len(head) + entry.size:
            self._cache.count(entry)
            self._server.access.write(entry.line, client, 0, request_id)
            self._deadline = now + IDLE_TIMEOUT
            if self._timer_at > now + POLL:
                self._ring_in(POLL)  # to see whether the client takes it
        else:

            def end(unsent: int) -> None:
                self._end_cached(entry, unsent, client, now, request_id)

            self._send_rest(entry, head, sent, end)

    def _send_rest(
        self,
        entry: CachedResponse,
        head: bytes,
        sent: int,
        end: Callable[[int], object],
    ) -> None:
        """Send the rest of a cached response, which the socket did not take.

        :param end: called at its end with the bytes of the body that were not sent
        """
        start = max(0, sent - len(head))

        def finish() -> None:
            end(0)
            self.requestDone(rest)

        def disconnect() -> None:
            end(entry.size - start - rest.sentLength)

        rest = _CachedRequest(self, finish, disconnect)
        self._begin_response(rest)
        self.write(head[sent:])
        if entry.held is None or not entry.size:
            send_bytes(rest, entry.apart, start)
        else:
            copy, begin, stop = entry.held.share(), entry.start + start, entry.stop
            send_file(rest, copy.file.fileno(), begin, stop, copy.close, copy.mark_unverified)

    def _end_cached(
        self, entry: CachedResponse, unsent: int, client: str, started: float, request_id: str
    ) -> None:
        """Count and log a cached response that its client did not take at once."""
        self._cache.count_late(entry, unsent)
        access, line = self._server.access, entry.line
        if unsent:
            method, target, _ = entry.key
            shown = (method, target.partition(b"?")[0], entry.status, entry.body_size - unsent)
            line = access.template(*shown, "hit", entry.kind)
        access.write(line, client, int((self._clock.seconds() - started) * 1000), request_id)

    # Input.

    def _advance(self) -> None:
        """Go from state to state as far as the input, and the client's progress, allow."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._state.read(self):
                pass
        except BadRequest as error:
            self._refuse(error)
        finally:
            self._advancing = False
        if self._input_ended:
            if not self.output.is_full:
                self._state.input_ended(self)
            return
        paused = len(self._input) > MAX_PIPELINED
        if paused is not self._reading_paused:
            self._reading_paused = paused
            (self.transport.pauseProducing if paused else self.transport.resumeProducing)()

    def _read_head(self) -> bool:
        """Begin the next request; return whether its head is whole."""
        if self.output.is_full:
            return False
        self._body.feed(self._input)  # the rest of one that no resource reads
        while self._body.done and self._input.startswith(b"\r\n"):
            del self._input[:2]  # RFC 9112 2.2: behind a body, where nothing should be
        if self._body.done and not self._input:
            if self._state is HEAD:
                self._enter(IDLE)
            return False
        if self._state is IDLE:
            self._enter(HEAD)
        end = self._input.find(b"\r\n\r\n", 0, MAX_HEAD) + 4
        if end < 4:
            check_beginning(self._input)
            return False
        head = parse(bytes(self._input[:end]))
        del self._input[:end]
        self._begin_request(head)
        return True

    def _begin_request(self, head: Head) -> None:
        """Read the body of a request, or answer it by its head."""
        self._head = head
        request = self._request = self._make_request(self)
        for name, value in head.fields:
            request.requestHeaders.addRawHeader(name, value)
        request.gotLength(head.length)
        if head.method == b"POST" and head.target.partition(b"?")[0] == LOCK_PATH:
            request.body_limit = MAX_LOCK
        size = request.body_limit if head.length is None else head.length
        request.too_large = size > request.body_limit
        if size > MAX_BODY and not request.too_large:
            request.overloaded = not self._limiter.admit_body(self, size)
        refused = request.too_large or request.overloaded
        self.persistent = head.persistent and self.admitted
        self._body = Chunks() if head.length is None else Counted(head.length)
        if self._body.done:
            self._answer()
        elif head.method == b"POST" and not self.site.is_read_only(head.target) and not refused:
            self._state = BODY  # with the deadline of the head
            if head.expects_continue:
                self.write(_CONTINUE)
        else:
            if head.length is None or refused or head.expects_continue:
                self.persistent = False
            self._answer()

    def _read_body(self) -> bool:
        """Read the body of a request, and answer; return whether it is whole."""
        request = self._request
        request.handleContentChunk(self._body.feed(self._input))
        request.too_large = request.content.tell() > request.body_limit
        if request.too_large:
            self.persistent = False
        elif not self._body.done:
            return False
        self._answer()
        return True

    def _keep(self) -> bool:
        """Leave the input for later, except the rest of the body."""
        if self.persistent:
            self._body.feed(self._input)
        return False

    def _discard(self) -> bool:
        """Discard the input; abort the connection beyond the limit."""
        self._left_to_discard -= len(self._input)
        self._input.clear()
        if self._left_to_discard < 0:
            self.abort()
        return False

    # Responses.

    def _answer(self) -> None:
        request, head = self._request, self._head
        if not self.persistent:
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        self._begin_response(request)
        request.requestReceived(head.method, head.target, head.version)

    def _begin_response(self, request: Any) -> None:
        self._request = request
        self._enter(ANSWERING)
        self._limiter.begin_response(self)

    def requestDone(self, request: Any) -> None:
        """Go on with the next request, or end the connection; called by the request."""
        self._request = None
        self._limiter.end_response(self)
        if self._limiter.draining:
            self._enter(CLOSING)  # and the server closes it once the client has all bytes
        elif self.persistent:
            self._enter(IDLE)
        else:
            self._end(lingers=bool(self._input or not self._body.done))
        self._advance()

    def _refuse(self, error: BadRequest) -> None:
        """Refuse a request that is malformed, and close: its end is not known."""
        bare = self._request is None and self._input.startswith(b"HEAD ")
        self._request = None
        self.release_body()
        head, body = responses.text(error.status, error.text, dict(error.fields)).serialize()
        body = b"" if bare else body
        self.write(head + body)
        kind, outcome = "other", accounting.outcome(error.status, "")
        accounting.count(kind, outcome, "", sent=len(body))
        access = self._server.access
        line = access.template(b"-", b"-", error.status, len(body), outcome, kind)
        access.write(line, self.peer, 0)
        self._end(lingers=True)
        self._discard()

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """Write a head, and store the response that it begins if it is cacheable."""
        fields = [(name, value) for name, values in headers.getAllRawHeaders() for value in values]
        request, key = self._request, self._head.key
        cacheable = request.cacheable
        if cacheable is not None and key is not None and self.output.plain:
            if request.method == b"HEAD" or request.code == 304:
                cacheable = cacheable.without_body()
            shown = (request.method, request.path, request.code, cacheable.size)
            line = self._server.access.template(*shown, "hit", request.kind)
            self._cache.store(
                key,
                code + b" " + reason,
                fields,
                line,
                cacheable,
                kind=request.kind,
                index=request.index,
            )
        lines = [b"%b: %b\r\n" % field for field in fields]
        self.write(b"%b %b %b\r\n%b\r\n" % (version, code, reason, b"".join(lines)))

    def writeSequence(self, parts: Iterable[bytes]) -> None:
        self.write(b"".join(parts))

    def write(self, data: bytes) -> None:
        self.output.write(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.output.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self.output.unregisterProducer()

    def getPeer(self) -> Any:
        return self.transport.getPeer()

    def getHost(self) -> Any:
        return self.transport.getHost()

    def isSecure(self) -> bool:
        return self.output.tls

    def release_body(self) -> None:
        """The body of the request is not needed any more."""
        self._limiter.release_body(self)

    # Deadlines and the end.

    def _enter(self, state: State, timeout: float | None = None) -> None:
        self._state = state
        now = self._clock.seconds()
        self._deadline = now + (state.timeout if timeout is None else timeout)
        if self._timer_at > now + POLL:
            self._ring_in(POLL)

    def _ring_in(self, seconds: float) -> None:
        self._timer_at = self._clock.seconds() + seconds
        if self._timer is not None and self._timer.active():
            self._timer.reset(seconds)
        else:
            self._timer = self._clock.callLater(seconds, self._on_timer)

    def _on_timer(self) -> None:
        """Drop the client if its time is over; look again later if it is not."""
        now, self._timer_at = self._clock.seconds(), math.inf
        if self.output.pending():
            self._deadline = now + self._state.timeout
            left = self.output.stall_deadline()
            if left <= 0:
                self.abort()
                return
            left = min(left, POLL)
        else:
            self.output.restart_stall_deadline()
            left = min(self._deadline - now, POLL if self._state is ANSWERING else math.inf)
            if left <= 0:
                self._state.expire(self)
                return
        if self._state is ANSWERING and self._input_ended:
            request = self._request
            if self.output.connection_ended():
                self.abort()
            elif not request.startedWriting and request.clientproto == b"HTTP/1.1":
                self.write(_CONTINUE)
        self._ring_in(left)

    def _probe_soon(self) -> None:
        self._ring_in(HALF_CLOSE_GRACE)

    def drain(self) -> None:
        """Begin no further request."""
        if self._state is ANSWERING:
            self.persistent = False
            self._request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        elif self._state in (IDLE, HEAD, BODY):
            self._enter(CLOSING)

    def close(self) -> None:
        self._enter(CLOSING)
        self.output.close()

    loseConnection = close

    def abort(self) -> None:
        self.output.abort()

    def _end(self, *, lingers: bool) -> None:
        """End the connection after its last response."""
        if self.output.tls or not lingers:
            self.close()
        else:
            self._enter(LINGERING)
            self.output.close(sending_side=True)


def _never(channel: Channel) -> bool:
    return False


#: See the module's docstring.
IDLE = State(IDLE_TIMEOUT, Channel._read_head, Channel.close, Channel.close)
HEAD = State(REQUEST_TIMEOUT, Channel._read_head, Channel.close, Channel.close)
BODY = State(REQUEST_TIMEOUT, Channel._read_body, Channel.close, Channel.close)
ANSWERING = State(math.inf, Channel._keep, Channel._probe_soon, _never)
LINGERING = State(LINGER_TIMEOUT, Channel._discard, Channel.close, Channel.abort)
CLOSING = State(POLL, Channel._discard, _never, Channel.abort)
CLOSED = State(math.inf, _never, _never, _never)


@attrs.define(eq=False, slots=False)
class _CachedRequest:
    """Stands for a request while the rest of a cached response is sent."""

    channel: Channel
    finish: Callable[[], None]
    disconnect: Callable[[], None]
    method: bytes = b"GET"
    sentLength: int = 0
    startedWriting: bool = True
    responseHeaders: Headers = attrs.field(factory=Headers)

    def __attrs_post_init__(self) -> None:
        self.registerProducer = self.channel.registerProducer
        self.unregisterProducer = self.channel.unregisterProducer

    def write(self, data: bytes) -> None:
        self.sentLength += len(data)
        self.channel.write(data)

    def connectionLost(self, reason: Failure) -> None:
        """The client is gone; the channel stops the producer."""
        self.disconnect()
