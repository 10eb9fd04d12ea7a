"""Indexes without a network: clients on the agent in memory, pages, and connections in memory.

:class:`Network` is a reactor for the real agent; tests play the server on its connections.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime, ITCPTransport
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransportWithDisconnection
from twisted.python.failure import Failure
from twisted.web.iweb import IAgent
from zope.interface import directlyProvides

from proxpi.index.breaker import Breakers
from proxpi.index.client import IndexClient, Root
from proxpi.index.page_store import PageStore
from proxpi.index.sources import Member, Members, View
from proxpi.problems import Problems
from proxpi.simple import urls
from proxpi.upstream import tls
from proxpi.upstream.address_policy import AddressPolicy
from proxpi.upstream.client import USER_AGENT, UpstreamClient
from proxpi.upstream.connections import CONNECTIONS, ConnectionLimits, connection_pool
from proxpi.upstream.connector import Connector
from proxpi.upstream.credentials import Credentials
from proxpi.upstream.proxies import NO_PROXIES, Proxies
from proxpi.upstream.proxy_agent import ProxyAgent
from tests.support.agent import MemoryAgent, Reply
from tests.support.cases import JSON, at_once

ROOT = "https://root.example/simple/"
EXTRA = "https://extra.example/simple/"
CONNECT_TIMEOUT = 3.0
READ_TIMEOUT = 20.0

#: The seconds since the epoch at which the clock begins.
EPOCH = 1_000_000.0
#: An address that everybody may connect to.
PUBLIC = "1.2.3.4"


def upstream_client(
    agent: IAgent,
    clock: IReactorTime,
    *index_urls: str,
    connections: int = CONNECTIONS,
    **settings: Any,
) -> UpstreamClient:
    credentials = Credentials.gather(index_urls)
    return UpstreamClient(
        agent=agent,
        clock=clock,
        credentials=credentials,
        address_policy=AddressPolicy(index_urls, (), lambda host: succeed([PUBLIC])),
        connections=ConnectionLimits.of(connections),
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        **settings,
    )


def index_client(url: str, ttl: float, through: UpstreamClient, problems: Problems) -> IndexClient:
    name = urls.origin(url).host
    return IndexClient(
        name=name,
        url=url,
        ttl=ttl,
        upstream=through,
        in_thread=at_once,
        breakers=Breakers(urls.public(url), through.clock),
        root=Root(name, url, through, through.clock, problems),
    )


@attrs.define(eq=False)
class Indexes:
    """Some indexes that proxpi stands before, in order of precedence."""

    urls: tuple[str, ...] = (ROOT,)
    ttls: tuple[float, ...] = (1800.0, 180.0)
    clock: Clock = attrs.field(factory=Clock)
    agent: MemoryAgent = attrs.field(factory=MemoryAgent)
    upstream: UpstreamClient = attrs.field(init=False)
    clients: list[IndexClient] = attrs.field(init=False)
    problems: Problems = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.upstream = upstream_client(self.agent, self.clock, *self.urls)
        self.problems = Problems(self.clock.seconds, lambda: EPOCH + self.clock.seconds())
        self.clients = [
            index_client(url, ttl, self.upstream, self.problems)
            for url, ttl in zip(self.urls, self.ttls, strict=False)
        ]

    def view(self) -> View:
        """Return the view of all indexes."""
        clients = tuple(self.clients)
        return View("default", clients, Members([Member(each) for each in clients]))

    def says(self, url: str, reply: Reply | Exception) -> None:
        self.agent.at(url, reply)


def project_page(
    *files: str | dict[str, Any], version: str = "1.0", host: str = "files.example", **keys: Any
) -> Reply:
    """Return the JSON page of a project; a file may be given by its name alone."""
    listed = [
        {"filename": file, "url": f"https://{host}/{file}", "hashes": {}}
        if isinstance(file, str)
        else file
        for file in files
    ]
    page = {"meta": {"api-version": version}, "name": "demo", "files": listed, **keys}
    return Reply(200, (json.dumps(page).encode(),), {"Content-Type": JSON})


class _Transport(StringTransportWithDisconnection):
    aborted = False
    bufferSize: int | None = None

    def abortConnection(self) -> None:
        self.aborted = True
        self.loseConnection()  # type: ignore[no-untyped-call]

    def setTcpNoDelay(self, enabled: bool) -> None:
        """See `ITCPTransport`."""


class Line:
    """The server's end of a connection."""

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._transport: Any = _Transport()  # type: ignore[no-untyped-call]
        self._transport.protocol = protocol
        directlyProvides(self._transport, ITCPTransport)
        protocol.makeConnection(self._transport)

    @property
    def open(self) -> bool:
        return bool(self._transport.connected)

    @property
    def aborted(self) -> bool:
        """Whether the client has closed the connection without waiting for the server."""
        return bool(self._transport.aborted)

    @property
    def read_size(self) -> int | None:
        size: int | None = self._transport.bufferSize
        return size

    def take(self) -> bytes:
        data: bytes = self._transport.value()
        self._transport.clear()
        return data

    def send(self, data: bytes) -> None:
        self._protocol.dataReceived(data)

    def answer(self, status: int, body: bytes = b"", *fields: str) -> None:
        head = [f"HTTP/1.1 {status} Status", f"Content-Length: {len(body)}", *fields]
        self.send("\r\n".join(head).encode() + b"\r\n\r\n" + body)

    def close(self) -> None:
        self._transport.loseConnection()


class Network:
    """A reactor in memory, and a client of upstreams with the real agent on it.

    :ivar names: the addresses of hosts; every other name stands for one that is public
    """

    def __init__(self, *index_urls: str, proxies: Proxies = NO_PROXIES) -> None:
        self.reactor = MemoryReactorClock()
        self.names: dict[str, list[str]] = {}
        policy = AddressPolicy((), (), self.look_up)
        self.pool = connection_pool(self.reactor, CONNECTIONS)
        self.upstream = upstream_client(
            ProxyAgent(
                clock=self.reactor,
                pool=self.pool,
                tls=tls.policy(verify=True),
                connector=Connector(self.reactor, CONNECT_TIMEOUT, self.look_up, policy),
                proxies=proxies,
                user_agent=USER_AGENT,
            ),
            self.reactor,
            *index_urls,
            proxies=proxies,
        )

    def look_up(self, host: str) -> Deferred[list[str]]:
        return succeed(self.names.get(host, [PUBLIC]))

    @property
    def attempts(self) -> list[Any]:
        """The attempts to connect: host, port, factory, timeout, address to bind to."""
        return list(self.reactor.tcpClients)

    def accept(self, number: int = -1) -> Line:
        """Accept one of the connections that were attempted."""
        return Line(self.attempts[number][2].buildProtocol(None))

    def refuse(self, error: Exception) -> None:
        self.attempts[-1][2].clientConnectionFailed(None, Failure(error))

    def advance(self, seconds: float) -> None:
        self.reactor.pump([1.0] * int(seconds) + [seconds % 1])


def page_store(folder: Path, clock: Clock, wall: Callable[[], float] = time.time) -> PageStore:
    return PageStore(folder, clock, wall, problems=Problems(clock.seconds, wall))
