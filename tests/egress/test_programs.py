"""The programs that the tests of this folder start leave nothing behind in the system."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.egress.debian import beside, need, unpacked

#: Where a package leaves its traces: what is installed, what is downloaded, what starts at boot.
_TRACES = ["/var/lib/dpkg/info", "/var/cache/apt/archives", "/var/lib/systemd", "/etc", "/usr/sbin"]


def _traces() -> set[str]:
    found = {str(path) for trace in _TRACES for path in Path(trace).rglob("*")}
    return found | {Path("/var/lib/dpkg/status").read_text()}


def test_unpacked(tmp_path: Path) -> None:
    """A package is unpacked where it was told to be, runs from there, and is nowhere else."""
    before = _traces()
    program = unpacked("tinyproxy", "tinyproxy", tmp_path)
    assert beside(program) == tmp_path / "tinyproxy"
    ran = subprocess.run([program, "-v"], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("tinyproxy ")
    assert _traces() == before
    assert [path.name for path in tmp_path.iterdir()] == ["tinyproxy"]


def test_of_the_system() -> None:
    """A program that the system has is taken from there."""
    assert need("dash", "sh").endswith("/sh")
    assert beside(need("dash", "sh")) == Path("/")
