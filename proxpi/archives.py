"""Core metadata out of archives: wheels (PEP 427), source distributions (PEP 625), bounded for any.

``zipfile`` reads the archive of a wheel from a :class:`SparseFile`. A piece that has not been read
yet is :class:`PieceMissing`: once it is, the archive is read anew. A source distribution may have
to be unpacked to its end, so it is read from a file at hand.
"""

from __future__ import annotations

import bz2
import io
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import BinaryIO, Protocol

import attrs
from packaging.utils import canonicalize_name

#: The most bytes of an archive's directory, and of metadata.
LIMIT = 4 * 1024 * 1024
#: Bytes of an archive's entry before its content, as most have it.
ENTRY = 1024
#: The most bytes of a source distribution that are unpacked, and the most of its members.
UNPACKED, MEMBERS = 128 * 1024 * 1024, 20_000


class _Readable(Protocol):
    def read(self, count: int, /) -> bytes: ...


def _gunzip(file: BinaryIO) -> _Readable:
    # Only folders have source distributions that are read: most processes do without the module.
    import gzip

    return gzip.GzipFile(fileobj=file)


#: What unpacks a tar archive, by its ending. (The memory that xz takes is not bounded.)
_UNPACK: dict[str, Callable[[BinaryIO], _Readable]] = {
    ".tar.gz": _gunzip,
    ".tgz": _gunzip,
    ".tar.bz2": bz2.BZ2File,
    ".tar": lambda file: file,
}
_PKG_INFO = re.compile(r"(?:\./)?[^/]+/PKG-INFO")
_REQUIRES_PYTHON = re.compile(
    rb"^Requires-Python:[ \t]*([^\n]{1,500})$", re.IGNORECASE | re.MULTILINE
)
_METADATA = re.compile(r"([^/]+)\.dist-info/METADATA")


class NoUsableMetadata(Exception):
    """An archive holds no core metadata that can be used; the text says why."""


@attrs.define
class PieceMissing(Exception):
    """The bytes of a wheel from `start` to before `stop` have not been read yet."""

    start: int
    stop: int


class SparseFile(io.RawIOBase):
    """A file of `size` bytes that is read in pieces: `at` reads a number of bytes at an offset."""

    def __init__(self, size: int, at: Callable[[int, int], bytes]) -> None:
        self._size = size
        self._at = at
        self._position = 0

    @classmethod
    def of(cls, file: BinaryIO, size: int) -> SparseFile:
        """Return a view of an open file of the disk."""
        return cls(size, lambda at, count: os.pread(file.fileno(), count, at))

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        if self._position < 0:
            raise OSError("before the first byte")
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        """Read bytes; raises `NoUsableMetadata` for more than the largest metadata has."""
        left = max(0, self._size - self._position)
        count = left if size is None or size < 0 else min(size, left)
        if count > LIMIT:
            raise NoUsableMetadata(f"{count} bytes of it would have to be read at once")
        data = self._at(self._position, count) if count else b""
        self._position += len(data)
        return data


def read_pieces(pieces: Mapping[int, bytes], start: int, count: int) -> bytes:
    """Read bytes; raises `PieceMissing` unless one of the pieces, by offset, has them all."""
    for first, data in pieces.items():
        if first <= start and start + count <= first + len(data):
            return data[start - first : start - first + count]
    raise PieceMissing(start, start + count)


def core_metadata(wheel: SparseFile, filename: str) -> bytes:
    """Read the metadata in a wheel; raises `NoUsableMetadata` or `PieceMissing`."""
    with _reading(), zipfile.ZipFile(wheel) as archive:
        member = _member(archive, filename)
        # In one go, rather than header, name and content one after the other.
        wheel.seek(member.header_offset)
        wheel.read(ENTRY + member.compress_size)
        with archive.open(member) as content:
            return content.read(LIMIT)


@contextmanager
def _reading() -> Iterator[None]:
    """Raise `NoUsableMetadata` for an archive that cannot be read."""
    try:
        yield
    except (PieceMissing, NoUsableMetadata):
        raise
    except Exception as error:  # noqa: BLE001 (an odd archive may raise anything)
        cause = str(error) or type(error).__name__
        raise NoUsableMetadata(f"it is no archive that can be read ({cause})") from None


def _member(archive: zipfile.ZipFile, filename: str) -> zipfile.ZipInfo:
    # The metadata of other projects may be packed in, too, by accident.
    stated = filename.split("-")[:2]
    named = [
        (found[1], member)
        for member in archive.infolist()
        if (found := _METADATA.fullmatch(member.filename)) is not None
        and canonicalize_name(found[1].partition("-")[0]) == canonicalize_name(stated[0])
    ]
    if len(named) > 1:
        named = [(stem, member) for stem, member in named if stem == "-".join(stated)]
    if len(named) != 1:
        raise NoUsableMetadata("it has not one file of metadata")
    _, member = named[0]
    _require_bounded(member)
    return member


def _require_bounded(member: zipfile.ZipInfo) -> None:
    # Other compressions are not bounded by zipfile.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise NoUsableMetadata("its metadata is packed in an unusual way")
    if member.file_size > LIMIT:
        raise NoUsableMetadata("its metadata is too long")


def source_metadata(file: BinaryIO, size: int, filename: str) -> bytes:
    """Read the metadata in a source distribution or an egg; raises `NoUsableMetadata`."""
    lower = filename.lower()
    with _reading():
        if lower.endswith((".zip", ".egg")):
            return _from_zip(file, size)
        for ending, unpack in _UNPACK.items():
            if lower.endswith(ending):
                return _from_tar(_Bounded(unpack(file)))
    raise NoUsableMetadata("archives of this kind are not read")


def _from_zip(file: BinaryIO, size: int) -> bytes:
    def at(start: int, count: int) -> bytes:
        file.seek(start)
        return file.read(count)

    with zipfile.ZipFile(SparseFile(size, at)) as archive:
        for member in archive.infolist():
            if _PKG_INFO.fullmatch(member.filename):
                _require_bounded(member)
                with archive.open(member) as content:
                    return content.read(LIMIT)
    raise NoUsableMetadata("it has no PKG-INFO")


def _from_tar(unpacked: _Bounded) -> bytes:
    import tarfile  # as for gzip

    with tarfile.open(fileobj=unpacked, mode="r|") as archive:  # type: ignore[call-overload]
        for member in islice(archive, MEMBERS):
            if _PKG_INFO.fullmatch(member.name) and member.isfile():
                content = archive.extractfile(member) if member.size <= LIMIT else None
                if content is None:
                    raise NoUsableMetadata("its metadata is too long")
                return bytes(content.read())
    raise NoUsableMetadata("it has no PKG-INFO, or none near its beginning")


class _Bounded:
    """A stream of unpacked bytes, of which :data:`UNPACKED` are read at most."""

    def __init__(self, file: _Readable) -> None:
        self._file = file
        self._left = UNPACKED

    def read(self, count: int) -> bytes:
        if count > self._left:
            raise NoUsableMetadata(f"more than {UNPACKED} bytes of it would have to be unpacked")
        data = self._file.read(count)
        self._left -= len(data)
        return data


def requires_python(metadata: bytes) -> str | None:
    """Return the ``Requires-Python`` of core metadata, as it is stated."""
    head = metadata.replace(b"\r\n", b"\n").partition(b"\n\n")[0]
    if (found := _REQUIRES_PYTHON.search(head)) is None:
        return None
    text = found[1].decode("utf-8", "replace").strip()
    return text if text and text.isprintable() else None
