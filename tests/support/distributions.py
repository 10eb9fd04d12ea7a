"""Tiny real wheels and source distributions, made in memory.

Tests need files that pip, uv and poetry install, with bytes that are the same on every run, so
that hashes may be compared. Nothing here touches the disk or the network.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import random
import re
import tarfile
import zipfile
from collections.abc import Sequence

import attrs

_EPOCH = (1980, 1, 1, 0, 0, 0)

# The build backend that a source distribution of ours brings along: it hands over a wheel that was
# made together with it, so that a client can really build it without asking for any other package.
_BACKEND = """\
import pathlib
import shutil


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    (wheel,) = pathlib.Path(__file__).parent.glob("*.whl")
    shutil.copy(wheel, wheel_directory)
    return wheel.name
"""


@attrs.frozen
class Distribution:
    """One file of a project, with what an index says of it.

    ``metadata`` is the content of the core metadata file (PEP 658), ``None`` where there is no
    sidecar to serve.
    """

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


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _metadata(name: str, version: str, requires: Sequence[str], requires_python: str) -> bytes:
    lines = [
        "Metadata-Version: 2.2",
        f"Name: {name}",
        f"Version: {version}",
        f"Requires-Python: {requires_python}",
        *(f"Requires-Dist: {requirement}" for requirement in requires),
    ]
    return ("\n".join(lines) + "\n").encode()


def make_wheel(
    name: str,
    version: str = "1.0",
    *,
    requires: Sequence[str] = (),
    requires_python: str = ">=3.8",
    padding: int = 0,
) -> Distribution:
    """A pure wheel with one importable package, which has a ``__version__``.

    ``padding`` adds that many bytes which do not compress, for downloads that take a while.
    """
    package = _normalized(name).replace("-", "_")
    info = f"{package}-{version}.dist-info"
    metadata = _metadata(name, version, requires, requires_python)
    members = {
        f"{package}/__init__.py": f'__version__ = "{version}"\n'.encode(),
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\n"
        b"Root-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if padding:
        noise = random.Random(f"{package}-{version}")
        members[f"{package}/padding.bin"] = noise.randbytes(padding)
    record = []
    for path, data in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record.append(f"{path},sha256={digest},{len(data)}\n")
    record.append(f"{info}/RECORD,,\n")
    members[f"{info}/RECORD"] = "".join(record).encode()
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for path, data in members.items():
            entry = zipfile.ZipInfo(path, _EPOCH)
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data)
    return Distribution(
        project=_normalized(name),
        version=version,
        filename=f"{package}-{version}-py3-none-any.whl",
        data=sink.getvalue(),
        requires_python=requires_python,
        metadata=metadata,
    )


def make_sdist(
    name: str,
    version: str = "1.0",
    *,
    requires: Sequence[str] = (),
    requires_python: str = ">=3.8",
) -> Distribution:
    """A source distribution with an in-tree backend (PEP 517): it builds with nothing else."""
    wheel = make_wheel(name, version, requires=requires, requires_python=requires_python)
    stem = f"{_normalized(name).replace('-', '_')}-{version}"
    members = {
        "PKG-INFO": _metadata(name, version, requires, requires_python),
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
        project=_normalized(name),
        version=version,
        filename=f"{stem}.tar.gz",
        data=gzip.compress(plain.getvalue(), mtime=0),
        requires_python=requires_python,
    )
