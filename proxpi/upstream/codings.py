"""Content codings: which of them change the bytes of a body, and how a body is decoded.

An upstream labels bodies in many ways. Only the codings in :data:`TRANSFORMING` change bytes, so
only these count; ``identity``, ``aws-chunked``, ``utf-8`` and the like do not. A page is decoded as
strictly as a cache must: a body that ends before its coding does is cut short. The work is linear
in the size of the body, and the members of a gzip body (RFC 1952 2.2) are limited in number.

A decoder of one coding is *within* a member, *between* two members, or *padded*: what follows the
last member is ignored, as gzip itself does.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence

from proxpi.upstream.body import Limit
from proxpi.upstream.errors import BodyCut, BodyGarbled

#: The codings that change the bytes of a body (RFC 9110 8.4.1, RFC 7932, RFC 8878).
TRANSFORMING = frozenset({"gzip", "deflate", "br", "zstd"})
#: Members of a gzip body; an empty one costs far more time than its bytes suggest.
MEMBERS = 4096
#: Codings that one body may have, one applied after the other.
CODINGS = 3
_GZIP, _ZLIB, _RAW = 31, 15, -15  # window bits of zlib
_PIECE = 1 << 20
_SLICE = 16 * 1024  # zlib copies the rest of its input at the end of each member and each piece


def transforming(fields: Iterable[str]) -> tuple[str, ...]:
    """
    Give the codings in ``Content-Encoding`` that change the bytes, in the order of application.

    :param fields: the values of the header field, each of which may be a list
    """
    names = (name.strip().lower().removeprefix("x-") for each in fields for name in each.split(","))
    return tuple(name for name in names if name in TRANSFORMING)


class Decoder:
    """Decodes a body that comes in chunks.

    :param codings: as :func:`transforming` gives them
    :param write: gets what comes out, in pieces of bounded size
    :param limit: for what comes out, also of each coding
    :raises BodyGarbled: if a coding cannot be decoded here
    """

    def __init__(
        self, codings: Sequence[str], write: Callable[[bytes], object], limit: Limit
    ) -> None:
        if len(codings) > CODINGS:
            raise BodyGarbled(f"it has {len(codings)} content codings")
        if unknown := [each for each in codings if each not in ("gzip", "deflate")]:
            raise BodyGarbled(f"its content coding is {unknown[0]}, which was not asked for")
        self._stages: list[_Stage] = []
        for coding in codings:
            self._stages.append(_Stage(coding == "gzip", write, limit))
            write = self._stages[-1].write
        self.write = write
        """Take encoded bytes; may raise :class:`BodyGarbled` and :class:`BodyTooLong`."""

    @property
    def ended(self) -> bool:
        """Whether every coding has come to its end."""
        return all(stage.inflate is not None and stage.inflate.eof for stage in self._stages)


class _Stage:
    """Decodes one coding."""

    def __init__(self, gzip: bool, write: Callable[[bytes], object], limit: Limit) -> None:
        self._gzip = gzip
        self._write = write
        self._limit = limit
        self._size = 0
        self._members = 1
        self._padded = False
        self._begun = b""  # of a deflate body: less than the two bytes that tell its kind
        self.inflate = zlib.decompressobj(_GZIP) if gzip else None

    def write(self, data: bytes) -> None:
        try:
            for start in range(0, len(data), _SLICE):
                self._decode(data[start : start + _SLICE])
        except zlib.error as error:
            raise BodyGarbled() from error

    def _decode(self, data: bytes) -> None:
        if self.inflate is None:
            data = self._begun = self._begun + data
            if len(data) < 2:
                return
            # Some servers send deflate without the header of zlib that RFC 9110 8.4.1.2 asks for.
            wrapped = data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0
            self.inflate = zlib.decompressobj(_ZLIB if wrapped else _RAW)
        while data and not self._padded:
            if self.inflate.eof:
                self._padded = not (self._gzip and data.startswith(b"\x1f"))
                self._members += 1
                if self._members > MEMBERS and not self._padded:
                    raise BodyGarbled(f"it has more than {MEMBERS} gzip members")
                self.inflate = self.inflate if self._padded else zlib.decompressobj(_GZIP)
                continue
            piece = self.inflate.decompress(data, _PIECE)
            data = self.inflate.unconsumed_tail or self.inflate.unused_data
            self._size += len(piece)
            self._limit.check(self._size)
            if piece:
                self._write(piece)


def decoded(data: bytes, codings: Sequence[str], limit: Limit) -> bytes:
    """
    Decode a whole body; a small one may hold much, so this may take a while.

    :param limit: for what comes out
    :raises BodyCut: if it ends before its end
    :raises BodyGarbled: if it is not what its codings say
    :raises BodyTooLong: if more comes out
    """
    pieces: list[bytes] = []
    decoder = Decoder(codings, pieces.append, limit)
    decoder.write(data)
    if not decoder.ended:
        raise BodyCut()
    return b"".join(pieces)
