"""A local index with as many projects as one likes, for measuring what stands in front of it.

Nothing is stored. A project's name says how many files it has: ``bulk-017-of-300`` has 300, each
a wheel of 100 kB. Pages are JSON (PEP 691) like real ones: links are absolute, and every digest
is another, so that they are as hard to compress. The program prints its port and serves until it
is ended; it touches the loopback alone.
"""

from __future__ import annotations

import hashlib
import json
import random

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IListeningPort
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import Site

WHEEL_SIZE = 100_000
_NAME_SIZE = 200

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


class Index(Resource):
    """Answers ``/simple/<project>`` with or without a last slash, and ``/files/…/<file>``."""

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        """Give a page or a file."""
        kind, _, name = request.path.decode("ascii", "replace").strip("/").partition("/")
        origin = f"http://{request.getHeader('Host')}"
        page = project_page(origin, name) if kind == "simple" else None
        if page is not None:
            request.setHeader(b"Content-Type", b"application/vnd.pypi.simple.v1+json")
            request.setHeader(b"ETag", b'"%s"' % hashlib.md5(page).hexdigest().encode())
            return page
        if kind == "files" and name.endswith(".whl"):
            request.setHeader(b"Content-Type", b"application/octet-stream")
            return _BODY + _end(name.rpartition("/")[2])
        request.setResponseCode(404)
        return b"not here\n"


def main() -> None:
    """Serve on a free port of the loopback, and print which it is."""

    def started(port: IListeningPort) -> None:
        address = port.getHost()
        assert isinstance(address, IPv4Address)
        print(address.port, flush=True)

    site = Site(Index())  # type: ignore[no-untyped-call]
    TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(site).addCallback(started)
    reactor.run()


if __name__ == "__main__":
    main()
