"""Errors of upstreams: one exception with one sentence, which the layers above handle.

Twisted reports the same failure in many shapes (a refused connection bare, a failed handshake
within ``ResponseNeverReceived``, …). :func:`upstream_failed` turns each of them into an
:class:`UpstreamFailed`, which says whether waiting may help and what it concerns.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import ClassVar, Literal, Never, TypeVar, cast, get_args

from OpenSSL import SSL
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.defer import TimeoutError as DeferTimeoutError
from twisted.python.failure import Failure
from twisted.web.error import SchemeNotSupported

from proxpi.simple import urls

T = TypeVar("T")
#: The kind of a failure, in one word: a label of metrics, and part of a problem's key. Files have
#: more of them: see :mod:`proxpi.files.fetch`; those of folders have their own.
FailureKind = Literal[
    "connection",
    "dns",
    "timeout",
    "tls",
    "proxy",
    "blocked",
    "offline",
    "credentials",
    "rate_limited",
    "server_error",
    "status",
    "cut",
    "invalid",
]
#: What a failure concerns: the requested resource; the upstream, to which no connection was made
#: or which sent no response head (``connection``); or the upstream, which limits its clients.
Scope = Literal["resource", "connection", "rate limit"]


#: The result of a request to an upstream, as it is counted: one of these, or a kind of failure.
RequestResult = Literal["ok", "not_modified", "absent", "cancelled"] | FailureKind


class UpstreamFailed(Exception):
    """An upstream gave no usable response.

    :param url: the requested URL; kept without credentials and query
    :param cause: one clause, such as ``connection refused``
    :param temporary: whether the same request may succeed later by itself
    :param retry_after: in seconds, if the upstream sent ``Retry-After``
    :param kind: see :data:`FailureKind`; by default that of the class
    """

    KIND: ClassVar[FailureKind] = "invalid"

    def __init__(
        self,
        url: str,
        cause: str,
        *,
        temporary: bool = True,
        retry_after: float | None = None,
        kind: str = "",
        scope: Scope = "resource",
    ) -> None:
        self.url = urls.loggable(url)
        super().__init__(f"{self.url}: {cause}")
        self.cause = cause
        self.temporary = temporary
        self.retry_after = retry_after
        self.kind: str = kind or self.KIND
        self.scope = scope

    def copy(self, url: str = "") -> UpstreamFailed:
        """Return the same error, maybe of another URL, without the frames of its traceback."""
        error = type(self)(url or self.url, self.cause)
        vars(error).update(vars(self) | {"url": error.url})
        return error


class CredentialsRejected(UpstreamFailed):
    """An upstream wants other credentials than it got."""

    KIND: ClassVar[FailureKind] = "credentials"


class ProxyFailed(UpstreamFailed):
    """A forward proxy failed, and not the upstream behind it; `url` is the name of the proxy."""

    KIND: ClassVar[FailureKind] = "proxy"


class ProxyCredentialsRejected(ProxyFailed, CredentialsRejected):
    """A forward proxy wants other credentials than it got."""


class Offline(UpstreamFailed):
    """No request was sent, because of ``PROXPI_OFFLINE``."""

    KIND: ClassVar[FailureKind] = "offline"


class RequestError(Exception):
    """An error of a request before its URL is known; it becomes an :class:`UpstreamFailed`."""

    cause = ""
    temporary = True
    scope: Scope = "resource"
    kind: FailureKind = "invalid"

    def __init__(self, detail: str = "", *, temporary: bool | None = None) -> None:
        super().__init__(detail)
        self.cause = ": ".join(filter(None, (self.cause, detail)))
        self.temporary = self.temporary if temporary is None else temporary


class TLSFailed(RequestError):
    """A TLS handshake failed; the cause names the host."""

    scope: Scope = "connection"
    kind: FailureKind = "tls"


class AddressBlocked(RequestError):
    """The address policy allows no address of a host; `temporary` if a lookup failed."""

    kind: FailureKind = "blocked"

    def __init__(self, host: str, address: str, kind: str, *, temporary: bool = False) -> None:
        what = "is" if host == address else f"is {address},"
        cause = (
            f"{host} {what} a {kind} address, where no link or redirect may lead "
            f"unless PROXPI_ALLOW_HOSTS has {host}"
        )
        super().__init__(cause, temporary=temporary)


class DNSTimeout(RequestError):
    cause = "timed out while its name was looked up"
    scope: Scope = "connection"
    kind: FailureKind = "dns"


class HeadTooLong(RequestError):
    cause = "the head of the answer is too long"
    temporary = False


class BodyTimeout(RequestError):
    """A response, its head or its body, was slow or silent for too long."""

    cause = "timed out"
    scope: Scope = "connection"
    kind: FailureKind = "timeout"


class BodyStalled(Exception):
    """The connection of a body was closed, as its consumer took no bytes for too long.

    :ivar drained: fires once the consumer takes bytes again
    """

    def __init__(self, drained: Deferred[None]) -> None:
        super().__init__("its consumer takes no bytes")
        self.drained = drained


class BodyUnusable(RequestError):
    """A body is not whole, too long, or cannot be decoded."""


class BodyTooLong(BodyUnusable):
    cause = "the answer is too long"
    temporary = False


class BodyTruncated(BodyUnusable):
    cause = "the answer was cut short"
    kind: FailureKind = "cut"


class BodyUndecodable(BodyUnusable):
    cause = "the answer cannot be decompressed"
    temporary = False


def result_of(status: int | None, failure: BaseException | None) -> RequestResult:
    """
    Return the result of a request.

    ====================================  ==================  ===============================
    Failure                               Status              Result
    ====================================  ==================  ===============================
    an error of upstreams                 any                 its kind, or else ``invalid``
    any, before a response                none                ``cancelled``
    ``CancelledError``, ``GeneratorExit``  any                ``cancelled``
    any other, or none                    304                 ``not_modified``
    any other, or none                    403, 404, 410       ``absent``
    any other, or none                    other 4xx and 5xx   its kind
    any other, or none                    any other           ``ok``
    ====================================  ==================  ===============================

    A caller that cannot use a response raises an error of upstreams before the request ends.
    """
    if isinstance(failure, UpstreamFailed | RequestError):
        return (
            cast(FailureKind, failure.kind) if failure.kind in get_args(FailureKind) else "invalid"
        )
    if status is None or isinstance(failure, CancelledError | GeneratorExit):
        return "cancelled"
    if status == 304:
        return "not_modified"
    if status in (403, 404, 410):
        return "absent"
    return failure_kind(status) if status >= 400 else "ok"


def failure_kind(status: int) -> FailureKind:
    """Return the kind of failure that a status means."""
    if status in (401, 403):
        return "credentials"
    if status == 429:
        return "rate_limited"
    return "server_error" if status >= 500 else "status"


async def all_settled(works: Iterable[Awaitable[T]]) -> list[T | UpstreamFailed]:
    """
    Await works side by side; give the result of each, or its :class:`UpstreamFailed`.

    Any other error is raised once all have ended.
    """

    async def settle(work: Awaitable[T]) -> T | UpstreamFailed:
        try:
            return await work
        except UpstreamFailed as error:
            return error

    deferreds = [Deferred.fromCoroutine(settle(work)) for work in works]
    outcomes = await DeferredList(deferreds, consumeErrors=True)
    for _, outcome in outcomes:
        if isinstance(outcome, Failure):
            outcome.raiseException()
    return [outcome for _, outcome in outcomes]


def on_timeout(error: Callable[[], Exception]) -> Callable[[object, float], Never]:
    """Return a function for `Deferred.addTimeout` that raises an error once the time is over."""

    def fail(result: object, timeout: float) -> Never:
        raise error()

    return fail


#: The causes of Twisted's errors and OpenSSL's; the first line that fits counts. A connection that
#: is closed before a head is the fault of the request as likely as of the server.
_CAUSES: tuple[tuple[tuple[type[BaseException], ...], str, FailureKind, Scope], ...] = (
    ((error.DNSLookupError,), "host name not found", "dns", "connection"),
    ((error.ConnectionRefusedError,), "connection refused", "connection", "connection"),
    (
        (error.TimeoutError, error.TCPTimedOutError),
        "timed out while connecting",
        "timeout",
        "connection",
    ),
    ((DeferTimeoutError,), "timed out", "timeout", "connection"),
    ((error.ConnectError,), "could not connect", "connection", "connection"),
    (
        (error.ConnectionLost, error.ConnectionDone, SSL.SysCallError, SSL.ZeroReturnError),
        "the connection was closed",
        "connection",
        "resource",
    ),
)
#: Words of OpenSSL for a first record that is none.
_NOT_TLS = ("wrong version number", "packet length too long", "http request", "unknown protocol")


def upstream_failed(url: str, reason: BaseException) -> UpstreamFailed:
    """Return the error to raise for a failed request; an :class:`UpstreamFailed` stays the same."""
    # Down to the reason that says most: a request that its own timer has cancelled also lists the
    # lost connection.
    while reasons := getattr(reason, "reasons", None):
        telling = (each for each in reasons if each.check(RequestError, SSL.Error))
        reason = next(telling, reasons[0]).value
    if isinstance(reason, UpstreamFailed):
        return reason
    if isinstance(reason, RequestError):
        temporary, kind, scope = reason.temporary, reason.kind, reason.scope
        return UpstreamFailed(url, reason.cause, temporary=temporary, kind=kind, scope=scope)
    if isinstance(reason, SchemeNotSupported):
        return UpstreamFailed(url, "only http and https are supported", temporary=False)
    for types, cause, kind, scope in _CAUSES:
        if isinstance(reason, types):
            return UpstreamFailed(url, cause, kind=kind, scope=scope)
    if isinstance(reason, SSL.Error):
        # A queue of errors: each a tuple, whose last part is for people.
        queue = reason.args[0] if reason.args and isinstance(reason.args[0], list) else []
        detail = "; ".join(part[-1] for part in queue)
        temporary = "unsupported protocol" not in detail and "certificate" not in detail
        if "unsupported protocol" in detail:
            detail = "it speaks no version that is safe (1.2 or newer)"
        elif any(words in detail for words in _NOT_TLS):
            detail = f"what answers there does not speak TLS ({detail})"
        cause = ": ".join(filter(None, ("TLS failed", detail)))
        return UpstreamFailed(url, cause, temporary=temporary, kind="tls", scope="connection")
    return UpstreamFailed(url, f"no usable answer ({type(reason).__name__})", kind="connection")
