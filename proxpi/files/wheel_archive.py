"""Core metadata out of the archive of a wheel (PEP 427): pure, and bounded for any archive.

``zipfile`` reads the archive from a :class:`SparseFile`. A piece that has not been read yet is
:class:`PieceMissing`: once it is, the archive is read anew.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Mapping

import attrs
from packaging.utils import canonicalize_name

#: The most bytes of an archive's directory, and of metadata.
LIMIT = 4 * 1024 * 1024
#: Bytes of an archive's entry before its content, as most have it.
ENTRY = 1024

_METADATA = re.compile(r"([^/]+)\.dist-info/METADATA")


class NoUsableMetadata(Exception):
    """A wheel holds no core metadata that can be used; the text says why."""


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
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = _member(archive, filename)
            # In one go, rather than header, name and content one after the other.
            wheel.seek(member.header_offset)
            wheel.read(ENTRY + member.compress_size)
            with archive.open(member) as content:
                return content.read(LIMIT)
    except (PieceMissing, NoUsableMetadata):
        raise
    except Exception as error:  # noqa: BLE001 (zipfile does not tell what odd archives may raise)
        cause = error or type(error).__name__
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
    # Other compressions are not bounded by zipfile.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise NoUsableMetadata("its metadata is packed in an unusual way")
    if member.file_size > LIMIT:
        raise NoUsableMetadata("its metadata is too long")
    return member
