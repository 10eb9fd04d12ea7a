"""Serves the local index: the pages and files of ``corpus.py``, on the loopback interface.

Pages are compressed with gzip if the client accepts it. The root ``/json-of-600000/`` has a project
list of 600,000 projects in JSON, ``/html-of-600000/`` one in HTML, neither compressed; ``/simple/``
has none. A page or list is rendered at its first request and then sent from memory, which costs
little. ``/requests`` gives the number of requests so far, ``/downloads`` that of requests for
blobs; neither counts itself. The program prints its port and serves until it is ended.
"""

from __future__ import annotations

import re

from corpus import BLOCK, MIB, blob_size, content, page, root_list
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IListeningPort, IPushProducer
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from zope.interface import implementer

_JSON = "application/vnd.pypi.simple.v1+json"


@implementer(IPushProducer)
class _BlobProducer:
    """Sends a blob with backpressure."""

    def __init__(self, request: Request, start: int, stop: int) -> None:
        self._request, self._next, self._stop = request, start, stop
        self._paused = False
        request.registerProducer(self, True)
        self._send()

    def _send(self) -> None:
        while not self._paused and self._next < self._stop:
            start = self._next % MIB
            chunk = BLOCK[start : min(start + 65536, start + self._stop - self._next)]
            self._next += len(chunk)
            self._request.write(chunk)
        if self._next == self._stop:
            self._paused, self._next = True, -1
            self._request.unregisterProducer()
            self._request.finish()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._send()

    def stopProducing(self) -> None:
        self._paused, self._next = True, -1


def requested_range(request: Request, size: int) -> tuple[int, int]:
    """Return the requested part of a body of `size` bytes; set status and header fields for it."""
    start, stop = 0, size
    requested = re.fullmatch(r"bytes=(\d+)-(\d*)", request.getHeader("Range") or "")
    if requested:
        start, stop = int(requested[1]), min(size, int(requested[2] or size) + 1)
        request.setResponseCode(206)
        request.setHeader("Content-Range", f"bytes {start}-{stop - 1}/{size}")
    request.setHeader("Content-Length", str(stop - start))
    return start, stop


class IndexResource(Resource):
    """Serves ``/<root>/<project>``, with or without a trailing slash, and ``/files/…/<file>``."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._requests = 0
        self._downloads = 0

    def render_GET(self, request: Request) -> bytes | int:
        path = request.path.decode("ascii", "replace").strip("/")
        if path == "requests":
            return b"%d" % self._requests
        if path == "downloads":
            return b"%d" % self._downloads
        self._requests += 1
        root, _, name = path.partition("/")
        if root == "files":
            filename = name.rpartition("/")[2]
            request.setHeader(b"Content-Type", b"application/octet-stream")
            # nginx serves ranges of a cached response only with this field.
            request.setHeader(b"Accept-Ranges", b"bytes")
            if size := blob_size(filename):
                self._downloads += request.method == b"GET"
                return self._blob(request, size)
            if body := content(filename):
                return body
        kind, _, count = root.partition("-of-")
        if name and kind in ("simple", "json", "html"):
            compressed = "gzip" in (request.getHeader("Accept-Encoding") or "")
            found = page(f"http://{request.getHeader('Host')}", name, compressed)
            if found is not None:
                data, etag = found
                request.setHeader("Content-Type", _JSON)
                request.setHeader("ETag", etag)
                if compressed:
                    request.setHeader("Content-Encoding", "gzip")
                return data
        elif kind in ("json", "html") and count.isdecimal():
            request.setHeader("Content-Type", _JSON if kind == "json" else "text/html")
            return root_list(kind, int(count))
        request.setResponseCode(404)
        return b"not found\n"

    def _blob(self, request: Request, size: int) -> int:
        """Send a blob, or the one requested range of it."""
        start, stop = requested_range(request, size)
        if request.method == b"HEAD":
            return b""  # type: ignore[return-value]
        _BlobProducer(request, start, stop)
        return NOT_DONE_YET


def main() -> None:
    """Serve on a free port and print it."""

    def started(port: IListeningPort) -> None:
        address = port.getHost()
        assert isinstance(address, IPv4Address)
        print(address.port, flush=True)

    site = Site(IndexResource())
    TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(site).addCallback(started)
    reactor.run()


if __name__ == "__main__":
    main()
