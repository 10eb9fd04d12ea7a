"""Commands for ``docker`` in the documentation and in files to paste, as podman executes them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from tests.support.clients import run
from tests.support.containers import ROOT, base_image, build_image, podman

#: The image of the jobs in the files to paste.
PYTHON = "python:3.13-slim"
_PYTHON_FILE = """\
ARG BASE
FROM ${BASE}
# The official image has a Python without this mark, and under this name.
RUN rm -f /usr/lib/python3*/EXTERNALLY-MANAGED && ln -sf python3 /usr/bin/python
"""


def command(page: str, beginning: str) -> str:
    """Return the one command of a page that begins so, with all of its lines."""
    lines = rf"^ *(?={re.escape(beginning)})((?:.*\\\n)*.*)$"
    [found] = re.findall(lines, (ROOT / page).read_text(), re.MULTILINE)
    return str(found)


def docker(folder: Path) -> Path:
    """Make a program ``docker`` in a folder: the tests' podman."""
    program = folder / "docker"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(podman().command)} "$@"\n')
    program.chmod(0o755)
    return program


def shell(script: str, folder: Path) -> str:
    """Execute lines of a shell in the clone, with ``docker``; return their output."""
    program = docker(folder)
    return execute(["sh", "-ec", script], PATH=f"{program.parent}:{podman().environment['PATH']}")


def execute(command: Sequence[str], **variables: str) -> str:
    """Run a program in the clone, in the environment of podman; return its output."""
    return run(command, ROOT, {**podman().environment, **variables})


def python_image(folder: Path) -> str:
    """Make the image of the jobs from the base image; return its name."""
    base_image()
    file = folder / "Dockerfile"
    file.write_text(_PYTHON_FILE)
    return build_image(PYTHON, f"--file={file}", str(folder))
