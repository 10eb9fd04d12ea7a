"""Small wheels that clients can install, generated from their project's name."""

from __future__ import annotations

import base64
import hashlib
import io
import random
import re
import zipfile
from collections.abc import Sequence
from functools import cache

import attrs

VERSION = "1.0"
_NAME = re.compile(r"wheel[-_](\d{3})")
_TAG = "Wheel-Version: 1.0\nGenerator: benchmarks\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
#: Modules of a wheel, and lines of a module.
_MODULES, _LINES = 5, 120


@attrs.frozen
class Wheel:
    """A wheel with the bytes of its ``METADATA``."""

    filename: str
    data: bytes = attrs.field(repr=False)
    metadata: bytes = attrs.field(repr=False)


def project_of(text: str) -> str | None:
    """Return the project of a project name or file name; None for any other project."""
    found = _NAME.match(text)
    return f"wheel-{found[1]}" if found else None


def names(count: int) -> list[str]:
    return [f"wheel-{number:03}" for number in range(count)]


@cache
def wheel(project: str) -> Wheel:
    """Build the only wheel of a project."""
    return build(project, VERSION)


def build(
    project: str, version: str, requires: Sequence[str] = (), extras: Sequence[str] = ()
) -> Wheel:
    """Build a wheel of about 20 kB.

    :param requires: its requirements, for ``Requires-Dist``
    """
    stem = project.replace("-", "_")
    about = f"{stem}-{version}.dist-info"
    fields = [("Metadata-Version", "2.1"), ("Name", project), ("Version", version)]
    fields += [("Requires-Python", ">=3.9"), *(("Provides-Extra", extra) for extra in extras)]
    fields += [("Requires-Dist", requirement) for requirement in requires]
    metadata = "".join(f"{name}: {value}\n" for name, value in fields).encode()
    drawn = random.Random(project)
    members = {f"{stem}/__init__.py": b""}
    for module in range(_MODULES):
        lines = (f"VALUE_{line} = {drawn.getrandbits(128)}\n" for line in range(_LINES))
        members[f"{stem}/part_{module}.py"] = "".join(lines).encode()
    members[f"{about}/METADATA"] = metadata
    members[f"{about}/WHEEL"] = _TAG.encode()
    record = "".join(
        f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in members.items()
    )
    members[f"{about}/RECORD"] = f"{record}{about}/RECORD,,\n".encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), data)
    return Wheel(f"{stem}-{version}-py3-none-any.whl", buffer.getvalue(), metadata)


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
