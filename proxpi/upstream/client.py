"""Requests to upstreams: :class:`UpstreamClient` sends them, follows redirects and reads bodies.

Pages are requested through treq, which offers compression; files through the bare agent, since a
file is wanted as it is. Both take their connections from one pool. Each hop of a request is sent
only if the address policy allows its host, with the credentials of its own origin, and on a
connection that the limit of that origin has to give; the connection is held until the body ends.

treq's redirects are not used (each would lose its connection to the pool, and has credentials of
its own), nor its decoder (it takes a truncated body for whole, and its output is not bounded), nor
its cookies (an index gets no state of another request).
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cached_property
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import quote

import attrs
from hyperlink import EncodedURL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.client import GzipDecoder
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse

from proxpi import __version__, metrics
from proxpi.simple import URL
from proxpi.upstream.address_policy import AddressPolicy
from proxpi.upstream.connections import ConnectionLimit, ConnectionLimits, Queue
from proxpi.upstream.credentials import Credentials
from proxpi.upstream.errors import (
    Offline,
    ProxyFailed,
    RequestResult,
    UpstreamFailed,
    on_timeout,
    result_of,
    upstream_failed,
)
from proxpi.upstream.proxies import NO_PROXIES, Proxies
from proxpi.upstream.response import Response, SizeLimit, discard_body, read_body

if TYPE_CHECKING:
    from treq.client import HTTPClient

#: Redirects that one request may take (RFC 9110 15.4 leaves the number open).
REDIRECTS = 10
#: Bytes of an index page, decompressed, and of a list of projects.
PAGE_LIMIT = SizeLimit(64 * 1024 * 1024, "PROXPI_PAGE_LIMIT")
LIST_LIMIT = SizeLimit(256 * 1024 * 1024, "PROXPI_LIST_LIMIT")
#: Seconds that the body of a page may take, however steadily it comes; a page is short.
PAGE_TIME = 60.0

#: Responses of an index whose mean latency is given.
LATENCIES = 50

USER_AGENT = f"proxpi/{__version__}".encode("ascii")

_REDIRECT_CODES = frozenset({301, 302, 303, 307, 308})
#: Sends a request: method, URL, header fields.
_Send = Callable[[bytes, bytes, Headers], "Deferred[IResponse]"]
T = TypeVar("T")


@attrs.define(kw_only=True, eq=False)
class UpstreamClient:
    """Requests pages and files from upstreams.

    :ivar connect_timeout: seconds to connect
    :ivar read_timeout: seconds that an upstream may be silent, before the head and within the body
    """

    _agent: IAgent
    clock: IReactorTime
    credentials: Credentials
    address_policy: AddressPolicy
    connections: ConnectionLimits
    connect_timeout: float
    read_timeout: float
    proxies: Proxies = NO_PROXIES
    offline: bool = False
    page_limit: SizeLimit = PAGE_LIMIT
    list_limit: SizeLimit = LIST_LIMIT
    # By index, of its last responses.
    _latencies: dict[str, deque[float]] = attrs.field(init=False, factory=dict)

    def page(
        self,
        url: str,
        headers: Mapping[str, str],
        on_head: Callable[[int], object] = lambda status: None,
        queue: Queue | None = None,
        index: str = "",
    ) -> AbstractAsyncContextManager[Response]:
        """
        Request an index page; the connection is held, and the body to be read, in the context.

        :param index: the name of the index for which the request is counted; ``""``: none
        :param on_head: is called with the status of each response head, redirects included
        :param queue: holds the request while it waits for a connection
        :raises UpstreamFailed: if no response comes
        """
        limit = self.connections.pages
        send = self._send_by_treq
        return self._request(
            url, "GET", headers, send=send, limit=limit, on_head=on_head, queue=queue, index=index
        )

    def file(
        self,
        url: str,
        headers: Mapping[str, str],
        method: str = "GET",
        *,
        backpressure: bool = False,
        queue: Queue | None = None,
        index: str = "",
    ) -> AbstractAsyncContextManager[Response]:
        """
        Request a file without compression; otherwise as :meth:`page`.

        :param backpressure: whether it arrives no faster than some client takes it
        """
        limit = self.connections.backpressure if backpressure else self.connections.files
        fields = {"Accept-Encoding": "identity", **headers}
        send = self._agent.request
        return self._request(url, method, fields, send=send, limit=limit, queue=queue, index=index)

    def latency(self, index: str) -> float | None:
        """Return the mean seconds until the heads of the last responses; ``None``: of none."""
        found = self._latencies.get(index)
        return sum(found) / len(found) if found else None

    def timeout_error(self, url: str) -> UpstreamFailed:
        origin = URL.parse(url).origin
        proxy = self.proxies.to(origin)
        # A tunnel has a deadline of its own; behind it is the upstream itself.
        if proxy is None or origin.scheme == "https":
            return UpstreamFailed(url, "timed out", kind="timeout", scope="connection")
        return ProxyFailed(proxy.name, "timed out", scope="connection")

    def backpressure_full(self, url: str) -> bool:
        return self.connections.backpressure.is_reached(URL.parse(url).origin)

    async def read(
        self,
        response: Response,
        limit: SizeLimit | None = None,
        on_bytes: Callable[[int], object] = lambda size: None,
    ) -> tuple[bytes, bool]:
        """
        Read a whole body, as it is encoded, within :data:`PAGE_TIME`.

        :param limit: by default that of an index page
        :param on_bytes: is called with the number of bytes of each chunk
        :return: the body, and whether its end was announced; see :func:`read_body`
        """
        chunks: list[bytes] = []

        def write(chunk: bytes) -> None:
            chunks.append(chunk)
            on_bytes(len(chunk))

        ended = await self.stream(response, write, limit or self.page_limit, PAGE_TIME)
        return b"".join(chunks), ended

    async def stream(
        self,
        response: Response,
        write: Callable[[bytes], object],
        limit: SizeLimit | None = None,
        deadline: float | None = None,
        stall_timeout: float | None = None,
    ) -> bool:
        """Pass each chunk of a body to `write`; see :func:`read_body`."""
        return await read_body(
            response,
            _counted(write, response.index) if response.index else write,
            clock=self.clock,
            idle_timeout=self.read_timeout,
            limit=limit,
            deadline=deadline,
            stall_timeout=stall_timeout,
        )

    @asynccontextmanager
    async def _request(
        self,
        url: str,
        method: str,
        headers: Mapping[str, str],
        *,
        send: _Send,
        limit: ConnectionLimit,
        on_head: Callable[[int], object] = lambda status: None,
        queue: Queue | None = None,
        index: str,
    ) -> AsyncIterator[Response]:
        if self.offline:
            raise Offline(url, "not asked, as PROXPI_OFFLINE is set")
        try:
            target = URL.parse(url)
        except ValueError:
            cause = "only http and https are supported"
            raise UpstreamFailed(url, cause, temporary=False) from None
        sent, seconds = False, 0.0
        status: int | None = None
        result: RequestResult
        try:
            for _ in range(REDIRECTS + 1):
                release = await limit.acquire(target.origin, queue)
                sent, sent_at = True, self.clock.seconds()
                try:
                    response = await self._send(method, target, headers, send, index)
                except BaseException:
                    release()
                    raise
                seconds += self.clock.seconds() - sent_at
                try:
                    on_head(response.status)
                    location = response.header("Location")
                    if response.status not in _REDIRECT_CODES or location is None:
                        status = response.status
                        self._note_head(index, seconds)
                        yield response
                        result = result_of(status, None)
                        return
                    target = _redirected(target, location)
                finally:
                    if response.delivered:
                        release()
                    else:
                        discard_body(response, self.clock, release)
            cause = f"more than {REDIRECTS} redirects"
            raise UpstreamFailed(target.text, cause, temporary=False)
        except BaseException as error:
            result = result_of(status, error)
            raise
        finally:
            # One request, however many redirects it takes; none that has only waited for its turn.
            if index and sent:
                metrics.UPSTREAM_REQUESTS.labels(index, result).inc()

    def _note_head(self, index: str, seconds: float) -> None:
        if index:
            metrics.UPSTREAM_SECONDS.labels(index).observe(seconds)
            self._latencies.setdefault(index, deque(maxlen=LATENCIES)).append(seconds)

    async def _send(
        self, method: str, url: URL, headers: Mapping[str, str], send: _Send, index: str
    ) -> Response:
        fields = Headers({b"User-Agent": [USER_AGENT]})
        for name, value in headers.items():
            fields.setRawHeaders(name.encode("ascii"), [value.encode("latin-1", "replace")])
        authorization = self.credentials.header_for(url)
        if authorization is not None:
            fields.setRawHeaders(b"Authorization", [authorization])
        try:
            await self.address_policy.check_host(url.origin)
            # Non-ASCII is percent-encoded; nothing else of a URL changes.
            encoded = quote(url.public, safe="%/:=&?~#+!$,;'@()*[]|").encode("ascii")
            sent = send(method.encode("ascii"), encoded, fields)
            timed_out = on_timeout(lambda: self.timeout_error(url.text))
            sent.addTimeout(self.connect_timeout + self.read_timeout, self.clock, timed_out)
            response = await _cancellable(sent)
        except CancelledError:
            raise
        except Exception as error:
            raise upstream_failed(url.text, error) from error
        return Response(method, url.public, response, index)

    def _send_by_treq(self, method: bytes, url: bytes, headers: Headers) -> Deferred[IResponse]:
        sent = self._treq.request(
            method.decode("ascii"),
            _Verbatim.from_text(url.decode("ascii")),
            headers=headers,
            allow_redirects=False,
            unbuffered=True,
            reactor=cast(Any, self.clock),  # for treq's own timeout, which is not used
        )
        return cast("Deferred[IResponse]", sent.addCallback(_undecoded))

    @cached_property
    def _treq(self) -> HTTPClient:
        # Imported for the first page: until then it would take 1 MiB, and 20 ms of the start.
        from treq.client import HTTPClient
        from treq.cookies import IndexableCookieJar

        cookies = IndexableCookieJar(DefaultCookiePolicy(allowed_domains=()))
        return HTTPClient(self._agent, cookies)


def _counted(write: Callable[[bytes], object], index: str) -> Callable[[bytes], object]:
    received = metrics.RECEIVED_BYTES.labels(index)

    def counted(chunk: bytes) -> object:
        received.inc(len(chunk))
        return write(chunk)

    return counted


class _Verbatim(EncodedURL):
    """A URL that treq sends as it is; it would encode an IPv6 address, or ``a_b``, as a name."""

    def to_uri(self) -> EncodedURL:
        return self


def _undecoded(response: Any) -> IResponse:
    """Take treq's decoders off a response, and put their codings back into its head."""
    response = response.original
    while isinstance(response, GzipDecoder):
        response = response.original
        response.headers.addRawHeader(b"Content-Encoding", b"gzip")
    return cast(IResponse, response)


def _redirected(url: URL, location: str) -> URL:
    """:raises UpstreamFailed: if it leads to another scheme than http and https, or out of https"""
    try:
        # A location that is not percent-encoded is UTF-8 (RFC 3987 3.1).
        target = url.join(location.encode("latin-1").decode("utf-8", "replace"))
    except ValueError:
        cause = "it redirects to what is not http or https"
        raise UpstreamFailed(url.text, cause, temporary=False) from None
    if (url.origin.scheme, target.origin.scheme) == ("https", "http"):
        raise UpstreamFailed(url.text, "it redirects from https to http", temporary=False)
    return target


def _cancellable(work: Deferred[T]) -> Deferred[T]:
    """Return a Deferred that ends with `CancelledError` when cancelled, as `work` may not."""
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
