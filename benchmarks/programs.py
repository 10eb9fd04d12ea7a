"""The programs that are compared: how each is started, watched and stopped.

Each runs in processes of its own with an environment given explicitly, so that no setting of the
machine (a proxy, a client's configuration, a cache folder) reaches it. What a program costs is
read from ``/proc``, for all its processes together; this is why it takes Linux.
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
from environments import ORIGINAL_RELEASE, Unusable, environment
from values import ORIGINAL, OURS, UVLOOP

#: Seconds for a program to start, and for one answer.
GUARD = 30.0
# twistd has no name for it: it takes the loop that asyncio makes.
_ON_UVLOOP = """
import asyncio, uvloop
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
from twisted.scripts.twistd import run
run()
"""
_TICKS = os.sysconf("SC_CLK_TCK")


@attrs.frozen
class Reply:
    """An answer, as far as it matters here."""

    status: int
    coding: str
    body: bytes = attrs.field(repr=False)
    etag: str = ""


NOTHING_SAID: Mapping[str, str] = MappingProxyType({})


@attrs.frozen
class Program:
    """Something to compare.

    :ivar name: what it is called in the table
    :ivar python: the interpreter of its environment
    :ivar command: how it is started, with ``{port}`` where the port goes, and ``{folder}``
    :ivar configuration: what is written to ``nginx.conf`` in that folder before, if anything
    :ivar settings: variables of its environment
    """

    name: str
    python: Path
    command: tuple[str, ...]
    configuration: Template | None = None
    settings: Mapping[str, str] = NOTHING_SAID

    @property
    def passes_on(self) -> bool:
        """Whether it is a cache of answers: its pages have the index's links, and it the paths."""
        return self.configuration is not None

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

    def get(self, path: str, headers: Mapping[str, str], guard: float = GUARD) -> Reply:
        """Ask once, on a connection of its own; redirects are not followed.

        :param guard: seconds after which it is given up, if nothing comes
        """
        return get(self.port, path, headers, guard)

    def get_when_up(self, path: str, headers: Mapping[str, str] = NOTHING_SAID) -> Reply:
        """Ask until there is an answer."""
        while True:
            try:
                return self.get(path, headers)
            except ConnectionError:
                if self.process.poll() is not None or self.seconds() > GUARD:
                    raise Unusable(f"{self.program.name} did not start") from None
            time.sleep(0.002)

    def seconds(self) -> float:
        """Seconds since its process was started."""
        return time.perf_counter() - self.started

    def cpu_seconds(self) -> float:
        """Seconds of processor that all its processes have used, in user and kernel mode."""
        return sum(int(t) for pid in self.pids() for t in _stat(pid)[11:13]) / _TICKS

    def memory(self) -> int:
        """Bytes that are resident in all its processes.

        What a process shares, with its siblings above all, counts once: summed resident sizes
        would charge a preloading server twice for what it loaded before it forked.
        """
        private, shared = 0, 0
        for pid in self.pids():
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
            sizes = {key: int(size) for key, size, *_ in map(str.split, lines)}
            own = sizes["Private_Clean:"] + sizes["Private_Dirty:"]
            private += own
            shared = max(shared, sizes["Rss:"] - own)
        return (private + shared) * 1024

    def peak(self) -> int:
        """Bytes that were resident at most since :meth:`forget_peak`, summed over its processes.

        Those that came and went meanwhile are not in it.
        """
        found = 0
        for pid in self.pids():
            with suppress(FileNotFoundError, ProcessLookupError):
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                found += sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
        return found * 1024

    def forget_peak(self) -> None:
        """Count the peak from what is resident now."""
        for pid in self.pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def pids(self) -> list[int]:
        """Give its first process and all that come from it."""
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


def get(port: int, path: str, headers: Mapping[str, str], guard: float = GUARD) -> Reply:
    """Ask a port of this machine once."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=guard)
    try:
        connection.request("GET", path, headers=dict(headers))
        answer = connection.getresponse()
        coding, etag = (answer.headers.get(name, "") for name in ("Content-Encoding", "ETag"))
        return Reply(answer.status, coding, answer.read(), etag)
    finally:
        connection.close()


def here() -> Program:
    """Give the proxpi that is installed beside this interpreter."""
    twistd = Path(sys.executable).with_name("twistd")
    if not twistd.exists():
        raise Unusable(f"{twistd} is not there: run this with the Python that has proxpi installed")
    listen = "tcp:{port}:interface=127.0.0.1"
    command = (str(twistd), "-n", "--pidfile=", "proxpi", "--listen", listen)
    return Program(OURS, Path(sys.executable), command)


def on_uvloop() -> Program:
    """Give the same on uvloop, which is installed elsewhere, and seen by this one alone."""
    folder = environment("uvloop", ["uvloop"])
    [packages] = folder.glob("lib/python*/site-packages")
    usual = here()
    command = (str(usual.python), "-c", _ON_UVLOOP, "--reactor=asyncio", *usual.command[1:])
    settings = {"PYTHONPATH": str(packages)}
    return attrs.evolve(usual, name=UVLOOP, command=command, settings=settings)


def original() -> Program:
    """Give the original program, as its container starts it."""
    folder = environment(
        f"original-{ORIGINAL_RELEASE}", [f"proxpi=={ORIGINAL_RELEASE}", "gunicorn"]
    )
    serving = ("--preload", "--threads", "2", "--bind", "127.0.0.1:{port}", "proxpi.server:app")
    return Program(ORIGINAL, folder / "bin/python", (str(folder / "bin/gunicorn"), *serving))


@contextmanager
def running(
    program: Program, index_url: str, folder: Path, settings: Mapping[str, str] = NOTHING_SAID
) -> Iterator[Running]:
    """Start a program, with nothing cached unless its folder has something, and stop it in the end.

    :param folder: for its temporary files and its log
    :param settings: variables of its environment, besides the index
    """
    port = _free_port()
    command = [
        part.replace("{port}", str(port)).replace("{folder}", str(folder))
        for part in program.command
    ]
    places = {"HOME": str(folder), "TMPDIR": str(folder), "PATH": os.environ.get("PATH", "")}
    variables = {**places, "PROXPI_INDEX_URL": index_url, **program.settings, **settings}
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
        yield Running(program, process, port, started)
    except Unusable:
        end = log.read_bytes()[-2000:].decode(errors="replace")
        print(f"the log of {program.name} ends with:\n{end}", file=sys.stderr)
        raise
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """End a process, gently at first."""
    process.terminate()
    try:
        process.wait(GUARD)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
