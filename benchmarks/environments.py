"""Virtual environments for the original, the clients and the profiler; set-up of the commands.

Each environment is created once below ``~/.cache/proxpi-benchmarks`` (or ``$XDG_CACHE_HOME``) from
pip's default index. Hence proxpi's own environment has proxpi's dependencies only.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

ORIGINAL_RELEASE = "1.3.1"


class BenchmarkError(Exception):
    """A measurement is impossible; the message has the cause and the remedy."""


def use_proxpi() -> None:
    """Continue with the Python of the clone's environment if this one lacks proxpi."""
    python = Path(__file__).resolve().parent.parent / ".venv/bin/python"
    if find_spec("proxpi") is None:
        if not python.exists() or Path(sys.executable) == python:
            sys.exit(f"{sys.argv[0]}: proxpi is not installed; README.rst tells how to install it")
        os.execv(python, [str(python), *sys.argv])


def exit_on_sigterm() -> None:
    """Raise on SIGTERM and SIGINT, in background jobs too, so that child processes are ended."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    signal.signal(signal.SIGINT, signal.default_int_handler)


def environment(name: str, requirements: Sequence[str], base: Path | None = None) -> Path:
    """Return the folder of a virtual environment with these requirements, newest releases.

    :param base: the Python to make it with; by default this one
    :raises BenchmarkError: if they cannot be installed
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    version = ".".join(map(str, sys.version_info[:3]))
    folder = cache / "proxpi-benchmarks" / f"{name}-python-{version}"
    complete = folder / "complete"
    if not complete.exists():
        print(f"installing {', '.join(requirements)} into {folder}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        python = folder / "bin/python"
        try:
            subprocess.run([base or sys.executable, "-m", "venv", folder], check=True)
            subprocess.run(
                [python, "-m", "pip", "install", "--quiet", "--upgrade", *requirements], check=True
            )
        except subprocess.CalledProcessError as error:
            raise BenchmarkError(
                f"{', '.join(requirements)} cannot be installed: {error}"
            ) from None
        complete.touch()
    return folder


def interpreter_environment(version: str, pip: str = "") -> Path:
    """Return the folder of a virtual environment with pip and uv for a Python.

    :param version: for instance ``3.13``
    :param pip: the version of pip; by default the newest
    :raises BenchmarkError: if this Python is not installed
    """
    python = shutil.which(f"python{version}")
    # The commands of pyenv exist for every version that it has, and fail for those not selected.
    installed = [
        *Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"),
        *map(Path, filter(None, [python])),
    ]
    if not installed:
        raise BenchmarkError(f"Python {version} is not installed: python{version} is not on PATH")
    if pip:
        return environment(f"clients-{version}-pip-{pip}", [f"pip=={pip}", "uv"], installed[0])
    return environment(f"clients-{version}", ["pip", "uv"], installed[0])
