"""How pages are asked for with treq, which offers compression, on the agent that files use as well.

What treq would do beyond that is not left to it: redirects, for each hop decides anew which
credentials may go along (:mod:`proxpi.upstream.client`), and decompression, for treq takes a stream
that ends early for a whole one.

The way out: one persistent pool of connections for the whole process.

Theory of operation
-------------------
Index pages are asked for through treq, which offers compression; files through a bare
``Agent``, since treq always does and a file is wanted as it is. Both stand on
the same ``HTTPConnectionPool``. Redirects are followed here, for both alike, because each hop
decides anew whether it may be asked and which credentials may go along. A pool of Twisted's does
not limit how many connections are open, so :mod:`proxpi.upstream.connections` does. Pages have
connections of their own: slow files never starve them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, cast

import attrs
from hyperlink import EncodedURL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from proxpi.upstream.response import ENCODING

if TYPE_CHECKING:
    from treq.client import HTTPClient
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import quote

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from proxpi import __version__
from proxpi.simple import urls
from proxpi.upstream.address_policy import AddressPolicy
from proxpi.upstream.connections import ConnectionLimit, ConnectionPermit, Queue
from proxpi.upstream.credentials import Credentials
from proxpi.upstream.errors import (
    BodyStalled,
    BodyTimeout,
    Offline,
    ProxyFailed,
    UpstreamFailed,
    upstream_failed,
)
from proxpi.upstream.proxies import NO_PROXIES, Proxies
from proxpi.upstream.response import Once, Response, Sink, SizeLimit, discard, receive

#: Sends a request: method, URL, header fields.
Send = Callable[[bytes, bytes, Headers], "Deferred[IResponse]"]


def sender(agent: IAgent, clock: IReactorTime) -> Send:
    """Give what sends requests for pages."""
    made = cache(lambda: _client(agent))

    def send(method: bytes, url: bytes, headers: Headers) -> Deferred[IResponse]:
        # treq means a reactor by `reactor`, but uses it for its own timeout only, unused here.
        return cast(
            "Deferred[IResponse]",
            made().request(
                method.decode("ascii"),
                _Verbatim.from_text(url.decode("ascii")),
                headers=headers,
                allow_redirects=False,
                unbuffered=True,
                reactor=cast(Any, clock),
            ),
        )

    return send


def _client(agent: IAgent) -> HTTPClient:
    """Make treq's client, which all indexes share: it keeps no cookie of any of them."""
    # Not before a page is asked for: until then it would take 1 MiB, and 20 ms of the start.
    from treq.client import HTTPClient
    from treq.cookies import IndexableCookieJar

    cookies = IndexableCookieJar(DefaultCookiePolicy(allowed_domains=()))
    return HTTPClient(_Compressed(agent), cookies)


class _Verbatim(EncodedURL):
    """A URL that treq leaves as it is; it would take an IPv6 address for a name to encode."""

    def to_uri(self) -> EncodedURL:
        """Give the URL itself."""
        return self


@implementer(IAgent)
@attrs.frozen
class _Compressed:
    """An agent whose answers look to treq as if they were not compressed.

    treq would decompress them, but take a stream that ends early for a whole one.
    """

    _agent: IAgent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """See `IAgent`."""
        return self._agent.request(method, uri, headers, bodyProducer).addCallback(_renamed)


def _renamed(response: IResponse) -> IResponse:
    """Put the content codings, if there are any, where treq does not look."""
    encodings = response.headers.getRawHeaders(b"Content-Encoding", [])
    response.headers.removeHeader(b"Content-Encoding")
    response.headers.setRawHeaders(ENCODING, encodings)
    return response


#: Connections to one origin for files, and as many again for pages.
CONNECTIONS = 32
#: Redirects that one request may take (RFC 9110 15.4 leaves the number open).
REDIRECTS = 10
#: Bytes of an index page, decompressed, and of a list of projects.
PAGE_LIMIT = SizeLimit(64 * 1024 * 1024, "PROXPI_PAGE_LIMIT")
LIST_LIMIT = SizeLimit(256 * 1024 * 1024, "PROXPI_LIST_LIMIT")
#: Seconds that the body of a page may take, however steadily it comes; a page is short.
PAGE_TIME = 60.0

USER_AGENT = f"proxpi/{__version__}".encode("ascii")

_REDIRECT_CODES = frozenset({301, 302, 303, 307, 308})
Head = Callable[[int], object]
T = TypeVar("T")


@attrs.define(kw_only=True)
class UpstreamClient:
    """Asks upstreams for pages and files.

    :ivar connect_timeout: seconds to connect
    :ivar read_timeout: seconds that an upstream may be silent, before the head and within the body
    :ivar offline: whether nobody may be asked at all (``PROXPI_OFFLINE``)
    :ivar connections: to one origin for files, and as many again for pages
    :ivar address_policy: the addresses that links and redirects may lead to
    :ivar proxies: through which it goes
    :ivar page_limit: for an index page, decompressed; ``list_limit``: for a list of projects
    """

    _agent: IAgent
    clock: IReactorTime
    credentials: Credentials
    address_policy: AddressPolicy
    connect_timeout: float
    read_timeout: float
    offline: bool = False
    connections: int = CONNECTIONS
    page_limit: SizeLimit = PAGE_LIMIT
    list_limit: SizeLimit = LIST_LIMIT
    proxies: Proxies = NO_PROXIES
    _send_page: Send = attrs.field(init=False)
    _page_slots: ConnectionLimit = attrs.field(init=False)
    _file_slots: ConnectionLimit = attrs.field(init=False)
    # Clients that take a file slowly, or not at all, leave some slots to downloads.
    _backpressure_limit: ConnectionLimit = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Make what depends on the number of connections."""
        self._send_page = sender(self._agent, self.clock)
        self._page_slots, self._file_slots = (
            ConnectionLimit(self.connections),
            ConnectionLimit(self.connections),
        )
        self._backpressure_limit = ConnectionLimit(max(1, self.connections * 3 // 4))

    @asynccontextmanager
    async def page(
        self,
        url: str,
        headers: Mapping[str, str],
        head: Head = lambda status: None,
        queue: Queue | None = None,
    ) -> AsyncIterator[Response]:
        """
        Ask for an index page with treq; the connection is held until the context ends.

        A body that nobody took by then is let go of.

        :param head: is called with the status of each response head, those of redirects included
        :param queue: see :meth:`proxpi.upstream.connections.ConnectionLimit.slot`
        :raises UpstreamFailed: if no answer comes
        """
        async with (
            self._page_slots.slot(url, queue=queue) as slot,
            self._answer(slot, url, "GET", headers, self._send_page, head) as answer,
        ):
            yield answer

    @asynccontextmanager
    async def file(
        self,
        url: str,
        headers: Mapping[str, str],
        method: str = "GET",
        *,
        backpressure: bool = False,
    ) -> AsyncIterator[Response]:
        """
        Ask for a file with the bare agent, as it is; otherwise as :meth:`page`.

        :param backpressure: whether it comes no faster than some client takes it
        :raises UpstreamFailed: if no answer comes
        """
        asked = {"Accept-Encoding": "identity", **headers}
        async with (
            self._file_slots.slot(url, self._backpressure_limit if backpressure else None) as slot,
            self._answer(slot, url, method, asked, self._agent.request) as answer,
        ):
            answer.headers.removeHeader(ENCODING)  # a file is taken as it is
            yield answer

    def timeout_error(self, url: str) -> UpstreamFailed:
        """Say what it means that nothing has come from a URL for too long."""
        scheme, host, port = urls.origin(url)
        proxy = self.proxies.to(scheme, host, port)
        # A tunnel has an end of its own to its patience; what is behind it is asked directly.
        if proxy is None or scheme == "https":
            return UpstreamFailed(url, "timed out", scope="connection")
        return ProxyFailed(proxy.name, "timed out", scope="connection")

    def backpressure_full(self, url: str) -> bool:
        """Tell whether one more file that comes at a client's pace would have to wait."""
        return self._backpressure_limit.full(url)

    async def read(
        self,
        answer: Response,
        limit: SizeLimit | None = None,
        on_bytes: Callable[[int], object] = lambda size: None,
    ) -> tuple[bytes, bool]:
        """
        Read a whole body, as it is encoded.

        :param limit: the most that may come; that of an index page, if no other is given
        :param on_bytes: is told how many bytes come, while they come
        :return: the body, and whether its end was announced
        :raises UpstreamFailed: if it is cut, too long, or silent for too long
        """
        chunks: list[bytes] = []

        def take(chunk: bytes) -> None:
            chunks.append(chunk)
            on_bytes(len(chunk))

        limit = limit or self.page_limit
        ended = await self.stream(answer, take, limit, PAGE_TIME)
        return b"".join(chunks), ended

    async def stream(
        self,
        answer: Response,
        write: Callable[[bytes], object],
        limit: SizeLimit | None = None,
        within: float | None = None,
        stall_timeout: float | None = None,
    ) -> bool:
        """
        Give each chunk of a body, as it is encoded, to `write`, whose own errors go through.

        :param write: may give a Deferred; until it has its result nothing more is read
        :param limit: the most that may come
        :param within: the most seconds that they may take, if not just silence is to end it; then
            they have to keep a pace, too
        :param stall_timeout: the most seconds that `write` may have nothing more read
        :return: whether the end was announced
        :raises UpstreamFailed: if the body is cut, too long, or silent for too long
        :raises BodyStalled: if nothing more was to be read for too long
        """
        sink = Sink(write, limit, self.clock if within is not None else None)
        try:
            if limit is not None:
                limit.check(answer.length or 0)
            received = receive(
                answer.response,
                sink.write,
                clock=self.clock,
                idle_timeout=self.read_timeout,
                stall_timeout=stall_timeout,
            )
            if within is not None:
                received.addTimeout(within, self.clock, _timed_out)
            return await received
        except (CancelledError, BodyStalled):
            raise
        except Exception as error:
            if error is sink.error:
                raise
            raise upstream_failed(answer.url, Failure(error)) from error

    @asynccontextmanager
    async def _answer(
        self,
        slot: ConnectionPermit,
        url: str,
        method: str,
        headers: Mapping[str, str],
        send: Send,
        head: Head = lambda status: None,
    ) -> AsyncIterator[Response]:
        answer = await self._follow(slot, url, method, headers, send, head)
        try:
            yield answer
        finally:
            if not answer.response.delivered:
                slot.leave_after(self._discard(answer))

    async def _follow(
        self,
        slot: ConnectionPermit,
        url: str,
        method: str,
        headers: Mapping[str, str],
        send: Send,
        head: Head,
    ) -> Response:
        if self.offline:
            raise Offline(url, "not asked, as PROXPI_OFFLINE is set")
        for _ in range(REDIRECTS + 1):
            answer = await self._ask_once(url, method, headers, send)
            head(answer.status)
            location = answer.header("Location")
            if answer.status not in _REDIRECT_CODES or location is None:
                return answer
            slot.leave_after(self._discard(answer))
            try:
                # Whoever does not percent-encode means UTF-8 (RFC 3987 3.1).
                target = urls.join(url, location.encode("latin-1").decode("utf-8", "replace"))
                scheme, *_host = urls.origin(target)
            except ValueError:
                raise UpstreamFailed(
                    url, "it redirects to what is not http or https", temporary=False
                ) from None
            if scheme == "http" and urls.origin(url)[0] == "https":
                raise UpstreamFailed(url, "it redirects from https to http", temporary=False)
            url = target
            await slot.move(url)
        raise UpstreamFailed(url, f"more than {REDIRECTS} redirects", temporary=False)

    async def _ask_once(
        self, url: str, method: str, headers: Mapping[str, str], send: Send
    ) -> Response:
        fields = Headers()
        fields.setRawHeaders(b"User-Agent", [USER_AGENT])
        for name, value in headers.items():
            fields.setRawHeaders(name.encode("ascii"), [value.encode("latin-1", "replace")])
        authorization = self.credentials.header_for(url)
        if authorization is not None:
            fields.setRawHeaders(b"Authorization", [authorization])
        try:
            await self.address_policy.check_literal(url)
            sent = send(method.encode("ascii"), _wire(url), fields)
            sent.addTimeout(self.connect_timeout + self.read_timeout, self.clock, _timed_out)
            response = await _cancellable(sent)
        except CancelledError:
            raise
        except Exception as error:
            raise upstream_failed(url, Failure(error)) from error
        return Response(method, urls.public(url), response.code, response.headers, Once(response))

    def _discard(self, answer: Response) -> Deferred[object]:
        return discard(answer.response, clock=self.clock, idle_timeout=self.read_timeout)


def _cancellable(work: Deferred[T]) -> Deferred[T]:
    """Give a Deferred that, when cancelled, says so, in whatever words `work` ends then."""
    cancelled = False

    def cancel(_: Deferred[T]) -> None:
        nonlocal cancelled
        cancelled = True
        work.cancel()

    def pass_on(result: Any) -> None:
        if not cancelled:
            waiting.callback(result)  # a Failure, too

    waiting: Deferred[T] = Deferred(cancel)
    work.addBoth(pass_on)
    return waiting


def _timed_out(result: object, timeout: float) -> Any:
    """Replace whatever a cancelled request or body ends with by the reason for it."""
    if isinstance(result, Failure) and isinstance(result.value, ProxyFailed):
        raise ProxyFailed(result.value.url, "timed out", scope="connection")
    raise BodyTimeout()


def _wire(url: str) -> bytes:
    """Write a URL as it goes out: without credentials, and what is no ASCII percent-encoded.

    Everything else stays as the index gave it; signed URLs bear no re-quoting.
    """
    return quote(urls.public(url), safe="%/:=&?~#+!$,;'@()*[]|").encode("ascii")
