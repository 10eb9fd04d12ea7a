"""Runs of real pip and uv: commands, clean environment, time; runs that fill captures.

A run uses no cache of the client's, unless it is told to.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
from captures import Captures
from environments import BenchmarkError
from local_index import behind_slow_link, package_index

#: Kinds of runs: what a client is told to do.
PIP, UV, LOCK, COMPILE = "pip", "uv", "uv-lock", "uv-compile"
#: The file of pinned requirements that uv writes.
OUTPUT = "requirements.txt"
#: The folder of the caches of pip and uv in a home folder.
CACHE = ".cache"
#: The option of uv for the releases of a year ago.
YEAR_AGO = ("--exclude-newer", "2025-12-01T00:00:00Z")
#: MiB per second of a connection over the slow link.
RATE = 40
#: Runs until captures are complete: each may fail or go on otherwise for a page that lacks digests.
_MOST_RUNS = 5
_NO_SOURCES = ("--only-binary", ":all:")


@attrs.frozen
class Installer:
    """A client of a virtual environment.

    :ivar kind: one of the kinds of runs
    :ivar environment: the folder of the virtual environment that has pip or uv
    :ivar options: further options, for instance of another platform
    :ivar caches: whether it uses its cache, which is :data:`CACHE` in the folder of the run
    """

    kind: str
    environment: Path
    options: tuple[str, ...] = ()
    caches: bool = False

    def command(self, index: str, requirements: Sequence[str], folder: Path) -> list[str]:
        """Return the command; files that it needs are written to the folder.

        :param index: URL of the index
        """
        programs = self.environment / "bin"
        if self.kind == PIP:
            command = [str(programs / "pip"), "install", "--quiet"]
            # pip caches nothing of an index without TLS that it does not trust.
            command += ["--trusted-host", "127.0.0.1"] if self.caches else ["--no-cache-dir"]
            command += ["--disable-pip-version-check", "--target", str(folder / "installed")]
            return [*command, *_NO_SOURCES, "--index-url", index, *self.options, *requirements]
        common = ["--no-config", "--quiet", "--python", str(programs / "python")]
        common += [] if self.caches else ["--no-cache"]
        command = [str(programs / "uv"), *("lock" if self.kind == LOCK else "pip").split()]
        if self.kind == LOCK:
            (folder / "pyproject.toml").write_text(_project(requirements))
            return [*command, *common, "--default-index", index, "--no-build", *self.options]
        if self.kind == UV:
            command += ["install", "--target", str(folder / "installed"), *requirements]
        else:
            (folder / "requirements.in").write_text("\n".join(requirements) + "\n")
            command += ["compile", str(folder / "requirements.in")]
            command += ["--no-annotate", "--no-header", "--output-file", str(folder / OUTPUT)]
        return [*command, *common, *_NO_SOURCES, "--default-index", index, *self.options]

    def run(self, index: str, requirements: Sequence[str], folder: Path) -> float:
        """Run the client in a folder that is empty, or has its cache; return the seconds.

        :raises BenchmarkError: if it fails
        """
        home = {"HOME": str(folder), "TMPDIR": str(folder), "PATH": os.environ.get("PATH", "")}
        began = time.perf_counter()
        done = subprocess.run(
            self.command(index, requirements, folder),
            cwd=folder,
            env={**home, "PIP_CONFIG_FILE": os.devnull},
            capture_output=True,
            text=True,
            check=False,
        )
        spent = time.perf_counter() - began
        if done.returncode:
            raise BenchmarkError(f"{self.kind} failed at {index}: {done.stderr[-1500:]}")
        return spent


def pinned(
    environment: Path, requirements: Sequence[str], captures: Captures, options: Sequence[str] = ()
) -> list[str]:
    """Return the releases that uv chooses with these options, pinned: ``name==version``.

    :raises BenchmarkError: if uv finds none
    """
    return capture(
        Installer(COMPILE, environment, tuple(options)), requirements, captures
    ).output.split()


def _project(requirements: Sequence[str]) -> str:
    listed = "".join(f'    "{requirement}",\n' for requirement in requirements)
    head = '[project]\nname = "application"\nversion = "1"\nrequires-python = ">=3.11"\n'
    return f"{head}dependencies = [\n{listed}]\n"


@attrs.frozen
class Run:
    """A run of a client that filled captures.

    :ivar log: the requests as the index logs them
    :ivar output: the requirements that uv wrote, where that is its task
    """

    log: list[list[Any]]
    output: str


def capture(installer: Installer, requirements: Sequence[str], captures: Captures) -> Run:
    """Run a client at captures behind the slow link until nothing is missing any more.

    :return: the last run, which worked with captures alone
    :raises BenchmarkError: if the client fails
    """
    for _ in range(_MOST_RUNS):
        with (
            tempfile.TemporaryDirectory() as folder,
            package_index(captures) as index,
            behind_slow_link(index, RATE) as far,
        ):
            error = None
            try:
                installer.run(far.url(), requirements, Path(folder))
            except BenchmarkError as failed:
                error = failed
            if index.get("/captured", {}).body != b"0":
                continue
            if error is not None:
                raise error
            written = Path(folder, OUTPUT)
            output = written.read_text() if written.exists() else ""
            return Run(json.loads(index.get("/log", {}).body), output)
    raise BenchmarkError(f"the captures in {captures.folder} are incomplete: start again")
