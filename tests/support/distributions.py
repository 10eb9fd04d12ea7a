"""Tiny real wheels and source distributions, made in memory.

Tests need files that pip, uv and poetry install, with bytes that are the same on every run, so
that hashes may be compared. Nothing here touches the disk or the network.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import tarfile
import zipfile
from collections.abc import Sequence

import attrs
from packaging.utils import canonicalize_name

_EPOCH = (1980, 1, 1, 0, 0, 0)

# The build backend inside a source distribution: it gives a wheel that was made together with it,
# so that a client builds it without any other package.
_BACKEND = """\
import pathlib, shutil
def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    (wheel,) = pathlib.Path(__file__).parent.glob("*.whl")
    return pathlib.Path(shutil.copy(wheel, wheel_directory)).name
"""


@attrs.frozen
class Distribution:
    """A file of a project; ``metadata`` is the content of its sidecar (PEP 658), if it has one."""

    project: str
    version: str
    filename: str
    data: bytes = attrs.field(repr=False)
    requires_python: str = ">=3.8"
    metadata: bytes | None = attrs.field(default=None, repr=False)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def size(self) -> int:
        return len(self.data)


def _metadata(
    name: str, version: str, requires: Sequence[str], extras: Sequence[str] = ()
) -> bytes:
    lines = [
        "Metadata-Version: 2.2",
        f"Name: {name}",
        f"Version: {version}",
        "Requires-Python: >=3.8",
        *(f"Provides-Extra: {extra}" for extra in extras),
        *(f"Requires-Dist: {requirement}" for requirement in requires),
    ]
    return ("\n".join(lines) + "\n").encode()


def make_wheel(
    name: str,
    version: str = "1.0",
    *,
    requires: Sequence[str] = (),
    extras: Sequence[str] = (),
    padding: int = 0,
) -> Distribution:
    """Make a wheel of one package with a ``__version__``, and bytes that do not compress."""
    package = canonicalize_name(name).replace("-", "_")
    info = f"{package}-{version}.dist-info"
    metadata = _metadata(name, version, requires, extras)
    members = {
        f"{package}/__init__.py": f'__version__ = "{version}"\n'.encode(),
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\n"
        b"Root-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if padding:
        noise = random.Random(f"{package}-{version}")
        members[f"{package}/padding.bin"] = noise.randbytes(padding)
    record = [f"{path},," for path in (*members, f"{info}/RECORD")]
    members[f"{info}/RECORD"] = "\n".join([*record, ""]).encode()
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for path, data in members.items():
            entry = zipfile.ZipInfo(path, _EPOCH)
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data)
    return Distribution(
        project=canonicalize_name(name),
        version=version,
        filename=f"{package}-{version}-py3-none-any.whl",
        data=sink.getvalue(),
        metadata=metadata,
    )


def make_sdist(
    name: str,
    version: str = "1.0",
    *,
    requires: Sequence[str] = (),
) -> Distribution:
    """Make a source distribution with an in-tree backend (PEP 517)."""
    wheel = make_wheel(name, version, requires=requires)
    stem = f"{canonicalize_name(name).replace('-', '_')}-{version}"
    members = {
        "PKG-INFO": _metadata(name, version, requires),
        "pyproject.toml": b"[build-system]\nrequires = []\n"
        b'build-backend = "in_tree"\nbackend-path = ["."]\n',
        "in_tree.py": _BACKEND.encode(),
        wheel.filename: wheel.data,
    }
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, data in members.items():
            entry = tarfile.TarInfo(f"{stem}/{path}")
            entry.size = len(data)
            entry.mode = 0o644
            archive.addfile(entry, io.BytesIO(data))
    return Distribution(
        project=canonicalize_name(name),
        version=version,
        filename=f"{stem}.tar.gz",
        data=gzip.compress(plain.getvalue(), mtime=0),
    )
