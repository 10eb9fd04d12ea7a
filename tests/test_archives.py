"""Core metadata out of archives: honest ones, damaged ones, hostile ones."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
from functools import partial
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.archives import (
    LIMIT,
    NoUsableMetadata,
    PieceMissing,
    SparseFile,
    core_metadata,
    read_pieces,
    requires_python,
    source_metadata,
)
from proxpi.files.wheel_metadata import ARCHIVE_TAIL, STEP
from tests.support.archives import AT_THE_START, MEMBER, METADATA, PADDING, WHEEL, archive
from tests.support.distributions import make_sdist
from tests.support.growth import assert_linear
from tests.support.mirrors import NAME


def read(data: bytes, filename: str = NAME) -> bytes:
    view = SparseFile(len(data), lambda start, count: data[start : start + count])
    return core_metadata(view, filename)


def read_in_pieces(data: bytes, tail: int = ARCHIVE_TAIL) -> tuple[bytes, int]:
    """Read the metadata of a wheel piece by piece; return how many pieces that took."""
    pieces: dict[int, bytes] = {}
    at = partial(read_pieces, pieces)
    start = max(0, len(data) - tail)
    pieces[start] = data[start:]
    for count in range(1, 20):
        try:
            return core_metadata(SparseFile(len(data), at), NAME), count
        except PieceMissing as needed:
            stop = max(needed.stop, needed.start + STEP)
            pieces[needed.start] = data[needed.start : stop]
    raise AssertionError("it never had enough")


def encrypted() -> bytes:
    """Make an archive that says that its metadata is encrypted."""
    data = bytearray(archive((MEMBER, METADATA)))
    data[6] |= 1  # the flags of the entry, and of the directory
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def zip64() -> bytes:
    """Make an archive with the marks of a huge one."""
    with mock.patch.multiple(zipfile, ZIP64_LIMIT=10, ZIP_FILECOUNT_LIMIT=0):
        data = archive((MEMBER, METADATA))
    assert b"PK\x06\x06" in data  # the end of a huge archive's directory
    return data


def bomb(stated: int | None = None) -> bytes:
    """Make an archive with far too much metadata; its directory states any size."""
    data = bytearray(archive((MEMBER, bytes(3 * LIMIT)), packing=zipfile.ZIP_DEFLATED))
    if stated is not None:
        size = data.index(b"PK\x01\x02") + 24
        data[size : size + 4] = struct.pack("<I", stated)
    return bytes(data)


@pytest.mark.parametrize(
    ("filename", "folder"),
    [
        ("demo_app-1.0-py3-none-any.whl", "demo_app-1.0"),
        ("Demo.App-1.0-py3-none-any.whl", "demo_app-1.0"),
        ("demo_app-1.0-py3-none-any.whl", "Demo.App-1.0.0"),
        ("demo_app-1.0+cu118-1-py3-none-any.whl", "demo_app-1.0_cu118"),
    ],
)
def test_spellings(filename: str, folder: str) -> None:
    """The folder's name may be spelled in another way than the wheel's."""
    for packing in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        data = archive((f"{folder}.dist-info/METADATA", METADATA), packing=packing)
        assert read(data, filename) == METADATA


OTHERS = [
    ("other-1.0.dist-info/METADATA", b"other"),
    ("demo/_vendor/demo-1.0.dist-info/METADATA", b"vendored"),
    ("demo-1.0.dist-info/METADATA.json", b"{}"),
    ("demo-1.0.dist-info/licenses/METADATA", b"license"),
]
COMMENTED = archive(
    PADDING, (MEMBER, METADATA), packing=zipfile.ZIP_DEFLATED, comment=b"x" * 65_535
)
OLDER = ("demo-0.9.dist-info/METADATA", b"older")


@pytest.mark.parametrize(
    ("data", "pieces"),
    [
        (archive(*OTHERS, (MEMBER, METADATA)), 1),
        (archive(OLDER, (MEMBER, METADATA)), 1),
        (WHEEL, 1),
        (AT_THE_START, 2),
        (COMMENTED, 4),
        (archive(*((f"{'x' * 200}{n}", b"") for n in range(1000)), (MEMBER, METADATA)), 3),
        (b"#!/bin/sh\n" * 1000 + archive((MEMBER, METADATA)), 1),
        (zip64(), 1),
    ],
    ids=["others", "older", "end", "start", "comment", "many files", "launcher", "zip64"],
)
def test_pieces(data: bytes, pieces: int) -> None:
    """Metadata is read from the whole as from at most so many pieces."""
    data_read, count = read_in_pieces(data)
    assert (read(data), data_read, count <= pieces) == (METADATA, METADATA, True)


with pytest.warns(UserWarning, match="Duplicate name"):
    TWICE = archive((MEMBER, METADATA), (MEMBER, b"other"))


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (archive(*OTHERS), "one file"),
        (archive(OLDER, ("Demo-1.0.dist-info/METADATA", METADATA)), "one file"),
        (TWICE, "one file"),
        (encrypted(), "encrypted"),
        (archive((MEMBER, METADATA), packing=zipfile.ZIP_BZIP2), "unusual"),
        (archive((MEMBER, METADATA), packing=zipfile.ZIP_LZMA), "unusual"),
        (bomb(), "too long"),
        (bomb(100), "."),
        *((data, ".") for data in (b"", b"PK", b"\0" * 100, b"<html></html>" * 10_000)),
    ],
)
def test_unfit(data: bytes, cause: str) -> None:
    """A wheel without one readable, bounded file of metadata is unfit."""
    with pytest.raises(NoUsableMetadata, match=cause):
        read(data)


def test_huge_directory() -> None:
    """A directory that is longer than any honest one is not read."""
    data = bytearray(archive((MEMBER, METADATA)))
    end = data.rindex(b"PK\x05\x06")
    data[end + 12 : end + 20] = struct.pack("<II", LIMIT + 1, end)
    counts: list[int] = []

    def at(start: int, count: int) -> bytes:
        counts.append(count)
        return (bytes(3 * LIMIT) + data)[start : start + count]

    with pytest.raises(NoUsableMetadata):
        core_metadata(SparseFile(3 * LIMIT + len(data), at), NAME)
    assert max(counts) <= LIMIT


SMALL = archive(("demo/__init__.py", b"x" * 50), (MEMBER, METADATA), ("é" * 100, b""))


@given(
    st.integers(0, len(SMALL)),
    st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), max_size=8),
)
def test_damaged(stop: int, changes: list[tuple[int, int]]) -> None:
    """A wheel that is damaged or cut anywhere gives some metadata, or is unfit: no other error."""
    data = bytearray(SMALL)
    for offset, value in changes:
        data[offset] = value
    try:
        assert isinstance(read(bytes(data[:stop])), bytes)
    except NoUsableMetadata as error:
        assert str(error)


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        (b"f%d", b""),
        (b"f%d", bytes(65_532)),
        (MEMBER.encode(), b""),
        (b".dist-info" * 6000, b""),
        (MEMBER.encode() + b"/" * 60_000, b""),
    ],
)
def test_a_hostile_directory_takes_linear_time(name: bytes, extra: bytes) -> None:
    """Reading the directory of an archive takes time in proportion to its length."""

    def made(count: int) -> bytes:
        names = [name.replace(b"%d", str(number).encode()) for number in range(count)]
        directory = b"".join(
            struct.pack("<4s24x3H12x", b"PK\x01\x02", len(each), len(extra), 0) + each + extra
            for each in names
        )
        return directory + struct.pack(
            "<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(directory), 0, 0
        )

    def work(data: bytes) -> None:
        with pytest.raises(NoUsableMetadata):
            read(data)

    assert_linear(work, made, 1_000 if len(name + extra) < 1_000 else 8)


SDIST = make_sdist("demo", "1.0")
PKG_INFO = b"Metadata-Version: 2.2\nName: demo\n"


def read_source(data: bytes, filename: str = SDIST.filename) -> bytes:
    return source_metadata(io.BytesIO(data), len(data), filename)


def tar(*members: tuple[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as made:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            made.addfile(entry, io.BytesIO(data))
    return sink.getvalue()


def test_source_distributions() -> None:
    """The metadata of a source distribution is read out of each kind of archive, and of an egg."""
    plain = tar(("demo-1.0/x/PKG-INFO", b"other"), ("demo-1.0/PKG-INFO", PKG_INFO))
    packed = {
        "demo-1.0.tar.gz": gzip.compress(plain),
        "demo-1.0.TGZ": gzip.compress(plain),
        "demo-1.0.tar.bz2": bz2.compress(plain),
        "demo-1.0.tar": plain,
        "demo-1.0.zip": archive(("demo-1.0/x/PKG-INFO", b"other"), ("demo-1.0/PKG-INFO", PKG_INFO)),
        "demo-1.0-py3.11.egg": archive(("EGG-INFO/PKG-INFO", PKG_INFO)),
    }
    for filename, data in packed.items():
        assert read_source(data, filename) == PKG_INFO, filename
    assert requires_python(read_source(SDIST.data)) == ">=3.8"


def test_unfit_source_distributions() -> None:
    """An archive that is damaged, unusual, or without metadata gives none."""
    plain = tar(("demo-1.0/PKG-INFO", PKG_INFO))
    long = bytes(LIMIT + 1)
    unfit = {
        "demo-1.0.tar.xz": lzma.compress(plain),
        "demo-1.0.exe": plain,
        "demo-1.0.tar": plain[:520],
        "demo-1.1.tar": tar(("demo-1.0/setup.py", b"")),
        "demo-1.2.tar": tar(("demo-1.0/PKG-INFO", long)),
        "demo-1.3.tar": b"",
        "demo-1.0.tar.gz": gzip.compress(plain)[:60],
        "demo-1.1.tar.gz": b"no archive",
        "demo-1.0.zip": archive(("demo-1.0/setup.py", b"")),
        "demo-1.1.zip": archive(("demo-1.0/PKG-INFO", long)),
        "demo-1.2.zip": b"no archive",
    }
    for filename, data in unfit.items():
        with pytest.raises(NoUsableMetadata):
            read_source(data, filename)


def test_source_distribution_that_grows() -> None:
    """No more is unpacked than bounds allow, however far the metadata lies behind."""
    bomb = tar(("demo-1.0/zeros", bytes(1 << 20)), ("demo-1.0/PKG-INFO", PKG_INFO))
    with mock.patch("proxpi.archives.UNPACKED", 1 << 19), pytest.raises(NoUsableMetadata):
        read_source(gzip.compress(bomb))
    many = tar(*((f"demo-1.0/{number}", b"") for number in range(9)), ("d/PKG-INFO", PKG_INFO))
    with mock.patch("proxpi.archives.MEMBERS", 9), pytest.raises(NoUsableMetadata):
        read_source(gzip.compress(many))


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (b"Name: demo\nRequires-Python: >=3.8,<4\nSummary: x\n", ">=3.8,<4"),
        (b"Name: demo\r\nrequires-python:~=3.9 \r\n\r\nText", "~=3.9"),
        (b"Name: demo\n\nRequires-Python: >=3.8\n", None),
        (b"Requires-Python: \nName: demo", None),
        (b"Requires-Python: >=3\x07\n", None),
        (b"Requires-Python: " + b"9" * 501, None),
        (b"", None),
    ],
)
def test_requires_python(metadata: bytes, expected: str | None) -> None:
    """The field is read from the head alone, and passed on as it is stated."""
    assert requires_python(metadata) == expected
