"""Trust: certificates are checked, unless the operator has said otherwise."""

from __future__ import annotations

from typing import cast

import pytest
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.web.client import BrowserLikePolicyForHTTPS
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface.verify import verifyObject

from proxpi.upstream import tls


def unverified(host: bytes) -> SSL.Connection:
    """Give a connection of the policy that checks nothing."""
    creator = tls.policy(verify=False).creatorForNetloc(host, 443)
    verifyObject(IOpenSSLClientConnectionCreator, creator)
    return creator.clientConnectionForTLS(cast(TLSMemoryBIOProtocol, None))


def test_verifying() -> None:
    """The default is the policy of browsers: chain and name."""
    assert isinstance(tls.policy(verify=True), BrowserLikePolicyForHTTPS)


def test_interface() -> None:
    """The other policy is one as well."""
    verifyObject(IPolicyForHTTPS, tls.policy(verify=False))


def test_not_verifying() -> None:
    """It accepts any certificate, and still says which host it wants."""
    connection = unverified(b"index.example")
    assert connection.get_context().get_verify_mode() == SSL.VERIFY_NONE
    assert connection.get_servername() == b"index.example"


@pytest.mark.parametrize("address", [b"192.0.2.1", b"2001:db8::1"])
def test_no_name_for_addresses(address: bytes) -> None:
    """An address is no server name (RFC 6066)."""
    assert unverified(address).get_servername() is None


def test_one_context() -> None:
    """Connections share what is costly to make."""
    policy = tls.policy(verify=False)
    contexts = {
        id(
            policy.creatorForNetloc(host, 443)
            .clientConnectionForTLS(cast(TLSMemoryBIOProtocol, None))
            .get_context()
        )
        for host in (b"a.example", b"b.example")
    }
    assert len(contexts) == 1
