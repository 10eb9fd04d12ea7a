"""Clients: the load generator, downloads, a probe, and what an answer has to be to count."""

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
from environments import Unusable
from programs import GUARD, NOTHING_SAID, Reply, Running

P = ParamSpec("P")

CONNECTIONS = 16
MIB = 1024 * 1024
#: What pip and uv say, as far as it decides on the answer.
PAGE_HEADERS = {"Accept": "application/vnd.pypi.simple.v1+json", "Accept-Encoding": "gzip"}
#: Seconds that an answer may take; one of the programs needs many for a long list.
PATIENCE = 600.0

# Only runs once it is over, so it does not slow wrk down.
_REPORT = """
done = function(summary, latency, requests)
  local errors = summary.errors
  local lost = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("\\nreport: %d %d %d %d %d\\n",
    summary.requests, summary.bytes, summary.duration, errors.status, lost))
end
"""
# Each request has a head that was never sent before. It costs wrk little: one text is put together.
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
class Loaded:
    """What a server did under load.

    :ivar rate: requests per second
    :ivar cpu: microseconds of the server's processor time for each
    :ivar client: how much of one core the load generator itself took
    """

    rate: float
    cpu: float
    client: float


@attrs.frozen
class Load:
    """The load generator.

    :ivar seconds: of one measurement
    :ivar wrk: where the program is
    :ivar folder: for its script
    """

    seconds: int
    wrk: str
    folder: Path

    def run(
        self,
        server: Running,
        path: str,
        headers: Mapping[str, str],
        size: int,
        *,
        unseen: bool = False,
    ) -> Loaded:
        """Ask for the same over and over.

        :param size: of the body of one answer
        :param unseen: with another header in each request
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
            timeout=self.seconds + GUARD,
            check=True,
        )
        spent, own = server.cpu_seconds() - before, _children() - own
        report = done.stdout.rpartition("report: ")[2].split()
        requests, received, microseconds, refused, lost = map(int, report)
        if refused or not requests or received < requests * size:
            raise Unusable(f"{server.program.name} did not answer {path} as it should under load")
        if lost:
            print(f"{server.program.name}: {lost} connections lost on {path}", file=sys.stderr)
        seconds = microseconds / 1e6
        return Loaded(requests / seconds, spent / requests * 1e6, own / seconds)


def _children() -> float:
    """Seconds of processor that ended children of this process have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@attrs.frozen
class Taken:
    """A download: seconds to its first byte and to its last."""

    first: float
    last: float


def take(
    port: int, path: str, size: int, headers: Mapping[str, str] = NOTHING_SAID, name: str = "it"
) -> Taken:
    """Download something, and keep nothing of it."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path, headers=dict(headers))
        answer = connection.getresponse()
        if answer.status not in (200, 206):
            raise Unusable(f"{name} answers {path} with status {answer.status}")
        buffer = memoryview(bytearray(512 * 1024))
        received, first = 0, 0.0
        while count := answer.readinto(buffer):
            first = first or time.perf_counter() - began
            received += count
    finally:
        connection.close()
    if received != size:
        raise Unusable(f"{name} gives {received} bytes of {path}, not {size}")
    return Taken(first, time.perf_counter() - began)


def at_once(server: Running, path: str, size: int, clients: int) -> list[Taken]:
    """Let so many clients take the same at once; who gets nothing is told, and left out."""

    def one(_: int) -> Taken | None:
        try:
            return take(server.port, path, size, name=server.program.name)
        except (OSError, http.client.HTTPException, Unusable) as error:
            what = f"a client of {server.program.name} went away with nothing: {error}"
            print(what, file=sys.stderr)
            return None

    with ThreadPoolExecutor(clients) as pool:
        return [taken for taken in pool.map(one, range(clients)) if taken is not None]


def shared(port: int, paths: Sequence[str], clients: int, headers: Mapping[str, str]) -> float:
    """Let clients that keep their connections share out pages among them; give the seconds.

    :raises Unusable: if one of them is not a 200
    """

    def some(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        for path in paths[number::clients]:
            connection.request("GET", path, headers=dict(headers))
            answer = connection.getresponse()
            if answer.status != 200 or not answer.read():
                raise Unusable(f"{path} is answered with status {answer.status}")
        connection.close()

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(some, range(clients)))
    return time.perf_counter() - began


@attrs.define
class Probe:
    """Asks a server every 10 ms; see ``probe.py``.

    :ivar worst: the longest that it waited for an answer, in milliseconds, once it has ended
    """

    worst: float = 0.0


@contextmanager
def probing(server: Running, path: str) -> Iterator[Probe]:
    """Probe a server meanwhile, from a process of its own, so that nothing here delays it."""
    script = str(Path(__file__).with_name("probe.py"))
    command = [sys.executable, script, str(server.port), path]
    probe = Probe()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            if process.stdout.readline() != "ready\n":
                raise Unusable(f"{server.program.name} cannot be probed")
            yield probe
            process.stdin.close()
            answer = process.stdout.readline()
            if not answer:
                raise Unusable(f"{server.program.name} left the probe without an answer")
            probe.worst = float(answer)
        finally:
            process.kill()


def timed(ask: Callable[P, Reply], *args: P.args, **kwargs: P.kwargs) -> tuple[float, Reply]:
    """Give the seconds until an answer is here, and the answer."""
    began = time.perf_counter()
    reply = ask(*args, **kwargs)
    return time.perf_counter() - began, reply


def page(server: Running, path: str, headers: Mapping[str, str] = PAGE_HEADERS) -> Reply:
    """Ask for a page, which is there."""
    return whole(server, path, server.get(path, headers, PATIENCE))


def warmed(server: Running, path: str, headers: Mapping[str, str] = NOTHING_SAID) -> Reply:
    """Ask until it comes from the cache: a download that takes long is a redirect at first."""
    until = time.monotonic() + GUARD
    while (reply := server.get(path, headers)).status == 302 and time.monotonic() < until:
        time.sleep(0.1)
    return whole(server, path, reply)


def whole(server: Running, path: str, reply: Reply) -> Reply:
    """Give an answer back that is as it should be."""
    if reply.status not in (200, 206) or not reply.body:
        raise Unusable(f"{server.program.name} answers {path} with status {reply.status}")
    return reply


def gunzipped(reply: Reply) -> bytes:
    """Give what is in a body that is to be compressed."""
    if reply.coding != "gzip":
        raise Unusable("a page was not compressed, although gzip was asked for")
    return gzip.decompress(reply.body)


def complete(server: Running, reply: Reply, mark: bytes, count: int) -> None:
    """See whether everything is listed: fast answers are easily had of nothing."""
    body = gunzipped(reply) if reply.coding == "gzip" else reply.body
    if body.count(mark) != count:
        found = f"{body.count(mark)} of {count}"
        raise Unusable(f"{server.program.name} lists {found} projects or files")


def load_generator() -> str:
    """Say where wrk is.

    :raises Unusable: if it or what else it takes is missing
    """
    if not Path("/proc/self/smaps_rollup").exists():
        raise Unusable("it reads /proc, as Linux has it")
    wrk = shutil.which("wrk")
    if wrk is None:
        raise Unusable("it takes wrk: install the package of that name (apt-get install wrk)")
    return wrk
