"""Whom to trust, and what to show, when an upstream speaks TLS.

There are at most two OpenSSL contexts in a process: one that shows a client certificate, and one
that does not. All connections share them, since reading the system's certificates for each would
stop the reactor for 10 ms. Versions and ciphers are Twisted's choice: TLS 1.2 at least.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs
from OpenSSL import SSL
from OpenSSL.crypto import X509StoreFlags
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from proxpi.settings import Given
from proxpi.upstream import trust
from proxpi.upstream.handshake import Handshake

Origin = tuple[str, str, int]


def policy(
    *,
    verify: bool,
    environment: Mapping[str, str] | None = None,
    ca_bundle: Given | None = None,
    client_cert: Given | None = None,
    shown_to: Callable[[Origin], bool] = lambda origin: False,
) -> IPolicyForHTTPS:
    """Give the policy for every TLS connection to an upstream.

    :param verify: ``False`` accepts any certificate (``PROXPI_DISABLE_INDEX_SSL_VERIFICATION``)
    :param environment: names certificates in the variables of other programs
    :param ca_bundle: path of more certificates that are trusted (``PROXPI_CA_BUNDLE``)
    :param client_cert: path of the certificate and the key that are shown (``PROXPI_CLIENT_CERT``)
    :param shown_to: tells for an origin whether they are
    :raises SettingsError: for a path that cannot be used
    """
    plain = _context(environment or {}, ca_bundle)
    showing = None
    if client_cert is not None:
        showing = _context(environment or {}, ca_bundle)
        trust.show(showing, client_cert)
    return _Policy(plain, showing, verify, shown_to)


def _context(environment: Mapping[str, str], ca_bundle: Given | None) -> SSL.Context:
    context: SSL.Context = CertificateOptions(verify=False).getContext()
    trust.trust(context, environment, ca_bundle)
    store = context.get_cert_store()
    assert store is not None  # each context has one
    # Whoever is named in a bundle is trusted, also one whose own issuer is not, as curl has it.
    store.set_flags(X509StoreFlags.PARTIAL_CHAIN)
    return context


@implementer(IPolicyForHTTPS)
@attrs.frozen
class _Policy:
    """Chooses the context for an origin."""

    _plain: SSL.Context
    _showing: SSL.Context | None
    _verify: bool
    _shown_to: Callable[[Origin], bool]

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        """See `IPolicyForHTTPS`."""
        # The dot that ends a full name is no part of what is in a certificate.
        host = hostname.decode("ascii").lower().removesuffix(".")
        showing = None
        if self._shown_to(("https", hostname.decode("ascii").lower(), port)):
            showing = self._showing
        return _Creator(
            showing or self._plain,
            host,
            self._verify,
            shows_certificate=showing is not None,
            has_certificate=self._showing is not None,
        )


@implementer(IOpenSSLClientConnectionCreator)
@attrs.frozen
class _Creator:
    """Makes connections to one host."""

    _context: SSL.Context
    _host: str
    _verify: bool
    _shows_certificate: bool
    _has_certificate: bool

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """See `IOpenSSLClientConnectionCreator`."""
        connection = SSL.Connection(self._context, None)
        is_address = isIPAddress(self._host) or isIPv6Address(self._host)
        # Servers with several names choose a certificate, and some the site, by this (RFC 6066).
        if not is_address:
            connection.set_tlsext_host_name(self._host.encode("ascii"))
        handshake = Handshake(
            tlsProtocol, self._host, is_address, self._shows_certificate, self._has_certificate
        )
        connection.set_info_callback(handshake.note)
        if self._verify:
            connection.set_verify(SSL.VERIFY_PEER, handshake.verify)
        return connection
