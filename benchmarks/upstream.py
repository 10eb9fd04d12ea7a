"""A local index with as many projects as one likes, for measuring what stands in front of it.

A project's name says how many files it has: ``bulk-017-of-300`` has 300, each a wheel of 100 kB.
Pages are JSON (PEP 691) like real ones: links are absolute, and every digest is another, so that
they are as hard to compress. Who takes gzip gets them compressed. The root says how many projects
its list has: that of ``/json-of-600000/`` has so many in JSON, that of ``/html-of-600000/`` in
HTML; they are never compressed, and ``/simple/`` has none.

Each page and list is made when it is first asked for, and then sent as it is, which costs next to
nothing. ``/asked`` gives the number of requests so far, those for it left out. The program prints
its port and serves until it is ended; it touches the loopback alone.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
from functools import cache

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IListeningPort
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import Site

WHEEL_SIZE = 100_000
_NAME_SIZE = 200
_JSON = "application/vnd.pypi.simple.v1+json"

# All files are the same but for their end, so that a digest costs no pass over 100 kB.
_BODY = random.Random(1).randbytes(WHEEL_SIZE - _NAME_SIZE)
_BODY_DIGEST = hashlib.sha256(_BODY)


def _end(filename: str) -> bytes:
    return filename.encode().ljust(_NAME_SIZE)


def _file(origin: str, project: str, number: int) -> dict[str, object]:
    stem = project.replace("-", "_")
    filename = f"{stem}-{number}.0.1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
    digest = _BODY_DIGEST.copy()
    digest.update(_end(filename))
    sha256 = digest.hexdigest()
    return {
        "filename": filename,
        "url": f"{origin}/files/{sha256[:2]}/{sha256[2:4]}/{sha256[4:]}/{filename}",
        "hashes": {"sha256": sha256},
        "requires-python": ">=3.9",
        "size": WHEEL_SIZE,
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

    def render_GET(self, request: Request) -> bytes:
        """Give a list, a page or a file."""
        path = request.path.decode("ascii", "replace").strip("/")
        if path == "asked":
            return b"%d" % self._asked
        self._asked += 1
        root, _, name = path.partition("/")
        if root == "files" and name.endswith(".whl"):
            request.setHeader(b"Content-Type", b"application/octet-stream")
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
