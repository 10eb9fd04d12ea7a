"""The compared programs: how to start, observe and stop them.

Each program gets an explicit environment: no setting of the machine (proxies, client configuration,
cache folders) reaches it. CPU time and memory of all its processes are read from Linux's ``/proc``.
"""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from string import Template
from types import MappingProxyType
from urllib.parse import urlsplit

import attrs
from environments import ORIGINAL_RELEASE, BenchmarkError, environment
from results import ORIGINAL, PROXPI, UVLOOP

#: Seconds for a start, and for one response.
TIMEOUT = 30.0
# twistd has no option for uvloop; its asyncio reactor uses the loop of the policy.
_ON_UVLOOP = """
import asyncio, uvloop
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
from twisted.scripts.twistd import run
run()
"""
_TICKS = os.sysconf("SC_CLK_TCK")


@attrs.frozen
class Response:
    """The used parts of a response."""

    status: int
    coding: str
    body: bytes = attrs.field(repr=False)
    etag: str = ""


EMPTY: Mapping[str, str] = MappingProxyType({})


@attrs.frozen
class Program:
    """A program to compare.

    :ivar name: name in the tables
    :ivar python: the interpreter of its environment
    :ivar command: command with the placeholders ``{port}`` and ``{folder}``
    :ivar configuration: content of ``nginx.conf`` in that folder, for nginx
    :ivar settings: environment variables
    """

    name: str
    python: Path
    command: tuple[str, ...]
    configuration: Template | None = None
    settings: Mapping[str, str] = EMPTY

    @property
    def keeps_links(self) -> bool:
        """Whether it is a response cache: its pages keep the index's links, hence the paths."""
        return self.configuration is not None

    def version(self, distribution: str) -> str:
        """Return the version of a distribution in its environment."""
        code = f"from importlib.metadata import version; print(version({distribution!r}))"
        done = subprocess.run([self.python, "-c", code], capture_output=True, text=True, check=True)
        return done.stdout.strip()


@attrs.frozen
class Server:
    """A running program.

    :ivar started: start of its process, on the clock of ``time.perf_counter``
    """

    program: Program
    process: subprocess.Popen[bytes]
    port: int
    started: float

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def get(
        self, path: str, headers: Mapping[str, str] = EMPTY, timeout: float = TIMEOUT
    ) -> Response:
        return get(self.port, path, headers, timeout)

    def get_when_up(self, path: str) -> Response:
        """Repeat a GET request until the server accepts connections."""
        while True:
            try:
                return self.get(path)
            except ConnectionError:
                if self.process.poll() is not None or self.seconds() > TIMEOUT:
                    raise BenchmarkError(f"{self.program.name} did not start") from None
            time.sleep(0.002)

    def seconds(self) -> float:
        """Seconds since the start of its process."""
        return time.perf_counter() - self.started

    def cpu_seconds(self) -> float:
        """CPU seconds of all its processes, in user and kernel mode."""
        return sum(int(t) for pid in self.pids() for t in _stat(pid)[11:13]) / _TICKS

    def memory(self) -> int:
        """Resident bytes of all its processes; shared memory counts once.

        A sum of resident sizes would count memory from before a fork once for each process.
        """
        private, shared = 0, 0
        for pid in self.pids():
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
            sizes = {key: int(size) for key, size, *_ in map(str.split, lines)}
            own = sizes["Private_Clean:"] + sizes["Private_Dirty:"]
            private += own
            shared = max(shared, sizes["Rss:"] - own)
        return (private + shared) * 1024

    def peak_memory(self) -> int:
        """Peak resident bytes since :meth:`reset_peak_memory`, summed over its living processes."""
        found = 0
        for pid in self.pids():
            with suppress(FileNotFoundError, ProcessLookupError):
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                found += sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
        return found * 1024

    def reset_peak_memory(self) -> None:
        for pid in self.pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def pids(self) -> list[int]:
        """Return its first process and all descendants."""
        parents = {
            int(folder.name): int(stat[1])
            for folder in Path("/proc").iterdir()
            if folder.name.isdecimal() and (stat := _stat(int(folder.name)))
        }
        found = [self.process.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found


def _stat(pid: int) -> list[str]:
    """The fields of a process's ``stat`` from the third (state) on; none if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def get(port: int, path: str, headers: Mapping[str, str], timeout: float = TIMEOUT) -> Response:
    """Send a GET request on a new connection; redirects are not followed.

    :param timeout: seconds
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path, headers=dict(headers))
        response = connection.getresponse()
        coding, etag = (response.headers.get(name, "") for name in ("Content-Encoding", "ETag"))
        return Response(response.status, coding, response.read(), etag)
    finally:
        connection.close()


def proxpi() -> Program:
    """Return proxpi from the environment of this interpreter."""
    twistd = Path(sys.executable).with_name("twistd")
    if not twistd.exists():
        raise BenchmarkError(f"{twistd} is missing: use the Python that has proxpi installed")
    listen = "tcp:{port}:interface=127.0.0.1"
    command = (str(twistd), "-n", "--pidfile=", "proxpi", "--listen", listen)
    return Program(PROXPI, Path(sys.executable), command)


def proxpi_on_uvloop() -> Program:
    """Return proxpi on uvloop, which is installed in another environment."""
    folder = environment("uvloop", ["uvloop"])
    [packages] = folder.glob("lib/python*/site-packages")
    default = proxpi()
    command = (str(default.python), "-c", _ON_UVLOOP, "--reactor=asyncio", *default.command[1:])
    settings = {"PYTHONPATH": str(packages)}
    return attrs.evolve(default, name=UVLOOP, command=command, settings=settings)


def original() -> Program:
    """Return the original, with the command of its container."""
    folder = environment(
        f"original-{ORIGINAL_RELEASE}", [f"proxpi=={ORIGINAL_RELEASE}", "gunicorn"]
    )
    serving = ("--preload", "--threads", "2", "--bind", "127.0.0.1:{port}", "proxpi.server:app")
    return Program(ORIGINAL, folder / "bin/python", (str(folder / "bin/gunicorn"), *serving))


@contextmanager
def running(
    program: Program, index_url: str, folder: Path, settings: Mapping[str, str] = EMPTY
) -> Iterator[Server]:
    """Run a program, and stop it at the end.

    :param folder: the folder of its temporary files, its log and, by default, its cache
    :param settings: further environment variables
    """
    port = _free_port()
    command = [
        part.replace("{port}", str(port)).replace("{folder}", str(folder))
        for part in program.command
    ]
    base = {"HOME": str(folder), "TMPDIR": str(folder), "PATH": os.environ.get("PATH", "")}
    variables = {**base, "PROXPI_INDEX_URL": index_url, **program.settings, **settings}
    if program.configuration is not None:
        index = urlsplit(index_url)
        text = program.configuration.substitute(
            folder=folder, port=port, index_host=index.netloc, index_path=index.path
        )
        (folder / "nginx.conf").write_text(text)
    log = folder / f"{program.name}.log"
    with log.open("ab") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=variables, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield Server(program, process, port, started)
    except BenchmarkError:
        end = log.read_bytes()[-2000:].decode(errors="replace")
        print(f"last lines of the log of {program.name}:\n{end}", file=sys.stderr)
        raise
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """Terminate a process; kill it after a time-out."""
    process.terminate()
    try:
        process.wait(TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
