"""The local index and the slow link as processes, and the client of the index."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

import attrs
from captures import Captures
from environments import BenchmarkError
from programs import Response, get, stop

#: Seconds after which pages expire, where they shall: a client's cache has them from the package
#: index, proxpi by its setting. An installation from the cache is over before.
TTL = 15


@attrs.frozen
class LocalIndex:
    """The upstream of all programs (``index_server.py``)."""

    port: int

    def url(self, root: str = "simple") -> str:
        return f"http://127.0.0.1:{self.port}/{root}/"

    def get(self, path: str, headers: Mapping[str, str]) -> Response:
        return get(self.port, path, headers)

    def request_count(self) -> int:
        """Return the number of requests so far, without those for counters."""
        return int(self.get("/requests", {}).body)

    def download_count(self) -> int:
        """Return the number of downloads of blobs so far."""
        return int(self.get("/downloads", {}).body)

    def prepare(self, items: Iterable[tuple[str, str, str]]) -> None:
        """Make a package index prepare its responses, so that it only sends them from now on.

        :param items: each ``page``, ``metadata`` or ``file``, its project, its file name
        """
        for kind, project, filename in items:
            suffix = ".metadata" if kind == "metadata" else ""
            path = (
                f"files/{project}/{quote(filename)}{suffix}" if filename else f"simple/{project}/"
            )
            self.get(f"/{path}", {"Accept-Encoding": "gzip", "Range": "bytes=0-0"})
        self.get("/log", {})

    def files(self, project: str) -> list[tuple[str, str, int]]:
        """Return name, path and size of the files of a project."""
        page = json.loads(self.get(f"/simple/{project}/", {}).body)
        return [
            (file["filename"], urlsplit(file["url"]).path, file["size"]) for file in page["files"]
        ]


@contextmanager
def local_index() -> Iterator[LocalIndex]:
    with _serving("index_server.py") as port:
        yield LocalIndex(port)


@contextmanager
def package_index(captures: Captures | None = None) -> Iterator[LocalIndex]:
    """Serve captures, or the synthetic tree (``package_index.py``)."""
    of = []
    if captures:
        kind = "files" if captures.files else "stand-ins"
        of = [str(captures.folder), str(captures.largest or 0), kind]
    with _serving("package_index.py", *of) as port:
        yield LocalIndex(port)


@contextmanager
def behind_slow_link(
    index: LocalIndex, rate: int = 4, round_trip: int = 50
) -> Iterator[LocalIndex]:
    """Start a slow link to the index (``slow_link.py``).

    :param rate: MiB per second of a connection
    :param round_trip: milliseconds
    """
    with _serving("slow_link.py", str(index.port), str(rate), str(round_trip)) as port:
        yield LocalIndex(port)


@contextmanager
def _serving(script: str, *arguments: str) -> Iterator[int]:
    """Run a server that prints its port."""
    command = [sys.executable, str(Path(__file__).with_name(script)), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            port = process.stdout.readline().strip()
            if not port:
                raise BenchmarkError(f"{script} did not start")
            yield int(port)
        finally:
            stop(process)
