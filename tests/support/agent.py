"""The one agent in memory: it answers requests by URL, as a test scripts it.

A test gives each URL the replies to come, in turn (:meth:`MemoryAgent.at`). A reply may come whole,
or its body is continued by the test (:meth:`Reply.bring`). A silent URL answers once the test says
so (:meth:`MemoryAgent.release`); a :class:`Silence` is one such turn of a URL.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IClientRequest, IResponse
from zope.interface import implementer


@implementer(IClientRequest)
@attrs.frozen
class Asked:
    method: str
    absoluteURI: bytes
    headers: Headers

    @property
    def url(self) -> str:
        return self.absoluteURI.decode("ascii")

    def header(self, name: str) -> str | None:
        values = self.headers.getRawHeaders(name)
        return values[-1] if values else None


def _chunks(body: bytes | Iterable[bytes]) -> tuple[bytes, ...]:
    return (body,) * bool(body) if isinstance(body, bytes) else tuple(body)


@attrs.define(eq=False)
class Reply:
    """A response.

    :ivar chunks: the body, or the pieces in which it comes
    :ivar whole: whether the body ends by itself; otherwise :meth:`bring` and :meth:`end` continue
    :ivar length: the Content-Length; by default (-1) that of the body, ``None`` announces nothing
    :ivar ends: what the body ends with
    :ivar closed: whether the client closed the connection
    :ivar paused: whether the client paused the body
    """

    status: int = 200
    chunks: tuple[bytes, ...] = attrs.field(default=(), converter=_chunks)
    headers: dict[str, str] = attrs.field(factory=dict)
    whole: bool = True
    length: int | None = -1
    ends: type[Exception] = ResponseDone
    closed: bool = attrs.field(init=False, default=False)
    paused: bool = attrs.field(init=False, default=False)
    _receiver: Any = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        if self.length == -1:
            self.length = None if "Content-Length" in self.headers else len(self.body)

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def began(self) -> bool:
        return self._receiver is not None

    def having(self, **headers: str) -> Reply:
        """Return the same reply with more header fields (``_`` for ``-``)."""
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        return attrs.evolve(self, headers={**self.headers, **more})

    def response(self, request: Asked) -> IResponse:
        return _Response(self, request)

    def deliver_to(self, receiver: Any) -> None:
        self._receiver, self.closed = receiver, False
        receiver.makeConnection(_BodyTransport(self))
        for chunk in self.chunks:
            if not self.closed:
                receiver.dataReceived(chunk)
        if self.whole and not self.closed:
            self.end(self.ends())

    def bring(self, data: bytes) -> None:
        self._receiver.dataReceived(data)

    def end(self, reason: Exception | None = None) -> None:
        """End the body: well, or for a reason."""
        self._receiver.connectionLost(Failure(reason or ResponseDone()))

    def cut(self) -> None:
        self.end(ResponseFailed([Failure(ConnectionResetError())]))


@attrs.define(eq=False)
class Silence:
    """No response until a test gives one.

    :ivar cancelled: whether the client cancelled a request
    """

    cancelled: bool = attrs.field(init=False, default=False)
    waiting: list[tuple[Asked, Deferred[IResponse]]] = attrs.field(init=False, factory=list)

    def wait(self, request: Asked) -> Deferred[IResponse]:
        waiting: Deferred[IResponse] = Deferred(self._cancel)
        self.waiting.append((request, waiting))
        return waiting

    def _cancel(self, cancelled: Deferred[IResponse]) -> None:
        self.cancelled = True
        self.waiting = [pair for pair in self.waiting if pair[1] is not cancelled]
        # As the agent has it: a cancelled request has failed.
        cancelled.errback(ResponseFailed([Failure(CancelledError())]))

    def answer(self, reply: Reply | Exception) -> None:
        """Answer all requests so far."""
        waiting, self.waiting = self.waiting, []
        for request, deferred in waiting:
            _answer(reply, request).chainDeferred(deferred)


def _answer(reply: Reply | Silence | Exception, request: Asked) -> Deferred[IResponse]:
    match reply:
        case Silence():
            return reply.wait(request)
        case Exception():
            return fail(reply)
        case _:
            return succeed(reply.response(request))


@implementer(IAgent)
class MemoryAgent:
    """Answers by URL; a URL without a script is a 404.

    :ivar script: the replies to come, by URL
    :ivar asked: the requests, in the order in which they came
    :ivar silent: the URLs that are not answered until :meth:`release`
    :ivar conditional: what to answer to a request with ``If-None-Match``, if not the same
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.silent: set[str] = set()
        self.conditional: Reply | None = None
        self.script: dict[str, list[Reply | Silence | Exception]] = {}
        self._waiting: dict[str, Silence] = {}

    def at(self, url: str, *replies: Reply | Silence | Exception) -> None:
        """Script what a URL answers, in turn; the last one for ever."""
        self.script[url] = list(replies)

    def release(self, url: str) -> None:
        """Answer what was asked of a silent URL, by its reply of now, and be silent no more."""
        self.silent.discard(url)
        silence = self._waiting.pop(url, Silence())
        for request, waiting in silence.waiting:
            _answer(self._reply(request), request).chainDeferred(waiting)

    def answer(self, url: str, reply: Reply | Exception, place: int = 0) -> None:
        """Answer one of the requests to a silent URL, by its place among them."""
        request, waiting = self._waiting[url].waiting.pop(place)
        _answer(reply, request).chainDeferred(waiting)

    @property
    def waiting(self) -> int:
        """Requests to silent URLs that are not answered yet."""
        return sum(len(silence.waiting) for silence in self._waiting.values())

    def urls(self, method: str = "GET") -> list[str]:
        return [asked.url for asked in self.asked if asked.method == method]

    def count(self, url: str) -> int:
        return sum(asked.url == url for asked in self.asked)

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        request = Asked(method.decode("ascii"), uri, headers or Headers())
        self.asked.append(request)
        if request.url in self.silent:
            return self._waiting.setdefault(request.url, Silence()).wait(request)
        return _answer(self._reply(request), request)

    def _reply(self, request: Asked) -> Reply | Silence | Exception:
        if self.conditional is not None and request.header("If-None-Match"):
            return self.conditional
        script = self.script.get(request.url) or [Reply(404)]
        return script.pop(0) if len(script) > 1 else script[0]


@implementer(IResponse)
class _Response:
    version = (b"HTTP", 1, 1)
    phrase = b"Phrase"
    previousResponse: IResponse | None = None

    def __init__(self, reply: Reply, request: Asked) -> None:
        self._reply = reply
        self.request = request
        self.code = reply.status
        self.headers = Headers({name: [value] for name, value in reply.headers.items()})
        if reply.length is not None:
            self.headers.setRawHeaders("Content-Length", [str(reply.length)])
        stated = self.headers.getRawHeaders("Content-Length", [""])[0]
        self.length: Any = int(stated) if stated.isdecimal() else UNKNOWN_LENGTH

    def deliverBody(self, protocol: Any) -> None:
        self._reply.deliver_to(protocol)

    def setPreviousResponse(self, response: IResponse) -> None:
        self.previousResponse = response


@attrs.frozen
class _BodyTransport:
    _reply: Reply

    def loseConnection(self) -> None:
        self._reply.closed = True

    def pauseProducing(self) -> None:
        self._reply.paused = True

    def resumeProducing(self) -> None:
        self._reply.paused = False
