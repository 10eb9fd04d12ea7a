"""The fake index as a Twisted resource: a Simple API that misbehaves on request.

``FakeUpstream`` holds what is listed, scripted and seen; ``FakeResource`` answers from it. Both
take the reactor as an argument and can be used in a fast test as well as in the process of
``tests.support.fake_index``.
"""

from __future__ import annotations

import base64
import gzip
import itertools
from typing import Any
from urllib.parse import unquote

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPullProducer, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from tests.support.behavior import Awaited, Behavior, Listed, Login, RawPage, Record, Scripted, Seen
from tests.support.fake_pages import (
    Answer,
    entity_tag,
    project_page,
    ranged,
    revalidated,
    root_list,
)

_log = Logger()
_DRIP_SECONDS = 0.05


@attrs.define(eq=False)
class FakeUpstream:
    """What is listed, what is scripted, and what was seen."""

    reactor: IReactorTime
    files_at: str = "../../files/"
    projects: dict[str, list[Listed]] = attrs.field(factory=dict)
    raw: dict[str, Answer] = attrs.field(factory=dict)
    files: dict[str, bytes] = attrs.field(factory=dict)
    scripts: dict[str, list[Behavior]] = attrs.field(factory=dict)
    logins: dict[str, str] = attrs.field(factory=dict)
    seen: dict[int, Seen] = attrs.field(factory=dict)
    version: int = 0
    _held: dict[str, list[Deferred[None]]] = attrs.field(factory=dict)
    _waiting: list[Deferred[None]] = attrs.field(factory=list)

    def add(self, listed: Listed) -> None:
        """List a file, and serve its bytes and its metadata."""
        self.projects.setdefault(listed.project, []).append(listed)
        path = f"/files/{listed.project}/{listed.entry['filename']}"
        self.files[path] = listed.data
        if listed.metadata is not None:
            self.files[path + ".metadata"] = listed.metadata

    def forget(self, project: str) -> None:
        """Unlist a project; its files are served as before."""
        self.projects.pop(project, None)

    def page(self, page: RawPage) -> None:
        """Serve bytes as they are at a path."""
        headers = {} if page.content_type is None else {"Content-Type": page.content_type}
        self.raw[page.path] = Answer(200, page.body, headers)

    def script(self, scripted: Scripted) -> None:
        """Set the behaviors of a path; none: ordinary again."""
        self.scripts[scripted.path] = list(scripted.behaviors)

    def release(self, path: str) -> None:
        """Let go what is held on a path, and answer it in the ordinary way from now on."""
        self.scripts.pop(path, None)
        for held in self._held.pop(path, []):
            held.callback(None)

    def require(self, login: Login) -> None:
        """Ask for Basic credentials on an origin."""
        pair = f"{login.user}:{login.password}".encode()
        self.logins[login.origin] = "Basic " + base64.b64encode(pair).decode()

    def clear(self, _: None) -> None:
        """Forget the requests seen so far (those under way are kept)."""
        self.seen = {number: seen for number, seen in self.seen.items() if not seen.ended}

    def record(self) -> Record:
        """The requests seen so far."""
        return Record(self.version, list(self.seen.values()))

    async def wait(self, awaited: Awaited) -> Record:
        """The requests, as soon as anything happened after the version that the caller knows."""
        if self.version == awaited.version:
            change: Deferred[None] = Deferred()
            self._waiting.append(change)
            timer = self.reactor.callLater(awaited.seconds, self._wake)
            await change
            if timer.active():
                timer.cancel()
        return self.record()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for change in waiting:
            change.callback(None)

    def note(self, number: int, seen: Seen) -> None:
        """Write down a request, or what became of it, under its number."""
        self.seen[number] = seen
        self.version += 1
        self._wake()

    def held(self, path: str) -> Deferred[None]:
        """Fires when a path, or the pattern that it was scripted by, is released."""
        waiting: Deferred[None] = Deferred()
        self._held.setdefault(self._pattern(path), []).append(waiting)
        return waiting

    def _pattern(self, path: str) -> str:
        if path in self.scripts:
            return path
        starts = [key for key in self.scripts if key.endswith("*") and path.startswith(key[:-1])]
        return max(starts, key=len, default=path)

    def behavior(self, path: str) -> Behavior:
        """The behavior whose turn it is on a path."""
        behaviors = self.scripts.get(self._pattern(path), [])
        if not behaviors:
            return Behavior()
        first = behaviors[0]
        if first.times is not None:
            behaviors[:1] = [attrs.evolve(first, times=first.times - 1)] if first.times > 1 else []
        return first


class FakeResource(Resource):
    """One origin of the fake index; ``/simple/`` and ``/files/`` are served on each."""

    isLeaf = True
    _numbers = itertools.count()

    def __init__(self, upstream: FakeUpstream, origin: str = "index") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._upstream = upstream
        self._origin = origin

    def render(self, request: Request) -> int:
        """Answer anything, as scripted."""
        path, _, query = request.uri.decode("latin-1").partition("?")
        headers = {
            name.decode("latin-1").lower(): b", ".join(values).decode("latin-1")
            for name, values in request.requestHeaders.getAllRawHeaders()
        }
        exchange = _Exchange(
            self._upstream,
            request,
            next(self._numbers),
            Seen(self._origin, request.method.decode("latin-1"), path, query, headers),
        )
        exchange.note()
        delivery = Deferred.fromCoroutine(exchange.deliver(self._upstream.behavior(path)))
        request.notifyFinish().addErrback(lambda _: delivery.cancel())
        delivery.addErrback(exchange.failed)
        return NOT_DONE_YET


@attrs.define
class _Exchange:
    """One request and its answer on the way."""

    upstream: FakeUpstream
    request: Request
    number: int
    seen: Seen

    def note(self, **changes: Any) -> None:
        """Tell those who wait what became of the request."""
        self.seen = attrs.evolve(self.seen, **changes)
        self.upstream.note(self.number, self.seen)

    def failed(self, failure: Failure) -> None:
        """The client left, or this file is wrong."""
        if failure.check(CancelledError) is None:
            _log.failure("the fake index failed", failure)
        self.note(ended="gone")

    def ordinary(self, known: str) -> Answer:
        """The answer of an index that behaves, to a client that knows a page by this tag."""
        seen, upstream = self.seen, self.upstream
        login = upstream.logins.get(seen.origin)
        if login is not None and seen.headers.get("authorization") != login:
            return Answer(401, b"who are you?", {"WWW-Authenticate": 'Basic realm="fake"'})
        if seen.path in upstream.raw:
            return revalidated(upstream.raw[seen.path], known)
        if seen.path.startswith("/files/"):
            data = upstream.files.get(unquote(seen.path))
            if data is None:
                return Answer(404, b"no such file")
            headers = {"ETag": entity_tag(data), "Accept-Ranges": "bytes"}
            headers["Content-Type"] = "application/octet-stream"
            return ranged(Answer(200, data, headers), seen.headers.get("range"))
        accept = seen.headers.get("accept", "")
        if seen.path == "/simple/":
            return revalidated(root_list(upstream.projects, accept), known)
        name = seen.path.removeprefix("/simple/").rstrip("/")
        if name not in upstream.projects:
            return Answer(404, b"no such project")
        if not seen.path.endswith("/"):
            return Answer(301, b"", {"Location": f"/simple/{name}/"})
        return revalidated(
            project_page(name, upstream.projects[name], upstream.files_at, accept), known
        )

    async def deliver(self, behavior: Behavior) -> None:
        """Send the answer, bent as scripted."""
        request, reactor = self.request, self.upstream.reactor
        if behavior.delay:
            await deferLater(reactor, behavior.delay)
        if behavior.hold:
            await self.upstream.held(self.seen.path)
        if behavior.silent:
            await Deferred()
        answer = self._bent(behavior)
        request.setResponseCode(answer.status)
        for name, value in answer.headers.items():
            request.setHeader(name, value)
        if behavior.close_delimited:
            request.clientproto = b"HTTP/1.0"
        elif not behavior.chunked:
            length = len(answer.body) if behavior.length is None else behavior.length
            request.setHeader("Content-Length", str(length))
        ordinary = attrs.evolve(behavior, times=None) == Behavior()
        self.note(status=answer.status, scripted=not ordinary)
        stop = len(answer.body)
        if behavior.truncate_after is not None:
            stop = behavior.truncate_after
        elif behavior.reset:
            stop = 0
        await self._send(answer.body[:stop], behavior)
        if behavior.truncate_after is not None or behavior.reset:
            self.note(ended="cut")
            self._cut(reset=behavior.reset)
            return
        self.note(ended="whole")
        channel = request.channel
        request.finish()
        if behavior.length is not None or behavior.close_delimited:
            channel.loseConnection()

    def _bent(self, behavior: Behavior) -> Answer:
        """The ordinary answer with the scripted status, header and body."""
        # What is scripted is not to be lost because the client has the page already.
        bends = attrs.evolve(behavior, times=None, delay=0, hold=False) != Behavior()
        answer = self.ordinary(known="" if bends else self.seen.headers.get("if-none-match", ""))
        if behavior.redirect is not None:
            answer = Answer(302, b"", {"Location": behavior.redirect})
        if behavior.status is not None:
            answer.status = behavior.status
        if behavior.body is not None:
            answer.body = behavior.body
        if behavior.flip is not None:
            body = bytearray(answer.body)
            body[behavior.flip] ^= 0xFF
            answer.body = bytes(body)
        if behavior.gzip:
            answer.body = gzip.compress(answer.body, mtime=0)
            answer.headers["Content-Encoding"] = "gzip"
        for name, value in behavior.headers.items():
            answer.headers.pop(name, None)
            if value is not None:
                answer.headers[name] = value
        return answer

    async def _send(self, body: bytes, behavior: Behavior) -> None:
        """Write the head and the body, in pieces if so scripted."""
        request, reactor = self.request, self.upstream.reactor
        request.write(b"")
        if behavior.hold_after is not None:
            request.write(body[: behavior.hold_after])
            await self.upstream.held(self.seen.path)
            body = body[behavior.hold_after :]
        if behavior.drip is not None:
            piece = max(1, int(behavior.drip * _DRIP_SECONDS))
            for start in range(0, len(body), piece):
                if start:
                    await deferLater(reactor, piece / behavior.drip)
                request.write(body[start : start + piece])
            return
        request.write(body)

    def _cut(self, reset: bool) -> None:
        """End the connection in the middle of an answer."""
        transport: Any = self.request.channel.transport
        if not reset:
            self.request.loseConnection()
            return
        # Aborting at once would throw away what is still to be written: wait until it is.
        transport.unregisterProducer()
        transport.registerProducer(_ResetWhenWritten(transport), False)


@implementer(IPullProducer)
class _ResetWhenWritten:
    """Resets a connection as soon as its transport has sent everything."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._asked = 0

    def resumeProducing(self) -> None:
        """Called at registration, then whenever nothing is left to be written."""
        self._asked += 1
        if self._asked == 2:
            self._transport.abortConnection()

    def stopProducing(self) -> None:
        """The connection is gone already."""
