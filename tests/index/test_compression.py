"""Tests of :mod:`proxpi.index.compression`."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from importlib import reload

import pytest

from proxpi.index import compression

PIECES = [b"", b"a page ", b"in pieces " * 10_000, b"\x00\xff"]


@pytest.fixture(params=["ISA-L", "zlib"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Load the module with ISA-L, and as on a platform that has no build of it."""
    if request.param == "zlib":
        monkeypatch.setitem(sys.modules, "isal", None)
    reload(compression)
    yield
    monkeypatch.undo()
    reload(compression)


@pytest.mark.usefixtures("library")
def test_gzip() -> None:
    """Any gzip reader gets the bytes back, made whole or in pieces."""
    data = b"".join(PIECES)
    assert gzip.decompress(compression.compress(data)) == data
    assert gzip.decompress(b"".join(compression.compress_pieces(PIECES))) == data


@pytest.mark.usefixtures("library")
def test_no_time() -> None:
    """The header has no time (RFC 1952 2.3.1), so the same bytes compress to the same bytes."""
    assert compression.compress(b"data")[4:8] == bytes(4)
    assert b"".join(compression.compress_pieces([b"data"]))[4:8] == bytes(4)
