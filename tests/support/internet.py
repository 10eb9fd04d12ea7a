"""An internet in memory: an agent whose answers a test scripts, body and end included."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer


@attrs.frozen
class Asked:
    """A request that went out."""

    method: str
    url: str
    headers: Headers

    def header(self, name: str) -> str | None:
        """Give the last value of a header field."""
        values = self.headers.getRawHeaders(name)
        return values[-1] if values else None


@attrs.define(eq=False)
class Reply:
    """An answer.

    :ivar whole: whether its body ends by itself; otherwise :meth:`bring` and :meth:`end` go on
    :ivar length: announced; by default that of the body, ``None`` announces nothing
    :ivar closed: whether proxpi closed the connection
    :ivar paused: whether proxpi wants no more for now
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = attrs.field(factory=dict)
    whole: bool = True
    length: int | None = attrs.field(
        default=attrs.Factory(lambda self: len(self.body), takes_self=True)
    )
    closed: bool = attrs.field(init=False, default=False)
    paused: bool = attrs.field(init=False, default=False)
    _receiver: Any = attrs.field(init=False, default=None)

    @property
    def began(self) -> bool:
        """Whether proxpi takes its body."""
        return self._receiver is not None

    def fields(self) -> Headers:
        """Give the head's fields."""
        fields = Headers({name: [value] for name, value in self.headers.items()})
        if self.length is not None:
            fields.setRawHeaders("Content-Length", [str(self.length)])
        return fields

    def deliver_to(self, receiver: Any) -> None:
        """Begin the body."""
        self._receiver = receiver
        receiver.makeConnection(_BodyTransport(self))
        if self.body:
            receiver.dataReceived(self.body)
        if self.whole:
            self.end()

    def bring(self, data: bytes) -> None:
        """Let more of the body come."""
        self._receiver.dataReceived(data)

    def end(self, reason: Exception | None = None) -> None:
        """End the body: well, or for a reason."""
        self._receiver.connectionLost(Failure(reason or ResponseDone()))

    def cut(self) -> None:
        """End the body in the middle."""
        self.end(ResponseFailed([Failure(ConnectionResetError())]))


@attrs.define(eq=False)
class Silence:
    """No answer until a test gives one.

    :ivar cancelled: whether proxpi does not want it any more
    """

    cancelled: bool = attrs.field(init=False, default=False)
    _asked: list[Deferred[IResponse]] = attrs.field(init=False, factory=list)

    def wait(self) -> Deferred[IResponse]:
        """Give what one request waits for."""
        waiting: Deferred[IResponse] = Deferred(self._cancel)
        self._asked.append(waiting)
        return waiting

    def _cancel(self, waiting: Deferred[IResponse]) -> None:
        self.cancelled = True
        # As the agent has it: a cancelled request has failed.
        waiting.errback(ResponseFailed([Failure(CancelledError())]))

    def answer(self, reply: Reply) -> None:
        """Give all who ask their answer, at last."""
        asked, self._asked = self._asked, []
        for waiting in asked:
            waiting.callback(_Response(reply))


@implementer(IAgent)
class FakeInternet:
    """Answers by URL; whatever was not scripted is a 404.

    :ivar asked: the requests, in the order in which they came
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._script: dict[str, list[Reply | Silence | Exception]] = {}

    def at(self, url: str, *replies: Reply | Silence | Exception) -> None:
        """Script what a URL answers, in turn; the last one for ever."""
        self._script[url] = list(replies)

    def urls(self, method: str = "GET") -> list[str]:
        """Give the URLs that were asked for."""
        return [asked.url for asked in self.asked if asked.method == method]

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """See `IAgent`."""
        url = uri.decode("ascii")
        self.asked.append(Asked(method.decode("ascii"), url, headers or Headers()))
        script = self._script.get(url) or [Reply(404)]
        reply = script.pop(0) if len(script) > 1 else script[0]
        match reply:
            case Silence():
                return reply.wait()
            case Exception():
                return fail(reply)
            case _:
                return succeed(_Response(reply))


@implementer(IResponse)
class _Response:
    """The head of a reply, as Twisted gives it."""

    version = (b"HTTP", 1, 1)
    phrase = b""
    request = None
    previousResponse = None

    def __init__(self, reply: Reply) -> None:
        self.code = reply.status
        self.headers = reply.fields()
        self.length = reply.length
        self._reply = reply

    def deliverBody(self, protocol: Any) -> None:
        """See `IResponse`."""
        self._reply.deliver_to(protocol)

    def setPreviousResponse(self, response: IResponse) -> None:
        """See `IResponse`; nobody asks for it."""


class _BodyTransport:
    """The connection from which a body comes, as far as its end goes."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    def loseConnection(self) -> None:
        """See `ITransport`."""
        self._reply.closed = True

    def pauseProducing(self) -> None:
        """See `IPushProducer`."""
        self._reply.paused = True

    def resumeProducing(self) -> None:
        """See `IPushProducer`."""
        self._reply.paused = False
