"""Whom to trust when an upstream speaks TLS.

Checking is left to pyOpenSSL (the chain, against the system's trust) and service-identity
(the name), as Twisted wires them up. ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` are OpenSSL's own
variables and hold here too.
"""

from __future__ import annotations

import attrs
from OpenSSL import SSL
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.web.client import BrowserLikePolicyForHTTPS
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer


def policy(*, verify: bool) -> IPolicyForHTTPS:
    """Give the policy for every TLS connection to an upstream.

    :param verify: ``False`` accepts any certificate (``PROXPI_DISABLE_INDEX_SSL_VERIFICATION``)
    """
    return BrowserLikePolicyForHTTPS() if verify else _AcceptAnything()


@implementer(IPolicyForHTTPS)
@attrs.frozen
class _AcceptAnything:
    """A policy that encrypts and checks nothing."""

    _options: CertificateOptions = attrs.field(factory=lambda: CertificateOptions(verify=False))

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        """See `IPolicyForHTTPS`."""
        return _Unverified(self._options.getContext(), hostname)


@implementer(IOpenSSLClientConnectionCreator)
@attrs.frozen
class _Unverified:
    """Makes connections whose peer may be anyone, but that still name the host they want."""

    _context: SSL.Context
    _hostname: bytes

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """See `IOpenSSLClientConnectionCreator`."""
        connection = SSL.Connection(self._context, None)
        host = self._hostname.decode("ascii")
        # Servers with several names choose a certificate, and some the site, by this (RFC 6066).
        if not (isIPAddress(host) or isIPv6Address(host)):
            connection.set_tlsext_host_name(self._hostname)
        return connection
