"""Wheel and source distribution: their contents, their metadata, and that they are reproducible."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from proxpi import __version__

TOP = Path(__file__).parent.parent.parent
REQUIREMENTS = TOP / "docker/requirements.txt"
#: Files that working copies have besides, and that no distribution may have.
STRAY = ["proxpi.toml", ".env", "cache/page.json", "proxpi/twistd.log", "proxpi/dropin.cache"]
WHEEL, SDIST = f"proxpi-{__version__}-py3-none-any.whl", f"proxpi-{__version__}.tar.gz"


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """Return the names of the repository's files, without those that are ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True)
    return sorted(name for name in listed.stdout.splitlines() if Path(TOP, name).is_file())


def copy(names: list[str], folder: Path) -> Path:
    """Copy files of the repository to a folder, where they have other times."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(TOP / name, folder / name)
        shutil.copymode(TOP / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def builds(tracked: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return folders with distributions: of a release, and of a build in a used working copy."""
    released, used = (copy(tracked, tmp_path_factory.mktemp("copy")) for _ in range(2))
    for name in STRAY:
        (used / name).parent.mkdir(parents=True, exist_ok=True)
        (used / name).write_text("secret")
    (used / "proxpi/__init__.py").chmod(0o600)
    locked = os.environ | {"UV_CONSTRAINT": "docker/build-requirements.txt"}
    python = [sys.executable, "-m"]
    running = [
        subprocess.Popen([*python, "nox", "--session", "release"], cwd=released),
        subprocess.Popen([*python, "build", "--installer=uv"], cwd=used, umask=0o077, env=locked),
    ]
    assert [process.wait() for process in running] == [0, 0]
    return [released / "dist", used / "dist"]


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        return message_from_bytes(archive.read(f"proxpi-{__version__}.dist-info/METADATA"))


def test_reproducible(builds: list[Path]) -> None:
    """Two builds are equal, whatever folder, times, modes, umask and stray files they have."""
    assert sorted(path.name for path in builds[0].iterdir()) == [WHEEL, SDIST]
    for name in (WHEEL, SDIST):
        assert (builds[0] / name).read_bytes() == (builds[1] / name).read_bytes(), name


def test_contents_of_the_wheel(builds: list[Path], tracked: list[str]) -> None:
    """The wheel has the package, the plugin and its metadata; no tests, no documents."""
    with zipfile.ZipFile(builds[0] / WHEEL) as archive:
        found = sorted(archive.namelist())
    information = f"proxpi-{__version__}.dist-info"
    expected = [name for name in tracked if name.startswith("proxpi/")]
    expected += ["twisted/plugins/proxpi_plugin.py", f"{information}/licenses/LICENSE"]
    expected += [f"{information}/{name}" for name in ("METADATA", "RECORD", "WHEEL")]
    assert found == sorted(expected)


def test_contents_of_the_source_distribution(builds: list[Path], tracked: list[str]) -> None:
    """The source distribution has the repository's files: distributors build, test and document."""
    with tarfile.open(builds[0] / SDIST) as archive:
        found = sorted(archive.getnames())
    assert found == sorted(f"proxpi-{__version__}/{name}" for name in [*tracked, "PKG-INFO"])


def test_version(builds: list[Path]) -> None:
    """The version that the package states is that of the distributions, and of no other file."""
    assert metadata(builds[0] / WHEEL)["Version"] == __version__
    for name in ("pyproject.toml", "docker/Dockerfile", "docker/compose.yaml", "README.rst"):
        assert __version__ not in (TOP / name).read_text(), name


def test_description(builds: list[Path]) -> None:
    """The description of the wheel is the README, which a release has ``twine`` check."""
    text = metadata(builds[0] / WHEEL).get_payload(decode=True)
    assert text == (TOP / "README.rst").read_bytes()


def test_bill_of_materials(builds: list[Path]) -> None:
    """A release has the bill of materials of its wheel: the locked dependencies, and no others."""
    bill = json.loads((builds[0].parent / "build/sbom/wheel.cdx.json").read_text())
    found = {component["name"]: component["version"] for component in bill["components"]}
    assert found.pop("proxpi") == __version__
    pins = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", REQUIREMENTS.read_text(), re.MULTILINE))
    assert found.items() <= pins.items()
    assert {"twisted", "treq", "klein"} <= found.keys()
