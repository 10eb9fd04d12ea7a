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
page.
"""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import TypeVar

import attrs
from twisted.internet.task import deferLater
from twisted.logger import Logger
from werkzeug.http import parse_date

from proxpi import metrics
from proxpi.files.link import Link
from proxpi.files.partial import Digests
from proxpi.files.spool import Spool
from proxpi.files.verify import Mismatch
from proxpi.simple import urls
from proxpi.upstream.answer import Answer
from proxpi.upstream.body import Limit
from proxpi.upstream.errors import BodyStalled, UpstreamFailed
from proxpi.upstream.pool import Upstream

#: How often a file may fail, and how often it may turn out wrong, before that is reported.
TRIES = 2
#: Bytes after which a body that breaks off counts as one that has come a good way: no failure.
GOOD_WAY = 1 << 20
#: Seconds before a file of which nothing arrived is asked for once more, varied by half.
PAUSE = 0.25
#: Seconds for which an upstream that asked to be left alone is; if it wants more, clients are told.
PATIENCE = 10.0
#: Seconds after which a client that reads nothing has no connection upstream any more.
STALLED = 5.0
#: Bytes by which a file may exceed twice the size that the index states.
MARGIN = 64 * 1024 * 1024

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

_CONTENT_RANGE = re.compile(
    r"\s*bytes\s+(\d{1,18})-(\d{1,18})/(\d{1,18}|\*)\s*", re.IGNORECASE | re.ASCII
)

T = TypeVar("T")
_log = Logger(namespace="proxpi.files")


class Gone(Exception):
    """The upstream says that there is no such file, or not any more."""

    def __init__(self, link: Link, status: int) -> None:
        super().__init__(f"{urls.shown(link.url)}: status {status}")
        self.link = link
        self.status = status


#: Gives a fresh link to a file that is gone from where it was; it may raise the `Gone` it is given.
Moved = Callable[[Gone], Awaitable[Link]]


@attrs.frozen
class ContentRange:
    """What a 206 says that it has: bytes from `start` to before `stop` of so many, if it knows."""

    start: int
    stop: int
    size: int | None

    @classmethod
    def of(cls, answer: Answer) -> ContentRange | None:
        """Read it from an answer that is a single range of the bytes as they are."""
        match = _CONTENT_RANGE.fullmatch(answer.header("Content-Range") or "")
        if answer.status != 206 or match is None or answer.codings:
            return None
        start, last, size = match.groups()
        found = cls(int(start), int(last) + 1, None if size == "*" else int(size))
        return found if answer.length in (None, found.stop - found.start) else None


@attrs.define(eq=False)
class Fetch:
    """A file that is being fetched.

    :ivar moved: gives a fresh link where one stopped being valid on the way
    :ivar paced: whether the bytes arrive no faster than some client takes them
    :ivar validator: what tells this version from another one at the upstream, for ``If-Range``
    :ivar total: bytes that the upstream says the file has
    :ivar all_came: whether the end has come, so that nothing is left to be asked for
    :ivar validators: the values of ``ETag`` and ``Last-Modified``, for a later revalidation
    """

    link: Link
    upstream: Upstream
    spool: Spool
    moved: Moved
    paced: bool = False
    validator: str | None = attrs.field(init=False, default=None)
    total: int | None = attrs.field(init=False, default=None)
    all_came: bool = attrs.field(init=False, default=False)
    validators: tuple[str, str] = attrs.field(init=False, default=("", ""))

    async def run(self, finish: Callable[[], Awaitable[T]]) -> T:
        """
        Fetch the file, or the rest of it, and give what `finish` makes of it.

        :param finish: is called when all bytes have arrived; it may raise `Mismatch`
        :raises Gone: if the upstream has none
        :raises UpstreamFailed: if it does not come, or not right
        """
        failures = wrong = 0
        while True:
            before = self.spool.arrived
            pause = 0.0
            try:
                if not (self.all_came or self.total == self.spool.arrived > 0):
                    await self._ask()
                return await finish()
            except BodyStalled as stalled:
                await stalled.room
                continue
            except Mismatch as error:
                failure = UpstreamFailed(self.link.url, f"wrong bytes: {error}", kind=error.kind)
                wrong += 1
                hopeless = not self._restart()
            except UpstreamFailed as error:
                failure = error
                hopeless = not error.temporary
                if self.spool.arrived - before < GOOD_WAY:
                    failures += 1
                if self.spool.arrived == before:
                    pause = pause_after(failure)
            given_up = hopeless or TRIES in (failures, wrong) or pause > PATIENCE
            if self.spool.arrived and not given_up:
                metrics.RESUMED.inc()
            else:
                metrics.DISCARDED.labels(failure.kind).inc()
            then = "given up" if given_up else "asking once more"
            _log.warn("{error}; {then}", error=failure, then=then)
            if given_up:
                raise failure
            if pause:
                await deferLater(self.upstream.clock, pause)

    def _restart(self) -> bool:
        self.validator = self.total = None
        self.all_came = False
        return self.spool.restart()

    async def _ask(self) -> None:
        """Ask for what is missing: as a part if that can be, else as the whole file."""
        # Without a validator only the digest tells whether the parts fit together.
        if self.spool.arrived and (self.validator or self.link.digest):
            try:
                if await self._ask_for_rest():
                    return
            except Gone as gone:
                try:
                    self.link = await self.moved(gone)
                except Gone:
                    pass  # a refused part must not lose the whole
                else:
                    if await self._ask_for_rest():
                        return
        async with self._answer({}) as answer:
            await self._take_whole(answer)

    async def _ask_for_rest(self) -> bool:
        """Ask for the part that is missing; tell whether the answer could be used."""
        headers = {"Range": f"bytes={self.spool.arrived}-"}
        if self.validator is not None:
            headers["If-Range"] = self.validator
        async with self._answer(headers) as answer:
            if answer.status in (403, 404, 410):
                raise Gone(self.link, answer.status)
            if is_whole(self.link, answer):
                await self._take_whole(answer)
                return True
            part = ContentRange.of(answer)
            if part is None or not self._continues(part, answer):
                return False
            self.total = self.total if part.size is None else part.size
            self._check_end(await self._stream(answer, self.spool.write))
            return True

    def _answer(self, headers: dict[str, str]) -> AbstractAsyncContextManager[Answer]:
        return self.upstream.file(self.link.url, {"Accept": "*/*", **headers}, paced=self.paced)

    async def _stream(
        self, answer: Answer, write: Callable[[bytes], object], limit: Limit | None = None
    ) -> bool:
        resumable = self.paced and bool(self.validator or self.link.digest)
        stall = stall_timeout(answer, resumable=resumable)
        return await self.upstream.stream(answer, write, limit, stall_timeout=stall)

    def _continues(self, part: ContentRange, answer: Answer) -> bool:
        """Tell whether a part is that of the same version which is missing."""
        sure = self.link.digest is None
        # Where nobody tells how long the file is, a part may be any part of the rest.
        if sure and part.size is None and self.total is None:
            return False
        return (
            part.start == self.spool.arrived
            and self._fits(part.size)
            and belongs(answer, self.validator, sure=sure)
        )

    def _fits(self, size: int | None) -> bool:
        """Tell whether a version of so many bytes may be the one that has begun to arrive."""
        if size is None:
            return True
        return size >= self.spool.arrived and self.total in (None, size)

    async def _take_whole(self, answer: Answer) -> None:
        """Take a file from its first byte on."""
        check_head(self.link, answer)
        size = length_of(answer)
        if self.spool.arrived and not self._fits(size) and not self._restart():
            raise Mismatch("changed", f"now it has {size} bytes")
        self.total = size
        self.validator = validator_of(answer)
        self.validators = validators_of(answer)
        filtered: _Compared | _Sniffed | None = None
        if self.spool.arrived:
            filtered = _Compared(self.spool)
        else:
            self.spool.begin(size, withheld=is_doubtful(self.link, answer))
            if _says_page(self.link, answer) and self.link.digest is None:
                filtered = _Sniffed(self.spool, answer)
        write = self.spool.write if filtered is None else filtered.write
        ended = await self._stream(answer, write, self._limit(answer))
        if filtered is not None:
            filtered.end(ended)
        self._check_end(ended)

    def _check_end(self, ended: bool) -> None:
        size = self.spool.arrived
        if self.total is not None and size < self.total:
            raise UpstreamFailed(self.link.url, "the answer was cut short", kind="cut")
        if self.link.digest is None:
            if self.total is not None and size > self.total:
                raise Mismatch("length", f"{size} bytes came of {self.total}")
            # Nothing but the answer tells whether these are the bytes.
            if not ended and self.link.size is None:
                raise Mismatch("cut", "the answer may be cut short")
            if size == 0:
                raise Mismatch("empty", "the answer is empty")
        self.all_came = True

    def _limit(self, answer: Answer) -> Limit | None:
        """Bytes beyond which this cannot be the file."""
        # An index may be wrong about a size; a body without end is another matter.
        if self.link.size is None or answer.length is not None:
            return None
        return Limit(2 * self.link.size + MARGIN)


def stall_timeout(answer: Answer, *, resumable: bool) -> float | None:
    """
    Give the seconds after which a client that reads nothing loses the connection upstream.

    :param resumable: whether the rest of these bytes can be proven to be of the same version
    """
    # Clients of other files may wait for the connection.
    gives_parts = (answer.header("Accept-Ranges") or "").strip().lower() == "bytes"
    return STALLED if resumable and (gives_parts or answer.status == 206) else None


def pause_after(failure: UpstreamFailed) -> float:
    """Give the seconds before a file of which nothing arrived is asked for again."""
    # Varied, to keep many proxies from knocking in step.
    return failure.retry_after or PAUSE * random.uniform(0.5, 1.5)


class _Compared:
    """Compares a file that is sent again from its first byte with the bytes that arrived before."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._known = spool.digests.hex()
        self._left = spool.digests.size
        self._again: Digests = spool.digests.anew()

    def write(self, data: bytes) -> object:
        """
        Take bytes.

        :raises Mismatch: if they are not those that arrived before
        """
        if self._left:
            part, data = data[: self._left], data[self._left :]
            self._again.add(part)
            self._left -= len(part)
            if self._left == 0 and self._again.hex() != self._known:
                raise Mismatch("changed", "the answer is another one than before")
            if not data:
                return None
        return self._spool.write(data)

    def end(self, ended: bool) -> None:
        """
        Take the end of the answer.

        :raises Mismatch: if it is shorter than what arrived before
        """
        if self._left and ended:
            raise Mismatch("changed", "the answer is shorter than before")
        if self._left:
            raise UpstreamFailed(self._spool.link.url, "the answer was cut short", kind="cut")


class _Sniffed:
    """Looks at the first bytes of what says that it is an HTML page."""

    def __init__(self, spool: Spool, answer: Answer) -> None:
        self._spool = spool
        self._url = answer.url
        self._begun: bytes | None = b""

    def write(self, data: bytes) -> object:
        """
        Take bytes.

        :raises UpstreamFailed: if no file of a package begins so
        """
        if self._begun is not None:
            data = self._begun + data
            if not (data.startswith(_BEGINNINGS) or data[_TAR] == b"ustar"):
                self._begun = data
                if len(data) >= _TAR.stop:
                    self.end(True)
                return None
            self._begun = None
        return self._spool.write(data)

    def end(self, ended: bool) -> None:
        """Take the end of the answer; as for :meth:`write`."""
        if self._begun is not None:
            raise UpstreamFailed(self._url, "it is an HTML page", kind="page")


def is_whole(link: Link, answer: Answer) -> bool:
    """Tell whether an answer has all of a file: also a 206 that nobody asked for may."""
    if answer.status in (200, 203):
        return True
    part = ContentRange.of(answer)
    size = link.size if part is None or part.size is None else part.size
    return part is not None and part.start == 0 and part.stop == size


def length_of(answer: Answer) -> int | None:
    """Give the bytes of the file that an answer has all of, if it tells."""
    part = ContentRange.of(answer)
    return answer.length if part is None else part.stop


def check_head(link: Link, answer: Answer) -> None:
    """
    Look at what an upstream says of a file before its bytes come.

    :raises Gone: if it has none
    :raises UpstreamFailed: if this is not the file
    """
    if answer.status in (403, 404, 410):
        raise Gone(link, answer.status)
    if not is_whole(link, answer):
        raise answer.refusal()
    if link.digest is not None:
        return
    if answer.codings:
        cause = f"it is encoded ({', '.join(answer.codings)}), unasked"
        raise UpstreamFailed(answer.url, cause, kind="encoded")
    if link.size is not None and length_of(answer) not in (None, link.size):
        if _says_page(link, answer):
            raise UpstreamFailed(answer.url, "it is an HTML page", kind="page")
        cause = f"it has {length_of(answer)} bytes, not {link.size}"
        raise UpstreamFailed(answer.url, cause, kind="length")


def is_doubtful(link: Link, answer: Answer) -> bool:
    """Tell whether an answer does not look like the file, so that readers wait for all of it."""
    size = length_of(answer)
    other_size = None not in (link.size, size) and link.size != size
    return other_size or bool(answer.codings) or _says_page(link, answer)


def _says_page(link: Link, answer: Answer) -> bool:
    content_type = (answer.header("Content-Type") or "").lower()
    return content_type.startswith("text/html") and not link.url.endswith((".html", ".htm"))


def validators_of(answer: Answer) -> tuple[str, str]:
    """Give the entity tag and the date of the last change, as they stand; empty if missing."""
    return answer.header("ETag") or "", answer.header("Last-Modified") or ""


def belongs(answer: Answer, validator: str | None, *, sure: bool) -> bool:
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


def validator_of(answer: Answer) -> str | None:
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
