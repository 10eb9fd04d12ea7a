"""The HTTP server: which resource answers, and what is logged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web import server
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from proxpi.web import answers
from proxpi.web.access_log import described
from proxpi.web.channel import Channel
from proxpi.web.connection_limiter import ROOM, ConnectionLimiter
from proxpi.web.request import Request
from proxpi.web.response_cache import CachedResponse, ResponseCache
from proxpi.web.routes import in_tree

_access = Logger(namespace="proxpi.access")


class Site(ConnectionLimiter, server.Site):
    """Gives each request its resource.

    :ivar clock: tells how long a request took
    :ivar access: writes a line of the access log
    :ivar response_cache: responses that are ready
    """

    requestFactory = Request
    protocol = Channel  # type: ignore[assignment]  # without Twisted's switch to HTTP/2
    noisy = False

    def __init__(
        self, tree: IResource, rest: Callable[[], IResource], clock: IReactorTime, room: int = ROOM
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
        self.access: Callable[[str], object] = lambda line: _access.info("{line}", line=line)
        self.response_cache = ResponseCache()
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
        if not channel.admitted or self.crowded():
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
        line = described(request.method, request.path, request.code, request.sentLength, cache)
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

    def __init__(self, body: Callable[[Any], bytes]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._body = body

    def render(self, request: Any) -> int:
        """See `IResource`."""
        answers.finish(request, self._body(request))
        return NOT_DONE_YET


def _healthy(request: Any) -> bytes:
    return answers.succeeded(request, answers.UNSTORED)


def _full(request: Any) -> bytes:
    headers = {"Retry-After": str(answers.RETRY_AFTER)}
    text = "proxpi has as many clients as it can take; try again in a moment."
    return answers.line(request, 503, text, headers)


def _is_text(segments: list[bytes]) -> bool:
    """Tell whether a path is UTF-8 once it is percent-decoded; Klein wants no other."""
    try:
        b"/".join(segments).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
