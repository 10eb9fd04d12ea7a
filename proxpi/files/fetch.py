"""The resumable fetch: the bytes of one file from upstream into a spool, in one or more responses.

Each attempt is one of

* *first*: nothing has arrived yet; the response begins the spool;
* *resumed*: the bytes that are missing are asked for (``Range`` and ``If-Range``, RFC 9110 13.1.5
  and 14.2), and a part that proves to be of the same version is appended;
* *compared*: the upstream sends the file from its first byte again, because it knows no ranges,
  refused this one, or gave a part that does not fit. The bytes that arrived before are compared
  with it. The response must reach the old length; what exceeds it is appended.

So bytes of two versions are never mixed: a response that differs, or is shorter, restarts the
spool. A link that stops being valid on the way (signed URLs expire) is replaced by that of a fresh
page. Between two attempts the fetch may be *parked*: the client reads nothing for 5 seconds; the
connection is closed, and the fetch resumes once the client reads. A response that says it is HTML
is held back until its first bytes show an archive.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import TypeVar

import attrs
from twisted.internet.task import deferLater
from twisted.logger import Logger

from proxpi import metrics
from proxpi.files.link import Link
from proxpi.files.response import (
    Gone,
    Use,
    begins_as_file,
    check_head,
    length_of,
    may_be_same,
    says_page,
    use_of_rest,
    validator_of,
    validators_of,
)
from proxpi.files.spool import Spool
from proxpi.files.verify import Mismatch
from proxpi.upstream.answer import Answer, ContentRange
from proxpi.upstream.body import Limit
from proxpi.upstream.codings import decoded
from proxpi.upstream.errors import (
    BodyCut,
    BodyGarbled,
    BodyStalled,
    BodyTooLong,
    Offline,
    UpstreamFailed,
)
from proxpi.upstream.pool import Upstream

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
ENCODED = Limit(4 * 1024 * 1024)
#: Bytes that tell how a file begins.
BEGINNING = 262

T = TypeVar("T")
_log = Logger(namespace="proxpi.files")

#: Gives a fresh reference to a file that is gone, from its page; it may raise the `Gone`.
Resolve = Callable[[Gone], Awaitable[Link]]


@attrs.define(eq=False)
class Fetch:
    """A file that is being fetched; each :meth:`ask` is one attempt.

    :ivar resolve: gives a fresh link where one stopped being valid on the way
    :ivar paced: whether the bytes arrive no faster than some client takes them
    :ivar validator: what tells this version from another one at the upstream, for ``If-Range``
    :ivar total: the offset at which the bytes end, as far as it is known
    :ivar validators: the values of ``ETag`` and ``Last-Modified``, else of ``Date``, for a later
        revalidation
    """

    link: Link
    upstream: Upstream
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
                failure = UpstreamFailed(self.link.url, f"wrong bytes: {error}", kind=error.kind)
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

    def answer(self, byte_range: str | None = None) -> AbstractAsyncContextManager[Answer]:
        """Ask for the file, or for a range of it, of the version that has begun to arrive."""
        headers = {"Accept": "*/*"}
        if byte_range is not None:
            headers["Range"] = byte_range
            if self.validator is not None:
                headers["If-Range"] = self.validator
        return self.upstream.file(self.link.url, headers, paced=self.paced)

    async def stream(
        self,
        answer: Answer,
        write: Callable[[bytes], object],
        limit: Limit | None = None,
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
        return bool(self.validator or self.link.digest)

    async def ask(self) -> None:
        """Ask for what is missing: as a part if that can be, else as the whole file."""
        if self.spool.arrived and self._resumable:
            use = await self._ask_for_rest()
            if use is Use.GONE:
                with suppress(Gone):
                    self.link = await self.resolve(Gone(self.link, 404))
                    use = await self._ask_for_rest()
            if use in (Use.WHOLE, Use.APPEND):
                return
        async with self.answer() as answer:
            await self._take_whole(answer)

    async def _ask_for_rest(self) -> Use:
        """Ask for the part that is missing; tell what the response was good for."""
        arrived = self.spool.arrived
        async with self.answer(f"bytes={arrived}-") as answer:
            use = use_of_rest(self.link, answer, arrived, self.total, self.validator)
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

    async def _take_whole(self, answer: Answer) -> None:
        """Take a file from its first byte on."""
        doubtful = check_head(self.link, answer)
        encoded = bool(answer.codings) and self.link.beside
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
            if self.link.digest is None and says_page(self.link, answer):
                filtered = _Sniffed(self.spool, answer.url)
        limit = None
        if self.link.size is not None and answer.length is None:
            # An index may be wrong about a size; a body without end is another matter.
            limit = Limit(2 * self.link.size + MARGIN)
        write = self.spool.write if filtered is None else filtered.write
        if encoded:
            ended = await self._decode(answer, write)
        else:
            ended = await self.stream(answer, write, limit, resumable=self._resumable)
        if filtered is not None:
            filtered.end(ended)
        self._check_end(ended)

    async def _decode(self, answer: Answer, write: Callable[[bytes], object]) -> bool:
        """Write a sidecar that came encoded, unasked; some upstreams only say that it is."""
        chunks: list[bytes] = []
        ended = await self.stream(answer, chunks.append, ENCODED, resumable=False)
        data = b"".join(chunks)
        try:
            data = decoded(data, answer.codings, ENCODED)
        except BodyCut:
            raise cut_short(self.link.url) from None
        except (BodyGarbled, BodyTooLong) as error:
            if not data.startswith((b"Metadata-Version:", b"-----BEGIN PGP")):
                cause = f"it is encoded ({', '.join(answer.codings)}), unasked"
                raise UpstreamFailed(answer.url, cause, kind="encoded") from error
        write(data)
        return ended

    def _check_end(self, ended: bool) -> None:
        size = self.spool.arrived
        if self.total is not None and size < self.total:
            raise cut_short(self.link.url)
        if self.link.digest is None:
            if self.total is not None and size > self.total:
                raise Mismatch("length", f"{size} bytes came of {self.total}")
            # Nothing but the answer tells whether these are the bytes.
            if not ended and self.link.size is None:
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
            raise cut_short(self._spool.link.url)


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
