"""A real ``twistd -n proxpi`` in a process of its own, and plain requests to it.

The process is given its environment explicitly: nothing of the machine's own settings reaches
it. It is waited for by reading what it writes, never by sleeping.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import re
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import attrs

GUARD_SECONDS = 60.0
_LISTENING = re.compile(r"listening on (http://\S+)")


@attrs.frozen
class Reply:
    """An answer as it came, redirects not followed; ``headers`` have lower-case names."""

    status: int
    headers: dict[str, str]
    body: bytes = attrs.field(repr=False)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


def request(
    origin: str,
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Reply:
    """One request on a connection of its own, with the path exactly as given."""
    parts = urlsplit(origin)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=GUARD_SECONDS)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, named, response.read())
    finally:
        connection.close()


TWISTD = str(Path(sys.executable).with_name("twistd"))


def plain_environment(**variables: str) -> dict[str, str]:
    """What a process needs of this machine: no setting of a proxy, a client or an index."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, **variables}


def measured() -> dict[str, str]:
    """What a process needs to be measured where coverage measures the tests; else nothing."""
    config = "COVERAGE_PROCESS_CONFIG"
    if config not in os.environ:
        return {}
    # Coverage starts before a program does, and its plugin is among these modules.
    return {config: os.environ[config], "PYTHONPATH": str(Path(__file__).parents[2])}


def way_out() -> dict[str, str]:
    """The variables by which this machine reaches a registry: its trust, and its own proxies."""
    names = {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"}
    names |= {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}
    return {name: value for name, value in os.environ.items() if name.upper() in names}


class Proxy:
    """A proxpi that runs while the ``with`` block does.

    ``settings`` are environment variables (``PROXPI_…``); ``options`` are those of the plugin.
    Where neither says where to listen, it is a free port of 127.0.0.1. ``within`` is a command
    that runs another one in its own place, in surroundings of its own.
    """

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        *,
        folder: Path,
        listens: bool = True,
        within: Sequence[str] = (),
    ) -> None:
        self._environment = plain_environment(HOME=str(folder), TMPDIR=str(folder))
        self._environment |= measured()
        self._environment["PROXPI_LISTEN"] = "tcp:0:interface=127.0.0.1"
        self._environment |= settings or {}
        self._command = [*within, TWISTD, "-n", "--pidfile=", "proxpi", *options]
        self._folder = folder
        self._listens = listens
        self._lines: list[str] = []
        self._rest = b""
        self._more = threading.Condition()
        self._reads = threading.Event()
        self._reads.set()
        self._ended = False
        self.origin = ""
        self.url = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        )
        assert self._process.stdout is not None
        self._pipe = self._process.stdout.fileno()
        os.set_blocking(self._pipe, False)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if self._listens:
            try:
                self._wait_until_it_runs()
            except BaseException as error:
                self.stop(signal.SIGKILL)
                error.add_note("--- what proxpi wrote ---\n" + self.output)
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        if error is not None:
            error.add_note("--- what proxpi wrote ---\n" + self.output)

    def _wait_until_it_runs(self) -> None:
        self.url = self.wait_for_line(_LISTENING).group(1)
        parts = urlsplit(self.url)
        self.origin = f"{parts.scheme}://{parts.netloc}"
        # The port is open before the reactor runs, and a signal that comes between the two
        # would end the process at once: an answer says that it runs.
        self.get("/health")

    def _read(self) -> None:
        """Take what it writes until it has written its last."""
        written = select.poll()
        written.register(self._pipe, select.POLLIN)
        while not self._ended:
            self._reads.wait()
            written.poll()
            if self._reads.is_set():
                with self._more:
                    self._take()

    def stop_reading(self) -> None:
        """Leave what it writes in the pipe, until it has ended."""
        self._reads.clear()

    @property
    def unread(self) -> int:
        """The bytes that it has written and nobody has read."""
        count = fcntl.ioctl(self._pipe, termios.FIONREAD, bytes(4))
        return int.from_bytes(count, sys.byteorder)

    def _take(self) -> None:
        """Take what it has written by now; whoever calls holds the lock."""
        while not self._ended:
            try:
                data = os.read(self._pipe, 65536)
            except BlockingIOError:
                return
            *lines, self._rest = (self._rest + data).split(b"\n")
            if not data:
                self._ended = True
                lines = [self._rest] if self._rest else []
            self._lines += [line.decode(errors="replace") for line in lines]
            self._more.notify_all()

    @property
    def output(self) -> str:
        """Everything that it has written so far, what came before its last answer included."""
        with self._more:
            self._take()
            return "\n".join(self._lines)

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal, ``None`` while it runs."""
        return self._process.poll()

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def wait_for_line(self, pattern: str | re.Pattern[str]) -> re.Match[str]:
        """The first match in what it writes, as soon as there is one."""
        wanted = re.compile(pattern)
        end = time.monotonic() + GUARD_SECONDS
        read = 0
        with self._more:
            while True:
                for line in self._lines[read:]:
                    match = wanted.search(line)
                    if match is not None:
                        return match
                read = len(self._lines)
                if self._ended or not self._more.wait(end - time.monotonic()):
                    raise AssertionError(f"proxpi never wrote {wanted.pattern!r}")

    def wait(self) -> int:
        """Wait for its end; the exit status, negative for a signal."""
        returncode = self._process.wait(GUARD_SECONDS)
        self._reads.set()
        self._reader.join(GUARD_SECONDS)
        return returncode

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> int:
        """End it, if it still runs; the exit status."""
        if self._process.poll() is None:
            self._process.send_signal(with_signal)
        try:
            return self.wait()
        finally:
            self._process.kill()
            self._process.wait()
            self._reads.set()

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Reply:
        """One plain request to it."""
        return request(self.origin, method, path, headers, body)

    def get(self, path: str, **headers: str) -> Reply:
        """One plain ``GET``; ``If_None_Match`` stands for the header ``If-None-Match``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.request("GET", path, named)

    def get_cached(self, path: str) -> Reply:
        """A file from the cache, asked for again as long as it is answered with a redirect.

        Between an upstream's last byte and the file's being in the cache nothing tells a client
        that it is there, but the answer to the next request.
        """
        end = time.monotonic() + GUARD_SECONDS
        reply = self.get(path)
        while reply.status == 302 and time.monotonic() < end:
            reply = self.get(path)
        return reply
