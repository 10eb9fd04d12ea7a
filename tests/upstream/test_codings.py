"""Content codings: which names count, and how bodies are decoded."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Sequence

import pytest

from proxpi.upstream.errors import BodyTooLong, BodyTruncated, BodyUndecodable
from proxpi.upstream.response import CODINGS, MEMBERS, Decoder, SizeLimit, content_codings, decode
from tests.support.growth import assert_linear

DATA = b"a page" * 1000
LIMIT = SizeLimit(64 * 1024 * 1024)


def deflated(data: bytes, window: int) -> bytes:
    """Deflate, with or without the header of zlib."""
    deflate = zlib.compressobj(wbits=window)
    return deflate.compress(data) + deflate.flush()


def zipped(data: bytes) -> bytes:
    """Compress, in whatever second it is: the bytes name tests, which several processes have."""
    return gzip.compress(data, mtime=0)


@pytest.mark.parametrize(
    ("fields", "codings"),
    [
        ([], ()),
        ([""], ()),
        (["identity"], ()),
        (["aws-chunked"], ()),
        (["Binary", " UTF-8 "], ()),
        (["none", "utf8", "8bit", "text/plain", "null", "x-identity", ","], ()),
        (["gzip"], ("gzip",)),
        (["X-GZip"], ("gzip",)),
        (["gzip, aws-chunked"], ("gzip",)),
        (["AWS-Chunked,GZIP"], ("gzip",)),
        (["identity", "Deflate"], ("deflate",)),
        (["gzip,,br ", "zstd"], ("gzip", "br", "zstd")),
    ],
)
def test_codings_that_transform(fields: list[str], codings: tuple[str, ...]) -> None:
    """Only gzip, deflate, br and zstd change bytes, in whatever case and list they stand."""
    assert content_codings(fields) == codings


@pytest.mark.parametrize(
    ("body", "codings"),
    [
        (DATA, ()),
        (zipped(DATA), ("gzip",)),
        (zipped(DATA[:7]) + zipped(DATA[7:]), ("gzip",)),
        (zipped(DATA) + bytes(700), ("gzip",)),
        (zipped(DATA) + bytes(1) + zipped(DATA), ("gzip",)),
        (deflated(DATA, 15), ("deflate",)),
        (deflated(DATA, -15), ("deflate",)),
        (deflated(zipped(DATA), 15), ("gzip", "deflate")),
        (zipped(zipped(DATA)), ("gzip", "gzip")),
    ],
)
@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_bodies(body: bytes, codings: Sequence[str], chunk: int) -> None:
    """Codings are undone from the last to the first, however the body is cut into chunks."""
    pieces: list[bytes] = []
    decoder = Decoder(codings, pieces.append, LIMIT)
    for start in range(0, len(body), chunk):
        decoder.write(body[start : start + chunk])
    assert b"".join(pieces) == DATA
    assert decoder.ended


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_cut(coding: str) -> None:
    """A body that ends before its coding does is cut short."""
    body = gzip.compress(DATA) if coding == "gzip" else zlib.compress(DATA)
    for end in (0, 1, 5, len(body) - 1):
        with pytest.raises(BodyTruncated):
            decode(body[:end], (coding,), LIMIT)
    with pytest.raises(BodyTruncated):
        decode(body + body[:-3], ("gzip",), LIMIT) if coding == "gzip" else decode(
            b"x", ("deflate",), LIMIT
        )


@pytest.mark.parametrize("codings", [("br",), ("zstd",), ("gzip", "zstd"), ("gzip",) * 4])
def test_codings_that_are_not_decoded(codings: tuple[str, ...]) -> None:
    """A coding that was not asked for, or too many of them, are named as the reason."""
    with pytest.raises(BodyUndecodable, match="zstd|br" if len(codings) <= CODINGS else "4"):
        decode(DATA, codings, LIMIT)


@pytest.mark.parametrize("codings", [("gzip",), ("deflate",)])
def test_bytes_that_are_not_encoded(codings: tuple[str, ...]) -> None:
    """A body that is not what its coding says is refused."""
    with pytest.raises(BodyUndecodable):
        decode(DATA, codings, LIMIT)


def test_limit() -> None:
    """The limit counts what comes out, of an inner coding as well."""
    bomb = gzip.compress(bytes(10_000))
    assert len(decode(bomb, ("gzip",), SizeLimit(10_000))) == 10_000
    with pytest.raises(BodyTooLong):
        decode(bomb, ("gzip",), SizeLimit(9_999))
    with pytest.raises(BodyTooLong):
        decode(
            gzip.compress(gzip.compress(DATA) + bytes(20_000)), ("gzip", "gzip"), SizeLimit(9_999)
        )


def test_members() -> None:
    """The members of a gzip body are limited in number, and so is what they cost."""
    member = gzip.compress(b"")
    assert decode(member * MEMBERS, ("gzip",), LIMIT) == b""
    with pytest.raises(BodyUndecodable, match="members"):
        decode(member * (MEMBERS + 1), ("gzip",), LIMIT)


@pytest.mark.parametrize(
    ("coding", "made"),
    [
        ("gzip", lambda size: gzip.compress(b"") * size),
        ("gzip", lambda size: gzip.compress(bytes(1000 * size))),
        ("gzip", lambda size: gzip.compress(b"x") + bytes(100 * size)),
        ("gzip", lambda size: gzip.compress(b"x" * 10) * size),
        ("deflate", lambda size: zlib.compress(bytes(1000 * size))),
        ("deflate", lambda size: zlib.compress(b"x") + bytes(100 * size)),
        ("deflate", lambda size: b"\x00\x00\x00\xff\xff" * 20 * size),
    ],
)
def test_decoding_is_linear(
    coding: str, made: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Doubling the members, the padding, the zeros or the empty blocks doubles the time."""
    monkeypatch.setattr("proxpi.upstream.response.MEMBERS", 1 << 30)
    assert_linear(
        lambda body: decode(body, (coding,), LIMIT), made, 5000, (BodyUndecodable, BodyTruncated)
    )
