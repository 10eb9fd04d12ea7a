"""Programs of Debian's that tests need: downloaded and unpacked when the first test asks for them.

Nothing is installed. A package would enable the daemon that it brings, and stay behind; unpacked
into the environment that runs the tests, it goes with that. It takes no rights, either.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ctypes.util import find_library
from pathlib import Path

#: Where programs are in a system, and in an unpacked package.
_FOLDERS = [
    "usr/lib/chromium",
    "usr/bin",
    "usr/sbin",
    "bin",
    "sbin",
    "usr/lib/squid",
    "usr/lib/podman",
]
_PLACE = Path(sys.prefix, "debian")


def need(package: str, program: str, parts: Sequence[str] = ()) -> str:
    """
    Return the path of a program: the system's own, else that of a package, unpacked in a folder.

    :param parts: packages that the program must have beside it, also where the system has them
    :raises AssertionError: with a sentence that says what to install, if that is not possible
    """
    known = [os.environ.get("PATH", os.defpath), *(f"/{folder}" for folder in _FOLDERS)]
    if path := shutil.which(program, path=os.pathsep.join(known)):
        return path
    with _unpacked(package, *parts) as (root, wrote):
        found = shutil.which(program, path=os.pathsep.join(f"{root}/{one}" for one in _FOLDERS))
        assert found, f"this test needs {program}: apt-get install {package} ({wrote})"
        return str(_launcher(Path(found), root))


def with_library(package: str, name: str, program: Path) -> str:
    """Return the path of a program that starts another one with a library that it links to.

    :param name: of the library, without "lib": the system's own is used, where it has it
    """
    if find_library(name) is not None:
        return str(program)
    with _unpacked(package) as (root, wrote):
        assert root.exists(), f"{program} needs lib{name}: apt-get install {package} ({wrote})"
        return str(_launcher(program, root))


def beside(program: str) -> Path:
    """Return the folder that is ``/`` to a program that :func:`need` has found."""
    path = Path(program)
    return path.parent if path.suffix == ".sh" else Path("/")


def _launcher(program: Path, root: Path) -> Path:
    """Make a program that starts another one with the libraries that are unpacked beside it."""
    libraries = sorted({str(path.parent) for path in root.rglob("*.so*")})
    launcher = root / f"{program.name}.sh"
    made = root / f"{program.name}.new"
    made.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH="{":".join(libraries)}" exec "{program}" "$@"\n')
    made.chmod(0o755)
    made.replace(launcher)
    return launcher


@contextmanager
def _unpacked(package: str, *parts: str) -> Iterator[tuple[Path, str]]:
    """Unpack packages into a folder; give it, and what apt-get wrote last, if it failed."""
    _PLACE.mkdir(parents=True, exist_ok=True)
    # One at a time: a program that another test is just unpacking is there before its libraries.
    turn = os.open(_PLACE, os.O_RDONLY)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX)
        root = _PLACE / package
        yield root, "" if root.exists() else _unpack(package, parts, root)
    finally:
        os.close(turn)


def _unpack(package: str, parts: Sequence[str], root: Path) -> str:
    """Unpack a package and what it depends on; return what apt-get wrote last, if it could not."""
    if shutil.which("apt-get") is None:
        return "there is no apt-get"
    cache = root.parent / "apt"
    packages = cache / "archives" / package
    (packages / "partial").mkdir(parents=True, exist_ok=True)
    (cache / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    apt = ["apt-get", "-y", "-o", "Debug::NoLocking=1", "-o", f"Dir::Cache={cache}"]
    apt += ["-o", f"Dir::Cache::archives={packages}"]
    own_lists = ["-o", f"Dir::State::lists={cache}/lists"]
    download = ["install", "--download-only", "--no-install-recommends", package]
    download += ["--reinstall", *parts] if parts else []
    wrote = _run([*apt, *download])
    if wrote:  # the system's lists of packages are missing, or too old
        wrote = _run([*apt, *own_lists, "update"]) or _run([*apt, *own_lists, *download])
    made = root.with_suffix(".new")
    for archive in packages.glob("*.deb"):
        wrote = wrote or _run(["dpkg-deb", "--extract", str(archive), str(made)])
    if made.exists() and not wrote:
        made.replace(root)
    shutil.rmtree(cache)
    return wrote


def _run(command: list[str]) -> str:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    ended = subprocess.run(
        command, env=environment, input="", capture_output=True, text=True, check=False
    )
    if not ended.returncode:
        return ""
    return " ".join(ended.stderr.split("\n")[-3:]).strip() or f"status {ended.returncode}"
