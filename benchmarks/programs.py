"""The programs that are compared: how each is installed, started, watched and stopped.

Each runs in processes of its own with an environment given explicitly, so that no setting of the
machine (a proxy, a client's configuration, a cache folder) reaches it. What a program costs is
read from ``/proc``, for all its processes together; this is why it takes Linux.
"""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs

ORIGINAL = "1.3.1"
#: Seconds for a program to start, and for one answer.
GUARD = 30.0
_TICKS = os.sysconf("SC_CLK_TCK")


class Unusable(Exception):
    """Nothing can be measured; the text says why, and what to do about it."""


@attrs.frozen
class Reply:
    """An answer, as far as it matters here."""

    status: int
    coding: str
    body: bytes = attrs.field(repr=False)


@attrs.frozen
class Program:
    """Something to compare.

    :ivar name: what it is called in the table
    :ivar python: the interpreter of its environment
    :ivar command: how it is started, with ``{port}`` where the port goes
    """

    name: str
    python: Path
    command: tuple[str, ...]

    def version(self, distribution: str) -> str:
        """Say which version of a distribution its environment has."""
        code = f"from importlib.metadata import version; print(version({distribution!r}))"
        done = subprocess.run([self.python, "-c", code], capture_output=True, text=True, check=True)
        return done.stdout.strip()


@attrs.frozen
class Running:
    """A program that serves.

    :ivar started: when its process was started, on the clock of ``time.perf_counter``
    """

    program: Program
    process: subprocess.Popen[bytes]
    port: int
    started: float

    def url(self, path: str) -> str:
        """Give the URL of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    def get(self, path: str, headers: Mapping[str, str]) -> Reply:
        """Ask once, on a connection of its own; redirects are not followed."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=GUARD)
        try:
            connection.request("GET", path, headers=dict(headers))
            answer = connection.getresponse()
            return Reply(answer.status, answer.headers.get("Content-Encoding", ""), answer.read())
        finally:
            connection.close()

    def get_when_up(self, path: str) -> Reply:
        """Ask until there is an answer."""
        while True:
            try:
                return self.get(path, {})
            except ConnectionError:
                if self.process.poll() is not None or self.seconds() > GUARD:
                    raise Unusable(f"{self.program.name} did not start") from None
            time.sleep(0.002)

    def seconds(self) -> float:
        """Seconds since its process was started."""
        return time.perf_counter() - self.started

    def cpu_seconds(self) -> float:
        """Seconds of processor that all its processes have used, in user and kernel mode."""
        return sum(int(t) for pid in self._pids() for t in _stat(pid)[11:13]) / _TICKS

    def memory(self) -> int:
        """Bytes that are resident in all its processes.

        What a process shares, with its siblings above all, counts once: summed resident sizes
        would charge a preloading server twice for what it loaded before it forked.
        """
        private, shared = 0, 0
        for pid in self._pids():
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
            sizes = {key: int(size) for key, size, *_ in map(str.split, lines)}
            own = sizes["Private_Clean:"] + sizes["Private_Dirty:"]
            private += own
            shared = max(shared, sizes["Rss:"] - own)
        return (private + shared) * 1024

    def _pids(self) -> list[int]:
        """Its first process and all that come from it."""
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
    """The fields of a process's ``stat`` from the third, its state, on; none if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def here() -> Program:
    """Give the proxpi that is installed beside this interpreter."""
    twistd = Path(sys.executable).with_name("twistd")
    if not twistd.exists():
        raise Unusable(f"{twistd} is not there: run this with the Python that has proxpi installed")
    listen = "tcp:{port}:interface=127.0.0.1"
    command = (str(twistd), "-n", "--pidfile=", "proxpi", "--listen", listen)
    return Program("proxpi", Path(sys.executable), command)


def original() -> Program:
    """Give the original program, installed into an environment of its own if it is not yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    version = ".".join(map(str, sys.version_info[:3]))
    folder = cache / "proxpi-benchmarks" / f"original-{ORIGINAL}-python-{version}"
    python, complete = folder / "bin/python", folder / "complete"
    if not complete.exists():
        print(f"installing the original into {folder}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        requirements = [f"proxpi=={ORIGINAL}", "gunicorn"]
        try:
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True)
        except subprocess.CalledProcessError as error:
            raise Unusable(f"the original cannot be installed: {error}") from None
        complete.touch()
    # As its container starts it.
    serving = ("--preload", "--threads", "2", "--bind", "127.0.0.1:{port}", "proxpi.server:app")
    return Program("original", python, (str(folder / "bin/gunicorn"), *serving))


@contextmanager
def running(program: Program, index_url: str, folder: Path) -> Iterator[Running]:
    """Start a program with nothing cached, and stop it in the end.

    :param folder: for its temporary files and its log
    """
    port = _free_port()
    command = [part.format(port=port) for part in program.command]
    places = {"HOME": str(folder), "TMPDIR": str(folder), "PATH": os.environ.get("PATH", "")}
    environment = {**places, "PROXPI_INDEX_URL": index_url}
    log = folder / f"{program.name}.log"
    with log.open("ab") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield Running(program, process, port, started)
    except Unusable:
        end = log.read_bytes()[-2000:].decode(errors="replace")
        print(f"the log of {program.name} ends with:\n{end}", file=sys.stderr)
        raise
    finally:
        _stop(process)


@contextmanager
def upstream() -> Iterator[str]:
    """Start the local index in a process of its own, and give its URL."""
    command = [sys.executable, str(Path(__file__).with_name("upstream.py"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            port = process.stdout.readline().strip()
            if not port:
                raise Unusable("the local index did not start")
            yield f"http://127.0.0.1:{port}/simple/"
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(GUARD)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
