"""Wheel and source distribution: their contents, their metadata, and that they are reproducible."""

from __future__ import annotations

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
    """Return the folders of two builds: of a clean copy, and of one with stray files and modes."""
    folders = [tmp_path_factory.mktemp("clean"), tmp_path_factory.mktemp("used")]
    for name in STRAY:
        (folders[1] / name).parent.mkdir(parents=True, exist_ok=True)
        (folders[1] / name).write_text("secret")
    running = []
    for folder, umask in zip(folders, (0o022, 0o077), strict=True):
        copy(tracked, folder)
        (folder / "proxpi/__init__.py").chmod(0o644 & ~umask)
        command = [sys.executable, "-m", "build", "--no-isolation", str(folder)]
        running.append(subprocess.Popen(command, umask=umask, stdout=subprocess.DEVNULL))
    assert [process.wait() for process in running] == [0, 0]
    return [folder / "dist" for folder in folders]


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
    """The README is the description, and indexes can render it: ``twine`` has no complaint."""
    text = metadata(builds[0] / WHEEL).get_payload(decode=True)
    assert text == (TOP / "README.rst").read_bytes()
    command = [sys.executable, "-m", "twine", "check", "--strict"]
    command += [str(path) for path in builds[0].iterdir()]
    subprocess.run(command, check=True, capture_output=True)
