"""Clients: the load generator, downloads, a latency probe, and checks of responses."""

from __future__ import annotations

import gzip
import http.client
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec

import attrs
from environments import BenchmarkError
from programs import EMPTY, TIMEOUT, Response, Server

P = ParamSpec("P")

CONNECTIONS = 16
MIB = 1024 * 1024
#: The request headers of pip and uv that select a representation.
PAGE_HEADERS = {"Accept": "application/vnd.pypi.simple.v1+json", "Accept-Encoding": "gzip"}
#: Seconds until a response must be complete; the original is slow for the project list.
LONG_TIMEOUT = 600.0

# Runs once at the end.
_REPORT = """
done = function(summary, latency, requests)
  local errors = summary.errors
  local lost = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("\\nreport: %d %d %d %d %d\\n",
    summary.requests, summary.bytes, summary.duration, errors.status, lost))
end
"""
# Each request has a new head. It costs wrk one concatenation.
_UNSEEN = """
local head, count
init = function()
  head, count = wrk.format():sub(1, -3) .. "X-Request-Id: " .. os.time() .. "-", 0
end
request = function()
  count = count + 1
  return head .. count .. "\\r\\n\\r\\n"
end
"""


@attrs.frozen
class LoadResult:
    """Results of one measurement under load.

    :ivar rate: requests per second
    :ivar cpu: microseconds of the server's CPU time per request
    :ivar client: cores used by the load generator
    """

    rate: float
    cpu: float
    client: float


@attrs.frozen
class LoadGenerator:
    """The load generator wrk.

    :ivar seconds: duration of one measurement
    :ivar wrk: path of the program
    :ivar folder: folder of its script
    """

    seconds: int
    wrk: str
    folder: Path

    def run(
        self,
        server: Server,
        path: str,
        headers: Mapping[str, str],
        size: int,
        *,
        unseen: bool = False,
    ) -> LoadResult:
        """Repeat one request.

        :param size: bytes of a response body
        :param unseen: add a new header value to each request
        """
        script = self.folder / "load.lua"
        script.write_text(_REPORT + _UNSEEN * unseen)
        command = [self.wrk, "--threads=1", f"--connections={CONNECTIONS}", "--timeout=10s"]
        command += [f"--duration={self.seconds}s", f"--script={script}"]
        command += [f"--header={name}: {value}" for name, value in headers.items()]
        before, own = server.cpu_seconds(), _children()
        done = subprocess.run(
            [*command, server.url(path)],
            capture_output=True,
            text=True,
            timeout=self.seconds + TIMEOUT,
            check=True,
        )
        spent, own = server.cpu_seconds() - before, _children() - own
        report = done.stdout.rpartition("report: ")[2].split()
        requests, received, microseconds, refused, lost = map(int, report)
        if refused or not requests or received < requests * size:
            raise BenchmarkError(f"{server.program.name}: failed responses to {path} under load")
        if lost:
            print(f"{server.program.name}: {lost} connections lost on {path}", file=sys.stderr)
        seconds = microseconds / 1e6
        return LoadResult(requests / seconds, spent / requests * 1e6, own / seconds)


def _children() -> float:
    """CPU seconds of the ended child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@attrs.frozen
class Download:
    """Seconds to the first and to the last byte of a download."""

    first: float
    last: float


def download(port: int, path: str, size: int, name: str = "the index") -> Download:
    """Download a file and discard its bytes.

    :param name: the server's name for errors
    """
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG_TIMEOUT)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        if response.status != 200:
            raise BenchmarkError(f"{name}: status {response.status} for {path}")
        buffer = memoryview(bytearray(512 * 1024))
        received, first = 0, 0.0
        while count := response.readinto(buffer):
            first = first or time.perf_counter() - began
            received += count
    finally:
        connection.close()
    if received != size:
        raise BenchmarkError(f"{name}: {received} bytes for {path}, not {size}")
    return Download(first, time.perf_counter() - began)


def download_at_once(server: Server, path: str, size: int, clients: int) -> list[Download]:
    """Download a file with many clients at once; log and leave out failed downloads."""

    def one(_: int) -> Download | None:
        try:
            return download(server.port, path, size, name=server.program.name)
        except (OSError, http.client.HTTPException, BenchmarkError) as error:
            print(f"a download failed: {error}", file=sys.stderr)
            return None

    with ThreadPoolExecutor(clients) as pool:
        return [done for done in pool.map(one, range(clients)) if done is not None]


def get_all(port: int, paths: Sequence[str], clients: int, headers: Mapping[str, str]) -> float:
    """Request all paths once, spread over persistent connections.

    :return: the seconds that it took
    :raises BenchmarkError: for any status but 200
    """

    def share(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG_TIMEOUT)
        for path in paths[number::clients]:
            connection.request("GET", path, headers=dict(headers))
            response = connection.getresponse()
            if response.status != 200 or not response.read():
                raise BenchmarkError(f"status {response.status} for {path}")
        connection.close()

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(share, range(clients)))
    return time.perf_counter() - began


@attrs.define
class Probe:
    """The result of a latency probe (``latency_probe.py``).

    :ivar max_latency: milliseconds; set at the end of the probe
    """

    max_latency: float = 0.0


@contextmanager
def probing(server: Server, path: str) -> Iterator[Probe]:
    """Probe a server meanwhile, from another process, which this one cannot delay."""
    script = str(Path(__file__).with_name("latency_probe.py"))
    command = [sys.executable, script, str(server.port), path]
    probe = Probe()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            if process.stdout.readline() != "ready\n":
                raise BenchmarkError(f"{server.program.name}: the latency probe did not start")
            yield probe
            process.stdin.close()
            response = process.stdout.readline()
            if not response:
                raise BenchmarkError(f"{server.program.name}: the latency probe got no response")
            probe.max_latency = float(response)
        finally:
            process.kill()


def timed(
    request: Callable[P, Response], *args: P.args, **kwargs: P.kwargs
) -> tuple[float, Response]:
    """Return the seconds that a request takes, and its response."""
    began = time.perf_counter()
    response = request(*args, **kwargs)
    return time.perf_counter() - began, response


def get_page(server: Server, path: str, headers: Mapping[str, str] = PAGE_HEADERS) -> Response:
    return require_body(server, path, server.get(path, headers, LONG_TIMEOUT))


def get_cached(server: Server, path: str, headers: Mapping[str, str] = EMPTY) -> Response:
    """Request a file until proxpi no longer redirects: a long download is a redirect at first."""
    until = time.monotonic() + TIMEOUT
    while (response := server.get(path, headers)).status == 302 and time.monotonic() < until:
        time.sleep(0.1)
    return require_body(server, path, response)


def require_body(server: Server, path: str, response: Response) -> Response:
    """Return the response if it is a success with a body."""
    if response.status not in (200, 206) or not response.body:
        raise BenchmarkError(f"{server.program.name}: status {response.status} for {path}")
    return response


def gunzip(response: Response) -> bytes:
    if response.coding != "gzip":
        raise BenchmarkError("a page is not compressed with gzip as requested")
    return gzip.decompress(response.body)


def require_count(server: Server, response: Response, mark: bytes, count: int) -> None:
    """Require that a page lists everything: an incomplete page is no valid measurement."""
    body = gunzip(response) if response.coding == "gzip" else response.body
    if body.count(mark) != count:
        found = f"{body.count(mark)} of {count}"
        raise BenchmarkError(f"{server.program.name} lists {found} projects or files")


def find_wrk() -> str:
    """Return the path of wrk.

    :raises BenchmarkError: if wrk or ``/proc`` is missing
    """
    if not Path("/proc/self/smaps_rollup").exists():
        raise BenchmarkError("Linux is required: /proc/self/smaps_rollup is missing")
    wrk = shutil.which("wrk")
    if wrk is None:
        raise BenchmarkError("wrk is not installed (apt-get install wrk)")
    return wrk
