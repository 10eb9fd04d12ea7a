"""Programs of Debian's that tests need: they are installed when the first test asks for them."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_INSTALL = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "install", "-y", "--no-install-recommends"]


def need(package: str, program: str) -> str:
    """
    Give the path of a program, after installing the package that has it if it is missing.

    :raises AssertionError: with a sentence that says what to install, if that is not possible
    """
    # One at a time: a program that another test is just installing is there before its libraries.
    turn = os.open(Path(__file__).parent, os.O_RDONLY)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX)
        path = shutil.which(program, path=_PATH)
        if path is None:
            wrote = _install(package)
            path = shutil.which(program, path=_PATH)
            if path is None:
                raise AssertionError(
                    f"this test needs {program}: as root, apt-get install {package} ({wrote})"
                )
        return path
    finally:
        os.close(turn)


def _install(package: str) -> str:
    """Install a package; what apt-get wrote last, if it could not."""
    if shutil.which("apt-get") is None:
        return "there is no apt-get"
    if os.geteuid() != 0:
        return "only root may install it"
    wrote = _run([*_INSTALL, package])
    if wrote:  # the lists of packages are missing, or too old
        wrote = _run(["apt-get", "-o", "DPkg::Lock::Timeout=300", "update"])
        wrote = _run([*_INSTALL, package]) or wrote
    return wrote


def _run(command: list[str]) -> str:
    # A package that brings a daemon does not start it in this mode.
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    ended = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if not ended.returncode:
        return ""
    return " ".join(ended.stdout.split("\n")[-3:]).strip() or f"status {ended.returncode}"
