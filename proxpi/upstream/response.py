"""Responses of upstreams: the head and what its status means, the body and its content codings.

Twisted leaves the end of a body to its reader: nothing times out, nothing is limited, and a
response whose body is not read holds its connection for ever. Here :func:`read_body` ends every
body: complete, failed, timed out, or cancelled; in the last three the connection is closed. A body
is *open*; *paused* while its consumer takes no bytes; then *ended*.

Of the labels in ``Content-Encoding`` only :data:`TRANSFORMING` count; ``identity``, ``aws-chunked``
and the like change no bytes. A body that ends before its coding does is truncated. Decoding is
linear in the size of the body; a decoder is *within* a gzip member (RFC 1952 2.2), *between* two,
or *padded*: what follows the last member is ignored, as gzip itself does.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse
from werkzeug.http import parse_date

from proxpi.upstream.errors import (
    BodyStalled,
    BodyTimeout,
    BodyTooLong,
    BodyTruncated,
    BodyUndecodable,
    CredentialsRejected,
    UpstreamFailed,
    failure_kind,
    on_timeout,
    upstream_failed,
)

#: The codings that change the bytes of a body (RFC 9110 8.4.1, RFC 7932, RFC 8878).
TRANSFORMING = frozenset({"gzip", "deflate", "br", "zstd"})
#: Members of a gzip body; an empty one costs far more time than its bytes suggest.
MEMBERS = 4096
#: Codings that one body may have, one applied after the other.
CODINGS = 3
_GZIP, _ZLIB, _RAW = 31, 15, -15  # window bits of zlib
_PIECE = 1 << 20
_SLICE = 16 * 1024  # zlib copies the rest of its input at the end of each member and each piece


class Decoder:
    """Decodes a body that comes in chunks, in pieces of bounded size.

    :param limit: for the decoded bytes, of each coding
    :raises BodyUndecodable: if a coding cannot be decoded here
    """

    def __init__(
        self, codings: Sequence[str], write: Callable[[bytes], object], limit: SizeLimit
    ) -> None:
        if len(codings) > CODINGS:
            raise BodyUndecodable(f"it has {len(codings)} content codings")
        if unknown := [each for each in codings if each not in ("gzip", "deflate")]:
            raise BodyUndecodable(f"its content coding is {unknown[0]}, which was not asked for")
        self._stages: list[_Stage] = []
        for coding in codings:
            self._stages.append(_Stage(coding == "gzip", write, limit))
            write = self._stages[-1].write
        self.write = write
        """Take encoded bytes; may raise :class:`BodyUndecodable` and :class:`BodyTooLong`."""

    @property
    def ended(self) -> bool:
        return all(stage.inflate is not None and stage.inflate.eof for stage in self._stages)


class _Stage:
    def __init__(self, gzip: bool, write: Callable[[bytes], object], limit: SizeLimit) -> None:
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
            raise BodyUndecodable() from error

    def _decode(self, data: bytes) -> None:
        if self.inflate is None:
            data = self._begun = self._begun + data
            if len(data) < 2:
                return
            # Some servers send deflate without the zlib header that RFC 9110 8.4.1.2 demands.
            wrapped = data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0
            self.inflate = zlib.decompressobj(_ZLIB if wrapped else _RAW)
        while data and not self._padded:
            if self.inflate.eof:
                self._padded = not (self._gzip and data.startswith(b"\x1f"))
                self._members += 1
                if self._members > MEMBERS and not self._padded:
                    raise BodyUndecodable(f"it has more than {MEMBERS} gzip members")
                self.inflate = self.inflate if self._padded else zlib.decompressobj(_GZIP)
                continue
            piece = self.inflate.decompress(data, _PIECE)
            data = self.inflate.unconsumed_tail or self.inflate.unused_data
            self._size += len(piece)
            self._limit.check(self._size)
            if piece:
                self._write(piece)


def decode(data: bytes, codings: Sequence[str], limit: SizeLimit) -> bytes:
    """
    Decode a whole body; a small one may hold much, so this may take a while.

    :raises BodyTruncated: if a coding does not come to its end
    :raises BodyUndecodable: if the body is not what its codings say
    :raises BodyTooLong: if the decoded body is too long
    """
    pieces: list[bytes] = []
    decoder = Decoder(codings, pieces.append, limit)
    decoder.write(data)
    if not decoder.ended:
        raise BodyTruncated()
    return b"".join(pieces)


#: Bytes, and seconds, of an unwanted body that is read to keep its connection; else it is closed.
DISCARD_LIMIT = 64 * 1024
DISCARD_TIME = 1.0
#: Bytes per second of a body that has a deadline, measured over :data:`RATE_WINDOW` seconds.
MIN_RATE = 1000
RATE_WINDOW = 10.0


@attrs.frozen
class SizeLimit:
    """The most bytes that a body may have, and the variable that sets the limit."""

    size: int
    setting: str | None = None

    def check(self, size: int) -> None:
        """:raises BodyTooLong: if a body of so many bytes is too long."""
        if size > self.size:
            raise BodyTooLong(f"{self.setting} allows {self.size} bytes" if self.setting else "")


async def read_body(
    response: Response,
    write: Callable[[bytes], object],
    *,
    clock: IReactorTime,
    idle_timeout: float,
    limit: SizeLimit | None = None,
    deadline: float | None = None,
    stall_timeout: float | None = None,
) -> bool:
    """
    Pass each chunk of a body, as it is encoded, to `write`; errors of `write` go through.

    :param write: may return a Deferred; until it fires nothing more is read
    :param idle_timeout: seconds between two chunks
    :param deadline: seconds for the whole body, which then must also keep :data:`MIN_RATE`
    :param stall_timeout: seconds for which `write` may stop the reading; ``None``: any time
    :return: whether the end was announced (by length or chunks); ``False`` means that the
        connection just closed, which may be the end or not
    :raises UpstreamFailed: if the body is truncated, too long, or silent or slow for too long
    :raises BodyStalled: if nothing more was to be read for too long
    """
    reader = _BodyReader(write, clock, idle_timeout, limit, stall_timeout, deadline is not None)
    try:
        if limit is not None:
            limit.check(response.length or 0)
        response.deliver_body(reader)
        if deadline is not None:
            reader.ended.addTimeout(deadline, clock, on_timeout(BodyTimeout))
        return await reader.ended
    except (CancelledError, BodyStalled):
        raise
    except Exception as error:
        if error is reader.write_error:
            raise
        raise upstream_failed(response.url, error) from error


def discard_body(
    response: Response, clock: IReactorTime, then: Callable[[], object] = lambda: None
) -> None:
    """Read a body that is not wanted; call `then` once its connection is free or closed."""
    limit = SizeLimit(DISCARD_LIMIT)
    reader = _BodyReader(lambda data: None, clock, DISCARD_TIME, limit)
    response.deliver_body(reader)
    reader.ended.addTimeout(DISCARD_TIME, clock).addBoth(lambda _: then())


@attrs.define(eq=False, slots=False)
class _BodyReader(Protocol):
    _write: Callable[[bytes], object]
    _clock: IReactorTime
    _idle_timeout: float
    _limit: SizeLimit | None
    _stall_timeout: float | None = None
    _keeps_rate: bool = False
    transport: Any = attrs.field(init=False)
    write_error: Exception | None = attrs.field(init=False, default=None)
    ended: Deferred[bool] = attrs.field(init=False)
    _timer: IDelayedCall | None = attrs.field(init=False, default=None)
    _size: int = attrs.field(init=False, default=0)
    _window_size: int = attrs.field(init=False, default=0)
    _open: bool = attrs.field(init=False, default=True)
    _paused: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._window_began = self._clock.seconds()
        self.ended = Deferred(lambda _: self._stop(None))

    def connectionMade(self) -> None:
        self._start_timer(self._idle_timeout, BodyTimeout())

    def _start_timer(self, seconds: float, error: Exception) -> None:
        self._timer = self._clock.callLater(seconds, self._stop, error)

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def dataReceived(self, data: bytes) -> None:
        if not self._open:
            return
        if self._timer is not None and not self._paused:
            self._timer.reset(self._idle_timeout)
        try:
            self._check(len(data))
        except (BodyTooLong, BodyTimeout) as error:
            self._stop(error)
            return
        try:
            space = self._write(data)
        except Exception as error:  # noqa: BLE001 (a consumer may fail in any way)
            self.write_error = error
            self._stop(error)
            return
        # A write may end the body: its last reader leaves.
        if self._open and isinstance(space, Deferred) and not space.called and not self._paused:
            # Nothing more is read until there is space; that silence is not the upstream's.
            self._paused = True
            self._stop_timer()
            if self._stall_timeout is not None:
                self._start_timer(self._stall_timeout, BodyStalled(space))
            self.transport.pauseProducing()
            space.addCallback(self._resume)

    def _check(self, received: int) -> None:
        self._size += received
        self._window_size += received
        seconds = self._clock.seconds() - self._window_began
        if self._keeps_rate and seconds >= RATE_WINDOW:
            if self._window_size < MIN_RATE * seconds:
                raise BodyTimeout()
            self._window_began += seconds
            self._window_size = 0
        if self._limit is not None:
            self._limit.check(self._size)

    def _resume(self, _: object) -> None:
        self._paused = False
        if self._open:
            self._stop_timer()
            self._start_timer(self._idle_timeout, BodyTimeout())
            self.transport.resumeProducing()

    def connectionLost(self, reason: Failure = Failure(ResponseDone())) -> None:  # noqa: B008
        if not self._open:
            return
        self._open = False
        self._stop_timer()
        if reason.check(ResponseDone, PotentialDataLoss):
            self.ended.callback(reason.check(ResponseDone) is not None)
        else:
            self.ended.errback(BodyTruncated())

    def _stop(self, error: Exception | None) -> None:
        """Close the connection, and fail with an error unless the reader was cancelled."""
        if not self._open:
            return
        self._open = False
        self._stop_timer()
        self.transport.loseConnection()
        if error is not None:
            self.ended.errback(error)


#: A plausible length; Python refuses numbers of thousands of digits.
_NUMBER = re.compile("[0-9]{1,18}")
_CONTENT_RANGE = re.compile(
    r"\s*bytes\s+(\d{1,18})-(\d{1,18})/(\d{1,18}|\*)\s*", re.IGNORECASE | re.ASCII
)


@attrs.define(eq=False)
class Response:
    """A response of an upstream, whose body is read at most once.

    :ivar url: after redirects, without credentials
    :ivar index: the name of the index for which its bytes are counted; ``""``: none
    """

    method: str
    url: str
    _original: IResponse
    index: str = ""
    delivered: bool = attrs.field(init=False, default=False)

    @property
    def status(self) -> int:
        return int(self._original.code)

    @property
    def headers(self) -> Headers:
        headers: Headers = self._original.headers
        return headers

    def deliver_body(self, protocol: Protocol) -> None:
        self.delivered = True
        self._original.deliverBody(protocol)

    def header(self, name: str) -> str | None:
        values = self.headers.getRawHeaders(name.encode("ascii"))
        return values[-1].decode("latin-1") if values else None

    @property
    def codings(self) -> tuple[str, ...]:
        """The content codings that change the bytes of the body, in the order of application."""
        fields = b",".join(self.headers.getRawHeaders(b"Content-Encoding", [])).decode("latin-1")
        names = (name.strip().lower().removeprefix("x-") for name in fields.split(","))
        return tuple(name for name in names if name in TRANSFORMING)

    @property
    def length(self) -> int | None:
        """The announced length of the body in bytes, also of a response to HEAD."""
        # Twisted leaves the header field in place only where no body follows.
        if self.method != "HEAD":
            length = self._original.length
            return length if isinstance(length, int) else None
        announced = self.header("Content-Length")
        return int(announced) if announced and _NUMBER.fullmatch(announced) else None

    def status_error(self) -> UpstreamFailed:
        if self.status in (401, 403):
            cause = f"credentials rejected (status {self.status})"
            return CredentialsRejected(self.url, cause, temporary=False)
        return UpstreamFailed(
            self.url,
            f"status {self.status}",
            temporary=self.status in (408, 425, 429) or self.status >= 500,
            retry_after=self._retry_after(),
            kind=failure_kind(self.status),
            scope="rate limit" if self.status == 429 else "resource",
        )

    def _retry_after(self) -> float | None:
        """Read ``Retry-After``: seconds or a date (RFC 9110 10.2.3)."""
        text = (self.header("Retry-After") or "").strip()
        if text.isdecimal():
            return min(float(text), 86_400.0)  # a number of any length may come
        date = parse_date(text)
        return max(0.0, (date - datetime.now(UTC)).total_seconds()) if date else None


@attrs.frozen
class ContentRange:
    """The range of a 206: bytes from `start` to before `stop`, of `size` if that is known."""

    start: int
    stop: int
    size: int | None

    @classmethod
    def of(cls, response: Response) -> ContentRange | None:
        """Read it from a response; ``None`` unless that is a single range without a coding."""
        match = _CONTENT_RANGE.fullmatch(response.header("Content-Range") or "")
        if response.status != 206 or match is None or response.codings:
            return None
        start, last, size = match.groups()
        found = cls(int(start), int(last) + 1, None if size == "*" else int(size))
        return found if response.length in (None, found.stop - found.start) else None
