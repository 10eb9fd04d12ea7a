"""The resumable fetch: the bytes of one file from upstream into a spool, in one or more responses.

Each attempt is one request. The *first* response begins the spool. Later the missing bytes are
requested (``Range`` and ``If-Range``, RFC 9110 13.1.5 and 14.2), and the file is *resumed*: a part
that proves to be of the same version is appended; or *compared*: an upstream that serves no such
part sends the file from its first byte again, which must repeat the bytes that arrived before.

So bytes of two versions are never mixed: a response that differs, or is shorter, restarts the
spool. A URL that stops being valid on the way (signed URLs expire) is replaced by that of a fresh
page. Between two attempts the fetch may be *parked*: the client reads nothing for 5 seconds; the
connection is closed, and the fetch resumes once the client reads.

A whole response is *doubtful* if it has another size than the index states, is encoded, or says
that it is a page: only a digest tells whether it is the file. Without one, a response that says it
is HTML is withheld until its first bytes show an archive. Companions alone are decoded; without a
digest, any other encoded response is refused.

A fetch in the background has one attempt: nothing is retried for which no client waits.
"""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from datetime import timedelta
from enum import Enum
from typing import TypeVar

import attrs
from twisted.internet.task import deferLater
from twisted.logger import Logger, LogLevel
from werkzeug.http import parse_date

from proxpi import metrics
from proxpi.files.progress import Progress
from proxpi.files.resolver import FileReference, Gone, refresh_url
from proxpi.files.spool import MEMORY_WINDOW, Spool
from proxpi.files.verify import Digests, Mismatch, compare
from proxpi.upstream import (
    BodyStalled,
    BodyTooLong,
    BodyTruncated,
    BodyUndecodable,
    ContentRange,
    Offline,
    Response,
    SizeLimit,
    UpstreamClient,
    UpstreamFailed,
    decode,
)

#: How often a file may fail, and how often it may turn out wrong, before that is reported.
TRIES = 2
#: Bytes after which an attempt that breaks off is no failure.
MIN_PROGRESS = 1 << 20
#: Seconds before the next attempt if no byte arrived, varied by half.
PAUSE = 0.25
#: The longest ``Retry-After``, in seconds, that a fetch waits for; a longer one ends it.
MAX_RETRY_AFTER = 10.0
#: Seconds after which the fetch of a client that reads nothing is parked.
PARK_AFTER = 5.0
#: Bytes by which a file may exceed twice the size that the index states.
MARGIN = 64 * 1024 * 1024
#: Limit for core metadata or a signature that is encoded, also once it is decoded.
ENCODED = SizeLimit(4 * 1024 * 1024)
#: Bytes that tell how a file begins.
BEGINNING = 262
#: Statuses that say that there is no file, or not any more.
GONE = (403, 404, 410)
#: How the files of packages begin: archives, core metadata, signatures.
_FILE = re.compile(
    rb"PK(\x03\x04|\x05\x06)|\x1f[\x8b\x9d]|BZh|\xfd7zXZ\0|\x28\xb5\x2f\xfd|MZ"
    rb"|Metadata-Version:|-----BEGIN PGP|.{257}ustar",
    re.DOTALL,
)

T = TypeVar("T")
#: Takes the chunks of a whole response, and its end with whether that was announced.
Filter = tuple[Callable[[bytes], object], Callable[[bool], None]]
_log = Logger(namespace="proxpi.files")

Disposition = Enum("Disposition", "GONE WHOLE PART NONE")


@attrs.frozen
class Missing:
    """The missing bytes of a file, from `start` to before `stop`, or to its end.

    :ivar size: bytes of the whole file, if known
    :ivar validator: of the version that has begun to arrive, for ``If-Range``
    :ivar proof: whether the response must prove its version, as no digest will
    """

    start: int
    stop: int | None
    size: int | None
    validator: str | None
    proof: bool

    @property
    def headers(self) -> dict[str, str]:
        last = "" if self.stop is None else self.stop - 1
        condition = {} if self.validator is None else {"If-Range": self.validator}
        return {"Range": f"bytes={self.start}-{last}", **condition}


def disposition_of(reference: FileReference, response: Response, missing: Missing) -> Disposition:
    """
    Decide the use of a response to a request for the missing bytes of a file.

    =========== =================================== ======== =====================================
    status      ``Content-Range``                   use      that is
    =========== =================================== ======== =====================================
    403 404 410 any                                 GONE     a fresh page may have another URL
    200 203     any                                 WHOLE    compare it with the bytes that arrived
    206         all bytes of the file               WHOLE    the same
    206         starts (and stops) as requested; of PART     append it
                the same size and version
    206         any other                           NONE     request the whole file
    any other   any                                 NONE     the same
    =========== =================================== ======== =====================================

    A version is the same if its validator is; where none is known, only a digest proves it. A part
    without a size is not proven if no response told the size.
    """
    if response.status in GONE:
        return Disposition.GONE
    if is_whole(reference, response):
        return Disposition.WHOLE
    part = ContentRange.of(response)
    if (
        part is None
        or part.start != missing.start
        or missing.stop not in (None, part.stop)
        or not may_be_same(part.size, missing.start, missing.size)
        or (missing.proof and part.size is None and missing.size is None)
    ):
        return Disposition.NONE
    theirs = validator_of(response)
    same = theirs == missing.validator
    if missing.validator is None:
        same = not missing.proof
    elif theirs is None:
        # RFC 9110 15.3.7: a response to If-Range repeats the tag, but may leave out the date.
        repeated = response.header("ETag") or response.header("Last-Modified")
        same = not missing.proof or not (missing.validator.startswith('"') or repeated)
    return Disposition.PART if same else Disposition.NONE


def may_be_same(size: int | None, arrived: int, total: int | None) -> bool:
    """Whether a version of `size` bytes may be the one, of `total`, that has begun to arrive."""
    return size is None or (size >= arrived and total in (None, size))


def is_whole(reference: FileReference, response: Response) -> bool:
    """Whether a response has all of a file: an unrequested 206 may, too."""
    if response.status in (200, 203):
        return True
    part = ContentRange.of(response)
    size = reference.size if part is None or part.size is None else part.size
    return part is not None and part.start == 0 and part.stop == size


def check_head(reference: FileReference, response: Response) -> bool:
    """
    Return whether a response that should be the whole file is doubtful, by its head.

    :raises Gone: if the upstream has none; `UpstreamFailed` if this is not the file
    """
    if response.status in GONE:
        raise Gone(reference, response.status)
    if not is_whole(reference, response):
        raise response.status_error()
    size, page = _length(response), _says_page(reference, response)
    other_size = reference.size is not None and size not in (None, reference.size)
    if reference.digest is None and response.codings and not reference.is_companion:
        raise _encoded(response)
    if reference.digest is None and other_size:
        cause = f"it has {size} bytes, not {reference.size}"
        raise _page(response) if page else UpstreamFailed(response.url, cause, kind="length")
    return other_size or page or bool(response.codings)


def _length(response: Response) -> int | None:
    part = ContentRange.of(response)
    return response.length if part is None else part.stop


def _page(response: Response) -> UpstreamFailed:
    return UpstreamFailed(response.url, "it is an HTML page", kind="page")


def _encoded(response: Response) -> UpstreamFailed:
    cause = f"it is encoded ({', '.join(response.codings)}), unasked"
    return UpstreamFailed(response.url, cause, kind="encoded")


def _says_page(reference: FileReference, response: Response) -> bool:
    """Whether a response says that it is an HTML page, but the file is none."""
    content_type = (response.header("Content-Type") or "").lower()
    return content_type.startswith("text/html") and not reference.url.endswith((".html", ".htm"))


def validators_of(response: Response) -> tuple[str, str]:
    """``ETag`` and ``Last-Modified`` as they stand; empty if missing."""
    return response.header("ETag") or "", response.header("Last-Modified") or ""


def validator_of(response: Response) -> str | None:
    """The validator for ``If-Range``: a strong entity tag, else a date (RFC 9110 8.8.2.2)."""
    if _accept_ranges(response) == "none":
        return None
    tag = (response.header("ETag") or "").strip()
    if re.fullmatch(r'"[^"]*"', tag):
        return tag
    modified = response.header("Last-Modified")
    at, now = parse_date(modified), parse_date(response.header("Date"))
    # Within the second of its date, a file may change once more.
    return None if at and now and now - at < timedelta(seconds=1) else modified


def _accept_ranges(response: Response) -> str:
    return (response.header("Accept-Ranges") or "").strip().lower()


def truncated(url: str) -> UpstreamFailed:
    return UpstreamFailed(url, "the answer was cut short", kind="cut")


@attrs.define(eq=False)
class Fetch:
    """A file, or the range of one that its spool takes, that is being fetched.

    :ivar size: bytes of the whole file, as far as it is known
    :ivar backpressure: whether the bytes arrive no faster than some client reads them
    :ivar validators: ``ETag`` and ``Last-Modified``, else ``Date``, for a later revalidation
    """

    reference: FileReference
    upstream: UpstreamClient
    spool: Spool
    size: int | None = None
    backpressure: bool = attrs.field(init=False, default=False)
    validator: str | None = attrs.field(init=False, default=None)
    validators: tuple[str, str] = attrs.field(init=False, default=("", ""))

    async def run(self, finish: Callable[[], Awaitable[T]]) -> T:
        """
        Fetch the missing bytes, and give the result of `finish`, which may raise `Mismatch`.

        :raises Gone: if the upstream has none; else `UpstreamFailed`
        """
        failures = wrong = 0
        while True:
            before, pause = self.spool.arrived, 0.0
            try:
                if self.stop is None or self.spool.arrived < self.stop:
                    await self._attempt()
                return await finish()
            except BodyStalled as stalled:
                await stalled.drained
                continue
            except Mismatch as error:
                cause = f"wrong bytes: {error}"
                failure = UpstreamFailed(self.reference.url, cause, kind=error.kind)
                wrong, hopeless = wrong + 1, not self._restart()
            except Offline:
                raise
            except UpstreamFailed as error:
                failure, hopeless = error, not error.temporary
                if self.spool.arrived - before < MIN_PROGRESS:
                    failures += 1
                if self.spool.arrived == before:
                    # Jitter: many proxies do not retry at the same time.
                    pause = failure.retry_after or PAUSE * random.uniform(0.5, 1.5)
            background = self.spool.queue.background
            given_up = hopeless or TRIES in (failures, wrong) or pause > MAX_RETRY_AFTER
            given_up = given_up or background
            if self.spool.arrived > self.spool.start and not given_up:
                metrics.RESUMED.inc()
            else:
                metrics.DISCARDED.labels(failure.kind).inc()
            then = "given up" if given_up else "asking once more"
            level = LogLevel.debug if background else LogLevel.info
            _log.emit(level, "{error}; {then}", error=failure, then=then)
            if given_up:
                raise failure
            if pause:
                await deferLater(self.upstream.clock, pause)

    def pass_through(self, progress: Progress, failed: Callable[[Exception], object]) -> None:
        """Fetch into memory, for as long as the spool has a reader; a failure calls `failed`."""
        span = self.spool.span
        length = self.reference.size if span is None else span.stop - span.start
        # What fits into the window arrives at once, whether the client reads or not.
        self.backpressure = not length or length > MEMORY_WINDOW

        async def fill() -> None:
            try:
                with progress.watch(self.reference, self.spool):
                    await self.run(self.verify)
            except Exception as error:  # noqa: BLE001 (the readers are told)
                self.spool.fail(error)
                failed(error)
            else:
                self.spool.complete()

        self.spool.fill(fill())

    async def verify(self) -> None:
        if self.spool.span is None:  # a range has no digest
            compare(self.spool.digests, self.reference)

    @property
    def stop(self) -> int | None:
        """The offset at which the fetch ends, if known."""
        return self.size if self.spool.span is None else self.spool.end

    def _restart(self) -> bool:
        if self.spool.span is None:
            self.validator = self.size = None
        return self.spool.restart()

    @property
    def _needs_proof(self) -> bool:
        """Whether no digest will tell if the parts fit together."""
        return self.reference.digest is None or self.spool.span is not None

    @property
    def _resumable(self) -> bool:
        return self.validator is not None or not self._needs_proof

    async def _attempt(self) -> None:
        if self.spool.arrived and self._resumable:
            use = await self._resume()
            if use is Disposition.GONE:
                with suppress(Gone):
                    self.reference = await refresh_url(Gone(self.reference, 404))
                    use = await self._resume()
            if use in (Disposition.WHOLE, Disposition.PART):
                return
        async with self.request({}) as response:
            await self._receive_whole(response)

    def request(self, headers: dict[str, str]) -> AbstractAsyncContextManager[Response]:
        fields = {"Accept": "*/*", **headers}
        url, queue = self.reference.url, self.spool.queue
        return self.upstream.file(
            url,
            fields,
            backpressure=self.backpressure,
            queue=queue,
            index=self.reference.index,
        )

    async def _resume(self) -> Disposition:
        """Request the missing bytes; receive them, or the whole file in their place."""
        missing = Missing(self.spool.arrived, None, self.size, self.validator, self._needs_proof)
        async with self.request(missing.headers) as response:
            use = disposition_of(self.reference, response, missing)
            if use is Disposition.WHOLE:
                await self._receive_whole(response)
            elif use is Disposition.PART:
                await self.receive_part(response)
        return use

    async def receive_part(self, response: Response) -> None:
        part = ContentRange.of(response)
        assert part is not None
        self.size = part.size or self.size

        def write(data: bytes) -> object:
            if self.spool.arrived + len(data) > part.stop:
                raise Mismatch("length", "the part is longer than announced")
            return self.spool.write(data)

        self._check_end(await self._stream(response, write))

    async def _receive_whole(self, response: Response) -> None:
        doubtful = check_head(self.reference, response)
        encoded = bool(response.codings) and self.reference.is_companion
        size, arrived = None if encoded else _length(response), self.spool.arrived
        if arrived and not may_be_same(size, arrived, self.size) and not self._restart():
            raise Mismatch("changed", f"now it has {size} bytes")
        self.size = size
        self.validator = validator_of(response)
        etag, modified = validators_of(response)
        # Without validators, the upstream can still tell whether the file changed since then.
        self.validators = etag, modified or ("" if etag else response.header("Date") or "")
        filtered: Filter = (self.spool.write, lambda ended: None)
        if self.spool.arrived:
            filtered = _comparing(self.spool)
        else:
            self.spool.begin(size, withheld=doubtful)
            if self.reference.digest is None and _says_page(self.reference, response):
                filtered = _sniffing(self.spool, response)
        write, end = filtered
        if encoded:
            ended = await self._receive_encoded(response, write)
        else:
            limit = None
            if self.reference.size is not None and response.length is None:
                # An index may be wrong about a size; a body without end is another matter.
                limit = SizeLimit(2 * self.reference.size + MARGIN)
            ended = await self._stream(response, write, limit)
        end(ended)
        self._check_end(ended)

    async def _receive_encoded(self, response: Response, write: Callable[[bytes], object]) -> bool:
        chunks: list[bytes] = []
        ended = await self.upstream.stream(response, chunks.append, ENCODED)
        data = b"".join(chunks)
        try:
            data = decode(data, response.codings, ENCODED)
        except BodyTruncated:
            raise truncated(self.reference.url) from None
        except (BodyUndecodable, BodyTooLong) as error:
            # Some upstreams only say that it is encoded.
            if not data.startswith((b"Metadata-Version:", b"-----BEGIN PGP")):
                raise _encoded(response) from error
        write(data)
        return ended

    async def _stream(
        self, response: Response, write: Callable[[bytes], object], limit: SizeLimit | None = None
    ) -> bool:
        # Other clients may wait for the connection of one that reads nothing.
        parts = response.status == 206 or _accept_ranges(response) == "bytes"
        stall_timeout = PARK_AFTER if self.backpressure and self._resumable and parts else None
        return await self.upstream.stream(response, write, limit, stall_timeout=stall_timeout)

    def _check_end(self, ended: bool) -> None:
        size = self.spool.arrived
        if self.stop is not None and size < self.stop:
            raise truncated(self.reference.url)
        if self.reference.digest is None and self.spool.span is None:
            if self.size is not None and size > self.size:
                raise Mismatch("length", f"{size} bytes came of {self.size}")
            # Nothing but the response tells whether these are the bytes.
            if not ended and self.reference.size is None:
                raise Mismatch("cut", "the answer may be cut short")
            if size == 0:
                raise Mismatch("empty", "the answer is empty")
        self.size = size


def _comparing(spool: Spool) -> Filter:
    """Compare a file that is sent again from its first byte with the bytes that arrived before."""
    expected, left = spool.digests.hex(), spool.digests.size
    again = Digests(spool.reference.digest)

    def write(data: bytes) -> object:
        nonlocal left
        repeated, data = data[:left], data[left:]
        if repeated:
            again.add(repeated)
            left -= len(repeated)
            if left == 0 and again.hex() != expected:
                raise Mismatch("changed", "the answer is another one than before")
        return spool.write(data) if data else None

    def end(ended: bool) -> None:
        if left:
            shorter = Mismatch("changed", "the answer is shorter than before")
            raise shorter if ended else truncated(spool.reference.url)

    return write, end


def _sniffing(spool: Spool, response: Response) -> Filter:
    """Hold back a response that says it is HTML until its first bytes show a file."""
    beginning, is_file = b"", False

    def write(data: bytes) -> object:
        nonlocal beginning, is_file
        if not is_file:
            data = beginning = beginning + data
            is_file = _FILE.match(data) is not None
            if not is_file and len(data) >= BEGINNING:
                raise _page(response)
        return spool.write(data) if is_file else None

    def end(ended: bool) -> None:
        if not is_file:
            raise _page(response)

    return write, end
