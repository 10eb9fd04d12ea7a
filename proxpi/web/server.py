"""The HTTP server: site, request class, limit on connections, drain, and the access log.

A connection is *admitted*, or *refused*: at most :data:`MAX_REFUSED` refused ones at a time get a
503 (``/health`` is answered). An admitted one is *busy* while a request is answered. While
*draining*, no request begins; a connection closes as soon as the client has all bytes, at the
latest at the deadline.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from io import BytesIO
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from proxpi.web import responses
from proxpi.web.channel import Channel
from proxpi.web.response_cache import Cacheable, CachedResponse, ResponseCache
from proxpi.web.routes import in_tree
from proxpi.web.transfer import cut_off

#: Connections on which a refusal is being sent at the same time.
MAX_REFUSED = 32
#: Connections for which there is room if nobody says how many.
CONNECTIONS = 10_000
#: Seconds between two looks at who is still there when the process is to end.
DRAIN_POLL = 0.05
#: Seconds that a client has for its part in the end of a connection with nothing on it.
CLOSE_TIMEOUT = 1.0
#: Bytes of a path that the access log shows.
MAX_LOGGED_PATH = 2048

_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")

_access = Logger(namespace="proxpi.access")
_log = Logger(namespace="proxpi.web")


def log_line(method: bytes, path: bytes, status: int, size: int, cache: str) -> str:
    """Write what the access log says of a request and its answer, in one line.

    :param path: without its query, in which people put tokens
    :param size: bytes of the body that were sent
    """
    name = printable(path[:MAX_LOGGED_PATH]) + ("..." if len(path) > MAX_LOGGED_PATH else "")
    return f"{printable(method[:MAX_LOGGED_PATH])} {name} {status} {size} {cache}"


def printable(data: bytes) -> str:
    """Write bytes a client sent so that they cannot forge a line of a log."""
    return _UNPRINTABLE.sub(lambda match: f"\\x{ord(match[0]):02x}", data.decode("latin-1"))


class Request(server.Request):
    """A request.

    :ivar started: in seconds of the clock
    :ivar cacheable: what the response cache may store of its response
    :ivar too_large: whether its body is longer than anything reads
    """

    started = 0.0
    cacheable: Cacheable | None = None
    too_large = False

    def gotLength(self, length: int | None) -> None:
        """Keep the body in memory: the channel bounds it."""
        self.content = BytesIO()

    def process(self) -> None:
        """Begin to answer."""
        if self.uri == b"*":
            self.uri = self.path = b"/"
        super().process()  # type: ignore[no-untyped-call]

    def getRequestHostname(self) -> bytes:
        """Give a name that Klein can bind its routes to: it fails on some that clients send."""
        return b"proxpi"

    def processingFailed(self, reason: Failure) -> Failure:
        """Log an error of proxpi's own, and say no more of it than that."""
        _log.failure("while answering {path}", failure=reason, path=printable(self.path))
        if self.channel is None:
            return reason  # the client is gone
        if self.startedWriting:
            # A body that breaks off must not look like one that is whole.
            cut_off(self)
        else:
            text = "Something is wrong with proxpi itself; its log says more."
            responses.text(500, text).send(self)
        return reason


class ConnectionLimiter:
    """Counts connections in and out.

    :ivar clock: tells the time
    :ivar busy: the connections with a request that is being answered
    :ivar draining: whether no request is begun any more
    """

    def __init__(self, clock: IReactorTime, room: int) -> None:
        """
        :param room: descriptors for clients: each connection takes one, and each request that is
            being answered may take one more, for a file
        """
        self.clock = clock
        self._room = room
        self.busy: set[Channel] = set()
        self.draining = False
        # In the order in which they came.
        self._admitted: dict[Channel, None] = {}
        self._refused: dict[Channel, None] = {}
        self._logged = False
        self._drained: Deferred[None] | None = None
        self._drain_until = math.inf

    def admit(self, channel: Channel) -> bool:
        """Count a connection in; tell whether there is room for more on it than a refusal."""
        # Not all of them for connections alone: nothing could be opened for the last.
        taken = self._taken()
        if taken - len(self.busy) < self._room * 3 // 4 and taken < self._room:
            self._admitted[channel] = None
            return True
        if not self._logged:
            self._logged = True
            _log.warn("{count} connections: more are refused", count=len(self._admitted))
        self._refused[channel] = None
        if len(self._refused) > MAX_REFUSED:
            oldest = next(iter(self._refused))
            del self._refused[oldest]
            oldest.transport.abortConnection()
        return False

    def release(self, channel: Channel) -> None:
        """Count a connection out."""
        self.busy.discard(channel)
        self._admitted.pop(channel, None)
        self._refused.pop(channel, None)
        if self._taken() < self._room // 2:
            self._logged = False

    def _taken(self) -> int:
        """Descriptors that clients may have taken."""
        return len(self._admitted) + len(self.busy)

    def drain(self, seconds: float) -> Deferred[None]:
        """
        Begin nothing more, finish what was begun, and close every connection.

        :param seconds: after which nothing is waited for
        """
        self.draining = True
        self._drain_until = min(self._drain_until, self.clock.seconds() + seconds)
        self._drained = Deferred()
        for channel in self.busy:
            for request in channel.requests:
                request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        drained = self._drained
        self._close_idle()
        return drained

    def abort_drain(self) -> None:
        """Wait for nothing any more."""
        self._drain_until = self.clock.seconds()

    def _close_idle(self) -> None:
        now = self.clock.seconds()
        late = now >= self._drain_until
        for channel in [*self._admitted, *self._refused]:
            if late or (channel.closed_at is not None and now >= channel.closed_at + CLOSE_TIMEOUT):
                channel.transport.abortConnection()
            elif channel not in self.busy and not channel.send_progress.pending():
                # What is in the kernel would be lost if the network ended with the process.
                channel.closed_at = channel.closed_at or now
                channel.loseConnection()  # type: ignore[no-untyped-call]
        if late or not (self._admitted or self._refused):
            assert self._drained is not None
            self._drained.callback(None)
        else:
            self.clock.callLater(DRAIN_POLL, self._close_idle)

    def is_exhausted(self) -> bool:
        """Tell whether there are no descriptors left for one more request."""
        return self._taken() > self._room


class Site(ConnectionLimiter, server.Site):
    """Gives each request its resource.

    :ivar clock: tells how long a request took
    :ivar access: writes a line of the access log
    :ivar response_cache: responses that are ready
    """

    requestFactory = Request
    protocol = Channel  # type: ignore[assignment]  # without Twisted's switch to HTTP/2
    noisy = False
    describe = staticmethod(log_line)

    def __init__(
        self,
        tree: IResource,
        rest: Callable[[], IResource],
        clock: IReactorTime,
        room: int = CONNECTIONS,
        *,
        access: Callable[[str], object],
        response_cache: ResponseCache,
    ) -> None:
        """
        :param tree: answers what lies under ``/index/``
        :param rest: gives what answers all else; called once that is asked for
        :param room: descriptors for clients: each connection takes one, and each request that is
            being answered may take one more, for a file
        """
        ConnectionLimiter.__init__(self, clock, room)
        server.Site.__init__(self, tree, reactor=clock, parsePOSTFormSubmission=False)
        self._tree = tree
        self._rest = rest
        self.access = access
        self.response_cache = response_cache
        self._full = _Fixed(_full)
        self._health = _Fixed(_healthy)

    def acceptableProtocols(self) -> list[bytes]:
        """See `IProtocolNegotiationFactory`: HTTP/2 would get past all limits of a connection."""
        return [b"http/1.1"]

    def getResourceFor(self, request: Any) -> IResource:
        """Choose by the raw path: Klein must not see what it would decode or redirect."""
        request.site = self
        request.started = self.clock.seconds()
        channel: Channel = request.channel
        if not channel.admitted:
            channel.persistent = False
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        if not channel.admitted or self.is_exhausted():
            return self._health if request.path == b"/health" else self._full
        if request.path == b"/health" and request.method in (b"GET", b"HEAD"):
            return self._health
        if in_tree(request.path) or not _is_text(request.postpath):
            return self._tree
        # Doubled slashes count as one, here as well.
        request.postpath = [segment for segment in request.postpath if segment] or [b""]
        return self._rest()

    def log(self, request: Any) -> None:
        """Write the line of the access log."""
        cache = (request.responseHeaders.getRawHeaders(b"X-Cache") or [b"-"])[0].decode("latin-1")
        seconds = self.clock.seconds() - request.started
        line = log_line(request.method, request.path, request.code, request.sentLength, cache)
        text = f"{request.channel.client} {line} {seconds:.3f}s"
        if request.path.strip(b"/") == b"health" and request.code == 200:
            _access.debug("{line}", line=text)  # they come every few seconds
        else:
            self.access(text)

    def log_cached(self, channel: Channel, entry: CachedResponse, seconds: float = 0.0) -> None:
        """Count, and log, a response from the response cache."""
        self.response_cache.count(entry)
        self.access(f"{channel.client} {entry.line} {seconds:.3f}s")


class _Fixed(Resource):
    """Answers the same to everybody, at once, also before Klein is there."""

    isLeaf = True

    def __init__(self, make: Callable[[], responses.Response]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._make = make

    def render(self, request: Any) -> int:
        """See `IResource`."""
        self._make().send(request)
        return NOT_DONE_YET


def _healthy() -> responses.Response:
    return responses.success(responses.NO_STORE)


def _full() -> responses.Response:
    headers = {"Retry-After": str(responses.RETRY_AFTER)}
    text = "proxpi has as many clients as it can take; try again in a moment."
    return responses.text(503, text, headers)


def _is_text(segments: list[bytes]) -> bool:
    """Tell whether a path is UTF-8 once it is percent-decoded; Klein wants no other."""
    try:
        b"/".join(segments).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
