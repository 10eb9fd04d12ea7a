"""How pages are asked for with treq, which offers compression, on the agent that files use as well.

What treq would do beyond that is not left to it: redirects, for each hop decides anew which
credentials may go along (:mod:`proxpi.upstream.pool`), and decompression, for treq takes a stream
that ends early for a whole one.
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

from proxpi.upstream.answer import ENCODING

if TYPE_CHECKING:
    from treq.client import HTTPClient

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
