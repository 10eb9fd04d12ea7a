"""A local index with as many projects as one likes, for measuring what stands in front of it.

A project's name says how many files it has: ``bulk-017-of-300`` has 300, each a wheel of 100 kB.
Pages are JSON (PEP 691) like real ones: links are absolute, and every digest is another, so that
they are as hard to compress. Who takes gzip gets them compressed. The root says how many projects
its list has: that of ``/json-of-600000/`` has so many in JSON, that of ``/html-of-600000/`` in
HTML; they are never compressed, and ``/simple/`` has none.

``blob-500-of-1`` has one file of 500 MiB; ``slow-20-of-1`` has one of 20 MiB, which all who ask for
it share a link of 10 MiB a second for.

Each page and list is made when it is first asked for, and then sent as it is, which costs next to
nothing. ``/asked`` gives the number of requests so far, and ``/fetched`` that of those for
files with a size of their own; both are left out themselves. The program prints
its port and serves until it is ended; it touches the loopback alone.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
import time
from functools import cache

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IListeningPort, IPushProducer
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from zope.interface import implementer

WHEEL_SIZE = 100_000
_NAME_SIZE = 200
_JSON = "application/vnd.pypi.simple.v1+json"

# All files are the same but for their end, so that a digest costs no pass over 100 kB.
_BODY = random.Random(1).randbytes(WHEEL_SIZE - _NAME_SIZE)
_BODY_DIGEST = hashlib.sha256(_BODY)


def _end(filename: str) -> bytes:
    return filename.encode().ljust(_NAME_SIZE)


MIB = 1 << 20
#: Bytes per second of the slow link.
LINK = 10 * MIB
_BLOCK = random.Random(2).randbytes(MIB)
_SIZED = re.compile(r"(blob|slow)[-_](\d+)[-_]of[-_]")


@cache
def _sized(size: int) -> str:
    """Give the digest of a file of so many MiB."""
    digest = hashlib.sha256()
    for _ in range(size):
        digest.update(_BLOCK)
    return digest.hexdigest()


class _Link:
    """A slow link that is shared; a second's worth of bytes at most waits for whoever is next."""

    free = 0.0

    def wait(self, count: int) -> float:
        """Give the seconds until so many bytes are through."""
        now = time.monotonic()
        self.free = max(self.free, now) + count / LINK
        return self.free - now


_link = _Link()


@implementer(IPushProducer)
class _Large:
    """Sends a large file, as fast as it is taken and as the link allows."""

    def __init__(self, request: Request, start: int, stop: int, slow: bool) -> None:
        self._request, self._next, self._stop, self._slow = request, start, stop, slow
        self._paused, self._waiting = False, False
        request.registerProducer(self, True)
        self._send()

    def _send(self) -> None:
        while not (self._paused or self._waiting) and self._next < self._stop:
            place = self._next % MIB
            piece = _BLOCK[place : min(place + 65536, place + self._stop - self._next)]
            self._next += len(piece)
            self._request.write(piece)
            if self._slow:
                self._waiting = True
                reactor.callLater(_link.wait(len(piece)), self._go_on)
        if self._next == self._stop and not self._waiting:
            self._paused, self._next = True, -1
            self._request.unregisterProducer()
            self._request.finish()

    def _go_on(self) -> None:
        self._waiting = False
        self._send()

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


def _file(origin: str, project: str, number: int) -> dict[str, object]:
    stem = project.replace("-", "_")
    filename = f"{stem}-{number}.0.1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
    size = WHEEL_SIZE
    if sized := _SIZED.match(project):
        size = int(sized[2]) * MIB
        sha256 = _sized(int(sized[2]))
    else:
        digest = _BODY_DIGEST.copy()
        digest.update(_end(filename))
        sha256 = digest.hexdigest()
    return {
        "filename": filename,
        "url": f"{origin}/files/{sha256[:2]}/{sha256[2:4]}/{sha256[4:]}/{filename}",
        "hashes": {"sha256": sha256},
        "requires-python": ">=3.9",
        "size": size,
        "upload-time": f"2026-01-{number % 28 + 1:02}T12:00:00.{number:06}Z",
        "yanked": False,
        # Real pages say so; nobody asks for it here.
        "core-metadata": {"sha256": hashlib.sha256(filename.encode()).hexdigest()},
    }


def project_page(origin: str, project: str) -> bytes | None:
    """Write the page of a project; None for a name that does not say how many files it has.

    :param origin: the scheme, host and port of this very server
    """
    _, separator, count = project.rpartition("-of-")
    if not (separator and count.isdecimal()):
        return None
    files = [_file(origin, project, number) for number in range(int(count))]
    versions = [f"{number}.0.1" for number in range(int(count))]
    meta = {"api-version": "1.1"}
    return json.dumps(
        {"meta": meta, "name": project, "versions": versions, "files": files}
    ).encode()


@cache
def page(origin: str, project: str, compressed: bool) -> tuple[bytes, str] | None:
    """Give the page of a project, and its entity tag."""
    data = project_page(origin, project)
    if data is None:
        return None
    if compressed:
        data = gzip.compress(data, 6, mtime=0)
    return data, f'"{hashlib.md5(data).hexdigest()}"'


def _names(count: int) -> list[str]:
    """So many names, about as long as real ones, sorted by their normal form."""
    drawn = random.Random(1)
    syllables = [a + b + c for a in "bdfgklmnprstvz" for b in "aeiouy" for c in ("", "n", "r", "s")]
    names: dict[str, str] = {}
    while len(names) < count:
        words = ["".join(drawn.choices(syllables, k=drawn.choice((1, 2, 2, 3)))) for _ in "ab"]
        name = drawn.choice(("-", "-", "-", "_", ".")).join(words)
        if drawn.random() < 0.1:
            name = name.title()
        names[re.sub(r"[-_.]+", "-", name).lower()] = name
    return [names[normal] for normal in sorted(names)]


@cache
def root_list(kind: str, count: int) -> bytes:
    """Write a list of so many projects, JSON or HTML, in the shape that a large index gives it."""
    names = _names(count)
    if kind == "json":
        projects = [{"_last-serial": 30_000_000 + n, "name": name} for n, name in enumerate(names)]
        meta = {"_last-serial": 30_000_000 + count, "api-version": "1.4"}
        return json.dumps({"meta": meta, "projects": projects}).encode()
    head = '<!DOCTYPE html>\n<html>\n  <head>\n    <meta name="pypi:repository-version" '
    head += 'content="1.4">\n    <title>Simple index</title>\n  </head>\n  <body>\n'
    links = (
        f'    <a href="/html-of-{count}/{re.sub("[-_.]+", "-", name).lower()}/">{name}</a>\n'
        for name in names
    )
    return (head + "".join(links) + "  </body>\n</html>\n").encode()


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
        if root == "files" and name.endswith(".whl"):
            request.setHeader(b"Content-Type", b"application/octet-stream")
            if sized := _SIZED.match(name.rpartition("/")[2]):
                self._fetched += request.method == b"GET"
                return self._large(request, int(sized[2]) * MIB, sized[1] == "slow")
            return _BODY + _end(name.rpartition("/")[2])
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

    def _large(self, request: Request, size: int, slow: bool) -> int:
        """Send a large file, or the one range of it that is asked for."""
        start, stop = 0, size
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.getHeader("Range") or "")
        if asked:
            start, stop = int(asked[1]), min(size, int(asked[2] or size) + 1)
            request.setResponseCode(206)
            request.setHeader("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        request.setHeader("Content-Length", str(stop - start))
        request.setHeader("Accept-Ranges", "bytes")
        if request.method == b"HEAD":
            return b""  # type: ignore[return-value]
        _Large(request, start, stop, slow)
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
