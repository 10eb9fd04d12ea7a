"""The HTTP server: which resource answers, what is logged, and no traceback for a client.

It also counts its clients. With more connections than there are descriptors for, each further one
is told to come back; on a few of them at a time, so that ``/health`` is answered all the same.
And when the process is to end, it finishes what it has begun.
"""

from __future__ import annotations

import math
import re
from io import BytesIO
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from proxpi.web import answers
from proxpi.web.channel import BODY, Channel
from proxpi.web.send import cut_off
from proxpi.web.target import in_tree

_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")

#: Connections on which a refusal is being sent at the same time.
REFUSALS = 32
#: Connections for which there is room if nobody says how many.
ROOM = 10_000
#: Seconds between two looks at who is still there when the process is to end.
POLL = 0.05
#: Seconds that a client has for its part in the end of a connection with nothing on it.
FAREWELL = 1.0

_access = Logger(namespace="proxpi.access")
_log = Logger(namespace="proxpi.web")


class Request(server.Request):
    """A request that knows when it began, and how to fail."""

    started = 0.0

    def gotLength(self, length: int | None) -> None:
        """Keep the body in memory: it is bounded, also one that does not say how long it is."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Keep a part of the body, or refuse it."""
        assert self.content is not None
        if self.content.tell() + len(data) > BODY:
            cast(Channel, self.channel).refuse_body()
        else:
            self.content.write(data)

    def process(self) -> None:
        """Begin to answer."""
        if not self.uri.startswith(b"/"):
            # A proxy is asked with the whole URL (RFC 9112 3.2.2); it is no proxy's here.
            _, _, rest = self.uri.partition(b"://")
            _, slash, path = rest.partition(b"/")
            self.uri = slash + path
            self.path = self.uri.partition(b"?")[0]
        super().process()  # type: ignore[no-untyped-call]

    def getRequestHostname(self) -> bytes:
        """
        Give a name that Klein can bind its routes to.

        It has no use for the real one, but stumbles over what some clients send.
        """
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
            answers.finish(self, answers.line(self, 500, text))
        return reason


class Site(server.Site):
    """Gives each request its resource.

    :ivar clock: tells how long a request took
    :ivar busy: the connections with a request that is being answered
    :ivar draining: whether no request is begun any more
    """

    requestFactory = Request
    protocol = Channel  # type: ignore[assignment]  # without Twisted's switch to HTTP/2
    noisy = False

    def __init__(
        self, tree: IResource, rest: IResource, clock: IReactorTime, room: int = ROOM
    ) -> None:
        """
        :param tree: answers what lies under ``/index/``
        :param rest: answers all else
        :param room: descriptors for clients: each connection takes one, and each request that is
            being answered may take one more, for a file
        """
        super().__init__(rest, reactor=clock, parsePOSTFormSubmission=False)  # type: ignore[no-untyped-call]
        self._tree = tree
        self._rest = rest
        self.clock = clock
        self._room = room
        self.busy: set[Channel] = set()
        self.draining = False
        # In the order in which they came.
        self._admitted: dict[Channel, None] = {}
        self._refused: dict[Channel, None] = {}
        self._full = _Full()  # type: ignore[no-untyped-call]
        self._told = False
        self._drained: Deferred[None] | None = None
        self._drain_until = math.inf

    def acceptableProtocols(self) -> list[bytes]:
        """See `IProtocolNegotiationFactory`: HTTP/2 would get past all limits of a connection."""
        return [b"http/1.1"]

    def enter(self, channel: Channel) -> bool:
        """Count a connection in; tell whether there is room for more on it than a refusal."""
        # Not all of them for connections alone: nothing could be opened for the last.
        if len(self._admitted) < self._room * 3 // 4 and self._taken() < self._room:
            self._admitted[channel] = None
            return True
        if not self._told:
            self._told = True
            _log.warn("{count} connections: more are refused", count=len(self._admitted))
        self._refused[channel] = None
        if len(self._refused) > REFUSALS:
            oldest = next(iter(self._refused))
            del self._refused[oldest]
            oldest.transport.abortConnection()
        return False

    def leave(self, channel: Channel) -> None:
        """Count a connection out."""
        self.busy.discard(channel)
        self._admitted.pop(channel, None)
        self._refused.pop(channel, None)
        if self._taken() < self._room // 2:
            self._told = False

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

    def hurry(self) -> None:
        """Wait for nothing any more."""
        self._drain_until = self.clock.seconds()

    def _close_idle(self) -> None:
        now = self.clock.seconds()
        late = now >= self._drain_until
        for channel in [*self._admitted, *self._refused]:
            if late or (channel.closed_at is not None and now >= channel.closed_at + FAREWELL):
                channel.transport.abortConnection()
            elif channel not in self.busy and not channel.uptake.pending():
                # What is in the kernel would be lost if the network ended with the process.
                channel.closed_at = channel.closed_at or now
                channel.loseConnection()  # type: ignore[no-untyped-call]
        if late or not (self._admitted or self._refused):
            assert self._drained is not None
            self._drained.callback(None)
        else:
            self.clock.callLater(POLL, self._close_idle)

    def getResourceFor(self, request: Any) -> IResource:
        """Choose by the raw path: Klein must not see what it would decode or redirect."""
        request.site = self
        request.started = self.clock.seconds()
        channel: Channel = request.channel
        if not channel.admitted:
            channel.persistent = False
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        if not channel.admitted or self._taken() > self._room:
            return self._rest if request.path == b"/health" else self._full
        if in_tree(request.path) or not _is_text(request.postpath):
            return self._tree
        # Doubled slashes count as one, here as well.
        request.postpath = [segment for segment in request.postpath if segment] or [b""]
        return self._rest

    def log(self, request: Any) -> None:
        """Write the line of the access log."""
        client = getattr(request.getClientAddress(), "host", "-")
        cache = (request.responseHeaders.getRawHeaders("X-Cache") or ["-"])[0]
        seconds = self.clock.seconds() - request.started
        # Without its query, in which people put tokens. One field, because each one costs time.
        _access.info(
            "{line}",
            line=f"{client} {printable(request.method)} {printable(request.path)} "
            f"{request.code} {request.sentLength} {cache} {seconds:.3f}s",
        )


class _Full(Resource):
    """Refuses, because there are too many clients."""

    isLeaf = True

    def render(self, request: Any) -> int:
        """See `IResource`."""
        headers = {"Retry-After": str(answers.RETRY_AFTER)}
        text = "proxpi has as many clients as it can take; try again in a moment."
        answers.finish(request, answers.line(request, 503, text, headers))
        return NOT_DONE_YET


def _is_text(segments: list[bytes]) -> bool:
    """Tell whether a path is UTF-8 once it is percent-decoded; Klein wants no other."""
    try:
        b"/".join(segments).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def printable(data: bytes) -> str:
    """Write bytes a client sent so that they cannot forge a line of a log."""
    return _UNPRINTABLE.sub(lambda match: f"\\x{ord(match[0]):02x}", data.decode("latin-1"))
