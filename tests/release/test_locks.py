"""The locks of the image's dependencies: up to date, and installable on each platform."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent.parent
LOCKS = ["build-requirements.txt", "requirements.txt", "requirements-s3.txt"]


def test_locks_satisfy_the_requirements(tmp_path: Path) -> None:
    """Locking again changes nothing: the locks have what ``pyproject.toml`` requires."""
    (tmp_path / "docker").mkdir()
    for name in ("pyproject.toml", "noxfile.py", *(f"docker/{lock}" for lock in LOCKS)):
        shutil.copy(TOP / name, tmp_path / name)
    command = [sys.executable, "-m", "nox", "--session", "lock"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    for lock in LOCKS:
        assert (tmp_path / "docker" / lock).read_text() == (TOP / "docker" / lock).read_text()


def test_extra_adds_only() -> None:
    """The lock with the extra has all of the one without, versions and hashes alike, and more."""
    without, extra = (set((TOP / "docker" / name).read_text().split()) for name in LOCKS[1:])
    assert without < extra


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_wheels_of_each_architecture(architecture: str, tmp_path: Path) -> None:
    """The default base's Python has wheels with the locked hashes, on both architectures."""
    base = (TOP / "docker/Dockerfile").read_text()
    [version] = re.findall(r"^ARG BASE=python:(3\.\d+)-slim$", base, re.MULTILINE)
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet"]
    command += ["--no-deps", "--only-binary=:all:", "--require-hashes", f"--target={tmp_path}"]
    command += [f"--python-version={version}", f"--python-platform={architecture}-manylinux_2_28"]
    command += [
        f"--requirement={TOP}/docker/{lock}" for lock in LOCKS if lock != "requirements.txt"
    ]
    subprocess.run(command, check=True)
