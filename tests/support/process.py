"""The one way to start a program: it runs as long as a ``with`` block, and its output is read.

A program gets its whole environment: no setting of this machine reaches it. Tests wait for what it
writes, never for time.
"""

from __future__ import annotations

import fcntl
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
from typing import Self

GUARD_SECONDS = 60.0


def plain_environment(**variables: str) -> dict[str, str]:
    """Return this machine's variables for a program: no setting of a proxy, client or index."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, **variables}


class Process:
    """A program that runs as long as the ``with`` block does, and is stopped at its end.

    ``command`` runs in `folder`, with exactly this environment. A failure of the block has the
    output as a note.

    :param descriptors: open files of this process that the program inherits
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        descriptors: Sequence[int] = (),
    ) -> None:
        self.command, self.folder, self.environment = command, folder, environment
        self._inherited = descriptors
        self._lines: list[str] = []
        self._rest = b""
        self._more = threading.Condition()
        self._reads = threading.Event()
        self._reads.set()
        self._ended = False

    def __enter__(self) -> Self:
        assert not hasattr(self, "_process"), "it is started already, and would be left running"
        self._process = subprocess.Popen(
            self.command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            pass_fds=self._inherited,
        )
        assert self._process.stdout is not None
        self._pipe = self._process.stdout.fileno()
        os.set_blocking(self._pipe, False)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.wait_until_ready()
        except BaseException as error:
            self.stop(signal.SIGKILL)
            self._note(error)
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.stop()
        if error is not None:
            self._note(error)

    def _note(self, error: BaseException) -> None:
        error.add_note(f"--- output of {' '.join(self.command)} ---\n{self.output}")

    def wait_until_ready(self) -> None:
        """Wait until the program does what the block wants of it."""

    def _read(self) -> None:
        written = select.poll()
        written.register(self._pipe, select.POLLIN)
        while not self._ended:
            self._reads.wait()
            written.poll()
            if self._reads.is_set():
                with self._more:
                    self._take()

    def stop_reading(self) -> None:
        """Leave the output in the pipe until the program has ended."""
        self._reads.clear()

    @property
    def unread(self) -> int:
        """Bytes of the output that are in the pipe."""
        count = fcntl.ioctl(self._pipe, termios.FIONREAD, bytes(4))
        return int.from_bytes(count, sys.byteorder)

    def _take(self) -> None:
        """Take the output so far; the caller holds the lock."""
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
        """All output so far, also what was written just before the program's last response."""
        with self._more:
            self._take()
            return "\n".join(self._lines)

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal, ``None`` while it runs."""
        return self._process.poll()

    @property
    def pid(self) -> int:
        return self._process.pid

    def memory(self, field: str = "VmRSS") -> int:
        """Return the bytes of memory that it takes; ``VmHWM``: that it has taken at most."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def wait_for_line(self, pattern: str | re.Pattern[str], after: int = 0) -> re.Match[str]:
        """Return the first match in the output after so many lines, as soon as there is one."""
        wanted = re.compile(pattern)
        end = time.monotonic() + GUARD_SECONDS
        read = after
        with self._more:
            while True:
                for line in self._lines[read:]:
                    if match := wanted.search(line):
                        return match
                read = len(self._lines)
                if self._ended or not self._more.wait(end - time.monotonic()):
                    raise AssertionError(f"no output has {wanted.pattern!r}")

    def wait(self) -> int:
        """Wait for the end; return the exit status, negative for a signal."""
        returncode = self._process.wait(GUARD_SECONDS)
        self._reads.set()
        self._reader.join(GUARD_SECONDS)
        return returncode

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> int:
        """Stop it, if it still runs; return the exit status."""
        if self._process.poll() is None:
            self._process.send_signal(with_signal)
        try:
            return self.wait()
        finally:
            self._process.kill()
            self._process.wait()
            self._reads.set()
