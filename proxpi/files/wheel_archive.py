"""Wheels as archives: core metadata is read from a file, or from the pieces that are at hand.

A wheel is a zip archive (PEP 427), and ``zipfile`` reads it from a :class:`View`. A piece that is
not at hand is :class:`Needed`: once it is there, the archive is read anew. What is read is bounded,
whatever an archive says of itself.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Mapping

#: Bytes beyond which neither the list of an archive nor metadata is believed to be one.
LIMIT = 4 * 1024 * 1024
#: Bytes of an archive's entry before its content, as most have it.
ENTRY = 1024

_METADATA = re.compile(r"([^/]+)\.dist-info/METADATA")


class Unfit(Exception):
    """A wheel does not give the metadata that its index advertises; its text says why."""


class Needed(Exception):
    """A piece of a file is not at hand: from byte `start`, up to `stop`."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__(f"bytes {start} to {stop}")
        self.start = start
        self.stop = stop


class View(io.RawIOBase):
    """A file to read from; `at` gives the bytes from an offset on, so many."""

    def __init__(self, size: int, at: Callable[[int, int], bytes]) -> None:
        self._size = size
        self._at = at
        self._position = 0

    def seekable(self) -> bool:
        """See `io.IOBase`."""
        return True

    def tell(self) -> int:
        """See `io.IOBase`."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """See `io.IOBase`."""
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position}.get(whence, self._size)
        if position < 0:
            raise OSError("before the first byte")
        self._position = position
        return position

    def read(self, size: int | None = -1, /) -> bytes:
        """See `io.RawIOBase`; raises `Unfit` at more than anything in a wheel may need."""
        left = max(0, self._size - self._position)
        count = left if size is None or size < 0 else min(size, left)
        if count > LIMIT:
            raise Unfit(f"{count} bytes of it would have to be read at once")
        data = self._at(self._position, count) if count else b""
        self._position += len(data)
        return data


def read_pieces(pieces: Mapping[int, bytes], start: int, count: int) -> bytes:
    """Read from one of the pieces at hand, by their offsets; `Needed` if none holds it all."""
    for first, data in pieces.items():
        if first <= start and start + count <= first + len(data):
            return data[start - first : start - first + count]
    raise Needed(start, start + count)


def core_metadata(wheel: View, filename: str) -> bytes:
    """
    Read the core metadata in a wheel of this name.

    :raises Unfit: if there is none to be had
    :raises Needed: if the view does not show enough
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = _member(archive, filename)
            # In one go, rather than header, name and content one after the other.
            wheel.seek(member.header_offset)
            wheel.read(ENTRY + member.compress_size)
            with archive.open(member) as content:
                return content.read(LIMIT)
    except (Needed, Unfit):
        raise
    except Exception as error:  # noqa: BLE001 (zipfile does not tell what odd archives may raise)
        raise Unfit(
            f"it is no archive that can be read ({error or type(error).__name__})"
        ) from None


def _member(archive: zipfile.ZipFile, filename: str) -> zipfile.ZipInfo:
    """Find the one file of metadata that is this wheel's."""
    # Others may have their own in there, put in by accident.
    stated = filename.split("-")[:2]
    named = [
        (found[1], member)
        for member in archive.infolist()
        if (found := _METADATA.fullmatch(member.filename)) is not None
        and _folded(found[1].partition("-")[0]) == _folded(stated[0])
    ]
    if len(named) > 1:
        named = [(stem, member) for stem, member in named if stem == "-".join(stated)]
    if len(named) != 1:
        raise Unfit("it has not one file of metadata")
    _, member = named[0]
    # Whatever else zipfile can unpack, it does not bound.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Unfit("its metadata is packed in an unusual way")
    if member.file_size > LIMIT:
        raise Unfit("its metadata is too long")
    return member


def _folded(name: str) -> str:
    """Write a name of a project as all spellings of it have it, odd ones, too."""
    return re.sub(r"[-_.]+", "-", name).lower()
