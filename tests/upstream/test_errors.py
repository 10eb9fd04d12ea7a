"""Errors of upstreams: one cause in plain words, whether waiting may help, and the scope."""

from __future__ import annotations

from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet import defer, error
from twisted.internet.defer import fail, succeed
from twisted.python.failure import Failure
from twisted.web.client import RequestTransmissionFailed, ResponseFailed, ResponseNeverReceived
from twisted.web.error import SchemeNotSupported

from proxpi.upstream.errors import (
    AddressBlocked,
    BodyTimeout,
    BodyTooLong,
    BodyTruncated,
    DNSTimeout,
    HeadTooLong,
    TLSFailed,
    UpstreamFailed,
    all_settled,
    upstream_failed,
)
from tests.support.cases import run

URL = "https://index.example/simple/"
EXPIRED = TLSFailed("the certificate of index.example expired on 2026-01-02", temporary=False)
BUSY = TLSFailed("index.example broke off the TLS handshake (alert 80)", temporary=True)
NOT_TLS = "TLS failed: what answers there does not speak TLS"
TOO_OLD = "it speaks no version that is safe (1.2 or newer)"
BOTH = "decryption failed; bad record mac"


BLOCKED = (
    "a is ::1, a private address, where no link or redirect may lead "
    "unless PROXPI_ALLOW_HOSTS has a"
)


def _ssl(*reasons: str) -> SSL.Error:
    return SSL.Error([("SSL routines", "", reason) for reason in reasons])


CONNECTION: list[tuple[Exception, str, bool]] = [
    (error.DNSLookupError(), "host name not found", True),
    (error.ConnectionRefusedError(), "connection refused", True),
    (error.TimeoutError(), "timed out while connecting", True),
    (error.TCPTimedOutError(), "timed out while connecting", True),
    (error.NoRouteError(), "could not connect", True),
    (error.ConnectError(), "could not connect", True),
    (BodyTimeout(), "timed out", True),
    (defer.TimeoutError(), "timed out", True),
    (DNSTimeout(), "timed out while its name was looked up", True),
    (EXPIRED, "the certificate of index.example expired on 2026-01-02", False),
    (BUSY, "index.example broke off the TLS handshake (alert 80)", True),
    (_ssl("wrong version number"), f"{NOT_TLS} (wrong version number)", True),
    (_ssl("unsupported protocol"), f"TLS failed: {TOO_OLD}", False),
    (_ssl("bad certificate"), "TLS failed: bad certificate", False),
    (_ssl("decryption failed", "bad record mac"), f"TLS failed: {BOTH}", True),
    (SSL.Error([]), "TLS failed", True),
    (SSL.Error("no list"), "TLS failed", True),
]
RESOURCE: list[tuple[Exception, str, bool]] = [
    (error.ConnectionLost(), "the connection was closed", True),
    (error.ConnectionDone(), "the connection was closed", True),
    (SSL.SysCallError(104, "ECONNRESET"), "the connection was closed", True),
    (SSL.ZeroReturnError(), "the connection was closed", True),
    (BodyTooLong(), "the answer is too long", False),
    (BodyTooLong("X allows 7 bytes"), "the answer is too long: X allows 7 bytes", False),
    (HeadTooLong(), "the head of the answer is too long", False),
    (AddressBlocked("a", "::1", "private"), BLOCKED, False),
    (AddressBlocked("a", "::1", "private", temporary=True), BLOCKED, True),
    (BodyTruncated(), "the answer was cut short", True),
    (SchemeNotSupported(), "only http and https are supported", False),
    (ValueError("secret"), "no usable answer (ValueError)", True),
]


@pytest.mark.parametrize(
    ("reason", "cause", "temporary", "scope"),
    [
        *((*row, "connection") for row in CONNECTION),
        *((*row, "resource") for row in RESOURCE),
    ],
)
def test_causes(reason: Exception, cause: str, temporary: bool, scope: str) -> None:
    """Each failure has its sentence, bare or wrapped as Twisted's client does it, and its scope."""
    wrappers: list[Any] = [ResponseNeverReceived, ResponseFailed, RequestTransmissionFailed]
    shapes = [reason, *(wrapper([Failure(reason)]) for wrapper in wrappers)]
    for shape in [*shapes, ResponseFailed([Failure(shapes[1])])]:
        found = upstream_failed(URL, shape)
        assert (found.cause, found.temporary) == (cause, temporary)
        assert (found.scope, found.copy().scope) == (scope, scope)
        assert str(found) == f"{URL}: {cause}"


def test_the_telling_reason() -> None:
    """Of several reasons the one that tells something counts, not the lost connection beside it."""
    both = ResponseFailed([Failure(error.ConnectionLost()), Failure(EXPIRED)])
    assert upstream_failed(URL, both).cause == EXPIRED.cause


def test_no_credentials() -> None:
    """A failure gives no credentials away, and keeps its sentence."""
    found = UpstreamFailed("https://user:secret@index.example/simple/", "status 500")
    assert (str(found), found.url) == (f"{URL}: status 500", URL)
    assert "secret" not in repr(found)
    assert upstream_failed("https://other.example/", found) is found


def test_all_settled() -> None:
    """Each coroutine gives its result or its failure; any other error is raised at the end."""
    failure = UpstreamFailed(URL, "status 500")
    results: list[object] = []
    run(all_settled([succeed("result"), fail(failure)])).addCallback(results.extend)
    run(all_settled([fail(KeyError()), succeed(1)])).addErrback(lambda f: results.append(f.type))
    assert results == ["result", failure, KeyError]
