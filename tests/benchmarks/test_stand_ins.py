"""Stand-ins are valid wheels of the right size, readable in any pieces."""

from __future__ import annotations

import hashlib
import io
import zipfile

import pytest
from stand_ins import stand_in

METADATA = b"Metadata-Version: 2.1\nName: large\nVersion: 1.5\nRequires-Dist: small\n"
FILENAME = "large-1.5-cp311-cp311-manylinux_2_28_x86_64.whl"


@pytest.mark.parametrize("size", [2_000, 3 * 1024 * 1024 + 17])
def test_a_stand_in_is_a_wheel_of_the_right_size(size: int) -> None:
    """The archive is intact, and has the metadata, its size and its digest."""
    made = stand_in(FILENAME, METADATA, size)
    data = b"".join(made.read(0, made.size))
    assert len(data) == made.size == size
    assert hashlib.sha256(data).hexdigest() == made.sha256()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert archive.read("large-1.5.dist-info/METADATA") == METADATA
        listed = archive.read("large-1.5.dist-info/RECORD").decode().splitlines()
        assert {line.split(",")[0] for line in listed} == set(archive.namelist())


def test_any_range_can_be_read() -> None:
    """A range across all three parts has the bytes of the whole at that place."""
    made = stand_in(FILENAME, METADATA, 5_000)
    data = b"".join(made.read(0, made.size))
    for start in range(0, made.size, 97):
        for stop in (start, start + 1, start + 1_111, made.size):
            assert b"".join(made.read(start, stop)) == data[start:stop]


def test_long_metadata_makes_a_stand_in_longer() -> None:
    """Where metadata alone exceeds the wheel's size, the stand-in still holds all of it."""
    made = stand_in(FILENAME, METADATA + b"x" * 9_000, 1_000)
    assert (made.zeros, made.size > 9_000) == (0, True)
