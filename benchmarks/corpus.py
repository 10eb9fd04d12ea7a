"""The corpus of the local index: projects, files and pages, generated from their names alone.

It is pure and the same in every run. A project's name states the number of its files:
``bulk-017-of-300`` has 300 wheels of 100 KiB, ``tiny-017-of-100`` has 100 of 1 KiB, and
``blob-500-of-1`` has one of 500 MiB. These cannot be installed; ``wheel-017`` is a real wheel
(``wheels.py``). Pages are JSON (PEP 691) with absolute links and distinct digests: they compress as
badly as real ones.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
from functools import cache

import wheels

WHEEL_SIZE = 100 * 1024
TINY_SIZE = 1024
MIB = 1 << 20
BLOCK = random.Random(2).randbytes(MIB)

_NAME_SIZE = 200
_BLOB = re.compile(r"blob[-_](\d+)[-_]of[-_]")
# Files of one size differ in their last bytes only, so that a digest costs no pass over the rest.
_BODIES = {size: random.Random(1).randbytes(size - _NAME_SIZE) for size in (WHEEL_SIZE, TINY_SIZE)}
_DIGESTS = {size: hashlib.sha256(body) for size, body in _BODIES.items()}


def blob_size(filename: str) -> int | None:
    """Return the size of a blob in bytes; None for any other file."""
    found = _BLOB.match(filename)
    return int(found[1]) * MIB if found else None


def content(filename: str) -> bytes | None:
    """Return the bytes of a file that is no blob, or of its ``.metadata``."""
    if project := wheels.project_of(filename):
        wheel = wheels.wheel(project)
        return wheel.metadata if filename.endswith(".metadata") else wheel.data
    return _BODIES[_size(filename)] + _end(filename) if filename.endswith(".whl") else None


def _size(filename: str) -> int:
    return TINY_SIZE if filename.startswith("tiny") else WHEEL_SIZE


def _end(filename: str) -> bytes:
    return filename.encode().ljust(_NAME_SIZE)


@cache
def _blob_digest(size: int) -> str:
    digest = hashlib.sha256()
    for _ in range(size // MIB):
        digest.update(BLOCK)
    return digest.hexdigest()


def _file(origin: str, project: str, number: int) -> dict[str, object]:
    stem = project.replace("-", "_")
    filename = f"{stem}-{number}.0.1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
    # Real pages advertise metadata; no client requests it here.
    metadata = hashlib.sha256(filename.encode()).hexdigest()
    size = blob_size(filename)
    if size is not None:
        return _entry(origin, filename, _blob_digest(size), size, metadata)
    size = _size(filename)
    digest = _DIGESTS[size].copy()
    digest.update(_end(filename))
    return _entry(origin, filename, digest.hexdigest(), size, metadata, number)


def _entry(
    origin: str, filename: str, sha256: str, size: int, metadata: str, number: int = 0
) -> dict[str, object]:
    return {
        "filename": filename,
        "url": f"{origin}/files/{sha256[:2]}/{sha256[2:4]}/{sha256[4:]}/{filename}",
        "hashes": {"sha256": sha256},
        "requires-python": ">=3.9",
        "size": size,
        "upload-time": f"2026-01-{number % 28 + 1:02}T12:00:00.{number:06}Z",
        "yanked": False,
        "core-metadata": {"sha256": metadata},
    }


def project_page(origin: str, project: str) -> bytes | None:
    """Render the page of a project; None for an unknown kind of name.

    :param origin: scheme, host and port of the index
    """
    _, separator, count = project.rpartition("-of-")
    if wheels.project_of(project) == project:
        wheel = wheels.wheel(project)
        sha256, metadata = (hashlib.sha256(of).hexdigest() for of in (wheel.data, wheel.metadata))
        files = [_entry(origin, wheel.filename, sha256, len(wheel.data), metadata)]
        versions = [wheels.VERSION]
    elif separator and count.isdecimal():
        files = [_file(origin, project, number) for number in range(int(count))]
        versions = [f"{number}.0.1" for number in range(int(count))]
    else:
        return None
    meta = {"api-version": "1.1"}
    return json.dumps(
        {"meta": meta, "name": project, "versions": versions, "files": files}
    ).encode()


@cache
def page(origin: str, project: str, compressed: bool) -> tuple[bytes, str] | None:
    """Return the page of a project and its entity tag."""
    data = project_page(origin, project)
    if data is None:
        return None
    if compressed:
        data = gzip.compress(data, 6, mtime=0)
    return data, f'"{hashlib.md5(data).hexdigest()}"'


def _names(count: int) -> list[str]:
    """Return project names of realistic length, sorted by their normalized form."""
    drawn = random.Random(1)
    syllables = [a + b + c for a in "bdfgklmnprstvz" for b in "aeiouy" for c in ("", "n", "r", "s")]
    names: dict[str, str] = {}
    while len(names) < count:
        words = ["".join(drawn.choices(syllables, k=drawn.choice((1, 2, 2, 3)))) for _ in "ab"]
        name = drawn.choice(("-", "-", "-", "_", ".")).join(words)
        if drawn.random() < 0.1:
            name = name.title()
        names[re.sub(r"[-_.]+", "-", name).lower()] = name
    return [names[normal] for normal in sorted(names)]


@cache
def root_list(kind: str, count: int) -> bytes:
    """Render a project list, in JSON or HTML, in the form of a large public index."""
    names = _names(count)
    if kind == "json":
        projects = [{"_last-serial": 30_000_000 + n, "name": name} for n, name in enumerate(names)]
        meta = {"_last-serial": 30_000_000 + count, "api-version": "1.4"}
        return json.dumps({"meta": meta, "projects": projects}).encode()
    head = '<!DOCTYPE html>\n<html>\n  <head>\n    <meta name="pypi:repository-version" '
    head += 'content="1.4">\n    <title>Simple index</title>\n  </head>\n  <body>\n'
    links = (
        f'    <a href="/html-of-{count}/{re.sub("[-_.]+", "-", name).lower()}/">{name}</a>\n'
        for name in names
    )
    return (head + "".join(links) + "  </body>\n</html>\n").encode()
