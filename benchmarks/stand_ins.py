"""Stand-ins for wheels: valid archives with the metadata and the size of a wheel, without its code.

A stand-in holds the exact bytes of ``METADATA`` and, instead of the wheel's modules, one stored
member of zeros, so that pip and uv can install it. Its zeros are never in memory: a stand-in is a
head, a number of zeros, and a tail. Pure, without I/O.
"""

from __future__ import annotations

import base64
import hashlib
import struct
import zlib
from collections.abc import Iterator

import attrs

_BLOCK = bytes(1 << 20)
_WHEEL = b"Wheel-Version: 1.0\nGenerator: benchmarks\nRoot-Is-Purelib: true\n"
#: 1 January 1980 and Unix permissions, as archives have them.
_DATE, _MODE, _UNIX = 33, 0o100644 << 16, 3 << 8 | 20


@attrs.frozen
class StandIn:
    """The bytes of a wheel in three parts; the middle one is a number of zeros."""

    head: bytes = attrs.field(repr=False)
    zeros: int
    tail: bytes = attrs.field(repr=False)

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.head) + self.zeros + len(self.tail)

    def sha256(self) -> str:
        digest = hashlib.sha256()
        for part in self.read(0, self.size):
            digest.update(part)
        return digest.hexdigest()

    def read(self, start: int, stop: int) -> Iterator[memoryview]:
        """Yield the bytes from `start` to before `stop`, in pieces of at most 1 MiB."""
        first = 0
        for part in (self.head, None, self.tail):
            length = self.zeros if part is None else len(part)
            begin, end = max(start - first, 0), min(stop - first, length)
            first += length
            while begin < end:
                size = min(end - begin, len(_BLOCK))
                yield memoryview(_BLOCK)[:size] if part is None else memoryview(part)[begin:end]
                begin = begin + size if part is None else end


def stand_in(filename: str, metadata: bytes, size: int) -> StandIn:
    """Build the stand-in for a wheel of so many bytes, or slightly more if its metadata is long."""
    about = "-".join(filename.split("-")[:2]) + ".dist-info"
    members = {f"{about}/METADATA": metadata, f"{about}/WHEEL": _WHEEL}
    record = [f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in members.items()] + [
        f"{about}/padding,,\n{about}/RECORD,,\n"
    ]
    members[f"{about}/RECORD"] = "".join(record).encode()
    padding = f"{about}/padding".encode()
    entries = [(name.encode(), data, zlib.crc32(data)) for name, data in members.items()]
    overhead = 30 + 46 + 2 * len(padding) + 22
    overhead += sum(30 + 46 + 2 * len(name) + len(data) for name, data, _ in entries)
    zeros = max(0, size - overhead)
    checksum = crc32_of_zeros(zeros)
    head = _local(padding, checksum, zeros)
    directory = [_central(padding, checksum, zeros, 0)]
    tail = b""
    for name, data, crc in entries:
        directory.append(_central(name, crc, len(data), len(head) + zeros + len(tail)))
        tail += _local(name, crc, len(data)) + data
    listing = b"".join(directory)
    end = (0x06054B50, 0, 0, len(directory), len(directory), len(listing))
    tail += listing + struct.pack("<IHHHHIIH", *end, len(head) + zeros + len(tail), 0)
    return StandIn(head, zeros, tail)


def crc32_of_zeros(count: int) -> int:
    checksum = 0
    for _ in range(count // len(_BLOCK)):
        checksum = zlib.crc32(_BLOCK, checksum)
    return zlib.crc32(_BLOCK[: count % len(_BLOCK)], checksum)


def _local(name: bytes, checksum: int, size: int) -> bytes:
    about = (0x04034B50, 20, 0, 0, 0, _DATE, checksum, size, size, len(name), 0)
    return struct.pack("<IHHHHHIIIHH", *about) + name


def _central(name: bytes, checksum: int, size: int, offset: int) -> bytes:
    about = (0x02014B50, _UNIX, 20, 0, 0, 0, _DATE, checksum, size, size, len(name))
    return struct.pack("<IHHHHHHIIIHHHHHII", *about, 0, 0, 0, 0, _MODE, offset) + name


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
