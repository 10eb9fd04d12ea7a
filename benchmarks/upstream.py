"""A local index with as many projects as one likes, for measuring what stands in front of it.

``stock.py`` says what it has. Who takes gzip gets pages compressed. The root says how many projects
its list has: that of ``/json-of-600000/`` has so many in JSON, that of ``/html-of-600000/`` in
HTML; they are never compressed, and ``/simple/`` has none.

Each page and list is made when it is first asked for, and then sent as it is, which costs next to
nothing. ``/asked`` gives the number of requests so far, and ``/fetched`` that of those for blobs;
both are left out themselves. The program prints its port and serves until it is ended; it touches
the loopback alone.
"""

from __future__ import annotations

import re

from stock import BLOCK, MIB, blob_size, content, page, root_list
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
class _Large:
    """Sends a large file, as fast as it is taken."""

    def __init__(self, request: Request, start: int, stop: int) -> None:
        self._request, self._next, self._stop = request, start, stop
        self._paused = False
        request.registerProducer(self, True)
        self._send()

    def _send(self) -> None:
        while not self._paused and self._next < self._stop:
            place = self._next % MIB
            piece = BLOCK[place : min(place + 65536, place + self._stop - self._next)]
            self._next += len(piece)
            self._request.write(piece)
        if self._next == self._stop:
            self._paused, self._next = True, -1
            self._request.unregisterProducer()
            self._request.finish()

    def pauseProducing(self) -> None:
        """See `IPushProducer`."""
        self._paused = True

    def resumeProducing(self) -> None:
        """See `IPushProducer`."""
        self._paused = False
        self._send()

    def stopProducing(self) -> None:
        """See `IProducer`."""
        self._paused, self._next = True, -1


class Index(Resource):
    """Answers ``/<root>/<project>`` with or without a last slash, and ``/files/…/<file>``."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._asked = 0
        self._fetched = 0

    def render_GET(self, request: Request) -> bytes | int:
        """Give a list, a page or a file."""
        path = request.path.decode("ascii", "replace").strip("/")
        if path == "asked":
            return b"%d" % self._asked
        if path == "fetched":
            return b"%d" % self._fetched
        self._asked += 1
        root, _, name = path.partition("/")
        if root == "files":
            filename = name.rpartition("/")[2]
            request.setHeader(b"Content-Type", b"application/octet-stream")
            # Without it nginx gives no ranges of what it has.
            request.setHeader(b"Accept-Ranges", b"bytes")
            if size := blob_size(filename):
                self._fetched += request.method == b"GET"
                return self._large(request, size)
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
        return b"not here\n"

    def _large(self, request: Request, size: int) -> int:
        """Send a large file, or the one range of it that is asked for."""
        start, stop = 0, size
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.getHeader("Range") or "")
        if asked:
            start, stop = int(asked[1]), min(size, int(asked[2] or size) + 1)
            request.setResponseCode(206)
            request.setHeader("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        request.setHeader("Content-Length", str(stop - start))
        if request.method == b"HEAD":
            return b""  # type: ignore[return-value]
        _Large(request, start, stop)
        return NOT_DONE_YET


def main() -> None:
    """Serve on a free port of the loopback, and print which it is."""

    def started(port: IListeningPort) -> None:
        address = port.getHost()
        assert isinstance(address, IPv4Address)
        print(address.port, flush=True)

    site = Site(Index())
    TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(site).addCallback(started)
    reactor.run()


if __name__ == "__main__":
    main()
