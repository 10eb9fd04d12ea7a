"""What can go wrong on the way out, in one exception with one plain sentence.

Twisted reports the same trouble in many shapes (a refused connection bare, a failed
handshake inside ``ResponseNeverReceived``, …). :func:`upstream_failed` turns each of them into
:class:`UpstreamFailed`, so that the floors above need to know only whether waiting may help.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import Literal, TypeVar

from OpenSSL import SSL
from twisted.internet import error
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.defer import TimeoutError as DeferTimeoutError
from twisted.python.failure import Failure
from twisted.web.error import SchemeNotSupported

from proxpi.simple import urls

T = TypeVar("T")
#: What a failure concerns: the requested resource; the upstream, to which no connection was made
#: or which sent no response head (``connection``); or the upstream, which limits its clients.
Scope = Literal["resource", "connection", "rate limit"]


class UpstreamFailed(Exception):
    """An upstream did not give a usable answer.

    :param url: what was asked for; kept without credentials and query
    :param cause: one plain clause, such as ``connection refused``
    :param temporary: whether the same request may succeed later without anyone's doing
    :param retry_after: seconds after which the upstream wants to be asked again, if it said so
    :param kind: one word for it, by which it is counted
    :param scope: what it concerns
    """

    def __init__(
        self,
        url: str,
        cause: str,
        *,
        temporary: bool = True,
        retry_after: float | None = None,
        kind: str = "upstream",
        scope: Scope = "resource",
    ) -> None:
        self.url = urls.loggable(url)
        super().__init__(f"{self.url}: {cause}")
        self.cause = cause
        self.temporary = temporary
        self.retry_after = retry_after
        self.kind = kind
        self.scope = scope

    def copy(self) -> UpstreamFailed:
        """Give the same error anew: one that was raised holds on to all that led to it."""
        return type(self)(
            self.url,
            self.cause,
            temporary=self.temporary,
            retry_after=self.retry_after,
            scope=self.scope,
        )


class CredentialsRejected(UpstreamFailed):
    """An upstream wants other credentials than it got."""


class ProxyFailed(UpstreamFailed):
    """A forward proxy failed, and not the upstream behind it.

    :param url: the proxy's, with the word that says so before it
    """


class ProxyCredentialsRejected(ProxyFailed, CredentialsRejected):
    """A forward proxy wants other credentials than it got."""


class Offline(UpstreamFailed):
    """No connection was made, because of ``PROXPI_OFFLINE``."""


class TLSFailed(Exception):
    """A TLS handshake that came to nothing.

    :param cause: one plain clause, which names the host
    """

    def __init__(self, cause: str, *, temporary: bool) -> None:
        super().__init__(cause)
        self.cause = cause
        self.temporary = temporary


class AddressBlocked(Exception):
    """A link or a redirect leads to where none may lead; its text is one clause that says so.

    :ivar certain: whether all is known that there is to know
    """

    def __init__(self, host: str, address: str, kind: str, *, certain: bool = True) -> None:
        what = "is" if host == address else f"is {address},"
        super().__init__(
            f"{host} {what} a {kind} address, where no link or redirect may lead "
            f"unless PROXPI_ALLOW_HOSTS has {host}"
        )
        self.certain = certain


class DNSTimeout(Exception):
    """The addresses of a host took too long to look up."""


class HeadTooLong(Exception):
    """The head of an answer brought more bytes than it may."""


class BodyTimeout(Exception):
    """An answer, its head or its body, took too long or was silent for too long."""


class BodyStalled(Exception):
    """The connection of a body was closed, as its consumer took no bytes for too long.

    :ivar drained: fires once the consumer takes bytes again
    """

    def __init__(self, drained: Deferred[None]) -> None:
        super().__init__("its consumer takes no bytes")
        self.drained = drained


class BodyUnusable(Exception):
    """A body came that is not whole, too long, or cannot be decoded."""


class BodyTooLong(BodyUnusable):
    """A body brings more bytes than it may; its text says which setting allows how many."""


class BodyTruncated(BodyUnusable):
    """A body ended before its end."""


class BodyUndecodable(BodyUnusable):
    """A body cannot be decoded; its text, if it has one, says why."""


async def all_settled(
    works: Iterable[Awaitable[T]],
) -> list[T | UpstreamFailed]:
    """
    Give the results of what is done side by side, or why the upstream failed.

    Any other error is raised as it is, once all is through.
    """
    deferreds = [Deferred.fromCoroutine(settled(work)) for work in works]
    outcomes = await DeferredList(deferreds, consumeErrors=True)
    for _, outcome in outcomes:
        if isinstance(outcome, Failure):
            outcome.raiseException()
    return [outcome for _, outcome in outcomes]


async def settled(work: Awaitable[T]) -> T | UpstreamFailed:
    """Give the result of some work, or why the upstream failed, to wait for several at once."""
    try:
        return await work
    except UpstreamFailed as error:
        return error


def upstream_failed(url: str, failure: Failure) -> UpstreamFailed:
    """
    Say in one sentence why a request or its body failed.

    :return: the exception to raise; an :class:`UpstreamFailed` is given back as it is
    """
    reason = _innermost(failure).value
    if isinstance(reason, UpstreamFailed):
        return reason
    if isinstance(reason, AddressBlocked):
        return UpstreamFailed(url, str(reason), temporary=not reason.certain)
    if isinstance(reason, BodyTooLong | BodyUndecodable):
        long = isinstance(reason, BodyTooLong)
        what = "the answer is too long" if long else "the answer cannot be decompressed"
        cause = ": ".join(filter(None, (what, str(reason))))
        return UpstreamFailed(url, cause, temporary=False)
    for kinds, cause, temporary in _CAUSES:
        if isinstance(reason, kinds):
            scope: Scope = "connection" if isinstance(reason, _NOT_CONNECTED) else "resource"
            return UpstreamFailed(url, cause, temporary=temporary, scope=scope)
    if isinstance(reason, TLSFailed):
        return UpstreamFailed(url, reason.cause, temporary=reason.temporary, scope="connection")
    if isinstance(reason, SSL.Error):
        return _tls_failed(url, reason)
    return UpstreamFailed(url, f"no usable answer ({type(reason).__name__})")


def _tls_failed(url: str, reason: SSL.Error) -> UpstreamFailed:
    """Say what OpenSSL itself found wrong with what the other side sent."""
    # A queue of errors: each a tuple, whose last part is for people.
    queue = reason.args[0] if reason.args and isinstance(reason.args[0], list) else []
    detail = "; ".join(part[-1] for part in queue)
    if "unsupported protocol" in detail:
        cause = "TLS failed: it speaks no version that is safe (1.2 or newer)"
        return UpstreamFailed(url, cause, temporary=False, scope="connection")
    if any(words in detail for words in _NOT_TLS):
        cause = f"TLS failed: what answers there does not speak TLS ({detail})"
        return UpstreamFailed(url, cause, scope="connection")
    cause = f"TLS failed{': ' + detail if detail else ''}"
    return UpstreamFailed(url, cause, temporary="certificate" not in detail, scope="connection")


#: What OpenSSL says of a first record that is none.
_NOT_TLS = ("wrong version number", "packet length too long", "http request", "unknown protocol")
# The order matters: the first line that fits says it.
_CAUSES: tuple[tuple[tuple[type[BaseException], ...], str, bool], ...] = (
    ((error.DNSLookupError,), "host name not found", True),
    ((DNSTimeout,), "timed out while its name was looked up", True),
    ((error.ConnectionRefusedError,), "connection refused", True),
    ((error.TimeoutError, error.TCPTimedOutError), "timed out while connecting", True),
    ((BodyTimeout, DeferTimeoutError), "timed out", True),
    ((HeadTooLong,), "the head of the answer is too long", False),
    ((BodyTruncated,), "the answer was cut short", True),
    ((error.ConnectError,), "could not connect", True),
    ((error.ConnectionLost, error.ConnectionDone), "the connection was closed", True),
    ((SSL.SysCallError, SSL.ZeroReturnError), "the connection was closed", True),
    ((SchemeNotSupported,), "only http and https are supported", False),
)
#: Those after which there was no connection, or no response head on it. A connection that is
#: closed before the head is the fault of the request as likely as of the server.
_NOT_CONNECTED = (
    error.DNSLookupError,
    DNSTimeout,
    error.ConnectError,
    BodyTimeout,
    DeferTimeoutError,
)


def _innermost(failure: Failure) -> Failure:
    """Unwrap what Twisted's HTTP client wraps around the reason that tells something."""
    while reasons := getattr(failure.value, "reasons", None):
        # A request that was cancelled by its own timer also lists the lost connection.
        failure = next(
            (r for r in reasons if r.check(BodyTimeout, TLSFailed, SSL.Error)), reasons[0]
        )
    return failure
