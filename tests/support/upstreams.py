"""Upstreams without a network: an agent that answers by URL, and connections in memory.

:class:`Agents` stands where Twisted's agent would, for what answers mean. :class:`Network` is a
reactor for the real agent, for what happens on connections; tests play the server on them.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransportWithDisconnection
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IClientRequest, IResponse
from zope.interface import implementer

from proxpi.index.breaker import Breakers
from proxpi.index.client import IndexClient, Root
from proxpi.simple import urls
from proxpi.single_flight import Flights
from proxpi.upstream import tls
from proxpi.upstream.address_policy import AddressPolicy
from proxpi.upstream.client import CONNECTIONS, USER_AGENT, UpstreamClient
from proxpi.upstream.connections import persistent_pool
from proxpi.upstream.connector import Connector
from proxpi.upstream.credentials import Credentials
from proxpi.upstream.proxies import NO_PROXIES, Proxies
from proxpi.upstream.proxy_agent import ProxyAgent

T = TypeVar("T")
E = TypeVar("E", bound=Exception)

ROOT = "https://root.example/simple/"
EXTRA = "https://extra.example/simple/"
CONNECT_TIMEOUT = 3.0
READ_TIMEOUT = 20.0

#: An address that everybody may connect to.
PUBLIC = "1.2.3.4"
JSON_TYPE = "application/vnd.pypi.simple.v1+json"


def run(work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
    """Start a coroutine."""
    return Deferred.fromCoroutine(work)


class Case(SynchronousTestCase):
    """Synchronous tests, with what they ask of Deferreds in typed words."""

    def result(self, deferred: Deferred[T]) -> T:
        """Give the result, which must be there."""
        return self.successResultOf(deferred)

    def error(self, deferred: Deferred[Any], kind: type[E]) -> E:
        """Give the exception of a failure, which must be there and of this kind."""
        failure = self.failureResultOf(deferred, kind)  # type: ignore[no-untyped-call]
        error: E = failure.value
        return error

    def pending(self, deferred: Deferred[Any]) -> None:
        """Make sure that there is no result yet."""
        self.assertNoResult(deferred)  # type: ignore[no-untyped-call]

    def put(self, owner: object, name: str, value: object) -> None:
        """Give a constant another value for this test."""
        self.patch(owner, name, value)  # type: ignore[no-untyped-call]

    def unhandled(self) -> list[Any]:
        """Give the errors that went to the log, those of forgotten Deferreds among them."""
        gc.collect()
        return list(self.flushLoggedErrors())  # type: ignore[no-untyped-call]


@attrs.frozen
class Reply:
    """What an upstream answers.

    :ivar chunks: the body in the pieces in which it comes
    :ivar end: what the body ends with; ``None``: it never does
    """

    status: int = 200
    chunks: tuple[bytes, ...] = ()
    headers: Mapping[str, str] = attrs.field(factory=dict)
    end: type[Exception] | None = ResponseDone

    def having(self, **headers: str) -> Reply:
        """Give the same reply with more header fields (``_`` for ``-``)."""
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        return attrs.evolve(self, headers={**self.headers, **more})


@implementer(IResponse)
class _Response:
    """A reply under way."""

    version = (b"HTTP", 1, 1)
    phrase = b"whatever"
    previousResponse: IResponse | None = None

    def __init__(self, reply: Reply, request: IClientRequest) -> None:
        self._reply = reply
        self.request = request
        self.code = reply.status
        self.headers = Headers({name: [value] for name, value in reply.headers.items()})
        stated = reply.headers.get("Content-Length", "")
        self.length: Any = int(stated) if stated.isdecimal() else UNKNOWN_LENGTH

    def deliverBody(self, protocol: Protocol) -> None:
        """Deliver all that there is, unless the receiver closes the connection."""
        transport = StringTransportWithDisconnection()
        transport.protocol = Protocol()
        protocol.makeConnection(transport)
        for chunk in self._reply.chunks:
            if transport.connected:
                protocol.dataReceived(chunk)
        if transport.connected and self._reply.end is not None:
            protocol.connectionLost(Failure(self._reply.end()))

    def setPreviousResponse(self, response: IResponse) -> None:
        """See `IResponse`."""
        self.previousResponse = response


@implementer(IClientRequest)
@attrs.frozen
class Asked:
    """A request that was made."""

    method: bytes
    absoluteURI: bytes
    headers: Headers

    @property
    def url(self) -> str:
        """What was asked for."""
        return self.absoluteURI.decode("ascii")

    def header(self, name: str) -> str | None:
        """Give a header field."""
        values = self.headers.getRawHeaders(name)
        return values[0] if values else None


@implementer(IAgent)
@attrs.define(eq=False)
class Agents:
    """Answers requests by their URLs, and remembers them.

    :ivar replies: what to answer; an exception makes the request fail; any other URL is a 404
    :ivar silent: the URLs that are not answered until :meth:`release`
    :ivar conditional: what to answer to a request with ``If-None-Match``, if not the same
    """

    replies: dict[str, Reply | Exception] = attrs.field(factory=dict)
    silent: set[str] = attrs.field(factory=set)
    asked: list[Asked] = attrs.field(factory=list)
    conditional: Reply | None = None
    _waiting: list[tuple[Asked, Deferred[IResponse]]] = attrs.field(factory=list)

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: object = None,
    ) -> Deferred[IResponse]:
        """See `IAgent`."""
        asked = Asked(method, uri, headers or Headers())
        self.asked.append(asked)
        if asked.url in self.silent:
            waiting: Deferred[IResponse] = Deferred(self._leave)
            self._waiting.append((asked, waiting))
            return waiting
        return self._answer(asked)

    def release(self, url: str) -> None:
        """Answer what was asked of a silent URL, by its reply of now, and be silent no more."""
        self.silent.discard(url)
        released = [pair for pair in self._waiting if pair[0].url == url]
        self._waiting = [pair for pair in self._waiting if pair[0].url != url]
        for asked, deferred in released:
            self._answer(asked).chainDeferred(deferred)

    def count(self, url: str) -> int:
        """Tell how often a URL was asked for."""
        return sum(asked.url == url for asked in self.asked)

    @property
    def waiting(self) -> int:
        """How many requests are not answered yet."""
        return len(self._waiting)

    def _answer(self, asked: Asked) -> Deferred[IResponse]:
        reply = self.replies.get(asked.url, Reply(404))
        if self.conditional is not None and asked.header("If-None-Match"):
            reply = self.conditional
        return fail(reply) if isinstance(reply, Exception) else succeed(_Response(reply, asked))

    def _leave(self, waiting: Deferred[IResponse]) -> None:
        self._waiting = [pair for pair in self._waiting if pair[1] is not waiting]


def at_once(job: Callable[[], T]) -> Deferred[T]:
    """Do at once what is done in a thread elsewhere."""
    return maybeDeferred(job)


def upstream_client(
    agent: IAgent, clock: IReactorTime, *index_urls: str, **settings: Any
) -> UpstreamClient:
    """Give a client of upstreams on an agent, with the credentials of some indexes."""
    credentials = Credentials.gather(index_urls)
    return UpstreamClient(
        agent=agent,
        clock=clock,
        credentials=credentials,
        address_policy=AddressPolicy(index_urls, (), lambda host: succeed([PUBLIC])),
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        **settings,
    )


def source(url: str, ttl: float, through: UpstreamClient) -> IndexClient:
    """Give an index that is asked through a way out."""
    root = Root(url, through, through.clock, Flights(through.clock))
    return IndexClient(url, ttl, through, at_once, Breakers(urls.public(url), through.clock), root)


@attrs.define(eq=False)
class Indexes:
    """Some indexes that proxpi stands before, in order of precedence."""

    urls: tuple[str, ...] = (ROOT,)
    ttls: tuple[float, ...] = (1800.0, 180.0)
    clock: Clock = attrs.field(factory=Clock)
    agents: Agents = attrs.field(factory=Agents)
    upstream: UpstreamClient = attrs.field(init=False)
    sources: list[IndexClient] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.upstream = upstream_client(self.agents, self.clock, *self.urls)
        self.sources = [
            source(url, ttl, self.upstream) for url, ttl in zip(self.urls, self.ttls, strict=False)
        ]

    def says(self, url: str, reply: Reply | Exception) -> None:
        """Set what is answered at a URL."""
        self.agents.replies[url] = reply


def project_page(
    *files: str | dict[str, Any], version: str = "1.0", host: str = "files.example", **keys: Any
) -> Reply:
    """Give the JSON page of a project; a file may be given by its name alone."""
    listed = [
        {"filename": file, "url": f"https://{host}/{file}", "hashes": {}}
        if isinstance(file, str)
        else file
        for file in files
    ]
    page = {"meta": {"api-version": version}, "name": "demo", "files": listed, **keys}
    return Reply(200, (json.dumps(page).encode(),), {"Content-Type": JSON_TYPE})


def root_list(names: Iterable[str]) -> Reply:
    """Give a root list in JSON."""
    page = {"meta": {"api-version": "1.4"}, "projects": [{"name": name} for name in names]}
    return Reply(200, (json.dumps(page).encode(),), {"Content-Type": JSON_TYPE})


class _Transport(StringTransportWithDisconnection):
    """A transport in memory, with what TLS on it hands down."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """See `ITCPTransport`."""


class Line:
    """The server's end of a connection."""

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._transport: Any = _Transport()  # type: ignore[no-untyped-call]
        self._transport.protocol = protocol
        protocol.makeConnection(self._transport)

    @property
    def open(self) -> bool:
        """Whether the client has kept the connection."""
        return bool(self._transport.connected)

    def take(self) -> bytes:
        """Give what has come from the client since the last time."""
        data: bytes = self._transport.value()
        self._transport.clear()
        return data

    def send(self, data: bytes) -> None:
        """Send bytes to the client."""
        self._protocol.dataReceived(data)

    def answer(self, status: int, body: bytes = b"", *fields: str) -> None:
        """Send a whole answer, all of it at once."""
        head = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *fields]
        self.send("\r\n".join(head).encode() + b"\r\n\r\n" + body)

    def close(self) -> None:
        """Close the connection."""
        self._transport.loseConnection()


class Network:
    """A reactor in memory, and the way out through the real agent over it.

    :ivar names: the addresses of hosts; every other name stands for one that is public
    """

    def __init__(self, *index_urls: str, proxies: Proxies = NO_PROXIES) -> None:
        self.reactor = MemoryReactorClock()
        self.names: dict[str, list[str]] = {}
        self.pool = persistent_pool(self.reactor, CONNECTIONS)
        self.upstream = upstream_client(
            ProxyAgent(
                reactor=self.reactor,
                pool=self.pool,
                tls=tls.policy(verify=True),
                connector=Connector(self.reactor, CONNECT_TIMEOUT, self.look_up, AddressPolicy()),
                proxies=proxies,
                user_agent=USER_AGENT,
            ),
            self.reactor,
            *index_urls,
        )

    def look_up(self, host: str) -> Deferred[list[str]]:
        """Give the addresses of a host, at once."""
        return succeed(self.names.get(host, [PUBLIC]))

    @property
    def attempts(self) -> list[Any]:
        """What was connected to: host, port, factory, timeout, address to bind to."""
        return list(self.reactor.tcpClients)

    def accept(self, number: int = -1) -> Line:
        """Accept one of the connections that were attempted."""
        return Line(self.attempts[number][2].buildProtocol(None))

    def refuse(self, error: Exception) -> None:
        """Let the newest attempt fail."""
        self.attempts[-1][2].clientConnectionFailed(None, Failure(error))

    def advance(self, seconds: float) -> None:
        """Let time pass, second by second."""
        self.reactor.pump([1.0] * int(seconds) + [seconds % 1])
