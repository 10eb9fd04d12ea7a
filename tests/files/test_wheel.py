"""Core metadata out of wheels: archives of all kinds, whole or in pieces, honest or not."""

from __future__ import annotations

import io
import struct
import zipfile
from functools import partial
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.files.wheel_metadata import (
    LIMIT,
    STEP,
    TAIL,
    Needed,
    Unfit,
    View,
    core_metadata,
    read_pieces,
)
from tests.support.growth import assert_linear

NAME = "demo_app-1.0-py3-none-any.whl"
MEMBER = "demo_app-1.0.dist-info/METADATA"
METADATA = b"Metadata-Version: 2.1\nName: demo-app\nVersion: 1.0\n"


def archive(
    *members: tuple[str, bytes], packing: int = zipfile.ZIP_DEFLATED, comment: bytes = b""
) -> bytes:
    """Make an archive."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", packing) as written:
        for name, data in members:
            written.writestr(zipfile.ZipInfo(name), data, packing)
        written.comment = comment
    return sink.getvalue()


def whole(data: bytes) -> View:
    """View an archive that is all at hand."""
    return View(len(data), lambda start, count: data[start : start + count])


def read(data: bytes, filename: str = NAME) -> bytes:
    """Give the metadata of a wheel that is all at hand."""
    return core_metadata(whole(data), filename)


def read_in_pieces(data: bytes, tail: int = TAIL) -> tuple[bytes, int]:
    """Give the metadata of a wheel whose pieces are fetched, and the number of fetches."""
    pieces: dict[int, bytes] = {}
    at = partial(read_pieces, pieces)
    start = max(0, len(data) - tail)
    pieces[start] = data[start:]
    for fetches in range(1, 20):
        try:
            return core_metadata(View(len(data), at), NAME), fetches
        except Needed as needed:
            stop = max(needed.stop, needed.start + STEP)
            pieces[needed.start] = data[needed.start : stop]
    raise AssertionError("it never had enough")


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_packings(packing: int) -> None:
    """Metadata is read whether it is compressed or not."""
    assert read(archive(("demo_app/__init__.py", b"x"), (MEMBER, METADATA), packing=packing)) == (
        METADATA
    )


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
    assert read(archive((f"{folder}.dist-info/METADATA", METADATA)), filename) == METADATA


def test_folders_of_others() -> None:
    """Metadata of another project, or deeper down, is none of this wheel's."""
    others = [
        ("other-1.0.dist-info/METADATA", b"other"),
        ("demo_app/_vendor/demo_app-1.0.dist-info/METADATA", b"vendored"),
        ("demo_app-1.0.dist-info/METADATA.json", b"{}"),
        ("demo_app-1.0.dist-info/licenses/METADATA", b"license"),
    ]
    assert read(archive(*others, (MEMBER, METADATA))) == METADATA
    with pytest.raises(Unfit):
        read(archive(*others))


def test_two_folders() -> None:
    """Of two folders of this project, the one of this version counts; none if neither is."""
    older, odd = "demo_app-0.9.dist-info/METADATA", "Demo_App-1.0.dist-info/METADATA"
    assert read(archive((older, b"older"), (MEMBER, METADATA))) == METADATA
    with pytest.raises(Unfit, match="one file"):
        read(archive((older, b"older"), (odd, METADATA)))


def test_twice() -> None:
    """An archive that has the same name twice is read in two ways, so it is not read."""
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = archive((MEMBER, METADATA), (MEMBER, b"other"))
    with pytest.raises(Unfit):
        read(data)


def test_encrypted() -> None:
    """What is encrypted is not to be had."""
    data = bytearray(archive((MEMBER, METADATA)))
    data[6] |= 1  # the flags of the entry, and of the list
    data[data.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(Unfit):
        read(bytes(data))


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_packing(packing: int) -> None:
    """What cannot be unpacked within bounds is not unpacked."""
    with pytest.raises(Unfit, match="unusual"):
        read(archive((MEMBER, METADATA), packing=packing))


def test_bomb() -> None:
    """Metadata that unpacks to more than any has is not unpacked, whatever its entry says."""
    data = bytearray(archive((MEMBER, bytes(3 * LIMIT))))
    with pytest.raises(Unfit, match="too long"):
        read(bytes(data))
    size = data.index(b"PK\x01\x02") + 24
    data[size : size + 4] = struct.pack("<I", 100)
    with pytest.raises(Unfit):
        read(bytes(data))


def test_huge_list() -> None:
    """A list of files longer than any honest one is not read."""
    data = bytearray(archive((MEMBER, METADATA)))
    end = data.rindex(b"PK\x05\x06")
    data[end + 12 : end + 20] = struct.pack("<II", LIMIT + 1, end)
    asked: list[int] = []

    def at(start: int, count: int) -> bytes:
        asked.append(count)
        return (bytes(3 * LIMIT) + data)[start : start + count]

    with pytest.raises(Unfit):
        core_metadata(View(3 * LIMIT + len(data), at), NAME)
    assert max(asked) <= LIMIT


def test_zip64() -> None:
    """An archive with the marks of a huge one is read like any other."""
    with (
        mock.patch.object(zipfile, "ZIP64_LIMIT", 10),
        mock.patch.object(zipfile, "ZIP_FILECOUNT_LIMIT", 0),
    ):
        sink = io.BytesIO()
        with (
            zipfile.ZipFile(sink, "w") as written,
            written.open(zipfile.ZipInfo(MEMBER), "w", force_zip64=True) as member,
        ):
            member.write(METADATA)
    data = sink.getvalue()
    assert b"PK\x06\x06" in data  # the end of a huge archive's list
    assert read(data) == METADATA
    assert read_in_pieces(data)[0] == METADATA


def test_something_before() -> None:
    """Bytes before the archive, as a launcher would be, change nothing."""
    data = b"#!/bin/sh\n" * 1000 + archive((MEMBER, METADATA))
    assert read(data) == METADATA


def test_comment() -> None:
    """The longest comment leaves the end of the archive within what is asked for first."""
    data = archive(("big", bytes(100_000)), (MEMBER, METADATA), comment=b"x" * 65_535)
    assert read_in_pieces(data)[0] == METADATA


def test_end_tells_all() -> None:
    """A wheel with its metadata at the end, as is recommended, is read from its end alone."""
    padding = ("demo_app/data", bytes(range(256)) * 4000)
    data = archive(padding, (MEMBER, METADATA), packing=zipfile.ZIP_STORED)
    assert read_in_pieces(data) == (METADATA, 1)


def test_metadata_at_the_start() -> None:
    """Metadata far from the end takes one more piece."""
    padding = ("demo_app/data", bytes(range(256)) * 4000)
    data = archive((MEMBER, METADATA * 2000), padding, packing=zipfile.ZIP_STORED)
    assert read_in_pieces(data) == (METADATA * 2000, 2)


def test_many_files() -> None:
    """A list of files that is longer than the end that is asked for first takes one more."""
    members = [(f"demo_app/{'x' * 200}{number}", b"") for number in range(1000)]
    data = archive(*members, (MEMBER, METADATA), packing=zipfile.ZIP_STORED)
    content, fetches = read_in_pieces(data)
    assert content == METADATA
    assert fetches <= 3


@pytest.mark.parametrize("data", [b"", b"PK", b"\0" * 100, b"<html></html>" * 10_000])
def test_no_archive(data: bytes) -> None:
    """What is no archive gives nothing."""
    with pytest.raises(Unfit):
        read(data)


WHEEL = archive(("demo_app/__init__.py", b"x" * 50), (MEMBER, METADATA), ("é" * 100, b""))


@given(st.integers(0, len(WHEEL) - 1))
def test_cut(stop: int) -> None:
    """A wheel that is cut anywhere gives nothing, and no other error."""
    with pytest.raises(Unfit):
        read(WHEEL[:stop])


@given(st.lists(st.tuples(st.integers(0, len(WHEEL) - 1), st.integers(0, 255)), max_size=8))
def test_damaged(changes: list[tuple[int, int]]) -> None:
    """Bytes that were changed anywhere lead to what is there, or to nothing: to no other error."""
    data = bytearray(WHEEL)
    for place, value in changes:
        data[place] = value
    try:
        assert isinstance(read(bytes(data)), bytes)
    except Unfit as error:
        assert str(error)


@given(
    st.lists(st.tuples(st.text(min_size=1, max_size=300), st.binary(max_size=300)), max_size=20),
    st.integers(0, 20),
)
def test_any_members(members: list[tuple[str, bytes]], place: int) -> None:
    """Whatever else is in a wheel, its metadata is found, from pieces as from the whole."""
    names = {name.replace("\0", "0"): data for name, data in members}
    listed = [(name, data) for name, data in names.items() if name.casefold() != MEMBER.casefold()]
    listed.insert(place, (MEMBER, METADATA))
    data = archive(*listed)
    assert read(data) == METADATA
    assert read_in_pieces(data, tail=100)[0] == METADATA


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
        with pytest.raises(Unfit):
            read(data)

    assert_linear(work, made, 1_000 if len(name + extra) < 1_000 else 8)
