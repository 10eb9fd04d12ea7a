"""Real clients (pip, uv), each cut off from everything but the index it is given.

No configuration of the machine or the user, no environment variables, no links to search, no
cache of their own: so when an upstream is not asked, it is because proxpi had the answer. Every
install goes into a fresh virtual environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

import attrs

from tests.support.process import GUARD_SECONDS, plain_environment


def isolated_environment(folder: Path, **variables: str) -> dict[str, str]:
    """An environment in which a client finds no configuration, no cache and no credentials."""
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    return plain_environment(
        HOME=str(home),
        XDG_CONFIG_HOME=str(home / "config"),
        XDG_CONFIG_DIRS=str(home / "no-config"),
        XDG_CACHE_HOME=str(home / "cache"),
        XDG_DATA_HOME=str(home / "data"),
        PIP_CONFIG_FILE=os.devnull,
        **({"NETRC": os.devnull} | variables),
    )


def run(command: Sequence[str], folder: Path, environment: dict[str, str]) -> str:
    """The output of a command; an ``AssertionError`` with it if the command fails."""
    ended = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=3 * GUARD_SECONDS,
        check=False,
    )
    if ended.returncode:
        raise AssertionError(f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stdout}")
    return ended.stdout


@attrs.frozen
class Environment:
    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Environment:
        venv.create(folder, with_pip=False, symlinks=True)
        return cls(folder)

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def version_of(self, module: str) -> str:
        code = f"import {module}; print({module}.__version__)"
        environment = plain_environment(HOME=str(self.folder))
        return run([str(self.python), "-c", code], self.folder, environment).strip()


def pip_install(
    folder: Path, index_url: str, *requirements: str, **variables: str
) -> tuple[Environment, str]:
    """Install with pip into a new environment; what it wrote includes its HTTP requests."""
    environment = Environment.make(folder / "environment")
    command = [sys.executable, "-m", "pip", "--python", str(environment.python), "install", "-vvv"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--no-input"]
    command += ["--index-url", index_url, *requirements]
    return environment, run(command, folder, isolated_environment(folder, **variables))


def install_pip(folder: Path, requirement: str) -> tuple[str, ...]:
    """Install a pip into an environment of its own; return its command."""
    python = str(Environment.make(folder / "environment").python)
    uv = str(Path(sys.executable).with_name("uv"))
    run([uv, "pip", "install", "--python", python, requirement], folder, dict(os.environ))
    return python, "-m", "pip", "--disable-pip-version-check"


def uv_install(
    folder: Path, index_url: str, *requirements: str, **variables: str
) -> tuple[Environment, str]:
    """Install with uv into a new environment; what it wrote includes its HTTP requests."""
    environment = Environment.make(folder / "environment")
    command = [str(Path(sys.executable).with_name("uv")), "--no-config", "--no-cache"]
    command += ["pip", "install", "--verbose", "--python", str(environment.python)]
    command += ["--default-index", index_url, *requirements]
    variables |= {"RUST_LOG": "uv=debug", "NO_COLOR": "1"}
    return environment, run(command, folder, isolated_environment(folder, **variables))
