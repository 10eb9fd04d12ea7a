"""Serves an index of packages with dependencies on the loopback interface, and logs its requests.

Its content is the synthetic tree (``tree.py``) or the captures of a folder (``captures.py``). Pages
have relative links, an entity tag and gzip, as large public indexes have. A response is made in a
thread at its first request, and kept: pages stay the same until the process ends, whatever is
captured meanwhile. ``/log`` returns the requests since its last request, as JSON, ``/captured`` the
number of captures. The program prints its port and serves until it is ended.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, unquote

import attrs
from captures import Captures
from index_server import requested_range
from local_index import TTL
from stand_ins import StandIn
from tree import Tree
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import succeed
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IListeningPort, IPullProducer
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.web.http import CACHED, Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from zope.interface import implementer

_JSON = "application/vnd.pypi.simple.v1+json"


class Content(Protocol):
    """The content of an index. A method may take long.

    :ivar captured: number of pages and metadata that had to be captured so far
    """

    captured: int

    def page(self, project: str) -> list[dict[str, Any]]:
        """Return the entries of a page, without links; none if the project is unknown."""

    def metadata(self, project: str, filename: str) -> bytes:
        """Return the metadata of a wheel; empty if there is none."""

    def file(self, project: str, filename: str) -> StandIn | None: ...


@attrs.frozen
class Body:
    """A response body: its media type, its bytes, their coding and their entity tag."""

    media_type: str
    content: StandIn
    coding: str = ""
    etag: str = ""


def _bytes(data: bytes) -> StandIn:
    return StandIn(data, 0, b"")


@implementer(IPullProducer)
class _Producer:
    """Sends a body with backpressure."""

    def __init__(self, request: Request, pieces: Iterator[memoryview]) -> None:
        self._request, self._pieces = request, pieces
        request.registerProducer(self, False)

    def resumeProducing(self) -> None:
        piece = next(self._pieces, None)
        if piece is None:
            self._request.unregisterProducer()
            self._request.finish()
        else:
            self._request.write(bytes(piece))

    def stopProducing(self) -> None:
        self._pieces = iter(())


class PackageIndex(Resource):
    """Serves ``/simple/<project>/`` and ``/files/<project>/<file>[.metadata]``."""

    isLeaf = True

    def __init__(self, content: Content) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._content = content
        self._bodies: dict[tuple[str, str, str, bool], Body] = {}
        self._log: list[tuple[float, str, str, str, str, int, int]] = []

    def render_GET(self, request: Request) -> bytes | int:
        path = unquote(request.path.decode("ascii", "replace")).strip("/")
        if path == "log":
            text, self._log = json.dumps(self._log), []
            return text.encode()
        if path == "captured":
            return b"%d" % self._content.captured
        received_at = time.time()
        parts = path.split("/")
        compressed = "gzip" in (request.getHeader("Accept-Encoding") or "")
        if parts[0] == "simple" and len(parts) == 2:
            requested = ("page", parts[1], "")
        elif parts[0] == "files" and len(parts) == 3:
            kind = "metadata" if parts[2].endswith(".metadata") else "file"
            requested = (kind, parts[1], parts[2].removesuffix(".metadata"))
        else:
            request.setResponseCode(404)
            return b"not found\n"
        body = self._bodies.get((*requested, compressed))
        found = succeed(body) if body else deferToThread(self._make, *requested, compressed)
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)

        def send(body: Body | None) -> None:
            size = self._send(request, body) if not gone else 0
            agent = request.getHeader("User-Agent") or ""
            self._log.append((received_at, agent, *requested, request.code, size))

        def fail(failure: Failure) -> None:
            print(
                f"{'/'.join(requested)}: {failure.getErrorMessage()}", file=sys.stderr, flush=True
            )
            request.setResponseCode(503)
            request.finish()

        found.addCallbacks(send, fail)
        return NOT_DONE_YET

    def _make(self, kind: str, project: str, filename: str, compressed: bool) -> Body | None:
        content: StandIn | None = None
        coding = etag = ""
        if kind == "page":
            if entries := self._content.page(project):
                page = _page(project, entries)
                coding = "gzip" if compressed else ""
                content = _bytes(gzip.compress(page, 6, mtime=0) if compressed else page)
                etag = hashlib.md5(content.head).hexdigest()
        elif kind == "metadata":
            content = _bytes(self._content.metadata(project, filename))
        else:
            content = self._content.file(project, filename)
        if not (content and content.size):
            return None
        media_type = _JSON if kind == "page" else "application/octet-stream"
        body = Body(media_type, content, coding, etag)
        return self._bodies.setdefault((kind, project, filename, compressed), body)

    def _send(self, request: Request, body: Body | None) -> int:
        """Send a body, or the one requested range of it; return its bytes."""
        if body is None:
            request.setResponseCode(404)
            request.finish()
            return 0
        request.setHeader("Content-Type", body.media_type)
        request.setHeader("Accept-Ranges", "bytes")
        request.setHeader("Vary", "Accept-Encoding")
        fresh = f"max-age={TTL}" if body.media_type == _JSON else "max-age=365000000, immutable"
        request.setHeader("Cache-Control", f"{fresh}, public")
        if body.coding:
            request.setHeader("Content-Encoding", body.coding)
        if body.etag and request.setETag(f'"{body.etag}"'.encode()) == CACHED:
            request.finish()
            return 0
        start, stop = requested_range(request, body.content.size)
        if request.method == b"HEAD":
            request.finish()
            return 0
        _Producer(request, body.content.read(start, stop))
        return stop - start


def _page(project: str, entries: list[dict[str, Any]]) -> bytes:
    files = [
        {"url": f"../../files/{project}/{quote(entry['filename'])}", **entry} for entry in entries
    ]
    # As far as the names of wheels tell them.
    names = (entry["filename"] for entry in entries if entry["filename"].endswith(".whl"))
    versions = list(dict.fromkeys(name.split("-")[1] for name in names))
    meta = {"api-version": "1.1"}
    return json.dumps(
        {"meta": meta, "name": project, "versions": versions, "files": files}
    ).encode()


def main(content: Content) -> None:
    """Serve on a free port and print it."""

    def started(port: IListeningPort) -> None:
        address = port.getHost()
        assert isinstance(address, IPv4Address)
        print(address.port, flush=True)

    reactor.suggestThreadPoolSize(20)  # type: ignore[attr-defined]
    site = Site(PackageIndex(content))
    TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(site).addCallback(started)
    reactor.run()


if __name__ == "__main__":
    match sys.argv[1:]:
        case [folder, largest, files]:
            main(Captures(Path(folder), int(largest) or None, files == "files"))
        case _:
            main(Tree())
