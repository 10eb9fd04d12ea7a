"""Content codings: which of them change the bytes of a body, and how a body is decoded.

An upstream labels bodies in many ways. Only the codings in :data:`TRANSFORMING` change bytes, so
only these count; ``identity``, ``aws-chunked``, ``utf-8`` and the like do not. A page is decoded as
strictly as a cache must: a body that ends before its coding does is cut short. The work is linear
in the size of the body, and the members of a gzip body (RFC 1952 2.2) are limited in number.

A decoder of one coding is *within* a member, *between* two members, or *padded*: what follows the
last member is ignored, as gzip itself does.

Bodies of responses, each of which comes to an end.

Twisted leaves the end of a body to its receiver: nothing times out, nothing is capped,
and a response whose body nobody takes holds its connection for ever. Here every body ends
in one of four ways: complete, failed, timed out, or cancelled by whoever waits for it; in
the last three the connection is closed.

The head of an upstream's answer, and what its status means.
"""

from __future__ import annotations

import re
import typing
import zlib
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import AlreadyCalled, AlreadyCancelled
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


def content_codings(fields: Iterable[str]) -> tuple[str, ...]:
    """
    Give the codings in ``Content-Encoding`` that change the bytes, in the order of application.

    :param fields: the values of the header field, each of which may be a list
    """
    names = (name.strip().lower().removeprefix("x-") for each in fields for name in each.split(","))
    return tuple(name for name in names if name in TRANSFORMING)


class Decoder:
    """Decodes a body that comes in chunks.

    :param codings: as :func:`content_codings` gives them
    :param write: gets what comes out, in pieces of bounded size
    :param limit: for what comes out, also of each coding
    :raises BodyGarbled: if a coding cannot be decoded here
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
        """Whether every coding has come to its end."""
        return all(stage.inflate is not None and stage.inflate.eof for stage in self._stages)


class _Stage:
    """Decodes one coding."""

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
            # Some servers send deflate without the header of zlib that RFC 9110 8.4.1.2 asks for.
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

    :param limit: for what comes out
    :raises BodyCut: if it ends before its end
    :raises BodyGarbled: if it is not what its codings say
    :raises BodyTooLong: if more comes out
    """
    pieces: list[bytes] = []
    decoder = Decoder(codings, pieces.append, limit)
    decoder.write(data)
    if not decoder.ended:
        raise BodyTruncated()
    return b"".join(pieces)


#: Bytes of an answer nobody needs that are read to keep its connection; a longer one is closed.
DRAIN_LIMIT = 64 * 1024
#: Seconds that this may take.
DRAIN_TIME = 1.0
#: Bytes that are read from a plain connection at once. (Each time that the reactor comes back from
#: the system it may have to wait for a thread: with Twisted's own 64 KiB that is most of the time.)
READ = 512 * 1024
#: Bytes per second of which a body has to bring more, where it has to come at a pace.
MIN_RATE = 1000
#: Seconds over which the pace is measured.
STRETCH = 10.0


class Delivers(typing.Protocol):
    """A response, as far as its body goes."""

    def deliverBody(self, protocol: Any) -> None:
        """See `twisted.web.iweb.IResponse`."""


class _Receiver(Protocol):
    """Hands the chunks of one body on, and its end to a Deferred, exactly once."""

    def __init__(
        self,
        write: Callable[[bytes], object],
        clock: IReactorTime,
        idle_timeout: float,
        limit: int | None,
        stall_timeout: float | None,
    ) -> None:
        self._write = write
        self._clock = clock
        self._idle_timeout = idle_timeout
        self._left = limit
        self._stall_timeout = stall_timeout
        self._timer: IDelayedCall | None = None
        self._open = True
        self._paused = False
        self.ended: Deferred[bool] = Deferred(lambda _: self._stop(None))

    def connectionMade(self) -> None:
        connection: Any = getattr(self.transport, "_producer", self.transport)
        if hasattr(connection, "bufferSize"):
            connection.bufferSize = READ
        self._start_timer()

    def _start_timer(self) -> None:
        self._timer = self._clock.callLater(
            self._idle_timeout, lambda: self._stop(Failure(BodyTimeout()))
        )

    def dataReceived(self, data: bytes) -> None:
        if not self._open:
            return
        if self._timer is not None:
            self._timer.reset(self._idle_timeout)
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                self._stop(Failure(BodyTooLong()))
                return
        try:
            room = self._write(data)
        except Exception:  # noqa: BLE001 (whoever writes may fail in any way)
            self._stop(Failure())
            return
        # What is written may end the body: its last reader leaves.
        if self._open and isinstance(room, Deferred) and not room.called and not self._paused:
            self._pause(room)

    def _pause(self, room: Deferred[None]) -> None:
        """Read nothing more until there is room for it; that silence is nobody's fault."""
        self._paused = True
        assert self._timer is not None  # it runs whenever the body is open and not paused
        self._timer.cancel()
        self._timer = None
        if self._stall_timeout is not None:
            self._timer = self._clock.callLater(
                self._stall_timeout, lambda: self._stop(Failure(BodyStalled(room)))
            )
        self.transport.pauseProducing()  # type: ignore[union-attr]
        room.addCallback(self._resume)

    def _resume(self, _: object) -> None:
        self._paused = False
        if self._open:
            if self._timer is not None:
                self._timer.cancel()
            self._start_timer()
            self.transport.resumeProducing()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = Failure(ResponseDone())) -> None:  # noqa: B008
        if not self._open:
            return
        self._close()
        if reason.check(ResponseDone):
            self.ended.callback(True)
        elif reason.check(PotentialDataLoss):
            self.ended.callback(False)
        else:
            self.ended.errback(Failure(BodyTruncated()))

    def fail(self, failure: Failure) -> None:
        """End the body from this side with an error."""
        self._stop(failure)

    def _stop(self, failure: Failure | None) -> None:
        """End the body from this side: close the connection and report `failure`, if any."""
        if not self._open:
            return
        self._close()
        # Twisted's proxy of the transport can only lose the connection, and over TLS that waits
        # for the peer: one that is silent would keep it for ever.
        connection = getattr(self.transport, "_producer", self.transport)
        if connection is not None:
            getattr(connection, "abortConnection", connection.loseConnection)()
        if failure is not None:
            self.ended.errback(failure)

    def _close(self) -> None:
        self._open = False
        if self._timer is not None:
            try:
                self._timer.cancel()
            except (AlreadyCalled, AlreadyCancelled):
                pass  # the timer itself is what ends the body


def receive(
    response: Delivers,
    write: Callable[[bytes], object],
    *,
    clock: IReactorTime,
    idle_timeout: float,
    limit: int | None = None,
    stall_timeout: float | None = None,
) -> Deferred[bool]:
    """
    Give each chunk of a body to `write`.

    :param write: may give a Deferred; until it has its result nothing more is read
    :param idle_timeout: seconds between two chunks
    :param limit: the most bytes that may come
    :param stall_timeout: seconds for which `write` may have nothing more read, ``None``: any time
    :return: a Deferred of whether the end was announced (by length or chunks); ``False`` means
        that the connection just closed, which may be the end or not. It fails with
        :class:`BodyTimeout`, :class:`BodyTooLong`, :class:`BodyTruncated`, :class:`BodyStalled`,
        or with what `write` raised. Cancelling it closes the connection.
    """
    receiver = _Receiver(write, clock, idle_timeout, limit, stall_timeout)
    try:
        response.deliverBody(receiver)
    except Exception:  # noqa: BLE001 (what is between may refuse what came with the head)
        receiver.fail(Failure())
    return receiver.ended


@attrs.frozen
class SizeLimit:
    """The most bytes that a body may bring.

    :ivar setting: the variable that says so, if one does
    """

    size: int
    setting: str | None = None

    def check(self, size: int) -> None:
        """:raises BodyTooLong: if a body of so many bytes is too long."""
        if size > self.size:
            raise BodyTooLong(f"{self.setting} allows {self.size} bytes" if self.setting else "")


class Sink:
    """Takes a body: checks its size and its pace, and tells its own errors from others.

    :param clock: measures the pace, if the body has to come at one
    """

    def __init__(
        self, write: Callable[[bytes], object], limit: SizeLimit | None, clock: IReactorTime | None
    ) -> None:
        self._write = write
        self._limit = limit
        self._clock = clock
        self._since = clock.seconds() if clock is not None else 0.0
        self._size = self._stretch = 0
        self.error: Exception | None = None

    def write(self, data: bytes) -> object:
        """
        Hand bytes on.

        :raises BodyTooLong: if they are too many
        :raises BodyTimeout: if they come too slowly
        """
        self._size += len(data)
        self._stretch += len(data)
        if self._clock is not None and (seconds := self._clock.seconds() - self._since) >= STRETCH:
            if self._stretch < MIN_RATE * seconds:
                raise BodyTimeout()
            self._since += seconds
            self._stretch = 0
        if self._limit is not None:
            self._limit.check(self._size)
        try:
            return self._write(data)
        except Exception as error:
            self.error = error
            raise


def discard(response: Delivers, *, clock: IReactorTime, idle_timeout: float) -> Deferred[object]:
    """Let go of a body nobody needs; give a Deferred of when its connection is free or closed."""
    ended = receive(
        response, lambda data: None, clock=clock, idle_timeout=idle_timeout, limit=DRAIN_LIMIT
    )
    ended.addTimeout(DRAIN_TIME, clock)
    return ended.addErrback(lambda _: None)  # it is of no interest how an unwanted body ends


#: A length that somebody may mean; Python refuses numbers of thousands of digits.
_NUMBER = re.compile("[0-9]{1,18}")
_CONTENT_RANGE = re.compile(
    r"\s*bytes\s+(\d{1,18})-(\d{1,18})/(\d{1,18}|\*)\s*", re.IGNORECASE | re.ASCII
)
#: Where the content codings of a page are kept from treq.
ENCODING = b"X-Proxpi-Content-Encoding"


class Once:
    """A response that knows whether its body was taken."""

    def __init__(self, response: IResponse) -> None:
        self._response = response
        self.delivered = False

    def deliverBody(self, protocol: Any) -> None:
        """Deliver the body as the response itself would."""
        self.delivered = True
        self._response.deliverBody(protocol)

    @property
    def length(self) -> int | None:
        """Bytes that are announced to come."""
        return self._response.length if isinstance(self._response.length, int) else None


@attrs.frozen
class Response:
    """The head of an upstream's answer; its body has not been taken yet.

    :ivar url: where the answer came from, after redirects, without credentials
    """

    method: str
    url: str
    status: int
    headers: Headers
    response: Once

    def header(self, name: str) -> str | None:
        """Give the last value of a header field."""
        values = self.headers.getRawHeaders(name.encode("ascii"))
        return values[-1].decode("latin-1") if values else None

    @property
    def codings(self) -> tuple[str, ...]:
        """The content codings that change the bytes of the body, in the order of application."""
        fields = [
            value.decode("latin-1")
            for name in (b"Content-Encoding", ENCODING)
            for value in self.headers.getRawHeaders(name, [])
        ]
        return content_codings(fields)

    @property
    def length(self) -> int | None:
        """Bytes that the body is announced to have, or would have if it were asked for."""
        # Twisted leaves the field in place only where no body follows: in an answer to HEAD.
        if self.method != "HEAD":
            return self.response.length
        announced = self.header("Content-Length")
        return int(announced) if announced and _NUMBER.fullmatch(announced) else None

    def status_error(self) -> UpstreamFailed:
        """Say why an answer of this status is of no use."""
        if self.status in (401, 403):
            cause = f"credentials rejected (status {self.status})"
            return CredentialsRejected(self.url, cause, temporary=False)
        return UpstreamFailed(
            self.url,
            f"status {self.status}",
            temporary=self.status in (408, 425, 429) or self.status >= 500,
            retry_after=_seconds(self.header("Retry-After")),
            scope="rate limit" if self.status == 429 else "resource",
        )


@attrs.frozen
class ContentRange:
    """What a 206 says that it has: bytes from `start` to before `stop` of so many, if it knows."""

    start: int
    stop: int
    size: int | None

    @classmethod
    def of(cls, answer: Response) -> ContentRange | None:
        """Read it from an answer that is a single range of the bytes as they are."""
        match = _CONTENT_RANGE.fullmatch(answer.header("Content-Range") or "")
        if answer.status != 206 or match is None or answer.codings:
            return None
        start, last, size = match.groups()
        found = cls(int(start), int(last) + 1, None if size == "*" else int(size))
        return found if answer.length in (None, found.stop - found.start) else None


def _seconds(retry_after: str | None) -> float | None:
    """Read ``Retry-After``: seconds or a date (RFC 9110 10.2.3)."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return min(float(retry_after), 86_400.0)  # a number of any length may come
    date = parse_date(retry_after)
    return max(0.0, (date - datetime.now(UTC)).total_seconds()) if date else None
