"""Responses: what an upstream's response to a request for a file, or for a part, is good for.

These functions are pure: they see a reference and the head of a response, and decide.

A response is *gone* (403, 404, 410), *whole* (200, 203, or a 206 of all bytes), a *part* (a 206 of
some bytes), or a refusal. A whole response is *doubtful* if it has another size than the index
states, is encoded, or says that it is a page: only a digest tells whether it is the file. Core
metadata and signatures alone are decoded; without a digest, any other encoded response is refused.

The resumable fetch: the bytes of one file from upstream into a spool, in one or more responses.

Each attempt is one of

* *first*: nothing has arrived yet; the response begins the spool;
* *resumed*: the bytes that are missing are asked for (``Range`` and ``If-Range``, RFC 9110 13.1.5
  and 14.2), and a part that proves to be of the same version is appended;
* *compared*: the upstream sends the file from its first byte again, because it knows no ranges,
  refused this one, or gave a part that does not fit. The bytes that arrived before are compared
  with it. The response must reach the old length; what exceeds it is appended.

So bytes of two versions are never mixed: a response that differs, or is shorter, restarts the
spool. A URL that stops being valid on the way (signed URLs expire) is replaced by that of a fresh
page. Between two attempts the fetch may be *parked*: the client reads nothing for 5 seconds; the
connection is closed, and the fetch resumes once the client reads. A response that says it is HTML
is held back until its first bytes show an archive.
"""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from datetime import timedelta
from enum import Enum, auto
from typing import TypeVar

import attrs
from twisted.internet.task import deferLater
from twisted.logger import Logger
from werkzeug.http import parse_date

from proxpi import metrics
from proxpi.files.resolver import FileReference, Gone
from proxpi.files.spool import Spool
from proxpi.files.verify import Mismatch
from proxpi.upstream.client import UpstreamClient
from proxpi.upstream.errors import (
    BodyStalled,
    BodyTooLong,
    BodyTruncated,
    BodyUndecodable,
    Offline,
    UpstreamFailed,
)
from proxpi.upstream.response import ContentRange, Response, SizeLimit, decode

#: Statuses that say that there is no file, or not any more.
GONE = (403, 404, 410)
#: How the files of packages begin: archives, core metadata, signatures.
_BEGINNINGS = (
    b"PK\3\4",
    b"PK\5\6",
    b"\x1f\x8b",
    b"\x1f\x9d",
    b"BZh",
    b"\xfd7zXZ\0",
    b"\x28\xb5\x2f\xfd",
    b"MZ",
    b"Metadata-Version:",
    b"-----BEGIN PGP",
)
#: Where a tar archive says that it is one.
_TAR = slice(257, 262)


class Use(Enum):
    """What a response to a request for the rest of a file is good for."""

    #: Nothing lies there; a fresh page may have another reference.
    GONE = auto()
    #: It is the whole file; what arrived before is compared with it.
    WHOLE = auto()
    #: It is the rest, of the same version.
    APPEND = auto()
    #: It is of no use; the whole file is asked for.
    NONE = auto()


def use_of_rest(
    reference: FileReference,
    answer: Response,
    arrived: int,
    total: int | None,
    validator: str | None,
) -> Use:
    """
    Decide what a response to a request for the rest of a file is good for.

    :param arrived: bytes that have arrived
    :param total: bytes that the upstream said the file has
    :param validator: what tells the version that has begun to arrive
    """
    if answer.status in GONE:
        return Use.GONE
    if is_whole(reference, answer):
        return Use.WHOLE
    part, sure = ContentRange.of(answer), reference.digest is None
    if part is None or part.start != arrived or not may_be_same(part.size, arrived, total):
        return Use.NONE
    # Where nobody tells how long the file is, a part may be any part of the rest.
    if sure and part.size is None and total is None:
        return Use.NONE
    return Use.APPEND if belongs(answer, validator, sure=sure) else Use.NONE


def may_be_same(size: int | None, arrived: int, total: int | None) -> bool:
    """Tell whether a version of so many bytes may be the one that has begun to arrive."""
    return size is None or (size >= arrived and total in (None, size))


def begins_as_file(data: bytes) -> bool:
    """Tell whether the first bytes, some hundreds of them, are those of a package's file."""
    return data.startswith(_BEGINNINGS) or data[_TAR] == b"ustar"


def is_whole(reference: FileReference, answer: Response) -> bool:
    """Tell whether an answer has all of a file: also a 206 that nobody asked for may."""
    if answer.status in (200, 203):
        return True
    part = ContentRange.of(answer)
    size = reference.size if part is None or part.size is None else part.size
    return part is not None and part.start == 0 and part.stop == size


def length_of(answer: Response) -> int | None:
    """Give the bytes of the file that an answer has all of, if it tells."""
    part = ContentRange.of(answer)
    return answer.length if part is None else part.stop


def check_head(reference: FileReference, answer: Response) -> bool:
    """
    Check the head of a response that should be the whole file.

    :return: whether it is doubtful, so that readers have to wait until it is verified
    :raises Gone: if the upstream has none
    :raises UpstreamFailed: if this is not the file
    """
    if answer.status in GONE:
        raise Gone(reference, answer.status)
    if not is_whole(reference, answer):
        raise answer.status_error()
    size, page = length_of(answer), says_page(reference, answer)
    other_size = reference.size is not None and size not in (None, reference.size)
    if reference.digest is None and answer.codings and not reference.is_companion:
        cause = f"it is encoded ({', '.join(answer.codings)}), unasked"
        raise UpstreamFailed(answer.url, cause, kind="encoded")
    if reference.digest is None and other_size and page:
        raise UpstreamFailed(answer.url, "it is an HTML page", kind="page")
    if reference.digest is None and other_size:
        raise UpstreamFailed(
            answer.url, f"it has {size} bytes, not {reference.size}", kind="length"
        )
    return other_size or page or bool(answer.codings)


def says_page(reference: FileReference, answer: Response) -> bool:
    """Tell whether a response says that it is an HTML page, but the file is none."""
    content_type = (answer.header("Content-Type") or "").lower()
    return content_type.startswith("text/html") and not reference.url.endswith((".html", ".htm"))


def validators_of(answer: Response) -> tuple[str, str]:
    """Give the entity tag and the date of the last change, as they stand; empty if missing."""
    return answer.header("ETag") or "", answer.header("Last-Modified") or ""


def belongs(answer: Response, validator: str | None, *, sure: bool) -> bool:
    """
    Tell whether a part is one of the version that `validator` was told of.

    :param sure: whether nothing else will tell, so that it has to be proven
    """
    if validator is None:
        return not sure
    theirs = validator_of(answer)
    if theirs is None:
        # RFC 9110 15.3.7: an answer to If-Range repeats the tag, but may leave out the date.
        repeated = answer.header("ETag") or answer.header("Last-Modified")
        return not sure or not (validator.startswith('"') or repeated)
    return theirs == validator


def validator_of(answer: Response) -> str | None:
    """
    Give what ``If-Range`` may name: a strong entity tag, else the date of the last change.

    A date counts if the file had not changed for a second (RFC 9110 8.8.2.2).
    """
    if (answer.header("Accept-Ranges") or "").strip().lower() == "none":
        return None
    tag = (answer.header("ETag") or "").strip()
    if re.fullmatch(r'"[^"]*"', tag):
        return tag
    modified = answer.header("Last-Modified")
    at, now = parse_date(modified), parse_date(answer.header("Date"))
    return None if at and now and now - at < timedelta(seconds=1) else modified


#: How often a file may fail, and how often it may turn out wrong, before that is reported.
TRIES = 2
#: Bytes by which an attempt that breaks off is no failure.
MIN_PROGRESS = 1 << 20
#: Seconds before a file of which nothing arrived is asked for once more, varied by half.
PAUSE = 0.25
#: The longest ``Retry-After``, in seconds, that a fetch waits for; a longer one ends it.
MAX_RETRY_AFTER = 10.0
#: Seconds after which the fetch of a client that reads nothing is parked.
STALLED = 5.0
#: Bytes by which a file may exceed twice the size that the index states.
MARGIN = 64 * 1024 * 1024
#: Limit for core metadata or a signature that is encoded, also once it is decoded.
ENCODED = SizeLimit(4 * 1024 * 1024)
#: Bytes that tell how a file begins.
BEGINNING = 262

T = TypeVar("T")
_log = Logger(namespace="proxpi.files")

#: Gives a fresh reference to a file that is gone, from its page; it may raise the `Gone`.
Resolve = Callable[[Gone], Awaitable[FileReference]]


@attrs.define(eq=False)
class Fetch:
    """A file that is being fetched; each :meth:`ask` is one attempt.

    :ivar resolve: gives a fresh reference where one stopped being valid on the way
    :ivar paced: whether the bytes arrive no faster than some client takes them
    :ivar validator: what tells this version from another one at the upstream, for ``If-Range``
    :ivar total: the offset at which the bytes end, as far as it is known
    :ivar validators: the values of ``ETag`` and ``Last-Modified``, else of ``Date``, for a later
        revalidation
    """

    reference: FileReference
    upstream: UpstreamClient
    spool: Spool
    resolve: Resolve
    paced: bool = False
    validator: str | None = attrs.field(init=False, default=None)
    total: int | None = attrs.field(init=False, default=None)
    validators: tuple[str, str] = attrs.field(init=False, default=("", ""))

    async def run(self, finish: Callable[[], Awaitable[T]]) -> T:
        """
        Fetch all that is missing, and give what `finish`, which may raise `Mismatch`, makes of it.

        :raises Gone: if the upstream has none
        :raises UpstreamFailed: if it does not come, or not right
        """
        failures = wrong = 0
        while True:
            before = self.spool.arrived
            pause = 0.0
            try:
                if self.total is None or self.spool.arrived < self.total:
                    await self.ask()
                return await finish()
            except BodyStalled as stalled:
                await stalled.drained
                continue
            except Mismatch as error:
                failure = UpstreamFailed(
                    self.reference.url, f"wrong bytes: {error}", kind=error.kind
                )
                wrong += 1
                hopeless = not self.restart()
            except Offline:
                raise
            except UpstreamFailed as error:
                failure = error
                hopeless = not error.temporary
                if self.spool.arrived - before < MIN_PROGRESS:
                    failures += 1
                if self.spool.arrived == before:
                    # Jitter: many proxies do not retry at the same time.
                    pause = failure.retry_after or PAUSE * random.uniform(0.5, 1.5)
            given_up = hopeless or TRIES in (failures, wrong) or pause > MAX_RETRY_AFTER
            if self.spool.arrived > self.spool.start and not given_up:
                metrics.RESUMED.inc()
            else:
                metrics.DISCARDED.labels(failure.kind).inc()
            then = "given up" if given_up else "asking once more"
            _log.warn("{error}; {then}", error=failure, then=then)
            if given_up:
                raise failure
            if pause:
                await deferLater(self.upstream.clock, pause)

    def restart(self) -> bool:
        """Begin anew; tell whether that can be."""
        self.validator = self.total = None
        return self.spool.restart()

    def answer(self, byte_range: str | None = None) -> AbstractAsyncContextManager[Response]:
        """Ask for the file, or for a range of it, of the version that has begun to arrive."""
        headers = {"Accept": "*/*"}
        if byte_range is not None:
            headers["Range"] = byte_range
            if self.validator is not None:
                headers["If-Range"] = self.validator
        return self.upstream.file(self.reference.url, headers, backpressure=self.paced)

    async def stream(
        self,
        answer: Response,
        write: Callable[[bytes], object],
        limit: SizeLimit | None = None,
        *,
        resumable: bool,
    ) -> bool:
        """
        Write the body of a response, and tell whether its end was announced.

        :param resumable: whether the rest of these bytes can be proven to be of the same version;
            then a client that reads nothing loses the connection, as others may wait for it
        """
        gives_parts = (answer.header("Accept-Ranges") or "").strip().lower() == "bytes"
        stalls = self.paced and resumable and (gives_parts or answer.status == 206)
        timeout = STALLED if stalls else None
        return await self.upstream.stream(answer, write, limit, stall_timeout=timeout)

    @property
    def _resumable(self) -> bool:
        # Without a validator only the digest tells whether the parts fit together.
        return bool(self.validator or self.reference.digest)

    async def ask(self) -> None:
        """Ask for what is missing: as a part if that can be, else as the whole file."""
        if self.spool.arrived and self._resumable:
            use = await self._ask_for_rest()
            if use is Use.GONE:
                with suppress(Gone):
                    self.reference = await self.resolve(Gone(self.reference, 404))
                    use = await self._ask_for_rest()
            if use in (Use.WHOLE, Use.APPEND):
                return
        async with self.answer() as answer:
            await self._take_whole(answer)

    async def _ask_for_rest(self) -> Use:
        """Ask for the part that is missing; tell what the response was good for."""
        arrived = self.spool.arrived
        async with self.answer(f"bytes={arrived}-") as answer:
            use = use_of_rest(self.reference, answer, arrived, self.total, self.validator)
            if use is Use.WHOLE:
                await self._take_whole(answer)
            elif use is Use.APPEND:
                part = ContentRange.of(answer)
                assert part is not None
                self.total = part.size or self.total

                def write(data: bytes) -> object:
                    if self.spool.arrived + len(data) > part.stop:
                        raise Mismatch("length", "the part is longer than announced")
                    return self.spool.write(data)

                self._check_end(await self.stream(answer, write, resumable=self._resumable))
        return use

    async def _take_whole(self, answer: Response) -> None:
        """Take a file from its first byte on."""
        doubtful = check_head(self.reference, answer)
        encoded = bool(answer.codings) and self.reference.is_companion
        size, arrived = None if encoded else length_of(answer), self.spool.arrived
        if arrived and not may_be_same(size, arrived, self.total) and not self.restart():
            raise Mismatch("changed", f"now it has {size} bytes")
        self.total = size
        self.validator = validator_of(answer)
        etag, modified = validators_of(answer)
        # Without validators, the upstream can still tell whether the file changed since then.
        self.validators = etag, modified or ("" if etag else answer.header("Date") or "")
        filtered: _Compared | _Sniffed | None = None
        if self.spool.arrived:
            filtered = _Compared(self.spool)
        else:
            self.spool.begin(size, withheld=doubtful)
            if self.reference.digest is None and says_page(self.reference, answer):
                filtered = _Sniffed(self.spool, answer.url)
        limit = None
        if self.reference.size is not None and answer.length is None:
            # An index may be wrong about a size; a body without end is another matter.
            limit = SizeLimit(2 * self.reference.size + MARGIN)
        write = self.spool.write if filtered is None else filtered.write
        if encoded:
            ended = await self._decode(answer, write)
        else:
            ended = await self.stream(answer, write, limit, resumable=self._resumable)
        if filtered is not None:
            filtered.end(ended)
        self._check_end(ended)

    async def _decode(self, answer: Response, write: Callable[[bytes], object]) -> bool:
        """Write a sidecar that came encoded, unasked; some upstreams only say that it is."""
        chunks: list[bytes] = []
        ended = await self.stream(answer, chunks.append, ENCODED, resumable=False)
        data = b"".join(chunks)
        try:
            data = decode(data, answer.codings, ENCODED)
        except BodyTruncated:
            raise cut_short(self.reference.url) from None
        except (BodyUndecodable, BodyTooLong) as error:
            if not data.startswith((b"Metadata-Version:", b"-----BEGIN PGP")):
                cause = f"it is encoded ({', '.join(answer.codings)}), unasked"
                raise UpstreamFailed(answer.url, cause, kind="encoded") from error
        write(data)
        return ended

    def _check_end(self, ended: bool) -> None:
        size = self.spool.arrived
        if self.total is not None and size < self.total:
            raise cut_short(self.reference.url)
        if self.reference.digest is None:
            if self.total is not None and size > self.total:
                raise Mismatch("length", f"{size} bytes came of {self.total}")
            # Nothing but the answer tells whether these are the bytes.
            if not ended and self.reference.size is None:
                raise Mismatch("cut", "the answer may be cut short")
            if size == 0:
                raise Mismatch("empty", "the answer is empty")
        self.total = size


def cut_short(url: str) -> UpstreamFailed:
    """Say that an answer ended before its end."""
    return UpstreamFailed(url, "the answer was cut short", kind="cut")


class _Compared:
    """Compares a file that is sent again from its first byte with the bytes that arrived before."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._known = spool.digests.hex()
        self._left = spool.digests.size
        self._again = spool.digests.anew()

    def write(self, data: bytes) -> object:
        part, data = data[: self._left], data[self._left :]
        if part:
            self._again.add(part)
            self._left -= len(part)
            if self._left == 0 and self._again.hex() != self._known:
                raise Mismatch("changed", "the answer is another one than before")
        return self._spool.write(data) if data else None

    def end(self, ended: bool) -> None:
        if self._left and ended:
            raise Mismatch("changed", "the answer is shorter than before")
        if self._left:
            raise cut_short(self._spool.reference.url)


class _Sniffed:
    """Looks at the first bytes of what says that it is an HTML page."""

    def __init__(self, spool: Spool, url: str) -> None:
        self._spool = spool
        self._url = url
        self._beginning: bytes | None = b""

    def write(self, data: bytes) -> object:
        if self._beginning is not None:
            data = self._beginning + data
            if not begins_as_file(data):
                self._beginning = data
                if len(data) >= BEGINNING:
                    self.end(True)
                return None
            self._beginning = None
        return self._spool.write(data)

    def end(self, ended: bool) -> None:
        if self._beginning is not None:
            raise UpstreamFailed(self._url, "it is an HTML page", kind="page")
