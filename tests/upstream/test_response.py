"""Heads and bodies of responses: lengths, ends of a body, content codings."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers

from proxpi.upstream.errors import (
    BodyStalled,
    BodyTooLong,
    BodyTruncated,
    BodyUndecodable,
    CredentialsRejected,
    UpstreamFailed,
)
from proxpi.upstream.response import (
    CODINGS,
    DISCARD_LIMIT,
    DISCARD_TIME,
    MEMBERS,
    MIN_RATE,
    RATE_WINDOW,
    Decoder,
    Response,
    SizeLimit,
    decode,
    discard_body,
    read_body,
)
from tests.support.cases import Case, run
from tests.support.growth import assert_linear
from tests.support.indexes import Network

URL = "http://files.example/demo.whl"
DATA = b"a page" * 1000
LIMIT = SizeLimit(64 * 1024 * 1024)
IDLE = 20.0


class Original:
    """A response of Twisted whose body the test sends."""

    def __init__(self, code: int = 200, length: Any = None, **fields: str) -> None:
        self.code, self.length = code, length
        self.headers = Headers({name.replace("_", "-"): [v] for name, v in fields.items()})
        self.transport = StringTransportWithDisconnection()
        self.transport.protocol = Protocol()

    def deliverBody(self, protocol: Protocol) -> None:
        self.reader = protocol
        protocol.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        self.reader.dataReceived(data)

    def end(self, reason: Exception | None = None) -> None:
        self.reader.connectionLost(Failure(reason or ResponseDone()))

    @property
    def closed(self) -> bool:
        return not self.transport.connected


def response(original: Original, method: str = "GET") -> Response:
    fake: Any = original
    return Response(method, URL, fake)


class HeadTests(Case):
    def test_lengths(self) -> None:
        """A length is known where it is announced, whether a body follows or not."""
        fields: list[tuple[str, bytes, int | None]] = [
            ("HEAD", b"Content-Length: " + odd, None) for odd in (b"9" * 5000, b"9" * 19, b"0x11")
        ]
        for method in ("GET", "HEAD"):
            fields += [(method, b"Content-Length: %d" % number, number) for number in (0, 17)]
            fields += [(method, b"Transfer-Encoding: chunked", None), (method, b"Server: x", None)]
        for method, field, length in fields:
            network = Network()

            async def request(network: Network = network, method: str = method) -> int | None:
                async with network.upstream.file(URL, {}, method) as head:
                    return head.length

            asked = run(request())
            network.accept().send(b"HTTP/1.1 200 OK\r\n" + field + b"\r\n\r\n")
            assert self.result(asked) == length, (method, field)

    def test_status_errors(self) -> None:
        """A status says whether waiting may help, and what it concerns; ``Retry-After`` when."""
        for status, temporary in {
            **dict.fromkeys((401, 403, 404), False),
            **dict.fromkeys((408, 425, 429, 500), True),
        }.items():
            error = response(Original(status)).status_error()
            assert error.temporary is temporary, status
            assert error.scope == ("rate limit" if status == 429 else "resource")
            assert isinstance(error, CredentialsRejected) == (status in (401, 403))
            assert error.retry_after is None
        for field, seconds in {
            "17": 17.0,
            "9" * 5000: 86_400.0,
            "Mon, 01 Jan 2024 00:00:00 GMT": 0.0,
            "soon": None,
            "-1": None,
        }.items():
            error = response(Original(503, Retry_After=field)).status_error()
            assert error.retry_after == seconds, field


class BodyTests(Case):
    def setUp(self) -> None:
        self.clock = Clock()
        self.original = Original()
        self.chunks: list[bytes] = []

    def read(
        self, write: Callable[[bytes], object] | None = None, **options: Any
    ) -> Deferred[bool]:
        write = write or self.chunks.append
        options |= {"clock": self.clock, "idle_timeout": IDLE}
        return run(read_body(response(self.original), write, **options))

    def assert_over(self, *, closed: bool) -> None:
        """Check the connection; no timer is left, and nothing that comes later matters."""
        assert self.original.closed == closed
        assert self.clock.getDelayedCalls() == []
        chunks = list(self.chunks)
        self.original.send(b"late")
        self.original.end(ConnectionDone())
        assert self.chunks == chunks

    def test_ends(self) -> None:
        """A body is whole, may be whole, or is truncated; its connection is left alone."""
        for reason, ended in (
            (ResponseDone(), True),
            (PotentialDataLoss(), False),
            (ResponseFailed([Failure(ConnectionDone())]), None),
        ):
            self.original, self.chunks = Original(), []
            read = self.read()
            self.original.send(b"one")
            self.original.send(b"two")
            self.pending(read)
            self.original.end(reason)
            if ended is None:
                assert self.error(read, UpstreamFailed).cause == "the answer was cut short"
            else:
                assert self.result(read) is ended
            assert self.chunks == [b"one", b"two"]
            self.assert_over(closed=False)

    def test_idle(self) -> None:
        """Each chunk gives the upstream the idle timeout again; after it the body has failed."""
        read = self.read()
        for _ in range(3):
            self.clock.advance(IDLE - 0.1)
            self.original.send(b"x")
        self.clock.advance(IDLE - 0.1)
        self.pending(read)
        self.clock.advance(0.2)
        error = self.error(read, UpstreamFailed)
        assert (error.cause, error.temporary, error.url) == ("timed out", True, URL)
        self.assert_over(closed=True)

    def test_limit(self) -> None:
        """A body may have as many bytes as the limit, whether announced or not."""
        limit = SizeLimit(4, "PROXPI_PAGE_LIMIT")
        read = self.read(limit=limit)
        self.original.send(b"1234")
        self.pending(read)
        self.original.send(b"5")
        error = self.error(read, UpstreamFailed)
        assert error.cause == "the answer is too long: PROXPI_PAGE_LIMIT allows 4 bytes"
        assert (self.chunks, error.temporary) == ([b"1234"], False)
        self.assert_over(closed=True)
        self.original = Original(length=5)
        self.error(self.read(limit=limit), UpstreamFailed)

    def test_deadline(self) -> None:
        """A body with a deadline fails at it, or when it brings less than the minimum rate."""
        for chunk, failed_after in ((MIN_RATE, 60), (MIN_RATE - 1, RATE_WINDOW)):
            self.original = Original()
            began, read = self.clock.seconds(), self.read(deadline=60.0)
            while not read.called:
                self.clock.advance(1)
                self.original.send(b"x" * chunk)
            assert self.clock.seconds() - began == failed_after
            assert self.error(read, UpstreamFailed).cause == "timed out"
            self.assert_over(closed=True)

    def test_write_fails(self) -> None:
        """An error of `write` goes through, even one that is an error of bodies elsewhere."""
        for error in (OSError("disk full"), BodyTooLong()):

            def full(data: bytes, error: Exception = error) -> None:
                raise error

            self.original = Original()
            read = self.read(full)
            self.original.send(b"one")
            assert self.error(read, type(error)) is error
            self.assert_over(closed=True)

        # It may also cancel the body, and then fail or wait; neither matters.
        reads: list[Deferred[bool]] = []
        for then in (lambda: 1 / 0, Deferred):

            def enough(data: bytes, then: Callable[[], object] = then) -> object:
                reads[-1].cancel()
                return then()

            self.original = Original()
            reads.append(self.read(enough))
            self.original.send(b"one")
            self.error(reads[-1], CancelledError)
            self.assert_over(closed=True)

    def test_backpressure(self) -> None:
        """While `write` waits nothing is read, and that silence is not the upstream's.

        A consumer that takes no bytes for too long loses the connection, not its wait.
        """
        space: Deferred[None] = Deferred()
        read = self.read(lambda data: space)
        self.original.send(b"one")
        assert self.original.transport.producerState == "paused"
        self.clock.advance(10 * IDLE)
        space.callback(None)
        assert self.original.transport.producerState == "producing"
        self.clock.advance(IDLE + 1)
        assert self.error(read, UpstreamFailed).cause == "timed out"
        space, self.original = Deferred(), Original()
        read = self.read(lambda data: space, stall_timeout=5.0)
        self.original.send(b"one")
        self.clock.advance(4.9)
        assert not self.original.closed
        self.clock.advance(0.2)
        assert self.error(read, BodyStalled).drained is space
        space.callback(None)
        self.assert_over(closed=True)

    def test_discard(self) -> None:
        """An unwanted body is read if it is short and quick; else its connection is closed."""
        discarded: list[None] = []
        for data, seconds, closed in (
            (b"x" * DISCARD_LIMIT, 0.0, False),
            (b"x" * (DISCARD_LIMIT + 1), 0.0, True),
            (b"x", DISCARD_TIME, True),
        ):
            self.original = Original()
            discarded.clear()
            discard_body(response(self.original), self.clock, lambda: discarded.append(None))
            self.original.send(data)
            self.clock.advance(seconds)
            if not closed:
                self.original.end()
            assert discarded == [None]
            self.assert_over(closed=closed)
        assert self.unhandled() == []


def deflated(data: bytes, window: int) -> bytes:
    deflate = zlib.compressobj(wbits=window)
    return deflate.compress(data) + deflate.flush()


def zipped(data: bytes) -> bytes:
    """Compress without a time: the bytes name tests, in several processes."""
    return gzip.compress(data, mtime=0)


def test_content_codings() -> None:
    """Only gzip, deflate, br and zstd change bytes, in any case and in any list."""
    assert response(Original()).codings == ()
    for fields, codings in {
        ("", "identity", "aws-chunked", "Binary", " UTF-8 "): "",
        ("none", "utf8", "8bit", "text/plain", "null", "x-identity", ","): "",
        ("X-GZip",): "gzip",
        ("AWS-Chunked,GZIP",): "gzip",
        ("identity", "Deflate"): "deflate",
        ("gzip,,br ", "zstd"): "gzip br zstd",
    }.items():
        original = Original()
        original.headers.setRawHeaders("Content-Encoding", fields)
        assert response(original).codings == tuple(codings.split())


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
def test_decode(body: bytes, codings: Sequence[str], chunk: int) -> None:
    """Codings are undone from the last to the first, however the body is cut into chunks."""
    pieces: list[bytes] = []
    decoder = Decoder(codings, pieces.append, LIMIT)
    for start in range(0, len(body), chunk):
        decoder.write(body[start : start + chunk])
    assert b"".join(pieces) == DATA
    assert decoder.ended


def test_truncated() -> None:
    """A body that ends before its coding does is truncated."""
    for coding, body in (("gzip", gzip.compress(DATA)), ("deflate", zlib.compress(DATA))):
        second_member = body + body[:-3] if coding == "gzip" else b"x"
        for truncated in (*(body[:end] for end in (0, 1, 5, len(body) - 1)), second_member):
            with pytest.raises(BodyTruncated):
                decode(truncated, (coding,), LIMIT)


def test_undecodable() -> None:
    """An unknown coding, too many, and a body that is not what its coding says are refused."""
    for codings, why in {
        ("br",): "br",
        ("gzip", "zstd"): "zstd",
        ("gzip",) * (CODINGS + 1): str(CODINGS + 1),
        ("gzip",): "^$",
        ("deflate",): "^$",
    }.items():
        with pytest.raises(BodyUndecodable, match=why):
            decode(DATA, codings, LIMIT)


def test_limits() -> None:
    """Decoded bytes are limited, those of an inner coding too, and the members of a gzip body."""
    bomb = gzip.compress(bytes(10_000))
    assert len(decode(bomb, ("gzip",), SizeLimit(10_000))) == 10_000
    twice = gzip.compress(gzip.compress(DATA) + bytes(20_000))
    for body, codings in ((bomb, ("gzip",)), (twice, ("gzip", "gzip"))):
        with pytest.raises(BodyTooLong):
            decode(body, codings, SizeLimit(9_999))
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
    errors = (BodyUndecodable, BodyTruncated)
    assert_linear(lambda body: decode(body, (coding,), LIMIT), made, 5000, errors)
