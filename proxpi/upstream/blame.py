"""What is said of a forward proxy that fails: it is named, without its credentials.

Whether the proxy or what is behind it fails is often for nobody to see. Here the proxy is blamed
for what happens on the connection to it, and for refusing to make another one.
"""

from __future__ import annotations

from http import HTTPStatus

from twisted.python.failure import Failure

from proxpi.upstream.errors import ProxyCredentialsRejected, ProxyFailed, failed
from proxpi.upstream.proxies import Proxy


def blamed(proxy: Proxy, failure: Failure) -> ProxyFailed:
    """Give the exception that says why a proxy, or the connection to it, failed."""
    error = failed(proxy.name, failure)
    if isinstance(error, ProxyFailed):
        return error
    return ProxyFailed(proxy.name, error.cause, temporary=error.temporary)


def refused(proxy: Proxy, status: int) -> ProxyFailed:
    """Give the exception that says what a proxy means by a status that is no success."""
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        wanted = "other credentials" if proxy.authorization else "credentials"
        cause = f"it wants {wanted} (status {status})"
        return ProxyCredentialsRejected(proxy.name, cause, temporary=False)
    if status in (408, 425, 429) or status >= 500:
        return ProxyFailed(proxy.name, f"it could not connect (status {status})")
    return ProxyFailed(proxy.name, f"it refuses to connect (status {status})", temporary=False)
