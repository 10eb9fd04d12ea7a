"""What is said of a forward proxy that fails: it is named, without its credentials.

Whether the proxy or what is behind it fails is often for nobody to see. Here the proxy is blamed
for what happens on the connection to it, and for refusing to make another one.
"""

from __future__ import annotations

from http import HTTPStatus

from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from proxpi.upstream.errors import ProxyCredentialsRejected, ProxyFailed, failed
from proxpi.upstream.proxies import Proxy


def blamed(proxy: Proxy, failure: Failure) -> ProxyFailed:
    """Give the exception that says why a proxy, or the connection to it, failed."""
    error = failed(proxy.name, failure)
    if isinstance(error, ProxyFailed):
        return error
    return ProxyFailed(proxy.name, error.cause, temporary=error.temporary, scope=error.scope)


def refused(proxy: Proxy, status: int) -> ProxyFailed:
    """Give the exception that says what a proxy means by a status that is no success."""
    # tinyproxy says 401 of credentials that are wrong.
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED):
        wanted = "other credentials" if proxy.authorization else "credentials"
        cause = f"it wants {wanted} (status {status})"
        return ProxyCredentialsRejected(proxy.name, cause, temporary=False, scope="connection")
    if status in (408, 425, 429) or status >= 500:
        cause = f"it could not connect (status {status})"
        return ProxyFailed(proxy.name, cause, scope="connection")
    return ProxyFailed(proxy.name, f"it refuses to connect (status {status})", temporary=False)


def own(status: int, headers: Headers) -> bool:
    """
    Tell whether the answer to an http request is the proxy's own, and not one that it passed on.

    There is no rule for that. But one is needed: of an index 403 may mean that it lacks a project,
    so that another index is believed. Some proxies put into their own answers all that is in those
    that they pass on; so any 403 is taken for theirs.
    """
    if status in (HTTPStatus.PROXY_AUTHENTICATION_REQUIRED, HTTPStatus.FORBIDDEN):
        return True
    servers = headers.getRawHeaders("Server", [])
    tinyproxy = any(server.startswith("tinyproxy/") for server in servers)
    return status >= 400 and (tinyproxy or headers.hasHeader("X-Squid-Error"))
