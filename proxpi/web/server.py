"""The HTTP server: site, request class, limit on connections, drain, and the access log.

A connection is *admitted*, or *refused*: at most :data:`MAX_REFUSED` refused ones at a time get a
503 (``/health`` is answered). An admitted one is *busy* while a request is answered. While
*draining*, no request begins; a connection closes as soon as the client has all bytes, at the
latest at the deadline.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from io import BytesIO
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from proxpi.access_log import AccessLog, escaped
from proxpi.web import accounting, responses
from proxpi.web.channel import MAX_BODY, Channel
from proxpi.web.forwarded import Forwarded, TrustedProxies
from proxpi.web.readiness import Readiness
from proxpi.web.response_cache import Cacheable, ResponseCache
from proxpi.web.routes import find_view

#: Connections on which a refusal is being sent at the same time.
MAX_REFUSED = 32
#: Seconds between two looks at the connections that are left during a drain.
DRAIN_POLL = 0.05
#: Seconds that a client has for its part in closing a connection without a request.
CLOSE_TIMEOUT = 1.0
#: Bytes of all bodies above :data:`~proxpi.web.channel.MAX_BODY` that are in memory.
MAX_BODIES = 128 * 1024 * 1024
#: Host and port in URLs for a client of HTTP/1.0 that states none.
DEFAULT_AUTHORITY = "127.0.0.1:5000"
#: The paths that load balancers and orchestrators request every few seconds.
HEALTH_PATHS = (b"/health", b"/ready")
#: The target that an open admin page requests every few seconds.
LIVE_SECTIONS = b"/stats?format=html"
OVERLOADED = "proxpi has as many clients as it can take; try again in a moment."

_log = Logger(namespace="proxpi.web")


class Request(server.Request):
    """A request.

    :ivar started: in seconds of the clock
    :ivar peer: the address of the peer, which may be a reverse proxy
    :ivar head_seconds: seconds from `started` until the head of its response was written
    :ivar kind: of the requested resource: page, list, file, metadata or other
    :ivar index: name of the index that the content of its response is from, if any
    :ivar upstream: seconds from `started` until the wait of its response for an upstream ended;
        ``None``: it did not wait
    :ivar follows: whether its body is sent while it arrives from upstream
    :ivar cacheable: the part of its response that the response cache may store
    :ivar body_limit: bytes that its body may have
    :ivar too_large: whether its body exceeds that
    :ivar overloaded: whether there is no memory for its body now
    """

    site: Any
    started = head_seconds = 0.0
    kind, index = "other", ""
    upstream: float | None = None
    follows = False
    _waits = False
    cacheable: Cacheable | None = None
    body_limit = MAX_BODY
    too_large = overloaded = False

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel)  # type: ignore[no-untyped-call]
        self.peer = channel.peer
        self._is_secure = channel.isSecure()
        self._trusted_proxies = channel.site.trusted_proxies

    def gotLength(self, length: int | None) -> None:
        """Keep the body in memory: the channel bounds it."""
        self.content = BytesIO()

    def release_body(self) -> None:
        """Drop the body, which has been read."""
        self.content = BytesIO()
        if self.channel is not None:
            self.channel.release_body()  # type: ignore[attr-defined]

    def process(self) -> None:
        if self.uri == b"*":
            self.uri = self.path = b"/"
        super().process()  # type: ignore[no-untyped-call]

    def begin_wait(self) -> None:
        """Note that the response waits for an upstream."""
        if not self._waits:
            self._waits = True
            self.site.waiting += 1

    def end_wait(self) -> None:
        """Note that the response waits for an upstream no longer."""
        if self._waits:
            self._waits = False
            self.site.waiting -= 1
            self.upstream = self._elapsed()

    def _elapsed(self) -> float:
        return float(self.site.clock.seconds()) - self.started

    @property
    def outcome(self) -> str:
        """See :mod:`proxpi.web.accounting`."""
        return accounting.outcome(self.code, self.x_cache)

    @property
    def x_cache(self) -> str:
        """The use of the cache that its response states; empty for none."""
        return (self.responseHeaders.getRawHeaders("X-Cache") or [""])[0]

    def write(self, data: bytes) -> None:
        if not self.startedWriting:
            self._note_head()
        super().write(data)  # type: ignore[no-untyped-call]

    def _note_head(self) -> None:
        """Note that the head of the response is about to be written."""
        self.head_seconds = self._elapsed()
        if not self._waits:
            return
        cache = self.x_cache
        if cache != "HIT":
            timing = f"upstream;dur={self.head_seconds * 1000:.1f}"
            timing = f"cache;desc={cache}, {timing}" if cache else timing
            self.responseHeaders.setRawHeaders("Server-Timing", [timing])
        if not self.follows:
            self.end_wait()
        if cache == "HIT":
            self.upstream = None  # it waited for a disk or a thread alone

    def connectionLost(self, reason: Failure) -> None:
        """Count and log a request whose client leaves before the end of its response."""
        if self.site is not None:
            if not self.startedWriting:
                self.setResponseCode(accounting.DISCONNECTED, b"Client Closed Request")
                self.head_seconds = self._elapsed()
            self.end_wait()
            self.site.log(self)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    @property
    def sender(self) -> tuple[str, str]:
        """The client: its address and its ``User-Agent``."""
        return self.client_address, (self.getHeader(b"User-Agent") or b"").decode("latin-1")

    @cached_property
    def forwarded(self) -> Forwarded:
        """The origin of the request, as far as trusted proxies and the head state it."""
        return self._trusted_proxies.read(self.peer, self.requestHeaders)

    @property
    def client_address(self) -> str:
        """The client's address; ``unix`` for a unix socket, ``-`` if it is not known."""
        return self.forwarded.client

    @property
    def base_url(self) -> str:
        """The URL of the root under which the client sees it, with a slash at its end."""
        seen = self.forwarded
        scheme = seen.scheme or ("https" if self._is_secure else "http")
        return f"{scheme}://{seen.authority or DEFAULT_AUTHORITY}{seen.prefix}/"

    def getRequestHostname(self) -> bytes:
        """Return a name that Klein can bind its routes to: it fails on some that clients send."""
        return b"proxpi"

    def processingFailed(self, reason: Failure) -> Failure:
        """Log an error of proxpi's own, and tell the client no more than that."""
        _log.failure("while answering {path}", failure=reason, path=escaped(self.path))
        if self.channel is None:
            return reason  # the client is gone
        if self.startedWriting:
            # A body that breaks off must not look like one that is whole.
            self.channel.abort()  # type: ignore[attr-defined]
        else:
            text = "Something is wrong with proxpi itself; its log says more."
            responses.text(500, text).send(self)
        return reason


class ConnectionLimiter:
    """Counts connections and responses.

    :ivar draining: whether no further request is begun
    """

    def __init__(self, clock: IReactorTime, limit: int) -> None:
        """
        :param limit: descriptors for clients: each connection takes one, and each request that is
            being answered may take one more, for a file
        """
        self.draining = False
        self._clock = clock
        self._limit = limit
        # The oldest first.
        self._admitted: dict[Channel, None] = {}
        self._refused: dict[Channel, None] = {}
        self._busy: set[Channel] = set()
        self._closed_at: dict[Channel, float] = {}
        # Bytes that are in memory, or may come.
        self._bodies: dict[Channel, int] = {}
        self._logged = False
        self._drained: Deferred[None] = Deferred()
        self._drain_until = math.inf

    def admit(self, channel: Channel) -> bool:
        """Count a connection in; return whether it may get more than refusals."""
        # Not all descriptors for connections alone: nothing could be opened for the last.
        descriptors = self._descriptors()
        if descriptors - len(self._busy) < self._limit * 3 // 4 and descriptors < self._limit:
            self._admitted[channel] = None
            return True
        if not self._logged:
            self._logged = True
            _log.warn("{count} connections: more are refused", count=len(self._admitted))
        self._refused[channel] = None
        if len(self._refused) > MAX_REFUSED:
            oldest = next(iter(self._refused))
            del self._refused[oldest]
            oldest.abort()
        return False

    def release(self, channel: Channel) -> None:
        self._busy.discard(channel)
        self._admitted.pop(channel, None)
        self._refused.pop(channel, None)
        self._bodies.pop(channel, None)
        if self._descriptors() < self._limit // 2:
            self._logged = False

    def begin_response(self, channel: Channel) -> None:
        self._busy.add(channel)

    def end_response(self, channel: Channel) -> None:
        self._busy.discard(channel)
        self._bodies.pop(channel, None)

    def admit_body(self, channel: Channel, size: int) -> bool:
        """Reserve memory for a large body of so many bytes; return whether there is any."""
        if sum(self._bodies.values()) + size > MAX_BODIES:
            return False
        self._bodies[channel] = size
        return True

    def release_body(self, channel: Channel) -> None:
        self._bodies.pop(channel, None)

    def is_exhausted(self) -> bool:
        """Return whether one more request would lack a descriptor."""
        return self._descriptors() > self._limit

    def _descriptors(self) -> int:
        """Return how many descriptors clients may have taken."""
        return len(self._admitted) + len(self._busy)

    def drain(self, seconds: float) -> Deferred[None]:
        """Begin no request, finish the responses, and close every connection in `seconds`."""
        self.draining = True
        self._drain_until = min(self._drain_until, self._clock.seconds() + seconds)
        for channel in [*self._admitted, *self._refused]:
            channel.drain()
        self._close_drained()
        return self._drained

    def abort_drain(self) -> None:
        """Abort every connection at the next poll."""
        self._drain_until = self._clock.seconds()

    def _close_drained(self) -> None:
        now = self._clock.seconds()
        late = now >= self._drain_until
        for channel in [*self._admitted, *self._refused]:
            if late or now >= self._closed_at.get(channel, now) + CLOSE_TIMEOUT:
                channel.abort()
            elif channel not in self._busy and not channel.output.pending():
                # What is in the kernel would be lost if the network ended with the process.
                self._closed_at.setdefault(channel, now)
                channel.close()
        if late or not (self._admitted or self._refused):
            self._drained.callback(None)
        else:
            self._clock.callLater(DRAIN_POLL, self._close_drained)


class Site(server.Site):
    """Gives each request its resource, counts the responses, and writes the access log.

    :ivar waiting: requests that wait for an upstream
    """

    requestFactory = Request  # type: ignore[assignment]  # made by our channel alone
    noisy = False

    def __init__(
        self,
        views: Mapping[bytes, IResource],
        rest: Callable[[], IResource],
        *,
        clock: IReactorTime,
        limiter: ConnectionLimiter,
        response_cache: ResponseCache,
        readiness: Readiness,
        access: AccessLog,
        trusted_proxies: TrustedProxies,
    ) -> None:
        """
        :param views: the resources of all that lies under ``/index/``, by the segment before that
        :param rest: gives the resource of all other paths; called at the first such request
        :param access: the access log
        """
        server.Site.__init__(self, views[b""], reactor=clock, parsePOSTFormSubmission=False)
        self.clock = clock
        self.trusted_proxies = trusted_proxies
        self.waiting = 0
        self._limiter = limiter
        self._response_cache = response_cache
        self._views = views
        self._rest = rest
        self.access = access
        retry = {"Retry-After": str(responses.RETRY_AFTER)}
        self._overloaded = _Fixed(responses.text(503, OVERLOADED, retry))
        self._health = _Fixed(responses.success(responses.NO_STORE))
        self._ready = _Ready(readiness)

    def buildProtocol(self, addr: IAddress | None) -> Channel:  # type: ignore[override]
        return Channel(self, self._limiter, self._response_cache, self.requestFactory)

    def acceptableProtocols(self) -> list[bytes]:
        """HTTP/2 would get past all limits of a connection."""
        return [b"http/1.1"]

    def getResourceFor(self, request: Any) -> IResource:
        """Choose by the raw path: Klein must not see what it would decode or redirect."""
        request.started = self.clock.seconds()
        refused = request.overloaded or not request.channel.admitted
        if refused or self._limiter.is_exhausted():
            return self._health if request.path == b"/health" else self._overloaded
        if request.path in HEALTH_PATHS and request.method in (b"GET", b"HEAD"):
            return self._health if request.path == b"/health" else self._ready
        if (found := find_view(request.path, self._views)) is not None:
            return self._views[found[0]]
        if not _is_text(request.postpath):
            return self._views[b""]
        # Doubled slashes count as one, here as well.
        request.postpath = [segment for segment in request.postpath if segment] or [b""]
        return self._rest()

    def is_read_only(self, target: bytes) -> bool:
        """Return whether a target lies in the tree of a view, which takes no bodies."""
        return find_view(target, self._views) is not None

    def log(self, request: Any) -> None:
        status, sent, outcome = request.code, request.sentLength, request.outcome
        accounting.count(
            request.kind,
            outcome,
            request.index,
            sent=sent,
            seconds=request.head_seconds,
            upstream=request.upstream,
        )
        line = (request.method, request.path, status, sent, outcome, request.kind)
        self.access.write(
            self.access.template(*line),
            request.client_address,
            int((self.clock.seconds() - request.started) * 1000),
            responses.field(request, b"X-Request-ID") or "",
            request.upstream,
            # They come every few seconds.
            debug=status == 200
            and (b"/" + request.path.strip(b"/") in HEALTH_PATHS or request.uri == LIVE_SECTIONS),
        )


class _Ready(Resource):
    """Sends the readiness, also before Klein is imported."""

    isLeaf = True

    def __init__(self, readiness: Readiness) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._readiness = readiness

    def render(self, request: Any) -> int:
        responses.respond_later(request, self._respond(request))
        return NOT_DONE_YET

    async def _respond(self, request: Any) -> None:
        (await self._readiness.respond()).send(request)


class _Fixed(Resource):
    """Sends every request the same response, also before Klein is imported."""

    isLeaf = True

    def __init__(self, response: responses.WholeResponse) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._response = response

    def render(self, request: Any) -> int:
        self._response.send(request)
        return NOT_DONE_YET


def _is_text(segments: list[bytes]) -> bool:
    """Return whether a percent-decoded path is UTF-8; Klein takes no other."""
    try:
        b"/".join(segments).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
