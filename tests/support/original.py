"""The original proxpi, the Flask program, as its image starts it.

The page on moving from it is about the real one: the release is installed from pip's default index,
once for the environment that runs the tests, and kept in it.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.clients import run
from tests.support.process import Process, plain_environment
from tests.support.proxy import Reply, request

#: The release that the benchmarks measure, too.
RELEASE = "1.3.1"
_PLACE = Path(sys.prefix, "original")
_LISTENING = re.compile(r"Listening at: (http://127\.0\.0\.1:\d+)")
#: Its image's command, but for the address, and the end, which downloads delay by half a minute.
_SERVE = ["gunicorn", "--preload", "--access-logfile", "-", "--threads", "2"]
_SERVE += ["--logger-class", "proxpi.server._GunicornLogger", "--graceful-timeout", "1"]
_SERVE += ["--bind", "127.0.0.1:0", "proxpi.server:app"]


def python() -> Path:
    """Return the Python of an environment that has the original, made when the first test asks."""
    folder = _PLACE / f"{RELEASE}-{os.path.basename(os.path.realpath(sys.executable))}"
    _PLACE.mkdir(exist_ok=True)
    turn = os.open(_PLACE, os.O_RDONLY)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not folder.exists():
            _install(folder)
    finally:
        os.close(turn)
    return folder / "bin" / "python"


def _install(folder: Path) -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    made = folder.with_suffix(".new")
    shutil.rmtree(made, ignore_errors=True)
    # Programs in an environment name its folder, so it gets its name after the installation.
    subprocess.run([uv, "venv", "--quiet", "--relocatable", str(made)], check=True)
    install = [uv, "pip", "install", "--quiet", "--python", str(made / "bin" / "python")]
    subprocess.run([*install, f"proxpi=={RELEASE}", "gunicorn"], check=True)
    made.replace(folder)


def run_original(code: str, settings: Mapping[str, str]) -> str:
    """Run Python code beside the original; return what it wrote, its errors included."""
    environment = plain_environment(HOME=str(_PLACE)) | {**settings}
    return run([str(python()), "-c", code], _PLACE, environment)


def run_original_module(command: Sequence[str], variables: Mapping[str, str]) -> str:
    """Run a program of the original's environment; an ``AssertionError`` if it fails."""
    environment = plain_environment(HOME=str(_PLACE)) | {**variables}
    return run([str(python()), "-m", *command], _PLACE, environment)


class Original(Process):
    """An original on a free port of 127.0.0.1; ``settings`` are its environment variables."""

    def __init__(self, settings: Mapping[str, str], *, folder: Path) -> None:
        environment = plain_environment(HOME=str(folder), TMPDIR=str(folder))
        command = [str(python()), "-m", *_SERVE]
        super().__init__(command, folder=folder, environment=environment | {**settings})
        self.origin = ""

    def wait_until_ready(self) -> None:
        self.origin = self.wait_for_line(_LISTENING).group(1)
        self.get("/health")

    def request(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> Reply:
        return request(self.origin, method, path, headers)

    def get(self, path: str, **headers: str) -> Reply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.request("GET", path, named)
