"""The root of an index, asked where the 404 of a page may say nothing about its project.

Two indexes answer 404 to everything: one whose URL is wrong, and one of a host that hides what it
has from expired credentials. Their roots tell. What is known of a root is in one of three states:

* *unknown*: it was not asked. It is when the first page of an index with credentials is;
* *answered*: it has answered 200 at some time. From then on, a 404 for a page that such an index
  had before is an absence only if the root still answers;
* *never answered*: no page is judged by it. If the first pages are 404 as well, that is logged.

One upstream index: how it is asked, and what its answers mean.

The protocol is the Simple Repository API (PEP 503, PEP 691). JSON is asked for first; HTML is
understood as well. Which status means "not here" and which means trouble is decided here and
nowhere else: an index that fails must never look like one that lacks a project.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Generic, Protocol, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxpi.index.breaker import Breakers
from proxpi.simple import caching, model, parse, urls
from proxpi.single_flight import Flights
from proxpi.upstream.client import UpstreamClient
from proxpi.upstream.connections import Queue
from proxpi.upstream.errors import (
    BodyTooLong,
    BodyTruncated,
    BodyUndecodable,
    CredentialsRejected,
    UpstreamFailed,
    upstream_failed,
)
from proxpi.upstream.response import ContentRange, Response, decode

#: Seconds for which a root that fails is not asked again.
FAILING = 30.0
#: Pages that are 404 before the root is asked whether it is, too.
FIRST = 2

_log = Logger(namespace="proxpi.index")


@attrs.define(eq=False)
class Root:
    """The root of one index.

    :ivar url: it, with a trailing slash, maybe with credentials
    :ivar answered: whether it answered 200 at some time
    """

    url: str = attrs.field(repr=urls.public)
    _upstream: UpstreamClient
    _clock: IReactorTime
    _asking: Flights[None, None]
    answered: bool = False
    _status: int | None = None
    _requested_at: float = float("-inf")
    # The first pages that are 404, until one is served or the log has told of it.
    _absent: set[str] | None = attrs.field(init=False, factory=set)

    def note(self, status: int | None) -> None:
        """Take note of the status that it has now; ``None``: there was no answer."""
        self._status = 200 if status == 304 else status
        self._requested_at = self._clock.seconds()
        self.answered = self.answered or self._status == 200

    async def answers(self, since: float) -> bool:
        """
        Tell whether it answers 200, asking it at most once for all who want to know.

        :param since: the clock's seconds; an older success does not count
        """
        now = self._clock.seconds()
        failing = self._status != 200 and now < self._requested_at + FAILING
        if not failing and self._requested_at < since:
            await self._asking.join(None, self._ask).wait()
        return self._status == 200

    async def learn(self) -> None:
        """Ask it, if nothing is known of it."""
        if not self.answered and self._requested_at == float("-inf"):
            await self._asking.join(None, self._ask).wait()

    def served(self) -> None:
        """Take note that a page was served."""
        self._absent = None

    async def lacks(self, name: str) -> None:
        """Take note that a page is 404, and log if everything is."""
        if self._absent is None:
            return
        self._absent.add(name)
        if len(self._absent) >= FIRST:
            await self.learn()
        if self._absent is None:
            return
        if self._status in (404, 410):
            _log.warn(
                "{url} answers {status}, and so do its first pages: is it the root of an index? "
                "(PROXPI_INDEX_URL, PROXPI_EXTRA_INDEX_URLS)",
                url=urls.loggable(self.url),
                status=self._status,
            )
        if self._status in (404, 410) or len(self._absent) >= FIRST:
            self._absent = None

    async def _ask(self) -> None:
        status = None
        try:
            async with self._upstream.page(self.url, {}) as answer:
                status = answer.status
        except UpstreamFailed:
            pass
        self.note(status)


ACCEPT = (
    "application/vnd.pypi.simple.v1+json, "
    "application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
)
#: Seconds for which "no such project" is believed, whatever the time to live.
ABSENT_TTL = 60.0
#: The newest minor version of the API that is understood in full.
KNOWN_MINOR = 4

#: Statuses of the 4xx class that do not depend on validators.
_UNCONDITIONAL = frozenset({401, 403, 404, 407, 408, 410, 425, 429, 451})

T = TypeVar("T")
P = TypeVar("P")
_log = Logger(namespace="proxpi.index")


class InThread(Protocol):
    """Runs a function that takes a while, off the reactor's thread."""

    def __call__(self, job: Callable[[], T], /) -> Deferred[T]:
        """Give what `job` will have returned."""


@attrs.frozen
class StoredResponse:
    """What one index last said of one project, but for the page itself.

    :ivar present: whether it has the project
    :ivar requested_at: the clock's seconds when it was asked for
    :ivar served: whether it ever had it
    :ivar invalidated: by ``DELETE``: never fresh, and revalidated without validators
    :ivar root_answered: whether the root of the index had answered by then (:class:`Root`)
    """

    present: bool
    requested_at: float
    etag: str | None = None
    last_modified: str | None = None
    served: bool = False
    invalidated: bool = False
    root_answered: bool = False

    def invalidate(self) -> StoredResponse:
        """Give it as it is after a ``DELETE``, whose sender may mistrust validators, too."""
        return attrs.evolve(self, invalidated=True)

    def validators(self) -> dict[str, str]:
        """Give the header fields by which the index may confirm its page (RFC 9110 13.1)."""
        if not self.present or self.invalidated:
            return {}
        fields = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in fields.items() if value is not None}


@attrs.frozen
class IndexPage:
    """A page of one index, parsed, and as it is kept."""

    project: model.Project
    document: bytes


@attrs.frozen
class IndexResponse(Generic[P]):
    """An index's answer.

    :ivar content: the new page, or list; ``None`` if the old one holds, or if there is none
    """

    stored: StoredResponse
    content: P | None = None

    def supersedes(self, old: StoredResponse | None) -> bool:
        """Tell whether it is newer than `old`, and does not confirm something else than that."""
        if old is None:
            return True
        validators = (self.stored.etag, self.stored.last_modified)
        confirms = self.stored.present and self.content is None
        about = not confirms or validators == (old.etag, old.last_modified)
        return about and old.requested_at <= self.stored.requested_at


@attrs.define(eq=False)
class IndexClient:
    """An index that is asked for projects.

    :ivar url: its root, with a trailing slash, maybe with credentials
    :ivar ttl: seconds for which a page of it stays fresh
    :ivar work: runs what parses its answers, in its share of the threads
    :ivar breakers: whether it is asked while it fails
    :ivar root: whether it is to be believed that it lacks a project
    """

    url: str = attrs.field(repr=urls.public)
    ttl: float
    _upstream: UpstreamClient
    in_thread: InThread
    breakers: Breakers
    root: Root
    _warned: bool = attrs.field(init=False, default=False)

    @property
    def identity(self) -> str:
        """A name by which what it said is known again after a restart: hexadecimal."""
        return hashlib.sha256(urls.public(self.url).encode()).hexdigest()[:16]

    @property
    def private(self) -> bool:
        """Whether it is asked with credentials."""
        return self._upstream.credentials.protects(self.url)

    def guards(self, url: str) -> bool:
        """Whether a client could not fetch a file of this index from upstream by itself."""
        return self.private or self._upstream.credentials.protects(url)

    def timeout_error(self, page: str, since: float) -> UpstreamFailed:
        """Say why there is no page yet for which it is asked since then (the clock's seconds)."""
        return self.breakers.failed_since(page, since) or self._upstream.timeout_error(self.url)

    def remaining(self, stored: StoredResponse | None) -> float:
        """Seconds for which an answer still counts as fresh."""
        if stored is None or stored.invalidated:
            return 0.0
        ttl = self.ttl if stored.present else min(self.ttl, ABSENT_TTL)
        return caching.remaining(stored.requested_at, ttl, self._upstream.clock.seconds())

    async def project(
        self,
        name: str,
        stored: StoredResponse | None,
        heard: Callable[[int], object],
        queue: Queue | None = None,
    ) -> IndexResponse[IndexPage]:
        """
        Ask for the page of a project.

        :param name: the normalized name
        :param stored: what it said before, to be confirmed if it has not changed
        :param heard: is told how many bytes come, while they come; 0 for the head
        :param queue: see :meth:`proxpi.upstream.connections.Slots.slot`
        :raises UpstreamFailed: if it gives no answer that means anything
        """
        served = stored is not None and stored.served
        if stored is not None and stored.root_answered:
            self.root.answered = True  # before a restart
        if self.private:
            _in_background(self.root.learn())
        requested_at = self._upstream.clock.seconds()
        async with self.answer(f"{self.url}{name}/", stored, requested_at, queue) as answer:
            if answer.status == 304 and stored is not None and stored.validators():
                rooted = self.root.answered
                return IndexResponse(
                    attrs.evolve(stored, requested_at=requested_at, root_answered=rooted)
                )
            absent = self.means_absent(answer.status, served)
            if not absent:
                self.require_whole_page(answer)
                heard(0)
                body, ended = await self._upstream.read(answer, on_bytes=heard)
        if absent:
            await self._check_absence(stored, answer, requested_at)
            _in_background(self.root.lacks(name))
            return IndexResponse(StoredResponse(False, requested_at, served=served))
        page = await self.in_thread(lambda: self._page(body, answer, name, ended))
        self._note_version(page.project.version)
        note_unlisted(answer.url, page.project.unlisted, "file")
        etag, last_modified = answer.header("ETag"), answer.header("Last-Modified")
        self.root.served()
        rooted = self.root.answered
        return IndexResponse(
            StoredResponse(True, requested_at, etag, last_modified, True, root_answered=rooted),
            page,
        )

    @asynccontextmanager
    async def answer(
        self,
        url: str,
        stored: StoredResponse | None,
        requested_at: float,
        queue: Queue | None = None,
    ) -> AsyncIterator[Response]:
        """
        Ask for a page or the root list.

        Where the index does not take the validators, it is asked once more without them.

        :raises UpstreamFailed: if no answer comes
        """

        def head(status: int) -> None:
            self.breakers.answered(status, requested_at)

        accept = {"Accept": ACCEPT}
        if stored is not None and (validators := stored.validators()):
            async with self._upstream.page(url, accept | validators, head, queue) as answer:
                if not 400 <= answer.status < 500 or answer.status in _UNCONDITIONAL:
                    yield answer
                    return
        async with self._upstream.page(url, accept, head, queue) as answer:
            yield answer

    async def _check_absence(
        self, stored: StoredResponse | None, answer: Response, since: float
    ) -> None:
        """
        Make sure that a project that was there is absent, and not hidden from old credentials.

        :raises UpstreamFailed: if it is hidden
        """
        if stored is None or not stored.present or not self.private:
            return
        if self.root.answered and not await self.root.answers(since):
            cause = f"status {answer.status}, as for its root: do the credentials still hold?"
            raise CredentialsRejected(answer.url, cause, temporary=False)

    def _page(self, body: bytes, answer: Response, name: str, ended: bool) -> IndexPage:
        content_type = answer.header("Content-Type")
        if answer.codings:
            try:
                body, ended = decode(body, answer.codings, self._upstream.page_limit), True
            except (BodyTruncated, BodyUndecodable, BodyTooLong) as error:
                raise upstream_failed(answer.url, Failure(error)) from error
        try:
            project = parse.parse_project(body, content_type, answer.url, name)
        except parse.NotAnIndexPage as error:
            # An end that nobody announced may have been none.
            raise UpstreamFailed(answer.url, error.reason, temporary=not ended) from error
        if not ended and not parse.is_whole(body):
            raise UpstreamFailed(answer.url, "the answer was cut short")
        return IndexPage(project, model.encode(project))

    def means_absent(self, status: int, served: bool) -> bool:
        """
        Tell whether a status means "not here".

        An object store answers 403 for what it has not, to those without credentials; from an
        index that has credentials, or that served the page before, it means a lost permission.
        """
        return status in (404, 410) or (status == 403 and not self.private and not served)

    def require_whole_page(self, answer: Response) -> None:
        """
        Accept nothing but a whole page: a 206 that nobody asked for may be one.

        :raises UpstreamFailed: for every other status
        """
        # 203: what a proxy on the way has changed (RFC 9110 15.3.4); clients take it as well.
        stored = ContentRange.of(answer)
        if answer.status in (200, 203) or (stored and stored.stop == stored.size == answer.length):
            return
        if answer.status in (401, 403):
            _log.error(
                "credentials rejected by {url} (status {status})",
                url=urls.loggable(answer.url),
                status=answer.status,
            )
        raise answer.status_error()

    def _note_version(self, version: str) -> None:
        minor = int(version.partition(".")[2] or 0)
        if minor > KNOWN_MINOR and not self._warned:
            self._warned = True
            _log.warn(
                "{url} speaks version {version} of the API; what is new since 1.{known} is ignored",
                url=urls.loggable(self.url),
                version=version,
                known=KNOWN_MINOR,
            )


def note_unlisted(url: str, unlisted: model.Unlisted, what: str) -> None:
    """Say in one line how many links of a page are not listed.

    :param what: what the others lead to
    """
    if unlisted.count:
        # Hidden before it is cut: what is cut off may be what shows that it holds a password.
        first = urls.redacted(unlisted.first).partition("?")[0]
        _log.warn(
            "{url}: {count} link(s) not listed that lead to no {what}; the first is {first}",
            url=urls.loggable(url),
            count=unlisted.count,
            what=what,
            first=ascii(first[:200]),
        )


def _in_background(work: Coroutine[Deferred[Any], Any, None]) -> None:
    """Do some work that is not waited for."""
    Deferred.fromCoroutine(work).addErrback(
        lambda failure: _log.failure("while the root of an index was asked", failure=failure)
    )
