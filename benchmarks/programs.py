"""The programs that are compared: how each is installed, started, watched and stopped.

Each runs in processes of its own with an environment given explicitly, so that no setting of the
machine (a proxy, a client's configuration, a cache folder) reaches it. What a program costs is
read from ``/proc``, for all its processes together; this is why it takes Linux.
"""

from __future__ import annotations

import getpass
import http.client
import os
import shutil
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

ORIGINAL = "1.3.1"
#: Seconds for a program to start, and for one answer.
GUARD = 30.0
_TICKS = os.sysconf("SC_CLK_TCK")

# As its own documentation has it for a cache: what the index compressed is kept and sent so, one
# fetch at a time for each page, connections to the index that are kept.
_NGINX = """
daemon off;
worker_processes 1;
pid $folder/nginx.pid;
error_log stderr;
$user
events {}
http {
    access_log $folder/access.log;
    client_body_temp_path $folder/temporary;
    proxy_temp_path $folder/temporary;
    fastcgi_temp_path $folder/temporary;
    uwsgi_temp_path $folder/temporary;
    scgi_temp_path $folder/temporary;
    proxy_cache_path $folder/pages levels=1:2 keys_zone=pages:16m max_size=5g inactive=1d
                     use_temp_path=off;
    upstream index { server $index_host; keepalive 32; }
    server {
        listen 127.0.0.1:$port;
        location = /health { return 200 well; }
        sendfile on;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $index_host;
        proxy_cache pages;
        proxy_cache_key "$$uri $$http_accept $$http_accept_encoding";
        proxy_cache_valid 200 30m;
        proxy_cache_lock on;
        proxy_cache_lock_age 600s;
        proxy_cache_lock_timeout 600s;
        proxy_cache_revalidate on;
        proxy_cache_use_stale error timeout invalid_header updating http_502 http_503;
        location /index/ {
            proxy_pass http://index$index_path;
        }
        location /files/ {
            proxy_pass http://index;
            proxy_cache_key "$$uri";
        }
    }
}
"""


class Unusable(Exception):
    """Nothing can be measured; the text says why, and what to do about it."""


@attrs.frozen
class Reply:
    """An answer, as far as it matters here."""

    status: int
    coding: str
    body: bytes = attrs.field(repr=False)


_NOTHING: Mapping[str, str] = MappingProxyType({})


@attrs.frozen
class Program:
    """Something to compare.

    :ivar name: what it is called in the table
    :ivar python: the interpreter of its environment
    :ivar command: how it is started, with ``{port}`` where the port goes, and ``{folder}``
    :ivar configuration: what is written to ``nginx.conf`` in that folder before, if anything
    """

    name: str
    python: Path
    command: tuple[str, ...]
    configuration: Template | None = None

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
        return _get(self.port, path, headers, guard)

    def get_when_up(self, path: str, headers: Mapping[str, str] = _NOTHING) -> Reply:
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

    def peak(self) -> int:
        """Bytes that were resident at most since :meth:`forget_peak`, summed over its processes.

        Those that came and went meanwhile are not in it.
        """
        found = 0
        for pid in self._pids():
            with suppress(FileNotFoundError, ProcessLookupError):
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                found += sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
        return found * 1024

    def forget_peak(self) -> None:
        """Count the peak from what is resident now."""
        for pid in self._pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

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


def _get(port: int, path: str, headers: Mapping[str, str], guard: float) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=guard)
    try:
        connection.request("GET", path, headers=dict(headers))
        answer = connection.getresponse()
        return Reply(answer.status, answer.headers.get("Content-Encoding", ""), answer.read())
    finally:
        connection.close()


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


def nginx() -> Program | None:
    """Give nginx as a cache of pages, which it is with a few lines of configuration, if it is here.

    Its cached pages and all else that it writes lie in the folder that it is started in.
    """
    # Where Debian has it, which is on nobody's path but the superuser's.
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if found is None:
        return None
    # Started by the superuser its worker would become another user, who may not enter here.
    user = f"user {getpass.getuser()};" if os.getuid() == 0 else ""
    command = (found, "-p", "{folder}", "-c", "{folder}/nginx.conf")
    return Program("nginx", Path(found), command, Template(_NGINX.replace("$user", user)))


@contextmanager
def running(
    program: Program, index_url: str, folder: Path, settings: Mapping[str, str] = _NOTHING
) -> Iterator[Running]:
    """Start a program, with nothing cached unless its folder has something, and stop it in the end.

    :param folder: for its temporary files and its log
    :param settings: variables of its environment, besides the index
    """
    port = _free_port()
    command = [part.format(port=port, folder=folder) for part in program.command]
    places = {"HOME": str(folder), "TMPDIR": str(folder), "PATH": os.environ.get("PATH", "")}
    environment = {**places, "PROXPI_INDEX_URL": index_url, **settings}
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


@attrs.frozen
class Index:
    """The local index that all stand in front of; see ``upstream.py``."""

    port: int

    def url(self, root: str = "simple") -> str:
        """Give the URL of one of its roots."""
        return f"http://127.0.0.1:{self.port}/{root}/"

    def get(self, path: str, headers: Mapping[str, str]) -> Reply:
        """Ask it directly."""
        return _get(self.port, path, headers, GUARD)

    def asked(self) -> int:
        """Say how many requests it has seen, this one left out."""
        return int(self.get("/asked", {}).body)


@contextmanager
def upstream() -> Iterator[Index]:
    """Start the local index in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("upstream.py"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            port = process.stdout.readline().strip()
            if not port:
                raise Unusable("the local index did not start")
            yield Index(int(port))
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
