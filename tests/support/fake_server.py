"""The process of the fake index, which :mod:`tests.support.nursery` starts.

It serves one ``FakeUpstream`` on two ports of 127.0.0.1 (the index, and an origin of its own for
files), takes orders on a third, writes the three numbers as one line of JSON, and ends when its
standard input does, so that it cannot outlive the test that started it.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet import defer, endpoints
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO
from twisted.internet.task import react
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from tests.support.behavior import Awaited, Listed, Login, RawPage, Scripted
from tests.support.fake_resource import FakeResource, FakeUpstream


class _Origin:
    """A port that can be closed together with its connections, and opened again."""

    def __init__(self, reactor: Any, resource: Resource, certificate: str | None) -> None:
        self._reactor = reactor
        self._site = WrappingFactory(Site(resource))
        self._kind = f"ssl:privateKey={certificate}:port=" if certificate else "tcp:port="
        self._port: Any = None
        # So that nobody is given the number while it is closed.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self.number: int = self._reserved.getsockname()[1]

    async def open(self) -> None:
        """Listen, on the same port as before."""
        description = f"{self._kind}{self.number}:interface=127.0.0.1"
        endpoint = endpoints.serverFromString(self._reactor, description)
        self._port = await endpoint.listen(self._site)

    async def close(self) -> None:
        """Refuse connections, and reset the open ones."""
        if self._port is not None:
            await defer.maybeDeferred(self._port.stopListening)
            self._port = None
        for connection in list(self._site.protocols):
            connection.transport.abortConnection()


class _Control(Resource):
    """Takes the orders: ``POST /<verb>`` with the argument as JSON."""

    isLeaf = True

    def __init__(self, upstream: FakeUpstream, origins: list[_Origin]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

        async def close(_: None) -> None:
            for origin in origins:
                await origin.close()

        async def reopen(_: None) -> None:
            for origin in origins:
                await origin.open()

        self._verbs: dict[str, tuple[Any, Callable[[Any], Any]]] = {
            "add": (Listed, upstream.add),
            "forget": (str, upstream.forget),
            "page": (RawPage, upstream.page),
            "script": (Scripted, upstream.script),
            "release": (str, upstream.release),
            "require": (Login, upstream.require),
            "clear": (None, upstream.clear),
            "record": (None, lambda _: upstream.record()),
            "wait": (Awaited, upstream.wait),
            "close": (None, close),
            "reopen": (None, reopen),
        }

    def render_POST(self, request: Request) -> int:
        """Carry out one order."""

        async def carry_out() -> None:
            kind, order = self._verbs[request.path.decode().removeprefix("/")]
            assert request.content is not None
            answer = order(msgspec.json.decode(request.content.read(), type=kind))
            if hasattr(answer, "__await__"):
                answer = await answer
            request.write(msgspec.json.encode(answer))

        def failed(failure: Failure) -> None:
            request.setResponseCode(500)
            request.write(failure.getErrorMessage().encode())

        done = defer.Deferred.fromCoroutine(carry_out())
        done.addErrback(failed)
        done.addCallback(lambda _: request.finish())
        return NOT_DONE_YET


class _Parent(Protocol):
    """Ends the process together with its standard input."""

    def __init__(self, ended: defer.Deferred[None]) -> None:
        self._ended = ended

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        """The test is over."""
        self._ended.callback(None)


async def _serve(reactor: Any, orders: str) -> None:
    options = json.loads(orders)
    upstream = FakeUpstream(reactor)
    origins = [
        _Origin(reactor, FakeResource(upstream, name), options["certificate"])
        for name in ("index", "files")
    ]
    for origin in origins:
        await origin.open()
    if options["files_elsewhere"]:
        scheme = "https" if options["certificate"] else "http"
        upstream.files_at = f"{scheme}://127.0.0.1:{origins[1].number}/files/"
    control = endpoints.serverFromString(reactor, "tcp:port=0:interface=127.0.0.1")
    control_port = await control.listen(Site(_Control(upstream, origins)))
    numbers = {"index": origins[0].number, "files": origins[1].number}
    numbers |= {"control": control_port.getHost().port, "process": os.getpid()}
    sys.stdout.write(json.dumps(numbers) + "\n")
    sys.stdout.flush()
    ended: defer.Deferred[None] = defer.Deferred()
    StandardIO(_Parent(ended))
    await ended


def main(orders: str) -> None:
    """Serve until there is no more standard input, then end the process."""
    react(lambda reactor: defer.Deferred.fromCoroutine(_serve(reactor, orders)), [])
