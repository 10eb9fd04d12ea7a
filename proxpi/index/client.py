"""One upstream index: the requests to it, and the meaning of its responses.

The protocol is the Simple Repository API (PEP 503, PEP 691): JSON is preferred, HTML is understood.
For pages, this module alone decides which statuses mean absence (404, 410, some 403) and which mean
failure: an index that fails must never look like one that lacks a project. (For files,
``GONE`` in :mod:`proxpi.files.fetch` does.)

Two kinds of index send 404 for everything: one with a wrong URL, and one that hides its pages from
expired credentials. Their :class:`Root` tells. It is in one of three states:

* *unknown*: no request was sent; the first page of an index with credentials sends one;
* *has served*: it has sent 200 at some time (remembered over a restart). A later 404 of a known
  page then counts only if the root still sends 200; a failing root is requested again after 30
  seconds;
* *never served*: 404s count. If the first two pages are 404 as well, one warning is logged.

Some indexes number their changes, and send with each page the number of the last one: its *serial*
(``X-PyPI-Last-Serial``). A response with a lower serial than the stored one is an old copy, of a
node of the CDN that lags behind: it fails (:func:`_require_serial`).
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cached_property, partial
from typing import IO, Any, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from proxpi.index.breaker import Breakers
from proxpi.index.index_response import IndexPage, IndexResponse, StoredResponse
from proxpi.index.index_status import IndexStatus, status_of
from proxpi.index.list_parser import BLOCK, project_names
from proxpi.index.list_store import ListFile, ListStore
from proxpi.problems import Problems
from proxpi.simple import caching, model, parse, urls
from proxpi.single_flight import Flights, InThread
from proxpi.upstream import (
    BodyTooLong,
    BodyTruncated,
    BodyUnusable,
    ContentRange,
    CredentialsRejected,
    Decoder,
    Queue,
    Response,
    SizeLimit,
    UpstreamClient,
    UpstreamFailed,
    decode,
    upstream_failed,
)

ACCEPT = (
    "application/vnd.pypi.simple.v1+json, "
    "application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
)
#: Seconds for which a 404 is fresh, if the time to live is not shorter.
ABSENT_TTL = 60.0
#: Seconds for which a failing root is not requested again.
ROOT_PAUSE = 30.0
#: Seconds that a list may take to arrive, however steadily it does.
LIST_TIME = 300.0
#: Pages that are 404 before the root is requested to find out whether it is, too.
FIRST_PAGES = 2
#: A page that is parsed at once: with so many bytes that takes no longer than a turn of a thread.
SMALL = SizeLimit(8 * 1024)
#: The newest minor version of the API that is understood in full.
KNOWN_MINOR = 4
#: The header field with the serial of a page, or of the project list, and its longest value.
SERIAL = "X-PyPI-Last-Serial"
SERIAL_DIGITS = 18

#: Statuses of the 4xx class that do not depend on validators.
_UNCONDITIONAL = frozenset({401, 403, 404, 407, 408, 410, 425, 429, 451})

T = TypeVar("T")
P = TypeVar("P")
_log = Logger(namespace="proxpi.index")


@attrs.define(eq=False)
class Root:
    """The root of one index; `has_served` tells whether it has sent 200 at some time."""

    name: str
    url: str = attrs.field(repr=urls.public)
    _upstream: UpstreamClient
    _clock: IReactorTime
    _problems: Problems
    has_served: bool = False
    _status: int | None = None
    _requested_at: float = float("-inf")
    #: The first pages that are 404, until one is served or the warning is logged.
    _absent: set[str] | None = attrs.field(init=False, factory=set)
    _requests: Flights[None, None] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._requests = Flights(self._clock)

    def note_status(self, status: int | None) -> None:
        """Note the status of the root; ``None``: no response came."""
        self._status = 200 if status == 304 else status
        self._requested_at = self._clock.seconds()
        self.has_served = self.has_served or self._status == 200

    async def serves_since(self, since: float) -> bool:
        """Return whether it has sent 200 since then (the clock's seconds), or does so now."""
        pauses = self._status != 200 and self._clock.seconds() < self._requested_at + ROOT_PAUSE
        if not pauses and self._requested_at < since:
            await self._requests.join(None, self._request).wait()
        return self._status == 200

    async def request_if_unknown(self, has_served: bool = False) -> None:
        """Send a request if its state is unknown, also of an earlier process (`has_served`)."""
        self.has_served = self.has_served or has_served
        if not self.has_served and self._requested_at == float("-inf"):
            await self._requests.join(None, self._request).wait()

    def note_served(self) -> None:
        self._absent = None

    async def note_absent(self, name: str) -> None:
        """Note that a page is 404, and log if every page is."""
        if self._absent is None:
            return
        self._absent.add(name)
        if len(self._absent) < FIRST_PAGES and self._status not in (404, 410):
            return
        await self.request_if_unknown()
        if self._absent is not None and self._status in (404, 410):
            url = urls.loggable(self.url)
            self._problems.note(
                ("root", self.name),
                f"{url} answers {self._status}, and so do its first pages: is it the root of an "
                "index?",
                "clients get 404",
                "check its URL (PROXPI_INDEX_URL, PROXPI_EXTRA_INDEX_URLS)",
            )
        self._absent = None

    async def _request(self) -> None:
        try:
            async with self._upstream.page(self.url, {}, index=self.name) as response:
                self.note_status(response.status)
        except UpstreamFailed:
            self.note_status(None)


@attrs.define(eq=False, kw_only=True)
class IndexClient:
    """The client of one index, whose root is `url`, with a slash at its end.

    :ivar name: that of the configuration
    """

    name: str
    url: str = attrs.field(repr=urls.public)
    ttl: float
    _upstream: UpstreamClient
    in_thread: InThread
    breakers: Breakers
    root: Root
    _warned: bool = attrs.field(init=False, default=False)

    @cached_property
    def identity(self) -> str:
        """The name of the index in the store: hexadecimal."""
        return hashlib.sha256(urls.public(self.url).encode()).hexdigest()[:16]

    @cached_property
    def private(self) -> bool:
        """Whether requests to it carry credentials."""
        return self._upstream.credentials.protects(self.url)

    @property
    def offline(self) -> bool:
        """Whether no request is sent to it."""
        return self._upstream.offline

    def status(self) -> IndexStatus:
        return status_of(self, "http", self._upstream.latency(self.name))

    def guards(self, url: str) -> bool:
        """Whether a client could not fetch a file of this index from upstream by itself."""
        return self.private or self._upstream.credentials.protects(url)

    def timeout_error(self, page: str, since: float) -> UpstreamFailed:
        """Return the error for a page that has not arrived: a failure since then or a timeout."""
        return self.breakers.failed_since(page, since) or self._upstream.timeout_error(self.url)

    def remaining(self, stored: StoredResponse | None) -> float:
        """Seconds for which a response stays fresh."""
        if stored is None or stored.invalidated:
            return 0.0
        ttl = self.ttl if stored.present else min(self.ttl, ABSENT_TTL)
        return caching.remaining(stored.requested_at, ttl, self._upstream.clock.seconds())

    async def project(
        self,
        name: str,
        stored: StoredResponse | None,
        on_bytes: Callable[[int], object],
        queue: Queue | None = None,
    ) -> IndexResponse[IndexPage]:
        """Request the page of a project, by its normalized name; see :meth:`fetch`."""
        if self.private:
            _in_background(
                self.root.request_if_unknown(stored is not None and stored.root_answered)
            )

        async def read(response: Response) -> tuple[Response, bytes, bool]:
            return response, *await self._upstream.read(response, on_bytes=on_bytes)

        url = f"{self.url}{name}/"
        raw = await self.fetch(url, stored, read, on_bytes=on_bytes, queue=queue)
        if not raw.stored.present:
            had = self.private and self.root.has_served and stored is not None and stored.present
            if had and not await self.root.serves_since(raw.stored.requested_at):
                cause = "absent, as is its root: do the credentials still hold?"
                raise CredentialsRejected(url, cause, temporary=False)
            _in_background(self.root.note_absent(name))
        if raw.content is None:
            return IndexResponse(raw.stored)
        # Only now, when the connection is free again: parsing may take a while.
        response, body, ended = raw.content
        try:
            page = await self._parsed(response, body, name, ended)
        except BodyUnusable as error:
            raise upstream_failed(response.url, error) from error
        version = page.project.version
        if not self._warned and int(version.partition(".")[2] or 0) > KNOWN_MINOR:
            self._warned = True
            _log.warn(
                "{url} speaks version {version} of the API; what is new since 1.{known} is ignored",
                url=urls.loggable(self.url),
                version=version,
                known=KNOWN_MINOR,
            )
        log_skipped_links(response.url, page.project.skipped, "file")
        self.root.note_served()
        return IndexResponse(raw.stored, page)

    async def project_list(
        self,
        stored: StoredResponse | None,
        lists: ListStore,
        on_bytes: Callable[[int], object],
        queue: Queue | None = None,
    ) -> IndexResponse[ListFile]:
        """Request the list of projects, whose names go into a file; see :meth:`fetch`.

        :raises OSError: if that cannot be written
        """

        async def read(response: Response) -> ListFile:
            return await self._read_list(response, lists, on_bytes)

        # A list that was there does not go away; some hosts hide it from old credentials.
        may_be_absent = not (self.private and stored is not None and stored.served)
        return await self.fetch(
            self.url, stored, read, on_bytes=on_bytes, queue=queue, may_be_absent=may_be_absent
        )

    async def fetch(
        self,
        url: str,
        stored: StoredResponse | None,
        read: Callable[[Response], Awaitable[P]],
        *,
        on_bytes: Callable[[int], object],
        queue: Queue | None = None,
        may_be_absent: bool = True,
    ) -> IndexResponse[P]:
        """Request a page or the project list.

        :param read: reads a whole response; the connection is held meanwhile
        :param on_bytes: is called with 0 for the head of such a response
        :param may_be_absent: whether there is a status that means absence
        :raises UpstreamFailed: if no response comes, or none that can be used
        """
        requested_at = self._upstream.clock.seconds()
        served = stored is not None and stored.served
        validators = stored.validators() if stored is not None else {}
        async with self._response(url, validators, requested_at, queue) as response:
            if url == self.url:
                self.root.note_status(response.status)
            serial = _serial(response)
            if response.status == 304 and stored is not None and validators:
                # A date confirms also a page that is newer than the copy of an old node.
                _require_serial(response, serial, stored)
                confirmed = attrs.evolve(
                    stored,
                    requested_at=requested_at,
                    root_answered=self.root.has_served,
                    serial=stored.serial if serial is None else serial,
                )
                return IndexResponse(confirmed)
            # An object store without credentials sends 403 for a missing object; with credentials,
            # or for a page that it served before, that means a lost permission.
            refused = self.private or served
            if may_be_absent and response.status in ((404, 410) if refused else (403, 404, 410)):
                last = stored.serial if stored is not None and not stored.invalidated else None
                absent = StoredResponse(False, requested_at, served=served, serial=last)
                return IndexResponse(absent)
            self._require_whole_page(response)
            _require_serial(response, serial, stored)
            on_bytes(0)
            content = await read(response)
        new = StoredResponse(
            present=True,
            requested_at=requested_at,
            etag=response.header("ETag"),
            last_modified=response.header("Last-Modified"),
            served=True,
            root_answered=self.root.has_served,
            serial=serial,
        )
        return IndexResponse(new, content)

    @asynccontextmanager
    async def _response(
        self, url: str, validators: dict[str, str], requested_at: float, queue: Queue | None
    ) -> AsyncIterator[Response]:
        """Send a request; if the index refuses the validators, send it again without them."""
        head = partial(self.breakers.head_received, since=requested_at)
        accept = {"Accept": ACCEPT}
        request = partial(self._upstream.page, url, on_head=head, queue=queue, index=self.name)
        if validators:
            async with request(headers=accept | validators) as response:
                if not 400 <= response.status < 500 or response.status in _UNCONDITIONAL:
                    yield response
                    return
        async with request(headers=accept) as response:
            yield response

    async def _parsed(self, response: Response, body: bytes, name: str, ended: bool) -> IndexPage:
        """Parse a page, in a thread unless it is small; raise also `BodyUnusable`."""
        limit = self._upstream.page_limit
        if len(body) <= SMALL.size < limit.size:
            with suppress(BodyTooLong):
                return self._page(response, body, name, ended, SMALL)
        return await self.in_thread(lambda: self._page(response, body, name, ended, limit))

    def _page(
        self, response: Response, body: bytes, name: str, ended: bool, limit: SizeLimit
    ) -> IndexPage:
        if response.codings:
            body, ended = decode(body, response.codings, limit), True
        try:
            content_type = response.header("Content-Type")
            project = parse.parse_project(body, content_type, response.url, name)
        except parse.NotAnIndexPage as error:
            # An end that was not announced may have been none.
            raise UpstreamFailed(response.url, error.reason, temporary=not ended) from error
        if not ended and not parse.is_whole(body):
            raise UpstreamFailed(response.url, "the answer was cut short", kind="cut")
        return IndexPage(project, model.encode(project))

    async def _read_list(
        self, response: Response, lists: ListStore, on_bytes: Callable[[int], object]
    ) -> ListFile:
        """Read the names in a response, or raise `UpstreamFailed`."""
        end_known, skipped = True, model.SkippedLinks()

        def write(chunk: bytes) -> None:
            on_bytes(len(chunk))
            body.write(chunk)

        try:
            parse.require_known_version(response.header("Content-Type"))
            limit = self._upstream.list_limit
            with lists.temporary() as body:
                end_known = await self._upstream.stream(response, write, limit, LIST_TIME)
                names = partial(_names, body, response.codings, limit, end_known, skipped, lists)
                found = await self.in_thread(names)
        except parse.NotAnIndexPage as error:
            # An end that was not announced may have been none.
            raise UpstreamFailed(response.url, error.reason, temporary=not end_known) from error
        except BodyUnusable as error:
            raise upstream_failed(response.url, error) from error
        log_skipped_links(response.url, skipped, "project")
        return found

    def _require_whole_page(self, response: Response) -> None:
        """Raise `UpstreamFailed`, unless this is a whole page; an unrequested 206 may be one."""
        # 203: a proxy on the way has changed it (RFC 9110 15.3.4); clients take it as well.
        part = ContentRange.of(response)
        if response.status in (200, 203) or (part and part.stop == part.size == response.length):
            return
        raise response.status_error()


def _names(
    body: IO[bytes],
    codings: Sequence[str],
    limit: SizeLimit,
    end_known: bool,
    skipped: model.SkippedLinks,
    lists: ListStore,
) -> ListFile:
    """Decode and parse the body of a project list, in a thread."""
    if not codings:
        return lists.write(project_names(_blocks(body), end_known, skipped))
    with lists.temporary() as decoded:
        decoder = Decoder(codings, decoded.write, limit)
        for block in _blocks(body):
            decoder.write(block)
        if not decoder.ended:
            raise BodyTruncated()
        return lists.write(project_names(_blocks(decoded), True, skipped))


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    return iter(partial(file.read, BLOCK), b"")


def _serial(response: Response) -> int | None:
    """Return the serial of a response, if it states one that is a number."""
    value = (response.header(SERIAL) or "").strip()
    usable = value.isascii() and value.isdigit() and len(value) <= SERIAL_DIGITS
    return int(value) if usable else None


def _require_serial(response: Response, serial: int | None, stored: StoredResponse | None) -> None:
    """Raise `UpstreamFailed` if a response is an older copy than the stored one."""
    if stored is not None and not stored.reached_by(serial):
        known = stored.least_serial
        cause = f"an old copy: its serial {serial} is lower than {known}, the one known before"
        raise UpstreamFailed(response.url, cause)


def log_skipped_links(url: str, skipped: model.SkippedLinks, what: str) -> None:
    """Log in one line how many links of a page are not listed, as they lead to no `what`."""
    if skipped.count:
        # Redacted before it is cut: the cut may remove the mark of a password.
        first = urls.redacted(skipped.first).partition("?")[0]
        _log.warn(
            "{url}: {count} link(s) not listed that lead to no {what}; the first is {first}",
            url=urls.loggable(url),
            count=skipped.count,
            what=what,
            first=ascii(first[:200]),
        )


def _in_background(work: Coroutine[Deferred[Any], Any, None]) -> None:
    Deferred.fromCoroutine(work).addErrback(
        lambda failure: _log.failure("a request to the root of an index", failure=failure)
    )
