"""The bytes of one file from upstream, in as many answers as it takes.

Theory of operation
-------------------
What comes goes to a sink: a partial file, or a window of memory. A body that breaks off is gone on
with where it ended (``Range`` and ``If-Range``, RFC 9110 13.1.5 and 14.2); an upstream that sends
all of it again is compared with what has come, and gone on with as well. Bytes that turn out to be
wrong are thrown away, and the file is asked for once more from its start. A link that stops being
of use on the way (signed URLs expire) is replaced by the one that a fresh page gives.
"""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import attrs
from twisted.internet.task import deferLater
from twisted.logger import Logger

from proxpi import metrics
from proxpi.files.disk import Mismatch
from proxpi.files.link import Link
from proxpi.files.partial import Sums
from proxpi.simple import urls
from proxpi.upstream.answer import Answer
from proxpi.upstream.body import Limit
from proxpi.upstream.errors import UpstreamFailed
from proxpi.upstream.pool import Upstream

#: How often a file may fail, and how often it may turn out wrong, before that is reported.
TRIES = 2
#: Bytes after which a body that breaks off counts as one that has come a good way: no failure.
GOOD_WAY = 1 << 20
#: Statuses of those who give no part of a file when asked for one, though they may give all of it.
NO_PART = frozenset({400, 405, 416, 501})
#: Seconds before a file of which nothing came is asked for once more, varied by half.
PAUSE = 0.25
#: Seconds for which an upstream that asked to be left alone is; if it wants more, clients are told.
PATIENCE = 10.0
#: Bytes by which a file may exceed twice the size that the index states.
MARGIN = 64 * 1024 * 1024

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


class Sink(Protocol):
    """Where bytes go.

    :ivar sums: of what it took
    """

    @property
    def sums(self) -> Sums:
        """What is known of the bytes that it took."""

    def begin(self, size: int | None, doubtful: bool) -> None:
        """Take note that a file begins, with so many bytes if that is announced."""

    def write(self, data: bytes) -> object:
        """Take bytes; it may give a Deferred of when there is room for more."""

    def restart(self) -> bool:
        """Forget what came; whether that is possible."""


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
        if answer.status != 206 or match is None or encoding(answer) is not None:
            return None
        start, last, size = match.groups()
        found = cls(int(start), int(last) + 1, None if size == "*" else int(size))
        return found if answer.length in (None, found.stop - found.start) else None


@attrs.define(eq=False)
class Reception:
    """A file that is being brought.

    :ivar moved: gives a fresh link where one stopped being of use on the way
    :ivar paced: whether it comes no faster than some client takes it
    :ivar validator: what tells the file at the upstream from another one, for ``If-Range``
    :ivar total: bytes that the upstream says it has
    :ivar all_came: whether the end has come, so that nothing is left to be asked for
    """

    link: Link
    upstream: Upstream
    sink: Sink
    moved: Moved
    paced: bool = False
    validator: str | None = None
    total: int | None = None
    all_came: bool = False

    async def bring(self, complete: Callable[[], Awaitable[T]]) -> T:
        """
        Bring the file, and give what `complete` makes of it.

        :param complete: is called when all has come; it may raise `Mismatch`
        :raises Gone: if the upstream has none
        :raises UpstreamFailed: if it does not come, or not right
        """
        failures = wrong = 0
        while True:
            before = self.sink.sums.size
            pause = 0.0
            try:
                if not (self.all_came or self.total == self.sink.sums.size > 0):
                    await self._ask_where_it_is()
                return await complete()
            except Mismatch as error:
                failure = UpstreamFailed(self.link.url, f"wrong bytes: {error}", kind=error.kind)
                wrong += 1
                hopeless = not self._restart()
            except UpstreamFailed as error:
                failure = error
                hopeless = not error.temporary
                if self.sink.sums.size - before < GOOD_WAY:
                    failures += 1
                if self.sink.sums.size == before:
                    pause = pause_after(failure)
            given_up = hopeless or TRIES in (failures, wrong) or pause > PATIENCE
            if self.sink.sums.size and not given_up:
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
        return self.sink.restart()

    async def _ask_where_it_is(self) -> None:
        try:
            await self._ask()
        except Gone as gone:
            if not self.sink.sums.size:
                raise  # whoever asked sees to that
            self.link = await self.moved(gone)
            await self._ask()

    async def _ask(self) -> None:
        at = self.sink.sums.size
        headers = {"Accept": "*/*"}
        # Without a validator only the digest tells whether the parts fit together.
        if at and (self.validator or self.link.digest):
            headers["Range"] = f"bytes={at}-"
            if self.validator is not None:
                headers["If-Range"] = self.validator
        while True:
            async with self.upstream.file(self.link.url, headers, paced=self.paced) as answer:
                write = self._begin(answer, "Range" in headers)
                if write is not None:
                    ended = await self.upstream.stream(answer, write, self._limit(answer))
                    return self._check_end(ended)
            headers = {"Accept": "*/*"}

    def _begin(self, answer: Answer, ranged: bool) -> Callable[[bytes], object] | None:
        """Give what takes the body of an answer; `None` if a part does not fit what has come."""
        if ranged and answer.status in (206, *NO_PART):
            part = ContentRange.of(answer)
            if part is None or part.start != self.sink.sums.size or not self._fits(part.size):
                return None
            if not belongs(answer, self.validator, sure=self.link.digest is None):
                return None
            self.total = self.total if part.size is None else part.size
            return self.sink.write
        check_head(self.link, answer)
        if self.sink.sums.size and not self._fits(answer.length) and not self._restart():
            raise Mismatch("changed", f"now it has {answer.length} bytes")
        self.total = answer.length
        self.validator = validator_of(answer)
        if self.sink.sums.size:
            return _Compared(self.sink, self.sink.sums).write
        self.sink.begin(answer.length, is_doubtful(self.link, answer))
        return self.sink.write

    def _fits(self, size: int | None) -> bool:
        return size is None or self.total is None or size == self.total

    def _check_end(self, ended: bool) -> None:
        size = self.sink.sums.size
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


def pause_after(failure: UpstreamFailed) -> float:
    """Give the seconds before a file of which nothing came is asked for again."""
    # Varied, to keep many proxies from knocking in step.
    return failure.retry_after or PAUSE * random.uniform(0.5, 1.5)


class _Compared:
    """Takes a file that is sent once more from its start: what has come is compared first."""

    def __init__(self, sink: Sink, known: Sums) -> None:
        self._sink = sink
        self._known = known.digests()
        self._left = known.size
        self._again = known.anew()

    def write(self, data: bytes) -> object:
        """
        Take bytes.

        :raises Mismatch: if they are not those that came before
        """
        if self._left:
            part, data = data[: self._left], data[self._left :]
            self._again.add(part)
            self._left -= len(part)
            if self._left == 0 and self._again.digests() != self._known:
                raise Mismatch("changed", "the answer is another one than before")
            if not data:
                return None
        return self._sink.write(data)


def check_head(link: Link, answer: Answer) -> None:
    """
    Look at what an upstream says of a file before its bytes come.

    :raises Gone: if it has none
    :raises UpstreamFailed: if this is not the file
    """
    if answer.status in (403, 404, 410):
        raise Gone(link, answer.status)
    if answer.status != 200:
        raise answer.refusal()
    if link.digest is not None:
        return
    if (coding := encoding(answer)) is not None:
        cause = f"it is encoded ({coding}), unasked"
        raise UpstreamFailed(answer.url, cause, kind="encoded")
    if _is_page(link, answer):
        raise UpstreamFailed(answer.url, "it is an HTML page", kind="page")
    if link.size is not None and answer.length not in (None, link.size):
        cause = f"it has {answer.length} bytes, not {link.size}"
        raise UpstreamFailed(answer.url, cause, kind="length")


def is_doubtful(link: Link, answer: Answer) -> bool:
    """Tell whether an answer does not look like the file, so that it is better seen whole first."""
    other_size = None not in (link.size, answer.length) and link.size != answer.length
    return other_size or encoding(answer) is not None or _is_page(link, answer)


def _is_page(link: Link, answer: Answer) -> bool:
    content_type = (answer.header("Content-Type") or "").lower()
    return content_type.startswith("text/html") and not link.url.endswith((".html", ".htm"))


def encoding(answer: Answer) -> str | None:
    """Give the name of an encoding that nobody asked for, if there is one."""
    return ", ".join(answer.codings) or None


def belongs(answer: Answer, validator: str | None, *, sure: bool) -> bool:
    """
    Tell whether a part is one of the file that `validator` was told of.

    :param sure: whether nothing else will tell, so that it has to be proven
    """
    if validator is None:
        return not sure
    theirs = validator_of(answer)
    if theirs is None:
        # RFC 9110 15.3.7: an answer to If-Range repeats the tag, but may leave out the date.
        return not sure or not validator.startswith('"')
    return theirs == validator


def validator_of(answer: Answer) -> str | None:
    """Give what ``If-Range`` may name: a strong entity tag, else the date of the last change."""
    if (answer.header("Accept-Ranges") or "").strip().lower() == "none":
        return None
    tag = (answer.header("ETag") or "").strip()
    return tag if re.fullmatch(r'"[^"]*"', tag) else answer.header("Last-Modified")
